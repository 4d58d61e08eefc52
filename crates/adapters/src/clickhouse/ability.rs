//! What a server supports, judged by its answers rather than its version: builds of an older
//! release may have what pipes need. Decisions only; `look` runs the queries.

use domain::finding::{Finding, Verdict};
use domain::limits::SCHEDULE_POOL_THREADS;
use sql::quote::identifier;

/// The oldest release covered by the tests.
const FLOOR: &str = "25.8 LTS";

/// Syntax that pipes require: its name, and a statement that uses it.
pub(super) const SYNTAX: [(&str, &str); 2] = [
    ("APPEND", "CREATE MATERIALIZED VIEW a.b REFRESH AFTER 2 SECOND APPEND TO a.c AS SELECT 1"),
    ("SYSTEM WAIT VIEW", "SYSTEM WAIT VIEW a.b"),
];

/// The columns read from `system.view_refreshes`.
pub(super) const REFRESH_COLUMNS: [&str; 8] =
    ["database", "view", "uuid", "status", "last_success_time", "next_refresh_time", "exception", "retry"];

/// Privileges on the bridge's own database, with state in KeeperMap: on its rows, always needed.
const ON_ROWS: [&str; 4] = ["SELECT", "INSERT", "ALTER UPDATE", "ALTER DELETE"];
/// The same without Keeper, where the quarantine is the only table.
const ON_QUARANTINE: [&str; 2] = ["SELECT", "INSERT"];
/// To create the tables, unless someone else does.
const TO_CREATE: [&str; 2] = ["CREATE DATABASE", "CREATE TABLE"];
/// On each database that contains a pipe's view.
const ON_VIEWS: [&str; 1] = ["SYSTEM VIEWS"];

/// What the bridge needs to do on a server.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The user it connects as.
    pub user: &'a str,
    /// The database of its own tables.
    pub database: &'a str,
    /// Whether its state is in KeeperMap tables.
    pub keeper_map: bool,
}

/// A server's answers about what pipes require.
#[derive(Clone, Debug, Default)]
pub(super) struct Needs {
    pub version: String,
    /// The entries of [`SYNTAX`] that it cannot parse.
    pub no_syntax: Vec<&'static str>,
    /// The entries of [`REFRESH_COLUMNS`] that it lacks; empty if the user may not look.
    pub no_columns: Vec<&'static str>,
    pub no_keeper_map: bool,
    /// Settings that are sent but that it does not know.
    pub no_settings: Vec<&'static str>,
}

impl Needs {
    /// The message for a server on which no pipe can run, if this is one.
    pub fn lacking(&self, server: &str) -> Option<String> {
        let mut lacks: Vec<String> = self.no_syntax.iter().map(|name| (*name).to_owned()).collect();
        lacks.extend(self.no_columns.iter().map(|column| format!("system.view_refreshes.{column}")));
        if self.no_keeper_map {
            lacks.push("KeeperMap (unless --state is file:DIR)".into());
        }
        lacks.extend(self.no_settings.iter().map(|name| format!("the setting {name}")));
        let last = lacks.pop()?;
        let all = if lacks.is_empty() { last } else { format!("{} and {last}", lacks.join(", ")) };
        Some(format!(
            "ClickHouse {} at {server} lacks {all}, which pipes need: upgrade to {FLOOR} or later",
            self.version
        ))
    }
}

/// The finding about what could not be asked; `why` is the server's error, explained.
pub(super) fn unchecked(what: &str, why: &str) -> Finding {
    Finding::new(what, Verdict::Note, format!("could not be checked: {why}"))
}

/// The threads shared by waiting views.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pool {
    /// `background_schedule_pool_size`; 0 if the server does not report it.
    pub threads: u64,
    /// Refreshable views that are not stopped.
    pub views: u64,
}

/// The setting that says how many views can wait.
pub(super) const POOL: &str = "background_schedule_pool_size";

/// Whether there is a thread for each pipe.
pub(super) fn pool(pool: Pool) -> Finding {
    let raise = "raise it in the server's configuration above the number of pipes";
    let (verdict, says) = match pool {
        Pool { threads: 0, .. } => (Verdict::Note, format!("the server does not report it; {raise}")),
        Pool { threads, views } if threads <= views => (
            Verdict::Bad,
            format!(
                "{threads}, and {views} refreshable views share these threads; each view that waits for records occupies one, so some would \
                 never run: {raise}"
            ),
        ),
        Pool { threads, .. } if threads < SCHEDULE_POOL_THREADS => {
            (Verdict::Note, format!("only {threads} views can wait for records at a time: {raise}"))
        }
        Pool { threads, views } => (
            Verdict::Fine,
            format!(
                "{threads}: up to this many views can wait for records at a time; there are {views} refreshable views"
            ),
        ),
    };
    Finding::new(POOL, verdict, says)
}

/// Whether a repeated batch completes the tables below its target; off before 26.2.
pub(super) const DEPENDENT_VIEWS: &str = "deduplicate_blocks_in_dependent_materialized_views";

/// What a batch that is served again does to the views below its target.
pub(super) fn dependent_views(set: bool) -> Finding {
    let (verdict, says) = match set {
        true => (Verdict::Fine, "1: views below a pipe's table get each row only once"),
        false => (
            Verdict::Note,
            "0 for this user, the default before 26.2: rows may be duplicated or missing below a pipe's table unless the SELECT of the pipe's \
             view sets it to 1, as the README's SQL and `sql pipe` do",
        ),
    };
    Finding::new(DEPENDENT_VIEWS, verdict, says)
}

/// Privileges on one object that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Right {
    /// Each as written between GRANT and ON.
    pub rights: Vec<&'static str>,
    /// As written after ON.
    pub on: String,
    pub purpose: Purpose,
}

/// What a privilege is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Work,
    /// Only until the tables exist.
    Create,
    /// For what `check` reports about threads.
    Check,
    /// Needed if a pipe's view is in a database where none can be seen.
    Guess,
}

impl Right {
    fn statement(&self, user: &str) -> String {
        format!("GRANT {} ON {} TO {}", self.rights.join(", "), self.on, identifier(user))
    }
}

/// All privileges listed in docs/deploy.md. `views` are the databases in which a pipe's view can be
/// seen.
pub(super) fn rights(wanted: &Wanted<'_>, views: &[String]) -> Vec<Right> {
    let own = format!("{}.*", identifier(wanted.database));
    let (on_rows, engine) = match wanted.keeper_map {
        true => (&ON_ROWS[..], "KeeperMap"),
        false => (&ON_QUARANTINE[..], "ReplacingMergeTree"),
    };
    let right = |rights: &[&'static str], on: &str, purpose| Right { rights: rights.to_vec(), on: on.into(), purpose };
    let mut all = vec![
        right(on_rows, &own, Purpose::Work),
        right(&["SELECT"], "system.view_refreshes", Purpose::Work),
        right(&TO_CREATE, &own, Purpose::Create),
        right(&["TABLE ENGINE"], engine, Purpose::Create),
        right(&["SELECT"], "system.server_settings", Purpose::Check),
    ];
    match views {
        [] => all.push(right(&ON_VIEWS, "`default`.*", Purpose::Guess)),
        _ => all.extend(views.iter().map(|view| right(&ON_VIEWS, &format!("{}.*", identifier(view)), Purpose::Work))),
    }
    all
}

/// What the bridge's user may do.
#[derive(Clone, Debug)]
pub(super) struct Grants {
    /// The value of the setting `readonly`.
    pub readonly: u64,
    /// The [`rights`] that it lacks.
    pub missing: Vec<Right>,
    /// Whether all of the bridge's tables exist.
    pub has_tables: bool,
}

/// What [`grants`] is about.
pub(super) fn grants_of(user: &str) -> String {
    format!("grants of ClickHouse user '{user}'")
}

/// Whether the user has the privileges it needs.
pub(super) fn grants(wanted: &Wanted<'_>, grants: &Grants) -> Finding {
    let what = grants_of(wanted.user);
    if grants.readonly != 0 {
        return Finding::new(what, Verdict::Bad, read_only(wanted.user, &grants.readonly.to_string()));
    }
    let is_needed = |right: &&Right| match right.purpose {
        Purpose::Work => true,
        Purpose::Create => !grants.has_tables,
        Purpose::Check | Purpose::Guess => false,
    };
    let (needed, others): (Vec<_>, Vec<_>) = grants.missing.iter().partition(is_needed);
    let mut parts: Vec<String> = needed.iter().map(|right| right.statement(wanted.user)).collect();
    let verdict = match (parts.is_empty(), others.is_empty()) {
        (true, true) => return Finding::new(what, Verdict::Fine, "all that docs/deploy.md lists"),
        (true, false) => Verdict::Note,
        (false, _) => Verdict::Bad,
    };
    parts.extend(others.iter().map(|right| {
        let why = match right.purpose {
            Purpose::Check => "only to check background_schedule_pool_size",
            Purpose::Guess => "only if it has a pipe's view: none is visible",
            Purpose::Work | Purpose::Create => "only to create its tables, which already exist",
        };
        format!("{} ({why})", right.statement(wanted.user))
    }));
    Finding::new(what, verdict, format!("missing: {}", parts.join("; ")))
}

/// The message for a user that may not write.
pub(super) fn read_only(user: &str, value: &str) -> String {
    format!(
        "ClickHouse user '{user}' has the setting readonly = {value}, but the bridge writes its state and changes settings: give the \
         user a profile with readonly = 0, or name another user with --clickhouse-user"
    )
}

#[cfg(test)]
#[path = "ability/tests.rs"]
mod tests;
