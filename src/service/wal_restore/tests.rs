//! Restoring from stores in memory, on disk and at fault.
