//! The shape of the tree, held by a test: which layer imports which, how long files are, how
//! they begin, and the words that have no place here.
//!
//! Not here: anything the compiler or clippy already says.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Which modules of ours a layer may import. `fault` and `clock` import nothing; everything but
/// the pure layers may import both, and the pure layers may import `fault`.
const LAYERS: [(&str, &[&str]); 13] = [
    ("fault", &[]),
    ("clock", &[]),
    ("metrics", &[]),
    ("domain", &["fault"]),
    ("pgfile", &["fault", "domain"]),
    ("codec", &["fault"]),
    ("store", &["fault", "clock"]),
    (
        "barman",
        &["fault", "clock", "domain", "pgfile", "codec", "store"],
    ),
    ("postgres", &["fault", "clock", "domain", "pgfile"]),
    ("config", &["fault", "clock", "domain", "codec", "store"]),
    (
        "service",
        &[
            "fault", "clock", "domain", "pgfile", "codec", "store", "barman", "postgres", "config",
        ],
    ),
    ("cnpgi", &[]),
    (
        "cli",
        &[
            "fault", "clock", "domain", "pgfile", "codec", "store", "barman", "postgres", "config",
            "service",
        ],
    ),
];

/// No file of code is longer, tests at its foot included.
const LINES_MAX: usize = 600;

/// Words that a pure layer does not use.
const IMPURE: [&str; 7] = [
    "async fn",
    "std::fs",
    "std::net",
    "std::env",
    "std::thread",
    "tokio::",
    "Instant::now",
];

struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// The layer of a file below `src/`: the name of its folder, or its own for a file at the top.
    fn layer(&self) -> Option<String> {
        let inside = self.path.strip_prefix(root().join("src")).ok()?;
        let first = inside.components().next()?.as_os_str().to_str()?;
        Some(first.trim_end_matches(".rs").to_owned())
    }

    /// The code before the unit tests, which may import anything.
    fn product_code(&self) -> &str {
        self.text
            .split("#[cfg(test)]\nmod ")
            .next()
            .unwrap_or(&self.text)
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folders: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    for folder in folders {
        collect(&root().join(folder), &mut found);
    }
    assert!(found.len() > 20, "the tree was not found");
    found
}

fn collect(folder: &Path, found: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.map(|entry| entry.expect("a readable tree")) {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("UTF-8");
            found.push(Source { path, text });
        }
    }
}

/// The modules of ours that the text names after `crate::`.
fn imported(text: &str) -> BTreeSet<String> {
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    let code: String = text
        .lines()
        .filter(is_code)
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut names = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        let listed = rest
            .strip_prefix('{')
            .map_or(rest, |list| list.split('}').next().unwrap_or(""));
        let many = rest.starts_with('{');
        for name in
            listed
                .split(if many { ',' } else { ':' })
                .take(if many { usize::MAX } else { 1 })
        {
            let word: String = name
                .trim()
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            names.insert(word);
        }
    }
    names
}

#[test]
fn layers_import_only_what_lies_below_them() {
    let mut wrong = Vec::new();
    for source in sources(&["src"]) {
        let layer = source.layer().expect("below src");
        if layer == "lib" || layer == "main" {
            continue;
        }
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == layer) else {
            wrong.push(format!(
                "{}: the layer {layer} is not in the table",
                source.path.display()
            ));
            continue;
        };
        for name in imported(source.product_code()) {
            let is_layer = LAYERS.iter().any(|(known, _)| *known == name);
            if is_layer && name != layer && !allowed.contains(&name.as_str()) {
                wrong.push(format!("{}: {layer} imports {name}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn imports_are_seen_in_every_form() {
    let text = "use crate::store::x;\n// crate::cli\nuse crate::{domain::lsn, codec};\nlet a = crate::fault::Kind;";
    let seen: Vec<_> = imported(text).into_iter().collect();
    assert_eq!(seen, ["codec", "domain", "fault", "store"]);
}

#[test]
fn pure_layers_have_no_async_no_io_and_no_clock() {
    let mut wrong = Vec::new();
    for source in sources(&["src"]) {
        if !matches!(source.layer().as_deref(), Some("domain" | "pgfile")) {
            continue;
        }
        for word in IMPURE {
            if source.product_code().contains(word) {
                wrong.push(format!("{}: {word}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn only_postgres_speaks_sql_and_only_store_knows_its_engines() {
    let mut wrong = Vec::new();
    for source in sources(&["src"]) {
        let layer = source.layer().expect("below src");
        for (word, home) in [
            ("tokio_postgres", "postgres"),
            ("aws_sdk_s3", "store"),
            ("aws_config", "store"),
        ] {
            if layer != home && source.product_code().contains(word) {
                wrong.push(format!("{}: {word} outside {home}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn files_say_what_they_are_and_stay_short() {
    let mut wrong = Vec::new();
    for source in sources(&["src", "plugin", "tests", "benches", "fuzz/fuzz_targets"]) {
        let path = source.path.display();
        if !source.text.starts_with("//! ") {
            wrong.push(format!("{path}: the first line is not `//! …`"));
        }
        let lines = source.text.lines().count();
        if lines > LINES_MAX {
            wrong.push(format!("{path}: {lines} lines"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn nothing_is_left_undone_or_skipped() {
    // Put together here, so that this file does not name them itself.
    let words = [
        ["TO", "DO"].concat(),
        ["FIX", "ME"].concat(),
        ["#[ign", "ore"].concat(),
        ["XX", "X:"].concat(),
    ];
    let mut wrong = Vec::new();
    for source in sources(&["src", "plugin", "tests", "benches", "fuzz/fuzz_targets"]) {
        for word in &words {
            if source.text.contains(word.as_str()) {
                wrong.push(format!("{}: {word}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
