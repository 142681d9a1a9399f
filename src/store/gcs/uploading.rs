//! Putting: objects in one request, and larger ones in sessions.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};

use super::GcsStore;
use super::client::{self, Call};
use super::fault::Answer;
use super::session::{self, Outgoing, Session};
use super::wire::{self, Boundary, NewObject, ObjectResource};
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::request::Request;
use crate::store::{ObjectKey, PartTag, PutOptions, UploadId};

/// What Barman's objects have.
const CONTENT_TYPE: &str = "application/octet-stream";

/// How the service says that a chunk arrived and more is wanted.
const RESUME_INCOMPLETE: StatusCode = StatusCode::PERMANENT_REDIRECT;

/// How the service says that a session was given up.
const GIVEN_UP: u16 = 499;

/// What the service says of a session.
enum Said {
    /// It has so many bytes and waits for more.
    Has(u64),
    /// The object is there.
    Complete(ObjectResource),
}

impl GcsStore {
    pub(super) async fn put_whole(
        &self,
        key: &ObjectKey,
        body: Bytes,
        options: &PutOptions,
    ) -> Result<(), StoreError> {
        let request = self.request("put", key.as_str());
        let (body, crc32c) = checksum(&request, body).await?;
        let description = self.description(&request, key, options, Some(crc32c))?;
        let boundary = Boundary::random();
        let content_type = format!("multipart/related; boundary={}", boundary.as_str());
        let target = self.upload_target("multipart", key, options);
        let parts = wire::related(&boundary, &description, body);
        let call = Call::new(Method::POST, target).body(&content_type, parts.to_vec());
        let stored: ObjectResource = self.client.json(&request, call).await?;
        if stored.crc32c.as_deref() != Some(&wire::crc32c_text(crc32c)) {
            let text = "the service says that it stored other bytes";
            return Err(request.explained(StoreErrorKind::Corrupt, text));
        }
        Ok(())
    }

    pub(super) async fn begin_session(
        &self,
        key: &ObjectKey,
        options: &PutOptions,
    ) -> Result<UploadId, StoreError> {
        let request = self.request("begin upload of", key.as_str());
        let description = self.description(&request, key, options, None)?;
        let target = self.upload_target("resumable", key, options);
        let call = Call::new(Method::POST, target)
            .body("application/json; charset=UTF-8", Bytes::from(description));
        let headers = match self.client.answer(&request, call).await? {
            Ok((headers, _)) => headers,
            Err(answer) => return Err(answer.of(&request)),
        };
        let target = session_target(&headers).ok_or_else(|| {
            request.explained(StoreErrorKind::Corrupt, "no session in the answer")
        })?;
        let upload = UploadId(format!("{:032x}", fastrand::u128(..)));
        let session = Arc::new(Session::new(key.clone(), target));
        self.sessions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(upload.0.clone(), session);
        Ok(upload)
    }

    pub(super) async fn put_part_in_turn(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        body: Bytes,
    ) -> Result<PartTag, StoreError> {
        let request = self.request("put part of", key.as_str());
        let session = self.session(&request, key, upload)?;
        let size = body.len();
        let (body, crc32c) = checksum(&request, body).await?;
        session.turn(number).await;
        let tag = PartTag {
            number,
            tag: session::tag_of(crc32c),
        };
        let outgoing = {
            let progress = session.progress();
            if let Some(earlier) = progress.tags().find(|earlier| earlier.number == number) {
                // Asked again after it was done; other bytes cannot take its place.
                let text = "parts are put in order here, and each once";
                let refused = || request.explained(StoreErrorKind::Unsupported, text);
                return (earlier == tag).then_some(tag).ok_or_else(refused);
            }
            progress.outgoing(&body)
        };
        self.send_part(&request, &session, &outgoing).await?;
        session.is_done(&outgoing, (crc32c, size));
        Ok(tag)
    }

    /// Sends the part until the service has all of it, from where it says that it stands.
    async fn send_part(
        &self,
        request: &Request,
        session: &Session,
        outgoing: &Outgoing,
    ) -> Result<(), StoreError> {
        let mut place = outgoing.begin;
        if session.progress().is_unsure {
            place = self.persisted(request, session, outgoing).await?;
        }
        while place < outgoing.end() {
            let range = format!("bytes {place}-{}/*", outgoing.end() - 1);
            let chunks = outgoing.from(place).to_vec();
            session.unsure();
            let next = match self.send_chunk(request, session, range, chunks).await? {
                Said::Has(next) => next,
                Said::Complete(_) => return Err(misunderstood(request)),
            };
            place = match next {
                _ if next > place && next <= outgoing.end() => next,
                // It may take less than it was sent, and nothing for once.
                _ if next == place => return Err(took_nothing(request)),
                _ => return Err(misunderstood(request)),
            };
        }
        Ok(())
    }

    /// How far the service has come, which must be within the part.
    async fn persisted(
        &self,
        request: &Request,
        session: &Session,
        outgoing: &Outgoing,
    ) -> Result<u64, StoreError> {
        let all = "bytes */*".to_owned();
        match self.send_chunk(request, session, all, Vec::new()).await? {
            Said::Has(place) if (outgoing.begin..=outgoing.end()).contains(&place) => Ok(place),
            _ => Err(misunderstood(request)),
        }
    }

    pub(super) async fn complete_session(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[PartTag],
    ) -> Result<(), StoreError> {
        let request = self.request("complete upload of", key.as_str());
        let session = self.session(&request, key, upload)?;
        let progress = session.progress().clone();
        if !progress.tags().eq(parts.iter().cloned()) {
            let text = "these are not the parts that were put, in their order";
            return Err(request.explained(StoreErrorKind::Unsupported, text));
        }
        let tail = Outgoing {
            begin: progress.sent,
            chunks: [progress.tail.clone(), Bytes::new()],
            tail: Bytes::new(),
        };
        let total = tail.end();
        let mut place = tail.begin;
        let stored = loop {
            let is_question = place == total || session.progress().is_unsure;
            let before = place;
            let (range, chunks) = if is_question {
                (format!("bytes */{total}"), Vec::new())
            } else {
                let range = format!("bytes {place}-{}/{total}", total - 1);
                (range, tail.from(place).to_vec())
            };
            session.unsure();
            let said = match self.send_chunk(&request, &session, range, chunks).await {
                Err(gone) if gone.is_no_upload() => return Err(self.gone(key, gone).await),
                said => said?,
            };
            match said {
                Said::Complete(stored) => break stored,
                // Said of all bytes, it would go round for ever.
                Said::Has(next) if (tail.begin..total).contains(&next) => place = next,
                Said::Has(_) => return Err(misunderstood(&request)),
            }
            // Whoever asks again waits before, and asks what is there.
            if !is_question && place <= before {
                return Err(took_nothing(&request));
            }
            session.progress().is_unsure = false;
        };
        let judged = self
            .judge_stored(&request, &stored, total, progress.crc32c)
            .await;
        // While it may be asked again the session stays: one that is not known any more is taken
        // for one that was completed, and what it stored wrongly for its object.
        if !judged.as_ref().is_err_and(StoreError::is_retryable) {
            self.forget(upload);
        }
        judged
    }

    /// A session that is gone at its end: where an object stands, it may have stored other bytes,
    /// and nothing must be concluded from it.
    async fn gone(&self, key: &ObjectKey, gone: StoreError) -> StoreError {
        match self.head_meta(key).await {
            Err(absent) if absent.is_not_found() => gone,
            Err(other) => other,
            Ok(_) => StoreError {
                kind: StoreErrorKind::Other,
                ..gone
            },
        }
    }

    /// Fails unless what was stored is what was sent; what is not is taken away again.
    async fn judge_stored(
        &self,
        request: &Request,
        stored: &ObjectResource,
        size: u64,
        crc32c: u32,
    ) -> Result<(), StoreError> {
        let meta = stored.to_meta();
        let is_whole = meta.as_ref().is_some_and(|meta| meta.size == size)
            && stored.crc32c.as_deref() == Some(&wire::crc32c_text(crc32c));
        if is_whole {
            return Ok(());
        }
        if let Some(meta) = meta {
            let generation = meta.etag.unwrap_or_default();
            let query = wire::query(&[("ifGenerationMatch", &generation)]);
            let target = format!("{}{query}", self.object_path(&meta.key));
            let gone = self
                .client
                .answer(request, Call::new(Method::DELETE, target))
                .await?;
            tracing::debug!(is_gone = gone.is_ok(), "took away what was stored wrongly");
        }
        let text = "the service says that it stored other bytes";
        Err(request.explained(StoreErrorKind::Corrupt, text))
    }

    pub(super) async fn abort_session(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
    ) -> Result<(), StoreError> {
        let request = self.request("abort upload of", key.as_str());
        let Ok(session) = self.session(&request, key, upload) else {
            return Ok(());
        };
        let call = Call::new(Method::DELETE, session.target());
        match self.client.answer(&request, call).await? {
            Err(answer) if !matches!(answer.status, GIVEN_UP | 404 | 410) => {
                Err(answer.of(&request))
            }
            _ => {
                self.forget(upload);
                Ok(())
            }
        }
    }

    async fn send_chunk(
        &self,
        request: &Request,
        session: &Session,
        range: String,
        chunks: Vec<Bytes>,
    ) -> Result<Said, StoreError> {
        let mut call =
            Call::new(Method::PUT, session.target()).header(header::CONTENT_RANGE, range);
        call.body = chunks.into();
        let answer = self.client.send(request, call).await?;
        if answer.status() == RESUME_INCOMPLETE {
            return Ok(Said::Has(bytes_had(answer.headers())));
        }
        if !answer.status().is_success() {
            let answer = self.client.refusal(request, answer).await?;
            return Err(session_refused(request, answer));
        }
        let body = answer.into_body().collect(client::ANSWER_BYTES_MAX).await;
        let body = body.map_err(|error| request.unanswered(error))?;
        client::parsed(request, &body).map(Said::Complete)
    }

    fn session(
        &self,
        request: &Request,
        key: &ObjectKey,
        upload: &UploadId,
    ) -> Result<Arc<Session>, StoreError> {
        let sessions = self.sessions.lock();
        let sessions = sessions.unwrap_or_else(PoisonError::into_inner);
        let session = sessions.get(&upload.0).filter(|found| found.key == *key);
        session.cloned().ok_or_else(|| {
            let text = "no such upload of this process";
            request.explained(StoreErrorKind::NoUpload, text)
        })
    }

    fn forget(&self, upload: &UploadId) {
        let sessions = self.sessions.lock();
        let mut sessions = sessions.unwrap_or_else(PoisonError::into_inner);
        sessions.remove(&upload.0);
    }

    fn upload_target(&self, kind: &str, key: &ObjectKey, options: &PutOptions) -> String {
        let mut pairs = vec![("uploadType", kind), ("name", key.as_str())];
        if options.if_absent {
            pairs.push(("ifGenerationMatch", "0"));
        }
        if let Some(name) = &self.kms_key_name {
            pairs.push(("kmsKeyName", name));
        }
        let fields = "name,size,generation,crc32c";
        pairs.push(("fields", fields));
        format!("/upload{}{}", self.objects_path(), wire::query(&pairs))
    }

    fn description(
        &self,
        request: &Request,
        key: &ObjectKey,
        options: &PutOptions,
        crc32c: Option<u32>,
    ) -> Result<String, StoreError> {
        serde_json::to_string(&NewObject {
            name: key.as_str(),
            content_type: CONTENT_TYPE,
            crc32c: crc32c.map(wire::crc32c_text),
            storage_class: self.storage_class.as_deref(),
            metadata: wire::metadata(&options.tags),
        })
        .map_err(|error| request.explained(StoreErrorKind::Other, error.to_string()))
    }
}

/// The checksum of a body, taken on a thread that may be busy, and the body.
async fn checksum(request: &Request, body: Bytes) -> Result<(Bytes, u32), StoreError> {
    tokio::task::spawn_blocking(move || {
        let crc32c = crc32c::crc32c(&body);
        (body, crc32c)
    })
    .await
    .map_err(|error| request.explained(StoreErrorKind::Other, error.to_string()))
}

/// Path and query of the session in `Location`: the host stays the one that was asked.
fn session_target(headers: &HeaderMap) -> Option<String> {
    let location = headers.get(header::LOCATION)?.to_str().ok()?;
    let location: http::Uri = location.parse().ok()?;
    let target = location.path_and_query()?.as_str();
    target.contains("upload_id=").then(|| target.to_owned())
}

/// How many bytes `Range: bytes=0-N` says; none without it.
fn bytes_had(headers: &HeaderMap) -> u64 {
    headers
        .get(header::RANGE)
        .and_then(|value| value.to_str().ok()?.rsplit_once('-')?.1.trim().parse().ok())
        .map_or(0, |last: u64| last.saturating_add(1))
}

/// A session that is gone is no missing object.
fn session_refused(request: &Request, answer: Answer) -> StoreError {
    if matches!(answer.status, 404 | 410) && !answer.is_no_bucket() {
        return request.caused(StoreErrorKind::NoUpload, answer);
    }
    answer.of(request)
}

fn took_nothing(request: &Request) -> StoreError {
    let text = "the service took none of the bytes";
    request.explained(StoreErrorKind::Unreachable, text)
}

fn misunderstood(request: &Request) -> StoreError {
    let text = "the service counts other bytes than were sent";
    request.explained(StoreErrorKind::Corrupt, text)
}
