//! Names and texts that try to become statements: whatever is in records, tables and flags, the
//! printed SQL has only its own statements, and none of them does anything else.

mod dynamodb;
mod export;
mod pipe;

use std::sync::{Once, OnceLock};

use fastrand::Rng;
use stack::{Bridge, Engine, run_locally};

use crate::common::seed;
use crate::world::{self, sql};

/// What a name would do if it were a statement.
const ATTACK: &str = "DROP TABLE hostile_victim";
/// Everything that somewhere ends a line: in ClickHouse, in a client, in an editor, in a script
/// splitter.
const BREAKS: [&str; 9] = ["\n", "\r", "\r\n", "\u{85}", "\u{2028}", "\u{2029}", "\u{b}", "\u{c}", "\0"];
/// Everything that ends a quote, a comment or a bracket, or escapes what does.
const CLOSERS: [&str; 14] =
    ["`", "'", "\"", "``", "''", "\\", "\\`", "\\'", "*/", "/*", "`)')", "') AS r) --", "$$", "\u{202e}\u{2066}"];
/// What random names are made of, besides [`BREAKS`] and [`CLOSERS`].
const PIECES: [&str; 14] =
    [";", "--", " ", "a", "ü", "🚲", "{x:String}", "%0A", "\\n", "\\x0A", "(", ")", ",", "\u{1b}[2K"];

/// The fixed names, and as many random ones.
fn names() -> Vec<String> {
    let mut rng = Rng::with_seed(seed("sql_hostile"));
    let broken = BREAKS.iter().map(|end| format!("x{end}{ATTACK};{end}--"));
    let closed =
        CLOSERS.iter().flat_map(|end| [format!("x{end}; {ATTACK}; --"), format!("x{end}\n;\n{ATTACK};\n{end}")]);
    let mut names: Vec<String> =
        broken.chain(closed).chain(["\\".into(), "`".into(), "\n".into(), "--".into()]).collect();
    // Longer than a name in ClickHouse needs to be.
    names.push(format!("{}\n{ATTACK};\n", "long ".repeat(60)));
    let pieces = [&BREAKS[..], &CLOSERS, &PIECES, &[ATTACK, ATTACK]].concat();
    let fixed = names.len();
    while names.len() < 2 * fixed {
        let name: String = (0..rng.usize(1..12)).map(|_| pieces[rng.usize(..pieces.len())]).collect();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The bridge that the pipes of these tests pull from.
fn bridge() -> &'static Bridge {
    static BRIDGE: OnceLock<Bridge> = OnceLock::new();
    BRIDGE.get_or_init(|| world::bridge("sql_hostile", &[]))
}

/// Creates the database and the table that must survive, on the shared server.
fn victim() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| VICTIM.iter().for_each(|statement| drop(sql(statement))));
}

const VICTIM: [&str; 3] = [
    "CREATE DATABASE hostile",
    "CREATE TABLE hostile_victim (x UInt8) ENGINE = MergeTree ORDER BY x",
    "INSERT INTO hostile_victim SELECT 1",
];

#[track_caller]
fn victim_lives() {
    assert_eq!(sql("SELECT count() FROM hostile_victim"), "1\n");
}

/// The statements of a text, each without the comments around it, split by ClickHouse's rules for
/// quotes and comments.
fn statements(text: &str) -> Vec<String> {
    let (mut all, mut rest) = (vec![String::new()], text);
    while let Some(c) = rest.chars().next() {
        let length = match c {
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '\'' | '`' | '"' => 1 + end_of_quote(&rest[1..], c),
            c => c.len_utf8(),
        };
        let (part, after) = rest.split_at(length);
        match c {
            ';' => all.push(String::new()),
            '-' if length > 1 => {}
            _ => all.last_mut().expect("a statement").push_str(part),
        }
        rest = after;
    }
    all.retain(|statement| !statement.trim().is_empty());
    all.iter().map(|statement| statement.trim().to_owned()).collect()
}

fn end_of_quote(text: &str, quote: char) -> usize {
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    panic!("a quote without an end: {text}");
}

/// Checks that a printed text has these statements, by how they begin, and nothing else: as it is
/// read, as ClickHouse parses each of them, and as a ClickHouse client runs them after `before`.
#[track_caller]
fn just_these(text: &str, kinds: &[&str], before: &[&str]) {
    plain(text);
    let found = statements(text);
    let begins: Vec<String> =
        found.iter().map(|statement| statement.split_whitespace().take(2).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(begins, kinds, "{text}");
    let dir = tempfile::tempdir().expect("a folder");
    // Each of them is one statement to ClickHouse, and of the same kind.
    let parsed = found.iter().map(|statement| {
        let hex: String = statement.bytes().map(|byte| format!("{byte:02x}")).collect();
        let word = statement.split_whitespace().next().expect("a word");
        format!("SELECT throwIf(NOT startsWith(formatQuerySingleLine(unhex('{hex}')), '{word} ')) FORMAT Null;\n")
    });
    let parsed: String = parsed.collect();
    let check = "SELECT throwIf(count() != 1, 'the victim is gone') FROM hostile_victim FORMAT Null";
    let before: String = VICTIM.iter().chain(before).map(|statement| format!("{statement};\n")).collect();
    // The statements are longer than those for any real stream.
    let script = format!("SET max_query_size = 100000000;\n{before}{parsed}{text}\n;{check};");
    run_locally(Engine::V26_7, dir.path(), &script).unwrap_or_else(|error| panic!("{error}\nin\n{script}"));
    victim_lives();
}

/// Checks that a text has no character that ends a line or moves the cursor, except its own line
/// breaks, and that each line of its head, up to the first blank one, is a comment.
#[track_caller]
fn plain(text: &str) {
    let hidden = |c: char| {
        let directions =
            matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        c != '\n' && (c.is_control() || directions)
    };
    assert!(!text.contains(hidden), "{text:?}");
    let head = text.lines().take_while(|line| !line.is_empty());
    assert!(head.clone().count() > 0, "{text}");
    head.for_each(|line| assert!(line.starts_with("-- "), "{line} in\n{text}"));
}
