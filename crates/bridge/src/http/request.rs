//! Parses path, query and body into an enum, or into one sentence saying what is wrong. Pure.

mod body;
mod position;
mod query;
#[cfg(test)]
mod tests;

use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::pipe::{Confirm, Mode, OnFailure};
use crate::read::records::Range;
use domain::batch::Limits;
use domain::error::Error;
use domain::interface::{Parameter, Route};
use domain::limits;
use domain::moment::Moment;
use domain::range::{Bound, SliceOf};
use domain::start::Beginning;
use domain::unpacking::Unpacking;
use formats::encode::{Form, Format};
use sql::name::parts;

pub use body::{SeekRow, parse_ack, parse_end, parse_seek};
use domain::names::{PipeName, StreamName};
use position::bound;
pub use position::{Position, beginning};
use query::{Query, name, nearest};
pub(super) use query::{quoted, shortened};

/// All requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// `GET /v1/streams`
    Streams {
        /// Format of the rows.
        format: Format,
    },
    /// `GET /v1/streams/{stream}/shards`
    Shards {
        /// Stream name.
        stream: StreamName,
        /// Format of the rows.
        format: Format,
    },
    /// `GET /v1/streams/{stream}/sample`
    Sample {
        /// Stream name.
        stream: StreamName,
        /// Maximum number of records.
        limit: usize,
        /// How records become rows.
        unpacking: Unpacking,
        /// Format of the rows; not Parquet.
        form: Form,
    },
    /// `GET /v1/streams/{stream}/records`
    Records(RecordsRequest),
    /// `GET /v1/streams/{stream}/records/plan`
    Plan {
        /// What to plan.
        range: Range<Moment>,
        /// In each shard, reading would end where this pipe started.
        until_pipe: Option<PipeName>,
        /// Format of the rows.
        format: Format,
    },
    /// `GET /v1/pipes/{pipe}/next`
    Next(NextRequest),
    /// `GET /v1/pipes`
    Pipes {
        /// Format of the rows.
        format: Format,
    },
    /// `GET /v1/workers`
    Workers {
        /// Format of the rows.
        format: Format,
    },
    /// `POST /v1/pipes/{pipe}/seek` or `POST /v1/seek`; the body is read by [`parse_seek`].
    Seek {
        /// Name of the pipe; empty if the rows name it.
        pipe: PipeName,
    },
    /// `POST /v1/end`; the body is read by [`parse_end`].
    End,
    /// `POST /v1/pipes/{pipe}/ack`; the body is read by [`parse_ack`].
    Ack {
        /// Name of the pipe.
        pipe: PipeName,
    },
    /// `GET /metrics`
    Metrics,
    /// `GET /healthz`
    Healthz,
    /// `GET /readyz`
    Readyz,
}

/// A bounded read without state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordsRequest {
    /// The range to read. It has a shard if a bound is a sequence number.
    pub range: Range<Moment>,
    /// In each shard, reading ends where this pipe started.
    pub until_pipe: Option<PipeName>,
    /// Maximum number of records.
    pub limit: Option<usize>,
    /// Format of the rows.
    pub form: Form,
}

/// A pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextRequest {
    /// Name of the pipe.
    pub pipe: PipeName,
    /// Stream name.
    pub stream: StreamName,
    /// Who confirms that a batch has arrived.
    pub confirm: Confirm,
    /// Where a pipe without a checkpoint starts.
    pub start: Beginning,
    /// How large the batch may become.
    pub limits: Limits,
    /// How long a batch fills once it has a record; none if that is not given.
    pub linger: Option<Duration>,
    /// How long to wait for a first record.
    pub wait: Duration,
    /// How to read.
    pub mode: Mode,
    /// What happens to bad rows.
    pub on_failure: OnFailure,
    /// Time between two GetRecords calls on a shard; none if that is not given.
    pub poll: Option<Duration>,
    /// How records become rows.
    pub unpacking: Unpacking,
    /// Format of the rows; not Parquet.
    pub form: Form,
}

/// Reads a request line. `HEAD` is accepted wherever `GET` is and gives the same value; the caller
/// handles the difference. A parameter with an empty value counts as not given, so that SQL can
/// assemble URLs from parts.
pub fn parse(method: &str, path: &str, query: Option<&str>) -> Result<Request, Error> {
    let Some((route, captured)) = Route::of(path) else {
        let known = nearest(path, Route::ALL.iter().map(|route| (filled(route.path(), path), route.path())));
        return Err(Error::NotFound(format!("there is no path {}; the nearest is {known}", quoted(path))));
    };
    let right = route.method();
    if method != right && (method, right) != ("HEAD", "GET") {
        return Err(Error::BadRequest(format!("{} takes {right}, not {}", route.path(), quoted(method))));
    }
    let captured = match captured {
        Some((what, text)) => {
            let text = percent_decode_str(text).decode_utf8_lossy();
            name(what, &text)?
        }
        None => String::new(),
    };
    build(route, captured, &Query::parse(route, query.unwrap_or_default())?)
}

/// The request; `name` is what stood for the part of the path in braces.
fn build(route: Route, name: String, q: &Query) -> Result<Request, Error> {
    Ok(match route {
        Route::Streams => Request::Streams { format: q.rows_format()? },
        Route::Shards => Request::Shards { stream: name.into(), format: q.rows_format()? },
        Route::Sample => {
            let limit = q.number(Parameter::Limit, 1..=limits::MAX_SAMPLE)?.unwrap_or(limits::DEFAULT_SAMPLE);
            Request::Sample { stream: name.into(), limit, unpacking: q.unpacking()?, form: q.form(false)? }
        }
        Route::Records => {
            let (range, until_pipe) = range(name.into(), q)?;
            let (limit, form) = (q.number(Parameter::Limit, 1..=usize::MAX)?, q.form(true)?);
            Request::Records(RecordsRequest { range, until_pipe, limit, form })
        }
        Route::Plan => {
            let (range, until_pipe) = range(name.into(), q)?;
            Request::Plan { range, until_pipe, format: q.rows_format()? }
        }
        Route::Next => Request::Next(next(name.into(), q)?),
        Route::Pipes => Request::Pipes { format: q.rows_format()? },
        Route::Workers => Request::Workers { format: q.rows_format()? },
        Route::Seek | Route::SeekAny => Request::Seek { pipe: name.into() },
        Route::Ack => Request::Ack { pipe: name.into() },
        Route::End => Request::End,
        Route::Metrics => Request::Metrics,
        Route::Healthz => Request::Healthz,
        Route::Readyz => Request::Readyz,
    })
}

/// The template with the parts in braces replaced by those of `path`, to compare the two.
fn filled(template: &str, path: &str) -> String {
    let parts: Vec<&str> = path.split('/').collect();
    let fill = |(i, part)| if str::starts_with(part, '{') { parts.get(i).copied().unwrap_or(part) } else { part };
    template.split('/').enumerate().map(fill).collect::<Vec<_>>().join("/")
}

/// The range of a bounded read, and the pipe that limits it.
fn range(stream: StreamName, query: &Query) -> Result<(Range<Moment>, Option<PipeName>), Error> {
    let shard = query.get(Parameter::Shard).map(|text| name("shard", text)).transpose()?;
    let bound = |parameter: Parameter| match query.get(parameter) {
        Some(text) => bound(parameter.name(), text, shard.is_some()),
        None => Ok(Bound::Open),
    };
    let (from, to) = (bound(Parameter::From)?, bound(Parameter::To)?);
    let until_pipe = query.get(Parameter::UntilPipe).map(|text| name("pipe", text)).transpose()?;
    let slice = query.get(Parameter::Slice).map(slice).transpose()?;
    let range = Range { stream, from, to, shard, slice, unpacking: query.unpacking()? };
    // The order of the two is known now only if both are relative or neither is.
    let is_relative = |bound: &Bound<Moment>| matches!(bound, Bound::Time(Moment::Ago(_)));
    if is_relative(&range.from) == is_relative(&range.to) {
        range.clone().at(i64::MAX)?;
    }
    Ok((range, until_pipe))
}

fn slice(text: &str) -> Result<SliceOf, Error> {
    text.split_once('/')
        .and_then(|(index, count)| Some(SliceOf { index: index.parse().ok()?, count: count.parse().ok()? }))
        .filter(|s| s.index < s.count && s.count <= limits::MAX_SLICES)
        .ok_or_else(|| {
            let most = limits::MAX_SLICES;
            Error::BadRequest(format!(
                "slice={} is refused: write i/n with i from 0 to n-1 and n from 1 to {most}, such as slice=0/8",
                quoted(text)
            ))
        })
}

fn next(pipe: PipeName, query: &Query) -> Result<NextRequest, Error> {
    let Some(stream) = query.get(Parameter::Stream) else {
        return Err(Error::BadRequest("stream is required: the name of the Kinesis stream that the pipe reads".into()));
    };
    let confirm = match (query.get(Parameter::View), query.get(Parameter::Ack)) {
        (Some(view), None) => view_name(view)?,
        (None, Some("explicit")) => Confirm::Explicit,
        (None, Some(other)) => {
            return Err(Error::BadRequest(format!("ack={} is refused: the only value is ack=explicit", quoted(other))));
        }
        (None, None) => {
            return Err(Error::BadRequest(
                "either view or ack is required: view=<database>.<view> names the refreshable view that pulls, \
                 ack=explicit is for readers that call ack"
                    .into(),
            ));
        }
        (Some(_), Some(_)) => {
            return Err(Error::BadRequest(
                "view and ack are both given; a batch is confirmed by the view or by ack=explicit, so leave one out"
                    .into(),
            ));
        }
    };
    let mode = match query.get(Parameter::Mode) {
        None | Some("polling") => Mode::Polling,
        Some("efo") => Mode::FanOut,
        Some(other) => {
            return Err(Error::BadRequest(format!("mode={} is refused: it must be polling or efo", quoted(other))));
        }
    };
    let on_failure = match query.get(Parameter::OnFailure) {
        Some(_) if confirm == Confirm::Explicit => {
            return Err(Error::BadRequest(
                "on_failure is refused with ack=explicit: only the refresh of a view shows that a batch failed, and why".into(),
            ));
        }
        None | Some("stop") => OnFailure::Stop,
        Some("isolate") => OnFailure::Isolate,
        Some(other) => {
            return Err(Error::BadRequest(format!(
                "on_failure={} is refused: it must be stop or isolate",
                quoted(other)
            )));
        }
    };
    Ok(NextRequest {
        pipe,
        stream: name("stream", stream)?,
        confirm,
        start: query.get(Parameter::Start).map(beginning).transpose()?.unwrap_or(Beginning::TrimHorizon),
        limits: Limits {
            max_rows: query.number(Parameter::MaxRows, 1..=limits::MAX_MAX_ROWS)?.unwrap_or(limits::DEFAULT_MAX_ROWS),
            max_bytes: query
                .number(Parameter::MaxBytes, 1..=limits::MAX_MAX_BYTES)?
                .unwrap_or(limits::DEFAULT_MAX_BYTES),
        },
        linger: query.millis(Parameter::LingerMs, Duration::ZERO..=limits::MAX_WAIT)?,
        wait: query.millis(Parameter::WaitMs, Duration::ZERO..=limits::MAX_WAIT)?.unwrap_or(limits::DEFAULT_WAIT),
        mode,
        on_failure,
        poll: query.millis(Parameter::PollMs, limits::MIN_POLL..=limits::MAX_POLL)?,
        unpacking: query.unpacking()?,
        form: query.form(false)?,
    })
}

/// Parses `db.view`; each part may be in backquotes.
fn view_name(text: &str) -> Result<Confirm, Error> {
    let refuse = |why: &str| Err(Error::BadRequest(format!("view={} is refused: {why}", quoted(text))));
    let whole = |parts: &Vec<String>| !parts.iter().any(|part| part.is_empty() || part.contains(char::is_control));
    match parts(text).filter(whole).map(<[String; 2]>::try_from) {
        Some(Ok([database, view])) => Ok(Confirm::View { database, view }),
        Some(Err(parts)) if parts.len() == 1 => refuse("qualify it with its database, as in view=default.orders_pipe"),
        Some(Err(_)) => refuse("it has more parts than a database and a name; put backquotes around a name with a dot"),
        None => refuse("write <database>.<view>, with backquotes around a part that is not a plain identifier"),
    }
}
