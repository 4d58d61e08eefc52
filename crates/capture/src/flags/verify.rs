//! Flags of `dynamodb verify`.

use std::time::Duration;

use clap::Args;

use domain::limits::{MAX_SCAN_SEGMENTS, MAX_VERIFY_RCU, MAX_VERIFY_TIMEOUT, MIN_VERIFY_TIMEOUT};

/// The flags of `dynamodb verify`.
#[derive(Clone, Debug, Args)]
pub struct VerifyFlags {
    /// The DynamoDB table.
    #[arg(long, value_name = "NAME")]
    pub table: String,
    /// The ClickHouse table, such as `default.users`; put backquotes around a part that is not a
    /// plain identifier. By default, the table of the same name in `default`.
    #[arg(long, value_name = "TABLE")]
    pub target: Option<String>,
    /// How many segments of the table to scan in parallel.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_SCAN_SEGMENTS)))]
    pub segments: u32,
    /// Read capacity units to use per second, on average.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_VERIFY_RCU)))]
    pub rcu: u32,
    /// How long to recheck items that differ, after both tables were read.
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = timeout)]
    pub timeout: Duration,
    /// How many items of each kind to show.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub limit: usize,
}

fn timeout(text: &str) -> Result<Duration, String> {
    let allowed = MIN_VERIFY_TIMEOUT..=MAX_VERIFY_TIMEOUT;
    humantime::parse_duration(text).ok().filter(|time| allowed.contains(time)).ok_or_else(|| {
        let format = humantime::format_duration;
        let (least, most) = (format(MIN_VERIFY_TIMEOUT), format(MAX_VERIFY_TIMEOUT));
        format!("it must be a duration from {least} to {most}, such as 30s or 2m")
    })
}
