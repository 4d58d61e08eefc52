//! The only rule for numbers: which of them ClickHouse's JSON parser would not return as written.
//! Inference uses [`is_wide`]; the statements use the same rule in SQL ([`FUNCTIONS`]).
//! `tests/it/sql_pipe/numbers.rs` sends random numbers through both on the real engine: both must
//! accept the same numbers, and every number must arrive as written.
//!
//! The parser supports 64-bit integers and doubles. A number is wide if neither represents it digit
//! for digit: an integer beyond 64 bits, or a number with a fraction or an exponent whose double
//! has other digits. One of 10^18 or more is wide, too: as text it may be an integer that the
//! parser refuses. A record with such a number is parsed with the number in quotes, after a mark
//! that no JSON string starts with unless on purpose.

use domain::limits::WIDE_FROM;
use sql::quote::literal;

/// Precedes a wide number inside its quotes: the control character U+0001 as JSON writes it, and a
/// `#`.
pub const MARK: &str = r"\u0001#";

/// Whether ClickHouse's parser would not return this number, the text of a JSON number, digit for
/// digit.
pub fn is_wide(text: &str) -> bool {
    match text.contains(['.', 'e', 'E']) {
        true => !is_exact(text) || text.parse::<f64>().is_ok_and(|double| double.abs() >= WIDE_FROM),
        false => text.parse::<i64>().is_err() && text.parse::<u64>().is_err(),
    }
}

/// Whether the double nearest to a decimal number is printed with the same digits. Of two shortest
/// forms that are equally near, ClickHouse prints the even one, as serde_json does and Rust does
/// not.
pub fn is_exact(text: &str) -> bool {
    let double = text.parse::<f64>().ok().and_then(serde_json::Number::from_f64);
    double.is_some_and(|double| digits_of(text) == digits_of(&double.to_string()))
}

/// The digits of a number without leading and trailing zeros. A decimal number and its double are
/// so close that equal digits imply equal numbers.
fn digits_of(text: &str) -> String {
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    digits.trim_matches('0').to_string()
}

/// The functions used in the statements: each is the name of a lambda in the WITH of a SELECT, with
/// its definition. Later ones call earlier ones.
const FUNCTIONS: [(&str, &str); 6] = [
    ("digits", r"n -> replaceRegexpAll(n, '^-?[0.]*|[.]|[0.]*(?:[eE].*)?$', '')"),
    ("is_exact", "n -> digits(n) = digits(toString(toFloat64OrZero(n)))"),
    (
        "is_wide",
        "n -> if(match(n, '[.eE]'), NOT is_exact(n) OR abs(toFloat64OrZero(n)) >= 1e18,\n        \
         length(n) > 18 AND toString(toInt64OrZero(n)) != n AND toString(toUInt64OrZero(n)) != n)",
    ),
    ("unmarked", r"v -> replaceAll(v, '\\u0001#', '')"),
    ("written", r#"v -> replaceRegexpAll(v, '"\\\\u0001#([^"]*)"', '\\1')"#),
    ("bare", r#"v -> trim(BOTH '"' FROM v)"#),
];

/// The WITH clause for a SELECT: defines the functions it calls.
pub fn with(select: &str) -> String {
    let mut called: Vec<&(&str, &str)> = Vec::new();
    for function in FUNCTIONS.iter().rev() {
        let call = format!("{}(", function.0);
        if select.contains(&call) || called.iter().any(|(_, body)| body.contains(&call)) {
            called.push(function);
        }
    }
    let lines: Vec<String> = called.iter().rev().map(|(name, body)| format!("\n    {body} AS {name}")).collect();
    if lines.is_empty() { String::new() } else { format!("WITH{}\n", lines.join(",")) }
}

/// SQL for a payload as it is parsed, `_json`: wide numbers in quotes, after the mark. For use in a
/// SELECT from rows with `_raw_message`. `once`: no part of it is parsed again. Otherwise the
/// parser rewrites it if it has numbers that the parser writes in another form: `1e5` and `1.0` are
/// integers in a part, but not in the whole.
///
/// Few payloads have such a number, or one that could be wide: one of 17 digits (and a dot), or
/// with an exponent. Only those that have a wide one are tokenized: a string is one token, so that
/// digits in it are left alone. Bytes that are not UTF-8 are left for the parser to refuse.
pub fn parsed(once: bool) -> String {
    const SOME: &str = r"[:,\\[\\s](-?(?:[0-9][0-9.]{16,}(?:[eE][+-]?[0-9]+)?|[0-9.]+[eE][+-]?[0-9]+|[0-9]+[.]0+\\b))";
    const TOKENS: &str = r#""(?:[^"\\\\]|\\\\.)*"|-?[0-9][0-9.eE+-]*|[^"0-9-]+|[-"]"#;
    let (before, after) = if once { ("", "") } else { ("JSONExtractRaw(", ")") };
    format!(
        r#"extractAll(_raw_message, '{SOME}') AS _numbers,
            isValidUTF8(_raw_message) AND arrayExists(n -> is_wide(n), _numbers) AS _wide,
            arrayMap(token -> if(match(token, '^-?[0-9]') AND is_wide(token), concat('"\\u0001#', token, '"'), token),
                extractAll(if(_wide, _raw_message, ''), '{TOKENS}')) AS _tokens,
            if(empty(_numbers), _raw_message, {before}if(_wide, arrayStringConcat(_tokens), if(empty(_numbers), '', _raw_message)){after}) AS _json"#
    )
}

/// SQL that is true for a payload with a string that starts with the mark and looks like a wide
/// number: it cannot be told from one.
pub fn has_mark() -> String {
    format!("position(_raw_message, {}) > 0", literal(MARK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_a_double_holds_are_exact() {
        for text in [
            "0",
            "-0.0",
            "1.10",
            "0.30000000000000004",
            "1e22",
            "1E+2",
            "9007199254740992",
            "100000",
            "-2.5e-10",
            "0e999",
            "169549536309.45312",
        ] {
            assert!(is_exact(text), "{text}");
        }
        for text in [
            "9007199254740993",
            "0.1234567890123456789",
            "123456789012345678901234567890",
            "1e400",
            "1e-400",
            "8.232762829599804",
            "169549536309.45313",
        ] {
            assert!(!is_exact(text), "{text}");
        }
    }

    #[test]
    fn the_rule_in_sql_has_the_same_limit() {
        let limit = format!(">= {WIDE_FROM:e},");
        assert!(FUNCTIONS.iter().any(|(name, body)| *name == "is_wide" && body.contains(&limit)));
    }

    #[test]
    fn wide_is_what_the_parser_would_change() {
        for text in [
            "18446744073709551616",
            "-9223372036854775809",
            "1e400",
            "8.232762829599804",
            "1.23456789012345678901e5",
            "1e18",
            "123456789012345678901.0",
        ] {
            assert!(is_wide(text), "{text}");
        }
        for text in [
            "18446744073709551615",
            "-9223372036854775808",
            "-0",
            "0.1000000000000000",
            "1E+05",
            "9007199254740992.0",
            "1e17",
            "0.30000000000000004",
        ] {
            assert!(!is_wide(text), "{text}");
        }
    }
}
