//! The folder's other files, and whose folder it is.

use std::{collections::BTreeMap, fs::File, path::Path};

use osiris_ledger::{Author, Block, BlockId, Ledger, Payload, View};
use osiris_runtime::open_regular;

use super::{ADMIN_KEY, KEY, Mend, at, of_error, problem};
use crate::{
    api::Problem,
    driver::{
        error::DriverError,
        folder::{self, parse_key},
    },
    kept,
    store::{HEAD, JOURNAL},
};

/// Adds what is wrong with each file by itself, and returns the device's key, where it can be read.
pub(super) fn problems(data: &Path, problems: &mut Vec<Problem>) -> Option<Author> {
    let mut read = |name: &str| match folder::read(&data.join(name)) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            let path = data.join(name);
            problems.push(of_error(DriverError::io("A file cannot be read:", &path, &error), name));
            None
        }
    };
    let [key, admin] = [read(KEY), read(ADMIN_KEY)];
    let [confirmed, peers, port] = [read("confirmed"), read("peers.json"), read("mesh-port")];
    // The lock was spoken of when it was to be taken.
    for name in [JOURNAL, HEAD] {
        let path = data.join(name);
        if let Err(error) = open_regular(File::options().read(true), &path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            problems.push(of_error(DriverError::io("A file cannot be read:", &path, &error), name));
        }
    }
    let mut keys = [(KEY, key), (ADMIN_KEY, admin)].map(|(name, bytes)| {
        let parsed = bytes.map(|bytes| parse_key(&data.join(name), &bytes))?;
        parsed.map_err(|error| problems.push(of_error(error, name))).ok()
    });
    let key = keys[0].take().map(|key| Author(key.verifying_key().to_bytes()));
    if key.is_none() && std::fs::symlink_metadata(data.join(KEY)).is_err() {
        problems.push(problem(
            "The file device.key is missing, though the folder belongs to a fleet.",
            at(KEY),
            "Restore it from a backup; or move the folder away and join again with a new ticket.",
        ));
    }
    let sound = [
        ("confirmed", confirmed.is_none_or(|bytes| kept::is_confirmed(&bytes)), UNSEEN),
        ("peers.json", peers.is_none_or(|bytes| kept::read_peers(&bytes).is_some()), PEERS),
        ("mesh-port", port.is_none_or(|bytes| kept::read_port(&bytes).is_some()), PORT),
    ];
    for (name, _, then) in sound.into_iter().filter(|(_, sound, _)| !sound) {
        let what = format!("The file {name} is damaged.");
        problems.push(problem(what, at(name), format!("Delete it: it is made again. {then}")));
    }
    key
}

const UNSEEN: &str = "Until the next agreement with another member, own blocks count as unseen.";
const PEERS: &str = "Members are found again by `osiris join` with a ticket, or once one of them calls.";
const PORT: &str = "The node takes another port.";

/// What says whose folder this is: the device's key, the founder's, and the note of own blocks that others
/// confirmed, beside what the journal holds.
pub(super) struct Owner<'a> {
    pub(super) data: &'a Path,
    pub(super) ledger: &'a Ledger,
    pub(super) view: &'a View,
    /// The journal's, those that wait among them.
    pub(super) entries: &'a [Vec<u8>],
    /// Blocks are missing: who is no member by what is left may be one.
    pub(super) incomplete: bool,
}

impl Owner<'_> {
    /// What does not fit together.
    pub(super) fn problems(&self, key: Option<Author>, mend: Mend) -> Vec<Problem> {
        let Some(genesis) = self.ledger.get(&BlockId(self.ledger.fleet().0)) else { return Vec::new() };
        let Payload::Founded(founded) = genesis.payload() else { return Vec::new() };
        let fleet = format!("{} ({})", self.view.name(), self.ledger.fleet().short());
        let authors: BTreeMap<BlockId, Option<Author>> =
            self.entries.iter().map(|entry| (Block::id_of(entry), Block::author_of(entry))).collect();
        let held = |id: &BlockId| authors.contains_key(id) || self.ledger.contains_all(&[*id]);
        let (noted, lost): (Vec<_>, Vec<_>) = noted(self.data).into_iter().partition(held);
        let is_founder = self.admin().map(|admin| admin == founded.admin);
        let mut problems = Vec::new();
        if let Some(key) = key {
            let seen = self.view.members().contains_key(&key) || authors.values().any(|by| *by == Some(key));
            let other_notes = !self.incomplete && noted.is_empty() && !lost.is_empty();
            let writers = noted.iter().filter_map(|id| authors.get(id).copied().flatten());
            let founder = (is_founder == Some(true)).then(|| genesis.author());
            let user = writers.chain(founder).find(|author| *author != key);
            match (seen, user) {
                (false, None) if is_founder == Some(false) || other_notes => {
                    return vec![another_fleets(&fleet, &key)];
                }
                (false, _) if !self.incomplete || user.is_some() => problems.push(no_members(&fleet, &key)),
                (true, Some(user)) => problems.push(another_members(self.view, &key, &user)),
                _ => {}
            }
        }
        if is_founder == Some(false) {
            problems.push(problem(
                format!("The key in admin.key did not found the fleet {fleet}: the file is another fleet's."),
                at(ADMIN_KEY),
                "Restore the right file from a backup.",
            ));
        }
        if !lost.is_empty() {
            let what = format!(
                "The file confirmed names {} own block(s) that the journal lacks, though another member confirmed them.",
                lost.len()
            );
            problems.push(problem(what, at("confirmed"), mend.blocks()));
        }
        problems
    }

    fn admin(&self) -> Option<Author> {
        let bytes = folder::read(&self.data.join(ADMIN_KEY)).ok()?;
        let key = parse_key(Path::new(ADMIN_KEY), &bytes).ok()?;
        Some(Author(key.verifying_key().to_bytes()))
    }
}

fn another_fleets(fleet: &str, key: &Author) -> Problem {
    problem(
        format!(
            "The journal is another fleet's: it is of {fleet}, of which no member ever had the key in device.key ({}).",
            key.short()
        ),
        at(JOURNAL),
        "Put back the folder's own journal and journal.head from a backup; or join again with a new ticket and a new folder.",
    )
}

fn no_members(fleet: &str, key: &Author) -> Problem {
    problem(
        format!(
            "No member of the fleet {fleet} ever had the key in device.key ({}): the file is another device's, or the journal is another fleet's.",
            key.short()
        ),
        at(KEY),
        "Restore the right file from a backup; or join again with a new ticket and a new folder: `osiris join TICKET --data DIR`. If a join was interrupted, run it again.",
    )
}

fn another_members(view: &View, key: &Author, user: &Author) -> Problem {
    problem(
        format!(
            "The key in device.key is of {}, but this folder was used by {}: the file is another device's.",
            named(view, key),
            named(view, user)
        ),
        at(KEY),
        "Restore the right file from a backup. Do not start the node with this one: two nodes would have one key.",
    )
}

fn named(view: &View, device: &Author) -> String {
    match view.members().get(device).map(|member| member.label.as_str()) {
        Some(label) if !label.is_empty() => format!("{label} ({})", device.short()),
        _ => device.short(),
    }
}

/// The own blocks that the note of confirmed ones names.
fn noted(data: &Path) -> Vec<BlockId> {
    kept::read_confirmed(&folder::read(&data.join("confirmed")).unwrap_or_default())
}
