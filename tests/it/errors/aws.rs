//! Credentials, permissions, regions, and an unavailable Kinesis.

use crate::proxy::{Fault, Proxy};
use crate::world::{
    bridge, bridge_in, create_pipe, create_stream, drop_pipe, message, refresh_exception, stack, wait_until,
};

/// Two messages: that of a SELECT, and that of a pipe's view.
struct Case {
    name: &'static str,
    fault: Option<Fault>,
    environment: &'static [(&'static str, &'static str)],
    records: &'static str,
    pipe: &'static str,
}

const SESSION_TOKEN: &str = "session-token-of-the-test";
const SECRET_KEY: &str = "secret-key-of-the-test";

const CASES: [Case; 7] = [
    Case {
        name: "no_credentials",
        fault: None,
        environment: &[("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", ""), ("HOME", "/nowhere")],
        records: "there are no AWS credentials for stream 'err-aws' in region us-east-1: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, \
                  AWS_PROFILE, or run with a role",
        pipe: "there are no AWS credentials for stream 'err-aws' in region us-east-1: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, \
               AWS_PROFILE, or run with a role",
    },
    Case {
        name: "wrong_region",
        fault: None,
        environment: &[("AWS_REGION", "eu-west-1")],
        records: "stream 'err-aws' in region eu-west-1 does not exist: check the name, the region (AWS_REGION) and the account (ListShards: \
                  Stream err-aws under account 000000000000 not found.)",
        pipe: "stream 'err-aws' in region eu-west-1 does not exist: check the name, the region (AWS_REGION) and the account \
               (DescribeStreamSummary: Stream err-aws under account 000000000000 not found.)",
    },
    Case {
        name: "wrong_key",
        fault: Some(Fault::Aws(400, "UnrecognizedClientException")),
        environment: &[],
        records: "AWS does not accept the credentials for stream 'err-aws' in region us-east-1 (UnrecognizedClientException): check AWS_ACCESS_KEY_ID, AWS_PROFILE or the role, and that they are for this region",
        pipe: "AWS does not accept the credentials for stream 'err-aws' in region us-east-1 (UnrecognizedClientException): check AWS_ACCESS_KEY_ID, AWS_PROFILE or the role, and that they are for this region",
    },
    Case {
        name: "wrong_secret",
        fault: Some(Fault::Aws(400, "InvalidSignatureException")),
        environment: &[],
        records: "AWS does not accept the credentials for stream 'err-aws' in region us-east-1 (InvalidSignatureException): check AWS_ACCESS_KEY_ID, AWS_PROFILE or the role, and that they are for this region",
        pipe: "AWS does not accept the credentials for stream 'err-aws' in region us-east-1 (InvalidSignatureException): check AWS_ACCESS_KEY_ID, AWS_PROFILE or the role, and that they are for this region",
    },
    Case {
        name: "expired",
        fault: Some(Fault::Aws(400, "ExpiredTokenException")),
        environment: &[("AWS_SESSION_TOKEN", SESSION_TOKEN), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY)],
        records: "the AWS credentials for stream 'err-aws' in region us-east-1 have expired (ExpiredTokenException): renew them, or use a role",
        pipe: "the AWS credentials for stream 'err-aws' in region us-east-1 have expired (ExpiredTokenException): renew them, or use a role",
    },
    Case {
        name: "denied",
        fault: Some(Fault::Aws(400, "AccessDeniedException")),
        environment: &[],
        records: "AWS does not allow ListShards on stream 'err-aws' in region us-east-1 (AccessDeniedException): the policy must allow \
                  kinesis:ListShards (said by the test)",
        pipe: "AWS does not allow DescribeStreamSummary on stream 'err-aws' in region us-east-1 (AccessDeniedException): the policy must allow \
               kinesis:DescribeStreamSummary (said by the test)",
    },
    Case {
        name: "away",
        fault: None,
        environment: &[("AWS_ENDPOINT_URL", "http://127.0.0.1:9")],
        records: "ListShards on stream 'err-aws' in region us-east-1 did not reach Kinesis at 127.0.0.1:9: Connection refused (os error 111)",
        pipe: "DescribeStreamSummary on stream 'err-aws' in region us-east-1 did not reach Kinesis at 127.0.0.1:9: Connection refused (os error 111)",
    },
];

#[test]
fn what_aws_refuses_is_told_in_queries_and_views() {
    for case in CASES {
        let proxy = case.fault.map(|fault| Proxy::start(&stack().kinesis.endpoint(), move |_| fault));
        let endpoint = proxy.as_ref().map(Proxy::endpoint);
        let mut environment = case.environment.to_vec();
        environment.extend(endpoint.as_deref().map(|endpoint| ("AWS_ENDPOINT_URL", endpoint)));
        let name = case.name;
        let bridge = bridge_in(&format!("err_aws_{name}"), &[("--log-level", "trace")], &environment);
        super::assert_told(&bridge, "/v1/streams/err-aws/records", case.records);
        let pipe = format!("err_aws_{name}");
        create_pipe(&bridge, &pipe, &format!("stream=err-aws&view=default.{pipe}_view"));
        // A pull that meets the end of the previous one is asked to retry.
        let told = || message(&refresh_exception(&format!("{pipe}_view"))).to_owned();
        wait_until(&format!("{:?} in the place of {:?}", case.pipe, told()), || told() == case.pipe);
        drop_pipe(&pipe);
        let log = bridge.log();
        for secret in [SESSION_TOKEN, SECRET_KEY] {
            let line = log.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "{name}");
        }
    }
}

#[test]
fn a_start_that_has_not_come_yet_is_named() {
    create_stream("err-future", 1);
    let bridge = bridge("err_future", &[]);
    create_pipe(
        &bridge,
        "err_future",
        "stream=err-future&view=default.err_future_view&start=2100-01-01T00:00:00Z&wait_ms=1000",
    );
    let parts = [
        "shard shardId-000000000000 of stream 'err-future'",
        "from 2100-01-01T00:00:00.000Z on",
        "in the future",
        "seek",
    ];
    let told = || message(&refresh_exception("err_future_view")).to_owned();
    wait_until("the sentence", || parts.iter().all(|part| told().contains(part)));
    drop_pipe("err_future");
}
