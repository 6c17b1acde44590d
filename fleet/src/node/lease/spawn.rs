//! Machines: from a lease that is won until its machine is gone.
//!
//! The intent is durable before anything is made, and it is the machine's invitation: its key is derived, not kept, so
//! that no ticket is ever stored. What an intent stands for is decided by the ledger alone where this process does not
//! know better: a machine that was never admitted is taken away again, so nothing is left of a maker that died between
//! its intent and its machine. Who performs an [`Errand`] has to be able to do it twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use osiris_ledger::{
    BlockId, Mono, Now, Payload, SigningKey,
    lease::{Machine, Slot},
    op,
};

use super::{
    super::{Effect, Node},
    Want,
    rule::{Loss, Phase},
    states::Share,
};

/// How long a lease that was won for a machine is kept while none may be made by it.
pub const SPEND_PATIENCE: Duration = Duration::from_secs(60);
/// How often a node with machines looks at them without being asked.
pub const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Pause between two claims for slots whose makers are gone.
pub const REAP_EVERY: Duration = Duration::from_secs(15);
/// Pause after a first failure, of making a machine or of taking one away; it doubles with each.
pub const RETRY_FIRST: Duration = Duration::from_secs(15);
/// Longest such pause.
pub const RETRY_MAX: Duration = Duration::from_secs(30 * 60);
/// Looks in a row at which a machine was not there, until it is taken to be gone.
pub const MISSING_LOOKS: u8 = 2;
/// Digits of an intent's id in the name of its machine.
const INTENT_DIGITS: usize = 16;

/// What this node makes machines with.
#[derive(Clone)]
pub struct Provisioning {
    /// Name of the target, which the intents say.
    pub target: String,
    /// Whether this node reaches machines of the same target that others made, and so may take away what they left.
    pub shared: bool,
    /// Whether machines of the target are known by their states alone, so that makers share those.
    pub by_state: bool,
    /// What the keys of invitations are derived from. Nobody else may know it.
    pub secret: [u8; 32],
}

impl fmt::Debug for Provisioning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provisioning").field("target", &self.target).finish_non_exhaustive()
    }
}

impl Provisioning {
    /// The key that admits the machine of this slot and round. The activation is another one in each session.
    fn key(&self, slot: u32, round: u64, activation: &BlockId) -> SigningKey {
        let mut said = self.secret.to_vec();
        said.extend(slot.to_le_bytes());
        said.extend(round.to_le_bytes());
        said.extend(activation.0);
        SigningKey::from_bytes(&blake3::derive_key("osiris machine invitation v1", &said))
    }
}

/// A machine, as its provisioner is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spawn {
    /// Its slot.
    pub slot: u32,
    /// Its round.
    pub round: u64,
    /// Its intent, which is its invitation.
    pub intent: BlockId,
    /// Name of the target.
    pub target: String,
    /// Functions that it is for.
    pub functions: Vec<String>,
}

impl Spawn {
    pub(super) fn of(slot: u32, machine: &Machine) -> Self {
        let Machine { round, intent, target, functions, .. } = machine;
        Self { slot, round: *round, intent: *intent, target: target.clone(), functions: functions.clone() }
    }

    /// What it carries as a label: slot, round and the beginning of its intent, so that two sides of a split do not
    /// mean each other's.
    #[must_use]
    pub fn id(&self) -> String {
        spawn_id(self.slot, self.round, &self.intent)
    }
}

fn spawn_id(slot: u32, round: u64, intent: &BlockId) -> String {
    let mut digits = intent.to_string();
    digits.truncate(INTENT_DIGITS);
    format!("m{slot}-{round}-{digits}")
}

/// Slot, round and digits of an intent's id.
fn parse_spawn_id(id: &str) -> Option<(u32, u64, &str)> {
    let mut parts = id.strip_prefix('m')?.splitn(3, '-');
    let (slot, round) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().filter(|digits| digits.len() == INTENT_DIGITS).map(|digits| (slot, round, digits))
}

/// Something to be done about a machine. The answer is [`super::super::Input::Provisioned`] or
/// [`super::super::Input::Removed`].
#[derive(Debug)]
pub struct Errand {
    /// Which one.
    pub machine: Spawn,
    /// What.
    pub job: Job,
    /// How its state is shared; none: not at all.
    pub share: Option<Share>,
}

/// See [`Errand`].
#[derive(Debug)]
pub enum Job {
    /// Make it: the secret half of its invitation's key.
    Make(Box<SigningKey>),
    /// Take it away, also where it was made in part or not at all.
    Remove,
}

impl Job {
    /// What it is, in a word.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Make(_) => "make",
            Self::Remove => "remove",
        }
    }
}

/// How often what happened to machines of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MachineCounts {
    /// Made.
    pub made: u64,
    /// Making one failed.
    pub failed: u64,
    /// Taken away, and the ledger told.
    pub retired: u64,
    /// Of those: not made by this process, but left by an earlier one or by another member.
    pub reconciled: u64,
}

#[derive(Clone, Debug)]
struct Work {
    machine: Spawn,
    state: State,
    tries: u32,
    /// Whether this process made it, or tried to.
    own: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Making,
    Made,
    Removing,
    /// It has to be taken away, from this moment on.
    Goes(Mono),
}

/// Machines as this process has to do with them.
#[derive(Debug, Default)]
pub(in super::super) struct Machines {
    with: Option<Provisioning>,
    work: BTreeMap<BlockId, Work>,
    /// Machines that somebody wants gone.
    unwanted: BTreeSet<BlockId>,
    /// At how many looks in a row an own machine was not there.
    missing: BTreeMap<BlockId, u8>,
    /// Failures to make one since the last success, and until when none is tried.
    failures: u32,
    not_before: Option<Mono>,
    look_at: Option<Mono>,
    reaped: Option<Mono>,
    /// Why the target could not be asked at the last look.
    unreached: Option<String>,
    counts: MachineCounts,
}

impl Machines {
    pub(super) fn deadline(&self) -> Option<Mono> {
        self.look_at
    }

    pub(super) fn counts(&self) -> MachineCounts {
        self.counts
    }

    pub(super) fn with(&self) -> Option<&Provisioning> {
        self.with.as_ref()
    }

    /// Name of the target, where this node makes machines.
    pub(super) fn target(&self) -> Option<&str> {
        self.with.as_ref().map(|with| with.target.as_str())
    }

    /// What this process does about machines, in a word each.
    pub(super) fn states(&self) -> BTreeMap<BlockId, &'static str> {
        let word = |work: &Work| match work.state {
            State::Making => "being made",
            State::Made => "made",
            State::Removing => "being taken away",
            State::Goes(_) => "to be taken away",
        };
        self.work.iter().map(|(intent, work)| (*intent, word(work))).collect()
    }

    /// Why no claim for a machine is worth the wait.
    pub(super) fn must_wait(&self, now: Mono) -> Result<(), String> {
        if let Some(why) = &self.unreached {
            let target = self.target().unwrap_or_default();
            return Err(format!("The target {target} is not reached: {why}."));
        }
        match self.not_before.filter(|at| now < *at) {
            Some(at) => Err(format!(
                "The last {} machine(s) could not be made; the next try is in {} s.",
                self.failures,
                at.since(now).as_secs() + 1
            )),
            None => Ok(()),
        }
    }
}

fn pause(failures: u32) -> Duration {
    RETRY_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(RETRY_MAX)
}

impl Node {
    /// Lets this node make machines by itself, from the next lease on that it wins; none: leases come to nothing.
    pub fn provision(&mut self, with: Option<Provisioning>) {
        self.leases.machines.with = with;
    }

    /// Makes machines by leases that were won for them, and takes away those that have to go.
    pub(in super::super) fn look_after_machines(&mut self, now: Now) {
        self.leases.machines.look_at = None;
        self.look_after_states();
        let may_write = self.read_only.is_none() && self.view.is_member(&self.me);
        if self.leases.machines.with.is_none() || !self.started || !self.serves || !may_write {
            return;
        }
        self.spend(now);
        self.take_away(now);
        self.reap(now);
        let due = self.leases.machines.work.values().filter_map(|work| match work.state {
            State::Goes(at) => Some(at),
            _ => None,
        });
        let soon = now.mono.plus(Duration::from_millis(1));
        let again = (self.machines() > 0).then(|| now.mono.plus(LOOK_AGAIN));
        self.leases.machines.look_at = due.chain(again).min().map(|at| at.max(soon));
    }

    /// What was won for a machine is spent, and what was won to look after a slot is given up once that is done.
    fn spend(&mut self, now: Now) {
        let held = self.leases.own.iter().filter(|(_, own)| own.mine.phase == Phase::Held);
        let held: Vec<_> = held.map(|(slot, own)| (*slot, own.wants, own.intent)).collect();
        for (slot, wants, intent) in held {
            let Some(own) = self.leases.own.get(&slot) else { continue };
            match (wants, intent) {
                (Want::Machine, None) => match self.may_spend(slot, own) {
                    Ok(()) => self.begin(now, slot),
                    Err(_) if now.mono.since(own.mine.at) < SPEND_PATIENCE => {}
                    Err(why) => {
                        self.leases.says = Some(format!("Slot {slot} was given up: {why}."));
                        self.close(now, slot);
                    }
                },
                (Want::Machine, Some(intent)) if !self.leases.machines.work.contains_key(&intent) => {
                    self.close(now, slot);
                }
                (Want::Slot(_), _) if !self.is_busy(slot) => self.close(now, slot),
                _ => {}
            }
        }
    }

    /// Whether something of a slot is still to be taken away.
    fn is_busy(&self, slot: u32) -> bool {
        let busy =
            self.leases.machines.work.values().any(|work| {
                work.machine.slot == slot && matches!(work.state, State::Removing | State::Goes(_))
            });
        let said = self.view.slots().get(&slot);
        busy || said.is_some_and(|slot| slot.machines.iter().any(|machine| self.goes(slot, machine)))
    }

    /// A lease has done its work.
    fn close(&mut self, now: Now, slot: u32) {
        let Some(own) = self.leases.own.remove(&slot) else { return };
        // Where it cannot be said, silence says so later.
        let _ = self.append(now, Payload::Released(op::Released { claim: own.claim }));
        self.leases.renew_by(&mut self.telemetry);
    }

    /// The intent, and behind it, once it is durable, the errand.
    fn begin(&mut self, now: Now, slot: u32) {
        let machines = &self.leases.machines;
        let (Some(with), Some(own)) = (&machines.with, self.leases.own.get(&slot)) else { return };
        let Some(activation) = own.activation else { return };
        let (round, target) = (own.mine.round, with.target.clone());
        let key = with.key(slot, round, &activation);
        let public = osiris_ledger::Author(key.verifying_key().to_bytes());
        let functions = own.functions.clone();
        let intent =
            op::Intent { activation, target: target.clone(), functions: functions.clone(), key: public };
        let Ok(block) = self.append(now, Payload::Intent(intent)) else {
            return self.lose(now, slot, Loss::Void);
        };
        let machine = Spawn { slot, round, intent: block.id(), target, functions };
        if let Some(own) = self.leases.own.get_mut(&slot) {
            own.intent = Some(block.id());
        }
        let work = Work { machine: machine.clone(), state: State::Making, tries: 0, own: true };
        self.leases.machines.work.insert(block.id(), work);
        let share = self.leases.own.get(&slot).and_then(|own| self.share(&machine, own.claim, false));
        let job = Job::Make(Box::new(key));
        self.effects.push_back(Effect::Provision(Errand { machine, job, share }));
    }

    /// Whether this node may touch a machine: it made it, or it holds the slot and reaches what others made.
    fn reaches(&self, slot: &Slot, machine: &Machine) -> bool {
        let Some(with) = &self.leases.machines.with else { return false };
        let holds = || {
            let own = self.leases.own.get(&slot.number);
            own.is_some_and(|own| own.mine.phase == Phase::Held && own.claim != machine.claim)
        };
        with.target == machine.target && (machine.by == self.me || (with.shared && holds()))
    }

    /// Whether a machine has to go by what the ledger says. What this process is making now is not judged yet.
    fn has_to_go(&self, machine: &Machine) -> bool {
        let machines = &self.leases.machines;
        let said = machine.surplus
            || !machine.counts
            || machines.unwanted.contains(&machine.intent)
            || machines.missing.get(&machine.intent).is_some_and(|looks| *looks >= MISSING_LOOKS);
        let joined = machine.device.is_some_and(|device| self.view.is_member(&device));
        let left = machine.device.is_some() && !joined;
        match machines.work.get(&machine.intent).map(|work| work.state) {
            Some(State::Making | State::Removing) => false,
            Some(State::Goes(_)) => true,
            Some(State::Made) => said || left,
            None => said || !joined,
        }
    }

    fn goes(&self, slot: &Slot, machine: &Machine) -> bool {
        self.reaches(slot, machine) && self.has_to_go(machine)
    }

    /// Sends for what has to go and can be reached.
    fn take_away(&mut self, now: Now) {
        let view = std::sync::Arc::clone(&self.view);
        for slot in view.slots().values() {
            for machine in &slot.machines {
                if !self.goes(slot, machine) {
                    continue;
                }
                let spawn = Spawn::of(slot.number, machine);
                let work = Work { machine: spawn, state: State::Goes(now.mono), tries: 0, own: false };
                let work = self.leases.machines.work.entry(machine.intent).or_insert(work);
                if work.state == State::Made {
                    work.state = State::Goes(now.mono);
                }
            }
        }
        // The lease may be gone by which another's machine was reached: then it is not this node's to take away.
        let lost: Vec<_> = view
            .slots()
            .values()
            .flat_map(|slot| slot.machines.iter().map(move |machine| (slot, machine)))
            .filter(|(_, machine)| {
                let work = self.leases.machines.work.get(&machine.intent);
                work.is_some_and(|work| matches!(work.state, State::Goes(_)))
            })
            .filter(|(slot, machine)| !self.reaches(slot, machine))
            .map(|(_, machine)| machine.intent)
            .collect();
        for intent in lost {
            self.leases.machines.work.remove(&intent);
        }
        let mut due = Vec::new();
        for work in self.leases.machines.work.values_mut() {
            if matches!(work.state, State::Goes(at) if at <= now.mono) {
                work.state = State::Removing;
                due.push(work.machine.clone());
            }
        }
        for machine in due {
            let share = self.share_to_remove(&machine);
            self.effects.push_back(Effect::Provision(Errand { machine, job: Job::Remove, share }));
        }
    }

    /// Claims a slot whose maker is gone and left something that this node can take away.
    fn reap(&mut self, now: Now) {
        let machines = &self.leases.machines;
        let Some(with) = machines.with.as_ref().filter(|with| with.shared) else { return };
        if machines.reaped.is_some_and(|at| now.mono < at.plus(REAP_EVERY)) {
            return;
        }
        let is_left = |machine: &&Machine| {
            let by_other = machine.by != self.me && machine.target == with.target;
            let gone = self.lost_its_maker(now, machine);
            by_other && self.has_to_go(machine) && (gone || machines.unwanted.contains(&machine.intent))
        };
        let slots = self.view.slots().values();
        let left = slots.filter(|slot| slot.number < self.slots_max());
        let left = left.filter(|slot| !self.leases.own.contains_key(&slot.number));
        let found = left.filter(|slot| slot.machines.iter().any(|machine| is_left(&machine)));
        if let Some(slot) = found.map(|slot| slot.number).next() {
            self.leases.machines.reaped = Some(now.mono);
            self.want(now, Want::Slot(slot));
        }
    }

    /// A machine was made, or was not.
    pub(in super::super) fn provisioned(&mut self, now: Now, intent: BlockId, made: Result<(), String>) {
        let machines = &mut self.leases.machines;
        let Some(work) = machines.work.get_mut(&intent).filter(|work| work.state == State::Making) else {
            return;
        };
        let slot = work.machine.slot;
        match made {
            Ok(()) => {
                work.state = State::Made;
                machines.missing.remove(&intent);
                (machines.failures, machines.not_before) = (0, None);
                machines.counts.made += 1;
                // Whoever holds the slot now may have said meanwhile that it is gone.
                let known = self.view.slots().get(&slot);
                if !known.is_some_and(|slot| slot.machines.iter().any(|machine| machine.intent == intent)) {
                    work.state = State::Goes(now.mono);
                }
                if self.leases.own.get(&slot).is_some_and(|own| own.intent == Some(intent)) {
                    self.close(now, slot);
                }
            }
            Err(why) => {
                work.state = State::Goes(now.mono);
                let id = work.machine.id();
                machines.failures = machines.failures.saturating_add(1);
                machines.not_before = Some(now.mono.plus(pause(machines.failures)));
                machines.counts.failed += 1;
                let said = format!("The machine {id} was not made: {why}");
                self.effects.push_back(Effect::Warn(said.clone()));
                self.leases.says = Some(said);
            }
        }
    }

    /// A machine is gone, or could not be taken away.
    pub(in super::super) fn removed(&mut self, now: Now, intent: BlockId, gone: Result<(), String>) {
        let machines = &mut self.leases.machines;
        let Some(work) = machines.work.get_mut(&intent).filter(|work| work.state == State::Removing) else {
            return;
        };
        if let Err(why) = gone {
            work.tries = work.tries.saturating_add(1);
            work.state = State::Goes(now.mono.plus(pause(work.tries)));
            let said = format!("The machine {} could not be taken away: {why}", work.machine.id());
            self.effects.push_back(Effect::Warn(said.clone()));
            self.leases.says = Some(said);
            return;
        }
        let own = work.own;
        machines.work.remove(&intent);
        machines.unwanted.remove(&intent);
        machines.missing.remove(&intent);
        let known = self.view.slots().values().flat_map(|slot| &slot.machines);
        if known.into_iter().all(|machine| machine.intent != intent) {
            return;
        }
        match self.append(now, Payload::Retired(op::Retired { intent })) {
            Ok(_) => {
                let counts = &mut self.leases.machines.counts;
                counts.retired += 1;
                counts.reconciled += u64::from(!own);
            }
            Err(refusal) => self.leases.says = Some(refusal.message),
        }
    }

    /// What carries a label of this node's target on what it reaches, by the names of [`Spawn::id`].
    pub(in super::super) fn machines_seen(&mut self, now: Now, seen: Result<BTreeSet<String>, String>) {
        let seen = match seen {
            Ok(seen) => seen,
            Err(why) => {
                self.leases.machines.unreached = Some(why);
                return;
            }
        };
        self.leases.machines.unreached = None;
        let Some(target) = self.leases.machines.target().map(str::to_owned) else { return };
        let view = std::sync::Arc::clone(&self.view);
        let slots = view.slots().values();
        let known = slots.flat_map(|slot| slot.machines.iter().map(|machine| (slot.number, machine)));
        let mut ids = BTreeSet::new();
        for (slot, machine) in known.filter(|(_, machine)| machine.target == target) {
            let id = spawn_id(slot, machine.round, &machine.intent);
            let judged = machine.by == self.me || self.only_looks_tell(now, machine);
            let machines = &mut self.leases.machines;
            let making = machines.work.get(&machine.intent).is_some_and(|work| work.state == State::Making);
            let missing = &mut machines.missing;
            if seen.contains(&id) || !judged || making {
                missing.remove(&machine.intent);
            } else {
                let looks = missing.entry(machine.intent).or_default();
                *looks = looks.saturating_add(1);
            }
            ids.insert(id);
        }
        // What the ledger says is gone, and is there. A name without a block of this fleet is none of its business.
        for id in seen.difference(&ids) {
            let Some((slot, round, digits)) = parse_spawn_id(id) else { continue };
            let Some((intent, by)) = self.ledger.intent_of((slot, round), digits) else { continue };
            if by == self.me {
                let machine = Spawn { slot, round, intent, target: target.clone(), functions: Vec::new() };
                let work = Work { machine, state: State::Goes(now.mono), tries: 0, own: false };
                self.leases.machines.work.entry(intent).or_insert(work);
            }
        }
    }

    /// Whether who made a machine is a member no more, or gone.
    fn lost_its_maker(&self, now: Now, machine: &Machine) -> bool {
        !self.view.is_member(&machine.by) || !self.is_alive(now, &machine.by)
    }

    /// Whether nobody is heard of who could say that another's machine is there, so that what this node's look finds
    /// decides: it reaches what others made, the maker is gone, and the machine is not connected. A maker that dies while
    /// it makes one may leave a member and no machine.
    fn only_looks_tell(&self, now: Now, machine: &Machine) -> bool {
        let shared = self.leases.machines.with.as_ref().is_some_and(|with| with.shared);
        let is_connected = |device: osiris_ledger::Author| self.sync.is_connected(&Self::peer(&device));
        shared && self.lost_its_maker(now, machine) && !machine.device.is_some_and(is_connected)
    }

    /// Whether this node is the one that takes a machine away when it is needed no more: it made it, or it reaches
    /// it and its maker is gone. Not one that is on its way, or to be taken away already.
    pub(in super::super) fn takes_away(&self, now: Now, machine: &Machine) -> bool {
        let machines = &self.leases.machines;
        let Some(with) = machines.with.as_ref().filter(|with| with.target == machine.target) else {
            return false;
        };
        let mine = machine.by == self.me;
        (mine || (with.shared && self.lost_its_maker(now, machine)))
            && !machines.unwanted.contains(&machine.intent)
    }

    /// Somebody wants a machine gone.
    pub(in super::super) fn dismiss(&mut self, intent: BlockId) -> Result<(), String> {
        let slots = self.view.slots().values();
        let mut known = slots.flat_map(|slot| &slot.machines);
        let Some(machine) = known.find(|machine| machine.intent == intent) else {
            return Err(format!(
                "There is no machine of the intent {}, or it is gone already.",
                intent.short()
            ));
        };
        let with = self.leases.machines.with.as_ref();
        match with.filter(|with| with.target == machine.target && (with.shared || machine.by == self.me)) {
            Some(_) => {
                self.leases.machines.unwanted.insert(intent);
                Ok(())
            }
            None => Err("This node cannot reach that machine: ask the member that made it.".to_owned()),
        }
    }
}
