//! GetRecords without the SDK's orchestration, which takes most of the processor time of a call
//! that brings little: each shard is asked up to four times a second, whether it has records or
//! not.
//!
//! Endpoint, credentials and connections stay the SDK's, with its caches: a call that it made leaves
//! here what the next ones need. After one that fails the SDK makes the next call itself, and so
//! finds out what has changed: credentials, the clock, the endpoint.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use aws_sdk_kinesis::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_kinesis::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_kinesis::error::{BoxError, ConnectorError, SdkError};
use aws_sdk_kinesis::operation::get_records::GetRecordsError;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use aws_smithy_runtime_api::client::auth::AuthSchemeId;
use aws_smithy_runtime_api::client::http::{HttpClient, HttpConnector, HttpConnectorSettings, SharedHttpConnector};
use aws_smithy_runtime_api::client::identity::{Identity, ResolveCachedIdentity, SharedIdentityResolver};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::runtime_components::GetIdentityResolver;
use aws_smithy_types::body::SdkBody;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout, timeout_at};

use crate::aws::ahead;
use domain::limits::{GET_RECORDS_TIMEOUT, KINESIS_ATTEMPT_TIMEOUT, KINESIS_CONNECT_TIMEOUT};

/// The service's name in signatures.
const SERVICE: &str = "kinesis";
const SIGV4: AuthSchemeId = AuthSchemeId::new("sigv4");
/// The headers of the SDK's request that a request has here, too. The others are about that one
/// request, or are made anew.
const KEPT: [&str; 3] = ["x-amz-target", "user-agent", "x-amz-user-agent"];

/// A call that failed.
pub(super) type Failed = SdkError<GetRecordsError, HttpResponse>;

/// What the SDK's last successful call used. Given to its client as an interceptor. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Shortcut(Arc<Mutex<Option<Arc<Route>>>>);

/// How a request gets to Kinesis.
pub(super) struct Route {
    uri: String,
    headers: Vec<(String, String)>,
    region: String,
    /// How much later than now it signs, in seconds: what the SDK knows about AWS's clock.
    ahead: i64,
    connector: SharedHttpConnector,
    credentials: SharedIdentityResolver,
    components: RuntimeComponents,
}

impl fmt::Debug for Shortcut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shortcut")
    }
}

impl Shortcut {
    fn held(&self) -> MutexGuard<'_, Option<Arc<Route>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The way to call; none while the SDK has to do it.
    pub(super) fn route(&self) -> Option<Arc<Route>> {
        self.held().clone()
    }

    /// Lets the SDK make the next call.
    pub(super) fn lose(&self) {
        *self.held() = None;
    }
}

impl Intercept for Shortcut {
    fn name(&self) -> &'static str {
        "Shortcut"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        components: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        *self.held() = Route::of(context.request(), components).map(Arc::new);
        Ok(())
    }
}

impl Route {
    /// That of a signed request of the SDK; none if it is signed in another way than expected.
    fn of(request: &HttpRequest, components: &RuntimeComponents) -> Option<Route> {
        let signed = request.headers().get("authorization")?;
        // AWS4-HMAC-SHA256 Credential=<key>/<date>/<region>/kinesis/aws4_request, …
        let scope = signed.strip_prefix("AWS4-HMAC-SHA256 Credential=")?.split(',').next()?;
        let mut scope = scope.rsplit('/').skip(1);
        let (service, region) = (scope.next()?, scope.next()?);
        let kept = |name: &&str| Some(((*name).to_owned(), request.headers().get(*name)?.to_owned()));
        let settings = HttpConnectorSettings::builder()
            .connect_timeout(KINESIS_CONNECT_TIMEOUT)
            .read_timeout(KINESIS_ATTEMPT_TIMEOUT)
            .build();
        (service == SERVICE).then_some(Route {
            uri: request.uri().to_owned(),
            headers: KEPT.iter().filter_map(kept).collect(),
            region: region.to_owned(),
            ahead: ahead(request.headers().get("x-amz-date")?, SystemTime::now())?,
            connector: components.http_client()?.http_connector(&settings, components),
            credentials: components.identity_resolver(SIGV4)?,
            components: components.clone(),
        })
    }

    /// Sends a body of this content type. Returns the response, whatever its status, with its body
    /// in memory.
    pub(super) async fn call(&self, kind: &'static str, body: Vec<u8>) -> Result<HttpResponse, Failed> {
        let deadline = Instant::now() + GET_RECORDS_TIMEOUT;
        let bag = ConfigBag::base();
        let cache = self.components.identity_cache();
        let identity = cache.resolve_cached_identity(self.credentials.clone(), &self.components, &bag);
        let identity = timeout_at(deadline, identity).await.map_err(SdkError::timeout_error)?;
        let identity = identity.map_err(SdkError::construction_failure)?;
        let request = self.signed(kind, body, &identity).map_err(SdkError::construction_failure)?;
        let response = timeout_at(deadline, self.connector.call(request)).await.map_err(SdkError::timeout_error)?;
        let mut response = response.map_err(SdkError::dispatch_failure)?;
        let whole = timeout_at(deadline, whole(response.take_body())).await.map_err(SdkError::timeout_error)?;
        *response.body_mut() = SdkBody::from(whole?);
        Ok(response)
    }

    /// The time of a signature.
    fn time(&self) -> SystemTime {
        let (now, off) = (SystemTime::now(), Duration::from_secs(self.ahead.unsigned_abs()));
        let time = if self.ahead < 0 { now.checked_sub(off) } else { now.checked_add(off) };
        time.unwrap_or(now)
    }

    fn signed(&self, kind: &'static str, body: Vec<u8>, identity: &Identity) -> Result<HttpRequest, BoxError> {
        let kept = self.headers.iter().map(|(name, value)| (&**name, &**value));
        let headers: Vec<(&str, &str)> = kept.chain([("content-type", kind)]).collect();
        let params = SigningParams::builder()
            .identity(identity)
            .region(&self.region)
            .name(SERVICE)
            .time(self.time())
            .settings(SigningSettings::default())
            .build()?
            .into();
        let signable = SignableRequest::new("POST", &*self.uri, headers.iter().copied(), SignableBody::Bytes(&body))?;
        let (signature, _) = sign(signable, &params)?.into_parts();
        let mut request = HttpRequest::new(SdkBody::empty());
        request.set_method("POST")?;
        request.set_uri(&*self.uri)?;
        for (name, value) in headers.into_iter().chain(signature.headers()) {
            request.headers_mut().try_insert(name.to_owned(), value.to_owned())?;
        }
        request.headers_mut().try_insert("content-length", body.len().to_string())?;
        *request.body_mut() = SdkBody::from(body);
        Ok(request)
    }
}

/// A body, as long as something comes in time.
async fn whole(mut body: SdkBody) -> Result<Vec<u8>, Failed> {
    let mut whole = Vec::new();
    loop {
        match timeout(KINESIS_ATTEMPT_TIMEOUT, body.frame()).await.map_err(SdkError::timeout_error)? {
            Some(Ok(frame)) => {
                if let Ok(bytes) = frame.into_data() {
                    whole.extend_from_slice(&bytes);
                }
            }
            Some(Err(error)) => return Err(SdkError::dispatch_failure(ConnectorError::io(error))),
            None => return Ok(whole),
        }
    }
}
