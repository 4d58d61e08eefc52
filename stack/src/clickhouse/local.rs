//! A script run as a client of ClickHouse runs it.

use std::path::Path;
use std::process::Command;

use super::{Engine, config, find_engine};
use crate::Result;
use crate::service::stack_binary;

/// Runs a script with `clickhouse local`, its data in `dir`, up to the first statement that fails.
/// ClickHouse's own parser finds the statements, as in every client. The error is what it wrote.
pub fn run_locally(dir: &Path, script: &str) -> Result<()> {
    let failed = |error: std::io::Error| format!("cannot run a script in {}: {error}", dir.display());
    let (file, end) = (dir.join("script.sql"), dir.join("end"));
    // The engine of the library says nothing of how its script ended, so the script does.
    let marked = format!("{script}\n;SELECT 1 INTO OUTFILE '{}' TRUNCATE;\n", end.display());
    std::fs::write(&file, marked).map_err(failed)?;
    let mut command = match find_engine()? {
        Engine::Binary(binary) => {
            let mut command = Command::new(binary);
            command.arg("local");
            command
        }
        Engine::Library(library) => {
            let mut command = Command::new(stack_binary()?);
            command.args(["clickhouse-host", "--library"]).arg(library).arg("--");
            command
        }
    };
    command.arg("--path").arg(dir.join("data")).arg("--queries-file").arg(&file);
    let output = command.current_dir(dir).envs(config::environment()).output().map_err(failed)?;
    match end.exists() {
        true => std::fs::remove_file(&end).map_err(failed),
        false => Err(String::from_utf8_lossy(&[output.stderr, output.stdout].concat()).into_owned()),
    }
}
