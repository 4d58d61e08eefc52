//! The columns of a target: which one has which attribute of DynamoDB (nothing remembers it, both
//! directions follow from the names alone), and how items are marked as deleted.

/// Columns of a table in ClickHouse that are no attributes: the version of the row, whether its
/// item was deleted, and the attributes that the other columns do not say exactly, as JSON.
pub const OWN_COLUMNS: [&str; 3] = ["version", "is_deleted", "rest"];
/// What is put behind the name of an attribute that is called like one of [`OWN_COLUMNS`].
const SUFFIX: &str = "_attribute";

/// The column of an attribute; none for one that can only stand in `rest`, because its column would
/// be another attribute's.
pub fn column_of(attribute: &str) -> Option<String> {
    if OWN_COLUMNS.contains(&attribute) {
        return Some(format!("{attribute}{SUFFIX}"));
    }
    (attribute_of(attribute) == Some(attribute)).then(|| attribute.to_owned())
}

/// The attribute of a column; none for [`OWN_COLUMNS`].
pub fn attribute_of(column: &str) -> Option<&str> {
    match column.strip_suffix(SUFFIX) {
        Some(own) if OWN_COLUMNS.contains(&own) => Some(own),
        _ => (!OWN_COLUMNS.contains(&column)).then_some(column),
    }
}

/// The statement that marks as deleted, at `version`, every item of a target that is older. The
/// target's name and its key columns are quoted.
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
