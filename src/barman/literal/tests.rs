//! Literals against what Python prints.

use proptest::prelude::*;

use super::*;

fn any_literal() -> impl Strategy<Value = Literal> {
    let leaf = prop_oneof![
        Just(Literal::None),
        any::<bool>().prop_map(Literal::Bool),
        any::<u64>().prop_map(Literal::integer),
        (-1e12..1e12f64).prop_map(Literal::seconds),
        any::<String>().prop_map(Literal::Text),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Literal::List),
            prop::collection::vec(inner.clone(), 0..4).prop_map(Literal::Tuple),
            prop::collection::vec((inner.clone(), inner), 0..4).prop_map(Literal::Dict),
        ]
    })
}

proptest! {
    #[test]
    fn literals_read_as_they_are_written_on_one_line(literal in any_literal()) {
        let text = literal.to_string();
        prop_assert!(!text.contains('\n'));
        prop_assert_eq!(Literal::parse(&text), Ok(literal));
    }

    #[test]
    fn no_text_is_a_panic(text in "[-\\[\\](){}'\",:\\\\xuU0-9eNTé. ]{0,40}") {
        let _ = Literal::parse(&text);
    }
}

#[test]
fn what_python_prints_is_printed_back() {
    for text in [
        "None",
        "[('tsone', 16384, '/srv/lab/ts1'), ('ts Two', 16385, '/srv/lab/ts2')]",
        "{'a': 2.74515, 'b': 1e-06, 'c': {'16384': 0}, 'd': []}",
        r#"["it's", 'both \' and "', 'a\\b\n\x00\u2028']"#,
        "('one',)",
        "()",
        "[True, False, -5]",
    ] {
        assert_eq!(Literal::parse(text).unwrap().to_string(), text);
    }
}

#[test]
fn other_ways_to_write_it_are_read() {
    for (text, same) in [
        ("( 'x' )", "'x'"),
        ("[1,2,]", "[1, 2]"),
        (r#""\x41\u0042\U00000043\"""#, "'ABC\"'"),
    ] {
        assert_eq!(Literal::parse(text).unwrap().to_string(), same);
    }
}

#[test]
fn what_is_no_literal_is_refused() {
    let deep = "[".repeat(100_000);
    for text in [
        "",
        "[",
        "'",
        "'\\",
        "'\\x4'",
        "'\\ud800'",
        "[1 2]",
        "{1}",
        "{1:}",
        "Nonesuch",
        "1-",
        "x",
        "1 2",
        "--1",
        &deep,
    ] {
        assert!(Literal::parse(text).is_err(), "{text}");
    }
}

#[test]
fn seconds_are_printed_as_python_prints_them() {
    for (seconds, text) in [
        (0.0, "0.0"),
        (2.068_769_4, "2.068769"),
        (0.000_001, "1e-06"),
        (0.000_25, "0.00025"),
        (0.000_025, "2.5e-05"),
        (1_234_567.0, "1234567.0"),
        (f64::NAN, "0.0"),
    ] {
        assert_eq!(Literal::seconds(seconds).to_string(), text);
    }
}
