//! The grants of docs/deploy.md and docs/operations.md, run as printed on a full 25.8 server: they
//! are sufficient, and each is necessary.

mod maker;
mod operator;
mod password;

use std::fs;
use std::process::Command;

use stack::{Bridge, ClickHouseOptions, Engine, KinesisOptions, LocalStack, kinesis_client};

use crate::common::{bridge_binary, orders_sql};
use crate::readme::markdown::{documents, statements};
use crate::world::{block_on, get, post, wait_until};

/// The password of every user here.
const PASSWORD: &str = "secret";

/// The statements of the first block in a document that begins like this.
fn printed(path: &str, begins: &str) -> Vec<String> {
    let document = documents().into_iter().find(|document| document.path == path).expect(path);
    let block = document.blocks.into_iter().find(|block| block.text.starts_with(begins));
    statements(&block.unwrap_or_else(|| panic!("{path} has no block with {begins}")).text)
}

/// What can be revoked: each privilege of a grant, with what follows ON.
fn privileges(grants: &[String], user: &str) -> Vec<String> {
    let mut all = Vec::new();
    for grant in grants {
        let end = format!(" TO {user}");
        let grant = grant.strip_suffix(" WITH GRANT OPTION").unwrap_or(grant);
        let what = grant.strip_prefix("GRANT ").and_then(|grant| grant.strip_suffix(&end)).expect(grant);
        let mut waiting: Vec<&str> = Vec::new();
        for part in what.split(", ") {
            let (privilege, on) = part.split_once(" ON ").map_or((part, None), |(privilege, on)| (privilege, Some(on)));
            waiting.push(privilege);
            if let Some(on) = on {
                all.extend(waiting.drain(..).map(|privilege| format!("{privilege} ON {on}")));
            }
        }
        assert!(waiting.is_empty(), "{grant}");
    }
    all
}

/// A 25.8 server with a stream of four orders, and users created with SQL.
struct World {
    stack: LocalStack,
}

impl World {
    fn start() -> World {
        let stack = LocalStack::start_with(Engine::V25_8, &KinesisOptions::default(), &ClickHouseOptions::default())
            .expect("a stack");
        // The bridge's user from a file would conflict with the one created with SQL.
        fs::remove_file(stack.dir.path().join("clickhouse/users.d/bridge.xml")).expect("the file of the user");
        let world = World { stack };
        world.ask("SYSTEM RELOAD CONFIG");
        wait_until("the end of the user", || {
            world.ask("SELECT count() FROM system.users WHERE name = 'bridge'") == "0\n"
        });
        block_on(async {
            let client = kinesis_client(&world.stack.kinesis.endpoint()).await;
            stack::load::create_stream(&client, "orders", 1).await.expect("a stream");
        });
        world.put(4);
        world
    }

    /// Puts more orders.
    fn put(&self, count: u64) {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let from = NEXT.fetch_add(count, std::sync::atomic::Ordering::Relaxed);
        block_on(async {
            let client = kinesis_client(&self.stack.kinesis.endpoint()).await;
            stack::load::put_orders(&client, "orders", from, count).await.expect("records");
        });
    }

    fn ask(&self, sql: &str) -> String {
        self.stack.clickhouse.query(sql).unwrap_or_else(|error| panic!("{error}\n{sql}"))
    }

    /// Creates a user and runs its grants.
    fn create_user(&self, name: &str, grants: &[String]) {
        self.ask(&format!("CREATE USER {name} IDENTIFIED BY '{PASSWORD}'"));
        grants.iter().for_each(|grant| drop(self.ask(grant)));
    }

    fn start_bridge(&self) -> Bridge {
        self.start_bridge_with(&[])
    }

    fn start_bridge_with(&self, more: &[(&str, &str)]) -> Bridge {
        let flags = [("--clickhouse-user", "bridge"), ("--clickhouse-password", PASSWORD), ("--lease-duration", "1s")];
        self.stack.start_bridge(bridge_binary(), &[&flags, more].concat()).expect("a bridge")
    }
}

/// Where a user sees what is wrong, except in the log: the exception of the view, and the pipes.
fn said(world: &World, bridge: &Bridge) -> String {
    let exceptions = world.ask("SELECT view, exception FROM system.view_refreshes WHERE exception != ''");
    format!("{exceptions}\n{}", get(bridge, "/v1/pipes").text())
}

#[test]
fn the_bridge_needs_each_of_its_grants() {
    let world = World::start();
    let grants = printed("docs/deploy.md", "GRANT");
    world.create_user("bridge", &grants);
    let mut left = privileges(&grants, "bridge");
    let mut take = |grant: &str| {
        left.retain(|left| left != grant);
        world.ask(&format!("REVOKE {grant} FROM bridge"));
    };
    let give = |grant: &str| drop(world.ask(&format!("GRANT {grant} TO bridge")));

    // Before the tables exist.
    let to_create = ["CREATE DATABASE ON kinesis.*", "CREATE TABLE ON kinesis.*", "TABLE ENGINE ON KeeperMap"];
    to_create.iter().for_each(|grant| take(grant));
    let bridge = world.start_bridge();
    for (grant, named) in
        to_create.iter().zip(["CREATE DATABASE ON kinesis", "CREATE TABLE ON kinesis.", "TABLE ENGINE ON KeeperMap"])
    {
        wait_until(named, || bridge.log().contains(&format!("the grant {named}")));
        give(grant);
    }
    wait_until("readiness", || get(&bridge, "/readyz").status == 200);

    // While a pipe is running.
    let window = "SETTINGS non_replicated_deduplication_window = 1000";
    world.stack.clickhouse.run_script(&orders_sql(&bridge.url(), "orders", "&poll_ms=20", window)).expect("the pipe");
    let rows = |count: &str| wait_until(count, || world.ask("SELECT count() FROM orders").trim() == count);
    rows("4");
    let mut count = 4;
    for (grant, named) in [
        ("SELECT ON kinesis.*", "the grant SELECT"),
        ("INSERT ON kinesis.*", "the grant INSERT("),
        ("ALTER UPDATE ON kinesis.*", "the grant ALTER UPDATE("),
        ("SYSTEM VIEWS ON default.*", "SYSTEM VIEWS on"),
        ("SELECT ON system.view_refreshes", ") ON system.view_refreshes"),
    ] {
        take(grant);
        world.put(1);
        count += 1;
        wait_until(&format!("{named} in what is said"), || {
            let said = said(&world, &bridge);
            said.contains(named) || bridge.log().contains(named)
        });
        give(grant);
        rows(&count.to_string());
    }
    // And when it ends.
    world.ask("DROP TABLE orders_pipe");
    take("ALTER DELETE ON kinesis.*");
    let end = || post(&bridge, "/v1/end", r#"{"pipe":"orders"}"#);
    wait_until("a pipe that is not pulled", || !end().text().contains("is being pulled"));
    assert!(end().text().contains("the grant ALTER DELETE ON kinesis.leases"), "{}", end().text());
    give("ALTER DELETE ON kinesis.*");
    assert_eq!(end().status, 200);
    // Only for check, which continues without it.
    take("SELECT ON system.server_settings");
    let checked = Command::new(bridge_binary())
        .args(["check", "--clickhouse-user", "bridge", "--clickhouse-password", PASSWORD])
        .envs(world.stack.bridge_environment())
        .output()
        .expect("the program runs");
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(said.contains("GRANT SELECT ON system.server_settings TO `bridge`") && checked.status.success(), "{said}");
    give("SELECT ON system.server_settings");
    assert_eq!(left, Vec::<String>::new(), "nothing shows that these are needed");
}

/// As docs/deploy.md says about `--state file:DIR`.
#[test]
fn without_keeper_map_a_bridge_needs_less() {
    let world = World::start();
    let grants: Vec<String> = printed("docs/deploy.md", "GRANT")
        .into_iter()
        .map(|grant| grant.replace(", ALTER UPDATE, ALTER DELETE", "").replace("KeeperMap", "ReplacingMergeTree"))
        .collect();
    assert!(grants.iter().all(|grant| !grant.contains("ALTER") && !grant.contains("KeeperMap")), "{grants:?}");
    world.create_user("bridge", &grants);
    let engine = "TABLE ENGINE ON ReplacingMergeTree";
    world.ask(&format!("REVOKE {engine} FROM bridge"));
    let state = format!("file:{}", world.stack.dir.path().join("state").display());
    let bridge = world.start_bridge_with(&[("--state", &state)]);
    wait_until("the sentence", || bridge.log().contains(&format!("the grant {engine}")));
    world.ask(&format!("GRANT {engine} TO bridge"));

    // No order can be inserted: all of them end up in the quarantine.
    let refusing = orders_sql(&bridge.url(), "orders", "&poll_ms=20&on_failure=isolate", "")
        .replace("ORDER BY ALL", "WHERE toUInt64(concat('x', r.id)) > 0 ORDER BY ALL");
    world.stack.clickhouse.run_script(&refusing).expect("the pipe");
    let kept = || world.ask("SELECT count() FROM kinesis.quarantine FINAL");
    wait_until("the quarantine", || world.ask("EXISTS TABLE kinesis.quarantine") == "1\n" && kept() == "4\n");
    assert_eq!(post(&bridge, "/v1/end", r#"{"pipe":"absent"}"#).status, 404);
    world.ask("DROP TABLE orders_pipe");
    let end = || post(&bridge, "/v1/end", r#"{"pipe":"orders"}"#);
    wait_until("the end of the pipe", || end().status == 200);
}
