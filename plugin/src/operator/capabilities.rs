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
///
/// It publishes nothing in a Cluster's status: the operator (1.30) forgets what was published at
/// the beginning of each reconciliation and comes again 5 s after it has written it anew, for ever.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What the operator shows in the status of a Cluster, and asks for by number.
    #[test]
    fn the_lists_are_those_of_the_contract_and_leave_nothing_unset() {
        let services: Vec<&str> = services()
            .iter()
            .map(|capability| match &capability.r#type {
                Some(plugin_capability::Type::Service(service)) => service.r#type().as_str_name(),
                None => "unset",
            })
            .collect();
        assert_eq!(
            services,
            [
                "TYPE_RECONCILER_HOOKS",
                "TYPE_LIFECYCLE_SERVICE",
                "TYPE_INSTANCE_SIDECAR_INJECTION",
                "TYPE_OPERATOR_SERVICE",
            ]
        );
        let objects: Vec<_> = lifecycle()
            .iter()
            .map(|capability| {
                let operations = capability.operation_types.iter();
                let operations: Vec<i32> = operations.map(|operation| operation.r#type).collect();
                (
                    capability.group.clone(),
                    capability.kind.clone(),
                    operations,
                )
            })
            .collect();
        let object = |group: &str, kind: &str, operations: &[i32]| {
            (group.to_owned(), kind.to_owned(), operations.to_vec())
        };
        assert_eq!(
            objects,
            [object("", "Pod", &[3, 6]), object("batch", "Job", &[3])]
        );
        let kinds: Vec<i32> = reconciler().iter().map(|one| one.kind).collect();
        assert_eq!(kinds, [1, 2]);
        let calls: Vec<i32> = operator()
            .iter()
            .map(|capability| match &capability.r#type {
                Some(operator_capability::Type::Rpc(rpc)) => rpc.r#type,
                None => 0,
            })
            .collect();
        assert_eq!(calls, [1, 2]);
    }
}
