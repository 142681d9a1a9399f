//! What a restore refuses to call whole, and what it warns of.

use super::*;
use crate::domain::lsn::Lsn;
use crate::domain::timeline::TimelineId;
use crate::pgfile::manifest::{ManifestBuilder, WalRange};

/// The manifest of the bed's backup, when that began at `start`; `more` are files in it.
fn manifest(start: &str, more: &[(&str, u64)]) -> Vec<u8> {
    let mut builder = ManifestBuilder::new(1, CONTROL_SYSTEM_ID).unwrap();
    let size = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap();
    let files = [
        ("base/5/16391", 300_000),
        ("pg_tblspc/16384/PG_15_202209061/5/16400", 100_000),
        ("global/pg_control", size(CONTROL)),
        ("standby.signal", 0),
        ("backup_label", 5),
    ];
    for (path, size) in files.iter().chain(more) {
        builder.add_file(path, *size, 0, 0).unwrap();
    }
    let range = WalRange {
        timeline: TimelineId::FIRST,
        start: start.parse().unwrap(),
        end: Lsn::new(u64::MAX),
    };
    let manifest = builder.finish(&[range]).unwrap();
    manifest.into_bytes().unwrap()
}

const OWN: &str = "0/3000028";

async fn bed_with(manifest: &[u8]) -> Bed {
    let bed = Bed::new(Codec::None).await;
    let members = [MEMBERS, &[("backup_manifest", manifest)]].concat();
    bed.put_archive(None, 0, &tar(&members)).await;
    bed
}

#[tokio::test]
async fn what_its_own_manifest_lists_is_all_there() {
    bed_with(&manifest(OWN, &[])).await.check_restores().await;
}

#[tokio::test]
async fn a_lost_last_piece_is_noticed_though_no_number_is_missing() {
    let piece = |size| [("base/5/16500", size), ("base/5/16501", size)];
    let bed = bed_with(&manifest(OWN, &piece(10))).await;
    let in_piece: [Member<'_>; 2] = [("base/5/16500", &[1; 10]), ("base/5/16501", &[2; 10])];
    bed.put_archive(None, 1, &tar(&in_piece)).await;
    bed.check_restores().await;

    let lost = bed_with(&manifest(OWN, &piece(10))).await;
    let error = lost.check_fails(Kind::Corrupt).await;
    let text = error.to_string();
    assert!(text.contains("2 are missing"), "{text}");
    assert!(
        text.contains("base/5/16500 is missing, base/5/16501 is missing"),
        "{text}"
    );
}

#[tokio::test]
async fn files_of_another_size_are_named_and_only_a_few() {
    let bed = bed_with(&manifest(OWN, &[("PG_VERSION", 4)])).await;
    let text = bed.check_fails(Kind::Corrupt).await.to_string();
    assert!(
        text.contains("1 are missing or of another size: PG_VERSION has 3 of 4 bytes"),
        "{text}"
    );

    let names: Vec<String> = (0..2000).map(|number| format!("base/5/{number}")).collect();
    let many: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    let bed = bed_with(&manifest(OWN, &many)).await;
    let text = bed.check_fails(Kind::Corrupt).await.to_string();
    assert!(
        text.contains("2000 are missing") && text.len() < 400,
        "{text}"
    );

    let tablespace = [("pg_tblspc/16384/PG_15_202209061/5/16401", 1)];
    let bed = bed_with(&manifest(OWN, &tablespace)).await;
    let text = bed.check_fails(Kind::Corrupt).await.to_string();
    assert!(text.contains("16401 is missing"), "{text}");

    let bed = bed_with(&manifest(OWN, &[("../outside", 1)])).await;
    bed.check_fails(Kind::Corrupt).await;
}

#[tokio::test]
async fn a_manifest_of_another_backup_judges_nothing_and_is_told_of() {
    for (other, why) in [
        (
            manifest("0/2000028", &[("base/5/1", 1)]),
            "is of another backup",
        ),
        (b"no manifest".to_vec(), "cannot be read"),
    ] {
        let restored = bed_with(&other).await.restore().await.unwrap();
        let notes = notes(&restored);
        assert!(notes.len() == 1 && notes[0].contains(why), "{notes:?}");
    }
}

#[tokio::test]
async fn a_link_in_the_place_of_the_databases_is_refused_by_name() {
    for link in [
        "base -> /srv/fast/base",
        "pg_xact -> /srv/fast/base",
        "base/7 -> /srv/fast/base",
    ] {
        let bed = Bed::new(Codec::None).await;
        let (name, _) = link.split_once(" -> ").unwrap();
        let mut members = MEMBERS.to_vec();
        members.retain(|(member, _)| !member.starts_with("base/") || name.len() > 4);
        members.push((link, b""));
        bed.put_archive(None, 0, &tar(&members)).await;
        let error = bed.check_fails(Kind::Corrupt).await;
        let text = error.to_string();
        assert!(
            text.contains(&format!("{name} only as a link to /srv/fast/base")),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_machine_that_has_the_sources_paths_is_warned_of() {
    let bed = Bed::new(Codec::None).await;
    let warned = async |target: Target| {
        let mut request = bed.request();
        request.recovery.target = target;
        let plan = plan(&bed.repository, &request).await.unwrap();
        plan.warnings
            .iter()
            .any(|warning| warning.contains("CREATE TABLESPACE"))
    };
    assert!(!warned(Target::Latest).await);
    fs::create_dir(bed.path("old-tablespace")).unwrap();
    assert!(warned(Target::Latest).await);
    assert!(!warned(Target::Immediate).await);
}

#[tokio::test]
async fn a_history_that_makes_no_sense_stops_only_who_needs_it() {
    let bed = Bed::new(Codec::None).await;
    let history = |name: &str| {
        let name = name.parse().unwrap();
        bed.repository.layout.wal(&name, Codec::None)
    };
    bed.put(&history("00000007.history"), b"\xff\xfe nonsense")
        .await;
    let error = bed.check_fails(Kind::Corrupt).await;
    assert!(
        error.to_string().contains("the history of timeline 7"),
        "{error}"
    );

    let mut request = bed.request();
    request.recovery.timeline = TimelineWish::Number(TimelineId::FIRST);
    let plan = plan(&bed.repository, &request).await.unwrap();
    assert_eq!(plan.timeline, TimelineId::FIRST);
    let named = plan
        .warnings
        .iter()
        .filter(|text| text.contains("00000007.history"));
    assert_eq!(named.count(), 1, "{:?}", plan.warnings);
}
