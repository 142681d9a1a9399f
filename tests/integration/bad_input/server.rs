//! A server that goes away, and one of a version that nobody knows yet.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use cellarman::fault::Kind;
use testbed::process::Ended;
use testbed::program::Program;
use testbed::scratch::Scratch;
use testbed::workload::Workload;
use testbed::world::{PATH, SERVER};
use testbed::{or_not_run, process, wait};

use crate::bad_input::{Host, assert_refused, world};
use crate::bucket::Bucket;
use crate::crash::check_restored;

#[test]
fn a_server_that_stops_during_its_backup_fails_it() {
    let world = or_not_run!(world());
    let primary = world.primary(&["-k"]);
    let workload = Workload::start(&primary);
    workload.advance(20);
    let count = workload.stop();
    primary.archive_now();
    // Slow enough to be met in the middle of the copy.
    let words = [
        "backup",
        "create",
        "--immediate-checkpoint",
        "--max-bandwidth",
        "4M",
    ];
    let mut call = world.beside(&primary).command(&words);
    let line = process::line_of(&call);
    let begun = std::time::Instant::now();
    let child = call
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let bucket = Bucket::of(&world.store);
    let base = format!("{PATH}/{SERVER}/base/");
    wait::until_true("the backup to begin", || !bucket.list(&base).is_empty());
    primary.stop_at_once();
    let output = child.wait_with_output().expect("a child of ours");
    let ended = Ended {
        line,
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        took: begun.elapsed(),
    };
    assert_refused(&ended, Kind::Postgres, &["the server"]);
    let left = bucket.list(&base);
    let record = left
        .keys()
        .find(|key| key.ends_with("/backup.info"))
        .expect("a record");
    let text = String::from_utf8(bucket.get(record)).expect("UTF-8");
    assert!(
        text.contains("\nstatus=FAILED\n") && text.contains("\nend_time=None\n"),
        "{text}"
    );
    assert!(
        text.lines()
            .any(|line| line.starts_with("error=") && line.len() > 12),
        "{text}"
    );
    // It is nobody's choice, and the next one succeeds.
    let ended = world
        .cellarman
        .run(&["restore", "--pgdata", "/nonexistent/x", "--dry-run"]);
    assert_refused(&ended, Kind::Refused, &["FAILED"]);
    primary.start();
    world.back_up(&primary, &[]);
    primary.archive_now();
    check_restored(&world, "restored", &[], count);
}

/// Another host, as far as one directory goes: a copy lies in its place.
struct OtherHost(Program);

impl OtherHost {
    fn new(scratch: &Scratch) -> Result<Self, String> {
        let unshare = Program::at("unshare".into(), scratch.account());
        let tried = unshare
            .command(&["--map-root-user", "--mount", "true"])
            .output();
        match tried {
            Ok(output) if output.status.success() => Ok(Self(unshare)),
            Ok(output) => Err(format!(
                "no mounts of one's own here: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            )),
            Err(error) => Err(format!("unshare does not start: {error}")),
        }
    }

    fn run(&self, copy: &Path, place: &Path, line: &str) -> Ended {
        let (copy, place) = (copy.display(), place.display());
        let script = format!("mount --bind {copy} {place} && exec {line}");
        self.0
            .run(&["--map-root-user", "--mount", "sh", "-c", &script])
    }
}

#[test]
fn a_copy_in_the_place_of_the_servers_files_is_not_backed_up() {
    let world = or_not_run!(world());
    let host = or_not_run!(OtherHost::new(&world.scratch));
    let primary = world.primary(&["-k"]);
    primary.stop_at_once();
    let copy = world.place("copy");
    let copied = Command::new("cp")
        .arg("-a")
        .args([primary.directory(), &copy])
        .status();
    assert!(copied.is_ok_and(|status| status.success()), "no copy");
    primary.start();
    let beside = world.beside(&primary);
    let words = ["backup", "create", "--immediate-checkpoint"];
    let ended = host.run(&copy, primary.directory(), &beside.shell_line(&words));
    let words = [
        &primary.directory().display().to_string()[..],
        "is not where the server works",
    ];
    assert_refused(&ended, Kind::Local, &words);
    let ended = host.run(&copy, primary.directory(), &beside.shell_line(&["check"]));
    assert!(!ended.status.success(), "{}", ended.describe());
    let said = format!("{}{}", ended.stdout, ended.stderr);
    assert!(said.contains(words[1]), "{}", ended.describe());
    // Nothing that looks done is left of it, and the server itself can be backed up.
    let bucket = Bucket::of(&world.store);
    let records = bucket.list(&format!("{PATH}/{SERVER}/base/"));
    let mut records = records.keys().filter(|key| key.ends_with("/backup.info"));
    let record = records.next().expect("a record");
    let text = String::from_utf8(bucket.get(record)).expect("UTF-8");
    assert!(text.contains("\nstatus=FAILED\n"), "{text}");
    world.back_up(&primary, &[]);
}

/// A server that speaks just enough of PostgreSQL's protocol to say its version.
///
/// Source: the PostgreSQL manual, "Message Formats".
fn speak(mut stream: TcpStream, version: &str) -> std::io::Result<()> {
    let mut word = [0; 4];
    stream.read_exact(&mut word)?;
    let length = usize::try_from(u32::from_be_bytes(word)).unwrap_or(4);
    stream.read_exact(&mut vec![0; length - 4])?;
    let ready = message(b'Z', b"I");
    stream.write_all(&[message(b'R', &0_u32.to_be_bytes()), ready.clone()].concat())?;
    loop {
        let mut kind = [0];
        if stream.read(&mut kind)? == 0 {
            return Ok(());
        }
        stream.read_exact(&mut word)?;
        let length = usize::try_from(u32::from_be_bytes(word)).unwrap_or(4);
        stream.read_exact(&mut vec![0; length - 4])?;
        let column = [
            b"v\0".as_slice(),
            &[0; 6],
            &25_u32.to_be_bytes(),
            &[0xFF; 6],
            &[0; 2],
        ];
        let described = message(b'T', &[&[0, 1][..], &column.concat()].concat());
        let size = u32::try_from(version.len()).unwrap_or(0).to_be_bytes();
        let row = message(b'D', &[&[0, 1][..], &size, version.as_bytes()].concat());
        let answer = match kind[0] {
            b'Q' => [described, row, message(b'C', b"SELECT 1\0"), ready.clone()].concat(),
            b'P' => message(b'1', b""),
            b'B' => message(b'2', b""),
            b'D' => [message(b't', &[0, 0]), described].concat(),
            b'E' => [row, message(b'C', b"SELECT 1\0")].concat(),
            b'S' => ready.clone(),
            b'C' => message(b'3', b""),
            _ => Vec::new(),
        };
        stream.write_all(&answer)?;
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(4);
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

#[test]
fn a_server_of_an_unknown_version_is_refused() {
    let host = or_not_run!(Host::new());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener
        .local_addr()
        .expect("an address")
        .port()
        .to_string();
    let store = host.place("store");
    let program = host
        .with_store(&["--store", &store], &[])
        .with_variable("PGHOST", "127.0.0.1")
        .with_variable("PGPORT", &port)
        .with_variable("PGUSER", "postgres");
    let acceptor = thread::spawn(move || {
        // One connection for each call below.
        for (stream, version) in listener.incoming().take(2).zip(["190000", "120015"]) {
            if let Ok(stream) = stream {
                let _ = speak(stream, version);
            }
        }
    });
    program.clone().run(&["wal", "archive", "/nonexistent"]);
    fs::create_dir(&store).expect("a directory");
    host.scratch.account().own(Path::new(&store));
    for major in ["19", "12"] {
        let ended = program.run(&["backup", "create"]);
        let words = [&format!("PostgreSQL {major} is not known")[..], "13 to 18"];
        assert_refused(&ended, Kind::Unsupported, &words);
    }
    acceptor.join().expect("the fake server");
}
