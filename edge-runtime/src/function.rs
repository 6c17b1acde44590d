//! A prepared revision of a function: one fresh instance a call.
//!
//! A call runs on the caller's own task. Nothing is spawned, so a caller that goes away takes the
//! instance with it at the guest's next yield, and the pool gets its slot back.

use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use tokio::sync::{broadcast, oneshot};
use wasmtime::component::{Component, ComponentExportIndex, InstancePre, Linker};
use wasmtime::{Engine, PoolConcurrencyLimitError, Store};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use crate::hash::ComponentHash;
use crate::host::{self, CallState, LimitHit, MemoryBudget};
use crate::inspect::{NATIVE_EXPORT, World};
use crate::limits::Limits;
use crate::log::{LogLine, LogRing};
use crate::outcome::{CallError, Outcome};
use crate::queue::{Figures, Queue, Ticket};
use crate::ticker::Ticker;

/// What wasmtime says, in part, when a guest hands over more than `Store::set_hostcall_fuel` allows; the
/// error itself has no public type. A test holds this to the pinned version.
const HOSTCALL_FUEL_WORDS: &str = "fuel allocated for hostcalls";

/// What all functions of a node share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(crate) ticker: Ticker,
    pub(crate) budget: Arc<MemoryBudget>,
}

enum Entry {
    Native { pre: InstancePre<CallState>, call: ComponentExportIndex },
    Http(ProxyPre<CallState>),
}

/// A revision that is ready to be called. Shared by reference; a call borrows it.
pub struct Function {
    name: String,
    component: ComponentHash,
    limits: Limits,
    entry: Entry,
    queue: Queue,
    logs: Arc<LogRing>,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Function")
            .field("name", &self.name)
            .field("component", &self.component)
            .field("figures", &self.figures())
            .finish_non_exhaustive()
    }
}

impl Function {
    pub(crate) fn new(
        name: String,
        hash: ComponentHash,
        component: &Component,
        linker: &Linker<CallState>,
        limits: Limits,
        calls_max: u32,
        shared: Arc<Shared>,
    ) -> wasmtime::Result<Self> {
        let pre = linker.instantiate_pre(component)?;
        let entry = match component.get_export_index(None, NATIVE_EXPORT) {
            Some(call) => Entry::Native { pre, call },
            None => Entry::Http(ProxyPre::new(pre)?),
        };
        // A quarter, so that a function whose calls all hang leaves room for three others.
        let concurrency = limits.concurrency.min((calls_max / 4).max(1));
        Ok(Self {
            name,
            component: hash,
            entry,
            queue: Queue::new(concurrency, limits.queue_len, limits.timeout),
            logs: LogRing::new(),
            limits,
            shared,
        })
    }

    /// The name it was prepared under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The component it was made of.
    #[must_use]
    pub fn component(&self) -> ComponentHash {
        self.component
    }

    /// Which of the calls it answers.
    #[must_use]
    pub fn world(&self) -> World {
        match self.entry {
            Entry::Native { .. } => World::Native,
            Entry::Http(_) => World::Http,
        }
    }

    /// The limits each call is held to.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Calls that run at the same time: the limit, or less where the machine's pool is small, or what
    /// [`Function::set_concurrency`] said.
    #[must_use]
    pub fn concurrency(&self) -> u32 {
        self.queue.concurrency()
    }

    /// Runs so many calls at the same time from now on, at least 1 and at most as many as its limits and the machine's
    /// pool allow. Where that is fewer than run, those that run end first.
    pub fn set_concurrency(&self, concurrency: u32) {
        self.queue.set_concurrency(concurrency);
    }

    /// What it has done and is doing, at this moment.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.queue.figures()
    }

    /// The last lines it printed, oldest first.
    #[must_use]
    pub fn logs(&self, max_lines: usize) -> Vec<LogLine> {
        self.logs.last(max_lines)
    }

    /// The lines it prints from now on. A receiver that lags more than
    /// [`LOG_FOLLOW_LINES`](crate::limits::LOG_FOLLOW_LINES) loses the oldest and is told so.
    #[must_use]
    pub fn follow_logs(&self) -> broadcast::Receiver<LogLine> {
        self.logs.subscribe()
    }

    /// Takes no more calls; ready when those that were accepted are over. Asking again is fine.
    pub async fn drain(&self) {
        self.queue.drain().await;
    }

    /// Calls a [`World::Native`] function.
    ///
    /// Dropping the future ends the call. Its errors are in the outcome.
    pub async fn call_native(&self, input: String) -> Outcome<String> {
        let (arrived, call) = (Instant::now(), self.queue.next_call());
        let Entry::Native { pre, call: export } = &self.entry else {
            return self.refuse(arrived, call, wrong_world("wasi:http", "a request"));
        };
        match self.accept(input.len()) {
            Ok(ticket) => self.run(arrived, call, ticket, self.native(pre, export, call, input)).await,
            Err(error) => self.refuse(arrived, call, error),
        }
    }

    /// Calls a [`World::Http`] function. A request without a host gets `localhost`; trailers of the
    /// response are dropped.
    ///
    /// Dropping the future ends the call. Its errors are in the outcome.
    pub async fn call_http(&self, request: http::Request<Bytes>) -> Outcome<http::Response<Bytes>> {
        let (arrived, call) = (Instant::now(), self.queue.next_call());
        let Entry::Http(pre) = &self.entry else {
            return self.refuse(arrived, call, wrong_world("osiris:function", "a text"));
        };
        match self.accept(request.body().len()) {
            Ok(ticket) => self.run(arrived, call, ticket, self.http(pre, call, request)).await,
            Err(error) => self.refuse(arrived, call, error),
        }
    }

    fn accept(&self, size: usize) -> Result<Ticket<'_>, CallError> {
        if size > host::size(self.limits.request_bytes) {
            self.queue.count_refused();
            return Err(CallError::TooLarge { size: size as u64, max: self.limits.request_bytes });
        }
        self.queue.enter()
    }

    fn refuse<T>(&self, arrived: Instant, call: u64, error: CallError) -> Outcome<T> {
        if let CallError::BadRequest { .. } = error {
            self.queue.count_refused();
        }
        let elapsed = arrived.elapsed();
        Outcome { result: Err(error), call, elapsed, queued: elapsed }
    }

    async fn run<T>(
        &self,
        arrived: Instant,
        call: u64,
        mut ticket: Ticket<'_>,
        work: impl Future<Output = Result<T, CallError>>,
    ) -> Outcome<T> {
        if let Err(error) = ticket.start().await {
            drop(ticket);
            return self.refuse(arrived, call, error);
        }
        let queued = arrived.elapsed();
        let beat = self.shared.ticker.beat();
        let after = self.limits.timeout;
        // The store is made inside `work`, so even a guest that loops in its start function is stopped.
        let result = tokio::time::timeout(after, work).await.unwrap_or(Err(CallError::Deadline { after }));
        drop(beat);
        ticket.finish(result.is_ok());
        Outcome { result, call, elapsed: arrived.elapsed(), queued }
    }

    fn store(&self, call: u64) -> Store<CallState> {
        host::store(&self.shared.engine, &self.limits, &self.shared.budget, &self.logs, call)
    }

    async fn native(
        &self,
        pre: &InstancePre<CallState>,
        export: &ComponentExportIndex,
        call: u64,
        input: String,
    ) -> Result<String, CallError> {
        let mut store = self.store(call);
        let answer = async {
            let instance = pre.instantiate_async(&mut store).await?;
            let function =
                instance.get_typed_func::<(&str,), (Result<String, String>,)>(&mut store, export)?;
            function.call_async(&mut store, (&input,)).await
        };
        let (answer,) = answer.await.map_err(|e| self.explain(&e))?;
        let answer = answer.map_err(|message| CallError::Guest { message });
        let size = match &answer {
            Ok(text) | Err(CallError::Guest { message: text }) => text.len(),
            Err(_) => 0,
        };
        if size > host::size(self.limits.response_bytes) {
            return Err(self.response_too_large());
        }
        answer
    }

    async fn http(
        &self,
        pre: &ProxyPre<CallState>,
        call: u64,
        mut request: http::Request<Bytes>,
    ) -> Result<http::Response<Bytes>, CallError> {
        if request.uri().authority().is_none() && !request.headers().contains_key(http::header::HOST) {
            let host = http::HeaderValue::from_static("localhost");
            request.headers_mut().insert(http::header::HOST, host);
        }
        let mut store = self.store(call);
        let (respond, response) = oneshot::channel();
        let mut view = store.data_mut().http();
        let request = view
            .new_incoming_request(Scheme::Http, request.map(Full::new))
            .map_err(|e| CallError::BadRequest { message: e.root_cause().to_string() })?;
        let respond = view.new_response_outparam(respond).map_err(|e| self.explain(&e))?;
        let guest = async move {
            let proxy = pre.instantiate_async(&mut store).await?;
            // The store goes with the call: what is left of the response channels closes here.
            proxy.wasi_http_incoming_handler().call_handle(store, request, respond).await
        };
        let guest = async { guest.await.map_err(|e| self.explain(&e)) };
        // Side by side, because a guest that writes a long body waits for it to be taken. The guest comes
        // first, because its trap says more than the missing response that follows from it.
        let ((), response) = tokio::try_join!(biased; guest, self.collect(response))?;
        Ok(response)
    }

    /// Takes a response as it is written, within the limit.
    async fn collect(
        &self,
        response: oneshot::Receiver<Result<http::Response<HyperOutgoingBody>, ErrorCode>>,
    ) -> Result<http::Response<Bytes>, CallError> {
        let (parts, mut body) = match response.await {
            Ok(Ok(response)) => response.into_parts(),
            Ok(Err(code)) => return Err(CallError::BadResponse { message: format!("it reported {code:?}") }),
            Err(_) => return Err(CallError::NoResponse),
        };
        let max = host::size(self.limits.response_bytes);
        let (mut first, mut more, mut size) = (Bytes::new(), BytesMut::new(), 0);
        while let Some(frame) = body.frame().await {
            let frame = frame
                .map_err(|e| CallError::BadResponse { message: format!("its body ended early: {e}") })?;
            let Ok(piece) = frame.into_data() else { continue };
            size += piece.len();
            if size > max {
                return Err(self.response_too_large());
            }
            // Most bodies come in one piece, which is passed on as it is.
            if first.is_empty() {
                first = piece;
            } else {
                if more.is_empty() {
                    more.extend_from_slice(&first);
                }
                more.extend_from_slice(&piece);
            }
        }
        let body = if more.is_empty() { first } else { more.freeze() };
        Ok(http::Response::from_parts(parts, body))
    }

    fn response_too_large(&self) -> CallError {
        CallError::ResponseTooLarge { max: self.limits.response_bytes }
    }

    /// The cause of a failed call, in the words of the caller's contract.
    fn explain(&self, error: &wasmtime::Error) -> CallError {
        let limit: Option<&LimitHit> = error.downcast_ref();
        if let Some(LimitHit::Deadline) = limit {
            return CallError::Deadline { after: self.limits.timeout };
        }
        if let Some(LimitHit::NodeMemory { .. }) = limit {
            return self.queue.busy();
        }
        if error.downcast_ref::<PoolConcurrencyLimitError>().is_some() {
            return self.queue.busy();
        }
        if let Some(I32Exit(code)) = error.downcast_ref() {
            return CallError::Trap { message: format!("it called exit with status {code}") };
        }
        let message = error.root_cause().to_string();
        if message.contains(HOSTCALL_FUEL_WORDS) {
            return self.response_too_large();
        }
        let message = message.strip_prefix("wasm trap: ").unwrap_or(&message).to_owned();
        CallError::Trap { message }
    }
}

fn wrong_world(is: &str, takes: &str) -> CallError {
    CallError::BadRequest { message: format!("it is a function of the world {is} and takes {takes}") }
}
