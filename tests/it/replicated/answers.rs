//! A ClickHouse that loses its responses to `SYSTEM WAIT VIEW`: a relay between a bridge and its
//! server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::world::{block_on, runtime};

const WAIT: &[u8] = b"SYSTEM WAIT VIEW";

/// A running relay. It ends when it is dropped.
pub struct Answers {
    port: u16,
    held: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Answers {
    /// A relay to `target`, a URL, that passes everything on.
    pub fn start(target: &str) -> Answers {
        let port = stack::free_port().expect("a port");
        let listener = block_on(TcpListener::bind(("127.0.0.1", port))).expect("a listener");
        let held = Arc::new(AtomicBool::new(false));
        let (target, hold) = (target.trim_start_matches("http://").to_owned(), held.clone());
        let task = runtime().spawn(async move {
            // Dropped with the task, which ends all connections.
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (near, _) = listener.accept().await.expect("a connection");
                let (target, hold) = (target.clone(), hold.clone());
                connections.spawn(async move { pass(near, &target, &hold).await });
            }
        });
        Answers { port, held, task }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on no statement that waits for a view gets a response, including those in flight.
    pub fn hold(&self) {
        self.held.store(true, Ordering::SeqCst);
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Passes on data in both directions, until one side ends.
async fn pass(near: TcpStream, target: &str, held: &AtomicBool) -> std::io::Result<()> {
    let (mut asks, mut answers) = near.into_split();
    let (mut far_answers, mut far_asks) = TcpStream::connect(target).await?.into_split();
    let (waits, answered) = (AtomicBool::new(false), AtomicBool::new(false));
    let there = async {
        let (mut buffer, mut seen) = (vec![0; 64 << 10], Vec::new());
        loop {
            let read = asks.read(&mut buffer).await?;
            if read == 0 {
                return far_asks.shutdown().await;
            }
            // A statement may arrive in pieces; once it has its response, the connection is used
            // for another.
            if answered.swap(false, Ordering::SeqCst) {
                seen.clear();
            }
            seen.extend_from_slice(&buffer[..read]);
            waits.store(seen.windows(WAIT.len()).any(|part| part == WAIT), Ordering::SeqCst);
            far_asks.write_all(&buffer[..read]).await?;
        }
    };
    let back = async {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = far_answers.read(&mut buffer).await?;
            if held.load(Ordering::SeqCst) && waits.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            if read == 0 {
                return answers.shutdown().await;
            }
            answered.store(true, Ordering::SeqCst);
            answers.write_all(&buffer[..read]).await?;
        }
    };
    tokio::try_join!(there, back).map(drop)
}
