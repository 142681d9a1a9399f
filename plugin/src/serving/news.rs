//! Tells the readers of Clusters, in Events, what keeps the plugin from working for them.
//!
//! A call leaves its news and is not held up by the telling; news that cannot be taken or told comes
//! again with the next reconciliation. Not here: what is wrong (`validation`).

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::operator::MissingStore;
use crate::operator::validation::{Finding, Severity};
use crate::resources::kubernetes::Kubernetes;
use crate::resources::{Event, EventType, ObjectKind, ObjectRef, ResourceError, Resources};

/// So many pieces of news wait to be told.
const WAITING_MAX: usize = 64;

/// So many Clusters' findings are remembered; what is forgotten is told again.
const CLUSTERS_MAX: usize = 1024;

/// So many findings of one Cluster are told; the log has all.
const FINDINGS_MAX: usize = 8;

/// Kubernetes forgets an Event after an hour. What keeps a Cluster from working is told again before
/// that, when the Cluster is reconciled.
const FRESH: Duration = Duration::from_mins(50);

/// Which Cluster news is about, and where to tell it.
#[derive(Debug)]
pub struct Subject {
    /// The Cluster's namespace.
    pub kubernetes: Kubernetes,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// What is told.
#[derive(Debug)]
pub enum News {
    /// All that is wrong with the Cluster now; told when it changes.
    Findings(Vec<Finding>),
    /// What it needs and is not there; told each time.
    Missing(MissingStore),
}

/// Takes news of Clusters.
#[derive(Debug, Clone)]
pub struct Teller {
    news: mpsc::Sender<(Subject, News)>,
}

impl Teller {
    /// What takes news, and what tells it: it runs until `cancel`.
    pub fn start(cancel: CancellationToken) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (news, coming) = mpsc::channel(WAITING_MAX);
        let telling = async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = tell_all(coming) => {}
            }
        };
        (Self { news }, telling)
    }

    /// Leaves news to be told.
    pub fn leave(&self, subject: Subject, news: News) {
        if self.news.try_send((subject, news)).is_err() {
            tracing::debug!("too much news waits to be told");
        }
    }
}

async fn tell_all(mut coming: mpsc::Receiver<(Subject, News)>) {
    let mut memory = Memory::default();
    while let Some((subject, news)) = coming.recv().await {
        let told = match news {
            News::Findings(findings) => tell_findings(&subject, findings, &mut memory).await,
            News::Missing(missing) => {
                let message = format!("{missing}. {}", missing.hint());
                tell(&subject, "ObjectStoreMissing", message).await
            }
        };
        if let Err(error) = told {
            tracing::debug!(%error, "cannot tell an Event");
        }
    }
}

/// The same findings are told once, those that are worst first.
async fn tell_findings(
    subject: &Subject,
    mut findings: Vec<Finding>,
    memory: &mut Memory,
) -> Result<(), ResourceError> {
    let key = (
        subject.kubernetes.namespace().to_owned(),
        subject.name.clone(),
    );
    if findings.is_empty() {
        memory.clusters.remove(&key);
        return Ok(());
    }
    findings.sort_by_key(|finding| finding.severity != Severity::Refuse);
    let digest = digest(&subject.uid, &findings);
    let is_grave = findings[0].severity == Severity::Refuse;
    if memory.knows(&key, digest, is_grave) {
        return Ok(());
    }
    for finding in findings.into_iter().take(FINDINGS_MAX) {
        tell(subject, "InvalidPluginParameters", finding.sentences()).await?;
    }
    memory.keep(key, digest);
    Ok(())
}

async fn tell(
    subject: &Subject,
    reason: &'static str,
    message: String,
) -> Result<(), ResourceError> {
    let event = Event {
        about: ObjectRef::new(ObjectKind::Cluster, &subject.name),
        event_type: EventType::Warning,
        reason,
        message,
    };
    let namespace = subject.kubernetes.namespace();
    tracing::warn!(namespace, cluster = subject.name, "{}", event.message);
    subject.kubernetes.emit_with_uid(&event, &subject.uid).await
}

fn digest(uid: &str, findings: &[Finding]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (uid, findings).hash(&mut hasher);
    hasher.finish()
}

/// Which findings of which Cluster were told, and when.
#[derive(Debug, Default)]
struct Memory {
    clusters: HashMap<(String, String), (u64, Instant)>,
}

impl Memory {
    fn knows(&self, cluster: &(String, String), digest: u64, is_grave: bool) -> bool {
        let known = self.clusters.get(cluster);
        known.is_some_and(|(known, at)| *known == digest && (!is_grave || at.elapsed() < FRESH))
    }

    fn keep(&mut self, cluster: (String, String), digest: u64) {
        if self.clusters.len() >= CLUSTERS_MAX {
            self.clusters.clear();
        }
        self.clusters.insert(cluster, (digest, Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded_and_known() {
        let mut memory = Memory::default();
        let key = |number: usize| ("db".to_owned(), format!("pg-{number}"));
        for number in 0..=CLUSTERS_MAX {
            memory.keep(key(number), 1);
        }
        assert!(memory.clusters.len() <= CLUSTERS_MAX);
        let last = key(CLUSTERS_MAX);
        assert!(memory.knows(&last, 1, true));
        assert!(!memory.knows(&last, 2, true), "other findings");
        assert!(!memory.knows(&key(0), 1, false), "forgotten");
    }

    #[test]
    fn what_keeps_a_cluster_from_working_is_told_again_before_it_is_forgotten() {
        let mut memory = Memory::default();
        let key = ("db".to_owned(), "pg".to_owned());
        let Some(at) = Instant::now().checked_sub(FRESH) else {
            return;
        };
        memory.clusters.insert(key.clone(), (1, at));
        assert!(!memory.knows(&key, 1, true));
        assert!(memory.knows(&key, 1, false), "a warning is told once");
    }
}
