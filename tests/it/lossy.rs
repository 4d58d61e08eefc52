//! A TCP proxy that loses one request or one response on demand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Forwards to a port on this machine.
pub struct Proxy {
    port: u16,
    lose: Arc<Lose>,
}

/// How many pieces pass before one is lost, plus one; 0 to lose nothing.
#[derive(Default)]
struct Lose {
    request: AtomicU32,
    answer: AtomicU32,
}

impl Proxy {
    /// Listens on a free port for as long as the runtime lives.
    pub async fn start(target: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let lose = Arc::new(Lose::default());
        let losing = Arc::clone(&lose);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, target, Arc::clone(&losing)));
            }
        });
        Proxy { port, lose }
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address for an HTTP client.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Closes the connection instead of forwarding the nth request from now.
    pub fn lose_request(&self, nth: u32) {
        self.lose.request.store(nth, Ordering::SeqCst);
    }

    /// Closes the connection when the nth response from now arrives.
    pub fn lose_answer(&self, nth: u32) {
        self.lose.answer.store(nth, Ordering::SeqCst);
    }

    /// Whether the piece has been lost.
    pub fn lost(&self) -> bool {
        self.lose.request.load(Ordering::SeqCst) == 0 && self.lose.answer.load(Ordering::SeqCst) == 0
    }

    /// Loses nothing from now on.
    pub fn heal(&self) {
        self.lose_request(0);
        self.lose_answer(0);
    }
}

async fn forward(mut client: TcpStream, target: u16, lose: Arc<Lose>) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    let (mut request, mut answer) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let loses = |left: &AtomicU32| left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)) == Ok(1);
    loop {
        tokio::select! {
            Ok(n @ 1..) = client.read(&mut request) => {
                if loses(&lose.request) || server.write_all(&request[..n]).await.is_err() {
                    return;
                }
            }
            Ok(n @ 1..) = server.read(&mut answer) => {
                if loses(&lose.answer) || client.write_all(&answer[..n]).await.is_err() {
                    return;
                }
            }
            else => return,
        }
    }
}
