//! `osiris ledger verify`: everything again, from the bytes.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use osiris_ledger::{Admission, Author, Block, BlockId, FleetId, Ledger, View};
use osiris_runtime::{ComponentHash, Library, LibraryError};

use super::{folder::Folder, store::Journal};
use crate::{api::Verified, store::places};

/// Admits every block into an empty ledger, compares the views, scans the journal and hashes the
/// library's bytes.
pub(crate) fn verify(
    fleet: FleetId,
    blocks: &[(Arc<Block>, bool)],
    library: &Library,
    view: &View,
    me: &Author,
    data: &Path,
) -> Verified {
    let mut problems = Vec::new();
    let mut again = Ledger::new(fleet);
    for (block, _) in blocks {
        match again.admit(block.entry()) {
            Ok(Admission::New { .. }) => {}
            Ok(_) => problems.push(format!("Block {} does not follow what it names.", block.id().short())),
            Err(reject) => problems.push(format!("Block {} is not valid: {reject}.", block.id().short())),
        }
    }
    let hash = again.publish().hash();
    if hash != view.hash() {
        problems.push(
            "The view differs from what its blocks say; restart the node to build it again.".to_owned(),
        );
    }
    match Journal::inspect(data) {
        Ok(found) => {
            let held: BTreeSet<_> =
                found.entries.iter().map(|entry| *blake3::hash(entry).as_bytes()).collect();
            let lost = blocks.iter().filter(|(block, _)| !held.contains(&block.id().0)).count();
            if !found.damage.is_empty() {
                problems.push(format!(
                    "The journal is damaged on disk ({}). The next start keeps the damaged file beside and repairs the rest from other members.",
                    places(&found.damage)
                ));
            }
            // A torn tail alone may be a write under way.
            problems.extend(found.lost_end.map(|lost| {
                format!("{lost} The next start notes it beside and repairs the rest from other members.")
            }));
            if found.head_damaged {
                problems.push("The file journal.head is damaged; the next start makes it anew.".to_owned());
            }
            if lost > 0 {
                problems.push(format!("The journal lacks {lost} block(s) that the node holds in memory."));
            }
        }
        Err(error) => problems.push(error.message),
    }
    let mut components = 0;
    for (hash, _) in library.list() {
        match library.read(hash) {
            Ok(_) => components += 1,
            Err(error) => problems.push(error.to_string()),
        }
    }
    problems.extend(Folder::kept(data));
    problems.extend(missing_bytes(view, me, library));
    let chains: BTreeSet<_> = blocks.iter().map(|(block, _)| block.chain()).collect();
    Verified {
        blocks: blocks.len() as u64,
        chains: chains.len() as u64,
        view: BlockId(hash).to_string(),
        components,
        problems,
    }
}

/// What is wrong with the bytes of revisions that this node says it serves: each is read and hashed.
pub(crate) fn served_bytes(view: &View, me: &Author, library: &Library) -> Vec<String> {
    let revisions = view.functions().values().flat_map(|function| &function.revisions);
    let served = revisions.filter(|revision| revision.serving.iter().any(|s| s.device == *me));
    let hashes: BTreeSet<_> = served.flat_map(|revision| [revision.component, revision.manifest]).collect();
    let read = hashes.into_iter().filter_map(|hash| library.read(ComponentHash(hash.0)).err());
    let wrong = read.filter(|error| !matches!(error, LibraryError::Missing { .. }));
    let mut problems: Vec<_> = wrong.map(|error| error.to_string()).collect();
    // What is damaged was moved aside, so it is missing now.
    problems.extend(missing_bytes(view, me, library));
    problems
}

/// Revisions that this node says it serves, and whose bytes it does not hold.
fn missing_bytes(view: &View, me: &Author, library: &Library) -> Vec<String> {
    let mut missing = Vec::new();
    for function in view.functions().values() {
        for revision in function.revisions.iter().filter(|r| r.serving.iter().any(|s| s.device == *me)) {
            let held = |hash: osiris_ledger::BlobHash| library.contains(ComponentHash(hash.0));
            if !held(revision.component) || !held(revision.manifest) {
                missing.push(format!(
                    "The bytes of {}@{} are missing here, though the ledger says that it is served here. Start the node again: it fetches them from another member; where none holds them, deploy the function again.",
                    function.name, revision.number
                ));
            }
        }
    }
    missing
}
