//! Random DynamoDB change events and their expected results, implemented independently of the
//! program. Also for the unit tests of `unmarshal`.

use fastrand::Rng;

/// A DynamoDB value.
pub enum Tree {
    S(String),
    N(String),
    B(String),
    Bool(bool),
    Null,
    L(Vec<Tree>),
    M(Vec<(String, Tree)>),
    Ss(Vec<String>),
    Ns(Vec<String>),
    Bs(Vec<String>),
}

/// The columns of an event.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expected {
    pub name: String,
    pub id: String,
    pub table: String,
    pub version: i64,
    pub is_deleted: bool,
    pub ttl_delete: bool,
    pub keys: String,
    pub new: String,
    pub old: String,
    pub attributes: Vec<(String, String)>,
}

/// An item, or a part of one.
pub type Item = Vec<(String, Tree)>;

fn pick<'a>(random: &mut Rng, from: &[&'a str]) -> &'a str {
    from[random.usize(..from.len())]
}

/// A string of unusual pieces.
fn odd(random: &mut Rng) -> String {
    const PIECES: [&str; 34] = [
        "a",
        "Ab c",
        "\n",
        "\"",
        "\\",
        "/",
        "\u{8}\u{c}\r\t",
        "\0",
        "é",
        "日本",
        "😀",
        "\u{7f}",
        "\u{1f}",
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
        "\\u0041",
        "null",
        "_key",
        ".x",
        " ",
        "S",
        "M",
        "NULL",
        "\u{10ffff}",
    ];
    (0..random.usize(..6)).map(|_| pick(random, &PIECES)).collect()
}

fn digits(random: &mut Rng, most: usize) -> String {
    let first = char::from(b'1' + random.u8(..9));
    let count = random.usize(..most);
    std::iter::once(first).chain((0..count).map(|_| char::from(b'0' + random.u8(..10)))).collect()
}

/// A JSON number as DynamoDB might write it: up to 38 digits, and exponents.
fn number(random: &mut Rng) -> String {
    let sign = pick(random, &["", "-"]);
    match random.u8(..7) {
        0 => format!(
            "{sign}{}",
            pick(random, &["0", "0.0", "1E+2", "1e-130", "9.9999999999999999999999999999999999999E+125"])
        ),
        1 => format!("{sign}0.{}", digits(random, 38)),
        2 => format!("{sign}{}.{}", digits(random, 19), digits(random, 19)),
        3 => format!("{sign}{}E{}{}", digits(random, 3), pick(random, &["", "+", "-"]), random.u8(..126)),
        4 => format!("{sign}{}", digits(random, 38)),
        _ => format!("{sign}{}", random.u32(..1_000)),
    }
}

fn base64(random: &mut Rng) -> String {
    let quads = random.usize(1..5);
    let text: String = (0..quads * 4).map(|_| pick(random, &["A", "b", "Z", "9", "+", "/"])).collect();
    format!("{}{}", &text[..text.len() - 1], pick(random, &["=", "x"]))
}

fn several<T>(random: &mut Rng, most: usize, mut one: impl FnMut(&mut Rng) -> T) -> Vec<T> {
    (0..random.usize(..=most)).map(|_| one(random)).collect()
}

/// Attributes with unique names.
pub fn item(random: &mut Rng, most: usize, depth: usize) -> Item {
    let mut item: Item = Vec::new();
    for name in several(random, most, odd) {
        if item.iter().all(|(other, _)| *other != name) {
            let value = Tree::random(random, depth);
            item.push((name, value));
        }
    }
    item
}

impl Tree {
    pub fn random(random: &mut Rng, depth: usize) -> Tree {
        match random.u8(..if depth == 0 { 9 } else { 12 }) {
            0 | 1 => Tree::S(odd(random)),
            2 | 3 => Tree::N(number(random)),
            4 => Tree::B(base64(random)),
            5 => Tree::Bool(random.bool()),
            6 => Tree::Null,
            7 => Tree::Ss(several(random, 3, odd)),
            8 if random.bool() => Tree::Ns(several(random, 3, number)),
            8 => Tree::Bs(several(random, 3, base64)),
            9 => Tree::L(several(random, 4, |random| Tree::random(random, depth - 1))),
            10 => Tree::M(item(random, 4, depth - 1)),
            _ => Tree::deep(random),
        }
    }

    /// Nested up to 30 levels.
    fn deep(random: &mut Rng) -> Tree {
        let mut tree = Tree::S(odd(random));
        for _ in 0..random.usize(1..30) {
            tree = if random.bool() { Tree::L(vec![tree]) } else { Tree::M(vec![(odd(random), tree)]) };
        }
        tree
    }

    /// With types, as DynamoDB writes it; escapes and white space vary at random.
    pub fn marshalled(&self, random: &mut Rng) -> String {
        let space = space(random);
        let (kind, value) = match self {
            Tree::S(text) => ("S", string(random, text)),
            Tree::N(text) => ("N", quoted_number(random, text)),
            Tree::B(text) => ("B", string(random, text)),
            Tree::Bool(value) => ("BOOL", value.to_string()),
            Tree::Null => ("NULL", "true".into()),
            Tree::L(values) => ("L", list(values.iter().map(|value| value.marshalled(random)).collect())),
            Tree::M(item) => ("M", marshalled(random, item)),
            Tree::Ss(texts) => ("SS", list(texts.iter().map(|text| string(random, text)).collect())),
            Tree::Ns(texts) => ("NS", list(texts.iter().map(|text| quoted_number(random, text)).collect())),
            Tree::Bs(texts) => ("BS", list(texts.iter().map(|text| string(random, text)).collect())),
        };
        format!("{{{space}\"{kind}\":{space}{value}{space}}}")
    }

    /// Without types.
    pub fn plain(&self) -> String {
        let texts = |texts: &[String]| list(texts.iter().map(|text| json(text)).collect());
        match self {
            Tree::S(text) | Tree::B(text) => json(text),
            Tree::N(text) => text.clone(),
            Tree::Bool(value) => value.to_string(),
            Tree::Null => "null".into(),
            Tree::L(values) => list(values.iter().map(Tree::plain).collect()),
            Tree::M(item) => plain(item),
            Tree::Ss(values) | Tree::Bs(values) => texts(values),
            Tree::Ns(values) => list(values.clone()),
        }
    }
}

pub fn plain(item: &[(String, Tree)]) -> String {
    object(item.iter().map(|(name, value)| (json(name), value.plain())).collect())
}

pub fn marshalled(random: &mut Rng, item: &[(String, Tree)]) -> String {
    object(item.iter().map(|(name, value)| (string(random, name), value.marshalled(random))).collect())
}

fn json(text: &str) -> String {
    serde_json::to_string(text).expect("a text")
}

fn list(values: Vec<String>) -> String {
    format!("[{}]", values.join(","))
}

fn object(fields: Vec<(String, String)>) -> String {
    let fields: Vec<String> = fields.into_iter().map(|(name, value)| format!("{name}:{value}")).collect();
    format!("{{{}}}", fields.join(","))
}

fn space(random: &mut Rng) -> &'static str {
    pick(random, &["", "", "", "", "", " ", "\n", "\r\n\t"])
}

/// A JSON string, sometimes with unnecessary escapes; a long one stays easy to compress.
fn string(random: &mut Rng, text: &str) -> String {
    if random.bool() || text.len() > 1_000 {
        return json(text);
    }
    let mut units = [0; 2];
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '/' if random.bool() => out.push_str("\\/"),
            c if c < ' ' || matches!(c, '"' | '\\') || random.u8(..8) == 0 => {
                for unit in c.encode_utf16(&mut units) {
                    out.push_str(&if random.bool() { format!("\\u{unit:04x}") } else { format!("\\u{unit:04X}") });
                }
            }
            c => out.push(c),
        }
    }
    out + "\""
}

/// In quotes, as DynamoDB writes it, or bare.
fn quoted_number(random: &mut Rng, text: &str) -> String {
    match random.u8(..5) {
        0 => text.to_owned(),
        1 => format!("\"{}\"", text.replace('+', "\\u002B")),
        _ => format!("\"{text}\""),
    }
}

/// An event and its expected columns.
pub fn event(random: &mut Rng) -> (String, Expected) {
    let keys = vec![("id".to_owned(), Tree::S(odd(random))), ("n".to_owned(), Tree::N(number(random)))];
    let most = random.usize(1..10);
    event_of(random, &keys, &mut |random| {
        let mut item = item(random, most, 3);
        item.retain(|(name, _)| name != "id" && name != "n");
        item
    })
}

/// An event of an item with these keys; `rest` produces the other attributes of an image.
pub fn event_of(
    random: &mut Rng,
    keys: &[(String, Tree)],
    rest: &mut dyn FnMut(&mut Rng) -> Item,
) -> (String, Expected) {
    let name = pick(random, &["INSERT", "MODIFY", "REMOVE"]);
    let mut expected =
        Expected { name: name.into(), is_deleted: name == "REMOVE", keys: plain(keys), ..Expected::default() };
    let mut change = vec![("Keys", marshalled(random, keys))];
    expected.attributes = keys.iter().map(|(name, value)| (name.clone(), value.plain())).collect();
    // The key attributes are copied as text, so a tree need not be cloned: their place in an image
    // does not matter here.
    let mut image = |random: &mut Rng| {
        let item = rest(random);
        let join = |a: &str, b: &str| match (&a[1..a.len() - 1], &b[1..b.len() - 1]) {
            (a, "") => format!("{{{a}}}"),
            (a, b) => format!("{{{a},{b}}}"),
        };
        let attributes: Vec<_> = item.iter().map(|(name, value)| (name.clone(), value.plain())).collect();
        (join(&marshalled(random, keys), &marshalled(random, &item)), join(&plain(keys), &plain(&item)), attributes)
    };
    let nothing = |random: &mut Rng| ["null", "{}", ""][random.usize(..3)].to_owned();
    if name == "REMOVE" {
        change.push(("NewImage", nothing(random)));
    } else {
        let (text, plain, attributes) = image(random);
        change.push(("NewImage", text));
        expected.new = plain;
        expected.attributes.extend(attributes);
    }
    if name == "INSERT" {
        change.push(("OldImage", nothing(random)));
    } else {
        let (text, plain, _) = image(random);
        change.push(("OldImage", text));
        expected.old = plain;
    }
    let table = pick(random, &["users", "orders", "a.b-c_d"]);
    let id = format!("{:032x}", random.u128(..));
    (expected.table, expected.id) = (table.into(), id.clone());
    let micros = random.i64(1_600_000_000_000_000..1_900_000_000_000_000);
    let mut fields = vec![
        ("eventName", format!("\"{name}\"")),
        ("eventID", format!("\"{id}\"")),
        ("awsRegion", "\"eu-west-1\"".into()),
    ];
    let streams = random.u8(..4) == 0;
    let (time, version, precision) = match random.u8(..3) {
        _ if streams && random.bool() => ((micros / 1_000_000).to_string(), micros / 1_000_000 * 1_000_000, ""),
        _ if streams => (format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000), micros, ""),
        0 => (micros.to_string(), micros, "\"MICROSECOND\""),
        1 => ((micros / 1_000).to_string(), micros / 1_000 * 1_000, "\"MILLISECOND\""),
        _ => ((micros / 1_000).to_string(), micros / 1_000 * 1_000, ""),
    };
    expected.version = version;
    change.push(("ApproximateCreationDateTime", time));
    change.push(("ApproximateCreationDateTimePrecision", precision.into()));
    change.push(("SizeBytes", "198".into()));
    if streams {
        let arn = format!("arn:aws:dynamodb:eu-west-1:123456789012:table/{table}/stream/2026-11-21T10:00:00.000");
        fields.push(("eventSourceARN", format!("\"{arn}\"")));
        change.push(("SequenceNumber", "\"111\"".into()));
    } else {
        fields.extend([("tableName", format!("\"{table}\"")), ("recordFormat", "\"application/json\"".into())]);
    }
    let (kind, principal) = if random.bool() { ("type", "principalId") } else { ("Type", "PrincipalId") };
    let by_time = random.u8(..3) == 0;
    expected.ttl_delete = by_time && name == "REMOVE";
    let service = format!("{{\"{kind}\":\"Service\",\"{principal}\":\"dynamodb.amazonaws.com\"}}");
    let nobody = pick(
        random,
        &[
            "null",
            "",
            "{\"type\":\"Service\",\"principalId\":\"x\"}",
            "\"dynamodb.amazonaws.com\"",
            "[\"Service\",\"dynamodb.amazonaws.com\"]",
        ],
    );
    fields.push(("userIdentity", if by_time { service } else { nobody.into() }));
    // In any order: an object has none.
    random.shuffle(&mut change);
    fields.push(("dynamodb", joined(change)));
    random.shuffle(&mut fields);
    (joined(fields), expected)
}

/// An object of the fields that have a value.
fn joined(fields: Vec<(&str, String)>) -> String {
    object(fields.into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (json(name), value)).collect())
}
