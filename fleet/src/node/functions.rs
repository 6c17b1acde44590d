//! From a deployed revision to one that is ready here, and back.
//!
//! ```text
//! wanted here → manifest → component → compiled → `serving`        (each step retried with backoff)
//! no longer wanted → `stopped` → retired once its invocations end
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use osiris_ledger::{Author, BlobHash, BlockId, Function, Mono, Now, Payload, Revision, op};
use osiris_mesh::PeerId;

use super::{Drain, Effect, Node, candidates::Candidates, scale::wanted_count};
use crate::manifest::Manifest;

/// First and longest pause before a failed fetch is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Shortest time between announcements where another process runs with this device's key.
const TWIN_PAUSE: Duration = Duration::from_secs(30);

/// How many members behind those that are to serve a revision look for these, where they do not.
const SUCCESSORS: usize = 8;

/// Calls that a revision runs side by side here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SideBySide {
    now: u32,
    /// As many as its limits and this machine allow.
    most: u32,
}

/// How far a revision is on this node.
#[derive(Debug)]
enum Local {
    Preparing,
    Ready(SideBySide),
    Failed(String),
}

#[derive(Debug, Default)]
struct Fetching {
    under_way: bool,
    failures: u32,
    not_before: Option<Mono>,
    why: Option<String>,
}

/// Revisions, components and manifests as this node has them.
#[derive(Debug, Default)]
pub(super) struct Functions {
    held: BTreeSet<BlobHash>,
    manifests: BTreeMap<BlobHash, Result<Manifest, String>>,
    reading: BTreeSet<BlobHash>,
    fetching: BTreeMap<BlobHash, Fetching>,
    local: BTreeMap<BlockId, Local>,
    pub(super) candidates: Candidates,
    last_look: Option<Mono>,
    /// When this node last announced something while another process runs with its key.
    twin_answered: Option<Mono>,
    /// When that is done which was put off then.
    not_announced: Option<Mono>,
}

impl Functions {
    pub(super) fn blob_held(&mut self, hash: BlobHash) {
        self.fetching.remove(&hash);
        self.held.insert(hash);
    }

    /// Whether the library holds these bytes.
    pub(super) fn holds(&self, hash: &BlobHash) -> bool {
        self.held.contains(hash)
    }

    pub(super) fn blob_gone(&mut self, hash: &BlobHash) {
        self.held.remove(hash);
        self.manifests.remove(hash);
    }

    pub(super) fn manifest_read(&mut self, hash: BlobHash, manifest: Result<Manifest, String>) {
        self.reading.remove(&hash);
        self.manifests.insert(hash, manifest);
    }

    pub(super) fn fetch_failed(&mut self, now: Now, hash: BlobHash, why: String) {
        let fetching = self.fetching.entry(hash).or_default();
        fetching.under_way = false;
        let pause = RETRY.0.saturating_mul(1 << fetching.failures.min(8)).min(RETRY.1);
        fetching.failures += 1;
        fetching.not_before = Some(now.mono.plus(pause));
        fetching.why = Some(why);
    }

    /// The most calls that a revision may run side by side here, where it is ready.
    pub(super) fn concurrency_max(&self, revision: &BlockId) -> Option<u32> {
        match self.local.get(revision) {
            Some(Local::Ready(side_by_side)) => Some(side_by_side.most),
            _ => None,
        }
    }

    pub(super) fn prepare_failed(&mut self, revision: BlockId, why: String) {
        self.local.insert(revision, Local::Failed(why));
    }

    /// A manifest that was read, where it is one.
    pub(super) fn manifest(&self, hash: &BlobHash) -> Option<&Manifest> {
        self.manifests.get(hash)?.as_ref().ok()
    }

    /// When the core last looked at what should be ready.
    pub(super) fn last_look(&self) -> Option<Mono> {
        self.last_look
    }

    pub(super) fn deadline(&self) -> Option<Mono> {
        // A fetch that came due at the last look and was not started is wanted no more.
        let waiting = self.fetching.values().filter(|fetching| !fetching.under_way);
        let due = waiting.filter_map(|fetching| fetching.not_before).chain(self.not_announced);
        due.filter(|at| Some(*at) > self.last_look).min()
    }

    /// A member came that may hold what no other gave: it is asked at once.
    pub(super) fn peer_up(&mut self) {
        let waiting = self.fetching.values_mut().filter(|fetching| !fetching.under_way);
        waiting.for_each(|fetching| fetching.not_before = None);
    }

    /// Why a revision that is wanted here cannot be had.
    fn problem(&self, revision: &Revision) -> Option<String> {
        if let Some(Local::Failed(why)) = self.local.get(&revision.id) {
            return Some(why.clone());
        }
        if let Some(Err(why)) = self.manifests.get(&revision.manifest) {
            return Some(why.clone());
        }
        let missing = [revision.manifest, revision.component].into_iter();
        let why =
            missing.filter_map(|hash| self.fetching.get(&hash)).find_map(|fetching| fetching.why.as_ref());
        why.map(|why| format!("Its bytes are not here yet: {}.", why.trim_end_matches('.')))
    }

    fn fetch_due(&mut self, now: Now, hash: BlobHash) -> bool {
        let fetching = self.fetching.entry(hash).or_default();
        let due = !fetching.under_way && fetching.not_before.is_none_or(|at| at <= now.mono);
        if due {
            fetching.under_way = true;
            fetching.not_before = None;
        }
        due
    }
}

impl Node {
    /// Revisions that the ledger says are served here.
    pub(super) fn served_here(&self) -> impl Iterator<Item = BlockId> {
        let served = self.view.functions().values().flat_map(|function| &function.served);
        let here = served.filter(|revision| revision.is_served_by(&self.me));
        here.map(|revision| revision.id)
    }

    /// Revisions that should be ready here and are not: why.
    pub(super) fn problems(&self) -> BTreeMap<BlockId, String> {
        let wanted = self.view.functions().values().flat_map(|function| wanted_revisions(function));
        wanted.filter_map(|revision| Some((revision.id, self.functions.problem(revision)?))).collect()
    }

    /// Whether [`Node::reconcile`] has something to do at all.
    pub(super) fn looks_after_functions(&self) -> bool {
        self.started && self.serves && self.read_only.is_none()
    }

    /// Brings what is ready here in line with what the view says should be.
    pub(super) fn reconcile(&mut self, now: Now) {
        if !self.looks_after_functions() {
            return;
        }
        self.functions.last_look = Some(now.mono);
        let (mut wanted, mut warm) = (BTreeSet::new(), BTreeSet::new());
        self.serve_again(now);
        let relieved = self.draining.as_ref().is_some_and(Drain::is_over);
        if !relieved && self.view.is_member(&self.me) {
            let view = Arc::clone(&self.view);
            for function in view.functions().values() {
                let stands_ready = self.was_made_for(&function.name);
                for revision in wanted_revisions(function) {
                    if self.is_wanted(now, function, revision) {
                        wanted.insert(revision.id);
                        self.advance(now, revision, true);
                    } else if stands_ready {
                        warm.insert(revision.id);
                        self.advance(now, revision, false);
                    }
                }
            }
        }
        self.retire_unwanted(now, &wanted, &warm);
    }

    /// Whether a revision is to be ready here. Without its manifest every member is a candidate for
    /// reading the manifest, so the manifest comes first.
    fn is_wanted(&mut self, now: Now, function: &Function, revision: &Revision) -> bool {
        let (count, place) = match self.functions.manifests.get(&revision.manifest) {
            Some(Ok(manifest)) => (wanted_count(&self.view, function, manifest), manifest.place.clone()),
            Some(Err(_)) => return false,
            None => {
                self.want_manifest(now, revision);
                return false;
            }
        };
        let Some(count) = count else {
            self.functions.candidates.follow(&self.view);
            if self.view.scaling().is_draining(&self.me) {
                return self.is_last_to_serve(now, &function.name, revision, &place);
            }
            let fits = place.fits(self.view.scaling().labels(&self.me));
            return fits && self.functions.candidates.contains(&self.me);
        };
        let first = (count as usize).saturating_add(SUCCESSORS);
        let first = self.candidates(now, &function.name, revision, &place, first);
        let (placed, successors) = first.split_at(first.len().min(count as usize));
        let is_placed = placed.contains(&self.me);
        let is_awaited = |member: &&Author| **member != self.me && !revision.is_served_by(member);
        let awaited: Vec<_> = placed.iter().filter(is_awaited).copied().collect();
        if placed.is_empty() && count > 0 && self.view.scaling().is_draining(&self.me) {
            return self.is_last_to_serve(now, &function.name, revision, &place);
        }
        if awaited.is_empty() {
            return is_placed;
        }
        let serves = revision.is_served_by(&self.me);
        if is_placed || serves || successors.contains(&self.me) {
            self.look_for(now, &awaited);
        }
        // One that moved away keeps serving until those that took over are ready.
        is_placed || serves
    }

    /// Others are expected to serve. Of one that this node never was connected to it is not known whether it is there at
    /// all: it may have been admitted and have ended at once. From now on it counts as lost, so it is dialled, and taken
    /// for gone where that stays in vain.
    fn look_for(&mut self, now: Now, awaited: &[Author]) {
        for peer in awaited.iter().map(|member| PeerId::from_bytes(member.0)) {
            if !self.sync.is_connected(&peer) && !self.gone_since.contains_key(&peer) {
                self.gone_since.insert(peer, now.mono);
                self.lost_changed = true;
            }
        }
    }

    fn want_manifest(&mut self, now: Now, revision: &Revision) {
        if self.functions.held.contains(&revision.manifest) {
            if self.functions.reading.insert(revision.manifest) {
                self.effects.push_back(Effect::ReadManifest(revision.manifest));
            }
        } else {
            self.fetch(now, revision, revision.manifest, revision.manifest_size);
            self.withdraw_unkept(now, revision, revision.manifest);
        }
    }

    /// A folder restored from a backup may say that it serves what it no longer holds. Where nobody gave
    /// the bytes at once, that is taken back; it is said again once they are here.
    fn withdraw_unkept(&mut self, now: Now, revision: &Revision, missing: BlobHash) {
        if self.functions.fetching.get(&missing).is_some_and(|fetching| fetching.failures > 0) {
            self.take_back(now, revision);
        }
    }

    fn take_back(&mut self, now: Now, revision: &Revision) {
        if revision.is_served_by(&self.me) {
            self.announce(now, Payload::Stopped(op::Stopped { revision: revision.id }));
        }
    }

    /// A revision is ready, and runs at most so many calls side by side. It begins with as many as its manifest says.
    pub(super) fn prepared(&mut self, revision: BlockId, most: u32) {
        let all = self.view.functions().values().flat_map(|function| &function.revisions);
        let manifest =
            all.filter(|held| held.id == revision).find_map(|held| self.functions.manifest(&held.manifest));
        let first = manifest.and_then(|manifest| manifest.scale.as_ref()).and_then(|scale| scale.concurrency);
        let now = first.map_or(most, |first| first.clamp(1, most.max(1)));
        self.functions.local.insert(revision, Local::Ready(SideBySide { now, most }));
        if now != most {
            self.effects.push_back(Effect::Concurrency(revision, now));
        }
    }

    /// A revision that is ready here runs so many calls side by side from now on. That it does is announced when the
    /// core next looks at what is served.
    pub(super) fn widen(&mut self, revision: BlockId, concurrency: u32) {
        if let Some(Local::Ready(side_by_side)) = self.functions.local.get_mut(&revision) {
            side_by_side.now = concurrency.min(side_by_side.most);
            self.effects.push_back(Effect::Concurrency(revision, side_by_side.now));
        }
    }

    fn fetch(&mut self, now: Now, revision: &Revision, hash: BlobHash, size: u64) {
        if self.functions.fetch_due(now, hash) {
            let holders = revision.serving.iter().map(|serving| serving.device);
            let connected: BTreeSet<_> = self.sync.peers().map(|peer| Author(peer.to_bytes())).collect();
            let mut named = BTreeSet::from([self.me]);
            let holders = holders.chain([revision.by]).chain(connected.iter().copied());
            let mut from: Vec<_> = holders.filter(|member| named.insert(*member)).collect();
            // A holder that is gone costs a dial's timeout; those that are connected come first.
            from.sort_by_key(|member| !connected.contains(member));
            self.effects.push_back(Effect::Fetch { hash, size, from });
        }
    }

    /// One step towards being ready, and towards saying so.
    fn advance(&mut self, now: Now, revision: &Revision, says_so: bool) {
        match self.functions.local.get(&revision.id) {
            Some(Local::Preparing) => {}
            Some(Local::Failed(_)) => self.take_back(now, revision),
            Some(Local::Ready(_)) if !says_so => {}
            Some(Local::Ready(side_by_side)) => {
                let concurrency = side_by_side.now;
                let said = revision.serving_by(&self.me);
                if said.is_none_or(|serving| serving.concurrency != concurrency) {
                    let op = op::Serving { revision: revision.id, concurrency };
                    self.announce(now, Payload::Serving(op));
                }
            }
            None if !self.functions.held.contains(&revision.component) => {
                self.fetch(now, revision, revision.component, revision.size);
                self.withdraw_unkept(now, revision, revision.component);
            }
            None => {
                let Some(Ok(manifest)) = self.functions.manifests.get(&revision.manifest) else { return };
                let prepare = Effect::Prepare {
                    revision: revision.id,
                    component: revision.component,
                    manifest: Box::new(manifest.clone()),
                };
                self.functions.local.insert(revision.id, Local::Preparing);
                self.effects.push_back(prepare);
            }
        }
    }

    /// `warm` are revisions that may be wanted at any moment: they stay ready, and are not served.
    fn retire_unwanted(&mut self, now: Now, wanted: &BTreeSet<BlockId>, warm: &BTreeSet<BlockId>) {
        let known = |revision: &BlockId| {
            // Without the manifest it is not known whether the revision is wanted: leave it.
            self.view
                .functions()
                .values()
                .flat_map(|function| &function.revisions)
                .any(|held| held.id == *revision && self.functions.manifests.contains_key(&held.manifest))
        };
        let served: Vec<_> = self.served_here().filter(|id| !wanted.contains(id)).collect();
        let gone: Vec<_> = served.into_iter().filter(|id| known(id) || !self.is_current(id)).collect();
        for revision in gone {
            self.announce(now, Payload::Stopped(op::Stopped { revision }));
        }
        let idle: Vec<_> = self
            .functions
            .local
            .iter()
            .filter(|(id, _)| !wanted.contains(id) && !warm.contains(id))
            .filter(|(_, local)| matches!(local, Local::Ready(_) | Local::Failed(_)))
            .map(|(id, _)| *id)
            .collect();
        for revision in idle {
            self.functions.local.remove(&revision);
            self.effects.push_back(Effect::Retire(revision));
        }
    }

    /// Whether a revision is live or newest of its function.
    fn is_current(&self, revision: &BlockId) -> bool {
        let functions = self.view.functions().values();
        functions.flat_map(|function| wanted_revisions(function)).any(|wanted| wanted.id == *revision)
    }

    /// Writes a fact about this node. Where it may not (any more), the fact does not matter either.
    pub(super) fn announce(&mut self, now: Now, payload: Payload) {
        if self.draining.is_none() && self.has_twin() {
            // Each of the two takes back what the other says of the same device, for as long as both run.
            if let Some(at) =
                self.functions.twin_answered.map(|at| at.plus(TWIN_PAUSE)).filter(|at| *at > now.mono)
            {
                self.functions.not_announced = Some(at);
                return;
            }
            self.functions.twin_answered = Some(now.mono);
        }
        if self.view.is_member(&self.me) && self.append(now, payload).is_err() {
            // The next view says why: revoked meanwhile, or the store failed.
            self.functions.last_look = Some(now.mono);
        }
    }

    /// Tells the core's peers from the ledger's members.
    #[must_use]
    pub fn peer(member: &Author) -> PeerId {
        PeerId::from_bytes(member.0)
    }
}

/// The newest revision, and the live one while the newest is not ready anywhere.
fn wanted_revisions(function: &Function) -> impl Iterator<Item = &Arc<Revision>> {
    let live = function
        .live
        .iter()
        .filter(|live| function.newest.as_ref().is_none_or(|newest| newest.id != live.id));
    function.newest.iter().chain(live)
}

#[cfg(test)]
mod tests {
    use osiris_ledger::{Ledger, Session, World, Writer, op::Deployed};

    use super::*;
    use crate::node::{
        Config, Input,
        sample::{founded, key},
    };

    fn deploys(component: BlobHash, manifest: BlobHash) -> Deployed {
        Deployed {
            name: "f".to_owned(),
            component,
            size: 1,
            world: World::Http,
            manifest,
            manifest_size: 1,
            replaces: Vec::new(),
        }
    }

    /// The founder's node, in a session of its own.
    fn served_by(ledger: Ledger) -> Node {
        let config = Config {
            serves: true,
            seed: 1,
            confirmed: Vec::new(),
            idle_work: false,
            pages: crate::node::PageRules::default(),
        };
        Node::new(Now::default(), &config, ledger, Writer::new(key(1), Session([2; 16])))
    }

    #[test]
    fn what_was_removed_is_fetched_again_and_not_counted_on() {
        let (mut earlier, mut ledger) = founded(Now::default());
        let (component, manifest) = (BlobHash([1; 32]), BlobHash([2; 32]));
        let deployed = deploys(component, manifest);
        earlier.append(&mut ledger, Now::default(), Payload::Deployed(deployed)).expect("allowed");
        let mut node = served_by(ledger);
        let mut handle = |input| {
            node.handle(Now::default(), input);
            std::iter::from_fn(|| node.poll_effect()).collect::<Vec<_>>()
        };
        for held in [manifest, component] {
            handle(Input::BlobHeld(held));
            handle(Input::BlobGone(held));
        }
        handle(Input::BlobHeld(manifest));
        let effects = handle(Input::Start);
        assert!(
            matches!(effects.as_slice(), [Effect::ReadManifest(hash)] if *hash == manifest),
            "{effects:?}"
        );
        let effects = handle(Input::Manifest(manifest, Ok(Manifest::named("f"))));
        let fetched = |effect: &Effect| matches!(effect, Effect::Fetch { hash, .. } if *hash == component);
        assert!(matches!(effects.as_slice(), [effect] if fetched(effect)), "{effects:?}");
        let effects = handle(Input::BlobGone(manifest));
        let fetched = |effect: &Effect| matches!(effect, Effect::Fetch { hash, .. } if *hash == manifest);
        assert!(matches!(effects.as_slice(), [effect] if fetched(effect)), "{effects:?}");
    }

    #[test]
    fn a_copy_of_the_folder_that_runs_elsewhere_is_answered_at_a_trickle() {
        let at = |s: u64| Now { mono: Mono(s * 1_000), ..Now::default() };
        let (mut earlier, ledger) = founded(Now::default());
        let mut node = served_by(ledger);
        let give = |node: &mut Node, now, input| {
            while node.poll_effect().is_some() {}
            node.handle(now, input);
        };
        give(&mut node, at(0), Input::Start);
        let (component, manifest) = (BlobHash([1; 32]), BlobHash([2; 32]));
        let deployed = deploys(component, manifest);
        let deployed =
            earlier.append(&mut node.ledger, at(0), Payload::Deployed(deployed)).expect("allowed").id();
        for held in [manifest, component] {
            give(&mut node, at(0), Input::BlobHeld(held));
        }
        give(&mut node, at(0), Input::Manifest(manifest, Ok(Manifest::named("f"))));
        node.publish();
        give(&mut node, at(0), Input::Tick);
        give(&mut node, at(0), Input::Prepared(deployed, 1));
        let serves = |node: &Node| node.served_here().any(|revision| revision == deployed);
        assert!(serves(&node), "announced");
        // The copy, which has not the bytes, takes it back each time.
        let mut copy = Writer::new(key(1), Session([3; 16]));
        let mut take_back = |node: &mut Node, now| {
            let stopped = Payload::Stopped(op::Stopped { revision: deployed });
            let block = copy.append(&mut node.ledger, now, stopped).expect("allowed");
            node.admitted(now, &[block]);
            give(node, now, Input::Tick);
        };
        take_back(&mut node, at(1));
        assert!(serves(&node) && node.has_twin(), "said once more");
        take_back(&mut node, at(2));
        assert!(!serves(&node), "not at once");
        let pause = TWIN_PAUSE.as_secs();
        assert_eq!(node.functions.deadline(), Some(at(1 + pause).mono));
        give(&mut node, at(pause), Input::Tick);
        assert!(!serves(&node), "not before its time");
        give(&mut node, at(1 + pause), Input::Tick);
        assert!(serves(&node), "in the end");
    }
}
