//! Looks into the archive of a recovery, and has its plan made.
//!
//! With the plugin's own rights to ObjectStores and Secrets, and with what those hold: never with the
//! identity of the plugin's own Pod, for whoever writes ObjectStores must not get to act by it. Reads,
//! and changes nothing. Not here: what the plan means for the Cluster (`verdict`).

use std::time::Duration;

use cellarman::barman::layout::Layout;
use cellarman::barman::repository::{Repository, RepositoryError};
use cellarman::fault::{Fault, Kind};
use cellarman::service::restore::error::RestoreError;
use cellarman::service::restore::recovery_plan::{self, RecoveryPlan, RecoveryRequest};
use cellarman::store::open;
use cellarman::store::retry::RetryPolicy;

use crate::admission::question::Subject;
use crate::archives::documents::Reader;
use crate::archives::{OpenError, server_name};
use crate::recovery::hints;
use crate::resources::{ResourceError, Resources};

/// Somebody waits for the answer: why there is none is known before it is too late to say so.
const RETRIES: RetryPolicy = RetryPolicy {
    timeout: Duration::from_secs(3),
    ..RetryPolicy::IMPATIENT
};

/// A recovery without a plan.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// The archive cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It is one that only the Cluster's own Pods can get to.
    #[error(
        "ObjectStore {0} is a directory of the Cluster's Pods, or is read by their identity, which the plugin does not have"
    )]
    OfPods(String),
    /// The catalog cannot be read, or lacks the backup asked for.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// There is no plan.
    #[error(transparent)]
    Plan(#[from] RestoreError),
    /// It took too long.
    #[error("the archive did not tell within {} s", .0.as_secs())]
    Timeout(Duration),
}

impl Fault for LookError {
    fn kind(&self) -> Kind {
        match self {
            Self::Open(error) => error.kind(),
            Self::OfPods(_) => Kind::Unsupported,
            Self::Repository(error) => error.kind(),
            Self::Plan(error) => error.kind(),
            Self::Timeout(_) => Kind::Unreachable,
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Open(OpenError::Object {
                cause: ResourceError::Denied { .. },
                ..
            }) => "Check the ClusterRole of the plugin's own service account.".to_owned(),
            Self::Open(error) => error.hint(),
            Self::OfPods(_) => "The Pods will look at the target when they recover.".to_owned(),
            Self::Repository(error) => hints::of_repository(error),
            Self::Plan(error) => hints::of(error),
            Self::Timeout(_) => {
                "Check the network between the plugin's Pod and the store; an archive without an \
                 index takes longer."
                    .to_owned()
            }
        }
    }
}

/// Makes the plan of a recovery, or gives up after `patience`.
pub async fn look(
    resources: &dyn Resources,
    subject: &Subject,
    patience: Duration,
) -> Result<RecoveryPlan, LookError> {
    let looked = tokio::time::timeout(patience, plan(resources, subject)).await;
    looked.unwrap_or(Err(LookError::Timeout(patience)))
}

async fn plan(resources: &dyn Resources, subject: &Subject) -> Result<RecoveryPlan, LookError> {
    let repository = open(resources, subject).await?;
    let recovery = subject.asked.clone().into_request(&repository).await?;
    let request = RecoveryRequest {
        recovery: &recovery,
        accepts_gap: false,
        // The operator tells the server its target, in the Cluster's words.
        may_reword: false,
    };
    Ok(recovery_plan::plan(&repository, &request).await?)
}

async fn open(resources: &dyn Resources, subject: &Subject) -> Result<Repository, LookError> {
    let server = server_name(&subject.archive)?;
    let reader = Reader {
        resources,
        certificates: None,
    };
    let object_store = &subject.archive.object_store;
    let documents = reader.read(object_store, &subject.field).await?;
    // The variables of the plugin's own process are none of the Cluster's.
    let destination = documents.settings(&|_| None)?.destination;
    if destination.store.depends_on_host() {
        return Err(LookError::OfPods(object_store.clone()));
    }
    let store = open::open_with(&destination.store, RETRIES).await;
    let store = store.map_err(OpenError::from)?;
    Ok(Repository::new(
        store,
        Layout::new(&destination.path, &server),
    ))
}
