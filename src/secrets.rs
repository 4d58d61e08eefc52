//! The secrets of a running bridge, which SIGHUP reads again.

use std::net::SocketAddr;

use adapters::clickhouse::ClickHouse;
use config::{Config, SecretFiles};
use domain::secret::Tokens;
use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tracing::{error, info, warn};

/// Where secrets come from, and who uses them.
pub struct Secrets {
    files: SecretFiles,
    tokens: watch::Sender<Option<Tokens>>,
    clickhouse: ClickHouse,
}

impl Secrets {
    /// The secrets that the program was started with.
    pub fn new(config: &Config, clickhouse: ClickHouse) -> Secrets {
        Secrets { files: config.files.clone(), tokens: watch::Sender::new(config.token.clone()), clickhouse }
    }

    /// The tokens now and whenever they change.
    pub fn tokens(&self) -> watch::Receiver<Option<Tokens>> {
        self.tokens.subscribe()
    }

    /// Logs which secrets are not kept well.
    pub fn warn(&self, address: SocketAddr) {
        if self.tokens.borrow().is_none() && !address.ip().to_canonical().is_loopback() {
            warn!(
                "the bridge listens on {address} without a token: whoever can reach this address can read the streams and move pipes; set \
                 --token-file, or listen on 127.0.0.1"
            );
        }
        for (flag, file) in self.files.exposed() {
            warn!(
                "every user of this machine can read {file}, the file of {flag}: take that permission away, as with chmod o-r"
            );
        }
    }

    /// Reads the files again at each signal. Does not return.
    pub async fn read_again_on(&self, signal: &mut Signal) {
        while signal.recv().await.is_some() {
            self.read_again();
        }
        // There are no more signals.
        std::future::pending().await
    }

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
