//! Archiving against stores in memory, on disk and at fault.
