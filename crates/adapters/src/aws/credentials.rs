//! Credentials that change while the process runs. The SDK parses the files with profiles once for
//! each provider chain, and keeps what it found, even that there is nothing: new keys need a new
//! chain.

use std::error::Error as StdError;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use aws_config::identity::IdentityCache;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::future::ProvideCredentials as Provided;
use aws_credential_types::provider::{self, ProvideCredentials, SharedCredentialsProvider};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::identity::{
    IdentityFuture, ResolveCachedIdentity, SharedIdentityCache, SharedIdentityResolver,
};
use aws_smithy_runtime_api::client::interceptors::context::InterceptorContext;
use aws_smithy_runtime_api::client::retries::classifiers::{ClassifyRetry, RetryAction};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::error::ErrorMetadata;
use tokio::sync::OnceCell;
use tracing::info;

use super::chain::find;
use domain::limits::{CREDENTIALS_ATTEMPT_TIMEOUT, CREDENTIALS_RENEWAL, CREDENTIALS_TIMEOUT};

/// The SDK's provider chain and its cache, both replaced when they are of no use. Cheap to clone.
#[derive(Clone)]
pub(super) struct Credentials(Arc<Inner>);

struct Inner {
    region: Region,
    client: SharedHttpClient,
    source: Mutex<Arc<Source>>,
    /// The access key in use.
    key: Mutex<Option<String>>,
}

/// Where the credentials come from, until they are refused or there are none.
struct Source {
    /// When the one before it was given up.
    since: Option<Instant>,
    chain: OnceCell<Option<SharedCredentialsProvider>>,
    cache: SharedIdentityCache,
    failed: OnceLock<Arc<CredentialsError>>,
}

/// That there are no credentials, and why.
#[derive(Clone, Debug)]
pub(super) struct Unobtained(pub(super) Arc<CredentialsError>);

impl fmt::Display for Unobtained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no credentials were obtained")
    }
}

impl StdError for Unobtained {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.0)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

/// Whether an error of AWS means that the credentials are no longer, or not yet, good.
pub(super) fn are_refused(code: &str) -> bool {
    [
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    ]
    .contains(&code)
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Source {
    fn new(since: Option<Instant>) -> Arc<Source> {
        Arc::new(Source {
            since,
            chain: OnceCell::new(),
            cache: IdentityCache::lazy().build(),
            failed: OnceLock::new(),
        })
    }
}

impl Credentials {
    pub(super) fn new(region: Region, client: SharedHttpClient) -> Credentials {
        let (source, key) = (Mutex::new(Source::new(None)), Mutex::default());
        Credentials(Arc::new(Inner { region, client, source, key }))
    }

    pub(super) fn provider(&self) -> SharedCredentialsProvider {
        SharedCredentialsProvider::new(self.clone())
    }

    /// Has them read again, unless that was done a moment ago: all shards are refused at once, and
    /// files that did not change yet may only change in a while.
    pub(super) fn renew(&self) {
        let mut source = held(&self.0.source);
        if source.since.is_none_or(|since| since.elapsed() >= CREDENTIALS_RENEWAL) {
            *source = Source::new(Some(Instant::now()));
        }
    }

    fn source(&self) -> Arc<Source> {
        held(&self.0.source).clone()
    }

    async fn obtain(&self) -> provider::Result {
        if self.source().failed.get().is_some() {
            self.renew();
        }
        let source = self.source();
        // Not asked again until then: the chain would repeat what it found, or ask STS for each
        // call.
        if let Some(failed) = source.failed.get() {
            return Err(CredentialsError::provider_error(Unobtained(failed.clone())));
        }
        let chain = source.chain.get_or_init(|| self.chain()).await;
        let obtained = match chain {
            Some(chain) => chain.provide_credentials().await,
            None => Err(CredentialsError::not_loaded_no_source()),
        };
        obtained.inspect(|credentials| self.note(credentials.access_key_id())).map_err(|error| {
            let failed = source.failed.get_or_init(|| Arc::new(error));
            CredentialsError::provider_error(Unobtained(failed.clone()))
        })
    }

    async fn chain(&self) -> Option<SharedCredentialsProvider> {
        // Below those of the calls that wait for credentials, whose errors would hide the cause.
        let timeouts = TimeoutConfig::builder()
            .operation_timeout(CREDENTIALS_TIMEOUT)
            .operation_attempt_timeout(CREDENTIALS_ATTEMPT_TIMEOUT)
            .build();
        let sdk = aws_config::defaults(BehaviorVersion::latest())
            .region(self.0.region.clone())
            .http_client(self.0.client.clone())
            .timeout_config(timeouts)
            .load()
            .await;
        sdk.credentials_provider()
    }

    fn note(&self, key: &str) {
        let mut used = held(&self.0.key);
        if used.as_deref() != Some(key) {
            if used.is_some() {
                info!("new AWS credentials are in use");
            }
            *used = Some(key.to_owned());
        }
    }
}

impl ProvideCredentials for Credentials {
    fn provide_credentials<'a>(&'a self) -> Provided<'a>
    where
        Self: 'a,
    {
        Provided::new(self.obtain())
    }
}

impl ResolveCachedIdentity for Credentials {
    fn resolve_cached_identity<'a>(
        &'a self,
        resolver: SharedIdentityResolver,
        components: &'a RuntimeComponents,
        bag: &'a ConfigBag,
    ) -> IdentityFuture<'a> {
        let source = self.source();
        IdentityFuture::new(async move { source.cache.resolve_cached_identity(resolver, components, bag).await })
    }
}

/// Repeats a call whose credentials are refused.
impl ClassifyRetry for Credentials {
    fn name(&self) -> &'static str {
        "Credentials"
    }

    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let error = context.output_or_error().and_then(|output| output.err()?.as_operation_error());
        let code = error.and_then(|error| find::<ErrorMetadata>(error)?.code());
        if !code.is_some_and(are_refused) {
            return RetryAction::NoActionIndicated;
        }
        self.renew();
        RetryAction::transient_error()
    }
}
