//! Files of a crate use each other in one direction.

use std::collections::{BTreeMap, BTreeSet};

use super::{product, root};

/// The file of a module, as the names of the modules on the way to it; the crate's own is empty.
type File = Vec<String>;

/// All paths that the text names from `crate`, `super` or `self`, groups in braces taken apart.
fn paths(text: &str) -> Vec<File> {
    let code: Vec<&str> = text.lines().filter_map(|line| line.split("//").next()).collect();
    let code = code.join(" ");
    let mut paths = Vec::new();
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(start) {
            let before = code[..at].chars().next_back();
            if before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':') {
                expand(&code[at..], &[], &mut paths);
            }
        }
    }
    paths
}

/// Reads a path, adds what it names to `all`, and returns what follows it.
fn expand<'t>(text: &'t str, parents: &[String], all: &mut Vec<File>) -> &'t str {
    let (mut path, mut rest) = (parents.to_vec(), text);
    loop {
        rest = rest.trim_start();
        if let Some(mut group) = rest.strip_prefix('{') {
            loop {
                group = expand(group, &path, all).trim_start();
                match group.strip_prefix(',') {
                    Some(more) => group = more,
                    None => return group.strip_prefix('}').unwrap_or(group),
                }
            }
        }
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        path.push(rest[..end].to_owned());
        rest = &rest[end..];
        match rest.strip_prefix("::") {
            Some(more) => rest = more,
            None => {
                all.push(path);
                return rest;
            }
        }
    }
}

/// The file that a path leads to, seen from another one.
fn resolved(from: &File, path: &[String], files: &BTreeMap<File, String>) -> Option<File> {
    let mut at = if path[0] == "crate" { Vec::new() } else { from.clone() };
    let names = path.iter().skip_while(|name| {
        if *name == "super" {
            at.pop();
        }
        ["crate", "super", "self"].contains(&name.as_str())
    });
    let names: Vec<String> = names.cloned().collect();
    let candidates = (0..=names.len()).rev().map(|n| [&at[..], &names[..n]].concat());
    candidates.into_iter().find(|file| files.contains_key(file))
}

/// The files of each crate, by their modules.
fn crates() -> BTreeMap<String, BTreeMap<File, String>> {
    let mut crates = BTreeMap::<_, BTreeMap<File, String>>::new();
    for (path, text) in product() {
        let relative = path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
        let (name, file) = relative.split_once("src/").expect("a source");
        let modules = file.trim_end_matches(".rs").split('/').filter(|module| !["lib", "main"].contains(module));
        crates.entry(name.to_owned()).or_default().insert(modules.map(str::to_owned).collect(), text);
    }
    crates
}

#[test]
fn files_do_not_use_each_other_in_circles() {
    let mut circles = Vec::new();
    for (name, files) in crates() {
        let uses = |file: &File, text: &str| -> BTreeSet<File> {
            let used = paths(text).into_iter().filter_map(|path| resolved(file, &path, &files));
            used.filter(|used| used != file).collect()
        };
        let mut left: BTreeMap<File, BTreeSet<File>> =
            files.iter().map(|(file, text)| (file.clone(), uses(file, text))).collect();
        assert!(left.len() < 5 || left.values().any(|used| !used.is_empty()), "no use found in {name}");
        // Neither what uses none of the others nor what none of them uses is in a circle.
        loop {
            let used: BTreeSet<File> = left.values().flatten().cloned().collect();
            let before = left.len();
            let all: BTreeSet<File> = left.keys().cloned().collect();
            left.retain(|file, uses| used.contains(file) && uses.iter().any(|other| all.contains(other)));
            if left.len() == before {
                break;
            }
        }
        circles.extend(left.into_iter().map(|(file, used)| format!("{name}{} uses {used:?}", file.join("/"))));
    }
    assert!(circles.is_empty(), "{circles:#?}");
}
