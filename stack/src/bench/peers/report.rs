//! The lines and notes about the movers.

use super::super::measure::{MIB, percentile};
use super::super::report::{Line, line, thousands};
use super::{KILLS, PEACE, Peer};

/// Each figure of the others beside the bridge's, which is the first.
pub fn report(found: &[Peer], lines: &mut Vec<Line>, notes: &mut Vec<String>) {
    let Some((bridge, others)) = found.split_first() else { return };
    for peer in others {
        let mut beside = |figure: &str, text: fn(f64) -> String, of: &dyn Fn(&Peer) -> f64| {
            let (value, ours) = (of(peer), of(bridge));
            let ratio = if ours > 0.0 { format!("{:.2}", value / ours) } else { String::new() };
            lines.push(line([
                &format!("{}: {figure}", peer.name),
                &text(value),
                "the bridge",
                &text(ours),
                &ratio,
                "",
            ]));
        };
        let per_million = |peer: &Peer, cpu: f64| cpu / (peer.backlog.rows as f64 / 1e6);
        let longest = |peer: &Peer| peer.kills.seconds.iter().copied().fold(0.0, f64::max);
        beside("rows per CPU second", thousands, &|of| of.backlog.rows as f64 / of.backlog.cpu);
        beside("CPU s per million rows", decimals, &|of| per_million(of, of.backlog.cpu));
        beside("ClickHouse, CPU s per million rows", decimals, &|of| per_million(of, of.backlog.engine_cpu));
        beside("peak memory, MiB", thousands, &|of| of.peak_memory as f64 / MIB);
        beside("put to queryable, p50 ms", thousands, &|of| percentile(&of.flow.seen, 0.5));
        beside("put to queryable, p99 ms", thousands, &|of| percentile(&of.flow.seen, 0.99));
        beside(&format!("rows lost after {KILLS} kill -9"), thousands, &|of| of.kills.lost as f64);
        beside(&format!("rows doubled after {KILLS} kill -9"), thousands, &|of| of.kills.doubled as f64);
        beside("longest s from kill -9 to rows put after it", decimals, &longest);
        beside("s from start to a row of each shard", decimals, &|of| of.start.0);
    }
    notes.push(about_all(bridge));
    notes.extend(found.iter().map(about_one));
    notes.push(format!(
        "peers, kills: at 1,000 records/s, for {} s; then, as soon as a query sees new rows, kill -9 and an immediate restart; the same again once a record \
         put after the kill is in the table. Lost: records put minus uniqExact(id). Doubled: count() minus uniqExact(id): whether a kill comes between an \
         INSERT and its checkpoint is chance, so that this differs from run to run.",
        PEACE.as_secs()
    ));
}

fn about_all(bridge: &Peer) -> String {
    let backlog = &bridge.backlog;
    format!(
        "peers: the same replay server for each, started anew, with {} orders ({:.0} bytes each) in 4 shards; the table of sql/examples/orders.sql, with \
         its deduplication window. The bridge with README's SQL; stack/peers/kcl, the KCL 3.4.2 and com.clickhouse:client-v2 0.10.0; stack/peers/loop, \
         boto3 and clickhouse-connect 1.12.0; all with their defaults, checkpoints of the others in ministack's DynamoDB. As on AWS, boto3 reads in \
         JSON, the KCL and the bridge in CBOR. At first only one record per shard is served; once these are in the table, the others appear at \
         once, and processor time is counted from then until the last row is visible: start-up does not count, the JVM's compiling does. \
         ClickHouse's includes its background work for as long as the backlog takes; that time is not compared, because the bridge and the KCL pace their \
         reading for AWS's limits. count() and uniqExact() are checked afterwards, and after the latency run.",
        thousands(backlog.rows as f64),
        backlog.payload_bytes as f64 / (backlog.rows + super::SHARDS) as f64,
    )
}

fn about_one(peer: &Peer) -> String {
    let seconds: Vec<String> = peer.kills.seconds.iter().map(|seconds| format!("{seconds:.1}")).collect();
    format!(
        "peers, {}: {:.1} s and {:.1} CPU s from its start to the first row of each shard; {:.1} s for the backlog; {} records during the kills, rows put \
         after a kill visible after {} s.",
        peer.name,
        peer.start.0,
        peer.start.1,
        peer.backlog.seconds,
        thousands(peer.kills.records as f64),
        seconds.join(" and "),
    )
}

fn decimals(value: f64) -> String {
    format!("{value:.2}")
}
