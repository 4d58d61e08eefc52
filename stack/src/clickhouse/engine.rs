//! The engines, where each is found, and how it is started.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use crate::service::{Launch, stack_binary};
use crate::{Result, checkout};

/// Which ClickHouse to run on. A user's own ClickHouse (CLICKHOUSE_BINARY, or `clickhouse` on PATH)
/// replaces all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// 25.8 LTS, a full clickhouse-server: Replicated tables and databases, `ON CLUSTER`, `CREATE
    /// USER`.
    V25_8,
    /// 26.3 LTS, a Python module with a thin HTTP interface: no Keeper, so a bridge keeps its state
    /// in files.
    V26_3,
    /// 26.7, the engine of clickhouse-local, listening. It has none of what [`Engine::V25_8`]
    /// lists.
    V26_7,
    /// 26.9, like [`Engine::V26_3`].
    V26_9,
    /// 24.8 LTS, a full clickhouse-server. No pipe runs on it, so it is not in [`Engine::ALL`].
    V24_8,
}

impl FromStr for Engine {
    type Err = String;

    /// Parses a release such as `25.8`.
    fn from_str(release: &str) -> Result<Engine> {
        let of_name = |engine: &Engine| format!("{engine:?}") == format!("V{}", release.replace('.', "_"));
        Engine::ALL.into_iter().find(of_name).ok_or_else(|| "not one of 25.8, 26.3, 26.7 and 26.9".to_owned())
    }
}

/// Where `scripts/install.sh` puts the libraries.
const LIBRARY_25_8: &str = ".stack/chdb-3.7.2/chdb/_chdb.abi3.so";
const MODULE_26_3: &str = ".stack/chdb-core-26.3.0/chdb/_chdb.abi3.so";
const LIBRARY_26_7: &str = ".stack/chdb-26.7.3-stable.1/libchdb.so";
const LIBRARY_24_8: &str = ".stack/chdb-3.3.0/chdb/_chdb.cpython-311-x86_64-linux-gnu.so";
const MODULE_26_9: &str = ".stack/chdb-core-26.9.0/chdb/_chdb.abi3.so";
const HOST: &str = include_str!("host.py");
const SHIM: &str = include_str!("shim.py");

/// An engine on this machine.
pub(super) enum Program {
    /// A `clickhouse` program that includes a server.
    Binary(PathBuf),
    /// A Python module's library that contains all ClickHouse programs.
    Module(PathBuf),
    /// A library that contains clickhouse-local.
    Local(PathBuf),
    /// A Python module's library whose engine can only be called from Python.
    Embedded(PathBuf),
}

impl Engine {
    /// All that pipes run on, oldest first.
    pub const ALL: [Engine; 4] = [Engine::V25_8, Engine::V26_3, Engine::V26_7, Engine::V26_9];

    /// Those on this machine. `scripts/install.sh` installs two, `scripts/install.sh versions` all.
    pub fn installed() -> Vec<Engine> {
        let mut engines = Engine::ALL.to_vec();
        engines.retain(|engine| engine.find().is_ok());
        // They would all be the same one.
        engines.truncate(if Engine::is_users_own() { 1 } else { engines.len() });
        engines
    }

    /// Those on this machine that no pipe runs on; `scripts/install.sh versions` installs one.
    pub fn installed_but_too_old() -> Vec<Engine> {
        let mut engines = vec![Engine::V24_8];
        engines.retain(|engine| engine.find().is_ok() && !Engine::is_users_own());
        engines
    }

    /// Whether it has KeeperMap tables and users.
    pub fn has_keeper(self) -> bool {
        Engine::is_users_own() || matches!(self, Engine::V24_8 | Engine::V25_8 | Engine::V26_7)
    }

    /// Whether the user's own ClickHouse replaces every engine.
    pub fn is_users_own() -> bool {
        users_own().is_some()
    }

    /// The user's own ClickHouse, or the library that `scripts/install.sh` installs.
    pub(super) fn find(self) -> Result<Program> {
        if let Some(binary) = users_own() {
            return Ok(Program::Binary(binary));
        }
        let (library, program): (_, fn(PathBuf) -> Program) = match self {
            Engine::V25_8 => (checkout().join(LIBRARY_25_8), Program::Module),
            Engine::V26_3 => (checkout().join(MODULE_26_3), Program::Embedded),
            Engine::V26_7 => (checkout().join(LIBRARY_26_7), Program::Local),
            Engine::V26_9 => (checkout().join(MODULE_26_9), Program::Embedded),
            Engine::V24_8 => (checkout().join(LIBRARY_24_8), Program::Module),
        };
        if library.is_file() {
            return Ok(program(library));
        }
        Err(format!(
            "no ClickHouse: CLICKHOUSE_BINARY is not set, `clickhouse` is not on PATH and {} is missing: run \
             scripts/install.sh versions",
            library.display()
        ))
    }
}

/// CLICKHOUSE_BINARY, or else `clickhouse` on PATH.
fn users_own() -> Option<PathBuf> {
    if let Some(binary) = std::env::var_os("CLICKHOUSE_BINARY").filter(|value| !value.is_empty()) {
        return Some(binary.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join("clickhouse")).find(|candidate| candidate.is_file())
}

impl Program {
    /// A server with its log in `dir`, and also its data unless its configuration says otherwise.
    pub(super) fn serve(self, config: &Path, http_port: u16, dir: &Path) -> Result<Launch> {
        let log = dir.join("clickhouse.log");
        let mut config_file = OsString::from("--config-file=");
        config_file.push(config);
        match self {
            Program::Binary(binary) => Ok(Launch::new(binary, ["server".into(), config_file], log)),
            Program::Module(library) => {
                let mut args = hosted(library, "_Z25mainEntryClickHouseServeriPPc");
                args.extend(["clickhouse-server".into(), config_file]);
                Ok(Launch::new("python3", args, log))
            }
            Program::Local(library) => {
                // clickhouse-local serves its ports for as long as its query runs: this one runs
                // for years.
                let query = "SYSTEM START LISTEN QUERIES ALL; SELECT sum(sleepEachRow(1)) FROM numbers(100000000) \
                             SETTINGS max_block_size = 1, function_sleep_max_microseconds_per_block = 0";
                let args: [OsString; 9] = [
                    "clickhouse-host".into(),
                    "--library".into(),
                    library.into(),
                    "--".into(),
                    config_file,
                    "--path".into(),
                    dir.join("data").into(),
                    "--query".into(),
                    query.into(),
                ];
                Ok(Launch::new(stack_binary()?, args, log))
            }
            Program::Embedded(library) => {
                let folder = library.parent().unwrap_or(&library).to_path_buf();
                let data = dir.join("data");
                let args: [OsString; 6] =
                    ["-I".into(), "-c".into(), SHIM.into(), folder.into(), http_port.to_string().into(), data.into()];
                Ok(Launch::new("python3", args, log))
            }
        }
    }

    /// clickhouse-local, without its arguments yet.
    pub(super) fn local(self) -> Result<Command> {
        match self {
            Program::Binary(binary) => {
                let mut command = Command::new(binary);
                command.arg("local");
                Ok(command)
            }
            Program::Module(library) => {
                let mut command = Command::new("python3");
                command.args(hosted(library, "_Z24mainEntryClickHouseLocaliPPc")).arg("clickhouse-local");
                Ok(command)
            }
            Program::Embedded(library) => Err(format!("{} runs no scripts: name another engine", library.display())),
            Program::Local(library) => {
                let mut command = Command::new(stack_binary()?);
                command.args(["clickhouse-host", "--library"]).arg(library).arg("--");
                Ok(command)
            }
        }
    }
}

/// The arguments of Python up to those of the program in the library; its entry point is `int (int
/// argc, char **argv)`.
fn hosted(library: PathBuf, entry: &str) -> Vec<OsString> {
    vec!["-I".into(), "-c".into(), HOST.into(), library.into(), entry.into()]
}
