//! The bridge that runs with this configuration, and what it knows: the other bridges, its pipes,
//! and whether ClickHouse gets in by the views of `sql setup`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use adapters::clickhouse::{ClickHouse, PullingView};
use adapters::running::{Refused, RunningBridge, ShardRow, WorkerRow};
use config::Config;
use domain::finding::{Finding, Verdict};
use domain::incarnation::Incarnation;
use domain::limits::BEATS_PER_LEASE;
use domain::ports::{StateStore, Worker};
use domain::seat::worker_of;

use super::Only;

/// Where this machine reaches the bridge.
pub fn url(listen: SocketAddr) -> String {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, listen.port()))
}

/// Whether a URL leads to what listens there.
pub fn is_at(url: &str, listen: SocketAddr) -> bool {
    let Some((host, port)) = url.trim_start_matches("http://").rsplit_once(':') else { return false };
    let same_machine = listen.ip().is_unspecified() || listen.ip().is_loopback();
    let same = match host.trim_matches(['[', ']']) {
        "localhost" | "127.0.0.1" | "::1" => same_machine,
        other => listen.ip().is_unspecified() || other == listen.ip().to_string(),
    };
    same && port.parse() == Ok(listen.port())
}

/// A note about views that pull from other addresses, if there are any.
pub fn elsewhere(views: &[&PullingView]) -> Option<Finding> {
    let mut by_address: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for view in views {
        by_address.entry(view.bridge()).or_default().push(view.view());
    }
    let each = by_address.iter().map(|(address, views)| {
        let address = if address.is_empty() { "an address that is computed" } else { address };
        let more = if views.len() > 3 { format!(" and {} more", views.len() - 3) } else { String::new() };
        format!("{}{more} from {address}", views.iter().take(3).cloned().collect::<Vec<_>>().join(", "))
    });
    let each: Vec<String> = each.collect();
    let says = format!("pull from other bridges than that of --listen, and were not looked at: {}", each.join("; "));
    (!each.is_empty()).then(|| Finding::new("other views of pipes", Verdict::Note, says))
}

/// What the bridge answered.
pub struct Bridge {
    asked: RunningBridge,
    lives: Result<(), Refused>,
    ready: Result<(), Refused>,
    workers: Result<Vec<WorkerRow>, Refused>,
    shards: Result<Vec<ShardRow>, Refused>,
}

impl Bridge {
    /// Asks for everything at once.
    pub async fn ask(asked: RunningBridge) -> Bridge {
        let (lives, ready, workers, shards) =
            tokio::join!(asked.lives(), asked.ready(), asked.workers(), asked.shards());
        Bridge { asked, lives, ready, workers, shards }
    }

    /// Whether it is running.
    pub fn lives(&self) -> bool {
        self.lives.is_ok()
    }

    /// Whether it is running and usable. `needed`: views pull from it.
    pub fn finding(&self, needed: bool) -> Finding {
        let what = format!("bridge at {}", self.asked.url());
        match (&self.lives, &self.workers, &self.ready) {
            (Err(Refused::Dead(why)), ..) if needed => {
                let says =
                    format!("does not answer ({why}), and views pull from it: start it with `serve`, or read its log");
                Finding::new(what, Verdict::Bad, says)
            }
            (Err(Refused::Dead(why)), ..) => Finding::new(what, Verdict::Note, format!("is not running ({why})")),
            (Err(Refused::Said(status, said)), ..) => {
                let says = format!("something else answers there, or a bridge of another version: {status} {said}");
                Finding::new(what, Verdict::Bad, says)
            }
            (Ok(()), Err(Refused::Said(401, said)), _) => {
                let says = format!(
                    "it does not accept the token of --token-file: {said}. If the file was changed, send the bridge a SIGHUP"
                );
                Finding::new(what, Verdict::Bad, says)
            }
            (Ok(()), _, Err(refused)) | (Ok(()), Err(refused), _) => {
                Finding::new(what, Verdict::Bad, format!("is running, but cannot work: {}", refused.why()))
            }
            (Ok(()), Ok(_), Ok(())) => Finding::new(what, Verdict::Fine, "is running"),
        }
    }

    /// The bridges that share the state: the running one knows, by its own clock, which are alive.
    /// Without it, their heartbeats are watched for a while.
    pub async fn workers(&self, config: &Config, store: Option<&dyn StateStore>) -> Option<Finding> {
        let workers = match (&self.workers, store) {
            (Ok(workers), _) => workers.clone(),
            (Err(_), Some(store)) => watched(config, store).await?,
            (Err(_), None) => return None,
        };
        let dead = workers.iter().filter(|worker| worker.alive == 0 && worker.leases > 0);
        let dead: Vec<String> = dead
            .map(|worker| {
                format!("'{}' ({}) is dead and has {} leases", worker.worker_id, worker.address, worker.leases)
            })
            .collect();
        let alive = workers.iter().filter(|worker| worker.alive != 0).count();
        let versions: BTreeSet<&str> =
            workers.iter().filter(|worker| worker.alive != 0).map(|worker| &*worker.version).collect();
        let (verdict, says) = match dead.is_empty() {
            false => {
                let says = format!(
                    "{}: another bridge takes them over if its views pull the same pipes; otherwise start it again",
                    dead.join("; ")
                );
                (Verdict::Bad, says)
            }
            true if versions.len() > 1 => {
                let versions: Vec<&str> = versions.into_iter().collect();
                (Verdict::Note, format!("{alive} alive, of different versions: {}", versions.join(", ")))
            }
            true => (Verdict::Fine, format!("{alive} alive, none is dead and has leases")),
        };
        Some(Finding::new("workers", verdict, says))
    }

    /// A finding for each pipe, if the bridge tells.
    pub fn pipes(&self, only: Only<'_>) -> Vec<Finding> {
        let mut pipes: BTreeMap<&str, Vec<&ShardRow>> = BTreeMap::new();
        for shard in self.shards.iter().flatten().filter(|shard| only.wants(&shard.pipe)) {
            pipes.entry(&shard.pipe).or_default().push(shard);
        }
        pipes.iter().map(|(pipe, shards)| of_pipe(pipe, shards)).collect()
    }
}

/// What is wrong with a pipe: its errors, each with how many shards have it, and shards that nobody
/// reads.
fn of_pipe(pipe: &str, shards: &[&ShardRow]) -> Finding {
    let mut bad: BTreeMap<&str, usize> = BTreeMap::new();
    let mut notes: BTreeMap<String, usize> = BTreeMap::new();
    for shard in shards {
        match (&*shard.state, &*shard.last_error) {
            ("gap", "") => *bad.entry("gap").or_default() += 1,
            ("reading" | "finished" | "waiting_for_parent", "") => {}
            (state, "") => *notes.entry(format!("state '{state}'")).or_default() += 1,
            (_, error) => *bad.entry(error).or_default() += 1,
        }
        if !shard.warning.is_empty() {
            *notes.entry(shard.warning.clone()).or_default() += 1;
        }
    }
    let count = |(what, count): (&str, usize)| format!("{count} of {} shards: {what}", shards.len());
    let mut says: Vec<String> = bad.iter().map(|(what, n)| count((what, *n))).collect();
    says.extend(notes.iter().map(|(what, n)| count((what, *n))));
    let verdict = match (bad.is_empty(), notes.is_empty()) {
        (true, true) => {
            let behind = shards.iter().filter_map(|shard| shard.millis_behind_latest).max();
            let behind = behind.map_or_else(String::new, |ms| format!(", reading is {ms} ms behind at most"));
            says.push(format!("{} shards{behind}", shards.len()));
            Verdict::Fine
        }
        (true, false) => Verdict::Note,
        (false, _) => Verdict::Bad,
    };
    Finding::new(format!("pipe '{pipe}'"), verdict, says.join("; "))
}

/// The workers of the state, each alive if it ended, or its heartbeat moves while this watches.
async fn watched(config: &Config, store: &dyn StateStore) -> Option<Vec<WorkerRow>> {
    let before = store.workers().await.ok()?;
    if before.is_empty() {
        return None;
    }
    tokio::time::sleep(config.lease_duration / BEATS_PER_LEASE * 2).await;
    let after = store.workers().await.ok()?;
    let leases = store.leases(None).await.ok()?;
    let moved = |worker: &Worker| {
        let old = before.iter().find(|old| old.worker_id == worker.worker_id);
        old.is_none_or(|old| (old.heartbeat, &old.incarnation) != (worker.heartbeat, &worker.incarnation))
    };
    let row = |worker: Worker| WorkerRow {
        alive: (moved(&worker) && !Incarnation::parse(&worker.incarnation).ended()).into(),
        leases: leases.iter().filter(|row| worker_of(&row.value.owner) == &*worker.worker_id).count() as u64,
        worker_id: worker.worker_id.to_string(),
        address: worker.address,
        version: worker.version,
    };
    Some(after.into_iter().map(row).collect())
}

/// The views of `sql setup`: whether they are this program's and lead to this bridge, and whether
/// ClickHouse gets in by them.
pub async fn of_setup(config: &Config, clickhouse: &ClickHouse, bridge: &Bridge) -> Option<Finding> {
    let database = &config.clickhouse.database;
    let what = format!("views of sql setup in database '{database}'");
    let again = "run `clickhouse-kinesis-bridge sql setup | clickhouse-client --multiquery`";
    let (comment, address) = match clickhouse.setup(database).await {
        Ok(Some(found)) => found,
        Ok(None) => return Some(Finding::new(what, Verdict::Note, format!("there are none: {again}"))),
        // Another finding says that ClickHouse does not answer.
        Err(_) => return None,
    };
    if !is_at(&address, config.listen) {
        let says = format!(
            "they ask the bridge at {address}, not the one at {}: {again} with the flags of that bridge",
            url(config.listen)
        );
        return Some(Finding::new(what, Verdict::Bad, says));
    }
    if comment != sql::version() {
        let found = if comment.is_empty() { "an unfinished run" } else { &comment };
        let says = format!("they are of {found}, this program has {}: {again} again", sql::version());
        return Some(Finding::new(what, Verdict::Note, says));
    }
    Some(match clickhouse.shards_by_view(database).await {
        Ok(shards) => Finding::new(
            what,
            Verdict::Fine,
            format!("are this program's; ClickHouse gets in and sees {shards} shards"),
        ),
        Err(error) => {
            // It is not running, which is a finding of its own.
            let verdict = if bridge.lives() { Verdict::Bad } else { Verdict::Note };
            let said = error.message.split(": while executing").next().unwrap_or_default();
            Finding::new(what, verdict, format!("ClickHouse does not get in: {said}"))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_the_same_by_any_name() {
        let listen = |text: &str| text.parse::<SocketAddr>().expect(text);
        for (url, at, same) in [
            ("http://localhost:9020", "127.0.0.1:9020", true),
            ("http://127.0.0.1:9020", "0.0.0.0:9020", true),
            ("http://10.0.0.1:9020", "0.0.0.0:9020", true),
            ("http://10.0.0.1:9020", "10.0.0.1:9020", true),
            ("http://[::1]:9020", "[::1]:9020", true),
            ("http://localhost:9021", "127.0.0.1:9020", false),
            ("http://10.0.0.2:9020", "127.0.0.1:9020", false),
            ("", "127.0.0.1:9020", false),
        ] {
            assert_eq!(is_at(url, listen(at)), same, "{url} {at}");
        }
        assert_eq!(url(listen("0.0.0.0:1")), "http://127.0.0.1:1");
        assert_eq!(url(listen("[::]:1")), "http://[::1]:1");
    }
}
