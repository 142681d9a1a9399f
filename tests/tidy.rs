//! The shape of the tree, held by a test: which layer imports which, how long files are, how
//! they begin, and the words that have no place here.
//!
//! Not here: anything the compiler or clippy already says.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Which modules of ours a layer may import. `fault` and `clock` import nothing; everything but
/// the pure layers may import both, and the pure layers may import `fault`.
const LAYERS: [(&str, &[&str]); 15] = [
    ("fault", &[]),
    ("clock", &[]),
    ("metrics", &[]),
    ("signals", &[]),
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
    ("api", &[]),
    (
        "cli",
        &[
            "fault", "clock", "domain", "pgfile", "codec", "store", "barman", "postgres", "config",
            "service", "signals",
        ],
    ),
];

/// The same for the modules of the plugin, among themselves; all of them may import the library.
const PLUGIN_LAYERS: [(&str, &[&str]); 18] = [
    ("allocator", &[]),
    ("arguments", &[]),
    ("logging", &["arguments"]),
    ("healthcheck", &[]),
    ("cluster", &[]),
    ("object_store", &[]),
    ("crd", &[]),
    ("resources", &[]),
    ("archives", &["cluster", "object_store", "resources"]),
    ("recovery", &["cluster"]),
    ("grpc", &["logging"]),
    ("operator", &["cluster", "object_store"]),
    ("cache", &["operator", "resources"]),
    (
        "controller",
        &[
            "arguments",
            "object_store",
            "resources",
            "grpc",
            "operator",
            "cache",
        ],
    ),
    (
        "admission",
        &[
            "cluster",
            "resources",
            "archives",
            "recovery",
            "grpc",
            "operator",
        ],
    ),
    (
        "serving",
        &[
            "arguments",
            "logging",
            "admission",
            "cluster",
            "resources",
            "grpc",
            "operator",
            "cache",
            "controller",
        ],
    ),
    (
        "instance",
        &[
            "arguments",
            "cluster",
            "object_store",
            "resources",
            "archives",
            "recovery",
            "grpc",
        ],
    ),
    (
        "program",
        &[
            "allocator",
            "arguments",
            "logging",
            "healthcheck",
            "crd",
            "serving",
            "instance",
        ],
    ),
];

/// The layers that are pure as a whole. Other files are where they say so.
const PURE: [&str; 2] = ["domain", "pgfile"];
const PLUGIN_PURE: [&str; 3] = ["cluster", "object_store", "operator"];

/// No file of code is longer, tests at its foot included.
const LINES_MAX: usize = 600;

/// Words that a pure layer does not use.
const IMPURE: [&str; 8] = [
    "async fn",
    "std::fs",
    "std::net",
    "std::env",
    "std::thread",
    "tokio::",
    "Instant::now",
    "clock::now",
];

/// What stands before a module of tests.
const TEST_MODULE: &str = "#[cfg(test)]\nmod ";

struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// The layer of a file below `folder`: the name of its folder, or its own for a file at the top.
    fn layer(&self, folder: &str) -> Option<String> {
        let inside = self.path.strip_prefix(root().join(folder)).ok()?;
        let first = inside.components().next()?.as_os_str().to_str()?;
        Some(first.trim_end_matches(".rs").to_owned())
    }

    /// Whether its first lines say that it is pure.
    fn says_pure(&self) -> bool {
        let mut header = self.text.lines().take_while(|line| line.starts_with("//!"));
        header.any(|line| line.contains("Pure."))
    }

    /// The code before the unit tests at its foot, which may import anything.
    fn product_code(&self) -> &str {
        let mut marks = self.text.match_indices(TEST_MODULE);
        let foot = marks.find(|(at, mark)| {
            let line = self.text[at + mark.len()..].lines().next();
            line.is_some_and(|line| line.ends_with('{'))
        });
        foot.map_or(&self.text, |(at, _)| &self.text[..at])
    }

    /// The modules in files of their own that only tests have: a file, or a folder.
    fn test_modules(&self) -> Vec<PathBuf> {
        let folder = match self.path.file_stem().and_then(|stem| stem.to_str()) {
            Some("mod" | "lib" | "main") => self.path.with_file_name(""),
            _ => self.path.with_extension(""),
        };
        let rests = self.text.split(TEST_MODULE).skip(1);
        let names = rests.filter_map(|rest| rest.lines().next()?.strip_suffix(';'));
        names
            .flat_map(|name| [folder.join(name), folder.join(format!("{name}.rs"))])
            .collect()
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

/// Those that are more than tests.
fn product_sources(folders: &[&str]) -> Vec<Source> {
    let mut sources = sources(folders);
    let tests: Vec<PathBuf> = sources.iter().flat_map(Source::test_modules).collect();
    sources.retain(|source| !tests.iter().any(|test| source.path.starts_with(test)));
    sources
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
    let mut wrong = wrong_imports("src", &LAYERS);
    wrong.append(&mut wrong_imports("plugin/src", &PLUGIN_LAYERS));
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn wrong_imports(folder: &str, layers: &[(&str, &[&str])]) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in product_sources(&[folder]) {
        let layer = source.layer(folder).expect("below the folder");
        let path = source.path.display();
        if layer == "lib" || layer == "main" {
            continue;
        }
        let Some((_, allowed)) = layers.iter().find(|(name, _)| *name == layer) else {
            wrong.push(format!("{path}: the layer {layer} is not in the table"));
            continue;
        };
        for name in imported(source.product_code()) {
            let is_layer = layers.iter().any(|(known, _)| *known == name);
            if is_layer && name != layer && !allowed.contains(&name.as_str()) {
                wrong.push(format!("{path}: {layer} imports {name}"));
            }
        }
    }
    wrong
}

#[test]
fn the_tables_of_layers_have_no_circle() {
    for layers in [&LAYERS[..], &PLUGIN_LAYERS[..]] {
        for (index, (layer, allowed)) in layers.iter().enumerate() {
            for name in *allowed {
                let is_above = layers[..index].iter().any(|(known, _)| known == name);
                assert!(is_above, "{layer} may import {name}, which stands below it");
            }
        }
    }
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
    for source in product_sources(&["src", "plugin/src"]) {
        let is_in = |folder, layers: &[&str]| {
            let layer = source.layer(folder);
            layer.is_some_and(|layer| layers.contains(&layer.as_str()))
        };
        let is_pure = is_in("src", &PURE) || is_in("plugin/src", &PLUGIN_PURE);
        if !is_pure && !source.says_pure() {
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
        let layer = source.layer("src").expect("below src");
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
