//! Bodies of `seek`, `ack` and `end`: one JSON object a row, as `INSERT INTO FUNCTION url(…, 'JSONEachRow', …)` sends them.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::position::Position;
use super::query::{name, quoted, shortened};
use crate::domain::error::Error;

/// Digits of a batch id.
const BATCH_DIGITS: usize = 16;
/// Most characters of the JSON reader's own message, which may repeat what was sent.
const MESSAGE: usize = 160;

/// A row of `seek`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeekRow {
    /// The shard; none means all of the pipe. There is one where the position is a sequence number.
    pub shard_id: Option<String>,
    /// Where its checkpoint goes.
    pub position: Position,
    /// Where the position is a sequence number: the last row of that record that is passed over; none means all of them.
    pub sub_sequence_number: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SeekJson {
    #[serde(default)]
    shard_id: String,
    position: Text,
    #[serde(default)]
    sub_sequence_number: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AckJson {
    batch: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EndJson {
    pipe: String,
}

/// Unix milliseconds may come as a number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    String(String),
    Number(u64),
}

/// Reads the body of `seek`. Without rows it gives none.
pub fn parse_seek(body: &[u8]) -> Result<Vec<SeekRow>, Error> {
    rows(body, "{\"shard_id\": \"\", \"position\": \"trim_horizon\"}", |row: SeekJson| {
        let text = match row.position {
            Text::String(text) => text,
            Text::Number(number) => number.to_string(),
        };
        let position = Position::parse(&text)?;
        if row.shard_id.is_empty() && matches!(position, Position::Sequence(_)) {
            return Err(
                "the position is a sequence number, which has a meaning within one shard only: name it in shard_id"
                    .into(),
            );
        }
        let shard_id = match &*row.shard_id {
            "" => None,
            id => Some(name("shard_id", id).map_err(|e| e.to_string())?),
        };
        if row.sub_sequence_number.is_some() && !matches!(position, Position::Sequence(_)) {
            return Err("sub_sequence_number belongs to a sequence number: leave it out, or set it to NULL".into());
        }
        Ok(SeekRow { shard_id, position, sub_sequence_number: row.sub_sequence_number })
    })
}

/// Reads the body of `ack`: the batches, each once. Without rows it gives none.
pub fn parse_ack(body: &[u8]) -> Result<Vec<String>, Error> {
    let mut batches = rows(body, "{\"batch\": \"0123456789abcdef\"}", |row: AckJson| {
        let hex = row.batch.len() == BATCH_DIGITS && row.batch.bytes().all(|b| b.is_ascii_hexdigit());
        let wrong =
            || format!("the batch {} must be the {BATCH_DIGITS} hexadecimal digits of _batch", quoted(&row.batch));
        if hex { Ok(row.batch.to_ascii_lowercase()) } else { Err(wrong()) }
    })?;
    batches.sort();
    batches.dedup();
    Ok(batches)
}

/// Reads the body of `end`, which must name the pipe again. False: there is no row, as when a SELECT found none.
pub fn parse_end(body: &[u8], pipe: &str) -> Result<bool, Error> {
    let named = rows(body, &format!("{{\"pipe\": \"{pipe}\"}}"), |row: EndJson| match row.pipe == pipe {
        true => Ok(()),
        false => {
            Err(format!("the row names the pipe {} and the path '{pipe}': both must be the same", quoted(&row.pipe)))
        }
    })?;
    Ok(!named.is_empty())
}

/// Reads rows one after the other; a message names the first that is wrong.
fn rows<J: DeserializeOwned, R>(
    body: &[u8],
    example: &str,
    row: impl Fn(J) -> Result<R, String>,
) -> Result<Vec<R>, Error> {
    let read = serde_json::Deserializer::from_slice(body).into_iter::<J>();
    let checked = read.enumerate().map(|(i, json)| {
        let at = |why: String| Error::BadRequest(format!("row {} of the body is refused: {why}", i + 1));
        let json = json.map_err(|e| at(format!("{}; rows look like {example}", shortened(&e.to_string(), MESSAGE))))?;
        row(json).map_err(at)
    });
    checked.collect()
}
