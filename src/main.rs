//! The `cellarman` command.

fn main() {}
