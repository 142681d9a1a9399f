//! CNPG-I, the protocol between CloudNativePG and its plugins: generated clients and servers.
//!
//! The definitions are in `proto/cnpgi`. One module for each protobuf package, which is not
//! always one for each file: `RestoreJobHooks` is in [`wal`], `Postgres` in [`identity`].
//! Not here: what the calls do (the package `cellarman-plugin`).

macro_rules! package {
    ($(#[$doc:meta])* $name:ident, $package:literal) => {
        $(#[$doc])*
        #[expect(
            missing_docs,
            unused_qualifications,
            clippy::pedantic,
            clippy::allow_attributes,
            clippy::allow_attributes_without_reason,
            clippy::as_conversions,
            clippy::clone_on_ref_ptr,
            reason = "generated"
        )]
        pub mod $name {
            tonic::include_proto!($package);
        }
    };
}

package!(
    /// Base backups.
    backup,
    "cnpgi.backup.v1"
);
package!(
    /// Who a plugin is and what it can do, and settings of PostgreSQL.
    identity,
    "cnpgi.identity.v1"
);
package!(
    /// Figures for the instance's exporter.
    metrics,
    "cnpgi.metrics.v1"
);
package!(
    /// Admission of Clusters.
    operator,
    "cnpgi.operator.v1"
);
package!(
    /// Changes to Pods and Jobs.
    operator_lifecycle,
    "cnpgi.operator_lifecycle.v1"
);
package!(
    /// What happens before and after a reconciliation.
    reconciler,
    "cnpgi.reconciler.v1"
);
package!(
    /// WAL, and restoring in a recovery job.
    wal,
    "cnpgi.wal.v1"
);
