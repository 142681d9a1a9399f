//! The harness itself, proved without the program: servers start, answer and stop.

use testbed::account::Account;
use testbed::cluster::{Cluster, Release};
use testbed::minio::Minio;
use testbed::scratch::Scratch;
use testbed::{not_run, or_not_run};

fn check_cluster(release: &Release, initdb: &[&str]) {
    let account = Account::of_servers().expect("an account");
    let scratch = Scratch::new(account);
    let archive = scratch.make("archive");
    let cluster = Cluster::create(release, &scratch, "primary", initdb);
    cluster.configure(&format!(
        "archive_mode = on\narchive_command = 'cp %p {}/%f'",
        archive.display()
    ));
    cluster.start();
    let sql = cluster.sql();
    sql.run("CREATE TABLE t (id int); INSERT INTO t SELECT generate_series(1, 100)");
    assert_eq!(sql.rows("SELECT count(*), max(id) FROM t"), ["100|100"]);
    assert!(sql.try_rows("SELECT 1/0").is_err());
    let segment = cluster.archive_now();
    assert!(archive.join(segment).exists());
    cluster.stop();
    cluster.start();
    assert_eq!(cluster.sql().value("SELECT count(*) FROM t"), "100");
}

#[test]
fn the_distributions_postgresql_starts_archives_and_stops() {
    let release = or_not_run!(Release::distribution());
    check_cluster(&release, &["-k"]);
}

#[test]
fn postgresql_18_starts_archives_and_stops_with_small_segments() {
    let release = or_not_run!(Release::eighteen());
    check_cluster(&release, &["--wal-segsize=1"]);
}

#[test]
fn postgresql_13_starts_archives_and_stops() {
    let release = or_not_run!(Release::other_debian(13));
    check_cluster(&release, &[]);
}

#[test]
fn postgresql_17_starts_archives_and_stops_with_large_segments() {
    let release = or_not_run!(Release::other_debian(17));
    check_cluster(&release, &["--wal-segsize=64"]);
}

#[test]
fn two_minio_servers_stand_side_by_side() {
    let scratches = [(); 2].map(|()| Scratch::new(Account::of_servers().expect("an account")));
    let mut servers = Vec::new();
    for scratch in &scratches {
        servers.push(or_not_run!(Minio::start(scratch)));
    }
    assert_ne!(servers[0].endpoint(), servers[1].endpoint());
}

#[test]
fn what_cannot_run_says_so() {
    if std::env::var_os("CELLARMAN_SHOW_NOT_RUN").is_some() {
        not_run!("it was asked to show that it can");
    }
}
