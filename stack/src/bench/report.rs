//! The report, readable without further explanation.

use super::formats::Format;
use super::idle::{Idle, SHARDS as IDLE_SHARDS};
use super::latency::Latency;
use super::measure::{MIB, median, percentile};
use super::memory::Memory;
use super::payloads::Payloads;
use super::peers::Peer;
use super::takeover::{LEASE, Takeover};
use super::throughput::Throughput;
use super::views::Views;

/// How much more processor time than the floor the bridge may use for reading.
const CPU_AIM: &str = "<= 0.75";
/// The same where Kinesis answers in CBOR, which is AWS.
const CBOR_AIM: &str = "<= 0.5";
/// The share of the bridge's processor time that unpacking KPL aggregates may take.
const UNPACK_AIM: &str = "< 0.15";

/// A line: name, value, comparison, its value, the ratio, the target.
pub type Line = [String; 6];

/// All measurements.
pub struct Figures<'a> {
    /// ClickHouse's version.
    pub clickhouse: &'a str,
    /// The whole pipe.
    pub throughput: Option<Throughput>,
    /// Several views of one pipe.
    pub views: Vec<Views>,
    /// The kinds of payload.
    pub payloads: Option<Payloads>,
    /// Other formats.
    pub formats: Vec<Format>,
    /// From put to queryable.
    pub latencies: Vec<Latency>,
    /// A large stream in little memory.
    pub memory: Option<Memory>,
    /// Shards without records.
    pub idle: Option<Idle>,
    /// Takeover after a kill.
    pub takeover: Option<Takeover>,
    /// The bridge and others.
    pub peers: Vec<Peer>,
}

/// Prints everything that was measured.
pub fn print(figures: &Figures<'_>) {
    let clickhouse = figures.clickhouse;
    let processors = processors();
    println!("clickhouse-kinesis-bridge on {processors} processors shared by all processes, ClickHouse {clickhouse}\n");
    let heading = ["figure", "measured", "beside", "value", "ratio", "aim"].map(String::from);
    let (mut lines, mut notes) = (vec![heading], Vec::new());
    if let Some(throughput) = &figures.throughput {
        of_throughput(throughput, &mut lines, &mut notes);
    }
    of_views(&figures.views, &mut lines, &mut notes);
    if let Some(payloads) = &figures.payloads {
        of_payloads(payloads, &mut lines, &mut notes);
    }
    super::formats::report(&figures.formats, &mut lines, &mut notes);
    for latency in &figures.latencies {
        of_latency(latency, &mut lines, &mut notes);
    }
    if !figures.latencies.is_empty() {
        notes.push(
            "latency: from just before PutRecords is sent (10 records every 10 ms, 4 shards, the ferrokinesis emulator) to the moment a SELECT on \
             the target, repeated 15 ms after its last answer, returns the record. The emulator does not enforce AWS's 5 GetRecords calls a second \
             and shard: poll_ms=20 is 50 calls a second, which AWS refuses; poll_ms=200 is what AWS allows one consumer. With mode=efo the emulator sends an event as soon as something was put, and at most every 10 ms; AWS says \
             about 70 ms. Beside it: the same rows by an \
             INSERT every 50 ms, from the time a row is due to the same observer; then the same pipe in two ways, a view that starts its own refreshes \
             (from 26.7 on) beside one that the bridge starts, and 25.8 LTS beside 26.7."
                .into(),
        );
    }
    if let Some(memory) = &figures.memory {
        of_memory(memory, &mut lines, &mut notes);
    }
    if let Some(idle) = &figures.idle {
        of_idle(idle, &mut lines, &mut notes);
    }
    if let Some(takeover) = &figures.takeover {
        of_takeover(takeover, &mut lines, &mut notes);
    }
    super::peers::report(&figures.peers, &mut lines, &mut notes);
    table(&lines);
    println!();
    for note in notes {
        println!("- {note}");
    }
}

/// A line from its cells.
pub fn line(cells: [&str; 6]) -> Line {
    cells.map(String::from)
}

fn of_throughput(found: &Throughput, lines: &mut Vec<Line>, notes: &mut Vec<String>) {
    let (records, millions) = (found.records as f64, found.records as f64 / 1e6);
    let pipe = median(found.rounds.iter().map(|r| r.pipe_seconds));
    let ceiling = median(found.rounds.iter().map(|r| r.ceiling_seconds));
    let ratio = median(found.rounds.iter().map(|r| r.ceiling_seconds / r.pipe_seconds));
    let megabytes = found.payload_bytes as f64 / 1e6;
    lines.push(line([
        "whole pipe, rows/s",
        &thousands(records / pipe),
        "ClickHouse alone, same bytes",
        &thousands(records / ceiling),
        &format!("{ratio:.2}"),
        "",
    ]));
    lines.push(line([
        "whole pipe, MB/s of payload",
        &format!("{:.0}", megabytes / pipe),
        "",
        &format!("{:.0}", megabytes / ceiling),
        "",
        "",
    ]));
    lines.push(line(["whole pipe, seconds", &format!("{pipe:.2}"), "", &format!("{ceiling:.2}"), "", ""]));
    let floor = median(found.floor_cpu.iter().copied()) / millions;
    let of = |name: &str| median(found.rounds.iter().map(|r| seconds_of(&r.cpu, name))) / millions;
    let bridge = of("bridge");
    lines.push(line([
        "bridge, CPU s per million rows",
        &format!("{bridge:.2}"),
        "AWS SDK reading, records dropped",
        &format!("{floor:.2}"),
        &format!("{:.2}", bridge / floor),
        CPU_AIM,
    ]));
    let alone = found.alone_cpu / millions;
    lines.push(line([
        "  the same, nothing beside it",
        &format!("{alone:.2}"),
        "",
        &format!("{floor:.2}"),
        &format!("{:.2}", alone / floor),
        "",
    ]));
    let cbor = found.cbor_cpu / millions;
    lines.push(line([
        "  the same in CBOR, nothing beside it",
        &format!("{cbor:.2}"),
        "AWS SDK reading in JSON",
        &format!("{floor:.2}"),
        &format!("{:.2}", cbor / floor),
        CBOR_AIM,
    ]));
    let (pushed, pushed_floor) = (found.fan_out_cpu.0 / millions, found.fan_out_cpu.1 / millions);
    lines.push(line([
        "  the same by fan-out, nothing beside it",
        &format!("{pushed:.2}"),
        "AWS SDK subscribing, records dropped",
        &format!("{pushed_floor:.2}"),
        &format!("{:.2}", pushed / pushed_floor),
        CPU_AIM,
    ]));
    let engine = median(found.rounds.iter().map(|r| r.ceiling_cpu)) / millions;
    lines.push(line([
        "ClickHouse, CPU s per million rows",
        &format!("{:.2}", of("ClickHouse")),
        "ClickHouse alone, same bytes",
        &format!("{engine:.2}"),
        &format!("{:.2}", of("ClickHouse") / engine),
        "",
    ]));
    lines.push(line(["replay server, CPU s per million rows", &format!("{:.2}", of("replay server")), "", "", "", ""]));
    lines.push(line(["ZooKeeper, CPU s per million rows", &format!("{:.2}", of("ZooKeeper")), "", "", "", ""]));
    let peak = found.rounds.iter().map(|r| r.peak_memory).max().unwrap_or(0);
    lines.push(line(["bridge, peak memory, MiB", &mebibytes(peak), "--memory (its default)", "256", "", ""]));
    let batches = found.rounds.iter().map(|r| r.batches).max().unwrap_or(0);
    let rounds: Vec<String> =
        found.rounds.iter().map(|r| format!("{:.2}/{:.2}", r.pipe_seconds, r.ceiling_seconds)).collect();
    notes.push(format!(
        "throughput: {} records, {megabytes:.0} MB of JSON ({:.0} bytes each), 4 shards, the view and the table of sql/examples/orders.sql (with its \
         deduplication window), from CREATE VIEW until the last row is counted; middle of {} rounds, pipe/ceiling seconds {}; {batches} batches, the \
         ceiling {}. Every round ends with count() and uniqExact() of both tables.",
        thousands(records),
        found.payload_bytes as f64 / records,
        found.rounds.len(),
        rounds.join(" "),
        found.ceiling_batches,
    ));
    notes.push(
        "Kinesis is a replay server here, which answers from records rendered beforehand: the emulator needs more processor time for a record \
         than the bridge, and would be what is measured. linger_ms=200, or the last, partial batch of a stream that ends would wait for a second. poll_ms=5 because AWS's 5 calls and 2 MiB a second and shard would be all \
         that is seen."
            .into(),
    );
    let busy =
        median(found.rounds.iter().map(|r| r.cpu.iter().map(|(_, seconds)| seconds).sum::<f64>() / r.pipe_seconds));
    notes.push(format!(
        "the ceiling: the bodies that the bridge sent, recorded, from a static server on loopback, one INSERT with the view's SELECT for each. It \
         has the processors to itself; the pipe shares them with the reading, and kept {busy:.1} of them busy. ClickHouse's processor time holds the \
         counting of rows every 50 ms and whatever it merges meanwhile."
    ));
    notes.push(format!(
        "the floor: every record through aws-sdk-kinesis in a process of its own, with the bridge's limit for each call; {} calls, the bridge made {} \
         (with those that found nothing).",
        found.calls.1, found.calls.0
    ));
}

fn of_views(found: &[Views], lines: &mut Vec<Line>, notes: &mut Vec<String>) {
    let Some(one) = found.first() else { return };
    let rate = |of: &Views| of.rows as f64 / of.seconds;
    for of in found {
        let figure = format!("rows/s with {} view{} of a pipe", of.views, if of.views == 1 { "" } else { "s" });
        let ratio = format!("{:.2}", rate(of) / rate(one));
        lines.push(line([&figure, &thousands(rate(of)), "one view", &thousands(rate(one)), &ratio, ""]));
        if of.views == 2 {
            // One view leaves processors free for the others, so nothing is subtracted from it.
            let others: f64 = of.cpu.iter().filter(|(name, _)| *name != "ClickHouse").map(|(_, seconds)| seconds).sum();
            let alone = of.rows as f64 / (of.seconds - others / processors());
            let ratio = format!("{:.2}", alone / rate(one));
            let figure = "with 2 views, the other processes' time subtracted";
            lines.push(line([figure, &thousands(alone), "one view", &thousands(rate(one)), &ratio, ">= 1.6"]));
        }
        let cores = |name: &str| format!("{name} {:.2}", seconds_of(&of.cpu, name) / of.seconds);
        let cores = ["ClickHouse", "bridge", "replay server", "ZooKeeper"].map(cores).join(", ");
        notes.push(format!("views, {}: {:.1} s, {} batches; cores in use: {cores}.", of.views, of.seconds, of.batches));
    }
    notes.push(format!(
        "views: {} orders, 4 shards, the replay server, the statements of sql pipe --views (each record checked, with rest and errors), from the first \
         statement until the last row is counted. All processes share this machine's processors, so that more views help only as far as some are free.",
        thousands(one.rows as f64)
    ));
}

fn of_payloads(found: &Payloads, lines: &mut Vec<Line>, notes: &mut Vec<String>) {
    let Some(plain) = found.kinds.first() else { return };
    let (rows, millions) = (found.rows as f64, found.rows as f64 / 1e6);
    for of in &found.kinds {
        let name = of.kind.name;
        let mut beside = |figure: &str, text: fn(f64) -> String, value: f64, peer: f64| {
            let figure = format!("{name}: {figure}");
            let (peer_name, peer, ratio) = match std::ptr::eq(of, plain) {
                true => ("", String::new(), String::new()),
                false => ("the same orders, plain", text(peer), format!("{:.2}", value / peer)),
            };
            lines.push(line([&figure, &text(value), peer_name, &peer, &ratio, ""]));
        };
        let seconds = |value: f64| format!("{value:.2}");
        beside("whole pipe, rows/s", thousands, rows / of.pipe_seconds, rows / plain.pipe_seconds);
        beside("bridge, CPU s per million rows", seconds, of.bridge_cpu / millions, plain.bridge_cpu / millions);
        beside("ClickHouse, CPU s per million rows", seconds, of.engine_cpu / millions, plain.engine_cpu / millions);
        let mut share = |what: &str, cpu: f64, aim: &str| {
            let (figure, ratio) = (format!("{name}: {what}"), format!("{:.2}", cpu / of.bridge_cpu));
            let all = seconds(of.bridge_cpu / millions);
            lines.push(line([&figure, &seconds(cpu / millions), "all of the bridge's", &all, &ratio, aim]));
        };
        if of.kind.is_aggregate() {
            share("taking apart, CPU s per million rows", of.unpack_cpu, UNPACK_AIM);
            share("of that, the MD5", of.digest_cpu, "");
            share("of that, the rest", of.unpack_cpu - of.digest_cpu, "");
        } else if of.kind.is_packed() {
            share("taking apart, CPU s per million rows", of.unpack_cpu, "");
        }
    }
    let bytes: Vec<String> =
        found.kinds.iter().map(|of| format!("{} {:.0}", of.kind.name, of.payload_bytes as f64 / rows)).collect();
    notes.push(format!(
        "payloads: the same {} orders in each kind of record, 4 shards, the replay server; rows/s and ClickHouse as under throughput, the bridge's \
         processor time with a client that takes the batches and does nothing with them. Bytes of payload for an order: {}.",
        thousands(rows),
        bytes.join(", ")
    ));
    notes.push(
        "taking apart: a program that reads the same records with the bridge's own code and takes them apart with it; only the latter is counted. It \
         holds the copying of every row into the buffer, which plain records have in the reading. The MD5 is that of the same payloads, by itself: an \
         aggregate is one only if its MD5 says so, and MD5 goes through a payload byte after byte."
            .into(),
    );
}

fn of_latency(found: &Latency, lines: &mut Vec<Line>, notes: &mut Vec<String>) {
    let acknowledged = percentile(&found.acknowledged, 0.5);
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let (beside, peer) = &found.beside;
        let (measured, peer) = (percentile(&found.seen, share), percentile(peer, share));
        lines.push(line([
            &format!("put to queryable, {name} ms, {}", found.how),
            &format!("{measured:.0}"),
            beside,
            &format!("{peer:.0}"),
            &format!("{:.2}", measured / peer),
            if name == "p50" { found.aim } else { "" },
        ]));
    }
    let cpu: Vec<String> =
        found.cpu.iter().map(|(name, s)| format!("{name} {:.0} %", s / found.seconds * 100.0)).collect();
    notes.push(format!(
        "latency, {}: {} records, {:.1} batches/s; the put itself is acknowledged after {acknowledged:.1} ms (p50); processor: {}.",
        found.how,
        thousands(found.records as f64),
        found.batches_per_second,
        cpu.join(", ")
    ));
}

fn of_memory(found: &Memory, lines: &mut Vec<Line>, notes: &mut Vec<String>) {
    lines.push(line([
        "peak memory with --memory 64MiB, MiB",
        &mebibytes(found.peak),
        "the limit: 64 + 60",
        "124",
        &format!("{:.2}", found.peak as f64 / (124.0 * MIB)),
        "< 1",
    ]));
    notes.push(format!(
        "memory: {} MiB of 1 KiB records from the replay server in {:.1} s, poll_ms=5; peak from the kernel (VmHWM), the samples every 20 ms had at most {} MiB and {} MiB \
         on average.",
        mebibytes(found.payload_bytes),
        found.seconds,
        mebibytes(found.sampled_peak),
        mebibytes(found.sampled_mean)
    ));
}

fn of_idle(found: &Idle, lines: &mut Vec<Line>, notes: &mut Vec<String>) {
    let floor = found.call * f64::from(IDLE_SHARDS);
    lines.push(line([
        &format!("{IDLE_SHARDS} idle shards, % of a core"),
        &format!("{:.1}", found.share * 100.0),
        "a call of each through the AWS SDK each second",
        &format!("{:.1}", floor * 100.0),
        &format!("{:.2}", found.share / floor),
        "",
    ]));
    notes.push(format!(
        "idle shards: a pipe that nobody writes to, after half a minute; each shard is asked once a second. A GetRecords call that returns nothing \
         takes {:.2} ms of processor time with nothing but the SDK, one call after another.",
        found.call * 1_000.0
    ));
}

fn of_takeover(found: &Takeover, lines: &mut Vec<Line>, notes: &mut Vec<String>) {
    let (measured, peer) = (median(found.seconds.iter().copied()), LEASE.as_secs_f64() + 5.0);
    lines.push(line([
        "kill -9 to the other bridge's commits, s",
        &format!("{measured:.1}"),
        "lease duration + 5 s",
        &format!("{peer:.0}"),
        &format!("{:.2}", measured / peer),
        "< 1",
    ]));
    let rounds: Vec<String> = found.seconds.iter().map(|seconds| format!("{seconds:.1}")).collect();
    notes.push(format!(
        "takeover: two bridges with the default --lease-duration of {} s share 4 shards at 1,000 records/s; from the kill of one to the moment at which \
         the other has committed records of each of its shards; rounds {}. {} records in all, each of them once in the table.",
        LEASE.as_secs(),
        rounds.join(" "),
        thousands(found.records as f64)
    ));
}

fn processors() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |processors| processors.get() as f64)
}

fn seconds_of(cpu: &[(&'static str, f64)], name: &str) -> f64 {
    cpu.iter().filter(|(of, _)| *of == name).map(|(_, seconds)| seconds).sum()
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.0}", bytes as f64 / MIB)
}

/// `1234567.8` becomes `1,234,568`.
pub fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Left-aligned words, right-aligned numbers.
fn table(lines: &[Line]) {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    for line in lines {
        let cells = line.iter().zip(widths).enumerate().map(|(column, (cell, width))| match column {
            0 | 2 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::thousands;

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(thousands(1_234_567.8), "1,234,568");
        assert_eq!(thousands(999.0), "999");
        assert_eq!(thousands(100_000.0), "100,000");
    }
}
