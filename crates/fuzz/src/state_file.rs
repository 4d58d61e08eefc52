//! The state file: it is refused and left alone, or read.

use std::fs;
use std::path::{Path, PathBuf};

use adapters::state::FileStore;
use domain::lease::Lease;
use domain::ports::{StateError, StateStore, Versioned};
use domain::sequence::Checkpoint;
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::input::{Checked, JSON, fuzz};
use super::leases::WORDS;

/// The last time that the table can represent, 2299-12-31 23:59:59.999, Unix ms.
const LAST_MS: i64 = 10_413_791_999_999;

pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// A state directory, in memory if there is such a place: each write waits for the disk.
pub struct State(TempDir);

impl State {
    pub fn new() -> State {
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        State(dir.expect("a temporary directory"))
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("leases.json")
    }

    fn rows(&self, runtime: &Runtime) -> Result<Vec<Versioned<Lease>>, StateError> {
        runtime.block_on(FileStore::open(self.0.path())?.leases(None))
    }

    /// All leases, read from the file.
    pub fn read(&self, runtime: &Runtime) -> Result<Vec<Lease>, StateError> {
        Ok(self.rows(runtime)?.into_iter().map(|row| row.value).collect())
    }

    /// Adds these leases.
    pub fn write(&self, runtime: &Runtime, leases: &[Lease]) -> Result<(), StateError> {
        runtime.block_on(FileStore::open(self.0.path())?.create(leases))
    }

    /// Changes these rows.
    fn update(&self, runtime: &Runtime, rows: &[Versioned<Lease>]) -> Result<(), StateError> {
        runtime.block_on(FileStore::open(self.0.path())?.update(rows))
    }
}

/// The same with the nearest times that the table can represent.
pub fn representable(lease: Lease) -> Lease {
    let mut near = lease;
    let times = [
        &mut near.identity.created_ms,
        &mut near.last_commit_ms,
        &mut near.since_ms,
        &mut near.caught_up_ms,
        &mut near.arrived_ms,
        &mut near.updated_ms,
    ];
    times.into_iter().for_each(|ms| *ms = (*ms).clamp(0, LAST_MS));
    near
}

/// As it is, and with a first line that vouches for the others.
fn check(runtime: &Runtime, input: &[u8]) -> Checked {
    let rows = input.iter().position(|byte| *byte == b'\n').map_or(&b""[..], |end| &input[end + 1..]);
    let lines = String::from_utf8_lossy(rows).lines().count();
    let end: &[u8] = if rows.is_empty() || rows.ends_with(b"\n") { b"" } else { b"\n" };
    let vouched = format!("{{\"format\":1,\"rows\":{lines},\"crc32\":\"\"}}\n");
    opened(runtime, input)?;
    opened(runtime, &[vouched.as_bytes(), rows, end].concat())
}

fn opened(runtime: &Runtime, text: &[u8]) -> Checked {
    let state = State::new();
    fs::write(state.file(), text).expect("the file");
    let before = state.rows(runtime);
    prop_assert_eq!(fs::read(state.file()).expect("the file"), text, "left alone");
    let before = match before {
        Err(StateError::Misconfigured(why)) => {
            let file = state.file().display().to_string();
            prop_assert!(why.contains(&file) && why.contains("backup"), "{}", why);
            return Ok(());
        }
        Err(other) => return Err(TestCaseError::fail(format!("{other:?}"))),
        Ok(before) => before,
    };
    let lines = String::from_utf8_lossy(text).lines().count();
    prop_assert_eq!(before.len() + 1, lines, "a row is missing");
    let again = state.rows(runtime);
    prop_assert_eq!(again.as_ref(), Ok(&before), "read once more");
    // All that was read is there after a write, and so is what was written.
    let taken = before.iter().map(|row| Versioned { version: row.version, value: row.value.take(&"me".into(), 1) });
    let taken: Vec<_> = taken.collect();
    if let Err(error) = state.update(runtime, &taken) {
        return Err(TestCaseError::fail(format!("{error:?}")));
    }
    let new = Lease::new(&"a new pipe".into(), &"orders".into(), &"shard".into(), vec![], Checkpoint::TrimHorizon, 1);
    let created = state.write(runtime, std::slice::from_ref(&new));
    let mut expected: Vec<Lease> = taken.into_iter().map(|row| row.value).collect();
    match created {
        Ok(()) => expected.push(new),
        Err(StateError::Conflict(_)) => {}
        Err(other) => return Err(TestCaseError::fail(format!("{other:?}"))),
    }
    expected.sort_by_key(Lease::key);
    let mut after = state.rows(runtime).expect("what was written");
    after.sort_by_key(|row| row.value.key());
    for row in &after {
        let old = before.iter().find(|old| old.value.key() == row.value.key());
        prop_assert!(old.is_none_or(|old| old.version != row.version), "a change that cannot be seen");
    }
    let after: Vec<Lease> = after.into_iter().map(|row| row.value).collect();
    prop_assert_eq!(after, expected.into_iter().map(representable).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn any_file_is_read_or_left_alone() {
    let runtime = runtime();
    fuzz("state_file", &[JSON, WORDS].concat(), 10_000, |input| check(&runtime, input));
}
