//! The program `cellarman-plugin`: everything is in the library of the same name.

use std::process::ExitCode;

fn main() -> ExitCode {
    cellarman_plugin::program::main()
}
