//! The URL that a pipe pulls from.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use bridge::http::request::parse;
use config::Config;
use domain::error::Error;
use domain::interface::{Parameter, Route};

/// ClickHouse's url() would read braces and bars as patterns.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'-').remove(b'.').remove(b':');

/// The parts of the URL.
pub struct Address<'a> {
    /// Where ClickHouse reaches the bridge.
    pub bridge_url: &'a str,
    /// Database of the table and of the pipe's view.
    pub database: &'a str,
    /// The table.
    pub table: &'a str,
    /// The view.
    pub view: &'a str,
    /// Name of the pipe; that of the table if not given.
    pub pipe: Option<&'a str>,
    /// The stream.
    pub stream: &'a str,
    /// Further parameters: which, its value, and the value that may be omitted.
    pub parameters: &'a [(Parameter, &'a str, &'a str)],
}

/// The URL, checked with the bridge's own parser.
pub fn next_url(of: &Address<'_>) -> Result<String, Error> {
    let own: String =
        of.table.chars().map(|c| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '_' }).collect();
    let path = Route::Next.with(&encoded(of.pipe.unwrap_or(&own)));
    let view = [of.database, of.view].map(|part| {
        let plain = part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        encoded(&if plain { part.to_owned() } else { backquoted(part) })
    });
    let mut query = format!("{}={}&{}={}", Parameter::Stream, encoded(of.stream), Parameter::View, view.join("."));
    for (parameter, value, default) in of.parameters {
        if value != default {
            query.push_str(&format!("&{parameter}={}", encoded(value)));
        }
    }
    parse(Route::Next.method(), &path, Some(&query))?;
    Ok(format!("{}{path}?{query}", of.bridge_url.trim_end_matches('/')))
}

/// A name as the parameter `view` takes it. It is part of a URL and not of SQL, so percent-encoding
/// does the rest.
fn backquoted(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, KEPT).to_string()
}

/// The named collection of `sql setup`, if the bridge requires a token: the collection contains it,
/// so that no view does.
pub fn collection(config: &Config) -> Option<String> {
    config.token.as_ref().map(|_| sql::collection(&config.clickhouse.database))
}
