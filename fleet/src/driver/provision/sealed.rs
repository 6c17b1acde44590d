//! A machine's state, sealed for the fleet's spawners.
//!
//! A key that is made for one record encrypts the state (XChaCha20-Poly1305, nonce zero: the key is used once). That
//! key is wrapped for each spawner under a secret that X25519 (RFC 7748) gives between a key pair of the record and the
//! device's own key, an Ed25519 key in its Montgomery form. Both bind what the record is about, so nothing of one
//! record fits another.

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use curve25519_dalek::{edwards::CompressedEdwardsY, montgomery::MontgomeryPoint};
use osiris_ledger::{
    Author, FleetId, SigningKey,
    limits::STATE_READERS_MAX,
    state::{About, Record, Sealed, Wrap},
};
use serde_bytes::ByteBuf;
use zeroize::Zeroizing;

/// What makes a record's keys: fresh random bytes, twice 32.
pub(super) struct Fresh {
    pub(super) key: Zeroizing<[u8; 32]>,
    pub(super) ephemeral: Zeroizing<[u8; 32]>,
}

/// Seals a state for these devices and signs it.
pub(super) fn seal(
    fleet: &FleetId,
    device: &SigningKey,
    about: About,
    readers: &[Author],
    state: &[u8],
    fresh: &Fresh,
) -> Result<Record, String> {
    if readers.len() > STATE_READERS_MAX {
        return Err(format!("the fleet has more than {STATE_READERS_MAX} spawners to seal it for"));
    }
    let ephemeral = MontgomeryPoint::mul_base_clamped(*fresh.ephemeral);
    let author = Author(device.verifying_key().to_bytes());
    let bound = bound(fleet, &about, &author);
    let mut wraps = Vec::new();
    for reader in readers {
        // A key that is no point, or of small order, is no member's.
        let Some(point) = CompressedEdwardsY(reader.0).decompress() else { continue };
        let shared = point.to_montgomery().mul_clamped(*fresh.ephemeral);
        let Some(wrapping) = wrapping_key(&shared, &ephemeral, reader, &bound) else { continue };
        wraps.push(Wrap { device: *reader, key: ByteBuf::from(encrypt(&wrapping, &bound, &*fresh.key)) });
    }
    wraps.sort_by_key(|wrap| wrap.device);
    wraps.dedup_by_key(|wrap| wrap.device);
    let sealed = Sealed { ephemeral: ephemeral.to_bytes(), wraps, bytes: encrypt(&fresh.key, &bound, state) };
    Record::write(fleet, device, about, sealed).map_err(|error| error.to_string())
}

/// Opens a record with a device's key. None where it is not sealed for that device, or was made wrongly.
pub(super) fn open(fleet: &FleetId, device: &SigningKey, record: &Record) -> Option<Zeroizing<Vec<u8>>> {
    let me = Author(device.verifying_key().to_bytes());
    let wrap = record.wraps().iter().find(|wrap| wrap.device == me)?;
    let ephemeral = MontgomeryPoint(*record.ephemeral());
    let secret = Zeroizing::new(device.to_scalar_bytes());
    let shared = ephemeral.mul_clamped(*secret);
    let bound = bound(fleet, &record.about(), &record.author());
    let wrapping = wrapping_key(&shared, &ephemeral, &me, &bound)?;
    let key = Zeroizing::new(decrypt(&wrapping, &bound, &wrap.key)?);
    let key = Zeroizing::new(<[u8; 32]>::try_from(key.as_slice()).ok()?);
    Some(Zeroizing::new(decrypt(&key, &bound, record.sealed())?))
}

/// What keys and ciphertexts of a record are bound to.
fn bound(fleet: &FleetId, about: &About, author: &Author) -> Vec<u8> {
    let serial = about.serial.to_le_bytes();
    [&fleet.0[..], &about.intent.0, &about.claim.0, &serial, &author.0].concat()
}

/// None where the shared secret is zero: then a key was of small order, and everybody knows it.
fn wrapping_key(
    shared: &MontgomeryPoint,
    ephemeral: &MontgomeryPoint,
    reader: &Author,
    bound: &[u8],
) -> Option<Zeroizing<[u8; 32]>> {
    if shared.0 == [0; 32] {
        return None;
    }
    let said = Zeroizing::new([&shared.0[..], &ephemeral.0, &reader.0, bound].concat());
    Some(Zeroizing::new(blake3::derive_key("osiris wrap of a machine's state v1", &said)))
}

fn encrypt(key: &[u8; 32], bound: &[u8], text: &[u8]) -> Vec<u8> {
    let cipher = XChaCha20Poly1305::new(key.into());
    let payload = Payload { msg: text, aad: bound };
    cipher.encrypt(&XNonce::default(), payload).expect("a state is far below the cipher's limit")
}

fn decrypt(key: &[u8; 32], bound: &[u8], bytes: &[u8]) -> Option<Vec<u8>> {
    let cipher = XChaCha20Poly1305::new(key.into());
    cipher.decrypt(&XNonce::default(), Payload { msg: bytes, aad: bound }).ok()
}

#[cfg(test)]
mod tests {
    use osiris_ledger::BlockId;

    use super::*;

    const FLEET: FleetId = FleetId([7; 32]);
    const ABOUT: About = About { intent: BlockId([1; 32]), claim: BlockId([2; 32]), serial: 3 };

    fn key(n: u8) -> SigningKey {
        SigningKey::from_bytes(&[n; 32])
    }

    fn author(n: u8) -> Author {
        Author(key(n).verifying_key().to_bytes())
    }

    fn fresh(n: u8) -> Fresh {
        Fresh { key: Zeroizing::new([n; 32]), ephemeral: Zeroizing::new([n + 1; 32]) }
    }

    #[test]
    fn each_spawner_opens_it_and_nobody_else() {
        let readers = [author(3), author(1), author(2)];
        let record = seal(&FLEET, &key(1), ABOUT, &readers, b"a state", &fresh(50)).expect("sealed");
        for n in 1..=3 {
            assert_eq!(open(&FLEET, &key(n), &record).as_deref().map(Vec::as_slice), Some(&b"a state"[..]));
        }
        assert!(open(&FLEET, &key(4), &record).is_none());
        assert!(open(&FleetId([8; 32]), &key(1), &record).is_none());
        let text = record.bytes().windows(7).any(|window| window == b"a state");
        assert!(!text, "it is in no clear text");
        let again = seal(&FLEET, &key(1), ABOUT, &readers, b"a state", &fresh(60)).expect("sealed");
        assert_ne!(again.sealed(), record.sealed());
        let large = vec![0; osiris_ledger::limits::STATE_RECORD_BYTES_MAX];
        assert!(seal(&FLEET, &key(1), ABOUT, &readers, &large, &fresh(50)).is_err());
    }

    #[test]
    fn what_was_sealed_for_one_record_opens_in_no_other() {
        let readers = [author(1), author(2)];
        let record = seal(&FLEET, &key(1), ABOUT, &readers, b"a state", &fresh(50)).expect("sealed");
        let moved = |about: About, by: u8| {
            let sealed = Sealed {
                ephemeral: *record.ephemeral(),
                wraps: record.wraps().to_vec(),
                bytes: record.sealed().to_vec(),
            };
            Record::write(&FLEET, &key(by), about, sealed).expect("signed")
        };
        assert!(open(&FLEET, &key(2), &moved(ABOUT, 1)).is_some());
        // Another member signs what it cannot read as its own, or its author names another machine or serial.
        assert!(open(&FLEET, &key(2), &moved(ABOUT, 3)).is_none());
        for about in [
            About { serial: 4, ..ABOUT },
            About { intent: BlockId([9; 32]), ..ABOUT },
            About { claim: BlockId([9; 32]), ..ABOUT },
        ] {
            assert!(open(&FLEET, &key(2), &moved(about, 1)).is_none());
        }
    }

    #[test]
    fn points_of_small_order_give_no_secret() {
        let readers = [author(1)];
        let record = seal(&FLEET, &key(1), ABOUT, &readers, b"a state", &fresh(50)).expect("sealed");
        let sealed =
            Sealed { ephemeral: [0; 32], wraps: record.wraps().to_vec(), bytes: record.sealed().to_vec() };
        let record = Record::write(&FLEET, &key(1), ABOUT, sealed).expect("signed");
        assert!(open(&FLEET, &key(1), &record).is_none());
        // The neutral element as a reader: nothing is wrapped for it.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let record = seal(&FLEET, &key(1), ABOUT, &[Author(neutral)], b"a state", &fresh(50));
        assert_eq!(record.expect("sealed").wraps().len(), 0);
    }
}
