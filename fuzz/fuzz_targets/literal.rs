//! Any text as a Python literal: what is written of it reads the same.
#![no_main]

use cellarman::barman::literal::Literal;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(literal) = Literal::parse(text) {
        assert_eq!(Literal::parse(&literal.to_string()), Ok(literal));
    }
});
