//! Kinesis through the AWS SDK: calls in, domain types out. Records are decoded by `wire` instead of
//! the SDK (`pages`, `events`), and most GetRecords calls go past its orchestration (`shortcut`).

mod client;
mod convert;
mod dates;
mod error;
mod events;
mod fan_out;
mod pages;
mod sdk;
mod shortcut;
mod subscriber;
pub mod wire;

pub use client::AwsKinesis;
