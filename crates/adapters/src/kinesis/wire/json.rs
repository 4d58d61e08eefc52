//! JSON (`application/x-amz-json-1.1`): one pass over the body, no allocation per record.

use std::borrow::Cow;

use aws_smithy_types::DateTime;
use base64_simd::STANDARD;
use memchr::memchr2;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Child, Decoded, once};
use domain::limits::BODY_BYTES_PER_RECORD;
use domain::record::Chunk;

#[cfg(test)]
mod tests;

/// Decodes a body. `None` if it is broken or in any way unusual, as with a member that is there
/// twice, or without a list of records.
pub fn decode(body: &[u8]) -> Option<Decoded> {
    let mut text = Text { bytes: body, at: 0 };
    let (mut records, mut resume, mut millis_behind_latest, mut children) = (None, None, None, None);
    text.object(|text, member| match member {
        b"Records" => once(&mut records, chunk(text)?),
        b"NextShardIterator" | b"ContinuationSequenceNumber" => once(&mut resume, text.string_or_null()?),
        b"MillisBehindLatest" => once(&mut millis_behind_latest, text.value::<Option<i64>>()?),
        b"ChildShards" => once(&mut children, text.value::<Option<Vec<Child>>>()?),
        _ => text.skip(member),
    })?;
    text.skip_space();
    let resume = match resume.flatten() {
        Some(resume) => Some(resume.plain()?.into_owned()),
        None => None,
    };
    let children = children.flatten().unwrap_or_default().into_iter().map(Into::into).collect();
    (text.at == body.len()).then_some(Decoded {
        records: records?,
        resume,
        millis_behind_latest: millis_behind_latest.flatten().unwrap_or(0),
        children,
    })
}

fn chunk(text: &mut Text<'_>) -> Option<Chunk> {
    let bytes = text.bytes.len();
    let mut chunk = Chunk::with_capacity(bytes / BODY_BYTES_PER_RECORD, STANDARD.estimated_decoded_length(bytes));
    text.list(|text| record(text, &mut chunk))?;
    chunk.shrink();
    Some(chunk)
}

fn record(text: &mut Text<'_>, chunk: &mut Chunk) -> Option<()> {
    let (mut data, mut sequence, mut key, mut timestamp_ms) = (None, None, None, None);
    text.object(|text, member| match member {
        b"Data" => once(&mut data, text.string()?),
        b"SequenceNumber" => once(&mut sequence, text.string()?),
        b"PartitionKey" => once(&mut key, text.string()?),
        b"ApproximateArrivalTimestamp" => once(&mut timestamp_ms, text.timestamp_ms()?),
        // Not used, but the SDK refuses anything else.
        b"EncryptionType" => text.string_or_null()?.map_or(Some(()), |kind| kind.plain().map(drop)),
        _ => text.skip(member),
    })?;
    let (data, sequence, key) = (data?.plain()?, sequence?.plain()?, key.unwrap_or_default().plain()?);
    let decode = |payload: &mut Vec<u8>| STANDARD.decode_append(data.as_bytes(), payload).is_ok();
    chunk.push_with(&key, timestamp_ms.unwrap_or(0), &sequence, decode)
}

/// What stands between two quotes.
#[derive(Clone, Copy, Default)]
struct Quoted<'a> {
    bytes: &'a [u8],
    escapes: bool,
}

impl<'a> Quoted<'a> {
    /// The text that it stands for.
    fn plain(self) -> Option<Cow<'a, str>> {
        if !self.escapes {
            return std::str::from_utf8(self.bytes).ok().map(Cow::Borrowed);
        }
        let quoted = [b"\"", self.bytes, b"\""].concat();
        serde_json::from_slice(&quoted).ok().map(Cow::Owned)
    }
}

/// A text and the place in it that is read next.
struct Text<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Text<'a> {
    fn skip_space(&mut self) {
        let space = |byte: &&u8| matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
        self.at += self.bytes[self.at..].iter().take_while(space).count();
    }

    /// The next byte that is not space.
    fn peek(&mut self) -> Option<u8> {
        self.skip_space();
        self.bytes.get(self.at).copied()
    }

    /// Passes this byte, if it comes next.
    fn pass(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn null(&mut self) -> bool {
        self.skip_space();
        let null = self.bytes[self.at..].starts_with(b"null");
        self.at += if null { 4 } else { 0 };
        null
    }

    /// A string, or nothing if there is a null.
    fn string_or_null(&mut self) -> Option<Option<Quoted<'a>>> {
        if self.null() { Some(None) } else { self.string().map(Some) }
    }

    fn string(&mut self) -> Option<Quoted<'a>> {
        self.pass(b'"')?;
        let (start, mut escapes) = (self.at, false);
        loop {
            self.at += memchr2(b'"', b'\\', self.bytes.get(self.at..)?)?;
            if self.bytes[self.at] == b'"' {
                self.at += 1;
                return Some(Quoted { bytes: &self.bytes[start..self.at - 1], escapes });
            }
            escapes = true;
            self.at += 2;
        }
    }

    /// Seconds since 1970, as ms; nothing if that is too large. With the arithmetic of the SDK,
    /// which drops what is below a millisecond of the nearest binary fraction: the same record
    /// always has the same time.
    fn timestamp_ms(&mut self) -> Option<i64> {
        self.skip_space();
        let text = number(&self.bytes[self.at..])?;
        self.at += text.len();
        let time = match text.parse::<i64>() {
            Ok(seconds) => DateTime::from_secs(seconds),
            Err(_) => DateTime::from_secs_f64(text.parse().ok()?),
        };
        time.to_millis().ok()
    }

    /// Any value, by serde.
    fn value<T: Deserialize<'a>>(&mut self) -> Option<T> {
        let mut values = serde_json::Deserializer::from_slice(self.bytes.get(self.at..)?).into_iter::<T>();
        let value = values.next()?.ok()?;
        self.at += values.byte_offset();
        Some(value)
    }

    /// Passes the value of a member that is not known; raw, which is text at least. The SDK may
    /// know it, and refuse a string that is not one.
    fn skip(&mut self, member: &[u8]) -> Option<()> {
        std::str::from_utf8(member).ok()?;
        if self.peek()? == b'"' {
            return self.string()?.plain().map(drop);
        }
        self.value::<&RawValue>().map(drop)
    }

    /// Calls `each` for every member of an object, where its value begins.
    fn object(&mut self, mut each: impl FnMut(&mut Text<'a>, &[u8]) -> Option<()>) -> Option<()> {
        self.pass(b'{')?;
        if self.pass(b'}').is_some() {
            return Some(());
        }
        loop {
            let member = self.string().filter(|member| !member.escapes)?;
            self.pass(b':')?;
            each(self, member.bytes)?;
            if self.pass(b',').is_none() {
                return self.pass(b'}');
            }
        }
    }

    /// Calls `each` for every element of a list, where it begins.
    fn list(&mut self, mut each: impl FnMut(&mut Text<'a>) -> Option<()>) -> Option<()> {
        self.pass(b'[')?;
        if self.pass(b']').is_some() {
            return Some(());
        }
        loop {
            each(self)?;
            if self.pass(b',').is_none() {
                return self.pass(b']');
            }
        }
    }
}

/// The number at the beginning of a text. Rust would read more than JSON allows.
fn number(text: &[u8]) -> Option<&str> {
    let digits = |from: usize| text[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let is = |at: usize, bytes: &[u8]| text.get(at).is_some_and(|byte| bytes.contains(byte));
    let whole = usize::from(is(0, b"-"));
    let mut end = whole + digits(whole);
    if end == whole || end > whole + 1 && is(whole, b"0") {
        return None;
    }
    if is(end, b".") {
        end += 1 + Some(digits(end + 1)).filter(|count| *count > 0)?;
    }
    if is(end, b"eE") {
        end += 1 + usize::from(is(end + 1, b"+-"));
        end += Some(digits(end)).filter(|count| *count > 0)?;
    }
    std::str::from_utf8(&text[..end]).ok()
}
