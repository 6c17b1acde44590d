//! The simulated fleet: nodes, their network, disks and clocks, and the loop that moves them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use osiris_ledger::{Author, BlobHash, Block, BlockId, FleetId, Page, Role, Session, SigningKey, View, op};
use osiris_mesh::PeerId;

use crate::{
    manifest::Manifest,
    node::{Input, roster},
    policy::Terms,
};

use super::{
    beginning::Beginning,
    check::Checker,
    day::Day,
    faults::{self, Fault},
    hostile::Hostile,
    journal::{First, Journal},
    leases::{MACHINES, Outside},
    load::{self, Load},
    network::{Network, on},
    options::{Options, SAMPLE},
    payload::{self, Initial, public, roles_of},
    process::{Running, Start},
    queue::{NodeId, Process, Queue, What},
    random::Random,
    report::{EventLog, Listener, Tally, print},
    workload::{People, Ticket},
};

/// What an honest wall clock shows when a run begins.
pub(super) const WALL_START_MS: u64 = 1_790_000_000_000;
/// Newcomers that may join, at most.
const STRANGERS_MAX: u32 = 8;
/// Pause between two looks at whether the fleet agrees.
const LOOK_MS: u64 = 500;
/// So long nothing new may have been written where the fleet is said to agree.
const QUIET_MS: u64 = 5_000;
/// Calls of one core for its deadline, at one moment, that are too many.
const TICKS_MAX: u32 = 100;

/// How a device stands to the fleet.
#[derive(Clone, Debug)]
pub(super) enum Standing {
    /// It belongs.
    Member,
    /// It holds at most a ticket.
    Stranger { ticket: Option<Ticket>, tries: u32 },
    /// It was admitted and receives the ledger: what it must hold before it is a node, and its last moment
    /// for that.
    Joining { ticket: Ticket, needed: Vec<BlockId>, until: u64, tries: u32 },
    /// It left, or gave up.
    Gone,
}

/// A device.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) key: SigningKey,
    pub(super) author: Author,
    pub(super) peer: PeerId,
    pub(super) hostile: bool,
    pub(super) standing: Standing,
    pub(super) journal: Journal,
    /// Own blocks that are durable here; in a small run all blocks.
    pub(super) durable: BTreeSet<BlockId>,
    pub(super) library: BTreeSet<BlobHash>,
    /// What the last clean stop kept: the last own blocks that other members had confirmed.
    pub(super) confirmed: Vec<BlockId>,
    /// Own blocks that left, or were acknowledged.
    pub(super) promised: BTreeSet<BlockId>,
    pub(super) wall_offset: i64,
    /// The members whose addresses it kept, or its ticket's.
    pub(super) known: BTreeSet<PeerId>,
    pub(super) running: Option<Running>,
    pub(super) runs: u32,
    pub(super) crash_in_write: Option<u64>,
    pub(super) disk_fails: bool,
    /// The device whose folder's copy this is, or the copy; while both may run.
    pub(super) twin: Option<NodeId>,
    pub(super) was_cloned: bool,
    pub(super) clock_changed: bool,
    /// Whether its view is compared and its document made.
    pub(super) sampled: bool,
    random: Random,
}

/// The fleet and all around it.
#[derive(Debug)]
pub(super) struct World<'a> {
    pub(super) options: Options,
    pub(super) now: u64,
    pub(super) queue: Queue,
    pub(super) random: Random,
    pub(super) devices: Vec<Device>,
    pub(super) by_peer: BTreeMap<PeerId, NodeId>,
    pub(super) network: Network,
    pub(super) fleet: FleetId,
    /// How all members begin.
    pub(super) beginning: Beginning,
    /// An admin's second device, which runs no node: it revokes.
    pub(super) clerk: SigningKey,
    pub(super) manifests: BTreeMap<BlobHash, Manifest>,
    /// Every page that a voter wrote.
    pub(super) pages: BTreeMap<BlobHash, Arc<Page>>,
    pub(super) people: People,
    pub(super) hostiles: BTreeMap<NodeId, Hostile>,
    pub(super) check: Checker,
    pub(super) log: EventLog<'a>,
    pub(super) faults: Tally,
    pub(super) branches: Tally,
    /// Deploys that were acknowledged, each with its author.
    pub(super) acknowledged: BTreeMap<BlockId, NodeId>,
    /// Acknowledged deploys that a restored or damaged disk may have taken along.
    pub(super) excused: BTreeSet<BlockId>,
    /// Blocks in the order in which their authors made them durable: what a hostile member may know.
    pub(super) pool: Vec<Arc<Block>>,
    pub(super) last_written: u64,
    /// What all honest members hold together, and the digests of whom it was made.
    pub(super) all: Option<(BTreeSet<[u8; 32]>, Arc<View>)>,
    /// Faults and work have ended.
    pub(super) healed: bool,
    pub(super) leases: Outside,
    pub(super) load: Load,
    /// The day that is simulated, if one is.
    pub(super) day: Option<Box<Day>>,
}

impl<'a> World<'a> {
    /// A fleet whose members all hold its first blocks.
    pub(super) fn new(options: &Options, listener: Option<Listener<'a>>, day: Option<Box<Day>>) -> Self {
        let mut random = Random::new(options.seed, 5);
        let strangers = if day.is_some() { 0 } else { (options.nodes / 2).clamp(1, STRANGERS_MAX) };
        let count = options.nodes + strangers;
        let keys: Vec<_> = (0..count).map(|_| SigningKey::from_bytes(&random.bytes())).collect();
        // Places for copies of folders: they have other keys until they are made.
        let mut apart = Random::new(options.seed, 10);
        let copies: Vec<_> = (0..options.copies()).map(|_| SigningKey::from_bytes(&apart.bytes())).collect();
        let clerk = SigningKey::from_bytes(&random.bytes());
        let mut others = vec![Initial { author: public(&clerk), roles: payload::clerk_roles() }];
        for (key, number) in keys.iter().zip(0..options.nodes).skip(1) {
            let roles = day.as_ref().map_or_else(|| roles_of(number), |day| day.roles(number));
            others.push(Initial { author: public(key), roles });
        }
        let (session, nonce) = (Session(random.bytes()), Session(random.bytes()));
        let spawning = op::Spawning { machines: MACHINES, minority: options.minority };
        let mut spawning = (options.wants_every_ms > 0).then_some(spawning);
        let mut voters = options.names_voters().then(|| vec![public(&keys[0]), public(&keys[1])]);
        if let Some(day) = &day {
            spawning = Some(op::Spawning { machines: day.machines_max(), minority: false });
            voters = Some(day.voters().iter().map(|node| public(&keys[*node as usize])).collect());
        }
        let (ledger, blocks) = payload::found(&keys[0], session, nonce, &others, (spawning, voters));
        let beginning = Beginning::new(options, ledger.fleet(), blocks);
        let blocks = Arc::clone(&beginning.blocks);
        let mut world = Self {
            options: options.clone(),
            now: 0,
            queue: Queue::default(),
            devices: Vec::new(),
            by_peer: BTreeMap::new(),
            network: Network::new(options, keys.len() + copies.len()),
            fleet: ledger.fleet(),
            beginning,
            clerk,
            manifests: BTreeMap::new(),
            pages: BTreeMap::new(),
            people: People::new(options),
            hostiles: BTreeMap::new(),
            check: Checker::default(),
            log: EventLog::new(listener),
            faults: Tally::default(),
            branches: Tally::default(),
            acknowledged: BTreeMap::new(),
            excused: BTreeSet::new(),
            pool: blocks.to_vec(),
            last_written: 0,
            all: None,
            healed: false,
            leases: Outside::default(),
            load: Load::new(options.seed),
            day,
            random,
        };
        for (number, key) in (0..count).zip(keys) {
            world.add(number, key, &blocks);
        }
        for (number, key) in (count..).zip(copies) {
            world.add(number, key, &blocks);
            world.devices[number as usize].standing = Standing::Gone;
        }
        for block in &*blocks {
            world.check.made(block.id(), true);
        }
        world.check.honest(public(&world.clerk), NodeId::MAX);
        world
    }

    fn add(&mut self, number: NodeId, key: SigningKey, blocks: &First) {
        let author = public(&key);
        let peer = PeerId::from_bytes(author.0);
        let member = number < self.options.nodes;
        // The last members are the hostile ones, so that an admin ranks above them.
        let hostile = member && number >= self.options.nodes - self.options.hostile;
        let mut device = Device {
            author,
            peer,
            hostile,
            standing: Standing::Stranger { ticket: None, tries: 0 },
            journal: Journal::default(),
            durable: BTreeSet::new(),
            library: BTreeSet::new(),
            confirmed: Vec::new(),
            promised: BTreeSet::new(),
            wall_offset: 0,
            known: BTreeSet::new(),
            running: None,
            runs: 0,
            crash_in_write: None,
            disk_fails: false,
            twin: None,
            was_cloned: false,
            clock_changed: false,
            sampled: self.options.owns_everything() || number < SAMPLE,
            random: Random::new(self.options.seed, 1_000 + u64::from(number)),
            key,
        };
        if member {
            device.standing = Standing::Member;
            device.journal = Journal::with(blocks);
            device.promised = self.beginning.by(author).map(|block| block.id()).collect();
            device.durable = match self.options.owns_everything() {
                true => blocks.iter().map(|block| block.id()).collect(),
                false => device.promised.clone(),
            };
        }
        if hostile {
            let hostile = Hostile::new(self.options.seed, number, device.key.clone(), self.fleet);
            self.hostiles.insert(number, hostile);
        } else {
            self.check.honest(author, number);
        }
        self.by_peer.insert(peer, number);
        self.devices.push(device);
    }

    /// A device that is no member yet, beside those that were there from the start.
    pub(super) fn add_stranger(&mut self) -> NodeId {
        let (number, key) = (self.nodes(), SigningKey::from_bytes(&self.random.bytes()));
        self.add(number, key, &First::default());
        number
    }

    /// Runs to the end. Returns how long the healed fleet took to agree.
    pub(super) fn run(&mut self) -> Option<u64> {
        for node in 0..self.options.nodes {
            if self.devices[node as usize].hostile {
                let pause = self.random.between(1, self.options.hostile_every_ms);
                self.queue.at(pause, What::Hostile(node));
            } else {
                let spread = self.random.below(200);
                self.queue.at(spread, What::Start(node));
            }
        }
        for (at, fault) in faults::schedule(&self.options, self.options.nodes) {
            self.queue.at(at, What::Fault(fault));
        }
        if self.day.is_some() {
            self.begin_day();
        } else {
            self.queue.at(1_000, What::Work);
        }
        if self.options.wants_every_ms > 0 {
            self.queue.at(2_000, What::Want);
        }
        if self.options.load > 0 {
            self.queue.at(3_000, What::Load);
        }
        self.queue.at(self.options.safety_ms, What::Look);
        let end = self.options.safety_ms + self.options.liveness_ms;
        while let Some((at, what)) = self.queue.next() {
            self.now = at;
            if at > end {
                self.say_why_not();
                return None;
            }
            if let What::Look = what {
                if !self.healed {
                    self.heal();
                } else if self.now - self.last_written >= QUIET_MS && self.agrees() {
                    return Some(self.now - self.options.safety_ms);
                }
                self.queue.at(self.now + LOOK_MS, What::Look);
                continue;
            }
            self.happen(what);
        }
        None
    }

    pub(super) fn happen(&mut self, what: What) {
        let Some(what) = self.unless_still(what) else { return };
        match what {
            What::Start(node) => self.start(node),
            What::Tick(process) => self.tick(process),
            What::Synced(process, group) => self.synced(process, group),
            What::Input(process, input) => {
                if self.is_current(process) {
                    self.say(format_args!("input {} {}", process.node, input_name(&input)));
                    self.input(process.node, *input);
                }
            }
            What::Asked(process, asked) => {
                if self.is_current(process) {
                    self.ask(process.node, asked.0, asked.1);
                }
            }
            What::Wake(process) => self.wake(process),
            What::Keep(process) => self.keep(process),
            What::Roster(process) => self.roster(process),
            What::Dialled { from, to } => self.dialled(from, to),
            What::Up { pair, generation, side } => self.up(pair, generation, side),
            What::Down { pair, generation, side } => self.down(pair, generation, side),
            What::Idle { pair, generation } => self.idle(pair, generation),
            What::Frame { pair, generation, to, bytes } => {
                let (receiver, sender) = (on(pair, to), on(pair, 1 - to));
                let link = self.network.link(&pair);
                let open = link.is_some_and(|l| l.generation == generation && l.alive && l.told[to]);
                if open && self.devices[receiver as usize].running.is_some() {
                    self.say(format_args!("frame {sender}>{receiver} {} {}", bytes.len(), print(&bytes)));
                    let peer = self.devices[sender as usize].peer;
                    self.note_agreement(sender, receiver, &bytes);
                    self.input(receiver, Input::Frame(peer, bytes.to_vec()));
                }
            }
            What::Hint { to, bytes } => {
                if self.devices[to as usize].running.is_some() {
                    self.say(format_args!("hint {to} {}", print(&bytes)));
                    self.input(to, Input::Hint(bytes.to_vec()));
                }
            }
            What::Join(stranger) => self.join(stranger),
            What::Work => self.work(),
            What::Want => self.want(),
            What::Load => self.load(),
            What::Hostile(node) => self.hostile(node),
            What::CloneEnds(slot) => self.clone_ends(slot),
            What::Fault(fault) => self.fault(fault),
            What::Look => {}
            What::Second => self.second(),
            What::DayFault(fault) => self.day_fault(fault),
            What::Machine(intent, stage) => self.machine(intent, stage),
        }
    }

    /// Writes a line of the event log.
    pub(super) fn say(&mut self, what: std::fmt::Arguments<'_>) {
        self.log.line(self.now, what);
    }

    pub(super) fn is_current(&self, process: Process) -> bool {
        self.run_of(process.node) == Some(process)
    }

    /// The running process of a node.
    pub(super) fn run_of(&self, node: NodeId) -> Option<Process> {
        let running = self.devices[node as usize].running.as_ref()?;
        Some(Process { node, run: running.run })
    }

    /// How many devices there are.
    pub(super) fn nodes(&self) -> NodeId {
        NodeId::try_from(self.devices.len()).expect("few devices")
    }

    /// Whether something answers at a node's address.
    pub(super) fn is_up(&self, node: NodeId) -> bool {
        let device = &self.devices[node as usize];
        device.hostile || (device.running.is_some() && !self.is_still(node))
    }

    /// What a node's wall clock shows.
    pub(super) fn wall(&self, node: NodeId) -> u64 {
        let honest = WALL_START_MS + self.now;
        honest.saturating_add_signed(self.devices[node as usize].wall_offset)
    }

    /// Starts a process from what its disk holds.
    fn start(&mut self, node: NodeId) {
        let (now, wall) = (self.now, self.wall(node));
        let calls = self.day.as_ref().is_some_and(|day| day.only_calls(node));
        let (machines, terms) = self.means_of(node);
        let device = &mut self.devices[node as usize];
        if device.running.is_some() || matches!(device.standing, Standing::Gone | Standing::Stranger { .. }) {
            return;
        }
        let (held, found) = device.journal.recover();
        let pages = held.pages.iter().filter(|page| device.library.contains(page));
        let pages = pages.filter_map(|page| self.pages.get(page));
        let (ledger, refused) = self.beginning.replayed(&held, pages, device.sampled);
        let orders = self.beginning.orders(device.sampled);
        let (author, promised) = (device.author, std::mem::take(&mut device.promised));
        device.durable = match self.options.owns_everything() {
            true => held.all().map(|block| block.id()).collect(),
            false => self.beginning.written(&held, author).map(|block| block.id()).collect(),
        };
        // What is here by pages alone is durable with them.
        let pages = ledger.held_by(author).filter(|held| held.full().is_none());
        device.durable.extend(pages.map(osiris_ledger::Held::id));
        // A disk that was put back or damaged breaks its promises itself, those about what followed too.
        let unkept: Vec<_> = promised.iter().filter(|id| !ledger.holds(id)).copied().collect();
        device.runs += 1;
        // A journal holds each block behind all it names; where one waits, something was lost before.
        let damaged = found.damaged || ledger.early().0 > 0;
        let joining = matches!(device.standing, Standing::Joining { .. });
        let confirmed = device.confirmed.clone();
        let session = Session(device.random.bytes());
        let start = Start {
            run: device.runs,
            key: device.key.clone(),
            session,
            seed: device.random.next(),
            serves: !joining && !calls,
            confirmed,
            idle_work: device.sampled,
            pages: self.options.page_rules(node),
            told: if damaged || joining { device.known.clone() } else { BTreeSet::new() },
            ledger,
            machines,
            terms,
            orders,
        };
        let library: Vec<_> = device.library.iter().copied().collect();
        // What a crash left of a write under way is durable from now on.
        for block in self.beginning.written(&held, author) {
            if self.check.made(block.id(), true) {
                self.pool.push(Arc::clone(block));
            }
        }
        device.running = Some(Running::new(start, now, wall));
        if let Some(running) = self.devices[node as usize].running.as_ref() {
            self.leases.started(node, |id| running.node.ledger().holds(id));
        }
        self.branches.add("damage found", u64::from(damaged));
        self.branches.add("recovery truncated", u64::from(found.torn));
        self.branches.add("restart with lost tail", u64::from(found.lost > 0));
        self.branches.add("durable records missing", u64::from(found.missing > 0));
        self.say(format_args!("start {node} {} {} {} {}", held.len(), found.torn, found.lost, found.missing));
        if refused > 0 {
            self.check.violated(now, format_args!("node {node} refused {refused} blocks of its own journal"));
        }
        let durable = &self.devices[node as usize].durable;
        if found.missing == 0 {
            self.check.recovered(now, node, &promised, |id| durable.contains(id));
        } else {
            self.excused.extend(unkept);
        }
        let promised = promised.into_iter().filter(|id| durable.contains(id)).collect();
        self.devices[node as usize].promised = promised;
        for hash in library {
            self.input(node, Input::BlobHeld(hash));
        }
        self.input(node, Input::Start);
        if let Some(process) = self.run_of(node) {
            self.queue.at(now, What::Roster(process));
        }
    }

    fn tick(&mut self, process: Process) {
        let now = self.now;
        let Some(running) = self.devices[process.node as usize].running.as_mut() else { return };
        if running.run != process.run || running.tick_at != Some(now) {
            return;
        }
        running.tick_at = None;
        if self.is_done(process.node) {
            return self.arrange_tick(process.node);
        }
        self.say(format_args!("tick {}", process.node));
        self.input(process.node, Input::Tick);
    }

    /// Hands an input to a node's core, and performs what follows.
    pub(super) fn input(&mut self, node: NodeId, input: Input) {
        let (now, wall) = (self.now, self.wall(node));
        if let Some(process) = self.run_of(node).filter(|_| self.is_still(node)) {
            self.unless_still(What::Input(process, Box::new(input)));
            return;
        }
        self.provisioned(node, &input);
        let Some(running) = self.devices[node as usize].running.as_mut() else { return };
        let done = running.handle(now, wall, input);
        self.perform(node, done);
    }

    /// Arranges the next call for a core's deadline.
    pub(super) fn arrange_tick(&mut self, node: NodeId) {
        let now = self.now;
        let Some(running) = self.devices[node as usize].running.as_ref() else { return };
        let Some(deadline) = running.deadline() else { return };
        let at = self.called_at(node, deadline.max(now));
        let Some(running) = self.devices[node as usize].running.as_mut() else { return };
        if running.tick_at.is_some_and(|known| known <= at && known >= now) {
            return;
        }
        running.tick_at = Some(at);
        let process = Process { node, run: running.run };
        running.ticks_in_a_row = if at == now { running.ticks_in_a_row + 1 } else { 0 };
        if running.ticks_in_a_row > TICKS_MAX {
            self.check.violated(now, format_args!("the core of node {node} asks to be called without end"));
            running.tick_at = Some(now + 1_000);
            self.queue.at(now + 1_000, What::Tick(process));
        } else {
            self.queue.at(at, What::Tick(process));
        }
    }

    /// Ends a process. What it had in memory is gone.
    pub(super) fn end(&mut self, node: NodeId) -> Option<Running> {
        self.day_process_ended(node);
        let device = &mut self.devices[node as usize];
        let running = device.running.take()?;
        device.crash_in_write = None;
        self.leases.ended(node);
        self.branches.add("early evicted", running.node.ledger().early().1);
        // The real node keeps its address book every minute and at its end.
        device.known.extend(roster(running.node.view(), &BTreeSet::new()));
        Some(running)
    }

    /// Faults and work end; everything is repaired.
    fn heal(&mut self) {
        self.healed = true;
        self.say(format_args!("heal"));
        self.no_machine_is_left();
        self.look_for_false_alarms();
        for slot in self.options.nodes..self.nodes() {
            self.clone_ends(slot);
        }
        self.network.heal();
        for process in (0..self.nodes()).filter_map(|node| self.run_of(node)).collect::<Vec<_>>() {
            self.wake(process);
        }
        for node in 0..self.nodes() {
            let device = &mut self.devices[node as usize];
            device.disk_fails = false;
            device.crash_in_write = None;
            if !matches!(device.standing, Standing::Member) {
                continue;
            }
            // A disk that failed is replaced, and its node started again.
            if device.running.as_ref().is_some_and(|running| running.outbox.has_failed()) {
                self.fault(Fault::Crash { node, in_write: false, away_ms: 100 });
            } else if device.running.is_none() && !device.hostile {
                self.queue.at(self.now + 100, What::Start(node));
            }
        }
    }

    /// Every honest member that runs and belongs, by its own view.
    pub(super) fn belonging(&self) -> Vec<NodeId> {
        let members = (0..).zip(&self.devices).filter(|(_, device)| {
            let belongs = |running: &Running| running.node.view().is_member(&device.author);
            matches!(device.standing, Standing::Member) && device.running.as_ref().is_some_and(belongs)
        });
        members.map(|(node, _)| node).collect()
    }

    /// Machines that a process may make, and the thresholds of its policy.
    fn means_of(&self, node: NodeId) -> (Option<u32>, Terms) {
        match &self.day {
            Some(day) => {
                let spawns = !day.only_calls(node) && day.roles(node).has(Role::Spawner);
                (spawns.then(|| day.machines_max()), Terms::default())
            }
            None => (Some(MACHINES), load::terms()),
        }
    }
}

fn input_name(input: &Input) -> &'static str {
    match input {
        Input::BlobHeld(_) => "blob held",
        Input::Page(..) => "page",
        Input::Manifest(..) => "manifest",
        Input::FetchFailed(..) => "fetch failed",
        Input::Prepared(..) => "prepared",
        Input::PrepareFailed(..) => "prepare failed",
        Input::HintsLagged => "hints lagged",
        _ => "other",
    }
}
