//! Change capture from DynamoDB: tables and S3 in one `ministack` process, the stream in the shared
//! Kinesis; and what these tests are built on.

mod compare;
mod copy;
mod equality;
pub mod events;
pub mod export;
mod gap;
pub mod items;
mod kit;
mod large;
mod own_shape;
mod page;
mod recreated;
mod shuffled;
mod snapshot;
mod workload;
mod writes;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Config, Credentials, Region};
use aws_sdk_dynamodb::types::{
    ApproximateCreationDateTimePrecision, AttributeDefinition, BillingMode, EnableKinesisStreamingConfiguration,
    KeySchemaElement, KeyType, PutRequest, ScalarAttributeType, WriteRequest,
};
use stack::{MiniStack, REGION};
use std::process::{Command, Output};

use crate::engines::PerEngine;
use crate::world::{binary, block_on, environment_with, kinesis, stack};
use items::{Item, KeySchema};

/// The limit of BatchWriteItem.
const ITEMS_PER_CALL: usize = 25;

/// The process that all tests on an engine share: tables and buckets have names of their own.
pub fn ministack() -> &'static MiniStack {
    static MINISTACK: PerEngine<MiniStack> = PerEngine::new();
    MINISTACK.get_or_init(|| MiniStack::start().expect("a DynamoDB"))
}

/// A client for its DynamoDB.
pub fn client() -> &'static Client {
    static CLIENT: PerEngine<Client> = PerEngine::new();
    CLIENT.get_or_init(|| {
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .endpoint_url(ministack().endpoint())
            .credentials_provider(Credentials::new("test", "test", None, None, "stack"))
            .build();
        Client::from_conf(config)
    })
}

/// The environment of a command or bridge on the shared stack and its DynamoDB, changed as in
/// [`environment_with`].
pub fn environment(changes: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut environment = environment_with(changes);
    if changes.iter().all(|(name, _)| *name != "AWS_ENDPOINT_URL_DYNAMODB") {
        environment.push(("AWS_ENDPOINT_URL_DYNAMODB".to_owned(), ministack().endpoint()));
    }
    environment
}

/// What an export says about a table.
#[derive(Clone, Debug)]
pub struct Table {
    pub name: String,
    pub arn: String,
    pub id: String,
    pub keys: KeySchema,
}

/// Creates a table with these keys: the partition key, then the sort key if there is one. It is
/// ACTIVE at once.
pub fn create_table(name: &str, keys: KeySchema) -> Table {
    let mut request = client().create_table().table_name(name).billing_mode(BillingMode::PayPerRequest);
    for ((attribute, ty), role) in keys.iter().zip([KeyType::Hash, KeyType::Range]) {
        let ty = match ty {
            items::Key::S => ScalarAttributeType::S,
            items::Key::N => ScalarAttributeType::N,
            items::Key::B => ScalarAttributeType::B,
        };
        let definition = AttributeDefinition::builder().attribute_name(*attribute).attribute_type(ty);
        let element = KeySchemaElement::builder().attribute_name(*attribute).key_type(role);
        request = request
            .attribute_definitions(definition.build().expect("a definition"))
            .key_schema(element.build().expect("an element"));
    }
    let table = block_on(request.send()).expect("a table").table_description.expect("its description");
    let text = |text: Option<String>| text.expect("a text in the description");
    Table { name: name.to_owned(), arn: text(table.table_arn), id: text(table.table_id), keys }
}

/// Deletes a table, together with its Kinesis streaming destinations.
pub fn delete_table(name: &str) {
    block_on(client().delete_table().table_name(name).send()).expect("a deletion");
}

/// The ARN of a stream in the shared Kinesis.
pub fn stream_arn(stream: &str) -> String {
    let summary = block_on(kinesis().describe_stream_summary().stream_name(stream).send()).expect("a stream");
    summary.stream_description_summary.expect("a summary").stream_arn
}

/// Makes a stream in the shared Kinesis the destination of a table's changes. `ministack` accepts
/// any ARN, is ACTIVE at once, and describes the destination like AWS; it silently drops what it
/// cannot deliver, since the stream is not its own. So the test writes the events itself.
pub fn enable_streaming(table: &str, stream: &str, microseconds: bool) {
    let precision = match microseconds {
        true => ApproximateCreationDateTimePrecision::Microsecond,
        false => ApproximateCreationDateTimePrecision::Millisecond,
    };
    let configuration =
        EnableKinesisStreamingConfiguration::builder().approximate_creation_date_time_precision(precision).build();
    let request = client().enable_kinesis_streaming_destination().table_name(table).stream_arn(stream_arn(stream));
    block_on(request.enable_kinesis_streaming_configuration(configuration).send()).expect("a destination");
}

/// Writes items in few calls. Their keys must differ.
pub fn put_items<'a>(table: &str, items: impl IntoIterator<Item = &'a Item>) {
    let requests: Vec<WriteRequest> = items
        .into_iter()
        .map(|item| {
            let put = PutRequest::builder().set_item(Some(item.clone().into_iter().collect())).build();
            WriteRequest::builder().put_request(put.expect("an item")).build()
        })
        .collect();
    for part in requests.chunks(ITEMS_PER_CALL) {
        let sent = block_on(client().batch_write_item().request_items(table, part.to_vec()).send()).expect("a write");
        assert!(sent.unprocessed_items.unwrap_or_default().is_empty(), "unprocessed items");
    }
}

/// What `compare.py` prints about a table and its copy in the shared ClickHouse, and whether it
/// found them equal. It uses none of the product's code.
pub fn compare(table: &str, target: &str) -> (bool, String) {
    run_compare(target, &["--dynamodb", &ministack().endpoint(), "--table", table])
}

/// The same with given items instead of a scan.
pub fn compare_with<'a>(items: impl IntoIterator<Item = &'a Item>, keys: KeySchema, target: &str) -> (bool, String) {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("items.jsonl");
    let lines: String = items.into_iter().map(|item| events::marshalled(item) + "\n").collect();
    std::fs::write(&file, lines).expect("a file");
    let names: Vec<&str> = keys.iter().map(|(name, _)| *name).collect();
    run_compare(target, &["--items", &file.display().to_string(), "--keys", &names.join(",")])
}

fn run_compare(target: &str, items: &[&str]) -> (bool, String) {
    let script = stack::checkout().join("tests/it/dynamodb/compare.py");
    let mut command = Command::new(MiniStack::python().expect("a Python"));
    command.arg(script).args(items).args(["--clickhouse", &stack().clickhouse.url(), "--target", target]);
    let output = command.output().expect("an end");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (output.status.success(), printed)
}

/// Runs the bridge's program on the shared stack and its DynamoDB, with variables changed as in
/// [`environment_with`].
pub fn run(environment: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("AWS_") || text.starts_with("KINESIS_BRIDGE_") {
            command.env_remove(&name);
        }
    }
    command.args(arguments).envs(self::environment(environment)).output().expect("an end")
}

/// All items of a table, in no order.
pub fn scan(table: &str) -> Vec<Item> {
    let pages = client().scan().table_name(table).into_paginator().items().send();
    let items = block_on(pages.collect::<Result<Vec<_>, _>>()).expect("a scan");
    items.into_iter().map(|item| item.into_iter().collect()).collect()
}
