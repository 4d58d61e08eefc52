//! DynamoDB change events, from payload to columns: pure, in one pass, into reused buffers.
//!
//! DynamoDB writes each value with its type (`{"age":{"N":"26"}}`). Here it becomes plain JSON
//! (`{"age":26}`), with numbers as written. Payloads that fail to parse completely are rejected
//! with a reason.

mod item;
#[cfg(test)]
mod tests;
mod time;

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use domain::arn::Arn;
use domain::limits::{DYNAMODB_TIMES, UNMARSHAL_ERROR_CHARS, UNMARSHAL_KEPT_BYTES};
use item::Item;
use time::Unit;

/// How each error begins.
const NO_EVENT: &str = "the payload is not a DynamoDB change event: ";
/// Most characters of an event's own text that a message quotes.
const QUOTED: usize = 64;

/// The contents of one payload. Reuse the value for the next one: its buffers are reused.
#[derive(Debug, Default)]
pub struct Event {
    name: String,
    id: String,
    table: String,
    version: i64,
    ttl_delete: bool,
    keys: Item,
    new: Item,
    old: Item,
    error: String,
}

impl Event {
    /// Reads this payload as an event, in the form that DynamoDB sends to a Kinesis stream or in
    /// that of DynamoDB Streams.
    pub fn read(&mut self, payload: &[u8]) {
        for text in [&mut self.name, &mut self.id, &mut self.table, &mut self.error] {
            clear(text);
        }
        (self.version, self.ttl_delete) = (0, false);
        for item in [&mut self.keys, &mut self.new, &mut self.old] {
            item.clear();
        }
        if let Err(why) = self.understand(payload) {
            self.error.push_str(NO_EVENT);
            self.error.extend(why.chars().take(UNMARSHAL_ERROR_CHARS));
            self.outline(payload);
        }
    }

    /// `INSERT`, `MODIFY` or `REMOVE`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The event's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The table that was changed.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// When it was changed: microseconds since 1970.
    pub fn version(&self) -> i64 {
        self.version
    }

    /// Whether the item was deleted.
    pub fn is_deleted(&self) -> bool {
        self.error.is_empty() && self.name == "REMOVE"
    }

    /// Whether DynamoDB itself deleted it, because its time to live expired.
    pub fn is_ttl_delete(&self) -> bool {
        self.ttl_delete
    }

    /// The primary key as a JSON object.
    pub fn keys(&self) -> &str {
        self.keys.json()
    }

    /// The item after the change as a JSON object; empty if there is none.
    pub fn new_image(&self) -> &str {
        self.new.json()
    }

    /// The item before the change as a JSON object; empty if there is none.
    pub fn old_image(&self) -> &str {
        self.old.json()
    }

    /// Names and JSON values of the attributes of the item after the change, or else of the key.
    /// Each name appears once, in the order of the event.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, &str)> {
        if self.new.is_empty() { &self.keys } else { &self.new }.attributes()
    }

    /// Why the payload is not an event; empty for an event. With an error, everything is empty
    /// except name and table, if they could be read.
    pub fn error(&self) -> &str {
        &self.error
    }

    fn understand(&mut self, payload: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(payload).map_err(|e| format!("it is not valid UTF-8: {e}"))?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut parser = serde_json::Deserializer::from_str(text);
        let mut found = Found::default();
        let read = Envelope { event: self, found: &mut found }.deserialize(&mut parser).and_then(|()| parser.end());
        match read {
            Ok(()) => self.conclude(&found),
            Err(why) => Err(match self.culprit() {
                Some((attribute, image)) => format!("the attribute {} of {image}: {why}", quoted(attribute)),
                None => why.to_string(),
            }),
        }
    }

    /// The attribute being parsed when the error occurred.
    fn culprit(&self) -> Option<(&str, &'static str)> {
        let images = [(&self.keys, "Keys"), (&self.new, "NewImage"), (&self.old, "OldImage")];
        images.into_iter().find_map(|(item, name)| Some((item.unfinished()?, name)))
    }

    /// Checks what an event must have in addition to being JSON.
    fn conclude(&mut self, found: &Found<'_>) -> Result<(), String> {
        if !found.fields.contains(&"dynamodb") {
            return Err("it has no field dynamodb".into());
        }
        if self.name.is_empty() {
            return Err("it has no field eventName".into());
        }
        if self.table.is_empty() {
            return Err("it has no field tableName, and no eventSourceARN with a table".into());
        }
        if self.keys.is_empty() {
            return Err("its field dynamodb has no Keys".into());
        }
        match (&*self.name, self.new.is_empty()) {
            ("INSERT" | "MODIFY", false) | ("REMOVE", true) => {}
            ("INSERT" | "MODIFY", true) => return Err(format!("it is {} without a NewImage", self.name)),
            ("REMOVE", false) => return Err("it is REMOVE with a NewImage".into()),
            _ => return Err(format!("its eventName is {}, not INSERT, MODIFY or REMOVE", quoted(&self.name))),
        }
        let Some(time) = found.time else {
            return Err("its field dynamodb has no ApproximateCreationDateTime".into());
        };
        let unit = match found.precision {
            None | Some("null") if found.stream_record => Unit::Second,
            None | Some("null" | "\"MILLISECOND\"") => Unit::Millisecond,
            Some("\"MICROSECOND\"") => Unit::Microsecond,
            Some(other) => {
                let other = shortened(other);
                return Err(format!(
                    "its ApproximateCreationDateTimePrecision is {other}, not MILLISECOND or MICROSECOND"
                ));
            }
        };
        // In the wrong unit it would beat every other change of the item forever, or lose to all.
        let version = time::microseconds(time, unit).filter(|version| DYNAMODB_TIMES.contains(version));
        self.version = version.ok_or_else(|| {
            let (time, unit) = (shortened(time), unit.plural());
            format!("its ApproximateCreationDateTime is {time}, which is not between 2012 and 2100 if it counts {unit}")
        })?;
        self.ttl_delete = self.name == "REMOVE" && found.identity.is_some_and(is_time_to_live);
        Ok(())
    }

    /// Keeps only what rows with an error have, and looks for that once more, including after the
    /// point where parsing stopped.
    fn outline(&mut self, payload: &[u8]) {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Outline<'a> {
            #[serde(borrow)]
            event_name: Option<&'a RawValue>,
            #[serde(borrow)]
            table_name: Option<&'a RawValue>,
            #[serde(borrow, rename = "eventSourceARN")]
            source: Option<&'a RawValue>,
        }
        clear(&mut self.id);
        for item in [&mut self.keys, &mut self.new, &mut self.old] {
            item.clear();
        }
        let payload = payload.strip_prefix("\u{feff}".as_bytes()).unwrap_or(payload);
        // A struct would also accept an array.
        if !payload.trim_ascii_start().starts_with(b"{") {
            return;
        }
        let Ok(outline) = serde_json::from_slice::<Outline<'_>>(payload) else { return };
        let text = |raw: Option<&RawValue>| raw.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
        if let Some(name) = text(outline.event_name) {
            self.name = name;
        }
        let source = text(outline.source);
        if let Some(table) = text(outline.table_name).or_else(|| table_of(source.as_deref()?).map(str::to_owned)) {
            self.table = table;
        }
    }
}

/// Empties a buffer and frees what a large event made it grow to.
fn clear(text: &mut String) {
    text.clear();
    text.shrink_to(UNMARSHAL_KEPT_BYTES);
}

fn shortened(text: &str) -> String {
    let more = if text.chars().nth(QUOTED).is_some() { "…" } else { "" };
    text.chars().take(QUOTED).chain(more.chars()).collect()
}

fn quoted(text: &str) -> String {
    format!("'{}'", shortened(text))
}

/// The table that the ARN of a table's stream names.
fn table_of(arn: &str) -> Option<&str> {
    Arn::parse(arn)?.table()
}

/// Whether a `userIdentity` marks a delete by time to live.
fn is_time_to_live(identity: &str) -> bool {
    #[derive(Deserialize)]
    struct Identity {
        #[serde(rename = "type", alias = "Type")]
        kind: String,
        #[serde(rename = "principalId", alias = "PrincipalId")]
        principal: String,
    }
    // A struct would also accept an array.
    let identity = identity.starts_with('{').then(|| serde_json::from_str::<Identity>(identity).ok()).flatten();
    identity.is_some_and(|i| i.kind == "Service" && i.principal == "dynamodb.amazonaws.com")
}

/// The relevant fields of an event; [`CHANGE`] lists those of its field `dynamodb`.
const FIELDS: [&str; 6] = ["eventName", "eventID", "tableName", "eventSourceARN", "userIdentity", "dynamodb"];
/// See [`FIELDS`].
const CHANGE: [&str; 5] =
    ["ApproximateCreationDateTime", "ApproximateCreationDateTimePrecision", "Keys", "NewImage", "OldImage"];

/// Values that are checked once everything is read, as written.
#[derive(Default)]
struct Found<'de> {
    /// Those of [`FIELDS`] and [`CHANGE`] that were present.
    fields: Vec<&'static str>,
    identity: Option<&'de str>,
    time: Option<&'de str>,
    precision: Option<&'de str>,
    /// Whether it has the form of DynamoDB Streams.
    stream_record: bool,
}

impl Found<'_> {
    fn once<E: serde::de::Error>(&mut self, field: &'static str) -> Result<(), E> {
        if !field.is_empty() && self.fields.contains(&field) {
            return Err(E::custom(format_args!("the field {field} appears twice")));
        }
        self.fields.push(field);
        Ok(())
    }
}

/// One of these names; empty for any other.
struct Known(&'static [&'static str]);

impl<'de> DeserializeSeed<'de> for Known {
    type Value = &'static str;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<&'static str, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Known {
    type Value = &'static str;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<&'static str, E> {
        Ok(self.0.iter().find(|known| **known == name).copied().unwrap_or_default())
    }
}

/// A string, or null for none.
struct Text<'a> {
    field: &'static str,
    into: &'a mut String,
}

impl<'de> DeserializeSeed<'de> for Text<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Text<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a string for {}", self.field)
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.into.push_str(text);
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// The event itself.
struct Envelope<'a, 'de> {
    event: &'a mut Event,
    found: &'a mut Found<'de>,
}

impl<'de> DeserializeSeed<'de> for Envelope<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Envelope<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Envelope { event, found } = self;
        while let Some(field) = map.next_key_seed(Known(&FIELDS))? {
            found.once(field)?;
            match field {
                "eventName" => map.next_value_seed(Text { field, into: &mut event.name })?,
                "eventID" => map.next_value_seed(Text { field, into: &mut event.id })?,
                "tableName" => {
                    // It takes precedence over a table named by an ARN.
                    let other = event.table.len();
                    map.next_value_seed(Text { field, into: &mut event.table })?;
                    if event.table.len() > other {
                        drop(event.table.drain(..other));
                        found.stream_record = false;
                    }
                }
                "eventSourceARN" => {
                    let mut arn = String::new();
                    map.next_value_seed(Text { field, into: &mut arn })?;
                    if let Some(table) = table_of(&arn).filter(|_| event.table.is_empty()) {
                        event.table.push_str(table);
                        found.stream_record = true;
                    }
                }
                "userIdentity" => found.identity = Some(map.next_value::<&RawValue>()?.get()),
                "dynamodb" => map.next_value_seed(Change { event, found })?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// Its field `dynamodb`.
struct Change<'a, 'de> {
    event: &'a mut Event,
    found: &'a mut Found<'de>,
}

impl<'de> DeserializeSeed<'de> for Change<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Change<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object for dynamodb")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Change { event, found } = self;
        while let Some(field) = map.next_key_seed(Known(&CHANGE))? {
            found.once(field)?;
            match field {
                "ApproximateCreationDateTime" => found.time = Some(map.next_value::<&RawValue>()?.get()),
                "ApproximateCreationDateTimePrecision" => found.precision = Some(map.next_value::<&RawValue>()?.get()),
                "Keys" => map.next_value_seed(&mut event.keys)?,
                "NewImage" => map.next_value_seed(&mut event.new)?,
                "OldImage" => map.next_value_seed(&mut event.old)?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}
