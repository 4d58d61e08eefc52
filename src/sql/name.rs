//! Names of tables as people write them.

/// Database and name of a table, each in backquotes where it is no plain name. `flag` is for the message, without its hyphens.
pub fn table_name(flag: &str, text: &str) -> Result<(String, String), String> {
    let (mut parts, mut inside, mut chars) = (vec![String::new()], false, text.chars());
    while let Some(c) = chars.next() {
        let Some(part) = parts.last_mut() else { break };
        match c {
            '`' => inside = !inside,
            '\\' if inside => part.extend(chars.next()),
            '.' if !inside => parts.push(String::new()),
            c => part.push(c),
        }
    }
    let wrong = inside || parts.iter().any(|part| part.is_empty() || part.contains(char::is_control));
    match <[String; 2]>::try_from(parts) {
        Ok([database, table]) if !wrong => Ok((database, table)),
        Err(mut parts) if parts.len() == 1 && !wrong => Ok(("default".into(), parts.remove(0))),
        _ => Err(format!(
            "--{flag} is '{text}': write <database>.<table>, each part in backquotes where it is no plain name"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_named_with_their_database() {
        let name = |text: &str| table_name("table", text).map(|(d, t)| format!("{d}|{t}"));
        assert_eq!(name("orders").unwrap(), "default|orders");
        assert_eq!(name("shop.orders").unwrap(), "shop|orders");
        assert_eq!(name(r"`my.db`.`it's \`a\``").unwrap(), "my.db|it's `a`");
        for wrong in ["", "a.", ".a", "a.b.c", "`a", "a.`b\n`"] {
            assert!(name(wrong).is_err(), "{wrong}");
        }
    }
}
