//! `cellarman.v1`, the protocol of our own: generated clients and servers.
//!
//! The definitions are in `proto/cellarman`. Not here: what the calls do (the package
//! `cellarman-plugin`), and CloudNativePG's protocol (`cnpgi`).

/// Where an archive can be gone back to, and how recovery would get there.
#[expect(
    missing_docs,
    unused_qualifications,
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::as_conversions,
    clippy::clone_on_ref_ptr,
    clippy::large_enum_variant,
    reason = "generated"
)]
pub mod recovery_targets {
    tonic::include_proto!("cellarman.v1");
}
