//! From the SDK's types to values. Shares no code with the pipes, so that a bug there is found.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use aws_smithy_types::base64;

use super::value::{Item, Value, number};

/// The attributes of an item, or of a map.
pub fn item(attributes: &HashMap<String, AttributeValue>) -> Item {
    attributes.iter().map(|(name, attribute)| (name.clone(), value(attribute))).collect()
}

fn value(attribute: &AttributeValue) -> Value {
    let text = |text: &String| Value::Text(text.clone());
    let decimal = |text: &String| number(text).map_or_else(|| Value::Broken(text.clone()), Value::Number);
    match attribute {
        AttributeValue::S(value) => text(value),
        AttributeValue::N(value) => decimal(value),
        AttributeValue::B(value) => Value::Text(base64::encode(value)),
        AttributeValue::Bool(value) => Value::Bool(*value),
        AttributeValue::Null(_) => Value::Null,
        AttributeValue::L(values) => Value::List(values.iter().map(value).collect()),
        AttributeValue::M(attributes) => Value::Map(item(attributes)),
        AttributeValue::Ss(values) => Value::Set(values.iter().map(text).collect()),
        AttributeValue::Ns(values) => Value::Set(values.iter().map(decimal).collect()),
        AttributeValue::Bs(values) => {
            Value::Set(values.iter().map(|value| Value::Text(base64::encode(value))).collect())
        }
        other => Value::Broken(format!("{other:?}")),
    }
}
