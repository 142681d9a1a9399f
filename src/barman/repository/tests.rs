//! The repository on a store in memory.
