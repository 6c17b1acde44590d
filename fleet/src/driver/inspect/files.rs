//! The folder's other files, and whose folder it is.

use std::{fs::File, path::Path};

use osiris_ledger::{Author, BlockId, Ledger, Payload, View};
use osiris_protocol::PeerAddr;
use osiris_runtime::open_regular;

use super::{ADMIN_KEY, KEY, Mend, at, of_error, problem};
use crate::{
    api::Problem,
    driver::{
        error::DriverError,
        folder::{self, parse_key},
    },
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
        ("confirmed", confirmed.is_none_or(|bytes| is_list_of_ids(&bytes)), UNSEEN),
        (
            "peers.json",
            peers.is_none_or(|bytes| serde_json::from_slice::<Vec<PeerAddr>>(&bytes).is_ok()),
            PEERS,
        ),
        ("mesh-port", port.is_none_or(|bytes| is_port(&bytes)), PORT),
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

fn is_list_of_ids(bytes: &[u8]) -> bool {
    let text = std::str::from_utf8(bytes);
    text.is_ok_and(|text| text.lines().all(|line| line.trim().parse::<BlockId>().is_ok()))
}

fn is_port(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| text.trim().parse::<u16>().is_ok())
}

/// Whose folder this is: by the device's key, the founder's, and the note of own blocks that others confirmed.
pub(super) fn identity(
    data: &Path,
    ledger: &Ledger,
    view: &View,
    key: Option<Author>,
    mend: Mend,
) -> Vec<Problem> {
    let Some(genesis) = ledger.get(&BlockId(ledger.fleet().0)) else { return Vec::new() };
    let Payload::Founded(founded) = genesis.payload() else { return Vec::new() };
    let fleet = format!("{} ({})", view.name(), ledger.fleet().short());
    let noted = noted(data);
    let (held, lost): (Vec<_>, Vec<_>) = noted.iter().partition(|id| ledger.contains_all(&[**id]));
    let admin = folder::read(&data.join(ADMIN_KEY)).ok();
    let admin = admin.and_then(|bytes| parse_key(Path::new(ADMIN_KEY), &bytes).ok());
    let founder = admin.map(|key| Author(key.verifying_key().to_bytes()) == founded.admin);
    let mut problems = Vec::new();
    if let Some(key) = key {
        let member = view.members().contains_key(&key);
        let foreign = founder == Some(false) || (held.is_empty() && !lost.is_empty());
        let wrote = held.iter().filter_map(|id| ledger.get(id)).find(|block| block.author() != key);
        let other = wrote.map(|block| block.author());
        let other = other.or((founder == Some(true) && genesis.author() != key).then(|| genesis.author()));
        if !member && foreign {
            return vec![problem(
                format!(
                    "The journal is another fleet's: it is of {fleet}, of which no member ever had the key in device.key ({}).",
                    key.short()
                ),
                at(JOURNAL),
                "Put back the folder's own journal and journal.head from a backup; or join again with a new ticket and a new folder.",
            )];
        }
        if !member {
            problems.push(problem(
                format!(
                    "No member of the fleet {fleet} ever had the key in device.key ({}): the file is another device's, or the journal is another fleet's.",
                    key.short()
                ),
                at(KEY),
                "Restore the right file from a backup; or join again with a new ticket and a new folder: `osiris join TICKET --data DIR`. If a join was interrupted, run it again.",
            ));
        } else if let Some(other) = other {
            problems.push(problem(
                format!(
                    "The key in device.key is of {}, but this folder was used by {}: the file is another device's.",
                    named(view, &key),
                    named(view, &other)
                ),
                at(KEY),
                "Restore the right file from a backup. Do not start the node with this one: two nodes would have one key.",
            ));
        }
    }
    if founder == Some(false) {
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

fn named(view: &View, device: &Author) -> String {
    match view.members().get(device).map(|member| member.label.as_str()) {
        Some(label) if !label.is_empty() => format!("{label} ({})", device.short()),
        _ => device.short(),
    }
}

/// The own blocks that the note of confirmed ones names.
fn noted(data: &Path) -> Vec<BlockId> {
    let bytes = folder::read(&data.join("confirmed")).unwrap_or_default();
    let text = String::from_utf8(bytes).unwrap_or_default();
    text.lines().filter_map(|line| line.trim().parse().ok()).collect()
}
