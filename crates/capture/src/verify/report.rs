//! The report of `dynamodb verify`.

use std::fmt::Write;
use std::time::Duration;

use super::key::Key;
use super::rounds::Verdict;
use super::value::{Item, Value, says, shown};
use crate::dynamodb::KeyAttribute;
use domain::limits::{VERIFY_SHOWN_ATTRIBUTES, VERIFY_SHOWN_CHARS};
use sql::quote::{comment, visible};

/// What the last check of an item found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// In DynamoDB only.
    Missing,
    /// In ClickHouse only; the version of the row.
    Extra(i64),
    /// In both: for each differing attribute its values in DynamoDB and ClickHouse, and how many
    /// more there are.
    Different(Vec<(String, String, String)>, usize),
}

impl Found {
    /// How two items differ. `rows` are all rows that count, with their versions; more than one if
    /// ClickHouse treats one key as several.
    pub fn new(ours: Option<&Item>, rows: &[(i64, &Item)]) -> Found {
        match (ours, rows) {
            (_, []) => Found::Missing,
            (None, [(version, _), ..]) => Found::Extra(*version),
            (Some(ours), [(_, theirs)]) => different(ours, theirs),
            (Some(_), rows) => {
                Found::Different(vec![("(rows of this key)".into(), "1".into(), rows.len().to_string())], 0)
            }
        }
    }

    fn title(&self) -> &'static str {
        match self {
            Found::Missing => "missing in ClickHouse",
            Found::Extra(_) => "only in ClickHouse",
            Found::Different(..) => "different",
        }
    }
}

fn different(ours: &Item, theirs: &Item) -> Found {
    let names = ours.keys().chain(theirs.keys().filter(|name| !ours.contains_key(*name)));
    let differ = |name: &&String| match (ours.get(*name), theirs.get(*name)) {
        (Some(ours), Some(theirs)) => !ours.says(theirs),
        _ => true,
    };
    let short = |value: Option<&Value>| value.map_or_else(|| "nothing".into(), |value| cut(&value.shown()));
    let names: Vec<&String> = names.filter(differ).collect();
    let some = names.iter().take(VERIFY_SHOWN_ATTRIBUTES);
    let some = some.map(|name| (cut(name), short(ours.get(*name)), short(theirs.get(*name)))).collect();
    debug_assert_eq!(names.is_empty(), says(ours, theirs));
    Found::Different(some, names.len().saturating_sub(VERIFY_SHOWN_ATTRIBUTES))
}

fn cut(text: &str) -> String {
    let text = visible(text);
    match text.char_indices().nth(VERIFY_SHOWN_CHARS) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// The final result.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Name of the table in DynamoDB.
    pub table: String,
    /// Its key.
    pub keys: Vec<KeyAttribute>,
    /// When it was created, in microseconds since 1970.
    pub created: i64,
    /// Name of the table in ClickHouse, quoted.
    pub target: String,
    /// Items that the scan found.
    pub in_dynamodb: u64,
    /// Items in ClickHouse.
    pub in_clickhouse: u64,
    /// Keys in either of them.
    pub compared: u64,
    /// Keys that were not equal at first.
    pub looked_again: u64,
    /// How many rounds of rechecks there were.
    pub rounds: u64,
    /// Time since the start of the scan.
    pub took: Duration,
    /// Read capacity units.
    pub units: f64,
    /// Items that are equal although their row is older than the table in DynamoDB.
    pub older_and_equal: u64,
    /// The items that are not equal.
    pub unequal: Vec<(Key, Found, Verdict)>,
    /// The newest version in ClickHouse, as a time.
    pub newest: Option<String>,
    /// The statement for rows of an earlier table.
    pub mark_deleted: String,
    /// How many items of each kind to show.
    pub limit: usize,
}

impl Report {
    /// Whether everything is certainly equal.
    pub fn is_equal(&self) -> bool {
        self.unequal.is_empty()
    }

    /// The text for standard output. Writing to a String cannot fail.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let Report { table, target, .. } = self;
        let _ =
            writeln!(out, "{} items in DynamoDB table '{table}', {} in {target}", self.in_dynamodb, self.in_clickhouse);
        let _ = writeln!(
            out,
            "{} items compared, {} of them rechecked in {} rounds; {} s, {:.1} read capacity units",
            self.compared,
            self.looked_again,
            self.rounds,
            self.took.as_secs(),
            self.units
        );
        if self.is_equal() {
            out.push_str("equal\n");
            return out;
        }
        let decided = |title: &str| {
            let of_kind =
                |(_, found, verdict): &&(Key, Found, Verdict)| *verdict == Verdict::Differs && found.title() == title;
            self.unequal.iter().filter(of_kind).collect::<Vec<_>>()
        };
        for title in ["missing in ClickHouse", "only in ClickHouse", "different"] {
            self.list(&mut out, title, "", &decided(title));
        }
        let undecided =
            |wanted: Verdict| self.unequal.iter().filter(|(_, _, verdict)| *verdict == wanted).collect::<Vec<_>>();
        let why = ": changed in DynamoDB between all checks, so they are not proved equal";
        self.list(&mut out, "undecided", why, &undecided(Verdict::Changing));
        let why = ": not seen unchanged for long enough before --timeout; raise it, or --rcu";
        self.list(&mut out, "undecided", why, &undecided(Verdict::NotReached));
        match &self.newest {
            Some(newest) => {
                let _ = writeln!(out, "the newest change in {target} is from {newest} UTC");
            }
            None => {
                let _ = writeln!(out, "{target} is empty");
            }
        }
        self.recreated(&mut out);
        out
    }

    fn list(&self, out: &mut String, title: &str, why: &str, items: &[&(Key, Found, Verdict)]) {
        if items.is_empty() {
            return;
        }
        let _ = writeln!(out, "{title}: {}{why}", items.len());
        for (key, found, verdict) in items.iter().take(self.limit) {
            let kind = if *verdict == Verdict::Differs { String::new() } else { format!(" ({})", found.title()) };
            let _ = writeln!(out, "  {}{kind}", visible(&shown(&key.item(&self.keys))));
            if let Found::Different(attributes, more) = found {
                for (name, ours, theirs) in attributes {
                    let _ = writeln!(out, "    {name}: DynamoDB has {ours}, ClickHouse {theirs}");
                }
                if *more > 0 {
                    let _ = writeln!(out, "    and {more} more attributes");
                }
            }
        }
        if items.len() > self.limit {
            let _ = writeln!(out, "  and {} more, see --limit", items.len() - self.limit);
        }
    }

    /// What is left of an earlier table of the same name.
    fn recreated(&self, out: &mut String) {
        let older = |(_, found, verdict): &&(Key, Found, Verdict)| {
            *verdict == Verdict::Differs && matches!(found, Found::Extra(version) if *version < self.created)
        };
        let older = self.unequal.iter().filter(older).count();
        if older == 0 {
            return;
        }
        let _ = writeln!(
            out,
            "{older} items that are only in ClickHouse are older than DynamoDB table '{}': it was dropped and recreated. This marks what is \
             older as deleted:",
            self.table
        );
        if self.older_and_equal > 0 {
            out.push_str(&comment(&format!(
                "{} equal items are older, too, and would be marked: first load an export of the table as it is now (sql dynamodb --export)",
                self.older_and_equal
            )));
        }
        out.push_str(&self.mark_deleted);
    }
}
