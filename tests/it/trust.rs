//! AWS over TLS: certificates of an authority of one's own, and proxies.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::errors::command_line::{run, stderr};
use crate::world::{bridge_in, create_pipe, create_stream, drop_pipe, put_numbered, runtime, sql, stack, wait_until};

/// An authority that no system knows, with a certificate for `localhost` and `kinesis.test`.
struct Authority {
    folder: TempDir,
}

impl Authority {
    fn new() -> Authority {
        let folder = TempDir::new().expect("a folder");
        let openssl = |arguments: &str| {
            let output = Command::new("openssl").args(arguments.split(' ')).current_dir(&folder).output();
            let output = output.expect("openssl");
            assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        };
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
        openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=Authority-of-a-test"));
        openssl(&format!("req {key} -keyout server.key -out server.csr -subj /CN=localhost"));
        fs::write(folder.path().join("names"), "subjectAltName=DNS:localhost,DNS:kinesis.test\n").expect("the names");
        openssl(
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.pem",
        );
        Authority { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn bundle(&self) -> String {
        self.path("ca.pem").display().to_string()
    }
}

/// Servers of a test on 127.0.0.1. They end when it is dropped.
struct Server {
    port: u16,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    fn start<F: Future<Output = Option<()>> + Send + 'static>(
        serve: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> Server {
        let listener = runtime().block_on(TcpListener::bind("127.0.0.1:0")).expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        let connections = Arc::<AtomicUsize>::default();
        let counted = connections.clone();
        let task = runtime().spawn(async move {
            // Dropped with the task, which ends all connections.
            let mut serving = tokio::task::JoinSet::new();
            loop {
                let (connection, _) = listener.accept().await.expect("a connection");
                counted.fetch_add(1, Ordering::Relaxed);
                serving.spawn(serve(connection));
            }
        });
        Server { port, connections, task }
    }

    /// Takes TLS off, and passes everything on to `upstream`.
    fn tls(authority: &Authority, upstream: &str) -> Server {
        let certificates = CertificateDer::pem_file_iter(authority.path("server.pem")).expect("a file");
        let certificates = certificates.collect::<Result<Vec<_>, _>>().expect("certificates");
        let key = PrivateKeyDer::from_pem_file(authority.path("server.key")).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("versions").with_no_client_auth().with_single_cert(certificates, key);
        let acceptor = TlsAcceptor::from(Arc::new(config.expect("a configuration")));
        let upstream = upstream.trim_start_matches("http://").to_owned();
        Server::start(move |near| {
            let (acceptor, upstream) = (acceptor.clone(), upstream.clone());
            async move {
                let mut near = acceptor.accept(near).await.ok()?;
                let mut far = TcpStream::connect(upstream).await.ok()?;
                copy_bidirectional(&mut near, &mut far).await.ok()?;
                Some(())
            }
        })
    }

    /// An HTTP proxy whose tunnels all lead to a port of this machine.
    fn proxy(to: u16) -> Server {
        Server::start(move |near| async move {
            let mut near = BufStream::new(near);
            let (mut line, mut first) = (String::new(), String::new());
            while near.read_line(&mut line).await.ok()? > 2 {
                first = if first.is_empty() { line.clone() } else { first };
                line.clear();
            }
            let answer = if first.starts_with("CONNECT kinesis.test:443 ") { "200 OK" } else { "403 Forbidden" };
            near.write_all(format!("HTTP/1.1 {answer}\r\n\r\n").as_bytes()).await.ok()?;
            near.flush().await.ok()?;
            let mut far = TcpStream::connect(("127.0.0.1", to)).await.ok()?;
            copy_bidirectional(&mut near, &mut far).await.ok()?;
            Some(())
        })
    }

    fn https(&self) -> String {
        format!("https://localhost:{}", self.port)
    }
}

/// What `check` says about AWS.
fn check(environment: &[(&str, &str)]) -> String {
    let output = run(&["check", "--state", "file:/nowhere"], environment);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.lines().find(|line| line[6..].starts_with("AWS")).expect(&said).to_owned()
}

fn assert_rows(name: &str, rows: usize) {
    wait_until("the rows", || sql(&format!("SELECT count() FROM {name}")) == format!("{rows}\n"));
}

fn profile(folder: &Path, bundle: &str) -> String {
    let path = folder.join("config");
    fs::write(&path, format!("[profile test]\nca_bundle = {bundle}\n")).expect("a profile");
    path.display().to_string()
}

#[test]
fn an_authority_of_ones_own_is_trusted() {
    let authority = Authority::new();
    let server = Server::tls(&authority, &stack().kinesis.endpoint());
    let (url, bundle) = (server.https(), authority.bundle());
    let endpoint = ("AWS_ENDPOINT_URL", &*url);
    let unknown = check(&[endpoint]);
    let start = format!(
        "FAIL  AWS in region us-east-1: ListStreams on region us-east-1 did not reach Kinesis at localhost:{}: invalid peer certificate: \
         UnknownIssuer; if it has a certificate of your own authority, name the file with the authority's certificates in AWS_CA_BUNDLE",
        server.port
    );
    assert_eq!(unknown, start);
    let trusted = check(&[endpoint, ("AWS_CA_BUNDLE", &bundle)]);
    assert!(trusted.starts_with("ok    AWS in region us-east-1: "), "{trusted}");
    let config = profile(authority.folder.path(), &bundle);
    let trusted = check(&[endpoint, ("AWS_CONFIG_FILE", &config), ("AWS_PROFILE", "test")]);
    assert!(trusted.starts_with("ok    AWS in region us-east-1: "), "{trusted}");

    // Polling, with and without the SDK, and fan-out.
    let bridge = bridge_in("trust", &[], &[endpoint, ("AWS_CA_BUNDLE", &bundle)]);
    for (name, mode) in [("trust_polling", "polling"), ("trust_efo", "efo")] {
        let stream = name.replace('_', "-");
        create_stream(&stream, 1);
        create_pipe(&bridge, name, &format!("stream={stream}&mode={mode}&view=default.{name}_view"));
        for round in 1..4 {
            put_numbered(&stream, &format!("r{round}"), 5);
            assert_rows(name, round * 5);
        }
        drop_pipe(name);
    }
}

#[test]
fn a_bundle_that_cannot_be_used_is_told_at_the_start() {
    let authority = Authority::new();
    fs::write(authority.path("empty.pem"), "# nothing\n").expect("a file");
    let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let whole = fs::read_to_string(authority.bundle()).expect("a bundle");
    fs::write(authority.path("damaged.pem"), whole + damaged).expect("a file");
    fs::write(authority.path("garbled.pem"), damaged.replace("AAAA", "?")).expect("a file");
    for (name, why) in [
        ("missing.pem", "No such file or directory (os error 2)"),
        (".", "Is a directory (os error 21)"),
        ("empty.pem", "there are none"),
        ("damaged.pem", "certificate 2: "),
        ("garbled.pem", "certificate 1: "),
    ] {
        let path = authority.path(name).display().to_string();
        let bundle = ("AWS_CA_BUNDLE", &*path);
        let sentence = format!(
            "the certificates in '{path}' (AWS_CA_BUNDLE, or ca_bundle in the AWS profile) cannot be used: {why}"
        );
        let found = check(&[bundle]);
        assert!(found.starts_with(&format!("FAIL  AWS: {sentence}")), "{found}");
        let output = run(&["serve", "--listen", "127.0.0.1:0"], &[bundle]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).starts_with(&format!("error: {sentence}")), "{}", stderr(&output));
    }
}

/// The name exists only at the proxy.
#[test]
fn aws_is_reached_through_a_proxy() {
    let authority = Authority::new();
    let server = Server::tls(&authority, &stack().kinesis.endpoint());
    let proxy = Server::proxy(server.port);
    let (url, bundle) = (format!("http://me:not-for-eyes@127.0.0.1:{}", proxy.port), authority.bundle());
    let kinesis = ("AWS_ENDPOINT_URL", "https://kinesis.test");
    let through = [kinesis, ("AWS_CA_BUNDLE", &bundle), ("HTTPS_PROXY", &url), ("NO_PROXY", "127.0.0.1,localhost")];
    create_stream("trust-proxy", 1);
    let bridge = bridge_in("trust_proxy", &[], &through);
    create_pipe(&bridge, "trust_proxy", "stream=trust-proxy&view=default.trust_proxy_view");
    for round in 1..4 {
        put_numbered("trust-proxy", &format!("r{round}"), 5);
        assert_rows("trust_proxy", round * 5);
    }
    assert!(proxy.connections.load(Ordering::Relaxed) > 0);
    drop_pipe("trust_proxy");
    // One that does not answer is named, without its password.
    let away = check(&[kinesis, ("HTTPS_PROXY", "http://me:not-for-eyes@127.0.0.1:9")]);
    assert_eq!(
        away,
        "FAIL  AWS in region us-east-1: ListStreams on region us-east-1 did not reach Kinesis at kinesis.test through the proxy 127.0.0.1:9: \
         Connection refused (os error 111)"
    );
}

/// Which hosts are asked, as the message about a proxy that refuses them names them.
#[test]
fn endpoints_are_those_that_the_environment_asks_for() {
    let proxy = Server::proxy(9);
    let url = format!("http://127.0.0.1:{}", proxy.port);
    let (fips, dual) = (("AWS_USE_FIPS_ENDPOINT", "true"), ("AWS_USE_DUALSTACK_ENDPOINT", "true"));
    for (wanted, host) in [
        (vec![], "kinesis.us-east-1.amazonaws.com"),
        (vec![fips], "kinesis-fips.us-east-1.amazonaws.com"),
        (vec![dual], "kinesis.us-east-1.api.aws"),
        (vec![fips, dual], "kinesis-fips.us-east-1.api.aws"),
        (
            vec![("AWS_ENDPOINT_URL_KINESIS", "https://vpce-0a1b-x.kinesis.us-east-1.vpce.amazonaws.com")],
            "vpce-0a1b-x.kinesis.us-east-1.vpce.amazonaws.com",
        ),
    ] {
        let environment =
            [&[("AWS_ENDPOINT_URL", ""), ("HTTPS_PROXY", &url), ("NO_PROXY", "127.0.0.1")], &*wanted].concat();
        let told = check(&environment);
        let part = format!("did not reach Kinesis at {host} through the proxy 127.0.0.1:{}: ", proxy.port);
        assert!(told.contains(&part), "{told}\nhas no\n{part}");
    }
}
