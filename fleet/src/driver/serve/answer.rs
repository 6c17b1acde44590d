//! One request of either interface, from its head to its answer.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use http::uri::{Parts as UriParts, PathAndQuery};
use http::{Request, Response, StatusCode, Uri, header};
use hyper::body::{Body, Incoming};

use super::body::{self, Answer, Whole};
use super::guard::Guard;
use super::prometheus;
use super::table::{self, Found, On, Op, Row};
use super::v1::{self, Asked};
use super::{Shared, State};
use crate::driver::answer::{ApiError, json_response};
use crate::driver::dispatch::{Call, Hop};
use crate::driver::limits::{BLOB_BYTES_MAX, BODY_TIMEOUT, CALL_DEADLINE, MANAGE_BODY_BYTES_MAX};

/// The prefix of calls.
const FUNCTION: &str = "/function/";
const TEXT: &str = "text/plain; charset=utf-8";

/// How a request came in.
#[derive(Clone, Debug)]
pub(super) enum Via {
    /// Over TCP, under the rules of its listener.
    Tcp(Arc<Guard>),
    /// Over the Unix socket, whose file says who may use it.
    Unix,
}

/// Answers one request.
pub(super) async fn answer(shared: &Shared, via: &Via, request: Request<Incoming>) -> Response<Answer> {
    if let Via::Tcp(guard) = via {
        let open = request.uri().path() == "/healthz";
        if let Err(error) = guard.check(request.uri(), request.headers(), open) {
            shared.metrics.refused.fetch_add(1, Relaxed);
            return refuse(error);
        }
    }
    let answered = if request.uri().path().starts_with(FUNCTION) {
        call(shared, via, request).await.map(Answer::whole)
    } else {
        route(shared, via, request).await
    };
    answered.unwrap_or_else(refuse)
}

fn refuse(error: ApiError) -> Response<Answer> {
    Answer::whole(error.into_response())
}

async fn call(shared: &Shared, via: &Via, request: Request<Incoming>) -> Result<Response<Bytes>, ApiError> {
    let (mut parts, body) = request.into_parts();
    let uri = std::mem::take(&mut parts.uri);
    let below = &uri.path()[FUNCTION.len()..];
    let name = below.split_once('/').map_or(below, |(name, _)| name);
    parts.uri = uri_below(&uri, FUNCTION.len() + name.len())?;
    // RFC 3986, section 6.2.2.2: a letter or digit is the same one where a client escaped it.
    let name = &*percent_encoding::percent_decode_str(name).decode_utf8_lossy();
    if let Via::Tcp(guard) = via
        && guard.has_token()
    {
        // The node's own secret, which no function may see.
        parts.headers.remove(header::AUTHORIZATION);
    }
    let Whole { bytes, held } = if body.is_end_stream() {
        Whole::default()
    } else {
        let max = shared.dispatcher.admit(name, &parts.method)?;
        body::read(body, max, &shared.bodies, BODY_TIMEOUT).await?
    };
    let request = Request::from_parts(parts, bytes);
    let call = Call { function: name, request, hop: Hop::First, deadline: CALL_DEADLINE };
    let response = shared.dispatcher.invoke(call).await;
    drop(held);
    Ok(response)
}

/// What a function sees of a path: what follows its name, at least `/`, with the query.
fn uri_below(uri: &Uri, prefix: usize) -> Result<Uri, ApiError> {
    let whole = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let rest = whole.get(prefix..).unwrap_or_default();
    let path = match rest.as_bytes() {
        [] | [b'/'] => return Ok(Uri::from_static("/")),
        [b'/', ..] => PathAndQuery::try_from(rest),
        _ => PathAndQuery::try_from(format!("/{rest}")),
    };
    let mut parts = UriParts::default();
    parts.path_and_query =
        Some(path.map_err(|e| ApiError::bad_request(format!("The path is not usable: {e}.")))?);
    Uri::from_parts(parts).map_err(|e| ApiError::bad_request(format!("The path is not usable: {e}.")))
}

async fn route(shared: &Shared, via: &Via, request: Request<Incoming>) -> Result<Response<Answer>, ApiError> {
    let path = request.uri().path();
    let tcp = matches!(via, Via::Tcp(_));
    if tcp && (path == "/v1" || path.starts_with("/v1/")) {
        return Err(ApiError::not_found(
            "The management interface answers on the node's Unix socket only, not over TCP.",
        ));
    }
    match table::find(request.method().as_str(), path) {
        Found::Route(row, _) if row.on == On::Both => node(shared, row.op).map(Answer::whole),
        Found::Route(row, _) => manage(shared, row, request).await,
        Found::Method(allow) => Err(ApiError::method(format!("This path answers to {allow} only."), allow)),
        Found::Nothing => Err(ApiError::not_found(
            "There is nothing at this path. Functions are called at /function/{name}; /openapi.json lists every \
             path.",
        )),
    }
}

fn node(shared: &Shared, op: Op) -> Result<Response<Bytes>, ApiError> {
    match op {
        Op::Health => Ok(body::text(StatusCode::OK, TEXT, "ok\n")),
        Op::Ready => match (shared.state.get(), shared.state.get().refusal()) {
            (_, Some(why)) => Err(ApiError::unavailable(why)),
            _ if shared.dispatcher.routes().has_ended() => {
                Err(ApiError::unavailable("This device is no member of the fleet any more.")
                    .with_next("osiris status"))
            }
            (State::ReadOnly, None) => Ok(body::text(StatusCode::OK, TEXT, "ready, read-only\n")),
            (_, None) => Ok(body::text(StatusCode::OK, TEXT, "ready\n")),
        },
        Op::Metrics => {
            let ready = shared.state.get().refusal().is_none();
            let routes = shared.dispatcher.routes();
            let text = prometheus::render(&shared.metrics, &routes, &shared.gauges.read(), ready);
            Ok(body::text(StatusCode::OK, prometheus::CONTENT_TYPE, text))
        }
        Op::OpenApi => Ok(json_response(shared.openapi.clone())),
        _ => Err(ApiError::not_found("A function is called at /function/{name}.")),
    }
}

async fn manage(
    shared: &Shared,
    row: &'static Row,
    request: Request<Incoming>,
) -> Result<Response<Answer>, ApiError> {
    let (parts, body) = request.into_parts();
    let max = if row.op == Op::Store { BLOB_BYTES_MAX } else { MANAGE_BODY_BYTES_MAX };
    let whole = body::read(body, max, &shared.bodies, BODY_TIMEOUT).await?;
    let path = parts.uri.path();
    let Found::Route(_, place) = table::find(parts.method.as_str(), path) else {
        return Err(ApiError::internal("The route changed while its body was read."));
    };
    let asked = Asked { row, place, query: parts.uri.query(), body: whole.bytes };
    let answered = v1::answer(&*shared.manage, asked, &shared.stop).await;
    drop(whole.held);
    answered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_sees_what_follows_its_name() {
        for (uri, seen) in [
            ("/function/a", "/"),
            ("/function/a/", "/"),
            ("/function/a?x=1", "/?x=1"),
            ("/function/a/?x=1", "/?x=1"),
            ("/function/a/b/c%2Fd?e=f&g", "/b/c%2Fd?e=f&g"),
            ("/function/a//b", "//b"),
        ] {
            let uri: Uri = uri.parse().expect(uri);
            let name = "a".len();
            let below = uri_below(&uri, FUNCTION.len() + name).expect("usable");
            assert_eq!(below.to_string(), seen, "{uri}");
        }
    }
}
