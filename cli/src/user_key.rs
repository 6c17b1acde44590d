//! The file of a person's key: encrypted with a passphrase.
//!
//! ```text
//! "OSIRISU1" | memory KiB u32 LE | passes u32 LE | lanes u32 LE | public key 32 | salt 16 | nonce 24
//! | secret key 32, encrypted | tag 16 | check 8
//! ```
//!
//! The cipher is XChaCha20-Poly1305 under a key that Argon2id (RFC 9106, version 0x13) makes of the
//! passphrase; all that comes before is authenticated with it. The check is the start of the BLAKE3 hash
//! of all before it: it tells a damaged file from a wrong passphrase, and proves nothing else.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use crate::backend::driver::{SecretKey, public_key};
use crate::input;

const MAGIC: &[u8; 8] = b"OSIRISU1";
/// Bytes before the ciphertext, of which the last are the nonce.
const HEADER_BYTES: usize = 8 + 3 * 4 + 32 + 16 + NONCE_BYTES;
const NONCE_BYTES: usize = 24;
const CHECK_BYTES: usize = 8;
const FILE_BYTES: usize = HEADER_BYTES + 32 + 16 + CHECK_BYTES;

/// What new files cost to try a passphrase on: the second choice that RFC 9106 recommends, with one lane
/// less than it has, because small boards have few cores. KiB, passes, lanes.
const COST: [u32; 3] = [64 * 1024, 3, 1];
/// The most that a file may ask for: 256 MiB, and some seconds on a small board.
const COST_MAX: [u32; 3] = [256 * 1024, 16, 4];
/// Bytes of a new passphrase, at least.
pub(crate) const PASSPHRASE_BYTES_MIN: usize = 8;

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyFileError {
    /// The system says no.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is no key file, or its bytes changed.
    #[error("it is damaged or no user's key: {0}")]
    Damaged(&'static str),
    /// Made by a later program.
    #[error("its version is not known to this program; update it")]
    Version,
    /// It asks for more memory or time than any sound one.
    #[error("it asks for {memory_kib} KiB, {passes} passes and {lanes} lanes, more than is allowed")]
    TooCostly { memory_kib: u32, passes: u32, lanes: u32 },
    /// The passphrase does not open it.
    #[error("the passphrase is wrong")]
    Passphrase,
    /// The passphrase could not be made a key.
    #[error("the passphrase cannot be used: {0}")]
    Derive(argon2::Error),
}

/// An encrypted key, as the file holds it.
#[derive(Debug)]
pub(crate) struct KeyFile(Vec<u8>);

impl KeyFile {
    /// Encrypts a key. `random` is fresh: the salt and the nonce.
    pub(crate) fn seal(
        secret: &SecretKey,
        passphrase: &str,
        random: &[u8; 16 + NONCE_BYTES],
    ) -> Result<Self, KeyFileError> {
        Self::seal_at(COST, secret, passphrase, random)
    }

    fn seal_at(
        cost: [u32; 3],
        secret: &SecretKey,
        passphrase: &str,
        random: &[u8; 16 + NONCE_BYTES],
    ) -> Result<Self, KeyFileError> {
        let mut bytes = MAGIC.to_vec();
        cost.iter().for_each(|cost| bytes.extend(cost.to_le_bytes()));
        let public = public_key(&secret.0).parse::<iroh::EndpointId>();
        let public = public.map_err(|_| KeyFileError::Damaged("its key is none"))?;
        bytes.extend(public.as_bytes());
        bytes.extend(random);
        let cipher = cipher(&bytes, passphrase)?;
        let sealed = cipher.encrypt(nonce(&bytes), Payload { msg: &secret.0, aad: &bytes });
        bytes.extend(sealed.map_err(|_| KeyFileError::Passphrase)?);
        let check = blake3::hash(&bytes);
        bytes.extend(&check.as_bytes()[..CHECK_BYTES]);
        Ok(Self(bytes))
    }

    /// Reads a file, and checks all that needs no passphrase.
    pub(crate) fn read(path: &Path, within: Duration) -> Result<Self, KeyFileError> {
        let mut bytes = input::file(path, FILE_BYTES as u64 + 1, within)?;
        Self::parse(std::mem::take(&mut *bytes))
    }

    fn parse(bytes: Vec<u8>) -> Result<Self, KeyFileError> {
        match bytes.get(..8) {
            Some(magic) if magic == MAGIC => {}
            Some(magic) if magic.starts_with(&MAGIC[..7]) => return Err(KeyFileError::Version),
            _ => return Err(KeyFileError::Damaged("it does not begin as one")),
        }
        if bytes.len() != FILE_BYTES {
            return Err(KeyFileError::Damaged("it has another length"));
        }
        let [memory_kib, passes, lanes] = cost(&bytes);
        if [memory_kib, passes, lanes].iter().zip(COST_MAX).any(|(asked, max)| *asked > max) {
            return Err(KeyFileError::TooCostly { memory_kib, passes, lanes });
        }
        let (body, check) = bytes.split_at(FILE_BYTES - CHECK_BYTES);
        if blake3::hash(body).as_bytes()[..CHECK_BYTES] != *check {
            return Err(KeyFileError::Damaged("its check does not fit"));
        }
        Ok(Self(bytes))
    }

    /// Public half of the key, hex.
    pub(crate) fn public(&self) -> String {
        self.0[20..52].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The key.
    pub(crate) fn open(&self, passphrase: &str) -> Result<SecretKey, KeyFileError> {
        let (header, rest) = self.0.split_at(HEADER_BYTES);
        let sealed = &rest[..rest.len() - CHECK_BYTES];
        let cipher = cipher(header, passphrase)?;
        let opened = cipher.decrypt(nonce(header), Payload { msg: sealed, aad: header });
        let opened = Zeroizing::new(opened.map_err(|_| KeyFileError::Passphrase)?);
        let secret = <[u8; 32]>::try_from(opened.as_slice());
        let secret = SecretKey(secret.map_err(|_| KeyFileError::Damaged("its key is none"))?);
        if public_key(&secret.0) == self.public() {
            Ok(secret)
        } else {
            Err(KeyFileError::Damaged("its halves do not fit"))
        }
    }

    /// Writes a file that appears whole or not at all, for its owner alone, and fails where there is one.
    pub(crate) fn create(&self, path: &Path) -> io::Result<()> {
        let parent = parent(path);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        let temporary = self.write_temporary(path)?;
        let linked = fs::hard_link(&temporary, path);
        fs::remove_file(&temporary)?;
        linked?;
        File::open(parent)?.sync_all()
    }

    /// Puts it in the place of the file that is there.
    pub(crate) fn replace(&self, path: &Path) -> io::Result<()> {
        let temporary = self.write_temporary(path)?;
        fs::rename(&temporary, path)?;
        File::open(parent(path))?.sync_all()
    }

    fn write_temporary(&self, path: &Path) -> io::Result<std::path::PathBuf> {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let temporary = std::path::PathBuf::from(name);
        // What a process of the same number left behind may have another mode.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let write = || {
            let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&temporary)?;
            file.write_all(&self.0)?;
            file.sync_all()
        };
        write().inspect_err(|_| {
            // The first error is the one to tell.
            let _ = fs::remove_file(&temporary);
        })?;
        Ok(temporary)
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn cost(bytes: &[u8]) -> [u32; 3] {
    let at = |place: usize| {
        u32::from_le_bytes([bytes[place], bytes[place + 1], bytes[place + 2], bytes[place + 3]])
    };
    [at(8), at(12), at(16)]
}

fn nonce(header: &[u8]) -> &XNonce {
    XNonce::from_slice(&header[HEADER_BYTES - NONCE_BYTES..])
}

/// The cipher of a whole header whose cost was checked.
fn cipher(header: &[u8], passphrase: &str) -> Result<XChaCha20Poly1305, KeyFileError> {
    let [memory_kib, passes, lanes] = cost(header);
    let params = Params::new(memory_kib, passes, lanes, Some(32)).map_err(KeyFileError::Derive)?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), &header[52..68], key.as_mut_slice())
        .map_err(KeyFileError::Derive)?;
    Ok(XChaCha20Poly1305::new(key.as_slice().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: [u32; 3] = [8, 1, 1];

    fn sealed() -> KeyFile {
        KeyFile::seal_at(QUICK, &SecretKey([7; 32]), "open sesame", &[9; 40]).expect("sealed")
    }

    fn with_check(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.truncate(FILE_BYTES - CHECK_BYTES);
        let check = blake3::hash(&bytes);
        bytes.extend(&check.as_bytes()[..CHECK_BYTES]);
        bytes
    }

    #[test]
    fn a_key_comes_back_by_its_passphrase_alone() {
        let file = KeyFile::parse(sealed().0).expect("sound");
        assert_eq!(file.public(), public_key(&[7; 32]));
        assert_eq!(file.open("open sesame").expect("the key").0, [7; 32]);
        assert!(matches!(file.open("open sesam"), Err(KeyFileError::Passphrase)));
        assert!(!file.0.windows(32).any(|bytes| bytes == [7; 32]), "the key is in the clear");
    }

    #[test]
    fn whatever_byte_changes_is_noticed() {
        let sound = sealed().0;
        for at in 0..sound.len() {
            let mut bytes = sound.clone();
            bytes[at] ^= 1;
            assert!(KeyFile::parse(bytes.clone()).is_err(), "byte {at}");
            // One who mends the check still does not open it. In the costs a small change is only a
            // cost; the tag covers it.
            if let Ok(file) = KeyFile::parse(with_check(bytes)) {
                assert!(file.open("open sesame").is_err() || at >= FILE_BYTES - CHECK_BYTES, "byte {at}");
            }
        }
        for len in 0..sound.len() {
            assert!(KeyFile::parse(sound[..len].to_vec()).is_err(), "{len} bytes");
        }
        assert!(KeyFile::parse([sound, vec![0]].concat()).is_err());
    }

    #[test]
    fn a_crafted_header_makes_nobody_allocate() {
        for (place, max) in [(8, COST_MAX[0]), (12, COST_MAX[1]), (16, COST_MAX[2])] {
            let mut bytes = sealed().0;
            bytes[place..place + 4].copy_from_slice(&(max + 1).to_le_bytes());
            assert!(matches!(KeyFile::parse(with_check(bytes)), Err(KeyFileError::TooCostly { .. })));
        }
        let mut bytes = sealed().0;
        bytes[7] = b'2';
        assert!(matches!(KeyFile::parse(with_check(bytes)), Err(KeyFileError::Version)));
    }
}
