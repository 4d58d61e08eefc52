//! Apache ZooKeeper, which stores the KeeperMap tables of the engine under test.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Deref;
use std::path::Path;
use std::time::Duration;

use crate::service::{Launch, Service};
use crate::{Result, free_port};

/// Debian's `libzookeeper-java` lists its dependencies in the jar's manifest; the other jar sends
/// the log to standard error.
const CLASSPATH: &str = "/usr/share/java/zookeeper.jar:/usr/share/java/slf4j-simple.jar";
const START_DEADLINE: Duration = Duration::from_secs(60);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// A standalone ZooKeeper server.
#[derive(Debug)]
pub struct ZooKeeper {
    service: Service,
    port: u16,
}

impl ZooKeeper {
    /// Starts a server with its data, configuration and log in `dir` and waits until it answers.
    pub fn start(dir: &Path) -> Result<ZooKeeper> {
        let jar = "/usr/share/java/zookeeper.jar";
        if !Path::new(jar).is_file() {
            return Err(format!("{jar} is missing: run scripts/install.sh first"));
        }
        let port = free_port()?;
        let config = dir.join("zoo.cfg");
        // A short tick, so that sessions of a killed engine expire soon (a session lives 2 to 20
        // ticks).
        let text = format!(
            "tickTime=500\ndataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\n\
             4lw.commands.whitelist=srvr,ruok\nmaxClientCnxns=0\n",
            dir.join("data").display()
        );
        std::fs::create_dir_all(dir)
            .and_then(|()| std::fs::write(&config, text))
            .map_err(|error| format!("cannot write {}: {error}", config.display()))?;
        let args = [
            "-Xmx256m",
            "-XX:TieredStopAtLevel=1",
            // Otherwise every run leaves a file in the temporary folder.
            "-XX:-UsePerfData",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            // Otherwise every create waits for its fsync: safe against power failures, but slow for
            // tests.
            "-Dzookeeper.forceSync=no",
            "-cp",
            CLASSPATH,
            "org.apache.zookeeper.server.quorum.QuorumPeerMain",
        ]
        .map(Into::into)
        .into_iter()
        .chain([config.into_os_string()]);
        let launch = Launch::new("java", args, dir.join("zookeeper.log")).in_folder(dir);
        let zookeeper = ZooKeeper { service: Service::start("ZooKeeper", launch)?, port };
        zookeeper.wait_ready()?;
        Ok(zookeeper)
    }

    /// The client port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills the server if it is running and restarts it on the same port and data.
    pub fn restart(&self) -> Result<()> {
        self.service.kill();
        self.service.start_again()?;
        self.wait_ready()
    }

    fn wait_ready(&self) -> Result<()> {
        self.service
            .wait_until("an answer to `ruok`", START_DEADLINE, || ruok(self.port).is_ok_and(|answer| answer == "imok"))
    }
}

impl Deref for ZooKeeper {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.service
    }
}

fn ruok(port: u16) -> std::io::Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut connection = TcpStream::connect_timeout(&address, PROBE_TIMEOUT)?;
    connection.set_read_timeout(Some(PROBE_TIMEOUT))?;
    connection.write_all(b"ruok")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer)
}
