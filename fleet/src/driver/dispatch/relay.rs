//! A call that another member runs.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use osiris_mesh::{CallFailure, PeerId};
use osiris_protocol::call::CallRequest;
use osiris_runtime::Function;

use super::{ApiError, Dispatcher, RELAYED_HEADER, Relay, message};
use crate::driver::limits::{CALL_DEADLINE, RELAY_TRIES_MAX, RTT_UNKNOWN};
use crate::driver::metrics::RelayEnd;
use crate::driver::routes::Route;

/// Calls under way to each member, from this node.
#[derive(Debug, Default)]
pub(super) struct Busy(Mutex<BTreeMap<PeerId, u32>>);

impl Busy {
    fn counts(&self) -> MutexGuard<'_, BTreeMap<PeerId, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, peer: PeerId) -> Place<'_> {
        *self.counts().entry(peer).or_default() += 1;
        Place { busy: self, peer }
    }
}

/// One call under way.
struct Place<'a> {
    busy: &'a Busy,
    peer: PeerId,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut counts = self.busy.counts();
        if let Some(count) = counts.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.peer);
            }
        }
    }
}

/// What one member's try came to.
enum Tried {
    Answered(Response<Bytes>),
    /// Certainly not started: the reason.
    Next(ApiError),
    /// No other member is to be tried.
    Stop(ApiError, RelayEnd),
}

impl Dispatcher {
    /// Asks the members that have the revision ready, the best first. Only one of them can have
    /// started it: the next is asked when the one before certainly has not.
    pub(super) async fn pass_on(
        &self,
        route: &Route,
        request: Request<Bytes>,
        deadline: Duration,
    ) -> Response<Bytes> {
        let relay = self.relay.load_full().filter(|_| !route.remotes.is_empty());
        let Some(relay) = relay else {
            return super::not_here(&route.name).into_response();
        };
        let peers = self.ranked(route, &**relay);
        match self.try_each(route, &**relay, peers, request, deadline).await {
            Ok(response) => response,
            Err(why) => {
                route.figures.note_relay(RelayEnd::Unreachable);
                let why = why.map_or_else(String::new, |error| format!(" {}", error.body.message));
                let message =
                    format!("No node that has the function `{}` ready could be reached.{why}", route.name);
                ApiError::unavailable(message).into_response()
            }
        }
    }

    /// Whether more calls of a scaled function wait here than each of its replicas should have waiting.
    pub(super) fn is_crowded(&self, route: &Route, function: &Function) -> bool {
        route.scaled
            && !route.remotes.is_empty()
            && function.figures().backlog >= u64::from(crate::manifest::SCALE_BACKLOG)
    }

    /// A call that would wait here runs on a member to which this node has fewer calls under way than wait here.
    /// None: there is no such member, or all turned it away, and nobody has started it.
    pub(super) async fn relieve(
        &self,
        route: &Route,
        function: &Function,
        request: Request<Bytes>,
        deadline: Duration,
    ) -> Option<Response<Bytes>> {
        let relay = self.relay.load_full()?;
        let waiting = function.figures().backlog;
        let counts = self.busy.counts().clone();
        let mut peers = self.ranked(route, &**relay);
        peers.retain(|peer| u64::from(counts.get(peer).copied().unwrap_or(0)) < waiting);
        self.try_each(route, &**relay, peers, request, deadline).await.ok()
    }

    /// The answer of the first that took it; else why the last turned it away, and nobody has started it.
    async fn try_each(
        &self,
        route: &Route,
        relay: &dyn Relay,
        peers: Vec<PeerId>,
        request: Request<Bytes>,
        deadline: Duration,
    ) -> Result<Response<Bytes>, Option<ApiError>> {
        let until = Instant::now() + deadline.min(CALL_DEADLINE);
        let mut call = message::from_http(&route.name, &route.revision, request, 1);
        let mut last = None;
        for peer in peers {
            let left = until.saturating_duration_since(Instant::now()).as_millis();
            let Some(left) = u32::try_from(left).ok().filter(|left| *left > 0) else { break };
            call.deadline_ms = left;
            match self.try_one(relay, peer, &call).await {
                Tried::Answered(response) => {
                    route.figures.note_relay(RelayEnd::Answered);
                    return Ok(response);
                }
                Tried::Next(error) => last = Some(error),
                Tried::Stop(error, end) => {
                    route.figures.note_relay(end);
                    return Ok(error.into_response());
                }
            }
        }
        Err(last)
    }

    /// The members to ask: by round trip, times one more than the calls under way to it.
    fn ranked(&self, route: &Route, relay: &dyn Relay) -> Vec<PeerId> {
        if let [only] = *route.remotes {
            return vec![only];
        }
        let counts = self.busy.counts().clone();
        let score = |peer: &PeerId| {
            let rtt = relay.rtt(*peer).unwrap_or(RTT_UNKNOWN).max(Duration::from_micros(1));
            rtt.saturating_mul(counts.get(peer).copied().unwrap_or(0).saturating_add(1))
        };
        let mut ranked: Vec<_> = route.remotes.iter().map(|peer| (score(peer), *peer)).collect();
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, peer)| peer).take(RELAY_TRIES_MAX).collect()
    }

    async fn try_one(&self, relay: &dyn Relay, peer: PeerId, call: &CallRequest) -> Tried {
        let place = self.busy.enter(peer);
        let reply = relay.call(peer, call.clone()).await;
        drop(place);
        match reply.map_err(|failure| failed(&failure)).map(message::from_reply) {
            Ok(Ok((response, true))) => {
                let said: Option<osiris_protocol::error::ErrorBody> =
                    serde_json::from_slice(response.body()).ok();
                let said = said.map_or_else(|| "It did not say why.".to_owned(), |body| body.message);
                Tried::Next(ApiError::unavailable(format!("{peer} turned the call away: {said}")))
            }
            Ok(Ok((mut response, false))) => {
                response.headers_mut().insert(RELAYED_HEADER, HeaderValue::from_static("true"));
                Tried::Answered(response)
            }
            Ok(Err(error)) => Tried::Stop(error, RelayEnd::Lost),
            Err(tried) => tried,
        }
    }
}

/// What a failure means for the call.
fn failed(failure: &CallFailure) -> Tried {
    match failure {
        CallFailure::Invalid(why) => {
            let message =
                format!("The request cannot be passed on to the node that has the function: {why}.");
            Tried::Stop(ApiError::bad_request(message), RelayEnd::Unreachable)
        }
        CallFailure::TooLarge { what: "request" } => {
            let message = "The request is too large to be passed on to the node that has the function.";
            Tried::Stop(ApiError::too_large(message), RelayEnd::Unreachable)
        }
        failure if failure.certainly_not_started() => {
            Tried::Next(ApiError::unavailable(format!("{failure}.")))
        }
        CallFailure::Timeout { .. } => {
            let message = format!("{failure}. The function may have been started there.");
            Tried::Stop(ApiError::timeout(message), RelayEnd::Timeout)
        }
        failure => {
            let message = format!(
                "{failure}. The function may have been started there, so the call was not made again elsewhere."
            );
            Tried::Stop(ApiError::failed(message), RelayEnd::Lost)
        }
    }
}
