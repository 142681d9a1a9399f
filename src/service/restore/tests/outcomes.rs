//! What a restore makes, and what it leaves when it cannot.

use super::*;

#[tokio::test]
async fn every_codec_makes_a_cluster_that_is_ready_to_start() {
    for codec in Codec::ALL {
        Bed::new(codec).await.check_restores().await;
    }
}

#[tokio::test]
async fn a_plan_changes_nothing_and_gives_reasons() {
    let bed = Bed::new(Codec::Gzip).await;
    let plan = bed.plan().await.unwrap();
    bed.check_nothing_is_left();
    assert!(!plan.reasons.is_empty());
    assert_eq!((plan.archives.len(), plan.wal.count), (2, 2));
    assert_eq!(
        plan.fetch_bytes,
        plan.archives
            .iter()
            .map(|archive| archive.stored.size)
            .sum::<u64>()
    );
}

#[tokio::test]
async fn a_torn_archive_leaves_nothing() {
    for codec in Codec::ALL {
        let bed = Bed::new(codec).await;
        let whole = compressed(&tar(MEMBERS), codec);
        for cut in [
            0,
            1,
            512,
            whole.len() / 2,
            whole.len() - whole.len().min(10_300),
        ] {
            bed.put(&bed.key(None, 0), &whole[..cut]).await;
            bed.check_fails(Kind::Corrupt).await;
        }
    }
}

#[tokio::test]
async fn a_tar_cut_between_two_members_is_torn() {
    let bed = Bed::new(Codec::None).await;
    let whole = tar(&MEMBERS[..2]);
    // The root's header, then a header and a block for PG_VERSION.
    bed.put(&bed.key(None, 0), &whole[..3 * 512]).await;
    let error = bed.check_fails(Kind::Corrupt).await;
    assert!(crate::fault::chain(&error).contains("no end marker"));
}

#[tokio::test]
async fn members_that_would_leave_the_directory_are_refused() {
    let outside = "/tmp/cellarman-test-must-not-exist";
    let link_out = format!("out -> {outside}");
    let cases: [&[Member<'_>]; 5] = [
        &[("../evil", b"x")],
        &[("base/../../evil", b"x")],
        &[("/tmp/cellarman-test-must-not-exist", b"x")],
        &[(&link_out, b""), ("out/evil", b"x")],
        &[("base/", b""), ("base", b"x")],
    ];
    for members in cases {
        let bed = Bed::new(Codec::None).await;
        bed.put_archive(None, 0, &tar(members)).await;
        let error = bed.check_fails(Kind::Corrupt).await;
        assert!(
            matches!(error, RestoreError::UnsafeMember { .. }),
            "{members:?} {error:?}"
        );
        assert!(!Path::new(outside).exists());
    }
}

#[tokio::test]
async fn a_file_replaces_a_link_of_its_name_without_following_it() {
    let bed = Bed::new(Codec::None).await;
    let victim = bed.path("victim");
    fs::write(&victim, "untouched").unwrap();
    let link = format!("a -> {}", victim.display());
    let mut members = MEMBERS.to_vec();
    members.extend([(link.as_str(), &b""[..]), ("a", b"new")]);
    bed.put_archive(None, 0, &tar(&members)).await;
    bed.restore().await.unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    assert_eq!(fs::read_to_string(bed.pgdata().join("a")).unwrap(), "new");
}

#[tokio::test]
async fn of_a_file_in_several_pieces_the_last_stays() {
    let bed = Bed::new(Codec::None).await;
    bed.put_record("").await;
    for piece in 1..6 {
        let contents = format!("local all all piece-{piece}\n");
        bed.put_archive(None, piece, &tar(&[("pg_hba.conf", contents.as_bytes())]))
            .await;
    }
    bed.restore().await.unwrap();
    let kept = fs::read_to_string(bed.pgdata().join("pg_hba.conf")).unwrap();
    assert_eq!(kept, "local all all piece-5\n");
}

async fn put_objects(bed: &Bed, blake3: &str) {
    let key = bed.key(None, 0);
    let meta = bed.store.head(&key).await.unwrap();
    let object = StoredObject {
        name: key.base_name().to_owned(),
        size: meta.size,
        blake3: blake3.to_owned(),
        tar_bytes: None,
    };
    let record = StoredObjects {
        objects: vec![object],
        damaged: Vec::new(),
    };
    let key = StoredObjects::key(&bed.repository.layout, &id());
    bed.put(&key, &record.to_json().unwrap()).await;
}

#[tokio::test]
async fn an_archive_of_another_digest_than_recorded_is_refused() {
    let bed = Bed::new(Codec::Lz4).await;
    put_objects(&bed, &blake3::hash(b"other").to_hex()).await;
    let error = bed.check_fails(Kind::Corrupt).await;
    assert!(matches!(error, RestoreError::Digest { .. }));
    let stored = compressed(&tar(MEMBERS), Codec::Lz4);
    put_objects(&bed, &blake3::hash(&stored).to_hex()).await;
    assert_eq!(bed.restore().await.unwrap().archives_verified, 1);
}

#[tokio::test]
async fn what_cannot_be_whole_is_refused_before_anything_is_written() {
    let bed = Bed::new(Codec::None).await;
    bed.put_archive(None, 2, &tar(MEMBERS)).await;
    let error = bed.check_fails(Kind::Corrupt).await;
    assert!(
        matches!(error, RestoreError::ArchiveMissing { .. }),
        "piece 1 is missing"
    );
    let bed = Bed::new(Codec::None).await;
    bed.store.delete(&[bed.key(Some(16384), 0)]).await.unwrap();
    let error = bed.check_fails(Kind::Corrupt).await;
    assert!(
        matches!(error, RestoreError::ArchiveMissing { .. }),
        "the tablespace is missing"
    );
    let bed = Bed::new(Codec::None).await;
    let segment = "000000010000000000000004".parse().unwrap();
    bed.store
        .delete(&[bed.repository.layout.wal(&segment, Codec::None)])
        .await
        .unwrap();
    let error = bed.check_fails(Kind::Refused).await;
    assert!(error.to_string().contains("000000010000000000000004"));
    let bed = Bed::new(Codec::None).await;
    bed.put_record("parent_backup_id=20261120T000000\n").await;
    bed.check_fails(Kind::Refused).await;
}

#[tokio::test]
async fn an_archive_without_a_control_file_makes_no_database() {
    let bed = Bed::new(Codec::None).await;
    let without: Vec<_> = MEMBERS
        .iter()
        .filter(|(name, _)| *name != "global/pg_control")
        .copied()
        .collect();
    bed.put_archive(None, 0, &tar(&without)).await;
    bed.check_fails(Kind::Corrupt).await;
    let mut other = CONTROL.to_vec();
    other[100] ^= 1;
    let with_other = [without, vec![("global/pg_control", other.as_slice())]].concat();
    bed.put_archive(None, 0, &tar(&with_other)).await;
    let error = bed.check_fails(Kind::Corrupt).await;
    assert!(matches!(error, RestoreError::NotADatabase { .. }));
}

#[tokio::test]
async fn a_store_that_fails_midway_leaves_nothing() {
    let bed = Bed::new(Codec::None).await;
    let fault = Fault::next(Call::Get, Trouble::Fails(StoreErrorKind::Denied)).on("data.tar");
    bed.store.add(fault);
    let error = bed.check_fails(Kind::Denied).await;
    assert!(matches!(error, RestoreError::Fetch { .. }));
    bed.check_restores().await;
}

#[tokio::test]
async fn a_cancelled_restore_leaves_nothing() {
    let bed = Bed::new(Codec::None).await;
    bed.store
        .add(Fault::next(Call::Get, Trouble::Hangs).on(".tar").times(9));
    let cancel = CancellationToken::new();
    let stop = async {
        while !bed.pgdata().join(MARKER).exists() {
            tokio::task::yield_now().await;
        }
        cancel.cancel();
    };
    let (outcome, ()) = tokio::join!(bed.restore_until(&cancel), stop);
    assert!(
        matches!(outcome, Err(RestoreError::Cancelled)),
        "{outcome:?}"
    );
    bed.check_nothing_is_left();
}

#[tokio::test]
async fn directories_that_hold_something_are_refused_and_kept() {
    for name in ["pgdata", "new/tablespace"] {
        let bed = Bed::new(Codec::None).await;
        let file = bed.path(name).join("precious");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "kept").unwrap();
        let error = bed.restore().await.unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{error:?}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
    }
}

#[tokio::test]
async fn empty_directories_and_links_to_them_are_filled_and_kept_on_failure() {
    let bed = Bed::new(Codec::None).await;
    fs::create_dir(bed.path("real")).unwrap();
    std::os::unix::fs::symlink(bed.path("real"), bed.pgdata()).unwrap();
    bed.store
        .add(Fault::next(Call::Get, Trouble::Fails(StoreErrorKind::Denied)).on("data.tar"));
    bed.restore().await.unwrap_err();
    assert_eq!(fs::read_dir(bed.path("real")).unwrap().count(), 0);
    bed.check_restores().await;
    assert!(bed.path("real/global/pg_control").exists());
}

#[tokio::test]
async fn mappings_must_name_tablespaces_and_places_lie_apart() {
    let bed = Bed::new(Codec::None).await;
    for (old, new, kind) in [
        ("unknown", bed.path("x"), Kind::Usage),
        ("tsone", bed.pgdata(), Kind::Refused),
        ("tsone", bed.pgdata().join("inside"), Kind::Refused),
        ("tsone", bed.path(""), Kind::Refused),
        ("tsone", PathBuf::from("relative"), Kind::Refused),
    ] {
        let mut request = bed.request();
        request.tablespaces = vec![TablespaceMapping {
            old: old.to_owned(),
            new,
        }];
        let error = plan(&bed.repository, &request).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{old} {error:?}");
    }
    let mut request = bed.request();
    request.tablespaces = vec![TablespaceMapping {
        old: format!("{}/", bed.path("old-tablespace").display()),
        new: bed.path("by-location"),
    }];
    let plan_by_location = plan(&bed.repository, &request).await.unwrap();
    assert_eq!(plan_by_location.tablespaces[0].new, bed.path("by-location"));
}

#[tokio::test]
async fn a_configuration_that_lay_elsewhere_does_not_lead_back() {
    let bed = Bed::new(Codec::None).await;
    bed.put_record("hba_file=/etc/postgresql/pg_hba.conf\n")
        .await;
    let mut members = MEMBERS.to_vec();
    members.push((
        "postgresql.conf",
        b"data_directory = '/srv/live'\nport = 1\n",
    ));
    bed.put_archive(None, 0, &tar(&members)).await;
    let restored = bed.restore().await.unwrap();
    assert_eq!(notes(&restored).len(), 1, "{:?}", restored.notes);
    let read = |name: &str| fs::read_to_string(bed.pgdata().join(name)).unwrap();
    assert!(read("postgresql.conf").starts_with("# retired by cellarman restore: data_directory"));
    let hba = format!(
        "hba_file = '{}'",
        bed.pgdata().join("pg_hba.conf").display()
    );
    assert!(read("postgresql.auto.conf").contains(&hba));
}

#[tokio::test]
async fn a_backup_without_configuration_gets_a_closed_one() {
    let bed = Bed::new(Codec::None).await;
    let is_conf = |name: &str| name.ends_with("postgresql.conf") || name.ends_with("pg_hba.conf");
    let members: Vec<_> = MEMBERS
        .iter()
        .filter(|(name, _)| !is_conf(name))
        .copied()
        .collect();
    bed.put_archive(None, 0, &tar(&members)).await;
    let restored = bed.restore().await.unwrap();
    assert_eq!(notes(&restored).len(), 2, "{:?}", restored.notes);
    assert_eq!(fs::read(bed.pgdata().join("postgresql.conf")).unwrap(), b"");
}

#[tokio::test]
async fn a_configuration_behind_a_link_is_not_changed() {
    let bed = Bed::new(Codec::None).await;
    let live = bed.path("live.conf");
    fs::write(&live, "data_directory = '/srv/live'\n").unwrap();
    let link = format!("./postgresql.conf -> {}", live.display());
    let mut members = MEMBERS.to_vec();
    members.retain(|(name, _)| *name != "./postgresql.conf");
    members.push((&link, b""));
    bed.put_archive(None, 0, &tar(&members)).await;
    bed.restore().await.unwrap();
    assert_eq!(
        fs::read_to_string(&live).unwrap(),
        "data_directory = '/srv/live'\n"
    );
    let own = fs::read_to_string(bed.pgdata().join("postgresql.conf")).unwrap();
    assert!(own.starts_with("# retired by cellarman restore:"), "{own}");
}

#[tokio::test]
async fn the_log_of_a_backup_may_change_its_timeline() {
    let bed = Bed::new(Codec::None).await;
    bed.put_record("end_wal=000000020000000000000004\n").await;
    let history = bed
        .repository
        .layout
        .wal(&"00000002.history".parse().unwrap(), Codec::None);
    bed.put(&history, b"1\t0/4000050\tno recovery target specified\n")
        .await;
    let error = bed.plan().await.unwrap_err();
    assert!(error.to_string().contains("000000020000000000000004"));
    let segment = "000000020000000000000004".parse().unwrap();
    bed.put(&bed.repository.layout.wal(&segment, Codec::None), &wal())
        .await;
    let wal = bed.plan().await.unwrap().wal;
    assert_eq!(wal.begin.to_string(), "000000010000000000000003");
    assert_eq!((wal.end.timeline().to_u32(), wal.count), (2, 2));
}

#[tokio::test]
async fn what_root_restores_belongs_to_who_has_the_directory() {
    if !rustix::process::geteuid().is_root() {
        testbed::not_run!("only root gives files away");
    }
    let bed = Bed::new(Codec::None).await;
    fs::create_dir(bed.pgdata()).unwrap();
    std::os::unix::fs::chown(bed.pgdata(), Some(12_345), Some(12_346)).unwrap();
    let restored = bed.restore().await.unwrap();
    assert_eq!(restored.notes, Vec::<String>::new());
    for name in [
        "",
        "base/5/16391",
        "global/pg_control",
        "backup_label",
        "recovery.signal",
        "pg_wal/archive_status",
        "server.crt",
        "pg_tblspc/16384",
        "pg_tblspc/16384/PG_15_202209061/5/16400",
    ] {
        let found = fs::symlink_metadata(bed.pgdata().join(name)).unwrap();
        assert_eq!((found.uid(), found.gid()), (12_345, 12_346), "{name}");
    }
}
