//! Counters: what functions do on each node, merged over the fleet, beside the ledger.
//!
//! High rates stay out of the blocks. Each member owns one signed **row**, which holds for each function
//! PN-counters (Shapiro, Preguiça, Baquero, Zawirski 2011) of its backlog and of its running invocations, and
//! grow-only counters of those that ended. A row replaces an earlier one of its owner as a whole, so the
//! table of rows is a map of registers with one writer each, and merging it is a join: commutative, associative
//! and idempotent. There is no history: 100 rows of ten functions are about 30 kB.
//!
//! ```text
//! body = canonical CBOR [version, owner(32), incarnation, row version, functions, claims, busy]
//!        functions: strictly ascending names; claims: strictly ascending ids
//! row  = body ‖ ed25519(blake3("osiris-row-v1" ‖ fleet id ‖ body))
//! ```
//!
//! **Order** of rows of one owner: incarnation, then version, then blake3 of the row. An owner that meets a row of its
//! own which it did not write (it restarted, was restored, or runs twice) goes on above it, in the next
//! **incarnation**, and keeps counting where that row had ended: counts of what ended never go down.
//!
//! A row also renews its owner's claims ([`crate::lease`]): that they are named in a new row is how others know that
//! the owner is still there. So renewals need no blocks.

mod table;

use std::collections::BTreeMap;

use ed25519_dalek::{Signature as DalekSignature, SigningKey};
use serde::{Deserialize, Serialize};

pub use table::{Counters, FunctionTotals, Merge, NodeTotals, RowHead, RowNote};

use crate::{
    codec,
    id::{Author, BlockId, FleetId, Signature},
    limits,
    memo::Memo,
    op::{array_struct, is_function_name, sign, usable_key},
};

const VERSION: u8 = 3;
const DOMAIN: &[u8] = b"osiris-row-v1";

/// What one function does on one node at a moment, as that node sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Invocations accepted and not started.
    pub backlog: u64,
    /// Invocations that run.
    pub in_flight: u64,
    /// Invocations that ended with a result, since the process started.
    pub done: u64,
    /// Invocations that ended with an error, since the process started.
    pub failed: u64,
}

array_struct! {
    /// The counters of one function on one node. All only grow within an incarnation.
    pub struct Cell {
        /// The function.
        name: String,
        /// Invocations that came into the backlog.
        queued: u64,
        /// Invocations that left the backlog.
        unqueued: u64,
        /// Invocations that started.
        started: u64,
        /// Invocations that started and ended.
        ended: u64,
        /// Of those that ended: with a result.
        done: u64,
        /// Of those that ended: with an error.
        failed: u64,
    }
}

array_struct! {
    struct Body {
        version: u8,
        owner: Author,
        incarnation: u64,
        row: u64,
        functions: Vec<Cell>,
        claims: Vec<BlockId>,
        busy: bool,
    }
}

/// Why bytes are no row of a fleet. As with blocks, only such bytes may be held against a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RowReject {
    /// More than [`limits::ROW_BYTES_MAX`].
    #[error("the row has {0} bytes; at most {max} are allowed", max = limits::ROW_BYTES_MAX)]
    TooLarge(usize),
    /// Too short, or not the canonical CBOR of a row, or of another version.
    #[error("the bytes are not a row")]
    Malformed,
    /// Too many functions or claims, a name that is none, names or claims out of order, or counters that run
    /// backwards.
    #[error("a field of the row is not allowed")]
    Field,
    /// The signature does not fit owner, fleet and body.
    #[error("the signature is wrong, or the row belongs to another fleet")]
    BadSignature,
}

/// One member's counters, signed by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    bytes: Box<[u8]>,
    hash: [u8; 32],
    body: Body,
}

impl Row {
    /// Reads and checks a row.
    ///
    /// # Errors
    /// [`RowReject`]: every node refuses these bytes.
    pub fn read(fleet: &FleetId, bytes: &[u8]) -> Result<Self, RowReject> {
        Self::read_if(fleet, bytes, None, |_, _| true)?.ok_or(RowReject::Malformed)
    }

    /// Reads a row, and checks its signature only where it is wanted, seen by its owner and place. None where
    /// it is not. With a memo, who shares it checks the same bytes once.
    ///
    /// # Errors
    /// As [`Row::read`].
    pub fn read_if(
        fleet: &FleetId,
        bytes: &[u8],
        memo: Option<&Memo>,
        is_wanted: impl FnOnce(&Author, &RowHead) -> bool,
    ) -> Result<Option<Self>, RowReject> {
        if bytes.len() > limits::ROW_BYTES_MAX {
            return Err(RowReject::TooLarge(bytes.len()));
        }
        let body_len = bytes.len().checked_sub(limits::SIGNATURE_BYTES).ok_or(RowReject::Malformed)?;
        let (signed, signature) = bytes.split_at(body_len);
        let body: Body = codec::decode(signed).map_err(|_| RowReject::Malformed)?;
        if body.version != VERSION {
            return Err(RowReject::Malformed);
        }
        check_fields(&body)?;
        let row = Self { bytes: bytes.into(), hash: *blake3::hash(bytes).as_bytes(), body };
        if !is_wanted(&row.owner(), &row.head()) {
            return Ok(None);
        }
        if memo.is_some_and(|memo| memo.fleet() == *fleet && memo.is_row_verified(&row.owner(), bytes)) {
            return Ok(Some(row));
        }
        let key = usable_key(&row.owner()).ok_or(RowReject::BadSignature)?;
        let signature = DalekSignature::from_slice(signature).map_err(|_| RowReject::BadSignature)?;
        key.verify_strict(&signed_message(fleet, signed), &signature).map_err(|_| RowReject::BadSignature)?;
        memo.into_iter().for_each(|memo| memo.row_verified(&row));
        Ok(Some(row))
    }

    fn seal(fleet: &FleetId, key: &SigningKey, body: Body) -> Self {
        let mut bytes = codec::encode(&body);
        let Signature(signature) = sign(key, &signed_message(fleet, &bytes));
        bytes.extend_from_slice(&signature);
        Self { hash: *blake3::hash(&bytes).as_bytes(), bytes: bytes.into_boxed_slice(), body }
    }

    /// The bytes that travel.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whose it is.
    #[must_use]
    pub fn owner(&self) -> Author {
        self.body.owner
    }

    /// Its place among its owner's rows.
    #[must_use]
    pub fn head(&self) -> RowHead {
        RowHead { incarnation: self.body.incarnation, version: self.body.row, hash: self.hash }
    }

    /// Its functions, by ascending name.
    #[must_use]
    pub fn functions(&self) -> &[Cell] {
        &self.body.functions
    }

    /// The claims that it renews, ascending.
    #[must_use]
    pub fn claims(&self) -> &[BlockId] {
        &self.body.claims
    }

    /// Whether its owner's machine is busy, with whatever it is.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.body.busy
    }
}

impl Cell {
    fn empty(name: &str) -> Self {
        Self { name: name.to_owned(), queued: 0, unqueued: 0, started: 0, ended: 0, done: 0, failed: 0 }
    }

    /// Counters that were built up by their owner keep these; what does not is no row.
    fn is_sound(&self) -> bool {
        self.unqueued <= self.queued
            && self.ended <= self.started
            && self.done.checked_add(self.failed).is_some()
    }

    /// Invocations accepted and not started; at most [`limits::FIGURE_MAX`] is believed.
    #[must_use]
    pub fn backlog(&self) -> u64 {
        self.queued.saturating_sub(self.unqueued).min(limits::FIGURE_MAX)
    }

    /// Invocations that run; at most [`limits::FIGURE_MAX`] is believed.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.started.saturating_sub(self.ended).min(limits::FIGURE_MAX)
    }
}

fn check_fields(body: &Body) -> Result<(), RowReject> {
    let functions = &body.functions;
    let fits = functions.len() <= limits::ROW_FUNCTIONS_MAX
        && functions.iter().all(|cell| is_function_name(&cell.name) && cell.is_sound())
        && functions.windows(2).all(|pair| pair[0].name < pair[1].name)
        && body.claims.len() <= limits::ROW_CLAIMS_MAX
        && body.claims.windows(2).all(|pair| pair[0] < pair[1]);
    if fits { Ok(()) } else { Err(RowReject::Field) }
}

fn signed_message(fleet: &FleetId, body: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(DOMAIN);
    hasher.update(&fleet.0);
    hasher.update(body);
    *hasher.finalize().as_bytes()
}

/// What this process counted of one function, and what its earlier incarnations had.
#[derive(Clone, Debug)]
struct Own {
    cell: Cell,
    /// What the process said last.
    last: Figures,
}

/// The writer of a member's own row.
#[derive(Debug)]
pub struct RowWriter {
    fleet: FleetId,
    owner: Author,
    incarnation: u64,
    version: u64,
    functions: BTreeMap<String, Own>,
    claims: Vec<BlockId>,
    /// The machine is busy.
    busy: bool,
    /// Something changed since the last row.
    changed: bool,
}

impl RowWriter {
    /// A writer in the first incarnation. Rows of earlier processes are met later, at peers.
    #[must_use]
    pub fn new(fleet: FleetId, owner: Author) -> Self {
        let functions = BTreeMap::new();
        let (claims, busy, changed) = (Vec::new(), false, false);
        Self { fleet, owner, incarnation: 1, version: 0, functions, claims, busy, changed }
    }

    /// What rows renew from now on: these claims, of which at most [`limits::ROW_CLAIMS_MAX`] are taken.
    pub fn renew(&mut self, claims: impl IntoIterator<Item = BlockId>) {
        let mut claims: Vec<_> = claims.into_iter().collect();
        claims.sort_unstable();
        claims.dedup();
        claims.truncate(limits::ROW_CLAIMS_MAX);
        self.changed |= claims != self.claims;
        self.claims = claims;
    }

    /// The claims that rows renew.
    #[must_use]
    pub fn claims(&self) -> &[BlockId] {
        &self.claims
    }

    /// Whether rows say from now on that the machine is busy.
    pub fn set_busy(&mut self, busy: bool) {
        self.changed |= busy != self.busy;
        self.busy = busy;
    }

    /// Takes the figures of this process. Functions that are not named do nothing any more. Functions beyond
    /// [`limits::ROW_FUNCTIONS_MAX`], by name, are not counted.
    pub fn observe<'a>(&mut self, figures: impl IntoIterator<Item = (&'a str, Figures)>) {
        let mut seen: BTreeMap<&str, Figures> = BTreeMap::new();
        for (name, figures) in figures {
            if is_function_name(name) {
                seen.insert(name, figures);
            }
        }
        for (name, own) in &mut self.functions {
            let now = seen.remove(name.as_str()).unwrap_or(Figures { backlog: 0, in_flight: 0, ..own.last });
            self.changed |= own.observe(now);
        }
        for (name, now) in seen {
            if self.functions.len() >= limits::ROW_FUNCTIONS_MAX {
                break;
            }
            let own = self.functions.entry(name.to_owned());
            let own = own.or_insert_with(|| Own { cell: Cell::empty(name), last: Figures::default() });
            own.observe(now);
            self.changed = true;
        }
    }

    /// Goes on above a row of this owner that this writer did not write: its counts of what ended are kept, its
    /// backlog and running invocations ended with the process that had them.
    pub fn continue_above(&mut self, row: &Row) {
        debug_assert_eq!(row.owner(), self.owner, "only its owner goes on above a row");
        if row.body.incarnation < self.incarnation {
            return;
        }
        // The highest incarnation there can be is a hostile copy's: nothing lies above it.
        self.incarnation = row.body.incarnation.saturating_add(1);
        for cell in &row.body.functions {
            if self.functions.len() >= limits::ROW_FUNCTIONS_MAX && !self.functions.contains_key(&cell.name) {
                continue;
            }
            let own = self.functions.entry(cell.name.clone());
            let own = own.or_insert_with(|| Own { cell: Cell::empty(&cell.name), last: Figures::default() });
            own.cell.done = own.cell.done.saturating_add(cell.done);
            own.cell.failed = own.cell.failed.saturating_add(cell.failed);
        }
        self.changed = true;
    }

    /// Whether a row now would say something that the last one did not.
    #[must_use]
    pub fn has_news(&self) -> bool {
        self.changed
    }

    /// Whether anything waits or runs, a claim is renewed, or the machine is busy: then silence would be taken for
    /// absence, and a row is due now and then.
    #[must_use]
    pub fn works(&self) -> bool {
        self.busy
            || !self.claims.is_empty()
            || self.functions.values().any(|own| own.last.backlog + own.last.in_flight > 0)
    }

    /// Signs the next row. Leaves out the last functions by name where all do not fit
    /// [`limits::ROW_BYTES_MAX`].
    pub fn write(&mut self, key: &SigningKey) -> Row {
        self.version += 1;
        self.changed = false;
        let mut functions: Vec<_> = self.functions.values().map(|own| own.cell.clone()).collect();
        loop {
            let body = Body {
                version: VERSION,
                owner: self.owner,
                incarnation: self.incarnation,
                row: self.version,
                functions: functions.clone(),
                claims: self.claims.clone(),
                busy: self.busy,
            };
            let row = Row::seal(&self.fleet, key, body);
            if row.bytes.len() <= limits::ROW_BYTES_MAX {
                return row;
            }
            functions.pop();
        }
    }
}

impl Own {
    /// Turns what changed since the last look into increments. Returns whether anything did.
    fn observe(&mut self, now: Figures) -> bool {
        let last = std::mem::replace(&mut self.last, now);
        let cell = &mut self.cell;
        // A total that is below the last one belongs to a revision that was made anew.
        let grown = |last: u64, now: u64| now.checked_sub(last).unwrap_or(now);
        let (done, failed) = (grown(last.done, now.done), grown(last.failed, now.failed));
        cell.done = cell.done.saturating_add(done);
        cell.failed = cell.failed.saturating_add(failed);
        cell.queued = cell.queued.saturating_add(now.backlog.saturating_sub(last.backlog));
        cell.unqueued = cell.unqueued.saturating_add(last.backlog.saturating_sub(now.backlog));
        cell.started = cell.started.saturating_add(now.in_flight.saturating_sub(last.in_flight));
        cell.ended = cell.ended.saturating_add(last.in_flight.saturating_sub(now.in_flight));
        done + failed > 0 || (now.backlog, now.in_flight) != (last.backlog, last.in_flight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLEET: FleetId = FleetId([7; 32]);

    fn key(n: u8) -> SigningKey {
        SigningKey::from_bytes(&[n; 32])
    }

    fn writer(n: u8) -> RowWriter {
        RowWriter::new(FLEET, Author(key(n).verifying_key().to_bytes()))
    }

    fn figures(backlog: u64, in_flight: u64, done: u64) -> Figures {
        Figures { backlog, in_flight, done, failed: 0 }
    }

    #[test]
    fn a_row_says_what_was_observed_and_survives_the_wire() {
        let mut writer = writer(1);
        writer.observe([("a", figures(5, 2, 0))]);
        writer.observe([("a", figures(1, 3, 4)), ("b", figures(0, 1, 0))]);
        let row = writer.write(&key(1));
        let read = Row::read(&FLEET, row.bytes()).expect("its own bytes");
        assert_eq!(read, row);
        let [a, b] = read.functions() else { panic!("two functions") };
        assert_eq!((a.backlog(), a.in_flight(), a.done), (1, 3, 4));
        assert_eq!((a.queued, a.unqueued), (5, 4));
        assert_eq!((b.backlog(), b.in_flight()), (0, 1));
    }

    #[test]
    fn who_is_busy_says_so_until_it_is_not_and_what_waits_counts_for_all_functions_but_its_own() {
        let (second, now) = (std::time::Duration::from_secs(1), crate::time::Mono(0));
        let mut writers = [1, 2].map(writer);
        let mut table = Counters::new(FLEET);
        let mut said = |writers: &mut [RowWriter; 2], function: &str| {
            for (n, writer) in (1..).zip(writers) {
                table.merge(now, writer.write(&key(n)));
            }
            let busy = table.busy(now, second, function);
            [1, 2].map(|n| busy.contains(&Author(key(n).verifying_key().to_bytes())))
        };
        writers[1].observe([("a", figures(1, 0, 0))]);
        assert!(!writers[0].has_news() && !writers[0].works());
        writers[0].set_busy(true);
        assert!(writers[0].has_news() && writers[0].works());
        assert_eq!(said(&mut writers, "a"), [true, false]);
        assert_eq!(said(&mut writers, "b"), [true, true]);
        writers[0].set_busy(true);
        assert!(!writers[0].has_news(), "it said so");
        writers[0].set_busy(false);
        writers[1].observe([]);
        assert_eq!(said(&mut writers, "b"), [false, false]);
        assert!(!writers[0].works());
    }

    #[test]
    fn who_shares_a_memo_refuses_the_same_bytes_as_who_does_not() {
        let memo = Memo::new(FLEET);
        let mut writer = writer(1);
        writer.observe([("a", figures(5, 2, 0))]);
        let row = writer.write(&key(1));
        let read = |bytes: &[u8], fleet| Row::read_if(fleet, bytes, Some(&memo), |_, _| true);
        for _ in 0..2 {
            assert_eq!(read(row.bytes(), &FLEET), Ok(Some(row.clone())));
        }
        let mut forged = row.bytes().to_vec();
        *forged.last_mut().expect("a signature") ^= 1;
        assert_eq!(read(&forged, &FLEET), Err(RowReject::BadSignature));
        assert_eq!(read(row.bytes(), &FleetId([8; 32])), Err(RowReject::BadSignature));
        assert!(!memo.is_row_verified(&row.owner(), &forged));
    }

    #[test]
    fn what_is_not_named_any_more_does_nothing_and_keeps_its_totals() {
        let mut writer = writer(1);
        writer.observe([("a", figures(5, 2, 9))]);
        writer.observe([]);
        let row = writer.write(&key(1));
        let cell = &row.functions()[0];
        assert_eq!((cell.backlog(), cell.in_flight(), cell.done), (0, 0, 9));
        assert!(!writer.has_news());
        writer.observe([]);
        assert!(!writer.has_news(), "nothing changed");
    }

    #[test]
    fn totals_go_on_when_a_revision_is_made_anew() {
        let mut writer = writer(1);
        writer.observe([("a", figures(0, 0, 10))]);
        writer.observe([("a", figures(0, 0, 3))]);
        assert_eq!(writer.write(&key(1)).functions()[0].done, 13);
    }

    #[test]
    fn a_restart_goes_on_above_what_peers_remember() {
        let mut before = writer(1);
        before.observe([("a", figures(4, 1, 10))]);
        let old = before.write(&key(1));
        let mut after = writer(1);
        after.observe([("a", figures(0, 1, 2))]);
        assert!(after.write(&key(1)).head() < before.write(&key(1)).head());
        after.continue_above(&old);
        let new = after.write(&key(1));
        assert!(new.head() > old.head() && new.head() > before.write(&key(1)).head());
        let cell = &new.functions()[0];
        assert_eq!((cell.backlog(), cell.in_flight(), cell.done), (0, 1, 12));
        after.continue_above(&old);
        assert_eq!(after.write(&key(1)).functions()[0].done, 12, "an older one changes nothing");
    }

    #[test]
    fn claims_are_renewed_by_every_row_until_they_are_not() {
        let mut writer = writer(1);
        let id = |n: u8| BlockId([n; 32]);
        writer.renew([id(3), id(1), id(3)]);
        assert!(writer.has_news() && writer.works());
        let row = writer.write(&key(1));
        assert_eq!(Row::read(&FLEET, row.bytes()).expect("its own bytes").claims(), [id(1), id(3)]);
        writer.renew([id(1), id(3)]);
        assert!(!writer.has_news() && writer.works(), "the same, and due now and then");
        writer.renew([]);
        assert!(writer.has_news() && !writer.works());
        writer.renew((0..99).map(id));
        assert_eq!(writer.write(&key(1)).claims().len(), limits::ROW_CLAIMS_MAX);
    }

    #[test]
    fn each_changed_byte_is_refused() {
        let mut writer = writer(1);
        writer.observe([("a", figures(300, 2, 70_000)), ("b", figures(1, 1, 1))]);
        let row = writer.write(&key(1));
        for at in 0..row.bytes().len() {
            for bit in [1, 0x80] {
                let mut bytes = row.bytes().to_vec();
                bytes[at] ^= bit;
                assert!(Row::read(&FLEET, &bytes).is_err(), "byte {at}");
            }
        }
        assert_eq!(Row::read(&FleetId([8; 32]), row.bytes()), Err(RowReject::BadSignature));
        assert_eq!(Row::read(&FLEET, &[]), Err(RowReject::Malformed));
        let long = vec![0; limits::ROW_BYTES_MAX + 1];
        assert_eq!(Row::read(&FLEET, &long), Err(RowReject::TooLarge(long.len())));
    }

    #[test]
    fn rows_that_no_owner_would_write_are_refused_though_signed() {
        let owner = Author(key(1).verifying_key().to_bytes());
        let cell = |name: &str| Cell { queued: 3, ..Cell::empty(name) };
        let wrong = [
            vec![cell("b"), cell("a")],
            vec![cell("a"), cell("a")],
            vec![cell("Not-A-Name")],
            vec![Cell { unqueued: 4, ..cell("a") }],
            vec![Cell { ended: 1, ..cell("a") }],
            vec![Cell { done: u64::MAX, failed: 1, ..cell("a") }],
        ];
        let id = |n: u8| BlockId([n; 32]);
        let claims = [vec![id(2), id(1)], vec![id(1), id(1)], (0..=16).map(id).collect()];
        let wrong = wrong.into_iter().map(|functions| (functions, Vec::new()));
        let wrong = wrong.chain(claims.into_iter().map(|claims| (vec![cell("a")], claims)));
        for (functions, claims) in wrong {
            let body =
                Body { version: VERSION, owner, incarnation: 1, row: 1, functions, claims, busy: false };
            let row = Row::seal(&FLEET, &key(1), body);
            assert_eq!(Row::read(&FLEET, row.bytes()), Err(RowReject::Field));
        }
    }

    #[test]
    fn functions_that_do_not_fit_are_left_out() {
        let mut writer = writer(1);
        let names: Vec<_> = (0..limits::ROW_FUNCTIONS_MAX + 9)
            .map(|n| format!("f{n:03}-{}", "x".repeat(limits::NAME_CHARS_MAX - 5)))
            .collect();
        writer.observe(names.iter().map(|name| (name.as_str(), figures(u64::MAX / 2, 7, 7))));
        let row = writer.write(&key(1));
        assert!(row.bytes().len() <= limits::ROW_BYTES_MAX);
        assert!(row.functions().len() <= limits::ROW_FUNCTIONS_MAX);
        assert_eq!(Row::read(&FLEET, row.bytes()), Ok(row));
    }
}
