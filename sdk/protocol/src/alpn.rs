//! The names of Osiris' protocols, as negotiated in the TLS handshake.
//!
//! The number at the end is the version. A message that changes its shape gets a new one.

/// Invitation to admission: the only protocol that a stranger may speak.
pub const JOIN: &[u8] = b"osiris/join/1";
/// Version vectors, ranges and blocks between members.
pub const SYNC: &[u8] = b"osiris/sync/1";
/// Invocations of functions, one bidirectional stream each.
pub const CALL: &[u8] = b"osiris/call/1";
/// Function artifacts by their BLAKE3 hash.
pub const BLOB: &[u8] = b"osiris/blob/1";
/// Function artifacts that come before the block which names them.
pub const OFFER: &[u8] = b"osiris/offer/1";

/// What ended a membership: spoken by a device that was a member, with members.
pub const ENDED: &[u8] = b"osiris/ended/1";

/// Codes with which a connection or a stream is closed on purpose.
///
/// They share one number space over all protocols, so that a log line is read without knowing which
/// protocol it came from.
pub mod code {
    /// Nothing is wrong; the sender is done.
    pub const DONE: u32 = 0;
    /// The fleet does not know this key as a member (any more, or not yet on this node).
    pub const NOT_A_MEMBER: u32 = 1;
    /// A second connection between the same two nodes; the other one stays.
    pub const DUPLICATE: u32 = 2;
    /// The peer opened a newer connection, which replaced this one.
    pub const REPLACED: u32 = 3;
    /// The node is shutting down.
    pub const SHUTDOWN: u32 = 4;
    /// The bytes received break the protocol.
    pub const MALFORMED: u32 = 5;
    /// A limit on concurrent work or on the rate is reached. The request was not started.
    pub const BUSY: u32 = 6;
    /// The peer belongs to another fleet.
    pub const OTHER_FLEET: u32 = 7;
    /// What the peer sent or would send is larger than allowed.
    pub const TOO_LARGE: u32 = 8;
    /// The node failed while performing the request.
    pub const INTERNAL: u32 = 9;
    /// The key was a member when the connection was opened and was removed since.
    pub const REMOVED: u32 = 11;
    /// The deadline of the request has passed.
    pub const TIMEOUT: u32 = 10;

    /// Another process said hello with the same key, as after a restart; a process that is told so while
    /// it runs has a twin.
    pub const OTHER_SESSION: u32 = 12;

    /// The sentence's part that explains a code with which a call is turned away before it is
    /// started; `None` for codes that do not promise that.
    pub const fn refused_before_start(code: u32) -> Option<&'static str> {
        match code {
            BUSY => Some("it has no room for another call"),
            NOT_A_MEMBER => Some("it does not know this device as one that may call"),
            MALFORMED => Some("it finds the request malformed"),
            _ => None,
        }
    }
}
