//! What the maker of a machine knows of it, sealed for the fleet's spawners, beside the ledger.
//!
//! ```text
//! body   = canonical CBOR [version, intent(32), claim(32), serial, author(32), ephemeral(32), wraps, sealed]
//!          wraps: strictly ascending devices, each [device(32), key(48)]
//! record = body ‖ ed25519(blake3("osiris-state-v1" ‖ fleet id ‖ body))
//! ```
//!
//! Any spawner hands it on, so its writer may be dead by then. Of two records of one intent the one of the later round
//! counts, then the greater claim's id, then the higher serial: a total order, so all keep the same one. What `sealed`
//! holds, and how it is opened, is the driver's affair; here nothing is secret. A record proves who wrote it and
//! nothing else: no machine is taken away because a record says so (`docs/provisioning.md`).

use std::sync::Arc;

use ed25519_dalek::{Signature as DalekSignature, SigningKey};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::{
    codec,
    id::{Author, BlockId, FleetId, Signature},
    limits,
    op::{array_struct, sign, usable_key},
};

const VERSION: u8 = 1;
const DOMAIN: &[u8] = b"osiris-state-v1";
/// Bytes of a key that is sealed for one device: a key of 32 and a tag of 16.
pub const WRAPPED_BYTES: usize = 48;

array_struct! {
    /// The key of a record, for one device.
    pub struct Wrap {
        /// The device.
        device: Author,
        /// The key, sealed for it: [`WRAPPED_BYTES`].
        key: ByteBuf,
    }
}

array_struct! {
    struct Body {
        version: u8,
        intent: BlockId,
        claim: BlockId,
        serial: u64,
        author: Author,
        ephemeral: Author,
        wraps: Vec<Wrap>,
        sealed: ByteBuf,
    }
}

/// What a record is about, and which of several counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    /// The intent of the machine.
    pub intent: BlockId,
    /// The claim under which it was written.
    pub claim: BlockId,
    /// From 1; grows with each record under one claim.
    pub serial: u64,
}

/// What was sealed, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Public half of a key that was made for this record alone (X25519).
    pub ephemeral: [u8; 32],
    /// The record's key for each device, ascending.
    pub wraps: Vec<Wrap>,
    /// The state, under that key.
    pub bytes: Vec<u8>,
}

/// Why bytes are no record of a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordReject {
    /// More than [`limits::STATE_RECORD_BYTES_MAX`].
    #[error("the record has {0} bytes; at most {max} are allowed", max = limits::STATE_RECORD_BYTES_MAX)]
    TooLarge(usize),
    /// Too short, or not the canonical CBOR of a record, or of another version.
    #[error("the bytes are not a record")]
    Malformed,
    /// Too many devices, or devices out of order, or a key of another length, or no serial.
    #[error("a field of the record is not allowed")]
    Field,
    /// The signature does not fit author, fleet and body.
    #[error("the signature is wrong, or the record belongs to another fleet")]
    BadSignature,
}

/// A signed record. Cloning shares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    bytes: Arc<[u8]>,
    body: Arc<Body>,
}

impl Record {
    /// Signs a record.
    ///
    /// # Errors
    /// [`RecordReject::TooLarge`] or [`RecordReject::Field`]: others would refuse it.
    pub fn write(
        fleet: &FleetId,
        key: &SigningKey,
        about: About,
        sealed: Sealed,
    ) -> Result<Self, RecordReject> {
        let About { intent, claim, serial } = about;
        let body = Body {
            version: VERSION,
            intent,
            claim,
            serial,
            author: Author(key.verifying_key().to_bytes()),
            ephemeral: Author(sealed.ephemeral),
            wraps: sealed.wraps,
            sealed: ByteBuf::from(sealed.bytes),
        };
        check_fields(&body)?;
        let mut bytes = codec::encode(&body);
        let Signature(signature) = sign(key, &signed_message(fleet, &bytes));
        bytes.extend_from_slice(&signature);
        match bytes.len() <= limits::STATE_RECORD_BYTES_MAX {
            true => Ok(Self { bytes: bytes.into(), body: Arc::new(body) }),
            false => Err(RecordReject::TooLarge(bytes.len())),
        }
    }

    /// Reads and checks a record.
    ///
    /// # Errors
    /// [`RecordReject`]: every node refuses these bytes.
    pub fn read(fleet: &FleetId, bytes: &[u8]) -> Result<Self, RecordReject> {
        if bytes.len() > limits::STATE_RECORD_BYTES_MAX {
            return Err(RecordReject::TooLarge(bytes.len()));
        }
        let body_len = bytes.len().checked_sub(limits::SIGNATURE_BYTES).ok_or(RecordReject::Malformed)?;
        let (signed, signature) = bytes.split_at(body_len);
        let body: Body = codec::decode(signed).map_err(|_| RecordReject::Malformed)?;
        if body.version != VERSION {
            return Err(RecordReject::Malformed);
        }
        check_fields(&body)?;
        let key = usable_key(&body.author).ok_or(RecordReject::BadSignature)?;
        let signature = DalekSignature::from_slice(signature).map_err(|_| RecordReject::BadSignature)?;
        key.verify_strict(&signed_message(fleet, signed), &signature)
            .map_err(|_| RecordReject::BadSignature)?;
        Ok(Self { bytes: bytes.into(), body: Arc::new(body) })
    }

    /// The bytes that travel.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What it is about.
    #[must_use]
    pub fn about(&self) -> About {
        About { intent: self.body.intent, claim: self.body.claim, serial: self.body.serial }
    }

    /// Who wrote it.
    #[must_use]
    pub fn author(&self) -> Author {
        self.body.author
    }

    /// Public half of the record's own key.
    #[must_use]
    pub fn ephemeral(&self) -> &[u8; 32] {
        &self.body.ephemeral.0
    }

    /// The devices that open it, each with the record's key sealed for it.
    #[must_use]
    pub fn wraps(&self) -> &[Wrap] {
        &self.body.wraps
    }

    /// What is sealed.
    #[must_use]
    pub fn sealed(&self) -> &[u8] {
        &self.body.sealed
    }
}

fn check_fields(body: &Body) -> Result<(), RecordReject> {
    let wraps = &body.wraps;
    let fits = body.serial > 0
        && wraps.len() <= limits::STATE_READERS_MAX
        && wraps.iter().all(|wrap| wrap.key.len() == WRAPPED_BYTES)
        && wraps.windows(2).all(|pair| pair[0].device < pair[1].device);
    if fits { Ok(()) } else { Err(RecordReject::Field) }
}

fn signed_message(fleet: &FleetId, body: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(DOMAIN);
    hasher.update(&fleet.0);
    hasher.update(body);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLEET: FleetId = FleetId([7; 32]);

    fn about(serial: u64) -> About {
        About { intent: BlockId([1; 32]), claim: BlockId([2; 32]), serial }
    }

    fn sealed(devices: &[u8]) -> Sealed {
        let wrap = |n: &u8| Wrap { device: Author([*n; 32]), key: ByteBuf::from(vec![*n; WRAPPED_BYTES]) };
        Sealed { ephemeral: [9; 32], wraps: devices.iter().map(wrap).collect(), bytes: vec![5; 100] }
    }

    #[test]
    fn a_record_reads_back_and_any_changed_byte_is_refused() {
        let key = SigningKey::from_bytes(&[3; 32]);
        let record = Record::write(&FLEET, &key, about(4), sealed(&[1, 2])).expect("it fits");
        assert_eq!(Record::read(&FLEET, record.bytes()), Ok(record.clone()));
        assert_eq!((record.about(), record.sealed(), record.wraps().len()), (about(4), &[5; 100][..], 2));
        for at in 0..record.bytes().len() {
            let mut bytes = record.bytes().to_vec();
            bytes[at] ^= 1;
            assert!(Record::read(&FLEET, &bytes).is_err(), "byte {at}");
        }
        assert_eq!(Record::read(&FleetId([8; 32]), record.bytes()), Err(RecordReject::BadSignature));
        for len in 0..record.bytes().len() {
            assert!(Record::read(&FLEET, &record.bytes()[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn what_others_would_refuse_is_not_written() {
        let key = SigningKey::from_bytes(&[3; 32]);
        let refused = |about, sealed| Record::write(&FLEET, &key, about, sealed).expect_err("refused");
        assert_eq!(refused(about(0), sealed(&[1])), RecordReject::Field);
        assert_eq!(refused(about(1), sealed(&[2, 1])), RecordReject::Field);
        assert_eq!(refused(about(1), sealed(&[1, 1])), RecordReject::Field);
        let mut short = sealed(&[1]);
        short.wraps[0].key.truncate(47);
        assert_eq!(refused(about(1), short), RecordReject::Field);
        let large = Sealed { bytes: vec![0; limits::STATE_RECORD_BYTES_MAX], ..sealed(&[1]) };
        assert!(matches!(refused(about(1), large), RecordReject::TooLarge(_)));
        let many: Vec<u8> = (0..=u8::MAX).collect();
        let many = Sealed { wraps: sealed(&many).wraps, ..sealed(&[]) };
        assert_eq!(limits::STATE_READERS_MAX, 64);
        assert_eq!(refused(about(1), many), RecordReject::Field);
    }
}
