//! Flags of `sql dynamodb`.

use clap::Args;

use super::shared::SharedFlags;
use domain::names::StreamName;

/// The flags of `sql dynamodb`.
#[derive(Clone, Debug, Args)]
pub struct DynamoDbFlags {
    /// The DynamoDB table.
    #[arg(long, value_name = "NAME")]
    pub table: String,
    /// The Kinesis stream that receives the table's changes.
    #[arg(long, value_name = "NAME")]
    pub stream: StreamName,
    /// The ClickHouse table, such as `default.users`; put backquotes around a part that is not a
    /// plain identifier. By default, the table of the same name in `default`.
    #[arg(long, value_name = "TABLE")]
    pub target: Option<String>,
    /// Name of the pipe; by default that of the target.
    #[arg(long, value_name = "NAME")]
    pub pipe: Option<String>,
    /// A key attribute and its type (S, N or B): first the partition key, then the sort key. Needed
    /// only if DynamoDB is not accessible.
    #[arg(long, value_name = "NAME:TYPE")]
    pub key: Vec<String>,
    /// The folder of an export to S3, as a URL for ClickHouse's s3(). May be given several times:
    /// one full export, then incremental ones.
    #[arg(long, value_name = "URL")]
    pub export: Vec<String>,
    /// The flags of both generators.
    #[command(flatten)]
    pub shared: SharedFlags,
    /// Show the first items of the sample as they would be inserted; change nothing.
    #[arg(long)]
    pub dry_run: bool,
}
