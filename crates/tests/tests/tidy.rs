//! What can be checked about the house is checked: walls, names and sizes, as ratchets.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A file tells one story in at most this many lines.
const LINES_MAX: usize = 400;
/// Files that are longer, with the length they may not pass; a file that has shrunk below must leave the list.
const LONGER: [(&str, usize); 0] = [];

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 5] = ["util", "utils", "common", "helpers", "manager"];
/// What a finished line does not say. Split, so that this file does not find itself.
const UNFINISHED: [&str; 5] = [
    concat!("to", "do!("),
    concat!("unimpl", "emented!("),
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("#[ig", "nore]"),
];
/// What each pure crate may not depend on (rule 1 and the crate table of ARCHITECTURE.md).
const RUNTIMES: [&str; 8] = ["tokio", "tonic", "prost", "hyper", "clap", "tracing", "rustix", "nix"];
/// Rooms of the engine; only `decide` and `lib` may name them all. The second names what the first may import.
const ROOMS: [(&str, &[&str]); 6] = [
    ("rollout", &["gate"]),
    ("gate", &[]),
    ("placement", &[]),
    ("heal", &[]),
    ("instance", &[]),
    ("route", &[]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("the crate is two folders deep")
        .to_owned()
}

/// Every Rust file of the workspace, by its path from the root.
fn sources() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root().join("crates")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of ours").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                let name = path.strip_prefix(root()).expect("below the root").display().to_string();
                found.insert(name, std::fs::read_to_string(&path).expect("text"));
            }
        }
    }
    assert!(found.len() > 100, "the sources were not found");
    found
}

fn report(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn files_have_one_story() {
    let allowed: BTreeMap<&str, usize> = LONGER.iter().copied().collect();
    let mut problems = Vec::new();
    for (name, text) in sources() {
        let lines = text.lines().count();
        match allowed.get(name.as_str()) {
            Some(most) if lines > *most => problems
                .push(format!("{name}: {lines} lines, allowed {most}: find the room inside that wants out")),
            Some(_) if lines <= LINES_MAX => {
                problems.push(format!("{name}: {lines} lines: take it off the list"))
            }
            None if lines > LINES_MAX => {
                problems.push(format!("{name}: {lines} lines, more than {LINES_MAX}"))
            }
            Some(_) | None => {}
        }
    }
    report(&problems);
}

#[test]
fn names_say_something() {
    let empty = |name: &String| {
        Path::new(name)
            .iter()
            .any(|part| EMPTY_NAMES.iter().any(|it| part.to_string_lossy().trim_end_matches(".rs") == *it))
    };
    report(&sources().into_keys().filter(empty).collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_open() {
    let mut problems = Vec::new();
    for (name, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            if let Some(word) = UNFINISHED.iter().find(|word| line.contains(**word)) {
                problems.push(format!("{name}:{}: {word}", number + 1));
            }
        }
    }
    report(&problems);
}

#[test]
fn the_pure_crates_know_no_runtime() {
    let mut problems = Vec::new();
    for pure in ["model", "engine"] {
        let manifest =
            std::fs::read_to_string(root().join(format!("crates/{pure}/Cargo.toml"))).expect("a manifest");
        let dependencies = manifest.split("[dependencies]").nth(1).unwrap_or_default();
        let dependencies = dependencies.split("\n[").next().unwrap_or_default();
        for line in dependencies.lines() {
            if let Some(runtime) = RUNTIMES.iter().find(|it| line.starts_with(**it)) {
                problems.push(format!("{pure} depends on {runtime}"));
            }
        }
    }
    report(&problems);
}

#[test]
fn the_rooms_of_the_engine_do_not_import_one_another() {
    let mut problems = Vec::new();
    for (name, text) in sources() {
        let Some(inside) = name.strip_prefix("crates/engine/src/") else { continue };
        for (room, may) in ROOMS {
            if !inside.starts_with(&format!("{room}/")) || inside.contains("/tests") {
                continue;
            }
            for (other, _) in ROOMS.iter().filter(|(other, _)| *other != room && !may.contains(other)) {
                if text.contains(&format!("crate::{other}::")) {
                    problems.push(format!("{name} imports the room `{other}`"));
                }
            }
        }
    }
    report(&problems);
}

#[test]
fn only_the_process_layer_is_unsafe() {
    let allowed =
        |name: &str| name.starts_with("crates/agent/src/shim/") || name.starts_with("crates/agent/src/runs/");
    let mut problems = Vec::new();
    for (name, text) in sources() {
        let product = name.contains("/src/") && !name.starts_with("crates/tests/");
        if product
            && !allowed(&name)
            && text.lines().any(|line| line.contains("unsafe {") || line.contains("unsafe fn"))
        {
            problems.push(name);
        }
    }
    report(&problems);
}
