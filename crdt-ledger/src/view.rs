//! What the effective blocks say: members, functions and who serves them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
};

use serde::{Serialize, Serializer};

use crate::{
    authority::Roles,
    block::{Block, Order},
    chain::Chain,
    codec,
    held::Held,
    id::{Author, BlobHash, BlockId, FleetId, Session},
    layered::Layered,
    lease::{Slot, Slots, SpawnPolicy},
    ledger::{Ledger, register_name},
    limits,
    memo::SetSum,
    op::{Deployed, Payload, World},
    scale::Scaling,
    seals::{SealedPage, Seals, VoterSet},
};

mod same;

/// The registers of the ledger, folded from effective blocks in any order: each keeps what has the
/// highest order, so the fold is commutative and idempotent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registers {
    functions: BTreeMap<String, FunctionRegister>,
    serving: BTreeMap<BlockId, BTreeMap<Author, (Order, Option<u32>)>>,
    /// Invitations and users.
    offers: Layered<BlockId, Arc<Block>>,
    offers_sum: SetSum,
    pub(crate) seals: Seals,
    pub(crate) scaling: Scaling,
    budgets: Arc<Budgets>,
    touched: Touched,
}

/// Blocks that devices may write, each with the block that says so last.
type Budgets = BTreeMap<Author, (Order, u64)>;

/// What blocks spoke of since it was last taken.
#[derive(Clone, Debug, Default)]
pub(crate) struct Touched {
    functions: BTreeSet<String>,
    /// Revisions that these devices serve, or no longer do.
    revisions: BTreeMap<BlockId, BTreeSet<Author>>,
    /// Whether an invitation or user was made known.
    offers: bool,
    /// Whether bounds, counts of replicas, labels or who drains changed.
    scaling: bool,
}

#[derive(Clone, Debug, Default)]
struct FunctionRegister {
    deploys: BTreeMap<Order, Arc<Block>>,
    removals: BTreeSet<Order>,
    replaced: BTreeSet<BlockId>,
}

impl Registers {
    pub(crate) fn apply(&mut self, held: Held<'_>) {
        let block = match held {
            Held::Full(block) => block,
            Held::Summary(said) => return self.set_serving(said.revision(), held, said.concurrency()),
        };
        match block.payload() {
            Payload::Deployed(op) => {
                let register = self.functions.entry(op.name.clone()).or_default();
                register.deploys.insert(block.order(), Arc::clone(block));
                register.replaced.extend(&op.replaces);
                self.touched.functions.insert(op.name.clone());
            }
            Payload::Removed(op) => {
                let register = self.functions.entry(op.name.clone()).or_default();
                register.removals.insert(block.order());
                register.replaced.extend(&op.replaces);
                self.touched.functions.insert(op.name.clone());
            }
            Payload::Serving(op) => self.set_serving(op.revision, held, Some(op.concurrency)),
            Payload::Stopped(op) => self.set_serving(op.revision, held, None),
            Payload::Invited(_) | Payload::User(_) => {
                if self.offers.insert(block.id(), Arc::clone(block)) {
                    self.offers_sum.add(&block.id());
                }
                self.touched.offers = true;
            }
            Payload::Voters(op) => self.seals.name(block.order(), &op.devices),
            Payload::Sealed(op) => self.seals.seal(op, block.author()),
            Payload::Bounded(_) | Payload::Scaled(_) | Payload::Labelled(_) | Payload::Draining(_) => {
                self.scaling.apply(block);
                self.touched.scaling = true;
            }
            Payload::Budgeted(op) => {
                let said = (block.order(), op.blocks);
                let budgets = Arc::make_mut(&mut self.budgets);
                let known = budgets.entry(op.device).or_insert(said);
                *known = said.max(*known);
            }
            Payload::Founded(_)
            | Payload::Withdrawn(_)
            | Payload::Admitted(_)
            | Payload::Recovered(_)
            | Payload::Revoked(_)
            // Those are kept apart, counting or not.
            | Payload::Claimed(_)
            | Payload::Activated(_)
            | Payload::Intent(_)
            | Payload::Released(_)
            | Payload::Retired(_)
            | Payload::Spawning(_) => {}
        }
    }

    /// Lets clones share what grows with the fleet's members.
    pub(crate) fn freeze(&mut self) {
        self.offers.freeze();
    }

    /// What blocks spoke of since the last call.
    pub(crate) fn take_touched(&mut self) -> Touched {
        std::mem::take(&mut self.touched)
    }

    fn set_serving(&mut self, revision: BlockId, block: Held<'_>, concurrency: Option<u32>) {
        self.touched.revisions.entry(revision).or_default().insert(block.author());
        let said = (block.order(), concurrency);
        let holders = self.serving.entry(revision).or_default();
        let known = holders.entry(block.author()).or_insert(said);
        if said.0 > known.0 {
            *known = said;
        }
    }
}

/// A device that belongs to the fleet, or did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Member {
    /// The device's key.
    pub device: Author,
    /// Its name, for people.
    pub label: String,
    /// What it may write: all its active grants together.
    pub roles: Roles,
    /// Whether it has an active grant.
    pub active: bool,
    /// Its grants that count, active or revoked, each with its roles and whether it is active.
    pub grants: Vec<(BlockId, Roles, bool)>,
    /// The users that admitted it by an active grant.
    pub users: Vec<BlockId>,
}

/// Whether an invitation or a user still admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum InvitationState {
    /// It admits.
    Open,
    /// Every use is spent.
    UsedUp,
    /// It was withdrawn.
    Withdrawn,
}

/// An invitation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Invitation {
    /// The `invited` block.
    pub id: BlockId,
    /// Public half of its key.
    pub key: Author,
    /// Who invited.
    pub by: Author,
    /// What it gives.
    pub roles: Roles,
    /// The only device it is for.
    pub device: Option<Author>,
    /// Devices it may admit.
    pub uses: u32,
    /// Devices it admitted.
    pub used: u32,
    /// Admissions beyond its uses, possible across a partition; they are void.
    pub surplus: u32,
    /// Whether it still admits.
    pub state: InvitationState,
    /// For people.
    pub note: String,
}

/// A person, as the fleet knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct User {
    /// The `user` block.
    pub id: BlockId,
    /// The person's name.
    pub name: String,
    /// Public half of the user's key.
    pub key: Author,
    /// What the user's devices may write.
    pub roles: Roles,
    /// Who made the user known.
    pub by: Author,
    /// Devices it may admit.
    pub devices_max: u32,
    /// Devices it admitted, past ones included.
    pub used: u32,
    /// Admissions beyond its devices, possible across a partition; they are void.
    pub surplus: u32,
    /// Grants by which devices of the user are members now, with the device.
    pub devices: Vec<(BlockId, Author)>,
    /// Whether it still admits devices.
    pub state: InvitationState,
}

/// A node that has a revision ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Serving {
    /// The device.
    pub device: Author,
    /// Invocations it runs side by side.
    pub concurrency: u32,
}

/// One deployed revision of a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Revision {
    /// The `deployed` block.
    pub id: BlockId,
    /// Its place among the revisions of its function in ledger order, from 1. For display: a block
    /// that arrives late may shift it.
    pub number: u64,
    /// Its place in ledger order.
    pub order: Order,
    /// blake3 of the component.
    pub component: BlobHash,
    /// Bytes of the component.
    pub size: u64,
    /// How it is called.
    pub world: World,
    /// blake3 of the manifest.
    pub manifest: BlobHash,
    /// Bytes of the manifest.
    pub manifest_size: u64,
    /// Who deployed it.
    pub by: Author,
    /// When, by the author's clock.
    pub wall_ms: u64,
    /// Whether another revision was deployed without knowledge of this one, and neither is replaced.
    pub concurrent: bool,
    /// Members that have it ready, ascending by device.
    pub serving: Vec<Serving>,
}

impl Revision {
    /// What a device said about serving it; none where it does not.
    #[must_use]
    pub fn serving_by(&self, device: &Author) -> Option<&Serving> {
        let at = self.serving.binary_search_by_key(device, |serving| serving.device).ok()?;
        self.serving.get(at)
    }

    /// Whether a device has it ready.
    #[must_use]
    pub fn is_served_by(&self, device: &Author) -> bool {
        self.serving_by(device).is_some()
    }
}

/// A function by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Whether its newest operation is a removal.
    pub removed: bool,
    /// The revision that is called: the newest that a member has ready.
    #[serde(serialize_with = "through_arc")]
    pub live: Option<Arc<Revision>>,
    /// The newest revision, which becomes live once a member has it ready.
    #[serde(serialize_with = "through_arc")]
    pub newest: Option<Arc<Revision>>,
    /// All revisions in ledger order.
    #[serde(serialize_with = "through_arcs")]
    pub revisions: Vec<Arc<Revision>>,
    /// Those of them that a member has ready, in the same order: few, however many there were. It follows from
    /// the rest, so the hash leaves it out.
    #[serde(skip)]
    pub served: Vec<Arc<Revision>>,
    /// The blocks that a new deploy or removal replaces.
    pub heads: Vec<BlockId>,
}

/// A chain whose author signed two blocks for one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Fork {
    /// Who signed both.
    pub author: Author,
    /// In which session.
    pub session: Session,
    /// The first place that two blocks bear; the chain is void from there.
    pub seq: u64,
    /// Two blocks of that place.
    pub proof: [BlockId; 2],
}

/// An immutable snapshot of what the ledger says.
#[derive(Debug, Default)]
pub struct View {
    fleet: Option<FleetId>,
    name: String,
    members: Arc<BTreeMap<Author, Member>>,
    functions: BTreeMap<String, Arc<Function>>,
    by_name: ByName,
    invitations: Arc<BTreeMap<BlockId, Invitation>>,
    users: Arc<BTreeMap<BlockId, User>>,
    forks: Arc<[Fork]>,
    /// Devices that were admitted and are members no more. It follows from the rest, so the hash leaves it out.
    ended: Arc<BTreeSet<Author>>,
    voters: Option<VoterSet>,
    pages: Vec<SealedPage>,
    slots: Arc<Slots>,
    spawning: SpawnPolicy,
    scaling: Arc<Scaling>,
    budgets: Arc<Budgets>,
    blocks: u64,
    hash: OnceLock<[u8; 32]>,
}

#[allow(clippy::disallowed_types, reason = "looked up by name on every call, never iterated")]
type ByName = std::collections::HashMap<String, Arc<Function>>;

impl View {
    pub(crate) fn empty(fleet: FleetId) -> Self {
        Self { fleet: Some(fleet), ..Self::default() }
    }

    pub(crate) fn build(ledger: &Ledger) -> Self {
        let members = ledger.derive(|derived| &mut derived.members, ledger.settled(), members);
        let ended = |ledger: &Ledger| ledger.ended_devices();
        let functions = functions(ledger, &members);
        let by_name = functions.iter().map(|(name, function)| (name.clone(), Arc::clone(function))).collect();
        let name = ledger.get(&BlockId(ledger.fleet().0)).map(|block| match block.payload() {
            Payload::Founded(op) => op.name.clone(),
            _ => String::new(),
        });
        let (invitations, users) = offers(ledger);
        Self {
            fleet: Some(ledger.fleet()),
            name: name.unwrap_or_default(),
            members,
            functions,
            by_name,
            invitations,
            users,
            forks: forks(ledger),
            ended: ledger.derive(|derived| &mut derived.ended, ledger.settled(), ended),
            voters: ledger.voters(),
            pages: ledger.sealed_pages(),
            slots: Arc::new(ledger.slots()),
            spawning: ledger.spawning(),
            scaling: Arc::new(ledger.registers().scaling.clone()),
            budgets: Arc::clone(&ledger.registers().budgets),
            blocks: ledger.len(),
            hash: OnceLock::new(),
        }
    }

    /// The view after blocks that changed no standing and proved no fork: of the one before, only the
    /// functions, invitations, users and replicas that they spoke of are made again, and the slots that
    /// `leases` names.
    pub(crate) fn after(
        ledger: &Ledger,
        before: &Self,
        touched: &Touched,
        leases: Option<&BTreeSet<u32>>,
    ) -> Self {
        let registers = ledger.registers();
        let (mut functions, mut by_name) = (before.functions.clone(), before.by_name.clone());
        let mut replace = |name: &String, function: Arc<Function>| {
            by_name.insert(name.clone(), Arc::clone(&function));
            functions.insert(name.clone(), function);
        };
        for name in &touched.functions {
            let Some(register) = registers.functions.get(name) else { continue };
            replace(name, Arc::new(function(registers, name, register, &before.members)));
        }
        let of_revision = |id: &BlockId| ledger.get(id).and_then(|block| register_name(block.payload()));
        let served: BTreeSet<_> = touched.revisions.keys().filter_map(of_revision).collect();
        for name in served.into_iter().filter(|name| !touched.functions.contains(*name)) {
            let (Some(register), Some(known)) = (registers.functions.get(name), before.functions.get(name))
            else {
                continue;
            };
            let function = served_anew(registers, register, known, &before.members, &touched.revisions);
            replace(name, Arc::new(function));
        }
        let (invitations, users) = match touched.offers {
            true => offers(ledger),
            false => (Arc::clone(&before.invitations), Arc::clone(&before.users)),
        };
        let (slots, spawning) = match leases {
            Some(touched) => (Arc::new(ledger.slots_after(&before.slots, touched)), ledger.spawning()),
            None => (Arc::clone(&before.slots), before.spawning),
        };
        let scaling = match touched.scaling {
            true => Arc::new(registers.scaling.clone()),
            false => Arc::clone(&before.scaling),
        };
        Self {
            fleet: before.fleet,
            name: before.name.clone(),
            members: Arc::clone(&before.members),
            functions,
            by_name,
            invitations,
            users,
            forks: Arc::clone(&before.forks),
            ended: Arc::clone(&before.ended),
            voters: ledger.voters(),
            pages: ledger.sealed_pages(),
            slots,
            spawning,
            scaling,
            budgets: Arc::clone(&registers.budgets),
            blocks: ledger.len(),
            hash: OnceLock::new(),
        }
    }

    /// The fleet's name, for people; empty until the genesis block is here.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Members, past ones included.
    #[must_use]
    pub fn members(&self) -> &BTreeMap<Author, Member> {
        &self.members
    }

    /// The same, as views share them: while no standing changes, the next view has the very same.
    #[must_use]
    pub fn shared_members(&self) -> &Arc<BTreeMap<Author, Member>> {
        &self.members
    }

    /// Whether a device belongs to the fleet now.
    #[must_use]
    pub fn is_member(&self, device: &Author) -> bool {
        self.members.get(device).is_some_and(|member| member.active)
    }

    /// Whether a device was admitted once, and no admission of it stands: it left, was revoked, or was one too many.
    #[must_use]
    pub fn was_member(&self, device: &Author) -> bool {
        self.ended.contains(device)
    }

    /// Functions by name, removed ones included.
    #[must_use]
    pub fn functions(&self) -> &BTreeMap<String, Arc<Function>> {
        &self.functions
    }

    /// The function of that name, in constant time.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<&Arc<Function>> {
        self.by_name.get(name)
    }

    /// Invitations.
    #[must_use]
    pub fn invitations(&self) -> &BTreeMap<BlockId, Invitation> {
        &self.invitations
    }

    /// Users, past ones included.
    #[must_use]
    pub fn users(&self) -> &BTreeMap<BlockId, User> {
        &self.users
    }

    /// Proven forks.
    #[must_use]
    pub fn forks(&self) -> &[Fork] {
        &self.forks
    }

    /// Who seals pages now; none until the genesis block is here.
    #[must_use]
    pub fn voters(&self) -> Option<&VoterSet> {
        self.voters.as_ref()
    }

    /// Pages that a voter sealed, by their hash, and whether enough did.
    #[must_use]
    pub fn pages(&self) -> &[SealedPage] {
        &self.pages
    }

    /// Slots for machines that were ever claimed, by number.
    #[must_use]
    pub fn slots(&self) -> &BTreeMap<u32, Arc<Slot>> {
        &self.slots
    }

    /// How many machines the fleet may make.
    #[must_use]
    pub fn spawning(&self) -> SpawnPolicy {
        self.spawning
    }

    /// Bounds and counts of replicas, labels of devices, and which of these drain.
    #[must_use]
    pub fn scaling(&self) -> &Scaling {
        &self.scaling
    }

    /// Blocks that a device may write in all. Those beyond count as any, and come to others slowly.
    #[must_use]
    pub fn budget(&self, device: &Author) -> u64 {
        self.budgets.get(device).map_or(limits::BUDGET_BLOCKS, |(_, blocks)| *blocks)
    }

    /// Blocks admitted when the snapshot was taken, void ones included.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// blake3 of the snapshot's canonical CBOR: equal on two replicas exactly when they agree.
    pub fn hash(&self) -> [u8; 32] {
        *self.hash.get_or_init(|| {
            let functions: Vec<&Function> = self.functions.values().map(AsRef::as_ref).collect();
            let members: Vec<_> = self.members.values().collect();
            let invitations: Vec<_> = self.invitations.values().collect();
            let users: Vec<_> = self.users.values().collect();
            let sealing = (&self.voters, &self.pages);
            let slots: Vec<&Slot> = self.slots.values().map(AsRef::as_ref).collect();
            let budgets: Vec<_> = self.budgets.iter().map(|(device, (_, blocks))| (device, blocks)).collect();
            let machines = (slots, &self.spawning, &*self.scaling);
            let offers = (invitations, users, budgets);
            let said = (&self.fleet, &self.name, members, functions, offers, &*self.forks, sealing, machines);
            *blake3::hash(&codec::encode(&said)).as_bytes()
        })
    }
}

fn through_arc<S: Serializer>(revision: &Option<Arc<Revision>>, serializer: S) -> Result<S::Ok, S::Error> {
    revision.as_deref().serialize(serializer)
}

fn through_arcs<S: Serializer>(revisions: &[Arc<Revision>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(revisions.iter().map(AsRef::as_ref))
}

fn members(ledger: &Ledger) -> BTreeMap<Author, Member> {
    let mut members: BTreeMap<Author, Member> = BTreeMap::new();
    for (grant, device, roles, given, active) in ledger.grant_rows() {
        if !given {
            continue;
        }
        let member = members.entry(device).or_insert_with(|| Member {
            device,
            label: String::new(),
            roles: Roles::NONE,
            active: false,
            grants: Vec::new(),
            users: Vec::new(),
        });
        member.grants.push((grant, roles, active));
        if active {
            member.active = true;
            member.roles = member.roles.with(roles);
            member.users.extend(ledger.user_of(&grant));
        }
    }
    for member in members.values_mut() {
        // The newest grant's label, whatever the order in which grants came in.
        let blocks = member.grants.iter().filter_map(|(grant, ..)| ledger.get(grant));
        if let Some(newest) = blocks.max_by_key(|block| block.order()) {
            member.label = match newest.payload() {
                Payload::Founded(op) => op.label.clone(),
                Payload::Admitted(op) => op.label.clone(),
                Payload::Recovered(op) => op.label.clone(),
                _ => String::new(),
            };
        }
    }
    members
}

type Offers = (Arc<BTreeMap<BlockId, Invitation>>, Arc<BTreeMap<BlockId, User>>);

/// Invitations and users. They follow from the standings and from the blocks that made them known.
fn offers(ledger: &Ledger) -> Offers {
    let key = ledger.settled().with(&ledger.registers().offers_sum);
    (
        ledger.derive(|derived| &mut derived.invitations, key, invitations),
        ledger.derive(|derived| &mut derived.users, key, users),
    )
}

fn invitations(ledger: &Ledger) -> BTreeMap<BlockId, Invitation> {
    let mut invitations = BTreeMap::new();
    for (id, block) in &ledger.registers().offers {
        let Payload::Invited(op) = block.payload() else { continue };
        let (state, used, surplus) = offer_state(ledger, id, op.uses);
        let invitation = Invitation {
            id: *id,
            key: op.key,
            by: block.author(),
            roles: op.roles,
            device: op.device,
            uses: op.uses,
            used,
            surplus,
            state,
            note: op.note.clone(),
        };
        invitations.insert(*id, invitation);
    }
    invitations
}

/// Whether an offer still admits, how many devices it admitted, and how many more are void.
fn offer_state(ledger: &Ledger, id: &BlockId, uses: u32) -> (InvitationState, u32, u32) {
    let standing = ledger.standings().offers.get(id);
    let count = |devices: usize| u32::try_from(devices).unwrap_or(u32::MAX);
    let used = standing.map_or(0, |standing| count(standing.admitted.len()));
    let surplus = standing.map_or(0, |standing| count(standing.surplus.len()));
    let withdrawn = standing.is_some_and(|standing| !standing.withdrawn.is_empty());
    let state = match (withdrawn, used >= uses) {
        (true, _) => InvitationState::Withdrawn,
        (false, true) => InvitationState::UsedUp,
        (false, false) => InvitationState::Open,
    };
    (state, used, surplus)
}

fn users(ledger: &Ledger) -> BTreeMap<BlockId, User> {
    let mut users = BTreeMap::new();
    for (id, block) in &ledger.registers().offers {
        let Payload::User(op) = block.payload() else { continue };
        let (state, used, surplus) = offer_state(ledger, id, op.devices);
        let user = User {
            id: *id,
            name: op.name.clone(),
            key: op.key,
            roles: op.roles,
            by: block.author(),
            devices_max: op.devices,
            used,
            surplus,
            devices: Vec::new(),
            state,
        };
        users.insert(*id, user);
    }
    for (grant, device, _, _, active) in ledger.grant_rows() {
        if let Some(user) = ledger.user_of(&grant).and_then(|user| users.get_mut(&user)).filter(|_| active) {
            user.devices.push((grant, device));
        }
    }
    users
}

fn functions(ledger: &Ledger, members: &BTreeMap<Author, Member>) -> BTreeMap<String, Arc<Function>> {
    let registers = ledger.registers();
    let build = |(name, register): (&String, &FunctionRegister)| {
        (name.clone(), Arc::new(function(registers, name, register, members)))
    };
    registers.functions.iter().map(build).collect()
}

fn function(
    registers: &Registers,
    name: &str,
    register: &FunctionRegister,
    members: &BTreeMap<Author, Member>,
) -> Function {
    let unreplaced = |id: &BlockId| !register.replaced.contains(id);
    let orders = register.deploys.keys().chain(&register.removals);
    let mut heads: Vec<_> = orders.map(|order| order.id).filter(&unreplaced).collect();
    heads.sort_unstable();
    let mut revisions = Vec::new();
    for (block, number) in register.deploys.values().zip(1..) {
        let Payload::Deployed(op) = block.payload() else { continue };
        let concurrent = heads.len() > 1 && unreplaced(&block.id());
        let serving = serving(registers, members, &block.id());
        revisions.push(Arc::new(revision(block, op, number, concurrent, serving)));
    }
    of_revisions(name.to_owned(), register, revisions, heads)
}

/// A function after some devices began or ceased to serve revisions of it: in a large fleet nearly every block
/// says this of one device, and the other devices need not be looked at again.
fn served_anew(
    registers: &Registers,
    register: &FunctionRegister,
    before: &Function,
    members: &BTreeMap<Author, Member>,
    touched: &BTreeMap<BlockId, BTreeSet<Author>>,
) -> Function {
    let mut revisions = before.revisions.clone();
    for revision in &mut revisions {
        let Some(devices) = touched.get(&revision.id) else { continue };
        let revision = Arc::make_mut(revision);
        let holders = registers.serving.get(&revision.id);
        for device in devices {
            let said = holders.and_then(|holders| holders.get_key_value(device));
            let now = said.and_then(|(device, said)| serving_by(device, said, members));
            let known = revision.serving.binary_search_by_key(device, |serving| serving.device);
            match (known, now) {
                (Ok(at), Some(now)) => revision.serving[at] = now,
                (Ok(at), None) => drop(revision.serving.remove(at)),
                (Err(at), Some(now)) => revision.serving.insert(at, now),
                (Err(_), None) => {}
            }
        }
    }
    of_revisions(before.name.clone(), register, revisions, before.heads.clone())
}

fn of_revisions(
    name: String,
    register: &FunctionRegister,
    revisions: Vec<Arc<Revision>>,
    heads: Vec<BlockId>,
) -> Function {
    let last_removal = register.removals.last();
    let stands = |revision: &&Arc<Revision>| last_removal.is_none_or(|removal| revision.order > *removal);
    let served: Vec<_> = revisions.iter().filter(|revision| !revision.serving.is_empty()).cloned().collect();
    let live = served.last().filter(stands).cloned();
    let newest = revisions.last().filter(stands).cloned();
    Function { name, removed: newest.is_none(), live, newest, revisions, served, heads }
}

fn revision(block: &Block, op: &Deployed, number: u64, concurrent: bool, serving: Vec<Serving>) -> Revision {
    Revision {
        id: block.id(),
        number,
        order: block.order(),
        component: op.component,
        size: op.size,
        world: op.world,
        manifest: op.manifest,
        manifest_size: op.manifest_size,
        by: block.author(),
        wall_ms: block.wall().0,
        concurrent,
        serving,
    }
}

fn serving(registers: &Registers, members: &BTreeMap<Author, Member>, revision: &BlockId) -> Vec<Serving> {
    let holders = registers.serving.get(revision).into_iter().flatten();
    holders.filter_map(|(device, said)| serving_by(device, said, members)).collect()
}

fn serving_by(
    device: &Author,
    (_, concurrency): &(Order, Option<u32>),
    members: &BTreeMap<Author, Member>,
) -> Option<Serving> {
    members.get(device).filter(|member| member.active)?;
    concurrency.map(|concurrency| Serving { device: *device, concurrency })
}

fn forks(ledger: &Ledger) -> Arc<[Fork]> {
    let proven = ledger.chains().iter().filter_map(|(id, chain)| {
        let (seq, proof) = Chain::fork_proof(chain)?;
        Some(Fork { author: id.author, session: id.session, seq, proof })
    });
    proven.collect()
}
