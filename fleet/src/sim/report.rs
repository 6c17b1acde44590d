//! What a run came to.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::{Deserialize, Serialize};

use super::options::{OWN_EVERYTHING_MAX, Options, SAMPLE};

/// Violations that a report lists; a broken core finds thousands of one kind.
pub(super) const VIOLATIONS_MAX: usize = 20;

/// Branches that few runs reach. A campaign fails if one of them was never reached.
pub const RARE: [&str; 30] = [
    "fork proven",
    "early evicted",
    "recovery truncated",
    "restart with lost tail",
    "void blocks",
    "surplus admission",
    "takeover",
    "handed over",
    "told of its end",
    "durable records missing",
    "disk failed",
    "joined",
    "revoked",
    "lease won",
    "lease lost",
    "lease expired and taken over",
    "lease lost by a pause",
    "lease lost by a suspend",
    "twin noticed",
    "page sealed",
    "blocks dropped",
    "joined from pages",
    "scaled up",
    "scaled down",
    "scaled to none",
    "woken",
    "passed over",
    "machine not made",
    "machine retired",
    "spawn reconciled",
];

/// Every kind of fault and of hostile deed. A campaign fails if one of them was never inflicted.
pub const FAULTS: [&str; 27] = [
    "crash",
    "crash in a write",
    "holder gone",
    "restart",
    "pause",
    "suspend",
    "cloned disk",
    "partition",
    "one-way cut",
    "broken connection",
    "clock",
    "clock off by years",
    "restored disk",
    "failed write",
    "damaged disk",
    "hints lost",
    "half of all frames lost",
    "fork",
    "altered",
    "signed for another",
    "encoded again",
    "misplaced",
    "another depth",
    "replayed",
    "another session",
    "babble",
    "flood",
];

/// One run's report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// What decided the run.
    pub options: Options,
    /// Whether nothing was violated and something was compared.
    pub passed: bool,
    /// Broken promises, in sentences; at most twenty.
    pub violations: Vec<String>,
    /// Nodes at the end, newcomers included.
    pub nodes: u64,
    /// Virtual milliseconds from the first event to agreement.
    pub virtual_ms: u64,
    /// Virtual milliseconds from the end of faults to agreement.
    pub agreed_after_ms: Option<u64>,
    /// Events.
    pub events: u64,
    /// Frames sent.
    pub sent: u64,
    /// Frames lost.
    pub dropped: u64,
    /// Frames that came twice.
    pub duplicated: u64,
    /// Frames that overtook another.
    pub overtaken: u64,
    /// Blocks that honest nodes wrote.
    pub written: u64,
    /// Deploys that were acknowledged.
    pub acknowledged: u64,
    /// Views of equal sets of blocks that were compared.
    pub views_compared: u64,
    /// Blocks in the replicas that were compared at the end.
    pub blocks_compared: u64,
    /// Replicas whose automerge heads were compared at the end.
    pub documents_compared: u64,
    /// What this run leaves out for speed, in a sentence; empty where nothing is.
    pub left_out: String,
    /// Faults injected, by kind.
    pub faults: BTreeMap<String, u64>,
    /// Branches reached, by name.
    pub branches: BTreeMap<String, u64>,
    /// What was called and served, in sums over the run; empty where nobody calls.
    #[serde(default)]
    pub load: BTreeMap<String, u64>,
    /// blake3 over the event log: one line an event.
    pub event_log_hash: String,
}

/// What a run of so many nodes leaves out.
pub(super) fn left_out(options: &Options) -> String {
    if options.owns_everything() {
        return String::new();
    }
    format!(
        "above {OWN_EVERYTHING_MAX} nodes: all share a memo of checked entries, the places of the fleet's first blocks, \
         and what follows from equal sets of blocks, save {SAMPLE} nodes, which work that out by themselves; only these \
         hold an automerge document and have their views compared at each step"
    )
}

/// Counts by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally(BTreeMap<&'static str, u64>);

impl Tally {
    pub(super) fn count(&mut self, what: &'static str) {
        self.add(what, 1);
    }

    pub(super) fn add(&mut self, what: &'static str, times: u64) {
        if times > 0 {
            *self.0.entry(what).or_default() += times;
        }
    }

    pub(super) fn named(&self) -> BTreeMap<String, u64> {
        self.0.iter().map(|(what, times)| ((*what).to_owned(), *times)).collect()
    }
}

/// Takes the lines of an event log.
pub type Listener<'a> = &'a mut dyn FnMut(&str);

/// The event log: hashed, and given to who listens.
pub(super) struct EventLog<'a> {
    hasher: blake3::Hasher,
    line: String,
    listener: Option<Listener<'a>>,
    pub(super) events: u64,
}

impl std::fmt::Debug for EventLog<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventLog").field("events", &self.events).finish_non_exhaustive()
    }
}

impl<'a> EventLog<'a> {
    pub(super) fn new(listener: Option<Listener<'a>>) -> Self {
        Self { hasher: blake3::Hasher::new(), line: String::new(), listener, events: 0 }
    }

    /// Writes one line: the virtual time and what happened.
    pub(super) fn line(&mut self, at: u64, what: std::fmt::Arguments<'_>) {
        self.events += 1;
        self.line.clear();
        writeln!(self.line, "{at} {what}").expect("a String takes every write");
        self.hasher.update(self.line.as_bytes());
        if let Some(listener) = &mut self.listener {
            listener(self.line.trim_end());
        }
    }

    pub(super) fn hash(&self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }
}

/// The first bytes of a hash of what travels, for the log.
pub(super) fn print(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..12].to_owned()
}
