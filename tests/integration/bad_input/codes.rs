//! The exit codes that the README documents are those that the program ends with.

use std::fs;
use std::path::Path;

use cellarman::fault::Kind;
use testbed::account::Account;
use testbed::program::Program;
use testbed::scratch::Scratch;

const KINDS: [(Kind, &str); 17] = [
    (Kind::NotFound, "not found"),
    (Kind::Usage, "usage"),
    (Kind::Config, "configuration"),
    (Kind::Unreachable, "unreachable"),
    (Kind::Throttled, "throttled"),
    (Kind::Denied, "denied"),
    (Kind::NoContainer, "no such bucket"),
    (Kind::Conflict, "conflict"),
    (Kind::Corrupt, "corrupt"),
    (Kind::Postgres, "PostgreSQL"),
    (Kind::Refused, "refused"),
    (Kind::Local, "local file"),
    (Kind::Unsupported, "does not support"),
    (Kind::Cancelled, "interrupted"),
    (Kind::Internal, "internal"),
    (Kind::Full, "full"),
    (Kind::NotVerified, "could not be verified"),
];

/// The table's cells in pairs: a code and what it means.
fn documented() -> Vec<(u8, String)> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = fs::read_to_string(readme).expect("a README");
    let section = text.split("### Exit codes").nth(1).expect("the section");
    let rows = section
        .lines()
        .skip(1)
        .take_while(|line| !line.starts_with("`wal restore`"));
    let mut found = Vec::new();
    for row in rows.filter(|row| row.starts_with('|')) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        for pair in cells.windows(2) {
            if let Ok(code) = pair[0].parse() {
                found.push((code, pair[1].to_owned()));
            }
        }
    }
    found
}

#[test]
fn a_server_called_wal_changes_no_exit_code() {
    let scratch = Scratch::new(Account::of_servers().expect("an account"));
    let program = Program::built(env!("CARGO_BIN_EXE_cellarman"), &scratch);
    let ended = program.run(&[
        "--store",
        "/nonexistent/store",
        "--server",
        "wal",
        "restore",
        "--pgdata",
        "/nonexistent/data",
    ]);
    ended.exits_with(Kind::Local.exit_code().into());
}

#[test]
fn the_readme_says_each_exit_code() {
    let documented = documented();
    for (kind, words) in KINDS {
        let row = documented
            .iter()
            .find(|(code, _)| *code == kind.exit_code());
        let meaning = row.map_or("", |(_, meaning)| meaning);
        assert!(meaning.contains(words), "{kind}: {row:?}");
    }
    for (code, meaning) in &documented {
        let is_known = *code == 0 || KINDS.iter().any(|(kind, _)| kind.exit_code() == *code);
        assert!(is_known, "no failure ends with {code}: {meaning}");
    }
}
