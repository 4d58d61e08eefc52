//! Describes a table, and where its changes go.

use adapters::aws::Access;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::Builder;
use aws_sdk_dynamodb::types::ScalarAttributeType;

use super::error::explain;
use domain::error::Error;
use domain::limits::{KINESIS_ATTEMPT_TIMEOUT, KINESIS_CALL_TIMEOUT};

/// DynamoDB in one account and region.
pub struct DynamoDb {
    pub(super) client: Client,
    pub(super) access: Access,
}

/// A table as DynamoDB describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Its ARN.
    pub arn: String,
    /// Different from that of an earlier table of the same name.
    pub id: String,
    /// `ACTIVE`, among others.
    pub status: String,
    /// Unix ms.
    pub created_ms: i64,
    /// The partition key, then the sort key if there is one.
    pub keys: Vec<KeyAttribute>,
}

/// An attribute of the primary key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyAttribute {
    /// Its name.
    pub name: String,
    /// Its type.
    pub ty: KeyType,
}

/// The types that a key attribute may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    /// Text.
    S,
    /// A number of up to 38 digits.
    N,
    /// Bytes.
    B,
}

/// A Kinesis stream that receives the changes of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The stream.
    pub stream_arn: String,
    /// `ACTIVE`, among others.
    pub status: String,
    /// Whether timestamps are in microseconds; AWS's default is milliseconds.
    pub microseconds: bool,
}

impl DynamoDb {
    /// Takes region, credentials, roles and endpoint from the environment.
    pub async fn from_environment() -> Result<DynamoDb, Error> {
        let timeouts = TimeoutConfig::builder()
            .operation_timeout(KINESIS_CALL_TIMEOUT)
            .operation_attempt_timeout(KINESIS_ATTEMPT_TIMEOUT)
            .build();
        let access = Access::from_environment(timeouts).await?;
        let config = Builder::from(access.sdk()).retry_classifier(access.retry()).build();
        Ok(DynamoDb { client: Client::from_conf(config), access })
    }

    /// Describes the table (`dynamodb:DescribeTable`).
    pub async fn table(&self, name: &str) -> Result<Table, Error> {
        let sent = self.client.describe_table().table_name(name).send().await;
        let output = sent.map_err(|e| explain("DescribeTable", name, &self.access, &e))?;
        let nothing = || Error::Unavailable(format!("DescribeTable of DynamoDB table '{name}' returned nothing"));
        let table = output.table.ok_or_else(nothing)?;
        let types = table.attribute_definitions.unwrap_or_default();
        let key = |name: &str| {
            let found = types.iter().find(|a| a.attribute_name == name)?;
            let ty = match found.attribute_type {
                ScalarAttributeType::S => KeyType::S,
                ScalarAttributeType::N => KeyType::N,
                ScalarAttributeType::B => KeyType::B,
                _ => return None,
            };
            Some(KeyAttribute { name: name.to_owned(), ty })
        };
        // The API returns the partition key first.
        let keys = table.key_schema.unwrap_or_default();
        let keys: Option<Vec<KeyAttribute>> = keys.iter().map(|k| key(&k.attribute_name)).collect();
        let keys = keys.filter(|keys| !keys.is_empty()).ok_or_else(nothing)?;
        Ok(Table {
            name: name.to_owned(),
            arn: table.table_arn.unwrap_or_default(),
            id: table.table_id.unwrap_or_default(),
            status: table.table_status.map_or_else(String::new, |s| s.as_str().to_owned()),
            created_ms: table.creation_date_time.and_then(|t| t.to_millis().ok()).unwrap_or(0),
            keys,
        })
    }

    /// The streams that receive the table's changes
    /// (`dynamodb:DescribeKinesisStreamingDestination`), including those that no longer do.
    pub async fn destinations(&self, table: &str) -> Result<Vec<Destination>, Error> {
        let sent = self.client.describe_kinesis_streaming_destination().table_name(table).send().await;
        let output = sent.map_err(|e| explain("DescribeKinesisStreamingDestination", table, &self.access, &e))?;
        let destinations = output.kinesis_data_stream_destinations.unwrap_or_default().into_iter();
        Ok(destinations
            .map(|d| Destination {
                stream_arn: d.stream_arn.unwrap_or_default(),
                status: d.destination_status.map_or_else(String::new, |s| s.as_str().to_owned()),
                microseconds: d.approximate_creation_date_time_precision.is_some_and(|p| p.as_str() == "MICROSECOND"),
            })
            .collect())
    }
}
