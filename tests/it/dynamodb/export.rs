//! Exports to S3 in the layout that AWS documents ("DynamoDB table export output format").
//! `ministack` knows the calls for an export but writes no files.

use std::io::Write;

use chrono::DateTime;
use flate2::Compression;
use flate2::write::GzEncoder;
use md5::{Digest, Md5};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::events::{base64, marshalled};
use super::items::{Item, key_of};
use super::{Table, ministack};

/// What cannot be in a URL unescaped.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'=');

/// An export to write. Its URL is that of its folder.
#[derive(Clone, Debug)]
pub struct Export<'a> {
    pub table: &'a Table,
    /// An existing bucket of [`ministack`].
    pub bucket: &'a str,
    /// May be empty.
    pub prefix: &'a str,
    /// Different for each export, such as `01693685827463-2d8752fd`.
    pub id: &'a str,
    /// How many data files have lines. As many again, but at most two, have none, and one is not in
    /// the manifest.
    pub files: usize,
}

/// An item's change in the period of an incremental export: its state before, and at the end.
#[derive(Clone, Debug)]
pub struct Changed {
    /// When it was last written, in microseconds since 1970.
    pub micros: i64,
    pub old: Option<Item>,
    pub new: Option<Item>,
}

impl Export<'_> {
    /// Writes a full export of the table at `time_micros` (whole milliseconds). `wrapped` is how
    /// AWS writes lines: `{"Item":{..}}`.
    pub fn full<'i>(&self, items: impl IntoIterator<Item = &'i Item>, time_micros: i64, wrapped: bool) -> String {
        let lines = items.into_iter().map(|item| match wrapped {
            true => format!("{{\"Item\":{}}}\n", marshalled(item)),
            false => format!("{}\n", marshalled(item)),
        });
        let data = format!("{}/data", self.folder());
        let times = json!({"version": "2020-06-30", "exportTime": time(time_micros), "exportType": "FULL_EXPORT"});
        self.write(&data, lines, time_micros, times)
    }

    /// Writes an incremental export of the changes from `from_micros` to `to_micros` (whole
    /// milliseconds), into the folder that all incremental exports with this prefix share.
    pub fn incremental(&self, changes: &[Changed], from_micros: i64, to_micros: i64) -> String {
        let lines = changes.iter().map(|change| {
            let keys = key_of(self.table.keys, change.new.as_ref().or(change.old.as_ref()).expect("an image"));
            let mut line = format!(
                r#"{{"Metadata":{{"WriteTimestampMicros":{{"N":"{}"}}}},"Keys":{}"#,
                change.micros,
                marshalled(&keys)
            );
            for (field, image) in [("NewImage", &change.new), ("OldImage", &change.old)] {
                if let Some(image) = image {
                    line.push_str(&format!(r#","{field}":{}"#, marshalled(image)));
                }
            }
            line.push_str("}\n");
            line
        });
        let times = json!({
            "version": "2023-08-01", "exportFromTime": time(from_micros), "exportToTime": time(to_micros),
            "outputView": "NEW_AND_OLD_IMAGES", "exportType": "INCREMENTAL_EXPORT",
        });
        self.write(&format!("{}/data", self.root()), lines, to_micros, times)
    }

    /// Only what AWS writes when an export begins.
    pub fn started(&self) -> String {
        put(self.bucket, &format!("{}/_started", self.folder()), b"");
        url_of(self.bucket, &self.folder())
    }

    fn root(&self) -> String {
        format!("{}/AWSDynamoDB", self.prefix).trim_start_matches('/').to_owned()
    }

    fn folder(&self) -> String {
        format!("{}/{}", self.root(), self.id)
    }

    fn write(&self, data: &str, lines: impl Iterator<Item = String>, end: i64, more: Value) -> String {
        let mut texts = vec![(0, String::new()); self.files + self.files.min(2)];
        for (n, line) in lines.enumerate() {
            let (count, text) = &mut texts[n % self.files];
            *count += 1;
            text.push_str(&line);
        }
        let mut manifest = String::new();
        let (mut items, mut bytes) = (0, 0);
        for (n, (count, text)) in texts.iter().enumerate() {
            let key = format!("{data}/{n:04}{}.json.gz", self.id.replace('-', ""));
            let file = gzip(text);
            let digest = Md5::digest(&file);
            let etag: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            let entry = json!({
                "itemCount": count, "md5Checksum": base64(&digest), "etag": etag, "dataFileS3Key": key,
            });
            manifest.push_str(&format!("{entry}\n"));
            put(self.bucket, &key, &file);
            (items, bytes) = (items + count, bytes + text.len());
        }
        // A file that is not in the manifest must be ignored: reading it would fail.
        let stray = format!("{data}/9999{}.json.gz", self.id.replace('-', ""));
        put(self.bucket, &stray, &gzip("{\"Item\":{\"stray\":{\"S\":\"not in the manifest\"}}}\n"));

        let url = self.started();
        let files_key = format!("{}/manifest-files.json", self.folder());
        let mut summary = json!({
            "exportArn": format!("{}/export/{}", self.table.arn, self.id),
            "startTime": time(end), "endTime": time(end + 60_000_000),
            "tableArn": self.table.arn, "tableId": self.table.id,
            "s3Bucket": self.bucket, "s3Prefix": (!self.prefix.is_empty()).then_some(self.prefix),
            "s3SseAlgorithm": "AES256", "s3SseKmsKeyId": null, "manifestFilesS3Key": files_key,
            "billedSizeBytes": bytes, "itemCount": items, "outputFormat": "DYNAMODB_JSON",
        });
        let fields = summary.as_object_mut().expect("an object");
        fields.extend(more.as_object().expect("an object").clone());
        for (name, text) in [("manifest-files", manifest), ("manifest-summary", summary.to_string())] {
            let checksum = base64(&Md5::digest(text.as_bytes()));
            put(self.bucket, &format!("{}/{name}.checksum", self.folder()), checksum.as_bytes());
            put(self.bucket, &format!("{}/{name}.json", self.folder()), text.as_bytes());
        }
        url
    }
}

/// Puts an object into a bucket of [`ministack`].
pub fn put(bucket: &str, key: &str, bytes: &[u8]) {
    let agent: ureq::Agent = ureq::Agent::config_builder().proxy(None).build().into();
    let url = url_of(bucket, key);
    agent.put(&url).send(bytes).unwrap_or_else(|error| panic!("cannot put {url}: {error}"));
}

/// The URL of an object, or of a folder.
pub fn url_of(bucket: &str, key: &str) -> String {
    format!("{}/{bucket}/{}", ministack().endpoint(), utf8_percent_encode(key, ENCODED))
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).expect("bytes in memory");
    encoder.finish().expect("bytes in memory")
}

/// In the format in which AWS writes times: `2020-11-04T07:28:34.028Z`.
fn time(micros: i64) -> String {
    assert_eq!(micros % 1_000, 0, "exports have times in milliseconds");
    let time = DateTime::from_timestamp_micros(micros).expect("a time");
    time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}
