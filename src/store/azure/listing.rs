//! Listings, a page at a time.

use http::Method;

use super::wire::Call;
use super::xml::{self, Blob};
use super::{AzureStore, fault};
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::{ListPage, ListRequest, ObjectKey, ObjectMeta, PageToken};

/// The most entries of a page.
const ENTRIES_MAX: u16 = 1000;

/// A page of 1,000 names of 1,024 characters, each written as several bytes, is shorter.
const PAGE_BYTES_MAX: usize = 32 << 20;

/// Stands between the key that a listing starts after and the place where it goes on.
const SEPARATOR: char = '\n';

/// Where a listing goes on, and the key up to which everything is passed over.
///
/// Azure cannot start a listing after a key: it lists from the beginning, and what comes before
/// is left out here. So pages may be empty though more follows.
#[derive(Debug, Default, PartialEq, Eq)]
struct Place {
    marker: Option<String>,
    after: Option<String>,
}

impl Place {
    fn of(request: &ListRequest) -> Self {
        let Some(PageToken(token)) = &request.token else {
            return Self {
                marker: None,
                after: request.start_after.clone(),
            };
        };
        let (marker, after) = match token.split_once(SEPARATOR) {
            Some((marker, after)) => (marker, Some(after.to_owned())),
            None => (token.as_str(), None),
        };
        Self {
            marker: Some(marker.to_owned()),
            after,
        }
    }

    fn to_token(marker: &str, after: Option<&str>) -> PageToken {
        match after {
            Some(after) => PageToken(format!("{marker}{SEPARATOR}{after}")),
            None => PageToken(marker.to_owned()),
        }
    }

    fn is_passed_over(&self, key: &str) -> bool {
        self.after.as_deref().is_some_and(|after| key <= after)
    }
}

impl AzureStore {
    pub(super) async fn list_page(&self, request: &ListRequest) -> Result<ListPage, StoreError> {
        self.list_including(request, None).await
    }

    /// As a listing, with keys that have blocks and no blob, at a size of 0.
    pub(super) async fn list_with_unfinished(
        &self,
        request: &ListRequest,
    ) -> Result<ListPage, StoreError> {
        self.list_including(request, Some("uncommittedblobs")).await
    }

    async fn list_including(
        &self,
        request: &ListRequest,
        include: Option<&str>,
    ) -> Result<ListPage, StoreError> {
        let about = self.request("list", &request.prefix);
        let place = Place::of(request);
        let entries = request.page_size_max.unwrap_or(ENTRIES_MAX);
        let mut call = Call::on_container(Method::GET)
            .query("comp", "list")
            .query("maxresults", entries.clamp(1, ENTRIES_MAX).to_string());
        if !request.prefix.is_empty() {
            call = call.query("prefix", &request.prefix);
        }
        if request.is_delimited {
            call = call.query("delimiter", "/");
        }
        if let Some(marker) = &place.marker {
            call = call.query("marker", marker);
        }
        if let Some(include) = include {
            call = call.query("include", include);
        }
        let answer = self.wire.send(&about, call).await?;
        let body = answer.into_body().collect(PAGE_BYTES_MAX).await;
        let body = body.map_err(|error| about.unanswered(error))?;
        page_of(&place, &body).map_err(|text| about.explained(StoreErrorKind::Corrupt, text))
    }
}

fn page_of(place: &Place, body: &[u8]) -> Result<ListPage, String> {
    let listing = xml::listing(body)?;
    let mut page = ListPage::default();
    for blob in listing.blobs.blobs {
        if blob.properties.resource_type.as_deref() == Some("directory") {
            continue;
        }
        let meta = meta_of(blob)?;
        if !place.is_passed_over(meta.key.as_str()) {
            page.objects.push(meta);
        }
    }
    for prefix in listing.blobs.prefixes {
        page.prefixes.push(prefix.name.decoded()?);
    }
    if !listing.next_marker.is_empty() {
        // Once a key is past the place, all that follow are.
        let after = place.after.as_deref().filter(|_| page.objects.is_empty());
        page.next = Some(Place::to_token(&listing.next_marker, after));
    }
    Ok(page)
}

fn meta_of(blob: Blob) -> Result<ObjectMeta, String> {
    Ok(ObjectMeta {
        key: ObjectKey::new(blob.name.decoded()?),
        size: blob.properties.content_length,
        etag: blob.properties.etag.as_deref().map(fault::plain_etag),
        modified: xml::time(blob.properties.last_modified.as_deref()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(names: &[&str], marker: &str) -> String {
        let blobs = names.iter().fold(String::new(), |blobs, name| {
            blobs + "<Blob><Name>" + name + "</Name><Properties/></Blob>"
        });
        format!(
            "<EnumerationResults><Blobs>{blobs}</Blobs><NextMarker>{marker}</NextMarker>\
             </EnumerationResults>"
        )
    }

    #[test]
    fn what_lies_before_the_start_is_left_out_page_by_page() {
        let mut request = ListRequest {
            start_after: Some("b".to_owned()),
            ..ListRequest::default()
        };
        let mut seen = Vec::new();
        for (names, marker) in [
            (vec!["a", "b"], "m1"),
            (vec!["b-", "c"], "m2"),
            (vec!["d"], ""),
        ] {
            let place = Place::of(&request);
            let found = page_of(&place, page(&names, marker).as_bytes()).unwrap();
            let keys = found.objects.iter().map(|meta| meta.key.to_string());
            seen.push(keys.collect::<Vec<_>>());
            request.token = found.next;
        }
        assert_eq!(seen, [vec![], vec!["b-", "c"], vec!["d"]]);
        assert_eq!(request.token, None);
    }

    #[test]
    fn directories_of_a_hierarchical_namespace_are_no_objects() {
        let body = "<EnumerationResults><Blobs><Blob><Name>a</Name><Properties>\
            <ResourceType>directory</ResourceType></Properties></Blob></Blobs>\
            </EnumerationResults>";
        let found = page_of(&Place::default(), body.as_bytes()).unwrap();
        assert_eq!(found.objects, []);
    }
}
