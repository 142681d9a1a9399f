//! Restores, killed: invariant 9.

use std::fs;
use std::path::Path;

use testbed::or_not_run;
use testbed::report;
use testbed::workload::Workload;

use crate::crash::{check_recovered, check_restored, kill_after, moment, world};

#[test]
fn a_restore_killed_at_any_moment_leaves_nothing_to_start() {
    let world = or_not_run!(world());
    let mut random = report::random("crash restore");
    let primary = world.primary(&["-k"]);
    let workload = Workload::start(&primary);
    workload.advance(100);
    world.back_up(&primary, &[]);
    let count = workload.stop();
    primary.archive_now();
    let words = world.restore_words("whole", &[]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let whole = world.cellarman.run(&words);
    whole.ok();
    let mut usual = whole.took;
    let mut killed = 0;
    let kills = report::count(5, 30);
    for attempt in 0..kills * 3 {
        let name = format!("killed-{attempt}");
        let words = world.restore_words(&name, &[]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let delay = moment(&mut random, usual);
        if let Some(code) = kill_after(&mut world.cellarman.command(&words), delay) {
            assert_eq!(code, 0, "a restore failed");
            usual = usual.min(delay);
            continue;
        }
        killed += 1;
        eprintln!("killed after {delay:?}");
        if is_whole(&world.place(&name)) {
            check_recovered(&world.adopt(&name), count);
        } else {
            check_restored(&world, &name, &[], count);
        }
        if killed == kills {
            return;
        }
    }
    panic!("only {killed} of {kills} kills came in time");
}

/// Whether a killed restore had come to its end: the control file, without which no server starts,
/// appears after all else is durable, and after a note in the marker.
fn is_whole(directory: &Path) -> bool {
    let is_startable = directory.join("global/pg_control").exists();
    let marker = fs::read_to_string(directory.join("cellarman_restore_unfinished"));
    let is_noted = marker.is_ok_and(|text| text.contains("pg_control_blake3"));
    let is_marked = directory.join("cellarman_restore_unfinished").exists();
    assert!(
        !is_startable || is_noted || !is_marked,
        "a restore killed half-way left a database: {}",
        directory.display()
    );
    is_startable
}
