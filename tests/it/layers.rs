//! The shape of the code, read from its sources: who may use whom, how long a file may be, where limits stand, which invariant has a test.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What each module may use besides itself. Down only; nobody uses `serve` and `check` but the program.
const ALLOWED: [(&str, &[&str]); 15] = [
    ("domain", &["limits"]),
    ("limits", &[]),
    ("ports", &["domain"]),
    ("sql", &[]),
    ("metrics", &[]),
    ("encode", &["domain", "limits", "ports"]),
    ("clickhouse", &["domain", "limits", "ports", "sql"]),
    ("kinesis", &["domain", "limits", "ports"]),
    ("state", &["clickhouse", "domain", "limits", "ports", "sql"]),
    ("read", &["domain", "limits", "ports"]),
    ("pipe", &["domain", "limits", "metrics", "ports", "read"]),
    ("config", &["limits"]),
    ("http", &["config", "domain", "encode", "limits", "metrics", "pipe", "ports", "read"]),
    (
        "serve",
        &["clickhouse", "config", "domain", "http", "kinesis", "limits", "metrics", "pipe", "ports", "read", "state"],
    ),
    ("check", &["clickhouse", "config", "domain", "kinesis", "limits", "metrics", "ports", "state"]),
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

/// The product's code without its tests: test folders and files, and what follows `#[cfg(test)]` in a file.
fn product() -> Vec<(PathBuf, String)> {
    let is_test = |path: &Path| path.components().any(|c| c.as_os_str() == "model") || path.ends_with("tests.rs");
    let without_tests = |text: String| text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_string();
    sources("src")
        .into_iter()
        .filter(|(path, _)| !is_test(path))
        .map(|(path, text)| (path, without_tests(text)))
        .collect()
}

#[test]
fn dependencies_point_down_only() {
    let mut wrong = Vec::new();
    for (path, text) in product() {
        let relative = path.strip_prefix(root().join("src")).expect("below src").to_path_buf();
        let top = relative
            .components()
            .next()
            .expect("a name")
            .as_os_str()
            .to_string_lossy()
            .trim_end_matches(".rs")
            .to_string();
        if top == "lib" || top == "main" {
            continue;
        }
        let (_, allowed) =
            ALLOWED.iter().find(|(name, _)| *name == top).unwrap_or_else(|| panic!("{top} has no place yet"));
        for (at, _) in text.match_indices("crate::") {
            let used: String = text[at + 7..].chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            if !used.is_empty() && used != top && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{} uses {used}", relative.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_domain_knows_nothing_of_the_world() {
    for (path, text) in product() {
        if path.starts_with(root().join("src/domain")) {
            for foreign in ["async ", "tokio", "Instant", "SystemTime", "std::fs", "std::net", "aws_", "hyper", "serde"]
            {
                assert!(!text.contains(foreign), "{} has '{foreign}'", path.display());
            }
        }
    }
}

#[test]
fn files_are_short() {
    let all = ["src", "tests", "stack"].into_iter().flat_map(sources);
    let long: Vec<_> = all.filter(|(_, text)| text.lines().count() > 500).map(|(path, _)| path).collect();
    assert!(long.is_empty(), "over 500 lines: {long:#?}");
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

#[test]
fn every_invariant_has_a_test() {
    let map = std::fs::read_to_string(root().join("src/lib.rs")).expect("lib.rs");
    let all: String = sources("src").into_iter().chain(sources("tests")).map(|(_, text)| text).collect();
    let mut listed = BTreeSet::new();
    for entry in map.split("//! * **").skip(1) {
        let (name, rest) = entry.split_once("**").expect("a name");
        listed.insert(name.to_string());
        let entry = rest.split("\n//! *").next().unwrap_or(rest).split("\n\n").next().unwrap_or_default();
        let tests = entry.split_once("; test").unwrap_or_else(|| panic!("{name} names no test")).1;
        let mut named = 0;
        for test in tests.split('`').skip(1).step_by(2).filter(|t| t.contains('_')) {
            assert!(all.contains(&format!("fn {test}(")), "{name}: there is no test {test}");
            named += 1;
        }
        assert!(named > 0, "{name} names no test");
    }
    // And what the code calls by such a name is on the list.
    for (path, text) in product() {
        for name in text.split("(**").skip(1).filter_map(|rest| rest.split_once("**)")).map(|(name, _)| name) {
            assert!(listed.contains(name), "{} upholds {name}, which is not listed in lib.rs", path.display());
        }
    }
}

#[test]
fn a_batch_is_one_block() {
    use bridge::limits::{DEFAULT_MAX_BYTES, DEFAULT_MAX_ROWS, MAX_MAX_BYTES, MAX_MAX_ROWS};
    // ClickHouse's min_insert_block_size_rows and _bytes.
    let (rows, bytes) = (1_048_449, 256 << 20);
    assert!([DEFAULT_MAX_ROWS, MAX_MAX_ROWS].into_iter().all(|n| n < rows));
    assert!([DEFAULT_MAX_BYTES, MAX_MAX_BYTES].into_iter().all(|n| n < bytes));
}
