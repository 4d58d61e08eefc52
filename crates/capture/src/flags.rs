//! The flags of the commands, in addition to those of `serve`.

mod dynamodb;
mod pipe;
mod shared;
mod verify;

use crate::error::CommandError;
pub use dynamodb::DynamoDbFlags;
pub use pipe::PipeFlags;
pub use shared::SharedFlags;
pub use verify::VerifyFlags;

/// Database and name of the table that a flag names.
pub fn table(flag: &str, text: &str) -> Result<(String, String), CommandError> {
    sql::name::table_name(text).ok_or_else(|| {
        CommandError::Refused(format!(
            "--{flag} is '{text}': write <database>.<table>, with backquotes around a part that is not a plain identifier"
        ))
    })
}
