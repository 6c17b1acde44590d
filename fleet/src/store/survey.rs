//! Looking into a journal's files without changing them: what they hold, what is wrong, and where.

use std::borrow::Cow;

use osiris_ledger::{
    BlockId, FleetId,
    journal::{self, Damage, HEADER_BYTES, Head},
};

use super::{Files, HEAD, JOURNAL, Recovered, StoreError};
use crate::disk::Disk;

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its number, from 1.
    pub number: u64,
    /// Where it starts, in bytes from the start of the file.
    pub offset: usize,
    /// blake3 of what it holds: a block's id.
    pub id: BlockId,
}

/// What the files of a journal hold.
#[derive(Clone, Debug)]
pub struct Survey {
    /// As a start would find it.
    pub found: Recovered,
    /// Whole records of blocks in their order.
    pub places: Vec<Place>,
    /// The last record that is whole.
    pub last: Head,
    /// There is no head file.
    pub head_missing: bool,
    /// The head file cannot be read.
    pub head_unread: bool,
    /// The head file is of this other fleet.
    pub other_fleet: Option<FleetId>,
}

impl Survey {
    /// The number of the first record that is missing at a place of damage; none where the header is damaged,
    /// and where no record is missing.
    #[must_use]
    pub fn first_missing(&self, damage: &Damage) -> Option<u64> {
        let before = self.places.iter().take_while(|place| place.offset < damage.offset).last();
        let missing = damage.records > 0 || damage.bytes > 0;
        (damage.offset > 0 && missing).then(|| before.map_or(0, |place| place.number) + 1)
    }
}

/// Reads a journal and says where everything is, without changing anything. Where it is being written, its
/// last record may look torn.
///
/// # Errors
/// [`StoreError`] where there is no journal, or nothing of it can be read. A head file that cannot be read is
/// no error.
pub fn survey(disk: &(impl Disk + ?Sized)) -> Result<Survey, StoreError> {
    // The head first: what it names is in the journal already.
    let head = disk.read(HEAD);
    let head_unread = head.is_err();
    let head = head.unwrap_or_default();
    let bytes = disk.read(JOURNAL).map_err(StoreError::Read)?;
    let read = |head: Option<&[u8]>| -> Result<Survey, StoreError> {
        let mended = mended(bytes.as_deref(), head);
        let files = Files::read(mended.as_deref(), head)?;
        let records = files.scan.records.iter().filter(|record| record.kind == journal::Kind::Block);
        let id = |payload: &[u8]| BlockId(*blake3::hash(payload).as_bytes());
        let place = |record: &journal::Record<'_>| Place {
            number: record.head.number,
            offset: record.offset,
            id: id(record.payload),
        };
        Ok(Survey {
            places: records.map(place).collect(),
            last: files.scan.head(),
            head_missing: head.is_none() && !head_unread,
            head_unread,
            other_fleet: None,
            found: files.recovered(is_mended(mended.as_ref())),
        })
    };
    match read(head.as_deref()) {
        Err(StoreError::OtherFleet { head, .. }) => {
            Ok(Survey { other_fleet: Some(head), head_missing: false, ..read(None)? })
        }
        read => read,
    }
}

/// The journal with the header that its records were written behind.
pub(super) fn mended<'a>(journal: Option<&'a [u8]>, head: Option<&[u8]>) -> Option<Cow<'a, [u8]>> {
    let journal = journal?;
    let named = head.and_then(journal::read_head_file);
    Some(match journal::mended_header(journal, named.as_ref()) {
        None => Cow::Borrowed(journal),
        Some(header) => {
            let none: [&[u8]; 0] = [];
            let mut whole = journal::write(&header, none).0;
            whole.extend_from_slice(&journal[HEADER_BYTES..]);
            Cow::Owned(whole)
        }
    })
}

/// Whether the header was another one.
pub(super) fn is_mended(journal: Option<&Cow<'_, [u8]>>) -> bool {
    matches!(journal, Some(Cow::Owned(_)))
}
