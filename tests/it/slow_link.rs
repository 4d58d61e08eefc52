//! A link between the bridge and Kinesis that is so slow that the first responses would take longer
//! than a call may.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

use crate::world::{bridge_in, create_pipe, create_stream, drop_pipe, get, put, runtime, sql, stack, wait_until};

/// 32 Mbit/s.
const BYTES_PER_SECOND: f64 = 4e6;
const SHARDS: i32 = 4;
const RECORDS: usize = 4_400;
const RECORD_BYTES: usize = 10_000;

/// Forwards to a port on this machine, all connections together no faster than the link.
struct Link {
    port: u16,
    moved: Arc<AtomicU64>,
}

impl Link {
    fn start(target: u16) -> Link {
        let listener = runtime().block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let (moved, free) = (Arc::<AtomicU64>::default(), Arc::new(Mutex::new(Instant::now())));
        let counted = moved.clone();
        runtime().spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, target, counted.clone(), free.clone()));
            }
        });
        Link { port, moved }
    }

    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Bytes that came from Kinesis, per byte of data.
    fn moved(&self) -> f64 {
        self.moved.load(Ordering::Relaxed) as f64 / (RECORDS * RECORD_BYTES) as f64
    }
}

async fn forward(client: TcpStream, target: u16, moved: Arc<AtomicU64>, free: Arc<Mutex<Instant>>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let requests = tokio::spawn(async move { copy(&mut from_client, &mut to_server).await });
    let mut piece = vec![0; 1 << 14];
    while let Ok(n @ 1..) = from_server.read(&mut piece).await {
        let until = {
            let mut free = free.lock().await;
            *free = (*free).max(Instant::now()) + Duration::from_secs_f64(n as f64 / BYTES_PER_SECOND);
            *free
        };
        sleep_until(until).await;
        moved.fetch_add(n as u64, Ordering::Relaxed);
        if to_client.write_all(&piece[..n]).await.is_err() {
            break;
        }
    }
    requests.abort();
}

fn port_of(endpoint: &str) -> u16 {
    endpoint.rsplit_once(':').and_then(|(_, port)| port.trim_end_matches('/').parse().ok()).expect("a port")
}

/// Everything arrives, by a pipe, by a bounded read, and again after a restart, and most of it is
/// moved only once each time.
#[test]
fn large_records_flow_over_a_slow_link() {
    create_stream("slow-link", SHARDS);
    put("slow-link", (0..RECORDS).map(|n| (format!("k-{n}"), vec![b'x'; RECORD_BYTES])));
    let link = Link::start(port_of(&stack().kinesis.endpoint()));
    let environment = [("AWS_ENDPOINT_URL", &*link.endpoint())];
    let bridge = bridge_in("slow_link", &[], &environment);
    create_pipe(&bridge, "slow_link", "stream=slow-link&view=default.slow_link_view");
    wait_until("the pipe's rows", || sql("SELECT count() FROM slow_link") == format!("{RECORDS}\n"));
    drop_pipe("slow_link");
    // Base64 makes 4/3 of it.
    assert!(link.moved() < 2.0, "{} bytes per byte", link.moved());

    let before = link.moved();
    let read = format!("url('{}/v1/streams/slow-link/records', 'ArrowStream', '_key String')", bridge.url());
    assert_eq!(sql(&format!("SELECT uniqExact(_key) FROM {read} SETTINGS http_max_tries = 1")), format!("{RECORDS}\n"));
    assert!(link.moved() - before < 2.0, "{} bytes per byte", link.moved() - before);

    let pull = "/v1/pipes/slow_again/next?stream=slow-link&ack=explicit&format=JSONEachRow&linger_ms=12000";
    let offered = get(&bridge, pull);
    assert!(offered.rows().len() > 500, "{} rows", offered.rows().len());
    drop(bridge);
    let bridge = bridge_in("slow_link", &[], &environment);
    let mut again = None;
    wait_until("the same batch", || {
        let answer = get(&bridge, pull);
        let served = answer.status == 200 && !answer.body.is_empty();
        again = Some(answer);
        served
    });
    assert!(again.is_some_and(|again| again.body == offered.body), "not the batch that was offered");
}
