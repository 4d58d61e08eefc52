//! The secrets of a running bridge, which SIGHUP reads again.

use std::net::SocketAddr;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::error::{ProgramError, cannot};
use adapters::clickhouse::ClickHouse;
use bridge::http::guard::Guard;
use config::{Config, SecretFiles};
use domain::secret::Tokens;

/// Where secrets come from, and who uses them.
struct Secrets {
    files: SecretFiles,
    tokens: watch::Sender<Option<Tokens>>,
    clickhouse: ClickHouse,
}

/// The guard of a bridge that listens on `address`. Logs which secrets are not kept well, and reads
/// them again at each SIGHUP.
pub fn guard(config: &Config, clickhouse: &ClickHouse, address: SocketAddr) -> Result<Guard, ProgramError> {
    let mut hangup = signal(SignalKind::hangup()).map_err(cannot("handle SIGHUP"))?;
    let (tokens, read) = watch::channel(config.token.clone());
    let loopback = address.ip().to_canonical().is_loopback();
    if config.token.is_none() && !loopback {
        warn!(
            "the bridge listens on {address} without a token: whoever can reach this address can read the streams and move pipes; set \
             --token-file, or listen on 127.0.0.1"
        );
    }
    for (flag, file) in config.files.exposed() {
        warn!(
            "every user of this machine can read {file}, the file of {flag}: take that permission away, as with chmod o-r"
        );
    }
    let secrets = Secrets { files: config.files.clone(), tokens, clickhouse: clickhouse.clone() };
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            secrets.read_again();
        }
    });
    Ok(Guard { tokens: read, loopback, machine: config::machine() })
}

impl Secrets {
    fn read_again(&self) {
        let kept = |flag: &str, why: String| error!("SIGHUP: {flag} {why}; the bridge keeps what it read before");
        let (token, password) = (self.files.token(), self.files.password());
        if token.is_none() && password.is_none() {
            info!("SIGHUP: there is neither a --token-file nor a --clickhouse-password-file to read again");
        }
        match token {
            Some(Ok(tokens)) => {
                let accepted =
                    if tokens.previous.is_some() { "two tokens are accepted" } else { "one token is accepted" };
                info!("SIGHUP: --token-file was read again: {accepted}");
                self.tokens.send_replace(Some(tokens));
            }
            Some(Err(why)) => kept("--token-file", why),
            None => {}
        }
        match password {
            Some(Ok(password)) => {
                self.clickhouse.change_password(password.expose());
                info!("SIGHUP: --clickhouse-password-file was read again");
            }
            Some(Err(why)) => kept("--clickhouse-password-file", why),
            None => {}
        }
    }
}
