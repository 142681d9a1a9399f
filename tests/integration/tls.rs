//! Stores behind TLS whose certificate an authority of the house has signed.

use std::path::Path;

use testbed::account::Account;
use testbed::certificates::Authority;
use testbed::minio::Minio;
use testbed::or_not_run;
use testbed::process::Ended;
use testbed::program::Program;
use testbed::scratch::Scratch;
use testbed::wait;

/// A store behind TLS and the program beside it.
struct Bed {
    scratch: Scratch,
    authority: Authority,
    minio: Minio,
    program: Program,
}

impl Bed {
    fn new() -> Result<Self, String> {
        let scratch = Scratch::new(Account::of_servers()?);
        let authority = Authority::new(&scratch)?;
        let minio = Minio::start_with_tls(&scratch, &authority.server)?;
        let program = program(&scratch).with_environment(&minio.environment());
        Ok(Self {
            scratch,
            authority,
            minio,
            program,
        })
    }
}

fn program(scratch: &Scratch) -> Program {
    Program::built(env!("CARGO_BIN_EXE_cellarman"), scratch)
        .with_variable("CELLARMAN_STORE", "s3://cellar/path")
        .with_variable("CELLARMAN_SERVER", "pg")
}

/// Lists backups, again and again until the store serves: MinIO listens before it does.
#[track_caller]
fn lists(program: &Program) {
    let listed = wait::until(wait::PATIENCE, || {
        let ended = program.run(&["backup", "list"]);
        ended.status.success().then_some(())
    });
    assert!(
        listed.is_some(),
        "{}",
        program.run(&["backup", "list"]).describe()
    );
}

fn with_bundle(program: &Program, bundle: &Path) -> Program {
    program
        .clone()
        .with_variable("AWS_CA_BUNDLE", &bundle.display().to_string())
}

/// Fails the test unless the settings were refused with all these words and a hint.
#[track_caller]
fn is_refused(ended: &Ended, words: &[&str]) {
    ended.exits_with(3);
    for word in words.iter().chain(&["hint: "]) {
        assert!(ended.stderr.contains(word), "{word}: {}", ended.describe());
    }
}

#[test]
fn a_bundle_of_the_house_is_trusted_from_the_environment_and_from_a_manifest() {
    let bed = or_not_run!(Bed::new());
    lists(&with_bundle(&bed.program, &bed.authority.bundle));

    let pem = std::fs::read_to_string(&bed.authority.bundle).expect("a bundle");
    let manifest = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: ca}}\nstringData:\n  ca.pem: {pem:?}\n\
         ---\napiVersion: barmancloud.cnpg.io/v1\nkind: ObjectStore\nmetadata: {{name: store}}\n\
         spec:\n  configuration:\n    destinationPath: s3://cellar/path\n    endpointURL: {}\n    \
         endpointCA: {{name: ca, key: ca.pem}}\n",
        bed.minio.endpoint()
    );
    let manifest = bed.scratch.write("store.yaml", &manifest);
    let manifest = manifest.display().to_string();
    let by_manifest = bed
        .program
        .clone()
        .with_variable("CELLARMAN_STORE", "")
        .with_variable("CELLARMAN_STORE_FILE", &manifest);
    lists(&by_manifest);
}

#[test]
fn an_authority_that_nobody_named_is_not_trusted() {
    let bed = or_not_run!(Bed::new());
    let ended = bed.program.run(&["backup", "list"]);
    is_refused(&ended, &["UnknownIssuer"]);
}

#[test]
fn a_bundle_that_is_none_is_refused_with_its_name() {
    let scratch = Scratch::new(Account::of_servers().expect("an account"));
    let program = program(&scratch).with_variable("AWS_ENDPOINT_URL", "https://127.0.0.1:1");
    for (name, text, problem) in [
        ("empty.pem", "", "holds no certificate"),
        (
            "no-x509.pem",
            "-----BEGIN CERTIFICATE-----\nMAYwAgIAAwA=\n-----END CERTIFICATE-----\n",
            "is not X.509",
        ),
    ] {
        let bundle = scratch.write(name, text);
        let ended = with_bundle(&program, &bundle).run(&["backup", "list"]);
        is_refused(&ended, &[name, problem]);
    }
    let ended = with_bundle(&program, Path::new("/proc/no.pem")).run(&["backup", "list"]);
    is_refused(&ended, &["/proc/no.pem", "No such file"]);
}
