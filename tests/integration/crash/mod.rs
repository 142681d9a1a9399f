//! The program killed at random moments: what was acknowledged stays, what was not never looks done.
//!
//! `CELLARMAN_SEED` repeats a run. Killed in a full run: 60 times an archiver, 30 times one that
//! PostgreSQL drives, 30 times a restore of WAL, 40 times a backup, 30 times a restore, 30 times an
//! expiration; and the invariants 4, 5, 6 and 9 of `src/lib.rs` are looked at after each.

mod archive;
mod backup;
mod expire;
mod restore;

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use testbed::cluster::{Cluster, Release};
use testbed::workload;
use testbed::world::World;

fn world() -> Result<World, String> {
    World::new(env!("CARGO_BIN_EXE_cellarman"), Release::distribution())
}

/// Starts a command, kills it after `delay` unless it ends before, and says how it ended:
/// its exit code, or nothing when the kill was in time.
fn kill_after(command: &mut Command, delay: Duration) -> Option<i32> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let deadline = Instant::now() + delay;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().expect("a child of ours") {
            return status.code();
        }
        thread::sleep(Duration::from_millis(1));
    }
    child.kill().expect("a child of ours");
    child.wait().expect("a child of ours").code()
}

/// A moment between now and a little after `usual`, the time that the whole run takes.
fn moment(random: &mut fastrand::Rng, usual: Duration) -> Duration {
    usual.mul_f64(random.f64() * 1.05)
}

/// The archive's end comes back, from the backup that the options choose.
pub(crate) fn check_restored(world: &World, name: &str, options: &[&str], count: u64) {
    check_recovered(&world.restore(name, options), count);
}

/// The cluster recovers to the archive's end.
fn check_recovered(restored: &Cluster, count: u64) {
    restored.start_with(&["archive_mode=off"]);
    restored.wait_until_recovered();
    assert_eq!(workload::verify(&restored.sql()), count);
}
