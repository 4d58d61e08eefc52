//! The packages `aws-kinesis-agg` from PyPI and from npm, which `scripts/install.sh` installs, as
//! writers of aggregates.

use std::io::{Seek, Write};
use std::process::{Command, Stdio};

use aws_smithy_types::base64;

/// A record as an application passes it to a writer.
#[derive(Clone, Debug)]
pub struct UserRecord {
    pub key: String,
    pub data: Vec<u8>,
    /// A decimal number instead of the key's hash.
    pub hash_key: Option<String>,
}

impl UserRecord {
    pub fn new(key: impl Into<String>, data: impl Into<Vec<u8>>) -> UserRecord {
        UserRecord { key: key.into(), data: data.into(), hash_key: None }
    }
}

/// One of the packages.
#[derive(Clone, Copy, Debug)]
pub enum Writer {
    Python,
    Node,
}

impl Writer {
    pub const ALL: [Writer; 2] = [Writer::Python, Writer::Node];

    /// The payloads of these aggregates.
    pub fn write(self, aggregates: &[Vec<UserRecord>]) -> Vec<Vec<u8>> {
        let mut input = tempfile::tempfile().expect("a temporary file");
        for records in aggregates {
            let record = |r: &UserRecord| (r.key.clone(), base64::encode(&r.data), r.hash_key.clone());
            let line = serde_json::to_string(&records.iter().map(record).collect::<Vec<_>>()).expect("a line");
            writeln!(input, "{line}").expect("the input");
        }
        input.rewind().expect("the input");
        let output = self.program().stdin(Stdio::from(input)).stderr(Stdio::inherit()).output();
        let output = output.expect("the writer starts: run scripts/install.sh first");
        assert!(output.status.success(), "the writer {self:?} failed: {}", output.status);
        let text = String::from_utf8(output.stdout).expect("base64");
        let payloads: Vec<_> = text.lines().map(|line| base64::decode(line).expect("base64")).collect();
        assert_eq!(payloads.len(), aggregates.len(), "aggregates of {self:?}");
        payloads
    }

    fn program(self) -> Command {
        let installed = stack::checkout().join(".stack");
        let source = |name: &str| stack::checkout().join("tests/it/aggregates").join(name);
        match self {
            Writer::Python => {
                let mut program = Command::new(installed.join("kpl-writer-python-1.2.3/bin/python"));
                program.arg(source("writer.py"));
                program
            }
            Writer::Node => {
                let mut program = Command::new("node");
                program.arg(source("writer.js")).env("NODE_PATH", installed.join("kpl-writer-node-4.2.8/node_modules"));
                program
            }
        }
    }
}
