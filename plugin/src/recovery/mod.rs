//! What a Cluster asks of a recovery, for all who plan it.
//!
//! | module | what it is |
//! |---|---|
//! | [`target`] | its words read |
//! | [`hints`] | pure: what to do about a refusal, in its words |
//!
//! Not here: the plan (`cellarman::service::restore`).

pub mod hints;
pub mod target;
