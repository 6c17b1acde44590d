//! A call that runs on this node.

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use osiris_ledger::World;
use osiris_runtime::{CallError, Function};
use serde::de::IgnoredAny;

use super::message::NotStarted;
use super::{ApiError, Dispatcher, NODE_HEADER, RELAYED_HEADER, REVISION_HEADER, message};
use crate::driver::answer::json_response;
use crate::driver::metrics::{CallEnd, CallFigures};
use crate::driver::routes::Route;

/// Counts a call whose caller went away.
struct Watch<'a>(Option<&'a CallFigures>);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if let Some(figures) = self.0 {
            figures.note_unrun(CallEnd::Cancelled);
        }
    }
}

impl Dispatcher {
    /// Runs a function that is ready here.
    pub(super) async fn run(
        &self,
        route: &Route,
        function: &Function,
        request: Request<Bytes>,
        relayed: bool,
    ) -> Response<Bytes> {
        let result = match route.world {
            World::Http => http(route, function, request).await,
            World::Native => native(route, function, request).await,
        };
        let (mut response, not_started) = match result {
            Ok(response) => (response, None),
            Err(Refusal { error, not_started }) => (error.into_response(), not_started),
        };
        if let Some(why) = not_started.filter(|_| relayed) {
            return message::mark_not_started(response, why);
        }
        let headers = response.headers_mut();
        headers.insert(NODE_HEADER, self.device.clone());
        headers.insert(REVISION_HEADER, route.label.clone());
        headers.insert(RELAYED_HEADER, HeaderValue::from_static(if relayed { "true" } else { "false" }));
        response
    }
}

/// Why there is no answer of the function.
struct Refusal {
    error: ApiError,
    /// The revision takes no more calls, or no more at once, so this one was certainly not started.
    not_started: Option<NotStarted>,
}

impl From<CallError> for Refusal {
    fn from(error: CallError) -> Self {
        let not_started = match error {
            CallError::Busy { .. } => Some(NotStarted::Full),
            CallError::Draining => Some(NotStarted::Elsewhere),
            _ => None,
        };
        Self { not_started, error: error.into() }
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self { error, not_started: None }
    }
}

async fn http(
    route: &Route,
    function: &Function,
    request: Request<Bytes>,
) -> Result<Response<Bytes>, Refusal> {
    let head = request.method() == http::Method::HEAD;
    let mut watch = Watch(Some(&route.figures));
    let outcome = function.call_http(request).await;
    watch.0 = None;
    let end = outcome.result.as_ref().map_or_else(CallEnd::from, |_| CallEnd::Ok);
    route.figures.note(end, outcome.elapsed);
    let mut response = outcome.result?;
    if response.status().is_informational() {
        let status = response.status().as_u16();
        return Err(ApiError::failed(format!(
            "The function answered with {status}, which is no final status."
        ))
        .into());
    }
    message::strip(response.headers_mut());
    // The body is here whole, so its length is known better than the function says; but to HEAD it
    // speaks of the body that GET would have had.
    if !head {
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    Ok(response)
}

async fn native(
    route: &Route,
    function: &Function,
    request: Request<Bytes>,
) -> Result<Response<Bytes>, Refusal> {
    let input = match json_text(request.into_body()) {
        Ok(input) => input,
        Err(error) => {
            route.figures.note_unrun(CallEnd::Rejected);
            return Err(error.into());
        }
    };
    let mut watch = Watch(Some(&route.figures));
    let outcome = function.call_native(input).await;
    watch.0 = None;
    let wrong = match &outcome.result {
        Ok(text) => serde_json::from_str::<IgnoredAny>(text).err(),
        Err(_) => None,
    };
    let end = match (&outcome.result, &wrong) {
        (Ok(_), None) => CallEnd::Ok,
        (Ok(_), Some(_)) => CallEnd::Failed,
        (Err(error), _) => CallEnd::from(error),
    };
    route.figures.note(end, outcome.elapsed);
    let text = outcome.result?;
    match wrong {
        None => Ok(json_response(text)),
        Some(wrong) => Err(ApiError::failed(format!("The function's answer is not JSON: {wrong}.")).into()),
    }
}

/// The body as JSON text, checked to its end.
fn json_text(body: Bytes) -> Result<String, ApiError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        let message = "The body is empty; the function takes JSON. Send `null` where it needs nothing.";
        return Err(ApiError::bad_request(message));
    }
    let text = String::from_utf8(body.into()).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        ApiError::bad_request(format!("The body is not JSON: byte {at} is not UTF-8."))
    })?;
    match serde_json::from_str::<IgnoredAny>(&text) {
        Ok(IgnoredAny) => Ok(text),
        Err(e) => Err(ApiError::bad_request(format!("The body is not JSON: {e}."))),
    }
}
