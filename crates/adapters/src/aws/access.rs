//! The configuration of all clients of one account and region.

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::retries::classifiers::ClassifyRetry;

use super::credentials::Credentials;
use super::https::Trust;
use domain::error::Error;

/// Access to one account and region. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Access {
    sdk: SdkConfig,
    region: String,
    trust: Trust,
    credentials: Credentials,
}

impl Access {
    /// Takes region, credentials, roles, endpoints and certificates from where AWS's own tools look
    /// for them. The timeouts are those of a call.
    pub async fn from_environment(timeouts: TimeoutConfig) -> Result<Access, Error> {
        let sdk = aws_config::defaults(BehaviorVersion::latest()).timeout_config(timeouts).load().await;
        let no_region = "no AWS region is configured: set AWS_REGION, or region in the profile that AWS_PROFILE names";
        let region = sdk.region().cloned().ok_or_else(|| Error::Misconfigured(no_region.into()))?;
        let trust = Trust::of(&sdk)?;
        let credentials = Credentials::new(region.clone(), trust.client());
        let sdk = sdk
            .into_builder()
            .credentials_provider(credentials.provider())
            .identity_cache(credentials.clone())
            .http_client(trust.client())
            .build();
        Ok(Access { sdk, region: region.to_string(), trust, credentials })
    }

    /// What a client is made from.
    pub fn sdk(&self) -> &SdkConfig {
        &self.sdk
    }

    /// The region.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// An HTTP client with connections of its own.
    pub fn http_client(&self) -> SharedHttpClient {
        self.trust.client()
    }

    /// For clients whose callers do not repeat what fails: calls with credentials that are refused
    /// are repeated with those that are read again.
    pub fn retry(&self) -> impl ClassifyRetry + use<> {
        self.credentials.clone()
    }

    /// To be called when AWS refuses the credentials: they are read again, because they may have
    /// been replaced.
    pub(super) fn refused(&self) {
        self.credentials.renew();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    pub(crate) use super::super::https::tests::answering;
    use super::*;

    /// Access to nothing, in eu-west-1.
    pub(crate) fn nowhere() -> Access {
        let (region, trust) = (aws_config::Region::new("eu-west-1"), Trust::default());
        let credentials = Credentials::new(region.clone(), trust.client());
        Access { sdk: SdkConfig::builder().build(), region: region.to_string(), trust, credentials }
    }
}
