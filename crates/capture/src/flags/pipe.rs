//! Flags of `sql pipe`.

use clap::Args;

use super::shared::SharedFlags;
use domain::limits::MAX_VIEWS_PER_PIPE;
use domain::names::StreamName;

/// The flags of `sql pipe`.
#[derive(Clone, Debug, Args)]
pub struct PipeFlags {
    /// The stream to read and to sample.
    #[arg(long, value_name = "NAME")]
    pub stream: StreamName,
    /// The table to fill, such as `default.orders`; put backquotes around a part that is not a
    /// plain identifier. An existing table keeps its columns.
    #[arg(long, value_name = "TABLE")]
    pub table: String,
    /// Name of the pipe; by default that of the table.
    #[arg(long, value_name = "NAME")]
    pub pipe: Option<String>,
    /// Sorting key of a new table.
    #[arg(long, value_name = "EXPR", default_value = "(_timestamp, _shard_id)")]
    pub order_by: String,
    /// Turn nested objects into columns `a_b` instead of one column of type Tuple.
    #[arg(long)]
    pub flatten: bool,
    /// Turn the JSON inside the messages of CloudWatch log events into columns.
    #[arg(long)]
    pub message: bool,
    /// Load the field SRC, or the nested field A.B, into the column DST. May be given several
    /// times.
    #[arg(long, value_name = "SRC=DST")]
    pub map: Vec<String>,
    /// Give new tables a deduplication window, so that each record is inserted exactly once;
    /// `false` omits it.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub exactly_once: bool,
    /// How many views pull the pipe into the table side by side, each with shards of its own: a view
    /// inserts with one thread. Adding or dropping one later moves shards between them.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=MAX_VIEWS_PER_PIPE as i64))]
    pub views: u8,
    /// Omit the table `<table>_errors` for records that do not fit: they are inserted as NULL or
    /// default values instead.
    #[arg(long, overrides_with = "errors")]
    pub no_errors: bool,
    /// Put records that do not fit into the table `<table>_errors` instead of the table; this is
    /// the default.
    #[arg(long, overrides_with = "no_errors")]
    pub errors: bool,
    /// Omit the column `rest` for fields that have no column of their own.
    #[arg(long)]
    pub no_rest: bool,
    /// The flags of both generators.
    #[command(flatten)]
    pub shared: SharedFlags,
    /// Show the first rows of the sample as they would be inserted; change nothing.
    #[arg(long)]
    pub dry_run: bool,
}
