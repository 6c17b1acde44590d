//! An archive: all blocks and pages that a replica holds, in one file, to be checked by whoever has it.
//!
//! ```text
//! file = "OSIRISA1" ‖ fleet 32 ‖ item* ‖ end
//! item = kind u8 ‖ length u32 LE ‖ bytes          kind 1: an entry; 2: a page
//! end  = 0 ‖ blake3 of all before
//! ```
//!
//! Pages come first, then entries in ledger order. The hash at the end tells a file that was cut or damaged from one
//! that is whole; it proves nothing against whoever made the file. What does is that every block is judged as if a
//! stranger had sent it, and every page by the seals among the blocks.

use std::{
    io::{self, Read, Write},
    sync::Arc,
};

use osiris_ledger::{Admission, Block, BlockId, FleetId, Ledger, Page, limits};

const MAGIC: &[u8; 8] = b"OSIRISA1";
const END: u8 = 0;
const ENTRY: u8 = 1;
const PAGE: u8 = 2;
/// Entries that are judged at once.
const BATCH: usize = 4_096;

/// Why a file is no sound archive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The file cannot be read.
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    /// It does not begin as an archive does.
    #[error("it is no archive of this format")]
    Format,
    /// Its bytes are not those that were written, or not all of them.
    #[error("it was cut or changed since it was written")]
    Damaged,
    /// A page that is none, or says what no valid block can be.
    #[error("a page in it is not sound: {0}")]
    Page(String),
    /// An entry that every node refuses.
    #[error("block {0} in it is not valid: {1}")]
    Block(String, String),
    /// Blocks that name others which are not in it.
    #[error("{0} block(s) or summaries in it name others that are not in it")]
    Incomplete(usize),
    /// A page that is not sealed by blocks in it.
    #[error("nothing in it vouches for the page {0}")]
    Unsealed(String),
}

/// What a sound archive holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archived {
    /// The fleet.
    pub fleet: FleetId,
    /// Blocks in full.
    pub blocks: u64,
    /// Blocks as summaries alone.
    pub summaries: u64,
    /// Pages.
    pub pages: u64,
    /// The view's hash, hex: that of every replica which holds the same blocks.
    pub view: String,
}

/// Writes an archive of these blocks and pages.
///
/// # Errors
/// Those of the writer.
pub fn write(
    out: &mut impl Write,
    fleet: &FleetId,
    pages: &[Arc<Page>],
    blocks: &[Arc<Block>],
) -> io::Result<()> {
    let mut out = Hashed { inner: out, hasher: blake3::Hasher::new() };
    out.write_all(MAGIC)?;
    out.write_all(&fleet.0)?;
    for page in pages {
        item(&mut out, PAGE, &page.encode())?;
    }
    for block in blocks {
        item(&mut out, ENTRY, block.entry())?;
    }
    out.write_all(&[END])?;
    let hash = *out.hasher.finalize().as_bytes();
    out.inner.write_all(&hash)
}

fn item(out: &mut impl Write, kind: u8, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    out.write_all(&[kind])?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(bytes)
}

/// Reads an archive, and judges all of it as if a stranger had sent it.
///
/// # Errors
/// [`ArchiveError`], the first thing that does not hold.
pub fn verify(input: &mut impl Read) -> Result<Archived, ArchiveError> {
    let mut input = Hashed { inner: input, hasher: blake3::Hasher::new() };
    let (mut magic, mut fleet) = ([0; 8], [0; 32]);
    input.fill(&mut magic)?;
    if magic != *MAGIC {
        return Err(ArchiveError::Format);
    }
    input.fill(&mut fleet)?;
    let fleet = FleetId(fleet);
    let mut ledger = Ledger::new(fleet);
    ledger.leave_out_document();
    let (mut pages, mut waiting) = (0, Vec::new());
    loop {
        let mut kind = [0];
        input.fill(&mut kind)?;
        let most = match kind[0] {
            END => break,
            ENTRY => limits::ENTRY_BYTES_MAX,
            PAGE => limits::PAGE_BYTES_MAX,
            _ => return Err(ArchiveError::Damaged),
        };
        let mut length = [0; 4];
        input.fill(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > most {
            return Err(ArchiveError::Damaged);
        }
        let mut bytes = vec![0; length];
        input.fill(&mut bytes)?;
        if kind[0] == PAGE {
            let page = Page::decode(&fleet, &bytes).map_err(|error| ArchiveError::Page(error.to_string()))?;
            ledger.offer(&Arc::new(page));
            pages += 1;
        } else {
            waiting.push(bytes);
        }
        if waiting.len() == BATCH {
            admit(&mut ledger, &std::mem::take(&mut waiting))?;
        }
    }
    let hash = *input.hasher.finalize().as_bytes();
    let mut said = [0; 32];
    input.fill(&mut said)?;
    if said != hash || input.inner.read(&mut [0])? != 0 {
        return Err(ArchiveError::Damaged);
    }
    admit(&mut ledger, &waiting)?;
    judged(&mut ledger, pages)
}

fn admit(ledger: &mut Ledger, entries: &[Vec<u8>]) -> Result<(), ArchiveError> {
    for (entry, answer) in entries.iter().zip(ledger.admit_all(entries)) {
        let refused = match answer {
            Ok(Admission::New { rejected, .. }) => rejected.into_iter().next().map(|r| (r.id, r.reject)),
            Ok(_) => None,
            Err(reject) => Some((Block::id_of(entry), reject)),
        };
        if let Some((id, reject)) = refused {
            return Err(ArchiveError::Block(id.short(), reject.to_string()));
        }
    }
    Ok(())
}

fn judged(ledger: &mut Ledger, pages: u64) -> Result<Archived, ArchiveError> {
    let (_, refused) = ledger.take_offered();
    if let Some(refused) = refused.first() {
        return Err(ArchiveError::Block(refused.id.short(), refused.reject.to_string()));
    }
    if let Some(fault) = ledger.page_fault() {
        return Err(ArchiveError::Page(fault.reject.to_string()));
    }
    // Early blocks that were given up for lack of room count as well.
    let (early, evicted) = ledger.early();
    let open = early + ledger.offered() + usize::try_from(evicted).unwrap_or(usize::MAX);
    if open > 0 || !ledger.is_founded() {
        return Err(ArchiveError::Incomplete(open));
    }
    let view = ledger.publish();
    ledger.vouched().map_err(|page| ArchiveError::Unsealed(page.short()))?;
    let blocks = ledger.len_full();
    let summaries = ledger.len() - blocks;
    Ok(Archived { fleet: ledger.fleet(), blocks, summaries, pages, view: BlockId(view.hash()).to_string() })
}

/// Hashes what passes.
struct Hashed<'a, T> {
    inner: &'a mut T,
    hasher: blake3::Hasher,
}

impl<T: Write> Write for Hashed<'_, T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Hashed<'_, T> {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), ArchiveError> {
        self.inner.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ArchiveError::Damaged,
            _ => ArchiveError::Read(error),
        })?;
        self.hasher.update(bytes);
        Ok(())
    }
}
