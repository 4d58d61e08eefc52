//! The client that subscribes to shards.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::{Builder, Config, StalledStreamProtectionConfig};

use crate::aws::Access;
use domain::limits::SUBSCRIPTION_SILENCE;

/// The client used to subscribe. Its responses last for minutes and the reader monitors them, so
/// the SDK sets no timeout and does not retry.
pub(super) struct Subscriber {
    config: Config,
    access: Access,
    /// With its creation time. Each client has its own connections, and over HTTP/2 all its
    /// subscriptions share one.
    client: Mutex<(Client, Instant)>,
}

impl Subscriber {
    pub(super) fn new(config: Builder, access: Access) -> Subscriber {
        let config = config
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .build();
        let client = Mutex::new((client(&config, &access), Instant::now()));
        Subscriber { config, access, client }
    }

    fn now(&self) -> MutexGuard<'_, (Client, Instant)> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn client(&self) -> Client {
        self.now().0.clone()
    }

    /// Creates a new client, unless this one is so recent that the silent subscription was not on
    /// it.
    pub(super) fn renew(&self) {
        let mut now = self.now();
        if now.1.elapsed() >= SUBSCRIPTION_SILENCE {
            *now = (client(&self.config, &self.access), Instant::now());
        }
    }
}

/// With connections of its own.
fn client(config: &Config, access: &Access) -> Client {
    Client::from_conf(config.to_builder().http_client(access.http_client()).build())
}
