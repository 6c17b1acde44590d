//! What a running instance sees of the node, and what it is held to.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use wasmtime::component::{Linker, ResourceTable};
use wasmtime::{Engine, ResourceLimiter, Store, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{
    Error as HttpError, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

use crate::limits::{self, Limits};
use crate::log::{CallLog, LogRing, Stream};

/// Why a guest was stopped by one of our own limits.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LimitHit {
    #[error("it asked for {wanted} bytes of memory and its limit (memory_bytes) is {max}")]
    CallMemory { wanted: u64, max: u64 },
    #[error("the node's {max} bytes of memory for functions are all in use")]
    NodeMemory { max: u64 },
    #[error("its time was over")]
    Deadline,
    #[error("it asked for a table of {wanted} elements and the limit is {max}")]
    Table { wanted: usize, max: usize },
}

/// Memory that all calls of the node share, so that many functions together cannot take the machine.
#[derive(Debug)]
pub(crate) struct MemoryBudget {
    max: u64,
    used: AtomicU64,
}

impl MemoryBudget {
    pub(crate) fn new(max: u64) -> Arc<Self> {
        Arc::new(Self { max, used: AtomicU64::new(0) })
    }

    fn take(&self, bytes: u64) -> Result<(), LimitHit> {
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > self.max {
            self.give(bytes);
            return Err(LimitHit::NodeMemory { max: self.max });
        }
        Ok(())
    }

    fn give(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

/// Holds one call to its limits. A refused growth traps: a guest that sees `-1` may well go on.
#[derive(Debug)]
struct CallLimiter {
    budget: Arc<MemoryBudget>,
    max: u64,
    used: u64,
}

impl ResourceLimiter for CallLimiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let growth = desired.saturating_sub(current) as u64;
        let wanted = self.used.saturating_add(growth);
        if wanted > self.max {
            return Err(wasmtime::Error::new(LimitHit::CallMemory { wanted, max: self.max }));
        }
        self.budget.take(growth).map_err(wasmtime::Error::new)?;
        self.used = wanted;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(error)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        if desired > limits::TABLE_ELEMENTS_MAX {
            let hit = LimitHit::Table { wanted: desired, max: limits::TABLE_ELEMENTS_MAX };
            return Err(wasmtime::Error::new(hit));
        }
        Ok(true)
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(error)
    }

    fn instances(&self) -> usize {
        limits::CALL_INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        limits::CALL_TABLES_MAX
    }

    fn memories(&self) -> usize {
        limits::CALL_MEMORIES_MAX
    }
}

impl Drop for CallLimiter {
    fn drop(&mut self) {
        self.budget.give(self.used);
    }
}

/// The policy of `wasi:http`: nothing goes out. The guest is told `HTTP-request-denied`, and the log why.
#[derive(Debug)]
struct NoOutgoing {
    log: Arc<CallLog>,
}

type SendResult =
    Result<(http::Response<WasiBody>, Box<dyn Future<Output = Result<(), HttpError>> + Send>), HttpError>;

impl WasiHttpHooks for NoOutgoing {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        _: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), HttpError>> + Send>,
    ) -> Box<dyn Future<Output = SendResult> + Send> {
        let host = request.uri().host().unwrap_or_default();
        let text = format!("[osiris: a request to '{host}' was refused; functions may not send requests]");
        self.log.write_line(Stream::Stderr, &text);
        Box::new(std::future::ready(Err(HttpError::HttpRequestDenied)))
    }

    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        limits::BODY_PIECES_WAITING
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        limits::BODY_PIECE_BYTES
    }
}

/// The state of one call.
pub(crate) struct CallState {
    table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    hooks: NoOutgoing,
    limiter: CallLimiter,
}

impl fmt::Debug for CallState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallState").field("limiter", &self.limiter).finish_non_exhaustive()
    }
}

impl WasiView for CallState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for CallState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.hooks }
    }
}

/// Everything a component may import.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<CallState>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    Ok(linker)
}

/// A fresh store for one call: its own limits, its own log, nothing of the host.
pub(crate) fn store(
    engine: &Engine,
    limits: &Limits,
    budget: &Arc<MemoryBudget>,
    ring: &Arc<LogRing>,
    call: u64,
) -> Store<CallState> {
    let log = CallLog::new(ring.clone(), call, size(limits.log_bytes));
    let wasi = WasiCtx::builder()
        .stdout(log.stream(Stream::Stdout))
        .stderr(log.stream(Stream::Stderr))
        .max_random_size(limits::RANDOM_BYTES_MAX)
        .build();
    let mut table = ResourceTable::new();
    table.set_max_capacity(limits::RESOURCES_MAX);
    let mut http = WasiHttpCtx::new();
    http.set_field_size_limit(limits::HEADER_BYTES_MAX);
    let limiter = CallLimiter { budget: budget.clone(), max: limits.memory_bytes, used: 0 };
    let mut store = Store::new(engine, CallState { table, wasi, http, hooks: NoOutgoing { log }, limiter });
    store.limiter(|state| &mut state.limiter);
    hold_to_deadline(&mut store, limits.timeout);
    store.set_hostcall_fuel(size(limits.response_bytes) + limits::HOSTCALL_SLACK_BYTES);
    store
}

/// Makes a guest that computes yield at each tick, and ends it when its time is over.
fn hold_to_deadline(store: &mut Store<CallState>, timeout: Duration) {
    let deadline = Instant::now() + timeout;
    store.set_epoch_deadline(1);
    // This marks the store as one that must run on its own stack; the callback below takes its place.
    store.epoch_deadline_async_yield_and_update(1);
    store.epoch_deadline_callback(move |_| {
        // The executor's timer ends a guest that waits. One that computes ends here as well: when every
        // worker is busy with such guests, timers come late.
        if Instant::now() >= deadline {
            return Err(wasmtime::Error::new(LimitHit::Deadline));
        }
        // Unlike a plain yield, this one lets the executor look at its timers and sockets.
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
    });
}

/// A limit as the length of something in memory.
pub(crate) fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_outgoing_request_is_refused_and_the_log_says_so() {
        let ring = LogRing::new();
        let mut hooks = NoOutgoing { log: CallLog::new(ring.clone(), 1, 1000) };
        let body = http_body_util::combinators::UnsyncBoxBody::default();
        let request = http::Request::get("http://169.254.169.254/secrets").body(body).expect("a request");
        let sent = hooks.send_request(request, None, Box::new(std::future::ready(Ok(()))));
        assert!(matches!(Box::into_pin(sent).await, Err(HttpError::HttpRequestDenied)));
        assert!(ring.last(1)[0].text.contains("a request to '169.254.169.254' was refused"));
    }

    #[test]
    fn a_call_is_held_to_its_own_memory_and_to_the_nodes() {
        let budget = MemoryBudget::new(100);
        let limiter = || CallLimiter { budget: budget.clone(), max: 60, used: 0 };
        let (mut a, mut b) = (limiter(), limiter());
        assert!(a.memory_growing(0, 50, None).is_ok_and(|allowed| allowed));
        let own = a.memory_growing(50, 61, None).expect_err("over its own limit");
        assert_eq!(own.downcast_ref(), Some(&LimitHit::CallMemory { wanted: 61, max: 60 }));
        // A second memory of the same call counts as well.
        assert!(a.memory_growing(0, 11, None).is_err());
        let node = b.memory_growing(0, 51, None).expect_err("over the node's");
        assert_eq!(node.downcast_ref(), Some(&LimitHit::NodeMemory { max: 100 }));
        assert_eq!(budget.used(), 50);
        drop(a);
        assert!(b.memory_growing(0, 51, None).is_ok());
        drop(b);
        assert_eq!(budget.used(), 0);
    }
}
