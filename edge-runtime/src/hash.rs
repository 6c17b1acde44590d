//! The name of a component: the blake3 hash of its bytes.

use std::fmt;
use std::str::FromStr;

/// blake3 of a component's (or another blob's) bytes; written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ComponentHash(pub [u8; 32]);

impl ComponentHash {
    /// The hash of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).into())
    }
}

impl fmt::Display for ComponentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for ComponentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ComponentHash({self})")
    }
}

/// A text that is not a [`ComponentHash`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a component hash: 64 lower-case hexadecimal digits are expected.")]
pub struct ParseHashError(pub String);

impl FromStr for ComponentHash {
    type Err = ParseHashError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // One hash has one spelling, or a file could be found under one and lost under another.
        let lower = !text.bytes().any(|b| b.is_ascii_uppercase());
        blake3::Hash::from_hex(text)
            .ok()
            .filter(|_| lower)
            .map(|hash| Self(hash.into()))
            .ok_or_else(|| ParseHashError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let hash = ComponentHash::of(b"osiris");
        let text = hash.to_string();
        assert_eq!(text.len(), 64);
        assert_eq!(text.parse(), Ok(hash));
        assert!(text[1..].parse::<ComponentHash>().is_err());
        assert!("A".repeat(64).parse::<ComponentHash>().is_err());
    }
}
