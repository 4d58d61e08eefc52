//! What a value is, whatever its spelling: the form in which DynamoDB items and ClickHouse rows are
//! compared.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// A value. Two that are equal in [`Ord`] are the same to DynamoDB, except for the order of sets:
/// see [`Value::says`].
#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// An explicit null.
    Null,
    /// A boolean.
    Bool(bool),
    /// A number as [`number`] spells it.
    Number(String),
    /// Text, or bytes in base64: JSON cannot tell them apart.
    Text(String),
    /// Values in order.
    List(Vec<Value>),
    /// Values without order; only DynamoDB's types have these.
    Set(Vec<Value>),
    /// Attributes.
    Map(Item),
    /// Text that is not a value: equal to nothing.
    Broken(String),
}

/// Attributes by name.
pub type Item = BTreeMap<String, Value>;

impl Value {
    /// Parses JSON; anything invalid becomes [`Value::Broken`].
    pub fn from_json(text: &str) -> Value {
        match serde_json::from_str::<&RawValue>(text) {
            Ok(raw) => Value::from_raw(raw),
            Err(_) => Value::Broken(text.into()),
        }
    }

    /// The same for JSON that is already parsed. Numbers are taken as written.
    pub fn from_raw(raw: &RawValue) -> Value {
        let text = raw.get();
        let value = match text.as_bytes().first() {
            Some(b'"') => serde_json::from_str(text).ok().map(Value::Text),
            Some(b'[') => serde_json::from_str::<Vec<&RawValue>>(text)
                .ok()
                .map(|list| Value::List(list.into_iter().map(Value::from_raw).collect())),
            Some(b'{') => serde_json::from_str::<BTreeMap<String, &RawValue>>(text)
                .ok()
                .map(|map| Value::Map(map.into_iter().map(|(name, raw)| (name, Value::from_raw(raw))).collect())),
            Some(b't') => Some(Value::Bool(true)),
            Some(b'f') => Some(Value::Bool(false)),
            Some(b'n') => Some(Value::Null),
            _ => number(text).map(Value::Number),
        };
        value.unwrap_or_else(|| Value::Broken(text.into()))
    }

    /// With sets as lists, as JSON has them.
    pub fn flat(self) -> Value {
        match self {
            Value::Set(values) | Value::List(values) => Value::List(values.into_iter().map(Value::flat).collect()),
            Value::Map(item) => Value::Map(flat(item)),
            value => value,
        }
    }

    /// Whether this DynamoDB value is what `other` says, which has no set type. The order in a set
    /// does not matter.
    pub fn says(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Set(ours), Value::List(theirs)) => {
                let (mut ours, mut theirs) = (ours.clone(), theirs.clone());
                ours.sort();
                theirs.sort();
                ours == theirs
            }
            (Value::List(ours), Value::List(theirs)) => {
                ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(ours, theirs)| ours.says(theirs))
            }
            (Value::Map(ours), Value::Map(theirs)) => says(ours, theirs),
            (Value::Broken(_), _) => false,
            (ours, theirs) => ours == theirs,
        }
    }

    /// As JSON.
    pub fn shown(&self) -> String {
        let list = |values: &[Value]| format!("[{}]", values.iter().map(Value::shown).collect::<Vec<_>>().join(","));
        match self {
            Value::Null => "null".into(),
            Value::Bool(value) => value.to_string(),
            Value::Number(text) => text.clone(),
            Value::Text(text) => quoted(text),
            Value::List(values) | Value::Set(values) => list(values),
            Value::Map(item) => shown(item),
            Value::Broken(text) => format!("not JSON: {}", quoted(text)),
        }
    }
}

/// [`Value::flat`] for all attributes.
pub fn flat(item: Item) -> Item {
    item.into_iter().map(|(name, value)| (name, value.flat())).collect()
}

/// [`Value::says`] for all attributes.
pub fn says(ours: &Item, theirs: &Item) -> bool {
    ours.len() == theirs.len()
        && ours.iter().zip(theirs).all(|((name, ours), (other, theirs))| name == other && ours.says(theirs))
}

/// As JSON.
pub fn shown(item: &Item) -> String {
    let attributes: Vec<_> = item.iter().map(|(name, value)| format!("{}:{}", quoted(name), value.shown())).collect();
    format!("{{{}}}", attributes.join(","))
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Digits before or after the point up to which a number is written without an exponent. DynamoDB
/// has at most 130.
const PLAIN: i64 = 140;

/// The canonical spelling of a decimal: `1.50`, `15E-1` and `+1.5` become `1.5`. Nothing is
/// rounded. `None` if it is not a number.
pub fn number(text: &str) -> Option<String> {
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (rest, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = [whole, fraction].concat();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let significant = digits.trim_start_matches('0');
    // The position of the point, counted from the first significant digit.
    let zeros = i64::try_from(digits.len() - significant.len()).ok()?;
    let point = i64::try_from(whole.len()).ok()?.checked_sub(zeros)?.checked_add(exponent)?;
    let significant = significant.trim_end_matches('0');
    if significant.is_empty() {
        return Some("0".into());
    }
    let plain = match usize::try_from(point) {
        _ if !(-PLAIN..=PLAIN).contains(&point) => format!("0.{significant}E{point}"),
        Ok(point) if point >= significant.len() => {
            significant.to_owned() + &"0".repeat(point.saturating_sub(significant.len()))
        }
        Ok(point) if point > 0 => format!("{}.{}", &significant[..point], &significant[point..]),
        _ => format!("0.{}{significant}", "0".repeat(usize::try_from(-point).ok()?)),
    };
    Some(if negative { format!("-{plain}") } else { plain })
}
