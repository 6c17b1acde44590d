//! Components and manifests that nothing uses any more, and when they go.
//!
//! What is **kept**: the bytes of each revision that some member serves, of the live and the newest revision of
//! each function, and of the last [`REVISIONS_KEPT`] revisions of each function that is not removed, so that
//! there is something to go back to; and pages that a voter sealed, by which members drop blocks. What is not kept goes once it was found unused at every look for
//! [`UNUSED_KEPT`]: a component comes before the block that names it, and a fetch may end late. Who puts or
//! deploys bytes that are there already starts that time anew.
//!
//! While blocks are known to be missing that the journal held, nothing goes: they may name what looks unused.
//!
//! Only a running node looks; it alone uses the folder then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use osiris_ledger::{BlobHash, View};
use osiris_runtime::{ComponentHash, Library};

use super::limits::{REVISIONS_KEPT, UNUSED_KEPT};

/// What is unused, and whether it may go.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    /// Since when what is unused has been so, at every look, by the monotonic clock.
    unused: Mutex<BTreeMap<ComponentHash, Instant>>,
    held_back: AtomicBool,
    /// Pages by which blocks are here.
    pages: Mutex<BTreeSet<BlobHash>>,
}

impl Sweep {
    /// Somebody is about to use these bytes. To be said before they are put or read: while it looks, the sweep
    /// makes who says so wait.
    pub(crate) fn touch(&self, hash: ComponentHash) {
        self.unused().remove(&hash);
    }

    /// Whether blocks are missing that may name what looks unused.
    pub(crate) fn hold_back(&self, held_back: bool) {
        self.held_back.store(held_back, Ordering::Relaxed);
    }

    /// These pages stay, whether or not they are sealed any more: blocks are here by them alone.
    pub(crate) fn rely_on(&self, pages: impl Iterator<Item = BlobHash>) {
        *self.pages.lock().unwrap_or_else(PoisonError::into_inner) = pages.collect();
    }

    pub(crate) fn is_held_back(&self) -> bool {
        self.held_back.load(Ordering::Relaxed)
    }

    /// Removes what has been unused for long enough, and returns it.
    pub(crate) fn look(&self, now: Instant, view: &View, library: &Library) -> Vec<ComponentHash> {
        let mut unused = self.unused();
        if self.is_held_back() {
            unused.clear();
            return Vec::new();
        }
        let pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let found = unused_in(view, library).into_iter().map(|(hash, _)| hash);
        let found: BTreeSet<_> = found.filter(|hash| !pages.contains(&BlobHash(hash.0))).collect();
        unused.retain(|hash, _| found.contains(hash));
        let mut removed = Vec::new();
        for hash in found {
            let since = *unused.entry(hash).or_insert(now);
            if now.saturating_duration_since(since) < UNUSED_KEPT {
                continue;
            }
            match library.remove(hash) {
                Ok(_) => {
                    unused.remove(&hash);
                    removed.push(hash);
                }
                Err(error) => tracing::warn!(%error, "unused bytes could not be removed"),
            }
        }
        removed
    }

    fn unused(&self) -> MutexGuard<'_, BTreeMap<ComponentHash, Instant>> {
        self.unused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the library holds and nothing uses, with sizes in bytes.
pub(crate) fn unused_in(view: &View, library: &Library) -> Vec<(ComponentHash, u64)> {
    let kept = kept(view);
    library.list().into_iter().filter(|(hash, _)| !kept.contains(&BlobHash(hash.0))).collect()
}

fn kept(view: &View) -> BTreeSet<BlobHash> {
    let revisions = view.functions().values().flat_map(|function| {
        let last = if function.removed { 0 } else { REVISIONS_KEPT };
        let current = function.live.iter().chain(&function.newest);
        function.revisions.iter().rev().take(last).chain(&function.served).chain(current)
    });
    let pages = view.pages().iter().map(|page| page.page);
    revisions.flat_map(|revision| [revision.component, revision.manifest]).chain(pages).collect()
}
