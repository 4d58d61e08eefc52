//! Guessing the token, and keeping it badly.

use std::os::unix::fs::PermissionsExt;

use crate::errors::command_line::{run, stderr, token_file};
use crate::world::*;

use super::{ask, status};

#[test]
fn wrong_tokens_are_counted_slowed_and_logged_in_one_line() {
    const TOKEN: &str = "a-token-for-guessing";
    const GUESSES: usize = 300;
    let (_file, path) = token_file(TOKEN);
    let bridge = bridge("str_guess", &[("--token-file", &path)]);
    let refused = |reason: &str| {
        let metrics = ask(&bridge, "GET /metrics", &["Host: h", &format!("authorization: bearer {TOKEN}")]);
        let name = format!("kinesis_bridge_http_refused_total{{reason=\"{reason}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&*name)?.parse::<u64>().ok())
    };
    assert_eq!(refused("wrong_token"), Some(0));
    std::thread::scope(|scope| {
        for thread in 0..100 {
            let bridge = &bridge;
            scope.spawn(move || {
                for guess in 0..GUESSES / 100 {
                    let guess = format!("Authorization: Bearer guess-{thread}-{guess}");
                    let answer = ask(bridge, "GET /v1/streams", &["Host: h", &guess]);
                    assert_eq!(status(&answer), "401", "{answer}");
                    assert!(answer.to_ascii_lowercase().contains("\r\nwww-authenticate: bearer\r\n"), "{answer}");
                }
            });
        }
    });
    assert_eq!(refused("wrong_token"), Some(GUESSES as u64));
    assert_eq!(status(&ask(&bridge, "GET /v1/streams", &["Host: h"])), "401");
    assert_eq!(refused("no_token"), Some(1));
    // The scheme may be written in any case.
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let header = format!("Authorization: {scheme} {TOKEN}");
        assert_eq!(status(&ask(&bridge, "GET /v1/streams", &["Host: h", &header])), "200", "{scheme}");
    }
    let log = bridge.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("refused: ")).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("WARN") && lines[0].contains("1 with a wrong token; sent by 127.0.0.1"), "{lines:?}");
    assert!(!log.contains("guess-1"), "{log}");
}

#[test]
fn short_tokens_are_refused_and_files_for_everyone_are_warned_about() {
    let (_file, short) = token_file("fifteen-letters");
    for command in [&["serve", "--listen", "127.0.0.1:0"][..], &["check"], &["sql", "setup"]] {
        let output = run(&[command, &["--token-file", &short]].concat(), &[]);
        let said = stderr(&output);
        let sentence = format!(
            "error: --token-file (KINESIS_BRIDGE_TOKEN_FILE) names '{short}', which has a token of fewer than 16 characters, which can be \
             guessed: create one with `openssl rand -hex 32`\n"
        );
        assert_eq!((output.status.code(), said.as_str()), (Some(2), sentence.as_str()), "{command:?}");
        assert!(!said.contains("fifteen-letters"), "{said}");
    }
    let (file, path) = token_file("sixteen-letters-");
    let careful = bridge("str_careful", &[("--token-file", &path)]);
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).expect("permissions");
    let careless = bridge("str_careless", &[("--token-file", &path)]);
    let warning = format!("every user of this machine can read {path}, the file of --token-file");
    wait_until("the warning", || careless.log().contains(&warning));
    assert!(!careful.log().contains("every user"), "{}", careful.log());
}
