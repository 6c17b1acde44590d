//! Leases: slots for machines, each won by one member in each round, without a leader and without a clock.
//!
//! A slot is a place for one machine that the fleet makes itself. Who wants to make it, or to look after it,
//! appends a claim; of the claims of one round the lowest [`draw`] wins. How long a member waits before it
//! believes that it has won is not the ledger's affair (`docs/leases.md`): here is only what the blocks say.
//!
//! Claims and intents are kept whether or not they count. A round that was ever claimed is never claimed again,
//! because (slot, round) is the machine's name; and an intent stays visible until its machine is gone, also when
//! its author was revoked: else nobody would look for that machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::Serialize;

use crate::{
    block::{Block, Order},
    held::Held,
    id::{Author, BlockId},
    ledger::Ledger,
    op::{Intent, Payload},
};

const DOMAIN: &[u8] = b"osiris-lease-v1";

/// A claim's lot: of one round's claims the lowest wins.
/// `blake3("osiris-lease-v1" ‖ slot u32 LE ‖ round u64 LE ‖ author)`.
#[must_use]
pub fn draw(slot: u32, round: u64, author: &Author) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(DOMAIN);
    hasher.update(&slot.to_le_bytes());
    hasher.update(&round.to_le_bytes());
    hasher.update(&author.0);
    *hasher.finalize().as_bytes()
}

/// How many machines the fleet may make. Until an admin says so: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SpawnPolicy {
    /// Machines that may have been made and not be retired, at most.
    pub machines: u32,
    /// Whether one may be made without contact to a majority of the voters.
    pub minority: bool,
}

/// A slot for a machine, as the blocks say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Slot {
    /// Its number, from 0.
    pub number: u32,
    /// The last round with a claim that counts; 0 where no claim counts.
    pub round: u64,
    /// The round that a new claim is for: one above every round that was ever claimed.
    pub next: u64,
    /// A claim of the round before that, counting or not, which the new claim names.
    pub after: Option<BlockId>,
    /// The claims of `round` that count, the lowest draw first.
    pub claims: Vec<Claim>,
    /// Machines that were to be made in this slot and are not retired, of all rounds, the latest last. Also
    /// those whose intent does not count.
    pub machines: Vec<Machine>,
}

/// A claim that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Claim {
    /// The `claimed` block.
    pub id: BlockId,
    /// Whose it is.
    pub author: Author,
    /// Whether its author said that it won.
    pub activated: bool,
    /// Whether its author said that it is over.
    pub released: bool,
}

/// A machine that was to be made, and may be there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// The `intent` block.
    pub intent: BlockId,
    /// The claim under which it was written.
    pub claim: BlockId,
    /// With the slot, the machine's name.
    pub round: u64,
    /// Who was to make it.
    pub by: Author,
    /// Name of the target that was to make it.
    pub target: String,
    /// Functions that it is for.
    pub functions: Vec<String>,
    /// Public half of the key that admits it.
    pub key: Author,
    /// The device that was admitted as this machine. Whether it still is a member the members say.
    pub device: Option<Author>,
    /// Whether the intent counts. Where it does not, its author was revoked or forked its chain.
    pub counts: bool,
    /// Whether it has to go: its intent does not count, or another of the slot stays. That is the one of the
    /// latest round, and of several of one round the lowest draw's.
    pub surplus: bool,
}

impl Slot {
    /// Who holds the slot, as the blocks say: the lowest draw of the last round that was activated and not
    /// released. Whether it is still there is known by its renewals alone.
    #[must_use]
    pub fn holder(&self) -> Option<&Claim> {
        self.claims.iter().find(|claim| claim.activated && !claim.released)
    }
}

/// Slots by number. Snapshots share those of which nothing was said in between.
pub(crate) type Slots = BTreeMap<u32, Arc<Slot>>;

/// What valid blocks say of leases and machines, counting or not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leases {
    /// Slot → round → claims.
    slots: BTreeMap<u32, BTreeMap<u64, BTreeSet<BlockId>>>,
    claims: BTreeMap<BlockId, ClaimSaid>,
    /// Activation → its claim.
    activations: BTreeMap<BlockId, BlockId>,
    intents: BTreeMap<BlockId, IntentSaid>,
    /// Slot → intents under its claims.
    intended: BTreeMap<u32, BTreeSet<BlockId>>,
    policies: BTreeMap<Order, SpawnPolicy>,
    /// See [`Leases::take_touched`].
    touched: Option<BTreeSet<u32>>,
}

#[derive(Clone, Debug)]
struct ClaimSaid {
    slot: u32,
    round: u64,
    author: Author,
    activations: BTreeSet<BlockId>,
    releases: BTreeSet<BlockId>,
}

#[derive(Clone, Debug)]
struct IntentSaid {
    claim: BlockId,
    block: Arc<Block>,
    retirements: BTreeSet<BlockId>,
}

impl Leases {
    /// Takes a valid block. Returns whether it is about leases or machines.
    pub(crate) fn insert(&mut self, block: &Arc<Block>) -> bool {
        let id = block.id();
        let claim = match block.payload() {
            Payload::Claimed(op) => {
                self.slots.entry(op.slot).or_default().entry(op.round).or_default().insert(id);
                let said = ClaimSaid {
                    slot: op.slot,
                    round: op.round,
                    author: block.author(),
                    activations: BTreeSet::new(),
                    releases: BTreeSet::new(),
                };
                self.claims.insert(id, said);
                Some(id)
            }
            Payload::Activated(op) => {
                self.activations.insert(id, op.claim);
                if let Some(claim) = self.claims.get_mut(&op.claim) {
                    claim.activations.insert(id);
                }
                Some(op.claim)
            }
            Payload::Released(op) => {
                if let Some(claim) = self.claims.get_mut(&op.claim) {
                    claim.releases.insert(id);
                }
                Some(op.claim)
            }
            Payload::Intent(op) => {
                let claim = self.activations.get(&op.activation).copied();
                if let Some(claim) = claim {
                    let (retirements, block) = (BTreeSet::new(), Arc::clone(block));
                    self.intents.insert(id, IntentSaid { claim, block, retirements });
                    if let Some(ClaimSaid { slot, .. }) = self.claims.get(&claim) {
                        self.intended.entry(*slot).or_default().insert(id);
                    }
                }
                claim
            }
            Payload::Retired(op) => self.intents.get_mut(&op.intent).map(|intent| {
                intent.retirements.insert(id);
                intent.claim
            }),
            Payload::Spawning(op) => {
                let policy = SpawnPolicy { machines: op.machines, minority: op.minority };
                self.policies.insert(block.order(), policy);
                None
            }
            _ => return false,
        };
        let slot = claim.and_then(|claim| self.claims.get(&claim)).map(|claim| claim.slot);
        self.touched.get_or_insert_default().extend(slot);
        true
    }

    /// The slots of which something was said since the last call; none where nothing came at all.
    pub(crate) fn take_touched(&mut self) -> Option<BTreeSet<u32>> {
        self.touched.take()
    }
}

/// Whether what an operation about leases refers to is of the right kind and author.
pub(crate) fn refers_rightly(block: &Block, reference: Option<Held<'_>>) -> bool {
    let said = reference.and_then(Held::payload);
    let same_chain = reference.is_some_and(|held| held.chain() == block.chain());
    match block.payload() {
        Payload::Claimed(op) => reference.is_none_or(|before| op.follows(before)),
        Payload::Activated(_) => same_chain && matches!(said, Some(Payload::Claimed(_))),
        Payload::Intent(_) => same_chain && matches!(said, Some(Payload::Activated(_))),
        Payload::Released(_) => {
            let own = reference.is_some_and(|held| held.author() == block.author());
            own && matches!(said, Some(Payload::Claimed(_)))
        }
        Payload::Retired(_) => matches!(said, Some(Payload::Intent(_))),
        _ => false,
    }
}

impl Ledger {
    /// How many machines the fleet may make, by the last word of an admin that counts. As of the last
    /// [`Ledger::publish`].
    pub(crate) fn spawning(&self) -> SpawnPolicy {
        let newest = self.leases().policies.iter().rev().find(|(order, _)| self.counts(&order.id));
        newest.map_or_else(SpawnPolicy::default, |(_, policy)| *policy)
    }

    /// What blocks say of each slot that was ever claimed.
    pub(crate) fn slots(&self) -> Slots {
        self.leases().slots.keys().filter_map(|number| Some((*number, self.slot(*number)?))).collect()
    }

    /// The same after something was said of some slots.
    pub(crate) fn slots_after(&self, before: &Slots, touched: &BTreeSet<u32>) -> Slots {
        let mut slots = before.clone();
        slots.extend(touched.iter().filter_map(|number| Some((*number, self.slot(*number)?))));
        slots
    }

    /// What blocks say of a slot, if it was ever claimed.
    fn slot(&self, number: u32) -> Option<Arc<Slot>> {
        let leases = self.leases();
        let rounds = leases.slots.get(&number)?;
        let last = rounds.last_key_value();
        let counting = rounds.iter().rev().find_map(|(round, ids)| {
            let claims = self.claims_of(ids);
            (!claims.is_empty()).then_some((*round, claims))
        });
        let (round, claims) = counting.unwrap_or_default();
        let intents = leases.intended.get(&number).into_iter().flatten();
        let machines = intents.filter_map(|id| self.machine(*id, leases.intents.get(id)?)).collect();
        Some(Arc::new(Slot {
            number,
            round,
            next: last.map_or(0, |(round, _)| *round).saturating_add(1),
            after: last.and_then(|(_, ids)| ids.first().copied()),
            claims,
            machines: told_apart(machines),
        }))
    }

    /// The intent of a slot and round whose id begins with these hexadecimal digits, and its author; also where its
    /// machine is gone.
    #[must_use]
    pub fn intent_of(&self, (slot, round): (u32, u64), digits: &str) -> Option<(BlockId, Author)> {
        let leases = self.leases();
        let of = |said: &IntentSaid| {
            leases.claims.get(&said.claim).is_some_and(|claim| (claim.slot, claim.round) == (slot, round))
        };
        let mut fits =
            leases.intents.iter().filter(|(id, said)| of(said) && id.to_string().starts_with(digits));
        fits.next().map(|(id, said)| (*id, said.block.author()))
    }

    /// Those of one round's claims that count, the lowest draw first.
    fn claims_of(&self, ids: &BTreeSet<BlockId>) -> Vec<Claim> {
        let any_counts = |ids: &BTreeSet<BlockId>| ids.iter().any(|id| self.counts(id));
        let mut claims = Vec::new();
        for id in ids.iter().filter(|id| self.counts(id)) {
            let Some(said) = self.leases().claims.get(id) else { continue };
            let claim = Claim {
                id: *id,
                author: said.author,
                activated: any_counts(&said.activations),
                released: any_counts(&said.releases),
            };
            claims.push((draw(said.slot, said.round, &said.author), claim));
        }
        claims.sort_unstable_by_key(|(draw, claim)| (*draw, claim.id));
        claims.into_iter().map(|(_, claim)| claim).collect()
    }

    /// What an intent says, with the draw of its claim, unless somebody who counts says that it is gone.
    fn machine(&self, id: BlockId, said: &IntentSaid) -> Option<([u8; 32], Machine)> {
        if said.retirements.iter().any(|id| self.counts(id)) {
            return None;
        }
        let claim = self.leases().claims.get(&said.claim)?;
        let Payload::Intent(Intent { target, functions, key, .. }) = said.block.payload() else {
            return None;
        };
        let offer = self.standings().offers.get(&id);
        let machine = Machine {
            intent: id,
            claim: said.claim,
            round: claim.round,
            by: said.block.author(),
            target: target.clone(),
            functions: functions.clone(),
            key: *key,
            device: offer.and_then(|offer| offer.admitted.first().copied()),
            counts: self.counts(&id),
            surplus: false,
        };
        Some((draw(claim.slot, claim.round, &claim.author), machine))
    }
}

/// The machines of a slot, the latest last, each marked unless it is the one that stays.
fn told_apart(mut machines: Vec<([u8; 32], Machine)>) -> Vec<Machine> {
    use std::cmp::Reverse;
    machines.sort_unstable_by_key(|(draw, machine)| (machine.round, Reverse(*draw), Reverse(machine.intent)));
    let stays = machines.iter().rev().map(|(_, machine)| machine).find(|machine| machine.counts);
    let stays = stays.map(|machine| machine.intent);
    let mut machines: Vec<_> = machines.into_iter().map(|(_, machine)| machine).collect();
    for machine in &mut machines {
        machine.surplus = Some(machine.intent) != stays;
    }
    machines
}
