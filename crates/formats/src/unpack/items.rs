//! Several JSON documents in one payload: objects in sequence, with or without space between them,
//! and the elements of arrays.
//!
//! Items are found one at a time, so that millions of them cost no memory. The same code validates
//! the whole payload first and returns its rows afterwards, so a payload that is valid gives every
//! one of them.

use std::ops::Range;

use serde::de::IgnoredAny;

use domain::limits::MAX_JSON_DEPTH;

/// The byte order mark that UTF-8 text may start with.
pub const BOM: &[u8] = b"\xEF\xBB\xBF";

/// The position after an item.
#[derive(Clone, Copy, Debug)]
pub struct Items {
    at: usize,
    place: Place,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    /// Not in an array.
    Outside,
    /// After `[`.
    Begun,
    /// After an element.
    Element,
    /// After a comma.
    Comma,
}

/// The payload is something else, or broken.
#[derive(Debug)]
pub struct Broken;

impl Items {
    /// Validates all of `text`. `None` if it is anything but whole objects and arrays, is nested
    /// deeper than [`MAX_JSON_DEPTH`], or has no item.
    pub fn open(text: &[u8]) -> Option<Items> {
        let first = Items { at: if text.starts_with(BOM) { BOM.len() } else { 0 }, place: Place::Outside };
        if !is_shallow(text) {
            return None;
        }
        let (mut all, mut any) = (first, false);
        while all.next(text).ok()?.is_some() {
            any = true;
        }
        any.then_some(first)
    }

    /// The next item of the same `text`, as written; `None` at the end.
    pub fn next(&mut self, text: &[u8]) -> Result<Option<Range<usize>>, Broken> {
        loop {
            let rest = text.get(self.at..).unwrap_or_default();
            self.at += rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
            let next = match (self.place, text.get(self.at)) {
                (Place::Outside, None) => return Ok(None),
                (Place::Outside, Some(b'[')) => Place::Begun,
                (Place::Begun | Place::Element, Some(b']')) => Place::Outside,
                (Place::Element, Some(b',')) => Place::Comma,
                (Place::Outside, Some(b'{')) => return self.value(text, Place::Outside).map(Some),
                (Place::Begun | Place::Comma, Some(_)) => return self.value(text, Place::Element).map(Some),
                (Place::Outside | Place::Element, Some(_)) | (_, None) => return Err(Broken),
            };
            self.place = next;
            self.at += 1;
        }
    }

    fn value(&mut self, text: &[u8], place: Place) -> Result<Range<usize>, Broken> {
        let rest = text.get(self.at..).unwrap_or_default();
        let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<IgnoredAny>();
        match values.next() {
            Some(Ok(IgnoredAny)) => {
                let found = self.at..self.at + values.byte_offset();
                (self.at, self.place) = (found.end, place);
                Ok(found)
            }
            _ => Err(Broken),
        }
    }
}

/// Whether the nesting is within the limit, whatever else is wrong: the parser would keep a byte
/// for each level.
fn is_shallow(text: &[u8]) -> bool {
    let (mut depth, mut at) = (0usize, 0);
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => at = string_end(text, at + 1),
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_JSON_DEPTH {
            return false;
        }
        at += 1;
    }
    true
}

/// The end of the string that starts before `at`.
fn string_end(text: &[u8], mut at: usize) -> usize {
    while let Some(found) = memchr::memchr2(b'"', b'\\', text.get(at..).unwrap_or_default()) {
        at += found;
        if text.get(at) == Some(&b'"') {
            return at;
        }
        at += 2;
    }
    text.len()
}
