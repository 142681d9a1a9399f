//! Looking at what a plan names: the log first, then the tars, side by side, then the restores.
//!
//! Not here: what a restore is held to (`deep`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::{StreamExt, stream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::barman::repository::{Repository, RepositoryError};
use crate::barman::stored_objects::StoredObjects;
use crate::domain::backup::{BackupId, BackupStatus};
use crate::fault::{Fault, chain};
use crate::service::verify::contents::{Contents, Reading};
use crate::service::verify::deep::{Scratch, blocking};
use crate::service::verify::error::VerifyError;
use crate::service::verify::line::Need;
use crate::service::verify::plan::{Subject, Verification};
use crate::service::verify::report::{BackupReport, Finding, Outcome, Report, Severity};
use crate::service::verify::results::{self, DateTimeText, Kept, Seen, Summary};
use crate::service::verify::wal::{self, ListedWal, WalFound};
use crate::service::verify::{OnBytes, deep, presence};

const HINT_AGAIN: &str = "Run `cellarman verify` again; `cellarman check` tests the store.";
const HINT_RECORD: &str = "Do not delete anything: put the object back if a copy of the bucket or an \
    older version of it has it. Without its record a backup cannot be restored.";
const NO_DIGESTS: &str = "it has no record of its digests, as backups by other tools: its tars were \
    decoded to their ends instead";

/// A backup that was looked at.
struct Checked {
    report: BackupReport,
    findings: Vec<Finding>,
}

impl Verification {
    /// Verifies. What it finds of a backup is kept as soon as that is done.
    ///
    /// # Errors
    /// Where the archive cannot be listed, and when `cancel` is cancelled.
    pub async fn run(
        self,
        cancel: &CancellationToken,
        on_bytes: OnBytes,
    ) -> Result<Report, VerifyError> {
        // Before hours of reading.
        let scratch = match &self.request.deep {
            Some(request) => {
                let path = request.scratch.clone();
                Some(Arc::new(blocking(move || Scratch::claim(&path)).await?))
            }
            None => None,
        };
        let (needs, without_needs) = self.needs();
        let listed = tokio::select! {
            () = cancel.cancelled() => return Err(VerifyError::Cancelled),
            listed = wal::list(&self.repository, &needs, self.time) => listed?,
        };
        let mut checked = self.check_contents(cancel, on_bytes).await?;
        self.check_deep(&mut checked, scratch.as_ref(), cancel)
            .await?;
        if let Some(scratch) = scratch {
            // It removes a directory.
            let remove = move || {
                drop(scratch);
                Ok(())
            };
            blocking(remove).await?;
        }
        let mut findings = without_needs;
        findings.extend(self.unreadable());
        let wal = self
            .settle((&mut checked, &mut findings), &needs, listed)
            .await?;
        findings.extend(wal_findings(&wal));
        let mut backups = Vec::with_capacity(checked.len());
        for one in checked {
            backups.push(one.report);
            findings.extend(one.findings);
        }
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        let report = Report {
            time: self.time,
            backups,
            wal,
            findings,
        };
        results::forget(&self.repository, &self.gone).await;
        // Of one backup alone there is no summary of the archive.
        if self.request.backup.is_none() {
            self.summary(&report).put(&self.repository).await;
        }
        Ok(report)
    }

    /// What each backup needs of the log, and those whose records do not tell.
    fn needs(&self) -> (Vec<Need>, Vec<Finding>) {
        let (mut needs, mut findings) = (Vec::new(), Vec::new());
        for subject in &self.subjects {
            match Need::of(&subject.backup, subject.keep) {
                Ok(need) => needs.push(need),
                Err(field) => findings.push(Finding::of(
                    &subject.backup.id,
                    Severity::NotVerified,
                    (
                        format!(
                            "its record has no usable {field}, so nobody knows what WAL it needs"
                        ),
                        "Look at its backup.info; a restore would refuse it.",
                    ),
                )),
            }
        }
        (needs, findings)
    }

    fn unreadable(&self) -> impl Iterator<Item = Finding> + '_ {
        self.unreadable.iter().map(|one| {
            let text = format!("its record cannot be read: {}", one.reason);
            Finding::of(&one.id, Severity::Damaged, (text, HINT_RECORD))
        })
    }

    /// Reads the tars, of several backups at a time where one has but few.
    async fn check_contents(
        &self,
        cancel: &CancellationToken,
        on_bytes: OnBytes,
    ) -> Result<Vec<Checked>, VerifyError> {
        let jobs = self.request.jobs.max(1);
        let stop = cancel.child_token();
        let look = Look {
            verification: self,
            reading: Reading::new(&self.repository, jobs, on_bytes, &stop),
            gate: Semaphore::new(jobs),
            cancel,
            jobs,
        };
        let checked = stream::iter(&self.subjects).map(|subject| look.check(subject));
        let mut checked: Vec<Checked> = checked.buffer_unordered(jobs).collect().await;
        if cancel.is_cancelled() {
            return Err(VerifyError::Cancelled);
        }
        checked.sort_by(|a, b| a.report.id.cmp(&b.report.id));
        Ok(checked)
    }

    /// Restores those that are sound so far, one after another.
    async fn check_deep(
        &self,
        checked: &mut [Checked],
        scratch: Option<&Arc<Scratch>>,
        cancel: &CancellationToken,
    ) -> Result<(), VerifyError> {
        let place = self.request.deep.as_ref().zip(scratch);
        for (subject, checked) in self.subjects.iter().zip(checked) {
            let Some(place) = place.filter(|_| subject.wants_deep) else {
                checked.add_known_deep(&subject.kept);
                continue;
            };
            if !matches!(checked.report.contents, Outcome::Sound(_)) {
                continue;
            }
            let Some(findings) =
                deep::verify(&self.repository, place, &subject.backup, cancel).await
            else {
                return Err(VerifyError::Cancelled);
            };
            checked.report.deep = Outcome::judged(&findings, self.time);
            checked.report.is_new = true;
            let contents = match checked.report.contents {
                Outcome::Sound(time) => Some(Seen {
                    time: DateTimeText::new(time),
                    is_sound: true,
                    findings: Vec::new(),
                }),
                _ => None,
            };
            let kept = Kept {
                version: subject.kept.version.clone(),
                contents,
                deep: self.seen(checked.report.deep, &findings),
            };
            results::keep(&self.repository, &subject.backup.id, &kept).await;
            checked.findings.extend(findings);
        }
        Ok(())
    }

    /// What is kept of a check; nothing where it could not be made.
    fn seen(&self, outcome: Outcome, findings: &[Finding]) -> Option<Seen> {
        let is_sound = match outcome {
            Outcome::Sound(_) => true,
            Outcome::Damaged => false,
            Outcome::NotVerified | Outcome::NotAsked => return None,
        };
        Some(Seen {
            time: DateTimeText::new(self.time),
            is_sound,
            findings: findings.iter().map(|it| it.text.clone()).collect(),
        })
    }

    /// Leaves out what was deleted while it was looked at, and holds the log to what is left.
    async fn settle(
        &self,
        (checked, findings): (&mut Vec<Checked>, &mut Vec<Finding>),
        needs: &[Need],
        listed: ListedWal,
    ) -> Result<WalFound, VerifyError> {
        let lines = listed.check(needs);
        let is_bad = |finding: &Finding| finding.severity > Severity::Note;
        let mut bad = checked.iter().flat_map(|it| &it.findings).chain(&*findings);
        if wal::concerned(&lines).next().is_none() && !bad.any(is_bad) {
            return Ok(listed.into_found(lines));
        }
        let catalog = self.repository.list_backups().await?;
        let done = catalog.backups.iter().map(|entry| &entry.backup);
        let done = done.filter(|backup| backup.status == BackupStatus::Done);
        let mut there: BTreeSet<&BackupId> = done.map(|backup| &backup.id).collect();
        there.extend(catalog.unreadable.iter().map(|one| &one.id));
        checked.retain(|it| there.contains(&it.report.id));
        findings.retain(|it| it.backups.iter().all(|id| there.contains(id)));
        let needs: Vec<Need> = needs
            .iter()
            .filter(|need| there.contains(&need.backup))
            .cloned()
            .collect();
        let lines = listed.check(&needs);
        Ok(listed.into_found(lines))
    }

    fn summary(&self, report: &Report) -> Summary {
        let is_sound = |outcome| matches!(outcome, Outcome::Sound(_));
        let is_damaged =
            |it: &BackupReport| it.contents == Outcome::Damaged || it.deep == Outcome::Damaged;
        let unreadable = u64::try_from(self.unreadable.len()).unwrap_or(u64::MAX);
        Summary {
            time: DateTimeText::new(self.time).into(),
            backups_verified: report.count(|it| is_sound(it.contents) && !is_damaged(it)),
            backups_verified_deep: report.count(|it| is_sound(it.contents) && is_sound(it.deep)),
            backups_damaged: report.count(is_damaged) + unreadable,
            backups_not_verified: report
                .count(|it| !is_damaged(it) && it.contents == Outcome::NotVerified),
            wal_segments_missing: report.wal.missing(),
        }
    }
}

impl Checked {
    /// What an earlier restore found.
    fn add_known_deep(&mut self, kept: &Kept) {
        let Some(seen) = &kept.deep else { return };
        if let Some(time) = Kept::sound_since(Some(seen)) {
            self.report.deep = Outcome::Sound(time);
            return;
        }
        self.report.deep = Outcome::Damaged;
        let text = format!(
            "a restore of it found damage on {}: {}",
            seen.time.as_str(),
            seen.findings.join("; ")
        );
        let hint = "Keep the older backups; `cellarman verify --deep` looks at it again.";
        let finding = Finding::of(&self.report.id, Severity::Damaged, (text, hint));
        self.findings.push(finding);
    }
}

/// What looking at tars shares.
struct Look<'a> {
    verification: &'a Verification,
    reading: Reading,
    /// One for each tar that is read at a time, whosever it is.
    gate: Semaphore,
    cancel: &'a CancellationToken,
    jobs: usize,
}

impl Look<'_> {
    async fn check(&self, subject: &Subject) -> Checked {
        let id = &subject.backup.id;
        let mut report = BackupReport {
            id: id.clone(),
            end_time: subject.backup.end_time.map(|time| time.to_utc()),
            bytes: subject.bytes(),
            contents: Outcome::NotAsked,
            deep: Outcome::NotAsked,
            is_new: false,
        };
        let mut findings = Vec::new();
        if subject.is_elsewhere() {
            let text = "it consists of volume snapshots, which lie with the cloud provider";
            findings.push(Finding::of(id, Severity::Note, (text, "")));
        } else if !subject.wants_contents {
            let known = Kept::sound_since(subject.kept.contents.as_ref());
            report.contents = known.map_or(Outcome::NotVerified, Outcome::Sound);
        } else {
            findings = self.find(subject).await;
            let time = self.verification.time;
            report.contents = Outcome::judged(&findings, time);
            report.is_new = true;
            if !self.cancel.is_cancelled() {
                let kept = Kept {
                    contents: self.verification.seen(report.contents, &findings),
                    ..subject.kept.clone()
                };
                results::keep(&self.verification.repository, id, &kept).await;
            }
        }
        Checked { report, findings }
    }

    async fn find(&self, subject: &Subject) -> Vec<Finding> {
        let (id, stored) = (&subject.backup.id, &subject.stored);
        let mut findings = Vec::new();
        let objects = if stored.has_objects_record {
            match objects_record(&self.verification.repository, id).await {
                Ok(objects) => objects,
                Err(finding) => {
                    findings.push(finding);
                    None
                }
            }
        } else {
            findings.push(Finding::of(id, Severity::Note, (NO_DIGESTS, "")));
            None
        };
        let objects = objects.as_ref();
        findings.extend(presence::check(&subject.backup, stored, objects));
        let recorded: BTreeMap<&str, &str> = objects
            .iter()
            .flat_map(|objects| &objects.objects)
            .map(|object| (object.name.as_str(), object.blake3.as_str()))
            .collect();
        let reads = stream::iter(&stored.archives).map(async |archive| {
            // Never closed.
            let _turn = self.gate.acquire().await;
            let blake3 = recorded.get(archive.key.base_name()).copied();
            self.reading.read(archive, blake3).await
        });
        let mut reads = std::pin::pin!(reads.buffer_unordered(self.jobs));
        while let Some(contents) = reads.next().await {
            findings.extend(self.finding(id, contents));
        }
        findings
    }

    fn finding(&self, id: &BackupId, contents: Contents) -> Option<Finding> {
        let not_verified =
            |text, hint: &str| Some(Finding::of(id, Severity::NotVerified, (text, hint)));
        match contents {
            Contents::Sound => None,
            Contents::Damaged(text) => {
                let said = (text, presence::HINT_OBJECT);
                Some(Finding::of(id, Severity::Damaged, said))
            }
            Contents::NotRead(error) => {
                // What is behind a store that fails is not read for hours of retries each.
                self.reading.download.cancel.cancel();
                not_verified(chain(&error), &error.hint())
            }
            Contents::Cancelled => not_verified(
                "it was not read to its end, for the store had failed before".to_owned(),
                HINT_AGAIN,
            ),
        }
    }
}

/// Our own record of a backup's tars; `None` where it went since it was listed.
async fn objects_record(
    repository: &Repository,
    id: &BackupId,
) -> Result<Option<StoredObjects>, Finding> {
    let key = StoredObjects::key(&repository.layout, id);
    let bytes = match repository.get_small(&key).await {
        Ok(bytes) => bytes,
        Err(RepositoryError::Store(error)) if error.is_not_found() => return Ok(None),
        Err(error) => {
            let said = (chain(&error), error.hint());
            let said = (said.0, said.1.as_str());
            return Err(Finding::of(id, Severity::NotVerified, said));
        }
    };
    StoredObjects::parse(&bytes).map(Some).map_err(|error| {
        let text = format!("the record of its digests, {key}, makes no sense: {error}");
        Finding::of(id, Severity::Damaged, (text, presence::HINT_OBJECT))
    })
}

fn wal_findings(wal: &WalFound) -> Vec<Finding> {
    let archive = |backups: BTreeSet<BackupId>, severity, text, hint: &str| Finding {
        severity,
        backups,
        text,
        hint: hint.to_owned(),
    };
    let mut findings = Vec::new();
    for missing in &wal.lines.missing {
        let range = wal::range_text(missing.first, missing.last);
        let backups = missing.backups.clone();
        findings.push(if missing.is_on_its_way {
            let text = format!("WAL {range} is not there yet; what lies behind it was put just now");
            archive(backups, Severity::Note, text, "")
        } else {
            let (count, s) = (missing.count, if missing.count == 1 { "" } else { "s" });
            let text = format!("WAL {range} is missing ({count} segment{s})");
            let hint = "If a server still has it in pg_wal, archive it by hand with `cellarman wal \
                        archive`. Otherwise take a new backup now: the ones named cannot be recovered \
                        beyond it.";
            archive(backups, Severity::Damaged, text, hint)
        });
    }
    for timeline in &wal.lines.without_history {
        let number = timeline.to_u32();
        let text = format!(
            "{number:08X}.history is missing, while WAL of timeline {timeline} is there: no backup of \
             an earlier timeline can be recovered along it"
        );
        let hint = "Archive it by hand with `cellarman wal archive` from pg_wal of a server on that \
                    timeline.";
        findings.push(archive(BTreeSet::new(), Severity::Damaged, text, hint));
    }
    for history in &wal.unreadable {
        let text = chain(&history.error);
        let hint =
            "Put back the history file of that timeline, from pg_wal of a server that has it.";
        findings.push(archive(BTreeSet::new(), Severity::Damaged, text, hint));
    }
    for cut in &wal.cut_short {
        let text = format!("{} has only {} bytes", cut.key, cut.size);
        let hint = "If a server still has it in pg_wal, move the object away and archive the file by \
                    hand with `cellarman wal archive`; otherwise take a new backup now.";
        findings.push(archive(BTreeSet::new(), Severity::Damaged, text, hint));
    }
    findings
}
