//! What a node is started with.

use std::{fmt, net::SocketAddr, time::Duration};

use osiris_protocol::PeerAddr;

use crate::limits::{BOOK_ADDRS_MAX, BOOK_PEERS_MAX, IDLE_TIMEOUT, KEEP_ALIVE, WRITE_STALL_MAX};

/// What a node is started with. Start from [`MeshConfig::new`].
#[derive(Clone)]
pub struct MeshConfig {
    /// The node's Ed25519 secret key. Not shown by `Debug`.
    pub secret: [u8; 32],
    /// Where to listen (UDP). `None`, the default: every interface, IPv4 and IPv6, on a free port.
    pub bind: Option<SocketAddr>,
    /// The port to listen on where `bind` says 0 or nothing: the one this node had before, so that
    /// members that know its old address find it again after everybody was down. `None`: any.
    pub port: Option<u16>,
    /// What to tell peers instead of the addresses found on the interfaces: for a node behind a
    /// port mapping. Empty by default; at most 8.
    pub advertise: Vec<SocketAddr>,
    /// What fleet this is: peers with another topic are turned away.
    pub topic: [u8; 32],
    /// Where members were known to listen: the last [`address_book`](crate::Mesh::address_book), or
    /// a welcome's list.
    pub known: Vec<PeerAddr>,
    /// Whether to spread hints by gossip; `true` by default. Without it [`hint`](crate::Mesh::hint)
    /// does nothing, and everything still converges, later.
    pub gossip: bool,
    /// Time between keep-alives on an idle connection; 750 ms by default. At most 5 s.
    pub keep_alive: Duration,
    /// Silence after which a peer counts as gone; 3 s by default, and at least twice `keep_alive`.
    /// Over relays or radio use 10 s. At most 15 s.
    pub idle_timeout: Duration,
    /// How long a peer may leave a message unread before its link is given up; [`WRITE_STALL_MAX`] by default, and at
    /// most.
    pub write_stall: Duration,
}

impl MeshConfig {
    /// A node with this key in the fleet with this topic, and defaults for everything else.
    pub fn new(secret: [u8; 32], topic: [u8; 32]) -> Self {
        Self {
            secret,
            bind: None,
            port: None,
            advertise: Vec::new(),
            topic,
            known: Vec::new(),
            gossip: true,
            keep_alive: KEEP_ALIVE,
            idle_timeout: IDLE_TIMEOUT,
            write_stall: WRITE_STALL_MAX,
        }
    }

    /// Names every field that is out of its bounds.
    ///
    /// # Errors
    /// [`MeshError::Config`] with one sentence a field.
    pub fn validate(&self) -> Result<(), MeshError> {
        let mut wrong = Vec::new();
        if self.advertise.len() > BOOK_ADDRS_MAX {
            wrong.push(format!("advertise holds at most {BOOK_ADDRS_MAX} addresses"));
        }
        if self.known.len() > BOOK_PEERS_MAX {
            wrong.push(format!("known holds at most {BOOK_PEERS_MAX} peers"));
        }
        if self.keep_alive.is_zero() || self.keep_alive > Duration::from_secs(5) {
            wrong.push("keep_alive is above 0 and at most 5 s".to_owned());
        }
        if self.idle_timeout < 2 * self.keep_alive || self.idle_timeout > Duration::from_secs(15) {
            wrong.push("idle_timeout is at least twice keep_alive and at most 15 s".to_owned());
        }
        if self.write_stall.is_zero() || self.write_stall > WRITE_STALL_MAX {
            wrong.push(format!("write_stall is above 0 and at most {} s", WRITE_STALL_MAX.as_secs()));
        }
        if wrong.is_empty() { Ok(()) } else { Err(MeshError::Config { wrong: wrong.join("; ") }) }
    }
}

impl fmt::Debug for MeshConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshConfig")
            .field("secret", &"redacted")
            .field("bind", &self.bind)
            .field("advertise", &self.advertise)
            .field("known", &self.known.len())
            .field("gossip", &self.gossip)
            .field("keep_alive", &self.keep_alive)
            .field("idle_timeout", &self.idle_timeout)
            .field("write_stall", &self.write_stall)
            .finish_non_exhaustive()
    }
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeshError {
    /// Fields of the configuration are out of their bounds.
    #[error("the mesh is not configured soundly: {wrong}; correct these and start again")]
    Config {
        /// One sentence a field.
        wrong: String,
    },
    /// The address to listen on cannot be used.
    #[error("cannot listen on {bind}: {why}; choose another address or port, or stop what uses it")]
    Bind {
        /// The address, or `every interface`.
        bind: String,
        /// What the system said.
        why: String,
    },
    /// The system gave no random bytes.
    #[error("the system gives no random bytes ({why}); check that /dev/urandom can be read")]
    Randomness {
        /// What the system said.
        why: String,
    },
    /// Gossip did not start.
    #[error("gossip did not start ({why}); start again, or start without gossip")]
    Gossip {
        /// What iroh-gossip said.
        why: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bad_field_is_named_and_the_secret_is_not_shown() {
        let mut config = MeshConfig::new([251; 32], [0; 32]);
        assert!(config.validate().is_ok());
        assert!(!format!("{config:?}").contains("251"));
        config.advertise = vec![SocketAddr::from(([1, 2, 3, 4], 5)); 9];
        config.keep_alive = Duration::from_secs(6);
        config.idle_timeout = Duration::from_secs(1);
        config.write_stall = Duration::ZERO;
        let error = config.validate().expect_err("four bad fields").to_string();
        for field in ["advertise", "keep_alive", "idle_timeout", "write_stall"] {
            assert!(error.contains(field), "{error}");
        }
    }
}
