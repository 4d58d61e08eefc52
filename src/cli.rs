//! The commands of the program and their flags.

use capture::flags::{DynamoDbFlags, PipeFlags, VerifyFlags};
use clap::{Parser, Subcommand};
use config::Flags;

/// The command line.
#[derive(Clone, Debug, Parser)]
#[command(name = "clickhouse-kinesis-bridge", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run the bridge.
    Serve(Flags),
    /// Check that AWS, the streams, ClickHouse, KeeperMap and the token work, and that the bridge, its
    /// pipes and their views do. The exit code is 0 if nothing is bad, 1 if something is, 2 if the
    /// command line cannot be used.
    Check {
        /// A stream to check, in addition to those of pipes.
        #[arg(long, value_name = "NAME")]
        stream: Option<String>,
        /// Of all pipes only this one, whichever bridge its views pull from.
        #[arg(long, value_name = "NAME")]
        pipe: Option<String>,
        /// Print each finding as a JSON object on a line of its own.
        #[arg(long)]
        json: bool,
        /// The flags of `serve`.
        #[command(flatten)]
        flags: Flags,
    },
    /// Print the SQL that sets up the bridge, a pipe or change capture, or run it.
    Sql {
        /// Which SQL.
        #[command(subcommand)]
        command: SqlCommand,
    },
    /// Compare DynamoDB tables with their copies in ClickHouse.
    Dynamodb {
        /// What to do.
        #[command(subcommand)]
        command: DynamoDbCommand,
    },
}

/// Which SQL to print.
#[derive(Clone, Debug, Subcommand)]
pub enum SqlCommand {
    /// Print the statements that create the database, state tables, named collection and views.
    Setup(Flags),
    /// Print or run the statements of a pipe: table and views, derived from a sample of the stream.
    Pipe {
        /// The pipe to create.
        #[command(flatten)]
        pipe: Box<PipeFlags>,
        /// The flags of `serve`.
        #[command(flatten)]
        flags: Flags,
    },
    /// Print or run the statements that mirror a DynamoDB table: target, views, pipe, and the
    /// loading of its exports.
    Dynamodb {
        /// The table to mirror.
        #[command(flatten)]
        wanted: Box<DynamoDbFlags>,
        /// The flags of `serve`.
        #[command(flatten)]
        flags: Flags,
    },
}

/// What to do with a DynamoDB table.
#[derive(Clone, Debug, Subcommand)]
pub enum DynamoDbCommand {
    /// Check that the ClickHouse table has exactly the items of the DynamoDB table, while changes
    /// keep flowing.
    Verify {
        /// What to compare, and how.
        #[command(flatten)]
        verify: VerifyFlags,
        /// The flags of `serve`.
        #[command(flatten)]
        flags: Flags,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_other_commands_are_read() {
        Cli::command().debug_assert();
        let parsed = |line: &[&str]| Cli::try_parse_from(line).map(|cli| cli.command);
        let check = parsed(&["bridge", "check", "--stream", "orders", "--state", "file:x", "--pipe", "p", "--json"]);
        let Ok(Command::Check { stream: Some(stream), pipe: Some(pipe), json: true, flags }) = check else {
            panic!("{check:?}")
        };
        assert_eq!((&*stream, &*pipe, &*flags.state), ("orders", "p", "file:x"));
        let setup = parsed(&["bridge", "sql", "setup", "--clickhouse-database", "k"]);
        assert!(
            matches!(setup, Ok(Command::Sql { command: SqlCommand::Setup(flags) }) if flags.clickhouse_database == "k")
        );
        let pipe = |flags: &[&str]| {
            let line = [&["bridge", "sql", "pipe", "--stream", "s", "--table", "t"], flags].concat();
            match parsed(&line) {
                Ok(Command::Sql { command: SqlCommand::Pipe { pipe, .. } }) => Some(pipe),
                _ => None,
            }
        };
        let plain = pipe(&[]).unwrap();
        assert!(
            plain.exactly_once && !plain.errors && !plain.shared.apply && plain.map.is_empty() && plain.pipe.is_none()
        );
        assert_eq!(
            (&*plain.order_by, &*plain.shared.mode, &*plain.shared.start),
            ("(_timestamp, _shard_id)", "polling", "trim_horizon")
        );
        let given = pipe(&["--map", "a=b", "--map", "c=d", "--exactly-once=false", "--flatten", "--errors"]).unwrap();
        assert_eq!(
            (given.map, given.exactly_once, given.flatten, given.errors),
            (vec!["a=b".into(), "c=d".into()], false, true, true)
        );
        assert!(pipe(&["--exactly-once"]).unwrap().exactly_once);
        // It looks like a flag.
        assert_eq!(
            pipe(&["--start", "-1h", "--apply"]).map(|pipe| (pipe.shared.start, pipe.shared.apply)),
            Some(("-1h".into(), true))
        );
        assert!(
            pipe(&["--apply", "--dry-run"]).is_none() && parsed(&["bridge", "sql", "pipe", "--stream", "s"]).is_err()
        );
        assert!(parsed(&["bridge"]).is_err() && parsed(&["bridge", "serve", "--liste", "x"]).is_err());
    }
}
