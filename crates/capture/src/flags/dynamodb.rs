//! Flags of `sql dynamodb`.

use clap::Args;

/// What `sql dynamodb` is told about the table, its stream and its exports.
#[derive(Clone, Debug, Args)]
pub struct DynamoDbFlags {
    /// The table in DynamoDB.
    #[arg(long, value_name = "NAME")]
    pub table: String,
    /// The Kinesis stream that takes the table's changes.
    #[arg(long, value_name = "NAME")]
    pub stream: String,
    /// The table in ClickHouse, as `default.users`; a part that is no plain name stands in
    /// backquotes. By default that of the same name in `default`.
    #[arg(long, value_name = "TABLE")]
    pub target: Option<String>,
    /// Name of the pipe; that of the target when not given.
    #[arg(long, value_name = "NAME")]
    pub pipe: Option<String>,
    /// A key attribute with its type, S, N or B: first the partition key, then the sort key. Needed
    /// where DynamoDB cannot be asked.
    #[arg(long, value_name = "NAME:TYPE")]
    pub key: Vec<String>,
    /// The folder of an export to S3, as ClickHouse's s3() takes it. May be given several times:
    /// one full export, then incremental ones.
    #[arg(long, value_name = "URL")]
    pub export: Vec<String>,
    /// The ClickHouse user that the views run as; created if there is none, and granted only what
    /// the views need. By default they run as the user who creates them.
    #[arg(long, value_name = "USER")]
    pub definer: Option<String>,
    /// How the pipe reads: polling, or efo for enhanced fan-out.
    #[arg(long, value_name = "MODE", default_value = "polling")]
    pub mode: String,
    /// Where the pipe begins: trim_horizon, latest, or a time, also one so long before its first
    /// pull as -1h.
    #[arg(long, value_name = "POSITION", default_value = "trim_horizon", allow_hyphen_values = true)]
    pub start: String,
    /// Run the statements instead of only printing them.
    #[arg(long, conflicts_with = "dry_run")]
    pub apply: bool,
    /// Show the first items of the sample as they would arrive; nothing is changed.
    #[arg(long)]
    pub dry_run: bool,
}
