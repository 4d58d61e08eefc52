//! A directory for one bridge without Keeper.
//!
//! `leases.json` has a header followed by one row per line, and is replaced as a whole: a new file
//! is written, synced and renamed over it, and the directory synced, so a crash leaves either the
//! old rows or the new ones. An incomplete file is refused and left alone: a missing row would be a
//! shard that starts over. `lock` is held while the process lives; its contents record that there
//! has been a file, so that a lost file is not mistaken for a fresh start. Workers are not written:
//! the only worker is this process, and its heartbeat must not cost a disk sync.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::columns::LeaseRow;
use domain::lease::Lease;
use domain::limits::STATE_FILE_FORMAT;
use domain::names::PipeName;
use domain::ports::{StateError, StateStore, Versioned, Worker};
use domain::rows::Rows;

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
    /// Held during a whole change, so that readers never wait for the disk.
    writing: Mutex<()>,
    /// Held, not read: the operating system releases the lock when it is closed.
    _lock: File,
}

/// The first line of `leases.json`.
#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    /// How many lines follow.
    rows: usize,
    /// CRC-32 of everything that follows, in hexadecimal digits; empty if whoever edited the file
    /// vouches for it.
    crc32: String,
}

/// The contents of `lock` once there is a file of leases.
const MARK: &str = "leases.json is there\n";

/// A line of `leases.json`.
#[derive(Serialize, Deserialize)]
struct Line {
    version: i32,
    #[serde(flatten)]
    row: LeaseRow,
}

impl FileStore {
    /// Opens the directory, creating it if missing. `Misconfigured` if another process uses it, or
    /// a row cannot be parsed.
    pub fn open(dir: &Path) -> Result<FileStore, StateError> {
        create_durably(dir).map_err(|e| unavailable("create", dir, &e))?;
        let path = dir.join(LOCK);
        let lock = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(|e| unavailable("open", &path, &e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StateError::Misconfigured(format!(
                    "the state directory '{}' is in use by another bridge: stop that one, or give each its own --state file:DIR \
                     (bridges can share pipes only with --state keeper-map)",
                    dir.display()
                )));
            }
            Err(TryLockError::Error(e)) => return Err(unavailable("lock", &path, &e)),
        }
        let marked = fs::read_to_string(&path).map_err(|e| unavailable("read", &path, &e))? == MARK;
        let rows = match load(&dir.join(LEASES))? {
            Some(rows) => rows,
            None if marked => return Err(lost(dir)),
            None => {
                let rows = Rows::default();
                write(dir, &rows)?.map_err(|e| unavailable("sync", dir, &e))?;
                rows
            }
        };
        if !marked {
            mark(&lock).map_err(|e| unavailable("write", &path, &e))?;
        }
        Ok(FileStore {
            inner: Arc::new(Inner { dir: dir.into(), rows: Mutex::new(rows), writing: Mutex::default(), _lock: lock }),
        })
    }

    /// Applies a change to a copy, makes the copy durable, and only then publishes it. Runs on a
    /// thread that may block on the disk; completes even if the caller goes away.
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
        done.await.map_err(|e| StateError::Unavailable(format!("the state could not be written: {e}")))?
    }
}

impl Inner {
    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts the file in place. Outer error: nothing has changed. Inner error: the new file is there,
/// but a power failure might still bring back the old one.
fn write(dir: &Path, rows: &Rows) -> Result<io::Result<()>, StateError> {
    let new = dir.join(LEASES_NEW);
    let text = text(rows).map_err(|e| unavailable("write", &new, &e))?;
    let written = File::create(&new).and_then(|mut file| {
        file.write_all(&text)?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&new, dir.join(LEASES))).map_err(|e| unavailable("write", &new, &e))?;
    Ok(File::open(dir).and_then(|dir| dir.sync_all()))
}

/// The whole file: the header and one line per row.
fn text(rows: &Rows) -> io::Result<Vec<u8>> {
    let mut lines = Vec::new();
    for row in rows.leases.values() {
        let line = Line { version: row.version, row: LeaseRow::from(&row.value) };
        serde_json::to_writer(&mut lines, &line)?;
        lines.push(b'\n');
    }
    let crc32 = format!("{:08x}", crc32fast::hash(&lines));
    let mut text = serde_json::to_vec(&Header { format: STATE_FILE_FORMAT, rows: rows.leases.len(), crc32 })?;
    text.push(b'\n');
    text.append(&mut lines);
    Ok(text)
}

/// Creates the directory and its parents so that they survive a power failure.
fn create_durably(dir: &Path) -> io::Result<()> {
    let dir = &std::path::absolute(dir)?;
    let there = dir.ancestors().find(|above| above.exists()).unwrap_or(dir).to_path_buf();
    fs::create_dir_all(dir)?;
    for above in dir.ancestors().take_while(|above| above.starts_with(&there)) {
        File::open(above)?.sync_all()?;
    }
    Ok(())
}

/// Records in the lock file that there is a file of leases.
fn mark(mut lock: &File) -> io::Result<()> {
    lock.write_all(MARK.as_bytes())?;
    lock.sync_all()
}

/// The rows of the file; `None` if there is no file.
fn load(path: &Path) -> Result<Option<Rows>, StateError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => return Err(corrupt(path, 1, &e.to_string())),
        Err(e) => return Err(unavailable("read", path, &e)),
    };
    let (first, lines) = text.split_once('\n').unwrap_or((&text, ""));
    let header: Header = serde_json::from_str(first).map_err(|e| {
        let problem = format!(
            "{e}: the first line must be {{\"format\":{STATE_FILE_FORMAT},\"rows\":<number of rows that follow>,\"crc32\":\"<their checksum>\"}}"
        );
        corrupt(path, 1, &problem)
    })?;
    if header.format != STATE_FILE_FORMAT {
        return Err(corrupt(
            path,
            1,
            &format!("its format is {}, but this bridge knows only {STATE_FILE_FORMAT}", header.format),
        ));
    }
    let (count, crc32) = (lines.lines().count(), format!("{:08x}", crc32fast::hash(lines.as_bytes())));
    if count != header.rows || !lines.is_empty() && !lines.ends_with('\n') {
        return Err(corrupt(
            path,
            count + 1,
            &format!("{count} rows follow the first line, which says {}", header.rows),
        ));
    }
    if !header.crc32.is_empty() && header.crc32 != crc32 {
        return Err(corrupt(
            path,
            1,
            &format!("the checksum of the rows is {crc32}, but the first line says {}", header.crc32),
        ));
    }
    let mut rows = Rows::default();
    for (number, line) in (2..).zip(lines.lines()) {
        let line: Line = serde_json::from_str(line).map_err(|e| corrupt(path, number, &e.to_string()))?;
        let key = line.row.key.clone();
        let lease = line
            .row
            .into_lease()
            .map_err(|bad| corrupt(path, number, &format!("lease '{key}', {}: {}", bad.column, bad.problem)))?;
        if rows.leases.insert(key.clone(), Versioned { version: line.version, value: lease }).is_some() {
            return Err(corrupt(path, number, &format!("the lease '{key}' appears twice")));
        }
    }
    Ok(Some(rows))
}

fn corrupt(path: &Path, line: usize, problem: &str) -> StateError {
    StateError::Misconfigured(format!(
        "the state file '{}' is damaged, see line {line} ({problem}); it was left untouched: restore it from a backup; or, if you edited it on \
         purpose, write the number of rows and \"crc32\":\"\" into its first line; or move the whole directory away, and every pipe starts over",
        path.display()
    ))
}

fn lost(dir: &Path) -> StateError {
    StateError::Misconfigured(format!(
        "the state directory '{}' has been used before, but its file {LEASES} is missing: restore it from a backup, or move the whole \
         directory away, and every pipe starts over",
        dir.display()
    ))
}

fn unavailable(what: &str, path: &Path, error: &io::Error) -> StateError {
    StateError::Unavailable(format!("cannot {what} '{}': {error}", path.display()))
}

#[async_trait]
impl StateStore for FileStore {
    async fn leases(&self, pipe: Option<&PipeName>) -> Result<Vec<Versioned<Lease>>, StateError> {
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
    use domain::sequence::Checkpoint;

    fn lease(shard: &str) -> Lease {
        Lease::new(&"orders".into(), &"orders".into(), &shard.into(), vec![], Checkpoint::TrimHorizon, 0)
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
        let taken = Versioned { version: 0, value: lease("shard-1").take(&"it's \\ me\n".into(), 1) };
        store.update(&[taken]).await.expect("the version is right");
        store.leases(None).await.expect("leases")
    }

    #[tokio::test]
    async fn rows_survive_the_process() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let dir = parent.path().join("a/b");
        let rows = one_update(&dir).await;
        assert_eq!(rows.iter().map(|row| row.version).collect::<Vec<_>>(), [0, 1]);
        // Whatever a crash in the middle of a write leaves behind is ignored.
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
            let failed = store.update(&[Versioned { version: 0, value: lease("shard-0").take(&"a".into(), 0) }]).await;
            assert!(matches!(&failed, Err(StateError::Unavailable(said)) if said.contains(why)), "{failed:?}");
            assert_eq!(store.leases(None).await.as_ref(), Ok(&rows));
        };
        std::os::unix::fs::symlink("/dev/full", &new).expect("a link");
        fails("No space left").await;
        fs::remove_file(&new).expect("the link");
        fs::create_dir(&new).expect("a directory");
        fails("Is a directory").await;
        fs::remove_dir(&new).expect("the directory");
        store
            .update(&[Versioned { version: 0, value: lease("shard-0").take(&"a".into(), 0) }])
            .await
            .expect("a healthy disk");
        drop(store);
        let store = FileStore::open(dir.path()).expect("the same directory");
        assert_eq!(store.leases(None).await.expect("leases")[0].version, 1);
    }

    /// Opening fails with a message, and leaves the file unchanged.
    fn refused(dir: &Path, text: &[u8]) -> String {
        let path = dir.join(LEASES);
        fs::write(&path, text).expect("the file");
        let why = misconfigured(FileStore::open(dir));
        assert!(why.contains(&path.display().to_string()) && why.contains("backup"), "{why}");
        assert_eq!(fs::read(&path).expect("the file"), text, "left alone");
        why
    }

    #[tokio::test]
    async fn a_file_that_is_not_whole_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        one_update(dir.path()).await;
        let good = fs::read(dir.path().join(LEASES)).expect("the file");
        for cut in 0..good.len() {
            refused(dir.path(), &good[..cut]);
        }
        let lines: Vec<&[u8]> = good.split_inclusive(|byte| *byte == b'\n').collect();
        assert_eq!(lines.len(), 3);
        for at in 0..lines.len() {
            let (mut missing, mut doubled) = (lines.clone(), lines.clone());
            missing.remove(at);
            doubled.insert(at, lines[at]);
            refused(dir.path(), &missing.concat());
            refused(dir.path(), &doubled.concat());
        }
        for at in 0..good.len() {
            let mut changed = good.clone();
            changed[at] ^= 1;
            refused(dir.path(), &changed);
        }
        refused(dir.path(), &[&good[..], b"\n"].concat());
        refused(dir.path(), b"\xff\xfe");
        fs::write(dir.path().join(LEASES), &good).expect("the file");
        FileStore::open(dir.path()).expect("whole again");
        fs::remove_file(dir.path().join(LEASES)).expect("the file");
        let why = misconfigured(FileStore::open(dir.path()));
        assert!(why.contains("leases.json is missing") && why.contains("backup"), "{why}");
    }

    #[tokio::test]
    async fn who_edits_the_file_vouches_for_it() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        one_update(dir.path()).await;
        let path = dir.path().join(LEASES);
        let good = fs::read_to_string(&path).expect("the file");
        let edited = good.replacen("TRIM_HORIZON", "42", 1);
        let why = refused(dir.path(), edited.as_bytes());
        assert!(why.contains("checksum") && why.contains("\"crc32\":\"\""), "{why}");
        let (_, rows) = edited.split_once('\n').expect("a header");
        let vouched = |count: usize, rows: &str| format!("{{\"format\":1,\"rows\":{count},\"crc32\":\"\"}}\n{rows}");
        assert!(refused(dir.path(), vouched(3, rows).as_bytes()).contains("2 rows follow"));
        let first = rows.lines().next().expect("a row");
        let twice = refused(dir.path(), vouched(2, &format!("{first}\n{first}\n")).as_bytes());
        assert!(twice.contains("appears twice"), "{twice}");
        let nonsense = refused(dir.path(), vouched(2, &rows.replacen("42", "newest", 1)).as_bytes());
        assert!(nonsense.contains("line 2") && nonsense.contains("sequence_number"), "{nonsense}");
        fs::write(&path, vouched(2, rows)).expect("the file");
        let store = FileStore::open(dir.path()).expect("vouched for");
        assert_eq!(store.leases(None).await.expect("leases")[0].value.checkpoint.sequence_text(), "42");
    }

    /// What a crash leaves after each step, and in the middle of it.
    #[tokio::test]
    async fn a_crash_leaves_the_old_rows_or_the_new_ones() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (path, new) = (dir.path().join(LEASES), dir.path().join(LEASES_NEW));
        let opened = async || FileStore::open(dir.path()).expect("a state").leases(None).await.expect("leases");
        // On the first start: only the lock, the lock with part of the file next to it, and before
        // the lock records that there is a file.
        fs::write(dir.path().join(LOCK), "").expect("the lock");
        assert_eq!(opened().await, []);
        fs::write(dir.path().join(LOCK), "").expect("the lock");
        fs::remove_file(&path).expect("the file");
        fs::write(&new, "{\"form").expect("a part");
        assert_eq!(opened().await, []);
        fs::write(dir.path().join(LOCK), "").expect("the lock");
        assert_eq!(opened().await, []);
        // On every later write.
        let after = one_update(dir.path()).await;
        let newer = fs::read(&path).expect("the file");
        let mut before = Rows::default();
        before.create(&[lease("shard-0"), lease("shard-1")]).expect("new rows");
        let older = text(&before).expect("text");
        for written in 0..=newer.len() {
            fs::write(&path, &older).expect("the file");
            fs::write(&new, &newer[..written]).expect("a part");
            assert_eq!(opened().await, before.leases(None), "{written} bytes beside it");
        }
        fs::rename(&new, &path).expect("renamed");
        assert_eq!(opened().await, after);
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
