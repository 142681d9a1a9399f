//! What dead restores leave, and what is never cleared.

use super::*;

/// What a restore that is killed leaves: its directories claimed and partly filled.
fn leave_dead(bed: &Bed, tablespace: &Path) {
    let footprint = Footprint::claim(&bed.pgdata(), &[tablespace.to_owned()]).unwrap();
    fs::create_dir(bed.pgdata().join("global")).unwrap();
    fs::write(
        bed.pgdata().join("global/pg_control.cellarman_unfinished"),
        CONTROL,
    )
    .unwrap();
    fs::write(tablespace.join("PG_15"), "dead").unwrap();
    footprint
        .marker()
        .note_control(&blake3::hash(CONTROL).to_hex())
        .unwrap();
}

#[tokio::test]
async fn what_a_dead_restore_left_is_cleared_by_the_next() {
    let bed = Bed::new(Codec::None).await;
    let elsewhere = bed.path("elsewhere");
    leave_dead(&bed, &elsewhere);
    bed.check_restores().await;
    assert!(
        !elsewhere.exists(),
        "the dead one's other tablespace is gone too"
    );
}

#[tokio::test]
async fn a_restore_that_died_just_before_its_end_is_cleared_too() {
    let bed = Bed::new(Codec::None).await;
    leave_dead(&bed, &bed.path("new/tablespace"));
    fs::write(bed.pgdata().join("global/pg_control"), CONTROL).unwrap();
    bed.check_restores().await;
}

#[tokio::test]
async fn a_database_that_was_used_since_is_never_cleared() {
    let bed = Bed::new(Codec::None).await;
    leave_dead(&bed, &bed.path("new/tablespace"));
    fs::write(bed.pgdata().join("global/pg_control"), "started since").unwrap();
    let error = bed.restore().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(bed.pgdata().join("global/pg_control").exists());
    assert!(bed.path("new/tablespace/PG_15").exists());
}

#[tokio::test]
async fn two_restores_to_one_place_do_not_meet() {
    let bed = Bed::new(Codec::None).await;
    let living = Footprint::claim(&bed.pgdata(), &[]).unwrap();
    let error = bed.restore().await.unwrap_err();
    assert!(error.to_string().contains("another restore"), "{error}");
    living.clear();
    bed.check_restores().await;
}

#[tokio::test]
async fn what_no_restore_made_is_never_cleared() {
    for name in ["pgdata/thesis.txt", "new/tablespace/thesis.txt"] {
        let bed = Bed::new(Codec::None).await;
        leave_dead(&bed, &bed.path("new/tablespace"));
        fs::write(bed.path(name), "years of work").unwrap();
        let error = bed.restore().await.unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{error}");
        assert!(error.to_string().contains("thesis.txt"), "{error}");
        assert_eq!(fs::read(bed.path(name)).unwrap(), b"years of work");
        fs::remove_file(bed.path(name)).unwrap();
        bed.check_restores().await;
    }
}

#[tokio::test]
async fn what_came_during_a_failed_restore_stays() {
    let bed = Bed::new(Codec::None).await;
    let footprint = Footprint::claim(&bed.pgdata(), &[]).unwrap();
    fs::create_dir(bed.pgdata().join("base")).unwrap();
    fs::write(bed.pgdata().join("thesis.txt"), "years of work").unwrap();
    footprint.clear();
    let left: Vec<_> = fs::read_dir(bed.pgdata()).unwrap().collect();
    assert_eq!(left.len(), 1);
    assert!(bed.pgdata().join("thesis.txt").exists());
}

#[tokio::test]
async fn odd_names_of_a_dead_restore_are_cleared_as_well() {
    let bed = Bed::new(Codec::None).await;
    let footprint = Footprint::claim(&bed.pgdata(), &[]).unwrap();
    footprint.marker().note_name(Path::new("odd/x/y")).unwrap();
    fs::create_dir_all(bed.pgdata().join("odd/x")).unwrap();
    drop(footprint);
    bed.check_restores().await;
    assert!(!bed.pgdata().join("odd").exists());
}

#[tokio::test]
async fn a_restore_that_another_has_overtaken_is_refused() {
    let bed = Bed::new(Codec::None).await;
    bed.check_restores().await;
    // Seen as empty before the other began: the directory was examined, the marker not yet made.
    let late = crate::service::restore::marker::Marker::open(&bed.pgdata()).unwrap();
    late.check_alone(&bed.pgdata()).unwrap_err();
    assert!(bed.pgdata().join("global/pg_control").exists());
    assert!(!bed.pgdata().join(MARKER).exists());
}
