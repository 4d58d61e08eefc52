//! What the statements of views say, according to `system.tables`.

use std::collections::BTreeSet;

use super::quote::literal;
use domain::interface::{Parameter, Route};

/// Where a view's definition names its target table: `TO db.table`, each part in backquotes unless
/// it is a plain name.
const TARGET: &str = r" TO ((?:`(?:[^`\\]|\\.)+`|[^`. (]+)\.(?:`(?:[^`\\]|\\.)+`|[^`. (]+))";

/// A name in backquotes.
const QUOTED: &str = r"`(?:[^`\\]|\\.)*`";

/// SQL for the target table, `database.name`, of a row of `system.tables`; without TO it is the
/// view's own table.
fn target() -> String {
    format!(
        "if(extract(create_table_query, {target}) = '', concat(database, '.`.inner_id.', toString(uuid), '`'), extract(create_table_query, {target}))",
        target = literal(TARGET)
    )
}

/// SQL for the pipe URLs in the SELECT of the view in a row of `system.tables`, each as pipe and
/// query. The pipe is decoded.
fn pulls() -> String {
    format!(
        r"arrayMap(found -> [decodeURLComponent(found[1]), found[2]], extractAllGroupsVertical(as_select, '{}[?]?([^\' ]*)'))",
        pull()
    )
}

/// A regular expression for the path of a pull; its group is the pipe, as it appears in the URL.
fn pull() -> String {
    Route::Next.with("([^/?]+)")
}

/// SQL for whether a view's SELECT has the URL of a pull in it.
pub fn selects_a_pull() -> String {
    format!("as_select LIKE '%{}%'", Route::Next.with("%"))
}

/// SQL for whether a refresh of the view in a row of `system.tables` replaces the contents of its
/// table. The text before the SELECT decides, ignoring names in backquotes; if this user cannot see
/// it, it is unknown and counts as no.
fn replaces() -> String {
    format!(
        "create_table_query != '' AND NOT match(replaceRegexpAll(substring(create_table_query, 1, length(create_table_query) - length(as_select)), {}, ''), \
         ' APPEND (?:TO |ENGINE |[(])')",
        literal(QUOTED)
    )
}

/// The server's views whose URL pulls a pipe, and the tables they write to. `pipe` is as it appears
/// in the URL.
pub fn pullers(pipe: &str) -> String {
    format!(
        "SELECT concat(database, '.', name) AS view, {} AS target FROM system.tables WHERE engine = 'MaterializedView' \
         AND decodeURLComponent(extract(create_table_query, '{}')) = decodeURLComponent({}) ORDER BY view",
        target(),
        pull(),
        literal(pipe)
    )
}

/// The materialized views fed by inserts into `tables`: their databases and names.
pub fn fed_by(tables: &BTreeSet<[String; 2]>) -> String {
    format!(
        "SELECT DISTINCT arrayJoin(arrayMap((database, name) -> [database, name], dependencies_database, dependencies_table)) AS view \
         FROM system.tables WHERE {}",
        among(tables)
    )
}

/// The tables that `views` write to.
pub fn fed(views: &BTreeSet<[String; 2]>) -> String {
    format!("SELECT {} AS target FROM system.tables WHERE engine = 'MaterializedView' AND {}", target(), among(views))
}

/// SQL for whether a row of `system.tables` is one of these. ClickHouse reads no others.
fn among(tables: &BTreeSet<[String; 2]>) -> String {
    let tables: Vec<_> =
        tables.iter().map(|[database, name]| format!("({}, {})", literal(database), literal(name))).collect();
    format!("(database, name) IN ({})", tables.join(", "))
}

/// A view, and those that may name it in `view=`: where they insert, whether they replace, what
/// they pull, and whether they are running.
pub fn with_copies(database: &str, view: &str) -> String {
    format!(
        "SELECT database, name, {} AS target, {} AS replaces, {} AS pulls, \
         (database, name) IN (SELECT database, view FROM system.view_refreshes WHERE status = 'Running') AS running \
         FROM system.tables WHERE name IN (SELECT view FROM system.view_refreshes) AND engine = 'MaterializedView' \
         AND (database = {} AND name = {} OR as_select LIKE '%{}%{}=%')",
        target(),
        replaces(),
        pulls(),
        literal(database),
        literal(view),
        Route::Next.with("%"),
        Parameter::View
    )
}

/// The server's views whose SELECT has the URL of a pull: where each writes, what it pulls from
/// which bridge, the settings that pipes depend on (empty: not set), and how its refreshes go.
pub fn pulling_views() -> String {
    let setting = |text: &str, name: &str| format!("extract({text}, '[ ,]{name} = (-?[0-9]+)')");
    format!(
        "SELECT database, name, {} AS target, {} AS replaces, {} AS pulls, extract(as_select, '{}') AS bridge, {} AS tries, {} AS threads, \
         {} AS retries, status, exception, toUInt32(least(retry, 4294967295)) AS failed FROM system.tables INNER JOIN \
         (SELECT database, view AS name, status, exception, retry FROM system.view_refreshes) AS refreshes USING (database, name) \
         WHERE engine = 'MaterializedView' AND {} ORDER BY database, name",
        target(),
        replaces(),
        pulls(),
        format_args!(r"(https?://[^/\' ]+){}/", Route::Pipes.path()),
        setting("as_select", "http_max_tries"),
        setting("as_select", "max_threads"),
        setting("create_table_query", "refresh_retries"),
        selects_a_pull()
    )
}

/// The engines of tables, with their settings.
pub fn engines(tables: &BTreeSet<[String; 2]>) -> String {
    format!("SELECT database, name, engine, engine_full FROM system.tables WHERE {}", among(tables))
}

/// The comment that `sql setup` left on its view `bridge`, and the address in it.
pub fn setup_done(database: &str) -> String {
    format!(
        r"SELECT comment, extract(as_select, '(https?://[^/\' ]+)') AS address FROM system.tables WHERE database = {} AND name = 'bridge'",
        literal(database)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pulls_are_found_by_their_path() {
        assert_eq!(selects_a_pull(), "as_select LIKE '%/v1/pipes/%/next%'");
        assert!(pullers("p").contains("extract(create_table_query, '/v1/pipes/([^/?]+)/next')"));
        let copies = with_copies("d", "v");
        assert!(
            copies.contains(r"extractAllGroupsVertical(as_select, '/v1/pipes/([^/?]+)/next[?]?([^\' ]*)')"),
            "{copies}"
        );
        assert!(copies.contains("OR as_select LIKE '%/v1/pipes/%/next%view=%')"), "{copies}");
        // The views of `sql setup` look for them, too.
        let views = include_str!("../../../sql/setup/03_views.sql");
        assert!(views.contains(&format!("extract(definition, '{}')", pull())));
        assert!(views.contains(&format!("create_table_query LIKE '%{}%'", Route::Next.with("%"))));
    }
}
