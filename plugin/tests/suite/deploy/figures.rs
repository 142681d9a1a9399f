//! The board and the alert rules ask for what is there: each metric in a query is one that this
//! program, the operator or kube-state-metrics shows.

use std::collections::BTreeSet;
use std::path::Path;

use cellarman::metrics;
use serde_json::Value;

use super::{deploy, documents, read, text};

/// What others show: CloudNativePG's exporter, and kube-state-metrics.
const OF_OTHERS: [&str; 5] = [
    "cnpg_collector_pg_wal_archive_status",
    "cnpg_collector_up",
    "cnpg_collector_wal_bytes",
    "cnpg_pg_stat_archiver_seconds_since_last_archival",
    "kube_deployment_status_replicas_available",
];

/// The words of queries that are no metric, with what may follow them.
const WORDS: [&str; 7] = ["and", "bool", "by", "le", "on", "unless", "without"];

/// The functions that queries may call. `time` takes nothing.
const FUNCTIONS: [&str; 9] = [
    "changes",
    "count",
    "histogram_quantile",
    "increase",
    "last_over_time",
    "max",
    "rate",
    "sum",
    "time",
];

/// The metrics in a query, or why it is none.
///
/// Not a whole parser of the language: it reads what the queries here are made of, and refuses
/// every other word.
fn metrics_in(query: &str) -> Result<BTreeSet<String>, String> {
    let mut names = BTreeSet::new();
    let mut open = Vec::new();
    let mut rest = query;
    let mut labels_follow = false;
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(length.max(first.len_utf8()));
        let follows = after.trim_start().chars().next();
        match first {
            '{' | '[' => {
                let end = if first == '{' { '}' } else { ']' };
                let inside = after.split_once(end).ok_or("a bracket is not closed")?;
                rest = inside.1;
                continue;
            }
            '(' if labels_follow => {
                rest = after.split_once(')').ok_or("a bracket is not closed")?.1;
                labels_follow = false;
                continue;
            }
            '(' => open.push(first),
            ')' => {
                open.pop().ok_or("a bracket is not open")?;
            }
            _ if first.is_ascii_digit() || !is_word(first) => {}
            _ if WORDS.contains(&word) => labels_follow = ["by", "on", "without"].contains(&word),
            _ if FUNCTIONS.contains(&word) => {}
            _ if follows == Some('(') => return Err(format!("no function is called {word}")),
            _ => {
                names.insert(word.to_owned());
            }
        }
        rest = after;
    }
    if open.is_empty() {
        Ok(names)
    } else {
        Err("a bracket is not closed".to_owned())
    }
}

/// What is wrong with a query.
fn complaint(query: &str) -> Option<String> {
    let known: BTreeSet<String> = metrics::definitions()
        .into_iter()
        .map(|definition| definition.name)
        .collect();
    match metrics_in(query) {
        Err(problem) => Some(format!("{query}: {problem}")),
        Ok(names) if names.is_empty() => Some(format!("{query}: asks for nothing")),
        Ok(names) => {
            let is_known =
                |name: &&String| known.contains(*name) || OF_OTHERS.contains(&name.as_str());
            let unknown = names.iter().find(|name| !is_known(name))?;
            Some(format!("{query}: nothing is called {unknown}"))
        }
    }
}

fn rules() -> Vec<Value> {
    let groups = documents(&read(&deploy("alerts/cellarman.yaml"))).remove(0);
    let groups = groups["groups"].as_array().expect("groups").clone();
    groups
        .iter()
        .flat_map(|group| group["rules"].as_array().expect("rules").clone())
        .collect()
}

/// All queries of a board, those of its variables included.
fn queries(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(query)) = fields.get("expr") {
                found.push(query.clone());
            }
            if let Some(Value::String(definition)) = fields.get("definition") {
                let inner = definition.trim_start_matches("label_values(");
                let selector = inner
                    .rsplit_once(',')
                    .map_or(inner, |(selector, _)| selector);
                found.push(selector.to_owned());
            }
            fields.values().for_each(|field| queries(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| queries(item, found)),
        _ => {}
    }
}

fn board() -> Value {
    serde_json::from_str(&read(&deploy("grafana/cellarman.json"))).expect("JSON")
}

#[test]
fn every_alert_asks_for_metrics_that_are_there() {
    let rules = rules();
    assert!(rules.len() > 10, "only {} rules", rules.len());
    let complaints: Vec<String> = rules
        .iter()
        .filter_map(|rule| complaint(text(rule, "/expr")))
        .collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn every_alert_says_what_it_is_and_what_to_do() {
    let mut names = BTreeSet::new();
    for rule in rules() {
        let name = text(&rule, "/alert").to_owned();
        for annotation in ["summary", "description", "what_to_do"] {
            let sentence = text(&rule, &format!("/annotations/{annotation}"));
            assert!(sentence.trim_end().ends_with('.'), "{name}: {annotation}");
        }
        let severity = text(&rule, "/labels/severity");
        assert!(
            ["critical", "warning"].contains(&severity),
            "{name}: {severity}"
        );
        assert!(names.insert(name.clone()), "{name} is there twice");
    }
}

#[test]
fn every_query_of_the_board_asks_for_metrics_that_are_there() {
    let mut found = Vec::new();
    queries(&board(), &mut found);
    assert!(found.len() > 30, "only {} queries", found.len());
    let complaints: Vec<String> = found.iter().filter_map(|query| complaint(query)).collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn the_panels_of_the_board_are_told_apart_and_do_not_overlap() {
    let board = board();
    let panels = board["panels"].as_array().expect("panels");
    let mut ids = BTreeSet::new();
    let mut cells = BTreeSet::new();
    for panel in panels {
        let title = text(panel, "/title");
        assert!(ids.insert(panel["id"].as_u64()), "{title}");
        let number = |field: &str| panel["gridPos"][field].as_u64().expect("a number");
        for x in number("x")..number("x") + number("w") {
            for y in number("y")..number("y") + number("h") {
                assert!(x < 24 && cells.insert((x, y)), "{title} at {x}, {y}");
            }
        }
        let is_row = text(panel, "/type") == "row";
        assert!(is_row || !text(panel, "/description").is_empty(), "{title}");
    }
}

#[test]
fn a_query_that_asks_for_nothing_we_have_is_found() {
    for (query, is_good) in [
        ("sum(rate(cellarman_wal_archived_total[5m]))", true),
        ("cnpg_collector_up == 1", true),
        (
            "rate(cellarman_wal_archvied_total[$__rate_interval])",
            false,
        ),
        ("sum(rate(cellarman_wal_archived_total[5m])", false),
        ("rat(cellarman_wal_archived_total[5m])", false),
        ("1 + 1", false),
        ("{job=\"a\"}", false),
    ] {
        assert_eq!(complaint(query).is_none(), is_good, "{query}");
    }
}

#[test]
fn the_guide_lists_every_metric_with_its_help() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let guide = read(&guide);
    let missing: Vec<String> = metrics::definitions()
        .iter()
        .map(row)
        .filter(|row| !guide.contains(row.as_str()))
        .collect();
    assert!(
        missing.is_empty(),
        "docs/metrics.md lacks:\n{}",
        missing.join("\n")
    );
    let rows = guide.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(
        rows,
        metrics::definitions().len(),
        "docs/metrics.md has rows of other metrics"
    );
}

/// The row of a metric in the guide.
fn row(definition: &metrics::Definition) -> String {
    let labels = definition.labels.join(", ");
    let labels = if labels.is_empty() {
        String::new()
    } else {
        format!("{{{labels}}}")
    };
    format!(
        "| `{}{labels}` | {} | {} |",
        definition.name,
        format!("{:?}", definition.metric_type).to_lowercase(),
        definition.help
    )
}
