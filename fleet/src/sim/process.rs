//! One run of a node: the core, with its effects performed in the order of the real engine.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use osiris_ledger::{Author, BlockId, Ledger, Member, Mono, Now, Session, SigningKey, WallMs, Writer};
use osiris_mesh::{PeerId, proto::backoff::Backoff};

use crate::{
    node::{
        Config, Effect, Group, Input, Node, Orders, Outbox, PageRules, Request, Step, Token,
        lease::{LeaseFacts, Provisioning},
    },
    policy::Terms,
};

use super::{leases::TARGET, queue::NodeId, still::Still, workload::Asked};

/// What became of an input.
#[derive(Debug)]
pub(super) enum Done {
    /// Blocks go to the disk.
    Write(Group),
    /// An effect is performed.
    Perform(Effect),
}

/// What this process's mesh knows of a peer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Dialing {
    pub(super) backoff: Backoff,
    pub(super) under_way: bool,
}

/// A running process.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) run: u32,
    pub(super) node: Node,
    pub(super) outbox: Outbox,
    /// Whether it runs functions, as `osiris up` does and `osiris join` does not.
    pub(super) serves: bool,
    pub(super) session: Session,
    started: u64,
    /// Groups that the disk has not made durable, and whether it is at work.
    pub(super) unsynced: Vec<Group>,
    pub(super) syncing: bool,
    pub(super) last_group: u64,
    /// When the core is called for its deadline.
    pub(super) tick_at: Option<u64>,
    /// Ticks at one moment; without end they are a fault of the core.
    pub(super) ticks_in_a_row: u32,
    pub(super) asked: BTreeMap<Token, Asked>,
    next_token: Token,
    pub(super) dialing: BTreeMap<NodeId, Dialing>,
    /// Peers that this process was told of and that its view may not know.
    pub(super) told: BTreeSet<PeerId>,
    /// Whom the mesh wants to be connected to.
    pub(super) chosen: Vec<NodeId>,
    /// Whether it chooses them anew when it looks next.
    pub(super) chooses: bool,
    /// Who made machines, where this process is a spawner.
    pub(super) makers: BTreeSet<Author>,
    /// The members of the view that was looked at last.
    pub(super) members: Arc<BTreeMap<Author, Member>>,
    /// How many active members the mesh was last told of, and a sum over their keys.
    pub(super) roster: (usize, u64),
    /// When the mesh looks next.
    pub(super) keep_at: Option<u64>,
    /// Whether it had claims after its last input, where that is looked at.
    pub(super) has_claims: bool,
    /// While it stands still.
    pub(super) still: Option<Still>,
}

/// What a process is started with.
pub(super) struct Start {
    pub(super) run: u32,
    pub(super) key: SigningKey,
    pub(super) session: Session,
    pub(super) seed: u64,
    pub(super) serves: bool,
    pub(super) confirmed: Vec<BlockId>,
    /// Whether its document follows; only of those that are compared.
    pub(super) idle_work: bool,
    pub(super) pages: PageRules,
    pub(super) ledger: Ledger,
    pub(super) told: BTreeSet<PeerId>,
    /// Machines that the fleet may have for this one to make one; none: it makes none.
    pub(super) machines: Option<u32>,
    pub(super) terms: Terms,
    /// What nodes share beside their ledgers' memo, where they share that.
    pub(super) orders: Option<Orders>,
}

/// Nobody looks for secrets in a simulation.
fn seed_bytes(seed: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes
}

impl Running {
    pub(super) fn new(start: Start, now: u64, wall: u64) -> Self {
        let Start {
            run,
            key,
            session,
            seed,
            serves,
            confirmed,
            idle_work,
            pages,
            ledger,
            told,
            machines,
            terms,
            orders,
        } = start;
        let writer = Writer::new(key, session);
        let clock = Now { mono: Mono(0), wall: WallMs(wall) };
        let config = Config { serves, seed, confirmed, idle_work, pages };
        let mut node = Node::new(clock, &config, ledger, writer);
        node.set_terms(terms);
        orders.into_iter().for_each(|orders| node.share_orders(orders));
        if let Some(machines) = machines {
            node.allow_machines(machines);
            let with = Provisioning {
                target: TARGET.to_owned(),
                shared: true,
                by_state: false,
                secret: seed_bytes(seed),
            };
            node.provision(Some(with));
        }
        Self {
            run,
            node,
            outbox: Outbox::default(),
            serves,
            session,
            started: now,
            unsynced: Vec::new(),
            syncing: false,
            last_group: 0,
            tick_at: None,
            ticks_in_a_row: 0,
            asked: BTreeMap::new(),
            next_token: 0,
            dialing: BTreeMap::new(),
            told,
            chosen: Vec::new(),
            chooses: false,
            makers: BTreeSet::new(),
            members: Arc::default(),
            roster: (0, 0),
            keep_at: None,
            has_claims: false,
            still: None,
        }
    }

    /// This process's clocks. Its monotonic one starts with it.
    fn clock(&self, now: u64, wall: u64) -> Now {
        Now { mono: Mono(now - self.started), wall: WallMs(wall) }
    }

    /// The machine slept: this process's monotonic clock did not move.
    pub(super) fn slept(&mut self, ms: u64) {
        self.started += ms;
    }

    /// Leases as this process's core has them.
    pub(super) fn lease_facts(&self, now: u64, wall: u64) -> LeaseFacts {
        self.node.lease_facts(self.clock(now, wall))
    }

    /// The core's deadline in virtual time.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.node.deadline().map(|deadline| deadline.0.saturating_add(self.started))
    }

    /// Hands the core an input and drains it.
    pub(super) fn handle(&mut self, now: u64, wall: u64, input: Input) -> Vec<Done> {
        let clock = self.clock(now, wall);
        self.node.handle(clock, input);
        let mut done = Vec::new();
        while let Some(effect) = self.node.poll_effect() {
            match self.outbox.push(effect) {
                Some(Step::Write(group)) => done.push(Done::Write(group)),
                Some(Step::Perform(effect)) => done.push(Done::Perform(effect)),
                None => {}
            }
        }
        done
    }

    /// Asks the core something.
    pub(super) fn ask(&mut self, now: u64, wall: u64, asked: Asked, request: Request) -> Vec<Done> {
        self.next_token += 1;
        self.asked.insert(self.next_token, asked);
        self.handle(now, wall, Input::Request(self.next_token, request))
    }

    /// What this process wrote and still shows.
    pub(super) fn own_blocks(&self) -> impl Iterator<Item = BlockId> + '_ {
        let own = self.node.ledger().blocks_by(self.node.device());
        own.filter(|block| block.chain().session == self.session).map(|block| block.id())
    }

    /// The disk failed: what waited for it is refused, and the core is told.
    pub(super) fn disk_failed(&mut self, now: u64, wall: u64, why: &str) -> Vec<Done> {
        let left = self.outbox.fail(why);
        let mut done: Vec<_> = left.into_iter().map(Done::Perform).collect();
        let lost = self.outbox.core_told();
        done.extend(self.handle(now, wall, Input::StoreFailed(why.to_owned(), lost)));
        done
    }

    /// The disk made everything up to a group durable.
    pub(super) fn durable(&mut self, group: u64) -> Vec<Done> {
        self.outbox.durable(group).into_iter().map(Done::Perform).collect()
    }
}
