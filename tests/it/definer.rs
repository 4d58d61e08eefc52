//! `--definer`: the views run as a user of their own, which has only the privileges that they need.

mod drill;
mod dynamodb;
mod names;
mod refusals;
mod snapshot;

use std::cell::Cell;
use std::io::Write;
use std::process::Output;

use stack::{Bridge, Engine};
use tempfile::NamedTempFile;

use crate::engines::{PerEngine, on};
use crate::sql_pipe::{put, refused, run_in, stream_of, succeeded, wait_for_rows};
use crate::world::{self, sql, stack, wait_for, wait_until};

/// The database of the state of these tests' bridge; the named collection is
/// `definer_state_bridge`.
pub const STATE: &str = "definer_state";

/// A bridge that requires a token, and the file with the token.
struct Guarded {
    bridge: Bridge,
    token: NamedTempFile,
}

/// The bridge of the shared stack, with the views and the named collection of `sql setup`.
fn guarded() -> &'static Guarded {
    static GUARDED: PerEngine<Guarded> = PerEngine::new();
    GUARDED.get_or_init(|| {
        let mut token = NamedTempFile::new().expect("a file");
        writeln!(token, "a-very-secret-token").expect("a token");
        let path = token.path().to_str().expect("a path");
        let bridge = world::bridge(STATE, &[("--token-file", path)]);
        let setup = sql::setup(&sql::SetupParams {
            database: STATE,
            bridge_url: &bridge.url(),
            clickhouse_url: &stack().clickhouse.url(),
            token: Some("a-very-secret-token"),
            state_tables: true,
        });
        stack().clickhouse.run_script(&setup).expect("the printed setup");
        Guarded { bridge, token }
    })
}

/// Runs `sql pipe` for the bridge with a token.
pub fn run(stream: &str, table: &str, flags: &[&str]) -> Output {
    let Guarded { bridge, token } = guarded();
    let token = token.path().to_str().expect("a path");
    let own = ["--listen", bridge.address(), "--clickhouse-database", STATE, "--token-file", token];
    run_in(&[], &[&own[..], &["--stream", stream, "--table", table], flags].concat())
}

/// Revokes each of the user's grants, checks that the view fails with a message that names it, and
/// that what arrived meanwhile is loaded once the grant is restored. `put` writes one more record,
/// and `arrived` waits for all that were written.
fn each_grant_is_needed(
    user: &str,
    view: &str,
    grants: &[(&str, &str)],
    mut put: impl FnMut(),
    mut arrived: impl FnMut(),
) {
    for (grant, named) in grants {
        sql(&format!("REVOKE {grant} FROM {user}"));
        put();
        wait_until(&format!("{named:?} in the exception of {view}"), || {
            sql(&format!("SELECT exception FROM system.view_refreshes WHERE view = '{view}'")).contains(named)
        });
        sql(&format!("GRANT {grant} TO {user}"));
        arrived();
    }
}

/// The grants of a user, without those that every user has.
fn grants(user: &str) -> Vec<String> {
    let to = format!(" TO {user}");
    let shown = sql(&format!("SHOW GRANTS FOR {user}"));
    shown.lines().map(|line| line.strip_suffix(&to).expect(line).to_owned()).collect()
}

/// What ClickHouse shows about a user, and that nobody can log in as it.
fn nobody_can_log_in_as(user: &str) {
    assert_eq!(
        sql(&format!("SHOW CREATE USER {user}")),
        format!("CREATE USER {user} IDENTIFIED WITH no_authentication HOST NONE\n")
    );
    let refused = stack().clickhouse.query_as(user, "", "SELECT 1").expect_err("no login");
    assert!(refused.contains("AUTHENTICATION_FAILED"), "{refused}");
}

/// The definer of a view.
fn definer(view: &str) -> String {
    let sql = format!(
        "SELECT extract(create_table_query, 'DEFINER = (.*) SQL SECURITY DEFINER AS') FROM system.tables WHERE name = '{view}' FORMAT TSVRaw"
    );
    world::sql(&sql).trim().to_owned()
}

#[test]
fn the_user_of_a_pipe_has_what_its_views_need_and_nothing_else() {
    on(Engine::V25_8, || {
        stream_of("definer-orders", &[r#"{"id": 1, "name": "a"}"#]);
        succeeded(run("definer-orders", "definer_orders", &["--definer", "own_pipe", "--apply"]));
        nobody_can_log_in_as("own_pipe");
        for view in ["definer_orders_pipe", "definer_orders_mv", "definer_orders_errors_mv"] {
            assert_eq!(definer(view), "own_pipe");
        }
        wait_for_rows("definer_orders", 1);
        put("definer-orders", [b"no json".to_vec()]);
        wait_for_rows("definer_orders_errors", 1);
        assert_eq!(
            grants("own_pipe"),
            [
                "GRANT CREATE TEMPORARY TABLE ON *.*",
                // As this release shows READ ON URL.
                "GRANT URL ON *.*",
                "GRANT INSERT ON default.definer_orders",
                "GRANT INSERT ON default.definer_orders_errors",
                "GRANT SHOW TABLES ON default.definer_orders_errors_mv",
                "GRANT SELECT, INSERT ON default.definer_orders_landing",
                "GRANT SHOW TABLES ON default.definer_orders_mv",
                "GRANT NAMED COLLECTION ON definer_state_bridge",
            ]
        );
        let missing_view = "must both exist (and this user must see them)";
        let grants = [
            ("INSERT ON default.definer_orders", ") ON default.definer_orders. (ACCESS_DENIED)"),
            ("INSERT ON default.definer_orders_errors", ") ON default.definer_orders_errors. (ACCESS_DENIED)"),
            ("SELECT ON default.definer_orders_landing", "the grant SELECT("),
            ("INSERT ON default.definer_orders_landing", "the grant INSERT("),
            ("SHOW TABLES ON default.definer_orders_mv", missing_view),
            ("READ ON URL", "the grant READ ON URL"),
            ("SHOW TABLES ON default.definer_orders_errors_mv", missing_view),
            ("CREATE TEMPORARY TABLE ON *.*", "the grant CREATE TEMPORARY TABLE ON *.*"),
            ("NAMED COLLECTION ON definer_state_bridge", "the grant NAMED COLLECTION ON definer_state_bridge"),
        ];
        let rows = Cell::new(1);
        let one_more = || {
            rows.set(rows.get() + 1);
            put("definer-orders", [format!(r#"{{"id": {}, "name": "a"}}"#, rows.get()).into_bytes()]);
        };
        let arrived = || wait_for_rows("definer_orders", rows.get());
        each_grant_is_needed("own_pipe", "definer_orders_pipe", &grants, one_more, arrived);
        assert_eq!(sql("SELECT count() FROM definer_orders_errors"), "1\n");
        sql("DROP TABLE definer_orders_pipe");
    });
}

#[test]
fn a_pipe_without_errors_table_and_token_needs_less() {
    on(Engine::V25_8, || {
        stream_of("definer-plain", &[r#"{"id": 1}"#]);
        sql(
            "CREATE TABLE definer_plain (id Int64, _shard_id String, _sequence_number String) ENGINE = MergeTree ORDER BY id \
             SETTINGS non_replicated_deduplication_window = 1000",
        );
        let bridge = world::bridge("definer_plain_state", &[]);
        let flags =
            ["--listen", bridge.address(), "--stream", "definer-plain", "--table", "definer_plain", "--no-errors"];
        let flags = [&flags[..], &["--definer", "plain_pipe", "--apply"]].concat();
        let script = succeeded(run_in(&[], &flags));
        assert!(!script.contains("NAMED COLLECTION"), "{script}");
        nobody_can_log_in_as("plain_pipe");
        wait_for_rows("definer_plain", 1);
        let all = ["CREATE TEMPORARY TABLE ON *.*", "URL ON *.*", "INSERT ON default.definer_plain"];
        assert_eq!(grants("plain_pipe"), all.map(|grant| format!("GRANT {grant}")));
        let named = [
            ("INSERT ON default.definer_plain", ") ON default.definer_plain. (ACCESS_DENIED)"),
            ("READ ON URL", "the grant READ ON URL"),
            ("CREATE TEMPORARY TABLE ON *.*", "the grant CREATE TEMPORARY TABLE ON *.*"),
        ];
        let rows = Cell::new(1);
        let one_more = || {
            rows.set(rows.get() + 1);
            put("definer-plain", [format!(r#"{{"id": {}}}"#, rows.get()).into_bytes()]);
        };
        let arrived = || wait_for_rows("definer_plain", rows.get());
        each_grant_is_needed("plain_pipe", "definer_plain_pipe", &named, one_more, arrived);
        // Without a definer, a view below the table runs as the user and needs SELECT; the comment
        // says how to fix it.
        sql("CREATE TABLE definer_ids (id Int64) ENGINE = MergeTree ORDER BY id");
        sql("CREATE MATERIALIZED VIEW definer_ids_mv TO definer_ids AS SELECT id FROM definer_plain");
        one_more();
        let names_it = || {
            sql("SELECT exception FROM system.view_refreshes WHERE view = 'definer_plain_pipe'")
                .contains("pushing to view default.definer_ids_mv")
        };
        wait_until("the view in the exception", names_it);
        let script = succeeded(run("definer-plain", "definer_plain", &["--definer", "plain_pipe"]));
        let mend = "ALTER TABLE `default`.`definer_ids_mv` MODIFY DEFINER = CURRENT_USER SQL SECURITY DEFINER";
        assert!(script.contains(&format!("-- {mend}\n")), "{script}");
        sql(mend);
        arrived();
        // A second pipe with the same user: it exists, and gets the missing privileges.
        stream_of("definer-more", &[r#"{"id": 1}"#]);
        let script = succeeded(run("definer-more", "definer_more", &["--definer", "plain_pipe", "--apply"]));
        assert!(
            !script.contains("CREATE USER") && script.contains("GRANT INSERT ON `default`.`definer_more`,"),
            "{script}"
        );
        wait_for_rows("definer_more", 1);
        let dropped = wait_for("a refusal", || stack().clickhouse.query("DROP USER plain_pipe").err());
        assert!(dropped.contains("is used as a definer"), "{dropped}");
        sql("DROP TABLE definer_plain_pipe");
        sql("DROP TABLE definer_more_pipe");
    });
}
