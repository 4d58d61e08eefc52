//! Flags that `sql pipe` and `sql dynamodb` share.

use clap::Args;
use domain::interface::Parameter;

const POLLING: &str = "polling";
const TRIM_HORIZON: &str = "trim_horizon";

/// The flags of both.
#[derive(Clone, Debug, Args)]
pub struct SharedFlags {
    /// The ClickHouse user that the views run as; created if it does not exist, and granted only
    /// what the views need. By default, they run as the user who creates them.
    #[arg(long, value_name = "USER")]
    pub definer: Option<String>,
    /// How the pipe reads: polling, or efo for enhanced fan-out.
    #[arg(long, value_name = "MODE", default_value = POLLING)]
    pub mode: String,
    /// Where the pipe starts: trim_horizon, latest, a time, or an offset such as -1h before its
    /// first pull.
    #[arg(long, value_name = "POSITION", default_value = TRIM_HORIZON, allow_hyphen_values = true)]
    pub start: String,
    /// Run the statements instead of only printing them.
    #[arg(long, conflicts_with = "dry_run")]
    pub apply: bool,
}

impl SharedFlags {
    /// Parameters of the pipe's URL: name, value, and the default, which need not be written.
    pub fn parameters(&self) -> [(Parameter, &str, &'static str); 2] {
        [(Parameter::Start, &self.start, TRIM_HORIZON), (Parameter::Mode, &self.mode, POLLING)]
    }
}
