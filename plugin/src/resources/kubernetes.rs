//! Objects of the Kubernetes API.
