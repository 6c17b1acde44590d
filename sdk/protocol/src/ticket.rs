//! Tickets: copyable text that lets one dial or join a fleet.
//!
//! The text follows iroh-tickets' convention: the kind, `osiris`, then lower-case base32 without
//! padding (RFC 4648, section 6) of the bytes. The bytes are, in order:
//!
//! ```text
//! version u8 = 1 | kind u8: 0 dial, 1 join | fleet 32 | name: u8 length, UTF-8
//! peers: u8 count, each: key 32, u8 count of addresses, each: u8 4 or 6, ip 4 or 16, port u16 BE
//! join only: invitation 32 | secret 32 (zero: a user's own key signs) | heads: u8 count, each 32 | bound: u8 0 or 1, device 32
//! checksum: first 4 bytes of BLAKE3 over all bytes before it
//! ```
//!
//! The checksum finds mistakes in typing and copying. It proves nothing about who wrote the ticket:
//! the invitation's signature in the ledger does.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use data_encoding::BASE32_NOPAD;
use zeroize::{Zeroize, Zeroizing};

use crate::{
    PeerAddr,
    limits::{PEER_ADDRS_MAX, TICKET_CHARS_MAX, TICKET_HEADS_MAX, TICKET_PEERS_MAX},
    name::{NameError, check_fleet_name},
};

/// What every ticket's text starts with.
pub const PREFIX: &str = "osiris";
const VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 4;

/// Text that lets one reach a fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ticket {
    /// Where the fleet's nodes are, for a device that is already known to the fleet.
    Dial(DialTicket),
    /// The same, with an invitation for a device that is not. A secret: whoever reads it can join.
    Join(JoinTicket),
}

/// The body of [`Ticket::Dial`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DialTicket {
    /// The id of the fleet's genesis block.
    pub fleet: [u8; 32],
    /// What people call the fleet.
    pub fleet_name: String,
    /// At most [`TICKET_PEERS_MAX`] nodes.
    pub peers: Vec<PeerAddr>,
}

/// The body of [`Ticket::Join`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinTicket {
    /// The id of the fleet's genesis block.
    pub fleet: [u8; 32],
    /// What people call the fleet.
    pub fleet_name: String,
    /// At most [`TICKET_PEERS_MAX`] nodes.
    pub peers: Vec<PeerAddr>,
    /// The invitation's block in the ledger.
    pub invitation: [u8; 32],
    /// The invitation's secret key: whoever holds it may use the invitation. None where `invitation` is a
    /// user, whose key is in no ticket.
    pub secret: InvitationSecret,
    /// The inviter's heads, so that a node that lags behind knows that it does. At most
    /// [`TICKET_HEADS_MAX`].
    pub heads: Vec<[u8; 32]>,
    /// The only device that may use the ticket, when it is bound to one.
    pub device: Option<[u8; 32]>,
}

/// The secret key of an invitation. It is not shown by `Debug` and is overwritten on drop.
#[derive(Clone, PartialEq, Eq)]
pub struct InvitationSecret([u8; 32]);

impl InvitationSecret {
    /// Wraps the 32 bytes of an Ed25519 secret key.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// No secret: the ticket is for a user, whose own key admits the device.
    pub fn none() -> Self {
        Self([0; 32])
    }

    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        self.0 == [0; 32]
    }

    /// The key's bytes, to sign with. Do not log or store them.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for InvitationSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InvitationSecret(redacted)")
    }
}

impl Drop for InvitationSecret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Why a text is not a ticket, or a ticket cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TicketError {
    /// The text does not start with `osiris`.
    #[error("this is not an Osiris ticket: a ticket starts with \"{PREFIX}\"; copy all of it")]
    NotATicket,
    /// The text is longer than any ticket.
    #[error("the ticket has more than {TICKET_CHARS_MAX} characters; copy only the ticket itself")]
    TooLong,
    /// A character does not belong to base32, or one is missing at the end.
    #[error("the ticket has a wrong or missing character; copy it again, whole")]
    Encoding,
    /// The checksum does not fit.
    #[error("the ticket was altered or cut (its checksum does not fit); copy it again, whole")]
    Checksum,
    /// The ticket is of a version that this program does not read.
    #[error("the ticket has version {version}, and this program reads version {VERSION}; update it")]
    Version {
        /// The ticket's version.
        version: u8,
    },
    /// The checksum fits and the content does not follow the format.
    #[error("the ticket is not well-formed ({what}); ask for a new one")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
    /// The fleet's name breaks its rule.
    #[error(transparent)]
    Name(#[from] NameError),
    /// More of something than a ticket holds.
    #[error("a ticket holds at most {max} {what}, and there are {count}; leave some out")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many a ticket holds.
        max: usize,
    },
}

impl Ticket {
    /// The id of the fleet's genesis block.
    pub fn fleet(&self) -> &[u8; 32] {
        match self {
            Self::Dial(ticket) => &ticket.fleet,
            Self::Join(ticket) => &ticket.fleet,
        }
    }

    /// What people call the fleet.
    pub fn fleet_name(&self) -> &str {
        match self {
            Self::Dial(ticket) => &ticket.fleet_name,
            Self::Join(ticket) => &ticket.fleet_name,
        }
    }

    /// Where the fleet's nodes are.
    pub fn peers(&self) -> &[PeerAddr] {
        match self {
            Self::Dial(ticket) => &ticket.peers,
            Self::Join(ticket) => &ticket.peers,
        }
    }

    /// The ticket as text.
    ///
    /// # Errors
    /// When the ticket holds more than the format allows.
    pub fn encode(&self) -> Result<String, TicketError> {
        let bytes = Zeroizing::new(self.to_bytes()?);
        let mut text = PREFIX.to_owned();
        BASE32_NOPAD.encode_append(&bytes, &mut text);
        text.make_ascii_lowercase();
        Ok(text)
    }

    fn to_bytes(&self) -> Result<Vec<u8>, TicketError> {
        check_fleet_name(self.fleet_name())?;
        // Enough for the largest ticket, so that growing leaves no copies of the secret behind.
        let mut out = Vec::with_capacity(TICKET_CHARS_MAX / 2);
        out.push(VERSION);
        out.push(u8::from(matches!(self, Self::Join(_))));
        out.extend_from_slice(self.fleet());
        put_count(&mut out, "bytes of name", self.fleet_name().len(), 255)?;
        out.extend_from_slice(self.fleet_name().as_bytes());
        put_count(&mut out, "peers", self.peers().len(), TICKET_PEERS_MAX)?;
        for peer in self.peers() {
            out.extend_from_slice(&peer.peer);
            put_count(&mut out, "addresses of one peer", peer.addrs.len(), PEER_ADDRS_MAX)?;
            for addr in &peer.addrs {
                put_addr(&mut out, addr);
            }
        }
        if let Self::Join(ticket) = self {
            out.extend_from_slice(&ticket.invitation);
            out.extend_from_slice(ticket.secret.expose());
            put_count(&mut out, "heads", ticket.heads.len(), TICKET_HEADS_MAX)?;
            for head in &ticket.heads {
                out.extend_from_slice(head);
            }
            out.push(u8::from(ticket.device.is_some()));
            if let Some(device) = &ticket.device {
                out.extend_from_slice(device);
            }
        }
        let checksum = checksum(&out);
        out.extend_from_slice(&checksum);
        Ok(out)
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, TicketError> {
        let Some((body, tail)) = bytes.split_last_chunk::<CHECKSUM_BYTES>() else {
            return Err(TicketError::Checksum);
        };
        if checksum(body) != *tail {
            return Err(TicketError::Checksum);
        }
        let mut reader = Reader { rest: body };
        let version = reader.byte()?;
        if version != VERSION {
            return Err(TicketError::Version { version });
        }
        let kind = reader.byte()?;
        let fleet = reader.key()?;
        let name_len = usize::from(reader.byte()?);
        let fleet_name = std::str::from_utf8(reader.take(name_len)?)
            .map_err(|_| TicketError::Malformed { what: "the fleet's name is not UTF-8" })?
            .to_owned();
        check_fleet_name(&fleet_name)?;
        let peers = (0..reader.count("peers", TICKET_PEERS_MAX)?)
            .map(|_| reader.peer())
            .collect::<Result<Vec<_>, _>>()?;
        let ticket =
            match kind {
                0 => Self::Dial(DialTicket { fleet, fleet_name, peers }),
                1 => Self::Join(JoinTicket {
                    fleet,
                    fleet_name,
                    peers,
                    invitation: reader.key()?,
                    secret: InvitationSecret(reader.key()?),
                    heads: (0..reader.count("heads", TICKET_HEADS_MAX)?)
                        .map(|_| reader.key())
                        .collect::<Result<Vec<_>, _>>()?,
                    device: match reader.byte()? {
                        0 => None,
                        1 => Some(reader.key()?),
                        _ => {
                            return Err(TicketError::Malformed {
                                what: "the mark of a bound device is neither 0 nor 1",
                            });
                        }
                    },
                }),
                _ => {
                    return Err(TicketError::Malformed { what: "its kind is neither dial nor join" });
                }
            };
        if !reader.rest.is_empty() {
            return Err(TicketError::Malformed { what: "bytes follow its end" });
        }
        Ok(ticket)
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    /// Reads a ticket. White space and upper case, as terminals and chats add them, do no harm.
    fn from_str(text: &str) -> Result<Self, TicketError> {
        if text.len() > TICKET_CHARS_MAX {
            return Err(TicketError::TooLong);
        }
        let mut compact = Zeroizing::new(String::with_capacity(text.len()));
        compact.extend(text.chars().filter(|c| !c.is_whitespace()));
        compact.make_ascii_uppercase();
        let Some(encoded) = compact.strip_prefix("OSIRIS") else {
            return Err(TicketError::NotATicket);
        };
        let bytes = BASE32_NOPAD.decode(encoded.as_bytes()).map_err(|_| TicketError::Encoding)?;
        Self::from_bytes(&Zeroizing::new(bytes))
    }
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let [a, b, c, d, ..] = *blake3::hash(body).as_bytes();
    [a, b, c, d]
}

fn put_count(out: &mut Vec<u8>, what: &'static str, count: usize, max: usize) -> Result<(), TicketError> {
    match u8::try_from(count) {
        Ok(byte) if count <= max => {
            out.push(byte);
            Ok(())
        }
        _ => Err(TicketError::TooMany { what, count, max }),
    }
}

/// Scope ids and flow labels are left out: they mean something on one machine only.
fn put_addr(out: &mut Vec<u8>, addr: &SocketAddr) {
    match addr.ip() {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(6);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&addr.port().to_be_bytes());
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], TicketError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(CUT)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], TicketError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(CUT)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, TicketError> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    fn key(&mut self) -> Result<[u8; 32], TicketError> {
        self.array()
    }

    fn count(&mut self, what: &'static str, max: usize) -> Result<usize, TicketError> {
        let count = usize::from(self.byte()?);
        if count > max {
            return Err(TicketError::TooMany { what, count, max });
        }
        Ok(count)
    }

    fn peer(&mut self) -> Result<PeerAddr, TicketError> {
        let peer = self.key()?;
        let addrs = (0..self.count("addresses of one peer", PEER_ADDRS_MAX)?)
            .map(|_| self.addr())
            .collect::<Result<Vec<_>, _>>()?;
        Ok(PeerAddr { peer, addrs })
    }

    fn addr(&mut self) -> Result<SocketAddr, TicketError> {
        let ip = match self.byte()? {
            4 => IpAddr::V4(Ipv4Addr::from(self.array::<4>()?)),
            6 => IpAddr::V6(Ipv6Addr::from(self.array::<16>()?)),
            _ => {
                return Err(TicketError::Malformed { what: "an address is neither IPv4 nor IPv6" });
            }
        };
        Ok(SocketAddr::new(ip, u16::from_be_bytes(self.array()?)))
    }
}

const CUT: TicketError = TicketError::Malformed { what: "it ends too early" };

#[cfg(test)]
mod tests {
    use super::*;

    fn join_ticket() -> JoinTicket {
        JoinTicket {
            fleet: [1; 32],
            fleet_name: "home".to_owned(),
            peers: (0..8)
                .map(|n| PeerAddr {
                    peer: [n; 32],
                    addrs: vec![
                        SocketAddr::from(([192, 168, 1, n], 4433)),
                        SocketAddr::from((Ipv6Addr::LOCALHOST, 9)),
                    ],
                })
                .collect(),
            invitation: [2; 32],
            secret: InvitationSecret::new([3; 32]),
            heads: vec![[4; 32]; 32],
            device: Some([5; 32]),
        }
    }

    #[test]
    fn tickets_survive_being_copied() {
        let join = Ticket::Join(join_ticket());
        let dial =
            Ticket::Dial(DialTicket { fleet: [1; 32], fleet_name: "Büro".to_owned(), peers: Vec::new() });
        for ticket in [join, dial] {
            let text = ticket.encode().expect("within limits");
            assert!(text.starts_with("osiris"));
            assert_eq!(text, text.to_ascii_lowercase());
            assert_eq!(text.parse(), Ok(ticket.clone()));
            let (head, tail) = text.split_at(40);
            let wrapped = format!("  {}\n  {}\r\n", head.to_ascii_uppercase(), tail);
            assert_eq!(wrapped.parse(), Ok(ticket));
        }
    }

    #[test]
    fn every_single_wrong_character_is_found() {
        let mut ticket = join_ticket();
        ticket.heads.truncate(1);
        ticket.peers.truncate(1);
        let text = Ticket::Join(ticket).encode().expect("within limits");
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'a' { b'b' } else { b'a' };
            let wrong = String::from_utf8(bytes).expect("ASCII");
            assert!(wrong.parse::<Ticket>().is_err(), "character {at}");
            assert!(text[..at].parse::<Ticket>().is_err(), "cut at {at}");
        }
    }

    #[test]
    fn the_secret_is_not_shown() {
        let mut ticket = join_ticket();
        ticket.secret = InvitationSecret::new([251; 32]);
        let shown = format!("{ticket:?}");
        assert!(shown.contains("redacted"));
        assert!(!shown.contains("251"));
    }

    #[test]
    fn the_largest_ticket_fits_its_limit() {
        let mut ticket = join_ticket();
        ticket.fleet_name = "x".repeat(64);
        for peer in &mut ticket.peers {
            peer.addrs = vec![SocketAddr::from((Ipv6Addr::LOCALHOST, 9)); 8];
        }
        let text = Ticket::Join(ticket.clone()).encode().expect("within limits");
        assert!(text.len() < TICKET_CHARS_MAX, "{}", text.len());
        ticket.heads.push([0; 32]);
        assert!(Ticket::Join(ticket).encode().is_err());
    }
}
