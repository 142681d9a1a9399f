//! The archive's points: whose it is, and whether what the server archived has arrived.

use serde::Deserialize;

use super::server::Found;
use super::{Check, Points};
use crate::barman::layout::Layout;
use crate::barman::repository::RepositoryError;
use crate::codec::Codec;
use crate::domain::wal_file::WalFileName;
use crate::fault::Kind;
use crate::store::ListRequest;
use crate::store::error::StoreError;

const OWNER: &str = "archive-owner";
const LAST_WAL: &str = "last-wal";

/// What the archive's own object says of its owner.
#[derive(Deserialize)]
struct Owner {
    system_id: String,
}

/// Tests them.
pub(super) async fn check(
    check: &Check,
    is_store_usable: bool,
    found: Option<&Found>,
    points: &mut Points,
) {
    if !is_store_usable {
        points.not_run(&[OWNER, LAST_WAL], "the store does not answer");
        return;
    }
    check_owner(check, found, points).await;
    match found.and_then(|found| found.last_archived.as_deref()) {
        Some(name) => {
            let is_expected = found.is_some_and(|found| found.is_archiving_here);
            check_last_archived(check, name, is_expected, points).await;
        }
        None => check_newest(check, points).await,
    }
}

async fn check_owner(check: &Check, found: Option<&Found>, points: &mut Points) {
    let ours = found
        .and_then(|found| found.control.as_ref())
        .map(|control| control.system_id.to_string());
    let key = check.repository.layout.private("archive.json");
    let bytes = match check.repository.get_small(&key).await {
        Ok(bytes) => bytes,
        Err(RepositoryError::Store(error)) if error.is_not_found() => {
            points.ok(
                OWNER,
                "nobody's yet: the first WAL file makes it its server's",
            );
            return;
        }
        Err(error) => {
            points.failed(OWNER, &error);
            return;
        }
    };
    let owner = serde_json::from_slice::<Owner>(&bytes).map(|owner| owner.system_id);
    match (owner, ours) {
        (Err(_), _) => points.refuse(
            OWNER,
            Kind::Corrupt,
            (format!("{key} makes no sense"), Kind::Corrupt.hint()),
        ),
        (Ok(theirs), Some(ours)) if theirs != ours => points.refuse(
            OWNER,
            Kind::Conflict,
            (
                format!("it belongs to the cluster {theirs}, and this is {ours}"),
                Kind::Conflict.hint(),
            ),
        ),
        (Ok(theirs), Some(_)) => points.ok(OWNER, format!("this server's: {theirs}")),
        (Ok(theirs), None) => points.ok(OWNER, format!("the cluster {theirs}")),
    }
}

/// Whether the file that the server archived last is there.
async fn check_last_archived(check: &Check, name: &str, is_expected: bool, points: &mut Points) {
    let Ok(file) = name.parse::<WalFileName>() else {
        points.not_run(&[LAST_WAL], "the server's last file has no name of WAL");
        return;
    };
    let prefix = check.repository.layout.wal(&file, Codec::None);
    match keys(check, prefix.as_str()).await {
        Ok(keys) if keys.contains(&file) => points.ok(LAST_WAL, name),
        Ok(_) if is_expected => points.refuse(
            LAST_WAL,
            Kind::Conflict,
            (
                format!("the server archived {name}, and it is not here"),
                "Check that archive_command names this --store and this --server.",
            ),
        ),
        Ok(_) => points.warn(
            LAST_WAL,
            format!("the server archived {name} elsewhere"),
            "Check again after the server has archived a file by archive_command.",
        ),
        Err(error) => points.failed(LAST_WAL, &error),
    }
}

/// The newest file of the archive, where there is no server to compare with.
async fn check_newest(check: &Check, points: &mut Points) {
    match newest(check).await {
        Ok(Some(file)) => points.ok(LAST_WAL, format!("{file} is the newest here")),
        Ok(None) => points.ok(LAST_WAL, "none is here yet"),
        Err(error) => points.failed(LAST_WAL, &error),
    }
}

async fn newest(check: &Check) -> Result<Option<WalFileName>, StoreError> {
    let mut request = ListRequest {
        prefix: check.repository.layout.wals_prefix(),
        is_delimited: true,
        ..ListRequest::default()
    };
    let mut last_folder = None;
    loop {
        let mut page = check.repository.store.list(&request).await?;
        last_folder = page.prefixes.pop().or(last_folder);
        request.token = page.next;
        if request.token.is_none() {
            break;
        }
    }
    let Some(folder) = last_folder else {
        return Ok(None);
    };
    let files = keys(check, &folder).await?;
    Ok(files.into_iter().max_by_key(ToString::to_string))
}

/// The WAL files of the first page below a prefix that has any: a folder has no more, but for repeats.
async fn keys(check: &Check, prefix: &str) -> Result<Vec<WalFileName>, StoreError> {
    let mut request = ListRequest {
        prefix: prefix.to_owned(),
        ..ListRequest::default()
    };
    let mut page = check.repository.store.list(&request).await?;
    while let Some(next) = page.next.filter(|_| page.objects.is_empty()) {
        request.token = Some(next);
        page = check.repository.store.list(&request).await?;
    }
    let names = page.objects.iter().map(|meta| meta.key.base_name());
    Ok(names
        .filter_map(Layout::parse_wal)
        .map(|(file, _)| file)
        .collect())
}
