//! The fields of a payload, spliced verbatim into a row.

use std::borrow::Cow;
use std::fmt;
use std::str::Utf8Error;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use thiserror::Error;

use domain::columns::is_beside_fields;

/// Why a payload cannot be part of a row: the end of the sentence in the column `_error`.
#[derive(Debug, Error)]
#[error(transparent)]
pub(super) enum Reason {
    NotText(#[from] Utf8Error),
    NotARow(#[from] serde_json::Error),
}

/// The text between the braces of a payload that is one JSON object, with or without a byte order
/// mark.
///
/// All of it is validated, and nothing is rewritten. Stricter than JSON where ClickHouse is:
/// rejects duplicate names in one object, unpaired surrogates, numbers beyond Float64, and nesting
/// beyond 128 levels. Also rejects fields whose names differ only in case: ClickHouse matches
/// fields to columns case-insensitively (`input_format_column_name_matching_mode`), and then sees
/// duplicates.
pub(super) fn fields(payload: &[u8]) -> Result<&[u8], Reason> {
    // Validating the whole is cheaper than validating each string.
    let text = std::str::from_utf8(payload)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parser = serde_json::Deserializer::from_str(text);
    // Most payloads have fewer names, so most rows cost one allocation.
    let mut names = Vec::with_capacity(16);
    Row(&mut names).deserialize(&mut parser).and_then(|()| parser.end())?;
    let object = text.as_bytes().trim_ascii();
    Ok(object.get(1..object.len().saturating_sub(1)).unwrap_or_default().trim_ascii())
}

/// The names of the objects being visited, outermost first. One shared list, because a list per
/// object would cost an allocation.
type Names<'de> = Vec<Name<'de>>;

/// A payload's object.
struct Row<'a, 'de>(&'a mut Names<'de>);

impl<'de> DeserializeSeed<'de> for Row<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Row<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        go_through(map, self.0)?;
        // Each name must be unique within a row.
        if let Some(name) = self.0.iter().find(|name| is_beside_fields(&name.0)) {
            return Err(A::Error::custom(format_args!("its field {} has the name of a virtual column", name.0)));
        }
        self.0.sort_unstable_by(|a, b| a.lower().cmp(b.lower()));
        match self.0.windows(2).find(|pair| pair[0].is(&pair[1].0)) {
            Some(pair) => {
                Err(A::Error::custom(format_args!("the fields {} and {} differ only in case", pair[0].0, pair[1].0)))
            }
            None => Ok(()),
        }
    }
}

/// Visits an object. Its names, each unique, are appended to `names` after those already there.
fn go_through<'de, A: MapAccess<'de>>(mut map: A, names: &mut Names<'de>) -> Result<(), A::Error> {
    let first = names.len();
    while let Some(name) = map.next_key()? {
        names.push(name);
        let inside = names.len();
        map.next_value_seed(Checked(names))?;
        names.truncate(inside);
    }
    let own = names.get_mut(first..).unwrap_or_default();
    own.sort_unstable();
    match own.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(A::Error::custom(format_args!("the field {} appears twice", pair[0].0))),
        None => Ok(()),
    }
}

/// A field's name, borrowed where it has no escapes.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Name<'de>(Cow<'de, str>);

impl Name<'_> {
    /// Whether the names are equal ignoring case. ClickHouse folds only ASCII letters.
    fn is(&self, name: &str) -> bool {
        self.0.eq_ignore_ascii_case(name)
    }

    fn lower(&self) -> impl Iterator<Item = u8> {
        self.0.bytes().map(|byte| byte.to_ascii_lowercase())
    }
}

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Name<'de>, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_str<E>(self, name: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// Any value, visited to its end: unlike with an ignored value, its strings are decoded.
struct Checked<'a, 'de>(&'a mut Names<'de>);

impl<'de> DeserializeSeed<'de> for Checked<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Checked<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while elements.next_element_seed(Checked(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        go_through(map, self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn given(payload: &str) -> Result<String, String> {
        let inside = fields(payload.as_bytes()).map_err(|why| why.to_string())?;
        Ok(String::from_utf8_lossy(inside).into_owned())
    }

    #[test]
    fn an_object_is_taken_as_it_is_written() {
        let same = "\"a\" : 1.10, \"b\":{\"c\":[null,true,\"\\u00e9\"]}";
        assert_eq!(given(&format!(" \n{{ {same} }}\r\n")).as_deref(), Ok(same));
        assert_eq!(given("{}").as_deref(), Ok(""));
        assert_eq!(
            given("{\"a\":{\"x\":1,\"X\":2},\"é\":3,\"É\":4}").as_deref(),
            Ok("\"a\":{\"x\":1,\"X\":2},\"é\":3,\"É\":4")
        );
        assert_eq!(
            given("{\"n\":123456789012345678901234567890}").as_deref(),
            Ok("\"n\":123456789012345678901234567890")
        );
    }

    #[test]
    fn what_cannot_stand_in_a_row_is_told() {
        for (payload, why) in [
            ("", "EOF"),
            ("[1]", "a JSON object"),
            ("7", "a JSON object"),
            ("{\"a\":1}{\"b\":2}", "trailing characters"),
            ("{\"a\":1", "EOF"),
            ("{\"a\":1,\"\\u0061\":2}", "the field a appears twice"),
            ("{\"x\":[{\"a\":1,\"a\":2}]}", "the field a appears twice"),
            ("{\"_timestamp\":1}", "_timestamp"),
            ("{\"_KEY\":1}", "its field _KEY has the name of a virtual column"),
            ("{\"b\":0,\"Id\":1,\"a\":2,\"iD\":3}", "differ only in case"),
            ("{\"a\":\"\\ud800\"}", "hex escape"),
            ("{\"a\":1e999}", "out of range"),
            ("{\"a\":\"\u{1}\"}", "control character"),
        ] {
            let told = given(payload).expect_err(payload);
            assert!(told.contains(why), "{payload}: {told}");
        }
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(1_000), "]".repeat(1_000));
        assert!(given(&deep).expect_err("too deep").contains("recursion"));
        assert!(fields(b"{\"a\":\"\xff\"}").is_err());
        assert_eq!(given("\u{feff} {\"a\":1}").as_deref(), Ok("\"a\":1"));
        assert!(fields("{\"a\":1}\u{feff}".as_bytes()).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever is accepted forms a whole object again when put into one.
        #[test]
        fn what_is_accepted_makes_a_row(payload in "[{}\\[\\]\",:a-c0-9 \\\\e.-]{0,40}") {
            if let Ok(inside) = given(&payload) {
                let row = if inside.is_empty() { "{\"_key\":1}".into() } else { format!("{{\"_key\":1,{inside}}}") };
                let row: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&row).unwrap();
                let alone: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&payload).unwrap();
                prop_assert_eq!(row.len(), alone.len() + 1);
                prop_assert!(alone.iter().all(|(name, value)| row[name] == *value));
            }
        }
    }
}
