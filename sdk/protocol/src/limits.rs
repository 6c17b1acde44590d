//! Every limit of the wire contract, in one place.
//!
//! A limit is checked before anything is allocated for what it limits.

/// Longest name of a function, bytes. A name is one DNS label (RFC 1035, section 2.3.4).
pub const FUNCTION_NAME_BYTES_MAX: usize = 63;
/// Longest name of a fleet, bytes of UTF-8.
pub const FLEET_NAME_BYTES_MAX: usize = 64;

/// Largest head of a call or of its reply: everything but the body, as one CBOR frame, bytes.
pub const CALL_HEAD_BYTES_MAX: usize = 64 << 10;
/// Largest body of a call or of its reply, bytes.
pub const CALL_BODY_BYTES_MAX: usize = 4 << 20;
/// Longest path with query, bytes.
pub const CALL_PATH_BYTES_MAX: usize = 8 << 10;
/// Longest HTTP method, bytes.
pub const CALL_METHOD_BYTES_MAX: usize = 16;
/// Most headers of a call or of its reply.
pub const CALL_HEADERS_MAX: usize = 128;
/// Longest deadline of a call, milliseconds.
pub const CALL_DEADLINE_MS_MAX: u32 = 600_000;

/// Largest join request and reply, bytes.
pub const JOIN_FRAME_BYTES_MAX: usize = 64 << 10;
/// Most peers named in a welcome.
pub const WELCOME_PEERS_MAX: usize = 64;
/// Longest message that goes with a refusal, bytes. Longer ones are cut when received.
pub const REFUSAL_MESSAGE_BYTES_MAX: usize = 1_024;

/// Most socket addresses kept or sent for one peer.
pub const PEER_ADDRS_MAX: usize = 8;
/// Most peers named in a ticket.
pub const TICKET_PEERS_MAX: usize = 8;
/// Most ledger heads named in a join ticket.
pub const TICKET_HEADS_MAX: usize = 32;
/// Longest ticket, characters. The largest ticket that keeps the limits above takes about 4,200.
pub const TICKET_CHARS_MAX: usize = 8_192;

/// Deepest nesting of CBOR values that is decoded.
pub const CBOR_DEPTH_MAX: usize = 16;
