//! The journal's format: the durable truth of a node, as bytes. Who writes and syncs is the driver.
//!
//! ```text
//! file   = "OSIRISJ2" ‖ fleet id (32) ‖ generation u32 LE ‖ record*
//! record = mark "\xB1oJR" ‖ length u32 LE ‖ check (8) ‖ number u64 LE ‖ link (8) ‖ place u32 LE ‖ kind u8 ‖ payload
//! check  = blake3(length ‖ number ‖ link ‖ place ‖ kind ‖ payload)[..8]       length = 1 + |payload|
//! ```
//!
//! Records are numbered from 1. A record's **link** is the check of the record before it, so that whole
//! records that vanish, change places or come back from an older state are noticed; the first one's is
//! `blake3("osiris-journal" ‖ fleet ‖ generation)[..8]`. A journal that is written again without what was
//! damaged has the next **generation**. Records of one **group** are written together and synced
//! once; `place` counts the group's records before this one.
//!
//! What no whole record follows is a **torn tail**: the last write before a power cut, never
//! acknowledged, to be cut off. So is what follows a hole within the last group, because a disk may
//! write the sectors of one write in any order. Every other hole is **damage**: a later group is written
//! only after the one before it was synced, so something that was durable has changed. It is reported,
//! never skipped in silence.
//!
//! A journal cannot know of its own end how far it went. The **head** file says it, beside the journal:
//!
//! ```text
//! file   = "OSIRISH1" ‖ fleet id (32) ‖ generation u32 LE ‖ head*
//! head   = number u64 LE ‖ bytes u64 LE ‖ check of that record (8) ‖ seal (8)
//! seal   = blake3("osiris-head" ‖ fleet ‖ generation ‖ number ‖ bytes ‖ check)[..8]
//! ```
//!
//! A head is added once the record it names is durable, so the last one that checks names a record that
//! was acknowledged, and the journal must hold it. What is behind it may be missing: nobody waits until a
//! head is durable.

use crate::{id::FleetId, limits};

mod mend;

pub use mend::mended_header;

const MAGIC: &[u8; 8] = b"OSIRISJ2";
const MAGIC_BEFORE: &[u8; 8] = b"OSIRISJ1";
const HEAD_MAGIC: &[u8; 8] = b"OSIRISH1";
const MARK: &[u8; 4] = b"\xB1oJR";
const CHECK: usize = 8;
/// Number, link and place.
const ORDER: usize = 8 + CHECK + 4;
const FRAME: usize = MARK.len() + 4 + CHECK + ORDER;
/// Bytes before the first record.
pub const HEADER_BYTES: usize = MAGIC.len() + 32 + 4;
/// Bytes of one head.
pub const HEAD_BYTES: usize = 8 + 8 + CHECK + CHECK;

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// An entry of the ledger.
    Block = 1,
    /// The name of a page of summaries, 32 bytes: blocks that it lists may be here by it alone. The page's bytes are
    /// kept elsewhere, and are durable before this is.
    Page = 2,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Block, Self::Page].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// What a journal and its head file start with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The fleet.
    pub fleet: FleetId,
    /// How often the journal was written again without what was damaged.
    pub generation: u32,
}

impl Header {
    fn tail(&self) -> [u8; 36] {
        let mut bytes = [0; 36];
        bytes[..32].copy_from_slice(&self.fleet.0);
        bytes[32..].copy_from_slice(&self.generation.to_le_bytes());
        bytes
    }

    fn from_tail(bytes: &[u8; 36]) -> Self {
        Self { fleet: FleetId(first(bytes)), generation: u32::from_le_bytes(first(&bytes[32..])) }
    }
}

/// The last record of a journal, or of a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its number; 0 where there is no record.
    pub number: u64,
    /// Where it ends, in bytes from the start of the file.
    pub bytes: u64,
    /// Its check, the link of the next.
    pub check: [u8; CHECK],
}

impl Head {
    /// The head of a journal without records.
    #[must_use]
    pub fn empty(header: &Header) -> Self {
        let check = first(&hash(&[b"osiris-journal", &header.tail()]));
        Self { number: 0, bytes: HEADER_BYTES as u64, check }
    }

    /// Writes a group of records behind this one, and moves to the last of them.
    ///
    /// # Panics
    /// If a payload has [`limits::RECORD_BYTES_MAX`] bytes or more: nothing that large is made.
    pub fn write_group<'a>(&mut self, payloads: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        self.write_records(payloads.into_iter().map(|payload| (Kind::Block, payload)))
    }

    /// [`Head::write_group`], of records of any kind.
    ///
    /// # Panics
    /// As [`Head::write_group`].
    pub fn write_records<'a>(&mut self, records: impl IntoIterator<Item = (Kind, &'a [u8])>) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (place, (kind, payload)) in records.into_iter().enumerate() {
            let place = u32::try_from(place).expect("a group fits into memory");
            self.write_record(place, kind, payload, &mut bytes);
        }
        bytes
    }

    fn write_record(&mut self, place: u32, kind: Kind, payload: &[u8], bytes: &mut Vec<u8>) {
        assert!(payload.len() < limits::RECORD_BYTES_MAX, "a record within its limit");
        let length = u32::try_from(1 + payload.len()).expect("within the limit").to_le_bytes();
        let number = self.number + 1;
        let order = [&number.to_le_bytes(), self.check.as_slice(), &place.to_le_bytes()].concat();
        let check = first(&hash(&[&length, &order, &[kind as u8], payload]));
        for part in [MARK.as_slice(), &length, &check, &order, &[kind as u8], payload] {
            bytes.extend_from_slice(part);
        }
        let end = self.bytes + (FRAME + 1 + payload.len()) as u64;
        *self = Self { number, bytes: end, check };
    }

    /// The bytes of this head in a head file.
    #[must_use]
    pub fn to_bytes(&self, header: &Header) -> [u8; HEAD_BYTES] {
        let said = [&self.number.to_le_bytes(), self.bytes.to_le_bytes().as_slice(), &self.check].concat();
        let seal: [u8; CHECK] = first(&hash(&[b"osiris-head", &header.tail(), &said]));
        [said.as_slice(), &seal].concat().try_into().expect("three times eight bytes, and eight")
    }

    fn from_bytes(bytes: &[u8; HEAD_BYTES], header: &Header) -> Option<Self> {
        let u64_at = |at: usize| u64::from_le_bytes(first(&bytes[at..]));
        let head = Self { number: u64_at(0), bytes: u64_at(8), check: first(&bytes[16..]) };
        (head.to_bytes(header) == *bytes).then_some(head)
    }
}

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    *bytes.first_chunk().expect("enough bytes")
}

/// A whole journal of these payloads, each a group of its own, and its head.
///
/// # Panics
/// As [`Head::write_group`].
#[must_use]
pub fn write<'a>(header: &Header, payloads: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, Head) {
    write_all(header, payloads.into_iter().map(|payload| (Kind::Block, payload)))
}

/// [`write`], of records of any kind.
///
/// # Panics
/// As [`Head::write_group`].
#[must_use]
pub fn write_all<'a>(
    header: &Header,
    records: impl IntoIterator<Item = (Kind, &'a [u8])>,
) -> (Vec<u8>, Head) {
    let mut head = Head::empty(header);
    let mut bytes = [MAGIC.as_slice(), &header.tail()].concat();
    for record in records {
        bytes.extend(head.write_records([record]));
    }
    (bytes, head)
}

/// A whole head file that names one head.
#[must_use]
pub fn write_head_file(header: &Header, head: &Head) -> Vec<u8> {
    [HEAD_MAGIC.as_slice(), &header.tail(), &head.to_bytes(header)].concat()
}

/// The header and the last head of a head file. None where no head in it checks: the first is durable
/// before the file has its name, so such a file is damaged.
#[must_use]
pub fn read_head_file(bytes: &[u8]) -> Option<(Header, Head)> {
    let (header, heads) = bytes.strip_prefix(HEAD_MAGIC.as_slice())?.split_first_chunk::<36>()?;
    let header = Header::from_tail(header);
    let (heads, _torn) = heads.as_chunks::<HEAD_BYTES>();
    let head = heads.iter().rev().find_map(|head| Head::from_bytes(head, &header))?;
    Some((header, head))
}

/// A place of a journal where something is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where it starts, in bytes from the start of the file.
    pub offset: usize,
    /// Bytes there that are no whole record.
    pub bytes: usize,
    /// Records that are missing there by their numbers. Unknown, and zero, at the end of a journal, and
    /// where the record behind does not belong behind the one before.
    pub records: u64,
}

/// A whole record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Where it starts, in bytes from the start of the file.
    pub offset: usize,
    /// Its number, end and check.
    pub head: Head,
    /// The check of the record it was written behind.
    pub link: [u8; CHECK],
    /// Records of its group before it.
    pub place: u32,
    /// What it holds.
    pub kind: Kind,
    /// The bytes.
    pub payload: &'a [u8],
}

impl Record<'_> {
    fn end(&self) -> usize {
        self.offset + FRAME + 1 + self.payload.len()
    }

    /// The number of its group's first record.
    fn group(&self) -> u64 {
        self.head.number.saturating_sub(self.place.into())
    }

    fn follows(&self, head: &Head) -> bool {
        self.head.number == head.number + 1 && self.link == head.check && self.offset as u64 == head.bytes
    }
}

/// What a journal's bytes hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan<'a> {
    /// The header.
    pub header: Header,
    /// Whole records in their order.
    pub records: Vec<Record<'a>>,
    /// What follows the last whole record, or a hole within a last group that nobody was told of.
    pub torn_tail: Option<Damage>,
    /// Places between whole records, ascending.
    pub damage: Vec<Damage>,
}

impl Scan<'_> {
    /// The last record.
    #[must_use]
    pub fn head(&self) -> Head {
        self.records.last().map_or_else(|| Head::empty(&self.header), |record| record.head)
    }

    /// Whether the record that a head names is here.
    #[must_use]
    pub fn holds(&self, head: &Head) -> bool {
        let named = |record: &Record| (record.head.number, record.head.check) == (head.number, head.check);
        head.number == 0 || self.records.iter().rev().any(named)
    }
}

/// Why bytes are not this fleet's journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// Shorter than a header.
    #[error("it is shorter than its header")]
    Short,
    /// Not a journal.
    #[error("it does not start like a journal")]
    Magic,
    /// A journal of format 1, which no release wrote.
    #[error("it has format 1, which only builds before the first release wrote and read")]
    Old,
    /// A journal of a format that a later build may write.
    #[error("it has format {0}, which this build does not know")]
    Newer(char),
    /// The header is not the one that the first record was written behind.
    #[error("its header does not fit its first record, so it is damaged")]
    Damaged,
}

/// What a journal starts with.
///
/// # Errors
/// [`HeaderError`] where the bytes do not start like a journal.
pub fn read_header(bytes: &[u8]) -> Result<Header, HeaderError> {
    match bytes.get(..MAGIC.len()) {
        Some(magic) if magic == MAGIC_BEFORE => return Err(HeaderError::Old),
        Some([start @ .., digit @ b'3'..=b'9']) if MAGIC.starts_with(start) => {
            return Err(HeaderError::Newer(char::from(*digit)));
        }
        _ => {}
    }
    let header = bytes.get(..HEADER_BYTES).ok_or(HeaderError::Short)?;
    let tail = header.strip_prefix(MAGIC.as_slice()).ok_or(HeaderError::Magic)?;
    Ok(Header::from_tail(&first(tail)))
}

/// Reads all records behind the header. `known` is the last record that is known to have been durable,
/// from the head file: it tells a last group that was torn from one that was damaged.
///
/// # Errors
/// [`HeaderError`] where the bytes do not start like a journal.
pub fn scan<'a>(bytes: &'a [u8], known: Option<&Head>) -> Result<Scan<'a>, HeaderError> {
    let header = read_header(bytes)?;
    let mut records = whole_records(bytes);
    if records
        .first()
        .is_some_and(|record| record.head.number == 1 && record.link != Head::empty(&header).check)
    {
        return Err(HeaderError::Damaged);
    }
    let mut holes: Vec<usize> = Vec::new();
    let mut head = Head::empty(&header);
    for (at, record) in records.iter().enumerate() {
        if !record.follows(&head) {
            holes.push(at);
        }
        head = record.head;
    }
    if let Some(first) = unacknowledged_hole(&records, &holes, known) {
        records.truncate(first);
        holes.retain(|at| *at < first);
    }
    let before = |at: usize| match at.checked_sub(1) {
        Some(before) => (records[before].end(), records[before].head.number),
        None => (HEADER_BYTES, 0),
    };
    let damage = holes.iter().map(|at| {
        let (offset, number) = before(*at);
        let behind = &records[*at];
        let missing = behind.head.number.saturating_sub(number + 1);
        Damage { offset, bytes: behind.offset - offset, records: missing }
    });
    let damage = damage.collect();
    let (end, _) = before(records.len());
    let torn_tail = (end < bytes.len()).then(|| Damage { offset: end, bytes: bytes.len() - end, records: 0 });
    Ok(Scan { header, records, torn_tail, damage })
}

/// The first hole such that all that is missing there, and all that is behind it, belongs to the last
/// group, and nobody was told that this group is durable.
fn unacknowledged_hole(records: &[Record<'_>], holes: &[usize], known: Option<&Head>) -> Option<usize> {
    let group = records.last()?.group();
    if known.is_some_and(|known| known.number >= group) {
        return None;
    }
    holes.iter().copied().find(|at| {
        let before = at.checked_sub(1).map_or(0, |before| records[before].head.number);
        let same_group = |record: &Record<'_>| record.group() == group && record.head.number > before;
        before + 1 >= group && records[*at..].iter().all(same_group)
    })
}

fn whole_records(bytes: &[u8]) -> Vec<Record<'_>> {
    let mut records = Vec::new();
    let mut offset = HEADER_BYTES;
    while offset < bytes.len() {
        match whole_record(bytes, offset) {
            Some(record) => {
                offset = record.end();
                records.push(record);
            }
            None => offset += 1,
        }
    }
    records
}

fn whole_record(bytes: &[u8], offset: usize) -> Option<Record<'_>> {
    let rest = bytes.get(offset..)?.strip_prefix(MARK.as_slice())?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (check, rest) = rest.split_first_chunk::<CHECK>()?;
    let (order, rest) = rest.split_first_chunk::<ORDER>()?;
    let len = u32::from_le_bytes(*length) as usize;
    if len == 0 || len > limits::RECORD_BYTES_MAX {
        return None;
    }
    let (kind, payload) = rest.get(..len)?.split_at(1);
    if first::<CHECK>(&hash(&[length, order, kind, payload])) != *check {
        return None;
    }
    let end = offset + FRAME + len;
    Some(Record {
        offset,
        head: Head { number: u64::from_le_bytes(first(order)), bytes: end as u64, check: *check },
        link: first(&order[8..]),
        place: u32::from_le_bytes(first(&order[8 + CHECK..])),
        kind: Kind::from_byte(kind[0])?,
        payload,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header { fleet: FleetId([7; 32]), generation: 3 };

    fn journal(payloads: &[&[u8]]) -> Vec<u8> {
        write(&HEADER, payloads.iter().copied()).0
    }

    fn payloads<'a>(scan: &Scan<'a>) -> Vec<&'a [u8]> {
        scan.records.iter().map(|record| record.payload).collect()
    }

    #[test]
    fn a_tail_cut_at_any_byte_loses_only_the_last_record() {
        let whole = journal(&[b"one", b"two", b"three"]);
        let two = journal(&[b"one", b"two"]).len();
        for len in two + 1..whole.len() {
            let scan = scan(&whole[..len], None).expect("a journal");
            assert_eq!(scan.records.len(), 2, "cut at {len}");
            assert_eq!(scan.torn_tail, Some(Damage { offset: two, bytes: len - two, records: 0 }));
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
                let scan = scan(&bytes, None).expect("a journal");
                let damage = Damage { offset: one, bytes: two - one, records: 1 };
                assert_eq!(scan.damage, [damage], "byte {at} bit {bit}");
                assert_eq!(payloads(&scan), [b"one".as_slice(), b"three"]);
            }
        }
    }

    #[test]
    fn whole_records_that_vanish_or_come_back_from_before_are_noticed() {
        let whole = journal(&[b"one", b"two", b"three", b"four"]);
        let [one, three] = [journal(&[b"one"]).len(), journal(&[b"one", b"two", b"three"]).len()];
        let vanished = [&whole[..one], &whole[three..]].concat();
        let damage = [Damage { offset: one, bytes: 0, records: 2 }];
        assert_eq!(scan(&vanished, None).expect("a journal").damage, damage);
        let first = [&whole[..HEADER_BYTES], &whole[one..]].concat();
        let damage = [Damage { offset: HEADER_BYTES, bytes: 0, records: 1 }];
        assert_eq!(scan(&first, None).expect("a journal").damage, damage);
        // The second record of another history, whole and with the right number.
        let other = journal(&[b"one", b"TWO"]);
        let two = other.len();
        let mixed = [&other[..], &whole[two..]].concat();
        let damage = [Damage { offset: two, bytes: 0, records: 0 }];
        assert_eq!(scan(&mixed, None).expect("a journal").damage, damage);
    }

    #[test]
    fn a_hole_in_the_last_group_is_torn_unless_the_group_was_acknowledged() {
        let (mut bytes, mut head) = write(&HEADER, [b"one".as_slice()]);
        let one = bytes.len();
        bytes.extend(head.write_group([b"a".as_slice(), b"b", b"c"]));
        let group = (bytes.len() - one) / 3;
        for lost in 0..3 {
            let mut bytes = bytes.clone();
            bytes[one + lost * group..][..group].fill(0);
            let torn = scan(&bytes, None).expect("a journal");
            assert_eq!(torn.records.len(), 1 + lost);
            assert_eq!(torn.torn_tail.map(|tail| tail.offset), Some(one + lost * group));
            assert!(torn.damage.is_empty());
            let damaged = scan(&bytes, Some(&head)).expect("a journal");
            assert_eq!(damaged.records.len(), 3);
            assert_eq!(damaged.damage.len() + usize::from(damaged.torn_tail.is_some()), 1);
            assert_eq!(damaged.holds(&head), lost < 2);
        }
        // A later group was written, so the one with the hole was durable.
        let mut bytes = [bytes, head.write_group([b"d".as_slice()])].concat();
        bytes[one + group..][..group].fill(0);
        let scan = scan(&bytes, None).expect("a journal");
        assert_eq!(scan.damage, [Damage { offset: one + group, bytes: group, records: 1 }]);
        assert_eq!(payloads(&scan), [b"one".as_slice(), b"a", b"c", b"d"]);
    }

    #[test]
    fn a_head_file_names_its_last_whole_head() {
        let mut head = Head::empty(&HEADER);
        let mut bytes = write_head_file(&HEADER, &head);
        assert_eq!(read_head_file(&bytes), Some((HEADER, head)));
        let first = head;
        head.write_group([b"one".as_slice()]);
        bytes.extend(head.to_bytes(&HEADER));
        assert_eq!(read_head_file(&bytes), Some((HEADER, head)));
        for len in bytes.len() - HEAD_BYTES..bytes.len() {
            assert_eq!(read_head_file(&bytes[..len]), Some((HEADER, first)), "cut at {len}");
        }
        assert_eq!(read_head_file(&bytes[..HEADER_BYTES + 1]), None);
        bytes[20] ^= 1;
        assert_eq!(read_head_file(&bytes), None, "a head is bound to its fleet");
    }

    #[test]
    fn a_foreign_file_is_refused() {
        assert_eq!(scan(b"", None).err(), Some(HeaderError::Short));
        assert_eq!(scan(&[0; 64], None).err(), Some(HeaderError::Magic));
        assert_eq!(scan(b"OSIRISJ1 and more", None).err(), Some(HeaderError::Old));
        let mut bytes = journal(&[b"one"]);
        bytes[MAGIC.len()] ^= 1;
        assert_eq!(scan(&bytes, None).err(), Some(HeaderError::Damaged));
    }
}
