//! Entries on the wire without what both ends can restore.
//!
//! Most of an entry is 32-byte strings that the receiver has just seen: the author, its session and its grant
//! in the entry before, and the ids of entries that came a moment ago. Within one frame each is written once,
//! and then named. The receiver restores the exact bytes; the ledger's door verifies them as it does any.
//!
//! ```text
//! packed = entry*
//! entry  = length ‖ piece*         until its pieces make `length` bytes, exactly
//! piece  = 4n + 0 ‖ n bytes        these bytes
//!        | 4n + 1                  value n of the frame, the first being 0
//!        | 4n + 2                  58 20 and the id (blake3) of the entry n + 1 before this one
//!        | 4n + 3 ‖ bytes          a new value: n = 0: 58 20 and 32 bytes; n = 1: 50 and 16 bytes
//! ```
//!
//! Numbers are LEB128, shortest, below 2^32. A **value** is the head and the content of a CBOR byte string of
//! 32 or 16 bytes; values are numbered as they come. Nothing refers to what refers further, so restoring a
//! piece costs what it restores: an entry has at most [`limits::ENTRY_BYTES_MAX`] bytes, all entries of a frame
//! at most [`FRAME_BYTES_MAX`], both checked against the stated length before anything is restored.

use std::collections::BTreeMap;

use osiris_ledger::{Block, limits};
use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
use serde_bytes::ByteBuf;

use crate::limits::FRAME_BYTES_MAX;

const LITERAL: u32 = 0;
const VALUE: u32 = 1;
const ID: u32 = 2;
const NEW: u32 = 3;
/// Heads of the byte strings that are values, by the number in the piece that makes one.
const HEADS: [(&[u8], usize); 2] = [(&[0x58, 0x20], 32), (&[0x50], 16)];
/// Bytes that are not packed entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are not packed entries")]
pub struct UnpackError;

/// Packs entries, in their order.
#[must_use]
pub fn pack(entries: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut packer = Packer::default();
    for entry in entries {
        packer.entry(entry.as_ref());
    }
    packer.packed
}

/// What is named: an id is not a part of any entry's bytes.
enum Content<'a> {
    Bytes(&'a [u8]),
    Id([u8; 32]),
}

impl Content<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Id(id) => id,
        }
    }

    fn key(&self) -> u64 {
        self.bytes().first_chunk().map_or(0, |start| u64::from_le_bytes(*start))
    }
}

/// What a string is named by.
#[derive(Clone, Copy)]
enum Name {
    /// The value of this number.
    Value(usize),
    /// The id of the entry of this number.
    Entry(usize),
}

#[derive(Default)]
struct Packer<'a> {
    packed: Vec<u8>,
    /// What has a name, by the first eight bytes of its content. Of several that begin alike the last has one,
    /// which may cost room and nothing else.
    names: BTreeMap<u64, (Content<'a>, Name)>,
    values: usize,
    entries: usize,
}

impl<'a> Packer<'a> {
    fn entry(&mut self, entry: &'a [u8]) {
        write(&mut self.packed, entry.len());
        let body = &entry[..entry.len().saturating_sub(limits::SIGNATURE_BYTES)];
        let (mut at, mut from) = (0, 0);
        while let Some(len) = item(&body[at..]) {
            let string = &body[at..at + len];
            at += len;
            if let Some((head, content)) = value(string) {
                self.literal(&entry[from..at - len]);
                self.value(head, content);
                from = at;
            }
        }
        self.literal(&entry[from..]);
        // One may come twice; either place serves.
        let id = Content::Id(Block::id_of(entry).0);
        self.names.insert(id.key(), (id, Name::Entry(self.entries)));
        self.entries += 1;
    }

    fn literal(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.piece(bytes.len(), LITERAL);
            self.packed.extend_from_slice(bytes);
        }
    }

    fn value(&mut self, head: usize, bytes: &'a [u8]) {
        let content = Content::Bytes(bytes);
        let key = content.key();
        match self.names.get(&key).filter(|(known, _)| known.bytes() == bytes).map(|(_, name)| *name) {
            Some(Name::Value(number)) => self.piece(number, VALUE),
            Some(Name::Entry(number)) => self.piece(self.entries - number - 1, ID),
            None => {
                self.names.insert(key, (content, Name::Value(self.values)));
                self.values += 1;
                self.piece(head, NEW);
                self.packed.extend_from_slice(bytes);
            }
        }
    }

    fn piece(&mut self, number: usize, kind: u32) {
        write(&mut self.packed, (number << 2) | kind as usize);
    }
}

/// Bytes of the CBOR item that begins here: of a string whole, of an array or a map the head. None where there
/// is none; what follows then stands as it is.
fn item(bytes: &[u8]) -> Option<usize> {
    let first = *bytes.first()?;
    let (head, argument) = match first & 0x1f {
        small @ 0..=23 => (1, u64::from(small)),
        size @ 24..=27 => {
            let more = bytes.get(1..=1 << (size - 24))?;
            (1 + more.len(), more.iter().fold(0, |all, byte| (all << 8) | u64::from(*byte)))
        }
        _ => return None,
    };
    let content = if matches!(first >> 5, 2 | 3) { usize::try_from(argument).ok()? } else { 0 };
    head.checked_add(content).filter(|len| *len <= bytes.len())
}

/// The number of the head and the content of a string that is worth a name.
fn value(string: &[u8]) -> Option<(usize, &[u8])> {
    HEADS.iter().enumerate().find_map(|(number, (head, len))| {
        let content = string.strip_prefix(*head)?;
        (content.len() == *len).then_some((number, content))
    })
}

fn write(bytes: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Restores packed entries.
///
/// # Errors
/// [`UnpackError`] where the bytes are not what [`pack`] makes of entries within their limits: the offender
/// gains nothing by it, since a piece costs no more than the bytes that it restores.
pub fn unpack(packed: &[u8]) -> Result<Vec<ByteBuf>, UnpackError> {
    let mut unpacker = Unpacker { packed, values: Vec::new(), entries: Vec::new(), ids: Vec::new() };
    let mut left = FRAME_BYTES_MAX;
    while !unpacker.packed.is_empty() {
        let len = unpacker.number()?;
        // Nothing shorter can be a block, so their number is bounded too.
        if len <= limits::SIGNATURE_BYTES || len > limits::ENTRY_BYTES_MAX {
            return Err(UnpackError);
        }
        left = left.checked_sub(len).ok_or(UnpackError)?;
        let entry = unpacker.entry(len)?;
        unpacker.entries.push(ByteBuf::from(entry));
        unpacker.ids.push(None);
    }
    Ok(unpacker.entries)
}

struct Unpacker<'a> {
    packed: &'a [u8],
    values: Vec<(usize, &'a [u8])>,
    entries: Vec<ByteBuf>,
    /// Ids of those entries that were asked for.
    ids: Vec<Option<[u8; 32]>>,
}

impl<'a> Unpacker<'a> {
    fn entry(&mut self, len: usize) -> Result<Vec<u8>, UnpackError> {
        let mut entry = Vec::with_capacity(len);
        while entry.len() < len {
            let piece = self.number()?;
            let number = piece >> 2;
            let room = len - entry.len();
            let (head, content): (&[u8], &[u8]) = match (piece & 3) as u32 {
                LITERAL if (1..=room).contains(&number) => (&[], self.take(number)?),
                VALUE => {
                    let (head, content) = *self.values.get(number).ok_or(UnpackError)?;
                    (HEADS[head].0, content)
                }
                ID => (HEADS[0].0, self.id(number)?),
                NEW => {
                    let (head, len) = *HEADS.get(number).ok_or(UnpackError)?;
                    let content = self.take(len)?;
                    self.values.push((number, content));
                    (head, content)
                }
                _ => return Err(UnpackError),
            };
            if head.len() + content.len() > room {
                return Err(UnpackError);
            }
            entry.extend_from_slice(head);
            entry.extend_from_slice(content);
        }
        Ok(entry)
    }

    fn id(&mut self, back: usize) -> Result<&[u8], UnpackError> {
        let at = self.entries.len().checked_sub(back + 1).ok_or(UnpackError)?;
        let id = self.ids[at].get_or_insert_with(|| Block::id_of(&self.entries[at]).0);
        Ok(id.as_slice())
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], UnpackError> {
        let (taken, rest) = self.packed.split_at_checked(len).ok_or(UnpackError)?;
        self.packed = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<usize, UnpackError> {
        let mut number = 0_u32;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.take(1)?[0];
            let bits = u32::from(byte & 0x7f);
            // The fifth byte has four bits left; a last byte of zero is no shortest form.
            if (shift == 28 && bits > 0x0f) || (shift > 0 && byte == 0) {
                return Err(UnpackError);
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return usize::try_from(number).map_err(|_| UnpackError);
            }
        }
        Err(UnpackError)
    }
}

/// For a frame's field.
pub(super) fn serialize<S: Serializer>(entries: &[ByteBuf], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(&pack(entries))
}

/// For a frame's field.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ByteBuf>, D::Error> {
    let packed = ByteBuf::deserialize(deserializer)?;
    unpack(&packed).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Entries whose strings repeat as those of a chain do: a few authors, ids of earlier entries, and bytes
    /// that only look like heads.
    fn entries() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let part = prop_oneof![
            (0_u8..4).prop_map(|n| [&[0x58, 0x20][..], &[n; 32]].concat()),
            (0_u8..4).prop_map(|n| [&[0x50][..], &[n; 16]].concat()),
            prop::collection::vec(prop_oneof![Just(0x58), Just(0x20), Just(0x50), any::<u8>()], 0..40),
            // Becomes the id of an earlier entry.
            any::<u8>().prop_map(|n| vec![n]),
        ];
        let entry = prop::collection::vec(part, 0..12);
        // Of few parts and signatures, so that an entry may come twice.
        prop::collection::vec((entry, 0_u8..2), 0..20).prop_map(|drafts| {
            let mut entries: Vec<Vec<u8>> = Vec::new();
            for (parts, signature) in drafts {
                let mut entry = vec![0x8a, 0x02];
                for part in parts {
                    match (part.as_slice(), entries.len()) {
                        ([n], len) if len > 0 => {
                            entry.extend([0x58, 0x20]);
                            entry.extend(Block::id_of(&entries[usize::from(*n) % len]).0);
                        }
                        _ => entry.extend(part),
                    }
                }
                entry.extend([signature; limits::SIGNATURE_BYTES]);
                entries.push(entry);
            }
            entries
        })
    }

    #[test]
    fn what_begins_like_another_comes_back_too() {
        let string = |last: u8| [&[0x58, 0x20][..], &[5; 31], &[last]].concat();
        let entry = |last: u8| [&[0x84][..], &string(last), &string(6), &string(7), &[9; 65]].concat();
        let entries = [entry(6), entry(7), entry(6)];
        assert_eq!(unpack(&pack(&entries)), Ok(entries.map(ByteBuf::from).to_vec()));
    }

    #[test]
    fn what_repeats_is_written_once() {
        let string = |n: u8| [&[0x58, 0x20][..], &[n; 32]].concat();
        let mut entries: Vec<Vec<u8>> = vec![[&[0x84][..], &string(1), &string(2), &[9; 65]].concat()];
        for n in 0..100 {
            let before = [&[0x58, 0x20][..], &Block::id_of(&entries[n]).0].concat();
            entries.push([&[0x84][..], &string(1), &before, &string(2), &[n as u8; 65]].concat());
        }
        let plain: usize = entries.iter().map(Vec::len).sum();
        let packed = pack(&entries).len();
        // A signature, a length and a number of one byte each, and three names.
        assert!(packed <= 80 + 100 * (65 + 10), "{plain} bytes became {packed}");
    }

    #[test]
    fn an_entry_may_come_twice_and_is_named_after_that() {
        let twice = vec![1; 70];
        let names = |id: [u8; 32]| [&[0x8a, 0x02, 0x58, 0x20][..], &id, &[9; 64]].concat();
        let entries = [twice.clone(), twice.clone(), names(Block::id_of(&twice).0), names([3; 32]), twice];
        let packed = pack(&entries);
        assert_eq!(unpack(&packed), Ok(entries.map(ByteBuf::from).to_vec()));
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_back(entries in entries()) {
            let restored = unpack(&pack(&entries));
            prop_assert_eq!(restored.map(|all| all.into_iter().map(ByteBuf::into_vec).collect()), Ok(entries));
        }

        #[test]
        fn whatever_comes_is_restored_within_its_limits_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            within_limits(&bytes)?;
        }

        #[test]
        fn one_changed_byte_is_too(entries in entries(), at in any::<prop::sample::Index>(), bits in 1_u8..) {
            let mut packed = pack(&entries);
            if !packed.is_empty() {
                let at = at.index(packed.len());
                packed[at] ^= bits;
                within_limits(&packed)?;
                within_limits(&packed[..at])?;
            }
        }
    }

    fn within_limits(packed: &[u8]) -> Result<(), TestCaseError> {
        if let Ok(entries) = unpack(packed) {
            prop_assert!(entries.iter().all(|entry| entry.len() <= limits::ENTRY_BYTES_MAX));
            prop_assert!(entries.iter().map(|entry| entry.len()).sum::<usize>() <= FRAME_BYTES_MAX);
            // What is understood is understood in the same way again.
            prop_assert_eq!(unpack(&pack(&entries)), Ok(entries));
        }
        Ok(())
    }

    fn stated(len: usize, pieces: &[u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        write(&mut packed, len);
        packed.extend_from_slice(pieces);
        packed
    }

    #[test]
    fn a_reference_restores_no_more_than_was_stated() {
        let new = [&[0b11][..], &[7; 32]].concat();
        let name = [0b01];
        let fits = [&new[..], &name, &name].concat();
        assert_eq!(unpack(&stated(3 * 34, &fits)).map(|entries| entries.len()), Ok(1));
        for len in [3 * 34 - 1, 3 * 34 + 1] {
            assert_eq!(unpack(&stated(len, &fits)), Err(UnpackError), "{len} bytes");
        }
        // More than an entry may have, or less.
        let names = limits::ENTRY_BYTES_MAX.div_ceil(34);
        assert_eq!(unpack(&stated(names * 34, &[&new[..], &vec![1; names - 1]].concat())), Err(UnpackError));
        assert_eq!(unpack(&stated(64, &[&[0xfc, 0x01][..], &[0; 64]].concat())), Err(UnpackError));
        // Names of nothing, a new value of no kind, an empty literal, a number that is not the shortest.
        for piece in [&[0b101][..], &[0b10], &[0b1011], &[0b00], &[0x81, 0x00], &[0xff; 6]] {
            let packed = stated(68, &[&new[..], piece, &name].concat());
            assert_eq!(unpack(&packed), Err(UnpackError), "{piece:?}");
        }
    }

    #[test]
    fn the_entries_of_a_frame_are_bounded_together() {
        let names = 90;
        let entry = stated(34 * names, &vec![1; names]);
        let first = stated(34 * names, &[&[0b11][..], &[7; 32], &vec![1; names - 1]].concat());
        let most = FRAME_BYTES_MAX / (34 * names);
        let packed = [&first[..], &entry.repeat(most - 1)].concat();
        assert_eq!(unpack(&packed).map(|entries| entries.len()), Ok(most));
        assert_eq!(unpack(&[packed, entry].concat()), Err(UnpackError));
    }
}
