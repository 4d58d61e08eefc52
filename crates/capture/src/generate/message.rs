//! `--message`: CloudWatch log events whose messages are JSON. An event and its message become one
//! object, so that everything else sees ordinary records: the fields of the message, plus those of
//! the event under names that start with `_log_`.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::value::RawValue;

use super::shape::fields_of;
use sql::quote::literal;

/// The field for a message that is not an object.
pub const MESSAGE: &str = "_log_message";
/// Fields of an event whose names would read badly after `_log_`.
const NAMES: [(&str, &str); 3] = [("logGroup", "_log_group"), ("logStream", "_log_stream"), ("id", "_log_event_id")];
/// Times of events, Unix milliseconds, that are converted to text like other times: up to the year
/// 2286.
const TIMES: &str = "^[0-9]{1,13}$";

/// The result for an event.
pub struct Merged {
    /// The object.
    pub text: String,
    /// Whether the message is one.
    pub is_object: bool,
}

/// The object of an event; `None` for anything that is not a log event.
pub fn merged(event: &str) -> Option<Merged> {
    let fields = fields_of(event);
    let of = |wanted: &str| fields.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.get());
    let message: String = serde_json::from_str(of("message")?).ok()?;
    of("logGroup").filter(|group| group.starts_with('"'))?;
    let inside = inside(&message);
    let members = fields.iter().filter_map(|(name, value)| match (&**name, inside) {
        ("message", Some("")) => None,
        ("message", Some(inside)) => Some(inside.to_owned()),
        ("timestamp", _) => Some(format!("\"_log_timestamp\":{}", time(value.get()))),
        _ => Some(format!("{}:{}", serde_json::Value::from(own_name(name)), value.get())),
    });
    let text = format!("{{{}}}", members.collect::<Vec<_>>().join(","));
    Some(Merged { text, is_object: inside.is_some() })
}

/// An event as it would be with a message that is not an object, which may not occur in a sample.
pub fn with_text(event: &str) -> Option<String> {
    let fields = fields_of(event).into_iter().filter(|(name, _)| name.starts_with("_log_"));
    let members = fields.map(|(name, value)| format!("{}:{}", serde_json::Value::from(name), value.get()));
    let members: Vec<String> = members.chain([format!("\"{MESSAGE}\":\"\"")]).collect();
    (members.len() > 1).then(|| format!("{{{}}}", members.join(",")))
}

fn own_name(name: &str) -> String {
    let known = NAMES.iter().find(|(field, _)| *field == name);
    known.map_or_else(|| format!("_log_{name}"), |(_, own)| (*own).to_owned())
}

/// The text between the braces of an object; `None` for other text.
fn inside(message: &str) -> Option<&str> {
    let object: &RawValue = serde_json::from_str(message).ok()?;
    Some(object.get().strip_prefix('{')?.strip_suffix('}')?.trim_ascii())
}

fn time(millis: &str) -> String {
    let is_time = !millis.is_empty() && millis.len() <= 13 && millis.bytes().all(|byte| byte.is_ascii_digit());
    let time = Some(millis).filter(|_| is_time).and_then(|millis| millis.parse().ok());
    match time.and_then(DateTime::<Utc>::from_timestamp_millis) {
        Some(time) => format!("\"{}\"", time.to_rfc3339_opts(SecondsFormat::Millis, true)),
        None => millis.to_owned(),
    }
}

/// SQL for rows as `source` returns them, with such objects as `_raw_message`.
///
/// ClickHouse's parser refuses an object with a number beyond 64 bits: with that many digits,
/// anything that looks like an object is treated as one, and what is not goes to the errors table,
/// unchanged.
pub fn source(source: &str) -> String {
    let list = |texts: Vec<&str>| texts.iter().map(|text| literal(text)).collect::<Vec<_>>().join(", ");
    let (from, to) =
        (list(NAMES.iter().map(|(name, _)| *name).collect()), list(NAMES.iter().map(|(_, own)| *own).collect()));
    let (object, braces, times) =
        (literal(r"(?s)^\s*[{].*[0-9]{19}.*[}]\s*$"), literal(r"^\s*[{]\s*|\s*[}]\s*$"), literal(TIMES));
    format!(
        "(\n        SELECT * REPLACE (if(\n            JSONType(_raw_message, 'logGroup') = 'String' AND JSONType(_raw_message, 'message') = 'String',\n            \
         concat('{{', arrayStringConcat(arrayFilter(member -> member != '', arrayMap(field -> multiIf(\n                \
         field.1 = 'message' AND (JSONType(JSONExtractString(_raw_message, 'message')) = 'Object' OR match(JSONExtractString(_raw_message, 'message'), {object})),\n                    \
         replaceRegexpAll(JSONExtractString(_raw_message, 'message'), {braces}, ''),\n                \
         field.1 = 'timestamp' AND match(field.2, {times}),\n                    \
         concat('\"_log_timestamp\":\"', replaceOne(toString(fromUnixTimestamp64Milli(toInt64OrZero(field.2), 'UTC')), ' ', 'T'), 'Z\"'),\n                \
         concat(toJSONString(transform(field.1, [{from}], [{to}], concat('_log_', field.1))), ':', field.2)\n            \
         ), JSONExtractKeysAndValuesRaw(_raw_message))), ','), '}}'),\n            _raw_message) AS _raw_message)\n        \
         FROM {source}\n    )"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(message: &str) -> String {
        let message = serde_json::Value::from(message);
        format!(
            r#"{{"owner":"123","logGroup":"/aws/lambda/f","logStream":"s","id":"7","timestamp":1795255200123,"message":{message},"extractedFields":{{"a":"1"}}}}"#
        )
    }

    const BEFORE: &str = r#""_log_owner":"123","_log_group":"/aws/lambda/f","_log_stream":"s","_log_event_id":"7","_log_timestamp":"2026-11-21T10:00:00.123Z""#;
    const AFTER: &str = r#""_log_extractedFields":{"a":"1"}"#;

    #[test]
    fn an_event_and_its_message_are_one_object() {
        for (message, member) in [
            (
                " {\"level\": \"info\", \"n\": 12345678901234567890123}\n",
                "\"level\": \"info\", \"n\": 12345678901234567890123,",
            ),
            ("{ }", ""),
            ("START {x}", "\"_log_message\":\"START {x}\","),
            ("[1]", "\"_log_message\":\"[1]\","),
            ("", "\"_log_message\":\"\","),
        ] {
            let merged = merged(&event(message)).unwrap();
            assert_eq!(merged.text, format!("{{{BEFORE},{member}{AFTER}}}"));
            assert_eq!(merged.is_object, !member.contains("_log"), "{message}");
        }
        for other in ["{}", "{\"message\":\"x\"}", "{\"logGroup\":\"g\",\"message\":{}}", "text", "[]"] {
            assert!(merged(other).is_none(), "{other}");
        }
        let merged = merged(&event("{\"a\":1}")).unwrap();
        assert_eq!(with_text(&merged.text).unwrap(), format!("{{{BEFORE},{AFTER},\"_log_message\":\"\"}}"));
        assert!(with_text("{\"a\":1}").is_none());
        assert_eq!(
            (time("12345678901234"), time("-5"), time("1.5")),
            ("12345678901234".into(), "-5".into(), "1.5".into())
        );
    }
}
