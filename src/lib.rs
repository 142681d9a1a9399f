//! Cellarman: backup and point-in-time recovery for PostgreSQL on object storage.
//!
//! # How data flows
//!
//! ```text
//! PostgreSQL --archive_command--> wal archive: read -> check -> index, compress -> one PUT -> acknowledge
//! backup create: begin -> copy (read -> tar -> compress -> parts -> PUT) -> end -> wait for WAL -> backup.info
//! targets, restore: backups and the index of the log -> the record that recovery stops at -> a plan
//! restore: plan -> GET ranges -> decompress -> untar -> recovery settings
//! PostgreSQL --restore_command--> wal restore: prefetched? rename : GET -> decompress -> rename
//! verify: objects, WAL, a server on a copy -> results, kept for the next run and the metrics
//! ```
//!
//! # The layers, in reading order
//!
//! | module | what it is | may import |
//! |---|---|---|
//! | [`fault`], [`clock`] | kinds of failure in one table; the wall clock | nothing of ours |
//! | [`metrics`] | the table of all metrics, and what counts them | nothing of ours |
//! | [`signals`] | being told to end | nothing of ours |
//! | [`domain`] | pure: coordinates, backups, choices | `fault` |
//! | [`pgfile`] | pure: bytes of PostgreSQL's files to values and back | `domain` |
//! | [`codec`] | synchronous filters: compression, digests, tar | nothing of ours |
//! | [`store`] | the seam to object stores; knows nothing of PostgreSQL | nothing of ours |
//! | [`barman`] | the Barman-compatible repository on a store | `domain`, `pgfile`, `codec`, `store` |
//! | [`postgres`] | the live server and its data directory | `domain`, `pgfile` |
//! | [`config`] | the ObjectStore manifest, raw to validated | `domain`, `codec`, `store` |
//! | [`service`] | the use cases | everything above |
//! | [`cnpgi`] | the protocol of CloudNativePG's plugins, generated | nothing of ours |
//! | [`api`] | our own protocol, generated | nothing of ours |
//! | [`cli`] | arguments, one file per command, output | everything above |
//!
//! `tests/tidy.rs` holds this table. Everything may import [`fault`]; only what acts reads [`clock`].
//!
//! # Invariants
//!
//! 1. `domain` and `pgfile` have no async, no I/O and no clock.
//! 2. `store` has never heard of WAL; `barman` has never heard of S3; only `postgres` speaks SQL.
//! 3. Domain types are not `Serialize`: each boundary has its own struct and one conversion.
//! 4. The commit record is written last. On delete it is first rewritten as FAILED without an end
//!    time, then the data goes, the record last. A backup exists when its `backup.info` says DONE.
//! 5. An acknowledged WAL segment is in the store, whole, under its final name. Same name and same
//!    bytes is success; same name and other bytes is refused, and what is there stays.
//! 6. On restore, "not found" is said only when the store said so.
//! 7. What destroys is a plan, with reasons, and then a run.
//! 8. Nothing is unbounded: memory does not grow with the database.
//! 9. Files appear whole: temporary name, fsync, rename, fsync of the directory.
//! 10. What we add to a bucket lives under `<server>/cellarman/` and is derived or optional.
//! 11. Secrets never reach a log, an argv, an error or a `Debug`.

pub mod api;
pub mod barman;
pub mod cli;
pub mod clock;
pub mod cnpgi;
pub mod codec;
pub mod config;
pub mod domain;
pub mod fault;
pub mod metrics;
pub mod pgfile;
pub mod postgres;
pub mod service;
pub mod signals;
pub mod store;
