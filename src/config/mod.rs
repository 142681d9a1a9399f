//! Settings, raw to validated: the ObjectStore manifest, its Secrets, the environment.
