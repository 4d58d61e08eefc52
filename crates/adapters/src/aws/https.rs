//! HTTP as the SDK does it by default, with two additions: the certificates of `AWS_CA_BUNDLE`,
//! which the SDK ignores, and the host in what fails.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_config::SdkConfig;
use aws_smithy_http_client::ConnectorBuilder;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_types::service_config::ServiceConfigKey;
use hyper_util::client::proxy::matcher::Matcher;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::chain::innermost;
use domain::error::Error;

/// Which certificates are trusted: the system's, or those of a bundle instead of them, as AWS's
/// command line and its SDK for Python do it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Trust(TlsContext);

impl Trust {
    /// Of `AWS_CA_BUNDLE`, or `ca_bundle` in the profile.
    pub(super) fn of(sdk: &SdkConfig) -> Result<Trust, Error> {
        // The SDK would also take them for one service, under a name that has none.
        let key = ServiceConfigKey::builder().service_id("any").env("AWS_CA_BUNDLE").profile("ca_bundle").build();
        let path = key.ok().and_then(|key| sdk.service_config()?.load_config(key)).filter(|path| !path.is_empty());
        let Some(path) = path else { return Ok(Trust::default()) };
        let wrong = |why: String| {
            Error::Misconfigured(format!(
                "the certificates in '{path}' (AWS_CA_BUNDLE, or ca_bundle in the AWS profile) cannot be used: {why}; it must be a file with \
                 certificates in PEM, which AWS's endpoints are checked against"
            ))
        };
        let pem = std::fs::read(&path).map_err(|error| wrong(error.to_string()))?;
        let mut roots = RootCertStore::empty();
        for (n, certificate) in CertificateDer::pem_slice_iter(&pem).enumerate() {
            let added =
                certificate.map_err(|e| e.to_string()).and_then(|der| roots.add(der).map_err(|e| e.to_string()));
            added.map_err(|why| wrong(format!("certificate {}: {why}", n + 1)))?;
        }
        if roots.is_empty() {
            return Err(wrong("there are none".into()));
        }
        let store = TrustStore::empty().with_pem_certificate(pem);
        let context = TlsContext::builder().with_trust_store(store).build();
        context.map(Trust).map_err(|error| wrong(error.to_string()))
    }

    /// A client with connections of its own.
    pub(super) fn client(&self) -> SharedHttpClient {
        SharedHttpClient::new(Https { trust: self.clone(), connectors: Mutex::default() })
    }
}

/// Timeouts of a connector: to connect, and until the response begins.
type Timeouts = (Option<Duration>, Option<Duration>);

/// The client, which has a connector, and so connections, for each pair of timeouts.
#[derive(Debug)]
struct Https {
    trust: Trust,
    connectors: Mutex<HashMap<Timeouts, SharedHttpConnector>>,
}

impl HttpClient for Https {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        let connect = || {
            let mut builder = ConnectorBuilder::default()
                .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
                .tls_context(self.trust.0.clone())
                .connector_settings(settings.clone())
                .proxy_config(ProxyConfig::from_env());
            builder.set_sleep_impl(components.sleep_impl());
            SharedHttpConnector::new(Named(builder.build()))
        };
        let mut connectors = self.connectors.lock().unwrap_or_else(PoisonError::into_inner);
        connectors.entry((settings.connect_timeout(), settings.read_timeout())).or_insert_with(connect).clone()
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        Some(ConnectorMetadata::new("hyper", Some("1.x".into())))
    }
}

/// The URL that a response came from.
#[derive(Clone, Debug)]
pub(super) struct Origin(Arc<str>);

impl Origin {
    /// Its host, with its port if it has one.
    pub(super) fn host(&self) -> &str {
        host(&self.0)
    }
}

/// That a host was not reached.
#[derive(Debug)]
pub(super) struct Unreached {
    url: Arc<str>,
    timed_out: bool,
    source: Box<dyn StdError + Send + Sync>,
}

impl Unreached {
    /// The host, and the proxy on the way to it if there is one.
    pub(super) fn place(&self) -> String {
        let proxy = self.url.parse().ok().and_then(|url| Matcher::from_env().intercept(&url));
        let proxy = proxy.and_then(|proxy| Some(proxy.uri().authority()?.to_string()));
        match proxy {
            // Without user and password.
            Some(proxy) => {
                format!("{} through the proxy {}", host(&self.url), proxy.rsplit('@').next().unwrap_or_default())
            }
            None => host(&self.url).to_owned(),
        }
    }

    /// Why, and what to do about it.
    pub(super) fn why(&self) -> String {
        if self.timed_out {
            return "it timed out".into();
        }
        let why = innermost(self);
        let advice = if why.contains("UnknownIssuer") {
            "; if it has a certificate of your own authority, name the file with the authority's certificates in AWS_CA_BUNDLE"
        } else if why.contains("failed to lookup address") {
            "; check the region, AWS_ENDPOINT_URL and DNS"
        } else {
            ""
        };
        format!("{why}{advice}")
    }
}

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} was not reached", host(&self.url))
    }
}

impl StdError for Unreached {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.source)
    }
}

fn host(url: &str) -> &str {
    let (_, rest) = url.split_once("://").unwrap_or(("", url));
    rest.split(['/', '?']).next().unwrap_or(rest)
}

/// A connector whose responses and errors say where the request went.
#[derive(Debug)]
struct Named<C>(C);

impl<C: HttpConnector> HttpConnector for Named<C> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let url = Arc::<str>::from(request.uri());
        let answer = self.0.call(request);
        HttpConnectorFuture::new(async move {
            match answer.await {
                Ok(mut response) => {
                    response.add_extension(Origin(url));
                    Ok(response)
                }
                Err(error) => Err(named(error, url)),
            }
        })
    }
}

/// The same error, of the same kind, with the host.
fn named(error: ConnectorError, url: Arc<str>) -> ConnectorError {
    let (timeout, io, user, other) = (error.is_timeout(), error.is_io(), error.is_user(), error.as_other());
    let connection = error.connection_metadata().cloned();
    let source = Box::new(Unreached { url, timed_out: timeout, source: error.into_source() });
    let named = match (timeout, io, user) {
        (true, ..) => ConnectorError::timeout(source),
        (_, true, _) => ConnectorError::io(source),
        (.., true) => ConnectorError::user(source),
        _ => ConnectorError::other(source, other),
    };
    match connection {
        Some(connection) => named.with_connection(connection),
        None => named,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use aws_smithy_runtime_api::client::http::http_client_fn;
    use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

    use super::*;

    struct Answering<F>(F);

    impl<F> fmt::Debug for Answering<F> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Answering")
        }
    }

    impl<F: Fn() -> HttpResponse + Send + Sync> HttpConnector for Answering<F> {
        fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
            HttpConnectorFuture::ready(Ok((self.0)()))
        }
    }

    /// A client for which everyone answers the same.
    pub(crate) fn answering(answer: impl Fn() -> HttpResponse + Send + Sync + Clone + 'static) -> SharedHttpClient {
        http_client_fn(move |_, _| SharedHttpConnector::new(Named(Answering(answer.clone()))))
    }
}
