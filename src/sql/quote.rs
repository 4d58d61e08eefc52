//! The only two ways by which a value from outside becomes SQL text.

/// A string literal: `it's` becomes `'it\'s'`.
///
/// ClickHouse reads every other byte of a quoted string as it stands, NUL and line breaks included, so the quote and the
/// backslash are all there is to escape. `tests/it/sql.rs` sends random strings through the real engine and compares.
pub fn literal(text: &str) -> String {
    quoted(text, '\'')
}

/// An identifier: `my table` becomes `` `my table` ``.
pub fn identifier(name: &str) -> String {
    quoted(name, '`')
}

/// `database.name`, both quoted.
pub fn qualified(database: &str, name: &str) -> String {
    format!("{}.{}", identifier(database), identifier(name))
}

fn quoted(text: &str, quote: char) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for c in text.chars() {
        if c == quote || c == '\\' {
            out.push('\\');
        }
        out.push(c);
    }
    out.push(quote);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_backslashes_are_escaped() {
        assert_eq!(literal(r"it's a \ `path`"), r"'it\'s a \\ `path`'");
        assert_eq!(identifier(r"it's a \ `path`"), r"`it's a \\ \`path\``");
        assert_eq!(qualified("kinesis", "leases"), "`kinesis`.`leases`");
        assert_eq!(literal(""), "''");
    }
}
