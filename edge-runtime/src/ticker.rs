//! The epoch tick, which makes a computing guest yield, so that its deadline can end it.
//!
//! The thread sleeps without waking while no call runs: an idle node on a battery costs nothing.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, Thread};

use wasmtime::Engine;

use crate::limits::EPOCH_TICK;

#[derive(Debug, Default)]
struct Shared {
    calls: AtomicUsize,
    over: AtomicBool,
}

/// The ticking thread of one engine; it ends with the last handle.
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
}

impl fmt::Debug for Ticker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticker").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl Ticker {
    pub(crate) fn start(engine: &Engine) -> std::io::Result<Self> {
        let shared = Arc::<Shared>::default();
        // A strong handle here would keep the engine, and its address space, alive for ever.
        let engine = engine.weak();
        let thread = thread::Builder::new().name("osiris-epoch".to_owned()).spawn({
            let shared = shared.clone();
            move || {
                while !shared.over.load(Ordering::SeqCst) {
                    if shared.calls.load(Ordering::SeqCst) == 0 {
                        thread::park();
                        continue;
                    }
                    thread::sleep(EPOCH_TICK);
                    match engine.upgrade() {
                        Some(engine) => engine.increment_epoch(),
                        None => break,
                    }
                }
            }
        })?;
        Ok(Self { shared, thread: thread.thread().clone() })
    }

    /// Ticks while the guard lives.
    pub(crate) fn beat(&self) -> Beat<'_> {
        if self.shared.calls.fetch_add(1, Ordering::SeqCst) == 0 {
            self.thread.unpark();
        }
        Beat(self)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

/// One call's wish for ticks.
#[derive(Debug)]
pub(crate) struct Beat<'a>(&'a Ticker);

impl Drop for Beat<'_> {
    fn drop(&mut self) {
        self.0.shared.calls.fetch_sub(1, Ordering::SeqCst);
    }
}
