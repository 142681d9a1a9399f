//! What a run says about itself: tests that could not run, the seed, the count of repetitions.

use std::fs::OpenOptions;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::sync::OnceLock;

/// Leaves the test, which then counts as not run, with the reason.
///
/// The whole test: what can only run in part belongs into two tests.
#[macro_export]
macro_rules! not_run {
    ($reason:expr) => {{
        fn here() {}
        $crate::report::not_run(std::any::type_name_of_val(&here), &$reason);
        return;
    }};
}

/// The value of a `Result<_, String>`, or else [`not_run!`] with its error.
#[macro_export]
macro_rules! or_not_run {
    ($needed:expr) => {
        match $needed {
            Ok(value) => value,
            Err(reason) => $crate::not_run!(reason),
        }
    };
}

/// Use [`not_run!`].
pub fn not_run(place: &str, reason: &str) {
    let name = place.trim_end_matches("::here");
    eprintln!("not run: {name}: {reason}");
    let Some(path) = std::env::var_os("CELLARMAN_NOT_RUN") else {
        return;
    };
    // One write of one line: tests append side by side.
    let written = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .and_then(|mut file| file.write_all(format!("{name}: {reason}\n").as_bytes()));
    if let Err(error) = written {
        panic!("cannot write {}: {error}", path.display());
    }
}

/// Whether the run was asked for the full counts.
pub fn is_full() -> bool {
    std::env::var("CELLARMAN_FULL").is_ok_and(|value| value == "1")
}

/// `full` repetitions in a full run, else `reduced`.
pub fn count(reduced: u32, full: u32) -> u32 {
    if is_full() { full } else { reduced }
}

/// The seed of this run: `CELLARMAN_SEED`, or a new one, printed.
pub fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| {
        let given = std::env::var("CELLARMAN_SEED").ok().map(|text| {
            text.parse()
                .unwrap_or_else(|_| panic!("CELLARMAN_SEED is not a number: {text}"))
        });
        given.unwrap_or_else(|| fastrand::u64(..1_000_000_000))
    })
}

/// Random numbers of this run for the test `name`; prints what repeats them.
pub fn random(name: &str) -> fastrand::Rng {
    eprintln!("{name}: CELLARMAN_SEED={}", seed());
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    fastrand::Rng::with_seed(seed() ^ hasher.finish())
}
