//! The system's keyring, where it has one: it keeps the passphrase of a user's key for who asked for that.
//!
//! There are two on Linux. A desktop's, reached over the Secret Service interface by `secret-tool` of libsecret, is
//! encrypted on the disk and opens with the session. The kernel's (`keyrings(7)`, the persistent keyring of the
//! user) is in memory alone, so also for boards and servers; it forgets at a restart, and what nobody uses for
//! some days. Either is open to every process of its user, as an agent for SSH keys is.

use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use linux_keyutils::{Key, KeyError, KeyRing, KeyRingIdentifier};
use zeroize::Zeroizing;

use crate::args::KeyringPlace as Place;

/// Bytes of a passphrase.
pub(crate) const PASSPHRASE_BYTES_MAX: usize = 1_024;

/// A locked keyring of a desktop asks its owner on the screen, who may type for so long.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is read of what it says, at most: a passphrase, or an error of one line.
const SAID_BYTES_MAX: usize = 4 << 10;

/// Why a keyring does not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyringError {
    /// It is not there, and why.
    #[error("{0}")]
    Absent(String),
    /// It is there and says no.
    #[error("{0}")]
    Refused(String),
}

impl Place {
    /// Where it is, in words.
    pub(crate) fn named(self) -> &'static str {
        match self {
            Self::Desktop => "the desktop's keyring",
            Self::Kernel => "the kernel's keyring",
        }
    }

    /// How long it keeps what it is given.
    pub(crate) fn keeps(self) -> String {
        match self {
            Self::Desktop => "until it is told to forget it".to_owned(),
            Self::Kernel => match expiry() {
                Some(days @ 2..) => format!("until a restart, or until it was not used for {days} days"),
                _ => "until a restart, or until it was not used for long".to_owned(),
            },
        }
    }
}

/// Days for which the kernel keeps what nobody uses.
fn expiry() -> Option<u64> {
    let seconds = std::fs::read_to_string("/proc/sys/kernel/keys/persistent_keyring_expiry").ok()?;
    seconds.trim().parse::<u64>().ok().map(|seconds| seconds / 86_400)
}

/// Keeps the passphrase of a key; `key` is its public half, hex. Without a place, the desktop's keyring where there
/// is one, else the kernel's.
///
/// # Errors
/// [`KeyringError`] of the place, or of the last that was tried.
pub(crate) fn remember(key: &str, passphrase: &str, place: Option<Place>) -> Result<Place, KeyringError> {
    let desktop = match place {
        Some(Place::Kernel) => Err(KeyringError::Absent(String::new())),
        _ => secret_tool("store", key, Some(passphrase)).map(drop),
    };
    match (desktop, place) {
        (Ok(()), _) => Ok(Place::Desktop),
        (Err(error), Some(Place::Desktop)) | (Err(error @ KeyringError::Refused(_)), None) => Err(error),
        (Err(_), _) => {
            let added = kernel().and_then(|ring| ring.add_key(&described(key), passphrase.as_bytes()));
            added.map(|_| Place::Kernel).map_err(refused)
        }
    }
}

/// The passphrase that is kept for a key, and where. A keyring that cannot be asked holds none.
pub(crate) fn recall(key: &str) -> Option<(Place, Zeroizing<String>)> {
    if let Ok(secret) = in_kernel(key).and_then(|key| read(&key)) {
        return Some((Place::Kernel, secret));
    }
    let said = secret_tool("lookup", key, None).ok()?;
    let secret = Zeroizing::new(String::from_utf8(said.to_vec()).ok()?);
    (!secret.is_empty()).then_some((Place::Desktop, secret))
}

/// Forgets it, wherever it is kept, and says where that was.
///
/// # Errors
/// [`KeyringError::Refused`], where one holds it and does not let go of it.
pub(crate) fn forget(key: &str) -> Result<Vec<Place>, KeyringError> {
    let mut forgotten = Vec::new();
    if let Ok(held) = in_kernel(key) {
        held.invalidate().map_err(refused)?;
        forgotten.push(Place::Kernel);
    }
    if secret_tool("lookup", key, None).is_ok_and(|secret| !secret.is_empty()) {
        secret_tool("clear", key, None)?;
        forgotten.push(Place::Desktop);
    }
    Ok(forgotten)
}

fn described(key: &str) -> String {
    format!("osiris:user-key:{key}")
}

/// Linked to the session's, so that what it holds is this process' to read.
fn kernel() -> Result<KeyRing, KeyError> {
    KeyRing::get_persistent(KeyRingIdentifier::Session)
}

fn in_kernel(key: &str) -> Result<Key, KeyError> {
    kernel()?.search(&described(key))
}

fn read(key: &Key) -> Result<Zeroizing<String>, KeyError> {
    let mut bytes = Zeroizing::new([0_u8; PASSPHRASE_BYTES_MAX]);
    // The kernel says how long it is, also where it is longer than the room for it.
    let len = key.read(&mut *bytes)?;
    let secret = bytes.get(..len).and_then(|bytes| std::str::from_utf8(bytes).ok());
    secret.map(|secret| Zeroizing::new(secret.to_owned())).ok_or(KeyError::InvalidArguments)
}

fn refused(error: KeyError) -> KeyringError {
    let why = match error {
        // What a kernel without keyrings says, and what containers say for theirs.
        KeyError::PermissionDenied | KeyError::OperationNotSupported | KeyError::Unknown(_) => {
            return KeyringError::Absent(
                "there is none that this user reaches; containers often hide it".to_owned(),
            );
        }
        KeyError::QuotaExceeded => "this user's share of it is full",
        KeyError::AccessDenied => "it denies access",
        _ => return KeyringError::Refused(format!("the kernel says {error}")),
    };
    KeyringError::Refused(why.to_owned())
}

/// Asks a desktop's keyring, and gives what it answers.
fn secret_tool(verb: &str, key: &str, secret: Option<&str>) -> Result<Zeroizing<Vec<u8>>, KeyringError> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let bus = set("XDG_RUNTIME_DIR").is_some_and(|folder| std::path::Path::new(&folder).join("bus").exists());
    if !bus && set("DBUS_SESSION_BUS_ADDRESS").is_none() {
        return Err(KeyringError::Absent("this session has no D-Bus, so no desktop's keyring".to_owned()));
    }
    let mut command = Command::new("secret-tool");
    command.arg(verb);
    if verb == "store" {
        command.arg(format!("--label=Osiris user key {}", crate::output::human::short(key)));
    }
    command.args(["application", "osiris", "user-key", key]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => KeyringError::Absent(
            "`secret-tool`, which reaches a desktop's keyring, is not installed".to_owned(),
        ),
        _ => KeyringError::Absent(format!("`secret-tool` does not start: {error}")),
    })?;
    let (answer, complaint, ended_well) = heard(child, secret)?;
    // What is not there is no failure of the keyring: it then ends with 1 and says nothing.
    if ended_well || (complaint.is_empty() && verb != "store") {
        return Ok(answer);
    }
    let why = complaint.trim().trim_start_matches("secret-tool: ");
    // It speaks so where nobody on the bus is a keyring.
    let absent = ["ServiceUnknown", "not provided by any .service", "autolaunch", "connect"];
    match absent.iter().any(|word| why.contains(word)) {
        true => Err(KeyringError::Absent(format!("no desktop's keyring answers: {why}"))),
        false => Err(KeyringError::Refused(format!("the desktop's keyring says: {why}"))),
    }
}

/// What a child says on its outputs, and whether it ended well. It is ended when it takes too long.
fn heard(mut child: Child, told: Option<&str>) -> Result<(Zeroizing<Vec<u8>>, String, bool), KeyringError> {
    let failed = |error: io::Error| KeyringError::Refused(format!("`secret-tool` is not heard: {error}"));
    if let Some(mut input) = child.stdin.take() {
        // Where it has ended already, what it says tells more.
        let _ = input.write_all(told.unwrap_or_default().as_bytes());
    }
    let outputs = (child.stdout.take(), child.stderr.take());
    let (sender, receiver) = mpsc::sync_channel(1);
    let listen = move || {
        let answer = outputs.0.map(said).unwrap_or_default();
        let complaint = outputs.1.map(said).unwrap_or_default();
        // Nobody listens any more where the time was over.
        let _ = sender.send((answer, complaint));
    };
    std::thread::Builder::new().name("osiris-keyring".to_owned()).spawn(listen).map_err(failed)?;
    let Ok((answer, complaint)) = receiver.recv_timeout(PATIENCE) else {
        child.kill().and_then(|()| child.wait()).map_err(failed)?;
        let patience = crate::output::human::span(PATIENCE);
        return Err(KeyringError::Refused(format!("the desktop's keyring did not answer within {patience}")));
    };
    let ended_well = child.wait().map_err(failed)?.success();
    Ok((answer, String::from_utf8_lossy(&complaint).into_owned(), ended_well))
}

/// What comes until the end, up to a limit. Room for all of it is made first, so that no copy is left behind.
fn said(output: impl Read) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(SAID_BYTES_MAX + 1));
    // What came before a failure is judged like the rest.
    let _ = output.take(SAID_BYTES_MAX as u64).read_to_end(&mut bytes);
    bytes
}
