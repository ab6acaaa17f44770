//! Keeps the plan true: arrows point down, files and functions stay small, every module says
//! why it is here, and the pure core stays pure.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

/// Modules of `src/` and the modules each may name. A module may always name itself.
const ARROWS: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    ("lib", &[]),
    (
        "cli",
        &[
            "actors",
            "auth",
            "clock",
            "config",
            "domain",
            "engines",
            "log",
            "projector",
            "protocol",
            "reactors",
            "read_models",
            "snapshots",
            "telemetry",
            "web",
        ],
    ),
    ("reactors", &["actors", "dirs", "domain", "log"]),
    (
        "web",
        &[
            "actors",
            "auth",
            "clock",
            "config",
            "domain",
            "log",
            "projector",
            "protocol",
            "read_models",
            "telemetry",
        ],
    ),
    ("engines", &["clock", "config", "dirs", "log", "read_models", "snapshots"]),
    ("actors", &["auth", "clock", "config", "domain", "log", "protocol", "snapshots", "telemetry"]),
    ("projector", &["clock", "log", "priority", "read_models"]),
    ("read_models", &["dirs", "priority"]),
    ("snapshots", &["dirs"]),
    ("protocol", &[]),
    ("log", &["clock", "dirs", "priority"]),
    ("auth", &[]),
    ("domain", &[]),
    ("telemetry", &["config"]),
    ("config", &[]),
    ("clock", &[]),
    ("dirs", &[]),
    ("priority", &[]),
];

/// What a pure crate or module never names.
const IMPURE: &[&str] = &[
    "actix",
    "tokio",
    "std::time",
    "std::fs",
    "std::net",
    "std::thread",
    "rand::",
    "new_v4",
    "rusqlite",
    "mongodb",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn all_files() -> Vec<(PathBuf, String)> {
    ["src", "events", "projections", "bench", "tests"]
        .iter()
        .flat_map(|folder| rust_files(&root().join(folder)))
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            (path.strip_prefix(root()).unwrap().to_owned(), text)
        })
        .collect()
}

fn report(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

/// A file of tests may name what its subject may not.
fn is_test(path: &Path) -> bool {
    path.iter().any(|part| part == "tests" || part == "contract")
        || path.file_stem().is_some_and(|stem| stem == "tests" || stem == "contract")
}

/// What is before the tests that a file ends with; those that it only names are elsewhere.
fn without_tests(text: &str) -> &str {
    let Some((code, _)) = text.split_once("\nmod tests {") else { return text };
    code.rsplit_once("#[cfg(test)]").map_or(code, |(code, _)| code)
}

#[test]
fn arrows_point_down() {
    let mut found = Vec::new();
    for (path, text) in all_files() {
        let mut parts = path.iter().map(|part| part.to_str().unwrap().trim_end_matches(".rs"));
        if parts.next() != Some("src") || is_test(&path) {
            continue;
        }
        let module = parts.next().unwrap();
        let Some((_, allowed)) = ARROWS.iter().find(|(from, _)| *from == module) else {
            found.push(format!("{}: {module} has no place among the arrows", path.display()));
            continue;
        };
        for (number, line) in without_tests(&text).lines().enumerate() {
            for to in line.split("crate::").skip(1).filter(|_| !line.trim_start().starts_with("//")) {
                let to = to.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap();
                let known = ARROWS.iter().any(|(name, _)| *name == to);
                if known && to != module && !allowed.contains(&to) {
                    found.push(format!("{}:{}: {module} names {to}", path.display(), number + 1));
                }
            }
        }
    }
    report("arrows that do not point down", &found);
}

#[test]
fn the_pure_core_is_pure() {
    let mut found = Vec::new();
    for (path, text) in all_files() {
        let pure =
            ["events/src", "projections/src", "src/domain"].iter().any(|start| path.starts_with(start))
                || path == Path::new("src/domain.rs");
        if !pure || is_test(&path) {
            continue;
        }
        for (number, line) in without_tests(&text).lines().enumerate() {
            for word in
                IMPURE.iter().filter(|word| line.contains(**word) && !line.trim_start().starts_with("//"))
            {
                found.push(format!("{}:{}: {word}", path.display(), number + 1));
            }
        }
    }
    report("time, chance or I/O in the pure core", &found);
}

#[test]
fn only_entities_append() {
    let found: Vec<_> = all_files()
        .iter()
        .filter(|(path, _)| {
            path.starts_with("src")
                && !path.starts_with("src/log")
                && *path != Path::new("src/actors/entity.rs")
        })
        .filter(|(path, text)| !is_test(path) && without_tests(text).contains("log.append("))
        .map(|(path, _)| path.display().to_string())
        .collect();
    report("appends outside actors/entity.rs", &found);
}

#[test]
fn files_are_small_and_say_why_they_are_here() {
    let mut found = Vec::new();
    for (path, text) in all_files() {
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            found.push(format!("{}: {lines} lines, at most {FILE_LINES_MAX}", path.display()));
        }
        if !text.starts_with("//!") {
            found.push(format!("{}: begins without a module doc comment", path.display()));
        }
    }
    report("files", &found);
}

#[test]
fn functions_are_short() {
    let mut found = Vec::new();
    for (path, text) in all_files() {
        let mut open: Vec<(usize, usize, String)> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let code = line.trim_start();
            let starts = code.starts_with("fn ")
                || (code.contains(" fn ") && code.contains('(') && !code.starts_with("//"));
            if starts && !code.ends_with(';') && !code.ends_with('}') {
                let name = code.split("fn ").nth(1).unwrap_or_default().split('(').next().unwrap().to_owned();
                open.push((indent, number, name));
            } else if code == "}" && open.last().is_some_and(|(of, ..)| *of == indent) {
                let (_, from, name) = open.pop().unwrap();
                let lines = number - from + 1;
                if lines > FUNCTION_LINES_MAX {
                    found.push(format!(
                        "{}:{}: {name} has {lines} lines, at most {FUNCTION_LINES_MAX}",
                        path.display(),
                        from + 1
                    ));
                }
            }
        }
    }
    report("functions", &found);
}

#[test]
fn the_rules_can_be_broken() {
    assert!(is_test(Path::new("src/domain/room/tests.rs")) && !is_test(Path::new("src/domain/room.rs")));
    for attribute in ["", "#[allow(clippy::unwrap_used)]\n"] {
        let text = format!("code\n#[cfg(test)]\n{attribute}mod tests {{\nuse x;");
        assert_eq!(without_tests(&text), "code\n");
        let text = format!("code\n#[cfg(test)]\n{attribute}mod tests;\nmore code");
        assert_eq!(without_tests(&text), text);
    }
    for path in ["src/domain/room.rs", "src/domain/user.rs"] {
        let text = std::fs::read_to_string(root().join(path)).unwrap();
        assert!(without_tests(&text).contains("impl Decider for"), "{path} is not looked at");
    }
    assert!(rust_files(&root().join("src")).len() > 10);
}
