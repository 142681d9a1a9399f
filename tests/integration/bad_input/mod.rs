//! Everything that can be wrong outside the program, from the issue of it: each is refused with a
//! message that names the thing, a hint, and the documented exit code; nothing is lost, and
//! nothing half-made is left that could be taken for good.

mod codes;
mod damage;
mod host;
mod records;
mod server;
mod store;
mod targets;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use cellarman::fault::Kind;
use testbed::account::Account;
use testbed::cluster::Release;
use testbed::process::Ended;
use testbed::program::Program;
use testbed::scratch::Scratch;
use testbed::world::{SERVER, World};

fn world() -> Result<World, String> {
    World::new(env!("CARGO_BIN_EXE_cellarman"), Release::distribution())
}

/// A first segment of PostgreSQL 15.
const SEGMENT: &str = "000000010000000000000001";

/// Fails the test unless the command refused so: the exit code of `kind` (of `wal restore`, as
/// much more as makes it fatal to PostgreSQL), a message with each of these words, and a hint.
#[track_caller]
fn assert_refused(ended: &Ended, kind: Kind, words: &[&str]) {
    let is_wal_restore = ended.line.contains(" wal restore ");
    let code = i32::from(kind.exit_code()) + if is_wal_restore { 150 } else { 0 };
    ended.exits_with(code);
    let said = format!("{}\n{}", ended.stdout, ended.stderr);
    for word in words {
        assert!(
            said.contains(word),
            "not named: {word}: {}",
            ended.describe()
        );
    }
    // `check` has a hint for each point instead.
    let is_check = ended.line.ends_with(" check");
    let prefixes: &[&str] = if is_check {
        &["store: ", "put: "]
    } else {
        &["hint: "]
    };
    let hint_of = |line: &'_ str| {
        let mut found = prefixes.iter().filter(|prefix| line.starts_with(**prefix));
        found.next().map(|prefix| line[prefix.len()..].to_owned())
    };
    let hint = said.lines().find_map(hint_of);
    let is_sentence = hint.is_some_and(|hint| hint.len() > 20 && hint.ends_with('.'));
    assert!(is_sentence, "no hint: {}", ended.describe());
    assert!(!said.contains("panicked"), "{}", ended.describe());
}

/// A host without a server: the program, one WAL file to archive, and places to restore to.
struct Host {
    program: Program,
    wal: PathBuf,
    scratch: Scratch,
}

impl Host {
    fn new() -> Result<Self, String> {
        let scratch = Scratch::new(Account::of_servers()?);
        let wal = write_segment(&scratch.make("wal"), scratch.account());
        let binary = env!("CARGO_BIN_EXE_cellarman");
        let program = Program::built(binary, &scratch).with_arguments(&["--server", SERVER]);
        Ok(Self {
            program,
            wal,
            scratch,
        })
    }

    /// The program, with this store.
    fn with_store(&self, arguments: &[&str], environment: &[(String, String)]) -> Program {
        let program = self.program.clone().with_arguments(arguments);
        program.with_environment(environment)
    }

    fn place(&self, name: &str) -> String {
        self.scratch.path().join(name).display().to_string()
    }

    /// Has every kind of command meet the same trouble with the store, side by side: all refuse
    /// alike, and leave nothing.
    #[track_caller]
    fn all_refuse(&self, program: &Program, kind: Kind, words: &[&str]) {
        let (wal, restored, cluster) = (
            self.wal.display().to_string(),
            self.place("restored.wal"),
            self.place("restored"),
        );
        let calls: [&[&str]; 5] = [
            &["check"],
            &["backup", "list"],
            &["wal", "archive", &wal],
            &["wal", "restore", SEGMENT, &restored],
            &["restore", "--pgdata", &cluster],
        ];
        let ended: Vec<Ended> = std::thread::scope(|scope| {
            let running = calls.map(|call| scope.spawn(move || program.run(call)));
            running
                .map(|thread| thread.join().expect("a command"))
                .into()
        });
        for ended in ended {
            assert_refused(&ended, kind, words);
        }
        for place in [restored, cluster] {
            assert!(!Path::new(&place).exists(), "{place} was made");
        }
    }
}

/// Writes a segment with the header that PostgreSQL gave it, empty behind.
fn write_segment(directory: &Path, account: Account) -> PathBuf {
    let path = directory.join(SEGMENT);
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/postgresql/wal-15");
    fs::copy(fixture, &path).expect("a segment");
    let file = File::options().write(true).open(&path).expect("a segment");
    file.set_len(16 << 20).expect("a segment");
    account.own(&path);
    path
}
