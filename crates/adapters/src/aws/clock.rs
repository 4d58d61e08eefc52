//! Whether a signature is refused because this machine's clock is wrong.

use std::time::{Duration, SystemTime};

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use humantime::format_duration;

use domain::limits::CLOCK_TOLERANCE;

/// How far the clock is off, as the middle of a sentence, if that is why.
pub(super) fn off_by(message: &str, response: Option<&HttpResponse>) -> Option<String> {
    let (ours, theirs) = told(message).or_else(|| Some((Utc::now(), date(response?)?)))?;
    let off = ours - theirs;
    let (far, side) = if off < TimeDelta::zero() { (-off, "behind") } else { (off, "ahead of") };
    let far = Duration::from_secs(far.num_seconds().try_into().ok()?);
    let minutes = Duration::from_secs((far.as_secs() + 30) / 60 * 60);
    (far > CLOCK_TOLERANCE).then(|| format!("{} {side} AWS's", format_duration(minutes)))
}

/// Our time and AWS's, from `Signature expired: 20240513T080000Z is now earlier than
/// 20240513T081000Z (20240513T081500Z - 5 min.)`, or from `… not yet current …`.
fn told(message: &str) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
    let rest = message.strip_prefix("Signature expired: ").or(message.strip_prefix("Signature not yet current: "))?;
    let (_, theirs) = rest.split_once('(')?;
    Some((time(rest)?, time(theirs)?))
}

/// The time that a text begins with.
fn time(text: &str) -> Option<DateTime<Utc>> {
    let time = text.split(' ').next()?;
    NaiveDateTime::parse_from_str(time, "%Y%m%dT%H%M%SZ").ok().map(|time| time.and_utc())
}

fn date(response: &HttpResponse) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc2822(response.headers().get("date")?).ok().map(|date| date.to_utc())
}

/// How much later the request was signed than this machine's clock says, in seconds: what the SDK
/// learned from earlier answers.
pub(crate) fn ahead(signed: &str, now: SystemTime) -> Option<i64> {
    Some((time(signed)? - DateTime::<Utc>::from(now)).num_seconds())
}
