//! Whether a new Cluster's recovery reaches its target, told when the Cluster is created, and the
//! backup filled in that the operator asks for with a name, a transaction, or `targetImmediate`.
//!
//! | module | what it is |
//! |---|---|
//! | [`review`] | pure: the AdmissionReview read and answered |
//! | [`question`] | pure: what of it is to be looked at |
//! | [`look`] | the archive, and the plan of the recovery |
//! | [`verdict`] | pure: what that means for the Cluster |
//!
//! Whatever cannot be told lets the Cluster through, with a warning. Not here: HTTP and TLS
//! (`serving`).

pub mod look;
pub mod question;
pub mod review;
pub mod verdict;

use std::sync::Arc;
use std::time::{Duration, Instant};

use cellarman::fault::Fault;
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::admission::look::{LookError, look};
use crate::admission::question::{Question, Subject};
use crate::admission::review::{ReviewError, Verdict};
use crate::operator::Settings;
use crate::resources::api::ApiServer;
use crate::resources::kubernetes::{CnpgApi, Kubernetes};

/// So many archives are looked at at once; the next one waits, as far as its time goes.
const LOOKS_MAX: usize = 4;

/// Answers reviews.
#[derive(Debug)]
pub struct Admission {
    api: ApiServer,
    settings: Settings,
    turns: Semaphore,
}

impl Admission {
    /// Answers with the plugin's own rights at `api`.
    pub fn new(api: ApiServer, settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            api,
            settings,
            turns: Semaphore::new(LOOKS_MAX),
        })
    }

    /// The answer to a review, within `patience`.
    ///
    /// # Errors
    /// Where the body is no review.
    pub async fn answer(&self, body: &[u8], patience: Duration) -> Result<Value, ReviewError> {
        let request = review::parse(body)?;
        let verdict = match question::of(&request, &self.settings) {
            Question::None => Verdict::untouched(),
            Question::Unclear(reason) => verdict::unchecked(&reason),
            Question::Wrong(error) => verdict::refusal(&error),
            Question::Target(subject) => self.judge(&subject, patience).await,
        };
        Ok(review::answer(&request.uid, &verdict))
    }

    async fn judge(&self, subject: &Subject, patience: Duration) -> Verdict {
        let begun = Instant::now();
        let turn = tokio::time::timeout(patience, self.turns.acquire()).await;
        let plan = match turn {
            Ok(_turn) => {
                let rest = patience.saturating_sub(begun.elapsed());
                look(&self.kubernetes(subject), subject, rest).await
            }
            Err(_elapsed) => Err(LookError::Timeout(patience)),
        };
        if let Err(error) = &plan {
            tracing::debug!(hint = error.hint(), %error, "there is no plan");
        }
        let verdict = verdict::of(&subject.asked, plan);
        tell(subject, &verdict);
        verdict
    }

    fn kubernetes(&self, subject: &Subject) -> Kubernetes {
        let (group, version) = (&self.settings.cluster_group, &self.settings.cluster_version);
        let cnpg = CnpgApi::or_default(Some(group), Some(version));
        Kubernetes::new(self.api.clone(), &subject.namespace, cnpg)
    }
}

/// What was decided, for the log.
fn tell(subject: &Subject, verdict: &Verdict) {
    let Subject {
        namespace, cluster, ..
    } = subject;
    match verdict {
        Verdict::Allowed { backup, warnings } => {
            let backup = backup.as_ref().map(ToString::to_string);
            let warnings = warnings.join(" ");
            tracing::info!(
                namespace,
                cluster,
                backup,
                warnings,
                "let a recovery through"
            );
        }
        Verdict::Denied(reason) => {
            tracing::info!(namespace, cluster, reason, "refused a recovery");
        }
    }
}
