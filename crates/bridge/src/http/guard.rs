//! Who may ask: decided from a request's headers alone, before it is read any further.

use std::net::IpAddr;

use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN};
use hyper::http::uri::Authority;
use tokio::sync::watch;

use super::refusals::Reason;
use super::request::quoted;
use domain::error::Error;
use domain::secret::Tokens;

/// Sent by browsers, and out of reach of the scripts of a page.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// A request that is refused.
pub struct Refused {
    /// For the metric and the log.
    pub reason: Reason,
    /// For whoever asked.
    pub error: Error,
}

/// The conditions that every request but probes must meet.
pub struct Guard {
    /// The bearer tokens, of which a request must carry one. They may change at any time.
    pub tokens: watch::Receiver<Option<Tokens>>,
    /// Whether the bridge listens on a loopback address.
    pub loopback: bool,
    /// The name of this machine, if it has one.
    pub machine: Option<String>,
}

impl Guard {
    /// Whether a request for `authority`, if its line has one, may be answered.
    pub fn check(&self, authority: Option<&Authority>, headers: &HeaderMap) -> Result<(), Refused> {
        let host = authority.map(Authority::as_str).or_else(|| text(headers, &HOST));
        from_a_page(headers, host)?;
        match &*self.tokens.borrow() {
            // A page of a rebound name does not know the token, so the name is of no interest.
            Some(tokens) => bearer(tokens, headers),
            None => self.meant_for_this_host(host),
        }
    }

    /// A name that a stranger owns can be made to point at a loopback address (DNS rebinding): to a
    /// browser, a page of that name and the bridge are then one origin.
    fn meant_for_this_host(&self, host: Option<&str>) -> Result<(), Refused> {
        let Some(host) = host.filter(|_| self.loopback) else { return Ok(()) };
        let name = host.parse::<Authority>().ok();
        let name = name.as_ref().map_or("", |authority| authority.host());
        let is_loopback = |ip: IpAddr| ip.is_loopback();
        let known = |known: &str| name.eq_ignore_ascii_case(known);
        // An IPv6 address that contains an IPv4 one is not a loopback address here: browsers do
        // not mark what they send to it.
        let address = name.trim_start_matches('[').trim_end_matches(']').parse().is_ok_and(is_loopback);
        if address || known("localhost") || self.machine.as_deref().is_some_and(known) {
            return Ok(());
        }
        let machine = self.machine.as_deref().map_or_else(String::new, |machine| format!(", {machine}"));
        let error = Error::Forbidden(format!(
            "this bridge listens on a loopback address and has no token, so it does not answer requests for the host {}: ask for \
             localhost, 127.0.0.1, [::1]{machine}, or give the bridge a --token-file",
            quoted(host)
        ));
        Err(Refused { reason: Reason::Host, error })
    }
}

/// Refuses what a page of another origin makes a browser send. ClickHouse sends neither header.
fn from_a_page(headers: &HeaderMap, host: Option<&str>) -> Result<(), Refused> {
    let refuse = |name: &str, value: &HeaderValue| {
        let value = quoted(&String::from_utf8_lossy(value.as_bytes()));
        let error = Error::Forbidden(format!(
            "requests from web pages of other origins are refused, and this one has {name}: {value}; send it from ClickHouse, or \
             without that header"
        ));
        Err(Refused { reason: Reason::Page, error })
    };
    for site in headers.get_all(&SEC_FETCH_SITE) {
        // `none`: a user typed the address.
        if !matches!(site.as_bytes(), b"same-origin" | b"none") {
            return refuse("Sec-Fetch-Site", site);
        }
    }
    for origin in headers.get_all(ORIGIN) {
        let page = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        let same = page.zip(host).is_some_and(|((_, page), host)| page.eq_ignore_ascii_case(host));
        if !same {
            return refuse("Origin", origin);
        }
    }
    Ok(())
}

fn bearer(tokens: &Tokens, headers: &HeaderMap) -> Result<(), Refused> {
    let given = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let given = given.and_then(|given| Some(given.split_at(given.iter().position(|byte| *byte == b' ')?)));
    match given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer")) {
        Some((_, token)) if tokens.accept(token.trim_ascii()) => Ok(()),
        Some(_) => Err(Refused {
            reason: Reason::WrongToken,
            error: Error::Unauthorized(
                "the bearer token is not this bridge's: use the one in its --token-file, and run `clickhouse-kinesis-bridge \
                 sql setup` with that file again to update the named collection"
                    .into(),
            ),
        }),
        None => Err(Refused {
            reason: Reason::NoToken,
            error: Error::Unauthorized(
                "this bridge requires a bearer token: pass headers('Authorization' = 'Bearer …') to url(), or use the named collection".into(),
            ),
        }),
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    // A host that is not text is foreign, not absent.
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(guard: &Guard, headers: &[(&str, &str)]) -> Option<Reason> {
        let pairs = headers.iter().map(|(name, value)| {
            (name.parse::<HeaderName>().expect("a name"), value.parse::<HeaderValue>().expect("a value"))
        });
        guard.check(None, &pairs.collect()).err().map(|refused| refused.reason)
    }

    fn guard(loopback: bool, tokens: Option<Tokens>) -> Guard {
        Guard { tokens: watch::channel(tokens).1, loopback, machine: Some("box".into()) }
    }

    #[test]
    fn only_hosts_of_this_machine_are_answered_on_loopback() {
        let (here, anywhere) = (guard(true, None), guard(false, None));
        for honest in [
            "localhost",
            "localhost:9020",
            "LOCALHOST:1",
            "127.0.0.1:9020",
            "127.0.1.1",
            "[::1]:9020",
            "[::1]",
            "box:9020",
            "Box",
        ] {
            assert_eq!(refused(&here, &[("host", honest)]), None, "{honest}");
        }
        assert_eq!(refused(&here, &[]), None, "HTTP/1.0");
        for foreign in [
            "evil.example",
            "evil.example:9020",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "a.localhost",
            "box.evil.example",
            "0.0.0.0:9020",
            "[::]:9020",
            "[::ffff:7f00:1]:9020",
            "192.168.1.5:9020",
            "2130706433",
            "localhost:9020:9020",
            "",
            "localhost evil",
        ] {
            assert_eq!(refused(&here, &[("host", foreign)]), Some(Reason::Host), "{foreign}");
            assert_eq!(refused(&anywhere, &[("host", foreign)]), None, "{foreign}");
        }
        let absolute = "evil.example".parse::<Authority>().expect("an authority");
        let headers = [(HOST, HeaderValue::from_static("localhost"))].into_iter().collect();
        assert!(here.check(Some(&absolute), &headers).is_err(), "the address of the request line counts");
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        for guard in [guard(true, None), guard(false, None)] {
            let host = ("host", "localhost:9020");
            for (name, value) in [
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-site", "same-site"),
                ("sec-fetch-site", "unheard-of"),
                ("origin", "null"),
                ("origin", "http://evil.example"),
                ("origin", "http://localhost"),
                ("origin", "http://localhost:9021"),
                ("origin", "localhost:9020"),
                ("origin", ""),
            ] {
                assert_eq!(refused(&guard, &[host, (name, value)]), Some(Reason::Page), "{name}: {value}");
            }
            for (name, value) in [
                ("sec-fetch-site", "same-origin"),
                ("sec-fetch-site", "none"),
                ("origin", "http://localhost:9020"),
                ("origin", "https://LOCALHOST:9020"),
            ] {
                assert_eq!(refused(&guard, &[host, (name, value)]), None, "{name}: {value}");
            }
            assert_eq!(refused(&guard, &[("origin", "http://localhost:9020")]), Some(Reason::Page), "no host");
        }
    }

    #[test]
    fn a_token_is_asked_for_whatever_the_host() {
        let tokens = Tokens { current: "current-token".to_owned().into(), previous: None };
        let guard = guard(true, Some(tokens));
        let host = ("host", "bridge.internal");
        for good in ["Bearer current-token", "bearer current-token", "BEARER  current-token"] {
            assert_eq!(refused(&guard, &[host, ("authorization", good)]), None, "{good}");
        }
        for wrong in ["Bearer current-toke", "Bearer current-token2", "Bearer ", "bearer current token"] {
            assert_eq!(refused(&guard, &[host, ("authorization", wrong)]), Some(Reason::WrongToken), "{wrong}");
        }
        for none in ["current-token", "Basic Y3VycmVudC10b2tlbg==", "Bearer", "Bearercurrent-token"] {
            assert_eq!(refused(&guard, &[host, ("authorization", none)]), Some(Reason::NoToken), "{none}");
        }
        let page = [("authorization", "Bearer current-token"), ("sec-fetch-site", "cross-site")];
        assert_eq!(refused(&guard, &page), Some(Reason::Page));
    }
}
