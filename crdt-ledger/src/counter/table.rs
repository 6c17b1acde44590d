//! The merged table of rows.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::OnceLock,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::Row;
use crate::{
    id::{Author, FleetId},
    limits,
    op::array_struct,
    time::Mono,
};

/// A row's place among its owner's: the greatest wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowHead {
    /// Which life of the owner's process wrote it.
    pub incarnation: u64,
    /// How many rows that life had written.
    pub version: u64,
    /// blake3 of the row; decides between two of one place.
    pub hash: [u8; 32],
}

array_struct! {
    /// What one replica of the table says of an owner, for comparison: the first bytes decide nothing, but whether
    /// to send.
    pub struct RowNote {
        /// The owner.
        owner: Author,
        /// Its incarnation.
        incarnation: u64,
        /// Its version.
        version: u64,
        /// The first 8 bytes of the row's hash, as a number.
        start: u64,
    }
}

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// It is news.
    Newer,
    /// A row at least as new is here.
    Known,
}

#[derive(Clone, Debug)]
struct Held {
    row: Row,
    /// When this replica saw it change; no clock of another node is looked at.
    changed: Mono,
}

/// One replica of all rows.
#[derive(Clone, Debug)]
pub struct Counters {
    fleet: FleetId,
    rows: BTreeMap<Author, Held>,
    /// Of these rows, once it was asked for: it is, for each peer and every few seconds.
    digest: OnceLock<[u8; 32]>,
}

/// One function over the fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionTotals {
    /// Invocations accepted and not started, on nodes heard of lately.
    pub backlog: u64,
    /// Invocations that run, on nodes heard of lately.
    pub in_flight: u64,
    /// Invocations that ended with a result.
    pub done: u64,
    /// Invocations that ended with an error.
    pub failed: u64,
    /// Nodes that ever counted it.
    pub nodes: u64,
    /// Of those: not heard of lately, so their backlog is not in the sum.
    pub silent: u64,
}

/// One function on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeTotals {
    /// The node.
    pub node: Author,
    /// The function.
    pub name: String,
    /// Invocations accepted and not started.
    pub backlog: u64,
    /// Invocations that run.
    pub in_flight: u64,
    /// Invocations that ended with a result.
    pub done: u64,
    /// Invocations that ended with an error.
    pub failed: u64,
    /// Since when this replica has seen no change.
    pub age: Duration,
}

impl Counters {
    /// No rows yet.
    #[must_use]
    pub fn new(fleet: FleetId) -> Self {
        Self { fleet, rows: BTreeMap::new(), digest: OnceLock::new() }
    }

    /// The fleet.
    #[must_use]
    pub fn fleet(&self) -> FleetId {
        self.fleet
    }

    /// Takes a row that was read. Whoever calls sees to it that its owner is a member.
    pub fn merge(&mut self, now: Mono, row: Row) -> Merge {
        let owner = row.owner();
        if self.rows.get(&owner).is_some_and(|held| held.row.head() >= row.head()) {
            return Merge::Known;
        }
        self.rows.insert(owner, Held { row, changed: now });
        self.digest.take();
        Merge::Newer
    }

    /// Whether a row with this head would be news: asked before a signature is checked.
    #[must_use]
    pub fn is_news(&self, owner: &Author, head: &RowHead) -> bool {
        self.rows.get(owner).is_none_or(|held| held.row.head() < *head)
    }

    /// Forgets rows of those who are members no more.
    pub fn retain(&mut self, is_member: impl Fn(&Author) -> bool) {
        let before = self.rows.len();
        self.rows.retain(|owner, _| is_member(owner));
        if self.rows.len() < before {
            self.digest.take();
        }
    }

    /// A row of an owner.
    #[must_use]
    pub fn get(&self, owner: &Author) -> Option<&Row> {
        self.rows.get(owner).map(|held| &held.row)
    }

    /// Rows held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// blake3 over owners and hashes: equal exactly when two replicas hold the same rows.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        *self.digest.get_or_init(|| {
            let mut hasher = blake3::Hasher::new();
            for (owner, held) in &self.rows {
                hasher.update(&owner.0);
                hasher.update(&held.row.hash);
            }
            *hasher.finalize().as_bytes()
        })
    }

    /// What is held, for a peer to compare with its own.
    #[must_use]
    pub fn notes(&self) -> Vec<RowNote> {
        self.rows.values().map(|held| note(&held.row)).collect()
    }

    /// Compares with a peer's notes: rows that the peer lacks or has older, at most `bytes_max` of them, oldest news
    /// last; and whether the peer has any that is newer than here.
    #[must_use]
    pub fn compare(&self, theirs: &[RowNote], bytes_max: usize) -> (Vec<&Row>, bool) {
        let theirs: BTreeMap<_, _> =
            theirs.iter().take(limits::ROWS_MAX).map(|note| (note.owner, note)).collect();
        let mut bytes = 0;
        let mut rows = Vec::new();
        let mut wants = theirs.keys().any(|owner| !self.rows.contains_key(owner));
        let mut newest: Vec<_> = self.rows.values().collect();
        newest.sort_by_key(|held| std::cmp::Reverse(held.changed));
        for held in newest {
            let mine = note(&held.row);
            let order = |note: &RowNote| (note.incarnation, note.version, note.start);
            match theirs.get(&held.row.owner()).map(|note| order(note).cmp(&order(&mine))) {
                Some(std::cmp::Ordering::Equal) => {}
                Some(std::cmp::Ordering::Greater) => wants = true,
                None | Some(std::cmp::Ordering::Less) => {
                    bytes += held.row.bytes().len();
                    if bytes <= bytes_max || rows.is_empty() {
                        rows.push(&held.row);
                    }
                }
            }
        }
        (rows, wants)
    }

    /// Each function over all members. What a node has not changed for longer than `fresh` is not taken for its
    /// present backlog; a node where nothing happens has none.
    #[must_use]
    pub fn totals(&self, now: Mono, fresh: Duration) -> BTreeMap<String, FunctionTotals> {
        let mut totals: BTreeMap<String, FunctionTotals> = BTreeMap::new();
        for held in self.rows.values() {
            let silent = now.since(held.changed) > fresh;
            for cell in held.row.functions() {
                let total = totals.entry(cell.name.clone()).or_default();
                total.done = total.done.saturating_add(cell.done);
                total.failed = total.failed.saturating_add(cell.failed);
                total.nodes += 1;
                let works = cell.backlog() + cell.in_flight() > 0;
                if silent && works {
                    total.silent += 1;
                } else {
                    total.backlog = total.backlog.saturating_add(cell.backlog());
                    total.in_flight = total.in_flight.saturating_add(cell.in_flight());
                }
            }
        }
        totals
    }

    /// Owners of rows whose machines are busy, or in which something waits besides invocations of a function: those
    /// wait for a replica of it, wherever that is.
    #[must_use]
    pub fn busy(&self, now: Mono, fresh: Duration, function: &str) -> BTreeSet<Author> {
        let fresh = self.rows.iter().filter(|(_, held)| now.since(held.changed) <= fresh);
        let waits =
            |row: &Row| row.functions().iter().any(|cell| cell.name != function && cell.backlog() > 0);
        let busy = fresh.filter(|(_, held)| held.row.is_busy() || waits(&held.row));
        busy.map(|(owner, _)| *owner).collect()
    }

    /// Owners of rows whose machines are busy, as of now.
    #[must_use]
    pub fn busy_machines(&self, now: Mono, fresh: Duration) -> BTreeSet<Author> {
        let busy =
            self.rows.iter().filter(|(_, held)| held.row.is_busy() && now.since(held.changed) <= fresh);
        busy.map(|(owner, _)| *owner).collect()
    }

    /// Each function on each node, by name and node.
    #[must_use]
    pub fn by_node(&self, now: Mono) -> Vec<NodeTotals> {
        let mut rows: Vec<_> = self
            .rows
            .iter()
            .flat_map(|(node, held)| {
                held.row.functions().iter().map(|cell| NodeTotals {
                    node: *node,
                    name: cell.name.clone(),
                    backlog: cell.backlog(),
                    in_flight: cell.in_flight(),
                    done: cell.done,
                    failed: cell.failed,
                    age: now.since(held.changed),
                })
            })
            .collect();
        rows.sort_by(|a, b| (&a.name, a.node).cmp(&(&b.name, b.node)));
        rows
    }
}

fn note(row: &Row) -> RowNote {
    let head = row.head();
    let start = head.hash.first_chunk().copied().unwrap_or_default();
    RowNote {
        owner: row.owner(),
        incarnation: head.incarnation,
        version: head.version,
        start: u64::from_be_bytes(start),
    }
}
