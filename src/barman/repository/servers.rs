//! Which servers' archives lie below one path.

use futures::TryStreamExt;

use crate::barman::repository::{Repository, RepositoryError};
use crate::store::ListRequest;

impl Repository {
    /// Whether there is a backup or WAL of the server, or anything in their places.
    pub async fn has_server(&self) -> Result<bool, RepositoryError> {
        let places = [self.layout.base_prefix(), self.layout.wals_prefix()];
        let mut pages = std::pin::pin!(self.pages(ListRequest {
            prefix: self.layout.server_prefix(),
            is_delimited: true,
            ..ListRequest::default()
        }));
        while let Some(page) = pages.try_next().await? {
            if page.prefixes.iter().any(|prefix| places.contains(prefix)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The first folders in which other servers' archives may lie, by name: those beside the
    /// server's own, a page of them at most.
    pub async fn names_beside(&self) -> Result<Vec<String>, RepositoryError> {
        let path = self.layout.path();
        let request = ListRequest {
            prefix: path.to_owned(),
            is_delimited: true,
            ..ListRequest::default()
        };
        let prefixes = self.store.list(&request).await?.prefixes;
        let own = self.layout.server().as_str();
        let names = prefixes.iter().filter_map(|prefix| {
            let name = prefix.strip_prefix(path)?.strip_suffix('/')?;
            (!name.is_empty() && name != own).then(|| name.to_owned())
        });
        Ok(names.collect())
    }
}
