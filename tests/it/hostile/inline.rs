//! `payload=inline`: ClickHouse can read whatever the bridge takes for a row's fields; everything
//! else is a row with `_error`. A row that ClickHouse refused would stop a pipe.

use stack::Bridge;

use crate::common::seed;
use crate::world::{RECORDS, bridge, create_stream, put, sql, stack};

/// Columns of a table that such payloads are read into. Their values always fit; those of all other
/// fields are arbitrary.
const TYPED: &str = "whole Int64, text String, float Float64, numbers Array(Int64), tuple Tuple(x Int64, y String), perhaps Nullable(Int64), \
                     words Map(String, String)";
const COUNT: usize = 3_000;

/// Writes odd JSON.
struct Odd {
    random: fastrand::Rng,
    text: String,
}

impl Odd {
    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.random.usize(..from.len())]
    }

    fn add(&mut self, from: &[&str]) {
        let text = self.pick(from);
        self.text.push_str(text);
    }

    /// White space; usually none.
    fn space(&mut self) {
        self.add(&["", "", "", "", " ", "\n", "\r\n", "\t ", "\n\n    "]);
    }

    fn integer(&mut self) {
        self.add(&["0", "-0", "1", "-1", "9223372036854775807", "-9223372036854775808", "1234567890"]);
    }

    fn float(&mut self) {
        let long = format!("0.{}", "3".repeat(self.random.usize(1..2_000)));
        let wide = format!("-{}", "7".repeat(self.random.usize(1..300)));
        self.add(&[
            "-0.0",
            "1E5",
            "1e+05",
            "1.5e-300",
            "1e-400",
            "1.7976931348623157e308",
            "0e0",
            "5e-324",
            "-1E-0",
            &long,
            &wide,
        ]);
    }

    /// Text between quotes.
    fn inside(&mut self) {
        for _ in 0..self.random.usize(..6) {
            self.add(&[
                "a",
                "Ab c",
                "\\n",
                "\\\"",
                "\\\\",
                "\\/",
                "\\b\\f\\r\\t",
                "\\u0000",
                "\\u00e9",
                "\\ud83d\\ude00",
                "é",
                "日本",
                "😀",
                "\u{7f}",
                "\u{feff}",
                "\u{ffff}",
                "\u{2028}",
                "}",
                "{",
                "[",
                "]",
                ",",
                ":",
                "'",
                "`",
                "%",
                "\\u007B",
                "null",
                "_key",
                ".x",
                " ",
            ]);
        }
    }

    fn string(&mut self) {
        self.text.push('"');
        self.inside();
        self.text.push('"');
    }

    fn list(&mut self, brackets: [char; 2], most: usize, mut item: impl FnMut(&mut Odd)) {
        self.text.push(brackets[0]);
        self.space();
        for n in 0..self.random.usize(..=most) {
            if n > 0 {
                self.text.push(',');
                self.space();
            }
            item(self);
            self.space();
        }
        self.text.push(brackets[1]);
    }

    fn field(&mut self, value: impl FnOnce(&mut Odd)) {
        self.space();
        self.text.push(':');
        self.space();
        value(self);
    }

    fn value(&mut self, depth: usize) {
        match self.random.u8(..if depth == 0 { 6 } else { 8 }) {
            0 => self.integer(),
            1 | 2 => self.float(),
            3 | 4 => self.string(),
            5 => self.add(&["true", "false", "null"]),
            6 => self.list(['[', ']'], 4, |odd| odd.value(depth - 1)),
            _ => self.list(['{', '}'], 4, |odd| {
                odd.string();
                odd.field(|odd| odd.value(depth - 1));
            }),
        }
    }

    /// Nested up to and beyond the limit.
    fn deep(&mut self) {
        let levels = self.random.usize(1..140);
        let (open, close) = if self.random.bool() { ("[", "]") } else { ("{\"x\":", "}") };
        self.text.push_str(&format!("{}1{}", open.repeat(levels), close.repeat(levels)));
    }

    /// A field with a unique name, now and then one that means something elsewhere.
    fn other_field(&mut self, number: usize) {
        match self.random.u8(..30) {
            0 => self.add(&["\"\"", "\"_key\"", "\"_Batch\"", "\"tuple.x\"", "\"_file\"", "\"\\u005fkey\""]),
            1 => {
                let name = "n".repeat(self.random.usize(1..60_000));
                self.text.push_str(&format!("\"{name}{number}\""));
            }
            _ => {
                self.text.push_str(&format!("\"{number}"));
                self.inside();
                self.text.push('"');
            }
        }
        match self.random.u8(..10) {
            0 => self.field(Odd::deep),
            _ => self.field(|odd| odd.value(4)),
        }
    }

    fn typed_field(&mut self, column: usize) {
        const NAMES: [&str; 7] = ["whole", "text", "float", "numbers", "tuple", "perhaps", "words"];
        self.text.push_str(&format!("\"{}\"", NAMES[column]));
        self.field(|odd| match column {
            0 => odd.integer(),
            1 => odd.value(3),
            2 => odd.float(),
            3 => odd.list(['[', ']'], 5, Odd::integer),
            4 => odd.tuple(),
            5 => match odd.random.bool() {
                true => odd.text.push_str("null"),
                false => odd.integer(),
            },
            _ => odd.list(['{', '}'], 4, |odd| {
                odd.string();
                odd.field(Odd::string);
            }),
        });
    }

    fn tuple(&mut self) {
        let inside = [", \"z\": [{}]", "", ",\"X\":{\"x\": 1}"];
        self.text.push_str("{\"y\":");
        self.string();
        self.text.push_str(",\"x\":");
        self.integer();
        self.add(&inside);
        self.text.push('}');
    }

    /// A payload; one in four has bytes changed at random, and then no typed columns, whose values
    /// might no longer fit.
    fn payload(mut self) -> Vec<u8> {
        let broken = self.random.u8(..4) == 0;
        let typed = if broken { 0 } else { 7 };
        self.space();
        let mut number = 0;
        self.list(['{', '}'], 8, |odd| {
            number += 1;
            match number <= typed && odd.random.bool() {
                true => odd.typed_field(number - 1),
                false => odd.other_field(number),
            }
        });
        self.space();
        let mut bytes = self.text.into_bytes();
        for _ in 0..if broken { self.random.usize(1..4) } else { 0 } {
            // The damage may have removed everything.
            let at = self.random.usize(..bytes.len().max(1));
            bytes.resize(bytes.len().max(1), b'{');
            match self.random.u8(..4) {
                0 => bytes.truncate(at.max(1)),
                1 => bytes[at] = self.random.u8(..),
                2 => bytes.insert(at, b"{}[]\",:\\0-.eE1 \n\0"[self.random.usize(..17)]),
                _ => drop(bytes.remove(at)),
            }
        }
        bytes
    }
}

/// The records of the stream with their payloads inline, as read by `url()`. `range` is added to
/// the URL.
fn table(bridge: &Bridge, stream: &str, range: &str) -> String {
    format!(
        "url('{}/v1/streams/{stream}/records?format=JSONEachRow&payload=inline&decompress=none{range}', 'JSONEachRow', \
         '{RECORDS}, _error String, {TYPED}')",
        bridge.url()
    )
}

/// Which of the payloads ClickHouse cannot read, for the failure message.
fn culprit(bridge: &Bridge, stream: &str, payloads: &[Vec<u8>]) -> String {
    let numbers =
        crate::world::get(bridge, &format!("/v1/streams/{stream}/records?format=JSONEachRow&decompress=none")).rows();
    for row in numbers {
        let number = row["_sequence_number"].as_str().expect("a number");
        let one = table(
            bridge,
            stream,
            &format!("&shard={}&from={number}&to={number}", row["_shard_id"].as_str().expect("a shard")),
        );
        if let Err(error) = stack().clickhouse.query(&format!("SELECT * FROM {one} FORMAT Null")) {
            let n: usize = row["_key"].as_str().and_then(|key| key.parse().ok()).expect("a number");
            return format!("{error}\n{}", String::from_utf8_lossy(&payloads[n]));
        }
    }
    "each payload alone is read".into()
}

#[test]
fn clickhouse_reads_what_is_taken_for_fields() {
    let seed = seed("clickhouse_reads_what_is_taken_for_fields");
    let mut random = fastrand::Rng::with_seed(seed);
    let payloads: Vec<Vec<u8>> =
        (0..COUNT).map(|_| Odd { random: random.fork(), text: String::new() }.payload()).collect();
    create_stream("inline-fuzz", 1);
    for part in (0..COUNT).collect::<Vec<_>>().chunks(100) {
        put("inline-fuzz", part.iter().map(|n| (n.to_string(), payloads[*n].clone())));
    }
    let bridge = bridge("inline_fuzz", &[]);
    let all = table(&bridge, "inline-fuzz", "");
    // With one thread, as in a pipe; and as ClickHouse reads by default, looking for the ends of
    // rows in advance.
    for settings in ["max_threads = 1", "max_threads = 2"] {
        let select = format!(
            "SELECT toUInt32(_key), _error = '', hex(_raw_message), (whole, text, float, numbers, tuple, perhaps, words) IS NULL FROM {all} \
             ORDER BY ALL SETTINGS {settings}"
        );
        let answer = stack().clickhouse.query(&select);
        let answer = answer.unwrap_or_else(|error| panic!("{error}\n{}", culprit(&bridge, "inline-fuzz", &payloads)));
        let rows: Vec<Vec<&str>> = answer.lines().map(|line| line.split('\t').collect()).collect();
        assert_eq!(rows.len(), COUNT, "{settings}");
        let mut taken = 0;
        for (row, (n, payload)) in rows.iter().zip(payloads.iter().enumerate()) {
            assert_eq!(row[0], n.to_string(), "{settings}");
            let hex: String = payload.iter().map(|byte| format!("{byte:02X}")).collect();
            let json = serde_json::from_slice::<serde_json::Value>(payload).is_ok_and(|value| value.is_object());
            match row[1] {
                "1" => assert!(json && row[2].is_empty(), "taken: {}", String::from_utf8_lossy(payload)),
                _ => assert_eq!(row[2], hex, "refused: {}", String::from_utf8_lossy(payload)),
            }
            taken += usize::from(row[1] == "1");
        }
        println!("{taken} of {COUNT} payloads are taken for fields, with {settings}");
        assert!((COUNT / 2..COUNT / 10 * 9).contains(&taken), "{taken} of {COUNT}");
    }
}

/// A field whose name differs from a column's only in case would take its place, or be there twice.
#[test]
fn names_in_another_case_are_refused() {
    create_stream("inline-case", 1);
    let payloads = [
        (r#"{"whole":1}"#, "", "1"),
        (r#"{"WHOLE":2}"#, "", "2"),
        (r#"{"whole":3,"Whole":4}"#, "differ only in case", "0"),
        (r#"{"_KEY":"x","whole":5}"#, "virtual column", "0"),
        (r#"{"_Raw_Message":"x"}"#, "virtual column", "0"),
        (r#"{"tuple":{"x":1,"X":2},"whole":6}"#, "", "6"),
    ];
    put("inline-case", payloads.iter().map(|(payload, ..)| ("k".into(), payload.as_bytes().to_vec())));
    let bridge = bridge("inline_case", &[]);
    let select = format!(
        "SELECT _error, _raw_message, whole FROM {} ORDER BY toUInt256(_sequence_number)",
        table(&bridge, "inline-case", "")
    );
    let answer = sql(&format!("{select} FORMAT JSONCompactEachRow"));
    for (line, (payload, why, whole)) in answer.lines().zip(payloads) {
        let row: Vec<serde_json::Value> = serde_json::from_str(line).expect(line);
        let error = row[0].as_str().expect("a text");
        assert!(error.is_empty() == why.is_empty() && error.contains(why), "{payload}: {line}");
        assert_eq!(row[1], if why.is_empty() { "" } else { payload }, "{payload}");
        assert_eq!(row[2].as_str().map_or(row[2].to_string(), str::to_owned), whole, "{payload}");
    }
    assert_eq!(answer.lines().count(), payloads.len());
}
