use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use stack::{Launch, Service};

#[test]
fn a_service_tells_its_exit_code_and_log() {
    let dir = crate::folder();
    let service = sh(dir.path(), "trap 'echo bye; exit 7' TERM; echo hello; while :; do sleep 0.01; done");
    service.wait_until("hello", Duration::from_secs(10), || service.log().contains("hello")).expect("its output");
    assert_eq!(service.stop(), Ok(7));
    assert_eq!(service.log(), "hello\nbye\n");
    assert!(service.stop().expect_err("it has ended").contains("not running"));
}

#[test]
fn a_process_that_ends_early_is_an_error_with_its_log() {
    let dir = crate::folder();
    let service = sh(dir.path(), "echo no such option >&2; exit 3");
    let error = service.wait_until("a sign", Duration::from_secs(10), || false).expect_err("it ended");
    assert!(error.contains("ended while a sign was awaited"), "{error}");
    assert!(error.contains("no such option"), "{error}");
}

#[test]
fn a_program_that_is_missing_is_named() {
    let dir = crate::folder();
    let launch = Launch::new("/no/such/program", [""; 0], dir.path().join("log"));
    let error = Service::start("it", launch).expect_err("it is missing");
    assert!(error.contains("/no/such/program"), "{error}");
}

#[test]
fn a_frozen_process_goes_on_or_is_killed() {
    let dir = crate::folder();
    let service = sh(dir.path(), "sleep 1000 & wait");
    service.sigstop();
    let state = || process_state(service.pid());
    wait_for(|| state() == Some('T'));
    service.sigcont();
    wait_for(|| state() == Some('S'));
    service.sigstop();
    let pid = service.pid();
    service.kill();
    assert_eq!(process_state(pid), None);
}

/// The parent is `stack up`, a real user of the library: it starts every component, and then gets
/// SIGKILL.
#[test]
fn children_end_when_their_parent_is_killed() {
    let dir = crate::folder();
    let mut parent = Command::new(env!("CARGO_BIN_EXE_stack"))
        .arg("up")
        .env("TMPDIR", dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("stack up");
    let stdout = BufReader::new(parent.stdout.take().expect("a pipe"));
    let up = stdout.lines().map_while(Result::ok).any(|line| line.contains("Ctrl-C"));
    assert!(up, "stack up came up");
    let mine = || processes_that_name(dir.path());
    let before = mine();
    assert!(before.len() >= 4, "engine, ZooKeeper and their supervisors: {before:?}");
    parent.kill().expect("SIGKILL");
    parent.wait().expect("its end");
    wait_for(|| mine().is_empty());
    let left = || std::fs::read_dir(dir.path()).expect("the folder").count();
    wait_for(|| left() == 0);
}

#[test]
fn stack_up_leaves_nothing_behind() {
    let dir = crate::folder();
    let mut parent = Command::new(env!("CARGO_BIN_EXE_stack"))
        .arg("up")
        .env("TMPDIR", dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("stack up");
    let stdout = BufReader::new(parent.stdout.take().expect("a pipe"));
    let mut lines = stdout.lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("Ctrl-C")), "stack up came up");
    let pid = i32::try_from(parent.id()).ok().and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(pid.expect("a pid"), rustix::process::Signal::TERM).expect("SIGTERM");
    // Keep reading, otherwise its last output would meet a closed pipe.
    let farewell: Vec<String> = lines.collect();
    assert!(parent.wait().expect("its end").success(), "{farewell:?}");
    assert_eq!(processes_that_name(dir.path()), Vec::<String>::new());
    let left = std::fs::read_dir(dir.path()).expect("the folder").count();
    assert_eq!(left, 0, "temporary files");
}

fn sh(dir: &Path, script: &str) -> Service {
    Service::start("the shell", Launch::new("sh", ["-c", script], dir.join("log"))).expect("a start")
}

fn wait_for(mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(20), "the condition never came true");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The state letter of proc_pid_stat(5), or none if there is no such process.
fn process_state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// The command lines of the running processes with this path in one of their arguments.
fn processes_that_name(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").expect("/proc");
    entries
        .flatten()
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .map(|cmdline| String::from_utf8_lossy(&cmdline).replace('\0', " "))
        .filter(|cmdline| cmdline.contains(&*path.to_string_lossy()))
        .collect()
}
