//! What the core does when nobody waits for it: it brings the automerge document up to date, and checks the
//! signatures of blocks that it took from its journal on trust. In slices, so that no input waits longer than
//! for one.

use std::time::Duration;

use osiris_ledger::{BlockId, Ledger, Mono, Now};

/// Least time between two times that the automerge document is begun again because of a fork, when somebody
/// asks for its heads. In between, its last heads are shown: nothing else reads it.
pub const REBUILD_INTERVAL: Duration = Duration::from_secs(2);
/// The same where nobody asks: a hostile member must not keep a core busy with what nobody reads.
pub const REBUILD_IDLE_INTERVAL: Duration = Duration::from_secs(30);
/// How long no block came before the document begins to follow: while a history comes in, that comes first.
pub const QUIET: Duration = Duration::from_millis(200);
/// Longest time that a block waits until the document begins to follow, however many come.
pub const LAG_MAX: Duration = Duration::from_secs(5);
/// Time between two slices, in which other inputs have their turn.
pub const SLICE_PAUSE: Duration = Duration::from_millis(20);
/// Blocks applied to the document in one slice: some milliseconds.
pub const DOCUMENT_SLICE: usize = 250;
/// How long after the start signatures begin to be checked: functions are served first.
pub const CHECK_AFTER: Duration = Duration::from_secs(2);
/// Signatures checked in one slice: some milliseconds.
pub const CHECK_SLICE: usize = 64;

/// When there is something to do.
#[derive(Debug)]
pub(super) struct Idle {
    /// Whether this core does such work. A process that ends in a moment need not.
    works: bool,
    /// When the next slice of the document is due, and whether the ones before have begun to follow.
    document_due: Option<Mono>,
    following: bool,
    /// When the first block came that the document lacks.
    lags_since: Option<Mono>,
    /// When the document was last begun again.
    rebuilt: Option<Mono>,
    check: Check,
}

/// The check of the signatures that replay trusted.
#[derive(Debug, Default)]
struct Check {
    due: Option<Mono>,
    /// The block that was checked last, in the order of ids.
    last: Option<BlockId>,
    /// Replayed blocks that are left.
    left: u64,
    forged: u64,
    first_forged: Option<BlockId>,
}

impl Idle {
    /// For a core that starts over these blocks.
    pub(super) fn new(works: bool, now: Now, ledger: &Ledger) -> Self {
        let check = match works && !ledger.is_empty() {
            true => {
                Check { due: Some(now.mono.plus(CHECK_AFTER)), left: ledger.len_full(), ..Check::default() }
            }
            false => Check::default(),
        };
        let mut idle =
            Self { works, document_due: None, following: false, lags_since: None, rebuilt: None, check };
        if ledger.document_pending() > 0 {
            idle.blocks_came(now);
        }
        idle
    }

    /// Blocks were admitted.
    pub(super) fn blocks_came(&mut self, now: Now) {
        if !self.works || self.following {
            return;
        }
        let since = *self.lags_since.get_or_insert(now.mono);
        self.document_due = Some(now.mono.plus(QUIET).min(since.plus(LAG_MAX)));
    }

    /// When [`Idle::work`] has something to do.
    pub(super) fn deadline(&self) -> Option<Mono> {
        [self.document_due, self.check.due].into_iter().flatten().min()
    }

    /// Does one slice, if one is due. Returns what people must be told at once.
    pub(super) fn work(&mut self, now: Now, ledger: &mut Ledger) -> Option<String> {
        let due = |due: Option<Mono>| due.is_some_and(|due| due <= now.mono);
        if due(self.document_due) {
            self.follow(now, ledger);
        } else if due(self.check.due) {
            return self.check.slice(now, ledger);
        }
        None
    }

    /// Replayed blocks whose signatures were not checked yet, and those whose signatures were found wrong.
    pub(super) fn signatures(&self) -> (u64, u64) {
        (self.check.left, self.check.forged)
    }

    /// What is wrong with the journal, for people.
    pub(super) fn problem(&self) -> Option<String> {
        self.check.problem()
    }

    fn follow(&mut self, now: Now, ledger: &mut Ledger) {
        if let Err(due) = self.may_apply(now, ledger, REBUILD_IDLE_INTERVAL) {
            self.document_due = Some(due);
            self.following = false;
            return;
        }
        ledger.follow_document(DOCUMENT_SLICE);
        self.following = ledger.document_pending() > 0;
        self.lags_since = None;
        self.document_due = self.following.then(|| now.mono.plus(SLICE_PAUSE));
    }

    /// Whether the document may be applied to now. Where that begins it again, not before the interval is
    /// over; then this is noted.
    fn may_apply(&mut self, now: Now, ledger: &Ledger, interval: Duration) -> Result<(), Mono> {
        let (stale, _) = ledger.document_rebuilds();
        if !stale {
            return Ok(());
        }
        if let Some(due) = self.rebuilt.map(|at| at.plus(interval)).filter(|due| now.mono < *due) {
            return Err(due);
        }
        self.rebuilt = Some(now.mono);
        Ok(())
    }

    /// Heads of the document with every admitted block; older ones where it was begun again a moment ago.
    pub(super) fn heads(&mut self, now: Now, ledger: &mut Ledger) -> Vec<[u8; 32]> {
        match self.may_apply(now, ledger, REBUILD_INTERVAL) {
            Ok(()) => ledger.document_heads(),
            Err(_) => ledger.document_heads_before(),
        }
    }
}

impl Check {
    fn slice(&mut self, now: Now, ledger: &Ledger) -> Option<String> {
        let done = ledger.check_signatures(self.last, CHECK_SLICE);
        self.last = done.last;
        // Blocks that came since the start are among those that were passed; they were checked already.
        self.left = if done.last.is_some() { self.left.saturating_sub(done.checked) } else { 0 };
        self.due = done.last.map(|_| now.mono.plus(SLICE_PAUSE));
        self.forged += done.forged.len() as u64;
        let first = *done.forged.first()?;
        if self.first_forged.is_some() {
            return None;
        }
        self.first_forged = Some(first);
        self.problem()
    }

    fn problem(&self) -> Option<String> {
        let first = self.first_forged?;
        Some(format!(
            "The journal holds {} block(s) whose signatures are wrong, block {} first: something other than Osiris wrote \
             to it. `osiris ledger verify` says more; restore the data folder from a backup, or move the journal away \
             and join again with a new ticket.",
            self.forged,
            first.short()
        ))
    }
}

#[cfg(test)]
mod tests {
    use osiris_ledger::{Admission, Payload, Roles, Session, Writer, op};

    use super::*;
    use crate::node::sample::{author, founded, key};

    fn at(ms: u64) -> Now {
        Now { mono: Mono(ms), ..Now::default() }
    }

    fn ms(duration: Duration) -> u64 {
        u64::try_from(duration.as_millis()).expect("short")
    }

    /// A ledger of so many blocks, none of them in its document.
    fn ledger(blocks: u64) -> Ledger {
        let (mut writer, mut ledger) = founded(at(0));
        let key = author(50);
        while ledger.len() < blocks {
            let note = String::new();
            let invited = op::Invited { key, uses: 1, roles: Roles::NODE, device: None, note };
            writer.append(&mut ledger, at(0), Payload::Invited(invited)).expect("allowed");
        }
        ledger
    }

    #[test]
    fn the_document_follows_when_it_is_quiet_in_bounded_slices() {
        let mut ledger = ledger(DOCUMENT_SLICE as u64 + 10);
        let mut idle = Idle::new(true, at(0), &ledger);
        let quiet = at(ms(QUIET)).mono;
        assert_eq!(idle.deadline(), Some(quiet));
        idle.work(at(quiet.0 - 1), &mut ledger);
        assert_eq!(ledger.document_pending() as u64, ledger.len(), "not yet");
        idle.work(at(quiet.0), &mut ledger);
        assert_eq!(ledger.document_pending(), 10, "one slice");
        let next = quiet.plus(SLICE_PAUSE);
        // What comes meanwhile delays nothing.
        idle.blocks_came(at(quiet.0 + 1));
        assert_eq!(idle.deadline(), Some(next));
        idle.work(at(next.0), &mut ledger);
        let check = at(ms(CHECK_AFTER)).mono;
        assert_eq!((ledger.document_pending(), idle.deadline()), (0, Some(check)), "and then it rests");
    }

    #[test]
    fn blocks_that_come_without_end_do_not_keep_it_from_following() {
        let mut ledger = ledger(2);
        let mut idle = Idle::new(true, at(0), &ledger);
        let mut now = 0;
        while now < ms(LAG_MAX) {
            idle.work(at(now), &mut ledger);
            assert_eq!(ledger.document_pending(), 2, "at {now} ms");
            now += ms(QUIET) / 2;
            idle.blocks_came(at(now));
        }
        idle.work(at(ms(LAG_MAX)), &mut ledger);
        assert_eq!(ledger.document_pending(), 0);
    }

    #[test]
    fn a_process_that_ends_soon_does_none_of_it() {
        let mut ledger = ledger(2);
        let mut idle = Idle::new(false, at(0), &ledger);
        idle.blocks_came(at(1));
        assert_eq!(idle.deadline(), None);
        assert_eq!(idle.heads(at(2), &mut ledger).len(), 1, "unless the heads are asked for");
        assert_eq!(ledger.document_pending(), 0);
    }

    #[test]
    fn a_forged_block_in_the_journal_is_found_after_the_start_and_said_once() {
        let mut source = ledger(CHECK_SLICE as u64 + 20);
        let blocks = source.in_order();
        // A block of another history whose bytes were changed, as if its record had been made to fit.
        let mut other = Writer::new(key(1), Session([2; 16]));
        let note = String::new();
        let invited = op::Invited { key: author(51), uses: 1, roles: Roles::NODE, device: None, note };
        let mut forged =
            other.append(&mut source, at(0), Payload::Invited(invited)).expect("allowed").entry().to_vec();
        *forged.last_mut().expect("a signature") ^= 1;
        let mut ledger = Ledger::new(source.fleet());
        for block in &blocks {
            ledger.replay(block.entry()).expect("valid");
        }
        assert!(matches!(ledger.replay(&forged), Ok(Admission::New { .. })), "replay trusts");
        ledger.publish();

        let mut idle = Idle::new(true, at(0), &ledger);
        ledger.document_heads();
        idle.work(at(ms(QUIET)), &mut ledger);
        assert_eq!(idle.deadline(), Some(at(ms(CHECK_AFTER)).mono), "functions are served first");
        assert_eq!(idle.signatures(), (ledger.len(), 0));
        let (mut said, mut slices) = (Vec::new(), 0);
        while let Some(due) = idle.deadline() {
            said.extend(idle.work(at(due.0), &mut ledger));
            slices += 1;
        }
        assert_eq!((said.len(), slices, idle.signatures()), (1, 2, (0, 1)));
        assert!(idle.problem().is_some_and(|problem| problem.contains("1 block(s)")));
    }
}
