//! What holds for the patches of all Pods and Jobs.
//!
//! Not here: what is in them (`tests`).

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::operator::lifecycle::cases::{CLUSTERS, Case, cases};
use crate::operator::lifecycle::shapes::{jobs, pods};

#[test]
fn a_patched_object_asks_for_no_further_patch() {
    for (name, mut case) in cases() {
        case.object = case.patched();
        assert_eq!(case.patch(), None, "{name}");
    }
}

#[test]
fn the_operators_own_way_of_writing_changes_nothing() {
    for (name, mut case) in cases() {
        let mut patched = case.patched();
        leave_out_empty_values(&mut patched);
        case.object = patched;
        assert_eq!(case.patch(), None, "{name}");
    }
}

/// As Go writes objects: fields with empty values are left out.
fn leave_out_empty_values(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, value| {
                leave_out_empty_values(value);
                let is_empty = value.as_str() == Some("")
                    || value.as_array().is_some_and(Vec::is_empty)
                    || value.is_null();
                // A pointer in Go: an empty one is not the same as none.
                !is_empty || name == "emptyDir"
            });
        }
        Value::Array(items) => items.iter_mut().for_each(leave_out_empty_values),
        _ => {}
    }
}

#[test]
fn evaluating_a_pod_and_creating_it_are_one() {
    for (name, mut case) in cases() {
        let created = case.patch();
        case.operation = OperationType::Evaluate;
        if name.starts_with("pod") {
            assert_eq!(case.patch(), created, "{name}");
        } else {
            assert_eq!(case.patch(), None, "{name}");
        }
    }
}

/// Any JSON, small.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z~/ ]{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("x[a-z~/]{0,3}", inner, 0..3)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Puts a field that nobody knows into each of some objects of the document.
fn sow(document: &mut Value, seeds: &mut impl Iterator<Item = Option<Value>>) {
    match document {
        Value::Object(fields) => {
            fields.values_mut().for_each(|value| sow(value, seeds));
            if let Some(Some(value)) = seeds.next() {
                fields.insert("fromTheFuture".to_owned(), value);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|value| sow(value, seeds)),
        _ => {}
    }
}

/// How often each value of a field that nobody knows is there, outside of the sidecar.
fn harvest(document: &Value, found: &mut Vec<String>) {
    match document {
        Value::Object(fields) if fields.get("name") == Some(&json!("plugin-barman-cloud")) => {}
        Value::Object(fields) => {
            found.extend(fields.get("fromTheFuture").map(Value::to_string));
            fields.values().for_each(|value| harvest(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| harvest(value, found)),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn fields_that_nobody_knows_survive(
        seeds in prop::collection::vec(prop::option::of(any_json()), 1..40),
        shape in any::<prop::sample::Index>(),
        archives in prop::sample::select(CLUSTERS.map(|(_, archives, _)| archives).to_vec()),
    ) {
        let mut objects: Vec<_> = pods().into_iter().chain(jobs()).collect();
        let (_, object) = objects.swap_remove(shape.index(objects.len()));
        let mut case = Case::new(archives, object);
        sow(&mut case.object, &mut seeds.into_iter().cycle());
        let (mut before, mut after) = (Vec::new(), Vec::new());
        harvest(&case.object, &mut before);
        let patched = case.patched();
        harvest(&patched, &mut after);
        prop_assert_eq!(before, after);
        case.object = patched;
        prop_assert_eq!(case.patch(), None);
    }
}
