//! A real browser on a hostile page.

use std::convert::Infallible;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use stack::Bridge;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::world::*;

const SECRET: &str = "payload-that-no-page-may-read";

/// The server of a hostile page. What the page finds out it sends back here.
struct Hostile {
    port: u16,
    told: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Hostile {
    fn start(page: String) -> Hostile {
        let listener = runtime().block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let told = Arc::new(Mutex::new(Vec::new()));
        let (page, shared) = (Bytes::from(page), told.clone());
        let task = runtime().spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let (page, told) = (page.clone(), shared.clone());
                let service = service_fn(move |request| answer(request, page.clone(), told.clone()));
                let http = hyper::server::conn::http1::Builder::new();
                tokio::spawn(http.serve_connection(TokioIo::new(connection), service));
            }
        });
        Hostile { port, told, task }
    }

    fn told(&self) -> Vec<String> {
        self.told.lock().expect("no panic").clone()
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    request: Request<Incoming>,
    page: Bytes,
    told: Arc<Mutex<Vec<String>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() == Method::POST {
        let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        told.lock().expect("no panic").push(String::from_utf8_lossy(&body).into_owned());
        return Ok(Response::new(Full::default()));
    }
    let mut response = Response::new(Full::new(page));
    response.headers_mut().insert("content-type", "text/html".parse().expect("a type"));
    Ok(response)
}

/// A running Chromium, in which all names below `.test` are this machine.
struct Chromium(Child);

impl Chromium {
    fn command(profile: &Path, url: &str) -> Command {
        let mut command = Command::new("chromium");
        // Tests run as root, for whom Chromium has no sandbox.
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server"]);
        command.args(["--no-first-run", "--disable-background-networking", "--disable-component-update"]);
        command.arg("--host-resolver-rules=MAP *.test 127.0.0.1");
        command.arg(format!("--user-data-dir={}", profile.display()));
        command.arg(url);
        command
    }

    fn visit(profile: &Path, url: &str) -> Chromium {
        let mut command = Chromium::command(profile, url);
        // With this it stays after the page has been loaded.
        command.arg("--remote-debugging-port=0");
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Chromium(command.spawn().expect("Chromium, which scripts/install.sh installs"))
    }

    /// What the browser shows of a page.
    fn shown(profile: &Path, url: &str) -> String {
        let mut command = Chromium::command(profile, "--dump-dom");
        let output = command.arg(url).output().expect("Chromium, which scripts/install.sh installs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A page that tries all that a page can.
fn page(bridge: &Bridge) -> String {
    include_str!("hostile.html").replace("{bridge}", &bridge.url())
}

#[test]
fn a_hostile_page_changes_and_reads_nothing() {
    create_stream("str-page", 1);
    put_numbered("str-page", SECRET, 20);
    let bridge = bridge("str_page", &[]);
    wait_until("readiness", || get(&bridge, "/readyz").status == 200);
    let pull = "/v1/pipes/str_page/next?stream=str-page&ack=explicit&format=JSONEachRow&linger_ms=0&max_rows=5";
    let batch = get(&bridge, pull).rows();
    assert!(!batch.is_empty());
    let rows = || sql("SELECT *, _version FROM str_page.leases ORDER BY key");
    let before = rows();

    let hostile = Hostile::start(page(&bridge));
    let profile = tempfile::tempdir().expect("a folder");
    // Another site, and another port of the same one.
    for host in ["hostile.test", "127.0.0.1", "localhost"] {
        let so_far = hostile.told().len();
        let _chromium = Chromium::visit(&profile.path().join(host), &format!("http://{host}:{}/", hostile.port));
        wait_until("the page's end", || hostile.told()[so_far..].iter().any(|told| told.contains("done")));
        let told = &hostile.told()[so_far..];
        eprintln!("{host}: {told:#?}");
        assert!(told.len() > 10, "{told:?}");
        assert!(!told.iter().any(|told| told.contains(SECRET)), "{told:?}");
    }
    let refused = metric(&bridge, "kinesis_bridge_http_refused_total{reason=\"page\"}").expect("the metric");
    eprintln!("{refused} requests of pages were refused");
    assert!(refused >= 3.0 * 8.0, "the page reached the bridge only {refused} times");
    assert_eq!(rows(), before, "nothing was moved, ended or started");
    assert_eq!(get(&bridge, pull).rows(), batch, "the open batch is the same");

    // A name of the attacker's that points at this machine now: to the browser the bridge is of the
    // page's own origin.
    let port = bridge.address().rsplit(':').next().expect("a port");
    let shown = |host: &str| Chromium::shown(&profile.path().join("shown"), &format!("http://{host}:{port}/metrics"));
    let rebound = shown("rebound.test");
    assert!(rebound.contains("does not answer requests for the host 'rebound.test"), "{rebound}");
    assert!(!rebound.contains("kinesis_bridge_"), "{rebound}");
    // Who types the right address sees it.
    let own = shown("127.0.0.1");
    assert!(own.contains("kinesis_bridge_http_refused_total{reason=\"host\"} "), "{own}");
}
