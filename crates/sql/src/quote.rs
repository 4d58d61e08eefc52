//! The only ways for a value from outside to become SQL text: literals, identifiers and comments.
//!
//! Their output has no character that ends a line, moves the cursor or changes the text direction,
//! so that a reader, a pager and a script splitter see the same text as ClickHouse. Such characters
//! become escapes, which ClickHouse decodes within quotes.

use std::fmt::Write;

use domain::limits::MAX_COMMENT_CHARS;

/// A string literal: `it's` becomes `'it\'s'`.
///
/// `tests/it/sql.rs` sends random strings through the real engine and compares.
pub fn literal(text: &str) -> String {
    quoted(text, '\'')
}

/// A string literal printed over several lines: `lines` joined by line breaks.
pub fn literal_of_lines<'t>(lines: impl IntoIterator<Item = &'t str>) -> String {
    let lines: Vec<String> = lines.into_iter().map(|line| escaped(line, Some('\''))).collect();
    format!("'{}'", lines.join("\n"))
}

/// An identifier: `my table` becomes `` `my table` ``.
pub fn identifier(name: &str) -> String {
    quoted(name, '`')
}

/// `database.name`, both quoted.
pub fn qualified(database: &str, name: &str) -> String {
    format!("{}.{}", identifier(database), identifier(name))
}

/// A one-line comment, including its line end: whatever the text contains, the result is a single
/// line that starts with `--`. Truncated at [`MAX_COMMENT_CHARS`].
pub fn comment(text: &str) -> String {
    let line = visible(text);
    match line.char_indices().nth(MAX_COMMENT_CHARS) {
        Some((at, _)) => format!("-- {}…\n", &line[..at]),
        None => format!("-- {line}\n"),
    }
}

/// A comment for each line of a text.
pub fn comments(text: &str) -> String {
    text.trim_end_matches('\n').split('\n').map(comment).collect()
}

/// A text with its hidden characters escaped. SQL keeps its meaning as long as they are within
/// quotes, as in everything that ClickHouse itself prints.
pub fn visible(text: &str) -> String {
    escaped(text, None)
}

/// The text between `quote` at the start and the next one, unescaped, and what follows. `None` if
/// there is no such pair.
pub fn unquoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix(quote)?;
    let mut bytes = Vec::new();
    loop {
        let c = rest.chars().next()?;
        let after = &rest[c.len_utf8()..];
        rest = match c {
            // A doubled quote is one quote.
            _ if c == quote => match after.strip_prefix(quote) {
                Some(after) => {
                    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                    after
                }
                None => return Some((String::from_utf8_lossy(&bytes).into_owned(), after)),
            },
            '\\' => escape(after, &mut bytes)?,
            c => {
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                after
            }
        };
    }
}

/// Decodes what follows a backslash, as ClickHouse does, and returns the rest.
fn escape<'t>(text: &'t str, bytes: &mut Vec<u8>) -> Option<&'t str> {
    let c = text.chars().next()?;
    let after = &text[c.len_utf8()..];
    let hex = after.get(..2).filter(|_| c == 'x').and_then(|hex| u8::from_str_radix(hex, 16).ok());
    let byte = match c {
        'x' if hex.is_some() => hex?,
        'a' => 0x07,
        'b' => 0x08,
        'e' => 0x1B,
        'f' => 0x0C,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 0x0B,
        '0' => 0,
        '\\' | '\'' | '"' | '`' | '/' | '=' => c as u8,
        c => {
            bytes.push(b'\\');
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(after);
        }
    };
    bytes.push(byte);
    Some(if hex.is_some() { &after[2..] } else { after })
}

fn quoted(text: &str, quote: char) -> String {
    format!("{quote}{}{quote}", escaped(text, Some(quote)))
}

/// Escapes hidden characters; with a quote, also that and the backslash.
fn escaped(text: &str, quote: Option<char>) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_hidden(c) => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    // Writing to a String cannot fail.
                    let _ = write!(out, "\\x{byte:02X}");
                }
            }
            c => {
                if quote.is_some_and(|quote| c == quote || c == '\\') {
                    out.push('\\');
                }
                out.push(c);
            }
        }
    }
    out
}

/// Whether a character is invisible, or affects the characters around it: control characters, line
/// and paragraph separators, blanks other than the space, direction marks, joiners, tags.
fn is_hidden(c: char) -> bool {
    let invisible = matches!(
        c,
        '\u{AD}'
            | '\u{34F}'
            | '\u{61C}'
            | '\u{115F}'
            | '\u{1160}'
            | '\u{17B4}'
            | '\u{17B5}'
            | '\u{180B}'..='\u{180F}'
            | '\u{200B}'..='\u{200F}'
            | '\u{202A}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}'
            | '\u{3164}'
            | '\u{FEFF}'
            | '\u{FFA0}'
            | '\u{FFF0}'..='\u{FFFB}'
            | '\u{E0000}'..='\u{E0FFF}'
    );
    c.is_control() || invisible || (c.is_whitespace() && c != ' ')
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

    #[test]
    fn nothing_hidden_is_printed() {
        let hidden = "\n\r\t\0\u{b}\u{1b}\u{7f}\u{85}\u{a0}\u{200b}\u{2028}\u{2029}\u{202e}\u{2066}\u{feff}";
        for text in [literal(hidden), identifier(hidden), visible(hidden)] {
            assert!(!text.contains(is_hidden), "{text:?}");
        }
        assert_eq!(literal("a\nb\u{2028}"), r"'a\nb\xE2\x80\xA8'");
        assert_eq!(identifier("a\0"), r"`a\x00`");
        assert_eq!(literal("Zürich 🚲"), "'Zürich 🚲'");
        assert_eq!(literal_of_lines(["a'", "b\nc"]), "'a\\'\nb\\nc'");
    }

    #[test]
    fn a_comment_is_one_line() {
        assert_eq!(comment("a\nDROP TABLE t; \\"), "-- a\\nDROP TABLE t; \\\n");
        assert_eq!(comments("a\r\nb\n"), "-- a\\r\n-- b\n");
        assert_eq!(comments(""), "-- \n");
        let long = comment(&"\n".repeat(MAX_COMMENT_CHARS));
        assert_eq!((long.lines().count(), long.chars().count()), (1, MAX_COMMENT_CHARS + 5));
    }

    #[test]
    fn what_is_quoted_is_read_again() {
        for text in ["", "a\nb\0\u{2028}\u{1F6B2}", r"it's \ `q` \n \x41 \", "''", "``", "\u{85}\u{7}"] {
            assert_eq!(unquoted(&literal(text), '\''), Some((text.into(), "")), "{text:?}");
            assert_eq!(unquoted(&format!("{} x", identifier(text)), '`'), Some((text.into(), " x")), "{text:?}");
        }
        assert_eq!(unquoted(r"'\d \xZZ it''s \b'x", '\''), Some(("\\d \\xZZ it's \u{8}".into(), "x")));
        for open in ["", "a", "'a", r"'a\'", "'a\\", "'''"] {
            assert_eq!(unquoted(open, '\''), None, "{open}");
        }
    }
}
