//! Compiles `proto/` into client and server types, without the `protoc` program.

use std::error::Error;
use std::fs;

const ROOT: &str = "proto";

/// CNPG-I, and what is our own.
const FOLDERS: [&str; 2] = ["cnpgi", "cellarman/v1"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={ROOT}");
    let mut files = Vec::new();
    for folder in FOLDERS {
        for entry in fs::read_dir(format!("{ROOT}/{folder}"))? {
            files.push(entry?.path());
        }
    }
    // One order everywhere, so that builds are alike.
    files.sort();
    let descriptors = protox::compile(files, [ROOT])?;
    // Definitions travel as bytes, and may be large: they are shared and not copied.
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
