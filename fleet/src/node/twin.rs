//! A second process with this device's key: a data folder that was copied and runs twice.
//!
//! **The rule.** There is a twin for certain when one of these is so:
//! 1. A member ended its connection with this process because another process said hello with the same key
//!    (`osiris-mesh` compares the sessions of both).
//! 2. A block of this key, of another session than this process's, came from elsewhere and names a block of
//!    this session as a parent: it was written after it, by somebody else.
//!
//! And for all that can be known when
//! 3. such a block came after another member and this node had agreed on every block, and its author's clock
//!    showed a time after this node's start, and not one that lies ahead by more than [`AHEAD_MAX`].
//!
//! A folder restored from a backup, or a journal that lost its end, sees blocks of its own earlier sessions
//! that it does not hold. They name no block of this session, show times before this start, and come
//! before the first agreement, so they are no twin's. For rule 3 to be wrong, a clock must have gone
//! back and a lost block must come late as well; for it to miss a twin, the two clocks must differ, and then
//! rules 1 and 2 are left.

use std::time::Duration;

use osiris_ledger::{Block, ChainId, Ledger, Now};

/// How far a block's time may lie ahead of this node's clock to count for rule 3.
pub const AHEAD_MAX: Duration = Duration::from_secs(600);

/// What was seen of a twin.
#[derive(Debug)]
pub(super) struct Twin {
    started: Now,
    /// Whether another member held exactly the same blocks at some moment since the start.
    agreed: bool,
    seen: u64,
    last: Option<String>,
}

impl Twin {
    pub(super) fn new(started: Now) -> Self {
        Self { started, agreed: false, seen: 0, last: None }
    }

    /// Another member holds the same blocks.
    pub(super) fn agreed(&mut self) {
        self.agreed = true;
    }

    /// Whether another member did.
    pub(super) fn has_agreed(&self) -> bool {
        self.agreed
    }

    /// A block came from elsewhere. Returns what to warn of, the first time that there is something.
    pub(super) fn block_came(
        &mut self,
        now: Now,
        ledger: &Ledger,
        own: &ChainId,
        block: &Block,
    ) -> Option<String> {
        if block.author() != own.author || block.chain() == *own {
            return None;
        }
        let follows = block.parents().filter_map(|id| ledger.get(&id)).any(|parent| parent.chain() == *own);
        let latest = now.wall.0.saturating_add(u64::try_from(AHEAD_MAX.as_millis()).unwrap_or(u64::MAX));
        let newer = self.agreed && (self.started.wall.0..=latest).contains(&block.wall().0);
        (follows || newer)
            .then(|| "it wrote a block that this node did not write".to_owned())
            .and_then(|what| self.note(what))
    }

    /// A member had another process say hello with this key.
    pub(super) fn said_by(&mut self, member: &str) -> Option<String> {
        self.note(format!("it connected to {member} in place of this node"))
    }

    fn note(&mut self, what: String) -> Option<String> {
        self.seen += 1;
        self.last = Some(what);
        if self.seen == 1 { self.problem() } else { None }
    }

    /// What it means and what to do, where there is a twin. It is said until this process ends.
    pub(super) fn problem(&self) -> Option<String> {
        let last = self.last.as_ref()?;
        let times = if self.seen == 1 { String::new() } else { format!(" (noticed {} times)", self.seen) };
        Some(format!(
            "Another process runs with this device's key, from a copy of its data folder: {last}{times}. Both lose \
             their connections to each other again and again. Stop one of the two; the copied device must join as \
             one of its own, with a fresh folder: `osiris join TICKET --data DIR`."
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use osiris_ledger::{
        BlobHash, Mono, Payload, Roles, Session, WallMs, World, Writer, join_proof,
        op::{Admitted, Deployed, Invited, Serving},
    };

    use super::*;
    use crate::node::sample::{self, author, key};

    const START: u64 = 1_800_000_000_000;

    fn at(ms: u64) -> Now {
        Now { mono: Mono(0), wall: WallMs(START + ms) }
    }

    fn invite(writer: &mut Writer, ledger: &mut Ledger, now: Now, seed: u8) -> Arc<Block> {
        let invited =
            Invited { key: author(seed), uses: 1, roles: Roles::NODE, device: None, note: String::new() };
        writer.append(ledger, now, Payload::Invited(invited)).expect("allowed")
    }

    /// An earlier session's founder, its ledger, and this process's writer.
    fn founded() -> (Writer, Ledger, Writer) {
        let before = Now { wall: WallMs(START - 1_000), ..Now::default() };
        let (earlier, ledger) = sample::founded(before);
        (earlier, ledger, Writer::new(key(1), Session([2; 16])))
    }

    #[test]
    fn what_a_backup_lost_is_no_twins() {
        let (mut earlier, mut ledger, me) = founded();
        let before = Now { wall: WallMs(START - 1), ..Now::default() };
        let lost = invite(&mut earlier, &mut ledger, before, 50);
        let ahead = invite(&mut earlier, &mut ledger, at(AHEAD_MAX.as_millis() as u64 + 10_001), 51);
        let late = invite(&mut earlier, &mut ledger, at(5), 52);
        let mut twin = Twin::new(at(0));
        // By a clock that went back since, before the first agreement.
        assert_eq!(twin.block_came(at(10_000), &ledger, &me.chain(), &late), None);
        twin.agreed();
        for block in [&lost, &ahead] {
            assert_eq!(twin.block_came(at(10_000), &ledger, &me.chain(), block), None);
        }
        assert_eq!(twin.problem(), None);
    }

    #[test]
    fn a_block_that_was_written_meanwhile_is_a_twins() {
        let (mut other, mut ledger, me) = founded();
        let block = invite(&mut other, &mut ledger, at(5), 50);
        let mut twin = Twin::new(at(0));
        twin.agreed();
        let warning = twin.block_came(at(10), &ledger, &me.chain(), &block).expect("a warning");
        assert!(warning.contains("osiris join TICKET"), "{warning}");
        let again = invite(&mut other, &mut ledger, at(6), 51);
        assert_eq!(twin.block_came(at(10), &ledger, &me.chain(), &again), None, "once");
        assert!(twin.problem().is_some_and(|problem| problem.contains("noticed 2 times")));
    }

    #[test]
    fn a_block_that_follows_this_session_is_a_twins_whatever_its_clock_says() {
        let (mut founder, mut ledger, _) = founded();
        let invitation = invite(&mut founder, &mut ledger, at(0), 50).id();
        let mut me = Writer::new(key(2), Session([2; 16]));
        let device = me.author();
        let proof = join_proof(&key(50), &ledger.fleet(), &invitation, &device);
        let admitted = Admitted { invitation, device, proof, label: "two".to_owned() };
        founder.append(&mut ledger, at(1), Payload::Admitted(admitted)).expect("allowed");
        let deployed = Deployed {
            name: "f".to_owned(),
            component: BlobHash([1; 32]),
            size: 1,
            world: World::Http,
            manifest: BlobHash([2; 32]),
            manifest_size: 1,
            replaces: Vec::new(),
        };
        let deployed = founder.append(&mut ledger, at(2), Payload::Deployed(deployed)).expect("allowed");
        let serving = || Payload::Serving(Serving { revision: deployed.id(), concurrency: 1 });
        me.append(&mut ledger, at(3), serving()).expect("allowed");
        let mut other = Writer::new(key(2), Session([3; 16]));
        let block = other.append(&mut ledger, Now::default(), serving()).expect("allowed");
        let mut twin = Twin::new(at(0));
        assert!(twin.block_came(at(10), &ledger, &other.chain(), &block).is_none(), "its own");
        assert!(twin.block_came(at(10), &ledger, &founder.chain(), &block).is_none(), "another device's");
        assert!(twin.block_came(at(10), &ledger, &me.chain(), &block).is_some());
    }
}
