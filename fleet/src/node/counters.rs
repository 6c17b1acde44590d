//! What functions do on all members: rows beside the ledger, by gossip and anti-entropy.
//!
//! ```text
//! observe  → a row, at most one a second → gossip (a hint)
//! A → B    Digest    with each digest of the ledger
//! B → A    Notes     when B's table differs
//! A → B    Rows      what B lacks or has older; and Notes, where A lacks something
//! ```
//!
//! Nothing of it is durable: a row says what its owner's process does now. After a restart the owner meets its
//! last row at a peer and goes on above it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use osiris_ledger::{
    Author, BlockId, FleetId, Mono, Now,
    counter::{Counters, Figures, FunctionTotals, Merge, NodeTotals, Row, RowWriter},
};
use osiris_mesh::{
    PeerId,
    proto::sync::{Frame, RowsFrame},
};
use serde_bytes::ByteBuf;

use super::{Effect, Node};

/// Least time between two rows of this node.
pub const ROW_INTERVAL: Duration = Duration::from_secs(1);
/// While anything waits or runs here, a row is written at least this often, changed or not.
pub const ROW_REFRESH: Duration = Duration::from_secs(5);
/// What a member said longer ago than this is not taken for its present backlog: three rows were lost, or
/// it is gone.
pub const ROW_FRESH: Duration = Duration::from_secs(20);
/// Bytes of rows in one answer.
const ROWS_BYTES_MAX: usize = 1 << 20;

/// The counters of all members as this node knows them.
#[derive(Clone, Debug, Default)]
pub struct FleetCounters {
    /// Each function over the fleet.
    pub totals: BTreeMap<String, FunctionTotals>,
    /// Each function on each node, by name and node.
    pub by_node: Vec<NodeTotals>,
}

#[derive(Debug)]
pub(super) struct Telemetry {
    table: Counters,
    own: RowWriter,
    /// When this node wrote its last row.
    written: Option<Mono>,
    /// Before then no row is written, unless a peer was heard: it may hold one of an earlier process, and a new
    /// one above that would take its place with all that it counted.
    patience: Mono,
    /// Whether a peer said which rows it holds.
    heard: bool,
}

impl Telemetry {
    pub(super) fn new(now: Now, fleet: FleetId, me: Author) -> Self {
        Self {
            table: Counters::new(fleet),
            own: RowWriter::new(fleet, me),
            written: None,
            patience: now.mono.plus(ROW_FRESH),
            heard: false,
        }
    }

    /// When the next row of this node is due.
    pub(super) fn deadline(&self) -> Option<Mono> {
        let pause = match (self.own.has_news(), self.own.works()) {
            (true, _) => ROW_INTERVAL,
            (false, true) => ROW_REFRESH,
            (false, false) => return None,
        };
        let due = self.written.map_or(Mono(0), |written| written.plus(pause));
        Some(if self.heard { due } else { due.max(self.patience) })
    }

    /// What a peer that just connected is asked, until one has answered.
    pub(super) fn question(&self) -> Option<Frame> {
        (!self.heard).then(|| self.notes())
    }

    /// There is no other member to ask.
    pub(super) fn alone(&mut self) {
        self.heard = true;
    }

    /// What rows renew from now on.
    pub(super) fn renew(&mut self, claims: Vec<BlockId>) {
        self.own.renew(claims);
    }

    pub(super) fn digest(&self) -> Frame {
        Frame::Rows(RowsFrame::Digest(ByteBuf::from(self.table.digest().to_vec())))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub(super) fn retain(&mut self, is_member: impl Fn(&Author) -> bool) {
        self.table.retain(is_member);
    }

    /// Each function over the fleet.
    pub(super) fn totals(&self, now: Now) -> BTreeMap<String, FunctionTotals> {
        self.table.totals(now.mono, ROW_FRESH)
    }

    /// Rows say from now on whether this machine is busy.
    pub(super) fn busy_here(&mut self, busy: bool) {
        self.own.set_busy(busy);
    }

    /// Members whose machines are busy, or on which something else waits than invocations of a function.
    pub(super) fn busy(&self, now: Now, function: &str) -> BTreeSet<Author> {
        self.table.busy(now.mono, ROW_FRESH, function)
    }

    /// Members whose machines are busy.
    pub(super) fn busy_machines(&self, now: Now) -> BTreeSet<Author> {
        self.table.busy_machines(now.mono, ROW_FRESH)
    }

    fn notes(&self) -> Frame {
        Frame::Rows(RowsFrame::Notes(self.table.notes()))
    }
}

impl Node {
    /// The process says what its functions do.
    pub(super) fn observe(&mut self, figures: &[(String, Figures)]) {
        self.scale.observed(figures);
        self.telemetry.own.observe(figures.iter().map(|(name, figures)| (name.as_str(), *figures)));
    }

    /// Writes this node's row when it is due.
    pub(super) fn write_row(&mut self, now: Now) {
        let due = self.telemetry.deadline().is_some_and(|due| due <= now.mono);
        if !due || !self.view.is_member(&self.me) {
            return;
        }
        let row = self.writer.sign_row(&mut self.telemetry.own);
        self.ledger.memo().into_iter().for_each(|memo| memo.row_verified(&row));
        self.telemetry.written = Some(now.mono);
        self.leases.renewed(now.mono, row.claims());
        self.effects.push_back(Effect::HintRow(row.bytes().to_vec()));
        self.telemetry.table.merge(now.mono, row);
    }

    /// Gossip brought a row. It does not say who passed it on, so nobody is blamed for a broken one.
    pub(super) fn row_hint(&mut self, now: Now, bytes: &[u8]) {
        let _ = self.take_row(now, bytes);
    }

    /// A member asks about rows, or brings some.
    pub(super) fn rows_frame(&mut self, now: Now, peer: PeerId, frame: RowsFrame) {
        let answers = match frame {
            RowsFrame::Digest(theirs) if theirs.as_slice() == self.telemetry.table.digest() => Vec::new(),
            RowsFrame::Digest(_) => vec![self.telemetry.notes()],
            RowsFrame::Notes(notes) => {
                let (rows, wants) = self.telemetry.table.compare(&notes, ROWS_BYTES_MAX);
                let rows: Vec<_> = rows.iter().map(|row| ByteBuf::from(row.bytes().to_vec())).collect();
                // Also where there are none: a peer that has just started waits to hear so.
                let mut answers = vec![Frame::Rows(RowsFrame::Rows(rows))];
                // Only who lacks something asks back, and then the peer lacks nothing of these: it ends.
                if wants {
                    answers.push(self.telemetry.notes());
                }
                answers
            }
            RowsFrame::Rows(rows) => {
                // What a member hands on it has checked itself.
                let broken = rows.iter().filter(|row| self.take_row(now, row).is_err()).count();
                (0..broken).for_each(|_| self.malformed(peer));
                self.telemetry.heard = true;
                self.write_row(now);
                Vec::new()
            }
        };
        for frame in answers {
            self.send(peer, &frame);
        }
    }

    fn take_row(&mut self, now: Now, bytes: &[u8]) -> Result<(), osiris_ledger::counter::RowReject> {
        let (view, table) = (&self.view, &self.telemetry.table);
        let wanted = |owner: &Author, head: &_| view.is_member(owner) && table.is_news(owner, head);
        let Some(row) = Row::read_if(&table.fleet(), bytes, self.ledger.memo(), wanted)? else {
            return Ok(());
        };
        if row.owner() == self.me {
            // An earlier process of this device wrote it, or another copy of it does. The next row keeps to its
            // interval: two copies must not drive each other.
            self.telemetry.own.continue_above(&row);
        }
        let (owner, claims) = (row.owner(), row.claims().to_vec());
        if self.telemetry.table.merge(now.mono, row) == Merge::Newer {
            self.leases.heard(now.mono, &owner, &claims);
            self.write_row(now);
        }
        Ok(())
    }

    /// What is known of functions on all members.
    pub(super) fn counters(&self, now: Now) -> FleetCounters {
        let table = &self.telemetry.table;
        FleetCounters { totals: table.totals(now.mono, ROW_FRESH), by_node: table.by_node(now.mono) }
    }
}

#[cfg(test)]
mod tests {
    use osiris_ledger::{
        Ledger, Payload, Roles, WallMs, join_proof,
        op::{Admitted, Invited},
    };

    use super::*;
    use crate::node::{
        Input, Query, Reply, Request,
        sample::{author, founded, key, play, replica},
    };

    fn at(ms: u64) -> Now {
        Now { mono: Mono(ms), wall: WallMs(0) }
    }

    /// A founder and a second member.
    fn ledger() -> Ledger {
        let (mut founder, mut ledger) = founded(at(0));
        let invited =
            Invited { key: author(50), uses: 1, roles: Roles::NODE, device: None, note: String::new() };
        let invitation = founder.append(&mut ledger, at(0), Payload::Invited(invited)).expect("allowed").id();
        let device = author(2);
        let proof = join_proof(&key(50), &ledger.fleet(), &invitation, &device);
        let admitted = Admitted { invitation, device, proof, label: "two".to_owned() };
        founder.append(&mut ledger, at(0), Payload::Admitted(admitted)).expect("allowed");
        ledger
    }

    fn connected(nodes: &mut [Node; 2], now: Now) {
        let up = [2, 1].map(|device| vec![Input::PeerUp(PeerId::from_bytes(author(device).0))]);
        play(now, nodes, up);
    }

    fn observed(backlog: u64, done: u64) -> Input {
        let figures = Figures { backlog, in_flight: 1, done, failed: 0 };
        Input::Observed(vec![("f".to_owned(), figures)])
    }

    fn ticks(nodes: &mut [Node; 2], from: u64, to: u64) {
        for ms in (from..to).step_by(500) {
            play(at(ms), nodes, [vec![Input::Tick], vec![Input::Tick]]);
        }
    }

    fn total(node: &mut Node, now: Now) -> FunctionTotals {
        node.handle(now, Input::Request(1, Request::Query(Query::Counters)));
        let mut total = FunctionTotals::default();
        while let Some(effect) = node.poll_effect() {
            if let Effect::Reply(_, Ok(Reply::Counters(counters))) = effect {
                total = counters.totals.get("f").cloned().unwrap_or_default();
            }
        }
        total
    }

    #[test]
    fn without_gossip_all_members_learn_what_waits_and_a_restart_keeps_what_ended() {
        let ledger = ledger();
        let mut nodes = [replica(at(0), &ledger, 1, 2), replica(at(0), &ledger, 2, 3)];
        connected(&mut nodes, at(0));
        play(at(100), &mut nodes, [vec![observed(7, 10)], vec![observed(2, 5)]]);
        ticks(&mut nodes, 500, 6_500);
        for node in &mut nodes {
            let total = total(node, at(6_500));
            assert_eq!((total.backlog, total.done, total.nodes, total.silent), (9, 15, 2, 0));
        }
        // The second starts anew: nothing waits there, and what had ended is met at the first.
        nodes[1] = replica(at(6_600), &ledger, 2, 4);
        connected(&mut nodes, at(6_600));
        play(at(6_700), &mut nodes, [vec![], vec![observed(0, 1)]]);
        ticks(&mut nodes, 7_000, 16_000);
        for node in &mut nodes {
            let total = total(node, at(16_000));
            assert_eq!((total.backlog, total.done), (7, 16));
        }
    }

    #[test]
    fn who_is_gone_is_silent_and_who_left_is_forgotten() {
        let ledger = ledger();
        let mut nodes = [replica(at(0), &ledger, 1, 2), replica(at(0), &ledger, 2, 3)];
        connected(&mut nodes, at(0));
        play(at(100), &mut nodes, [vec![], vec![observed(2, 5)]]);
        ticks(&mut nodes, 500, 6_500);
        let gone = PeerId::from_bytes(author(2).0);
        nodes[0].handle(at(7_000), Input::PeerDown(gone));
        while nodes[0].poll_effect().is_some() {}
        let later = at(7_000 + ROW_FRESH.as_millis() as u64);
        let after = total(&mut nodes[0], later);
        assert_eq!((after.backlog, after.silent, after.done), (0, 1, 5));
        let revoke = Request::Revoke { device: author(2), discard: false, timeout_ms: 0 };
        nodes[0].handle(later, Input::Request(2, revoke));
        while nodes[0].poll_effect().is_some() {}
        assert_eq!(total(&mut nodes[0], later), FunctionTotals::default());
    }

    #[test]
    fn a_row_of_a_stranger_or_a_broken_one_changes_nothing_and_who_hands_it_on_is_counted() {
        let ledger = ledger();
        let mut node = replica(at(0), &ledger, 1, 2);
        let peer = PeerId::from_bytes(author(2).0);
        let row = |device: u8| {
            let mut rows = RowWriter::new(ledger.fleet(), author(device));
            rows.observe([("f", Figures { backlog: 3, ..Figures::default() })]);
            rows.write(&key(device)).bytes().to_vec()
        };
        let mut broken = row(2);
        *broken.last_mut().expect("bytes") ^= 1;
        node.handle(at(0), Input::PeerUp(peer));
        while node.poll_effect().is_some() {}
        for bytes in [row(9), broken] {
            let frame = Frame::Rows(RowsFrame::Rows(vec![ByteBuf::from(bytes.clone())]));
            for input in [Input::Frame(peer, frame.encode()), Input::RowHint(bytes)] {
                node.handle(at(1), input);
                while node.poll_effect().is_some() {}
            }
        }
        assert_eq!(total(&mut node, at(2)), FunctionTotals::default());
        assert_eq!(node.sync.rejected(&peer), 1, "the broken one, by its bearer");
        node.handle(at(3), Input::RowHint(row(2)));
        while node.poll_effect().is_some() {}
        assert_eq!(total(&mut node, at(4)).backlog, 3);
    }
}
