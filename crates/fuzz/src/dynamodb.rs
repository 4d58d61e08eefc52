//! Change events of DynamoDB.

use std::cell::RefCell;
use std::collections::BTreeMap;

use domain::limits::{DYNAMODB_TIMES, UNMARSHAL_ERROR_CHARS};
use formats::unmarshal::Event;
use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::input::{Checked, JSON, fuzz};

const WORDS: &[&[u8]] = &[
    b"\xEF\xBB\xBF",
    b"\xff",
    b"null",
    b"true",
    b"false",
    b"\"eventName\":\"INSERT\"",
    b"\"eventName\":\"MODIFY\"",
    b"\"eventName\":\"REMOVE\"",
    b"\"eventID\":\"1\"",
    b"\"tableName\":\"users\"",
    b"\"eventSourceARN\":\"arn:aws:dynamodb:eu-west-1:1:table/users/stream/x\"",
    b"\"userIdentity\":{\"type\":\"Service\",\"principalId\":\"dynamodb.amazonaws.com\"}",
    b"\"dynamodb\":{",
    b"\"Keys\":{\"id\":{\"S\":\"a\"}}",
    b"\"NewImage\":{",
    b"\"OldImage\":{",
    b"\"NewImage\":null",
    b"\"ApproximateCreationDateTime\":",
    b"\"ApproximateCreationDateTimePrecision\":\"MICROSECOND\"",
    b"1795255200000",
    b"1795255200",
    b"1.7952552E9",
    b"1e9223372036854775807",
    b"1e-9223372036854775808",
    b"0e99999999999",
    b"00000000000000000001",
    b"-0",
    b"1e999",
    b"{\"S\":\"a\"}",
    b"{\"N\":\"1\"}",
    b"{\"N\":1}",
    b"{\"N\":\"1e400\"}",
    b"{\"N\":\"NaN\"}",
    b"{\"N\":\"\\u002b1\"}",
    b"{\"B\":\"AA==\"}",
    b"{\"BOOL\":true}",
    b"{\"NULL\":true}",
    b"1 ",
    b"{\"L\":[",
    b"{\"M\":{",
    b"{\"SS\":[\"a\",\"b\"]}",
    b"{\"NS\":[\"1\",\"2\"]}",
    b"{\"BS\":[]}",
    b"\"a\":",
    b"\"\":",
    b"\"\\u0061\":",
    b"\\u0000",
    b"\\ud83d\\ude00",
    b"\\ud800",
    b"\x7f",
    b"\xe2\x80\xa8",
];

thread_local! {
    /// As in the bridge, one value reads all events.
    static REUSED: RefCell<Event> = RefCell::default();
}

fn check(payload: &[u8]) -> Checked {
    let mut event = Event::default();
    event.read(payload);
    REUSED.with_borrow_mut(|reused| {
        reused.read(payload);
        prop_assert_eq!(columns(reused), columns(&event), "after another event");
        Ok(())
    })?;
    prop_assert!(event.error().chars().count() <= UNMARSHAL_ERROR_CHARS + 100, "{}", event.error());
    if event.error().is_empty() { good(&event, payload) } else { bad(&event) }
}

/// Everything that becomes a column.
fn columns(event: &Event) -> (Vec<String>, i64, bool, bool, Vec<(String, String)>) {
    let texts = [event.name(), event.id(), event.table(), event.keys(), event.new_image(), event.old_image()];
    let texts = texts.into_iter().chain([event.error()]).map(str::to_owned).collect();
    let attributes = event.attributes().map(|(name, value)| (name.to_owned(), value.to_owned()));
    (texts, event.version(), event.is_deleted(), event.is_ttl_delete(), attributes.collect())
}

fn bad(event: &Event) -> Checked {
    let (texts, version, deleted, ttl_delete, attributes) = columns(event);
    prop_assert!([1, 3, 4, 5].iter().all(|n| texts[*n].is_empty()), "{:?}", texts);
    prop_assert_eq!((version, deleted, ttl_delete, attributes), (0, false, false, vec![]));
    Ok(())
}

fn good(event: &Event, payload: &[u8]) -> Checked {
    let text = payload.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(payload);
    prop_assert!(serde_json::from_slice::<IgnoredAny>(text).is_ok(), "it is no JSON");
    prop_assert!(["INSERT", "MODIFY", "REMOVE"].contains(&event.name()), "{}", event.name());
    prop_assert!(!event.table().is_empty());
    prop_assert!(DYNAMODB_TIMES.contains(&event.version()), "{}", event.version());
    prop_assert_eq!((event.is_deleted(), event.new_image().is_empty()), (event.name() == "REMOVE", event.is_deleted()));
    prop_assert!(!event.is_ttl_delete() || event.is_deleted());
    // Without its types, an item is shorter.
    let images = [event.keys(), event.new_image(), event.old_image()];
    prop_assert!(images.iter().map(|image| image.len()).sum::<usize>() <= payload.len());
    for image in images.into_iter().filter(|image| !image.is_empty()) {
        prop_assert!(!item(image)?.is_empty());
    }
    let shown = if event.new_image().is_empty() { event.keys() } else { event.new_image() };
    let attributes: Vec<_> = event.attributes().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let count = attributes.len();
    let attributes: BTreeMap<_, _> = attributes.into_iter().collect();
    prop_assert_eq!(attributes.len(), count, "a name stands there twice");
    prop_assert_eq!(attributes, item(shown)?);
    Ok(())
}

/// An item's attributes, each with its JSON.
fn item(json: &str) -> Result<BTreeMap<String, String>, TestCaseError> {
    let item: Result<BTreeMap<String, Box<RawValue>>, _> = serde_json::from_str(json);
    let item = item.map_err(|why| TestCaseError::fail(format!("{why}: {json}")))?;
    Ok(item.into_iter().map(|(name, value)| (name, value.get().to_owned())).collect())
}

#[test]
fn any_event_is_read_or_refused() {
    fuzz("dynamodb", &[JSON, WORDS].concat(), 100_000, check);
}
