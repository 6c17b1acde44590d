//! What calls came to, counted without a lock, and what the node knows of itself at a scrape.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use osiris_mesh::MeshHeld;
use osiris_runtime::CallError;

use crate::node::Held;

/// How a call on this node ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallEnd {
    /// The function answered.
    Ok,
    /// A native function answered with its own error.
    FunctionError,
    /// It trapped, or its answer was not usable.
    Failed,
    /// It ran into its deadline.
    Timeout,
    /// There was no room, or the revision was being replaced.
    Busy,
    /// The request did not suit it.
    Rejected,
    /// The caller went away.
    Cancelled,
}

impl CallEnd {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 7] = [
        Self::Ok,
        Self::FunctionError,
        Self::Failed,
        Self::Timeout,
        Self::Busy,
        Self::Rejected,
        Self::Cancelled,
    ];

    /// The label of its counter.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::FunctionError => "function_error",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
            Self::Busy => "busy",
            Self::Rejected => "rejected",
            Self::Cancelled => "cancelled",
        }
    }
}

impl From<&CallError> for CallEnd {
    fn from(error: &CallError) -> Self {
        match error {
            CallError::Guest { .. } => Self::FunctionError,
            CallError::Deadline { .. } => Self::Timeout,
            CallError::Busy { .. } | CallError::Draining => Self::Busy,
            CallError::BadRequest { .. } | CallError::TooLarge { .. } => Self::Rejected,
            _ => Self::Failed,
        }
    }
}

/// How a call that this node passed on ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayEnd {
    /// Another member answered, whatever it answered.
    Answered,
    /// No member that has the revision ready could be reached; the function was not started.
    Unreachable,
    /// The member was lost, or failed, after it may have started the function.
    Lost,
    /// The deadline passed.
    Timeout,
}

impl RelayEnd {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 4] = [Self::Answered, Self::Unreachable, Self::Lost, Self::Timeout];

    /// The label of its counter.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Unreachable => "unreachable",
            Self::Lost => "lost",
            Self::Timeout => "timeout",
        }
    }
}

/// Upper bounds of the histogram's buckets: in nanoseconds, and as Prometheus writes the seconds.
pub const BUCKETS: [(u64, &str); 14] = [
    (100_000, "0.0001"),
    (250_000, "0.00025"),
    (500_000, "0.0005"),
    (1_000_000, "0.001"),
    (2_500_000, "0.0025"),
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (25_000_000, "0.025"),
    (100_000_000, "0.1"),
    (250_000_000, "0.25"),
    (1_000_000_000, "1"),
    (2_500_000_000, "2.5"),
    (10_000_000_000, "10"),
    (60_000_000_000, "60"),
];

/// A histogram of durations. Each bucket counts what fell into it alone; sums are made at a scrape.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS.len() + 1],
    sum_ns: AtomicU64,
}

impl Histogram {
    fn note(&self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BUCKETS.iter().position(|(max, _)| ns <= *max).unwrap_or(BUCKETS.len());
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_ns.fetch_add(ns, Relaxed);
    }

    /// Counts a bucket, the last for what is over every bound, and the sum.
    #[must_use]
    pub fn read(&self) -> ([u64; BUCKETS.len() + 1], Duration) {
        let counts = std::array::from_fn(|i| self.buckets[i].load(Relaxed));
        (counts, Duration::from_nanos(self.sum_ns.load(Relaxed)))
    }
}

/// What calls of one function came to since this node started.
#[derive(Debug, Default)]
pub struct CallFigures {
    ended: [AtomicU64; CallEnd::ALL.len()],
    relayed: [AtomicU64; RelayEnd::ALL.len()],
    duration: Histogram,
    /// Calls that wait for a first replica.
    waiting: AtomicU64,
}

impl CallFigures {
    /// Counts a call that ended here.
    pub fn note(&self, end: CallEnd, took: Duration) {
        self.ended[end as usize].fetch_add(1, Relaxed);
        self.duration.note(took);
    }

    /// Counts a call that was passed on.
    pub fn note_relay(&self, end: RelayEnd) {
        self.relayed[end as usize].fetch_add(1, Relaxed);
    }

    /// Calls that ended this way.
    #[must_use]
    pub fn ended(&self, end: CallEnd) -> u64 {
        self.ended[end as usize].load(Relaxed)
    }

    /// Calls that ended with a result, and all others.
    #[must_use]
    pub fn done_and_failed(&self) -> (u64, u64) {
        let done = self.ended(CallEnd::Ok);
        (done, CallEnd::ALL.iter().map(|end| self.ended(*end)).sum::<u64>().saturating_sub(done))
    }

    /// Calls that wait here for a first replica.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Relaxed)
    }

    /// One more call waits for a first replica, unless so many do already.
    pub(super) fn wait(&self, most: u64) -> Option<WaitsForReplica<'_>> {
        let waits = WaitsForReplica(self);
        (self.waiting.fetch_add(1, Relaxed) < most).then_some(waits)
    }

    /// Calls that were passed on and ended this way.
    #[must_use]
    pub fn relayed(&self, end: RelayEnd) -> u64 {
        self.relayed[end as usize].load(Relaxed)
    }

    /// How long calls took here, waiting included; cancelled ones are left out.
    #[must_use]
    pub fn duration(&self) -> &Histogram {
        &self.duration
    }

    /// Counts a call that has no duration: it was not started, or its caller did not wait.
    pub(super) fn note_unrun(&self, end: CallEnd) {
        self.ended[end as usize].fetch_add(1, Relaxed);
    }
}

/// A call that waits for a first replica, until it is dropped.
pub(super) struct WaitsForReplica<'a>(&'a CallFigures);

impl Drop for WaitsForReplica<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

/// The figures of every function. The lock is taken when routes are made and at a scrape, never by a
/// call: a route carries its own figures.
#[derive(Debug, Default)]
pub struct Metrics {
    functions: Mutex<BTreeMap<String, Arc<CallFigures>>>,
    /// Requests that were refused before they reached a function or the management interface.
    pub(super) refused: AtomicU64,
    /// Connections that found no room.
    pub(super) turned_away: AtomicU64,
    /// Idle connections closed to make room.
    pub(super) displaced: AtomicU64,
    /// Open connections.
    pub(super) connections: AtomicU64,
    held: ArcSwap<HeldNow>,
}

impl Metrics {
    fn functions(&self) -> MutexGuard<'_, BTreeMap<String, Arc<CallFigures>>> {
        self.functions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The figures of a function, which outlive its revisions.
    #[must_use]
    pub fn function(&self, name: &str) -> Arc<CallFigures> {
        Arc::clone(self.functions().entry(name.to_owned()).or_default())
    }

    /// Forgets functions that are not named, so that the list stays as long as the ledger's.
    pub fn retain<'a>(&self, names: impl Iterator<Item = &'a str>) {
        let names: std::collections::BTreeSet<&str> = names.collect();
        self.functions().retain(|name, _| names.contains(name.as_str()));
    }

    /// What peers can make grow, after the last event.
    #[must_use]
    pub fn held(&self) -> HeldNow {
        **self.held.load()
    }

    pub(super) fn note_held(&self, held: HeldNow) {
        if self.held() != held {
            self.held.store(Arc::new(held));
        }
    }

    /// What came to the HTTP interfaces.
    #[must_use]
    pub fn http(&self) -> HttpFigures {
        HttpFigures {
            connections: self.connections.load(Relaxed),
            refused: self.refused.load(Relaxed),
            turned_away: self.turned_away.load(Relaxed),
            displaced: self.displaced.load(Relaxed),
        }
    }

    /// Every function's figures in the order of their names.
    #[must_use]
    pub fn all(&self) -> Vec<(String, Arc<CallFigures>)> {
        self.functions().iter().map(|(name, figures)| (name.clone(), Arc::clone(figures))).collect()
    }
}

/// What came to the HTTP interfaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HttpFigures {
    /// Open connections.
    pub connections: u64,
    /// Requests refused for their Host, Origin or token.
    pub refused: u64,
    /// Connections turned away because too many were at work.
    pub turned_away: u64,
    /// Idle connections closed because a new one came and too many were open.
    pub displaced: u64,
}

/// What peers can make grow: of the core, and behind writes that are not durable yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeldNow {
    /// The core's part.
    pub core: Held,
    /// Bytes that a replica apart holds beside blocks.
    pub apart_bytes: u64,
    /// Groups of blocks that the journal has not made durable.
    pub journal_groups: u64,
    /// Bytes of frames that wait for that.
    pub journal_bytes: u64,
}

/// What the node says of itself at a scrape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeGauges {
    /// Admitted blocks.
    pub blocks: u64,
    /// What peers can make grow, after the last event.
    pub held: HeldNow,
    /// Bytes queued for the member for which most are.
    pub queued_bytes_most: u64,
    /// What peers make the mesh hold.
    pub mesh: MeshHeld,
    /// Active members of the fleet.
    pub members: u64,
    /// Members connected now.
    pub connected: u64,
    /// Hash of the view.
    pub view: [u8; 32],
    /// Time since the process started.
    pub uptime: Duration,
}

/// Asked at a scrape. It reads published values and does not block.
pub trait Gauges: Send + Sync + 'static {
    /// The values of this moment.
    fn read(&self) -> NodeGauges;
}

/// What this process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessUse {
    /// Resident memory, bytes; 0 where the system does not say.
    pub memory_bytes: u64,
    /// CPU time since the start.
    pub cpu: Duration,
}

impl ProcessUse {
    /// Asks the system. Where there is a `/proc` it reads one small file from it, which does not wait
    /// for a disk.
    #[must_use]
    pub fn read() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Self {
            memory_bytes: kib.unwrap_or(0) << 10,
            cpu: Duration::new(cpu.tv_sec.try_into().unwrap_or(0), cpu.tv_nsec.try_into().unwrap_or(0)),
        }
    }
}
