//! Flags of `sql pipe`.

use clap::Args;

/// What `sql pipe` is told about the pipe.
#[derive(Clone, Debug, Args)]
pub struct PipeFlags {
    /// The stream to read and to take the sample from.
    #[arg(long, value_name = "NAME")]
    pub stream: String,
    /// The table to fill, as `default.orders`; a part that is no plain name stands in backquotes.
    /// One that exists keeps its columns.
    #[arg(long, value_name = "TABLE")]
    pub table: String,
    /// Name of the pipe; that of the table when not given.
    #[arg(long, value_name = "NAME")]
    pub pipe: Option<String>,
    /// Sorting key of a new table.
    #[arg(long, value_name = "EXPR", default_value = "(_timestamp, _shard_id)")]
    pub order_by: String,
    /// Make columns `a_b` of nested objects instead of a column of type Tuple.
    #[arg(long)]
    pub flatten: bool,
    /// Make columns of the JSON that is in the messages of CloudWatch's log events.
    #[arg(long)]
    pub message: bool,
    /// Bring the field SRC, or the nested field A.B, into the column DST. May be given several
    /// times.
    #[arg(long, value_name = "SRC=DST")]
    pub map: Vec<String>,
    /// Give new tables a deduplication window, so that each record is there once; `false` leaves it
    /// out.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub exactly_once: bool,
    /// Leave out the table `<table>_errors` for records that do not fit: they arrive as NULL or
    /// default values.
    #[arg(long, overrides_with = "errors")]
    pub no_errors: bool,
    /// Bring records that do not fit into the table `<table>_errors` instead of the table; this is
    /// the default.
    #[arg(long, overrides_with = "no_errors")]
    pub errors: bool,
    /// Leave out the column `rest` for fields that have no column of their own.
    #[arg(long)]
    pub no_rest: bool,
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
    /// Show the first rows of the sample as they would arrive; nothing is changed.
    #[arg(long)]
    pub dry_run: bool,
}
