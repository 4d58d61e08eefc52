//! Analysis of a stream's sample, and the notes about it.

use super::content::Contents;
use super::message::{MESSAGE, with_text};
use super::plan::shown;
use super::sample::Sample;
use super::shape::Shape;
use crate::error::CommandError;
use domain::limits::MAX_TUPLE_FIELDS;
use domain::unpacking::Split;

/// An analysed sample.
pub struct Looked {
    /// What its objects look like.
    pub shape: Shape,
    /// Number of objects.
    pub objects: usize,
    /// Notes about the records for the head of the SQL.
    pub head: Vec<String>,
}

/// Analyses a sample of `stream`. With `message`, its log events become objects with the fields of
/// their messages. The error says why there is nothing to make columns of.
pub fn look(sample: &mut Sample, stream: &str, message: bool) -> Result<Looked, CommandError> {
    let (rows, name) = (sample.len(), shown(stream));
    let of = if sample.split() == Split::None { "of" } else { "rows of" };
    let mut head = vec![format!("A pipe from stream {name}, made from {rows} {of} its records.")];
    match sample.split() {
        Split::None => {}
        Split::Lines => head.push("A record holds several lines: split=lines makes a row of each.".into()),
        Split::Json => {
            head.push("A record holds several JSON objects, or an array: split=json makes a row of each.".into());
        }
        Split::CloudWatch => {
            head.push(
                "Records are envelopes of CloudWatch Logs: split=cloudwatch makes a row of each log event.".into(),
            );
        }
    }
    head.extend(messages(sample, &name, message)?);
    let mut shape = Shape::default();
    let texts = || sample.payloads().filter_map(|payload| std::str::from_utf8(payload).ok());
    let objects = texts().filter(|text| shape.add_object(text)).count();
    if message && let Some(text) = texts().find_map(with_text) {
        // A later message may be plain text, whether or not the sample has one.
        shape.add_object(&text);
    }
    let contents = Contents::of(sample.payloads()).sentences(stream);
    if objects == 0 {
        return Err(CommandError::Refused(format!(
            "none of the {rows} newest records of stream {name} is a JSON object, so there are no fields to derive columns from: {}",
            contents.join("; ")
        )));
    }
    if shape.fields.len() > MAX_TUPLE_FIELDS {
        return Err(CommandError::Refused(format!(
            "the records of stream {name} have {} different fields, more than the {MAX_TUPLE_FIELDS} that make sense as columns: land them \
             raw, see \"Raw landing\" in docs/sql.md",
            shape.fields.len()
        )));
    }
    head.extend(contents.iter().map(|sentence| format!("{sentence}.")));
    Ok(Looked { shape, objects, head })
}

/// With `wanted`, merges the messages of log events into the events. Returns notes.
fn messages(sample: &mut Sample, stream: &str, wanted: bool) -> Result<Vec<String>, CommandError> {
    let (rows, is_cloudwatch) = (sample.len(), sample.split() == Split::CloudWatch);
    if !wanted {
        let objects = if is_cloudwatch { sample.messages() } else { 0 };
        let said = format!("{objects} of {rows} messages are JSON objects: --message turns their fields into columns.");
        return Ok(if objects > 0 { vec![said] } else { Vec::new() });
    }
    if !is_cloudwatch {
        return Err(CommandError::Refused(format!(
            "--message is for log events of CloudWatch, and most records of stream {stream} are not: leave it out"
        )));
    }
    match sample.merge_messages() {
        0 => Err(CommandError::Refused(format!(
            "none of the {rows} newest messages in stream {stream} is a JSON object: leave --message out, and each is text in the column message"
        ))),
        objects => Ok(vec![
            format!("{objects} of {rows} messages are JSON objects, and their fields become columns."),
            format!(
                "The other fields of an event are in columns that begin with _log_; a message of another kind is in {MESSAGE}, whole."
            ),
        ]),
    }
}
