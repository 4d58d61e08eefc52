//! Query parameters: decoded once, known by name, each at most once.

use std::ops::RangeInclusive;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use domain::error::Error;
use domain::interface::{Parameter, Route};
use domain::limits;
use domain::unpacking::{Decompress, Edition, Split, Unpacking, named};
use formats::encode::{Form, Format, Payload};

/// Maximum characters of a user's text that a message repeats.
const QUOTED: usize = 64;

/// The parameters of one request.
pub(super) struct Query {
    route: Route,
    pairs: Vec<(Parameter, String)>,
}

impl Query {
    pub(super) fn parse(route: Route, query: &str) -> Result<Query, Error> {
        let (path, known) = (route.path(), route.parameters());
        let mut pairs: Vec<(Parameter, String)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decoded(name)?, decoded(value)?);
            let Some(parameter) = known.iter().copied().find(|known| known.name() == name) else {
                let hint = match known {
                    [] => ", which takes none".into(),
                    _ => {
                        let known = known.iter().map(|known| (known.to_string(), known.name()));
                        format!("; the nearest is {}", nearest(&name, known))
                    }
                };
                return Err(Error::BadRequest(format!("{} is not a parameter of {path}{hint}", quoted(&name))));
            };
            if pairs.iter().any(|(other, _)| *other == parameter) {
                return Err(Error::BadRequest(format!("{parameter} is given twice; give it once")));
            }
            pairs.push((parameter, value));
        }
        Ok(Query { route, pairs })
    }

    /// The value; none if it is empty.
    pub(super) fn get(&self, parameter: Parameter) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(given, _)| *given == parameter)
            .map(|(_, value)| &**value)
            .filter(|value| !value.is_empty())
    }

    /// A whole number within `range`.
    pub(super) fn number(&self, parameter: Parameter, range: RangeInclusive<usize>) -> Result<Option<usize>, Error> {
        let Some(text) = self.get(parameter) else { return Ok(None) };
        match text.parse().ok().filter(|n| range.contains(n)) {
            Some(n) => Ok(Some(n)),
            None => {
                let (least, most) = range.into_inner();
                Err(Error::BadRequest(format!(
                    "{parameter}={} is refused: it must be a whole number from {least} to {most}",
                    quoted(text)
                )))
            }
        }
    }

    /// A whole number of milliseconds within `range`.
    pub(super) fn millis(
        &self,
        parameter: Parameter,
        range: RangeInclusive<Duration>,
    ) -> Result<Option<Duration>, Error> {
        let ms = |d: &Duration| usize::try_from(d.as_millis()).unwrap_or(usize::MAX);
        let n = self.number(parameter, ms(range.start())..=ms(range.end()))?;
        Ok(n.map(|n| Duration::from_millis(n as u64)))
    }

    /// The format of metadata rows.
    pub(super) fn rows_format(&self) -> Result<Format, Error> {
        self.format(Format::JsonEachRow, false)
    }

    /// The format of records.
    pub(super) fn form(&self, parquet: bool) -> Result<Form, Error> {
        let format = self.format(Format::ArrowStream, parquet)?;
        let word = |choice: (&'static str, Payload)| choice.0;
        let place =
            self.choice(Parameter::Payload, &Payload::PLACES, word)?.map_or(Payload::Raw, |(_, payload)| payload);
        let unmarshal =
            self.choice(Parameter::Unmarshal, &Payload::UNMARSHALS, word)?.map_or(Payload::Raw, |(_, payload)| payload);
        let payload = match (place, unmarshal) {
            (place, Payload::Raw) => place,
            (Payload::Raw, unmarshal) => unmarshal,
            _ => {
                return Err(Error::BadRequest(
                    "payload=inline and unmarshal=dynamodb are both given: use payload=inline for the fields of a payload as columns, or \
                     unmarshal=dynamodb for the columns of DynamoDB's change events"
                        .into(),
                ));
            }
        };
        match Form::new(format, payload) {
            Some(form) => Ok(form),
            None => Err(Error::BadRequest(format!(
                "payload=inline is for format=JSONEachRow only: {} has one column for the payload",
                format.name()
            ))),
        }
    }

    /// How records become rows.
    pub(super) fn unpacking(&self) -> Result<Unpacking, Error> {
        Ok(Unpacking {
            decompress: self.choice(Parameter::Decompress, &Decompress::ALL, Decompress::name)?.unwrap_or_default(),
            split: self.choice(Parameter::Split, &Split::ALL, Split::name)?.unwrap_or_default(),
            edition: Edition::default(),
        })
    }

    /// One of a few words.
    fn choice<T: Copy>(
        &self,
        parameter: Parameter,
        all: &[T],
        name: fn(T) -> &'static str,
    ) -> Result<Option<T>, Error> {
        let Some(text) = self.get(parameter) else { return Ok(None) };
        match named(all, name, text) {
            Some(value) => Ok(Some(value)),
            None => {
                let names: Vec<&str> = all.iter().map(|value| name(*value)).collect();
                let allowed = match names.split_last() {
                    Some((last, [first @ .., before])) => {
                        let first = first.iter().map(|name| format!("{name}, ")).collect::<String>();
                        format!("{first}{before} or {last}")
                    }
                    _ => names.concat(),
                };
                Err(Error::BadRequest(format!("{parameter}={} is refused: it must be {allowed}", quoted(text))))
            }
        }
    }

    fn format(&self, default: Format, parquet: bool) -> Result<Format, Error> {
        let Some(text) = self.get(Parameter::Format) else { return Ok(default) };
        match Format::parse(text) {
            Some(Format::Parquet) if !parquet => Err(Error::BadRequest(format!(
                "format=Parquet is for {} only; {} gives ArrowStream or JSONEachRow",
                Route::Records.path(),
                self.route.path()
            ))),
            Some(format) => Ok(format),
            None => {
                let allowed =
                    if parquet { "ArrowStream, JSONEachRow or Parquet" } else { "ArrowStream or JSONEachRow" };
                Err(Error::BadRequest(format!("format={} is refused: it must be {allowed}", quoted(text))))
            }
        }
    }
}

fn decoded(text: &str) -> Result<String, Error> {
    let spaced = text.replace('+', " ");
    match percent_decode_str(&spaced).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(Error::BadRequest(format!("the parameter {} is not valid UTF-8 once decoded", quoted(text)))),
    }
}

/// A user's text for a message: short, in quotes, and without control characters.
pub(in crate::http) fn quoted(text: &str) -> String {
    format!("'{}'", shortened(text, QUOTED))
}

/// At most this many characters of a text, without control characters.
pub(in crate::http) fn shortened(text: &str, most: usize) -> String {
    let more = if text.chars().nth(most).is_some() { "…" } else { "" };
    text.chars().take(most).map(|c| if c.is_control() { '\u{fffd}' } else { c }).chain(more.chars()).collect()
}

/// The name that is most similar to `given`. Only the beginning of `given` is compared, since
/// comparing takes time in proportion to the product of both lengths.
pub(super) fn nearest(given: &str, known: impl Iterator<Item = (String, &'static str)>) -> &'static str {
    let short = |text: &str| text.chars().take(limits::MAX_NAME).collect::<String>();
    let given = short(given);
    let likeness = |text: &str| strsim::normalized_damerau_levenshtein(&given, &short(text));
    known.max_by(|(a, _), (b, _)| likeness(a).total_cmp(&likeness(b))).map(|(_, name)| name).unwrap_or_default()
}

/// A name as Kinesis allows it for streams and shards; pipes follow the same rule.
pub(super) fn name<'a, T: From<&'a str>>(what: &str, text: &'a str) -> Result<T, Error> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if (1..=limits::MAX_NAME).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(text.into());
    }
    Err(Error::BadRequest(format!(
        "the {what} {} is not a valid name: it must have 1 to {} letters, digits, '_', '.' or '-'",
        quoted(text),
        limits::MAX_NAME
    )))
}
