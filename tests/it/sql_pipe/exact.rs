//! Whether a column has exactly what was sent, whatever its type: numbers as decimals, times as
//! instants.

use std::net::IpAddr;

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};

use super::arrivals::Json;
use crate::engines::on_each_engine;

on_each_engine!(what_is_not_exact_is_seen,);

/// A decimal number: its sign, its digits without zeros at both ends, and the power of ten of the
/// first.
fn decimal(text: &str) -> Option<(bool, String, i64)> {
    let (negative, number) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if whole.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let exponent: i64 = exponent.strip_prefix('+').unwrap_or(exponent).parse().ok()?;
    let zeros = digits.len() - digits.trim_start_matches('0').len();
    let significant = digits.trim_matches('0').to_string();
    // There is only one zero.
    let (negative, place) =
        if significant.is_empty() { (false, 0) } else { (negative, exponent + whole.len() as i64 - zeros as i64) };
    Some((negative, significant, place))
}

/// Whether both texts are the same number.
pub fn same_number(one: &str, other: &str) -> bool {
    decimal(one).is_some_and(|number| decimal(other) == Some(number))
}

/// Whether `got`, from a row as ClickHouse prints it, is what was sent to a column of type `ty`,
/// together with what is in `rest`. Null and missing values fit everywhere.
pub fn exact(sent: &Json, got: &Json, rest: &[(String, Json)], ty: &str) -> bool {
    match (sent, got) {
        (Json::Null, _) => true,
        // Padded with zeros, like the type.
        (sent, Json::Text(filled)) if ty.contains("FixedString") && filled.ends_with('\0') => {
            exact(sent, &Json::Text(filled.trim_end_matches('\0').into()), rest, ty)
        }
        (Json::Number(sent), Json::Number(got)) => same_number(sent, got),
        (Json::Number(sent), Json::Text(got)) => {
            same_number(sent, got) || is_at(sent, got, ty) || is_code(sent, got, ty)
        }
        (Json::Text(sent), Json::Number(got)) => same_number(sent, got),
        (Json::Text(sent), Json::Text(got)) => same_text(sent, got, ty),
        (Json::Bool(sent), Json::Text(got)) => sent.to_string() == *got,
        (Json::Array(sent), Json::Array(got)) => {
            sent.len() == got.len() && sent.iter().zip(got).all(|(sent, got)| exact(sent, got, rest, ty))
        }
        // As text, including both of two fields with one name.
        (Json::Array(_) | Json::Object(_), Json::Text(got)) => {
            Json::parse(got).is_some_and(|got| same_json(sent, &got))
        }
        (Json::Object(sent), Json::Object(got)) => same_object(sent, got, rest, ty),
        (sent, got) => sent == got,
    }
}

/// Whether a number is that of a name in an Enum.
fn is_code(sent: &str, got: &str, ty: &str) -> bool {
    let code = ty.split_once(&format!("'{got}' = ")).map_or("", |(_, rest)| rest);
    let end = code.find([',', ')']).unwrap_or(0);
    same_number(sent, &code[..end])
}

fn same_object(sent: &[(String, Json)], got: &[(String, Json)], rest: &[(String, Json)], ty: &str) -> bool {
    let twice = sent.iter().any(|(name, _)| sent.iter().filter(|(other, _)| other == name).count() > 1);
    // As the type requires.
    let skipped = |name: &str| ty.contains("SKIP secret") && (name == "secret" || name.starts_with("tmp"));
    let here = |name: &str, value: &Json| match got.iter().find(|(known, _)| known == name) {
        Some((_, got)) => exact(value, got, rest, ty),
        None => *value == Json::Null || skipped(name) || in_rest(name, value, rest),
    };
    let more = got.iter().filter(|(name, _)| sent.iter().all(|(known, _)| known != name));
    !twice && sent.iter().all(|(name, value)| here(name, value)) && more.into_iter().all(|(_, value)| is_default(value))
}

/// An unknown field, by the end of its path.
fn in_rest(name: &str, value: &Json, rest: &[(String, Json)]) -> bool {
    rest.iter().any(|(path, text)| {
        let Json::Text(text) = text else { return false };
        path.ends_with(&format!(".{name}")) && Json::parse(text).is_some_and(|got| same_json(value, &got))
    })
}

fn is_default(got: &Json) -> bool {
    match got {
        Json::Null | Json::Bool(false) => true,
        Json::Number(number) => same_number(number, "0"),
        Json::Text(text) => text.is_empty(),
        Json::Array(elements) => elements.is_empty() || elements.iter().all(is_default),
        Json::Object(fields) => fields.iter().all(|(_, value)| is_default(value)),
        Json::Bool(true) => false,
    }
}

/// The same JSON, with numbers as decimals.
fn same_json(sent: &Json, got: &Json) -> bool {
    match (sent, got) {
        (Json::Number(sent), Json::Number(got)) => same_number(sent, got),
        (Json::Array(sent), Json::Array(got)) => {
            sent.len() == got.len() && sent.iter().zip(got).all(|(sent, got)| same_json(sent, got))
        }
        (Json::Object(sent), Json::Object(got)) => {
            let same = |((name, sent), (known, got)): (&(String, Json), &(String, Json))| {
                name == known && same_json(sent, got)
            };
            sent.len() == got.len() && sent.iter().zip(got).all(same)
        }
        (sent, got) => sent == got,
    }
}

/// Whether a time, as ClickHouse prints it, equals this number in the unit of its type.
fn is_at(sent: &str, got: &str, ty: &str) -> bool {
    let Some(time) = local(got) else { return false };
    let scale = ty.split_once("DateTime64(").and_then(|(_, rest)| rest.chars().next()?.to_digit(10));
    let (time, unit) = (time.and_utc(), 10_i128.pow(scale.unwrap_or(0)));
    let ticks = i128::from(time.timestamp()) * unit + i128::from(time.timestamp_subsec_nanos()) * unit / 1_000_000_000;
    same_number(sent, &ticks.to_string())
}

fn local(text: &str) -> Option<NaiveDateTime> {
    NaiveDateTime::parse_from_str(&text.replace('T', " "), "%Y-%m-%d %H:%M:%S%.f").ok()
}

fn same_text(sent: &str, got: &str, ty: &str) -> bool {
    let instant = |text: &str| {
        DateTime::parse_from_rfc3339(&text.replacen(' ', "T", 1)).map(|t| t.with_timezone(&Utc).naive_utc()).ok()
    };
    let time = || instant(sent).or(local(sent)).is_some_and(|sent| local(got) == Some(sent));
    let day = |text: &str| text.parse::<NaiveDate>().ok();
    let uuid = |text: &str| text.replace('-', "").to_lowercase();
    // An IPv4 address has its place among IPv6 ones.
    let address = |text: &str| {
        text.parse::<IpAddr>().ok().map(|address| match address {
            IpAddr::V4(old) => old.to_ipv6_mapped(),
            IpAddr::V6(new) => new,
        })
    };
    sent == got
        || ty.contains("Date")
            && (time() || day(sent).is_some_and(|sent| day(got) == Some(sent)) || is_at(sent, got, "DateTime"))
        || ty.contains("UUID") && got.len() == 36 && uuid(sent) == uuid(got)
        || ty.contains("IPv") && address(sent).is_some_and(|sent| address(got) == Some(sent))
}

fn what_is_not_exact_is_seen() {
    let is = |sent: &str, got: &str, ty: &str| {
        exact(&Json::parse(sent).expect(sent), &Json::parse(got).expect(got), &[], ty)
    };
    for (sent, got, ty) in [
        ("1.10", "1.1", "Float64"),
        ("1E+05", "100000", "Int64"),
        ("\"1.50\"", "1.5", "Decimal(9, 2)"),
        ("1e400", "\"1e400\"", "String"),
        ("{\"a\":1,\"a\":2}", "\"{\\\"a\\\":1,\\\"a\\\":2.0}\"", "String"),
        ("1795255200123", "\"2026-11-21 10:00:00.123\"", "DateTime64(3, 'UTC')"),
        ("\"ab\"", "\"ab\\u0000\\u0000\"", "FixedString(4)"),
    ] {
        assert!(is(sent, got, ty), "{sent} {got}");
    }
    for (sent, got, ty) in [
        ("8.232762829599804", "8.232762829599803", "Float64"),
        ("1.5", "1", "Variant(Int64, UUID)"),
        ("\"x\"", "[0,0]", "Tuple(Float64, Float64)"),
        ("{\"a\":1,\"a\":2}", "{\"a\":2}", "JSON"),
        ("{\"a\":1}", "{}", "JSON"),
        ("{\"a\":1,\"a\":2}", "\"{\\\"a\\\":1}\"", "String"),
        ("\"2026-11-22T10:11:12.345Z\"", "\"2026-11-22 10:11:12\"", "DateTime"),
        ("\"\"", "0", "Int64"),
    ] {
        assert!(!is(sent, got, ty), "{sent} {got}");
    }
}
