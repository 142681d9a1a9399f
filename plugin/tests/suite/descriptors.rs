//! `proto/` beside the published protocol of CloudNativePG's plugins, down to each field.
//!
//! Not here: what is done with the messages. The published files come as a Go module and are only
//! read; comments and the division into files are nobody's contract.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use protox::prost_reflect::{
    DescriptorPool, EnumDescriptor, FieldDescriptor, MessageDescriptor, ServiceDescriptor,
};
use testbed::cache;

/// Each thing of the protocol by its full name, and all that is said of it.
type Protocol = BTreeMap<String, String>;

#[test]
fn the_protocol_is_the_published_one_field_by_field() {
    let published = cache::directory().join("cnpgi/proto");
    let published = testbed::or_not_run!(cache::installed("cnpgi", &published));
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    let differences = differences(&protocol(&ours.join("cnpgi")), &protocol(&published));
    assert!(
        differences.is_empty(),
        "proto/ differs from {}:\n{}",
        published.display(),
        differences.join("\n")
    );
}

#[test]
fn each_kind_of_difference_is_told() {
    let one = "syntax = \"proto3\"; package cnpgi.a.v1;
        service S { rpc Get(M) returns (M); rpc Gone(M) returns (M); }
        message M { optional bool flag = 1; repeated string names = 2; oneof type { N n = 3; int64 i = 4; }
                    map<string, string> values = 5; bool same = 6; message N {} }
        enum E { E_ZERO = 0; E_ONE = 1; }";
    let other = "syntax = \"proto3\"; package cnpgi.a.v1;
        service S { rpc Get(M) returns (stream M); }
        message M { bool flag = 1; string names = 2; N n = 3; oneof type { int32 i = 4; }
                    map<string, bytes> values = 5; bool same = 6; bool more = 7; message N {} }
        enum E { E_ZERO = 0; E_TWO = 1; }";
    let folder = tempfile::tempdir().expect("a directory for scratch");
    let read = |text: &str| {
        fs::write(folder.path().join("a.proto"), text).expect("a writable directory");
        protocol(folder.path())
    };
    let found = differences(&read(one), &read(other));
    let named: Vec<&str> = found
        .iter()
        .filter_map(|line| line.split(':').next())
        .collect();
    assert_eq!(
        named,
        [
            "cnpgi.a.v1.E = 1",
            "cnpgi.a.v1.M field 1",
            "cnpgi.a.v1.M field 2",
            "cnpgi.a.v1.M field 3",
            "cnpgi.a.v1.M field 4",
            "cnpgi.a.v1.M field 7",
            "cnpgi.a.v1.M.ValuesEntry field 2",
            "cnpgi.a.v1.S.Get",
            "cnpgi.a.v1.S.Gone",
        ],
        "{found:#?}"
    );
}

/// The protocol that the files of a folder define.
fn protocol(folder: &Path) -> Protocol {
    let entries = fs::read_dir(folder).expect("a folder of proto files");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "proto")
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no proto file in {}", folder.display());
    let set = protox::compile(&files, [folder]).expect("files that compile");
    let pool = DescriptorPool::from_file_descriptor_set(set).expect("a whole set");
    let mut protocol = Protocol::new();
    for service in pool
        .services()
        .filter(|service| is_of_plugins(service.full_name()))
    {
        add_service(&mut protocol, &service);
    }
    for message in pool
        .all_messages()
        .filter(|message| is_of_plugins(message.full_name()))
    {
        add_message(&mut protocol, &message);
    }
    for enumeration in pool
        .all_enums()
        .filter(|enumeration| is_of_plugins(enumeration.full_name()))
    {
        add_enum(&mut protocol, &enumeration);
    }
    protocol
}

/// Files may import Google's well-known types, which are in the pool then.
fn is_of_plugins(full_name: &str) -> bool {
    full_name.starts_with("cnpgi.")
}

fn add_service(protocol: &mut Protocol, service: &ServiceDescriptor) {
    protocol.insert(service.full_name().to_owned(), "service".to_owned());
    for method in service.methods() {
        let stream = |is_streaming| if is_streaming { "stream " } else { "" };
        let description = format!(
            "rpc ({}{}) returns ({}{})",
            stream(method.is_client_streaming()),
            method.input().full_name(),
            stream(method.is_server_streaming()),
            method.output().full_name(),
        );
        protocol.insert(method.full_name().to_owned(), description);
    }
}

fn add_message(protocol: &mut Protocol, message: &MessageDescriptor) {
    let name = message.full_name();
    protocol.insert(
        name.to_owned(),
        format!("message, a map's entry: {}", message.is_map_entry()),
    );
    for field in message.fields() {
        protocol.insert(
            format!("{name} field {}", field.number()),
            description(&field),
        );
    }
}

fn description(field: &FieldDescriptor) -> String {
    let raw = field.field_descriptor_proto();
    let oneof = field
        .containing_oneof()
        .filter(|oneof| !oneof.is_synthetic())
        .map_or_else(|| "none".to_owned(), |oneof| oneof.name().to_owned());
    format!(
        "{} of {:?}, {:?}, optional: {}, packed: {}, oneof: {oneof}, in JSON {}",
        field.name(),
        field.kind(),
        field.cardinality(),
        raw.proto3_optional(),
        field.is_packed(),
        field.json_name(),
    )
}

fn add_enum(protocol: &mut Protocol, enumeration: &EnumDescriptor) {
    let name = enumeration.full_name();
    protocol.insert(name.to_owned(), "enum".to_owned());
    for value in enumeration.values() {
        protocol.insert(
            format!("{name} = {}", value.number()),
            value.name().to_owned(),
        );
    }
}

/// What one says and the other does not, by name.
fn differences(ours: &Protocol, published: &Protocol) -> Vec<String> {
    let mut names: Vec<&String> = ours.keys().chain(published.keys()).collect();
    names.sort();
    names.dedup();
    let said = |description: Option<&String>| {
        description.map_or_else(|| "is not there".to_owned(), Clone::clone)
    };
    names
        .into_iter()
        .filter(|name| ours.get(*name) != published.get(*name))
        .map(|name| {
            format!(
                "{name}:\n  ours:      {}\n  published: {}",
                said(ours.get(name)),
                said(published.get(name))
            )
        })
        .collect()
}
