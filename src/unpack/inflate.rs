//! Decompression, with an end to what a small payload may become.

use std::io::{self, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use crate::limits::LIKELY_RATIO;

const GZIP: [u8; 3] = [0x1F, 0x8B, 0x08];
const ZSTD: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];

/// What decompressing led to.
#[derive(Debug, PartialEq, Eq)]
pub enum Inflated {
    /// What was in it.
    Whole(Vec<u8>),
    /// It is cut off, damaged, or no compressed data although it begins so.
    Broken,
    /// It is more than the limit.
    TooLarge,
}

/// Whether `payload` begins as gzip or zstd data.
pub fn claims(payload: &[u8]) -> bool {
    payload.starts_with(&GZIP) || payload.starts_with(&ZSTD)
}

/// Decompresses all of `payload`, which [`claims`] to be compressed, into `limit` bytes at most.
pub fn inflate(payload: &[u8], limit: usize) -> Inflated {
    let mut whole = Vec::new();
    let read = match payload.starts_with(&GZIP) {
        true => gzip(payload, limit, &mut whole),
        false => zstd(payload, limit, &mut whole),
    };
    match read {
        _ if whole.len() > limit => Inflated::TooLarge,
        Ok(()) => Inflated::Whole(whole),
        Err(_) => Inflated::Broken,
    }
}

/// All members of `payload`, which are one text, as `gzip -d` has it; or just over `limit` bytes.
fn gzip(payload: &[u8], limit: usize, whole: &mut Vec<u8>) -> io::Result<()> {
    // The last four bytes are the length of the last member: zlib is slow when it is given little room at a time. No more is believed than is
    // likely, and some room is left for the look whether that was all.
    let written = payload.last_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize);
    whole.reserve(written.min(payload.len() * LIKELY_RATIO).min(limit) + 64);
    MultiGzDecoder::new(payload).take(limit as u64 + 1).read_to_end(whole).map(drop)
}

/// All frames of `payload`, or just over `limit` bytes.
fn zstd(mut payload: &[u8], limit: usize, whole: &mut Vec<u8>) -> io::Result<()> {
    let mut decoder = FrameDecoder::new();
    decoder.set_max_window_size(limit as u64);
    while !payload.is_empty() && whole.len() <= limit {
        decoder.reset(&mut payload).map_err(io::Error::other)?;
        while !decoder.is_finished() && whole.len() <= limit {
            decoder.decode_blocks(&mut payload, BlockDecodingStrategy::UptoBlocks(1)).map_err(io::Error::other)?;
            decoder.read_to_end(whole)?;
        }
        decoder.read_to_end(whole)?;
        let (written, computed) = (decoder.get_checksum_from_data(), decoder.get_calculated_checksum());
        if decoder.is_finished() && written.is_some() && written != computed {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok(())
}
