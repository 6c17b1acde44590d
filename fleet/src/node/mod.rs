//! The node's core: everything as values. It decides; the driver performs.
//!
//! ```text
//! handle(now, input) → effects, in order; what follows a Persist waits until it is durable
//! ```
//!
//! **Architecture invariants.** No clock, no IO, no randomness but the seed it was given, no map
//! whose order is not defined: the same inputs give the same effects, to the bit.

mod apart;
mod candidates;
mod confirmed;
mod counters;
mod drain;
mod ending;
mod failure;
mod functions;
mod idle;
pub mod lease;
mod log;
mod members;
mod message;
mod outbox;
mod pages;
#[cfg(test)]
mod pages_tests;
mod request;
mod roster;
#[cfg(test)]
mod sample;
pub mod scale;
mod twin;
mod users;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use osiris_ledger::{Author, Block, BlockId, Ledger, Mono, Now, Payload, View, Writer};
use osiris_mesh::{
    PeerId,
    limits::FULL_MESH_MEMBERS_MAX,
    proto::sync::{Frame, Outcome, RECEIPTS_MAX, Sync},
};

use apart::Apart;
pub use apart::{APART_MAX, APART_PATIENCE};
pub use candidates::Orders;
use counters::Telemetry;
pub use counters::{FleetCounters, ROW_FRESH, ROW_INTERVAL, ROW_REFRESH};
use drain::Drain;
pub use drain::HAND_OVER_WITHIN;
pub use ending::{ASK_AGAIN_AFTER, Ended, JOIN_AGAIN_AFTER};
use functions::Functions;
use idle::Idle;
pub use idle::{
    CHECK_AFTER, CHECK_SLICE, DOCUMENT_SLICE, LAG_MAX, QUIET, REBUILD_IDLE_INTERVAL, REBUILD_INTERVAL,
    SLICE_PAUSE,
};
use lease::Leases;
pub use message::{
    Effect, Facts, Held, Input, LogQuery, Logged, Query, Recorded, Refusal, Reply, Request, RoleChange,
    Token, UserDevices,
};
pub use outbox::{Group, Outbox, Step};
use pages::Pages;
pub use pages::{LOOK_EVERY, LOOK_LATEST, PageRules, Retain};
use request::Waiting;
pub use roster::{is_in_roster, is_node, kept, named_by_tickets, roster};
use scale::Scale;
pub use twin::AHEAD_MAX;
use twin::Twin;

/// How long a member that was connected may be gone before its replicas are taken over.
pub const TAKE_OVER_AFTER: Duration = Duration::from_secs(4);

/// What a core is made with.
#[derive(Debug)]
pub struct Config {
    /// Whether this process runs functions. One that only makes contact does not.
    pub serves: bool,
    /// Spreads periods of different nodes.
    pub seed: u64,
    /// What [`Node::confirmed`] gave when it was last kept. Empty: nothing is known to be confirmed.
    pub confirmed: Vec<BlockId>,
    /// Whether it brings the automerge document up to date, and checks the signatures of replayed blocks, when
    /// nobody waits for the core. Without, the document follows when its heads are asked for.
    pub idle_work: bool,
    /// What it does about pages of summaries.
    pub pages: PageRules,
}

/// One node's core.
#[derive(Debug)]
pub struct Node {
    me: Author,
    serves: bool,
    ledger: Ledger,
    writer: Writer,
    sync: Sync,
    view: Arc<View>,
    /// Active members other than this device.
    others: u64,
    effects: VecDeque<Effect>,
    functions: Functions,
    waiting: Vec<Waiting>,
    /// Own blocks that no other member confirmed.
    unseen: BTreeSet<BlockId>,
    /// Own blocks that others brought: this replica had lost them, or another copy of it writes.
    returned: u64,
    /// When a member's connection was lost, or this node started without one.
    gone_since: BTreeMap<PeerId, Mono>,
    /// Whether that changed since it was last asked for.
    lost_changed: bool,
    /// When a member that turned this device away was last asked why.
    asked_ending: Option<Mono>,
    /// Since when members turn this device away that do not know it.
    unknown_to: BTreeMap<PeerId, Mono>,
    draining: Option<Drain>,
    read_only: Option<String>,
    twin: Twin,
    telemetry: Telemetry,
    leases: Leases,
    scale: Scale,
    idle: Idle,
    seed: u64,
    pages: Pages,
    /// A replica from pages that nothing relies on yet.
    apart: Option<Box<Apart>>,
    /// Peers that named pages in vain, and until when nothing that they say of pages is heard.
    distrusted: BTreeMap<PeerId, Mono>,
    /// Whether the driver has told what it holds.
    started: bool,
}

impl Node {
    /// A core over a replayed ledger. Blobs that are already held are told by inputs.
    #[must_use]
    pub fn new(now: Now, config: &Config, mut ledger: Ledger, writer: Writer) -> Self {
        let me = writer.author();
        let view = ledger.publish();
        let telemetry = Telemetry::new(now, ledger.fleet(), me);
        let unseen = confirmed::unseen(&ledger, me, &config.confirmed);
        // A small fleet is connected in full, so a member that never connects is gone. In a larger one
        // most members are never neighbours.
        let members = view.members().values().filter(|member| member.active && member.device != me);
        let mut gone_since: BTreeMap<_, _> =
            members.map(|member| (PeerId::from_bytes(member.device.0), now.mono)).collect();
        if gone_since.len() >= FULL_MESH_MEMBERS_MAX {
            gone_since.clear();
        }
        let idle = Idle::new(config.idle_work, now, &ledger);
        Self {
            me,
            others: others(&view, &me),
            serves: config.serves,
            ledger,
            writer,
            sync: Sync::new(config.seed),
            view,
            effects: VecDeque::new(),
            functions: Functions::default(),
            waiting: Vec::new(),
            unseen,
            returned: 0,
            gone_since,
            lost_changed: true,
            asked_ending: None,
            unknown_to: BTreeMap::new(),
            draining: None,
            read_only: None,
            twin: Twin::new(now),
            telemetry,
            leases: Leases::new(),
            scale: Scale::default(),
            idle,
            seed: config.seed,
            pages: Pages::new(config.pages, now),
            apart: None,
            distrusted: BTreeMap::new(),
            started: false,
        }
    }

    /// Lets this core keep the orders of members, in which they serve revisions, together with others of its process.
    pub fn share_orders(&mut self, orders: Orders) {
        self.functions.candidates.share(orders);
    }

    /// This device.
    #[must_use]
    pub fn device(&self) -> Author {
        self.me
    }

    /// The published view.
    #[must_use]
    pub fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// The ledger, for readers that are given the core.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Whether [`Node::lost`] says something else than when this was last asked.
    pub fn lost_changed(&mut self) -> bool {
        std::mem::take(&mut self.lost_changed)
    }

    /// Peers whose connection was lost and is not back, or that are looked for, the last one in front.
    #[must_use]
    pub fn lost(&self) -> Vec<PeerId> {
        let mut lost: Vec<_> = self.gone_since.iter().collect();
        lost.sort_unstable_by_key(|(peer, since)| (std::cmp::Reverse(**since), **peer));
        lost.into_iter().map(|(peer, _)| *peer).collect()
    }

    /// Whether another member held exactly the same blocks at some moment since the start.
    #[must_use]
    pub fn has_agreed(&self) -> bool {
        self.twin.has_agreed()
    }

    /// Whether there is a second process with this device's key ([`AHEAD_MAX`] and its module say how that is known).
    #[must_use]
    pub fn has_twin(&self) -> bool {
        self.twin.problem().is_some()
    }

    /// Handles one input. Drain [`Node::poll_effect`] before the next.
    ///
    /// # Panics
    /// If effects of the last input are left: they would be performed out of order.
    pub fn handle(&mut self, now: Now, input: Input) {
        assert!(self.effects.is_empty(), "effects are drained before the next input");
        // By its clock a machine that slept was not away, and a claim may be ripe: it hears that it slept first.
        if !matches!(input, Input::Suspended) {
            self.look_after_leases(now);
        }
        match input {
            Input::Start => {
                self.started = true;
                self.warn_ended();
            }
            Input::PeerUp(peer) => {
                self.lost_changed |= self.gone_since.remove(&peer).is_some();
                self.unknown_to.remove(&peer);
                self.functions.peer_up();
                let frame = self.sync.peer_up(now, peer, &mut self.ledger);
                self.send(peer, &frame);
                if self.is_spawner(&peer) {
                    self.leases.peer_up(now.mono, peer);
                }
                self.tell_states(peer);
                if let Some(question) = self.telemetry.question() {
                    self.send(peer, &question);
                }
            }
            Input::PeerDown(peer) => {
                self.sync.peer_down(&peer);
                self.apart.take_if(|apart| apart.is_with(&peer));
                self.leases.peer_down(&peer);
                if !self.view.was_member(&Author(peer.to_bytes())) {
                    self.gone_since.insert(peer, now.mono);
                    self.lost_changed = true;
                }
            }
            Input::Frame(peer, bytes) => {
                // A frame that does not parse is the peer's fault; the next digest repairs it.
                match Frame::decode(&bytes) {
                    Ok(Frame::Rows(frame)) if self.sync.may_ask(now, &peer) => {
                        self.rows_frame(now, peer, frame)
                    }
                    Ok(Frame::Rows(_)) => {}
                    Ok(Frame::States(frame)) => {
                        if self.sync.may_ask(now, &peer) {
                            self.states_frame(peer, frame);
                        }
                    }
                    Ok(Frame::Pages(pages)) => {
                        if self.sync.may_ask(now, &peer) {
                            self.pages_named(now, peer, pages);
                        }
                    }
                    Ok(frame) if self.is_apart_with(&peer, &frame) => self.apart_frame(now, peer, frame),
                    Ok(frame) => {
                        let outcome = self.sync.handle(now, peer, frame, &mut self.ledger);
                        self.synced(now, peer, outcome);
                    }
                    Err(_) => self.malformed(peer),
                }
            }
            Input::Malformed(peer) => self.malformed(peer),
            Input::TurnedAway(peer) => self.turned_away(now, peer),
            Input::Ending(peer, bytes) => self.ending_told(now, peer, &bytes),
            Input::NoEnding(peer) => self.join_again(now, peer),
            Input::Hint(bytes) => {
                let admitted = self.sync.hint(now, &bytes, &mut self.ledger);
                self.admitted(now, &admitted);
            }
            Input::RowHint(bytes) => self.row_hint(now, &bytes),
            Input::Observed(figures) => self.observe(&figures),
            Input::Want(want) => self.want(now, want),
            Input::Machine(load) => {
                self.scale.machine(load);
                self.telemetry.busy_here(self.scale.is_busy());
            }
            Input::Called(name) => self.scale.wanted(&name),
            Input::StatesKept(records) => self.states_kept(&records),
            Input::StateSealed(record) => self.take_state(record, None),
            Input::Provisioned(intent, made) => self.provisioned(now, intent, made),
            Input::Removed(intent, gone) => self.removed(now, intent, gone),
            Input::Machines(seen) => self.machines_seen(now, seen),
            Input::Stopping => self.stopping(now),
            Input::Suspended => self.suspended(now),
            Input::Twin(peer) => {
                let member = Author(peer.to_bytes());
                let label = self.view.members().get(&member).map(|member| member.label.clone());
                let warning = self.twin.said_by(&label.unwrap_or_else(|| member.short()));
                self.effects.extend(warning.map(Effect::Warn));
            }
            Input::HintsLagged => self.sync.hurry(now),
            Input::Tick => {}
            Input::Request(token, request) => self.request(now, token, request),
            Input::StoreFailed(why, lost) => self.store_failed(&why, lost),
            Input::BlobHeld(hash) => {
                self.functions.blob_held(hash);
                self.page_held(hash);
            }
            Input::Page(hash, page) => self.page_read(now, hash, page),
            Input::BlobGone(hash) => self.functions.blob_gone(&hash),
            Input::Manifest(hash, manifest) => self.functions.manifest_read(hash, manifest),
            Input::FetchFailed(hash, why) => {
                if !self.page_failed(now, hash) {
                    self.functions.fetch_failed(now, hash, why);
                }
            }
            Input::Prepared(revision, concurrency) => self.prepared(revision, concurrency),
            Input::PrepareFailed(revision, why) => self.functions.prepare_failed(revision, why),
        }
        self.look_after_leases(now);
        self.look_after_machines(now);
        self.tick(now);
        self.look_at_scale(now);
        self.reconcile(now);
        self.look_at_drain(now);
        self.answer_waiting(now);
        self.look_at_apart(now);
        self.look_at_pages(now);
        let warning = self.idle.work(now, &mut self.ledger);
        self.effects.extend(warning.map(Effect::Warn));
    }

    /// The next effect, in order.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Input::Tick`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        let waiting = self.waiting.iter().map(|waiting| waiting.until).min();
        let rows = self.telemetry.deadline().filter(|_| self.view.is_member(&self.me));
        let apart = self.apart.as_ref().map(|apart| apart.deadline());
        let pages = [self.pages.deadline(), apart];
        let due = [self.sync.deadline(), waiting, self.idle.deadline(), rows, self.leases.deadline()];
        let due = due.into_iter().chain(pages);
        let mut earliest = due.flatten().min();
        // What never looks at its functions has nothing to do when one of theirs is due.
        if self.looks_after_functions() {
            let take_over = self.gone_since.values().map(|since| since.plus(TAKE_OVER_AFTER));
            let last_look = self.functions.last_look();
            let take_over = take_over.filter(|at| last_look.is_none_or(|last| *at > last)).min();
            let scale = self.scale.deadline();
            let drain = self.draining.as_ref().and_then(Drain::deadline);
            let due = [earliest, take_over, self.functions.deadline(), scale, drain];
            earliest = due.into_iter().flatten().min();
        }
        earliest
    }

    fn malformed(&mut self, peer: PeerId) {
        // Applications' devices may call, and are not members: nobody is told of them by name.
        if self.view.members().contains_key(&Author(peer.to_bytes())) {
            self.sync.malformed(peer);
        }
    }

    fn tick(&mut self, now: Now) {
        if self.others == 0 {
            self.telemetry.alone();
        }
        self.write_row(now);
        let due = self.sync.due(now, &mut self.ledger);
        let rows = (!due.is_empty() && !self.telemetry.is_empty()).then(|| self.telemetry.digest());
        for (peer, frame) in due {
            self.send(peer, &frame);
            if let Some(rows) = &rows {
                self.send(peer, rows);
            }
            self.tell_states_again(peer);
        }
    }

    fn synced(&mut self, now: Now, peer: PeerId, outcome: Outcome) {
        let Outcome { admitted, answers, confirmed, agrees, rejects: _ } = outcome;
        self.admitted(now, &admitted);
        for frame in &answers {
            self.send(peer, frame);
        }
        let counts = !self.view.was_member(&Author(peer.to_bytes()));
        if agrees && counts {
            self.twin.agreed();
            self.leases.confirmed(now.mono, peer, None);
            self.unseen.clear();
            for waiting in &mut self.waiting {
                waiting.seen_by.insert(peer);
            }
        }
        let confirmed = if counts { confirmed } else { Vec::new() };
        self.leases.confirmed(now.mono, peer, Some(&confirmed));
        for id in confirmed {
            self.unseen.remove(&id);
            for waiting in self.waiting.iter_mut().filter(|waiting| waiting.block == Some(id)) {
                waiting.seen_by.insert(peer);
            }
        }
        if !admitted.is_empty() {
            // With them this replica may hold just what a peer last said it holds.
            if self.agreeing() > 0 {
                self.unseen.clear();
            }
            // What this peer brought may be news to the others.
            self.sync.nudge(now);
        }
    }

    /// Connected peers that are known to hold just what this node holds, save those that are members no more.
    fn agreeing(&mut self) -> usize {
        let view = Arc::clone(&self.view);
        self.sync.agreeing(&mut self.ledger, |peer| !view.was_member(&Author(peer.to_bytes())))
    }

    /// Blocks of others came in: make them durable, publish, and tell their authors.
    fn admitted(&mut self, now: Now, blocks: &[Arc<Block>]) {
        if blocks.is_empty() {
            return;
        }
        self.effects.push_back(Effect::Persist(blocks.to_vec()));
        self.came_in(now, blocks);
    }

    /// Blocks of others are on their way to the disk.
    fn came_in(&mut self, now: Now, blocks: &[Arc<Block>]) {
        self.idle.blocks_came(now);
        self.pages.blocks_came(now);
        self.returned += blocks.iter().filter(|block| block.author() == self.me).count() as u64;
        let own = self.writer.chain();
        for block in blocks {
            let warning = self.twin.block_came(now, &self.ledger, &own, block);
            self.effects.extend(warning.map(Effect::Warn));
        }
        // Receipts first: who has just left the fleet is told so before its connection is closed.
        self.send_receipts(blocks);
        self.publish();
    }

    /// Tells connected authors that their blocks are here. Who is behind many learns it from a digest, as after a
    /// catch-up; counted for each author, so that a flood by one keeps nobody else waiting.
    fn send_receipts(&mut self, blocks: &[Arc<Block>]) {
        let mut receipts: BTreeMap<PeerId, Vec<BlockId>> = BTreeMap::new();
        let connected: BTreeSet<_> = self.sync.peers().copied().collect();
        for block in blocks {
            let author = PeerId::from_bytes(block.author().0);
            if connected.contains(&author) {
                receipts.entry(author).or_default().push(block.id());
            }
        }
        for (author, ids) in receipts.into_iter().filter(|(_, ids)| ids.len() <= RECEIPTS_MAX) {
            self.send(author, &Frame::Receipt(ids));
        }
    }

    /// Appends an own block: durable first, then hinted to the fleet.
    fn append(&mut self, now: Now, payload: Payload) -> Result<Arc<Block>, Refusal> {
        if let Some(why) = &self.read_only {
            return Err(Refusal::storage(why));
        }
        let appended = self.writer.append(&mut self.ledger, now, payload);
        let block = appended.map_err(|error| self.refused(error))?;
        self.effects.push_back(Effect::Persist(vec![Arc::clone(&block)]));
        self.effects.push_back(Effect::Hint(block.entry().to_vec()));
        self.idle.blocks_came(now);
        self.unseen.insert(block.id());
        self.publish();
        self.sync.nudge(now);
        Ok(block)
    }

    fn publish(&mut self) {
        let view = self.ledger.publish();
        if !Arc::ptr_eq(view.shared_members(), self.view.shared_members()) {
            self.others = others(&view, &self.me);
            self.telemetry.retain(|owner| view.is_member(owner));
            // Nobody waits for them, and a fleet that makes machines has ever more of them.
            self.gone_since.retain(|peer, _| !view.was_member(&Author(peer.to_bytes())));
        }
        self.view = view;
        self.effects.push_back(Effect::Published(Arc::clone(&self.view)));
    }

    fn send(&mut self, peer: PeerId, frame: &Frame) {
        // Nobody is to count on what a device holds that is no member any more.
        let frame = match self.read_only.is_some() || self.view.was_member(&self.me) {
            false => frame.encode(),
            true => match self.without_promises(frame) {
                Some(frame) => frame.encode(),
                None => return,
            },
        };
        self.effects.push_back(Effect::Send(peer, frame));
    }

    /// Whether a member is taken to be reachable: this device, a connected one, or, in a fleet too
    /// large to be connected in full, one whose connection this node never had.
    fn is_alive(&self, now: Now, member: &Author) -> bool {
        let since = self.gone_since.get(&PeerId::from_bytes(member.0));
        *member == self.me || since.is_none_or(|since| now.mono < since.plus(TAKE_OVER_AFTER))
    }

    /// Everyone for whom [`Node::is_alive`] does not hold.
    fn gone(&self, now: Now) -> impl Iterator<Item = Author> {
        let known = self.gone_since.keys().map(|peer| Author(peer.to_bytes()));
        known.filter(move |member| !self.is_alive(now, member))
    }
}

fn others(view: &View, me: &Author) -> u64 {
    view.members().values().filter(|member| member.active && member.device != *me).count() as u64
}

impl Node {
    /// What is held in memory that peers can make grow.
    #[must_use]
    pub fn held(&self) -> Held {
        let (signatures_unchecked, signatures_wrong) = self.idle.signatures();
        Held {
            signatures_unchecked,
            signatures_wrong,
            early: self.ledger.early().0 as u64,
            early_bytes: self.ledger.early_bytes() as u64,
            unseen: self.unseen.len() as u64,
            document_pending: self.ledger.document_pending() as u64,
            document_rebuilds: self.ledger.document_rebuilds().1,
        }
    }

    /// Heads of the automerge document, with every admitted block applied.
    pub fn document_heads(&mut self) -> Vec<[u8; 32]> {
        self.ledger.document_heads()
    }

    /// The digest of the ledger's tips.
    pub fn digest(&mut self) -> [u8; 32] {
        self.ledger.digest()
    }
}
