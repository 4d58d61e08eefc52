//! The flags of the commands, in addition to those of `serve`.

mod dynamodb;
mod pipe;
mod shared;
mod verify;

pub use dynamodb::DynamoDbFlags;
pub use pipe::PipeFlags;
pub use shared::SharedFlags;
pub use verify::VerifyFlags;
