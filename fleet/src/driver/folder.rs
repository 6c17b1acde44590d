//! The data folder: one device key, one lock, one journal.
//!
//! ```text
//! DATA/device.key     the device's secret key, hex, mode 0600
//! DATA/admin.key      the founder's secret key, hex, mode 0600; on the founding device only
//! DATA/lock           held by the one process that uses the folder
//! DATA/journal        the ledger's blocks (osiris_ledger::journal)
//! DATA/mesh-port      the UDP port this device had last, which it takes again where it is free
//! DATA/journal.head   how far the journal goes; without it, a journal cut between two records looks whole
//! DATA/journal.damaged-N, journal.tail-N, journal.cut-N   what a start found damaged, cut off or missing, for people
//! DATA/peers.json     where members were last known to listen
//! DATA/confirmed      ids of the last own blocks that other members confirmed, one a line; without it they count as unseen
//! DATA/library/       components and manifests by hash
//! DATA/cache/         compiled components, of this build and machine alone
//! DATA/osiris.sock    the management socket of the running node
//! ```

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use osiris_ledger::{Author, BlockId, Session, SigningKey};
use osiris_protocol::PeerAddr;
use osiris_runtime::{open_regular, read_regular};

use super::{
    disk::FolderDisk,
    error::DriverError,
    limits::{FOLDER_PATIENCE, SMALL_FILE_BYTES_MAX},
};
use crate::{
    api::codes,
    disk::replace,
    kept,
    store::{KEPT, KEPT_TAIL},
};

/// Longest path of a Unix socket that every system takes, in bytes.
const SOCKET_PATH_MAX: usize = 100;

/// What can be done with a folder that cannot be written to.
const READ_ONLY_NEXT: &str = "Writing needs a folder of this user's on a disk that can be written to: `--data DIR`. `osiris status`, `nodes`, `ls`, `describe` and `ledger log` read this one as it is.";

/// Where the management socket of a data folder is: `DATA/osiris.sock`, or under `XDG_RUNTIME_DIR`
/// where that path is too long for a socket.
#[must_use]
pub fn socket_path(data: &Path, xdg_runtime_dir: Option<&Path>) -> PathBuf {
    let data = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
    let plain = data.join("osiris.sock");
    match xdg_runtime_dir {
        Some(runtime) if plain.as_os_str().len() > SOCKET_PATH_MAX => {
            let name = blake3::hash(data.as_os_str().as_encoded_bytes()).to_hex();
            runtime.join(format!("osiris-{}.sock", &name[..16]))
        }
        _ => plain,
    }
}

/// An open data folder. The lock is held until it is dropped.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    hold: Hold,
}

/// How a folder is held.
#[derive(Debug)]
enum Hold {
    /// By its lock, alone: it is written to.
    Use(#[expect(dead_code, reason = "held until it is dropped")] File),
    /// To be read: others may read, and nobody writes. No lock where nobody ever used the folder.
    Look(#[expect(dead_code, reason = "held until it is dropped")] Option<File>),
    /// To be read because it cannot be written to, without its lock: a node that runs elsewhere may write to it.
    Unwritable,
}

/// Whether a failure says that nothing can be written there, whoever tries again.
fn forbids_writing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
}

impl Folder {
    /// Opens the folder, making it where it is missing, and takes its lock.
    pub(crate) fn open(path: &Path) -> Result<Self, DriverError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|error| DriverError::io("The data folder cannot be made at", path, &error))?;
        let lock_path = path.join("lock");
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let lock = open_regular(&mut options, &lock_path).map_err(|error| match error.kind() {
            io::ErrorKind::ReadOnlyFilesystem => DriverError::new(
                codes::CONFLICT,
                format!("The data folder {} is on a file system that is read-only.", path.display()),
                READ_ONLY_NEXT,
            ),
            io::ErrorKind::PermissionDenied => DriverError::new(
                codes::DENIED,
                format!("This user may not write to the data folder {}: {error}.", path.display()),
                READ_ONLY_NEXT,
            ),
            _ => DriverError::io("The data folder cannot be used:", &lock_path, &error),
        })?;
        take(path, || lock.try_lock())?;
        Ok(Self { path: path.to_owned(), hold: Hold::Use(lock) })
    }

    /// Takes the lock of a folder that is only to be looked into: nobody changes it meanwhile, and others may
    /// look, too. Nothing is made, so the folder may be one that cannot be written to; where there is no lock
    /// file, nobody ever used it.
    pub(crate) fn look(path: &Path) -> Result<Option<File>, DriverError> {
        let lock_path = path.join("lock");
        let lock = match open_regular(OpenOptions::new().read(true), &lock_path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            lock => lock.map_err(|error| {
                DriverError::io("Whether the data folder is in use cannot be told:", &lock_path, &error)
            })?,
        };
        take(path, || lock.try_lock_shared())?;
        Ok(Some(lock))
    }

    /// A folder that is only read; it may be one that cannot be written to.
    pub(crate) fn open_to_look(path: &Path) -> Result<Self, DriverError> {
        let open = open_regular(OpenOptions::new().write(true), &path.join("lock"));
        let hold = match open.is_err_and(|error| forbids_writing(&error)) {
            true => Hold::Unwritable,
            false => Hold::Look(Self::look(path)?),
        };
        Ok(Self { path: path.to_owned(), hold })
    }

    /// Whether it is only read, because it cannot be written to.
    pub(crate) fn is_unwritable(&self) -> bool {
        matches!(self.hold, Hold::Unwritable)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }

    pub(crate) fn library(&self) -> PathBuf {
        self.path.join("library")
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.path.join("cache")
    }

    /// The device's key, made at first use.
    pub(crate) fn device_key(&self) -> Result<SigningKey, DriverError> {
        device_key(&self.path)
    }

    /// The founder's key, made at first use.
    pub(crate) fn admin_key(&self) -> Result<SigningKey, DriverError> {
        read_key(&self.path.join("admin.key"))
    }

    /// Where members were last known to listen; nothing where the file is missing or damaged,
    /// because connections from members bring it back.
    pub(crate) fn peers(&self) -> Vec<PeerAddr> {
        Self::peers_in(&self.path)
    }

    /// The same of a folder that nobody has opened.
    pub(crate) fn peers_in(data: &Path) -> Vec<PeerAddr> {
        let bytes = read(&data.join("peers.json")).unwrap_or_default();
        kept::read_peers(&bytes).unwrap_or_default()
    }

    pub(crate) fn save_peers(&self, peers: &[PeerAddr]) -> Result<(), DriverError> {
        self.save("peers.json", &kept::write_peers(peers))
    }

    /// The own blocks that other members had confirmed when that was last kept; nothing where the file is
    /// missing or damaged, because the next agreement brings it back.
    pub(crate) fn confirmed(&self) -> Vec<BlockId> {
        kept::read_confirmed(&read(&self.path.join("confirmed")).unwrap_or_default())
    }

    pub(crate) fn save_confirmed(&self, blocks: &[BlockId]) -> Result<(), DriverError> {
        if self.confirmed() == blocks {
            return Ok(());
        }
        self.save("confirmed", &kept::write_confirmed(blocks))
    }

    /// The names of what earlier starts found damaged, cut off or missing and kept; for each which of
    /// [`KEPT`] it is.
    pub(crate) fn kept(data: &Path) -> Vec<(usize, String)> {
        let entries = fs::read_dir(data).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut kept: Vec<_> = names
            .filter_map(|name| Some((KEPT.iter().position(|what| name.starts_with(what))?, name)))
            .collect();
        kept.sort();
        kept
    }

    /// Whether an earlier start found that the journal lacks blocks which it held, and nobody has said since, by
    /// deleting what it kept, that this is settled. A tail that was cut off is what a power cut leaves.
    pub(crate) fn kept_damage(data: &Path) -> bool {
        Self::kept(data).iter().any(|(what, _)| KEPT[*what] != KEPT_TAIL)
    }

    /// The mesh port that this device had last.
    pub(crate) fn mesh_port(&self) -> Option<u16> {
        kept::read_port(&read(&self.path.join("mesh-port")).ok()?)
    }

    pub(crate) fn save_mesh_port(&self, port: u16) -> Result<(), DriverError> {
        if self.mesh_port() == Some(port) {
            return Ok(());
        }
        self.save("mesh-port", port.to_string().as_bytes())
    }

    fn save(&self, name: &str, bytes: &[u8]) -> Result<(), DriverError> {
        let path = self.path.join(name);
        replace(&mut FolderDisk::new(&self.path), name, bytes)
            .map_err(|error| DriverError::io("A file cannot be written:", &path, &error))
    }
}

/// A file of the folder beside the journal.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_regular(path, SMALL_FILE_BYTES_MAX)
}

/// Takes a lock that another process may be about to let go.
fn take(
    folder: &Path,
    lock: impl Fn() -> std::result::Result<(), fs::TryLockError>,
) -> Result<(), DriverError> {
    let patience = std::time::Instant::now() + FOLDER_PATIENCE;
    loop {
        match lock() {
            Ok(()) => return Ok(()),
            Err(fs::TryLockError::WouldBlock) if std::time::Instant::now() < patience => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(fs::TryLockError::WouldBlock) => {
                return Err(DriverError::in_use(folder));
            }
            Err(fs::TryLockError::Error(error)) => {
                return Err(DriverError::io(
                    "The data folder cannot be locked:",
                    &folder.join("lock"),
                    &error,
                ));
            }
        }
    }
}

/// Whether a process uses this folder.
///
/// # Errors
/// [`DriverError`] where that cannot be told.
pub fn is_in_use(data: &Path) -> Result<bool, DriverError> {
    let lock_path = data.join("lock");
    let told = match open_regular(OpenOptions::new().read(true), &lock_path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        lock => lock.and_then(|lock| match lock.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(fs::TryLockError::WouldBlock) => Ok(true),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }),
    };
    told.map_err(|error| {
        DriverError::io("Whether the data folder is in use cannot be told:", &lock_path, &error)
    })
}

/// This folder's device, as hex; its key is made where there is none. Needs no lock: the key file
/// appears whole or not at all.
///
/// # Errors
/// [`DriverError`] where the folder cannot be used.
pub fn device(data: &Path) -> Result<String, DriverError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(data);
    made.map_err(|error| DriverError::io("The data folder cannot be made at", data, &error))?;
    let key = device_key(data)?;
    Ok(Author(key.verifying_key().to_bytes()).to_string())
}

/// The same, where a key has to be: none is made.
///
/// # Errors
/// [`DriverError`] where there is none, or none that can be read.
pub(crate) fn read_device(data: &Path) -> Result<Author, DriverError> {
    let path = data.join("device.key");
    let bytes = match read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing_key(&path)),
        bytes => bytes.map_err(|error| DriverError::io("The key cannot be read from", &path, &error))?,
    };
    Ok(Author(parse_key(&path, &bytes)?.verifying_key().to_bytes()))
}

fn missing_key(path: &Path) -> DriverError {
    DriverError::new(
        codes::INTERNAL,
        format!("The key file {} is missing, though the folder belongs to a fleet.", path.display()),
        "Restore it from a backup; or move the folder away and join again with a new ticket.",
    )
}

/// Random bytes from the operating system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], DriverError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| {
        DriverError::new(codes::INTERNAL, format!("The system gives no random bytes: {error}."), "")
    })?;
    Ok(bytes)
}

/// A session that no process used before.
pub(crate) fn fresh_session() -> Result<Session, DriverError> {
    Ok(Session(random()?))
}

/// A folder that belongs to a fleet had its key: another one would be another device.
fn device_key(data: &Path) -> Result<SigningKey, DriverError> {
    let path = data.join("device.key");
    let has_journal = || data.join("journal").exists() || data.join("journal.head").exists();
    if !path.exists() && has_journal() {
        return Err(missing_key(&path));
    }
    read_key(&path)
}

/// The key in a file that has to be there.
pub(crate) fn parse_key(path: &Path, bytes: &[u8]) -> Result<SigningKey, DriverError> {
    let secret = std::str::from_utf8(bytes).ok().and_then(|text| text.trim().parse().ok());
    let secret: osiris_ledger::BlobHash = secret.ok_or_else(|| {
        DriverError::new(
            codes::INTERNAL,
            format!("The key file {} is damaged: it must hold 64 hexadecimal digits.", path.display()),
            "Restore it from a backup, or join again with a new folder.",
        )
    })?;
    Ok(SigningKey::from_bytes(&secret.0))
}

fn read_key(path: &Path) -> Result<SigningKey, DriverError> {
    match read(path) {
        Ok(bytes) => parse_key(path, &bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let secret: [u8; 32] = random()?;
            let text = format!("{}\n", osiris_ledger::BlobHash(secret));
            match create_durably(path, text.as_bytes()) {
                Ok(()) => Ok(SigningKey::from_bytes(&secret)),
                // Another process made it in the meantime.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read_key(path),
                Err(error) => Err(DriverError::io("The key cannot be written to", path, &error)),
            }
        }
        Err(error) => Err(DriverError::io("The key cannot be read from", path, &error)),
    }
}

/// Writes a file that appears whole or not at all, readable by its owner only, unless it exists. Other
/// processes may do the same at once.
fn create_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = write_temporary(path, bytes)?;
    let linked = fs::hard_link(&temporary, path);
    fs::remove_file(&temporary)?;
    linked?;
    sync_parent(path)
}

fn write_temporary(path: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    let temporary = path.with_extension(format!("{}.part", std::process::id()));
    let write = || {
        let mut file =
            OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    if let Err(error) = write() {
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    Ok(temporary)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_user_and_one_key() {
        let dir = tempfile::tempdir().expect("a folder");
        let data = dir.path().join("data");
        let folder = Folder::open(&data).expect("a new folder");
        let refused = Folder::open(&data).expect_err("a second user");
        assert_eq!(refused.code, codes::CONFLICT.0);
        let key = folder.device_key().expect("a key").to_bytes();
        drop(folder);
        let again = Folder::open(&data).expect("free again");
        assert_eq!(again.device_key().expect("the key").to_bytes(), key);
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(data.join("device.key")).expect("the file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_long_path_moves_the_socket() {
        let long = Path::new("/").join("x".repeat(120));
        let runtime = Path::new("/run/user/1000");
        assert!(socket_path(&long, Some(runtime)).starts_with(runtime));
        assert_eq!(socket_path(Path::new("/d"), Some(runtime)), Path::new("/d/osiris.sock"));
    }
}
