//! The harness itself: Barman alone backs up, lists and restores through it.

use testbed::account::Account;
use testbed::barman::Barman;
use testbed::cluster::{Cluster, Release};
use testbed::minio::Minio;
use testbed::or_not_run;
use testbed::scratch::Scratch;

#[test]
fn barman_alone_goes_round() {
    let scratch = Scratch::new(Account::of_servers().expect("an account"));
    let release = or_not_run!(Release::distribution());
    let minio = or_not_run!(Minio::start(&scratch));
    let barman = or_not_run!(Barman::new(&scratch, &minio));
    let url = minio.url("bm");
    let cluster = Cluster::create(&release, &scratch, "primary", &[]);
    let archive = barman
        .program("wal-archive")
        .shell_line(&["--lz4", &url, "alone", "%p"]);
    cluster.configure(&format!("archive_mode = on\narchive_command = '{archive}'"));
    cluster.start();
    cluster
        .sql()
        .run("CREATE TABLE t AS SELECT generate_series(1, 1000) AS id");
    barman
        .program("backup")
        .with_server(cluster.socket_directory())
        .run(&["--lz4", "--immediate-checkpoint", &url, "alone"])
        .ok();
    cluster
        .sql()
        .run("INSERT INTO t SELECT generate_series(1001, 2000)");
    cluster.archive_now();
    let list = barman.run("backup-list", &["--format", "json", &url, "alone"]);
    list.ok();
    assert!(
        list.stdout.contains("\"status\": \"DONE\""),
        "{}",
        list.describe()
    );
    let directory = scratch.path().join("restored");
    let path = directory.display().to_string();
    barman.run("restore", &[&url, "alone", "last", &path]).ok();
    let restored = Cluster::adopt(&release, &scratch, "restored", directory);
    let restore = barman
        .program("wal-restore")
        .shell_line(&[&url, "alone", "%f", "%p"]);
    restored.recover(&format!(
        "restore_command = '{restore}'\nrecovery_target_action = 'promote'"
    ));
    restored.start();
    restored.wait_until_recovered();
    assert_eq!(restored.sql().value("SELECT count(*) FROM t"), "2000");
}
