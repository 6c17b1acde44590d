//! The rule by which a member believes that it holds a slot: pure, and the same for the node and for the model that
//! `property-tests/tests/lease_model` checks in all its states.
//!
//! ```text
//! claim      never while a live claim of the slot is known; of the round after all that were claimed
//! settle     wait 2 D + margin after the claim, D being how long a block takes to another spawner
//! activate   if no claim of the round that is known has a lower draw
//! release    else; also where it comes later than twice that, or the process stood still meanwhile
//! ```
//!
//! Why one wins: a rival claims at most D after me, since later it would know my claim, and I hear of it within
//! another D. All of it is measured on one's own monotonic clock; no clock is compared with another's.

use std::time::Duration;

use osiris_ledger::{BlockId, Mono};

/// How long is waited for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// By how much a wait is longer than twice D: more than twice [`Terms::standstill`], since both members, a claim's
    /// author and its rival, may have stood still for that long without noticing.
    pub margin: Duration,
    /// A process that did not look after its claim for longer than this stood still, and may not have heard of
    /// others.
    pub standstill: Duration,
    /// A lease that was not renewed for longer than this is lost to its holder.
    pub keep: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            margin: Duration::from_secs(3),
            standstill: Duration::from_secs(1),
            keep: Duration::from_secs(15),
        }
    }
}

impl Terms {
    /// How long a claim waits before it may be activated, where a block takes `delay` to another spawner.
    #[must_use]
    pub fn settle(&self, delay: Duration) -> Duration {
        delay.saturating_mul(2).saturating_add(self.margin)
    }

    /// How long after its last sign of life another's claim counts as live. More than [`Terms::keep`], since a
    /// renewal is heard after it was written: whoever takes over does so after the holder knows that it has lost.
    #[must_use]
    pub fn expiry(&self, delay: Duration) -> Duration {
        self.keep.saturating_add(delay.saturating_mul(2)).saturating_add(self.margin)
    }
}

/// A claim's place among those of its round: the lowest wins. The draw, and the claim's id where one author made
/// several.
pub type Lot = ([u8; 32], BlockId);

/// Whether an own claim was activated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// It waits.
    Claiming,
    /// It was activated.
    Held,
}

/// An own claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mine {
    /// Its round.
    pub round: u64,
    /// Its place in the round.
    pub lot: Lot,
    /// When it was appended.
    pub at: Mono,
    /// Since when it waits: `at`, or when a spawner was last connected, of whose claims nothing could be known
    /// before.
    pub since: Mono,
    /// How long it was to wait, when it was made.
    pub settle: Duration,
    /// When this process last looked after it.
    pub looked: Mono,
    /// When it was last renewed.
    pub renewed: Mono,
    /// Whether it was activated.
    pub phase: Phase,
    /// Whether a block says that it is over, although this process did not: another one has the same key.
    pub released: bool,
}

/// Another claim of the same slot that counts, of the same round or a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rival {
    /// Its round.
    pub round: u64,
    /// Its place in the round.
    pub lot: Lot,
    /// Whether its author said that it won.
    pub activated: bool,
    /// Whether its author said that it is over.
    pub released: bool,
}

/// What follows for an own claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It waits, or goes on being held.
    Wait,
    /// It won.
    Activate,
    /// It is over.
    Release(Loss),
}

/// Why a claim is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Loss {
    /// Another claim of the round won.
    Outdrawn,
    /// The slot was claimed in a later round.
    Overtaken,
    /// Too much time went by since the claim.
    Late,
    /// This process stood still.
    StoodStill,
    /// The machine was suspended.
    Suspended,
    /// The lease was not renewed in time.
    Lapsed,
    /// It was made ahead, and what it was for did not come about.
    Unneeded,
    /// The claim does not count, or another process of this device gave it up.
    Void,
}

impl Loss {
    /// In words, for people.
    #[must_use]
    pub fn says(self) -> &'static str {
        match self {
            Self::Outdrawn => "another claim of the round won",
            Self::Overtaken => "the slot was claimed in a later round",
            Self::Late => "other members took too long to confirm the claim",
            Self::StoodStill => "this process stood still",
            Self::Suspended => "this machine was suspended",
            Self::Lapsed => "the lease was not renewed in time",
            Self::Unneeded => "the machine is not needed after all",
            Self::Void => "the claim does not count any more",
        }
    }
}

/// What follows for an own claim, now. `delay` is D as it is measured now; it may have grown since the claim.
#[must_use]
pub fn look(
    terms: &Terms,
    now: Mono,
    mine: &Mine,
    delay: Duration,
    rivals: impl IntoIterator<Item = Rival>,
) -> Next {
    let rivals: Vec<_> = rivals.into_iter().collect();
    let same = || rivals.iter().filter(|rival| rival.round == mine.round && rival.lot != mine.lot);
    if mine.released {
        return Next::Release(Loss::Void);
    }
    if rivals.iter().any(|rival| rival.round > mine.round) {
        return Next::Release(Loss::Overtaken);
    }
    match mine.phase {
        Phase::Held if now.since(mine.renewed) > terms.keep => Next::Release(Loss::Lapsed),
        // Both sides of a partition may have activated; after the heal the lower draw stays.
        Phase::Held if same().any(|r| r.activated && !r.released && r.lot < mine.lot) => {
            Next::Release(Loss::Outdrawn)
        }
        Phase::Held => Next::Wait,
        Phase::Claiming if now.since(mine.looked) > terms.standstill => Next::Release(Loss::StoodStill),
        // Whoever says that it won has been believed by others: a lower draw that comes late does not undo it.
        Phase::Claiming if same().any(|rival| rival.activated) => Next::Release(Loss::Outdrawn),
        Phase::Claiming if now.since(mine.at) > mine.settle.saturating_mul(2) => Next::Release(Loss::Late),
        Phase::Claiming if now.since(mine.since) < mine.settle.max(terms.settle(delay)) => Next::Wait,
        Phase::Claiming if same().any(|rival| !rival.released && rival.lot < mine.lot) => {
            Next::Release(Loss::Outdrawn)
        }
        Phase::Claiming => Next::Activate,
    }
}

/// Whether another's claim is to be taken for live: its last sign of life, the claim itself or a renewal, was
/// heard `last`.
#[must_use]
pub fn is_live(terms: &Terms, now: Mono, last: Mono, delay: Duration) -> bool {
    now.since(last) <= terms.expiry(delay)
}

/// Whether so many of the voters are a majority.
#[must_use]
pub fn is_majority(some: usize, voters: usize) -> bool {
    2 * some > voters
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: Duration = Duration::from_secs(5);

    fn lot(n: u8) -> Lot {
        ([n; 32], BlockId([n; 32]))
    }

    fn mine(phase: Phase) -> Mine {
        let (at, settle) = (Mono(1_000), Terms::default().settle(D));
        Mine { round: 2, lot: lot(5), at, since: at, settle, looked: at, renewed: at, phase, released: false }
    }

    fn rival(round: u64, n: u8) -> Rival {
        Rival { round, lot: lot(n), activated: false, released: false }
    }

    /// What follows `ms` after the claim, looked after all the time.
    fn after(ms: u64, mine: Mine, rivals: &[Rival]) -> Next {
        let now = Mono(mine.at.0 + ms);
        let mine = Mine { looked: now, renewed: now, ..mine };
        look(&Terms::default(), now, &mine, D, rivals.iter().copied())
    }

    #[test]
    fn a_claim_waits_for_twice_the_delay_and_then_the_lowest_draw_wins() {
        let claim = mine(Phase::Claiming);
        let settle = u64::try_from(claim.settle.as_millis()).expect("small");
        assert_eq!(settle, 13_000);
        assert_eq!(after(settle - 1, claim, &[]), Next::Wait);
        assert_eq!(after(settle, claim, &[]), Next::Activate);
        assert_eq!(after(settle, claim, &[rival(2, 6)]), Next::Activate);
        assert_eq!(after(settle, claim, &[rival(2, 4)]), Next::Release(Loss::Outdrawn));
        let gone = Rival { released: true, ..rival(2, 4) };
        assert_eq!(after(settle, claim, &[gone]), Next::Activate, "who released is out");
        assert_eq!(after(2 * settle, claim, &[]), Next::Activate);
        assert_eq!(after(2 * settle + 1, claim, &[]), Next::Release(Loss::Late));
        let later = Mine { since: Mono(claim.at.0 + 500), ..claim };
        assert_eq!(after(settle, later, &[]), Next::Wait, "a spawner was connected meanwhile");
        let twice = Mine { lot: lot(5), ..claim };
        assert_eq!(after(settle, twice, &[rival(2, 5)]), Next::Activate, "a claim is no rival of its own");
    }

    #[test]
    fn what_makes_a_claim_wait_longer_or_end_at_once() {
        let claim = mine(Phase::Claiming);
        let terms = Terms::default();
        let slower = |ms: u64| {
            let now = Mono(claim.at.0 + ms);
            look(&terms, now, &Mine { looked: now, ..claim }, Duration::from_secs(8), [])
        };
        assert_eq!((slower(18_999), slower(19_000)), (Next::Wait, Next::Activate), "the delay has grown");
        let stood = look(&terms, Mono(claim.looked.0 + 1_001), &claim, D, []);
        assert_eq!(stood, Next::Release(Loss::StoodStill));
        let won = Rival { activated: true, ..rival(2, 9) };
        assert_eq!(after(1, claim, &[won]), Next::Release(Loss::Outdrawn), "although its draw is higher");
        assert_eq!(after(1, claim, &[rival(3, 9)]), Next::Release(Loss::Overtaken));
        assert_eq!(after(1, Mine { released: true, ..claim }, &[]), Next::Release(Loss::Void));
    }

    #[test]
    fn a_held_lease_ends_with_its_renewals_a_later_round_or_a_lower_draw_that_won_elsewhere() {
        let held = mine(Phase::Held);
        let terms = Terms::default();
        assert_eq!(after(1_000_000, held, &[rival(2, 4)]), Next::Wait, "a claim alone takes nothing");
        let won = |n| Rival { activated: true, ..rival(2, n) };
        assert_eq!(after(1, held, &[won(4)]), Next::Release(Loss::Outdrawn));
        assert_eq!(after(1, held, &[won(6)]), Next::Wait);
        assert_eq!(after(1, held, &[Rival { released: true, ..won(4) }]), Next::Wait);
        assert_eq!(after(1, held, &[rival(3, 9)]), Next::Release(Loss::Overtaken));
        let silent = |ms: u64| look(&terms, Mono(held.renewed.0 + ms), &held, D, []);
        assert_eq!((silent(15_000), silent(15_001)), (Next::Wait, Next::Release(Loss::Lapsed)));
    }

    #[test]
    fn a_holder_knows_that_it_has_lost_before_another_takes_over() {
        let terms = Terms::default();
        assert!(terms.expiry(Duration::ZERO) > terms.keep);
        assert!(terms.margin > 2 * terms.standstill);
        let expiry = u64::try_from(terms.expiry(D).as_millis()).expect("small");
        assert!(is_live(&terms, Mono(expiry), Mono(0), D) && !is_live(&terms, Mono(expiry + 1), Mono(0), D));
    }

    #[test]
    fn half_of_the_voters_are_no_majority() {
        assert!(!is_majority(0, 0) && !is_majority(1, 2) && is_majority(2, 3) && is_majority(1, 1));
    }
}
