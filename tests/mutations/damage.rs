//! How a file gets damaged: flipped bits, cuts, spans that are lost, doubled, moved, or another
//! file's.

use std::hash::{DefaultHasher, Hash, Hasher};

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use testbed::report;

/// One change to a file. Places are anywhere in it, lengths are small or reach far.
#[derive(Debug, Clone)]
enum Damage {
    Flip(Index, u8),
    Write(Index, Vec<u8>),
    Cut(Index),
    Lose(Index, usize),
    Double(Index, usize, usize),
    Move(Index, usize, Index),
    Splice(Index, Index, usize, Index),
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 1..40usize, 1 => 40..2_000usize]
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<Index>;
    // Bytes that mean something to one reader or another.
    let telling = prop::sample::select(&b"\0\n\r\t '\"\\/=([{,:#-.09xuN\x7f\x80\xff"[..]);
    let word = prop::collection::vec(prop_oneof![telling, any::<u8>()], 1..5);
    prop_oneof![
        (at(), 0..8u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        (at(), word).prop_map(|(at, bytes)| Damage::Write(at, bytes)),
        at().prop_map(Damage::Cut),
        (at(), length()).prop_map(|(at, length)| Damage::Lose(at, length)),
        (at(), length(), 1..4usize)
            .prop_map(|(at, length, times)| Damage::Double(at, length, times)),
        (at(), length(), at()).prop_map(|(from, length, to)| Damage::Move(from, length, to)),
        (at(), at(), length(), at())
            .prop_map(|(other, from, length, to)| { Damage::Splice(other, from, length, to) }),
    ]
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>, all: &[Vec<u8>]) {
        if bytes.is_empty() {
            return;
        }
        let span = |bytes: &[u8], at: &Index, length: usize| {
            let begin = at.index(bytes.len());
            begin..begin.saturating_add(length).min(bytes.len())
        };
        match self {
            Self::Flip(at, bit) => *at.get_mut(bytes) ^= 1 << bit,
            Self::Write(at, written) => {
                let place = span(bytes, at, written.len());
                bytes.splice(place, written.iter().copied());
            }
            Self::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Self::Lose(at, length) => drop(bytes.drain(span(bytes, at, *length))),
            Self::Double(at, length, times) => {
                let place = span(bytes, at, *length);
                let copies = bytes[place.clone()].repeat(*times);
                bytes.splice(place.end..place.end, copies);
            }
            Self::Move(from, length, to) => {
                let place = span(bytes, from, *length);
                let moved: Vec<u8> = bytes.drain(place).collect();
                let to = to.index(bytes.len() + 1);
                bytes.splice(to..to, moved);
            }
            Self::Splice(other, from, length, to) => {
                let other = &all[other.index(all.len())];
                if !other.is_empty() {
                    let piece = other[span(other, from, *length)].to_vec();
                    let place = span(bytes, to, piece.len());
                    bytes.splice(place, piece);
                }
            }
        }
    }
}

/// Damages each of `files` some times over and has `judge` look at it; a panic in it, or an
/// error of it, fails the test with the damage that did it, made as small as can be.
pub(crate) fn check(
    name: &str,
    (reduced, full): (u32, u32),
    files: &[Vec<u8>],
    judge: impl Fn(&[u8]) -> Result<(), TestCaseError>,
) {
    eprintln!("{name}: CELLARMAN_SEED={}", report::seed());
    let mut hasher = DefaultHasher::new();
    (name, report::seed()).hash(&mut hasher);
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&hasher.finish().to_le_bytes());
    let config = Config {
        cases: report::count(reduced, full),
        failure_persistence: None,
        max_shrink_iters: 4_096,
        ..Config::default()
    };
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(config, random);
    let strategy = (any::<Index>(), prop::collection::vec(damage(), 0..8));
    let outcome = runner.run(&strategy, |(file, damages)| {
        let mut bytes = files[file.index(files.len())].clone();
        for damage in &damages {
            damage.apply(&mut bytes, files);
        }
        judge(&bytes)
    });
    if let Err(error) = outcome {
        panic!("{name}: {error}");
    }
}
