//! Credentials that cannot be obtained, as `check` tells it: profiles, roles, web identities.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use tempfile::TempDir;

use super::command_line::run;
use crate::credentials::NO_KEYS;
use crate::world::{bridge_in, get};

/// An STS that always answers the same. It lives as long as the test's process.
fn sts(status: &'static str, code: &'static str, message: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let body = format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type><Code>{code}</Code>\
         <Message>{message}</Message></Error><RequestId>4b1f</RequestId></ErrorResponse>"
    );
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/xml\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let respond = move |mut caller: TcpStream| {
        // A small request, which arrives in one or two pieces.
        let (mut request, mut piece) = (String::new(), [0; 8192]);
        while !request.contains("Version=2011-06-15") {
            let read = caller.read(&mut piece).unwrap_or(0);
            if read == 0 {
                return;
            }
            request.push_str(&String::from_utf8_lossy(&piece[..read]));
        }
        let _ = caller.write_all(answer.as_bytes());
    };
    thread::spawn(move || listener.incoming().flatten().for_each(respond));
    url
}

const PROFILES: &str = "\
[default]
aws_access_key_id = AKIADEFAULT
aws_secret_access_key = secret-of-a-profile

[profile reader]
role_arn = arn:aws:iam::123456789012:role/reader
source_profile = default

[profile orphan]
role_arn = arn:aws:iam::123456789012:role/reader
source_profile = nobody

[profile command]
credential_process = sh -c 'echo the vault is closed >&2; exit 3'
";

fn sts_at(url: &str) -> Vec<(&str, &str)> {
    vec![("AWS_ENDPOINT_URL_STS", url)]
}

fn web(token: &str) -> Vec<(&str, &str)> {
    vec![("AWS_WEB_IDENTITY_TOKEN_FILE", token), ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/reader")]
}

/// What `check` says about AWS, without keys of its own.
fn told(environment: &[(&str, &str)]) -> String {
    let output = run(&["check", "--state", "file:/nowhere"], &[&NO_KEYS, environment].concat());
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!said.contains("secret-of-a-profile"), "{said}");
    let line = said.lines().find_map(|line| line.strip_prefix("FAIL  AWS in region us-east-1: "));
    line.expect(&said).to_owned()
}

#[test]
fn why_there_are_no_credentials_is_told() {
    let folder = TempDir::new().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let (profiles, token) = (file("config", PROFILES), file("token", "eyJhbGciOi.e30.c2ln"));
    let denied = "User: arn:aws:iam::123456789012:user/bridge is not authorized to perform: sts:AssumeRole on resource: \
                  arn:aws:iam::123456789012:role/reader";
    let no_issuer =
        "No OpenIDConnect provider found in your account for https://oidc.eks.us-east-1.amazonaws.com/id/EXAMPLE";
    let (denying, throttling) =
        (sts("403 Forbidden", "AccessDenied", denied), sts("400 Bad Request", "Throttling", "Rate exceeded"));
    let failing = sts("400 Bad Request", "InvalidIdentityToken", no_issuer);
    let profile = |name: &'static str| vec![("AWS_CONFIG_FILE", &*profiles), ("AWS_PROFILE", name)];
    let ask = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or run with a role";
    let files = "a profile of ~/.aws/config or ~/.aws/credentials";
    let none = "there are no AWS credentials for region us-east-1";
    for (environment, sentence) in [
        (vec![], format!("{none}: {ask}")),
        (
            profile("nobody"),
            format!(
                "{none}: profile `nobody` was not defined: could not find source profile nobody referenced from the root profile; \
                 AWS_PROFILE must name {files}"
            ),
        ),
        (vec![("AWS_PROFILE", "nobody")], format!("{none}: AWS_PROFILE is 'nobody', which is not {files} that has any")),
        (
            profile("orphan"),
            format!(
                "{none}: profile `nobody` was not defined: could not find source profile nobody referenced from orphan; AWS_PROFILE must \
                 name {files}"
            ),
        ),
        (
            [profile("reader"), sts_at(&denying)].concat(),
            format!("AWS gives no credentials for region us-east-1 (AccessDenied): {denied}"),
        ),
        (
            [web(&token), sts_at(&failing)].concat(),
            format!("AWS gives no credentials for region us-east-1 (InvalidIdentityTokenException): {no_issuer}"),
        ),
        (
            web("/nowhere/token"),
            "the AWS credentials for region us-east-1 cannot be obtained: AWS_WEB_IDENTITY_TOKEN_FILE names '/nowhere/token': No such file \
             or directory (os error 2)"
                .into(),
        ),
        (
            [profile("reader"), sts_at("http://127.0.0.1:9")].concat(),
            "the AWS credentials for region us-east-1 could not be obtained: 127.0.0.1:9 was not reached: Connection refused (os error 111)"
                .into(),
        ),
        (
            [profile("reader"), sts_at(&throttling)].concat(),
            "the AWS credentials for region us-east-1 could not be obtained (Throttling): Rate exceeded".into(),
        ),
        (
            profile("command"),
            "the AWS credentials for region us-east-1 cannot be obtained: Error retrieving credentials: external process exited with code \
             exit status: 3. Stderr: the vault is closed"
                .into(),
        ),
    ] {
        assert_eq!(told(&environment), sentence);
    }
}

/// What passes by itself is not told as a refusal.
#[test]
fn an_sts_that_is_away_is_unavailable() {
    let folder = TempDir::new().expect("a folder");
    let profiles = folder.path().join("config").display().to_string();
    fs::write(&profiles, PROFILES).expect("a file");
    let denying =
        sts("403 Forbidden", "AccessDenied", "User: u is not authorized to perform: sts:AssumeRole on resource: r");
    for (url, status, code) in [("http://127.0.0.1:9", 503, "unavailable"), (&*denying, 400, "access_denied")] {
        let environment =
            [&NO_KEYS[..], &[("AWS_CONFIG_FILE", &profiles), ("AWS_PROFILE", "reader"), ("AWS_ENDPOINT_URL_STS", url)]];
        let bridge = bridge_in("err_sts", &[], &environment.concat());
        let answer = get(&bridge, "/v1/streams");
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(answer.text().contains(&format!("\"error\":\"{code}\"")), "{}", answer.text());
    }
}
