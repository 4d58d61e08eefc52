//! The columns of a target: the mapping between attributes and columns (not stored anywhere; both
//! directions follow from the names), and how items are marked as deleted.

/// Columns of a ClickHouse table that are not attributes: the version of the row, whether its item
/// was deleted, and, as JSON, the attributes that the other columns do not represent exactly.
pub const OWN_COLUMNS: [&str; 3] = ["version", "is_deleted", "rest"];
/// Appended to the name of an attribute that clashes with one of [`OWN_COLUMNS`].
const SUFFIX: &str = "_attribute";

/// The column of an attribute; `None` for one that can only be in `rest`, because its column would
/// be another attribute's.
pub fn column_of(attribute: &str) -> Option<String> {
    if OWN_COLUMNS.contains(&attribute) {
        return Some(format!("{attribute}{SUFFIX}"));
    }
    (attribute_of(attribute) == Some(attribute)).then(|| attribute.to_owned())
}

/// The attribute of a column; `None` for [`OWN_COLUMNS`].
pub fn attribute_of(column: &str) -> Option<&str> {
    match column.strip_suffix(SUFFIX) {
        Some(own) if OWN_COLUMNS.contains(&own) => Some(own),
        _ => (!OWN_COLUMNS.contains(&column)).then_some(column),
    }
}

/// The statement that marks every item of a target older than `version` as deleted, at `version`.
/// The target's name and its key columns are already quoted.
pub fn mark_deleted(target: &str, keys: &[String], version: i64) -> String {
    let keys = keys.join(", ");
    format!(
        "INSERT INTO {target} ({keys}, version, is_deleted)\nSELECT {keys}, {version} AS version, 1 AS is_deleted\nFROM {target} FINAL\n\
         WHERE {target}.version < {version}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_has_one_attribute() {
        for name in
            ["id", "Version", "version", "is_deleted", "rest", "version_attribute", "x_attribute", "_attribute", ""]
        {
            match column_of(name) {
                Some(column) => assert_eq!(attribute_of(&column), Some(name)),
                None => assert_eq!(name, "version_attribute"),
            }
        }
        assert_eq!(attribute_of("rest"), None);
    }
}
