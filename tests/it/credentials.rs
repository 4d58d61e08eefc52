//! Credentials that change while a bridge runs: keys that are replaced, files that appear later.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use stack::Bridge;
use tempfile::TempDir;

use crate::proxy::{Fault, Proxy};
use crate::world::{
    bridge_in, create_pipe, create_stream, drop_pipe, message, now_ms, put_numbered, refresh_exception, sql, stack,
    wait_until,
};

/// A bridge without credentials of its own.
pub const NO_KEYS: [(&str, &str); 5] = [
    ("AWS_ACCESS_KEY_ID", ""),
    ("AWS_SECRET_ACCESS_KEY", ""),
    ("AWS_SESSION_TOKEN", ""),
    ("AWS_EC2_METADATA_DISABLED", "true"),
    ("HOME", "/nowhere"),
];

/// A Kinesis that accepts one access key, and refuses the others with an error.
struct Keys {
    proxy: Proxy,
    door: Arc<Mutex<Door>>,
}

#[derive(Default)]
struct Door {
    opens: String,
    refusal: &'static str,
    refused: usize,
    passed: usize,
}

impl Keys {
    fn new() -> Keys {
        let door = Arc::<Mutex<Door>>::default();
        let asked = door.clone();
        let proxy = Proxy::start(&stack().kinesis.endpoint(), move |call| {
            let mut door = asked.lock().expect("the door");
            if call.key() == door.opens {
                door.passed += 1;
                return Fault::None;
            }
            door.refused += 1;
            Fault::Aws(400, door.refusal)
        });
        proxy.speak_cbor();
        Keys { proxy, door }
    }

    /// From now on this key is accepted, and no other.
    fn change(&self, key: &str, refusal: &'static str) {
        let mut door = self.door.lock().expect("the door");
        (door.opens, door.refusal) = (key.into(), refusal);
    }

    fn refused(&self) -> usize {
        self.door.lock().expect("the door").refused
    }

    fn passed(&self) -> usize {
        self.door.lock().expect("the door").passed
    }

    /// Waits for more calls, all with the right key.
    fn all_is_quiet(&self) {
        let (refused, passed) = (self.refused(), self.passed());
        wait_until("calls with the new key", || self.passed() >= passed + 10);
        assert_eq!(self.refused(), refused);
    }
}

/// A folder for credentials, and the path of the file in it, which is not there yet.
fn file() -> (TempDir, PathBuf) {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("credentials");
    (folder, path)
}

fn write(path: &Path, key: &str) {
    let text = format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = secret\n");
    // At once, as whoever rotates keys should do it.
    let new = path.with_extension("new");
    fs::write(&new, text).expect("a file");
    fs::rename(new, path).expect("in its place");
}

fn with_file(keys: &Keys, name: &str, path: &Path) -> Bridge {
    let (path, endpoint) = (path.display().to_string(), keys.proxy.endpoint());
    let mut environment = NO_KEYS.to_vec();
    environment.extend([("AWS_SHARED_CREDENTIALS_FILE", &*path), ("AWS_ENDPOINT_URL", &endpoint)]);
    bridge_in(name, &[], &environment)
}

fn rows(name: &str) -> usize {
    sql(&format!("SELECT count() FROM {name}")).trim().parse().expect("a count")
}

#[test]
fn keys_that_are_replaced_are_read_again() {
    create_stream("keys-replaced", 2);
    let (keys, (_folder, path)) = (Keys::new(), file());
    keys.change("AKIAFIRST", "UnrecognizedClientException");
    write(&path, "AKIAFIRST");
    let bridge = with_file(&keys, "keys_replaced", &path);
    create_pipe(&bridge, "keys_replaced", "stream=keys-replaced&view=default.keys_replaced_view");
    let mut all = 0;
    let refusals = ["UnrecognizedClientException", "ExpiredTokenException", "InvalidSignatureException"];
    for (n, refusal) in refusals.into_iter().enumerate() {
        put_numbered("keys-replaced", refusal, 3);
        all += 3;
        wait_until("the rows", || rows("keys_replaced") == all);
        keys.all_is_quiet();
        // The old key is taken away first: nothing that is read until then helps.
        let (key, refused) = (format!("AKIANEXT{n}"), keys.refused());
        keys.change(&key, refusal);
        wait_until("refusals", || keys.refused() > refused + 3);
        write(&path, &key);
    }
    put_numbered("keys-replaced", "last", 3);
    wait_until("the last rows", || rows("keys_replaced") == all + 3);
    keys.all_is_quiet();
    wait_until("the log", || bridge.log().matches("new AWS credentials are in use").count() == 3);
    drop_pipe("keys_replaced");
}

#[test]
fn keys_that_come_after_the_start_are_found() {
    create_stream("keys-later", 1);
    put_numbered("keys-later", "a", 3);
    let (keys, (_folder, path)) = (Keys::new(), file());
    keys.change("AKIALATER", "UnrecognizedClientException");
    let bridge = with_file(&keys, "keys_later", &path);
    create_pipe(&bridge, "keys_later", "stream=keys-later&view=default.keys_later_view");
    let told = || message(&refresh_exception("keys_later_view")).to_owned();
    wait_until("the sentence", || told().starts_with("there are no AWS credentials for stream 'keys-later'"));
    assert_eq!((keys.refused(), keys.passed()), (0, 0));
    write(&path, "AKIALATER");
    wait_until("the rows", || rows("keys_later") == 3);
    drop_pipe("keys_later");
}

/// Each renewal runs the command once: many shards that are refused do not run it more often.
#[test]
fn credentials_are_renewed_one_at_a_time_and_not_too_often() {
    create_stream("keys-refused", 8);
    let (keys, (folder, path)) = (Keys::new(), file());
    keys.change("AKIAGOOD", "ExpiredTokenException");
    let (command, runs) = (folder.path().join("command"), folder.path().join("runs"));
    let answer = |key: &str| format!("{{\"Version\": 1, \"AccessKeyId\": \"{key}\", \"SecretAccessKey\": \"secret\"}}");
    let script = |key: &str| {
        let text = format!("echo run >> '{}'\necho '{}'\n", runs.display(), answer(key));
        fs::write(&command, text).expect("a script");
    };
    script("AKIAGOOD");
    fs::write(&path, format!("[default]\ncredential_process = sh '{}'\n", command.display())).expect("a profile");
    let began = Instant::now();
    let bridge = with_file(&keys, "keys_refused", &path);
    create_pipe(&bridge, "keys_refused", "stream=keys-refused&view=default.keys_refused_view");
    put_numbered("keys-refused", "a", 20);
    wait_until("the rows", || rows("keys_refused") == 20);
    let count = || fs::read_to_string(&runs).unwrap_or_default().lines().count();
    assert_eq!(count(), 1);
    keys.change("AKIANEW", "ExpiredTokenException");
    wait_until("refusals", || keys.refused() > 60 && count() > 2);
    // Three seconds between two of them.
    let most = 2 + began.elapsed().as_secs() as usize / 3;
    assert!(count() <= most, "{} runs, at most {most} are due", count());
    script("AKIANEW");
    put_numbered("keys-refused", "b", 20);
    wait_until("the new rows", || rows("keys_refused") == 40);
    keys.all_is_quiet();
    drop_pipe("keys_refused");
}

/// A Kinesis whose clock is an hour ahead, and that refuses what was signed at another time.
#[test]
fn a_clock_that_is_wrong_is_learned_once() {
    create_stream("keys-clock", 2);
    let refused = Arc::<Mutex<usize>>::default();
    let counted = refused.clone();
    let proxy = Proxy::start(&stack().kinesis.endpoint(), move |call| {
        let theirs = now_ms() / 1_000 + 3_600;
        match (call.signed_at() - theirs).abs() < 300 {
            true => Fault::None,
            false => {
                *counted.lock().expect("a count") += 1;
                Fault::Aws(400, "InvalidSignatureException")
            }
        }
    });
    proxy.speak_cbor();
    proxy.date(Some(3_600));
    let bridge = bridge_in("keys_clock", &[], &[("AWS_ENDPOINT_URL", &*proxy.endpoint())]);
    create_pipe(&bridge, "keys_clock", "stream=keys-clock&view=default.keys_clock_view");
    put_numbered("keys-clock", "a", 10);
    wait_until("the rows", || rows("keys_clock") == 10);
    let (before, calls) = (*refused.lock().expect("a count"), || proxy.calls("GetRecords in CBOR"));
    let so_far = calls();
    wait_until("calls", || calls() > so_far + 10);
    assert_eq!(*refused.lock().expect("a count"), before, "{}", bridge.log());
    drop_pipe("keys_clock");
}
