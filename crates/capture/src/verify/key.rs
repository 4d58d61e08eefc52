//! The primary key of an item, compact in memory.

use crate::dynamodb::{KeyAttribute, KeyType};

use super::value::{Item, Value, number};

/// The values of the key attributes: text, decimals as [`number`] spells them, bytes in base64.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub struct Key(Box<str>);

impl Key {
    /// The length of the first value is prepended, so that different pairs never collide.
    pub fn new(values: &[String]) -> Key {
        let first = values.first().map_or(0, String::len);
        Key(format!("{first}:{}", values.concat()).into())
    }

    /// The key of an item; `None` if one of its attributes is missing or of another type.
    pub fn of(item: &Item, keys: &[KeyAttribute]) -> Option<Key> {
        let value = |key: &KeyAttribute| match (key.ty, item.get(&key.name)?) {
            (KeyType::N, Value::Number(text)) | (KeyType::S | KeyType::B, Value::Text(text)) => Some(text.clone()),
            _ => None,
        };
        Some(Key::new(&keys.iter().map(value).collect::<Option<Vec<_>>>()?))
    }

    /// The values it was made from.
    pub fn values(&self) -> Vec<&str> {
        let (length, rest) = self.0.split_once(':').unwrap_or(("0", ""));
        let (first, second) = rest.split_at(length.parse().unwrap_or(0));
        if second.is_empty() { vec![first] } else { vec![first, second] }
    }

    /// The key as attributes.
    pub fn item(&self, keys: &[KeyAttribute]) -> Item {
        let value = |key: &KeyAttribute, text: &str| match key.ty {
            KeyType::N => Value::Number(text.into()),
            KeyType::S | KeyType::B => Value::Text(text.into()),
        };
        keys.iter().zip(self.values()).map(|(key, text)| (key.name.clone(), value(key, text))).collect()
    }

    /// Its size in memory, bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// A key value from a row: a number may be in a text column.
pub fn key_value(value: Value, ty: KeyType) -> Value {
    match (ty, value) {
        (KeyType::N, Value::Text(text)) => number(&text).map_or(Value::Broken(text), Value::Number),
        (_, value) => value,
    }
}
