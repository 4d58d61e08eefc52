//! A thin client over the official `clickhouse` crate: SQL text in, rows as JSON out.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use clickhouse::Client;
use clickhouse::query::Query;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::error::{ClickHouseError, Kind};
use super::settings::SETTINGS;
use domain::error::Error;
use domain::limits::{CLICKHOUSE_CONNECT_TIMEOUT, CLICKHOUSE_POOL_IDLE, CLICKHOUSE_TIMEOUT};

/// The client name in ClickHouse's query log.
const PRODUCT: &str = "clickhouse-kinesis-bridge";

/// One ClickHouse server, over HTTP, as one user. Connections are kept open and reused; each is
/// used by one statement at a time.
#[derive(Clone)]
pub struct ClickHouse {
    /// Shared by all clones, so that a new password reaches them all.
    client: Arc<watch::Sender<Client>>,
    server: String,
    user: String,
    patience: Duration,
}

impl ClickHouse {
    /// Connects lazily: nothing is sent before the first statement. `url` is `http://host:port` or
    /// `https://host:port`.
    pub fn new(url: &str, user: &str, password: &str) -> ClickHouse {
        // The crate's own transport loads the system's certificates and panics if there are none,
        // as in a minimal container; plain HTTP needs none. It also leaves Nagle's algorithm on.
        let client = if url.starts_with("https://") { Client::default() } else { plain_http() };
        let client = client
            .with_url(url)
            .with_user(user)
            .with_password(password)
            .with_product_info(PRODUCT, env!("CARGO_PKG_VERSION"));
        let client = SETTINGS.into_iter().fold(client, |client, (name, value)| client.with_setting(name, value));
        let client = Arc::new(watch::Sender::new(client));
        ClickHouse { client, server: without_credentials(url), user: user.into(), patience: CLICKHOUSE_TIMEOUT }
    }

    /// Waits this long for each response, instead of [`CLICKHOUSE_TIMEOUT`].
    pub fn with_patience(self, patience: Duration) -> ClickHouse {
        ClickHouse { patience, ..self }
    }

    /// From the next statement on, this and all clones of it log in with another password.
    pub fn change_password(&self, password: &str) {
        self.client.send_modify(|client| *client = client.clone().with_password(password));
    }

    /// The address, without credentials, for messages.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The user-facing message for an error of this server.
    pub fn explain(&self, error: &ClickHouseError) -> String {
        error.sentence(&self.server, &self.user)
    }

    /// The same for a statement unrelated to the bridge's own tables.
    pub fn explain_foreign(&self, error: &ClickHouseError) -> String {
        match error.kind() {
            Kind::Schema => format!("ClickHouse at {} reports: {}", self.server, error.message),
            _ => self.explain(error),
        }
    }

    /// The error of such a statement for its sender.
    pub(super) fn foreign(&self, error: &ClickHouseError) -> Error {
        error.kind().error(self.explain_foreign(error))
    }

    fn query(&self, sql: &str) -> Query {
        self.client.borrow().query_raw(sql)
    }

    /// Runs a statement that returns no rows, for at most [`CLICKHOUSE_TIMEOUT`] unless a longer
    /// timeout was set. After a transport error it may have been executed.
    pub async fn execute(&self, sql: &str) -> Result<(), ClickHouseError> {
        self.execute_with(sql, &[]).await
    }

    /// Like [`ClickHouse::execute`], with settings that must be known before the statement is
    /// parsed.
    pub async fn execute_with(&self, sql: &str, settings: &[(&str, &str)]) -> Result<(), ClickHouseError> {
        let mut query = self.query(sql);
        for (name, value) in settings {
            query = query.with_setting(*name, *value);
        }
        within(self.patience, async { Ok(query.execute().await?) }).await
    }

    /// Runs a statement for as long as it takes.
    pub async fn execute_patiently(&self, sql: &str) -> Result<(), ClickHouseError> {
        Ok(self.query(sql).execute().await?)
    }

    /// The rows of a SELECT (without FORMAT), as one line of JSON each.
    pub async fn json_lines(&self, sql: &str) -> Result<Vec<String>, ClickHouseError> {
        let query = self.query(sql);
        let body = within(self.patience, async { Ok(query.fetch_bytes("JSONEachRow")?.collect().await?) }).await?;
        // A String column may hold any bytes; a row that is not UTF-8 must not hide the others.
        Ok(String::from_utf8_lossy(&body).lines().filter(|line| !line.is_empty()).map(String::from).collect())
    }

    /// The rows of a SELECT (without FORMAT) as text in one of ClickHouse's formats, with settings
    /// that must be known before the statement is parsed.
    pub async fn text(&self, sql: &str, format: &str, settings: &[(&str, &str)]) -> Result<String, ClickHouseError> {
        let mut query = self.query(sql);
        for (name, value) in settings {
            query = query.with_setting(*name, *value);
        }
        let body = within(self.patience, async { Ok(query.fetch_bytes(format)?.collect().await?) }).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// Passes on the lines of a response one by one as they arrive, however many there are;
    /// `silence` is the longest time without data.
    pub async fn each_line(
        &self,
        sql: &str,
        format: &str,
        settings: &[(&str, &str)],
        silence: Duration,
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), ClickHouseError> {
        let mut query = self.query(sql);
        for (name, value) in settings {
            query = query.with_setting(*name, *value);
        }
        let mut answer = query.fetch_bytes(format)?;
        // The start of a line that continues in the next piece.
        let mut begun: Vec<u8> = Vec::new();
        while let Some(piece) = within(silence, async { Ok(answer.next().await?) }).await? {
            let mut lines = piece.split(|byte| *byte == b'\n');
            let last = lines.next_back().unwrap_or_default();
            for line in lines {
                begun.extend_from_slice(line);
                take(&begun);
                begun.clear();
            }
            begun.extend_from_slice(last);
        }
        if !begun.is_empty() {
            take(&begun);
        }
        Ok(())
    }

    /// The rows of a SELECT (without FORMAT).
    pub async fn rows<T: DeserializeOwned>(&self, sql: &str) -> Result<Vec<T>, ClickHouseError> {
        let lines = self.json_lines(sql).await?;
        let parsed = lines.iter().map(|line| serde_json::from_str(line)).collect::<Result<Vec<T>, _>>();
        parsed.map_err(|e| ClickHouseError::transport(format!("a response that cannot be parsed: {e}")))
    }
}

impl fmt::Debug for ClickHouse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClickHouse").field("server", &self.server).field("user", &self.user).finish_non_exhaustive()
    }
}

fn plain_http() -> Client {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_keepalive(Some(CLICKHOUSE_TIMEOUT));
    connector.set_connect_timeout(Some(CLICKHOUSE_CONNECT_TIMEOUT));
    let pool = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .pool_idle_timeout(CLICKHOUSE_POOL_IDLE)
        .build(connector);
    Client::with_http_client(pool)
}

async fn within<T>(
    time: Duration,
    statement: impl Future<Output = Result<T, ClickHouseError>>,
) -> Result<T, ClickHouseError> {
    match tokio::time::timeout(time, statement).await {
        Ok(result) => result,
        Err(_) => Err(ClickHouseError::late(time)),
    }
}

/// `http://user:secret@host:1/path` becomes `http://host:1`.
fn without_credentials(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_statement_without_an_answer_may_be_keepers_fault() {
        let never = within(CLICKHOUSE_TIMEOUT, std::future::pending::<Result<(), ClickHouseError>>()).await;
        let told = ClickHouse::new("http://ch:8123", "u", "").explain(&never.expect_err("no answer"));
        let begins = format!("ClickHouse at http://ch:8123 did not answer within {} s", CLICKHOUSE_TIMEOUT.as_secs());
        assert!(told.starts_with(&begins) && told.contains("Keeper"), "{told}");
    }

    #[test]
    fn no_password_in_messages() {
        assert_eq!(without_credentials("http://u:p@ss@ch:8123/x?password=p"), "http://ch:8123");
        assert_eq!(without_credentials("ch:8123"), "http://ch:8123");
        let clickhouse = ClickHouse::new("http://u:secret@ch:8123", "u", "secret");
        let error = ClickHouseError::parse("Code: 516. DB::Exception: u: Authentication failed");
        assert!(!format!("{clickhouse:?} {}", clickhouse.explain(&error)).contains("secret"));
    }
}
