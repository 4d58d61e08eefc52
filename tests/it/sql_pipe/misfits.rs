//! Every type that a column can have, with values that fit it and values that do not, at every
//! depth: each value is in the table exactly, or the record is in the errors table.

use std::collections::{BTreeMap, BTreeSet};

use super::arrivals::Json;
use super::exact::exact;
use super::{printed, put, run_script, stream_of, wait_for_rows};
use crate::common::wait_until;
use crate::engines::on_each_engine;
use crate::types::documented_types;
use crate::world::sql;

on_each_engine!(
    each_value_of_each_type_is_exact_or_in_errors,
    a_name_that_stands_twice_is_an_error_wherever_an_object_is_taken_apart,
);

/// Types that `JSONExtract` cannot make, so `sql pipe` omits such columns and reports it.
const LEFT_OUT: [&str; 3] = ["BFloat16", "Map(UInt64, Nullable(String))", "Map(Date, Float64)"];
/// Types missing in the documented table, because no expression of their own makes them.
const MORE: [&str; 6] =
    ["Dynamic", "JSON", "Array(JSON)", "Tuple(j JSON, n Int64)", "Tuple(Float64, Float64)", "Variant(Int64, UUID)"];
/// How a type is nested: in the column's type, and in the record.
const NESTED: [(&str, &str); 6] = [
    ("{}", "{}"),
    ("Array({})", "[{}]"),
    ("Map(String, {})", "{\"k\":{}}"),
    ("Tuple(x {})", "{\"x\":{}}"),
    ("Array(Tuple(x {}))", "[{\"x\":{}}]"),
    ("Tuple({}, UInt8)", "[{},7]"),
];
/// What users send, and what nobody should.
const VALUES: &str = r#"
null true false
0 -0 1 -1 127 128 255 256 -129 32768 65536 4294967296 9007199254740993 9223372036854775807 9223372036854775808 18446744073709551615
18446744073709551616 -9223372036854775809 340282366920938463463374607431768211456 123456789012345678901234567890123456789012345678901234567890123456789012345678
0.1 1.5 1.10 -0.0 8.232762829599804 0.1000000000000000 1.23456789012345678901e5 1e5 1E+05 1e16 1.2345678901234566e17 1e22 1e30 1e400 1e-400 0.30000000000000004
123456789012345678.99 19.99 0.00009 99999.9999 100000.5 1795255200 1795255200123 1795255200.125 16777217 3.4028235e39 -1e-7
"" "x" "12" "-12" "1.5" "19.990" "1e5" " 5" "5 " "0012" "+5" "nan" "inf" "true" "abcd" "abcde" "ab" "ü" "z" "a" "a\u0000" "\ud83e\udd80/\"\\" "\u2028\u0001x" "null" "{}" "0"
"2026-11-22" "2026-11-31" "2026-02-31 10:11:12" "2026-11-22T10:11:12Z" "2026-11-22 10:11:12" "2026-11-22T25:11:12Z" "2026-11-22T10:11:12.345Z" "2026-11-22T10:11:12.345600Z"
"2026-11-22T10:11:12.1234567891Z" "2026-11-22T10:11:12+02:00" "1900-01-01T00:00:00+05:00" "2299-12-31T23:59:59-05:00" "2106-02-07 06:28:16" "1969-12-31" "1969-12-31 23:59:59"
"9999-12-31" "2149-06-07" "1795255200" "1795255200123" "20261122" "10:11:12" "Sun, 22 Nov 2026 10:11:12 GMT"
"61f0c404-5cb3-11e7-907b-a6006ad3dba0" "61F0C4045CB311E7907BA6006AD3DBA0" "61f0c404-5cb3-11e7-907b-a6006ad3dbzz" "10.0.0.1" "010.0.0.1" "10.0.0.256" "::1" "2001:DB8::1" "::1%eth0" "192.0.2.1:80"
{} {"a":1} {"a":null} {"a":1,"a":2} {"a":"x","b":1} {"b":1.5} {"a":"x","b":1,"c":2} {"k.l":1,"k":{"l":2}} {"a":{"b":[1,{"c":18446744073709551616}]}} {"a":8.232762829599804}
{"j":{"a":"x"},"n":1} {"id":5,"price":19.99,"more":{"x":[1,"y"]}} {"id":-1} {"price":1.005} {"a":[[1],[2,"3"]]} {"a":[1,"x",null,true,1.5]} {"a":{}} {"x":{"a":1,"a":2}} {"2026-11-22":0.5} {"k":300}
{"address":{"city":"x","place":{"latitude":1}},"items":[{"sku":"a","quantity":65536}]} {"address":"x"} {"items":[{"sku":"a","more":{"deep":1}}]} {"address":{"place":{"longitude":0.5,"height":2}}}
[] [1] ["x"] [1,2] [1,2,3] [1.5,2.5] ["x","61f0c404-5cb3-11e7-907b-a6006ad3dba0"] ["x",null] [null] [[1,2],[]] [[300]] [{"a":1,"b":"x"},{"a":1,"a":2}] [{"k.l":1,"k":{"l":2}}]
[18446744073709551616] ["2026-11-22T10:11:12.345Z",null] ["2026-11-22T10:11:12.3456Z"] [19.99,0.01] [1.005] [true] ["a",null,""]
"#;

/// The values, separated by blanks that are not in a string or bracket.
fn values() -> Vec<String> {
    let stream = serde_json::Deserializer::from_str(VALUES).into_iter::<Box<serde_json::value::RawValue>>();
    stream.map(|value| value.expect("a value").get().to_owned()).collect()
}

type Fields = Vec<(String, Json)>;

/// A row of the table: its id, its columns, and the contents of `rest`.
pub fn row_of(line: &str) -> (String, Fields, Fields) {
    let fields = Json::object(line);
    let Json::Text(id) = Json::get(&fields, "id") else { panic!("{line}") };
    let rest = match Json::get(&fields, "rest") {
        Json::Object(rest) => rest,
        other => panic!("{other:?}"),
    };
    (id, fields, rest)
}

/// A table with a column of each type, its stream and its pipe, which omits this many columns.
pub fn create(table: &str, stream: &str, columns: &[String], without: usize) {
    let definitions: String = columns.iter().enumerate().map(|(at, ty)| format!(", c{at} {ty}")).collect();
    sql(&format!(
        "CREATE TABLE {table} (id String{definitions}, rest Map(String, String)) ENGINE = MergeTree ORDER BY id \
         SETTINGS allow_suspicious_low_cardinality_types = 1, allow_suspicious_variant_types = 1"
    ));
    stream_of(stream, &[r#"{"id": "first"}"#]);
    let said = printed(stream, table, &[]);
    let left_out = said.lines().filter(|line| line.contains("is left out")).count();
    assert_eq!(left_out, without, "{said}");
    run_script(&said);
}

/// Waits until all records have arrived somewhere, and returns the ids of those in the errors
/// table.
pub fn refused(table: &str, all: usize) -> BTreeSet<String> {
    let came = || sql(&format!("SELECT (SELECT count() FROM {table}) + (SELECT count() FROM {table}_errors)"));
    let refreshes = || sql("SELECT view, exception FROM system.view_refreshes FORMAT Vertical");
    wait_until(
        super::DEADLINE,
        || came().trim().parse() == Ok(all),
        || format!("{} of {all}: {}", came(), refreshes()),
    );
    // Some of them are not JSON.
    let ids = format!("SELECT extract(raw_message, '^.\"id\":\"([0-9-]+)\"') FROM {table}_errors FORMAT TSVRaw");
    sql(&ids).lines().map(String::from).collect()
}

/// Errors at a depth.
fn wrong_at(depth: usize, types: &BTreeSet<String>, values: &[String]) -> Vec<String> {
    let ((around, of_value), mut wrong) = (NESTED[depth], Vec::new());
    let (table, stream) = (format!("sqlp_misfits_{depth}"), format!("sql-misfits-{depth}"));
    let columns: Vec<String> = types.iter().map(|ty| around.replace("{}", ty)).collect();
    create(&table, &stream, &columns, LEFT_OUT.len());
    let mut sent: BTreeMap<String, (usize, String)> = BTreeMap::new();
    let made = types.iter().enumerate().filter(|(_, ty)| !LEFT_OUT.contains(&&***ty));
    for (at, _) in made.clone() {
        let of_type = |(n, value): (usize, &String)| (format!("{at}-{n}"), (at, of_value.replace("{}", value)));
        sent.extend(values.iter().enumerate().map(of_type));
    }
    let record = |(id, (at, value)): (&String, &(usize, String))| format!("{{\"id\":\"{id}\",\"c{at}\":{value}}}");
    put(&stream, sent.iter().map(|sent| record(sent).into_bytes()));
    let refused = refused(&table, sent.len() + 1);
    let rows = sql(&format!(
        "SELECT * FROM {table} WHERE id != 'first' FORMAT JSONEachRow SETTINGS output_format_json_quote_64bit_integers = 0, \
         output_format_json_quote_decimals = 0, date_time_output_format = 'simple', output_format_json_quote_denormals = 1"
    ));
    assert_eq!(refused.len() + rows.lines().count(), sent.len());
    for line in rows.lines() {
        let (id, row, rest) = row_of(line);
        let (at, value) = sent.get(&id).unwrap_or_else(|| panic!("{id} was not sent"));
        let column = Json::get(&row, &format!("c{at}"));
        let value_sent = Json::parse(value).expect(value);
        if refused.contains(&id) || !exact(&value_sent, &column, &rest, &columns[*at]) {
            wrong.push(format!("{}: {value} became {column:?}, rest {rest:?}", columns[*at]));
        }
    }
    // What obviously fits is not refused.
    for (at, _) in made {
        let fits = |n: usize| values[n] != "null" && !refused.contains(&format!("{at}-{n}"));
        if !(0..values.len()).any(fits) {
            wrong.push(format!("{}: nothing fits", columns[at]));
        }
    }
    sql(&format!("DROP TABLE {table}_pipe"));
    wrong
}

fn each_value_of_each_type_is_exact_or_in_errors() {
    let documented = documented_types().into_iter().filter(|ty| !ty.starts_with("SimpleAggregate"));
    let types: BTreeSet<String> = documented.chain(MORE.map(String::from)).collect();
    let values = values();
    let wrong: Vec<String> = (0..NESTED.len()).flat_map(|depth| wrong_at(depth, &types, &values)).collect();
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
}

fn a_name_that_stands_twice_is_an_error_wherever_an_object_is_taken_apart() {
    let good = |n: usize| {
        format!(
            r#"{{"n": {n}, "u": {{"a": {n}, "b": {{"c": 1}}}}, "m": {{"x{n}": 1, "y{n}": 2}}, "l": [{{"q": 1}}], "j": {{"j{n}": [{{"k": {n}}}], "t": "{n}"}}, "s": {}}}"#,
            if n.is_multiple_of(2) { "\"text\"" } else { "{\"d\": 1.10, \"d\": [2], \"e\": 8.232762829599804}" }
        )
    };
    let goods: Vec<String> = (0..20).map(good).collect();
    stream_of("sql-doubled", &goods.iter().map(String::as_str).collect::<Vec<_>>());
    let said = printed("sql-doubled", "sqlp_doubled", &[]);
    run_script(&said);
    wait_for_rows("sqlp_doubled", 20);
    let bad = [
        ("\"n\": 7", "\"n\": 7, \"n\": 8", "a field comes twice"),
        ("\"n\": 7", "\"n\": 7, \"\\u006e\": 7", "a field comes twice"),
        ("\"n\": 7", "\"n\": 7, \"new\": 1, \"new\": 1", "a field comes twice"),
        ("\"a\": 7", "\"a\": 7, \"a\": 8", "does not fit: u"),
        ("\"a\": 7", "\"a\": 7, \"new\": 1, \"new\": 1", "does not fit: u"),
        ("{\"c\": 1}", "{\"c\": 1, \"c\": 1}", "does not fit: u"),
        ("\"x7\": 1", "\"x7\": 1, \"x7\": 2", "does not fit: m"),
        ("{\"q\": 1}", "{\"q\": 1, \"q\": 2}", "does not fit: l"),
        ("\"t\": \"7\"", "\"t\": \"7\", \"t\": \"8\"", "does not fit: j"),
        ("\"t\": \"7\"", "\"t\": \"7\", \"k.l\": 1, \"k\": {\"l\": 2}", "does not fit: j"),
        ("{\"k\": 7}", "{\"k\": 7, \"k\": 8}", "does not fit: j"),
    ];
    let records = bad.iter().map(|(from, to, _)| {
        let record = good(7);
        assert!(record.contains(from), "{from} in {record}");
        record.replace(from, to).into_bytes()
    });
    put("sql-doubled", records);
    wait_for_rows("sqlp_doubled_errors", bad.len());
    let reasons = sql("SELECT reason FROM sqlp_doubled_errors ORDER BY toUInt256(_sequence_number)");
    assert_eq!(reasons.lines().collect::<Vec<_>>(), bad.map(|(_, _, reason)| reason));
    // Text keeps both, and wide numbers unchanged.
    let texts = sql("SELECT DISTINCT s FROM sqlp_doubled ORDER BY s FORMAT TSVRaw");
    assert_eq!(texts, "text\n{\"d\":1.1,\"d\":[2],\"e\":8.232762829599804}\n");
    sql("DROP TABLE sqlp_doubled_pipe");
}
