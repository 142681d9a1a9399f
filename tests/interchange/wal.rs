//! WAL files of every codec, archived by either tool and restored by the other.

use std::fs;
use std::path::{Path, PathBuf};

use testbed::barman::Barman;
use testbed::cluster::{Cluster, Release};
use testbed::or_not_run;
use testbed::process;
use testbed::world::{PATH, World};

const CODECS: [&str; 7] = ["none", "gzip", "bzip2", "xz", "snappy", "zstd", "lz4"];

#[test]
fn wal_of_every_codec_goes_both_ways() {
    let world = or_not_run!(World::new(
        env!("CARGO_BIN_EXE_cellarman"),
        Release::distribution()
    ));
    let barman = or_not_run!(Barman::new(&world.scratch, &world.store));
    let (directory, names) = some_wal(&world);
    for codec in CODECS {
        for name in &names {
            let file = directory.join("pg_wal").join(name);
            let ours = world.place(&format!("{codec}-ours-{name}"));
            from_us_to_barman(&world, &barman, codec, &file, &ours);
            let theirs = world.place(&format!("{codec}-theirs-{name}"));
            from_barman_to_us(&world, &barman, codec, &file, &theirs);
            for copy in [ours, theirs] {
                let is_same = fs::read(&copy).expect("restored") == fs::read(&file).expect("WAL");
                assert!(is_same, "{} differs", copy.display());
            }
        }
    }
}

/// The data directory of a stopped cluster, and two files in its `pg_wal`.
fn some_wal(world: &World) -> (PathBuf, [String; 2]) {
    let cluster = Cluster::create(&world.release, &world.scratch, "primary", &[]);
    cluster.configure("archive_mode = on\narchive_command = 'false'");
    cluster.start();
    cluster.stop();
    // A recovery that ends at once: the next timeline begins, with a history file by PostgreSQL.
    cluster.recover("restore_command = 'false'");
    cluster.start();
    cluster.wait_until_recovered();
    let sql = cluster.sql();
    sql.run("CREATE TABLE t AS SELECT md5(i::text) FROM generate_series(1, 20000) i");
    let segment = sql.value("SELECT pg_walfile_name(pg_switch_wal())");
    cluster.stop_at_once();
    let history = "00000002.history".to_owned();
    (cluster.directory().to_path_buf(), [segment, history])
}

fn from_us_to_barman(world: &World, barman: &Barman, codec: &str, file: &Path, copy: &Path) {
    let server = format!("ours-{codec}");
    let program = world.cellarman_for(&server);
    let path = format!("pg_wal/{}", name_of(file));
    let mut archive = program.command(&["wal", "archive", "--compression", codec, &path]);
    archive.current_dir(file.ancestors().nth(2).expect("PGDATA"));
    process::run(&mut archive).ok();
    let url = world.store.url(PATH);
    let copy = copy.display().to_string();
    barman
        .run("wal-restore", &[&url, &server, name_of(file), &copy])
        .ok();
}

fn from_barman_to_us(world: &World, barman: &Barman, codec: &str, file: &Path, copy: &Path) {
    let server = format!("theirs-{codec}");
    let url = world.store.url(PATH);
    let path = file.display().to_string();
    let option = format!("--{codec}");
    let mut words = vec![url.as_str(), &server, &path];
    if codec != "none" {
        words.insert(0, &option);
    }
    barman.run("wal-archive", &words).ok();
    let copy = copy.display().to_string();
    let program = world.cellarman_for(&server);
    program.run(&["wal", "restore", name_of(file), &copy]).ok();
}

fn name_of(file: &Path) -> &str {
    file.file_name()
        .and_then(|name| name.to_str())
        .expect("a name")
}
