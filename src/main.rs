//! The `cellarman` command: hands its arguments to the library and its outcome to the shell.

use std::process::ExitCode;

fn main() -> ExitCode {
    cellarman::cli::main()
}
