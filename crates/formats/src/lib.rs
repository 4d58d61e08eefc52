//! Decoding of Kinesis records and encoding of responses: `unpack`, `unmarshal`, `encode`. Pure
//! functions.

pub mod encode;
pub mod unmarshal;
pub mod unpack;
