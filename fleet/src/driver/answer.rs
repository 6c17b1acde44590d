//! The errors that people and programs get over HTTP.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use osiris_protocol::error::ErrorBody;
use osiris_runtime::CallError;

use crate::api::codes;

/// An answer that is an error: its status and its body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", body.message)]
pub struct ApiError {
    /// The HTTP status.
    pub status: u16,
    /// What the caller reads.
    pub body: ErrorBody,
    /// When trying again makes sense.
    pub retry_after: Option<Duration>,
    /// The methods that would do, for a 405.
    pub allow: Option<&'static str>,
}

impl ApiError {
    /// An error with one of the [`codes`] and a sentence.
    #[must_use]
    pub fn new(code: (&str, u16), message: impl Into<String>) -> Self {
        let retry_after = (code == codes::UNAVAILABLE).then_some(Duration::from_secs(1));
        Self { status: code.1, body: ErrorBody::new(code.0, message), retry_after, allow: None }
    }

    /// The same with a next step, as a sentence or a command line.
    #[must_use]
    pub fn with_next(mut self, next: impl Into<String>) -> Self {
        self.body = self.body.with_next(next);
        self
    }

    /// The same with another time to try again.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// 400: the request does not parse or breaks a rule.
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(codes::BAD_REQUEST, message)
    }

    /// 401: a token is needed.
    #[must_use]
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(codes::UNAUTHORIZED, message)
    }

    /// 403: not allowed.
    #[must_use]
    pub fn denied(message: impl Into<String>) -> Self {
        Self::new(codes::DENIED, message)
    }

    /// 404: there is no such thing.
    #[must_use]
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(codes::NOT_FOUND, message)
    }

    /// 405: wrong method; `allow` are those that would do.
    #[must_use]
    pub fn method(message: impl Into<String>, allow: &'static str) -> Self {
        Self { allow: Some(allow), ..Self::new(codes::METHOD, message) }
    }

    /// 409: the state does not allow it.
    #[must_use]
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(codes::CONFLICT, message)
    }

    /// 413: a body is over its limit.
    #[must_use]
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(codes::TOO_LARGE, message)
    }

    /// 500: the node is at fault.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(codes::INTERNAL, message)
    }

    /// 502: the function or the node that ran it failed.
    #[must_use]
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(codes::FAILED, message)
    }

    /// 503: full, draining or not ready; try again in a second.
    #[must_use]
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(codes::UNAVAILABLE, message)
    }

    /// 504: the deadline passed.
    #[must_use]
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(codes::TIMEOUT, message)
    }

    /// 507: the disk or a quota is full.
    #[must_use]
    pub fn storage(message: impl Into<String>) -> Self {
        Self::new(codes::STORAGE, message)
    }

    /// The answer as it is sent.
    #[must_use]
    pub fn into_response(self) -> Response<Bytes> {
        // The body is two or three strings, which always become JSON.
        let body = serde_json::to_vec(&self.body).unwrap_or_default();
        let mut response = json_response(body);
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        if let Some(after) = self.retry_after {
            let seconds = after.as_millis().div_ceil(1_000).max(1);
            headers
                .insert(header::RETRY_AFTER, HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX)));
        }
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        if self.status == codes::UNAUTHORIZED.1 {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<CallError> for ApiError {
    fn from(error: CallError) -> Self {
        let code = match (&error, error.status()) {
            (CallError::Guest { message }, _) => return Self::new(codes::FUNCTION_ERROR, message.clone()),
            (_, 400) => codes::BAD_REQUEST,
            (_, 413) => codes::TOO_LARGE,
            (_, 503) => codes::UNAVAILABLE,
            (_, 504) => codes::TIMEOUT,
            _ => codes::FAILED,
        };
        Self { retry_after: error.retry_after(), ..Self::new(code, error.to_string()) }
    }
}

/// A 200 with JSON.
#[must_use]
pub(super) fn json_response(body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
