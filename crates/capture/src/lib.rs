//! The commands that generate SQL and compare tables: `sql pipe`, `sql dynamodb`, `dynamodb
//! verify`.

pub mod dynamodb;
pub mod error;
pub mod flags;
pub mod generate;
pub mod verify;
