//! A directory for one bridge without Keeper.
//!
//! `leases.json` holds one row a line and is replaced as a whole: written beside, synced, renamed, and the directory synced, so a
//! crash leaves the old rows or the new ones. `lock` is held while the process lives. Workers are not written: the only worker is
//! this process, and its heartbeat must not cost a disk sync.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::columns::LeaseRow;
use super::rows::Rows;
use crate::domain::lease::Lease;
use crate::ports::{StateError, StateStore, Versioned, Worker};

const LEASES: &str = "leases.json";
const LEASES_NEW: &str = "leases.json.new";
const LOCK: &str = "lock";

/// Rows in a directory.
#[derive(Clone, Debug)]
pub struct FileStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    rows: Mutex<Rows>,
    /// Held through a whole change, so that reading never waits for the disk.
    writing: Mutex<()>,
    /// Held, not read: the operating system frees the lock with it.
    _lock: File,
}

/// A line of `leases.json`.
#[derive(Serialize, Deserialize)]
struct Line {
    version: i32,
    #[serde(flatten)]
    row: LeaseRow,
}

impl FileStore {
    /// Opens the directory, which is made when it is not there. `Misconfigured` when another process has it, or a row is not understood.
    pub fn open(dir: &Path) -> Result<FileStore, StateError> {
        fs::create_dir_all(dir).map_err(|e| unavailable("create", dir, &e))?;
        let path = dir.join(LOCK);
        let lock = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(|e| unavailable("open", &path, &e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StateError::Misconfigured(format!(
                    "the state directory '{}' is in use by another bridge: stop that one, or give each its own --state file:DIR \
                     (several bridges share their work with --state keeper-map only)",
                    dir.display()
                )));
            }
            Err(TryLockError::Error(e)) => return Err(unavailable("lock", &path, &e)),
        }
        let rows = load(&dir.join(LEASES))?;
        Ok(FileStore {
            inner: Arc::new(Inner { dir: dir.into(), rows: Mutex::new(rows), writing: Mutex::default(), _lock: lock }),
        })
    }

    /// Applies a change to a copy, makes the copy durable, and only then shows it. On a thread where waiting for a disk is fine; it goes
    /// on to its end when the caller goes away.
    async fn change(
        &self,
        change: impl FnOnce(&mut Rows) -> Result<(), StateError> + Send + 'static,
    ) -> Result<(), StateError> {
        let inner = Arc::clone(&self.inner);
        let done = tokio::task::spawn_blocking(move || {
            let _one_at_a_time = inner.writing.lock().unwrap_or_else(PoisonError::into_inner);
            let mut next = inner.rows().clone();
            change(&mut next)?;
            let renamed = write(&inner.dir, &next)?;
            inner.rows().leases = next.leases;
            renamed.map_err(|e| unavailable("sync", &inner.dir, &e))
        });
        done.await.map_err(|e| StateError::Unavailable(format!("the state was not written: {e}")))?
    }
}

impl Inner {
    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts the file in place. The outer error: nothing has changed. The inner one: the new file is there, and a loss of power might
/// still bring the old one back.
fn write(dir: &Path, rows: &Rows) -> Result<io::Result<()>, StateError> {
    let new = dir.join(LEASES_NEW);
    let mut text = Vec::new();
    for row in rows.leases.values() {
        let line = Line { version: row.version, row: LeaseRow::from(&row.value) };
        serde_json::to_writer(&mut text, &line).map_err(|e| unavailable("write", &new, &e.into()))?;
        text.push(b'\n');
    }
    let written = File::create(&new).and_then(|mut file| {
        file.write_all(&text)?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&new, dir.join(LEASES))).map_err(|e| unavailable("write", &new, &e))?;
    Ok(File::open(dir).and_then(|dir| dir.sync_all()))
}

fn load(path: &Path) -> Result<Rows, StateError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Rows::default()),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => return Err(corrupt(path, 1, &e.to_string())),
        Err(e) => return Err(unavailable("read", path, &e)),
    };
    let mut rows = Rows::default();
    for (number, line) in (1..).zip(text.lines()) {
        let line: Line = serde_json::from_str(line).map_err(|e| corrupt(path, number, &e.to_string()))?;
        let key = line.row.key.clone();
        let lease = line
            .row
            .into_lease()
            .map_err(|bad| corrupt(path, number, &format!("lease '{key}', {}: {}", bad.column, bad.problem)))?;
        rows.leases.insert(key, Versioned { version: line.version, value: lease });
    }
    Ok(rows)
}

fn corrupt(path: &Path, line: usize, problem: &str) -> StateError {
    StateError::Misconfigured(format!(
        "the state file '{}' is not understood at line {line} ({problem}): correct the line, or move the file away to start anew",
        path.display()
    ))
}

fn unavailable(what: &str, path: &Path, error: &io::Error) -> StateError {
    StateError::Unavailable(format!("cannot {what} '{}': {error}", path.display()))
}

#[async_trait]
impl StateStore for FileStore {
    async fn leases(&self, pipe: Option<&str>) -> Result<Vec<Versioned<Lease>>, StateError> {
        Ok(self.inner.rows().leases(pipe))
    }

    async fn create(&self, leases: &[Lease]) -> Result<(), StateError> {
        let leases = leases.to_vec();
        self.change(move |rows| rows.create(&leases)).await
    }

    async fn update(&self, leases: &[Versioned<Lease>]) -> Result<(), StateError> {
        let leases = leases.to_vec();
        self.change(move |rows| rows.update(&leases)).await
    }

    async fn delete(&self, leases: &[Versioned<Lease>]) -> Result<(), StateError> {
        let leases = leases.to_vec();
        self.change(move |rows| rows.delete(&leases)).await
    }

    async fn workers(&self) -> Result<Vec<Worker>, StateError> {
        Ok(self.inner.rows().workers.values().cloned().collect())
    }

    async fn heartbeat(&self, worker: &Worker) -> Result<(), StateError> {
        self.inner.rows().workers.insert(worker.worker_id.clone(), worker.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::sequence::Checkpoint;

    fn lease(shard: &str) -> Lease {
        Lease::new("orders", "orders", shard, vec![], Checkpoint::TrimHorizon, 0)
    }

    fn misconfigured(result: Result<FileStore, StateError>) -> String {
        match result {
            Err(StateError::Misconfigured(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    async fn one_update(dir: &Path) -> Vec<Versioned<Lease>> {
        let store = FileStore::open(dir).expect("a new directory");
        store.create(&[lease("shard-0"), lease("shard-1")]).await.expect("new rows");
        let taken = Versioned { version: 0, value: lease("shard-1").take("it's \\ me\n", 1) };
        store.update(&[taken]).await.expect("the version is right");
        store.leases(None).await.expect("leases")
    }

    #[tokio::test]
    async fn rows_survive_the_process() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let dir = parent.path().join("a/b");
        let rows = one_update(&dir).await;
        assert_eq!(rows.iter().map(|row| row.version).collect::<Vec<_>>(), [0, 1]);
        // What a crash in the middle of a write leaves is of no interest.
        fs::write(dir.join(LEASES_NEW), "{\"half").expect("a file");
        let store = FileStore::open(&dir).expect("the same directory");
        assert_eq!(store.leases(None).await, Ok(rows));
        store.create(&[lease("shard-2")]).await.expect("a new row");
    }

    #[tokio::test]
    async fn a_second_bridge_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let first = FileStore::open(dir.path()).expect("a new directory");
        let why = misconfigured(FileStore::open(dir.path()));
        assert!(why.contains(&dir.path().display().to_string()) && why.contains("another bridge"), "{why}");
        drop(first);
        FileStore::open(dir.path()).expect("free again");
    }

    #[tokio::test]
    async fn a_failing_disk_leaves_the_rows_as_they_are() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let rows = one_update(dir.path()).await;
        let store = FileStore::open(dir.path()).expect("the same directory");
        let new = dir.path().join(LEASES_NEW);
        let fails = async |why: &str| {
            let failed = store.update(&[Versioned { version: 0, value: lease("shard-0").take("a", 0) }]).await;
            assert!(matches!(&failed, Err(StateError::Unavailable(said)) if said.contains(why)), "{failed:?}");
            assert_eq!(store.leases(None).await.as_ref(), Ok(&rows));
        };
        std::os::unix::fs::symlink("/dev/full", &new).expect("a link");
        fails("No space left").await;
        fs::remove_file(&new).expect("the link");
        fs::create_dir(&new).expect("a directory");
        fails("Is a directory").await;
        fs::remove_dir(&new).expect("the directory");
        store.update(&[Versioned { version: 0, value: lease("shard-0").take("a", 0) }]).await.expect("a healthy disk");
        drop(store);
        let store = FileStore::open(dir.path()).expect("the same directory");
        assert_eq!(store.leases(None).await.expect("leases")[0].version, 1);
    }

    #[tokio::test]
    async fn a_file_that_is_not_understood_is_named() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        one_update(dir.path()).await;
        let path = dir.path().join(LEASES);
        let good = fs::read_to_string(&path).expect("the file");
        let edited = good.replacen("TRIM_HORIZON", "newest", 1);
        for (text, word) in [(&good[..good.len() / 3], "line 1"), (&edited, "sequence_number"), ("\u{0}", "line 1")] {
            fs::write(&path, text).expect("the file");
            let why = misconfigured(FileStore::open(dir.path()));
            assert!(why.contains(LEASES) && why.contains(word), "{why}");
        }
        fs::write(&path, b"\xff\xfe").expect("the file");
        assert!(misconfigured(FileStore::open(dir.path())).contains(LEASES));
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("file");
        fs::write(&file, "").expect("a file");
        let failed = FileStore::open(&file.join("state"));
        assert!(matches!(&failed, Err(StateError::Unavailable(why)) if why.contains("file/state")), "{failed:?}");
    }
}
