use std::io::Write;

use clap::builder::Resettable;
use clap::{CommandFactory, FromArgMatches, Parser};
use tempfile::NamedTempFile;

use super::*;

/// A command with only these flags.
#[derive(Parser)]
struct Serve {
    #[command(flatten)]
    flags: Flags,
}

/// What `serve` gets with these arguments and an empty environment.
fn flags(arguments: &[&str]) -> Flags {
    let line = ["serve"].iter().chain(arguments);
    // The environment of the test run may have variables of the program set.
    let command = Serve::command().mut_args(|argument| argument.env(Resettable::Reset));
    let matches = command.try_get_matches_from(line).unwrap();
    Serve::from_arg_matches(&matches).unwrap().flags
}

#[track_caller]
fn problem(arguments: &[&str]) -> String {
    let problems = flags(arguments).resolve().unwrap_err().0;
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems.into_iter().next().unwrap()
}

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn path(file: &NamedTempFile) -> &str {
    file.path().to_str().unwrap()
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let config = flags(&[]).resolve().unwrap();
    assert_eq!(config.listen, "127.0.0.1:9020".parse().unwrap());
    let clickhouse = ClickHouse {
        url: "http://127.0.0.1:8123".into(),
        user: "default".into(),
        password: Secret::default(),
        database: "kinesis".into(),
    };
    assert_eq!(config.clickhouse, clickhouse);
    assert_eq!((config.state, config.token), (State::KeeperMap, None));
    assert_eq!((config.lease_duration, config.memory), (Duration::from_secs(10), 256 << 20));
    assert_eq!((&*config.log_filter, config.log_format), ("info", LogFormat::Text));
    assert!(config.worker_id.ends_with(":9020") && config.worker_id.len() > 5, "{}", config.worker_id);
}

#[test]
fn every_flag_is_a_variable_too() {
    let serve = Serve::command();
    let mut flags = 0;
    for argument in serve.get_arguments().filter(|a| a.get_id() != "help") {
        let flag = argument.get_long().unwrap();
        let variable = format!("KINESIS_BRIDGE_{}", flag.to_ascii_uppercase().replace('-', "_"));
        assert_eq!(argument.get_env().and_then(|e| e.to_str()), Some(&*variable));
        flags += 1;
    }
    assert_eq!(flags, 13);
    serve.debug_assert();
}

#[test]
fn values_are_read() {
    let (password, token) = (file("pass word\r\n"), file("t0ken-0123456789\r\nt0ken-before-that\n"));
    let config = flags(&[
        "--listen=[::1]:0",
        "--clickhouse-url=https://ch.example:8443/",
        "--clickhouse-password-file",
        path(&password),
        "--state=file:/var/lib/bridge",
        "--worker-id=w:1",
        "--lease-duration=1m 30s",
        "--memory=64MB",
        "--token-file",
        path(&token),
        "--log-level=warn,bridge::pipe=debug",
        "--log-format=json",
    ]);
    let config = config.resolve().unwrap();
    assert_eq!(config.listen, "[::1]:0".parse().unwrap());
    assert_eq!(config.clickhouse.url, "https://ch.example:8443");
    assert_eq!(config.clickhouse.password.expose(), "pass word");
    assert_eq!(config.state, State::File("/var/lib/bridge".into()));
    assert_eq!(config.worker_id, "w:1");
    assert_eq!((config.lease_duration, config.memory), (Duration::from_secs(90), 64_000_000));
    assert_eq!((&*config.log_filter, config.log_format), ("warn,bridge::pipe=debug", LogFormat::Json));
    let token = config.token.unwrap();
    assert_eq!((token.current.expose(), token.previous.unwrap().expose()), ("t0ken-0123456789", "t0ken-before-that"));
}

#[test]
fn sizes_are_read() {
    for (text, bytes) in [
        ("33554432", 32 << 20),
        ("32MiB", 32 << 20),
        ("1 GiB", 1 << 30),
        ("40000kb", 40_000_000),
        ("2GB", 2_000_000_000),
    ] {
        assert_eq!(memory(text), Ok(bytes), "{text}");
    }
    for text in
        ["", "MiB", "-1", "1.5GiB", "256M", "31MiB", "99999999999999999999", "18446744073709551615GiB", "64 M B"]
    {
        assert!(memory(text).is_err(), "{text}");
    }
}

#[test]
fn every_problem_is_one_sentence() {
    let (empty, two_lines, spaced) = (file("\n"), file("a\nb\n"), file("to ken to ken to ken\n"));
    let (short, three) = (file("hush-hush-hush-h\nhush-hush-hush\n"), file(&"hush-hush-hush-h\n".repeat(3)));
    let long = "x".repeat(MAX_NAME + 1);
    let cases: [(&str, &str, &str); 29] = [
        ("--listen", "localhost:9020", "an IP address and a port"),
        ("--listen", "9020", "is '9020'"),
        ("--clickhouse-url", "http://[::1", "is not a URL"),
        ("--clickhouse-url", "127.0.0.1:8123", "must begin with http:// or https://"),
        ("--clickhouse-url", "clickhouse://h:9000", "must begin with http:// or https://"),
        ("--clickhouse-url", "http://me:hush@h:8123", "use --clickhouse-user and --clickhouse-password-file"),
        ("--clickhouse-url", "http://h:8123/?password=hush", "must not have a query"),
        ("--clickhouse-user", "", "a name of 1 to 128 bytes"),
        ("--clickhouse-password-file", "/no/such/file", "names '/no/such/file', which cannot be read"),
        ("--clickhouse-password-file", path(&two_lines), "exactly one line"),
        ("--clickhouse-database", "a b", "is 'a b': it must have 1 to 128 characters"),
        ("--clickhouse-database", &long, "1 to 128 characters"),
        ("--state", "file:", "it must be keeper-map, or file: and a directory"),
        ("--state", "etcd", "is 'etcd'"),
        ("--worker-id", "a/b", "is 'a/b'"),
        ("--lease-duration", "10", "a duration from 100ms to 1h"),
        ("--lease-duration", "1ms", "is '1ms'"),
        ("--lease-duration", "2h", "is '2h'"),
        ("--memory", "1MiB", "at least 32MiB"),
        ("--memory", "lots", "is 'lots'"),
        ("--token-file", "/no/such/file", "which cannot be read"),
        ("--token-file", path(&empty), "is empty: it must contain a token"),
        ("--token-file", path(&spaced), "characters that an HTTP header cannot contain"),
        ("--token-file", path(&short), "a token of fewer than 16 characters"),
        ("--token-file", path(&three), "one line with the token, and while it is being changed a second one"),
        ("--log-level", "inof", "is 'inof'"),
        ("--log-level", "bridge=loud", "or a filter such as"),
        ("--log-format", "xml", "must be text or json"),
        ("--log-format", "", "is ''"),
    ];
    for (flag, value, expected) in cases {
        let message = problem(&[&format!("{flag}={value}")]);
        let variable = format!("(KINESIS_BRIDGE_{})", flag[2..].to_ascii_uppercase().replace('-', "_"));
        assert!(message.starts_with(flag) && message.contains(&variable), "{message}");
        assert!(message.contains(expected), "{message}");
        assert!(!message.contains("hush"), "{message}");
    }
    let both = problem(&["--clickhouse-password=hush", "--clickhouse-password-file=/tmp/x"]);
    assert!(both.contains("use only one of them") && !both.contains("hush"), "{both}");
}

#[test]
fn all_problems_are_told_at_once() {
    let wrong = [
        "listen",
        "clickhouse-url",
        "clickhouse-database",
        "state",
        "worker-id",
        "lease-duration",
        "memory",
        "token-file",
        "log-level",
        "log-format",
    ];
    let arguments: Vec<String> = wrong.iter().map(|flag| format!("--{flag}=/ /")).collect();
    let problems = flags(&arguments.iter().map(|a| &**a).collect::<Vec<_>>()).resolve().unwrap_err().0;
    assert_eq!(problems.len(), wrong.len());
    for (problem, flag) in problems.iter().zip(wrong) {
        assert!(problem.starts_with(&format!("--{flag} ")), "{problem}");
    }
}

#[test]
fn secrets_are_never_shown() {
    let token = file("hush-hush-hush-hush\n");
    let flags = flags(&["--clickhouse-password=hush", "--token-file", path(&token)]);
    assert!(!format!("{flags:?}").contains("hush"));
    let config = format!("{:?}", flags.resolve().unwrap());
    assert!(!config.contains("hush") && config.contains("***"), "{config}");
}

#[test]
fn files_that_everyone_may_read_are_told() {
    use std::os::unix::fs::PermissionsExt;

    let (token, password) = (file("hush-hush-hush-hush\n"), file("hush\n"));
    let files = SecretFiles { token: path(&token).to_owned(), password: path(&password).to_owned() };
    assert_eq!(files.exposed(), []);
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(token.path(), open.clone()).unwrap();
    assert_eq!(files.exposed(), [("--token-file", path(&token))]);
    std::fs::set_permissions(password.path(), open).unwrap();
    assert_eq!(files.exposed().len(), 2);
}
