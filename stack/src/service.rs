//! A supervised child process: the common part of every component.
//!
//! A child must not outlive the process that started it, however that one ends. `PR_SET_PDEATHSIG`
//! would fire when the *thread* that started the child ends, which in a test runner is immediately.
//! So every child runs under a thin supervisor (`stack supervise`), whose standard input is a pipe
//! from here: when the pipe closes, which the kernel does even after SIGKILL, the supervisor kills
//! the child and removes its temporary folder.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::Result;

/// How many of the log's last lines an error shows.
const TAIL_LINES: usize = 30;
/// How long [`Service::stop`] waits after SIGTERM before it gives up. The bridge promises to end
/// within 10 s.
const STOP_DEADLINE: Duration = Duration::from_secs(15);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// What to start.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program: a path, or a name looked up on PATH.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Variables added to the inherited environment.
    pub environment: Vec<(String, String)>,
    /// Variables removed from the inherited environment.
    pub without: Vec<OsString>,
    /// The file for its standard output and error; appended to across restarts.
    pub log: PathBuf,
    /// The process's own folder, removed if the process that started it ends without stopping it.
    folder: Option<PathBuf>,
}

impl Launch {
    /// A program with its arguments and its log file, in the inherited environment.
    pub fn new<A: Into<OsString>>(
        program: impl Into<PathBuf>,
        args: impl IntoIterator<Item = A>,
        log: impl Into<PathBuf>,
    ) -> Launch {
        Launch {
            program: program.into(),
            args: args.into_iter().map(Into::into).collect(),
            environment: Vec::new(),
            without: Vec::new(),
            log: log.into(),
            folder: None,
        }
    }

    /// Names the folder that belongs to this process alone. If a test run is killed, nothing else
    /// can remove it; a folder outside the system's temporary folder is kept nevertheless.
    pub fn in_folder(mut self, folder: &Path) -> Launch {
        self.folder = folder.starts_with(std::env::temp_dir()).then(|| folder.to_path_buf());
        self
    }
}

/// A child process that can be started, stopped and restarted. Stopped on drop.
#[derive(Debug)]
pub struct Service {
    name: String,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    launch: Launch,
    running: Option<Running>,
    last_pid: u32,
}

#[derive(Debug)]
struct Running {
    supervisor: Child,
    /// Held open for as long as the child may live. Not kept in `supervisor`, because
    /// [`Child::wait`] would close it.
    lifeline: ChildStdin,
    pid: Pid,
    /// Where this run starts in the log file, in bytes.
    log_start: u64,
}

impl Service {
    /// Starts the process; `name` is how errors refer to it. It may not be ready yet: see
    /// [`Service::wait_until`].
    pub fn start(name: &str, launch: Launch) -> Result<Service> {
        let service =
            Service { name: name.to_owned(), state: Mutex::new(State { launch, running: None, last_pid: 0 }) };
        service.start_again()?;
        Ok(service)
    }

    /// Restarts the process with the same arguments, after it ended.
    pub fn start_again(&self) -> Result<()> {
        let mut state = self.state();
        if state.running.is_some() {
            return Err(format!("{} is already running: kill or stop it before starting it again", self.name));
        }
        let running = spawn(&self.name, &state.launch)?;
        state.last_pid = running.pid.as_raw_nonzero().get().unsigned_abs();
        state.running = Some(running);
        Ok(())
    }

    /// Changes what the next start runs.
    pub fn change_launch(&self, change: impl FnOnce(&mut Launch)) {
        change(&mut self.state().launch);
    }

    /// How errors refer to it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id of the real process (not of its supervisor); of the last run if it has ended.
    pub fn pid(&self) -> u32 {
        self.state().last_pid
    }

    /// Whether the process is alive.
    pub fn is_running(&self) -> bool {
        match &mut self.state().running {
            Some(running) => matches!(running.supervisor.try_wait(), Ok(None)),
            None => false,
        }
    }

    /// Kills the process with SIGKILL and waits until it is gone. Does nothing if it has already
    /// ended.
    pub fn kill(&self) {
        let mut state = self.state();
        if let Some(running) = state.running.take() {
            end(running);
        }
    }

    /// Sends SIGTERM to the process and waits for it to end. Returns its exit code (128 + N if
    /// signal N ended it), or an error if it was still there after 15 s and had to be killed.
    pub fn stop(&self) -> Result<i32> {
        let mut state = self.state();
        let Some(mut running) = state.running.take() else {
            return Err(format!("{} is not running", self.name));
        };
        // Its log can be read while it ends.
        drop(state);
        signal_running(&mut running, Signal::TERM);
        let started = Instant::now();
        while started.elapsed() < STOP_DEADLINE {
            match running.supervisor.try_wait() {
                Ok(Some(status)) => return Ok(status.code().unwrap_or(-1)),
                Ok(None) => std::thread::sleep(POLL_INTERVAL),
                Err(error) => {
                    return Err(format!("cannot wait for {} to end: {error}", self.name));
                }
            }
        }
        end(running);
        Err(format!(
            "{} did not end within {} s of SIGTERM and was killed.{}",
            self.name,
            STOP_DEADLINE.as_secs(),
            self.log_tail()
        ))
    }

    /// Freezes the process with SIGSTOP.
    pub fn sigstop(&self) {
        self.signal(Signal::STOP);
    }

    /// Resumes a frozen process with SIGCONT.
    pub fn sigcont(&self) {
        self.signal(Signal::CONT);
    }

    /// Sends a signal; does nothing if the process has ended.
    pub fn signal(&self, signal: Signal) {
        if let Some(running) = &mut self.state().running {
            signal_running(running, signal);
        }
    }

    /// Everything the process has written, across all its runs.
    pub fn log(&self) -> String {
        let path = self.state().launch.log.clone();
        read_from(&path, 0)
    }

    /// What the process has written since it was last started.
    pub fn log_since_start(&self) -> String {
        let state = self.state();
        let start = state.running.as_ref().map_or(0, |running| running.log_start);
        read_from(&state.launch.log, start)
    }

    /// The last lines of the log under a heading, ready to be appended to an error message.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(TAIL_LINES)..];
        if tail.is_empty() {
            format!(" The log of {} is empty.", self.name)
        } else {
            format!(" The end of the log of {}:\n  {}", self.name, tail.join("\n  "))
        }
    }

    /// The resident memory of the process in bytes; 0 if it has ended.
    pub fn rss_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|value| value.trim().strip_suffix("kB"))
            .and_then(|kib| kib.trim().parse::<u64>().ok())
            .map_or(0, |kib| kib * 1024)
    }

    /// The processor time (user and system) the process has used, in seconds; 0 if it has ended.
    pub fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        // The second field is the command's name in parentheses and may contain anything, so count
        // from after it.
        let Some((_, fields)) = stat.rsplit_once(')') else {
            return 0.0;
        };
        let ticks: u64 = fields
            .split_whitespace()
            .skip(11) // from the third field of proc_pid_stat(5) to utime and stime
            .take(2)
            .filter_map(|field| field.parse::<u64>().ok())
            .sum();
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64
    }

    /// Waits until `ready` is satisfied; an error if the process ends first or the deadline passes.
    pub fn wait_until(&self, what: &str, deadline: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
        let started = Instant::now();
        loop {
            if ready() {
                return Ok(());
            }
            if !self.is_running() {
                return Err(format!("{} ended while {what} was awaited.{}", self.name, self.log_tail()));
            }
            if started.elapsed() > deadline {
                return Err(format!(
                    "{}: {what} did not come within {} s.{}",
                    self.name,
                    deadline.as_secs(),
                    self.log_tail()
                ));
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked while holding the lock must not keep the others from ending their
        // processes.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(name: &str, launch: &Launch) -> Result<Running> {
    let failed = |error: std::io::Error| format!("cannot start {name}: {error}");
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&launch.log)
        .map_err(|error| format!("cannot open {}, the log of {name}: {error}", launch.log.display()))?;
    let log_start = log.metadata().map_err(failed)?.len();
    let mut command = Command::new(stack_binary()?);
    command.arg("supervise");
    if let Some(folder) = &launch.folder {
        command.arg("--folder").arg(folder);
    }
    command
        .arg("--")
        .arg(&launch.program)
        .args(&launch.args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        // Ctrl-C in a terminal goes to the whole foreground group; the children are stopped in
        // order instead.
        .process_group(0);
    for variable in &launch.without {
        command.env_remove(variable);
    }
    command.envs(launch.environment.iter().map(|(key, value)| (key, value)));
    let mut supervisor = command.spawn().map_err(failed)?;
    let (Some(lifeline), Some(stdout)) = (supervisor.stdin.take(), supervisor.stdout.take()) else {
        return Err(format!("cannot start {name}: its supervisor has no pipes"));
    };
    let mut answer = String::new();
    BufReader::new(stdout).read_line(&mut answer).map_err(failed)?;
    let pid = answer.trim().strip_prefix("pid ").and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
    match pid {
        Some(pid) => Ok(Running { supervisor, lifeline, pid, log_start }),
        None => {
            drop(lifeline);
            let _ = supervisor.wait();
            Err(format!("cannot start {name}: {}", answer.trim()))
        }
    }
}

fn signal_running(running: &mut Running, signal: Signal) {
    // While the supervisor lives, the child is alive or not yet reaped, so the id is still its own.
    if matches!(running.supervisor.try_wait(), Ok(None)) {
        let _ = kill_process(running.pid, signal);
    }
}

fn end(mut running: Running) {
    signal_running(&mut running, Signal::KILL);
    // A final message: this is an orderly end, so the folder stays.
    let _ = running.lifeline.write_all(b"end\n");
    drop(running.lifeline);
    let _ = running.supervisor.wait();
}

fn read_from(path: &Path, offset: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

/// The `stack` program, which supervises processes and hosts the engine and the Kinesis server.
pub fn stack_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("STACK_BIN") {
        return Ok(path.into());
    }
    let me =
        std::env::current_exe().map_err(|error| format!("cannot tell the path of the running program: {error}"))?;
    // A program of this workspace is next to `stack`; a test or benchmark is in the folder `deps`
    // next to it.
    let found = me.ancestors().skip(1).take(2).map(|folder| folder.join("stack")).find(|candidate| candidate.is_file());
    found.ok_or_else(|| {
        format!(
            "the program `stack` is not beside {}: run `cargo build --workspace` first, or set STACK_BIN to its path",
            me.display()
        )
    })
}
