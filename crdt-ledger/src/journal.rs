//! The journal's format: the durable truth of a node, as bytes. Who writes and syncs is the driver.
//!
//! ```text
//! file   = "OSIRISJ1" ‖ fleet id (32) ‖ record*
//! record = mark "\xB1oJR" ‖ length u32 LE ‖ check (8) ‖ kind u8 ‖ payload        length = 1 + |payload|
//! check  = blake3(length ‖ kind ‖ payload)[..8]
//! ```
//!
//! A record that does not check and has no whole record behind it is a **torn tail**: the last write
//! before a power cut, never acknowledged, to be cut off. One with whole records behind it is
//! **damage**: something that was durable has changed. It is reported, never skipped in silence.

use crate::{id::FleetId, limits};

const MAGIC: &[u8; 8] = b"OSIRISJ1";
const MARK: &[u8; 4] = b"\xB1oJR";
const CHECK: usize = 8;
const FRAME: usize = MARK.len() + 4 + CHECK;
/// Bytes before the first record.
pub const HEADER_BYTES: usize = MAGIC.len() + 32;

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// An entry of the ledger.
    Block = 1,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        (byte == Self::Block as u8).then_some(Self::Block)
    }
}

/// The bytes a journal starts with.
#[must_use]
pub fn header(fleet: &FleetId) -> Vec<u8> {
    [MAGIC.as_slice(), &fleet.0].concat()
}

/// The bytes of one record.
///
/// # Panics
/// If the payload has more than [`limits::RECORD_BYTES_MAX`] bytes: nothing that large is made.
#[must_use]
pub fn record(kind: Kind, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < limits::RECORD_BYTES_MAX, "a record within its limit");
    let length = u32::try_from(1 + payload.len()).expect("within the limit").to_le_bytes();
    let mut bytes = Vec::with_capacity(FRAME + 1 + payload.len());
    bytes.extend_from_slice(MARK);
    bytes.extend_from_slice(&length);
    bytes.extend_from_slice(&check(&length, &[kind as u8], payload));
    bytes.push(kind as u8);
    bytes.extend_from_slice(payload);
    bytes
}

fn check(length: &[u8; 4], kind: &[u8], payload: &[u8]) -> [u8; CHECK] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(length);
    hasher.update(kind);
    hasher.update(payload);
    hasher.finalize().as_bytes()[..CHECK].try_into().expect("eight of 32 bytes")
}

/// A stretch of a journal that holds no whole record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where it starts, in bytes from the start of the file.
    pub offset: usize,
    /// How long it is.
    pub bytes: usize,
}

/// What a journal's bytes hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan<'a> {
    /// Whole records in their order.
    pub records: Vec<(Kind, &'a [u8])>,
    /// What follows the last whole record.
    pub torn_tail: Option<Damage>,
    /// Stretches between whole records.
    pub damage: Vec<Damage>,
}

/// Why bytes are not this fleet's journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// Shorter than a header: the file was being created when the power went.
    #[error("the journal is shorter than its header")]
    Short,
    /// Not a journal.
    #[error("the file does not start like a journal of this version of Osiris")]
    Magic,
}

/// The fleet whose journal this is.
///
/// # Errors
/// [`HeaderError`] where the bytes do not start like a journal.
pub fn read_header(bytes: &[u8]) -> Result<FleetId, HeaderError> {
    let header = bytes.get(..HEADER_BYTES).ok_or(HeaderError::Short)?;
    let fleet = header.strip_prefix(MAGIC.as_slice()).ok_or(HeaderError::Magic)?;
    Ok(FleetId(fleet.try_into().expect("the header's length was checked")))
}

/// Reads all records behind the header.
///
/// # Errors
/// [`HeaderError`] where the bytes do not start like a journal.
pub fn scan(bytes: &[u8]) -> Result<Scan<'_>, HeaderError> {
    read_header(bytes)?;
    let mut scan = Scan::default();
    let mut offset = HEADER_BYTES;
    while offset < bytes.len() {
        if let Some((kind, payload, end)) = whole_record(bytes, offset) {
            scan.records.push((kind, payload));
            offset = end;
            continue;
        }
        let next = (offset + 1..bytes.len()).find(|at| whole_record(bytes, *at).is_some());
        let end = next.unwrap_or(bytes.len());
        let gap = Damage { offset, bytes: end - offset };
        match next {
            Some(_) => scan.damage.push(gap),
            None => scan.torn_tail = Some(gap),
        }
        offset = end;
    }
    Ok(scan)
}

fn whole_record(bytes: &[u8], offset: usize) -> Option<(Kind, &[u8], usize)> {
    let rest = bytes.get(offset..)?.strip_prefix(MARK.as_slice())?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (expected, rest) = rest.split_first_chunk::<CHECK>()?;
    let len = u32::from_le_bytes(*length) as usize;
    if len == 0 || len > limits::RECORD_BYTES_MAX {
        return None;
    }
    let (kind, payload) = rest.get(..len)?.split_at(1);
    if check(length, kind, payload) != *expected {
        return None;
    }
    Some((Kind::from_byte(kind[0])?, payload, offset + FRAME + len))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(payloads: &[&[u8]]) -> Vec<u8> {
        let records = payloads.iter().flat_map(|payload| record(Kind::Block, payload));
        header(&FleetId([7; 32])).into_iter().chain(records).collect()
    }

    #[test]
    fn a_tail_cut_at_any_byte_loses_only_the_last_record() {
        let whole = journal(&[b"one", b"two", b"three"]);
        let two = journal(&[b"one", b"two"]).len();
        for len in two + 1..whole.len() {
            let scan = scan(&whole[..len]).expect("a journal");
            assert_eq!(scan.records.len(), 2, "cut at {len}");
            assert_eq!(scan.torn_tail, Some(Damage { offset: two, bytes: len - two }));
            assert!(scan.damage.is_empty());
        }
    }

    #[test]
    fn a_flipped_bit_in_the_middle_is_damage_and_never_silent() {
        let whole = journal(&[b"one", b"two", b"three"]);
        let one = journal(&[b"one"]).len();
        let two = journal(&[b"one", b"two"]).len();
        for at in one..two {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                let scan = scan(&bytes).expect("a journal");
                assert_eq!(scan.damage, [Damage { offset: one, bytes: two - one }], "byte {at} bit {bit}");
                let payloads: Vec<_> = scan.records.iter().map(|(_, payload)| *payload).collect();
                assert_eq!(payloads, [b"one".as_slice(), b"three"]);
            }
        }
    }

    #[test]
    fn a_foreign_file_is_refused() {
        assert_eq!(scan(b"").err(), Some(HeaderError::Short));
        assert_eq!(scan(&[0; 64]).err(), Some(HeaderError::Magic));
    }
}
