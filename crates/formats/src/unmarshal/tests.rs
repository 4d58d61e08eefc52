use serde::de::IgnoredAny;

use super::*;
use testkit::tree::{self, Expected};

fn told(event: &Event) -> Expected {
    Expected {
        name: event.name().into(),
        id: event.id().into(),
        table: event.table().into(),
        version: event.version(),
        is_deleted: event.is_deleted(),
        ttl_delete: event.is_ttl_delete(),
        keys: event.keys().into(),
        new: event.new_image().into(),
        old: event.old_image().into(),
        attributes: event.attributes().map(|(name, value)| (name.into(), value.into())).collect(),
    }
}

fn read(payload: impl AsRef<[u8]>) -> Event {
    let mut event = Event::default();
    event.read(payload.as_ref());
    event
}

/// The event of an item with the attribute `v`.
fn with(value: &str) -> String {
    format!(
        "{{\"awsRegion\":\"us-east-1\",\"eventID\":\"e1\",\"eventName\":\"INSERT\",\"userIdentity\":null,\"recordFormat\":\"application/json\",\
         \"tableName\":\"users\",\"dynamodb\":{{\"ApproximateCreationDateTime\":1719347890250647,\"Keys\":{{\"id\":{{\"S\":\"k\"}}}},\
         \"NewImage\":{{\"id\":{{\"S\":\"k\"}},\"v\":{value}}},\"SizeBytes\":198,\"ApproximateCreationDateTimePrecision\":\"MICROSECOND\"}},\
         \"eventSource\":\"aws:dynamodb\"}}"
    )
}

/// What becomes of the value.
fn plain(value: &str) -> String {
    let event = read(with(value));
    assert_eq!(event.error(), "", "{value}");
    event.attributes().find(|(name, _)| *name == "v").expect("v").1.to_owned()
}

#[test]
fn every_type_becomes_plain_json() {
    for (value, expected) in [
        (r#"{"S":"sally"}"#, r#""sally""#),
        (r#"{"S":""}"#, r#""""#),
        (r#"{"S":"\u00e9\/\ud83d\ude00\u001F\n"}"#, r#""é/😀\u001f\n""#),
        (r#"{"N":"26"}"#, "26"),
        (r#"{"N":"1E+2"}"#, "1E+2"),
        (r#"{"N":"1E\u002B2"}"#, "1E+2"),
        (r#"{"N":12345678901234567890123456789012345678}"#, "12345678901234567890123456789012345678"),
        (r#"{"N": -0.10 }"#, "-0.10"),
        (r#"{"N":1e999}"#, "1e999"),
        (r#"{"B":"AQID"}"#, r#""AQID""#),
        (r#"{"BOOL":false}"#, "false"),
        (r#"{"NULL":true}"#, "null"),
        (r#"{"L":[]}"#, "[]"),
        (r#"{"L":[{"N":"1"},{"L":[{"NULL":true}]},{"M":{}}]}"#, "[1,[null],{}]"),
        (r#"{"M":{"b":{"S":","},"a":{"M":{"b":{"BOOL":true}}}}}"#, r#"{"b":",","a":{"b":true}}"#),
        (r#"{"SS":["b","a"]}"#, r#"["b","a"]"#),
        (r#"{"NS":["2",1.50]}"#, "[2,1.50]"),
        (r#"{"BS":["AQ=="]}"#, r#"["AQ=="]"#),
    ] {
        assert_eq!(plain(value), expected);
    }
}

#[test]
fn what_is_no_value_is_told() {
    let deep = |levels: usize| format!("{}{{\"N\":\"1\"}}{}", "{\"L\":[".repeat(levels), "]}".repeat(levels));
    assert_eq!(plain(&deep(32)), format!("{}1{}", "[".repeat(32), "]".repeat(32)));
    let (too_deep, long) = (deep(500), format!("{{\"{}\":1}}", "x".repeat(10_000)));
    for (value, why) in [
        (r#"{"X":"a"}"#, "'X' is not a DynamoDB type"),
        (&long, "xxx…' is not a DynamoDB type"),
        ("{}", "a value has no type"),
        (r#"{"S":"a","N":"1"}"#, "a value has two types, S and N"),
        (r#"{"S":"a","S":"b"}"#, "a value has two types, S and S"),
        (r#"{"N":"ten"}"#, r#""ten" is not a JSON number"#),
        (r#"{"N":" 1"}"#, "is not a JSON number"),
        (r#"{"N":"1 "}"#, "is not a JSON number"),
        (r#"{"N":"+1"}"#, "is not a JSON number"),
        (r#"{"N":"01"}"#, "is not a JSON number"),
        (r#"{"N":"1."}"#, "is not a JSON number"),
        (r#"{"N":""}"#, "is not a JSON number"),
        (r#"{"N":"[1]"}"#, "is not a JSON number"),
        (r#"{"N":"1\n"}"#, "is not a JSON number"),
        (r#"{"N":[1]}"#, "[1] is not a JSON number"),
        (r#"{"N":true}"#, "true is not a JSON number"),
        (r#"{"NS":["1","x"]}"#, r#""x" is not a JSON number"#),
        (r#"{"S":1}"#, "expected a text"),
        (r#"{"SS":[1]}"#, "expected a text"),
        (r#"{"SS":"a"}"#, "expected an array for SS"),
        (r#"{"L":{}}"#, "expected an array for L"),
        (r#"{"M":[]}"#, "expected an object for M"),
        (r#"{"BOOL":"true"}"#, "expected a boolean"),
        (r#"{"NULL":false}"#, "a NULL is not true"),
        (r#"{"M":{"a":{"N":"1"},"b":{"N":"2"},"\u0061":{"N":"3"}}}"#, "the name 'a' appears twice"),
        ("\"text\"", "a value with its type"),
        ("null", "a value with its type"),
        (r#"{"S":"\ud800"}"#, "hex escape"),
        ("{\"S\":\"\u{1}\"}", "control character"),
        (&too_deep, "recursion limit"),
    ] {
        let event = read(with(value));
        assert!(
            event.error().starts_with(&format!("{NO_EVENT}the attribute 'v' of NewImage: ")),
            "{value}: {}",
            event.error()
        );
        assert!(event.error().contains(why), "{value}: {}", event.error());
        assert!(event.error().chars().count() <= NO_EVENT.len() + UNMARSHAL_ERROR_CHARS);
        let expected = Expected { name: "INSERT".into(), table: "users".into(), ..Expected::default() };
        assert_eq!(told(&event), expected, "{value}");
    }
    assert!(read(with(r#"{"S":"a"},"v":{"S":"b"}"#)).error().contains(": the name 'v' appears twice"));
}

/// Each change of an event, and why it is none then.
#[test]
fn what_is_no_event_is_told() {
    let event = with(r#"{"N":"1"}"#);
    let absent = |field: &str| event.replace(&format!("\"{field}\":"), "\"other\":");
    let change = |from: &str, to: &str| {
        assert!(event.contains(from), "{from}");
        event.replace(from, to)
    };
    for (payload, why, name, table) in [
        (String::new(), "EOF while parsing a value", "", ""),
        ("7".into(), "expected a JSON object", "", ""),
        ("[]".into(), "expected a JSON object", "", ""),
        ("[\"INSERT\",\"users\",null]".into(), "expected a JSON object", "", ""),
        ("{\"id\":1}".into(), "it has no field dynamodb", "", ""),
        ("{\"dynamodb\":{}}".into(), "it has no field eventName", "", ""),
        (event[..event.len() - 1].into(), "EOF while parsing an object", "INSERT", "users"),
        (event.clone() + "{}", "trailing characters", "INSERT", "users"),
        (absent("dynamodb"), "it has no field dynamodb", "INSERT", "users"),
        (absent("eventName"), "it has no field eventName", "", "users"),
        (absent("tableName"), "it has no field tableName", "INSERT", ""),
        (absent("Keys"), "its field dynamodb has no Keys", "INSERT", "users"),
        (absent("NewImage"), "it is INSERT without a NewImage", "INSERT", "users"),
        (absent("ApproximateCreationDateTime"), "has no ApproximateCreationDateTime", "INSERT", "users"),
        (
            change("\"INSERT\"", "\"UPSERT\""),
            "its eventName is 'UPSERT', not INSERT, MODIFY or REMOVE",
            "UPSERT",
            "users",
        ),
        (change("\"INSERT\"", "\"REMOVE\""), "it is REMOVE with a NewImage", "REMOVE", "users"),
        (change("\"INSERT\"", "5"), "expected a string for eventName", "", "users"),
        (
            change("1719347890250647", "\"now\""),
            "ApproximateCreationDateTime is \"now\", which is not",
            "INSERT",
            "users",
        ),
        (change("1719347890250647", "-1"), "ApproximateCreationDateTime is -1, which is not", "INSERT", "users"),
        (change("1719347890250647", "9223372036854775808"), "not between 2012 and 2100", "INSERT", "users"),
        (change("1719347890250647", "1719347890250"), "if it counts microseconds", "INSERT", "users"),
        (
            change("\"MICROSECOND\"", "\"SECOND\""),
            "Precision is \"SECOND\", not MILLISECOND or MICROSECOND",
            "INSERT",
            "users",
        ),
        (change("\"eventSource\"", "\"eventID\""), "the field eventID appears twice", "INSERT", "users"),
        (change("\"SizeBytes\"", "\"Keys\""), "the field Keys appears twice", "INSERT", "users"),
        (change("{\"id\":{\"S\":\"k\"}}", "[]"), "expected an object of attributes", "INSERT", "users"),
    ] {
        let read = read(&payload);
        assert!(read.error().contains(why), "{payload}: {}", read.error());
        assert_eq!((read.name(), read.table()), (name, table), "{payload}");
        assert_eq!(
            (read.id(), read.version(), read.new_image(), read.attributes().count()),
            ("", 0, "", 0),
            "{payload}"
        );
        assert!(!read.is_deleted() && !read.is_ttl_delete());
    }
    let mut bytes = event.into_bytes();
    let at = bytes.iter().rposition(|byte| *byte == b'k').expect("the key");
    bytes[at] = 0xff;
    let read = read(&bytes);
    assert!(read.error().contains("it is not valid UTF-8"), "{}", read.error());
    assert_eq!((read.name(), read.table()), ("INSERT", "users"));
}

#[test]
fn versions_are_microseconds() {
    let version = |time: &str, precision: &str, table: &str| {
        let event = with("{\"NULL\":true}").replace("1719347890250647", time);
        let event = event.replace(",\"ApproximateCreationDateTimePrecision\":\"MICROSECOND\"", precision);
        read(event.replace("\"tableName\":\"users\"", table)).version()
    };
    let precision = |word: &str| format!(",\"ApproximateCreationDateTimePrecision\":{word}");
    let (here, arn) = (
        "\"tableName\":\"users\"",
        "\"eventSourceARN\":\"arn:aws:dynamodb:r:1:table/users/stream/2026-11-21T10:00:00.000\"",
    );
    let both = format!("{arn},{here}");
    for (time, word, table, expected) in [
        ("1719347890250647", precision("\"MICROSECOND\""), here, 1_719_347_890_250_647),
        ("1719347890250", precision("\"MILLISECOND\""), here, 1_719_347_890_250_000),
        ("1719347890250", precision("null"), here, 1_719_347_890_250_000),
        ("1719347890250", String::new(), here, 1_719_347_890_250_000),
        ("1719347890250", String::new(), &both, 1_719_347_890_250_000),
        ("1719347890", String::new(), arn, 1_719_347_890_000_000),
        ("1719347890.250647", String::new(), arn, 1_719_347_890_250_647),
        ("1719347890.2506479", String::new(), arn, 1_719_347_890_250_647),
        ("1.71934789E9", String::new(), arn, 1_719_347_890_000_000),
        ("1719347890250", precision("\"MILLISECOND\""), arn, 1_719_347_890_250_000),
        ("1325376000000", String::new(), here, DYNAMODB_TIMES.start),
        ("4102444799999.999", String::new(), here, DYNAMODB_TIMES.end - 1),
        // In another unit than the one that the event says, or does not say.
        ("1325375999999", String::new(), here, 0),
        ("4102444800000", String::new(), here, 0),
        ("1719347890250", String::new(), arn, 0),
        ("1719347890250647", String::new(), arn, 0),
        ("1719347890", String::new(), here, 0),
        ("1719347890250647", String::new(), here, 0),
        ("1719347890250647000", String::new(), here, 0),
        ("1719347890250", precision("\"MICROSECOND\""), here, 0),
        ("1719347890250647", precision("\"MILLISECOND\""), here, 0),
        ("0", String::new(), here, 0),
    ] {
        assert_eq!(version(time, &word, table), expected, "{time} {word} {table}");
    }
    let units = [Unit::Second, Unit::Millisecond, Unit::Microsecond];
    for (said, meant) in units.into_iter().flat_map(|said| units.map(|meant| (said, meant))) {
        let within = |micros: i64| {
            let text = match said {
                Unit::Second => (micros / 1_000_000).to_string(),
                Unit::Millisecond => (micros / 1_000).to_string(),
                Unit::Microsecond => micros.to_string(),
            };
            time::microseconds(&text, meant).is_some_and(|version| DYNAMODB_TIMES.contains(&version))
        };
        let all = [DYNAMODB_TIMES.start, 1_719_347_890_250_647, DYNAMODB_TIMES.end - 1].map(within);
        assert_eq!(all, [said == meant; 3], "{said:?} taken for {meant:?}");
    }
    for (text, unit, expected) in [
        ("9223372036854.775807", Unit::Second, Some(i64::MAX)),
        ("9223372036854.775808", Unit::Second, None),
        ("0.0000001", Unit::Second, Some(0)),
        ("0e999999999", Unit::Second, Some(0)),
        ("1e-999999999", Unit::Microsecond, Some(0)),
        ("1e999999999", Unit::Microsecond, None),
        ("1e99999999999999999999", Unit::Microsecond, None),
        ("0e9223372036854775807", Unit::Second, None),
        ("0.0012e5", Unit::Microsecond, Some(120)),
        ("-0", Unit::Second, None),
        ("true", Unit::Second, None),
        ("\"1\"", Unit::Second, None),
        ("{}", Unit::Second, None),
        ("[]", Unit::Second, None),
        ("null", Unit::Second, None),
        ("", Unit::Second, None),
    ] {
        assert_eq!(time::microseconds(text, unit), expected, "{text}");
    }
}

#[test]
fn a_byte_order_mark_is_no_part_of_an_event() {
    let event = with("{\"N\":\"1\"}");
    assert_eq!(told(&read(format!("\u{feff}{event}"))), told(&read(&event)));
    let half = read(format!("\u{feff}{}", event.replace("NewImage", "other")));
    assert_eq!((half.name(), half.table()), ("INSERT", "users"));
    assert!(half.error().contains("without a NewImage"), "{}", half.error());
    assert!(read(format!("{event}\u{feff}")).error().contains("trailing characters"));
}

/// As ministack writes them.
#[test]
fn records_of_dynamodb_streams_are_events() {
    let event = read(
        r#"{"eventID":"e","eventName":"REMOVE","eventVersion":"1.1","eventSource":"aws:dynamodb","awsRegion":"us-east-1","dynamodb":{
            "ApproximateCreationDateTime":1719347890,"Keys":{"id":{"N":"7"}},"OldImage":{"id":{"N":"7"},"a":{"S":"b"}},"SequenceNumber":"1",
            "SizeBytes":9,"StreamViewType":"NEW_AND_OLD_IMAGES"},
            "eventSourceARN":"arn:aws:dynamodb:us-east-1:000000000000:table/users/stream/2026-11-21T10:00:00.000",
            "userIdentity":{"Type":"Service","PrincipalId":"dynamodb.amazonaws.com"}}"#,
    );
    let expected = Expected {
        name: "REMOVE".into(),
        id: "e".into(),
        table: "users".into(),
        version: 1_719_347_890_000_000,
        is_deleted: true,
        ttl_delete: true,
        keys: "{\"id\":7}".into(),
        new: String::new(),
        old: "{\"id\":7,\"a\":\"b\"}".into(),
        attributes: vec![("id".into(), "7".into())],
    };
    assert_eq!((told(&event), event.error()), (expected, ""));
}

/// A seed, from the environment where one is given.
#[expect(clippy::disallowed_methods, reason = "SEED repeats a run")]
fn seed() -> u64 {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed} repeats this");
    seed
}

#[test]
fn random_events_say_what_they_were_made_of() {
    let mut random = fastrand::Rng::with_seed(seed());
    // One for all of them: nothing of one event is left in the next.
    let mut event = Event::default();
    for _ in 0..3_000 {
        let (payload, expected) = tree::event(&mut random);
        event.read(payload.as_bytes());
        assert_eq!((event.error(), told(&event)), ("", expected), "{payload}");
        let texts: usize = event.attributes().map(|(name, value)| name.len() + value.len()).sum();
        let all = event.keys().len() + event.new_image().len() + event.old_image().len() + texts;
        assert!(all <= 2 * payload.len(), "{all} bytes from {payload}");
    }
}

#[test]
fn what_is_spoilt_is_an_error_or_an_event() {
    let mut random = fastrand::Rng::with_seed(seed());
    let mut event = Event::default();
    let (mut events, mut errors) = (0, 0);
    for _ in 0..10_000 {
        let mut bytes = tree::event(&mut random).0.into_bytes();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..bytes.len().max(1));
            bytes.resize(bytes.len().max(1), b'{');
            match random.u8(..5) {
                0 => bytes.truncate(at),
                1 => bytes[at] = random.u8(..),
                2 => bytes.insert(at, b"{}[]\",:\\0-.eE1 \n\0SNM"[random.usize(..20)]),
                3 => {
                    let from = random.usize(..=at);
                    let part = bytes[from..at].to_vec();
                    bytes.splice(at..at, part);
                }
                _ => drop(bytes.remove(at)),
            }
        }
        event.read(&bytes);
        let text = String::from_utf8_lossy(&bytes);
        if event.error().is_empty() {
            events += 1;
            for image in
                [event.keys(), event.new_image(), event.old_image()].into_iter().filter(|json| !json.is_empty())
            {
                serde_json::from_str::<IgnoredAny>(image)
                    .unwrap_or_else(|error| panic!("{error} in {image} of {text}"));
            }
            let image = if event.is_deleted() { event.keys() } else { event.new_image() };
            let mut names: Vec<&str> = event.attributes().map(|(name, _)| name).collect();
            let fields =
                event.attributes().map(|(name, value)| format!("{}:{value}", serde_json::to_string(name).unwrap()));
            assert_eq!(format!("{{{}}}", fields.collect::<Vec<_>>().join(",")), image, "{text}");
            names.sort_unstable();
            assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{text}");
        } else {
            errors += 1;
            let left = Expected { name: event.name().into(), table: event.table().into(), ..Expected::default() };
            assert_eq!(told(&event), left, "{text}");
        }
    }
    println!("{events} events, {errors} errors");
    assert!(events > 500 && errors > 5_000);
}
