//! Every limit of the mesh, in one place. Those of the wire contract with applications are in
//! [`osiris_protocol::limits`].

use std::time::Duration;

/// Largest frame of `osiris/sync/1`, bytes.
pub const FRAME_BYTES_MAX: usize = 2 << 20;
/// Largest hint, bytes: more than a block or a row of counters. iroh-gossip's own cap is above it, because a message
/// over that cap is reported as sent and silently breaks a link.
pub const HINT_BYTES_MAX: usize = 24 << 10;
/// iroh-gossip's cap on a message with its envelope, bytes.
pub const GOSSIP_MESSAGE_BYTES_MAX: usize = 32 << 10;
/// Hints of one kind received and not yet taken before iroh-gossip drops some and says so.
pub const HINTS_RECEIVED_MAX: usize = 512;
/// Kinds of hints: entries of the ledger, and rows of counters.
pub const HINT_KINDS: usize = 2;

/// Blocks of one author that are taken from itself at once, beyond what [`AUTHOR_BLOCKS_PER_SECOND`] gives.
/// A year of a busy node's deploys and restarts; a member that floods reaches it in seconds.
pub const AUTHOR_BLOCKS_BURST: i64 = 20_000;
/// Blocks of one author that are taken a second, after a burst.
pub const AUTHOR_BLOCKS_PER_SECOND: i64 = 200;
/// Bytes of one author's blocks that are taken from itself at once.
pub const AUTHOR_BYTES_BURST: i64 = 16 << 20;
/// Bytes of one author's blocks that are taken a second, after a burst.
pub const AUTHOR_BYTES_PER_SECOND: i64 = 128 << 10;
/// Blocks of an author beyond its budget (`osiris_ledger::View::budget`) that are taken at once.
pub const SPENT_BLOCKS_BURST: i64 = 100;
/// Milliseconds from one block of an author beyond its budget to the next, after a burst.
pub const SPENT_BLOCK_INTERVAL_MS: i64 = 10_000;
/// Blocks beyond their authors' budgets that are taken at once from a member that did not write them. It may bring
/// what it took in over months.
pub const BROUGHT_BLOCKS_BURST: i64 = 20_000;
/// Milliseconds from one such block to the next, after a burst. Honest blocks name what was taken in, so this only has
/// to be slow beside a link, and quick beside what trickles in.
pub const BROUGHT_BLOCK_INTERVAL_MS: i64 = 5;
/// How long after its first peer a node takes what comes to be history, if no peer agrees with it sooner.
pub const CATCH_UP_MAX: Duration = Duration::from_secs(600);

/// Most members whose addresses are kept.
pub const BOOK_PEERS_MAX: usize = 4_096;
/// Most addresses kept for one peer.
pub const BOOK_ADDRS_MAX: usize = osiris_protocol::limits::PEER_ADDRS_MAX;
/// Most peers in one message about addresses.
pub const ADDRESSES_PEERS_MAX: usize = 256;
/// Most peers whose addresses are asked for in one message.
pub const WANTED_PEERS_MAX: usize = 64;
/// Least time between two messages about addresses on one connection.
pub const ADDRESSES_INTERVAL_MIN: Duration = Duration::from_millis(200);
/// Hearsay older than this is not believed.
pub const ADDRESS_AGE_MAX: Duration = Duration::from_secs(30 * 24 * 3_600);

/// A fleet of at most this many members is connected in full.
pub const FULL_MESH_MEMBERS_MAX: usize = 12;
/// In a larger fleet a node chooses this many peers; others may have chosen it.
pub const NEIGHBOURS_CHOSEN: usize = 8;
/// How long a node sleeps between two looks at whom to dial when nothing is due. News wake it.
pub const KEEPER_IDLE: Duration = Duration::from_secs(30);
/// Most dials at the same time.
pub const DIALS_MAX: usize = 16;

/// Frames queued for one peer before more are refused.
pub const SEND_FRAMES_QUEUED_MAX: usize = 256;
/// Bytes queued for one peer before more are refused. A peer that catches up asks for one batch after another.
pub const SEND_BYTES_QUEUED_MAX: usize = 8 << 20;
/// Events queued for the user of the mesh before connections stop being read.
pub const EVENTS_QUEUED_MAX: usize = 128;
/// Bytes of frames and hints among those, before connections stop being read: some of the largest frames. Each link
/// holds one more that it has read and cannot queue.
pub const EVENTS_BYTES_QUEUED_MAX: usize = 16 << 20;
/// Hints queued before more are dropped.
pub const HINTS_QUEUED_MAX: usize = 256;

/// Calls served at the same time; more are refused before they start.
pub const CALLS_SERVED_MAX: usize = 1_024;
/// Bodies of calls being served, together, KiB; more are refused before they start.
pub const CALL_BODIES_KIB_MAX: usize = 32 << 10;
/// Bodies of answers that their callers have not taken yet, together, KiB; a call whose answer is over it fails.
pub const CALL_ANSWERS_KIB_MAX: usize = 64 << 10;
/// Streams that one peer may have open on one connection.
pub const STREAMS_MAX: u32 = 512;
/// Bytes that one connection may hold received and unread, and as many sent and not acknowledged: 10 MB a second over
/// a round trip of 100 ms.
pub const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// Connections of one peer that are accepted. An honest one needs a link, one for calls, one for gossip, and
/// [`FETCHES_PER_PEER_MAX`], and for a moment a second one of each.
pub const CONNECTIONS_ACCEPTED_MAX: usize = 10;
/// Connections that this node makes to one peer: a link, calls, gossip, a question about an ending, and fetches and
/// offers.
pub const CONNECTIONS_DIALLED_MAX: usize = 4 + FETCHES_PER_PEER_MAX;
/// Artifacts that are fetched from one peer, or offered to it, at the same time; more wait.
pub const FETCHES_PER_PEER_MAX: usize = 2;
/// Artifacts served at the same time; more are told to come back.
pub const BLOBS_SERVED_MAX: usize = 32;
/// Artifacts taken from offers at the same time; more are told to come back.
pub const OFFERS_TAKEN_MAX: usize = 2;
/// Artifacts that are offered over one connection; more take another.
pub const OFFERS_AT_ONCE_MAX: usize = 64;
/// How long taking one offered artifact may take.
pub const OFFER_TIMEOUT: Duration = Duration::from_secs(300);
/// Bytes of an artifact that are moved at a time.
pub const BLOB_PIECE_BYTES: usize = 256 << 10;

/// Strangers served at the same time.
pub const JOINS_SERVED_MAX: usize = 8;
/// Connections of strangers accepted in a burst.
pub const JOINS_BURST_MAX: u32 = 20;
/// Connections of strangers accepted a second, after a burst.
pub const JOINS_PER_SECOND: u32 = 5;

/// Devices that are members no more and are told so at the same time.
pub const ENDED_SERVED_MAX: usize = 2;
/// Connections of such devices accepted in a burst.
pub const ENDED_BURST_MAX: u32 = 8;
/// Connections of such devices accepted a second, after a burst.
pub const ENDED_PER_SECOND: u32 = 1;
/// How long telling one may take, seen from both sides.
pub const ENDED_TIMEOUT: Duration = Duration::from_secs(10);

/// How long establishing a connection may take.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(4);
/// How long establishing a connection for a call may take; the call's own deadline may be shorter.
pub const CALL_DIAL_TIMEOUT: Duration = Duration::from_millis(1_500);
/// How long the first message on a connection may take.
pub const GREETING_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a peer may leave a frame unread before its connection is given up.
pub const WRITE_STALL_MAX: Duration = Duration::from_secs(20);
/// How long a transfer of an artifact may make no progress.
pub const BLOB_STALL_MAX: Duration = Duration::from_secs(10);
/// How long a join may take, seen from the node that admits.
pub const JOIN_SERVE_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a join may take over all addresses, seen from the newcomer.
pub const JOIN_TIMEOUT: Duration = Duration::from_secs(20);
/// How long handing a hint to iroh-gossip may take: one stopped peer can stall it for half a minute.
pub const HINT_SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a node without gossip neighbours tries its connected peers again.
pub const GOSSIP_REJOIN_INTERVAL: Duration = Duration::from_secs(5);
/// How often gossip shuffles its passive view. Each shuffle of iroh-gossip 0.101 leaks about 80 KB,
/// and our own connections feed the view anyway.
pub const GOSSIP_SHUFFLE_INTERVAL: Duration = Duration::from_secs(3_600);
/// How long shutting down may take.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(4);

/// Default time between keep-alives on an idle connection.
pub const KEEP_ALIVE: Duration = Duration::from_millis(750);
/// Default silence after which a peer counts as gone.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(3);
