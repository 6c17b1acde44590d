//! A call that another member runs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use osiris_mesh::{CallFailure, PeerId};
use osiris_protocol::call::CallRequest;
use osiris_runtime::Function;

use super::message::NotStarted;
use super::{ApiError, Dispatcher, RELAYED_HEADER, Relay, check_native, message};
use crate::driver::limits::{CALL_DEADLINE, RELAY_LOOK_AGAIN, RELAY_TRIES_MAX, RTT_UNKNOWN, WAKE_LOOK};
use crate::driver::metrics::RelayEnd;
use crate::driver::routes::{Entry, Route};

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
    /// Certainly not started: the reason, and what of the member it is.
    Next(ApiError, NotStarted),
    /// No other member is to be tried.
    Stop(ApiError, RelayEnd),
}

impl Dispatcher {
    /// Asks the members that have the revision ready, the best first. Only one of them can have started it: the next is
    /// asked when the one before certainly has not. Where none of them could be reached or had it ready, and none is full,
    /// one may just have handed over to a member that this node has not heard of: so it looks again for a moment.
    pub(super) async fn pass_on(
        &self,
        route: &Arc<Route>,
        request: Request<Bytes>,
        deadline: Duration,
    ) -> Response<Bytes> {
        let relay = self.relay.load_full().filter(|_| !route.remotes.is_empty());
        let Some(relay) = relay else {
            return super::not_here(&route.name).into_response();
        };
        let until = Instant::now() + deadline.min(CALL_DEADLINE);
        let mut call = message::from_http(&route.name, &route.revision, request, 1);
        let (mut route, mut tried) = (Arc::clone(route), Vec::with_capacity(RELAY_TRIES_MAX));
        let (mut last, mut is_full, mut looks_until) = (None::<ApiError>, false, None);
        loop {
            for peer in self.ranked(&route, &**relay, &tried) {
                let left = until.saturating_duration_since(Instant::now()).as_millis();
                let Some(left) = u32::try_from(left).ok().filter(|left| *left > 0) else { break };
                call.deadline_ms = left;
                tried.push(peer);
                match self.try_one(&**relay, peer, &call).await {
                    Tried::Answered(response) => {
                        route.figures.note_relay(RelayEnd::Answered);
                        return response;
                    }
                    Tried::Next(error, why) => {
                        is_full |= why == NotStarted::Full;
                        last = Some(error);
                    }
                    Tried::Stop(error, end) => {
                        route.figures.note_relay(end);
                        return error.into_response();
                    }
                }
            }
            if is_full || tried.len() >= RELAY_TRIES_MAX {
                break;
            }
            let looks_until =
                *looks_until.get_or_insert_with(|| until.min(Instant::now() + RELAY_LOOK_AGAIN));
            let Some(fresh) = self.look_again(&route.name, &tried, looks_until).await else { break };
            if let Some(function) = &fresh.local {
                let request = message::to_http(call);
                let request = request.and_then(|request| check_native(&fresh, &request).map(|()| request));
                return match request {
                    Ok(request) => self.run(&fresh, function, request, false).await,
                    Err(error) => error.into_response(),
                };
            }
            call.revision = Some(fresh.revision.0);
            route = fresh;
        }
        route.figures.note_relay(RelayEnd::Unreachable);
        let why = last.as_ref().map_or_else(String::new, |error| format!(" {}", error.body.message));
        let message = format!("No node that has the function `{}` ready took the call.{why}", route.name);
        let error = ApiError::unavailable(message);
        match last.and_then(|last| last.retry_after) {
            Some(after) => error.with_retry_after(after).into_response(),
            None => error.into_response(),
        }
    }

    /// Waits until then for a route that leads here, or to a member that was not tried.
    async fn look_again(&self, name: &str, tried: &[PeerId], until: Instant) -> Option<Arc<Route>> {
        // What could be asked within less is nothing.
        while Instant::now() + Duration::from_millis(1) < until {
            if let Some(Entry::Live(route)) = self.routes.load().find(name)
                && (route.local.is_some() || route.remotes.iter().any(|peer| !tried.contains(peer)))
            {
                return Some(Arc::clone(route));
            }
            tokio::time::sleep(WAKE_LOOK).await;
        }
        None
    }

    /// The connected member that has the fewest calls from here under way, where a call would wait here and those are
    /// fewer than run and wait here. What others send to it is not known here: it says so itself, and the call comes
    /// back.
    pub(super) fn lighter(&self, route: &Route, function: &Function) -> Option<PeerId> {
        if route.remotes.is_empty() {
            return None;
        }
        let figures = function.figures();
        if figures.in_flight < u64::from(function.concurrency()) {
            return None;
        }
        let relay = self.relay.load_full()?;
        let counts = self.busy.counts().clone();
        let rows = route.remotes.iter().filter_map(|peer| {
            let rtt = relay.rtt(*peer)?;
            Some((counts.get(peer).copied().unwrap_or(0), rtt, *peer))
        });
        let (busy, _, peer) = rows.min()?;
        (u64::from(busy) < figures.in_flight.saturating_add(figures.backlog)).then_some(peer)
    }

    /// Has a member run a call that would wait here; it runs here all the same where the member does not start it.
    pub(super) async fn share(
        &self,
        route: &Route,
        function: &Function,
        peer: PeerId,
        request: Request<Bytes>,
        deadline: Duration,
    ) -> Response<Bytes> {
        let Some(relay) = self.relay.load_full() else {
            return self.run(route, function, request, false).await;
        };
        let deadline_ms = u32::try_from(deadline.min(CALL_DEADLINE).as_millis()).unwrap_or(u32::MAX).max(1);
        let call = message::from_http(&route.name, &route.revision, request.clone(), deadline_ms);
        match self.try_one(&**relay, peer, &call).await {
            Tried::Answered(response) => {
                route.figures.note_relay(RelayEnd::Answered);
                response
            }
            Tried::Next(..) => self.run(route, function, request, false).await,
            Tried::Stop(error, end) => {
                route.figures.note_relay(end);
                error.into_response()
            }
        }
    }

    /// The members to ask, of those that were not tried: by round trip, times one more than the calls under way to it.
    fn ranked(&self, route: &Route, relay: &dyn Relay, tried: &[PeerId]) -> Vec<PeerId> {
        if let [only] = *route.remotes
            && tried.is_empty()
        {
            return vec![only];
        }
        let counts = self.busy.counts().clone();
        let score = |peer: &PeerId| {
            let rtt = relay.rtt(*peer).unwrap_or(RTT_UNKNOWN).max(Duration::from_micros(1));
            rtt.saturating_mul(counts.get(peer).copied().unwrap_or(0).saturating_add(1))
        };
        let remotes = route.remotes.iter().filter(|peer| !tried.contains(peer));
        let mut ranked: Vec<_> = remotes.map(|peer| (score(peer), *peer)).collect();
        ranked.sort_unstable();
        let most = RELAY_TRIES_MAX.saturating_sub(tried.len());
        ranked.into_iter().map(|(_, peer)| peer).take(most).collect()
    }

    async fn try_one(&self, relay: &dyn Relay, peer: PeerId, call: &CallRequest) -> Tried {
        let place = self.busy.enter(peer);
        let reply = relay.call(peer, call.clone()).await;
        drop(place);
        match reply.map_err(|failure| failed(&failure)).map(message::from_reply) {
            Ok(Ok((response, Some(why)))) => {
                let said: Option<osiris_protocol::error::ErrorBody> =
                    serde_json::from_slice(response.body()).ok();
                let said = said.map_or_else(|| "It did not say why.".to_owned(), |body| body.message);
                let error = ApiError::unavailable(format!("{peer} turned the call away: {said}"));
                let error = match retry_after(&response) {
                    Some(after) => error.with_retry_after(after),
                    None => error,
                };
                Tried::Next(error, why)
            }
            Ok(Ok((mut response, None))) => {
                response.headers_mut().insert(RELAYED_HEADER, HeaderValue::from_static("true"));
                Tried::Answered(response)
            }
            Ok(Err(error)) => Tried::Stop(error, RelayEnd::Lost),
            Err(tried) => tried,
        }
    }
}

/// When a member that is busy says to come back.
fn retry_after(response: &Response<Bytes>) -> Option<Duration> {
    let said = response.headers().get(http::header::RETRY_AFTER)?.to_str().ok()?;
    said.parse().ok().map(Duration::from_secs)
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
            let why = match failure {
                CallFailure::Refused { .. } => NotStarted::Full,
                _ => NotStarted::Elsewhere,
            };
            Tried::Next(ApiError::unavailable(sentence(failure)), why)
        }
        CallFailure::Timeout { .. } => {
            let message = format!("{} The function may have been started there.", sentence(failure));
            Tried::Stop(ApiError::timeout(message), RelayEnd::Timeout)
        }
        failure => {
            let message = format!(
                "{} The function may have been started there, so the call was not made again elsewhere.",
                sentence(failure)
            );
            Tried::Stop(ApiError::failed(message), RelayEnd::Lost)
        }
    }
}

/// What a failure says, as a sentence of its own.
fn sentence(failure: &CallFailure) -> String {
    let said = failure.to_string();
    let mut letters = said.chars();
    letters.next().map_or_else(String::new, |first| format!("{}{}.", first.to_uppercase(), letters.as_str()))
}
