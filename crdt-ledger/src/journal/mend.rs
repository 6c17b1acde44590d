//! A damaged header: what it must have said. All that it holds stands elsewhere, too: the first record's
//! link is made of it, the first block's id is the fleet, and the head file begins with the same.

use super::{
    HEADER_BYTES, Head, Header, MAGIC, Record, first, hash, read_header, whole_record, whole_records,
};
use crate::{id::FleetId, limits::JOURNAL_GENERATIONS_TRIED};

/// The header that a journal's records were written behind, where it is not the one that stands there. `named`
/// is what the head file holds. None where the header is sound, and where nothing proves another one: then the
/// journal may be another fleet's, or of a format that is not known here.
#[must_use]
pub fn mended_header(bytes: &[u8], named: Option<&(Header, Head)>) -> Option<Header> {
    let own = Header::from_tail(&first(bytes.get(MAGIC.len()..HEADER_BYTES)?));
    let sound = match read_header(bytes) {
        Err(super::HeaderError::Newer(_)) => return None,
        read => read.is_ok(),
    };
    let record = whole_record(bytes, HEADER_BYTES).filter(|record| record.head.number == 1);
    let Some(record) = record else { return by_head(bytes, sound.then_some(own), named?) };
    let is_behind = |header: &Header| record.link == Head::empty(header).check;
    if sound && is_behind(&own) {
        return None;
    }
    candidates(own, &record, named).find(is_behind)
}

/// Eight bytes of hash decide among these, so none is taken by chance.
fn candidates(
    own: Header,
    record: &Record<'_>,
    named: Option<&(Header, Head)>,
) -> impl Iterator<Item = Header> {
    let named = named.map(|(header, _)| *header);
    let founded = FleetId(hash(&[record.payload]));
    let fleets = [named.map(|header| header.fleet), Some(founded), Some(own.fleet)];
    let generations = [named.map(|header| header.generation), Some(own.generation)];
    fleets.into_iter().flatten().flat_map(move |fleet| {
        let tried = generations.into_iter().flatten().chain(0..JOURNAL_GENERATIONS_TRIED);
        tried.map(move |generation| Header { fleet, generation })
    })
}

/// Where the first record is damaged, too: a head that names a record which is here is of this very journal.
fn by_head(bytes: &[u8], own: Option<Header>, (header, head): &(Header, Head)) -> Option<Header> {
    let is_named = |record: &Record<'_>| (record.head.number, record.head.check) == (head.number, head.check);
    let proven = own != Some(*header) && whole_records(bytes).iter().any(is_named);
    proven.then_some(*header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{HeaderError, scan, write};

    /// A journal whose first record is what founded the fleet.
    fn journal(generation: u32) -> (Header, Vec<u8>, Head) {
        let header = Header { fleet: FleetId(hash(&[b"founded"])), generation };
        let (bytes, head) = write(&header, [b"founded".as_slice(), b"two", b"three"]);
        (header, bytes, head)
    }

    #[test]
    fn any_flipped_bit_of_a_header_is_mended_with_and_without_a_head_file() {
        for generation in [0, 5] {
            let (header, bytes, head) = journal(generation);
            assert_eq!(mended_header(&bytes, None), None, "sound");
            assert_eq!(mended_header(&bytes, Some(&(header, head))), None, "sound");
            let mut newer = 0;
            for (byte, bit) in (0..HEADER_BYTES).flat_map(|byte| (0..8).map(move |bit| (byte, bit))) {
                let mut bytes = bytes.clone();
                bytes[byte] ^= 1 << bit;
                if matches!(scan(&bytes, None), Err(HeaderError::Newer(_))) {
                    newer += 1;
                    continue;
                }
                for named in [None, Some((header, head))] {
                    let what = format!("bit {bit} of byte {byte}, {named:?}");
                    assert_eq!(mended_header(&bytes, named.as_ref()), Some(header), "{what}");
                }
            }
            assert_eq!(newer, 2, "two bits make the format's digit one that a newer build may write");
        }
    }

    #[test]
    fn a_header_and_a_first_record_are_mended_by_the_head_alone() {
        let (header, mut bytes, head) = journal(3);
        bytes[HEADER_BYTES + 40] ^= 1;
        assert_eq!(mended_header(&bytes, Some(&(header, head))), None, "the header is sound");
        bytes[20] ^= 1;
        assert_eq!(mended_header(&bytes, Some(&(header, head))), Some(header));
        assert_eq!(mended_header(&bytes, None), None, "nothing proves it");
        let other = Head { check: [7; 8], ..head };
        assert_eq!(mended_header(&bytes, Some(&(header, other))), None, "the head of another journal");
    }

    #[test]
    fn another_fleets_journal_and_other_files_are_not_mended() {
        let (header, _, head) = journal(0);
        let (theirs, _) = write(&Header { fleet: FleetId([8; 32]), generation: 0 }, [b"theirs".as_slice()]);
        assert_eq!(mended_header(&theirs, Some(&(header, head))), None);
        for bytes in [b"".as_slice(), b"OSIRISJ2", &[0; 200]] {
            assert_eq!(mended_header(bytes, Some(&(header, head))), None);
        }
    }
}
