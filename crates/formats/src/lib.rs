//! What is in a Kinesis record, and the bytes that are served: `unpack`, `unmarshal`, `encode`.
//! Pure functions.

pub mod encode;
pub mod unmarshal;
pub mod unpack;
