//! Asks a server what it supports. Each question is a small statement of its own, so that a
//! privilege missing for one does not affect the others.

use super::ability::{
    DEPENDENT_VIEWS, Grants, Needs, POOL, Pool, REFRESH_COLUMNS, Right, SYNTAX, Wanted, dependent_views, grants,
    grants_of, pool, rights, unchecked,
};
use super::client::ClickHouse;
use super::error::{ClickHouseError, Kind};
use domain::finding::{Finding, Verdict};
use sql::definition::selects_a_pull;
use sql::quote::literal;

/// Settings used inside the bridge's statements, in addition to those sent with every request.
const IN_STATEMENTS: [&str; 3] = ["insert_keeper_max_retries", "keeper_map_strict_mode", "validate_mutation_query"];

impl ClickHouse {
    /// Checks everything that pipes need from this server and the user. The error means that the
    /// server did not answer, or not to this user.
    pub async fn abilities(&self, wanted: &Wanted<'_>) -> Result<Vec<Finding>, ClickHouseError> {
        let needs = self.needs(wanted.keeper_map).await?;
        // Whatever else is wrong with such a server, it has to be upgraded first.
        if let Some(lacking) = needs.lacking(self.server()) {
            return Ok(vec![Finding::new("ClickHouse", Verdict::Bad, lacking)]);
        }
        let what = format!("ClickHouse {} at {}", needs.version, self.server());
        let works = "has APPEND, SYSTEM WAIT VIEW and everything else that pipes need";
        let of_user = grants_of(wanted.user);
        let unchecked = |what: &str, error: &ClickHouseError| unchecked(what, &self.explain_foreign(error));
        Ok(vec![
            Finding::new(what, Verdict::Fine, works),
            self.grants(wanted).await.map_or_else(|e| unchecked(&of_user, &e), |found| grants(wanted, &found)),
            self.pool().await.map_or_else(|e| unchecked(POOL, &e), pool),
            self.is_set(DEPENDENT_VIEWS).await.map_or_else(|e| unchecked(DEPENDENT_VIEWS, &e), dependent_views),
        ])
    }

    /// The message for a server on which no pipe can run, if this is one.
    pub async fn lacking(&self, keeper_map: bool) -> Result<Option<String>, ClickHouseError> {
        Ok(self.needs(keeper_map).await?.lacking(self.server()))
    }

    async fn needs(&self, keeper_map: bool) -> Result<Needs, ClickHouseError> {
        let mut needs = Needs { version: self.answer("SELECT version()").await?, ..Needs::default() };
        for (name, statement) in SYNTAX {
            if !self.reads(statement).await? {
                needs.no_syntax.push(name);
            }
        }
        needs.no_columns = self.missing_columns().await?;
        if keeper_map {
            let engine = "SELECT count() FROM system.table_engines WHERE name = 'KeeperMap'";
            needs.no_keeper_map = self.answer(engine).await? == "0";
            let names = IN_STATEMENTS.map(literal).join(", ");
            let known = self.lines(&format!("SELECT name FROM system.settings WHERE name IN ({names})")).await?;
            needs.no_settings = IN_STATEMENTS.into_iter().filter(|name| !known.iter().any(|k| k == name)).collect();
        }
        Ok(needs)
    }

    /// Whether its parser accepts a statement.
    async fn reads(&self, statement: &str) -> Result<bool, ClickHouseError> {
        let sql = format!("SELECT isNotNull(formatQueryOrNull({}))", literal(statement));
        match self.answer(&sql).await {
            Ok(answer) => Ok(answer == "1"),
            // A release without the function (before 23.11) has none of what is checked.
            Err(error) if error.code == Some(46) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn missing_columns(&self) -> Result<Vec<&'static str>, ClickHouseError> {
        let columns = REFRESH_COLUMNS.join(", ");
        match self.answer(&format!("SELECT {columns} FROM system.view_refreshes LIMIT 0")).await {
            Err(error) if error.kind() == Kind::Schema => {
                let there = "SELECT name FROM system.columns WHERE database = 'system' AND table = 'view_refreshes'";
                let there = self.lines(there).await?;
                Ok(REFRESH_COLUMNS.into_iter().filter(|column| !there.iter().any(|t| t == column)).collect())
            }
            // A missing privilege is reported with the grants.
            Ok(_) | Err(ClickHouseError { code: Some(497), .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    async fn pool(&self) -> Result<Pool, ClickHouseError> {
        let threads = "SELECT value FROM system.server_settings WHERE name = 'background_schedule_pool_size'";
        let threads = self.answer(threads).await?.parse().unwrap_or(0);
        let views = "SELECT count() FROM system.view_refreshes WHERE status != 'Disabled'";
        Ok(Pool { threads, views: self.answer(views).await?.parse().unwrap_or(0) })
    }

    async fn is_set(&self, setting: &str) -> Result<bool, ClickHouseError> {
        Ok(self.setting(setting).await? == "1")
    }

    async fn setting(&self, name: &str) -> Result<String, ClickHouseError> {
        self.answer(&format!("SELECT value FROM system.settings WHERE name = {}", literal(name))).await
    }

    async fn grants(&self, wanted: &Wanted<'_>) -> Result<Grants, ClickHouseError> {
        let readonly = self.setting("readonly").await?.parse().unwrap_or(0);
        let tables: &[&str] = if wanted.keeper_map { &["leases", "quarantine", "workers"] } else { &["quarantine"] };
        let there = format!("SELECT name FROM system.tables WHERE database = {}", literal(wanted.database));
        let there = self.lines(&there).await?;
        let views = format!(
            "SELECT DISTINCT database FROM system.tables WHERE engine = 'MaterializedView' AND {} \
             AND name IN (SELECT view FROM system.view_refreshes)",
            selects_a_pull()
        );
        let views = match self.lines(&views).await {
            // Reported with the grants.
            Err(ClickHouseError { code: Some(497), .. }) => Vec::new(),
            views => views?,
        };
        let mut missing = Vec::new();
        for right in rights(wanted, &views) {
            missing.extend(self.missing(right).await?);
        }
        let has_tables = tables.iter().all(|table| there.iter().any(|name| name == table));
        Ok(Grants { readonly, missing, has_tables })
    }

    /// The part of `all` that the user lacks.
    async fn missing(&self, all: Right) -> Result<Option<Right>, ClickHouseError> {
        if self.has(&all.rights, &all.on).await? {
            return Ok(None);
        }
        let mut missing = Vec::new();
        for right in &all.rights {
            if !self.has(&[right], &all.on).await? {
                missing.push(*right);
            }
        }
        Ok(Some(Right { rights: missing, ..all }))
    }

    async fn has(&self, rights: &[&str], on: &str) -> Result<bool, ClickHouseError> {
        // `CHECK GRANT a, b ON c` checks all of them; ON applies to the whole list.
        Ok(self.answer(&format!("CHECK GRANT {} ON {on}", rights.join(", "))).await? == "1")
    }

    /// The single value of a response.
    async fn answer(&self, sql: &str) -> Result<String, ClickHouseError> {
        Ok(self.lines(sql).await?.into_iter().next().unwrap_or_default())
    }

    async fn lines(&self, sql: &str) -> Result<Vec<String>, ClickHouseError> {
        let text = self.text(sql, "TSVRaw", &[]).await?;
        Ok(text.lines().map(String::from).collect())
    }
}
