//! From a request to a function's answer: here where the live revision is ready, else on the member
//! that is best placed, and never further. Where every place here is taken, a member that has fewer calls of this
//! node's under way is asked first.
//!
//! A call holds no lock and writes no block. It runs on its caller's task: who drops the future ends
//! the call.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response};
use osiris_ledger::{Author, World};
use osiris_mesh::{BoxFuture, CallFailure, Mesh, PeerId};
use osiris_protocol::call::{CallReply, CallRequest};
use osiris_protocol::limits::CALL_BODY_BYTES_MAX;

use super::answer::ApiError;
use super::routes::{Entry, Route, Routes};

mod local;
mod message;
mod relay;
mod wake;

/// Which device ran the function, hex.
pub const NODE_HEADER: HeaderName = HeaderName::from_static("x-osiris-node");
/// Which revision answered: its number and the first eight digits of its id.
pub const REVISION_HEADER: HeaderName = HeaderName::from_static("x-osiris-revision");
/// `true` when another member than the one that was asked ran the function.
pub const RELAYED_HEADER: HeaderName = HeaderName::from_static("x-osiris-relayed");
/// Between members only: the function was certainly not started, so another member may be asked.
const NOT_STARTED_HEADER: HeaderName = HeaderName::from_static("x-osiris-not-started");

/// How calls reach other members. [`Mesh`] is one; a test has its own.
pub trait Relay: Send + Sync + 'static {
    /// Calls a function on a member. A failure says whether it was certainly not started.
    fn call(&self, peer: PeerId, request: CallRequest) -> BoxFuture<'_, Result<CallReply, CallFailure>>;

    /// The round trip to a member that is connected.
    fn rtt(&self, peer: PeerId) -> Option<Duration>;
}

impl Relay for Mesh {
    fn call(&self, peer: PeerId, request: CallRequest) -> BoxFuture<'_, Result<CallReply, CallFailure>> {
        Box::pin(self.call(peer, request))
    }

    fn rtt(&self, peer: PeerId) -> Option<Duration> {
        self.rtt(peer)
    }
}

/// Where a call comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// From a client of this node: it may be passed on, once.
    First,
    /// From another member: it runs here or is refused.
    Relayed,
}

/// One call.
#[derive(Debug)]
pub struct Call<'a> {
    /// The function's name.
    pub function: &'a str,
    /// The request. Its path is what the function sees, at least `/`; headers that concern one
    /// connection are taken out of it.
    pub request: Request<Bytes>,
    /// Where it comes from.
    pub hop: Hop,
    /// How long its caller waits. The function's own limits hold besides.
    pub deadline: Duration,
}

/// Brings calls to functions. Shared by every server of the node.
pub struct Dispatcher {
    routes: Arc<ArcSwap<Routes>>,
    relay: ArcSwapOption<Box<dyn Relay>>,
    busy: relay::Busy,
    bell: OnceLock<Bell>,
    device: HeaderValue,
}

/// Told the name of a function that is called and has no replica. It does not block.
type Bell = Box<dyn Fn(&str) + Send + Sync>;

impl fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatcher").field("device", &self.device).finish_non_exhaustive()
    }
}

impl Dispatcher {
    /// A dispatcher over published routes. It runs what is ready here; [`connect`](Self::connect) lets
    /// it pass on the rest.
    #[must_use]
    pub fn new(routes: Arc<ArcSwap<Routes>>, device: &Author) -> Self {
        Self {
            routes,
            relay: ArcSwapOption::empty(),
            busy: relay::Busy::default(),
            bell: OnceLock::new(),
            // Hexadecimal digits are always a header value.
            device: HeaderValue::try_from(device.to_string()).unwrap_or(HeaderValue::from_static("0")),
        }
    }

    /// From now on calls may be passed on. The mesh needs the dispatcher to be started, so it comes
    /// second.
    pub fn connect(&self, relay: impl Relay) {
        self.relay.store(Some(Arc::new(Box::new(relay))));
    }

    /// From now on calls of a function that is scaled to no replica wait for one, and somebody is told its name.
    pub fn wake_by(&self, bell: impl Fn(&str) + Send + Sync + 'static) {
        let _ = self.bell.set(Box::new(bell));
    }

    /// No more calls are passed on; those under way go on. Frees the handle of the mesh.
    pub fn disconnect(&self) {
        self.relay.store(None);
    }

    /// The routes of this moment.
    #[must_use]
    pub fn routes(&self) -> Arc<Routes> {
        self.routes.load_full()
    }

    /// Whether a call would be taken, before its body is read: the largest body it may have, bytes.
    ///
    /// # Errors
    /// As the call would be answered: 404, 405 or 503.
    pub fn admit(&self, function: &str, method: &Method) -> Result<u64, ApiError> {
        let routes = self.routes.load();
        if let Some(Entry::Asleep(_)) = routes.find(function) {
            return Ok(CALL_BODY_BYTES_MAX as u64);
        }
        let route = live(&routes, function)?;
        check_method(route, method)?;
        Ok(match &route.local {
            Some(local) => local.limits().request_bytes,
            None => CALL_BODY_BYTES_MAX as u64,
        })
    }

    /// Calls a function. Whatever happens is in the response.
    pub async fn invoke(&self, mut call: Call<'_>) -> Response<Bytes> {
        message::strip(call.request.headers_mut());
        if call.hop == Hop::First {
            call.deadline = self.wake(call.function, call.deadline).await;
        }
        let route = match live(&self.routes.load(), call.function) {
            Ok(route) => Arc::clone(route),
            Err(error) => return error.into_response(),
        };
        if let Err(error) = check_native(&route, &call.request) {
            return error.into_response();
        }
        match (&route.local, call.hop) {
            (Some(function), Hop::First) => match self.lighter(&route, function) {
                Some(peer) => self.share(&route, function, peer, call.request, call.deadline).await,
                None => self.run(&route, function, call.request, false).await,
            },
            (Some(function), Hop::Relayed) => self.run(&route, function, call.request, false).await,
            (None, Hop::First) => self.pass_on(&route, call.request, call.deadline).await,
            (None, Hop::Relayed) => message::not_started(not_here(&route.name)),
        }
    }

    /// Answers a call from another member, or from an application by way of the mesh. It is never passed
    /// on. The revision that the call names is used where it is ready, else the live one.
    pub async fn serve_relayed(&self, call: CallRequest) -> CallReply {
        let response = match self.find_relayed(&call) {
            Ok(route) => match (message::to_http(call), &route.local) {
                (Ok(request), Some(function)) => match check_native(&route, &request) {
                    Ok(()) => self.run(&route, function, request, true).await,
                    Err(error) => error.into_response(),
                },
                (Ok(_), None) => message::not_started(not_here(&route.name)),
                (Err(error), _) => error.into_response(),
            },
            Err(error) => message::not_started(error),
        };
        message::to_reply(response)
    }

    /// The answer of a process that runs no functions and only makes contact. Its caller asks elsewhere.
    #[must_use]
    pub fn not_hosting() -> CallReply {
        let error = ApiError::unavailable("This process runs no functions; it only makes contact.");
        message::to_reply(message::not_started(error))
    }

    /// The answer to a member whose roles do not include that it calls functions.
    #[must_use]
    pub fn may_not_call() -> CallReply {
        let error = ApiError::denied(
            "The device that calls holds none of the roles invoker, node, operator and admin, so it may not call functions.",
        )
        .with_next("Ask an admin to run `osiris role grant MEMBER invoker`; `osiris whoami` prints this member's name.");
        message::to_reply(error.into_response())
    }

    fn find_relayed(&self, call: &CallRequest) -> Result<Arc<Route>, ApiError> {
        let routes = self.routes.load();
        let named = call.revision.map(osiris_ledger::BlockId).and_then(|revision| routes.ready(&revision));
        match named.filter(|route| route.name == call.function) {
            Some(route) => Ok(Arc::clone(route)),
            None => live(&routes, &call.function).map(Arc::clone),
        }
    }
}

fn live<'a>(routes: &'a Routes, function: &str) -> Result<&'a Arc<Route>, ApiError> {
    if routes.has_ended() {
        return Err(ApiError::denied(
            "This device is no member of the fleet any more, so it takes no calls.",
        )
        .with_next("osiris status"));
    }
    match routes.find(function) {
        Some(Entry::Live(route)) => Ok(route),
        Some(Entry::Pending | Entry::Asleep(_)) => Err(ApiError::unavailable(format!(
            "The function `{function}` is deployed and no node has it ready: not yet, or not any more. Try again in a moment."
        ))
        .with_next(format!("osiris describe {function}"))),
        None => {
            let name: String = function.chars().take(80).collect();
            Err(ApiError::not_found(format!("There is no function `{name}` in this fleet."))
                .with_next("osiris ls"))
        }
    }
}

fn check_method(route: &Route, method: &Method) -> Result<(), ApiError> {
    if route.world == World::Native && method != Method::POST {
        let message = format!("The function `{}` takes JSON by POST and nothing else.", route.name);
        return Err(ApiError::method(message, "POST"));
    }
    Ok(())
}

/// What a native function takes: JSON by POST, and nothing below its name.
fn check_native<B>(route: &Route, request: &http::Request<B>) -> Result<(), ApiError> {
    check_method(route, request.method())?;
    if route.world == World::Native && !matches!(request.uri().path(), "" | "/") {
        let message = format!("The function `{}` is native: there is no path below its name.", route.name);
        return Err(ApiError::not_found(message));
    }
    Ok(())
}

fn not_here(function: &str) -> ApiError {
    ApiError::unavailable(format!("The function `{function}` is not ready on this node."))
}
