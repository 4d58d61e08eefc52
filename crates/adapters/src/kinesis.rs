//! Kinesis through the AWS SDK: calls in, domain types out.

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
