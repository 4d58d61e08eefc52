//! What ClickHouse spends on the same rows if they come in another format, and on each step of its
//! statement: every figure beside the one for sql/examples/orders.sql.

use stack::{ClickHouse, LocalStack};

use super::BenchArgs;
use super::measure::{Cpu, median, number};
use super::report::{Line, line, thousands};
use super::sql::Job;
use super::throughput::{Replayed, STREAM};

/// Uses 1/N of the records of the throughput runs: there are many ways.
const SHARE: u64 = 4;
/// Rows of a record batch: about what the bridge sends of 200-byte records, whose record batches
/// end at 1 MiB of payload.
const BLOCK: u64 = 5_000;
/// The table that holds the rows.
const ROWS: &str = "formats_rows";
/// The columns of the example.
const STRUCTURE: &str = "_key String, _timestamp DateTime64(3), _stream LowCardinality(String), _shard_id LowCardinality(String), _sequence_number String, _sub_sequence_number UInt32, _raw_message String, _batch String";

/// A way to insert the rows.
struct Way {
    /// Its name in the report.
    name: &'static str,
    /// The format of the file; none if the rows come from a table in memory.
    format: &'static str,
    /// Rows of a record batch.
    block: u64,
    /// Settings for writing the file.
    settings: &'static str,
    /// Differences from the example: in its table, in its statement, in the file's structure.
    changes: &'static [(&'static str, &'static str)],
}

/// Like the bridge.
const BASE: Way = Way {
    name: "as the bridge sends them",
    format: "ArrowStream",
    block: BLOCK,
    settings: ", output_format_arrow_low_cardinality_as_dictionary = 1",
    changes: &[],
};

/// The baseline and the others.
const WAYS: [Way; 16] = [
    BASE,
    Way { name: "no dictionaries for _stream and _shard_id", settings: "", ..BASE },
    Way {
        name: "_sequence_number as 56 bytes",
        settings: ", output_format_arrow_low_cardinality_as_dictionary = 1, output_format_arrow_fixed_string_as_fixed_byte_array = 1",
        changes: &[(
            "_sequence_number String, _sub_sequence_number UInt32, _raw",
            "_sequence_number FixedString(56), _sub_sequence_number UInt32, _raw",
        )],
        ..BASE
    },
    Way {
        name: "_sequence_number as a 256-bit decimal",
        changes: &[
            (
                "_sequence_number String, _sub_sequence_number UInt32, _raw",
                "_sequence_number Decimal(76, 0), _sub_sequence_number UInt32, _raw",
            ),
            ("SELECT _shard_id, _sequence_number,", "SELECT _shard_id, toString(_sequence_number),"),
        ],
        ..BASE
    },
    Way { name: "record batches of 20,000 rows", block: 20_000, ..BASE },
    Way { name: "record batches of 65,000 rows", block: 65_000, ..BASE },
    Way {
        name: "Arrow in LZ4",
        settings: ", output_format_arrow_low_cardinality_as_dictionary = 1, output_format_arrow_compression_method = 'lz4_frame'",
        ..BASE
    },
    Way {
        name: "Arrow, columns by name only where they match in case",
        changes: &[(
            "max_threads = 1",
            "max_threads = 1, input_format_arrow_case_insensitive_column_matching = 0, input_format_arrow_allow_missing_columns = 0",
        )],
        ..BASE
    },
    Way { name: "Native", format: "Native", settings: "", ..BASE },
    Way { name: "RowBinary", format: "RowBinary", settings: "", ..BASE },
    Way { name: "JSONEachRow", format: "JSONEachRow", settings: "", ..BASE },
    Way { name: "no format: from a table in memory", format: "", ..BASE },
    Way { name: "without ORDER BY ALL", changes: &[("\nORDER BY ALL\n", "\n")], ..BASE },
    Way {
        name: "without the payload and its parsing",
        changes: &[(
            "JSONExtract(_raw_message, 'Tuple(id String, user_id UInt64, price Float64)')",
            "(_key, toUInt64(_sub_sequence_number), 1.5)::Tuple(id String, user_id UInt64, price Float64)",
        )],
        ..BASE
    },
    Way {
        name: "without a deduplication window",
        changes: &[("non_replicated_deduplication_window = 1000", "non_replicated_deduplication_window = 0")],
        ..BASE
    },
    Way {
        name: "into ENGINE = Null",
        changes: &[(
            "MergeTree ORDER BY (user_id, _timestamp) SETTINGS non_replicated_deduplication_window = 1000",
            "Null",
        )],
        ..BASE
    },
];

/// One way's processor seconds.
pub struct Format {
    name: &'static str,
    /// ClickHouse's processor seconds for all rows; the median of the rounds.
    cpu: f64,
    rows: u64,
}

/// Measures all of them on the rows of a replayed stream. Each round goes through all ways, and
/// begins with another one: what a way leaves behind must not always hit the same one.
pub fn run(args: &BenchArgs, stack: &LocalStack) -> Result<Vec<Format>, String> {
    let (clickhouse, rows) = (&stack.clickhouse, (args.records / SHARE).max(1_000));
    super::step(&format!("formats: {} ways to insert {rows} rows", WAYS.len()));
    let failed = |error: std::io::Error| format!("cannot create a folder for the files: {error}");
    std::fs::create_dir_all(clickhouse.user_files()).map_err(failed)?;
    let folder = tempfile::tempdir_in(clickhouse.user_files()).map_err(failed)?;
    let file = |index: usize| folder.path().join(index.to_string()).display().to_string();
    load(args, stack, rows)?;
    for (index, way) in WAYS.iter().enumerate().filter(|(_, way)| !way.format.is_empty()) {
        let structure = way.changed(STRUCTURE);
        clickhouse.query(&format!(
            "INSERT INTO FUNCTION file('{}', '{}', '{structure}') SELECT * FROM {ROWS} SETTINGS max_threads = 1, max_block_size = {block}, \
             max_insert_block_size = {block}, min_insert_block_size_rows = {block}, min_insert_block_size_bytes = 0{}",
            file(index), way.format, way.settings, block = way.block,
        ))?;
    }
    let mut cpu = vec![Vec::new(); WAYS.len()];
    for round in 0..args.rounds as usize {
        for turn in 0..WAYS.len() {
            let index = (turn + round * WAYS.len() / args.rounds as usize) % WAYS.len();
            cpu[index].push(insert(clickhouse, &WAYS[index], &file(index), rows)?);
        }
    }
    clickhouse.query(&format!("DROP TABLE {ROWS} SYNC"))?;
    Ok(WAYS.iter().zip(cpu).map(|(way, cpu)| Format { name: way.name, cpu: median(cpu), rows }).collect())
}

/// The rows of a stream, as a bridge gives them, in the order of a batch.
fn load(args: &BenchArgs, stack: &LocalStack, rows: u64) -> Result<(), String> {
    let replayed = Replayed::start(rows, 0)?;
    let bridge = replayed.start_bridge(args, stack, &[])?;
    let url = format!("{}/v1/streams/{STREAM}/records", bridge.url());
    let columns = STRUCTURE.replace(", _batch String", "");
    stack.clickhouse.query(&format!(
        "CREATE TABLE {ROWS} ({STRUCTURE}) ENGINE = Memory AS SELECT *, 'orders-00000000000000000001' FROM url('{url}', 'ArrowStream', '{columns}') \
         ORDER BY _shard_id, _sequence_number SETTINGS max_threads = 1, max_block_size = {BLOCK}"
    ))?;
    let found = number(&stack.clickhouse, &format!("SELECT count() FROM {ROWS}"))?;
    bridge.stop()?;
    if found == rows { Ok(()) } else { Err(format!("the bridge gave {found} of {rows} rows")) }
}

/// Inserts the rows into a table of their own; returns ClickHouse's processor seconds.
fn insert(clickhouse: &ClickHouse, way: &Way, file: &str, rows: u64) -> Result<f64, String> {
    let job = Job::into("formats");
    let (table, statement) = (job.create_table()?, job.insert("FILE")?);
    let from = match way.format {
        "" => ROWS.to_owned(),
        format => format!("file('{file}', '{format}', '{STRUCTURE}')"),
    };
    let (Some(start), Some(end)) = (statement.find("url("), statement.find("\n)\n")) else {
        return Err("the example's statement has no url()".into());
    };
    let statement = format!("{}{from}{}", &statement[..start], &statement[end..]);
    for (before, _) in way.changes {
        if !table.contains(before) && !statement.contains(before) {
            return Err(format!("sql/examples/orders.sql no longer contains {before:?}, which the benchmark replaces"));
        }
    }
    let table = way.changed(&table);
    clickhouse.query(&table)?;
    let cpu = Cpu::start(&[("ClickHouse", clickhouse)]);
    clickhouse.query(&way.changed(&statement))?;
    let used = cpu.used().iter().map(|(_, seconds)| seconds).sum();
    let kept = number(clickhouse, "SELECT count() FROM formats")?;
    clickhouse.query("DROP TABLE formats SYNC")?;
    let expected = if table.contains("ENGINE = Null") { 0 } else { rows };
    if kept == expected { Ok(used) } else { Err(format!("{}: {kept} of {rows} rows were kept", way.name)) }
}

impl Way {
    fn changed(&self, text: &str) -> String {
        self.changes.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    }
}

/// A line for each.
pub fn report(found: &[Format], lines: &mut Vec<Line>, notes: &mut Vec<String>) {
    let Some(base) = found.first() else { return };
    let per_million = |format: &Format| format.cpu / (format.rows as f64 / 1e6);
    for format in found {
        let ratio = format!("{:.2}", format.cpu / base.cpu);
        let (of, beside) = (format!("{:.2}", per_million(format)), format!("{:.2}", per_million(base)));
        lines.push(line([&format!("ClickHouse's CPU, {}", format.name), &of, base.name, &beside, &ratio, ""]));
    }
    notes.push(format!(
        "formats: processor seconds of ClickHouse for a million rows, the statement and the table of sql/examples/orders.sql, one INSERT of {} rows, \
         read from a file instead of HTTP. ClickHouse wrote the files; record batches have {} rows unless stated.",
        thousands(base.rows as f64),
        thousands(BLOCK as f64)
    ));
}
