//! HTTP requests and responses as the messages of `osiris/call/1`, and back.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use osiris_ledger::BlockId;
use osiris_protocol::call::{CallReply, CallRequest};

use super::{ApiError, NOT_STARTED_HEADER};

/// RFC 9110, section 7.6.1, and `Expect`, which this node has answered already.
const HOP_BY_HOP: [HeaderName; 10] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
];

fn is_hop_by_hop(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(name)
}

/// Whether only nodes may set it.
fn is_ours(name: &HeaderName) -> bool {
    name.as_str().starts_with("x-osiris-")
}

/// Removes what concerns one connection, and what a function or a client might pretend.
pub(super) fn strip(headers: &mut HeaderMap) {
    // Most messages have none of them, and a walk is cheaper than ten look-ups.
    if !headers.keys().any(|name| is_hop_by_hop(name) || is_ours(name)) {
        return;
    }
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let ours: Vec<HeaderName> = headers.keys().filter(|name| is_ours(name)).cloned().collect();
    for name in HOP_BY_HOP.iter().chain(&named).chain(&ours) {
        headers.remove(name);
    }
}

fn to_pairs(headers: &HeaderMap) -> Vec<(String, Bytes)> {
    headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), Bytes::copy_from_slice(value.as_bytes())))
        .collect()
}

fn from_pairs(pairs: Vec<(String, Bytes)>) -> Result<HeaderMap, ApiError> {
    let mut headers = HeaderMap::with_capacity(pairs.len() + 3);
    for (name, value) in pairs {
        let bad = || ApiError::bad_request(format!("The header `{name}` is not allowed in HTTP."));
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| bad())?;
        headers.append(HeaderName::try_from(name.as_str()).map_err(|_| bad())?, value);
    }
    Ok(headers)
}

/// The request as it goes to another member.
pub(super) fn from_http(
    function: &str,
    revision: &BlockId,
    request: Request<Bytes>,
    deadline_ms: u32,
) -> CallRequest {
    let (parts, body) = request.into_parts();
    CallRequest {
        function: function.to_owned(),
        revision: Some(revision.0),
        method: parts.method.as_str().to_owned(),
        path: parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        headers: to_pairs(&parts.headers),
        body,
        deadline_ms,
    }
}

/// The request as it came from another member.
pub(super) fn to_http(call: CallRequest) -> Result<Request<Bytes>, ApiError> {
    let mut request = Request::new(call.body);
    *request.method_mut() = Method::try_from(call.method.as_str())
        .map_err(|_| ApiError::bad_request("The method is not one of HTTP."))?;
    *request.uri_mut() = Uri::try_from(call.path)
        .map_err(|e| ApiError::bad_request(format!("The path is not one of HTTP: {e}.")))?;
    let mut headers = from_pairs(call.headers)?;
    strip(&mut headers);
    *request.headers_mut() = headers;
    Ok(request)
}

/// The answer as it goes to another member.
pub(super) fn to_reply(response: Response<Bytes>) -> CallReply {
    let (parts, body) = response.into_parts();
    CallReply { status: parts.status.as_u16(), headers: to_pairs(&parts.headers), body }
}

/// Why a function was certainly not started, so that another member may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotStarted {
    /// The member has it ready, and no place for one more call.
    Full,
    /// It has it not ready, or no more.
    Elsewhere,
}

impl NotStarted {
    const fn value(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Full => "full",
            Self::Elsewhere => "1",
        })
    }
}

/// The answer as it came from another member, and why the function was not started, where it certainly was not.
pub(super) fn from_reply(reply: CallReply) -> Result<(Response<Bytes>, Option<NotStarted>), ApiError> {
    let mut response = Response::new(reply.body);
    *response.status_mut() = StatusCode::from_u16(reply.status)
        .map_err(|_| ApiError::failed("The other node answered with a status that HTTP does not know."))?;
    let mut headers = from_pairs(reply.headers).map_err(|e| ApiError::failed(e.body.message))?;
    let not_started = headers.remove(NOT_STARTED_HEADER).map(|why| match why {
        why if why == NotStarted::Full.value() => NotStarted::Full,
        _ => NotStarted::Elsewhere,
    });
    *response.headers_mut() = headers;
    Ok((response, not_started))
}

/// A refusal that tells another member to ask elsewhere.
pub(super) fn not_started(error: ApiError) -> Response<Bytes> {
    mark_not_started(error.into_response(), NotStarted::Elsewhere)
}

/// Tells another member to ask elsewhere.
pub(super) fn mark_not_started(mut response: Response<Bytes>, why: NotStarted) -> Response<Bytes> {
    response.headers_mut().insert(NOT_STARTED_HEADER, why.value());
    response
}
