//! Every limit of the ledger, in one place.
//!
//! Limits on a block (`ENTRY_BYTES_MAX` to `PLACE_LABELS_MAX`) are part of the format: a block that
//! breaks one is invalid for ever, on every node. The others bound what one node holds; reaching
//! one means "later", never a verdict on a block.

/// Bytes of an entry (body and signature). Larger things travel as blobs by hash.
pub const ENTRY_BYTES_MAX: usize = 3 * 1024;
/// Bytes of the signature that ends an entry.
pub const SIGNATURE_BYTES: usize = 64;
/// Parents a block may name.
pub const PARENTS_MAX: usize = 8;
/// Characters of a function's name.
pub const NAME_CHARS_MAX: usize = 63;
/// Bytes of a label (a fleet's name, a node's name, an invitation's note).
pub const LABEL_BYTES_MAX: usize = 64;
/// Earlier blocks of a function's register that a deploy or a removal may name.
pub const REPLACES_MAX: usize = 8;
/// Grants that one revocation may name.
pub const REVOKED_GRANTS_MAX: usize = 8;
/// Sessions that one revocation may pin.
pub const PINS_MAX: usize = 32;
/// Admissions that a withdrawal may name because they are no ancestors of it.
pub const STANDS_MAX: usize = 16;
/// Uses that one invitation may allow.
pub const INVITATION_USES_MAX: u32 = 10_000;
/// Devices that one user may have admitted.
pub const USER_DEVICES_MAX: u32 = 1_000;
/// Bytes of a component.
pub const COMPONENT_BYTES_MAX: u64 = 64 << 20;
/// Bytes of a manifest.
pub const MANIFEST_BYTES_MAX: u64 = 64 << 10;
/// Slots for machines that a fleet may have, and so machines that it may have made.
pub const SLOTS_MAX: u32 = 1_000;
/// Functions that an intent may name.
pub const INTENT_FUNCTIONS_MAX: usize = 16;
/// Replicas that a function, or all functions together, may have.
pub const REPLICAS_MAX: u32 = 10_000;
/// Members that one word on a function's replicas may pass over.
pub const PASSED_OVER_MAX: usize = 16;
/// Bytes of one of a device's labels for placement.
pub const PLACE_LABEL_BYTES_MAX: usize = 64;
/// Labels for placement that one device may bear.
pub const PLACE_LABELS_MAX: usize = 16;

/// Blocks that a device may write where no admin said how many: years of a busy node, and as much as a small
/// device can hold.
pub const BUDGET_BLOCKS: u64 = 50_000;
/// Blocks that an admin may allow a device.
pub const BUDGET_BLOCKS_MAX: u64 = 1_000_000_000;

/// Blocks that wait for one they name, of all senders together. Who sent most of them makes room.
pub const EARLY_BLOCKS_MAX: usize = 4_096;
/// Bytes that those may hold, each counted with [`EARLY_OVERHEAD_BYTES`].
pub const EARLY_BYTES_MAX: usize = 6 << 20;
/// What a waiting block is counted with beside its entry: its fields and its places in the indexes, bytes.
pub const EARLY_OVERHEAD_BYTES: usize = 512;
/// Entries from which on signatures are checked on several cores; below, handing them over costs more.
pub const PARALLEL_MIN: usize = 8;
/// Entries of a group that is read while the one before it is added: the blocks of two such groups are held
/// beside the ledger's.
pub const PARALLEL_MAX: usize = 512;
/// Entries that one list of the automerge document holds.
pub const SEGMENT_ENTRIES: u64 = 256;
/// Changes of the automerge document that is held in memory; of more only the heads are. It takes nearly 1 kB a change.
pub const DOCUMENT_HELD_MAX: usize = 16_384;
/// Changes that are applied to the document in one batch: a larger one is not cheaper a change, and is held
/// in memory twice meanwhile.
pub const DOCUMENT_BATCH: usize = 1_000;
/// Tips of one chain that a version vector names. More than one is a fork.
pub const VECTOR_TIPS_MAX: usize = 8;
/// Chains that a version vector names.
pub const VECTOR_CHAINS_MAX: usize = 20_000;
/// Bytes of entries in one batch of anti-entropy.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// Devices that may seal pages at the same time.
pub const VOTERS_MAX: usize = 64;
/// Bytes of a page of summaries.
pub const PAGE_BYTES_MAX: usize = 1 << 20;
/// Summaries in a page.
pub const PAGE_ROWS_MAX: usize = 8_192;
/// How far below the deepest block those lie that a voter proposes to summarise, in depth. Of blocks below
/// that all voters that are connected hold the same.
pub const PAGE_MARGIN_DEPTH: u64 = 256;
/// Bytes of one record of the journal (kind and payload).
pub const RECORD_BYTES_MAX: usize = 64 << 10;
/// Generations of a journal that are tried, from 0, where its header is damaged and no head file says which.
pub const JOURNAL_GENERATIONS_TRIED: u32 = 4_096;

/// Bytes of a sealed state of a machine, with all that is around it.
pub const STATE_RECORD_BYTES_MAX: usize = 80 << 10;
/// Spawners that a state is sealed for.
pub const STATE_READERS_MAX: usize = 64;
/// Machines whose states a spawner keeps, and that one frame names.
pub const STATES_MAX: usize = 256;

/// Bytes of a row of counters. Fits one message of gossip.
pub const ROW_BYTES_MAX: usize = 16 << 10;
/// Functions that a row counts.
pub const ROW_FUNCTIONS_MAX: usize = 128;
/// Claims that a row renews.
pub const ROW_CLAIMS_MAX: usize = 16;
/// Rows that a comparison names: members of a fleet.
pub const ROWS_MAX: usize = 20_000;
/// The largest backlog, and the largest number of running invocations, that is believed of one function on one node.
pub const FIGURE_MAX: u64 = 1_000_000;
