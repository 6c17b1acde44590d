//! The file of a person's key: encrypted with a passphrase. Its bytes are in
//! [`osiris_fleet::key_file`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use osiris_fleet::key_file::{self, FILE_BYTES, Header, KeyBytes, LayoutError, NONCE_BYTES};
use zeroize::Zeroizing;

use crate::backend::driver::{SecretKey, public_key};
use crate::input;

/// What new files cost to try a passphrase on: the second choice that RFC 9106 recommends, with one lane
/// less than it has, because small boards have few cores. KiB, passes, lanes.
const COST: [u32; 3] = [64 * 1024, 3, 1];
/// Bytes of a new passphrase, at least.
pub(crate) const PASSPHRASE_BYTES_MIN: usize = 8;

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyFileError {
    /// The system says no.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is no key file that can be used.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The passphrase does not open it.
    #[error("the passphrase is wrong")]
    Passphrase,
    /// The passphrase could not be made a key.
    #[error("the passphrase cannot be used: {0}")]
    Derive(argon2::Error),
}

/// An encrypted key, as the file holds it.
#[derive(Debug)]
pub(crate) struct KeyFile(KeyBytes);

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
        let public = public_key(&secret.0).parse::<iroh::EndpointId>();
        let public = public.map_err(|_| LayoutError::Damaged("its key is none"))?;
        let bytes = key_file::header(cost, public.as_bytes(), random);
        let header = Header::of(&bytes);
        let cipher = cipher(header, passphrase)?;
        let sealed = cipher.encrypt(nonce(header), Payload { msg: &secret.0, aad: &bytes });
        let sealed = sealed.map_err(|_| KeyFileError::Passphrase)?;
        Ok(Self(KeyBytes::close(bytes, &sealed)))
    }

    /// Reads a file, and checks all that needs no passphrase.
    pub(crate) fn read(path: &Path, within: Duration) -> Result<Self, KeyFileError> {
        let mut bytes = input::file(path, FILE_BYTES as u64 + 1, within)?;
        Ok(Self(KeyBytes::parse(std::mem::take(&mut *bytes))?))
    }

    /// Public half of the key, hex.
    pub(crate) fn public(&self) -> String {
        self.0.header().public().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The key.
    pub(crate) fn open(&self, passphrase: &str) -> Result<SecretKey, KeyFileError> {
        let header = self.0.header();
        let cipher = cipher(header, passphrase)?;
        let opened = cipher.decrypt(nonce(header), Payload { msg: self.0.sealed(), aad: header.bytes() });
        let opened = Zeroizing::new(opened.map_err(|_| KeyFileError::Passphrase)?);
        let secret = <[u8; 32]>::try_from(opened.as_slice());
        let secret = SecretKey(secret.map_err(|_| LayoutError::Damaged("its key is none"))?);
        if public_key(&secret.0) == self.public() {
            Ok(secret)
        } else {
            Err(LayoutError::Damaged("its halves do not fit").into())
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
            file.write_all(self.0.bytes())?;
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

fn nonce(header: Header<'_>) -> &XNonce {
    XNonce::from_slice(header.nonce())
}

/// The cipher of a whole header whose cost was checked.
fn cipher(header: Header<'_>, passphrase: &str) -> Result<XChaCha20Poly1305, KeyFileError> {
    let [memory_kib, passes, lanes] = header.cost();
    let params = Params::new(memory_kib, passes, lanes, Some(32)).map_err(KeyFileError::Derive)?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), header.salt(), key.as_mut_slice())
        .map_err(KeyFileError::Derive)?;
    Ok(XChaCha20Poly1305::new(key.as_slice().into()))
}

#[cfg(test)]
mod tests {
    use osiris_fleet::key_file::COST_MAX;

    use super::*;

    const QUICK: [u32; 3] = [8, 1, 1];
    const CHECK_BYTES: usize = 8;

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
        let file = KeyFile(KeyBytes::parse(sealed().0.bytes().to_vec()).expect("sound"));
        assert_eq!(file.public(), public_key(&[7; 32]));
        assert_eq!(file.open("open sesame").expect("the key").0, [7; 32]);
        assert!(matches!(file.open("open sesam"), Err(KeyFileError::Passphrase)));
        assert!(!file.0.bytes().windows(32).any(|bytes| bytes == [7; 32]), "the key is in the clear");
    }

    #[test]
    fn whatever_byte_changes_is_noticed() {
        let sound = sealed().0.bytes().to_vec();
        for at in 0..sound.len() {
            let mut bytes = sound.clone();
            bytes[at] ^= 1;
            assert!(KeyBytes::parse(bytes.clone()).is_err(), "byte {at}");
            // One who mends the check still does not open it. In the costs a small change is only a
            // cost; the tag covers it.
            if let Ok(file) = KeyBytes::parse(with_check(bytes)) {
                assert!(
                    KeyFile(file).open("open sesame").is_err() || at >= FILE_BYTES - CHECK_BYTES,
                    "byte {at}"
                );
            }
        }
        for len in 0..sound.len() {
            assert!(KeyBytes::parse(sound[..len].to_vec()).is_err(), "{len} bytes");
        }
        assert!(KeyBytes::parse([sound, vec![0]].concat()).is_err());
    }

    #[test]
    fn a_crafted_header_makes_nobody_allocate() {
        for (place, max) in [(8, COST_MAX[0]), (12, COST_MAX[1]), (16, COST_MAX[2])] {
            let mut bytes = sealed().0.bytes().to_vec();
            bytes[place..place + 4].copy_from_slice(&(max + 1).to_le_bytes());
            assert!(matches!(KeyBytes::parse(with_check(bytes)), Err(LayoutError::TooCostly { .. })));
        }
        let mut bytes = sealed().0.bytes().to_vec();
        bytes[7] = b'2';
        assert!(matches!(KeyBytes::parse(with_check(bytes)), Err(LayoutError::Version)));
    }
}
