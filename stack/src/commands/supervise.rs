//! `stack supervise`: runs one command and kills it when standard input ends. [`stack::service`]
//! explains why.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Pid, Signal, kill_process};

/// Runs the command with its output on this process's standard error, prints `pid N` on standard
/// output, and ends with the command's exit code, or 128 + N if signal N ended it. If standard
/// input ends without a message, the process that started this one is dead: then the command is
/// killed and `folder` removed.
pub fn run(folder: Option<&Path>, command: &[std::ffi::OsString]) -> Result<i32, String> {
    let Some((program, args)) = command.split_first() else {
        return Err("supervise needs a command after `--`".to_owned());
    };
    let shown = program.to_string_lossy();
    let output = std::io::stderr()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| format!("cannot share standard error with {shown}: {error}"))?;
    let started = Command::new(program).args(args).stdin(Stdio::null()).stdout(output).spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(error) => {
            say(&format!("cannot run {shown}: {error}"));
            return Ok(127);
        }
    };
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    say(&format!("pid {}", child.id()));
    let abandoned = Arc::new(AtomicBool::new(false));
    let lifeline = Arc::clone(&abandoned);
    std::thread::spawn(move || {
        let mut word = [0; 16];
        let said = std::io::stdin().read(&mut word).unwrap_or(0);
        lifeline.store(said == 0, Ordering::Release);
        // This process ends as soon as it has reaped the child, so the id cannot have become
        // another's.
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::KILL);
        }
    });
    let status = child.wait().map_err(|error| format!("cannot wait for {shown}: {error}"))?;
    if let Some(folder) = folder.filter(|_| abandoned.load(Ordering::Acquire)) {
        let _ = std::fs::remove_dir_all(folder);
        // The last of several processes in one temporary folder removes that folder, too: it can
        // only be removed when empty.
        if let Some(parent) = folder.parent().filter(|parent| *parent != std::env::temp_dir()) {
            let _ = std::fs::remove_dir(parent);
        }
    }
    Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
}

/// The process that started this one may be gone already; then there is nobody to report to.
fn say(line: &str) {
    let mut stdout = std::io::stdout();
    let _ = writeln!(stdout, "{line}");
    let _ = stdout.flush();
}
