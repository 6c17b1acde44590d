//! From an invitation to membership: the messages of `osiris/join/1`.
//!
//! The newcomer opens one bidirectional stream, sends a [`JoinRequest`] and receives a
//! [`JoinReply`]; each is one frame. The newcomer's key is not sent: it is the one that the
//! connection's handshake proved.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{
    PeerAddr,
    frame::{self, FrameError},
    limits::{JOIN_FRAME_BYTES_MAX, PEER_ADDRS_MAX, REFUSAL_MESSAGE_BYTES_MAX, WELCOME_PEERS_MAX},
};

/// A newcomer's wish to be admitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// The fleet to join: the id of its genesis block.
    #[serde(with = "serde_bytes")]
    pub fleet: [u8; 32],
    /// The invitation block that the ticket named.
    #[serde(with = "serde_bytes")]
    pub invitation: [u8; 32],
    /// Ed25519 signature by the invitation's key over what binds the newcomer's key to it
    /// (the ledger says over which bytes).
    #[serde(with = "serde_bytes")]
    pub proof: [u8; 64],
    /// The newcomer's name, for people: 1 to 64 bytes of printable text. The ledger checks it.
    pub label: String,
    /// Where the newcomer will listen; empty when it cannot know yet.
    pub addrs: Vec<SocketAddr>,
}

/// The answer to a [`JoinRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum JoinReply {
    /// The newcomer is a member now.
    Welcome(Welcome),
    /// The newcomer is not admitted.
    Refused(Refusal),
}

/// What a new member needs to begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Welcome {
    /// The block that admits the newcomer.
    #[serde(with = "serde_bytes")]
    pub grant: [u8; 32],
    /// Members and where they were last known to listen.
    pub addrs: Vec<PeerAddr>,
}

/// Why a newcomer was not admitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// The reason, for programs.
    pub code: RefusalCode,
    /// The reason and the next step, for people.
    pub message: String,
}

/// The reason of a [`Refusal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RefusalCode {
    /// The proof does not fit the invitation: the ticket was altered or is not for this use.
    Altered,
    /// The invitation was withdrawn, or whoever issued it may no longer invite.
    Revoked,
    /// The invitation has admitted as many devices as it may.
    UsedUp,
    /// The invitation's time has passed.
    Expired,
    /// The ticket is for another fleet.
    OtherFleet,
    /// The ticket is bound to another device.
    OtherDevice,
    /// The node does not know the invitation; it may not have received it yet.
    Unknown,
    /// The node cannot answer now; try again or elsewhere.
    Busy,
    /// The node failed while it dealt with the request.
    Internal,
}

impl RefusalCode {
    /// Whether another node, or the same one later, may answer otherwise.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Unknown | Self::Busy | Self::Internal)
    }
}

/// Why a join message was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinMessageError {
    /// The frame is broken.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// More addresses or peers than allowed.
    #[error("the message names {count} {what} and at most {max} are allowed; send fewer")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many are allowed.
        max: usize,
    },
}

fn at_most(what: &'static str, count: usize, max: usize) -> Result<(), JoinMessageError> {
    if count > max {
        return Err(JoinMessageError::TooMany { what, count, max });
    }
    Ok(())
}

impl JoinRequest {
    /// The request as a whole frame.
    ///
    /// # Errors
    /// When it names too many addresses.
    pub fn encode(&self) -> Result<bytes::Bytes, JoinMessageError> {
        self.check()?;
        Ok(frame::encode(self, JOIN_FRAME_BYTES_MAX)?)
    }

    /// Reads a request from a frame's payload.
    ///
    /// # Errors
    /// When the payload is not a request, or names too many addresses.
    pub fn decode(payload: &[u8]) -> Result<Self, JoinMessageError> {
        let request: Self = frame::decode(payload)?;
        request.check()?;
        Ok(request)
    }

    fn check(&self) -> Result<(), JoinMessageError> {
        at_most("addresses", self.addrs.len(), PEER_ADDRS_MAX)
    }
}

impl JoinReply {
    /// A refusal.
    pub fn refused(code: RefusalCode, message: impl Into<String>) -> Self {
        Self::Refused(Refusal { code, message: message.into() })
    }

    /// The reply as a whole frame.
    ///
    /// # Errors
    /// When it names too many peers or addresses.
    pub fn encode(&self) -> Result<bytes::Bytes, JoinMessageError> {
        self.check()?;
        Ok(frame::encode(self, JOIN_FRAME_BYTES_MAX)?)
    }

    /// Reads a reply from a frame's payload.
    ///
    /// # Errors
    /// When the payload is not a reply, or names too many peers or addresses.
    pub fn decode(payload: &[u8]) -> Result<Self, JoinMessageError> {
        let mut reply: Self = frame::decode(payload)?;
        reply.check()?;
        if let Self::Refused(refusal) = &mut reply {
            // The sentence is shown on a terminal: no escape sequences, and not a page of it.
            refusal.message = refusal
                .message
                .chars()
                .filter(|c| !c.is_control())
                .take(REFUSAL_MESSAGE_BYTES_MAX / 4)
                .collect();
        }
        Ok(reply)
    }

    fn check(&self) -> Result<(), JoinMessageError> {
        if let Self::Welcome(welcome) = self {
            at_most("peers", welcome.addrs.len(), WELCOME_PEERS_MAX)?;
            for peer in &welcome.addrs {
                at_most("addresses", peer.addrs.len(), PEER_ADDRS_MAX)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addrs(count: usize) -> Vec<SocketAddr> {
        (0..count).map(|n| SocketAddr::from(([10, 0, 0, n as u8], 7000))).collect()
    }

    #[test]
    fn messages_survive_the_wire() {
        let request = JoinRequest {
            fleet: [1; 32],
            invitation: [2; 32],
            proof: [3; 64],
            label: "shelf-3".to_owned(),
            addrs: addrs(8),
        };
        let bytes = request.encode().expect("within limits");
        assert_eq!(JoinRequest::decode(&bytes[4..]), Ok(request));
        let welcome = JoinReply::Welcome(Welcome {
            grant: [4; 32],
            addrs: (0..64).map(|n| PeerAddr { peer: [n; 32], addrs: addrs(8) }).collect(),
        });
        let bytes = welcome.encode().expect("within limits");
        assert_eq!(JoinReply::decode(&bytes[4..]), Ok(welcome));
    }

    #[test]
    fn too_many_addresses_are_refused_at_both_ends() {
        let request = JoinRequest {
            fleet: [1; 32],
            invitation: [2; 32],
            proof: [3; 64],
            label: "shelf-3".to_owned(),
            addrs: addrs(9),
        };
        assert!(request.encode().is_err());
        let forced = frame::encode_payload(&request, JOIN_FRAME_BYTES_MAX).expect("encodes");
        assert!(JoinRequest::decode(&forced).is_err());
    }

    #[test]
    fn a_refusals_sentence_is_safe_to_print() {
        let reply = JoinReply::refused(RefusalCode::Busy, "a\u{1b}[2Jb".repeat(2_000));
        let bytes = reply.encode().expect("within limits");
        let JoinReply::Refused(refusal) = JoinReply::decode(&bytes[4..]).expect("decodes") else {
            panic!("a refusal was sent");
        };
        assert!(!refusal.message.chars().any(char::is_control));
        assert!(refusal.message.len() <= REFUSAL_MESSAGE_BYTES_MAX);
    }
}
