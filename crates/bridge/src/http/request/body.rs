//! Bodies of `seek`, `ack` and `end`: one JSON object per row, as `INSERT INTO FUNCTION url(…,
//! 'JSONEachRow', …)` sends them.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::position::Position;
use super::query::{name, quoted, shortened};
use domain::error::Error;
use domain::names::{BatchId, PipeName, ShardId};

/// Digits of a batch id.
const BATCH_DIGITS: usize = 16;
/// Maximum characters of the JSON parser's own message, which may repeat the input.
const MESSAGE: usize = 160;

/// A row of `seek`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeekRow {
    /// The pipe, from the path or from the row.
    pub pipe: PipeName,
    /// The shard; none means all of the pipe. Always given if the position is a sequence number.
    pub shard_id: Option<ShardId>,
    /// Where its checkpoint moves.
    pub position: Position,
    /// If the position is a sequence number: the last row of that record to skip; none means all of
    /// them.
    pub sub_sequence_number: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SeekJson {
    #[serde(default)]
    pipe: String,
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

/// A Unix time may come as a number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    String(String),
    Number(serde_json::Number),
}

/// Parses the body of `seek` for the pipe of the path, which is empty if each row names its own. An
/// empty body gives no seeks.
pub fn parse_seek(body: &[u8], pipe: &str) -> Result<Vec<SeekRow>, Error> {
    let first = if pipe.is_empty() { "\"pipe\": \"orders\", " } else { "" };
    rows(body, &format!("{{{first}\"shard_id\": \"\", \"position\": \"trim_horizon\"}}"), |row: SeekJson| {
        let pipe = match (pipe, &*row.pipe) {
            ("", "") => return Err(refused("it names no pipe")),
            (_, "") => pipe.into(),
            _ => named(pipe, &row.pipe)?,
        };
        let text = match row.position {
            Text::String(text) => text,
            Text::Number(number) => number.to_string(),
        };
        let position = Position::parse(&text)?;
        if row.shard_id.is_empty() && matches!(position, Position::Sequence(_)) {
            return Err(refused(
                "the position is a sequence number, which is meaningful only within one shard: name the shard in shard_id",
            ));
        }
        let shard_id = match &*row.shard_id {
            "" => None,
            id => Some(name("shard_id", id)?),
        };
        if row.sub_sequence_number.is_some() && !matches!(position, Position::Sequence(_)) {
            return Err(refused("sub_sequence_number is only for a sequence number: leave it out, or set it to NULL"));
        }
        Ok(SeekRow { pipe, shard_id, position, sub_sequence_number: row.sub_sequence_number })
    })
}

/// Parses the body of `ack`: the batches, each once. An empty body gives none.
pub fn parse_ack(body: &[u8]) -> Result<Vec<BatchId>, Error> {
    let mut batches = rows(body, "{\"batch\": \"0123456789abcdef\"}", |row: AckJson| {
        let hex = row.batch.len() == BATCH_DIGITS && row.batch.bytes().all(|b| b.is_ascii_hexdigit());
        if !hex {
            let batch = quoted(&row.batch);
            return Err(refused(format!("the batch {batch} must be the {BATCH_DIGITS} hexadecimal digits of _batch")));
        }
        Ok(BatchId::from(row.batch.to_ascii_lowercase()))
    })?;
    batches.sort();
    batches.dedup();
    Ok(batches)
}

/// Parses the body of `end`: the pipes. An empty body, as from a SELECT that found none, gives
/// none.
pub fn parse_end(body: &[u8]) -> Result<BTreeSet<PipeName>, Error> {
    rows(body, "{\"pipe\": \"orders\"}", |row: EndJson| name("pipe", &row.pipe)).map(BTreeSet::from_iter)
}

/// The pipe that a row names, which must be that of the path if the path has one.
fn named(path: &str, row: &str) -> Result<PipeName, Error> {
    if path.is_empty() {
        return name("pipe", row);
    }
    if row != path {
        let row = quoted(row);
        return Err(refused(format!("the row names pipe {row}, but the path names '{path}': they must be the same")));
    }
    Ok(path.into())
}

/// Parses rows one by one; the error names the first that is wrong.
fn rows<J: DeserializeOwned, R>(
    body: &[u8],
    example: &str,
    row: impl Fn(J) -> Result<R, Error>,
) -> Result<Vec<R>, Error> {
    let read = serde_json::Deserializer::from_slice(body).into_iter::<J>();
    let checked = read.enumerate().map(|(i, json)| {
        let json =
            json.map_err(|e| refused(format!("{}; rows look like {example}", shortened(&e.to_string(), MESSAGE))));
        json.and_then(&row).map_err(|why| refused(format!("row {} of the body is refused: {why}", i + 1)))
    });
    checked.collect()
}

fn refused(why: impl Into<String>) -> Error {
    Error::BadRequest(why.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::{Request, parse};
    use domain::start::Beginning;

    const ROWS: &[u8] = b"{\"pipe\":\"a\",\"position\":\"latest\"}\n{\"pipe\":\"b\",\"position\":\"latest\"}";

    #[test]
    fn without_a_pipe_in_the_path_each_row_names_its_own() {
        assert_eq!(parse("POST", "/v1/seek", None), Ok(Request::Seek { pipe: PipeName::default() }));
        assert_eq!(parse("POST", "/v1/end", None), Ok(Request::End));
        let row = |pipe: &str| SeekRow {
            pipe: pipe.into(),
            shard_id: None,
            position: Position::Start(Beginning::LATEST),
            sub_sequence_number: None,
        };
        assert_eq!(parse_seek(ROWS, ""), Ok(vec![row("a"), row("b")]));
        assert_eq!(parse_seek(b"{\"position\":\"latest\"}", "a"), Ok(vec![row("a")]));
        assert_eq!(parse_end(b"{\"pipe\":\"a\"}{\"pipe\":\"b\"}"), Ok(BTreeSet::from(["a".into(), "b".into()])));
        assert_eq!(parse_end(b""), Ok(BTreeSet::new()));
    }

    #[test]
    fn a_row_and_a_path_that_name_no_pipe_or_two_are_refused() {
        let told = |answer: Result<Vec<SeekRow>, Error>| answer.expect_err("a refusal").to_string();
        assert!(
            told(parse_seek(ROWS, "a"))
                .contains("row 2 of the body is refused: the row names pipe 'b', but the path names 'a'")
        );
        assert!(told(parse_seek(b"{\"position\":\"latest\"}", "")).contains("it names no pipe"));
        assert!(
            told(parse_seek(b"{\"pipe\":\"a/b\",\"position\":\"latest\"}", "")).contains("'a/b' is not a valid name")
        );
        assert!(parse_end(b"{\"pipe\":\"\"}").is_err() && parse_end(b"{\"pipe\":\"a/b\"}").is_err());
    }
}
