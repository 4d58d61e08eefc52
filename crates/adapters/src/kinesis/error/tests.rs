//! What AWS answers, through the SDK's own client, and the sentence that it becomes.

use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::{Config, Credentials, Region};
use aws_sdk_kinesis::types::{ShardIteratorType, StartingPosition};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::body::SdkBody;
use chrono::{TimeDelta, Utc};

use super::*;
use crate::aws::nowhere;

/// An answer: its status, its date if it has one, and its body.
struct Answer<'a>(u16, Option<String>, &'a str);

fn client(http: SharedHttpClient) -> Client {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-west-1"))
        .credentials_provider(Credentials::new("AKIA", "secret", None, None, "test"))
        .retry_config(RetryConfig::disabled())
        .http_client(http);
    Client::from_conf(config.build())
}

fn answering(answer: Answer<'_>) -> Client {
    let Answer(status, date, body) = answer;
    let body = body.to_owned();
    client(crate::aws::answering(move || {
        let mut response = HttpResponse::new(status.try_into().unwrap(), SdkBody::from(body.clone()));
        if let Some(date) = &date {
            response.headers_mut().insert("date", date.clone());
        }
        response
    }))
}

/// An error of AWS.
fn aws(code: &str, message: &str) -> String {
    format!(r#"{{"__type":"{code}","message":"{message}"}}"#)
}

async fn get_records(client: &Client) -> KinesisError {
    let error = client.get_records().shard_iterator("i").send().await.unwrap_err();
    let access = nowhere();
    let subject = Subject { call: "GetRecords", access: &access, stream: "orders", shard: "shardId-000000000000" };
    classify(&subject, error)
}

async fn list_shards(client: &Client) -> KinesisError {
    let error = client.list_shards().stream_name("orders").send().await.unwrap_err();
    let access = nowhere();
    classify(&Subject { call: "ListShards", access: &access, stream: "orders", shard: "" }, error)
}

const SHARD: &str = "shard shardId-000000000000 of stream 'orders' in region eu-west-1";
const STREAM: &str = "stream 'orders' in region eu-west-1";

/// What GetRecords makes of an error: its kind and sentence.
async fn told(code: &str, message: &str) -> (&'static str, String) {
    let error = Error::from(get_records(&answering(Answer(400, None, &aws(code, message)))).await);
    (error.code(), error.to_string())
}

#[tokio::test]
async fn the_action_that_aws_names_is_named() {
    let who = "User: arn:aws:iam::123456789012:user/bridge is not authorized to perform:";
    let key = "arn:aws:kms:eu-west-1:123456789012:key/k";
    let none = format!(
        "{who} kinesis:GetRecords on resource: s because no identity-based policy allows the kinesis:GetRecords action"
    );
    let deny = format!("{who} kinesis:GetRecords on resource: s with an explicit deny in a service control policy");
    let kms =
        format!("{who} kms:Decrypt on resource: {key} because no resource-based policy allows the kms:Decrypt action");
    let old = "The ciphertext refers to a customer master key that does not exist, does not exist in this region, or you are not allowed to access.";
    for (code, message, must) in [
        ("AccessDeniedException", &*none, "the policy must allow kinesis:GetRecords"),
        ("AccessDeniedException", &deny, "a policy denies kinesis:GetRecords explicitly"),
        ("AccessDeniedException", &kms, "the policy must allow kms:Decrypt on the KMS key of the stream"),
        ("KMSAccessDeniedException", &kms, "the policy must allow kms:Decrypt on the KMS key of the stream"),
        ("KMSAccessDeniedException", old, "the policy must allow kms:Decrypt on the KMS key of the stream"),
        ("AccessDeniedException", "no", "the policy must allow kinesis:GetRecords"),
    ] {
        let sentence = format!("AWS does not allow GetRecords on {SHARD} ({code}): {must} ({message})");
        assert_eq!(told(code, message).await, ("access_denied", sentence));
    }
    let disabled = told("KMSDisabledException", "key k is disabled").await;
    let sentence =
        format!("GetRecords on {SHARD} cannot use the stream's KMS key (KMSDisabledException): key k is disabled");
    assert_eq!(disabled, ("access_denied", sentence));
}

#[tokio::test]
async fn each_limit_is_told_as_what_it_is() {
    for (code, message, says) in [
        (
            "ProvisionedThroughputExceededException",
            "Rate exceeded for shard shardId-000000000000 in stream orders under account 123456789012.",
            "other consumers share its 5 calls and 2 MiB per second",
        ),
        (
            "KMSThrottlingException",
            "The request was denied due to request throttling.",
            "KMS limits the requests per second, and the stream's key is in KMS; ask AWS for a higher quota",
        ),
    ] {
        let error = get_records(&answering(Answer(400, None, &aws(code, message)))).await;
        let KinesisError::Throttled(sentence) = error else { panic!("{error:?}") };
        assert_eq!(sentence, format!("GetRecords on {SHARD} is throttled ({code}): {says}"));
    }
    let message = "Rate exceeded for stream orders under account 123456789012.";
    let error = list_shards(&answering(Answer(400, None, &aws("LimitExceededException", message)))).await;
    let KinesisError::LimitExceeded(sentence) = error else { panic!("{error:?}") };
    assert_eq!(
        sentence,
        format!(
            "ListShards on {STREAM} exceeds AWS's limit of such calls, and is repeated (LimitExceededException): {message}"
        )
    );
}

#[tokio::test]
async fn a_refused_signature_is_told_as_the_clock_or_as_the_key() {
    let (code, keys) = (
        "InvalidSignatureException",
        "check AWS_ACCESS_KEY_ID, AWS_PROFILE or the role, and that they are for this region",
    );
    let clock = |off: &str| {
        format!(
            "AWS refuses GetRecords on {SHARD} because of this machine's clock, which is {off} AWS's ({code}): set the clock"
        )
    };
    let mismatch = "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and \
                    signing method. Consult the service documentation for details.";
    let key = format!("AWS does not accept the credentials for {SHARD} ({code}): {keys}");
    for (message, sentence) in [
        (
            "Signature expired: 20241231T080000Z is now earlier than 20241231T081000Z (20241231T081500Z - 5 min.)",
            clock("15m behind"),
        ),
        (
            "Signature not yet current: 20241231T090007Z is still later than 20241231T082000Z (20241231T081500Z + 5 min.)",
            clock("45m ahead of"),
        ),
        (mismatch, key.clone()),
    ] {
        assert_eq!(told(code, message).await, ("access_denied", sentence));
    }
    // Where the message does not say it, the date of the answer does.
    let dated =
        |hours: i64| Some((Utc::now() + TimeDelta::hours(hours)).format("%a, %d %b %Y %H:%M:%S GMT").to_string());
    for (date, part) in [
        (dated(3), "clock, which is 3h behind AWS's"),
        (dated(-3), "clock, which is 3h ahead of AWS's"),
        (dated(0), &*key),
    ] {
        let error = Error::from(get_records(&answering(Answer(403, date, &aws(code, mismatch)))).await);
        assert!(error.to_string().contains(part), "{error}");
    }
    for code in ["UnrecognizedClientException", "MissingAuthenticationTokenException", "IncompleteSignature"] {
        let sentence = format!("AWS does not accept the credentials for {SHARD} ({code}): {keys}");
        assert_eq!(
            told(code, "The security token included in the request is invalid.").await,
            ("access_denied", sentence)
        );
    }
    let expired = told("ExpiredTokenException", "The security token included in the request is expired").await;
    let sentence =
        format!("the AWS credentials for {SHARD} have expired (ExpiredTokenException): renew them, or use a role");
    assert_eq!(expired, ("access_denied", sentence));
}

#[tokio::test]
async fn an_answer_that_is_not_of_aws_is_quoted_with_its_host() {
    let long = format!("<html>\n<title>Blocked</title>{}", "x".repeat(1_000));
    for (status, body, quoted) in [
        (
            403,
            "<html>\r\n<body>Access to this site is blocked</body>",
            "'<html>  <body>Access to this site is blocked</body>'",
        ),
        (200, "<html>Log in</html>", "'<html>Log in</html>'"),
        (502, "", "an empty body"),
        (407, "{\"error\": \"no\"}", "'{\"error\": \"no\"}'"),
        (503, &long, &format!("'<html> <title>Blocked</title>{}'", "x".repeat(200 - 29))),
    ] {
        let error = Error::from(list_shards(&answering(Answer(status, None, body))).await);
        let sentence = format!(
            "ListShards on {STREAM} was answered by kinesis.eu-west-1.amazonaws.com with status {status} and {quoted}, which Kinesis does not \
             send: look for a proxy or gateway in between, and at AWS_ENDPOINT_URL"
        );
        assert_eq!((error.code(), error.to_string()), ("unavailable", sentence));
    }
}

#[tokio::test]
async fn a_host_that_is_not_reached_is_named() {
    let access = nowhere();
    let list = |endpoint: &str| {
        let config = client(access.http_client()).config().to_builder().endpoint_url(endpoint).build();
        let client = Client::from_conf(config);
        async move { Error::from(list_shards(&client).await) }
    };
    let closed = list("http://127.0.0.1:9").await;
    let sentence =
        format!("ListShards on {STREAM} did not reach Kinesis at 127.0.0.1:9: Connection refused (os error 111)");
    assert_eq!((closed.code(), closed.to_string()), ("unavailable", sentence));
    let unknown = list("http://no-such-host.invalid").await;
    let start =
        format!("ListShards on {STREAM} did not reach Kinesis at no-such-host.invalid: failed to lookup address");
    let told = unknown.to_string();
    assert!(told.starts_with(&start) && told.ends_with("; check the region, AWS_ENDPOINT_URL and DNS"), "{told}");
}

/// Calls that name a stream go to the region's host, those that name a consumer to the account's.
#[tokio::test]
async fn fan_out_goes_to_hosts_of_the_account() {
    let (client, access) = (answering(Answer(403, None, "no")), nowhere());
    let stream = "arn:aws:kinesis:eu-west-1:123456789012:stream/orders";
    let start = StartingPosition::builder().r#type(ShardIteratorType::Latest).build().unwrap();
    let subscribe = client.subscribe_to_shard().consumer_arn(format!("{stream}/consumer/bridge:1")).shard_id("s");
    let data = subscribe.starting_position(start).send().await.unwrap_err();
    let subject = |call| Subject { call, access: &access, stream: "orders", shard: "" };
    let data = Error::from(classify(&subject("SubscribeToShard"), data)).to_string();
    assert!(
        data.contains("was answered by 123456789012.data-kinesis.eu-west-1.amazonaws.com with status 403"),
        "{data}"
    );
    let control = client.register_stream_consumer().stream_arn(stream).consumer_name("c").send().await.unwrap_err();
    let control = Error::from(classify(&subject("RegisterStreamConsumer"), control)).to_string();
    assert!(control.contains("was answered by 123456789012.control-kinesis.eu-west-1.amazonaws.com with"), "{control}");
}
