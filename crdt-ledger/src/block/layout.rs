//! Where the fields of a body stand in its bytes.
//!
//! A body has one form, so what stands before the payload is at places that follow from the lengths of four
//! numbers alone. Reading it there takes less time and memory than a decoder of any CBOR, and refuses all other
//! forms by itself: `the_two_ways_of_reading_agree` holds both against each other.
//!
//! ```text
//! 8a 02 | 58 20 author | 50 session | seq | 58 20 prev | 80+n (58 20 parent)×n | depth | wall_ms | 58 20 grant | payload
//! ```

use super::VERSION;
use crate::{
    codec,
    id::BlockId,
    op::{Payload, Serving, Stopped},
};

const BYTES_32: &[u8] = &[0x58, 32];
const BYTES_16: &[u8] = &[0x50];
/// The longest list whose length is in its first byte; [`crate::limits::PARENTS_MAX`] are far fewer.
const SHORT_LIST_MAX: u8 = 23;
/// A parent with the two bytes before it.
type Parent = [u8; 34];

pub(super) const AUTHOR: usize = 4;
pub(super) const SESSION: usize = 37;
const SEQ: usize = 53;

/// What a block keeps of a body beside its bytes: seq, depth and payload. None where it is not in its one form, or
/// names more parents than any block may.
pub(super) fn read(body: &[u8]) -> Option<(u64, u64, Payload)> {
    let rest = body.strip_prefix(&[0x8a, VERSION])?;
    let rest = skip(rest.strip_prefix(BYTES_32)?, 32)?;
    let rest = skip(rest.strip_prefix(BYTES_16)?, 16)?;
    let (seq, rest) = number(rest)?;
    let rest = skip(rest.strip_prefix(BYTES_32)?, 32)?;
    let (list, mut rest) = rest.split_first()?;
    for _ in 0..list.checked_sub(0x80).filter(|count| *count <= SHORT_LIST_MAX)? {
        rest = skip(rest.strip_prefix(BYTES_32)?, 32)?;
    }
    let (depth, rest) = number(rest)?;
    let (_, rest) = number(rest)?;
    let rest = skip(rest.strip_prefix(BYTES_32)?, 32)?;
    Some((seq, depth, payload(rest)?))
}

/// Nearly all blocks say that a revision is served or no more, so these two are read here.
fn payload(bytes: &[u8]) -> Option<Payload> {
    if let Some(rest) = bytes.strip_prefix(b"\xa1\x67serving\x82\x58\x20") {
        let (revision, rest) = rest.split_first_chunk()?;
        let (concurrency, rest) = number(rest)?;
        let concurrency = u32::try_from(concurrency).ok()?;
        let serving = Serving { revision: BlockId(*revision), concurrency };
        return rest.is_empty().then_some(Payload::Serving(serving));
    }
    if let Some(rest) = bytes.strip_prefix(b"\xa1\x67stopped\x81\x58\x20") {
        let (revision, rest) = rest.split_first_chunk()?;
        return rest.is_empty().then_some(Payload::Stopped(Stopped { revision: BlockId(*revision) }));
    }
    codec::decode(bytes).ok()
}

fn skip(bytes: &[u8], count: usize) -> Option<&[u8]> {
    bytes.get(count..)
}

/// A number in its shortest form, and what follows it.
fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let (value, least, rest) = match first {
        0..=23 => return Some((u64::from(*first), rest)),
        24 => (rest.first_chunk().map(|[byte]| u64::from(*byte))?, 24, &rest[1..]),
        25 => (u64::from(u16::from_be_bytes(*rest.first_chunk()?)), 1 << 8, &rest[2..]),
        26 => (u64::from(u32::from_be_bytes(*rest.first_chunk()?)), 1 << 16, &rest[4..]),
        27 => (u64::from_be_bytes(*rest.first_chunk()?), 1 << 32, &rest[8..]),
        _ => return None,
    };
    (value >= least).then_some((value, rest))
}

/// Bytes of a number that begins so.
fn length(first: u8) -> usize {
    match first {
        24 => 2,
        25 => 3,
        26 => 5,
        27 => 9,
        _ => 1,
    }
}

/// Bytes at a place of an entry that was read.
pub(super) fn bytes<const N: usize>(entry: &[u8], at: usize) -> [u8; N] {
    *entry[at..].first_chunk().expect("a body that was read is as long as its fields")
}

/// Where `prev` is.
pub(super) fn prev(entry: &[u8]) -> usize {
    SEQ + length(entry[SEQ]) + BYTES_32.len()
}

pub(super) fn parents(entry: &[u8]) -> &[Parent] {
    let list = prev(entry) + 32;
    let parents = entry[list + 1..].as_chunks().0;
    &parents[..usize::from(entry[list] - 0x80)]
}

/// Where what follows the parents is.
fn depth(entry: &[u8]) -> usize {
    let list = prev(entry) + 32;
    list + 1 + size_of::<Parent>() * usize::from(entry[list] - 0x80)
}

fn wall_at(entry: &[u8]) -> usize {
    let depth = depth(entry);
    depth + length(entry[depth])
}

pub(super) fn wall(entry: &[u8]) -> u64 {
    number(&entry[wall_at(entry)..]).expect("a body that was read").0
}

/// Where the grant is.
pub(super) fn grant(entry: &[u8]) -> usize {
    let wall = wall_at(entry);
    wall + length(entry[wall]) + BYTES_32.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        block::{Block, Body, Reject, entry_id},
        id::{Author, Session},
        op,
    };

    fn body(seq: u64, parents: u8, depth: u64, wall_ms: u64, payload: Payload) -> Body {
        Body {
            version: VERSION,
            author: Author([1; 32]),
            session: Session([2; 16]),
            seq,
            prev: BlockId([3; 32]),
            parents: (0..parents).map(|n| BlockId([n; 32])).collect(),
            depth,
            wall_ms,
            grant: BlockId([4; 32]),
            payload,
        }
    }

    /// Bodies with numbers of every length, and payloads that are read here and elsewhere.
    fn bodies() -> Vec<Body> {
        let revision = BlockId([5; 32]);
        let mut bodies = Vec::new();
        for (n, number) in [0, 23, 24, 255, 256, 65_535, 65_536, u64::from(u32::MAX), 1 << 32, u64::MAX]
            .into_iter()
            .enumerate()
        {
            let concurrency = u32::try_from(number).unwrap_or(u32::MAX);
            let payloads = [
                Payload::Serving(op::Serving { revision, concurrency }),
                Payload::Stopped(op::Stopped { revision }),
                Payload::Removed(op::Removed { name: "web".to_owned(), replaces: vec![revision] }),
            ];
            for (parents, payload) in (0..).zip(payloads) {
                let parents = parents * 4 + u8::try_from(n).expect("few");
                bodies.push(body(number, parents, number / 2, number / 3, payload));
            }
        }
        bodies
    }

    fn both(bytes: &[u8], body: &Body, at: usize) {
        let slow = codec::decode::<Body>(bytes)
            .ok()
            .filter(|body| body.version == VERSION && body.parents.len() <= usize::from(SHORT_LIST_MAX));
        let fast = read(bytes);
        assert_eq!(fast, slow.map(|body| (body.seq, body.depth, body.payload)), "byte {at} of {body:?}");
    }

    #[test]
    fn the_two_ways_of_reading_agree() {
        for body in bodies() {
            let bytes = codec::encode(&body);
            both(&bytes, &body, bytes.len());
            for at in 0..bytes.len() {
                both(&bytes[..at], &body, at);
                for change in [1, 0x20, 0x80] {
                    let mut changed = bytes.clone();
                    changed[at] ^= change;
                    both(&changed, &body, at);
                }
                let mut longer = bytes.clone();
                longer.insert(at, bytes[at]);
                both(&longer, &body, at);
            }
        }
    }

    #[test]
    fn fields_are_where_they_were_written() {
        for body in bodies().into_iter().filter(|body| body.seq > 1 && body.parents.len() <= 8) {
            let entry = [codec::encode(&body), vec![0xff; 64]].concat();
            let block = Block::decode(entry_id(&entry), entry).expect("well-formed");
            assert_eq!((block.author(), block.chain().session), (body.author, body.session));
            assert_eq!((block.seq(), block.prev()), (body.seq, body.prev));
            assert_eq!(block.parents().collect::<Vec<_>>(), body.parents);
            assert_eq!((block.order().depth, block.wall().0), (body.depth, body.wall_ms));
            assert_eq!((block.grant(), block.payload()), (body.grant, &body.payload));
        }
    }

    #[test]
    fn a_list_too_long_for_one_byte_is_refused_for_its_parents() {
        let stopped = Payload::Stopped(op::Stopped { revision: BlockId([5; 32]) });
        for (parents, expected) in [(8, None), (9, Some(Reject::Parents)), (24, Some(Reject::Parents))] {
            let entry = [codec::encode(&body(2, parents, 3, 4, stopped.clone())), vec![0; 64]].concat();
            assert_eq!(Block::decode(entry_id(&entry), entry).err(), expected, "{parents} parents");
        }
    }
}
