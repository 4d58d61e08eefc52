//! What the program prints on stderr before it can answer over HTTP, and what `check` finds.

use std::net::TcpListener;
use std::process::{Command, Output};

use stack::{PASSWORD_USER, TEST_PASSWORD, WEAK_USER};

use crate::world::{binary, environment_with, stack};

/// Runs the program to its end, on the shared stack.
pub fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("AWS_") || text.starts_with("KINESIS_BRIDGE_") {
            command.env_remove(&name);
        }
    }
    command.args(arguments).envs(environment_with(environment)).env("NO_COLOR", "1");
    // While another test creates a function, statements of 25.8 may fail: see docs/deploy.md.
    let whole = |output: &Output| !String::from_utf8_lossy(&output.stdout).contains(".sql.tmp");
    let mut outputs = std::iter::repeat_with(|| command.output().expect("an end")).take(20);
    outputs.find(whole).expect("a run while no function is created")
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let output = run(&["serve", "--listen", &address], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr(&output),
        format!(
            "error: cannot listen on {address}: Address already in use (os error 98); another process may be using the port: choose another with --listen\n"
        )
    );
}

#[test]
fn without_a_region_nothing_starts() {
    let none = [("AWS_REGION", ""), ("HOME", "/nowhere"), ("AWS_EC2_METADATA_DISABLED", "true")];
    let sentence = "no AWS region is configured: set AWS_REGION, or region in the profile that AWS_PROFILE names";
    let output = run(&["serve", "--listen", "127.0.0.1:0"], &none);
    assert_eq!((output.status.code(), stderr(&output)), (Some(1), format!("error: {sentence}\n")));
    let output = run(&["check", "--stream", "orders", "--state", "file:/nowhere"], &none);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.starts_with(&format!("FAIL  AWS: {sentence}\nok    ClickHouse ")), "{said}");
}

#[test]
fn all_bad_flags_are_told_at_once_and_no_secret() {
    let arguments = [
        "serve",
        "--listen",
        "localhost",
        "--clickhouse-url",
        "http://me:a-secret-in-the-url@h:1",
        "--clickhouse-password",
        "a-secret-in-a-flag",
        "--clickhouse-password-file",
        "/etc/hostname",
        "--state",
        "redis",
        "--lease-duration",
        "soon",
        "--memory",
        "1MiB",
        "--token-file",
        "/nowhere/token",
    ];
    let output = run(&arguments, &[("KINESIS_BRIDGE_CLICKHOUSE_DATABASE", "my database")]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        stderr(&output),
        "error: --listen (KINESIS_BRIDGE_LISTEN) is 'localhost': it must be an IP address and a port, such as 127.0.0.1:9020 or [::]:9020\n\
         error: --clickhouse-url (KINESIS_BRIDGE_CLICKHOUSE_URL) must not contain a user or a password: use --clickhouse-user and \
         --clickhouse-password-file\n\
         error: --clickhouse-password-file (KINESIS_BRIDGE_CLICKHOUSE_PASSWORD_FILE) is given together with --clickhouse-password (KINESIS_BRIDGE_CLICKHOUSE_PASSWORD): use only one of them\n\
         error: --clickhouse-database (KINESIS_BRIDGE_CLICKHOUSE_DATABASE) is 'my database': it must have 1 to 128 characters, letters, digits \
         or any of _.-\n\
         error: --state (KINESIS_BRIDGE_STATE) is 'redis': it must be keeper-map, or file: and a directory such as file:/var/lib/kinesis-bridge\n\
         error: --lease-duration (KINESIS_BRIDGE_LEASE_DURATION) is 'soon': it must be a duration from 100ms to 1h, such as 10s or 1m 30s\n\
         error: --memory (KINESIS_BRIDGE_MEMORY) is '1MiB': it must be a whole number of B, KB, MB, GB, KiB, MiB or GiB and at least 32MiB, such as 256MiB\n\
         error: --token-file (KINESIS_BRIDGE_TOKEN_FILE) names '/nowhere/token', which cannot be read: No such file or directory (os error \
         2)\n"
    );
}

#[test]
fn a_flag_that_does_not_exist_is_told_with_its_neighbour() {
    let output = run(&["serve", "--clickhouse-pasword", "x"], &[]);
    assert_eq!(output.status.code(), Some(2));
    let said = stderr(&output);
    assert!(said.contains("unexpected argument '--clickhouse-pasword'"), "{said}");
    assert!(said.contains("'--clickhouse-password'"), "{said}");
}

#[test]
fn check_tells_all_that_is_wrong_at_once() {
    let server = stack().clickhouse.url();
    let keys = [("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", ""), ("HOME", "/nowhere")];
    let password = ("KINESIS_BRIDGE_CLICKHOUSE_PASSWORD", "wrong-password-of-check");
    let refused = format!(
        "ClickHouse at {server} refuses user '{PASSWORD_USER}': check --clickhouse-user and --clickhouse-password (or --clickhouse-password-file)"
    );
    let output = run(
        &["check", "--stream", "err-none", "--clickhouse-user", PASSWORD_USER],
        &[keys[0], keys[1], keys[2], password],
    );
    let credentials = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or run with a role";
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        format!(
            "FAIL  AWS in region us-east-1: there are no AWS credentials for region us-east-1: {credentials}\n\
             FAIL  stream 'err-none': there are no AWS credentials for stream 'err-none' in region us-east-1: {credentials}\n\
             FAIL  ClickHouse at {server}: {refused}\n\
             FAIL  state tables in database 'kinesis': {refused}\n\
             note  bridge at http://127.0.0.1:9020: is not running (Connection refused (os error 111))\n\
             ok    token: no token is set: anyone who can reach the port can read the streams\n"
        )
    );
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(1), "error: 4 of 6 checks failed\n"));

    let output = run(
        &["check", "--stream", "err-none", "--clickhouse-user", WEAK_USER, "--state", "file:/proc/none"],
        &[("KINESIS_BRIDGE_CLICKHOUSE_PASSWORD", TEST_PASSWORD)],
    );
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    for finding in [
        "FAIL  stream 'err-none': stream 'err-none' in region us-east-1 does not exist: check the name, the region (AWS_REGION) and the account",
        "FAIL  state in /proc/none: ",
        &format!(
            "FAIL  grants of ClickHouse user '{WEAK_USER}': missing: GRANT SELECT, INSERT ON `kinesis`.* TO `{WEAK_USER}`; "
        ),
        &format!("GRANT SELECT ON system.view_refreshes TO `{WEAK_USER}`; "),
        &format!("note  background_schedule_pool_size: could not be checked: ClickHouse user '{WEAK_USER}' lacks"),
    ] {
        assert!(said.contains(finding), "{finding}\nis not in\n{said}");
    }
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).starts_with("error: 3 of "), "{}", stderr(&output));
    assert!(!said.contains(TEST_PASSWORD), "{said}");
}

/// A file with a token, and its path.
pub fn token_file(token: &str) -> (tempfile::NamedTempFile, String) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), format!("{token}\n")).expect("the token");
    let path = file.path().display().to_string();
    (file, path)
}
