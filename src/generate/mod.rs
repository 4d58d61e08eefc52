//! `sql pipe`: the statements of a pipe, made from a sample of its stream. `shape` looks at the payloads, `infer` and `types` choose types, `plan` says
//! which field goes where, `render` writes SQL; all of these are pure. ClickHouse is asked whether the sample really fits.

mod address;
mod content;
mod dynamodb;
mod infer;
mod landing;
mod look;
mod message;
mod plan;
mod render;
mod sample;
mod server;
mod shape;
mod types;

use serde_json::Value;

use crate::config::{Config, PipeFlags};
use crate::domain::unpacking::Split;
use crate::limits::DRY_RUN_ROWS;
use crate::sql::name::table_name;
use crate::sql::quote::{comment, comments, qualified};
use address::{Address, next_url};
pub use dynamodb::dynamodb;
use look::{Looked, look};
use plan::{Existing, Mapping, Plan, existing_table, new_table, shown};
use render::Target;
use sample::Sample;
use server::{Server, TableRow};
use types::Type;

/// Makes the statements, and prints, runs or tries them, as the flags say. The text is for standard output.
pub async fn pipe(config: &Config, flags: &PipeFlags, bridge_url: &str) -> Result<String, String> {
    let (database, table) = table_name("table", &flags.table)?;
    let maps = flags.map.iter().map(|text| Mapping::parse(text)).collect::<Result<Vec<_>, _>>()?;
    let generator = Generator { server: Server::new(config), flags, database, table };
    // Before Kinesis is asked: what is wrong in the flags is wrong whatever it says.
    generator.url(bridge_url, Split::None)?;
    if flags.order_by.contains(|c: char| c == ';' || c.is_control()) {
        return Err(format!(
            "--order-by is {}: it must be one expression, without semicolons and line breaks",
            shown(&flags.order_by)
        ));
    }
    let mut sample = Sample::take(config, &flags.stream).await?;
    if sample.len() == 0 {
        return Err(format!(
            "stream {} has no records to make a table from: put some in, or run this again when the first have come",
            shown(&flags.stream)
        ));
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
    ) -> Result<String, String> {
        let Looked { shape, objects, mut head } = look(sample, &self.flags.stream, self.flags.message)?;
        let found = self.server.table(&self.database, &self.table).await?;
        let columns = if found.is_some() { self.columns().await? } else { Vec::new() };
        let mut plan = match found.is_some() {
            true => existing_table(&shape, &columns, self.flags.flatten, maps)?,
            false => new_table(&shape, self.flags.flatten, maps)?,
        };
        if plan.columns.is_empty() {
            return Err(format!(
                "no column of {} has a field in the sample of stream {}: name fields and columns with --map",
                shown(&self.flags.table),
                shown(&self.flags.stream)
            ));
        }
        self.judge(&mut plan, sample, objects).await?;
        let target = Target {
            database: self.database.clone(),
            table: self.table.clone(),
            exists: found.is_some(),
            url: self.url(bridge_url, sample.split())?,
            message: self.flags.message,
            collection: config.token.is_some(),
            order_by: self.flags.order_by.clone(),
            exactly_once: self.flags.exactly_once,
            errors: self.flags.errors,
        };
        head.extend(self.about(&target, found.as_ref(), &plan));
        head.extend(plan.notes.iter().cloned());
        let head: String = head.iter().map(|line| comment(line)).collect();
        if self.flags.dry_run {
            let mut text = head;
            for query in render::dry_run(&plan, &sample.source(DRY_RUN_ROWS), target.errors, DRY_RUN_ROWS) {
                // Comments, too: whoever gives the text to a client runs nothing that a record says.
                text.push_str(&comments(&self.server.ask(&query, "Vertical").await?));
                text.push('\n');
            }
            return Ok(text);
        }
        let statements = render::statements(&plan, &target);
        if self.flags.apply {
            self.apply(&statements, &target).await?;
        }
        Ok(statements.iter().fold(head, |text, statement| format!("{text}\n{statement};\n")))
    }

    /// What is to be known about the guarantee, and about records that do not fit.
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
        if !target.errors
            && !["_shard_id", "_sequence_number", "_sub_sequence_number"].iter().all(|c| plan.record.contains(c))
        {
            lines.push(format!(
                "The table {table} lacks _shard_id, _sequence_number or _sub_sequence_number: of two batches with the same rows the second would be \
                 dropped. Add these columns, or use --errors."
            ));
        }
        if target.errors {
            lines.push(format!("Records that do not fit go to {} instead.", shown(&format!("{}_errors", self.table))));
        } else {
            lines.push("A record that is no JSON object, or a value that does not fit its column, arrives as NULL or default values.".into());
            lines.push("With --errors such records are kept apart.".into());
        }
        lines
    }

    fn url(&self, bridge_url: &str, split: Split) -> Result<String, String> {
        let flags = self.flags;
        next_url(&Address {
            bridge_url,
            database: &self.database,
            table: &self.table,
            pipe: flags.pipe.as_deref(),
            stream: &flags.stream,
            parameters: &[
                ("start", &*flags.start, "trim_horizon"),
                ("mode", &*flags.mode, "polling"),
                ("split", split.name(), Split::None.name()),
            ],
        })
    }

    async fn columns(&self) -> Result<Vec<Existing>, String> {
        let columns = self.server.columns(&self.database, &self.table).await?;
        let existing = |c: server::ColumnRow| Existing { insertable: c.is_insertable(), name: c.name, ty: c.ty };
        Ok(columns.into_iter().map(existing).collect())
    }

    /// Lets ClickHouse say whether the sample fits. A type that was chosen here gives way; one of a table that exists is reported.
    async fn judge(&self, plan: &mut Plan, sample: &Sample, objects: usize) -> Result<(), String> {
        let Some((columns, sql)) = render::judged(plan, &sample.source(usize::MAX)) else { return Ok(()) };
        let answer = self.server.ask(&sql, "JSONEachRow").await?;
        let answer: Value =
            serde_json::from_str(answer.trim()).map_err(|e| format!("ClickHouse's answer is not understood: {e}"))?;
        let parsed = answer["parsed"].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        if parsed < objects {
            plan.notes.push(format!(
                "{} objects of the sample are refused by ClickHouse's JSON parser: they do not fit.",
                objects - parsed
            ));
        }
        for at in columns {
            let misfits = answer[format!("m{at}")].as_u64().unwrap_or(0);
            if misfits == 0 {
                continue;
            }
            let column = &mut plan.columns[at];
            let (field, ty) = (shown(&column.path.join(".")), column.ty.to_string());
            let example = answer[format!("e{at}")].as_str().unwrap_or_default();
            let example = shown(&example.chars().take(QUOTED).collect::<String>());
            if plan.strict {
                column.ty = Type::leaf("String").nullable();
                plan.notes.push(format!("{field} has values that {ty} does not take, as {example}: String."));
            } else {
                let name = shown(&column.name);
                plan.notes.push(format!(
                    "Values of {field} in the sample that do not fit the column {name} {ty}: {misfits}, as {example}."
                ));
            }
        }
        Ok(())
    }

    async fn apply(&self, statements: &[String], target: &Target) -> Result<(), String> {
        for name in target.creates() {
            if self.server.table(&self.database, &name).await?.is_some() {
                return Err(format!(
                    "{} exists in database {} already, and nothing was changed: drop it, or look at the statements without --apply",
                    shown(&name),
                    shown(&self.database)
                ));
            }
        }
        for (done, statement) in statements.iter().enumerate() {
            self.server.run(statement, done, statements.len()).await?;
        }
        Ok(())
    }
}

/// Most characters of a value that a comment repeats.
const QUOTED: usize = 64;
