//! Retention of either tool over the same archive: the same backups survive.
//!
//! Each case is put into the bucket twice, as two servers. Barman deletes from one by its own
//! policy, Cellarman from the other. Where we keep more on purpose, the case says so.

use std::collections::BTreeSet;
use std::sync::Arc;

use cellarman::barman::backup_info::BackupInfo;
use cellarman::clock;
use cellarman::domain::backup::{BackupId, BackupStatus, Keep, SystemId};
use cellarman::domain::timeline::TimelineId;
use cellarman::store::config::{S3Config, S3Credentials, StoreConfig};
use cellarman::store::open::open;
use cellarman::store::{ListRequest, ObjectKey, ObjectStore, PutOptions};
use chrono::{DateTime, TimeDelta, Utc};
use secrecy::SecretString;
use testbed::account::Account;
use testbed::barman::Barman;
use testbed::minio::{BUCKET, CREDENTIALS, Minio};
use testbed::or_not_run;
use testbed::process::Ended;
use testbed::program::Program;
use testbed::scratch::Scratch;
use tokio::runtime::Runtime;

const PATH: &str = "backups";

/// A backup so many days old.
#[derive(Debug, Clone, Copy)]
struct Old {
    days: i64,
    status: BackupStatus,
    keep: Option<Keep>,
    timeline: u32,
}

const fn old(days: i64, status: BackupStatus) -> Old {
    Old {
        days,
        status,
        keep: None,
        timeline: 1,
    }
}

const fn done(days: i64) -> Old {
    old(days, BackupStatus::Done)
}

const fn failed(days: i64) -> Old {
    old(days, BackupStatus::Failed)
}

const fn started(days: i64) -> Old {
    old(days, BackupStatus::Started)
}

impl Old {
    const fn full(mut self) -> Self {
        self.keep = Some(Keep::Full);
        self
    }

    const fn standalone(mut self) -> Self {
        self.keep = Some(Keep::Standalone);
        self
    }

    const fn on(mut self, timeline: u32) -> Self {
        self.timeline = timeline;
        self
    }
}

/// What WAL is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wal {
    /// The same.
    Same,
    /// Ours is more; why.
    More(&'static str),
    /// Ours is less; why.
    Less(&'static str),
}

/// An archive, oldest backup first, and a policy.
struct Case {
    policy: &'static str,
    minimum: u32,
    backups: &'static [Old],
    /// The ages of the DONE backups that survive either tool.
    survive: &'static [i64],
    wal: Wal,
}

const fn case(policy: &'static str, backups: &'static [Old], survive: &'static [i64]) -> Case {
    Case {
        policy,
        minimum: 0,
        backups,
        survive,
        wal: Wal::Same,
    }
}

impl Case {
    const fn at_least(mut self, minimum: u32) -> Self {
        self.minimum = minimum;
        self
    }

    const fn wal(mut self, wal: Wal) -> Self {
        self.wal = wal;
        self
    }
}

const WEEK: &str = "RECOVERY WINDOW OF 7 DAYS";
const FOUR: &[Old] = &[done(9), done(6), done(3), done(1)];
const BRANCHED: &[Old] = &[done(9), done(6), done(1).on(2)];
const TENS: &[Old] = &[done(40), done(30), done(20), done(10)];
const MIXED: &[Old] = &[
    done(20),
    failed(15),
    done(12),
    started(10),
    done(8),
    failed(5),
    done(2),
    started(1),
];
const UNDER_WAY: Wal = Wal::More("a backup that is STARTED may still need what is after its begin");
const BEFORE_ALL: Wal =
    Wal::Less("what is before the oldest backup goes, even where no backup goes right after it");

/// What both tools agree on.
const CASES: &[Case] = &[
    case(
        WEEK,
        &[done(40), done(20), done(10), done(6), done(1)],
        &[10, 6, 1],
    ),
    case(WEEK, &[done(40), done(20)], &[20]),
    case(WEEK, &[done(5), done(3), done(1)], &[5, 3, 1]).wal(BEFORE_ALL),
    case("RECOVERY WINDOW OF 2 WEEKS", TENS, &[20, 10]),
    case("RECOVERY WINDOW OF 2 WEEKS", TENS, &[30, 20, 10]).at_least(3),
    case(
        "RECOVERY WINDOW OF 1 MONTH",
        &[done(40), done(32), done(30), done(1)],
        &[32, 30, 1],
    ),
    case("recovery window of 1 day", &[done(3)], &[3]).wal(BEFORE_ALL),
    case("REDUNDANCY 1", FOUR, &[1]),
    case("REDUNDANCY 2", FOUR, &[3, 1]),
    case("REDUNDANCY 3", FOUR, &[6, 3, 1]),
    case("REDUNDANCY 9", FOUR, &[9, 6, 3, 1]).wal(BEFORE_ALL),
    case("redundancy 1", FOUR, &[6, 3, 1]).at_least(3),
    case(
        "REDUNDANCY 1",
        &[done(9).full(), done(6), done(3), done(1)],
        &[9, 1],
    )
    .wal(BEFORE_ALL),
    case(
        "REDUNDANCY 1",
        &[done(9).standalone(), done(6), done(3), done(1)],
        &[9, 1],
    ),
    case(
        "REDUNDANCY 1",
        &[done(9), done(6).standalone(), done(3), done(1)],
        &[6, 1],
    ),
    case(
        "REDUNDANCY 2",
        &[done(9), done(6), done(3), done(1).full()],
        &[3, 1],
    ),
    case(
        WEEK,
        &[done(30), done(20).full(), done(10), done(3)],
        &[20, 10, 3],
    ),
    // A kept backup is the one that the window's beginning is recovered from.
    case(WEEK, &[done(30), done(10).standalone(), done(3)], &[10, 3]),
    case(WEEK, &[done(30), done(10).full(), done(3)], &[10, 3]),
    case("REDUNDANCY 2", MIXED, &[8, 2]).wal(UNDER_WAY),
    case("REDUNDANCY 1", MIXED, &[2]).wal(UNDER_WAY),
    case(WEEK, MIXED, &[8, 2]).wal(UNDER_WAY),
    case(WEEK, MIXED, &[12, 8, 2]).at_least(3),
    case("REDUNDANCY 1", &[failed(9), started(5)], &[]),
];

/// A bucket with both tools set up for it.
struct Bed {
    barman: Barman,
    cellarman: Program,
    store: Arc<dyn ObjectStore>,
    runtime: Runtime,
    minio: Minio,
    now: DateTime<Utc>,
    _scratch: Scratch,
}

impl Bed {
    fn new() -> Result<Self, String> {
        let scratch = Scratch::new(Account::of_servers()?);
        let minio = Minio::start(&scratch)?;
        let barman = Barman::new(&scratch, &minio)?;
        let cellarman = Program::built(env!("CARGO_BIN_EXE_cellarman"), &scratch)
            .with_arguments(&["--store", &minio.url(PATH)])
            .with_environment(&minio.environment());
        let credentials = S3Credentials::Static {
            access_key_id: CREDENTIALS.0.to_owned(),
            secret_access_key: SecretString::from(CREDENTIALS.1),
            session_token: None,
        };
        let mut config = S3Config::new(BUCKET, credentials);
        config.endpoint_url = Some(minio.endpoint().parse().expect("a URL"));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let store = runtime
            .block_on(open(&StoreConfig::S3(Box::new(config))))
            .expect("the bucket opens");
        Ok(Self {
            barman,
            cellarman,
            store,
            runtime,
            minio,
            now: clock::now(),
            _scratch: scratch,
        })
    }

    fn put(&self, server: &str, name: &str, text: &str) {
        let key = ObjectKey::new(format!("{PATH}/{server}/{name}"));
        let options = PutOptions::default();
        let body = text.as_bytes().to_vec().into();
        let put = self.store.put(&key, body, &options);
        self.runtime.block_on(put).expect("an object");
    }

    /// What follows `folder` in the keys of a server. Fewer than a page.
    fn names(&self, server: &str, folder: &str) -> BTreeSet<String> {
        let request = ListRequest {
            prefix: format!("{PATH}/{server}/{folder}/"),
            ..ListRequest::default()
        };
        let page = self.runtime.block_on(self.store.list(&request));
        let page = page.expect("a listing");
        assert!(page.next.is_none());
        let keys = page.objects.iter().map(|object| object.key.as_str());
        let names = keys.filter_map(|key| key.strip_prefix(&request.prefix));
        names.map(str::to_owned).collect()
    }

    /// Writes an archive: backup `i` begins and ends in segment `10 i + 5` of those that are there.
    fn write(&self, server: &str, backups: &[Old]) {
        for (number, backup) in (0u32..).zip(backups) {
            let segment = 10 * number + 5;
            self.write_backup(server, backup, segment);
        }
        let last = u32::try_from(backups.len()).expect("a few") * 10;
        let newest = backups.last().map_or(1, |backup| backup.timeline);
        for number in (1..=last).step_by(2) {
            let name = segment_name(1, number);
            self.put(server, &format!("wals/{}/{name}.gz", &name[..16]), "wal");
        }
        if newest > 1 {
            let name = segment_name(newest, last);
            self.put(server, &format!("wals/{}/{name}.gz", &name[..16]), "wal");
        }
    }

    fn id(&self, backup: &Old) -> BackupId {
        BackupId::at(self.now - TimeDelta::days(backup.days))
    }

    fn write_backup(&self, server: &str, backup: &Old, segment: u32) {
        let begin = self.now - TimeDelta::days(backup.days);
        let id = self.id(backup);
        let wal = segment_name(backup.timeline, segment).parse().ok();
        let is_done = backup.status == BackupStatus::Done;
        let info = BackupInfo {
            status: backup.status,
            begin_offset: Some(40),
            begin_time: Some(begin.fixed_offset()),
            begin_wal: wal,
            begin_xlog: format!("0/{segment:X}000028").parse().ok(),
            end_offset: is_done.then_some(312),
            end_time: is_done.then_some(begin.fixed_offset()),
            end_wal: wal.filter(|_| is_done),
            end_xlog: format!("0/{segment:X}000138")
                .parse()
                .ok()
                .filter(|_| is_done),
            server_name: Some("cloud".to_owned()),
            systemid: Some(SystemId(7_710_495_969_176_941_014)),
            timeline: TimelineId::new(backup.timeline),
            version: Some(150_020),
            ..BackupInfo::default()
        };
        assert!(wal.is_some() && info.begin_xlog.is_some());
        let base = format!("base/{id}");
        self.put(server, &format!("{base}/data.tar"), "not looked at");
        if let Some(keep) = backup.keep {
            let mark = format!("{base}/annotations/keep");
            self.put(server, &mark, keep.as_str());
        }
        self.put(server, &format!("{base}/backup.info"), &info.to_text());
    }

    fn by_barman(&self, server: &str, case: &Case) -> Ended {
        let (minimum, url) = (case.minimum.to_string(), self.minio.url(PATH));
        let words = ["-r", case.policy, "-m", &minimum, &url, server];
        self.barman.run("backup-delete", &words)
    }

    /// The plan, and what was done.
    fn by_us(&self, server: &str, case: &Case) -> String {
        let minimum = case.minimum.to_string();
        let words = ["--server", server, "expire", "--retention", case.policy];
        let words = [&words[..], &["--minimum-redundancy", &minimum]].concat();
        let ended = self.cellarman.run(&words);
        ended.ok();
        ended.stdout
    }

    /// The ages of the DONE backups of a case that are whole.
    fn survivors(&self, server: &str, case: &Case) -> Vec<i64> {
        let names = self.names(server, "base");
        let survives = |backup: &&Old| {
            let id = self.id(backup);
            let is_there = |object| names.contains(&format!("{id}/{object}"));
            ["data.tar", "backup.info"].into_iter().all(is_there)
        };
        let done = case.backups.iter();
        let done = done.filter(|backup| backup.status == BackupStatus::Done);
        done.filter(survives).map(|backup| backup.days).collect()
    }
}

fn segment_name(timeline: u32, number: u32) -> String {
    format!("{timeline:08X}00000000{number:08X}")
}

#[test]
fn the_same_backups_survive_barmans_policies_and_ours() {
    let bed = or_not_run!(Bed::new());
    for (number, case) in CASES.iter().enumerate() {
        let (theirs, ours) = (format!("barmans-{number}"), format!("ours-{number}"));
        bed.write(&theirs, case.backups);
        bed.write(&ours, case.backups);
        bed.by_barman(&theirs, case).ok();
        let plan = bed.by_us(&ours, case);
        let told = format!(
            "case {number}: {} -m {}, {:?}\n{plan}",
            case.policy, case.minimum, case.backups
        );
        assert_eq!(bed.survivors(&theirs, case), case.survive, "Barman, {told}");
        assert_eq!(bed.survivors(&ours, case), case.survive, "ours, {told}");
        // What is not DONE is no matter of a policy's.
        let (base_of_theirs, base_of_ours) = (bed.names(&theirs, "base"), bed.names(&ours, "base"));
        let marks = |name: &String| !name.ends_with("/annotations/keep");
        let count = |names: &BTreeSet<String>| names.iter().filter(|name| marks(name)).count();
        assert_eq!(count(&base_of_theirs), count(&base_of_ours), "{told}");
        let (theirs, ours) = (bed.names(&theirs, "wals"), bed.names(&ours, "wals"));
        let is_as_said = match case.wal {
            Wal::Same => ours == theirs,
            Wal::More(_) => ours.is_superset(&theirs) && ours != theirs,
            Wal::Less(_) => ours.is_subset(&theirs) && ours != theirs,
        };
        assert!(
            is_as_said,
            "{told}\nexpected {:?}\nours {ours:?}\nBarman's {theirs:?}",
            case.wal
        );
    }
}

/// On purpose: the newest backups lie on another branch, and timeline 1 goes on.
#[test]
fn a_timeline_in_use_keeps_a_backup_that_barman_deletes() {
    let bed = or_not_run!(Bed::new());
    let case = case("REDUNDANCY 1", BRANCHED, &[]);
    for server in ["barmans", "ours"] {
        bed.write(server, case.backups);
        bed.put(
            server,
            "wals/00000002.history",
            "1\t0/10000000\tno reason\n",
        );
    }
    bed.by_barman("barmans", &case).ok();
    let plan = bed.by_us("ours", &case);
    assert_eq!(bed.survivors("barmans", &case), [1]);
    assert_eq!(bed.survivors("ours", &case), [6, 1], "{plan}");
}

/// On purpose: what can be read is expired, and nothing of what cannot be read.
#[test]
fn one_unreadable_record_stops_barman_and_not_us() {
    let bed = or_not_run!(Bed::new());
    let case = case("REDUNDANCY 1", FOUR, &[]);
    for server in ["barmans", "ours"] {
        bed.write(server, case.backups);
        bed.put(server, "base/20250101T000000/backup.info", "half a li");
        bed.put(server, "base/20250101T000000/data.tar", "not looked at");
    }
    let wal = bed.names("ours", "wals");
    let refused = bed.by_barman("barmans", &case);
    assert!(!refused.status.success(), "{}", refused.describe());
    let plan = bed.by_us("ours", &case);
    assert_eq!(bed.survivors("barmans", &case), [9, 6, 3, 1]);
    assert_eq!(bed.survivors("ours", &case), [1], "{plan}");
    assert!(
        bed.names("ours", "base")
            .contains("20250101T000000/data.tar")
    );
    // It may need any of it: it is older than all that tells.
    assert_eq!(bed.names("ours", "wals"), wal);
}
