//! Barman Cloud of the Python package index, the other tool in the bucket.

use std::path::PathBuf;

use crate::azurite::Azurite;
use crate::cache;
use crate::process::Ended;
use crate::program::Program;
use crate::scratch::Scratch;
use crate::storage::Storage;

/// Barman's commands against one store.
#[derive(Debug)]
pub struct Barman {
    directory: PathBuf,
    scratch_home: String,
    provider: &'static str,
    environment: Vec<(String, String)>,
    account: crate::account::Account,
}

impl Barman {
    /// Where its commands are, or why they are not there.
    pub fn installed() -> Result<PathBuf, String> {
        let directory = cache::directory().join("barman/bin");
        cache::installed("barman", &directory.join("barman-cloud-backup"))?;
        Ok(directory)
    }

    /// Barman's commands with this store.
    pub fn new<S: Storage>(scratch: &Scratch, store: &S) -> Result<Self, String> {
        let home = scratch.make("barman-home");
        Ok(Self {
            directory: Self::installed()?,
            scratch_home: home.display().to_string(),
            provider: S::BARMAN_PROVIDER,
            environment: store.environment(),
            account: scratch.account(),
        })
    }

    /// Barman's commands with `azurite` as their store.
    pub fn on_azure(scratch: &Scratch, azurite: &Azurite) -> Result<Self, String> {
        let home = scratch.make("barman-home");
        Ok(Self {
            directory: Self::installed()?,
            scratch_home: home.display().to_string(),
            provider: "azure-blob-storage",
            environment: azurite.connection_string(),
            account: scratch.account(),
        })
    }

    /// The command `barman-cloud-<name>`.
    pub fn program(&self, name: &str) -> Program {
        self.bare(name).with_environment(&self.environment)
    }

    /// The same for a server that has [`environment`](Self::environment) itself.
    pub fn bare(&self, name: &str) -> Program {
        let binary = self.directory.join(format!("barman-cloud-{name}"));
        // Its temporary files are whole parts of the archives.
        Program::at(binary, self.account)
            .with_variable("TMPDIR", &self.scratch_home)
            .with_arguments(&["--cloud-provider", self.provider])
    }

    /// What its commands need in their environment.
    pub fn environment(&self) -> &[(String, String)] {
        &self.environment
    }

    /// `barman-cloud-<name>` run to its end.
    pub fn run(&self, name: &str, arguments: &[&str]) -> Ended {
        self.program(name).run(arguments)
    }
}
