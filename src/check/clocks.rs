//! Whether the clocks of this machine, AWS and ClickHouse agree.

use adapters::clickhouse::ClickHouse;
use adapters::clock::SystemClock;
use adapters::kinesis::AwsKinesis;
use domain::finding::{Finding, Verdict};
use domain::limits::{CLOCK_DIFFERS_MS, CLOCK_REFUSED_MS};
use domain::ports::{Clock, KinesisApi};

/// A finding for each other clock that can be read.
pub async fn of(kinesis: Option<&AwsKinesis>, clickhouse: &ClickHouse) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(theirs) = kinesis.and_then(KinesisApi::now_ms) {
        findings.push(finding("AWS", theirs - SystemClock.now_ms(), CLOCK_REFUSED_MS));
    }
    let before = SystemClock.now_ms();
    // Whether it answers is another finding.
    if let Ok(theirs) = clickhouse.now_ms().await {
        let meanwhile = before + (SystemClock.now_ms() - before) / 2;
        findings.push(finding("ClickHouse", theirs - meanwhile, i64::MAX));
    }
    findings
}

/// `ahead`: by how much the other clock is ahead of this machine's, ms.
fn finding(whose: &str, ahead: i64, refused: i64) -> Finding {
    let what = format!("clock of {whose}");
    let seconds = ahead.unsigned_abs() / 1_000;
    let side = if ahead < 0 { "ahead of" } else { "behind" };
    let says = format!(
        "this machine's clock is {seconds} s {side} that of {whose}: set one of them right, for example with NTP"
    );
    match ahead.abs() {
        near if near < CLOCK_DIFFERS_MS => Finding::new(what, Verdict::Fine, "agrees with this machine's"),
        far if far >= refused => Finding::new(
            what,
            Verdict::Bad,
            format!("{says}. AWS refuses requests that are signed more than 5 minutes early or late"),
        ),
        _ => Finding::new(what, Verdict::Note, says),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_wrong_by_so_much() {
        let of = |ahead| finding("AWS", ahead, CLOCK_REFUSED_MS);
        assert_eq!((of(9_000).verdict, of(-9_000).verdict), (Verdict::Fine, Verdict::Fine));
        assert!(of(61_000).verdict == Verdict::Note && of(61_000).says.contains("61 s behind that of AWS"));
        assert!(of(-301_000).verdict == Verdict::Bad && of(-301_000).says.contains("301 s ahead of that of AWS"));
        assert_eq!(finding("ClickHouse", -301_000, i64::MAX).verdict, Verdict::Note);
    }
}
