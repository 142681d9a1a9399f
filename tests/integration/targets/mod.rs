//! What the plan of a recovery says, against what PostgreSQL does: random histories, random targets.
//!
//! Each target that the plan reaches is recovered to: the server stops at the record it names, and
//! has the rows of that moment. Each that it refuses is forced upon PostgreSQL, from each backup on
//! the line, and fails. Not here: single cases (`bad_input::targets`).

mod around;
mod branches;
mod history;
mod verdict;

use testbed::cluster::Release;
use testbed::report;
use testbed::world::World;
use testbed::{not_run, or_not_run};

use crate::targets::history::History;

/// How many targets are tried of one history.
const TARGETS: u32 = 10;

#[test]
fn plans_are_what_the_distributions_postgresql_does() {
    check("targets-distribution", Release::distribution());
}

#[test]
fn plans_are_what_postgresql_18_does() {
    check("targets-18", Release::eighteen());
}

fn check(name: &str, release: Result<Release, String>) {
    let release = or_not_run!(release);
    let mut random = report::random(name);
    for _ in 0..report::count(1, 10) {
        let binary = env!("CARGO_BIN_EXE_cellarman");
        let world = match World::new(binary, Ok(release.clone())) {
            Ok(world) => world,
            Err(reason) => not_run!(reason),
        };
        let history = History::make(&world, &mut random);
        for number in 0..TARGETS {
            let target = history.target(&mut random);
            verdict::check(&world, &history, &target, number);
        }
    }
}
