//! Calls over the nodes' HTTP interface, and what an outage looks like from there.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::samples::Sampler;
use crate::exit::Failure;

/// Largest answer that is read.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Longest wait for an answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause between two calls of one caller.
const PAUSE: Duration = Duration::from_millis(20);

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Summary,
    Chart,
}

impl Target {
    pub(super) const BOTH: [Self; 2] = [Self::Summary, Self::Chart];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Summary => "summary",
            Self::Chart => "chart",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Summary => "/function/summary",
            Self::Chart => "/function/chart/chart",
        }
    }

    /// Whether the answer is what the function makes of the samples.
    pub(super) fn check(self, answer: &Answer, sampler: &Sampler) -> Result<(), Failure> {
        let text = String::from_utf8_lossy(&answer.body);
        let fits = match self {
            Self::Summary => {
                let summary: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                let count = summary.pointer("/fields/cpu_percent/count").and_then(serde_json::Value::as_u64);
                count.is_some_and(|count| count > 0 && count <= sampler.count() as u64)
            }
            Self::Chart => text.trim_start().starts_with("<svg") && text.contains("</svg>"),
        };
        if fits {
            return Ok(());
        }
        Err(Failure::failed(format!("{} answered something else: {:.120}", self.name(), text)))
    }
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) body: Bytes,
    pub(super) relayed: bool,
    pub(super) took: Duration,
    revision: Option<String>,
}

impl Answer {
    /// The revision's number.
    pub(super) fn revision(&self) -> Option<u64> {
        self.revision.as_ref()?.split('-').next()?.parse().ok()
    }
}

/// Calls one node, a connection a call.
pub(super) struct Caller {
    address: SocketAddr,
}

impl Caller {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    /// One call; anything but a 200 is an error.
    pub(super) async fn call(&mut self, target: Target, samples: String) -> Result<Answer, String> {
        let began = Instant::now();
        match tokio::time::timeout(CALL_TIMEOUT, self.exchange(target, samples, began)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} s", CALL_TIMEOUT.as_secs())),
        }
    }

    async fn exchange(&self, target: Target, samples: String, began: Instant) -> Result<Answer, String> {
        let text = |error: &dyn std::error::Error| error.to_string();
        let stream = TcpStream::connect(self.address).await.map_err(|e| text(&e))?;
        let _ = stream.set_nodelay(true);
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|e| text(&e))?;
        let connection = tokio::spawn(connection);
        let request = Request::post(target.path())
            .header("host", self.address.to_string())
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(samples)))
            .map_err(|e| text(&e))?;
        let response = sender.send_request(request).await.map_err(|e| text(&e))?;
        let (head, body) = response.into_parts();
        let body =
            Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|e| e.to_string())?.to_bytes();
        connection.abort();
        if head.status != 200 {
            return Err(format!("{}: {:.200}", head.status, String::from_utf8_lossy(&body)));
        }
        let header =
            |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok(Answer {
            body,
            relayed: header("x-osiris-relayed").as_deref() == Some("true"),
            took: began.elapsed(),
            revision: header("x-osiris-revision"),
        })
    }
}

/// What calls of one function came to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) made: u64,
    pub(super) failed: u64,
    /// From the first failed call's start to the end of the last.
    pub(super) failing_for: Duration,
    first_failure: Option<Instant>,
    last_failure: Option<Instant>,
}

#[derive(Debug, Default)]
struct Seen {
    tallies: [Tally; 2],
    /// When each (node, function) last answered.
    answered: Vec<[Option<Instant>; 2]>,
}

/// Calls both functions through several nodes, over and over.
pub(super) struct Outage {
    seen: Arc<Mutex<Seen>>,
    stop: watch::Sender<bool>,
    callers: Vec<JoinHandle<()>>,
}

impl Outage {
    pub(super) fn watch(nodes: Vec<SocketAddr>, samples: String) -> Self {
        let seen = Arc::new(Mutex::new(Seen { answered: vec![[None; 2]; nodes.len()], ..Seen::default() }));
        let (stop, stopped) = watch::channel(false);
        let mut callers = Vec::new();
        for (node, address) in nodes.into_iter().enumerate() {
            for (which, target) in Target::BOTH.into_iter().enumerate() {
                let (seen, stopped, samples) = (Arc::clone(&seen), stopped.clone(), samples.clone());
                callers.push(tokio::spawn(async move {
                    let mut caller = Caller::new(address);
                    while !*stopped.borrow() {
                        let began = Instant::now();
                        let answer = caller.call(target, samples.clone()).await;
                        note(&seen, node, which, began, answer.is_ok());
                        tokio::time::sleep(PAUSE).await;
                    }
                }));
            }
        }
        Self { seen, stop, callers }
    }

    /// Waits until every node has answered both functions after `since`, and so long again without a
    /// failure. Returns how long after `since` the last failure was.
    pub(super) async fn until_both_answer(
        &self,
        since: Instant,
        patience: Duration,
    ) -> Result<Duration, Failure> {
        let end = Instant::now() + patience;
        loop {
            tokio::time::sleep(PAUSE).await;
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let last_failure = seen.tallies.iter().filter_map(|tally| tally.last_failure).max();
            let from = last_failure.map_or(since, |failure| failure.max(since));
            let all = seen.answered.iter().flatten().all(|answered| answered.is_some_and(|at| at > from));
            if all && Instant::now() > from + Duration::from_secs(1) {
                return Ok(
                    last_failure.map_or(Duration::ZERO, |failure| failure.saturating_duration_since(since))
                );
            }
            if Instant::now() >= end {
                return Err(Failure::failed("The survivors did not take over what the killed node served."));
            }
        }
    }

    /// Ends the calls; what those of summary and of chart came to.
    pub(super) async fn end(self) -> [Tally; 2] {
        let _ = self.stop.send(true);
        for caller in self.callers {
            let _ = caller.await;
        }
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.tallies
    }
}

fn note(seen: &Mutex<Seen>, node: usize, which: usize, began: Instant, answered: bool) {
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    let tally = &mut seen.tallies[which];
    tally.made += 1;
    if !answered {
        tally.failed += 1;
        let first = *tally.first_failure.get_or_insert(began);
        tally.last_failure = Some(now);
        tally.failing_for = now - first;
    } else {
        seen.answered[node][which] = Some(now);
    }
}
