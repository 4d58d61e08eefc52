//! Table names as users write them.

use super::quote::unquoted;

/// Database and name of a table, each in backquotes unless it is a plain name; `None` if the text
/// is not a name.
pub fn table_name(text: &str) -> Option<(String, String)> {
    let parts =
        parts(text).filter(|parts| parts.iter().all(|part| !part.is_empty() && !part.contains(char::is_control)));
    match parts.as_deref() {
        Some([database, table]) => Some((database.clone(), table.clone())),
        Some([table]) => Some(("default".into(), table.clone())),
        _ => None,
    }
}

/// The parts between dots; `None` if a quote is not closed, or something follows it.
pub fn parts(text: &str) -> Option<Vec<String>> {
    let (mut parts, mut rest) = (Vec::new(), text);
    loop {
        let (part, after) = match rest.starts_with('`') {
            true => unquoted(rest, '`')?,
            false => {
                let end = rest.find('.').unwrap_or(rest.len());
                (Some(&rest[..end]).filter(|part| !part.contains('`'))?.to_owned(), &rest[end..])
            }
        };
        parts.push(part);
        match after.strip_prefix('.') {
            Some(after) => rest = after,
            None if after.is_empty() => return Some(parts),
            None => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_named_with_their_database() {
        let name = |text: &str| table_name(text).map(|(d, t)| format!("{d}|{t}"));
        assert_eq!(name("orders").unwrap(), "default|orders");
        assert_eq!(name("shop.orders").unwrap(), "shop|orders");
        assert_eq!(name(r"`my.db`.`it's \`a\``").unwrap(), "my.db|it's `a`");
        for wrong in ["", "a.", ".a", "a.b.c", "`a", "`a`b", "a`b`", "a.`b\n`", r"a.`b\n`"] {
            assert_eq!(name(wrong), None, "{wrong}");
        }
    }
}
