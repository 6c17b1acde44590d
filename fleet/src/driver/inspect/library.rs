//! The bytes that the view says are here: whole, missing, and who else has them.

use std::{collections::BTreeSet, path::Path};

use osiris_ledger::{Author, BlobHash, Ledger, Payload, Revision, View};
use osiris_runtime::{ComponentHash, Library};

use super::{Mend, at, problem};
use crate::{api::Problem, driver::rows};

/// Pages of summaries among the blobs.
#[derive(Debug, Default)]
pub(in super::super) struct KnownPages {
    /// By which blocks are here.
    used: BTreeSet<BlobHash>,
    /// That some voter sealed.
    sealed: BTreeSet<BlobHash>,
    /// Of those that are used, what the damage of was spoken of already.
    spoken_of: bool,
}

impl KnownPages {
    /// Of a ledger that relies on these.
    pub(in super::super) fn of(ledger: &Ledger, used: &[BlobHash], spoken_of: bool) -> Self {
        let blocks = ledger.in_order();
        let sealed = blocks.iter().filter_map(|block| match block.payload() {
            Payload::Sealed(op) => Some(op.page),
            _ => None,
        });
        Self { used: used.iter().copied().collect(), sealed: sealed.collect(), spoken_of }
    }
}

/// Hashes every blob of a library's folder, and says which revisions lack their bytes here. Returns how many
/// blobs are whole.
pub(in super::super) fn problems(
    dir: &Path,
    view: &View,
    me: Option<Author>,
    pages: &KnownPages,
    again: Mend,
) -> (u64, Vec<Problem>) {
    let mend = |hash: ComponentHash| {
        match BlobHash(hash.0) {
        page if pages.used.contains(&page) => again.blocks().to_owned(),
        page if pages.sealed.contains(&page) => {
            "It is a page of summaries that nothing here relies on: delete the file; the node gets it again when it needs it."
                .to_owned()
        }
        _ => mend(view, me, hash),
    }
    };
    let mut problems = Vec::new();
    let survey = match Library::survey(dir) {
        Ok(survey) => survey,
        Err(error) => {
            problems.push(problem(error.to_string(), at("library"), "Check the folder and its permissions."));
            return (0, problems);
        }
    };
    if survey.is_none() && needed(view, me).next().is_some() {
        problems.push(problem(
            "The folder library is missing, and with it the bytes of every function here.",
            at("library"),
            "Put it back from a backup, where there is one.",
        ));
    }
    let survey = survey.unwrap_or_default();
    let mut whole = BTreeSet::new();
    for hash in &survey.blobs {
        match Library::check(dir, *hash) {
            Ok(()) => {
                whole.insert(*hash);
            }
            Err(_) if pages.spoken_of && pages.used.contains(&BlobHash(hash.0)) => {}
            Err(error) => problems.push(problem(error.to_string(), at(&blob(*hash)), mend(*hash))),
        }
    }
    for hash in &survey.moved_aside {
        let file = format!("library/{hash}.damaged");
        let what = format!("An earlier look found {} damaged and moved it to {file}.", blob(*hash));
        let next = match whole.contains(hash) {
            true => format!("The bytes are here again, whole: delete {file}."),
            false => format!("{} Then delete {file}.", mend(*hash)),
        };
        problems.push(problem(what, at(&file), next));
    }
    // What is there and damaged was spoken of.
    problems.extend(missing(view, me, |hash| survey.blobs.contains(&hash)));
    (whole.len() as u64, problems)
}

fn blob(hash: ComponentHash) -> String {
    format!("library/{hash}.blob")
}

/// How bytes that are damaged here come back.
fn mend(view: &View, me: Option<Author>, hash: ComponentHash) -> String {
    let hash = BlobHash(hash.0);
    let functions = view.functions().values().flat_map(|function| &function.revisions);
    let uses: Vec<_> =
        functions.filter(|revision| [revision.component, revision.manifest].contains(&hash)).collect();
    if uses.is_empty() {
        return "No revision that is known here uses these bytes: delete the file.".to_owned();
    }
    match holders(view, me, &uses).as_slice() {
        [] => LOST.to_owned(),
        holders => format!("The next start fetches the bytes from another member: {}.", holders.join(", ")),
    }
}

const LOST: &str = "No other member is known to hold these bytes. Put back the file from a backup, or deploy the function again.";

/// Revisions whose bytes have to be here: those that this device says it serves, and the current ones that it
/// deployed itself, which nobody else may have.
fn needed(view: &View, me: Option<Author>) -> impl Iterator<Item = (&str, &Revision, bool)> {
    view.functions().values().flat_map(move |function| {
        function.revisions.iter().filter_map(move |revision| {
            let served = revision.serving.iter().any(|serving| Some(serving.device) == me);
            let current = function.live.iter().chain(&function.newest).any(|other| other.id == revision.id);
            let alone =
                current && !function.removed && Some(revision.by) == me && revision.serving.is_empty();
            (served || alone).then_some((function.name.as_str(), &**revision, served))
        })
    })
}

/// Members other than this device that have one of these revisions ready, and so hold its bytes.
fn holders(view: &View, me: Option<Author>, revisions: &[impl AsRef<Revision>]) -> Vec<String> {
    let serving = revisions.iter().flat_map(|revision| &revision.as_ref().serving);
    let devices: BTreeSet<_> = serving.map(|serving| serving.device).filter(|d| Some(*d) != me).collect();
    devices.iter().map(|device| rows::label(view, device)).collect()
}

/// Revisions whose bytes have to be here and are not.
pub(in super::super) fn missing(
    view: &View,
    me: Option<Author>,
    holds: impl Fn(ComponentHash) -> bool,
) -> Vec<Problem> {
    let lacks = |hash: BlobHash| !holds(ComponentHash(hash.0));
    let needed =
        needed(view, me).filter(|(_, revision, _)| lacks(revision.component) || lacks(revision.manifest));
    needed.map(|(name, revision, served)| lost(view, me, name, revision, served, lacks)).collect()
}

fn lost(
    view: &View,
    me: Option<Author>,
    name: &str,
    revision: &Revision,
    served: bool,
    lacks: impl Fn(BlobHash) -> bool,
) -> Problem {
    let bytes = if lacks(revision.component) { revision.component } else { revision.manifest };
    let place = at(&blob(ComponentHash(bytes.0)));
    let said =
        if served { "though the ledger says that it is served here" } else { "though it was deployed here" };
    let what = format!("The bytes of {name}@{} are missing here, {said}", revision.number);
    let others = view.functions().values().flat_map(|function| &function.revisions);
    let others: Vec<_> = others.filter(|other| [other.component, other.manifest].contains(&bytes)).collect();
    match holders(view, me, &others).as_slice() {
        [] => problem(
            format!("{what}, and no other member is known to hold them: without a backup they are lost."),
            place,
            "Put back the folder library from a backup, or deploy the function again.",
        ),
        holders => problem(
            format!("{what}."),
            place,
            format!(
                "Start the node again: it fetches them from another member ({}); where none holds them, deploy the function again.",
                holders.join(", ")
            ),
        ),
    }
}
