//! What a maker tells the fleet's spawners of its machines' states, and what a spawner keeps of others'.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
};

use osiris_ledger::{
    BlockId, Role, SigningKey,
    limits::{STATE_RECORD_BYTES_MAX, STATES_MAX},
    state::{About, Record},
};
use zeroize::Zeroizing;

use super::sealed::{Fresh, seal};
use crate::{
    disk::replace,
    driver::{desk::Desk, disk::FolderDisk, folder::random},
    node::{Input, lease::Share},
};

/// Folder below that of machines, with a file for each intent.
const FOLDER: &str = "provision/shared";

/// Seals each state that Terraform writes of one machine, and hands the record to the core.
pub(super) struct Sharer {
    pub(super) desk: Arc<Desk>,
    pub(super) device: Arc<SigningKey>,
    pub(super) to_core: tokio::sync::mpsc::Sender<Input>,
    intent: BlockId,
    claim: BlockId,
    serial: AtomicU64,
}

impl Sharer {
    pub(super) fn new(
        desk: Arc<Desk>,
        device: Arc<SigningKey>,
        to_core: tokio::sync::mpsc::Sender<Input>,
        intent: BlockId,
        share: &Share,
    ) -> Self {
        let serial = AtomicU64::new(share.serial);
        Self { desk, device, to_core, intent, claim: share.claim, serial }
    }

    /// Failure is said in the log: the state is on this node's disk, and the machine goes on.
    pub(super) async fn share(&self, state: &[u8]) {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed) + 1;
        let about = About { intent: self.intent, claim: self.claim, serial };
        match self.seal(about, state) {
            Ok(record) => drop(self.to_core.send(Input::StateSealed(record)).await),
            Err(why) => {
                tracing::warn!(intent = %self.intent.short(), %why, "the state of a machine is not shared")
            }
        }
    }

    fn seal(&self, about: About, state: &[u8]) -> Result<Record, String> {
        let view = self.desk.view();
        let spawners = view.members().values();
        let spawners = spawners.filter(|member| member.active && member.roles.has(Role::Spawner));
        let readers: Vec<_> = spawners.map(|member| member.device).collect();
        let random = || random().map(Zeroizing::new).map_err(|error| error.message);
        let fresh = Fresh { key: random()?, ephemeral: random()? };
        seal(&self.desk.fleet, &self.device, about, &readers, state, &fresh)
    }
}

/// The records that this device keeps, as files.
#[derive(Debug)]
pub(crate) struct Kept {
    folder: PathBuf,
    work: Option<mpsc::SyncSender<Work>>,
}

#[derive(Debug)]
enum Work {
    Keep(BlockId, Record),
    Drop(BlockId),
}

impl Kept {
    pub(crate) fn new(data: &Path) -> Self {
        Self { folder: data.join(FOLDER), work: None }
    }

    /// What earlier processes kept. What cannot be read is left out: others hold it as well.
    pub(crate) fn read(&self) -> Vec<Vec<u8>> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let named = entries
            .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.parse::<BlockId>().is_ok()));
        let read = named.filter_map(|entry| {
            osiris_runtime::read_regular(&entry.path(), STATE_RECORD_BYTES_MAX as u64).ok()
        });
        read.take(STATES_MAX).collect()
    }

    pub(crate) fn keep(&mut self, intent: BlockId, record: Record) {
        self.order(Work::Keep(intent, record));
    }

    pub(crate) fn forget(&mut self, intent: BlockId) {
        self.order(Work::Drop(intent));
    }

    /// One after the other, and not while the core waits: a record is waited for by nobody.
    fn order(&mut self, work: Work) {
        let sender = self.work.get_or_insert_with(|| {
            let (sender, orders) = mpsc::sync_channel(STATES_MAX);
            let folder = self.folder.clone();
            let thread = std::thread::Builder::new().name("osiris-states".to_owned());
            if let Err(error) =
                thread.spawn(move || orders.into_iter().for_each(|work| perform(&folder, work)))
            {
                tracing::warn!(%error, "states of machines are not kept");
            }
            sender
        });
        // A member that sends one after the other waits for nothing here: others hold the record, and hand it on again.
        if sender.try_send(work).is_err() {
            tracing::warn!("more states of machines come than are written");
        }
    }
}

fn perform(folder: &Path, work: Work) {
    let (intent, done) = match work {
        Work::Keep(intent, record) => {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
            let name = intent.to_string();
            (intent, made.and_then(|()| replace(&mut FolderDisk::new(folder), &name, record.bytes())))
        }
        Work::Drop(intent) => match fs::remove_file(folder.join(intent.to_string())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => (intent, Err(error)),
            _ => (intent, Ok(())),
        },
    };
    if let Err(error) = done {
        tracing::warn!(intent = %intent.short(), %error, "the state of a machine cannot be kept, or forgotten");
    }
}
