//! `osiris ledger verify` of a running node: everything again, from the bytes.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use osiris_ledger::{Admission, Author, Block, BlockId, FleetId, Ledger, Page, View};
use osiris_runtime::{ComponentHash, Library, LibraryError};

use super::{
    disk::FolderDisk,
    folder::{self, Folder},
    inspect::{self, Mend, at, library, problem},
    store::store_error,
};
use crate::{
    api::{Problem, Verified},
    store::{self, JOURNAL},
};

/// Admits every block into an empty ledger, compares the views, scans the journal and hashes the
/// library's bytes. Nothing is changed.
pub(crate) fn verify(
    fleet: FleetId,
    blocks: &[(Arc<Block>, bool)],
    pages: &[Arc<Page>],
    view: &View,
    me: &Author,
    data: &Path,
) -> Verified {
    let mut problems = Vec::new();
    let restart = "Restart the node, which builds it again from the journal; where that does not help, join again with a new folder.";
    let mut again = Ledger::new(fleet);
    pages.iter().for_each(|page| again.offer(page));
    for (block, _) in blocks {
        let what = match again.admit(block.entry()) {
            Ok(Admission::New { .. }) => continue,
            Ok(_) => format!("Block {} does not follow what it names.", block.id().short()),
            Err(reject) => format!("Block {} is not valid: {reject}.", block.id().short()),
        };
        problems.push(problem(what, at(JOURNAL), restart));
    }
    again.take_offered();
    let hash = again.publish().hash();
    if hash != view.hash() {
        problems.push(problem("The view differs from what its blocks say.", at(JOURNAL), restart));
    }
    let mend = Mend::new(view, Some(*me), true, &Folder::peers_in(data));
    problems.extend(journal(blocks, mend, data));
    problems.extend(key(me, data));
    let used: Vec<_> = pages.iter().map(|page| page.hash()).collect();
    let known = library::KnownPages::of(&again, &used, false);
    let (components, wrong) = library::problems(&data.join("library"), view, Some(*me), &known, mend);
    problems.extend(wrong);
    problems.extend(inspect::kept(data, mend));
    Verified {
        blocks: again.len(),
        chains: again.chains_held() as u64,
        view: BlockId(hash).to_string(),
        components,
        problems,
    }
}

fn journal(blocks: &[(Arc<Block>, bool)], mend: Mend, data: &Path) -> Vec<Problem> {
    let survey = match store::survey(&FolderDisk::new(data)) {
        Ok(survey) => survey,
        Err(error) => {
            let error = store_error(data, &error);
            return vec![problem(error.message, at(JOURNAL), error.next.unwrap_or_default())];
        }
    };
    // A torn tail alone may be a write under way.
    let mut problems = inspect::journal_problems(&survey, mend, true);
    let held: BTreeSet<_> = survey.places.iter().map(|place| place.id).collect();
    let lost = blocks.iter().filter(|(block, _)| !held.contains(&block.id())).count();
    if lost > 0 {
        problems.push(problem(
            format!("The journal lacks {lost} block(s) that the node holds in memory."),
            at(JOURNAL),
            mend.blocks(),
        ));
    }
    problems
}

/// The key's file, which the next start reads.
fn key(me: &Author, data: &Path) -> Option<Problem> {
    let name = "device.key";
    match folder::read_device(data) {
        Ok(key) if key == *me => None,
        Ok(_) => Some(problem(
            "The file device.key was replaced while the node runs: from its next start on this would be another device.",
            at(name),
            "Restore the file from a backup.",
        )),
        Err(error) => Some(problem(error.message, at(name), error.next.unwrap_or_default())),
    }
}

/// What is wrong with the bytes of revisions that this node has to hold: each is read and hashed.
pub(crate) fn served_bytes(view: &View, me: &Author, library: &Library) -> Vec<String> {
    let revisions = view.functions().values().flat_map(|function| &function.revisions);
    let served = revisions.filter(|revision| revision.serving.iter().any(|s| s.device == *me));
    let hashes: BTreeSet<_> = served.flat_map(|revision| [revision.component, revision.manifest]).collect();
    let read = hashes.into_iter().filter_map(|hash| library.read(ComponentHash(hash.0)).err());
    let wrong = read.filter(|error| !matches!(error, LibraryError::Missing { .. }));
    let mut problems: Vec<_> = wrong.map(|error| error.to_string()).collect();
    // What is damaged was moved aside, so it is missing now.
    let missing = library::missing(view, Some(*me), |hash| library.contains(hash));
    problems.extend(missing.iter().map(Problem::sentences));
    problems
}
