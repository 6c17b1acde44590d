//! `osiris ledger verify` of a folder whose node does not run: everything from the bytes, and nothing changed.
//!
//! Every file is opened to be read, and only where it is a regular one. What is found is a list of [`Problem`]s:
//! what does not hold, where, and what to do.

use std::{collections::BTreeSet, fs, io, path::Path};

use osiris_ledger::{Author, BlobHash, BlockId, Ledger, View};
use osiris_protocol::PeerAddr;

use super::{
    disk::FolderDisk,
    error::DriverError,
    folder::Folder,
    open::{UnreadPage, offer_pages},
    store::store_error,
};
use crate::{
    api::{Place, Problem, Verified, codes},
    store::{self, HEAD, JOURNAL, StoreError, Survey},
};

pub(super) mod blocks;
mod files;
mod journal;
pub(super) mod library;

pub(super) use journal::problems as journal_problems;

/// The device key's file.
const KEY: &str = "device.key";
/// The founder's.
const ADMIN_KEY: &str = "admin.key";
/// What only a folder that was used by a node of a fleet has, beside the journal and its head.
const TRACES: [&str; 4] = ["confirmed", "peers.json", "mesh-port", "library"];

/// Checks a folder that no process uses, without changing anything in it: it may be one that cannot be written
/// to. Others may look at the same time; a node does not start meanwhile.
///
/// # Errors
/// [`DriverError`] where the folder belongs to no fleet, or a process uses it: a node is asked instead.
pub fn verify(data: &Path) -> Result<Verified, DriverError> {
    match fs::metadata(data) {
        Ok(found) if found.is_dir() => {}
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(DriverError::io("The data folder cannot be read:", data, &error));
        }
        _ => return Err(no_fleet(data)),
    }
    let mut problems = Vec::new();
    let lock = match Folder::look(data) {
        Ok(lock) => lock,
        Err(error) if error.code == codes::CONFLICT.0 => return Err(error),
        Err(error) => {
            problems.push(of_error(error, "lock"));
            None
        }
    };
    let mut verified = verify_files(data, problems)?;
    if lock.is_none() && Folder::look(data).is_err_and(|error| error.code == codes::CONFLICT.0) {
        let what =
            "A process began to use the folder while it was looked at, so what was found may not hold.";
        verified.problems.insert(0, problem(what, at("lock"), "Verify again: the node is asked then."));
    }
    Ok(verified)
}

fn verify_files(data: &Path, mut problems: Vec<Problem>) -> Result<Verified, DriverError> {
    let survey = match store::survey(&FolderDisk::new(data)) {
        Err(StoreError::Missing { known: None }) if !is_left_of_a_fleet(data) => return Err(no_fleet(data)),
        survey => survey,
    };
    let key = files::problems(data, &mut problems);
    let mut verified = Verified { view: BlockId(View::default().hash()).to_string(), ..Verified::default() };
    match survey {
        Ok(survey) => judge(data, &survey, key, &mut verified, &mut problems),
        Err(error) => {
            match error {
                StoreError::Missing { known: None } => problems.push(problem(
                    "The journal is missing, though a node used this folder.",
                    at(JOURNAL),
                    "Restore the folder from a backup; or join again with a new ticket: `osiris join TICKET`.",
                )),
                // A file that cannot be read was spoken of.
                StoreError::Read(_) if !problems.is_empty() => {}
                error => problems.push(of_error(store_error(data, &error), JOURNAL)),
            }
            problems.extend(kept(data, Mend { others: None }));
        }
    }
    verified.problems = problems;
    Ok(verified)
}

/// What the whole records say, and what of it does not hold.
fn judge(
    data: &Path,
    survey: &Survey,
    key: Option<Author>,
    verified: &mut Verified,
    problems: &mut Vec<Problem>,
) {
    let mut ledger = Ledger::new(survey.found.fleet);
    let unread = offer_pages(&mut ledger, &data.join("library"), &survey.found.pages);
    let refused = blocks::admit(&mut ledger, &survey.found.entries);
    ledger.take_offered();
    let view = ledger.publish();
    let mend = Mend::new(&view, key, ledger.is_founded(), &Folder::peers_in(data));
    problems.extend(journal::problems(survey, mend, false));
    problems.extend(blocks::refused(&refused, survey));
    let waiting = blocks::waiting(&ledger, &view, &refused, survey, mend);
    let found = &survey.found;
    let incomplete = waiting.is_some() || found.lost_end.is_some() || !found.damage.is_empty();
    problems.extend(waiting);
    problems.extend(pages(&ledger, &unread, mend));
    let owner = files::Owner { data, ledger: &ledger, view: &view, entries: &found.entries, incomplete };
    problems.extend(owner.problems(key, mend));
    let known = library::KnownPages::of(&ledger, &survey.found.pages, true);
    let (components, wrong) = library::problems(&data.join("library"), &view, key, &known, mend);
    problems.extend(wrong);
    problems.extend(kept(data, mend));
    *verified = Verified {
        blocks: ledger.len(),
        chains: blocks::chains(&ledger),
        view: BlockId(view.hash()).to_string(),
        components,
        problems: Vec::new(),
    };
}

/// Pages by which blocks should be here that cannot be used, and what is wrong with those that can.
fn pages(ledger: &Ledger, unread: &[UnreadPage], mend: Mend) -> Vec<Problem> {
    let place = |hash: &BlobHash| at(&format!("library/{hash}.blob"));
    let mut problems: Vec<_> =
        unread.iter().map(|page| problem(page.to_string(), place(&page.hash), mend.blocks())).collect();
    problems.extend(ledger.page_fault().map(|fault| {
        let what = format!(
            "The page {} says of block {} what no valid block can be: {}.",
            fault.page.short(),
            fault.block.short(),
            fault.reject
        );
        problem(what, place(&fault.page), "Join again with a new ticket and a new folder.")
    }));
    problems
}

/// Who could give back what is missing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mend {
    /// Other members, or devices whose addresses were kept because they were members; none where the fleet's first
    /// block is missing.
    others: Option<usize>,
}

/// Devices whose addresses a folder kept, for all that its ledger says: where that lacks blocks, their admissions may
/// be among them.
pub(super) fn may_be_members(view: &View, me: Option<Author>, peers: &[PeerAddr]) -> usize {
    let devices: BTreeSet<_> = peers.iter().map(|peer| Author(peer.peer)).collect();
    let may = |device: &Author| {
        let member = view.members().get(device);
        member.map_or_else(|| !view.was_member(device), |member| member.active)
    };
    devices.into_iter().filter(|device| Some(*device) != me && may(device)).count()
}

impl Mend {
    pub(super) fn new(view: &View, me: Option<Author>, founded: bool, peers: &[PeerAddr]) -> Self {
        let others = view.members().values().filter(|member| member.active && Some(member.device) != me);
        Self { others: founded.then(|| others.count().max(may_be_members(view, me, peers))) }
    }

    /// How to get blocks back.
    pub(super) fn blocks(self) -> &'static str {
        match self.others {
            None => {
                "Restore the folder from a backup; or move the journal away and join again with a new ticket."
            }
            Some(0) => {
                "No other member is known that could give back what is missing: only a backup of the folder can."
            }
            Some(_) => "`osiris up` and `osiris sync` bring back what other members hold; then verify again.",
        }
    }
}

/// What earlier starts kept for people.
pub(super) fn kept(data: &Path, mend: Mend) -> impl Iterator<Item = Problem> {
    let next = match mend.others {
        Some(0) => {
            "No other member is known that could give back what is missing. Delete that file once it is of no use any more."
        }
        _ => {
            "Once `osiris sync` has brought back what other members hold and nothing is missing, delete that file."
        }
    };
    Folder::kept(data).into_iter().map(move |(what, name)| {
        let found = [
            "found the journal damaged, and kept the damaged file as",
            "cut off what was no whole record at the journal's end, and kept it as",
            "found that durable records were missing at the journal's end, and noted it in",
        ][what];
        problem(format!("An earlier start {found} {name}."), at(&name), next)
    })
}

fn no_fleet(data: &Path) -> DriverError {
    DriverError::new(
        codes::NOT_FOUND,
        format!("The data folder {} belongs to no fleet yet.", data.display()),
        "Found one with `osiris init`, or be admitted to one with `osiris join TICKET`.",
    )
}

fn is_left_of_a_fleet(data: &Path) -> bool {
    let there = |name: &str| fs::symlink_metadata(data.join(name)).is_ok();
    TRACES.iter().any(|name| there(name)) || there(JOURNAL) || there(HEAD) || !Folder::kept(data).is_empty()
}

pub(super) fn problem(what: impl Into<String>, place: Place, next: impl Into<String>) -> Problem {
    Problem { what: what.into(), place, next: next.into() }
}

fn of_error(error: DriverError, file: &str) -> Problem {
    problem(error.message, at(file), error.next.unwrap_or_default())
}

/// A whole file, by its path below the data folder.
pub(super) fn at(file: &str) -> Place {
    Place { file: file.to_owned(), record: None, byte: None }
}

/// A place in the journal.
fn in_journal(record: Option<u64>, byte: u64) -> Place {
    Place { file: JOURNAL.to_owned(), record, byte: Some(byte) }
}
