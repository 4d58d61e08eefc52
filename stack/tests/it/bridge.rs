use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use stack::{Bridge, aws_environment};

/// Plays the bridge: reports that it listens, on a port of its own choice if asked for port 0.
const PLAYER: &str = r#"#!/bin/sh
echo "INFO arguments: $*" >&2
echo "INFO endpoint: $AWS_ENDPOINT_URL" >&2
echo "INFO bridge: listening address=$(echo "$3" | sed 's/:0$/:4321/')" >&2
trap 'exit 0' TERM
while :; do sleep 0.01; done
"#;

#[test]
fn the_bridge_comes_back_on_the_address_it_was_given() {
    let dir = crate::folder();
    let binary = player(dir.path());
    let flags = [("--listen", "127.0.0.1:0"), ("--memory", "64MiB")];
    let bridge = Bridge::start(&binary, &flags, &aws_environment("http://127.0.0.1:4567")).expect("a start");
    assert_eq!(bridge.address(), "127.0.0.1:4321");
    assert_eq!(bridge.url(), "http://127.0.0.1:4321");
    bridge.restart().expect("a restart");
    assert_eq!(bridge.stop(), Ok(0));
    bridge.start_again().expect("a start after SIGTERM");
    let log = bridge.log();
    assert_eq!(log.matches("arguments: serve --listen 127.0.0.1:0 --memory 64MiB").count(), 1, "{log}");
    assert_eq!(log.matches("arguments: serve --listen 127.0.0.1:4321 --memory 64MiB").count(), 2, "{log}");
    assert_eq!(log.matches("endpoint: http://127.0.0.1:4567").count(), 3, "{log}");
}

#[test]
fn without_a_listen_flag_the_bridge_gets_a_free_port() {
    let dir = crate::folder();
    let bridge = Bridge::start(&player(dir.path()), &[], &[]).expect("a start");
    let port = bridge.address().strip_prefix("127.0.0.1:").and_then(|port| port.parse::<u16>().ok());
    assert!(port.is_some_and(|port| port >= 10_000), "{}", bridge.address());
}

#[test]
fn a_bridge_that_was_not_built_is_an_error_that_says_what_to_do() {
    let error = Bridge::start(Path::new("/no/such/bridge"), &[], &[]).expect_err("it is missing");
    assert!(error.contains("/no/such/bridge") && error.contains("cargo build"), "{error}");
}

fn player(dir: &Path) -> PathBuf {
    let binary = dir.join("bridge");
    std::fs::write(&binary, PLAYER).expect("a script");
    std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o755)).expect("its mode");
    binary
}
