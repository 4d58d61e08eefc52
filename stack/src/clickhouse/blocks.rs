//! Whether each block that MergeTree has noted as inserted is in its table.

use std::fs::{read_dir, read_to_string};
use std::path::{Path, PathBuf};

/// Whether a server with this data folder may be killed without losing a block for ever: MergeTree
/// writes a block into its deduplication log first and renames its part into the table after that.
/// Killed in between, it drops the block as a duplicate when it is inserted again.
pub fn are_whole(data: &Path) -> bool {
    let tables = folders(&data.join("store")).into_iter().flat_map(|prefix| folders(&prefix));
    tables.into_iter().all(|table| last_block(&table).is_none_or(|block| is_in(&table, &block)))
}

/// The part of the last block in the table's log.
fn last_block(table: &Path) -> Option<String> {
    let number = |path: &PathBuf| path.file_stem()?.to_str()?.rsplit('_').next()?.parse::<u64>().ok();
    let mut logs = files(&table.join("deduplication_logs"));
    logs.sort_by_key(number);
    // A new log is empty.
    let text = logs.iter().rev().filter_map(|log| read_to_string(log).ok()).find(|text| !text.is_empty())?;
    // Operation, part, block. 1 is an insert.
    let fields: Vec<&str> = text.lines().next_back()?.split('\t').collect();
    (fields.first() == Some(&"1")).then(|| fields.get(1).map(|part| (*part).to_owned()))?
}

/// Whether the table has this part, or one that it was merged into.
fn is_in(table: &Path, part: &str) -> bool {
    let Some((partition, first, _)) = range(part) else { return true };
    let covers = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).and_then(range);
        name.is_some_and(|(of, from, to)| of == partition && (from..=to).contains(&first))
    };
    folders(table).iter().any(covers)
}

/// Partition, first and last block of a part: `all_1_89_15`, and after a mutation `all_1_89_15_90`.
/// A partition's id has no underscore.
fn range(part: &str) -> Option<(&str, u64, u64)> {
    let mut fields = part.split('_');
    let (partition, first, last) = (fields.next()?, fields.next()?, fields.next()?);
    Some((partition, first.parse().ok()?, last.parse().ok()?))
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    entries(folder).filter(|path| path.is_dir()).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    entries(folder).filter(|path| path.is_file()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir_all, write};

    use super::are_whole;

    #[test]
    fn a_noted_block_without_its_part_is_seen() {
        let data = tempfile::tempdir().expect("a folder");
        let table = data.path().join("store/180/18003b3f");
        let (logs, log) = (table.join("deduplication_logs"), "deduplication_log_2.txt");
        create_dir_all(&logs).expect("a folder");
        assert!(are_whole(data.path()), "nothing was inserted");
        write(logs.join("deduplication_log_1.txt"), "1\tall_9_9_0\tall_3_4\n").expect("a file");
        write(logs.join(log), "1\tall_60_60_0\tall_1_2\n1\tall_61_61_0\tall_8_35\n").expect("a file");
        create_dir_all(table.join("all_1_60_7")).expect("a folder");
        create_dir_all(table.join("tmp_insert_all_61_61_0")).expect("a folder");
        assert!(!are_whole(data.path()));
        create_dir_all(table.join("all_61_61_0")).expect("a folder");
        assert!(are_whole(data.path()));
        write(logs.join(log), "1\tall_59_59_0\tall_8_35\n").expect("a file");
        assert!(are_whole(data.path()), "merged");
        write(logs.join("deduplication_log_3.txt"), "").expect("a file");
        write(logs.join(log), "1\tall_62_62_0\tall_8_35\n").expect("a file");
        assert!(!are_whole(data.path()), "the new log is empty");
        create_dir_all(table.join("all_62_62_0_70")).expect("a folder");
        assert!(are_whole(data.path()), "mutated");
    }
}
