//! Histories of a fleet: several devices with several sessions each, on several sides of a partition,
//! some of them hostile.
//!
//! The model knows what each side has seen and what makes a block valid. It knows nothing of what
//! counts: revoked devices write on, invitations are overdrawn, chains are forked and continued on both
//! branches. What is void among all that is for the ledger to find.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::SigningKey;
use osiris_ledger::{
    Author, BlobHash, BlockId, FleetId, Founding, Ledger, Now, Order, Payload, Role, Roles, Session, World,
    Writer, join_proof, op, recovery_certificate,
};

use crate::forge::Forged;

/// Devices. The first founds the fleet, the next two are admins from the start, the fourth a node.
pub const DEVICES: u8 = 8;
/// Sides of the partition.
pub const SIDES: u8 = 3;
/// The session that a device uses on every side, as a cloned folder would.
pub const CLONED_SESSION: u8 = 3;

/// What a device writes. Numbers are choices among what fits, taken modulo their count.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the names are those of the operations")]
pub enum Action {
    Invite { roles: u8, uses: u32, bound: bool },
    User { roles: u8, devices: u32 },
    Withdraw,
    Recover { device: u8 },
    Admit { device: u8 },
    Revoke { device: u8, keep: u8 },
    Leave { keep: u8 },
    Deploy { name: u8 },
    Remove { name: u8 },
    Serve,
    Stop,
    Claim { slot: u8 },
    Lease,
    Spawning { machines: u32 },
    Scale { name: u8, replicas: u32 },
    Label { device: u8, labels: u8 },
}

/// One step of a history.
#[derive(Clone, Debug)]
pub enum Step {
    /// A device writes on a side; nothing happens where it holds no grant that allows it.
    Write {
        /// The device.
        device: u8,
        /// The side.
        side: u8,
        /// Which of its sessions there.
        session: u8,
        /// How many blocks below the session's end: above zero makes a fork.
        back: u8,
        /// What.
        action: Action,
        /// Decides every choice that the step leaves open.
        choice: u64,
    },
    /// A side learns all that another knows.
    Merge {
        /// Who tells.
        from: u8,
        /// Who learns.
        to: u8,
    },
}

/// A history.
pub type Script = Vec<Step>;

/// A block of a history.
#[derive(Clone, Debug)]
pub struct Made {
    /// The bytes.
    pub entry: Vec<u8>,
    /// Its place in ledger order.
    pub order: Order,
    /// All blocks that it names, as indexes into [`History::blocks`].
    pub needs: Vec<usize>,
    device: u8,
    session: Session,
    seq: u64,
    prev: BlockId,
    payload: Payload,
}

/// What a script made.
#[derive(Debug)]
pub struct History {
    /// The fleet.
    pub fleet: FleetId,
    /// All blocks, each behind those that it names.
    pub blocks: Vec<Made>,
    /// What each side of the partition knows at the end, as indexes into `blocks`.
    pub sides: Vec<BTreeSet<usize>>,
    by_id: BTreeMap<BlockId, usize>,
    tickets: BTreeMap<BlockId, SigningKey>,
}

fn key(kind: u8, n: u64) -> SigningKey {
    let mut seed = [kind; 32];
    seed[..8].copy_from_slice(&n.to_le_bytes());
    SigningKey::from_bytes(&seed)
}

/// The key of a device; those from [`DEVICES`] on are of strangers.
#[must_use]
pub fn device_key(device: u8) -> SigningKey {
    key(1, device.into())
}

fn author(device: u8) -> Author {
    Author(device_key(device).verifying_key().to_bytes())
}

/// One number of `choice`, decorrelated by `salt`: splitmix64.
#[must_use]
pub fn mix(choice: u64, salt: u64) -> u64 {
    let mut z = choice.wrapping_add(salt.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn pick<T: Copy>(from: &[T], choice: u64, salt: u64) -> Option<T> {
    let count = u64::try_from(from.len()).ok().filter(|count| *count > 0)?;
    from.get(usize::try_from(mix(choice, salt) % count).ok()?).copied()
}

/// What an invitation or a user gives, and the only device it is for.
fn offered(payload: &Payload) -> Option<(Roles, Option<Author>)> {
    match payload {
        Payload::Invited(op) => Some((op.roles, op.device)),
        Payload::User(op) => Some((op.roles, None)),
        Payload::Intent(_) => Some((Roles::NODE, None)),
        _ => None,
    }
}

/// Public half of a key.
fn public(key: &SigningKey) -> Author {
    Author(key.verifying_key().to_bytes())
}

/// What admits the machines of all intents.
fn machine_key() -> SigningKey {
    key(5, 0)
}

impl History {
    /// Plays a script.
    #[must_use]
    pub fn play(script: &Script) -> Self {
        let mut history = Self::found();
        for step in script {
            match *step {
                Step::Merge { from, to } => {
                    let told = history.sides[usize::from(from % SIDES)].clone();
                    history.sides[usize::from(to % SIDES)].extend(told);
                }
                Step::Write { device, side, session, back, ref action, choice } => {
                    // A founder that forks voids most of the fleet, so it seldom does.
                    let (session, back) =
                        if device == 0 && choice % 16 > 0 { (session % 2, 0) } else { (session, back) };
                    let at = Place { device: device % DEVICES, side: side % SIDES, session, back };
                    let at = if matches!(action, Action::Lease) { history.claimant(at, choice) } else { at };
                    history.write(at, action, choice);
                }
            }
        }
        history
    }

    /// A fleet with two admins below the founder, and a node that came by an open invitation.
    fn found() -> Self {
        let mut founder = Writer::new(device_key(0), Session([0xf0; 16]));
        let recovery = Author(key(3, 0).verifying_key().to_bytes());
        let founding = Founding {
            name: "model".to_owned(),
            label: "founder".to_owned(),
            admin: &key(2, 0),
            recovery,
            nonce: Session::ZERO,
        };
        let (_, genesis) = founder.found(Now::default(), founding).expect("a valid founding");
        let mut history = Self {
            fleet: FleetId(genesis.id().0),
            blocks: Vec::new(),
            sides: vec![BTreeSet::new(); usize::from(SIDES)],
            by_id: BTreeMap::new(),
            tickets: BTreeMap::new(),
        };
        history.keep(
            0,
            Made {
                entry: genesis.entry().to_vec(),
                order: genesis.order(),
                needs: Vec::new(),
                device: 0,
                session: genesis.chain().session,
                seq: 1,
                prev: BlockId::ZERO,
                payload: genesis.payload().clone(),
            },
        );
        let by_founder = Place { device: 0, side: 0, session: 0, back: 0 };
        for device in [1, 2] {
            history.write(by_founder, &Action::Invite { roles: 2, uses: 1, bound: true }, device);
            let device = u8::try_from(device).expect("small");
            history.write(by_founder, &Action::Admit { device }, 0);
        }
        history.write(by_founder, &Action::Invite { roles: 0, uses: 2, bound: false }, 0);
        history.write(by_founder, &Action::Admit { device: 3 }, 0);
        let all: BTreeSet<_> = (0..history.blocks.len()).collect();
        assert_eq!(all.len(), 7, "the fleet's beginning is valid");
        history.sides.fill(all);
        history
    }

    fn keep(&mut self, side: u8, made: Made) {
        // Two sides may make the same block: a cloned folder that does the same twice.
        let next = self.blocks.len();
        let at = *self.by_id.entry(made.order.id).or_insert(next);
        if at == next {
            self.blocks.push(made);
        }
        self.sides[usize::from(side)].insert(at);
    }

    fn known(&self, side: u8) -> impl Iterator<Item = &Made> {
        self.sides[usize::from(side)].iter().map(|at| &self.blocks[*at])
    }

    fn get(&self, id: &BlockId) -> Option<&Made> {
        self.by_id.get(id).map(|at| &self.blocks[*at])
    }

    /// The grants of a device that a side knows, with their roles.
    fn grants(&self, side: u8, device: u8) -> Vec<(BlockId, Roles)> {
        let roles = |made: &Made| match &made.payload {
            Payload::Founded(_) if device == 0 => Some(Roles::ALL),
            Payload::Admitted(op) if op.device == author(device) => {
                offered(&self.get(&op.invitation)?.payload).map(|(roles, _)| roles)
            }
            Payload::Recovered(op) if op.device == author(device) => Some(Roles::ALL),
            _ => None,
        };
        self.known(side).filter_map(|made| Some((made.order.id, roles(made)?))).collect()
    }

    /// Blocks of one kind that a side knows.
    fn of_kind(&self, side: u8, fits: impl Fn(&Payload) -> bool) -> Vec<BlockId> {
        self.known(side).filter(|made| fits(&made.payload)).map(|made| made.order.id).collect()
    }

    fn write(&mut self, at: Place, action: &Action, choice: u64) {
        let Some((payload, ticket)) = self.payload(at, action, choice) else { return };
        let leaves = matches!(action, Action::Leave { .. });
        let needed = if leaves { Role::Node } else { payload.needs() };
        let named = match &payload {
            Payload::Revoked(op) if leaves => op.grants.first().copied(),
            _ => None,
        };
        let is_intent = matches!(payload, Payload::Intent(_));
        let ticket = ticket.or_else(|| is_intent.then(machine_key));
        let covers =
            |roles: Roles| is_intent || offered(&payload).is_none_or(|(offer, _)| roles.covers(offer));
        let able: Vec<_> = self
            .grants(at.side, at.device)
            .into_iter()
            .filter(|(id, roles)| {
                roles.has(needed) && covers(*roles) && named.is_none_or(|named| named == *id)
            })
            .map(|(id, _)| id)
            .collect();
        let Some(grant) = pick(&able, choice, 1) else { return };
        let (prev, seq) = self.end_of(at);
        let parents = self.parents(at, choice, prev, &grant, &payload);
        let below = parents.iter().copied().chain([prev]);
        let depth = 1 + below.filter_map(|id| self.get(&id)).map(|made| made.order.depth).max().unwrap_or(0);
        let draft = Forged {
            version: 2,
            author: author(at.device),
            session: at.session(),
            seq,
            prev,
            parents,
            depth,
            wall_ms: choice % 4,
            grant,
            payload,
        };
        let entry = draft.seal(&self.fleet, &device_key(at.device));
        let id = BlockId(*blake3::hash(&entry).as_bytes());
        let named = draft.parents.iter().copied().chain([prev, grant]);
        let named = named.chain(draft.payload.references());
        let needs = named.filter_map(|id| self.by_id.get(&id).copied()).collect();
        if let Some(ticket) = ticket {
            self.tickets.insert(id, ticket);
        }
        let (order, payload) = (Order { depth, id }, draft.payload);
        self.keep(
            at.side,
            Made { entry, order, needs, device: at.device, session: at.session(), seq, prev, payload },
        );
    }

    /// Where a device writes next in a session, as its side knows it.
    fn end_of(&self, at: Place) -> (BlockId, u64) {
        let chain: Vec<_> =
            self.known(at.side).filter(|m| m.device == at.device && m.session == at.session()).collect();
        let mut end = chain.iter().max_by_key(|made| (made.seq, made.order)).copied();
        for _ in 0..at.back {
            end = end.and_then(|made| self.get(&made.prev));
        }
        end.map_or((BlockId::ZERO, 1), |made| (made.order.id, made.seq + 1))
    }

    /// Some blocks that the side knows, and what the block must lie above.
    fn parents(
        &self,
        at: Place,
        choice: u64,
        prev: BlockId,
        grant: &BlockId,
        payload: &Payload,
    ) -> Vec<BlockId> {
        let known: Vec<_> = self.known(at.side).map(|made| made.order.id).collect();
        let newest: Vec<_> = known.iter().rev().take(4).copied().collect();
        let mut ids = BTreeSet::new();
        for salt in 0..mix(choice, 2) % 4 {
            ids.extend(pick(if salt == 0 { &newest } else { &known }, choice, 10 + salt));
        }
        let depth = |id: &BlockId| self.get(id).map_or(0, |made| made.order.depth);
        let deepest = payload.references().chain([*grant]).max_by_key(depth);
        if let Some(deepest) = deepest
            && ids.iter().chain([&prev]).all(|id| depth(id) < depth(&deepest))
        {
            ids.insert(deepest);
        }
        if ids.is_empty() && prev == BlockId::ZERO {
            ids.insert(*grant);
        }
        ids.into_iter().collect()
    }

    fn payload(&self, at: Place, action: &Action, choice: u64) -> Option<(Payload, Option<SigningKey>)> {
        let payload = match *action {
            Action::Invite { roles, uses, bound } => {
                let ticket = key(4, self.blocks.len() as u64);
                let roles = if bound {
                    [Roles::NODE, Roles::of(&[Role::Node, Role::Operator, Role::Spawner]), Roles::ALL]
                        [usize::from(roles % 3)]
                } else {
                    Roles::NODE
                };
                let device = bound.then(|| author(u8::try_from(choice % u64::from(DEVICES)).unwrap_or(0)));
                let public = Author(ticket.verifying_key().to_bytes());
                let op = op::Invited { key: public, uses, roles, device, note: String::new() };
                return Some((Payload::Invited(op), Some(ticket)));
            }
            Action::User { roles, devices } => {
                // Every other one is a known user once more, by the same key: so roles change.
                let users = self.of_kind(at.side, |payload| matches!(payload, Payload::User(_)));
                let again = pick(&users, choice, 21).filter(|_| mix(choice, 22).is_multiple_of(2));
                let again = again.and_then(|user| self.tickets.get(&user).cloned());
                let ticket = again.unwrap_or_else(|| key(4, self.blocks.len() as u64));
                let roles = Roles::of(&[Role::Node, Role::ALL[usize::from(roles) % Role::ALL.len()]]);
                let public = Author(ticket.verifying_key().to_bytes());
                let op = op::User { name: "isis".to_owned(), key: public, roles, devices };
                return Some((Payload::User(op), Some(ticket)));
            }
            Action::Withdraw => {
                let offers = self.of_kind(at.side, |payload| offered(payload).is_some());
                let invitation = pick(&offers, choice, 20)?;
                let of = |payload: &Payload| matches!(payload, Payload::Admitted(op) if op.invitation == invitation);
                let admissions = self.of_kind(at.side, of);
                let stands: BTreeSet<_> =
                    (0..choice % 3).filter_map(|n| pick(&admissions, choice, 40 + n)).collect();
                Payload::Withdrawn(op::Withdrawn { invitation, stands: stands.into_iter().collect() })
            }
            Action::Recover { device } => {
                let device = author(device % DEVICES);
                let generation = 1 + u32::try_from(choice % 3).unwrap_or(0);
                let certificate = recovery_certificate(&key(3, 0), &self.fleet, generation, &device);
                let label = "recovered".to_owned();
                Payload::Recovered(op::Recovered { device, label, generation, certificate })
            }
            Action::Admit { device } => self.admission(at, device % DEVICES, choice)?,
            Action::Revoke { device, keep } => {
                // Those who fork are revoked more often, and what they wrote is pinned.
                let forked = Some(self.forked(at.side)).filter(|_| mix(choice, 25).is_multiple_of(2));
                match forked.and_then(|forked| pick(&forked, choice, 26)) {
                    Some(device) => self.revocation(at, device, 0xff, 2, choice)?,
                    None => self.revocation(at, device % DEVICES, keep, 2, choice)?,
                }
            }
            Action::Leave { keep } => self.revocation(at, at.device, keep, 1, choice)?,
            Action::Deploy { name } => {
                let name = format!("f{}", name % 3);
                let replaces = self.replaced(at, &name, choice);
                let component = BlobHash([u8::try_from(choice % 5).unwrap_or(0); 32]);
                let world = World::Native;
                let op = op::Deployed {
                    name,
                    component,
                    size: 9,
                    world,
                    manifest: component,
                    manifest_size: 9,
                    replaces,
                };
                Payload::Deployed(op)
            }
            Action::Remove { name } => {
                let name = format!("f{}", name % 3);
                let replaces = self.replaced(at, &name, choice | 1);
                (!replaces.is_empty()).then_some(Payload::Removed(op::Removed { name, replaces }))?
            }
            Action::Serve | Action::Stop => {
                let revisions = self.of_kind(at.side, |payload| matches!(payload, Payload::Deployed(_)));
                let revision = pick(&revisions, choice, 21)?;
                match action {
                    Action::Serve => Payload::Serving(op::Serving { revision, concurrency: 1 }),
                    _ => Payload::Stopped(op::Stopped { revision }),
                }
            }
            Action::Claim { slot } => {
                let slot = u32::from(slot % 2);
                let of = |payload: &Payload| matches!(payload, Payload::Claimed(op) if op.slot == slot);
                // Some go on from a claim of the slot, some begin it.
                let before =
                    pick(&self.of_kind(at.side, of), choice, 50).filter(|_| choice.is_multiple_of(2));
                let round = before.and_then(|id| match &self.get(&id)?.payload {
                    Payload::Claimed(op) => Some(op.round),
                    _ => None,
                });
                Payload::Claimed(op::Claimed { slot, round: round.unwrap_or(0) + 1, after: before })
            }
            Action::Lease => self.lease(at, choice)?,
            Action::Spawning { machines } => {
                Payload::Spawning(op::Spawning { machines, minority: choice.is_multiple_of(2) })
            }
            Action::Scale { name, replicas } => {
                let name = format!("f{}", name % 3);
                match mix(choice, 60) % 4 {
                    0 => {
                        let range = op::Range { min: replicas, max: replicas + 2 };
                        let range = Some(range).filter(|_| choice.is_multiple_of(3));
                        Payload::Bounded(op::Bounded { name: Some(name), range })
                    }
                    1 => {
                        let range = Some(op::Range { min: 0, max: replicas + 1 });
                        Payload::Bounded(op::Bounded { name: None, range })
                    }
                    _ => {
                        let past = mix(choice, 61);
                        let past = (0..DEVICES).filter(|n| past >> n & 3 == 3).map(author);
                        let mut past: Vec<_> = past.collect();
                        past.sort_unstable();
                        Payload::Scaled(op::Scaled { name, replicas, past })
                    }
                }
            }
            Action::Label { device, labels } => {
                let device = author(device % DEVICES);
                match choice % 6 {
                    0 | 3 => Payload::Budgeted(op::Budgeted { device, blocks: u64::from(labels) + 1 }),
                    1 => Payload::Draining(op::Draining { draining: labels & 1 == 1 }),
                    _ => {
                        let zones = (0..3).filter(|n| labels >> n & 1 == 1);
                        let labels = zones.map(|n| format!("zone={n}")).collect();
                        Payload::Labelled(op::Labelled { device, labels })
                    }
                }
            }
        };
        Some((payload, None))
    }

    /// A device and session of this side that has claimed something, if there is one: few others could go on.
    fn claimant(&self, at: Place, choice: u64) -> Place {
        let claims = |place: &Place| {
            let by = |made: &Made| made.device == place.device && made.session == place.session();
            self.known(at.side).any(|made| by(made) && matches!(made.payload, Payload::Claimed(_)))
        };
        let places = (0..DEVICES)
            .flat_map(|device| (0..=CLONED_SESSION).map(move |session| Place { device, session, ..at }));
        pick(&places.filter(claims).collect::<Vec<_>>(), choice, 56).unwrap_or(at)
    }

    /// Something that follows a claim: activation and intent in the claim's session, a release by its author, a
    /// retirement by anybody.
    fn lease(&self, at: Place, choice: u64) -> Option<Payload> {
        let (prev, _) = self.end_of(at);
        let mut chain = Vec::new();
        let mut below = self.get(&prev);
        while let Some(made) = below {
            chain.push(made);
            below = self.get(&made.prev);
        }
        let own = |fits: fn(&Payload) -> bool| -> Vec<_> {
            chain.iter().filter(|made| fits(&made.payload)).map(|made| made.order.id).collect()
        };
        let activation = || {
            let claim = pick(&own(|payload| matches!(payload, Payload::Claimed(_))), choice, 52)?;
            Some(Payload::Activated(op::Activated { claim }))
        };
        let intent = || {
            let activation = pick(&own(|payload| matches!(payload, Payload::Activated(_))), choice, 53)?;
            let (target, functions) = ("process".to_owned(), Vec::new());
            let key = public(&machine_key());
            Some(Payload::Intent(op::Intent { activation, target, functions, key }))
        };
        let release = || {
            let by_me =
                |made: &&Made| made.device == at.device && matches!(made.payload, Payload::Claimed(_));
            let claims: Vec<_> = self.known(at.side).filter(by_me).map(|made| made.order.id).collect();
            Some(Payload::Released(op::Released { claim: pick(&claims, choice, 54)? }))
        };
        let retirement = || {
            let intents = self.of_kind(at.side, |payload| matches!(payload, Payload::Intent(_)));
            Some(Payload::Retired(op::Retired { intent: pick(&intents, choice, 55)? }))
        };
        match mix(choice, 51) % 8 {
            0..4 => intent().or_else(activation),
            4..6 => activation(),
            6 => release(),
            _ => retirement(),
        }
    }

    fn admission(&self, at: Place, device: u8, choice: u64) -> Option<Payload> {
        let fits = |payload: &Payload| {
            offered(payload).is_some_and(|(_, bound)| bound.is_none_or(|bound| bound == author(device)))
        };
        let invitation = pick(&self.of_kind(at.side, fits), choice, 22)?;
        let device = author(device);
        let proof = join_proof(self.tickets.get(&invitation)?, &self.fleet, &invitation, &device);
        Some(Payload::Admitted(op::Admitted { invitation, device, proof, label: "device".to_owned() }))
    }

    /// Devices of which a side knows two blocks at one place.
    fn forked(&self, side: u8) -> Vec<u8> {
        let mut places = BTreeSet::new();
        let known = self.known(side);
        let forked: BTreeSet<_> = known
            .filter(|made| !places.insert((made.device, made.session, made.seq)))
            .map(|made| made.device)
            .collect();
        forked.into_iter().collect()
    }

    fn revocation(&self, at: Place, device: u8, keep: u8, most: usize, choice: u64) -> Option<Payload> {
        let mut grants: Vec<_> = self.grants(at.side, device).into_iter().map(|(id, _)| id).collect();
        if mix(choice, 23).is_multiple_of(2) {
            grants.reverse();
        }
        grants.truncate(most);
        grants.sort_unstable();
        let mut last: BTreeMap<_, (u64, Order)> = BTreeMap::new();
        for made in self.known(at.side).filter(|made| made.device == device) {
            let pin = last.entry(made.session).or_insert((made.seq, made.order));
            *pin = (made.seq, made.order).max(*pin);
        }
        let kept = last.into_values().zip(0..).filter(|(_, n)| keep >> (n % 8) & 1 == 1);
        let lower = mix(choice, 24) % 3;
        let below = |(_, order): (u64, Order)| {
            let mut pin = self.get(&order.id)?;
            for _ in 0..lower {
                pin = self.get(&pin.prev)?;
            }
            Some(pin.order.id)
        };
        let pins: BTreeSet<_> = kept.filter_map(|(end, _)| below(end)).collect();
        let op = op::Revoked { grants, pins: pins.into_iter().collect() };
        (!op.grants.is_empty()).then_some(Payload::Revoked(op))
    }

    fn replaced(&self, at: Place, function: &str, choice: u64) -> Vec<BlockId> {
        let register = self.of_kind(at.side, |payload| match payload {
            Payload::Deployed(op) => op.name == function,
            Payload::Removed(op) => op.name == function,
            _ => false,
        });
        let wanted = choice % 3;
        let some: BTreeSet<_> = (0..wanted).filter_map(|n| pick(&register, choice, 30 + n)).collect();
        some.into_iter().collect()
    }

    /// All blocks, as indexes, in ledger order.
    #[must_use]
    pub fn in_order(&self) -> Vec<usize> {
        let mut all: Vec<_> = (0..self.blocks.len()).collect();
        all.sort_unstable_by_key(|at| self.blocks[*at].order);
        all
    }

    /// A set of blocks together with all that they name.
    #[must_use]
    pub fn closed(&self, blocks: impl IntoIterator<Item = usize>) -> BTreeSet<usize> {
        let mut open: Vec<_> = blocks.into_iter().collect();
        let mut closed = BTreeSet::new();
        while let Some(at) = open.pop() {
            if closed.insert(at) {
                open.extend(&self.blocks[at].needs);
            }
        }
        closed
    }

    /// A replica that got these blocks, in this order.
    ///
    /// # Panics
    /// If one is refused: every block of a history is valid.
    #[must_use]
    pub fn replica(&self, blocks: impl IntoIterator<Item = usize>) -> Ledger {
        let mut ledger = Ledger::new(self.fleet);
        for at in blocks {
            ledger.admit(&self.blocks[at].entry).expect("every block of a history is valid");
        }
        ledger
    }
}

#[derive(Clone, Copy, Debug)]
struct Place {
    device: u8,
    side: u8,
    session: u8,
    back: u8,
}

impl Place {
    /// Each side has sessions of its own, but for the cloned one.
    fn session(self) -> Session {
        let cloned = self.session % (CLONED_SESSION + 1) == CLONED_SESSION;
        let side = if cloned { SIDES } else { self.side };
        let mut session = [self.session % (CLONED_SESSION + 1); 16];
        session[0] = side;
        Session(session)
    }
}
