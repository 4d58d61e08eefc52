//! `--definer`: the user that the generated views run as, and all its grants.

use serde::Deserialize;

use super::plan::shown;
use super::server::Server;
use crate::error::CommandError;
use config::Config;
use domain::limits::MAX_NAME;
use sql::quote::{comment, comments, identifier, literal, qualified};

/// A user that views run as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definer {
    name: String,
    kept: Kept,
}

/// Whether such a user exists, and whether SQL can change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    /// It does not exist, and SQL may create it as far as can be seen.
    Nowhere,
    /// It does not exist, and SQL cannot create it.
    Impossible,
    /// It exists, and SQL may grant it something.
    BySql,
    /// SQL cannot change it: it is defined in users.xml, for example.
    ReadOnly,
}

/// What a definer's views read and write.
pub struct Needs<'a> {
    /// The target's database.
    pub database: &'a str,
    /// The target.
    pub table: &'a str,
    /// Whether the pipe inserts into `<table>_landing`, which two views read.
    pub landing: bool,
    /// The named collection of the pipe's view.
    pub collection: Option<&'a str>,
}

#[derive(Deserialize)]
struct Directories {
    /// The one that contains the user; empty if none.
    own: String,
    /// Those that SQL may change.
    writable: Vec<String>,
}

/// A view below the target.
#[derive(Deserialize)]
struct Below {
    database: String,
    name: String,
}

impl Definer {
    /// Looks up the `--definer` user.
    pub async fn find(server: &Server, name: Option<&str>) -> Result<Option<Definer>, CommandError> {
        let Some(name) = name else { return Ok(None) };
        if name.is_empty() || name.len() > MAX_NAME || name.contains(char::is_control) {
            return Err(CommandError::Refused(format!(
                "--definer is {}: it must be a name of 1 to {MAX_NAME} bytes, without line breaks",
                shown(name)
            )));
        }
        let directories = format!(
            "SELECT (SELECT any(storage) FROM system.users WHERE name = {}) AS own, \
             groupArrayIf(name, type IN ('local_directory', 'memory', 'replicated') AND NOT JSONExtractBool(params, 'readonly')) AS writable \
             FROM system.user_directories",
            literal(name)
        );
        // A user who may not look will see from the statements what is missing.
        let answer = server.try_ask(&directories, "JSONEachRow").await.unwrap_or_default();
        let kept = serde_json::from_str(answer.trim()).map_or(Kept::Nowhere, |found| Kept::of(&found));
        Ok(Some(Definer { name: name.into(), kept }))
    }

    /// The clause between a view's target and its AS.
    pub fn clause(&self) -> String {
        format!("\nDEFINER = {} SQL SECURITY DEFINER", identifier(&self.name))
    }

    /// Sets this definer on an existing view.
    pub fn takes(&self, view: &str) -> String {
        format!("ALTER TABLE {view} MODIFY DEFINER = {} SQL SECURITY DEFINER", identifier(&self.name))
    }

    /// Refuses if `config`'s user may not create views that run as this one.
    pub async fn may_be_set(&self, server: &Server, config: &Config) -> Result<(), CommandError> {
        let user = &config.clickhouse.user;
        let name = identifier(&self.name);
        let answer = server.ask(&format!("CHECK GRANT SET DEFINER ON {name}"), "TSV").await?;
        if answer.trim() == "0" && *user != self.name {
            return Err(CommandError::Refused(format!(
                "ClickHouse user {} may not create views that run as user {}, so nothing was changed: run GRANT SET DEFINER ON {name} TO {} as an \
                 administrator, or name another user with --clickhouse-user",
                shown(user),
                shown(&self.name),
                identifier(user)
            )));
        }
        Ok(())
    }

    /// Comments about views below the target without a definer: they run as whoever inserts, and
    /// thus as this user, which may not read the target.
    pub async fn about_views_below(&self, server: &Server, needs: &Needs<'_>) -> Result<Vec<String>, CommandError> {
        let of_target = format!("database = {} AND name = {}", literal(needs.database), literal(needs.table));
        let views = format!(
            "SELECT database, name FROM system.tables WHERE engine = 'MaterializedView' \
             AND NOT match(create_table_query, ' SQL SECURITY (?:DEFINER|NONE)') AND (database, name) IN \
             (SELECT arrayJoin(arrayZip(dependencies_database, dependencies_table)) FROM system.tables WHERE {of_target})"
        );
        let views = server.ask(&views, "JSONEachRow").await?;
        let views: Result<Vec<Below>, _> = views.lines().map(serde_json::from_str).collect();
        let views = views.map_err(CommandError::Answer)?;
        if views.is_empty() {
            return Ok(Vec::new());
        }
        let first = "Views below the table that have no definer would run as this user, which may not read the table. First run";
        let give = |view: &Below| {
            let view = qualified(&view.database, &view.name);
            format!("ALTER TABLE {view} MODIFY DEFINER = CURRENT_USER SQL SECURITY DEFINER")
        };
        Ok([first.into()].into_iter().chain(views.iter().map(give)).collect())
    }

    /// The statements before all others: they create the user if it does not exist, and grant it
    /// what its views need.
    pub fn statements(&self, needs: &Needs<'_>, config: &Config) -> Result<Vec<String>, CommandError> {
        let grants = needs.grants();
        let to = identifier(&self.name);
        let create = format!(
            "{}CREATE USER IF NOT EXISTS {to} IDENTIFIED WITH no_authentication HOST NONE",
            comment("The views run as this user. Nobody can log in as it.")
        );
        let grant = |(why, what): &(&str, String)| format!("{}GRANT {what} TO {to}", comments(why));
        match self.kept {
            Kept::Nowhere => Ok([create].into_iter().chain(grants.iter().map(grant)).collect()),
            Kept::BySql => Ok(grants.iter().map(grant).collect()),
            Kept::ReadOnly => Ok(Vec::new()),
            Kept::Impossible => {
                let queries: Vec<String> = grants.iter().map(|(_, what)| format!("GRANT {what}")).collect();
                Err(CommandError::Refused(format!(
                    "ClickHouse at {} has no user {}, and CREATE USER does not work there: none of its user directories is writable. Either add \
                     <user_directories><local_directory> to the server's configuration, or define the user in users.xml with <no_password/>, an empty \
                     <networks/> (so that nobody can log in) and <grants> with a <query> for each of: {}. Then run this again",
                    config.clickhouse.url,
                    shown(&self.name),
                    queries.join("; ")
                )))
            }
        }
    }

    /// What the reader of the statements should know.
    pub fn notes(&self, needs: &Needs<'_>) -> Vec<String> {
        let name = shown(&self.name);
        let mut notes = vec![format!("The views run as ClickHouse user {name}, with only its privileges.")];
        if self.kept == Kept::ReadOnly {
            notes.push(
                "SQL cannot change that user (it is in users.xml, or in LDAP). It needs these grants there:".into(),
            );
            notes.extend(needs.grants().into_iter().map(|(_, what)| format!("GRANT {what}")));
        }
        notes
    }
}

impl Kept {
    fn of(found: &Directories) -> Kept {
        match (found.own.is_empty(), found.writable.is_empty()) {
            (true, true) => Kept::Impossible,
            (true, false) => Kept::Nowhere,
            (false, _) if found.writable.contains(&found.own) => Kept::BySql,
            (false, _) => Kept::ReadOnly,
        }
    }
}

impl Needs<'_> {
    /// All grants that the views need, each with its reason.
    fn grants(&self) -> Vec<(&'static str, String)> {
        let on = |privileges: &str, suffix: &str| {
            format!("{privileges} ON {}", qualified(self.database, &format!("{}{suffix}", self.table)))
        };
        let mut grants = match self.landing {
            false => vec![("The destination.", on("INSERT", ""))],
            true => vec![
                (
                    "The destination, and the table through which records reach it.",
                    [on("INSERT", ""), on("INSERT", "_errors"), on("SELECT, INSERT", "_landing")].join(", "),
                ),
                (
                    "The pipe's view stops while one of these is missing, so it must see them.",
                    [on("SHOW TABLES", "_mv"), on("SHOW TABLES", "_errors_mv")].join(", "),
                ),
            ],
        };
        let url = "READ ON URL, CREATE TEMPORARY TABLE ON *.*";
        grants.push(("ClickHouse requires both for url(). The second allows temporary tables only.", url.into()));
        if let Some(collection) = self.collection {
            grants.push(("The bridge's address and token.", format!("NAMED COLLECTION ON {collection}")));
        }
        grants
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_about_a_user_follows_from_where_it_is() {
        let of = |own: &str, writable: &[&str]| {
            let writable = writable.iter().map(|name| (*name).to_owned()).collect();
            Kept::of(&Directories { own: own.into(), writable })
        };
        assert_eq!(of("", &["local_directory"]), Kept::Nowhere);
        assert_eq!(of("", &[]), Kept::Impossible);
        assert_eq!(of("local_directory", &["local_directory"]), Kept::BySql);
        assert_eq!(of("users_xml", &["local_directory"]), Kept::ReadOnly);
        assert_eq!(of("users_xml", &[]), Kept::ReadOnly);
    }
}
