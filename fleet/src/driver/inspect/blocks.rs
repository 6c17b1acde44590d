//! What the journal's whole records say: each block through the door that a stranger's would come in by.

use std::collections::{BTreeMap, BTreeSet};

use osiris_ledger::{Admission, Author, Block, BlockId, Ledger, Reject, View};

use super::{Mend, in_journal, problem};
use crate::{api::Problem, driver::rows, store::Survey};

/// Refused blocks that are spoken of one by one.
const REFUSED_MAX: usize = 20;

/// Admits every entry, and returns those that every node refuses.
pub(super) fn admit(ledger: &mut Ledger, entries: &[Vec<u8>]) -> BTreeMap<BlockId, Reject> {
    let answers = ledger.admit_all(entries);
    let ids = entries.iter().map(|entry| Block::id_of(entry));
    let refused = ids.zip(answers).flat_map(|(id, answer)| match answer {
        Err(reject) => vec![(id, reject)],
        Ok(Admission::New { rejected, .. }) => {
            rejected.into_iter().map(|refused| (refused.id, refused.reject)).collect()
        }
        Ok(_) => Vec::new(),
    });
    refused.collect()
}

/// What is said of refused blocks, in the order of the journal.
pub(super) fn refused(refused: &BTreeMap<BlockId, Reject>, survey: &Survey) -> Vec<Problem> {
    let in_order = survey.places.iter().filter_map(|place| Some((place, refused.get(&place.id)?)));
    let mut problems: Vec<_> = in_order
        .map(|(place, reject)| {
            let what = format!("Block {} is not valid: {reject}.", place.id.short());
            problem(what, in_journal(Some(place.number), place.offset as u64), against(reject))
        })
        .collect();
    if problems.len() > REFUSED_MAX {
        let more = problems.len() - REFUSED_MAX;
        problems.truncate(REFUSED_MAX + 1);
        problems[REFUSED_MAX].what = format!("{more} more blocks are not valid.");
    }
    problems
}

fn against(reject: &Reject) -> &'static str {
    match reject {
        Reject::Version(_) => "Use the build that wrote it.",
        _ => {
            "Its record is whole, so it was written like this, or somebody changed the journal who knows its format: \
             put back the folder from a backup, or join again with a new ticket and a new folder."
        }
    }
}

/// Blocks that cannot be judged because others, which they name, are missing.
pub(super) fn waiting(
    ledger: &Ledger,
    view: &View,
    refused: &BTreeMap<BlockId, Reject>,
    survey: &Survey,
    mend: Mend,
) -> Option<Problem> {
    let waiting = Waiting::of(ledger, &survey.found.entries, |id| refused.contains_key(id));
    let first = waiting.blocks.first().map(|(id, _)| *id)?;
    let place = survey.places.iter().find(|place| place.id == first)?;
    let place = in_journal(Some(place.number), place.offset as u64);
    if !ledger.is_founded() {
        return Some(problem(
            format!(
                "The journal lacks the fleet's first block, so none of the {} other(s) can be judged.",
                waiting.blocks.len()
            ),
            place,
            format!("If a join was interrupted, run it again. {}", mend.blocks()),
        ));
    }
    let next = format!("They are kept, and count again once what they wait for is here. {}", mend.blocks());
    Some(problem(waiting.sentence(view), place, next))
}

/// Blocks of a journal that wait for others which it held and lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Waiting {
    /// In the order of the journal, each with its author.
    pub(in super::super) blocks: Vec<(BlockId, Author)>,
}

impl Waiting {
    /// Those of a journal's entries that the ledger neither admitted nor refused.
    pub(in super::super) fn of(
        ledger: &Ledger,
        entries: &[Vec<u8>],
        refused: impl Fn(&BlockId) -> bool,
    ) -> Self {
        if ledger.early() == (0, 0) {
            return Self::default();
        }
        let all = entries.iter().filter_map(|entry| Some((Block::id_of(entry), Block::author_of(entry)?)));
        Self { blocks: all.filter(|(id, _)| !ledger.contains_all(&[*id]) && !refused(id)).collect() }
    }

    /// Those of them that are still not in the ledger.
    pub(in super::super) fn left(&self, ledger: &Ledger) -> Self {
        let left = self.blocks.iter().filter(|(id, _)| !ledger.contains_all(&[*id]));
        Self { blocks: left.copied().collect() }
    }

    /// Those of them that are among `ids`.
    pub(in super::super) fn among(&self, ids: &BTreeSet<BlockId>) -> Self {
        Self { blocks: self.blocks.iter().filter(|(id, _)| ids.contains(id)).copied().collect() }
    }

    pub(in super::super) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// What they are, by author.
    pub(in super::super) fn sentence(&self, view: &View) -> String {
        let mut by_author: BTreeMap<Author, usize> = BTreeMap::new();
        for (_, author) in &self.blocks {
            *by_author.entry(*author).or_default() += 1;
        }
        let mut authors: Vec<_> =
            by_author.iter().map(|(author, n)| (*n, rows::label(view, author))).collect();
        authors.sort_by(|a, b| b.cmp(a));
        let authors: Vec<_> = authors.iter().map(|(n, label)| format!("{n} by {label}")).collect();
        format!(
            "{} whole block(s) of the journal cannot be judged, because they follow what is missing: {}.",
            self.blocks.len(),
            authors.join(", ")
        )
    }
}

/// How many chains the admitted blocks form.
pub(super) fn chains(ledger: &Ledger) -> u64 {
    ledger.chains_held() as u64
}
