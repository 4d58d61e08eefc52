//! Exports of a table to S3: what their manifests say, whether they fit together, and how they are
//! loaded.

use chrono::{DateTime, SecondsFormat, Utc};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::Deserialize;

use crate::error::CommandError;
use crate::generate::plan::shown;
use crate::generate::server::Server;
use domain::arn::Arn;
use domain::limits::{
    DYNAMODB_TIMES, EXPORT_FILES_PER_STATEMENT, EXPORT_SAMPLE_FILES, EXPORT_SAMPLE_LINES, PIPE_SAMPLE_BYTES,
};
use sql::quote::{comment, literal, visible};

/// A prefix may contain a `=` that is not a partition.
const NO_PARTITIONS: &str = "use_hive_partitioning = 0";

/// Kept verbatim in the path of an object.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'=');

/// A completed export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// The URL of its folder, as given.
    pub url: String,
    /// The time it covers.
    pub span: Span,
    /// Number of items, or of changes.
    pub items: u64,
    /// The URL of the bucket, with a trailing slash.
    root: String,
    /// The data files' keys, encoded.
    files: Vec<String>,
    table_arn: String,
    table_id: String,
}

/// The time an export covers, Unix ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// All items at one time.
    Full {
        /// That time.
        at: i64,
    },
    /// The changes between two times.
    Incremental {
        /// From this time.
        from: i64,
        /// To this time.
        to: i64,
    },
}

impl Span {
    /// The version of the items of a full export. A change in the same millisecond whose time is
    /// known only to the millisecond is newer.
    pub fn version(self) -> Option<i64> {
        match self {
            Span::Full { at } => Some(at * 1_000 - 1),
            Span::Incremental { .. } => None,
        }
    }

    /// All times in it.
    fn times(self) -> Vec<i64> {
        match self {
            Span::Full { at } => vec![at],
            Span::Incremental { from, to } => vec![from, to],
        }
    }

    /// The time up to which it is complete.
    pub fn end(self) -> i64 {
        match self {
            Span::Full { at } => at,
            Span::Incremental { to, .. } => to,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    table_arn: String,
    table_id: String,
    output_format: String,
    #[serde(default)]
    item_count: u64,
    export_time: Option<String>,
    export_from_time: Option<String>,
    export_to_time: Option<String>,
    #[serde(rename = "manifestFilesS3Key")]
    manifest_files: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DataFile {
    #[serde(default)]
    item_count: u64,
    #[serde(rename = "dataFileS3Key")]
    key: String,
}

impl Export {
    /// Reads an export's manifests, through ClickHouse.
    pub async fn read(server: &Server, url: &str) -> Result<Export, CommandError> {
        let url = url.trim_end_matches('/');
        let summary = match read_file(server, &format!("{url}/manifest-summary.json")).await? {
            Some(text) => text,
            None if read_file(server, &format!("{url}/_started")).await?.is_some() => {
                return Err(CommandError::Refused(format!(
                    "the export at {url} is not finished, it has no manifest-summary.json yet: run this again when DynamoDB reports it as COMPLETED"
                )));
            }
            None => {
                return Err(CommandError::Refused(format!(
                    "there is no export at {url}: the URL must be that of the folder named after the export, such as \
                     https://BUCKET.s3.REGION.amazonaws.com/PREFIX/AWSDynamoDB/ID"
                )));
            }
        };
        let not_understood = |file: &'static str| {
            move |why| CommandError::Refused(format!("{file} of the export at {url} cannot be parsed: {why}"))
        };
        let summary: Summary = serde_json::from_str(&summary).map_err(not_understood("manifest-summary.json"))?;
        if summary.output_format != "DYNAMODB_JSON" {
            return Err(CommandError::Refused(format!(
                "the export at {url} is in the format {}: export again in the format DynamoDB JSON",
                visible(&summary.output_format)
            )));
        }
        let span = span(&summary).ok_or_else(|| {
            CommandError::Refused(format!("manifest-summary.json of the export at {url} has no valid time"))
        })?;
        if let Some(wrong) = span.times().into_iter().find(|ms| !DYNAMODB_TIMES.contains(&ms.saturating_mul(1_000))) {
            return Err(CommandError::Refused(format!(
                "manifest-summary.json of the export at {url} has the time {}, which is not between 2012 and 2100",
                time(wrong)
            )));
        }
        let root = root(url, &summary.manifest_files).ok_or_else(|| {
            CommandError::Refused(format!(
                "the export at {url} says that its folder in the bucket is {}: give the URL to which DynamoDB exported",
                visible(summary.manifest_files.trim_end_matches("/manifest-files.json"))
            ))
        })?;
        let manifest = format!("{root}{}", object(&summary.manifest_files)?);
        let lines = read_file(server, &manifest)
            .await?
            .ok_or_else(|| CommandError::Refused(format!("the export at {url} has no {manifest}")))?;
        let mut files = Vec::new();
        for line in lines.lines().filter(|line| !line.trim().is_empty()) {
            let file: DataFile = serde_json::from_str(line).map_err(not_understood("manifest-files.json"))?;
            files.push((file.item_count, object(&file.key)?));
        }
        // Those with items first: the sample is taken from them. Empty files are loaded
        // nevertheless.
        files.sort_by_key(|(items, _)| *items == 0);
        Ok(Export {
            url: url.into(),
            span,
            items: summary.item_count,
            root,
            files: files.into_iter().map(|(_, key)| key).collect(),
            table_arn: summary.table_arn,
            table_id: summary.table_id,
        })
    }

    /// Whether it is an export of this table. `arn` and `id` are empty if unknown.
    pub fn is_of(&self, table: &str, arn: &str, id: &str) -> Result<(), CommandError> {
        let (url, table_name) = (&self.url, shown(table));
        let exported = Arn::parse(&self.table_arn).and_then(|arn| arn.table()).unwrap_or(&self.table_arn);
        if exported != table || !arn.is_empty() && arn != self.table_arn {
            return Err(CommandError::Refused(format!(
                "the export at {url} is one of {}, not of DynamoDB table {table_name}",
                visible(&self.table_arn)
            )));
        }
        if !id.is_empty() && id != self.table_id {
            return Err(CommandError::Refused(format!(
                "the export at {url} is one of an earlier table {table_name} (its id was {}, it is {id} now): export again",
                visible(&self.table_id)
            )));
        }
        Ok(())
    }

    /// The first lines.
    pub async fn sample(&self, server: &Server) -> Result<Vec<String>, CommandError> {
        if self.files.is_empty() {
            return Ok(Vec::new());
        }
        let some = &self.files[..self.files.len().min(EXPORT_SAMPLE_FILES)];
        let sql = format!(
            "SELECT line FROM (SELECT line, sum(length(line)) OVER (ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS bytes FROM \
             (SELECT line FROM {} LIMIT {EXPORT_SAMPLE_LINES})) WHERE bytes <= {PIPE_SAMPLE_BYTES} SETTINGS max_threads = 1, {NO_PARTITIONS}",
            self.source(some)
        );
        let text = server.ask(&sql, "TSVRaw").await?;
        Ok(text.lines().map(String::from).collect())
    }

    /// The statements that load it into the landing table. `partition_key` distinguishes lines with
    /// the wrapper `Item` from those without.
    pub fn load(&self, landing: &str, table: &str, partition_key: &str) -> Vec<String> {
        let key = literal(partition_key);
        let table = shown(table);
        let no_key = literal(&format!(
            "a line of the export has no key attribute {}: is this an export of DynamoDB table {table}?",
            shown(partition_key)
        ));
        let no_type =
            literal(&format!("a line of an export of DynamoDB table {table} has an attribute without a DynamoDB type"));
        let no_time = literal(&format!(
            "a line of an incremental export of DynamoDB table {table} does not say when it was written"
        ));
        let wrong_time = literal(&format!(
            "a line of an incremental export of DynamoDB table {table} has a WriteTimestampMicros outside 2012 to 2100: it does not count microseconds"
        ));
        let attributes = "CAST(arrayMap(attribute -> (attribute.1, dynamodbToJSON(attribute.2)), JSONExtractKeysAndValuesRaw(item)), 'Map(String, String)') \
                          AS attributes";
        let version = self.span.version().unwrap_or(0);
        let (what, columns, item, more) = match self.span {
            Span::Full { at } => (
                format!("the full export of {}, {} items", time(at), self.items),
                format!("{version} AS version, 0 AS is_deleted"),
                format!("if(JSONLength(line) = 1 AND JSONHas(line, 'Item', {key}), JSONExtractRaw(line, 'Item'), line) AS item"),
                String::new(),
            ),
            Span::Incremental { from, to } => (
                format!("the incremental export from {} to {}, {} changes", time(from), time(to), self.items),
                "version, is_deleted".to_owned(),
                // AWS writes {"N":"1700000000000000"}; a bare number means the same.
                "NOT JSONHas(line, 'NewImage') AS is_deleted,\n        JSONExtractRaw(line, if(is_deleted, 'Keys', 'NewImage')) AS item,\n        \
                 toInt64OrZero(replaceRegexpAll(JSONExtractRaw(line, 'Metadata', 'WriteTimestampMicros'), '[^0-9]', '')) AS version"
                    .to_owned(),
                format!(
                    "\n    AND NOT throwIf(version <= 0, {no_time})\n    AND NOT throwIf(version < {} OR version >= {}, {wrong_time})",
                    DYNAMODB_TIMES.start, DYNAMODB_TIMES.end
                ),
            ),
        };
        let parts: Vec<_> = self.files.chunks(EXPORT_FILES_PER_STATEMENT).collect();
        let statement = |(n, files): (usize, &&[String])| {
            let part = if parts.len() > 1 { format!(", part {} of {}", n + 1, parts.len()) } else { String::new() };
            let source = self.source(files);
            let loads = comment(&format!(
                "Loads {what}{part}. It may be run again: of all rows of an item the one with the highest version counts."
            ));
            let credentials = comment(
                "ClickHouse reads the files with its own credentials for S3 (environment, role, <s3> in its configuration); there are none in \
                 this statement.",
            );
            format!(
                "{loads}{credentials}INSERT INTO {landing} (attributes, version, is_deleted)\nSELECT attributes, {columns}\nFROM (\n    SELECT\n        {item},\n        {attributes}\n    \
                 FROM {source}\n)\nWHERE NOT throwIf(NOT mapContains(attributes, {key}), {no_key})\n    AND NOT throwIf(has(mapValues(attributes), ''), {no_type}){more}\n\
                 SETTINGS s3_ignore_file_doesnt_exist = 0, {NO_PARTITIONS}"
            )
        };
        parts.iter().enumerate().map(statement).collect()
    }

    /// SQL that reads the lines of files.
    fn source(&self, files: &[String]) -> String {
        let names = match files {
            [one] => one.clone(),
            several => format!("{{{}}}", several.join(",")),
        };
        format!("s3({}, 'LineAsString', 'line String')", literal(&format!("{}{names}", self.root)))
    }
}

/// The text of a file; `None` if there is no file. An empty file is an empty text.
async fn read_file(server: &Server, url: &str) -> Result<Option<String>, CommandError> {
    let sql = format!("SELECT text FROM s3({}, 'RawBLOB', 'text String') SETTINGS {NO_PARTITIONS}", literal(url));
    match server.try_ask(&sql, "TSVRaw").await {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.message.contains("HTTP response code: 404") => Ok(None),
        Err(error) => Err(CommandError::ClickHouse(format!("ClickHouse cannot read {url}: {}", error.message))),
    }
}

/// The key of an object as part of a URL.
fn object(key: &str) -> Result<String, CommandError> {
    if key.contains('\n') {
        return Err(CommandError::Refused(format!(
            "the export has an object {}, whose name ClickHouse truncates at the line break: export to another prefix",
            shown(key)
        )));
    }
    match key.contains(['*', '?', '{', '}', ',']) {
        true => Err(CommandError::Refused(format!(
            "the export has an object {}, whose name is a pattern to ClickHouse: export to another prefix",
            shown(key)
        ))),
        false => Ok(utf8_percent_encode(key, KEPT).to_string()),
    }
}

/// The URL of the bucket, from that of a folder and the key of a file in it.
fn root(folder: &str, manifest: &str) -> Option<String> {
    let key = manifest.strip_suffix("manifest-files.json")?.trim_end_matches('/');
    // A URL may have some characters encoded, or none.
    let parts = key.split('/').count();
    let at = folder.rmatch_indices('/').nth(parts - 1)?.0 + 1;
    let decoded = percent_decode_str(&folder[at..]).decode_utf8().ok()?;
    (decoded == key).then(|| folder[..at].to_owned())
}

fn span(summary: &Summary) -> Option<Span> {
    let ms = |text: &Option<String>| Some(DateTime::parse_from_rfc3339(text.as_deref()?).ok()?.timestamp_millis());
    match (ms(&summary.export_from_time), ms(&summary.export_to_time)) {
        (Some(from), Some(to)) => Some(Span::Incremental { from, to }),
        _ => Some(Span::Full { at: ms(&summary.export_time)? }),
    }
}

/// A time in human-readable form.
pub fn time(ms: i64) -> String {
    DateTime::<Utc>::from_timestamp_millis(ms).unwrap_or_default().to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Puts exports in order: a full one, then incremental ones, each starting no later than the
/// previous one ends.
pub fn chained(mut exports: Vec<Export>) -> Result<Vec<Export>, CommandError> {
    exports.sort_by_key(|export| match export.span {
        Span::Full { .. } => (0, 0),
        Span::Incremental { from, .. } => (1, from),
    });
    for pair in exports.windows(2) {
        let (before, end) = (&pair[0].url, pair[0].span.end());
        match pair[1].span {
            Span::Full { .. } => {
                return Err(CommandError::Refused(format!(
                    "the exports at {before} and {} are both full exports: give one, and the incremental exports after it",
                    pair[1].url
                )));
            }
            Span::Incremental { from, .. } if from > end => {
                return Err(CommandError::Refused(format!(
                    "between the exports at {before} and {} the changes from {} to {} are missing: also give, or make, the incremental export of that time",
                    pair[1].url,
                    time(end),
                    time(from)
                )));
            }
            Span::Incremental { to, .. } if to <= end => {
                return Err(CommandError::Refused(format!(
                    "the export at {} ends at {}, when the one at {before} has everything up to {}: leave it out",
                    pair[1].url,
                    time(to),
                    time(end)
                )));
            }
            Span::Incremental { .. } => {}
        }
    }
    Ok(exports)
}

#[cfg(test)]
impl Export {
    /// One without files.
    pub fn with_span(span: Span) -> Export {
        Export {
            url: format!("url-of-{}", span.end()),
            span,
            items: 0,
            root: String::new(),
            files: Vec::new(),
            table_arn: String::new(),
            table_id: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exports_are_put_in_order_and_may_overlap_but_leave_no_hole() {
        let full = |at| Export::with_span(Span::Full { at });
        let part = |from, to| Export::with_span(Span::Incremental { from, to });
        let ends = |exports: Vec<Export>| chained(exports).unwrap().iter().map(|e| e.span.end()).collect::<Vec<_>>();
        assert_eq!(ends(vec![part(20, 30), full(10), part(10, 20)]), [10, 20, 30]);
        assert_eq!(ends(vec![full(10), part(5, 20), part(20, 30)]), [10, 20, 30]);
        assert_eq!(ends(vec![part(10, 20)]), [20]);
        assert_eq!(ends(vec![]), [0; 0]);
        for (wrong, why) in [
            (vec![full(10), part(11, 20)], "are missing"),
            (vec![part(10, 20), part(21, 30)], "are missing"),
            (vec![full(10), full(11)], "are both full exports"),
            (vec![full(10), part(5, 10)], "leave it out"),
            (vec![part(10, 20), part(10, 20)], "leave it out"),
        ] {
            let said = chained(wrong).unwrap_err().to_string();
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn the_bucket_is_what_stands_before_the_key_of_the_folder() {
        for (folder, manifest, expected) in [
            (
                "https://b.s3.eu-west-1.amazonaws.com/AWSDynamoDB/1",
                "AWSDynamoDB/1/manifest-files.json",
                Some("https://b.s3.eu-west-1.amazonaws.com/"),
            ),
            ("http://127.0.0.1:1/b/p/%C3%BC%20x/1", "p/ü x/1/manifest-files.json", Some("http://127.0.0.1:1/b/")),
            ("http://127.0.0.1:1/b/p/1", "q/1/manifest-files.json", None),
            ("http://127.0.0.1:1/b/p/1", "1/manifest-files.json", Some("http://127.0.0.1:1/b/p/")),
            ("x", "a/b/c/manifest-files.json", None),
            ("http://127.0.0.1:1/b/p/1", "1/other.json", None),
        ] {
            assert_eq!(root(folder, manifest).as_deref(), expected, "{folder} {manifest}");
        }
        assert_eq!(object("p=1/ü x/d.json.gz").unwrap(), "p=1/%C3%BC%20x/d.json.gz");
        assert!(object("p/*.gz").is_err());
        // It would read the object named like the first line.
        assert!(object("p/d.gz\n.json.gz").unwrap_err().to_string().contains("line break"));
    }

    #[test]
    fn many_files_are_several_statements() {
        let mut export = Export::with_span(Span::Full { at: 5 });
        export.root = "http://h/b/".into();
        export.files = (0..EXPORT_FILES_PER_STATEMENT + 1).map(|n| format!("d/{n}.json.gz")).collect();
        let statements = export.load("`d`.`t_landing`", "t", "id");
        assert_eq!(statements.len(), 2);
        assert!(
            statements[0].contains(", part 1 of 2.") && statements[0].contains("'http://h/b/{d/0.json.gz,d/1.json.gz,")
        );
        assert!(
            statements[1].contains("FROM s3('http://h/b/d/500.json.gz', 'LineAsString'")
                && statements[1].contains("4999 AS version")
        );
        assert_eq!(Export::with_span(Span::Full { at: 5 }).load("l", "t", "id"), Vec::<String>::new());
    }
}
