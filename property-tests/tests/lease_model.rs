//! The rule of leases, in every state of a small model: three members, one slot, whole seconds.
//!
//! The members decide by the node's own functions (`osiris_fleet::node::lease::rule`). What is chosen freely, in every
//! combination: who claims when; how long each block takes to each other member, up to D; when a member stands still,
//! is suspended or starts anew, and for how long; and a split of the fleet.
//!
//! In each second the members have their turns, one after the other: a member hears of some of what has been said,
//! looks after its claim, and may claim. Hearing of something after the look is the same as hearing of it in the next
//! second before the look, so that other order need not be tried: what takes D seconds may be heard in the second
//! after those.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use osiris_fleet::node::lease::rule::{self, Mine, Next, Phase, Rival, Terms};
use osiris_ledger::{Author, BlockId, Mono, lease::draw};
use stateright::{Checker, Model, Property};

const MEMBERS: u8 = 3;
const SLOT: u32 = 0;

/// A claim, by its round and author.
type Claim = (u8, u8);

/// What is chosen once.
#[derive(Clone, Debug)]
struct Leases {
    terms: Terms,
    /// How long a block takes at most.
    delay: u8,
    /// What the members take for that.
    believed: u8,
    /// The last second in which somebody claims.
    claims_until: u8,
    /// Claims that a member may make.
    claims: u8,
    /// When it ends.
    end: u8,
    /// How often, in all, something of `kinds` may happen to a member that has a claim.
    faults: u8,
    kinds: &'static [Deed],
    /// When the first member is cut off from the others, and until when.
    split: Option<(u8, u8)>,
    /// Whether claims are renewed, and expire. Then the first member alone claims first, and at once.
    renews: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    now: u8,
    members: [Member; MEMBERS as usize],
    /// On their way: sender and receiver → what was said, in order, each with the second in which it has arrived.
    blocks: BTreeMap<(u8, u8), Vec<(u8, Said)>>,
    /// The same of renewals; a later one takes the place of one before.
    renewals: BTreeMap<(u8, u8), (u8, Claim)>,
    /// Whose turn it is.
    turn: u8,
    faults: u8,
    ever_held: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Member {
    own: Option<Own>,
    known: BTreeMap<Claim, Known>,
    /// Whether it is standing still, or suspended.
    away: Option<Away>,
    /// Seconds that its monotonic clock has missed.
    slept: u8,
    made: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Away {
    since: u8,
    /// Whether its monotonic clock stands still as well.
    suspended: bool,
}

/// Times are by the member's own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Own {
    claim: Claim,
    at: u8,
    since: u8,
    looked: u8,
    renewed: u8,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Known {
    activated: bool,
    released: bool,
    /// When it was last heard of.
    last: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Said {
    Claimed(Claim),
    Activated(Claim),
    Released(Claim),
}

/// A member's turn.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// It is away, and stays so.
    Away,
    /// It comes back.
    Wake,
    /// It hears so much of each other member, first in order first, and of these renewals; looks; and then this.
    Turn { heard: [usize; MEMBERS as usize], renewals: [bool; MEMBERS as usize], deed: Deed },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Nothing,
    Claim,
    StandStill,
    Suspend,
    Restart,
}

fn seconds(count: u8) -> Duration {
    Duration::from_secs(count.into())
}

fn mono(second: u8) -> Mono {
    Mono(1_000 * u64::from(second))
}

fn lot((round, author): Claim) -> rule::Lot {
    (draw(SLOT, round.into(), &Author([author; 32])), BlockId([author; 32]))
}

impl World {
    fn is_awake(&self, member: u8) -> bool {
        self.members[usize::from(member)].away.is_none()
    }

    /// What a member's monotonic clock shows.
    fn clock(&self, member: u8) -> u8 {
        self.now - self.members[usize::from(member)].slept
    }

    fn holds(&self, member: u8) -> bool {
        let own = self.members[usize::from(member)].own;
        self.is_awake(member) && own.is_some_and(|own| own.phase == Phase::Held)
    }

    /// A member appends a block: it knows it, and the others hear of it.
    fn say(&mut self, model: &Leases, member: u8, said: Said) {
        let clock = if model.renews { self.clock(member) } else { 0 };
        self.members[usize::from(member)].learn(said, clock);
        for other in (0..MEMBERS).filter(|other| *other != member) {
            let due = self.now + model.delay;
            self.blocks.entry((member, other)).or_default().push((due, said));
        }
    }

    fn release(&mut self, model: &Leases, member: u8) {
        if let Some(own) = self.members[usize::from(member)].own.take() {
            self.say(model, member, Said::Released(own.claim));
        }
    }

    /// A member looks after its claim.
    fn look(&mut self, model: &Leases, member: u8) {
        let clock = self.clock(member);
        let known = &self.members[usize::from(member)].known;
        let Some(own) = self.members[usize::from(member)].own else { return };
        match model.next(own, clock, known) {
            Next::Wait => {}
            Next::Activate => {
                self.say(model, member, Said::Activated(own.claim));
                self.ever_held = true;
                if let Some(own) = &mut self.members[usize::from(member)].own {
                    own.phase = Phase::Held;
                }
            }
            Next::Release(_) => self.release(model, member),
        }
        if let Some(own) = &mut self.members[usize::from(member)].own {
            own.looked = clock;
        }
    }

    /// What is on its way on these paths arrives so much later.
    fn delay_more(&mut self, seconds: u8, of: impl Fn(u8, u8) -> bool) {
        for ((from, to), said) in &mut self.blocks {
            if of(*from, *to) {
                said.iter_mut().for_each(|(at, _)| *at += seconds);
            }
        }
        for ((from, to), (at, _)) in &mut self.renewals {
            if of(*from, *to) {
                *at += seconds;
            }
        }
    }
}

impl Member {
    fn learn(&mut self, said: Said, clock: u8) {
        let (Said::Claimed(claim) | Said::Activated(claim) | Said::Released(claim)) = said;
        let known = self.known.entry(claim).or_insert(Known { last: clock, ..Known::default() });
        match said {
            Said::Claimed(_) => {}
            Said::Activated(_) => known.activated = true,
            Said::Released(_) => known.released = true,
        }
    }
}

impl Leases {
    fn next(&self, own: Own, clock: u8, known: &BTreeMap<Claim, Known>) -> Next {
        let believed = seconds(self.believed);
        let mine = Mine {
            round: own.claim.0.into(),
            lot: lot(own.claim),
            at: mono(own.at),
            since: mono(own.since),
            settle: self.terms.settle(believed),
            looked: mono(own.looked),
            renewed: mono(own.renewed),
            phase: own.phase,
            released: known.get(&own.claim).is_some_and(|known| known.released),
        };
        // As the view has it: the claims of the last round alone.
        let last = known.keys().map(|claim| claim.0).max();
        let rivals = known.iter().filter(|(claim, _)| Some(claim.0) == last && **claim != own.claim);
        let rivals = rivals.map(|(claim, known)| Rival {
            round: claim.0.into(),
            lot: lot(*claim),
            activated: known.activated,
            released: known.released,
        });
        rule::look(&self.terms, mono(clock), &mine, believed, rivals)
    }

    /// The round that a member may claim.
    fn may_claim(&self, world: &World, member: u8) -> Option<u8> {
        let me = &world.members[usize::from(member)];
        if me.away.is_some() || me.own.is_some() || me.made >= self.claims || world.now > self.claims_until {
            return None;
        }
        let last = me.known.keys().map(|claim| claim.0).max().unwrap_or(0);
        if self.renews && (last == 0) != (member == 0 && world.now == 0) {
            return None;
        }
        let clock = mono(world.clock(member));
        let live = |known: &Known| {
            !known.released
                && (!self.renews
                    || rule::is_live(&self.terms, clock, mono(known.last), seconds(self.believed)))
        };
        let others = me.known.iter().filter(|(claim, _)| claim.0 == last && claim.1 != member);
        others.map(|(_, known)| known).all(|known| !live(known)).then_some(last + 1)
    }

    fn is_split(&self, now: u8) -> bool {
        self.split.is_some_and(|(from, to)| (from..to).contains(&now))
    }

    fn carries(&self, now: u8, from: u8, to: u8) -> bool {
        !self.is_split(now) || (from == 0) == (to == 0)
    }

    /// Whether two members have had time to hear of each other since they were split.
    fn are_connected(&self, now: u8, a: u8, b: u8) -> bool {
        let Some((from, to)) = self.split else { return true };
        (a == 0) == (b == 0) || now < from || now > to + self.delay + 1
    }

    /// How much of what one member said another must have heard by now, and how much it may hear.
    fn audible(&self, world: &World, from: u8, to: u8) -> std::ops::RangeInclusive<usize> {
        let said = world.blocks.get(&(from, to)).map(Vec::as_slice).unwrap_or_default();
        if !self.carries(world.now, from, to) {
            return 0..=0;
        }
        let due = said.iter().filter(|(due, _)| *due < world.now && world.is_awake(from)).count();
        due..=said.len()
    }

    /// Whether a renewal may be heard, and whether it must be.
    fn renewal(&self, world: &World, from: u8, to: u8) -> Vec<bool> {
        match world.renewals.get(&(from, to)) {
            Some((due, _)) if self.carries(world.now, from, to) => match *due < world.now {
                true => vec![true],
                false => vec![false, true],
            },
            _ => vec![false],
        }
    }

    fn second(&self, world: &mut World) {
        world.now += 1;
        let now = world.now;
        if self.split.is_some_and(|(_, heal)| heal == now) {
            let due = now + self.delay;
            let across = |(from, to): &(u8, u8)| (*from == 0) != (*to == 0);
            for (_, said) in world.blocks.iter_mut().filter(|(path, _)| across(path)) {
                said.iter_mut().for_each(|(at, _)| *at = due);
            }
            for member in 0..MEMBERS {
                let clock = world.clock(member);
                if let Some(own) = &mut world.members[usize::from(member)].own
                    && own.phase == Phase::Claiming
                {
                    own.since = clock;
                }
            }
        }
        for member in (0..MEMBERS).filter(|_| self.renews) {
            let clock = world.clock(member);
            let away = world.members[usize::from(member)].away.is_some();
            let Some(own) = world.members[usize::from(member)].own.as_mut().filter(|_| !away) else {
                continue;
            };
            own.renewed = clock;
            let claim = own.claim;
            for other in (0..MEMBERS).filter(|other| *other != member) {
                // What is on its way arrives no later for a newer one behind it.
                let due = world.renewals.get(&(member, other)).map_or(now + self.delay, |(due, _)| *due);
                world.renewals.insert((member, other), (due, claim));
            }
        }
    }

    fn wake(&self, world: &mut World, member: u8) {
        let me = &mut world.members[usize::from(member)];
        let Some(Away { since, suspended }) = me.away.take() else { return };
        if suspended {
            me.slept += world.now - since;
            world.release(self, member);
        }
        // What it was in the middle of went on waiting.
        world.delay_more(world.now - since, |from, to| from == member || to == member);
        // Before it handles anything.
        world.look(self, member);
    }

    /// What a member hears, and its look.
    fn hear(&self, world: &mut World, member: u8, heard: &[usize], renewals: &[bool]) {
        let clock = world.clock(member);
        for from in 0..MEMBERS {
            if let Some(said) = world.blocks.get_mut(&(from, member)) {
                let taken: Vec<_> = said.drain(..heard[usize::from(from)]).collect();
                if said.is_empty() {
                    world.blocks.remove(&(from, member));
                }
                for (_, said) in taken {
                    world.members[usize::from(member)].learn(said, if self.renews { clock } else { 0 });
                }
            }
            if renewals[usize::from(from)]
                && let Some((_, claim)) = world.renewals.remove(&(from, member))
                && let Some(known) = world.members[usize::from(member)].known.get_mut(&claim)
            {
                known.last = clock;
            }
        }
        world.look(self, member);
    }

    fn act(&self, world: &mut World, member: u8, deed: Deed) {
        match deed {
            Deed::Nothing => {}
            Deed::Claim => {
                let Some(round) = self.may_claim(world, member) else { return };
                let (claim, at) = ((round, member), world.clock(member));
                let me = &mut world.members[usize::from(member)];
                me.made += 1;
                me.own = Some(Own { claim, at, since: at, looked: at, renewed: at, phase: Phase::Claiming });
                world.say(self, member, Said::Claimed(claim));
            }
            Deed::StandStill | Deed::Suspend => {
                world.faults += 1;
                let away = Away { since: world.now, suspended: deed == Deed::Suspend };
                world.members[usize::from(member)].away = Some(away);
            }
            Deed::Restart => {
                world.faults += 1;
                // The new process knows what the journal holds, and says that the old one's claim is over.
                world.release(self, member);
            }
        }
    }
}

impl Model for Leases {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            now: 0,
            members: Default::default(),
            blocks: BTreeMap::new(),
            renewals: BTreeMap::new(),
            turn: 0,
            faults: 0,
            ever_held: false,
        }]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        let member = world.turn;
        let me = &world.members[usize::from(member)];
        if world.now >= self.end {
            return;
        }
        if me.away.is_some() {
            return steps.extend([Step::Away, Step::Wake]);
        }
        let mut deeds = vec![Deed::Nothing, Deed::Claim];
        // Where leases expire, it is the first holder that stands still.
        let may_fault =
            me.own.is_some_and(|own| !self.renews || (own.claim.0, own.phase) == (1, Phase::Held));
        if world.faults < self.faults && may_fault {
            deeds.extend(self.kinds);
        }
        let [a, b] = [(member + 1) % MEMBERS, (member + 2) % MEMBERS];
        for from_a in self.audible(world, a, member) {
            for from_b in self.audible(world, b, member) {
                for renews_a in self.renewal(world, a, member) {
                    for renews_b in self.renewal(world, b, member) {
                        let (mut heard, mut renewals) = ([0; 3], [false; 3]);
                        (heard[usize::from(a)], heard[usize::from(b)]) = (from_a, from_b);
                        (renewals[usize::from(a)], renewals[usize::from(b)]) = (renews_a, renews_b);
                        steps.extend(deeds.iter().map(|deed| Step::Turn { heard, renewals, deed: *deed }));
                    }
                }
            }
        }
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let (mut next, member) = (world.clone(), world.turn);
        match step {
            Step::Away => {}
            Step::Wake => self.wake(&mut next, member),
            Step::Turn { heard, renewals, deed } => {
                self.hear(&mut next, member, &heard, &renewals);
                if deed == Deed::Claim && self.may_claim(&next, member).is_none() {
                    return None;
                }
                self.act(&mut next, member, deed);
            }
        }
        next.turn = (member + 1) % MEMBERS;
        if next.turn == 0 {
            self.second(&mut next);
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("one holder", |model: &Self, world: &World| {
                let mut pairs = (0..MEMBERS).flat_map(|a| (0..a).map(move |b| (a, b)));
                pairs
                    .all(|(a, b)| !(world.holds(a) && world.holds(b) && model.are_connected(world.now, a, b)))
            }),
            Property::always("somebody wins", |model: &Self, world: &World| {
                let claimed = world.members.iter().any(|member| member.made > 0);
                let calm = world.faults == 0 && model.split.is_none();
                world.now < model.end || !calm || !claimed || world.ever_held
            }),
            Property::sometimes("a holder", |_: &Self, world: &World| (0..MEMBERS).any(|m| world.holds(m))),
            Property::sometimes("taken over", |model: &Self, world: &World| {
                !model.renews || (1..MEMBERS).any(|m| world.holds(m))
            }),
        ]
    }
}

/// Checks a model to its end, and says how much that was.
fn check(name: &str, model: Leases) -> impl Checker<Leases> {
    let start = Instant::now();
    let checker = model.checker().threads(2).spawn_bfs().join();
    eprintln!("{name}: {} states, {:?}", checker.unique_state_count(), start.elapsed());
    checker
}

/// The node's terms in a small measure: the margin above what counts as standing still, the wait above twice D.
fn small() -> Leases {
    Leases {
        terms: Terms { margin: seconds(3), standstill: seconds(1), keep: seconds(3) },
        delay: 1,
        believed: 1,
        claims_until: 1,
        claims: 1,
        end: 10,
        faults: 0,
        kinds: &[],
        split: None,
        renews: false,
    }
}

#[test]
fn of_members_that_hear_of_each_other_in_time_one_holds_the_slot_and_somebody_does() {
    let checker = check("claims", Leases { claims_until: 2, ..small() });
    checker.assert_properties();
}

#[test]
fn a_wait_no_longer_than_the_delay_lets_two_hold_it() {
    let hasty = Terms { margin: seconds(1), ..small().terms };
    let checker = check("hasty", Leases { terms: hasty, believed: 0, ..small() });
    let path = checker.discovery("one holder").expect("two holders are found");
    assert_eq!(
        path.into_states().last().map(|world| (0..MEMBERS).filter(|m| world.holds(*m)).count()),
        Some(2)
    );
}

#[test]
fn a_member_that_stands_still_is_suspended_or_starts_anew_is_no_second_holder() {
    let any = &[Deed::StandStill, Deed::Suspend, Deed::Restart];
    check("one fault", Leases { faults: 1, kinds: any, end: 7, ..small() }).assert_properties();
    // Twice so briefly that it may not be noticed.
    let still = &[Deed::StandStill];
    let twice = Leases { faults: 2, kinds: still, claims_until: 0, end: 7, ..small() };
    check("stands still twice", twice).assert_properties();
}

#[test]
fn a_process_that_may_stand_still_unnoticed_lets_two_hold_the_slot() {
    let blind = Terms { standstill: seconds(99), ..small().terms };
    let model =
        Leases { faults: 1, kinds: &[Deed::StandStill], claims_until: 0, end: 9, terms: blind, ..small() };
    assert!(check("blind", model).discovery("one holder").is_some());
}

#[test]
fn on_each_side_of_a_split_and_after_its_heal_one_holds_the_slot() {
    for split in [(0, 3), (1, 4), (2, 6)] {
        check("split", Leases { split: Some(split), end: 11, ..small() }).assert_properties();
    }
}

#[test]
fn a_holder_that_is_gone_is_taken_over_and_is_none_when_it_comes_back() {
    let model = Leases {
        terms: Terms { margin: seconds(1), keep: seconds(1), ..small().terms },
        claims_until: 10,
        end: 13,
        faults: 1,
        kinds: &[Deed::StandStill],
        renews: true,
        ..small()
    };
    let checker = check("expiry", model);
    checker.assert_no_discovery("one holder");
    checker.assert_any_discovery("taken over");
}
