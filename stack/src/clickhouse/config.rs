//! The engine's configuration: a rendered main file plus the same files that the containers use.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::Result;

/// A user with all the privileges of `default` and [`TEST_PASSWORD`].
pub const PASSWORD_USER: &str = "bridge_password";
/// A user who may only read the database `default`; its password is [`TEST_PASSWORD`].
pub const WEAK_USER: &str = "weak";
/// The name of the cluster in which servers that know of each other are one shard each.
pub const CLUSTER: &str = "all_servers";
/// The name of the cluster of the same servers as replicas of one shard; the macro `{cluster}`
/// stands for it.
pub const REPLICAS: &str = "replicas";
/// The password of every user that has one.
pub const TEST_PASSWORD: &str = "correct horse battery";

const KEEPER_MAP: &str = include_str!("../../../docker/clickhouse/config.d/keeper-map.xml");
const QUERY_LOG: &str = include_str!("../../../docker/clickhouse/config.d/query-log.xml");
const BRIDGE_USER: &str = include_str!("../../../docker/clickhouse/users.d/bridge.xml");
const DEFAULT_USER: &str = include_str!("../../../docker/clickhouse/users.d/default.xml");

/// How an engine under test differs from the usual one.
#[derive(Clone, Debug)]
pub struct ClickHouseOptions {
    /// Whether `keeper_map_path_prefix` is configured; KeeperMap tables need it.
    pub keeper_map: bool,
    /// Users in addition to `default`, `bridge`, [`PASSWORD_USER`] and [`WEAK_USER`].
    pub users: Vec<User>,
    /// The port of the native protocol; `None` uses a free one.
    pub native_port: Option<u16>,
    /// The native ports of all servers on 127.0.0.1 that form the clusters [`CLUSTER`] and
    /// [`REPLICAS`]; empty for no cluster.
    pub cluster: Vec<u16>,
    /// An additional file of users, profiles and quotas, as XML.
    pub users_xml: Option<String>,
}

impl Default for ClickHouseOptions {
    fn default() -> ClickHouseOptions {
        ClickHouseOptions {
            keeper_map: true,
            users: Vec::new(),
            native_port: None,
            cluster: Vec::new(),
            users_xml: None,
        }
    }
}

/// A user to configure.
#[derive(Clone, Debug)]
pub struct User {
    /// The name.
    pub name: String,
    /// The password; empty for none.
    pub password: String,
    /// Statements such as `GRANT SELECT ON default.*`; empty means all privileges.
    pub grants: Vec<String>,
}

/// The ports of one engine, all on 127.0.0.1.
pub(super) struct Ports {
    pub http: u16,
    pub native: u16,
    pub interserver: u16,
    pub zookeeper: Option<u16>,
}

/// The environment of an engine: what the shared files read, and no second process that would
/// outlive the first.
pub(super) fn environment() -> Vec<(String, String)> {
    [("KINESIS_BRIDGE_CLICKHOUSE_PASSWORD", TEST_PASSWORD), ("CLICKHOUSE_WATCHDOG_ENABLE", "0")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

/// Writes everything into `dir` and returns the path of the main file.
pub(super) fn write(dir: &Path, ports: &Ports, options: &ClickHouseOptions) -> Result<PathBuf> {
    let main = dir.join("config.xml");
    let mut files = vec![
        (main.clone(), render_main(dir, ports, &options.cluster)),
        (dir.join("users.xml"), include_str!("users.xml").to_owned()),
        (dir.join("config.d/query-log.xml"), QUERY_LOG.to_owned()),
        (dir.join("users.d/bridge.xml"), BRIDGE_USER.to_owned()),
        (dir.join("users.d/default.xml"), DEFAULT_USER.to_owned()),
        (dir.join("users.d/tests.xml"), render_users(&options.users)),
    ];
    if options.keeper_map {
        files.push((dir.join("config.d/keeper-map.xml"), KEEPER_MAP.to_owned()));
    }
    files.extend(options.users_xml.iter().map(|xml| (dir.join("users.d/more.xml"), xml.clone())));
    for folder in ["config.d", "users.d", "data"] {
        let folder = dir.join(folder);
        fs::create_dir_all(&folder).map_err(|error| format!("cannot create {}: {error}", folder.display()))?;
    }
    for (path, text) in files {
        fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(main)
}

fn render_main(dir: &Path, ports: &Ports, cluster: &[u16]) -> String {
    // Hosted engines all have the same server id, and one that finds another's session under its
    // own id ends it ("Session was killed").
    let zookeeper = ports.zookeeper.map_or_else(String::new, |port| {
        format!(
            "<zookeeper><node><host>127.0.0.1</host><port>{port}</port></node>\
             <session_timeout_ms>10000</session_timeout_ms>\
             <sessions_path>/clickhouse/sessions/{}</sessions_path></zookeeper>",
            ports.native
        )
    });
    let cluster = render_cluster(ports.native, cluster);
    let dir = escape(&dir.display().to_string());
    let (http, native, interserver) = (ports.http, ports.native, ports.interserver);
    format!(
        "<clickhouse>
    <logger><level>warning</level><console>1</console></logger>
    <background_schedule_pool_size>64</background_schedule_pool_size>
    <!-- An engine that is a library for Python has 1 or 2 threads in each of these unless they are set. -->
    <background_pool_size>4</background_pool_size>
    <background_fetches_pool_size>4</background_fetches_pool_size>
    <background_common_pool_size>4</background_common_pool_size>
    <background_distributed_schedule_pool_size>4</background_distributed_schedule_pool_size>
    <listen_host>127.0.0.1</listen_host>
    <http_port>{http}</http_port>
    <tcp_port>{native}</tcp_port>
    <interserver_http_host>127.0.0.1</interserver_http_host>
    <interserver_http_port>{interserver}</interserver_http_port>
    <path>{dir}/data/</path>
    <tmp_path>{dir}/data/tmp/</tmp_path>
    <user_files_path>{dir}/data/user_files/</user_files_path>
    <format_schema_path>{dir}/data/format_schemas/</format_schema_path>
    <users_config>{dir}/users.xml</users_config>
    <!-- As a server package ships it. -->
    <access_control_improvements><table_engines_require_grant>true</table_engines_require_grant></access_control_improvements>
    <user_directories>
        <local_directory><path>{dir}/data/access/</path></local_directory>
    </user_directories>
    {zookeeper}
    {cluster}
</clickhouse>
"
    )
}

/// What makes servers know of each other. Their paths in ZooKeeper are shared, and each has its own
/// replica name.
fn render_cluster(native: u16, ports: &[u16]) -> String {
    if ports.is_empty() {
        return String::new();
    }
    let replica = |port: &u16| format!("<replica><host>127.0.0.1</host><port>{port}</port></replica>");
    let shards: String = ports.iter().map(|port| format!("<shard>{}</shard>", replica(port))).collect();
    let replicas: String = ports.iter().map(replica).collect();
    format!(
        "<remote_servers replace=\"1\">
        <{CLUSTER}>{shards}</{CLUSTER}>
        <{REPLICAS}><shard><internal_replication>true</internal_replication>{replicas}</shard></{REPLICAS}>
    </remote_servers>
    <macros><cluster>{REPLICAS}</cluster><shard>1</shard><replica>{native}</replica></macros>
    <distributed_ddl><path>/clickhouse/task_queue/ddl</path></distributed_ddl>"
    )
}

fn render_users(extra: &[User]) -> String {
    let known = [
        User { name: PASSWORD_USER.to_owned(), password: TEST_PASSWORD.to_owned(), grants: Vec::new() },
        User {
            name: WEAK_USER.to_owned(),
            password: TEST_PASSWORD.to_owned(),
            grants: vec!["GRANT SELECT ON default.*".to_owned()],
        },
    ];
    let mut xml = "<clickhouse><users>\n".to_owned();
    for user in known.iter().chain(extra) {
        let rights = if user.grants.is_empty() {
            "<access_management>1</access_management><named_collection_control>1</named_collection_control>".to_owned()
        } else {
            let queries: String = user.grants.iter().map(|grant| format!("<query>{}</query>", escape(grant))).collect();
            format!("<grants>{queries}</grants>")
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            xml,
            "<{name}><password>{password}</password><networks><ip>::/0</ip></networks><profile>default</profile>\
             <quota>default</quota>{rights}</{name}>",
            name = user.name,
            password = escape(&user.password),
        );
    }
    xml.push_str("</users></clickhouse>\n");
    xml
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
