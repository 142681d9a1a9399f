//! Deleting: a hundred objects in one request, as the service's batches have it.

use http::{Method, header};

use super::GcsStore;
use super::client::Call;
use super::fault::Answer;
use super::wire::{self, Boundary, PartAnswer};
use crate::store::ObjectKey;
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::request::Request;

/// The most questions of one batch.
const BATCH_MAX: usize = 100;

impl GcsStore {
    pub(super) async fn delete_keys(&self, keys: &[ObjectKey]) -> Result<(), StoreError> {
        if let [key] = keys {
            return self.delete_one(key).await;
        }
        for keys in keys.chunks(BATCH_MAX) {
            self.delete_batch(keys).await?;
        }
        Ok(())
    }

    async fn delete_one(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let request = self.request("delete", key.as_str());
        let call = Call::new(Method::DELETE, self.object_path(key));
        match self.client.answer(&request, call).await? {
            Ok(_) => Ok(()),
            Err(answer) => ended(&request, answer),
        }
    }

    async fn delete_batch(&self, keys: &[ObjectKey]) -> Result<(), StoreError> {
        let request = self.request("delete", keys.first().map_or("", ObjectKey::as_str));
        let boundary = Boundary::random();
        let paths: Vec<String> = keys.iter().map(|key| self.object_path(key)).collect();
        let content_type = format!("multipart/mixed; boundary={}", boundary.as_str());
        let body = wire::batch_of_deletes(&boundary, &paths);
        let call = Call::new(Method::POST, "/batch/storage/v1").body(&content_type, body);
        let (headers, body) = match self.client.answer(&request, call).await? {
            Ok(answered) => answered,
            Err(answer) => return Err(answer.of(&request)),
        };
        let content_type = headers.get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok());
        let text = String::from_utf8_lossy(&body);
        let answers = wire::batch_answers(content_type.unwrap_or_default(), &text)
            .filter(|answers| answers.len() == keys.len())
            .ok_or_else(|| {
                let text = "the answer to a batch is not whole";
                request.explained(StoreErrorKind::Unreachable, text)
            })?;
        self.judge_batch(&request, keys, &answers)
    }

    /// Fails with the first answer that is neither a success nor an absence.
    fn judge_batch(
        &self,
        request: &Request,
        keys: &[ObjectKey],
        answers: &[PartAnswer<'_>],
    ) -> Result<(), StoreError> {
        for answer in answers {
            let key = answer.number.checked_sub(1).and_then(|at| keys.get(at));
            let key = key.ok_or_else(|| {
                request.explained(StoreErrorKind::Corrupt, "an answer to no question")
            })?;
            if !(200..300).contains(&answer.status) {
                let said = Answer::new(answer.status, answer.body.as_bytes());
                ended(&self.request("delete", key.as_str()), said)?;
            }
        }
        Ok(())
    }
}

/// What an answer that is no success means: the absent need not be deleted.
fn ended(request: &Request, answer: Answer) -> Result<(), StoreError> {
    if answer.is_absent() && !answer.is_no_bucket() {
        return Ok(());
    }
    Err(answer.of(request))
}
