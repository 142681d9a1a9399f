//! Tests the store, the credentials, the server and the archive, point by point.
//!
//! Changes nothing but a probe object of its own, which it takes away again.

mod archive;
mod server;
mod store;

use crate::barman::repository::Repository;
use crate::fault::{self, Fault, Kind};
use crate::postgres::connect::ConnectOptions;

/// How a point came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// It works, with a limit that one should know.
    Warning,
    /// It does not work.
    Failed(Kind),
    /// Not tested, since something before it failed or is not there.
    NotRun,
}

/// One point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// Its stable name.
    pub name: &'static str,
    /// How it came out.
    pub outcome: Outcome,
    /// What was found.
    pub detail: String,
    /// What to do, as full sentences. Of each point that failed, and of some that warn.
    pub hint: Option<String>,
}

/// The points so far, in the order in which they were tested.
#[derive(Debug, Default)]
struct Points(Vec<Point>);

impl Points {
    fn add(&mut self, name: &'static str, outcome: Outcome, detail: String, hint: Option<String>) {
        self.0.push(Point {
            name,
            outcome,
            detail,
            hint,
        });
    }

    fn ok(&mut self, name: &'static str, detail: impl Into<String>) {
        self.add(name, Outcome::Ok, detail.into(), None);
    }

    fn warn(&mut self, name: &'static str, detail: impl Into<String>, hint: impl Into<String>) {
        self.add(name, Outcome::Warning, detail.into(), Some(hint.into()));
    }

    fn failed(&mut self, name: &'static str, error: &dyn Fault) {
        let outcome = Outcome::Failed(error.kind());
        self.add(name, outcome, fault::chain(error), Some(error.hint()));
    }

    /// What was found is not what is needed, though nothing failed on the way.
    fn refuse(&mut self, name: &'static str, kind: Kind, texts: (String, &str)) {
        let (detail, hint) = texts;
        self.add(name, Outcome::Failed(kind), detail, Some(hint.to_owned()));
    }

    fn not_run(&mut self, names: &[&'static str], reason: &str) {
        for name in names {
            self.add(name, Outcome::NotRun, reason.to_owned(), None);
        }
    }
}

/// What to test.
#[derive(Debug)]
pub struct Check {
    /// The server's part of the store. Its store should not be too patient.
    pub repository: Repository,
    /// Make the container where it is missing.
    pub is_created: bool,
    /// The server.
    pub server: ServerToCheck,
    /// What `archive_command` should be, for hints.
    pub archive_command: String,
}

/// Whether and how to ask the server.
#[derive(Debug)]
pub enum ServerToCheck {
    /// At this address. `is_expected`: the user named it, so no answer is a failure.
    At {
        /// The address.
        connection: Box<ConnectOptions>,
        /// Whether the user named it.
        is_expected: bool,
    },
    /// Not at all, for this reason.
    Nowhere(&'static str),
}

impl Check {
    /// Tests all points, each as far as those before it allow.
    pub async fn run(&self) -> Vec<Point> {
        let mut points = Points::default();
        let is_store_usable = store::check(self, &mut points).await;
        let found = server::check(self, &mut points).await;
        archive::check(self, is_store_usable, found.as_ref(), &mut points).await;
        points.0
    }
}

/// The kind of the first point that failed.
pub fn first_failure(points: &[Point]) -> Option<Kind> {
    points.iter().find_map(|point| match point.outcome {
        Outcome::Failed(kind) => Some(kind),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
