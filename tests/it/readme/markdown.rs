//! Just enough Markdown: fenced blocks, inline code, headings, tables and links of the user
//! documentation.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A file of the documentation.
pub struct Document {
    /// Its path within the checkout.
    pub path: String,
    /// Its fenced blocks.
    pub blocks: Vec<Block>,
    /// Its lines outside of fenced blocks.
    prose: Vec<String>,
}

/// A fenced block.
pub struct Block {
    /// What follows the fence, such as `sql norows`.
    pub info: String,
    pub text: String,
    /// `file:line`, for messages.
    pub at: String,
}

/// A table, with what precedes it.
pub struct Table {
    /// The last line before the table that is not empty.
    pub introduction: String,
    pub header: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// The user documentation, in the order in which it is to be read.
pub fn documents() -> Vec<Document> {
    ["README.md", "docs/sql.md", "docs/dynamodb.md", "docs/deploy.md", "docs/operations.md", "CHANGELOG.md"]
        .map(Document::read)
        .into()
}

impl Document {
    fn read(path: &str) -> Document {
        let text = fs::read_to_string(stack::checkout().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        let (mut blocks, mut prose) = (Vec::new(), Vec::new());
        let mut open: Option<Block> = None;
        for (number, line) in (1..).zip(text.lines()) {
            match (line.strip_prefix("```"), &mut open) {
                (Some(info), None) => {
                    open = Some(Block { info: info.into(), text: String::new(), at: format!("{path}:{number}") });
                }
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (None, Some(block)) => block.text += &format!("{line}\n"),
                (None, None) => prose.push(line.into()),
            }
        }
        assert!(open.is_none(), "{path} has a block without an end");
        Document { path: path.into(), blocks, prose }
    }

    /// The texts between backquotes outside of blocks.
    pub fn spans(&self) -> Vec<String> {
        let spans = self.prose.iter().flat_map(|line| {
            assert!(line.matches('`').count() % 2 == 0, "{}: a backquote too few or too many: {line}", self.path);
            line.split('`').skip(1).step_by(2)
        });
        spans.map(String::from).collect()
    }

    /// Everything that is code: spans, and the lines of blocks.
    pub fn code(&self) -> Vec<String> {
        let lines = self.blocks.iter().flat_map(|block| block.text.lines()).map(String::from);
        self.spans().into_iter().chain(lines).collect()
    }

    pub fn tables(&self) -> Vec<Table> {
        let (mut tables, mut open, mut introduction) = (Vec::new(), None::<Table>, String::new());
        for line in &self.prose {
            let cells = line.strip_prefix('|').and_then(|line| line.strip_suffix('|'));
            match (cells.map(split), &mut open) {
                (Some(header), None) => {
                    open = Some(Table { introduction: introduction.clone(), header, rows: Vec::new() });
                }
                (Some(row), Some(table)) if row.iter().all(|cell| cell.chars().all(|c| c == '-')) => {
                    assert_eq!(row.len(), table.header.len(), "{}: {:?}", self.path, table.header);
                }
                (Some(row), Some(table)) => {
                    assert_eq!(row.len(), table.header.len(), "{}: {row:?}", self.path);
                    table.rows.push(row);
                }
                (None, _) => tables.extend(open.take()),
            }
            if !line.trim().is_empty() {
                introduction.clone_from(line);
            }
        }
        tables.extend(open);
        tables
    }

    /// The table whose first column has this heading.
    pub fn table(&self, heading: &str) -> Table {
        let found = self.tables().into_iter().find(|table| table.header[0] == heading);
        found.unwrap_or_else(|| panic!("{} has no table of {heading}", self.path))
    }

    /// The targets of links.
    pub fn links(&self) -> Vec<String> {
        let links = self.prose.iter().flat_map(|line| line.split("](").skip(1).filter_map(|rest| rest.split_once(')')));
        links.map(|(target, _)| target.to_string()).collect()
    }

    /// The anchors of its headings.
    fn anchors(&self) -> HashSet<String> {
        let headings =
            self.prose.iter().filter_map(|line| Some(line.strip_prefix('#')?.trim_start_matches('#').trim()));
        let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        headings.map(|h| h.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")).collect()
    }

    /// Where a link leads, unless it leads to another site.
    pub fn resolve(&self, link: &str, all: &[Document]) {
        if link.starts_with("https://") {
            return;
        }
        let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
        let folder = Path::new(&self.path).parent().unwrap_or(Path::new(""));
        let target = if file.is_empty() { PathBuf::from(&self.path) } else { normal(&folder.join(file)) };
        let there = stack::checkout().join(&target).exists();
        assert!(there, "{}: the link {link} leads to {}, which is not there", self.path, target.display());
        if let Some(anchor) = anchor {
            let document = all.iter().find(|document| Path::new(&document.path) == target);
            let found = document.is_some_and(|document| document.anchors().contains(anchor));
            assert!(found, "{}: the link {link} leads to no heading", self.path);
        }
    }
}

/// A path without `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path {
        if part == ".." { assert!(normal.pop(), "{}", path.display()) } else { normal.push(part) }
    }
    normal
}

fn split(row: &str) -> Vec<String> {
    row.split('|').map(|cell| cell.trim().to_string()).collect()
}

/// The texts between backquotes in a cell.
pub fn code_of(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// The statements of a script, without comments. Each ends with a `;` at the end of a line.
pub fn statements(script: &str) -> Vec<String> {
    let code = script.lines().filter(|line| !line.trim_start().starts_with("--"));
    let code: String = code.map(|line| line.to_string() + "\n").collect();
    code.split(";\n").map(|statement| statement.trim().to_string()).filter(|statement| !statement.is_empty()).collect()
}
