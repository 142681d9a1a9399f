//! A target that is elsewhere: on another timeline than the newest, or before the backup asked for.
//!
//! Not here: all other targets (`history`).

use std::fs;
use std::process::Command;

use cellarman::fault::Kind;
use testbed::cluster::Release;
use testbed::or_not_run;
use testbed::world::World;

#[test]
fn a_name_on_another_timeline_is_refused_with_that_timeline() {
    let world = or_not_run!(World::new(
        env!("CARGO_BIN_EXE_cellarman"),
        Release::distribution()
    ));
    let primary = world.primary(&["--wal-segsize=1"]);
    world.back_up(&primary, &[]);
    primary.archive_now();
    primary.stop();
    // The same server twice: one goes to a new timeline, the other goes on.
    let copied = Command::new("cp")
        .arg("-a")
        .args([primary.directory(), &world.place("branch")])
        .status();
    assert!(copied.is_ok_and(|status| status.success()));
    let branch = world.adopt("branch");
    branch.recover("restore_command = 'false'");
    let folder = branch.directory();
    fs::rename(
        folder.join("recovery.signal"),
        folder.join("standby.signal"),
    )
    .expect("a signal");
    branch.start();
    branch.promote();
    branch.wait_until_recovered();
    branch.archive_now();
    branch.stop();
    primary.start();
    primary
        .sql()
        .run("SELECT pg_create_restore_point('behind the branch')");
    primary.archive_now();
    let asked = ["targets", "--name", "behind the branch"];
    let ended = world.cellarman.run(&asked);
    ended.exits_with(i32::from(Kind::Refused.exit_code()));
    for words in ["is on timeline 1", "--target-timeline 1"] {
        assert!(ended.stderr.contains(words), "{}", ended.describe());
    }
    let followed = [&asked[..], &["--timeline", "1"]].concat();
    world.cellarman.run(&followed).ok();
}

#[test]
fn a_name_before_the_backup_asked_for_is_refused_with_that() {
    let world = or_not_run!(World::new(
        env!("CARGO_BIN_EXE_cellarman"),
        Release::distribution()
    ));
    let primary = world.primary(&["--wal-segsize=1"]);
    world.back_up(&primary, &[]);
    primary.sql().run("SELECT pg_create_restore_point('early')");
    world.back_up(&primary, &["--name", "late"]);
    primary.archive_now();
    let asked = ["targets", "--name", "early"];
    world.cellarman.run(&asked).ok();
    // Names are told from behind all backups, not the newest alone.
    let ended = world.cellarman.run(&["targets", "--name", "earlie"]);
    ended.exits_with(i32::from(Kind::Refused.exit_code()));
    assert!(ended.stderr.contains("\"early\""), "{}", ended.describe());
    let from_late = [&asked[..], &["--backup-id", "late"]].concat();
    let ended = world.cellarman.run(&from_late);
    ended.exits_with(i32::from(Kind::Refused.exit_code()));
    for words in ["comes before backup", "an earlier backup"] {
        assert!(ended.stderr.contains(words), "{}", ended.describe());
    }
}
