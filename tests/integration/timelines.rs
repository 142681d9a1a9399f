//! Restores across a promotion: the standby as a backup's source, a timeline switch between the
//! backup and the target, and an old primary that went on writing.

use std::thread;

use testbed::cluster::{Cluster, Release};
use testbed::wait;
use testbed::workload::{self, Workload};
use testbed::world::World;
use testbed::{or_not_run, report};

#[test]
fn restores_follow_timelines_on_the_distributions_postgresql() {
    let world = or_not_run!(World::new(
        env!("CARGO_BIN_EXE_cellarman"),
        Release::distribution()
    ));
    check_timelines(&world);
}

#[test]
fn restores_follow_timelines_on_postgresql_18() {
    let world = or_not_run!(World::new(
        env!("CARGO_BIN_EXE_cellarman"),
        Release::eighteen()
    ));
    check_timelines(&world);
}

#[test]
fn restores_follow_timelines_on_postgresql_13() {
    let world = or_not_run!(World::new(
        env!("CARGO_BIN_EXE_cellarman"),
        Release::other_debian(13)
    ));
    check_timelines(&world);
}

#[test]
fn restores_follow_timelines_on_postgresql_17() {
    let world = or_not_run!(World::new(
        env!("CARGO_BIN_EXE_cellarman"),
        Release::other_debian(17)
    ));
    check_timelines(&world);
}

/// Whether every restore is made, or of 13 and 17 only the one that shows most.
fn is_whole(world: &World) -> bool {
    report::is_full() || !matches!(world.release.major, 13 | 17)
}

fn check_timelines(world: &World) {
    let primary = world.primary(&[]);
    let workload = Workload::start(&primary);
    workload.advance(50);
    world.back_up(&primary, &["--name", "from-primary"]);
    primary.archive_now();

    let standby = follow(world, &primary);
    back_up_standby(world, &primary, &standby);
    workload.advance(50);
    let at_fork = workload.stop();
    primary.archive_now();
    check(
        world,
        "standbys-backup",
        &["--backup-id", "from-standby"],
        at_fork,
    );

    switch_over(&primary, &standby);
    let workload = Workload::start(&standby);
    workload.advance(50);
    let (at_time, time) = {
        let held = workload.hold();
        (*held, standby.sql().value("SELECT clock_timestamp()"))
    };
    workload.advance(50);
    let on_second = workload.stop();
    standby.archive_now();
    let on_first = go_astray(&primary, at_fork);
    world.back_up(&standby, &["--name", "from-second"]);
    standby.archive_now();

    let action = ["--target-action", "promote"];
    let to_time = ["--target-time", &time, action[0], action[1]];
    let with_primarys = [&to_time[..], &["--backup-id", "from-primary"]].concat();
    check(world, "time-across-the-fork", &with_primarys, at_time);
    if !is_whole(world) {
        return;
    }
    check(world, "time-on-second", &to_time, at_time);
    check(
        world,
        "end-of-second",
        &["--target-timeline", "2"],
        on_second,
    );
    // The backup of timeline 2 is newer, and no way to the end of timeline 1.
    check(world, "end-of-first", &["--target-timeline", "1"], on_first);
    check(
        world,
        "end-of-latest",
        &["--backup-id", "from-primary"],
        on_second,
    );
}

/// A standby of `primary`, made by a restore.
fn follow(world: &World, primary: &Cluster) -> Cluster {
    let standby = world.restore("standby", &[]);
    standby.follow(primary);
    // It was restored beside a living archive and is to take it over: the user's own decision.
    // It must not stand in its files, which its backups hand on to whatever is restored from them.
    let takes_over = world.archive_command(&["--allow-own-archive"]);
    standby.start_with(&[&format!("archive_command={takes_over}")]);
    standby
}

/// Backs the standby up, while the primary switches WAL as the hint tells its user to.
fn back_up_standby(world: &World, primary: &Cluster, standby: &Cluster) {
    thread::scope(|scope| {
        let backup = scope.spawn(|| world.back_up(standby, &["--name", "from-standby"]));
        wait::until_true("the standby's backup", || {
            primary.archive_now();
            backup.is_finished()
        });
    });
}

/// Stops the primary when the standby has everything, and promotes the standby.
fn switch_over(primary: &Cluster, standby: &Cluster) {
    primary.stop();
    standby.promote();
    workload::verify(&standby.sql());
}

/// The old primary comes back alone and goes on: a fork. How many transactions it then has.
fn go_astray(primary: &Cluster, at_fork: u64) -> u64 {
    primary.start();
    let sql = primary.sql();
    for n in at_fork + 1..=at_fork + 5 {
        sql.run(&format!("BEGIN; {} COMMIT", workload::statements(n)));
    }
    primary.archive_now();
    primary.stop();
    at_fork + 5
}

fn check(world: &World, name: &str, options: &[&str], expected: u64) {
    eprintln!("{name}: {options:?} must give {expected}");
    let restored = world.restore(name, options);
    restored.start();
    restored.wait_until_recovered();
    let sql = restored.sql();
    assert_eq!(
        workload::verify(&sql),
        expected,
        "{name}\n{}",
        restored.log()
    );
    stays_out_of_the_archive(&restored, name);
}

/// A cluster made by recovery has its source's identifier, and must not write to its archive.
fn stays_out_of_the_archive(restored: &Cluster, name: &str) {
    let sql = restored.sql();
    sql.run("SELECT pg_switch_wal()");
    wait::until_true("the archiver to be refused", || {
        sql.value("SELECT failed_count > 0 FROM pg_stat_archiver") == "t"
    });
    let archived = sql.value("SELECT archived_count FROM pg_stat_archiver");
    assert_eq!(archived, "0", "{name} wrote to its source's archive");
}
