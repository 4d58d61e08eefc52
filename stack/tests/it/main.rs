//! Tests of the local stack itself, against the real components.

mod bridge;
mod clickhouse;
mod engines;
mod kinesis;
mod supervision;
mod zookeeper;

/// A temporary folder for one test's components.
fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("stack-test-").tempdir().expect("a temporary folder")
}
