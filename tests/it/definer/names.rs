//! The views run as exactly the named user, whatever its name.

use stack::Engine;

use super::{definer, refused, run};
use crate::engines::on;
use crate::sql_pipe::{put, stream_of, succeeded, wait_for_rows};
use crate::world::{sql, wait_for};

/// Quotes, an escape, text that looks like SQL, and text that looks like the parts of a view's
/// definition that the bridge reads.
const NAMES: [&str; 5] = [
    r"it's `a` \ name\",
    "a@b.c",
    "x TO default.other APPEND TO default.third",
    "u` SQL SECURITY NONE AS SELECT 1 --",
    "Zoë 🚲",
];

#[test]
fn any_name_is_quoted() {
    on(Engine::V25_8, || {
        for (n, name) in NAMES.into_iter().enumerate() {
            let (stream, table) = (format!("definer-name-{n}"), format!("definer_name_{n}"));
            stream_of(&stream, &[r#"{"id": 1}"#]);
            succeeded(run(&stream, &table, &["--definer", name, "--apply"]));
            wait_for_rows(&table, 1);
            put(&stream, [br#"{"id": 2}"#.to_vec()]);
            wait_for_rows(&table, 2);
            let quoted = sql::quote::identifier(name);
            let shown = definer(&format!("{table}_pipe"));
            assert!([&quoted, name].contains(&&*shown), "{shown} is not {name}");
            let users = format!("SELECT count() FROM system.users WHERE name = {}", sql::quote::literal(name));
            assert_eq!(sql(&users), "1\n");
            // The bridge has read the view's target from the definition.
            let target = format!("SELECT any(target) FROM definer_state.leases WHERE pipe = '{table}'");
            assert_eq!(
                wait_for("a target", || Some(sql(&target)).filter(|t| t != "\n")),
                format!("default.{table}_landing\n")
            );
            sql(&format!("DROP TABLE {table}_pipe"));
        }
    });
}

#[test]
fn a_name_of_several_lines_is_refused() {
    on(Engine::V25_8, || {
        stream_of("definer-lines", &[r#"{"id": 1}"#]);
        for name in ["a\nb", "", "a\u{7}", &"n".repeat(129)] {
            let said = refused(&run("definer-lines", "definer_lines", &["--definer", name, "--apply"]));
            assert!(said.starts_with("error: --definer is \"") && said.contains("a name of 1 to 128 bytes"), "{said}");
        }
        assert_eq!(sql("SELECT count() FROM system.tables WHERE name LIKE 'definer_lines%'"), "0\n");
    });
}
