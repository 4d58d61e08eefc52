//! The files with secrets. They can be read again while the program runs.

use std::os::unix::fs::PermissionsExt;

use domain::limits::MIN_TOKEN;
use domain::secret::{Secret, Tokens};

/// Paths as they were given; an empty one counts as not given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretFiles {
    /// `--token-file`
    pub token: String,
    /// `--clickhouse-password-file`
    pub password: String,
}

impl SecretFiles {
    /// Reads the bearer tokens, if there is a file. The error continues the name of the flag.
    pub fn token(&self) -> Option<Result<Tokens, String>> {
        (!self.token.is_empty()).then(|| tokens(&self.token))
    }

    /// Reads ClickHouse's password, if there is a file. The error continues the name of the flag.
    pub fn password(&self) -> Option<Result<Secret, String>> {
        (!self.password.is_empty()).then(|| match &lines(&self.password)?[..] {
            [line] if !line.contains(char::is_control) => Ok(Secret::from(line.clone())),
            _ => Err(format!("names '{}', which must contain exactly one line", self.password)),
        })
    }

    /// The flags whose files every user of the machine may read, and these files.
    pub fn exposed(&self) -> Vec<(&'static str, &str)> {
        let all = [("--token-file", &*self.token), ("--clickhouse-password-file", &*self.password)];
        let everyone = |path: &str| std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o004 != 0);
        all.into_iter().filter(|(_, path)| !path.is_empty() && everyone(path)).collect()
    }
}

fn tokens(file: &str) -> Result<Tokens, String> {
    let lines = lines(file)?;
    let (current, previous) = match &lines[..] {
        [only] if only.is_empty() => return Err(format!("names '{file}', which is empty: it must contain a token")),
        [current] => (current, None),
        [current, previous] => (current, Some(previous)),
        _ => {
            return Err(format!(
                "names '{file}', which must contain one line with the token, and while it is being changed a second one with the token before"
            ));
        }
    };
    for token in [Some(current), previous].into_iter().flatten() {
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!(
                "names '{file}', whose token has characters that an HTTP header cannot contain: use letters, digits and punctuation"
            ));
        }
        if token.len() < MIN_TOKEN {
            return Err(format!(
                "names '{file}', which has a token of fewer than {MIN_TOKEN} characters, which can be guessed: create one with \
                 `openssl rand -hex 32`"
            ));
        }
    }
    let secret = |token: &String| Secret::from(token.clone());
    Ok(Tokens { current: secret(current), previous: previous.map(secret) })
}

/// The lines of a file, at least one.
fn lines(file: &str) -> Result<Vec<String>, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("names '{file}', which cannot be read: {e}"))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line).to_owned()).collect())
}
