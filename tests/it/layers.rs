//! The shape of the code, read from its sources: which modules may use which, how long a file may
//! be, where limits are, which invariant has a test.

mod circles;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The crates of this workspace that each crate may depend on. Downwards only.
const CRATES: [(&str, &[&str]); 11] = [
    ("domain", &[]),
    ("sql", &["domain"]),
    ("config", &["domain"]),
    ("formats", &["domain"]),
    ("adapters", &["domain", "sql"]),
    ("bridge", &["domain", "formats", "sql"]),
    ("capture", &["adapters", "bridge", "config", "domain", "sql"]),
    ("testkit", &["domain"]),
    ("sim", &[]),
    ("fuzz", &[]),
    ("", &["adapters", "bridge", "capture", "config", "domain", "sql"]),
];

/// The other modules of its crate that a module may use, where these are above or below it.
const MODULES: [(&str, &[&str]); 14] = [
    ("adapters/clickhouse", &[]),
    ("adapters/clock", &[]),
    ("adapters/aws", &[]),
    ("adapters/kinesis", &["aws"]),
    ("adapters/state", &["clickhouse"]),
    ("bridge/metrics", &[]),
    ("bridge/read", &[]),
    ("bridge/pipe", &["metrics", "read"]),
    ("bridge/http", &["metrics", "pipe", "read"]),
    ("capture/dynamodb", &[]),
    ("capture/generate", &["dynamodb", "error", "flags"]),
    ("capture/verify", &["dynamodb", "error", "flags"]),
    ("formats/encode", &["unmarshal"]),
    ("formats/unpack", &[]),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below a folder, with their text.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source");
                files.push((path, text));
            }
        }
    }
    assert!(!files.is_empty(), "no sources in {folder}");
    files
}

/// The product's code without its tests: without test folders and files, and without what follows
/// `#[cfg(test)]` in a file.
fn product() -> Vec<(PathBuf, String)> {
    let of_tests = |name: &std::ffi::OsStr| ["fuzz", "sim", "testkit", "tests"].iter().any(|tests| name == *tests);
    let is_test = |path: &Path| path.components().any(|c| of_tests(c.as_os_str())) || path.ends_with("tests.rs");
    let without_tests = |text: String| text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_string();
    let all = ["crates", "src"].into_iter().flat_map(sources);
    all.filter(|(path, _)| !is_test(path.strip_prefix(root()).expect("below the root")))
        .map(|(path, text)| (path, without_tests(text)))
        .collect()
}

#[test]
fn crates_depend_on_those_below_them() {
    let mut wrong = Vec::new();
    let names = || CRATES.iter().map(|(name, _)| *name);
    for (name, allowed) in CRATES {
        let manifest = if name.is_empty() { root() } else { root().join("crates").join(name) }.join("Cargo.toml");
        let text = std::fs::read_to_string(manifest).expect("a manifest");
        let (_, dependencies) = text.split_once("\n[dependencies]").unwrap_or_default();
        let dependencies = dependencies.split("\n[").next().unwrap_or_default();
        let used = dependencies.lines().filter_map(|line| line.split(['.', ' ']).next());
        let ours = used.filter(|used| !used.is_empty() && names().any(|name| name == *used));
        wrong.extend(ours.filter(|used| !allowed.contains(used)).map(|used| format!("{name} depends on {used}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let folders = std::fs::read_dir(root().join("crates")).expect("crates").flatten();
    let folders: BTreeSet<String> = folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    assert_eq!(folders, names().filter(|name| !name.is_empty()).map(String::from).collect());
}

#[test]
fn modules_use_those_below_them() {
    let mut wrong = Vec::new();
    for (path, text) in product() {
        let relative = path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
        let Some((name, module)) = relative.strip_prefix("crates/").and_then(|rest| rest.split_once("/src/")) else {
            continue;
        };
        let module = module.split(['/', '.']).next().unwrap_or_default();
        let Some((_, allowed)) = MODULES.iter().find(|(known, _)| *known == format!("{name}/{module}")) else {
            continue;
        };
        for (at, _) in text.match_indices("crate::") {
            let used: String = text[at + 7..].chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            if !used.is_empty() && used != module && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{relative} uses {used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn files_are_short() {
    let all = ["crates", "src", "stack", "tests"].into_iter().flat_map(sources);
    let long: Vec<_> = all.filter(|(_, text)| text.lines().count() > 500).map(|(path, _)| path).collect();
    assert!(long.is_empty(), "over 500 lines: {long:#?}");
}

/// As rustfmt writes them: a function ends with the first brace that stands as far to the left.
#[test]
fn functions_fit_on_a_screen() {
    let (mut long, mut seen) = (Vec::new(), 0);
    for (path, text) in product() {
        let lines: Vec<&str> = text.lines().collect();
        for (n, line) in lines.iter().enumerate() {
            let code = line.trim_start();
            let names_one = code.split('(').next().is_some_and(|head| head.split(' ').any(|word| word == "fn"));
            let opens = lines[n..].iter().find(|line| line.ends_with(['{', '}', ';']));
            if code.starts_with("//") || !names_one || !opens.is_some_and(|line| line.ends_with('{')) {
                continue;
            }
            let end = format!("{}}}", " ".repeat(line.len() - code.len()));
            let length = lines[n..].iter().take_while(|line| **line != end).count() + 1;
            seen += 1;
            if length > 70 {
                long.push(format!("{}:{}: {length} lines", path.display(), n + 1));
            }
        }
    }
    assert!(seen > 1_000, "only {seen} functions were found");
    assert!(long.is_empty(), "over 70 lines: {long:#?}");
}

#[test]
fn nothing_from_outside_is_unwrapped() {
    for (path, text) in product() {
        for (n, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            assert!(!code.contains(".unwrap()") && !code.contains(".expect("), "{}:{}: {line}", path.display(), n + 1);
        }
    }
}

/// Numbers that are not limits: constants of a format, and lengths of what a message quotes.
const FACTS: [&str; 19] = [
    "BATCH_DIGITS",
    "CONFLUENT_HEADER",
    "DATA",
    "DIGEST",
    "END_OF_STREAM",
    "GLUE_HEADER",
    "GUESS_AT_THE_TIP",
    "KEYS",
    "KEY_INDEX",
    "LAST",
    "MAX_SCHEMA_ID",
    "MESSAGE",
    "PARSED_BY_DEFAULT",
    "PIECE",
    "PLAIN",
    "QUOTED",
    "RECORDS",
    "SEQUENCE_DIGITS",
    "SHARED_BUFFER",
];

/// A comment of generated SQL must stay on its line, whatever it contains: so one function writes
/// all of them.
#[test]
fn comments_of_sql_are_written_in_one_place() {
    for (path, text) in product().into_iter().filter(|(path, _)| !path.ends_with("sql/src/quote.rs")) {
        for (n, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().starts_with("//")) {
            let comment =
                ["\"-- ", "\\n-- ", "{}-- "].iter().any(|start| line.contains(start)) || line.trim().starts_with("-- ");
            assert!(!comment, "{}:{}: {line}", path.display(), n + 1);
        }
    }
}

#[test]
fn limits_stand_in_limits() {
    let mut wrong = Vec::new();
    let of_limits = |path: &Path| path.ends_with("limits.rs") || path.parent().is_some_and(|p| p.ends_with("limits"));
    for (path, text) in product().into_iter().filter(|(path, _)| !of_limits(path)) {
        for (n, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default().trim();
            let number = |rest: &str| rest.trim_start().starts_with(|c: char| c.is_ascii_digit());
            let time = code.split("Duration::from_").skip(1).filter_map(|rest| rest.split_once('('));
            let time = time.map(|(_, rest)| rest).any(number);
            let constant = code.trim_start_matches("pub ").trim_start_matches("pub(super) ").strip_prefix("const ");
            let constant = constant.and_then(|rest| rest.split_once(": ")).is_some_and(|(name, rest)| {
                let value = rest.split_once(" = ").is_some_and(|(_, value)| number(value));
                value && !FACTS.contains(&name)
            });
            if time || constant {
                wrong.push(format!("{}:{}: {line}", path.display(), n + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "limits outside limits.rs: {wrong:#?}");
}

/// Names between double asterisks that read like those of invariants: `words-with-hyphens`.
fn invariant_names(text: &str) -> BTreeSet<String> {
    let named = text.split("**").filter(|name| {
        name.contains('-') && name.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !name.starts_with('-')
    });
    named.map(String::from).collect()
}

#[test]
fn every_invariant_has_a_test() {
    let map = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let all: String = ["crates", "src", "tests"].into_iter().flat_map(sources).map(|(_, text)| text).collect();
    let is_a_test = |name: &str| all.contains(&format!("fn {name}("));
    let mut listed = BTreeSet::new();
    for entry in map.split("\n* **").skip(1) {
        let (name, rest) = entry.split_once("**").expect("a name");
        listed.insert(name.to_string());
        let own = name.replace('-', "_");
        assert!(is_a_test(&own), "{name}: there is no test {own}");
        let entry = rest.split("\n* ").next().unwrap_or(rest).split("\n\n").next().unwrap_or_default();
        let tests = entry.split("; test").nth(1).or_else(|| entry.split(";\n  test").nth(1));
        let tests = tests.unwrap_or_else(|| panic!("{name} names no test"));
        let named: Vec<&str> = tests.split('`').skip(1).step_by(2).filter(|t| t.contains('_')).collect();
        assert!(named.contains(&own.as_str()), "{name} does not name its test {own}");
        for test in named {
            assert!(is_a_test(test), "{name}: there is no test {test}");
        }
    }
    assert!(listed.len() >= 18, "{listed:?}");
    // Every such name in the code is on the list, and every name on the list is at the code that
    // upholds it.
    let mut upheld = BTreeSet::new();
    for (path, text) in product().into_iter() {
        for name in invariant_names(&text) {
            assert!(listed.contains(&name), "{} upholds {name}, which ARCHITECTURE.md does not list", path.display());
            upheld.insert(name);
        }
    }
    assert_eq!(listed, upheld, "listed in ARCHITECTURE.md, and named at the code");
}
