//! `sql dynamodb`: everything around a ClickHouse table that mirrors a DynamoDB table. `source` and
//! `export` gather the facts, `order` checks whether they fit together, `items` analyses items,
//! `columns` chooses columns, `render` writes SQL.

mod columns;
mod export;
mod items;
mod order;
mod render;
mod source;

use std::collections::HashMap;

use serde_json::json;
use serde_json::value::RawValue;

use super::address::{Address, collection, next_url};
use super::definer::Definer;
use super::plan::shown;
use super::sample::Sample;
use super::server::{Server, TableRow};
use crate::dynamodb::{KeyType, Table};
use crate::error::CommandError;
use crate::flags::{self, DynamoDbFlags};
use columns::{Column, Columns};
use config::Config;
use domain::interface::Parameter;
use domain::limits::{DRY_RUN_ROWS, PIPE_SAMPLE_BYTES};
use export::{Export, chained};
pub use items::Event;
use items::Items;
use render::Target;
use source::{Source, has_change_before};
use sql::quote::{comment, comments, identifier, literal, qualified};
use sql::{dynamodb_value, functions};

/// Precedes the table's id in the comment of its target.
const ID: &str = ", id ";

/// Generates the statements, and prints, runs or tries them, depending on the flags. Returns the
/// text for standard output.
pub async fn dynamodb(config: &Config, flags: &DynamoDbFlags, bridge_url: &str) -> Result<String, CommandError> {
    let (database, table) = match &flags.target {
        Some(target) => flags::table("target", target)?,
        None => ("default".to_owned(), flags.table.clone()),
    };
    let [start, mode] = flags.shared.parameters();
    // Wrong flags are wrong whatever the servers answer.
    let url = next_url(&Address {
        bridge_url,
        database: &database,
        table: &table,
        view: &format!("{table}_pipe"),
        pipe: flags.pipe.as_deref(),
        stream: &flags.stream,
        parameters: &[(Parameter::Unmarshal, "dynamodb", "none"), start, mode],
    })?;
    let source = Source::ask(flags).await?;
    let server = Server::new(config);
    server.runs_pipes().await?;
    let generator = Generator { config, flags, server, source, database, table, url };
    let mut exports = Vec::new();
    for url in &flags.export {
        exports.push(Export::read(&generator.server, url).await?);
    }
    generator.run(&chained(exports)?).await
}

struct Generator<'a> {
    config: &'a Config,
    flags: &'a DynamoDbFlags,
    server: Server,
    source: Source,
    database: String,
    table: String,
    url: String,
}

/// A statement, and whether it may take hours.
struct Step {
    sql: String,
    long: bool,
}

impl Generator<'_> {
    async fn run(&self, exports: &[Export]) -> Result<String, CommandError> {
        let (stream, source_table) = (shown(&self.flags.stream), shown(&self.flags.table));
        let mut head = vec![format!("DynamoDB table {source_table}, with its changes from stream {stream}.")];
        head.extend(self.source.notes.iter().cloned());
        let found = self.server.table(&self.database, &self.table).await?;
        let of_earlier = match &found {
            Some(found) => self.is_of_earlier(&found.comment).await?,
            None => false,
        };
        head.extend(self.about_exports(exports, found.is_some()).await?);

        let (images, items) = self.sample(exports).await?;
        head.push(format!("Made from {} items sampled from the stream and the exports.", items.count));
        if items.count == 0 {
            head.push("So there are only columns for the keys, and everything else is in rest. Run this again when there are changes or an export.".into());
        }
        let (columns, added, notes) = match &found {
            None => {
                let (columns, notes) = Columns::new(&self.source.keys, &items)?;
                (columns, Vec::new(), notes)
            }
            Some(found) => self.with_added(found, &items).await?,
        };
        head.extend(notes);
        let definer = Definer::find(&self.server, self.flags.shared.definer.as_deref()).await?;
        let about = self.about_source();
        let target = Target {
            database: &self.database,
            table: &self.table,
            source: &self.flags.table,
            comment: &about,
            url: &self.url,
            collection: collection(self.config),
            created: self.source.table.as_ref().map(created_micros).filter(|created| *created > 0),
            told_stable: self.server.knows_setting("deduplicate_insert_select").await?,
            definer: definer.as_ref(),
            columns: &columns,
        };
        if let Some(definer) = &definer {
            head.extend(definer.notes(&target.needs()));
            head.extend(definer.about_views_below(&self.server, &target.needs()).await?);
        }
        let tables = ["", "_landing"].map(|suffix| format!("{}.{}{suffix}", self.database, self.table));
        self.server.only_puller(&self.url, (&self.database, &format!("{}_pipe", self.table)), &tables).await?;
        let target_exists = found.is_some();
        let steps = match found {
            None => self.first_steps(&target).await?,
            Some(_) => self.later_steps(&target, &added, &mut head).await?,
        };
        let grants = definer.as_ref().map(|definer| definer.statements(&target.needs(), self.config)).transpose()?;
        let new_comment = of_earlier.then(|| target.new_comment());
        let before = grants.into_iter().flatten().chain(new_comment).map(Step::short);
        let steps: Vec<Step> = before.chain(steps).chain(self.loads(&target, exports, target_exists).await?).collect();
        let mut text: String = head.iter().map(|line| comment(line)).collect();
        if self.flags.dry_run {
            text.push_str(&comments(&self.first_items(&target, &images).await?));
            return Ok(text);
        }
        if self.flags.shared.apply {
            self.apply(&steps, definer.as_ref()).await?;
        }
        for step in &steps {
            text.push_str(&format!("\n{};\n", step.sql));
        }
        text.push_str(&format!("\n{}", self.new_attributes(&target)));
        if self.flags.shared.apply {
            text.push_str(&format!("\n{}", comment(&format!("Done: {} statements were run.", steps.len()))));
        }
        Ok(text)
    }

    /// Runs the statements.
    async fn apply(&self, steps: &[Step], definer: Option<&Definer>) -> Result<(), CommandError> {
        if let Some(definer) = definer {
            definer.may_be_set(&self.server, self.config).await?;
        }
        for (done, step) in steps.iter().enumerate() {
            match step.long {
                true => self.server.run_patiently(&step.sql, done, steps.len()).await?,
                false => self.server.run(&step.sql, done, steps.len()).await?,
            }
        }
        Ok(())
    }

    /// What the sources say about the table, for the target's comment.
    fn about_source(&self) -> String {
        match &self.source.table {
            Some(table) => format!("DynamoDB table {}{ID}{}", table.arn, table.id),
            None => format!("DynamoDB table {}", self.flags.table),
        }
    }

    /// Whether the target was made for an earlier table of the same name. It is an error while it
    /// still has items of that one, which nothing deletes.
    async fn is_of_earlier(&self, comment: &str) -> Result<bool, CommandError> {
        let id = comment.rsplit_once(ID).map(|(_, id)| id);
        let Some(table) = self.source.table.as_ref().filter(|table| id.is_some_and(|id| id != table.id)) else {
            return Ok(false);
        };
        let (name, created) = (qualified(&self.database, &self.table), created_micros(table));
        let left =
            self.server.ask(&format!("SELECT count() FROM {name} FINAL WHERE version < {created}"), "TSV").await?;
        match left.trim() {
            "0" => Ok(true),
            left => Err(CommandError::Refused(format!(
                "DynamoDB table {} was dropped and recreated after {} was made, which still has items of the earlier table ({left}): run the \
                 statement \
                 that dynamodb verify prints for them, or choose another --target",
                shown(&self.flags.table),
                shown(&format!("{}.{}", self.database, self.table))
            ))),
        }
    }

    /// Whether stream and exports fit together, and notes about them.
    async fn about_exports(&self, exports: &[Export], target_exists: bool) -> Result<Vec<String>, CommandError> {
        let (table, stream) = (shown(&self.flags.table), shown(&self.flags.stream));
        let destination = self.source.destination(&self.flags.table);
        let mut notes = Vec::new();
        match &destination {
            Some(Ok(destination)) if !destination.microseconds => notes.push(
                "Changes carry milliseconds, so two changes of an item within the same millisecond have equal versions, and their order in the \
                 stream decides which one counts. \
                 For microseconds: aws dynamodb update-kinesis-streaming-destination with ApproximateCreationDateTimePrecision=MICROSECOND."
                    .into(),
            ),
            Some(Err(why)) if exports.is_empty() => notes.push(format!("So far {why}.")),
            _ => {}
        }
        let Some(last) = exports.last() else {
            if !target_exists {
                notes.push("This loads only changes. To load the items that were there before, too:".into());
                notes.push("1. send the changes to the stream (aws dynamodb enable-kinesis-streaming-destination), and wait until that is \
                            ACTIVE;".into());
                notes.push(
                    "2. export the table to S3 (aws dynamodb export-table-to-point-in-time, format DYNAMODB_JSON);"
                        .into(),
                );
                notes.push(
                    "3. when the export is COMPLETED, run this again with --export and the URL of its folder.".into(),
                );
            }
            return Ok(notes);
        };
        for export in exports {
            let (arn, id) = self.source.table.as_ref().map_or(("", ""), |table| (&table.arn, &table.id));
            export.is_of(&self.flags.table, arn, id)?;
        }
        if let Some(Err(why)) = destination {
            return Err(CommandError::Refused(format!(
                "{why}: enable it first, then export again, so that no change falls between export and stream"
            )));
        }
        notes.extend(order::checked(&order::Facts {
            stream: &self.source.stream,
            stream_created_ms: self.source.stream_created_ms,
            start: &self.flags.shared.start,
            exports,
            target_exists,
            now_ms: self.source.now_ms,
        })?);
        if !has_change_before(self.config, self.flags, last.span.end()).await? {
            notes.push(format!(
                "It could not be proved that changes of table {table} went to stream {stream} before the export of {}: the stream has no older \
                 change.",
                export::time(last.span.end())
            ));
        }
        Ok(notes)
    }

    /// Items of the stream and of the exports: their text, and what they look like.
    async fn sample(&self, exports: &[Export]) -> Result<(Vec<String>, Items), CommandError> {
        let sample = Sample::take(self.config, &self.flags.stream).await?;
        let mut images: Vec<String> = Vec::new();
        for payload in sample.payloads() {
            let event = Event::parse(payload).filter(|event| event.is_of(&self.flags.table));
            images.extend(event.and_then(|event| event.image().map(String::from)));
        }
        let partition_key = self.source.keys.first().map_or("", |key| &*key.name);
        for export in exports {
            let lines = export.sample(&self.server).await?;
            images.extend(lines.iter().filter_map(|line| image_of(line, partition_key)));
        }
        let mut items = Items::default();
        images.iter().for_each(|image| items.add(image));
        Ok((images, items))
    }

    /// The target's existing and new columns.
    async fn with_added(
        &self,
        found: &TableRow,
        items: &Items,
    ) -> Result<(Columns, Vec<Column>, Vec<String>), CommandError> {
        let name = shown(&format!("{}.{}", self.database, self.table));
        let rows = self.server.columns(&self.database, &self.table).await?;
        let replaces =
            found.engine.ends_with("ReplacingMergeTree") && found.engine_full.contains("version, is_deleted)");
        let columns = Columns::parse(&self.source.keys, &rows).and_then(|columns| match replaces {
            true => Ok(columns),
            false => Err(CommandError::Refused(format!(
                "it is a {}, not a ReplacingMergeTree(version, is_deleted)",
                found.engine
            ))),
        });
        let mut columns = columns.map_err(|why| {
            CommandError::Refused(format!(
                "{name} is not a target for DynamoDB table {}: {why}. If its keys have changed, choose another --target",
                shown(&self.flags.table)
            ))
        })?;
        let mut notes = Vec::new();
        let narrow = |key: &&columns::Key| {
            let numbers = items.attributes.get(&key.attribute).map(|seen| seen.numbers.ty());
            key.ty == KeyType::N && !key.as_text && numbers.is_some_and(|ty| ty != Some("Int64"))
        };
        for key in columns.keys.iter().filter(narrow) {
            notes.push(format!(
                "The column {} is Int64, but the sample has keys that do not fit: they go to {}.",
                shown(&key.name),
                shown(&format!("{}_errors", self.table))
            ));
        }
        let before = columns.others.len();
        notes.extend(columns.add(items));
        let added = columns.others[before..].to_vec();
        Ok((columns, added, notes))
    }

    async fn exists(&self, suffix: &str) -> Result<bool, CommandError> {
        Ok(self.server.table(&self.database, &format!("{}{suffix}", self.table)).await?.is_some())
    }

    async fn first_steps(&self, target: &Target<'_>) -> Result<Vec<Step>, CommandError> {
        for suffix in ["_landing", "_errors", "_mv", "_errors_mv", "_final", "_pipe"] {
            if self.exists(suffix).await? {
                return Err(CommandError::Refused(format!(
                    "{} exists in database {} already, without the target that belongs to it, so nothing was changed: drop it, or choose \
                     another --target",
                    shown(&format!("{}{suffix}", self.table)),
                    shown(&self.database)
                )));
            }
        }
        let parts = [
            target.table(),
            target.landing(),
            target.errors(),
            target.view(),
            target.errors_view(),
            target.readers(),
            target.pipe(),
        ];
        Ok(parts.into_iter().map(Step::short).collect())
    }

    /// For an existing target: columns for new attributes, the views that depend on the columns,
    /// and whatever is missing.
    async fn later_steps(
        &self,
        target: &Target<'_>,
        added: &[Column],
        head: &mut Vec<String>,
    ) -> Result<Vec<Step>, CommandError> {
        let mut steps = Vec::new();
        let mut kept = Vec::new();
        if added.is_empty() {
            head.push(
                "The target exists, and has a column for every attribute of the sample that can have one.".into(),
            );
        } else {
            let names: Vec<String> = added.iter().map(|column| shown(&column.name)).collect();
            head.push(format!("The target exists, and gets columns for {}.", names.join(", ")));
            let columns: Vec<String> =
                added.iter().map(|column| format!("\n    ADD COLUMN IF NOT EXISTS {}", column.definition())).collect();
            steps.push(format!("ALTER TABLE {}{}", target.named(""), columns.join(",")));
        }
        for (suffix, create) in [("_landing", target.landing()), ("_errors", target.errors())] {
            if self.exists(suffix).await? { kept.push(suffix) } else { steps.push(create) }
        }
        // Until then it leaves new attributes in rest, where the view for readers finds them.
        let mut other_definer = Vec::new();
        if self.exists("_mv").await? {
            steps.push(format!("ALTER TABLE {} MODIFY QUERY\n{}", target.named("_mv"), target.view_query()));
            other_definer.push("_mv");
        } else {
            steps.push(target.view());
        }
        for (suffix, create) in [("_errors_mv", target.errors_view()), ("_pipe", target.pipe())] {
            if !self.exists(suffix).await? {
                steps.push(create);
            } else if target.definer.is_some() {
                other_definer.push(suffix);
            } else {
                kept.push(suffix);
            }
        }
        if let Some(definer) = target.definer {
            steps.extend(other_definer.iter().map(|suffix| definer.takes(&target.named(suffix))));
        }
        steps.push(target.readers());
        if !kept.is_empty() {
            let kept: Vec<String> = kept.iter().map(|suffix| shown(&format!("{}{suffix}", self.table))).collect();
            head.push(format!("Left as they are: {}.", kept.join(", ")));
        }
        Ok(steps.into_iter().map(Step::short).collect())
    }

    async fn loads(
        &self,
        target: &Target<'_>,
        exports: &[Export],
        target_exists: bool,
    ) -> Result<Vec<Step>, CommandError> {
        if exports.is_empty() {
            return Ok(Vec::new());
        }
        let known =
            self.server.ask("SELECT count() FROM system.functions WHERE name = 'dynamodbToJSON'", "TSV").await?;
        let functions = if known.trim() == "0" { functions() } else { Vec::new() };
        let partition_key = self.source.keys.first().map_or("", |key| &*key.name);
        let landing = target.named("_landing");
        let loads = exports.iter().flat_map(|export| export.load(&landing, &self.flags.table, partition_key));
        // A new target has no items that the export could show to be gone.
        let full = exports.iter().find_map(|export| export.span.version()).filter(|_| target_exists);
        let loads = loads.chain(full.map(|version| target.gone(version))).map(|sql| Step { sql, long: true });
        Ok(functions.into_iter().map(Step::short).chain(loads).collect())
    }

    /// How to find attributes that were added later.
    fn new_attributes(&self, target: &Target<'_>) -> String {
        let query = format!(
            "SELECT arrayJoin(mapKeys(rest)) AS attribute, count() FROM {} GROUP BY attribute ORDER BY count() DESC",
            target.named("")
        );
        comment("Attributes without a column of their own. Run this command again to add columns for them.")
            + &comment(&query)
    }

    async fn first_items(&self, target: &Target<'_>, images: &[String]) -> Result<String, CommandError> {
        let mut bytes = 0;
        let newest = images.iter().rev().take(DRY_RUN_ROWS).take_while(|image| {
            bytes += image.len();
            bytes <= PIPE_SAMPLE_BYTES
        });
        let images = literal(&json!(newest.collect::<Vec<_>>()).to_string());
        let value = dynamodb_value("attribute.2");
        let rows = format!(
            "(SELECT CAST(arrayMap(attribute -> (attribute.1, {value}), JSONExtractKeysAndValuesRaw(image)), 'Map(String, String)') AS attributes, \
             toInt64(0) AS version, toUInt8(0) AS is_deleted, '' AS reason FROM (SELECT arrayJoin(JSONExtract({images}, 'Array(String)')) AS image))"
        );
        let columns = OWN.iter().map(|name| identifier(name)).collect::<Vec<_>>().join(", ");
        let query = target.flattened(&rows, "reason = ''");
        self.server.ask(&format!("SELECT * EXCEPT ({columns}) FROM (\n{query}\n)"), "Vertical").await
    }
}

/// Columns that a dry run cannot know.
const OWN: [&str; 2] = ["version", "is_deleted"];

impl Step {
    fn short(sql: String) -> Step {
        Step { sql, long: false }
    }
}

/// When a table was created, microseconds since 1970, truncated to seconds: some responses are no
/// more precise.
fn created_micros(table: &Table) -> i64 {
    table.created_ms / 1_000 * 1_000_000
}

/// The item in a line of an export.
fn image_of(line: &str, partition_key: &str) -> Option<String> {
    let fields: HashMap<String, &RawValue> = serde_json::from_str(line).ok()?;
    if fields.contains_key("Metadata") && fields.contains_key("Keys") {
        return Some(fields.get("NewImage").or(fields.get("Keys"))?.get().to_owned());
    }
    let wrapped = fields.get("Item").filter(|_| fields.len() == 1).filter(|item| {
        serde_json::from_str::<HashMap<String, &RawValue>>(item.get())
            .is_ok_and(|item| item.contains_key(partition_key))
    });
    Some(wrapped.map_or_else(|| line.to_owned(), |item| item.get().to_owned()))
}
