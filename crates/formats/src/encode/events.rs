//! The columns of DynamoDB change events, as Arrow.

use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::{ArrayRef, Int64Array, MapArray, StringArray, StructArray, UInt8Array};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{ArrowError, DataType, Field, Fields};

use crate::unmarshal::Event;
use domain::columns::EVENT;
use domain::error::Error;
use domain::limits::ARROW_BATCH_BYTES;

/// Columns whose values are nearly unique, as paths in a Parquet file.
pub(super) const UNIQUE: [&[&str]; 5] =
    [&["_raw_message"], &["_keys"], &["_new"], &["_old"], &["_attributes", "key_value", "value"]];

/// Collects events into columns. A record batch's share is bounded by the payloads: plain JSON is
/// never longer than it was with types, and appears at most twice, in `_new` and in `_attributes`.
#[derive(Default)]
pub(super) struct EventColumns {
    event: Event,
    names: StringBuilder,
    ids: StringBuilder,
    tables: StringBuilder,
    versions: Vec<i64>,
    is_deleted: Vec<u8>,
    ttl_deletes: Vec<u8>,
    keys: StringBuilder,
    new: StringBuilder,
    old: StringBuilder,
    attributes: Vec<usize>,
    attribute_names: StringBuilder,
    attribute_values: StringBuilder,
    errors: StringBuilder,
}

/// A map entry, with the field names that Parquet uses.
fn entry() -> Fields {
    Fields::from([Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Utf8, false)].to_vec())
}

/// The entries of a map.
pub(super) fn entries() -> Field {
    Field::new("key_value", DataType::Struct(entry()), false)
}

impl EventColumns {
    /// Appends the event in a payload. Returns the value of `_raw_message`.
    pub(super) fn append<'p>(&mut self, payload: &'p [u8]) -> &'p [u8] {
        let event = &mut self.event;
        event.read(payload);
        self.names.append_value(event.name());
        self.ids.append_value(event.id());
        self.tables.append_value(event.table());
        self.versions.push(event.version());
        self.is_deleted.push(event.is_deleted().into());
        self.ttl_deletes.push(event.is_ttl_delete().into());
        self.keys.append_value(event.keys());
        self.new.append_value(event.new_image());
        self.old.append_value(event.old_image());
        let mut attributes = 0;
        for (name, value) in event.attributes() {
            self.attribute_names.append_value(name);
            self.attribute_values.append_value(value);
            attributes += 1;
        }
        self.attributes.push(attributes);
        self.errors.append_value(event.error());
        if event.error().is_empty() { &[] } else { payload }
    }

    /// Takes the collected events as columns, in the order of [`EVENT`].
    pub(super) fn cut(&mut self) -> Result<[ArrayRef; EVENT.len()], Error> {
        let text = |held: &mut StringBuilder| Arc::new(take(held)) as ArrayRef;
        let attributes = [text(&mut self.attribute_names), text(&mut self.attribute_values)].to_vec();
        let attributes = StructArray::try_new(entry(), attributes, None).map_err(broken)?;
        let places = OffsetBuffer::from_lengths(std::mem::take(&mut self.attributes));
        let attributes = MapArray::try_new(Arc::new(entries()), places, attributes, None, false).map_err(broken)?;
        Ok([
            text(&mut self.names),
            text(&mut self.ids),
            text(&mut self.tables),
            Arc::new(Int64Array::from(std::mem::take(&mut self.versions))),
            Arc::new(UInt8Array::from(std::mem::take(&mut self.is_deleted))),
            Arc::new(UInt8Array::from(std::mem::take(&mut self.ttl_deletes))),
            text(&mut self.keys),
            text(&mut self.new),
            text(&mut self.old),
            Arc::new(attributes),
            text(&mut self.errors),
        ])
    }
}

/// Takes what was collected. The same amount is reserved again: the next record batch will be
/// similar.
fn take(held: &mut StringBuilder) -> StringArray {
    let (rows, bytes) = (held.offsets_slice().len(), held.values_slice().len());
    let next = StringBuilder::with_capacity(rows, bytes.min(ARROW_BATCH_BYTES));
    std::mem::replace(held, next).finish()
}

/// A failure of the Arrow libraries, which only a bug in this program can cause.
pub(super) fn broken(error: ArrowError) -> Error {
    Error::Internal(format!("records cannot be encoded as Arrow: {error}"))
}

#[cfg(test)]
mod tests {
    use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use arrow_array::RecordBatch;
    use arrow_array::cast::AsArray;
    use arrow_array::types::{Int64Type, UInt8Type};
    use arrow_ipc::reader::StreamReader;
    use bytes::Bytes;

    use super::*;
    use crate::encode::{Columns, Encoder, Form, Format, Payload};
    use domain::limits::ARROW_BATCH_ROWS;
    use domain::record::RecordRef;
    use testkit::tree::{Expected, event};

    fn encoded(payloads: &[Vec<u8>], format: Format) -> Bytes {
        let columns = Columns { batch: Some("b".into()), stream: "changes".into(), shards: vec!["s".into()] };
        let form = Form::new(format, Payload::DynamoDb).unwrap();
        let mut encoder = Encoder::new(form, &columns).unwrap();
        let mut all = Vec::new();
        for payload in payloads {
            let record = RecordRef { key: "k", timestamp_ms: 0, sequence_number: "1", sub_sequence: 0, payload };
            encoder.push(record, 0).unwrap();
            while let Some(piece) = encoder.take() {
                all.extend_from_slice(&piece);
            }
        }
        let (rest, tail) = encoder.finish().unwrap();
        rest.into_iter().chain([tail]).for_each(|piece| all.extend_from_slice(&piece));
        all.into()
    }

    /// The events with `_error` and `_raw_message`.
    type Rows = Vec<(Expected, String, Vec<u8>)>;

    fn rows_of(rows: &RecordBatch) -> Rows {
        let column = |name: &str| rows.column_by_name(name).unwrap_or_else(|| panic!("no {name}"));
        let text = |name: &str, i: usize| column(name).as_string::<i32>().value(i).to_owned();
        let flag = |name: &str, i: usize| column(name).as_primitive::<UInt8Type>().value(i) == 1;
        let attributes = |i: usize| {
            let map = column("_attributes").as_map().value(i);
            let texts = |n: usize| map.column(n).as_string::<i32>().iter().map(|text| text.unwrap().to_owned());
            texts(0).zip(texts(1)).collect()
        };
        let row = |i| {
            let event = Expected {
                name: text("_event_name", i),
                id: text("_event_id", i),
                table: text("_table", i),
                version: column("_version").as_primitive::<Int64Type>().value(i),
                is_deleted: flag("_is_deleted", i),
                ttl_delete: flag("_ttl_delete", i),
                keys: text("_keys", i),
                new: text("_new", i),
                old: text("_old", i),
                attributes: attributes(i),
            };
            (event, text("_error", i), column("_raw_message").as_binary::<i32>().value(i).to_vec())
        };
        (0..rows.num_rows()).map(row).collect()
    }

    fn json_rows(text: &[u8]) -> Rows {
        let row = |line: &str| {
            let row: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).unwrap();
            let text = |name: &str| row[name].as_str().unwrap().to_owned();
            let attributes = row["_attributes"].as_object().unwrap().iter();
            let event = Expected {
                name: text("_event_name"),
                id: text("_event_id"),
                table: text("_table"),
                version: row["_version"].as_i64().unwrap(),
                is_deleted: row["_is_deleted"] == 1,
                ttl_delete: row["_ttl_delete"] == 1,
                keys: text("_keys"),
                new: text("_new"),
                old: text("_old"),
                attributes: attributes.map(|(name, value)| (name.clone(), value.as_str().unwrap().into())).collect(),
            };
            (event, text("_error"), text("_raw_message").into_bytes())
        };
        std::str::from_utf8(text).unwrap().lines().map(row).collect()
    }

    /// A JSON object has no order.
    fn in_order(mut rows: Rows) -> Rows {
        rows.iter_mut().for_each(|(event, ..)| event.attributes.sort());
        rows
    }

    #[test]
    fn all_formats_have_the_columns_of_events() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut payloads, mut expected) = (Vec::new(), Rows::new());
        for n in 0..500 {
            let (text, event) = event(&mut random);
            payloads.push(text.into_bytes());
            expected.push((event, String::new(), Vec::new()));
            if n % 50 == 0 {
                let wrong = format!("{{\"eventName\":\"INSERT\",\"tableName\":\"t{n}\\u0001\"}}");
                let event = Expected { name: "INSERT".into(), table: format!("t{n}\u{1}"), ..Expected::default() };
                let error = "the payload is not a DynamoDB change event: it has no field dynamodb".into();
                expected.push((event, error, wrong.clone().into_bytes()));
                payloads.push(wrong.into_bytes());
            }
        }
        let arrow = encoded(&payloads, Format::ArrowStream);
        let reader = StreamReader::try_new(&arrow[..], None).unwrap();
        assert_eq!(reader.flat_map(|rows| rows_of(&rows.unwrap())).collect::<Rows>(), expected);
        let reader = ParquetRecordBatchReaderBuilder::try_new(encoded(&payloads, Format::Parquet)).unwrap();
        let reader = reader.build().unwrap();
        assert_eq!(reader.flat_map(|rows| rows_of(&rows.unwrap())).collect::<Rows>(), expected);
        assert_eq!(in_order(json_rows(&encoded(&payloads, Format::JsonEachRow))), in_order(expected));
    }

    #[test]
    fn columns_stand_in_their_order() {
        let stream = encoded(&[], Format::ArrowStream);
        let schema = StreamReader::try_new(&stream[..], None).unwrap().schema();
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let row = encoded(&[Vec::new()], Format::JsonEachRow);
        let row = String::from_utf8(row.to_vec()).unwrap();
        let places: Vec<usize> = names.iter().map(|name| row.find(&format!("\"{name}\":")).unwrap()).collect();
        assert!(places.is_sorted(), "{row}");
        assert_eq!(names[6..17], EVENT.map(|column| column.name));
        assert_eq!(names[17..], ["_raw_message", "_batch"]);
        assert!(UNIQUE.iter().all(|path| names.contains(&path[0])));
    }

    /// Whatever the payloads, no column of a record batch exceeds the bound on payloads, except for
    /// the errors, which are bounded by rows.
    #[test]
    fn record_batches_of_events_stay_small() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut payloads: Vec<Vec<u8>> = (0..3_000).map(|_| event(&mut random).0.into_bytes()).collect();
        let error = format!("{{\"eventName\":\"{}\"}}", "x".repeat(80));
        payloads.extend(std::iter::repeat_n(error.into_bytes(), 20_000));
        let large = format!("\"NewImage\":{{\"id\":{{\"S\":\"{}\"}}}}", "x".repeat(3 << 20));
        let large = format!(
            "{{\"eventName\":\"INSERT\",\"tableName\":\"t\",\"dynamodb\":{{\"ApproximateCreationDateTime\":1,\"Keys\":{{\"id\":{{\"S\":\"\"}}}},{large}}}}}"
        );
        payloads.push(large.into_bytes());
        payloads.extend((0..100).map(|_| event(&mut random).0.into_bytes()));
        let stream = encoded(&payloads, Format::ArrowStream);
        let read = StreamReader::try_new(&stream[..], None).unwrap().map(Result::unwrap);
        let mut count = 0;
        for rows in read {
            count += rows.num_rows();
            assert!(rows.num_rows() <= ARROW_BATCH_ROWS);
            let map = rows.column_by_name("_attributes").unwrap().as_map();
            let named = ["_keys", "_new", "_old", "_raw_message"].map(|name| rows.column_by_name(name).unwrap());
            for column in named.into_iter().chain(map.entries().columns()) {
                let bytes = column.to_data().buffers()[1].len();
                assert!(bytes <= ARROW_BATCH_BYTES || rows.num_rows() == 1, "{bytes}");
            }
            assert!(rows.column_by_name("_error").unwrap().to_data().buffers()[1].len() <= 4 * ARROW_BATCH_BYTES);
        }
        assert_eq!(count, payloads.len());
    }
}
