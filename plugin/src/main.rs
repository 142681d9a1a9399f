//! The program `cellarman-plugin`: everything is in the library of the same name.

fn main() {
    #[expect(clippy::print_stdout, reason = "printing the version is all it does")]
    {
        println!("cellarman-plugin {}", env!("CARGO_PKG_VERSION"));
    }
}
