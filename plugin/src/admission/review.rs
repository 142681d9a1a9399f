//! An AdmissionReview read and answered: JSON there and back, `admission.k8s.io/v1`.
//!
//! Source of the format: k8s.io/api/admission/v1/types.go. Pure. Not here: what the answer is.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cellarman::domain::backup::BackupId;
use serde::Deserialize;
use serde_json::{Value, json};

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// Where the backup of a recovery stands in a Cluster.
const BACKUP_ID: &str = "/spec/bootstrap/recovery/recoveryTarget/backupID";

/// A body that is no review.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// It is no JSON, or not of the shape.
    #[error("the body is no {KIND}")]
    Json(#[from] serde_json::Error),
    /// It is another object.
    #[error("the body is {kind:?} of {api_version:?}, and {KIND} of {API_VERSION} is expected")]
    Kind {
        /// The kind it says.
        kind: String,
        /// The version it says.
        api_version: String,
    },
    /// It asks nothing.
    #[error("the {KIND} has no request with a uid")]
    NoRequest,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    request: Option<Request>,
}

/// What is asked: whether an object may be what it is.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Request {
    /// What the answer is told by.
    pub uid: String,
    /// The kind of the object.
    pub kind: ObjectKind,
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    pub operation: String,
    /// A part of the object, such as `status`; empty for the object itself.
    pub sub_resource: String,
    /// The namespace of the object.
    pub namespace: String,
    /// The object as it is to be.
    pub object: Value,
}

/// A kind of object.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ObjectKind {
    /// Its group.
    pub group: String,
    /// Its name.
    pub kind: String,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may be.
    Allowed {
        /// The backup that is filled in.
        backup: Option<BackupId>,
        /// What its author should know, as sentences.
        warnings: Vec<String>,
    },
    /// It may not be, for this reason, as sentences.
    Denied(String),
}

impl Verdict {
    /// It may be as it is.
    pub fn untouched() -> Self {
        Self::Allowed {
            backup: None,
            warnings: Vec::new(),
        }
    }
}

/// The request in a body.
pub fn parse(body: &[u8]) -> Result<Request, ReviewError> {
    let review: Review = serde_json::from_slice(body)?;
    if review.kind != KIND || review.api_version != API_VERSION {
        return Err(ReviewError::Kind {
            kind: review.kind,
            api_version: review.api_version,
        });
    }
    let request = review.request.filter(|request| !request.uid.is_empty());
    request.ok_or(ReviewError::NoRequest)
}

/// The answer to the request of this uid.
pub fn answer(uid: &str, verdict: &Verdict) -> Value {
    let mut response = json!({"uid": uid, "allowed": matches!(verdict, Verdict::Allowed { .. })});
    match verdict {
        Verdict::Allowed { backup, warnings } => {
            if let Some(backup) = backup {
                let patch = json!([{"op": "add", "path": BACKUP_ID, "value": backup.as_str()}]);
                response["patchType"] = json!("JSONPatch");
                response["patch"] = json!(STANDARD.encode(patch.to_string()));
            }
            if !warnings.is_empty() {
                let warnings: Vec<String> = warnings.iter().map(|text| one_line(text)).collect();
                response["warnings"] = json!(warnings);
            }
        }
        // As CloudNativePG's own webhook refuses.
        Verdict::Denied(reason) => {
            response["status"] = json!({
                "status": "Failure",
                "code": 422,
                "reason": "Invalid",
                "message": one_line(reason),
            });
        }
    }
    json!({"apiVersion": API_VERSION, "kind": KIND, "response": response})
}

/// Warnings travel as headers, which hold no control characters.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_review_is_told_apart() {
        for (body, words) in [
            ("", "no AdmissionReview"),
            ("[]", "no AdmissionReview"),
            (r#"{"request": 7}"#, "no AdmissionReview"),
            ("{}", r#""" of """#),
            (
                r#"{"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview"}"#,
                "v1beta1",
            ),
            (
                r#"{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}"#,
                "no request",
            ),
            (
                r#"{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {}}"#,
                "no request",
            ),
        ] {
            let text = parse(body.as_bytes()).unwrap_err().to_string();
            assert!(text.contains(words), "{body}: {text}");
        }
    }

    #[test]
    fn warnings_are_one_line_each_and_no_patch_is_none() {
        let verdict = Verdict::Allowed {
            backup: None,
            warnings: vec!["one\r\ntwo".to_owned()],
        };
        let response = answer("7", &verdict)["response"].take();
        assert_eq!(
            response,
            json!({"uid": "7", "allowed": true, "warnings": ["one  two"]})
        );
    }
}
