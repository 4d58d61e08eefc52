//! `stack mutants`: plants known bugs in the bridge, one at a time, and has the simulation find
//! each of them.
//!
//! This works on a copy of the sources with its own target folder, both below `target/mutants`, so
//! that only what a bug touches is recompiled.

mod list;
mod rare;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use list::{MUTANTS, Mutant};
use rare::RARE;

/// The test that runs the seeds.
const TEST: &str = "every_record_arrives_exactly_once_whatever_happens";
/// A run that takes longer counts as hanging.
const PATIENCE: Duration = Duration::from_secs(900);

/// Options of `stack mutants`.
#[derive(Args)]
pub struct MutantsArgs {
    /// Only bugs whose names contain one of these.
    names: Vec<String>,
    /// After how many seeds without a failure a bug counts as not found.
    #[arg(long, default_value_t = 2_000)]
    seeds: u64,
}

/// The workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(PathBuf::from).unwrap_or_default()
}

/// Runs them all; exit code 1 if one survives.
pub fn run(args: &MutantsArgs) -> Result<i32, String> {
    let place = Place::prepare()?;
    let all = MUTANTS.iter().map(|mutant| (mutant, TEST)).chain(RARE.iter().map(|(mutant, test)| (mutant, *test)));
    let meant = |m: &Mutant| args.names.is_empty() || args.names.iter().any(|name| m.name.contains(name.as_str()));
    let chosen: Vec<(&Mutant, &str)> = all.filter(|(mutant, _)| meant(mutant)).collect();
    println!("{} bugs; first the sources as they are", chosen.len());
    if let Some(found) = place.simulate(TEST, args.seeds.min(100))? {
        return Err(format!("the simulation fails without any bug planted: {found}"));
    }
    let mut survivors = Vec::new();
    for (mutant, test) in &chosen {
        let (began, found) = (Instant::now(), place.with(mutant, || place.simulate(test, args.seeds))?);
        println!("{:<72} {:>4} s", format!("{} ({})", mutant.name, mutant.breaks), began.elapsed().as_secs());
        match found {
            Some(found) if *test == TEST => println!("    found: {found}"),
            Some(_) => println!("    found by the test {test}"),
            None => {
                let survived = if *test == TEST { format!("{} seeds", args.seeds) } else { format!("the test {test}") };
                println!("    SURVIVED {survived}");
                survivors.push(mutant.name);
            }
        }
    }
    println!("{} of {} bugs were found", chosen.len() - survivors.len(), chosen.len());
    Ok(i32::from(!survivors.is_empty()))
}

/// Where the bugs are planted.
struct Place {
    tree: PathBuf,
    target: PathBuf,
}

impl Place {
    /// Copies the sources, and the compiled third-party crates.
    fn prepare() -> Result<Place, String> {
        let built = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
        let place = Place { tree: built.join("mutants/tree"), target: built.join("mutants/target") };
        for name in ["Cargo.lock", "Cargo.toml", "crates", "docker", "sql", "src", "stack", "tests"] {
            copy(&root().join(name), &place.tree.join(name))?;
        }
        if !place.target.exists() {
            for name in ["deps", "build", ".fingerprint"] {
                prefill(&built.join("debug").join(name), &place.target.join("debug").join(name))?;
            }
        }
        Ok(place)
    }

    /// Plants a bug for as long as `then` runs.
    fn with<T>(&self, mutant: &Mutant, then: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
        let mut before: Vec<(PathBuf, String)> = Vec::new();
        for (file, text, instead) in mutant.edits {
            let path = self.tree.join(file);
            let source = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            if source.matches(text).count() != 1 {
                return Err(format!("{}: {file} has not exactly one\n{text}", mutant.name));
            }
            fs::write(&path, source.replace(text, instead)).map_err(|e| format!("{}: {e}", path.display()))?;
            before.push((path, source));
        }
        let done = then().map_err(|error| format!("{}: {error}", mutant.name));
        // In reverse: two edits may be in one file. Not from the workspace, which someone may be
        // working on.
        for (path, source) in before.into_iter().rev() {
            fs::write(&path, source).map_err(|e| format!("{}: {e}", path.display()))?;
        }
        done
    }

    /// Builds and runs the simulation, or one of its directed tests. Returns what it found, if
    /// anything.
    fn simulate(&self, test: &str, seeds: u64) -> Result<Option<String>, String> {
        let binary = self.build()?;
        // Into a file: nobody reads while it runs, and a full pipe would block it.
        let said = self.target.join("simulation.log");
        let log = fs::File::create(&said).map_err(|e| format!("{}: {e}", said.display()))?;
        let mut run = Command::new(binary)
            .args([test, "--exact"])
            .env("SEEDS", seeds.to_string())
            .env_remove("SEED")
            .env("RUST_BACKTRACE", "0")
            .stdout(log)
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("the simulation does not start: {e}"))?;
        let began = Instant::now();
        let ended = loop {
            if let Some(status) = run.try_wait().map_err(|e| e.to_string())? {
                break status;
            }
            if began.elapsed() > PATIENCE {
                let _ = run.kill();
                return Ok(Some("it does not come to an end".into()));
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        let text = fs::read(&said).map_err(|e| format!("{}: {e}", said.display()))?;
        let text = String::from_utf8_lossy(&text);
        match (ended.success(), text.lines().find(|line| line.starts_with("SEED="))) {
            (true, _) if text.contains("1 passed") => Ok(None),
            (false, Some(found)) => Ok(Some(found.chars().take(200).collect())),
            // The program's own panics count, too.
            (false, None) if text.contains("panicked") => Ok(Some("a panic".into())),
            _ => Err(format!("the simulation did not run: {text}")),
        }
    }

    /// The simulation's test program.
    fn build(&self) -> Result<PathBuf, String> {
        let output = Command::new("cargo")
            .args([
                "test",
                "--package=sim",
                "--lib",
                "--no-run",
                "--locked",
                "--message-format=json-render-diagnostics",
            ])
            .current_dir(&self.tree)
            .env("CARGO_TARGET_DIR", &self.target)
            .output()
            .map_err(|e| format!("cargo does not start: {e}"))?;
        if !output.status.success() {
            return Err(format!("it does not compile:\n{}", String::from_utf8_lossy(&output.stderr)));
        }
        let lines = String::from_utf8_lossy(&output.stdout);
        let messages = lines.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let mut programs = messages
            .filter(|m| m["target"]["name"] == "sim")
            .filter_map(|m| m["executable"].as_str().map(PathBuf::from));
        programs.next().ok_or_else(|| "cargo named no test program of the simulation".into())
    }
}

/// Copies files that differ, so that unchanged ones keep their timestamps.
fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let said = |e: std::io::Error| format!("{}: {e}", to.display());
    if from.is_dir() {
        fs::create_dir_all(to).map_err(said)?;
        for entry in fs::read_dir(from).map_err(said)?.flatten() {
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    let source = fs::read(from).map_err(said)?;
    if fs::read(to).is_ok_and(|there| there == source) {
        return Ok(());
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(said)?;
    }
    fs::write(to, source).map_err(said)
}

/// Copies compiled files with their timestamps, except those of this workspace's own crates.
fn prefill(from: &Path, to: &Path) -> Result<(), String> {
    if !from.exists() {
        return Ok(());
    }
    fs::create_dir_all(to).map_err(|e| format!("{}: {e}", to.display()))?;
    let entries = fs::read_dir(from).map_err(|e| format!("{}: {e}", from.display()))?.flatten();
    let crates = fs::read_dir(root().join("crates")).map_err(|e| format!("crates: {e}"))?.flatten();
    let mut ours: Vec<String> = crates.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    ours.extend(["stack", "bench", "clickhouse-kinesis-bridge", "clickhouse_kinesis_bridge", "it-"].map(String::from));
    let own = |name: &str| ours.iter().any(|own| name.strip_prefix("lib").unwrap_or(name).starts_with(own.as_str()));
    let others: Vec<PathBuf> = entries.filter(|e| !own(&e.file_name().to_string_lossy())).map(|e| e.path()).collect();
    for some in others.chunks(200) {
        let status = Command::new("cp").args(["-a", "--reflink=auto"]).args(some).arg(to).status();
        if !status.is_ok_and(|s| s.success()) {
            return Err(format!("{} cannot be copied", from.display()));
        }
    }
    Ok(())
}
