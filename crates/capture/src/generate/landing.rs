//! Shared by all landing tables that store nothing.

use super::plan::shown;
use sql::quote::literal;

/// A condition that stops the pipe into `<table>_landing` while a view that reads it is missing:
/// its rows would be stored nowhere. It is evaluated when a refresh starts, before anything is
/// read. ClickHouse cannot evaluate it again once rows have arrived.
pub fn is_read(database: &str, table: &str) -> String {
    let views = ["_mv", "_errors_mv"].map(|suffix| format!("{table}{suffix}"));
    let [first, second] = views.clone().map(|name| shown(&name));
    let missing = literal(&format!(
        "the views {first} and {second} must both exist (and this user must see them), or the records of the pipe would be stored nowhere: \
         create the missing one again; nothing is lost meanwhile"
    ));
    let names = views.map(|name| literal(&name)).join(", ");
    let database = literal(database);
    format!(
        "(SELECT throwIf(count() < 2,\n        {missing})\n        FROM system.tables WHERE database = {database} AND name IN ({names})) = 0"
    )
}
