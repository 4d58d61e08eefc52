//! Flags that `sql pipe` and `sql dynamodb` share.

use clap::Args;

/// The flags of both.
#[derive(Clone, Debug, Args)]
pub struct SharedFlags {
    /// The ClickHouse user that the views run as; created if it does not exist, and granted only
    /// what the views need. By default, they run as the user who creates them.
    #[arg(long, value_name = "USER")]
    pub definer: Option<String>,
    /// How the pipe reads: polling, or efo for enhanced fan-out.
    #[arg(long, value_name = "MODE", default_value = "polling")]
    pub mode: String,
    /// Where the pipe starts: trim_horizon, latest, a time, or an offset such as -1h before its
    /// first pull.
    #[arg(long, value_name = "POSITION", default_value = "trim_horizon", allow_hyphen_values = true)]
    pub start: String,
    /// Run the statements instead of only printing them.
    #[arg(long, conflicts_with = "dry_run")]
    pub apply: bool,
}
