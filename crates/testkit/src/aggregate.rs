//! Aggregates of the Kinesis Producer Library, implemented independently of the reader.

use md5::{Digest, Md5};

/// Appends a number as protobuf writes it.
fn varint(mut n: u64, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Appends a field of bytes.
fn field(number: u64, bytes: &[u8], out: &mut Vec<u8>) {
    varint(number << 3 | 2, out);
    varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// An aggregate according to the specification, implemented independently of the reader; with an
/// explicit hash key table and tags.
pub fn aggregate(records: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut message = Vec::new();
    let mut keys: Vec<&String> = records.iter().map(|(key, _)| key).collect();
    keys.sort();
    keys.dedup();
    keys.iter().for_each(|key| field(1, key.as_bytes(), &mut message));
    field(2, b"0", &mut message);
    for (key, data) in records {
        let mut record = Vec::new();
        varint(1 << 3, &mut record);
        varint(keys.iter().position(|k| *k == key).unwrap() as u64, &mut record);
        varint(2 << 3, &mut record);
        varint(0, &mut record);
        field(3, data, &mut record);
        field(4, b"\x0a\x01t", &mut record);
        field(3, &record, &mut message);
    }
    sealed(&message)
}

/// Wraps the message in its magic number and checksum.
pub fn sealed(message: &[u8]) -> Vec<u8> {
    [&[0xF3, 0x89, 0x9A, 0xC2], message, &Md5::digest(message)].concat()
}
