//! The contents of a replayed Kinesis record: one order, or several as producers pack them.

use std::io::Write;

use clap::ValueEnum;
use flate2::Compression;
use flate2::write::GzEncoder;
use md5::{Digest, Md5};
use serde_json::{Value, json};
use stack::load::{order, order_id};

/// User records per record, for records that contain several.
const PACKED: u64 = 100;

/// How orders become the payload of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// One order.
    Plain,
    /// A KPL aggregate.
    Aggregate,
    /// One order, compressed.
    Gzip,
    /// A line for each order.
    Lines,
    /// The lines, compressed together.
    GzipLines,
    /// The event of a DynamoDB table into which the order is put, as an item.
    Event,
}

impl Shape {
    /// Orders in a record.
    pub fn rows(self) -> u64 {
        match self {
            Shape::Plain | Shape::Gzip | Shape::Event => 1,
            Shape::Aggregate | Shape::Lines | Shape::GzipLines => PACKED,
        }
    }

    /// Its name on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// The payload of these orders, each padded to `size` bytes.
    pub fn pack(self, numbers: &[u64], size: usize) -> Result<Vec<u8>, String> {
        let lines = || numbers.iter().map(|number| filled(*number, size)).collect::<Vec<_>>().join("\n").into_bytes();
        match self {
            Shape::Plain | Shape::Lines => Ok(lines()),
            Shape::Aggregate => Ok(aggregate(numbers, size)),
            Shape::Event => {
                let events: Result<Vec<String>, String> = numbers.iter().map(|number| event(*number, size)).collect();
                Ok(events?.join("\n").into_bytes())
            }
            Shape::Gzip | Shape::GzipLines => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
                let written = encoder.write_all(&lines()).and_then(|()| encoder.finish());
                written.map_err(|error| format!("cannot compress: {error}"))
            }
        }
    }
}

/// An order, padded to `size` bytes with an extra field.
fn filled(number: u64, size: usize) -> String {
    let mut order = order(number);
    let field = r#","fill":""}"#;
    if let Some(fill) = size.checked_sub(order.len() + field.len() - 1).filter(|fill| *fill > 0) {
        order.pop();
        order.push_str(r#","fill":""#);
        order.extend((0..fill).map(|i| char::from(b'a' + ((number as usize).wrapping_mul(31) + i * 7) as u8 % 26)));
        order.push_str(r#""}"#);
    }
    order
}

/// As DynamoDB writes it to a Kinesis stream.
fn event(number: u64, size: usize) -> Result<String, String> {
    let order: Value = serde_json::from_str(&filled(number, size)).map_err(|error| format!("no order: {error}"))?;
    let image = order.as_object().map(|order| order.iter().map(|(name, value)| (name.clone(), typed(value))));
    let image: Value = image.into_iter().flatten().collect();
    let keys = json!({ "id": image["id"] });
    let change = json!({"ApproximateCreationDateTime": 1_795_255_200_000_000 + number, "ApproximateCreationDateTimePrecision": "MICROSECOND",
        "Keys": keys, "NewImage": image, "SizeBytes": 198});
    let event = json!({"awsRegion": "eu-west-1", "eventID": format!("{number:032x}"), "eventName": "INSERT", "userIdentity": null,
        "recordFormat": "application/json", "tableName": "orders", "eventSource": "aws:dynamodb", "dynamodb": change});
    Ok(event.to_string())
}

/// A value with its DynamoDB type.
fn typed(value: &Value) -> Value {
    match value {
        Value::Null => json!({"NULL": true}),
        Value::Bool(value) => json!({ "BOOL": value }),
        Value::Number(number) => json!({"N": number.to_string()}),
        Value::String(text) => json!({ "S": text }),
        Value::Array(values) => json!({"L": values.iter().map(typed).collect::<Vec<_>>()}),
        Value::Object(fields) => {
            json!({"M": fields.iter().map(|(name, value)| (name.clone(), typed(value))).collect::<Value>()})
        }
    }
}

/// As the Kinesis Producer Library writes it: a magic number, the table of keys and the records in
/// protobuf, and their MD5. Each record has its own key.
fn aggregate(numbers: &[u64], size: usize) -> Vec<u8> {
    let mut message = Vec::new();
    for number in numbers {
        field(1, order_id(*number).as_bytes(), &mut message);
    }
    for (index, number) in numbers.iter().enumerate() {
        let mut record = vec![1 << 3];
        varint(index, &mut record);
        field(3, filled(*number, size).as_bytes(), &mut record);
        field(3, &record, &mut message);
    }
    [&[0xF3, 0x89, 0x9A, 0xC2], message.as_slice(), &Md5::digest(&message)].concat()
}

/// A protobuf field of bytes, with a number below 16.
fn field(number: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(number << 3 | 2);
    varint(bytes.len(), out);
    out.extend_from_slice(bytes);
}

fn varint(mut value: usize, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::{Shape, filled};

    #[test]
    fn a_filled_record_has_its_size_and_is_json() {
        let record = filled(7, 1_024);
        assert_eq!(record.len(), 1_024);
        let parsed: serde_json::Value = serde_json::from_str(&record).expect("JSON");
        assert_eq!(parsed["user_id"], 7);
        assert_eq!(filled(7, 0), stack::load::order(7));
    }

    #[test]
    fn every_shape_holds_the_same_orders() {
        let numbers = [3, 5];
        let lines = format!("{}\n{}", filled(3, 0), filled(5, 0)).into_bytes();
        assert_eq!(Shape::Lines.pack(&numbers, 0).as_ref(), Ok(&lines));
        let mut text = Vec::new();
        let compressed = Shape::GzipLines.pack(&numbers, 0).expect("gzip");
        flate2::read::GzDecoder::new(compressed.as_slice()).read_to_end(&mut text).expect("gzip");
        assert_eq!(text, lines);
        assert_eq!(Shape::Gzip.rows(), 1);
    }

    #[test]
    fn an_event_has_the_order_as_an_item() {
        let event = Shape::Event.pack(&[7], 0).expect("an event");
        assert!((600..700).contains(&event.len()), "{} bytes", event.len());
        let event: serde_json::Value = serde_json::from_slice(&event).expect("JSON");
        let (order, image) = (stack::load::order(7), &event["dynamodb"]["NewImage"]);
        let order: serde_json::Value = serde_json::from_str(&order).expect("JSON");
        assert_eq!(image["id"]["S"], order["id"]);
        assert_eq!(image["price"]["N"], order["price"].to_string());
        assert_eq!(image["items"]["L"][1]["M"]["sku"]["S"], order["items"][1]["sku"]);
    }

    #[test]
    fn an_aggregate_is_as_its_specification_has_it() {
        let one = Shape::Aggregate.pack(&[7], 0).expect("an aggregate");
        let order = filled(7, 0);
        // Two bytes for the length of the order, as it is over 127.
        let head =
            [b"\xF3\x89\x9A\xC2\x0A\x0Forder-000000007\x1A".as_slice(), &[(order.len() as u8 + 5) | 0x80, 1]].concat();
        let record = [&[0x08, 0x00, 0x1A, order.len() as u8 | 0x80, 1], order.as_bytes()].concat();
        assert!(order.len() >= 128 && order.len() + 5 < 256);
        assert_eq!(one[..one.len() - 16], [head, record].concat());
    }
}
