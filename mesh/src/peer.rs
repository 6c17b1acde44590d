//! Who a peer is.

use std::{fmt, str::FromStr};

/// A peer's Ed25519 public key: its iroh endpoint id and its author id in the ledger.
///
/// `Display` is the whole key as 64 lower-case hex digits; `Debug` is its first ten.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId([u8; 32]);

/// The text is not a peer's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a peer's key is 64 hexadecimal digits; copy it from `osiris peers`")]
pub struct PeerIdError;

impl PeerId {
    /// The peer with this public key.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The public key.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The public key, by value.
    pub const fn to_bytes(self) -> [u8; 32] {
        self.0
    }
}

impl From<[u8; 32]> for PeerId {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl From<PeerId> for [u8; 32] {
    fn from(peer: PeerId) -> Self {
        peer.0
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..5].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for PeerId {
    type Err = PeerIdError;

    fn from_str(text: &str) -> Result<Self, PeerIdError> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(PeerIdError);
        }
        let mut key = [0; 32];
        for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = (hex_digit(pair[0])? << 4) | hex_digit(pair[1])?;
        }
        Ok(Self(key))
    }
}

fn hex_digit(digit: u8) -> Result<u8, PeerIdError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(PeerIdError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_text() {
        let mut bytes = [0xab; 32];
        bytes[0] = 0x01;
        let peer = PeerId::from_bytes(bytes);
        assert_eq!(peer.to_string().parse(), Ok(peer));
        assert_eq!(peer.to_string().to_uppercase().parse(), Ok(peer));
        assert_eq!(format!("{peer:?}"), "01abababab");
        for bad in ["", "01", &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(bad.parse::<PeerId>(), Err(PeerIdError));
        }
    }
}
