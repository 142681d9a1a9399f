//! The CloudNativePG side of Cellarman: a skeleton that prints its version.

fn main() {
    #[expect(clippy::print_stdout, reason = "printing the version is all it does")]
    {
        println!("cellarman-plugin {}", env!("CARGO_PKG_VERSION"));
    }
}
