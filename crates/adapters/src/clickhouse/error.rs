//! What a ClickHouse error means, and the message that the user reads.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::time::Duration;

use super::cause::cause;
use super::settings::conflict;
use domain::error::Error;
use domain::limits::CLICKHOUSE_ERROR_CHARS;
use domain::ports::Cause;

/// How the message of a timeout begins.
const LATE: &str = "no answer within ";

/// The error of a failed statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClickHouseError {
    /// ClickHouse's error code; `None` if no response of ClickHouse was read (refused, unknown
    /// host, cut off, timed out).
    pub code: Option<u32>,
    /// The message without its frame (`Code: …`, version), cut to [`CLICKHOUSE_ERROR_CHARS`].
    pub message: String,
    /// What caused it, if it is the error of a refresh; determined from the whole text.
    pub(super) cause: Cause,
}

/// What an error means for the sender of the statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The user or password is wrong.
    Credentials,
    /// The user lacks a privilege.
    Forbidden,
    /// The server's configuration lacks `keeper_map_path_prefix` or Keeper itself.
    NoKeeperMap,
    /// The database cannot hold KeeperMap tables.
    DatabaseEngine,
    /// A table, column or database is missing, or not what this version of the bridge expects.
    Schema,
    /// A compare-and-set found another version, or a key that already exists. Nothing was written.
    Conflict,
    /// No response of ClickHouse was read: the statement may or may not have been executed.
    Transport,
    /// The user's profile or quota blocks the bridge's own statements.
    Profile,
    /// The server could not do it now: Keeper lost, overloaded, cancelled.
    Busy,
    /// Anything else.
    Other,
}

impl Kind {
    /// Whether it lasts until an operator changes something.
    pub fn lasts(self) -> bool {
        matches!(self, Kind::Credentials | Kind::Forbidden | Kind::NoKeeperMap | Kind::DatabaseEngine | Kind::Schema)
    }

    /// The error with this message for whoever sent the statement.
    pub fn error(self, message: String) -> Error {
        if self.lasts() { Error::Misconfigured(message) } else { Error::Unavailable(message) }
    }
}

impl ClickHouseError {
    /// Parses the text of an exception as the HTTP interface sends it.
    pub fn parse(text: &str) -> ClickHouseError {
        let text = text.trim();
        let (code, rest) = match text.strip_prefix("Code: ") {
            Some(rest) => {
                let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
                (rest[..digits].parse().ok(), rest[digits..].trim_start_matches(['.', ' ']))
            }
            None => (None, text),
        };
        let rest = match rest.split_once("Exception: ") {
            Some((frame, rest)) if frame.ends_with("::") => rest,
            _ => rest,
        };
        // SYSTEM WAIT VIEW wraps the exception of the refresh.
        let rest = match rest.strip_prefix("Refresh failed: Code: ").and_then(|inner| inner.split_once("Exception: ")) {
            Some((_, inner)) => inner.rsplit_once(",. (REFRESH_FAILED)").map_or(inner, |(inner, _)| inner),
            None => rest,
        };
        let end = rest.find(", Stack trace (when").or_else(|| rest.rfind(" (version ")).unwrap_or(rest.len());
        ClickHouseError { code, message: cut(rest[..end].trim()), cause: cause(text) }
    }

    /// An error without a response.
    pub(super) fn transport(message: impl Into<String>) -> ClickHouseError {
        ClickHouseError { code: None, message: cut(&message.into()), cause: cause("") }
    }

    /// A timeout. A KeeperMap table whose Keeper is down does not answer for a long time, although
    /// ClickHouse is fine.
    pub(super) fn late(time: Duration) -> ClickHouseError {
        let seconds = time.as_secs();
        ClickHouseError::transport(format!(
            "{LATE}{seconds} s: it is overloaded or stuck, or its Keeper is unavailable"
        ))
    }

    /// What it means.
    pub fn kind(&self) -> Kind {
        match self.code {
            None => Kind::Transport,
            Some(516 | 192 | 193 | 194) => Kind::Credentials,
            Some(497) => Kind::Forbidden,
            Some(code) if conflict(code, "", "", "").is_some() => Kind::Profile,
            Some(36) if self.message.contains("keeper_map_path_prefix") => Kind::NoKeeperMap,
            Some(139) if self.message.contains("ookeeper") || self.message.contains("ooKeeper") => Kind::NoKeeperMap,
            Some(_) if self.message.contains("Please use Atomic or Replicated database") => Kind::DatabaseEngine,
            // throwIf in the statement, before anything is written.
            Some(395) => Kind::Conflict,
            Some(999) if self.message.contains("Node exists") || self.message.contains("Bad version") => Kind::Conflict,
            Some(16 | 36 | 47 | 60 | 81 | 122) => Kind::Schema,
            // Timeouts, too many queries, network, memory, Keeper, read-only while Keeper is down,
            // cancelled, aborted, shutting down.
            Some(159 | 160 | 202 | 203 | 209 | 210 | 225 | 236 | 241 | 242 | 319 | 394 | 439 | 473 | 574 | 999) => {
                Kind::Busy
            }
            Some(_) => Kind::Other,
        }
    }

    /// One sentence that says what is wrong and what to do. `server` is the address without
    /// credentials.
    pub fn sentence(&self, server: &str, user: &str) -> String {
        let said = &self.message;
        if let Some(sentence) = self.code.and_then(|code| conflict(code, said, server, user)) {
            return sentence;
        }
        match self.kind() {
            Kind::Credentials => format!(
                "ClickHouse at {server} refuses user '{user}': check --clickhouse-user and --clickhouse-password (or --clickhouse-password-file)"
            ),
            Kind::Forbidden => format!(
                "ClickHouse user '{user}' lacks a required privilege: {said}; grant it, or name another user with --clickhouse-user"
            ),
            Kind::NoKeeperMap => format!(
                "ClickHouse at {server} has no KeeperMap ({said}): add <keeper_map_path_prefix>/keeper_map</keeper_map_path_prefix> and a Keeper \
                 (<zookeeper>) to the server's configuration, or run the bridge with --state file:DIR"
            ),
            Kind::DatabaseEngine => format!(
                "{said}: create the database with ENGINE = Atomic, or name another one with --clickhouse-database"
            ),
            Kind::Schema => format!(
                "the bridge's tables in ClickHouse at {server} are missing or from another version ({said}): run `clickhouse-kinesis-bridge \
                 sql setup | clickhouse-client`, or restart the bridge with a user that may create them"
            ),
            Kind::Transport => match said.strip_prefix(LATE) {
                Some(time) => format!("ClickHouse at {server} did not answer within {time}"),
                None => format!("ClickHouse at {server} does not answer: {said}"),
            },
            Kind::Conflict | Kind::Busy | Kind::Profile | Kind::Other => match self.code {
                Some(code) => format!("ClickHouse at {server} reports code {code}: {said}"),
                None => format!("ClickHouse at {server} reports: {said}"),
            },
        }
    }
}

impl fmt::Display for ClickHouseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "code {code}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for ClickHouseError {}

impl From<clickhouse::error::Error> for ClickHouseError {
    fn from(error: clickhouse::error::Error) -> ClickHouseError {
        match &error {
            clickhouse::error::Error::BadResponse(text) => ClickHouseError::parse(text),
            other => ClickHouseError::transport(causes(other)),
        }
    }
}

/// The innermost cause is the most specific: "Connection refused" rather than "client error
/// (Connect)".
fn causes(error: &clickhouse::error::Error) -> String {
    let mut source = error.source();
    let mut innermost = error.to_string();
    while let Some(cause) = source {
        match cause.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(io::ErrorKind::ConnectionRefused) => {
                return "connection refused; is it running, and is --clickhouse-url its HTTP port?".into();
            }
            Some(io::ErrorKind::TimedOut) => return "the connection timed out; check --clickhouse-url".into(),
            _ => {}
        }
        let text = cause.to_string();
        if text.contains("dns error") || text.contains("failed to lookup address") {
            return "the host name in --clickhouse-url cannot be resolved".into();
        }
        innermost = text;
        source = cause.source();
    }
    innermost
}

/// At most [`CLICKHOUSE_ERROR_CHARS`] characters, on one line.
fn cut(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(CLICKHOUSE_ERROR_CHARS) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(text: &str) -> Kind {
        ClickHouseError::parse(text).kind()
    }

    #[test]
    fn the_frame_of_an_exception_is_taken_off() {
        let error = ClickHouseError::parse(
            "Code: 395. DB::Exception: conflict: while executing 'FUNCTION throwIf'. (FUNCTION_THROW_IF_VALUE_IS_NON_ZERO) (version 26.7.2.1 (official build))",
        );
        assert_eq!(error.code, Some(395));
        assert_eq!(
            error.message,
            "conflict: while executing 'FUNCTION throwIf'. (FUNCTION_THROW_IF_VALUE_IS_NON_ZERO)"
        );
        let keeper = ClickHouseError::parse(
            "Code: 999. Coordination::Exception: Session expired. (KEEPER_EXCEPTION) (version 26.7.2.1)",
        );
        assert_eq!(keeper.message, "Session expired. (KEEPER_EXCEPTION)");
    }

    #[test]
    fn what_a_refresh_failed_with_is_what_is_shown() {
        let error = ClickHouseError::parse(
            "Code: 730. DB::Exception: Refresh failed: Code: 60. DB::Exception: Table default.orders does not exist. (UNKNOWN_TABLE),. \
             (REFRESH_FAILED) (version 26.7.2.1)",
        );
        assert_eq!(error.code, Some(730));
        assert_eq!(error.message, "Table default.orders does not exist. (UNKNOWN_TABLE)");
        let other = ClickHouseError::parse(
            "Code: 730. DB::Exception: Refresh failed: cancelled. (REFRESH_FAILED) (version 26.7.2.1)",
        );
        assert_eq!(other.message, "Refresh failed: cancelled. (REFRESH_FAILED)");
    }

    #[test]
    fn texts_that_are_no_exception_are_kept() {
        for text in ["", "502 Bad Gateway", "Code: ", "Code: x", "<html>\nno</html>"] {
            let error = ClickHouseError::parse(text);
            assert_eq!(error.code, None, "{text}");
        }
        assert_eq!(ClickHouseError::parse("Code: 516").code, Some(516));
        assert_eq!(ClickHouseError::parse("<html>\nno</html>").message, "<html> no</html>");
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let error = ClickHouseError::parse(&format!("Code: 62. DB::Exception: {}", "ü".repeat(10_000)));
        assert_eq!(error.message.chars().count(), CLICKHOUSE_ERROR_CHARS + 1);
    }

    #[test]
    fn codes_are_sorted_by_what_to_do() {
        let no_prefix = "Code: 36. DB::Exception: KeeperMap is disabled because 'keeper_map_path_prefix' config is not defined. (BAD_ARGUMENTS)";
        assert_eq!(kind_of(no_prefix), Kind::NoKeeperMap);
        let no_keeper =
            "Code: 139. DB::Exception: There is no Zookeeper configuration in server config. (NO_ELEMENTS_IN_CONFIG)";
        assert_eq!(kind_of(no_keeper), Kind::NoKeeperMap);
        assert_eq!(kind_of("Code: 516. DB::Exception: u: Authentication failed"), Kind::Credentials);
        assert_eq!(kind_of("Code: 497. DB::Exception: u: Not enough privileges."), Kind::Forbidden);
        assert_eq!(kind_of("Code: 999. Coordination::Exception: Session expired"), Kind::Busy);
        assert_eq!(kind_of("Code: 60. DB::Exception: Table kinesis.leases does not exist"), Kind::Schema);
        assert_eq!(kind_of("502 Bad Gateway"), Kind::Transport);
        assert_eq!(kind_of("Code: 201. DB::Exception: Quota for user `u` for 3600s has been exceeded"), Kind::Profile);
    }

    #[test]
    fn sentences_say_what_to_do() {
        let sentence = |text: &str| ClickHouseError::parse(text).sentence("http://ch:8123", "bridge");
        let no_prefix = sentence("Code: 36. DB::Exception: KeeperMap is disabled because 'keeper_map_path_prefix'");
        assert!(no_prefix.contains("<keeper_map_path_prefix>/keeper_map</keeper_map_path_prefix>"), "{no_prefix}");
        assert!(no_prefix.contains("--state file:DIR"), "{no_prefix}");
        let weak = sentence("Code: 497. DB::Exception: bridge: Not enough privileges.");
        assert!(weak.starts_with("ClickHouse user 'bridge' lacks a required privilege: bridge: Not"), "{weak}");
        let wrong = sentence("Code: 516. DB::Exception: bridge: Authentication failed: password is incorrect");
        assert!(wrong.contains("--clickhouse-password") && wrong.contains("'bridge'"), "{wrong}");
        let read_only =
            sentence("Code: 164. DB::Exception: Cannot modify 'limit' setting in readonly mode. (READONLY)");
        assert!(read_only.contains("user 'bridge' is read-only") && read_only.contains("readonly = 0"), "{read_only}");
    }
}
