//! A bridge that is running, asked over HTTP as anyone else would.

use std::time::Duration;

use domain::interface::Route;
use domain::limits::{BRIDGE_ANSWER_BYTES, BRIDGE_ANSWERS};
use domain::secret::Secret;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Where a bridge listens, and what it is asked with.
pub struct RunningBridge {
    client: Client<HttpConnector, Empty<&'static [u8]>>,
    url: String,
    token: Option<Secret>,
}

/// Why there is no answer that could be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Nothing answers.
    Dead(String),
    /// It answers with an error: its status, and its sentence.
    Said(u16, String),
}

impl Refused {
    /// The reason.
    pub fn why(&self) -> &str {
        match self {
            Refused::Dead(why) | Refused::Said(_, why) => why,
        }
    }
}

/// A row of `GET /v1/workers`.
#[derive(Clone, Debug, Deserialize)]
pub struct WorkerRow {
    /// Worker id.
    pub worker_id: String,
    /// Where it listens.
    pub address: String,
    /// Version of the program.
    pub version: String,
    /// How many leases it has.
    pub leases: u64,
    /// 1 if its heartbeat moves.
    pub alive: u8,
}

/// A row of `GET /v1/pipes`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ShardRow {
    /// The pipe.
    pub pipe: String,
    /// The shard.
    pub shard_id: String,
    /// What it is doing.
    pub state: String,
    /// How far reading is behind, ms.
    pub millis_behind_latest: Option<i64>,
    /// The last error of shard or pipe; empty: none.
    pub last_error: String,
    /// What may be missing below the pipe's table; empty: nothing.
    pub warning: String,
}

/// The body of an error.
#[derive(Deserialize)]
struct Said {
    message: String,
}

impl RunningBridge {
    /// Nothing is sent yet. `url` is `http://host:port`.
    pub fn new(url: &str, token: Option<Secret>) -> RunningBridge {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(BRIDGE_ANSWERS));
        let client = Client::builder(TokioExecutor::new()).build(connector);
        RunningBridge { client, url: url.to_owned(), token }
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether the process answers.
    pub async fn lives(&self) -> Result<(), Refused> {
        self.get(Route::Healthz).await.map(drop)
    }

    /// Whether it can reach its state.
    pub async fn ready(&self) -> Result<(), Refused> {
        self.get(Route::Readyz).await.map(drop)
    }

    /// The bridges that share its state, as it sees them.
    pub async fn workers(&self) -> Result<Vec<WorkerRow>, Refused> {
        self.rows(Route::Workers).await
    }

    /// The shards of all pipes, as it sees them.
    pub async fn shards(&self) -> Result<Vec<ShardRow>, Refused> {
        self.rows(Route::Pipes).await
    }

    async fn rows<T: DeserializeOwned>(&self, route: Route) -> Result<Vec<T>, Refused> {
        let body = self.get(route).await?;
        let rows = body.lines().map(serde_json::from_str).collect::<Result<Vec<T>, _>>();
        rows.map_err(|why| {
            Refused::Dead(format!("{} is not a bridge of this version: {}: {why}", self.url, route.path()))
        })
    }

    async fn get(&self, route: Route) -> Result<String, Refused> {
        let dead = |why: String| Refused::Dead(why);
        let mut request = hyper::Request::get(format!("{}{}", self.url, route.path()));
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {}", token.expose()));
        }
        let request = request.body(Empty::new()).map_err(|why| dead(why.to_string()))?;
        let answer = async {
            let response = self.client.request(request).await.map_err(|why| innermost(&why))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), BRIDGE_ANSWER_BYTES).collect().await;
            let body = body.map_err(|why| why.to_string())?.to_bytes();
            Ok::<_, String>((status, String::from_utf8_lossy(&body).into_owned()))
        };
        match within(BRIDGE_ANSWERS, answer).await.map_err(dead)? {
            (status, body) if status.is_success() => Ok(body),
            (status, body) => {
                let message = serde_json::from_str(&body).map_or(body, |said: Said| said.message);
                Err(Refused::Said(status.as_u16(), message))
            }
        }
    }
}

async fn within<T>(time: Duration, work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let late = |_| format!("no answer within {} s", time.as_secs());
    tokio::time::timeout(time, work).await.map_err(late)?
}

/// The last cause of an error: the operating system's reason.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}
