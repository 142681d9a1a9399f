//! Look-ahead and its marks.

use super::*;

#[tokio::test]
async fn look_ahead_archives_what_waits_and_later_calls_cost_nothing() {
    let mut bed = Bed::new();
    bed.options.jobs = 4;
    for number in 1..=6 {
        bed.write(segment_name(1, number), number);
    }
    bed.archive(segment_name(1, 1)).await;
    for number in 2..=4 {
        bed.assert_stored(segment_name(1, number)).await;
        let (calls, archived) = bed.requests(bed.archive(segment_name(1, number))).await;
        assert_eq!((calls, archived), (Vec::new(), Archived::Ahead));
    }
    assert!(bed.content(segment_name(1, 5), Codec::Zstd).await.is_none());
    assert!(matches!(
        bed.archive(segment_name(1, 5)).await,
        Archived::Put(_)
    ));
    assert_eq!(bed.archive(segment_name(1, 6)).await, Archived::Ahead);
}

#[tokio::test]
async fn a_mark_never_covers_other_bytes() {
    let mut bed = Bed::new();
    bed.options.jobs = 2;
    bed.write(segment_name(1, 1), 1);
    bed.write(segment_name(1, 2), 2);
    bed.archive(segment_name(1, 1)).await;
    bed.write(segment_name(1, 2), 3);
    assert_eq!(bed.kind(segment_name(1, 2)).await, Kind::Conflict);
}

#[tokio::test]
async fn marks_of_files_that_wait_no_more_are_cleaned() {
    let mut bed = Bed::new();
    bed.options.jobs = 3;
    for number in 1..=4 {
        bed.write(segment_name(1, number), number);
    }
    bed.archive(segment_name(1, 1)).await;
    for number in 2..=3 {
        fs::remove_file(bed.ready(segment_name(1, number))).unwrap();
    }
    bed.archive(segment_name(1, 4)).await;
    let marks = fs::read_dir(bed.pg_wal().join(FOLDER).join("archived")).unwrap();
    assert_eq!(marks.count(), 0);
}

#[tokio::test]
async fn a_look_ahead_that_fails_or_hangs_does_not_fail_the_asked_file() {
    for trouble in [Trouble::Fails(StoreErrorKind::Denied), Trouble::Hangs] {
        let mut bed = Bed::new();
        bed.options.jobs = 2;
        bed.write(segment_name(1, 1), 1);
        let ahead = segment_name(1, 2);
        bed.write(ahead, 2);
        let always = Fault::next(Call::Put, trouble).on(ahead.to_string());
        bed.store.add(always.times(1));
        let begun = Instant::now();
        bed.archive(segment_name(1, 1)).await;
        assert!(begun.elapsed() < Duration::from_secs(20));
        bed.assert_stored(segment_name(1, 1)).await;
        bed.archive(ahead).await;
        bed.assert_stored(ahead).await;
    }
}

#[tokio::test]
async fn behind_a_file_that_is_refused_nothing_is_put() {
    let mut bed = Bed::new();
    bed.write(segment_name(1, 1), 1);
    bed.archive(segment_name(1, 1)).await;
    let other = SegmentBuilder::new(segment_name(1, 2), SYSTEM_ID).seed(99);
    let mut stored = crate::codec::compress::Compressor::new(Vec::new(), bed.options.compression)
        .expect("a compressor");
    io::Write::write_all(&mut stored, &other.bytes()).unwrap();
    bed.put(
        &format!("{}.zst", segment_name(1, 2)),
        stored.finish().unwrap(),
    )
    .await;
    bed.options.jobs = 4;
    for number in 2..=5 {
        bed.write(segment_name(1, number), number);
    }
    // So slow that those behind it would long be in the store.
    let slow = Trouble::Slow(Duration::from_secs(1));
    let asked = segment_name(1, 2).to_string();
    bed.store.add(Fault::next(Call::Put, slow).on(asked));
    assert_eq!(bed.kind(segment_name(1, 2)).await, Kind::Conflict);
    assert_eq!(bed.keys().await.len(), 2, "{:?}", bed.keys().await);
}

/// A process that lives on: one archiver for all calls.
struct Resident {
    bed: Bed,
    archiver: Archiver,
}

impl Resident {
    fn with_files(jobs: usize, count: u64) -> Self {
        let mut bed = Bed::new();
        (bed.options.jobs, bed.options.is_resident) = (jobs, true);
        for number in 1..=count {
            bed.write(segment_name(1, number), number);
        }
        let archiver = bed.archiver();
        Self { bed, archiver }
    }

    async fn archive(&self, number: u64) -> Archived {
        let name = segment_name(1, number);
        let archived = self.archiver.archive(&self.bed.path(name)).await.unwrap();
        fs::remove_file(self.bed.ready(name)).unwrap();
        archived
    }

    /// Of the next put of this file.
    fn trouble(&self, number: u64, trouble: Trouble) {
        let name = segment_name(1, number).to_string();
        self.bed.store.add(Fault::next(Call::Put, trouble).on(name));
    }

    fn puts_of(&self, number: u64) -> usize {
        let name = segment_name(1, number).to_string();
        let calls = self.bed.store.calls();
        let is_put = |(call, key): &&(Call, String)| *call == Call::Put && key.contains(&name);
        calls.iter().filter(is_put).count()
    }
}

#[tokio::test]
async fn a_resident_archiver_waits_for_nothing_but_the_asked_file() {
    let resident = Resident::with_files(2, 2);
    resident.trouble(2, Trouble::Hangs);
    assert!(matches!(resident.archive(1).await, Archived::Put(_)));
    resident.bed.assert_stored(segment_name(1, 1)).await;
}

#[tokio::test]
async fn what_is_on_its_way_when_it_is_asked_for_is_put_once() {
    let resident = Resident::with_files(2, 2);
    resident.trouble(2, Trouble::Slow(Duration::from_millis(300)));
    resident.archive(1).await;
    assert_eq!(resident.archive(2).await, Archived::Ahead);
    resident.bed.assert_stored(segment_name(1, 2)).await;
    assert_eq!(resident.puts_of(2), 1);
}

#[tokio::test]
async fn each_request_to_a_resident_archiver_begins_what_has_come_into_reach() {
    let resident = Resident::with_files(3, 5);
    resident.archive(1).await;
    for number in 2..=5 {
        assert_eq!(resident.archive(number).await, Archived::Ahead, "{number}");
        resident.archiver.under_way.end_of_all().await;
        for (near, reached) in (number + 1..=5).zip([true, true, false]) {
            let content = resident.bed.content(segment_name(1, near), Codec::Zstd);
            assert_eq!(content.await.is_some(), reached, "{near} from {number}");
        }
    }
}

#[tokio::test]
async fn with_the_request_for_a_file_those_ahead_of_it_end() {
    let resident = Resident::with_files(3, 3);
    resident.trouble(1, Trouble::Hangs);
    let path = resident.bed.path(segment_name(1, 1));
    let mut call = Box::pin(resident.archiver.archive(&path));
    while resident.archiver.under_way.count() < 2 {
        let step = Duration::from_millis(1);
        assert!(tokio::time::timeout(step, &mut call).await.is_err());
    }
    drop(call);
    resident.archiver.under_way.end_of_all().await;
    assert_eq!(resident.bed.keys().await, Vec::<String>::new());
}
