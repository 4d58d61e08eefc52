//! `split=json`: each item of a payload is a row, byte for byte; otherwise the whole payload is
//! one.

use serde_json::value::RawValue;

use super::*;
use domain::limits::MAX_JSON_DEPTH;

/// Rows, and whether the payload was not split.
fn rows(text: &str) -> (Vec<String>, u64) {
    let (rows, counts) = one(text.as_bytes(), Split::Json);
    (rows, counts.not_split)
}

#[test]
fn objects_and_elements_are_rows() {
    for (text, expected) in [
        (r#"{"a":1}"#, &[r#"{"a":1}"#][..]),
        (r#"{"a":1}{"b":2}"#, &[r#"{"a":1}"#, r#"{"b":2}"#]),
        ("{\"a\":1}\n{\"b\":2}\r\n", &[r#"{"a":1}"#, r#"{"b":2}"#]),
        (" { \"a\" : 1 }\t{}\n\n{}", &["{ \"a\" : 1 }", "{}", "{}"]),
        ("{\n  \"a\": [\n 1 ]\n}{}", &["{\n  \"a\": [\n 1 ]\n}", "{}"]),
        (r#"[{"a":1},{"b":2}]"#, &[r#"{"a":1}"#, r#"{"b":2}"#]),
        (" [ {} , {\"b\":[1,2]} ] ", &["{}", "{\"b\":[1,2]}"]),
        // Whatever an element is, it is a row as written; nested arrays stay arrays.
        (
            r#"[1, "a,]", null,true,-1.50e+1,[2,[3]],{}]"#,
            &["1", r#""a,]""#, "null", "true", "-1.50e+1", "[2,[3]]", "{}"],
        ),
        (r#"[{}]{"a":"}"}[2][]"#, &["{}", r#"{"a":"}"}"#, "2"]),
        (r#"{"s":"\\\"}{"}{"t":"\\"}"#, &[r#"{"s":"\\\"}{"}"#, r#"{"t":"\\"}"#]),
        ("\u{feff}{\"a\":1}{}", &["{\"a\":1}", "{}"]),
        ("{\"a\":1,\"a\":2}{}", &["{\"a\":1,\"a\":2}", "{}"]),
    ] {
        assert_eq!(rows(text), (expected.iter().map(|row| (*row).to_owned()).collect(), 0), "{text}");
        assert_eq!(one(&gzip(text.as_bytes()), Split::Json).0, rows(text).0);
    }
    // The bytes of a row need not be UTF-8.
    let (given, _) = unpacked(page(&[b"[\"\xff\",{}]".to_vec()], 0), &by(Decompress::Auto, Split::Json));
    assert_eq!((given.len(), &given[0].3[..]), (2, &b"\"\xff\""[..]));
}

#[test]
fn what_is_broken_or_something_else_is_one_row() {
    for text in [
        "",
        " \n",
        "\u{feff}",
        "[]",
        "[ ]{",
        "7",
        "1 2",
        "null",
        "\"a\"",
        "text",
        "{} {",
        "{}x",
        "{}1",
        "{},{}",
        "{}\0",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[1}",
        "[{]}",
        "{\"a\":}",
        "{\"a\":1}}",
        "]",
        "[[1]",
        "[01]",
        "[1]2",
        "[truefalse]",
        "[nul]",
        "[\"a\"\"b\"]",
        "[1.]",
        "{a:1}",
        "[NaN]",
        "{\"a\":\"\u{1}\"}",
        "{}\u{feff}{}",
    ] {
        assert_eq!(rows(text), (vec![text.to_owned()], 1), "{text:?}");
    }
}

#[test]
fn depth_has_an_end() {
    let deep = |levels: usize| format!("{{}}{}1{}", "[".repeat(levels), "]".repeat(levels));
    assert_eq!(rows(&deep(MAX_JSON_DEPTH)).0.len(), 2);
    assert_eq!(rows(&deep(MAX_JSON_DEPTH + 1)).1, 1);
    // Brackets inside a string do not nest.
    let text = format!("[\"{}\\\"[\",2]", "[".repeat(500));
    assert_eq!(rows(&text).0.len(), 2);
    for text in ["[".repeat(10 << 20), "{\"\":".repeat(2 << 20), "[{".repeat(5 << 20), "\"[".repeat(5 << 20)] {
        assert_eq!(rows(&text).1, 1);
    }
}

#[test]
fn millions_of_items_come_in_pieces() {
    for (text, item) in [(format!("[{}0]", "0,".repeat((1 << 20) - 1)), &b"0"[..]), ("{}".repeat(1 << 20), b"{}")] {
        let mut unpacker = Unpacker::new(page(&[text.into_bytes()], 0), 0, by(Decompress::Auto, Split::Json));
        let mut next = 0;
        while let Some(rows) = unpacker.next_chunk() {
            assert!(rows.memory() < 2 * UNPACKED_CHUNK && unpacker.memory() == 0, "{} bytes", rows.memory());
            assert!(rows.records().zip(next..).all(|(row, sub)| row.sub_sequence == sub && row.payload == item));
            next += rows.len() as u32;
        }
        assert_eq!(next, 1 << 20);
    }
}

/// Written independently of the reader: everything is parsed, and kept.
fn expected(text: &str) -> Option<Vec<String>> {
    let mut rows = Vec::new();
    for value in serde_json::Deserializer::from_str(text).into_iter::<Box<RawValue>>() {
        let value = value.ok()?;
        match value.get().as_bytes()[0] {
            b'{' => rows.push(value.get().to_owned()),
            b'[' => rows.extend(
                serde_json::from_str::<Vec<Box<RawValue>>>(value.get()).ok()?.iter().map(|v| v.get().to_owned()),
            ),
            _ => return None,
        }
    }
    Some(rows).filter(|rows| !rows.is_empty())
}

fn value() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        Just("null".to_owned()),
        Just("-0.5e3".into()),
        any::<i32>().prop_map(|n| n.to_string()),
        "[ -~é]{0,6}".prop_map(|text| serde_json::Value::from(text).to_string()),
    ];
    scalar.prop_recursive(3, 24, 4, |inner| {
        let fields = prop::collection::vec(("[a-c]", inner.clone()), 0..4);
        let object = fields.prop_map(|fields| {
            let fields: Vec<String> = fields.into_iter().map(|(name, value)| format!("\"{name}\" :{value}")).collect();
            format!("{{{}}}", fields.join(", "))
        });
        let array = (prop::collection::vec(inner, 0..4), "[ \n]{0,2}")
            .prop_map(|(elements, space)| format!("[{space}{}]", elements.join(&format!("{space},"))));
        prop_oneof![object, array]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_item_is_a_row(values in prop::collection::vec((value(), "[ \t\r\n]{0,2}"), 0..6)) {
        let text: String = values.into_iter().flat_map(|(value, space)| [value, space]).collect();
        match expected(&text) {
            Some(expected) => prop_assert_eq!(rows(&text), (expected, 0)),
            None => prop_assert_eq!(rows(&text), (vec![text.clone()], 1)),
        }
    }

    #[test]
    fn what_is_spoilt_is_split_as_a_parser_has_it(
        values in prop::collection::vec(value(), 1..4),
        edits in prop::collection::vec((any::<prop::sample::Index>(), "[\\[\\]{},:\" 1\\\\é]{0,2}"), 1..4),
    ) {
        let mut text: Vec<char> = values.concat().chars().collect();
        for (at, edit) in edits {
            let at = at.index(text.len() + 1);
            text.splice(at..(at + 1).min(text.len()), edit.chars());
        }
        let text: String = text.into_iter().collect();
        match expected(&text) {
            Some(expected) => prop_assert_eq!(rows(&text), (expected, 0)),
            None => prop_assert_eq!(rows(&text), (vec![text.clone()], 1)),
        }
    }
}
