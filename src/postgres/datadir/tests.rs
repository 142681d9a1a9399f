//! Walks over small trees: what is taken, what is left, and what is named that is not here.

use super::*;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

fn write(root: &Path, name: &str) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, name).unwrap();
}

fn names(walk: Walk<'_>) -> Vec<String> {
    let mut names: Vec<_> = walk
        .map(|entry| {
            let entry = entry.unwrap();
            let end = if entry.kind == EntryKind::Directory {
                "/"
            } else {
                ""
            };
            format!("{}{end}", entry.name.display())
        })
        .collect();
    names.sort();
    names
}

/// What of it is taken.
const TAKEN: [&str; 16] = [
    "/",
    "PG_VERSION",
    "base/",
    "base/5/",
    "base/5/1",
    "base/5/2_init",
    "global/",
    "global/1262",
    "log/",
    "pg_tblspc/",
    "pg_tblspc/77/",
    "pg_tblspc/77/PG_15_202209061/",
    "pg_tblspc/77/PG_15_202209061/5/",
    "pg_tblspc/77/PG_15_202209061/5/4",
    "pg_wal/",
    "postgresql.conf",
];

#[test]
fn a_walk_takes_data_and_leaves_the_rest() {
    let home = tempfile::tempdir().unwrap();
    let (real, wal) = (home.path().join("real"), home.path().join("wal"));
    for name in [
        "PG_VERSION",
        "backup_label",
        "pg_hba.conf",
        "base/5/1",
        "base/5/2",
        "base/5/2.1",
        "base/5/2_init",
        "base/5/t1_3",
        "base/pgsql_tmp/x",
        "global/pg_control",
        "global/1262",
        "log/deep/er/x",
        "inner/PG_15_202209061/5/9",
        "pg_tblspc/77/PG_15_202209061/5/4",
        "pg_tblspc/77/PG_15_202209061/5/t1_4",
    ] {
        write(&real, name);
    }
    write(home.path(), "wal/000000010000000000000001");
    write(home.path(), "etc/postgresql.conf");
    symlink(&wal, real.join("pg_wal")).unwrap();
    symlink(
        home.path().join("etc/postgresql.conf"),
        real.join("postgresql.conf"),
    )
    .unwrap();
    symlink("nowhere", real.join("dangling")).unwrap();
    symlink(home.path().join("etc"), real.join("elsewhere")).unwrap();
    symlink(real.join("inner"), real.join("pg_tblspc/16384")).unwrap();
    let _socket = UnixListener::bind(real.join(".s.PGSQL.5432")).unwrap();
    symlink(&real, home.path().join("pgdata")).unwrap();

    let inner = Tablespace {
        name: "inner".to_owned(),
        oid: 16384,
        location: real.join("inner").to_string_lossy().into_owned(),
    };
    let mut data =
        DataDirectory::open(&home.path().join("pgdata"), std::slice::from_ref(&inner)).unwrap();
    data.replace("pg_hba.conf".into());
    assert_eq!(names(data.walk()), TAKEN);
    let version = ServerVersion::from_number(150_000).unwrap();
    assert_eq!(
        names(walk_tablespace(&inner, version)),
        [
            "PG_15_202209061/",
            "PG_15_202209061/5/",
            "PG_15_202209061/5/9"
        ]
    );
}

#[test]
fn a_tablespace_that_is_not_here_is_named() {
    let home = tempfile::tempdir().unwrap();
    let version = ServerVersion::from_number(150_000).unwrap();
    let tablespace = Tablespace {
        name: "fast".to_owned(),
        oid: 16384,
        location: home.path().to_string_lossy().into_owned(),
    };
    let error = check_tablespace(&tablespace, version).unwrap_err();
    assert!(error.to_string().contains("tablespace fast is not here"));
    fs::create_dir(home.path().join("PG_15_202209061")).unwrap();
    check_tablespace(&tablespace, version).unwrap();
}

#[test]
fn a_directory_that_is_not_here_is_named() {
    let error = DataDirectory::open(Path::new("/nonexistent/pgdata"), &[]).unwrap_err();
    assert!(matches!(error, DataDirectoryError::Missing { .. }));
    assert!(error.to_string().contains("/nonexistent/pgdata"));
}
