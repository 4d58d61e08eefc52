//! Runs a script like a ClickHouse client does.

use std::path::Path;

use super::{Engine, config};
use crate::Result;

/// Runs a script with `clickhouse local`, its data in `dir`, up to the first statement that fails.
/// ClickHouse's own parser splits the statements, as in every client. The error is what it printed.
pub fn run_locally(engine: Engine, dir: &Path, script: &str) -> Result<()> {
    let failed = |error: std::io::Error| format!("cannot run a script in {}: {error}", dir.display());
    let (file, end) = (dir.join("script.sql"), dir.join("end"));
    // An engine hosted from a library may not report how its script ended, so the script does.
    let marked = format!("{script}\n;SELECT 1 INTO OUTFILE '{}' TRUNCATE;\n", end.display());
    std::fs::write(&file, marked).map_err(failed)?;
    let mut command = engine.find()?.local()?;
    command.arg("--path").arg(dir.join("data")).arg("--queries-file").arg(&file);
    let output = command.current_dir(dir).envs(config::environment()).output().map_err(failed)?;
    match end.exists() {
        true => std::fs::remove_file(&end).map_err(failed),
        false => Err(String::from_utf8_lossy(&[output.stderr, output.stdout].concat()).into_owned()),
    }
}
