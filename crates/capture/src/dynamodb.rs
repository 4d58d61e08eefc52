//! DynamoDB through the AWS SDK, for the commands that inspect tables. `serve` does not use it:
//! changes come from Kinesis.

mod client;
mod error;
pub mod names;
mod read;

pub use client::{Destination, DynamoDb, KeyAttribute, KeyType, Table};
pub use read::{Attributes, Page};
