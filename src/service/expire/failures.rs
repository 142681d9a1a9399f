//! What could not be deleted, and whether to go on in spite of it.
//!
//! An object may be locked, or a policy may hold it: that is no reason to leave all others. A store
//! that fails or refuses altogether is: each backup tried is marked FAILED first.

use tracing::warn;

use crate::barman::repository::RepositoryError;
use crate::fault::{Fault, Kind, chain};
use crate::service::catalog::CatalogError;
use crate::store::error::StoreErrorKind;

/// After so many failures in a row, no more backups are marked FAILED to be tried.
const NEW_IN_A_ROW_MAX: usize = 5;
/// After so many failures in a row, nothing more is tried.
const IN_A_ROW_MAX: usize = 100;

/// What could not be deleted, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What it was, as in "backup 20261121T054347".
    pub what: String,
    /// What kind of failure it was.
    pub kind: Kind,
    /// Why.
    pub reason: String,
}

/// What a failure befell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tried {
    /// What had never been tried before.
    New,
    /// What had been given up already: trying takes nothing from anybody.
    GivenUp,
}

/// The failures in a row.
#[derive(Debug, Default)]
pub(super) struct Row {
    all: usize,
    new: usize,
}

impl Row {
    /// Something went well.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }

    /// The failure to be told, where it is worth going on; the error itself where it is not.
    pub(super) fn go_on(
        &mut self,
        what: &str,
        tried: Tried,
        error: CatalogError,
    ) -> Result<Failure, CatalogError> {
        self.all += 1;
        self.new += usize::from(tried == Tried::New);
        let is_enough = self.all >= IN_A_ROW_MAX || self.new >= NEW_IN_A_ROW_MAX;
        if is_enough || is_of_all(&error) {
            return Err(error);
        }
        let reason = chain(&error);
        warn!("cannot delete {what}, going on without: {reason}");
        Ok(Failure {
            what: what.to_owned(),
            kind: error.kind(),
            reason,
        })
    }
}

/// Whether whatever else is asked for would fail too.
fn is_of_all(error: &CatalogError) -> bool {
    if let CatalogError::Repository(RepositoryError::Store(error)) = error
        && matches!(
            error.kind,
            StoreErrorKind::Expired | StoreErrorKind::ClockSkewed
        )
    {
        return true;
    }
    matches!(
        error.kind(),
        Kind::Unreachable | Kind::Throttled | Kind::NoContainer | Kind::Config | Kind::Cancelled
    )
}
