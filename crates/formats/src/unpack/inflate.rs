//! Decompression, with a limit on the size a small payload may expand to.

use std::io::{self, Read};

use flate2::bufread::GzDecoder;
use flate2::{Decompress, FlushDecompress, Status};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use domain::limits::LIKELY_RATIO;
use domain::unpacking::Edition;

const GZIP: [u8; 3] = [0x1F, 0x8B, 0x08];
const ZSTD: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];
/// The last three bytes of the magic numbers of zstd skippable frames; the first byte is one of 16.
const ZSTD_SKIPPED: [u8; 3] = [0x2A, 0x4D, 0x18];
/// Deflate with a 32 KiB window, as all common writers declare, whatever they need.
const ZLIB: [u8; 1] = [0x78];

/// The result of decompressing.
#[derive(Debug, PartialEq, Eq)]
pub enum Inflated {
    /// The decompressed data, and whether it is followed by more than padding.
    Whole(Vec<u8>, bool),
    /// It is truncated, damaged, or not compressed data although it starts like it.
    Broken,
    /// It exceeds the limit.
    TooLarge,
    /// It starts like zlib data, as text may, but is not.
    Plain,
}

/// The compression format.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Gzip,
    Zstd,
    Zlib,
}

/// Whether `payload` starts like compressed data of a kind that the edition supports.
pub fn claims(payload: &[u8], edition: Edition) -> bool {
    kind(payload, edition).is_some()
}

fn kind(payload: &[u8], edition: Edition) -> Option<Kind> {
    match payload {
        _ if payload.starts_with(&GZIP) => Some(Kind::Gzip),
        _ if payload.starts_with(&ZSTD) => Some(Kind::Zstd),
        // The two bytes together are a multiple of 31, and no dictionary is required.
        [first, flags, ..] if edition != Edition::First && payload.starts_with(&ZLIB) => {
            let sum = (u16::from(*first) << 8 | u16::from(*flags)) % 31;
            (sum == 0 && flags & 0x20 == 0).then_some(Kind::Zlib)
        }
        _ => None,
    }
}

/// Decompresses all of `payload`, which [`claims`] to be compressed, into at most `limit` bytes.
pub fn inflate(payload: &[u8], limit: usize, edition: Edition) -> Inflated {
    let mut whole = Vec::new();
    let lenient = edition != Edition::First;
    let kind = kind(payload, edition);
    let read = match kind {
        Some(Kind::Gzip) => gzip(payload, limit, &mut whole, lenient),
        Some(Kind::Zstd) => zstd(payload, limit, &mut whole, lenient),
        Some(Kind::Zlib) => zlib(payload, limit, &mut whole),
        None => Err(io::ErrorKind::InvalidData.into()),
    };
    match (read, kind) {
        _ if whole.len() > limit => Inflated::TooLarge,
        (Ok([]), _) => Inflated::Whole(whole, false),
        (Ok(rest), _) if lenient && padded(rest).is_empty() => Inflated::Whole(whole, false),
        // Two bytes are weak evidence, so nothing else may follow the stream.
        (_, Some(Kind::Zlib)) => Inflated::Plain,
        (Ok(_), _) if lenient => Inflated::Whole(whole, true),
        _ => Inflated::Broken,
    }
}

/// Skips zeros, spaces and line ends, which writers put after compressed data.
fn padded(rest: &[u8]) -> &[u8] {
    let padding = rest.iter().take_while(|byte| **byte == 0 || byte.is_ascii_whitespace()).count();
    rest.get(padding..).unwrap_or_default()
}

/// Decompresses all members of `payload`, which form one text, as in `gzip -d`, or just over
/// `limit` bytes. Returns what follows them.
fn gzip<'p>(payload: &'p [u8], limit: usize, whole: &mut Vec<u8>, lenient: bool) -> io::Result<&'p [u8]> {
    // The last four bytes are the length of the last member: zlib is slow when given little room at
    // a time. Only a plausible length is trusted, and some room is left for checking that this was
    // all.
    let written = payload.last_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize);
    whole.reserve(written.min(payload.len() * LIKELY_RATIO).min(limit) + 64);
    let mut rest = payload;
    loop {
        let mut member = GzDecoder::new(rest);
        let left = (limit + 1).saturating_sub(whole.len());
        member.by_ref().take(left as u64).read_to_end(whole)?;
        if whole.len() > limit {
            return Ok(&[]);
        }
        rest = member.into_inner();
        let next = if lenient { padded(rest) } else { rest };
        if !next.starts_with(&GZIP) {
            return Ok(rest);
        }
        rest = next;
    }
}

/// Decompresses all frames of `payload`, or just over `limit` bytes. Returns what follows them.
fn zstd<'p>(payload: &'p [u8], limit: usize, whole: &mut Vec<u8>, lenient: bool) -> io::Result<&'p [u8]> {
    let mut decoder = FrameDecoder::new();
    decoder.set_max_window_size(limit as u64);
    let mut rest = payload;
    loop {
        decoder.reset(&mut rest).map_err(io::Error::other)?;
        while !decoder.is_finished() && whole.len() <= limit {
            decoder.decode_blocks(&mut rest, BlockDecodingStrategy::UptoBlocks(1)).map_err(io::Error::other)?;
            decoder.read_to_end(whole)?;
        }
        decoder.read_to_end(whole)?;
        let (written, computed) = (decoder.get_checksum_from_data(), decoder.get_calculated_checksum());
        if decoder.is_finished() && written.is_some() && written != computed {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if whole.len() > limit {
            return Ok(&[]);
        }
        let next = if lenient { behind_skipped(rest) } else { rest };
        if !next.starts_with(&ZSTD) {
            return Ok(next);
        }
        rest = next;
    }
}

/// Skips frames without data, and padding.
fn behind_skipped(mut rest: &[u8]) -> &[u8] {
    loop {
        let next = padded(rest);
        let [0x50..=0x5F, a, b, c, length @ ..] = next else { return next };
        let skipped = length.first_chunk().map(|bytes| u32::from_le_bytes(*bytes) as usize);
        match skipped.and_then(|skipped| length.get(4..)?.get(skipped..)) {
            Some(behind) if [*a, *b, *c] == ZSTD_SKIPPED => rest = behind,
            _ => return next,
        }
    }
}

/// Decompresses the stream at the start of `payload`, verifying its checksum, or just over `limit`
/// bytes. Returns what follows it.
fn zlib<'p>(payload: &'p [u8], limit: usize, whole: &mut Vec<u8>) -> io::Result<&'p [u8]> {
    let mut stream = Decompress::new(true);
    let mut rest = payload;
    loop {
        // When it is used up, it grows: twice as much each time.
        whole.reserve(64);
        let before = (stream.total_in(), stream.total_out());
        let status = stream.decompress_vec(rest, whole, FlushDecompress::None)?;
        let read = usize::try_from(stream.total_in() - before.0).unwrap_or(usize::MAX);
        rest = rest.get(read..).unwrap_or_default();
        if status == Status::StreamEnd || whole.len() > limit {
            return Ok(rest);
        }
        if (stream.total_in(), stream.total_out()) == before {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}
