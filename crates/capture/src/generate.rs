//! `sql pipe`: generates the statements of a pipe from a sample of its stream. `shape` analyses the
//! payloads, `infer` and `types` choose types, `plan` maps fields to columns, `render` writes SQL;
//! all of these are pure. ClickHouse then verifies that the sample really fits.

mod address;
mod column;
mod content;
mod definer;
mod dynamodb;
mod fits;
mod infer;
mod landing;
mod look;
mod message;
mod numbers;
mod plan;
mod render;
mod rest;
mod sample;
mod server;
mod shape;
mod types;

use serde_json::Value;

use crate::error::CommandError;
use crate::flags::{self, PipeFlags};
use address::{Address, collection, next_url};
use config::Config;
use definer::Definer;
use domain::columns::PLACE;
use domain::error::Error;
use domain::interface::Parameter;
use domain::limits::DRY_RUN_ROWS;
use domain::unpacking::Split;
pub use dynamodb::dynamodb;
use look::{Looked, look};
use plan::{Existing, Mapping, Plan, existing_table, new_table, shown};
use render::{Target, view_suffix};
use rest::{REST, REST_COMMENT, REST_TYPE};
use sample::Sample;
use server::{Server, TableRow};
use shape::Shape;
use sql::quote::{comment, comments, qualified};
use types::Type;

/// Generates the statements, and prints, runs or tries them, depending on the flags. Returns the
/// text for standard output.
pub async fn pipe(config: &Config, flags: &PipeFlags, bridge_url: &str) -> Result<String, CommandError> {
    let (database, table) = flags::table("table", &flags.table)?;
    let maps = flags.map.iter().map(|text| Mapping::parse(text)).collect::<Result<Vec<_>, _>>()?;
    let generator = Generator { server: Server::new(config), flags, database, table };
    // Before asking Kinesis: wrong flags are wrong whatever it answers.
    generator.urls(bridge_url, Split::None)?;
    if flags.order_by.contains(|c: char| c == ';' || c.is_control()) {
        return Err(CommandError::Refused(format!(
            "--order-by is {}: it must be one expression, without semicolons or line breaks",
            shown(&flags.order_by)
        )));
    }
    generator.server.runs_pipes().await?;
    let mut sample = Sample::take(config, &flags.stream).await?;
    if sample.len() == 0 {
        return Err(CommandError::Refused(format!(
            "stream {} has no records to derive a table from: write some, or run this again once there are some",
            shown(&flags.stream)
        )));
    }
    generator.run(config, bridge_url, &mut sample, &maps).await
}

struct Generator<'a> {
    server: Server,
    flags: &'a PipeFlags,
    database: String,
    table: String,
}

impl Generator<'_> {
    async fn run(
        &self,
        config: &Config,
        bridge_url: &str,
        sample: &mut Sample,
        maps: &[Mapping],
    ) -> Result<String, CommandError> {
        let Looked { shape, objects, mut head } = look(sample, &self.flags.stream, self.flags.message)?;
        let found = self.server.table(&self.database, &self.table).await?;
        let definer = Definer::find(&self.server, self.flags.shared.definer.as_deref()).await?;
        let mut plan = self.plan(&shape, found.is_some(), maps).await?;
        self.judge(&mut plan, sample, objects).await?;
        let target = Target {
            database: self.database.clone(),
            table: self.table.clone(),
            exists: found.is_some(),
            urls: self.urls(bridge_url, sample.split())?,
            message: self.flags.message,
            collection: collection(config),
            order_by: self.flags.order_by.clone(),
            exactly_once: self.flags.exactly_once,
            errors: !self.flags.no_errors,
            definer: definer.as_ref().map_or_else(String::new, Definer::clause),
        };
        let tables = ["", "_landing"].map(|suffix| format!("{}.{}{suffix}", self.database, self.table));
        self.server.only_puller(&target.urls[0], (&self.database, &format!("{}_pipe", self.table)), &tables).await?;
        head.extend(self.about(&target, found.as_ref(), &plan));
        head.extend(plan.notes.iter().cloned());
        if let Some(definer) = &definer {
            head.extend(definer.notes(&target.needs()));
            head.extend(definer.about_views_below(&self.server, &target.needs()).await?);
        }
        let head: String = head.iter().map(|line| comment(line)).collect();
        if self.flags.dry_run {
            let mut text = head;
            for query in render::dry_run(&plan, &sample.source(DRY_RUN_ROWS), target.errors, DRY_RUN_ROWS) {
                // Comments, too: feeding the text to a client must not execute anything from a
                // record.
                text.push_str(&comments(&self.server.ask(&query, "Vertical").await?));
                text.push('\n');
            }
            return Ok(text);
        }
        let mut statements = render::statements(&plan, &target);
        if let Some(definer) = &definer {
            statements.splice(0..0, definer.statements(&target.needs(), config)?);
        }
        if self.flags.shared.apply {
            if let Some(definer) = &definer {
                definer.may_be_set(&self.server, config).await?;
            }
            self.apply(&statements, &target).await?;
        }
        let text = statements.iter().fold(head, |text, statement| format!("{text}\n{statement};\n"));
        Ok(if plan.rest { format!("{text}\n{}", render::look_into_rest(&target)) } else { text })
    }

    /// Maps fields to the columns of a new table or an existing one.
    async fn plan(&self, shape: &Shape, exists: bool, maps: &[Mapping]) -> Result<Plan, CommandError> {
        let (flatten, rest) = (self.flags.flatten, !self.flags.no_rest);
        let mut plan = match exists {
            true => existing_table(shape, &self.columns().await?, flatten, maps, rest)?,
            false => new_table(shape, flatten, maps, rest)?,
        };
        plan.rounds = self.server.rounds_in_json().await?;
        if plan.columns.is_empty() {
            return Err(CommandError::Refused(format!(
                "no column of {} has a field in the sample of stream {}: assign fields to columns with --map",
                shown(&self.flags.table),
                shown(&self.flags.stream)
            )));
        }
        Ok(plan)
    }

    /// Notes about the guarantee, and about records that do not fit.
    fn about(&self, target: &Target, found: Option<&TableRow>, plan: &Plan) -> Vec<String> {
        let mut lines = Vec::new();
        let table = shown(&self.flags.table);
        let window = found.is_none_or(|table| {
            let window = table.engine_full.split_once("non_replicated_deduplication_window = ");
            table.engine.starts_with("Replicated") || window.is_some_and(|(_, value)| !value.starts_with('0'))
        });
        match (target.exactly_once, window, found) {
            (false, _, None) => lines.push("At-least-once: a batch may be inserted again after a failure.".into()),
            (_, false, Some(_)) => {
                let name = qualified(&self.database, &self.table);
                lines.push(format!(
                    "At-least-once: the table {table} has no deduplication window. For exactly-once, first run"
                ));
                lines.push(format!("ALTER TABLE {name} MODIFY SETTING non_replicated_deduplication_window = 1000"));
            }
            _ => lines.push("Exactly-once: see Guarantees in README.md.".into()),
        }
        if !target.errors && !PLACE.iter().all(|column| plan.record.contains(column)) {
            lines.push(format!(
                "The table {table} lacks _shard_id, _sequence_number or _sub_sequence_number. Without them, the second of two batches with the \
                 same rows would be dropped. Add these columns, or leave out --no-errors."
            ));
        }
        if target.errors {
            lines.push(format!("Records that do not fit go to {} instead.", shown(&format!("{}_errors", self.table))));
        } else {
            lines.push("A record that is not a JSON object, or a value that does not fit its column, is inserted as NULL or default values.".into());
            lines.push("Without --no-errors, such records go to a table of their own.".into());
        }
        lines.push(match (plan.rest, found.is_some() && !self.flags.no_rest) {
            (true, _) => format!("Fields without a column are kept in {REST}: see the end."),
            (false, false) => "Fields without a column are not kept.".into(),
            (false, true) => {
                let name = qualified(&self.database, &self.table);
                format!("Fields without a column are not kept. To keep them, first run ALTER TABLE {name} ADD COLUMN {REST} {REST_TYPE} COMMENT '{REST_COMMENT}'")
            }
        });
        lines
    }

    /// The URL of each view.
    fn urls(&self, bridge_url: &str, split: Split) -> Result<Vec<String>, Error> {
        let flags = self.flags;
        let [start, mode] = flags.shared.parameters();
        let url = |number| {
            next_url(&Address {
                bridge_url,
                database: &self.database,
                table: &self.table,
                view: &format!("{}{}", self.table, view_suffix(number)),
                pipe: flags.pipe.as_deref(),
                stream: &flags.stream,
                parameters: &[start, mode, (Parameter::Split, split.name(), Split::None.name())],
            })
        };
        (1..=flags.views.into()).map(url).collect()
    }

    async fn columns(&self) -> Result<Vec<Existing>, CommandError> {
        let columns = self.server.columns(&self.database, &self.table).await?;
        let existing = |c: server::ColumnRow| Existing {
            insertable: c.is_insertable(),
            has_default: c.has_default(),
            name: c.name,
            ty: c.ty,
            comment: c.comment,
        };
        Ok(columns.into_iter().map(existing).collect())
    }

    /// Has ClickHouse check whether the sample fits. A type chosen here is replaced; for an
    /// existing table the misfit is reported.
    async fn judge(&self, plan: &mut Plan, sample: &Sample, objects: usize) -> Result<(), CommandError> {
        let (columns, sql) = render::judged(plan, &sample.source(usize::MAX));
        let answer = self.server.ask(&sql, "JSONEachRow").await?;
        let answer: Value = serde_json::from_str(answer.trim()).map_err(CommandError::Answer)?;
        let number = |name: &str| answer[name].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        let (parsed, twice) = (number("parsed"), number("twice"));
        if parsed < objects {
            plan.notes.push(format!(
                "{} objects of the sample are refused by ClickHouse's JSON parser: they do not fit.",
                objects - parsed
            ));
        }
        if twice > 0 {
            plan.notes.push(format!("{twice} objects of the sample have a field twice: they do not fit."));
        }
        for at in columns {
            let misfits = number(&format!("m{at}"));
            if misfits == 0 {
                continue;
            }
            let column = &mut plan.columns[at];
            let (field, ty) = (shown(&column.path.join(".")), column.ty.to_string());
            let example = answer[format!("e{at}")].as_str().unwrap_or_default();
            let example = shown(&example.chars().take(QUOTED).collect::<String>());
            if plan.strict {
                (column.ty, column.as_text) = (Type::leaf("String").nullable(), true);
                plan.notes.push(format!("{field} has values that do not fit {ty}, such as {example}: String."));
            } else {
                let name = shown(&column.name);
                plan.notes.push(format!(
                    "Values of {field} in the sample that do not fit the column {name} {ty}: {misfits}, such as {example}."
                ));
            }
        }
        Ok(())
    }

    async fn apply(&self, statements: &[String], target: &Target) -> Result<(), CommandError> {
        for name in target.creates() {
            if self.server.table(&self.database, &name).await?.is_some() {
                return Err(CommandError::Refused(format!(
                    "{} exists in database {} already, so nothing was changed: drop it, or run without --apply to see the statements",
                    shown(&name),
                    shown(&self.database)
                )));
            }
        }
        for (done, statement) in statements.iter().enumerate() {
            self.server.run(statement, done, statements.len()).await?;
        }
        Ok(())
    }
}

/// Most characters of a value that a comment quotes.
const QUOTED: usize = 64;
