//! GetRecords by way of our own decoding. Signing, endpoints, connections, timeouts and errors stay
//! the SDK's. Requests and responses are in CBOR where the endpoint speaks it.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use aws_sdk_kinesis::config::interceptors::{
    BeforeSerializationInterceptorContextRef, BeforeTransmitInterceptorContextMut,
};
use aws_sdk_kinesis::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_kinesis::error::{BoxError, SdkError};
use aws_sdk_kinesis::operation::get_records::{GetRecords, GetRecordsError, GetRecordsOutput};
use aws_smithy_json::protocol::aws_json_rpc::AwsJsonRpcProtocol;
use aws_smithy_runtime_api::client::interceptors::context::{Output, OutputOrError};
use aws_smithy_runtime_api::client::orchestrator::{HttpResponse, OrchestratorError};
use aws_smithy_runtime_api::client::ser_de::{DeserializeResponse, SharedResponseDeserializer};
use aws_smithy_schema::protocol::SharedClientProtocol;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::Layer;
use prometheus::IntCounterVec;
use serde_json::json;
use tracing::warn;

use super::dates::Dates;
use super::sdk::Sdk;
use super::shortcut::{Failed, Route};
use super::wire::{Decoded, cbor, decode_cbor, decode_json};

const CBOR: &str = "application/x-amz-cbor-1.1";
const JSON: &str = "application/x-amz-json-1.1";

tokio::task_local! {
    /// What was taken out of the response to the call in progress.
    static TAKEN: RefCell<Option<Decoded>>;
}

/// Runs a call of the client that has [`Pages`], and returns its output with what was taken out of
/// it; nothing if the SDK has all of it.
pub(super) async fn taking<T>(sent: impl Future<Output = T>) -> (T, Option<Decoded>) {
    TAKEN
        .scope(RefCell::default(), async {
            let output = sent.await;
            (output, TAKEN.with(RefCell::take))
        })
        .await
}

/// Decodes the responses of a client that makes no other call than GetRecords. Given to it as an
/// interceptor.
#[derive(Clone, Debug)]
pub(super) struct Pages {
    endpoint: Arc<Endpoint>,
}

impl Pages {
    /// In CBOR, unless the endpoint does not speak it, or `json` is what the operator wants.
    /// `errors` counts a refusal.
    pub(super) fn new(json: bool, errors: IntCounterVec) -> Pages {
        let (json, cbor) = (json.into(), false.into());
        let (sdk, bag) = (Sdk::of(&GetRecords::new()), ConfigBag::of_layers(vec![protocol()]));
        Pages { endpoint: Arc::new(Endpoint { json, cbor, sdk, bag, errors }) }
    }

    /// Asks for records by a way that the SDK's client found, and returns its output with what was
    /// taken out of it.
    pub(super) async fn ask(
        &self,
        route: &Route,
        dates: &Dates,
        iterator: &str,
        limit: usize,
    ) -> (Result<GetRecordsOutput, Failed>, Option<Decoded>) {
        let request = json!({"ShardIterator": iterator, "Limit": limit});
        let in_cbor = if self.in_json() { None } else { cbor::from_value(&request) };
        let (kind, body) = in_cbor.map_or_else(|| (JSON, request.to_string().into_bytes()), |body| (CBOR, body));
        let sent = Instant::now();
        let response = match route.call(kind, body).await {
            Ok(response) => response,
            Err(failed) => return (Err(failed), None),
        };
        dates.answered(&response, Some(sent));
        taking(async { self.told(response) }).await
    }

    /// What the response means.
    #[expect(clippy::result_large_err, reason = "as the SDK's own calls return it")]
    fn told(&self, response: HttpResponse) -> Result<GetRecordsOutput, Failed> {
        let unexpected = |response| SdkError::response_error("the response is not one of GetRecords", response);
        let decoder = Decoder(self.endpoint.clone());
        match decoder.deserialize_nonstreaming_with_config(&response, &self.endpoint.bag) {
            Ok(output) => output.downcast::<GetRecordsOutput>().map_err(|_| unexpected(response)),
            Err(error) => {
                let (mut told, text) = (None, format!("{error:?}"));
                let _ = error.map_operation_error(|error| told = Some(error));
                match told.map(|told| told.downcast::<GetRecordsError>()) {
                    Some(Ok(told)) => Err(SdkError::service_error(told, response)),
                    Some(Err(_)) => Err(unexpected(response)),
                    None => Err(SdkError::response_error(text, response)),
                }
            }
        }
    }

    /// Whether records are read in JSON. If that began during a failed call, the call is repeated.
    pub(super) fn in_json(&self) -> bool {
        self.endpoint.json.load(Ordering::Relaxed)
    }
}

/// What is known about the endpoint. Decided once.
#[derive(Debug)]
struct Endpoint {
    /// It is asked in JSON.
    json: AtomicBool,
    /// It has answered in CBOR.
    cbor: AtomicBool,
    sdk: Sdk,
    /// The SDK's configuration, as far as its deserializer asks for it.
    bag: ConfigBag,
    errors: IntCounterVec,
}

impl Endpoint {
    /// From now on in JSON.
    fn fall_back(&self, why: &str) {
        if !self.json.swap(true, Ordering::Relaxed) {
            self.errors.with_label_values(&["GetRecords", "cbor_refused"]).inc();
            warn!(
                "this Kinesis endpoint does not speak CBOR as AWS does, so records are read in JSON, which takes more \
                 processor time: {why}"
            );
        }
    }
}

impl Intercept for Pages {
    fn name(&self) -> &'static str {
        "Pages"
    }

    fn read_before_execution(
        &self,
        _: &BeforeSerializationInterceptorContextRef<'_>,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        bag.interceptor_state().store_put(SharedResponseDeserializer::new(Decoder(self.endpoint.clone())));
        Ok(())
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let request = context.request_mut();
        let body = request.body().bytes().filter(|_| !self.in_json());
        if let Some(body) = body.and_then(cbor::from_json) {
            request.headers_mut().insert("content-type", CBOR);
            request.headers_mut().insert("content-length", body.len().to_string());
            *request.body_mut() = SdkBody::from(body);
        }
        Ok(())
    }
}

/// Reads what [`Pages`] asked for.
#[derive(Debug)]
struct Decoder(Arc<Endpoint>);

impl DeserializeResponse for Decoder {
    fn deserialize_nonstreaming_with_config(&self, response: &HttpResponse, bag: &ConfigBag) -> OutputOrError {
        let body = response.body().bytes().unwrap_or_default();
        let in_cbor =
            response.headers().get("content-type").is_some_and(|form| form.starts_with("application/x-amz-cbor"));
        match (response.status().is_success(), in_cbor) {
            (true, true) => match decode_cbor(body) {
                Some(decoded) => {
                    self.0.cbor.store(true, Ordering::Relaxed);
                    taken(decoded).unwrap_or_else(|| Err(OrchestratorError::other("a page that nobody takes")))
                }
                None => {
                    self.0.fall_back("a response cannot be decoded");
                    Err(OrchestratorError::other("the response cannot be decoded as CBOR; trying JSON"))
                }
            },
            (true, false) => match decode_json(body).and_then(taken) {
                Some(output) => output,
                None => self.by_the_sdk(response, bag),
            },
            (false, true) => {
                let mut as_json =
                    HttpResponse::new(response.status(), SdkBody::from(cbor::error_as_json(body).unwrap_or_default()));
                for (name, value) in response.headers() {
                    as_json.headers_mut().insert(name.to_owned(), value.to_owned());
                }
                self.by_the_sdk(&as_json, bag)
            }
            (false, false) => {
                if !self.0.cbor.load(Ordering::Relaxed) && !is_a_known_error(body) {
                    self.0.fall_back(&String::from_utf8_lossy(&body[..body.len().min(200)]));
                }
                self.by_the_sdk(response, bag)
            }
        }
    }
}

impl Decoder {
    fn by_the_sdk(&self, response: &HttpResponse, bag: &ConfigBag) -> OutputOrError {
        self.0.sdk.deserializer()?.deserialize_nonstreaming_with_config(response, bag)
    }
}

/// Notes a page; `None` outside of [`taking`].
fn taken(decoded: Decoded) -> Option<OutputOrError> {
    let empty = GetRecordsOutput::builder().set_records(Some(Vec::new())).build().ok()?;
    TAKEN.try_with(|taken| taken.replace(Some(decoded))).ok()?;
    Some(Ok(Output::erase(empty)))
}

/// What the SDK's own deserializer looks for.
pub(super) fn protocol() -> Layer {
    let mut layer = Layer::new("protocol");
    layer.store_put(SharedClientProtocol::new(AwsJsonRpcProtocol::aws_json_1_1()));
    layer
}

/// Whether an error tells that the request was understood. Endpoints that do not speak CBOR refuse
/// it in many ways; AWS answers it in CBOR.
fn is_a_known_error(body: &[u8]) -> bool {
    let known = [
        "Throttl",
        "Throughput",
        "Expired",
        "NotFound",
        "Denied",
        "Token",
        "Signature",
        "Credential",
        "LimitExceeded",
        "KMS",
        "Client",
        "Internal",
    ];
    known.iter().any(|name| body.windows(name.len()).any(|part| part == name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use aws_smithy_runtime_api::http::StatusCode;
    use prometheus::Opts;

    use super::*;

    fn pages() -> Pages {
        let errors = IntCounterVec::new(Opts::new("errors", "Errors."), &["call", "kind"]).unwrap();
        Pages::new(false, errors)
    }

    /// What the SDK makes of a response.
    fn answered(pages: &Pages, status: u16, form: &'static str, body: &[u8]) -> Result<(), String> {
        let mut response = HttpResponse::new(StatusCode::try_from(status).unwrap(), SdkBody::from(body));
        response.headers_mut().insert("content-type", form);
        let decoder = Decoder(pages.endpoint.clone());
        let output = decoder.deserialize_nonstreaming_with_config(&response, &pages.endpoint.bag);
        output.map(drop).map_err(|error| {
            let told = error.as_operation_error().and_then(|error| error.downcast_ref::<GetRecordsError>());
            told.map_or_else(|| format!("{error:?}"), |told| format!("{told:?}"))
        })
    }

    #[test]
    fn an_error_in_cbor_is_told_apart() {
        let pages = pages();
        let body = b"\xbf\x66__type\x78\x18ExpiredIteratorException\x67message\x63old\xff";
        let told = answered(&pages, 400, CBOR, body).unwrap_err();
        assert!(told.starts_with("ExpiredIteratorException") && told.contains("old"), "{told}");
        assert!(!pages.in_json());
    }

    #[tokio::test]
    async fn an_endpoint_that_does_not_speak_cbor_is_asked_in_json() {
        for (status, form, body) in [
            (400, "application/x-amz-json-1.1", &br#"{"__type":"SerializationException"}"#[..]),
            (415, "text/html", b"<html>"),
            (200, CBOR, b"\xa1\x67Records\x81\xa1\x64Data\x01"),
        ] {
            let pages = pages();
            let (told, _) = taking(async { answered(&pages, status, form, body) }).await;
            assert!(told.is_err() && pages.in_json(), "{told:?}");
        }
        // Errors that say nothing about the form, and any once it is known to be understood.
        let pages = pages();
        let throttled = br#"{"__type":"ProvisionedThroughputExceededException","message":"slow down"}"#;
        assert!(answered(&pages, 400, "application/x-amz-json-1.1", throttled).is_err());
        assert!(!pages.in_json());
        let (page, taken) = taking(async { answered(&pages, 200, CBOR, b"\xa1\x67Records\x80") }).await;
        assert!(page.is_ok() && taken.is_some());
        assert!(answered(&pages, 500, "text/html", b"<html>").is_err());
        assert!(!pages.in_json());
    }
}
