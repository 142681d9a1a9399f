//! What the operator's side says that it can do.
//!
//! Not here: the sidecars' lists.

use cellarman::cnpgi::identity::PluginCapability;
use cellarman::cnpgi::identity::plugin_capability::{self, Service, service};
use cellarman::cnpgi::operator::OperatorCapability;
use cellarman::cnpgi::operator::operator_capability::{self, Rpc, rpc};
use cellarman::cnpgi::operator_lifecycle::operator_operation_type::Type as OperationType;
use cellarman::cnpgi::operator_lifecycle::{OperatorLifecycleCapabilities, OperatorOperationType};
use cellarman::cnpgi::reconciler::ReconcilerHooksCapability;
use cellarman::cnpgi::reconciler::reconciler_hooks_capability::Kind;

/// The services, for Identity.
///
/// The injection of sidecars is named so that the instances ask them for metrics.
pub fn services() -> Vec<PluginCapability> {
    [
        service::Type::ReconcilerHooks,
        service::Type::LifecycleService,
        service::Type::InstanceSidecarInjection,
        service::Type::OperatorService,
    ]
    .into_iter()
    .map(|service| PluginCapability {
        r#type: Some(plugin_capability::Type::Service(Service {
            r#type: service.into(),
        })),
    })
    .collect()
}

/// The objects whose life is followed, and which parts of it.
pub fn lifecycle() -> Vec<OperatorLifecycleCapabilities> {
    let capability = |group: &str, kind: &str, operations: &[OperationType]| {
        let operations = operations.iter().map(|operation| OperatorOperationType {
            r#type: (*operation).into(),
        });
        OperatorLifecycleCapabilities {
            group: group.to_owned(),
            kind: kind.to_owned(),
            operation_types: operations.collect(),
        }
    };
    vec![
        capability("", "Pod", &[OperationType::Create, OperationType::Evaluate]),
        capability("batch", "Job", &[OperationType::Create]),
    ]
}

/// The objects whose reconciliation is followed.
pub fn reconciler() -> Vec<ReconcilerHooksCapability> {
    [Kind::Cluster, Kind::Backup]
        .into_iter()
        .map(|kind| ReconcilerHooksCapability { kind: kind.into() })
        .collect()
}

/// What the Operator service answers: whether a Cluster is in order.
pub fn operator() -> Vec<OperatorCapability> {
    [
        rpc::Type::ValidateClusterCreate,
        rpc::Type::ValidateClusterChange,
    ]
    .into_iter()
    .map(|call| OperatorCapability {
        r#type: Some(operator_capability::Type::Rpc(Rpc {
            r#type: call.into(),
        })),
    })
    .collect()
}
