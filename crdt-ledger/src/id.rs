//! Identifiers: 16, 32 or 64 bytes that only compare, print and travel.

use std::{cmp::Ordering, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A text that is not the hexadecimal form of an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not an identifier: {expected} hexadecimal digits are expected")]
pub struct ParseIdError {
    expected: usize,
}

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name(pub [u8; $len]);

        /// By the bytes. The first eight nearly always decide, as one number: a ledger's maps compare ids millions of
        /// times while it is loaded.
        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                let first = |id: &Self| id.0.first_chunk().map_or(0, |first| u64::from_be_bytes(*first));
                first(self).cmp(&first(other)).then_with(|| self.0.cmp(&other.0))
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl $name {
            /// All bits zero: the value that stands for "none" inside a block.
            pub const ZERO: Self = Self([0; $len]);

            /// The bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// The first eight hexadecimal digits, for people.
            #[must_use]
            pub fn short(&self) -> String {
                self.to_string()[..8].to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let wrong = ParseIdError { expected: 2 * $len };
                if text.len() != 2 * $len || !text.is_ascii() {
                    return Err(wrong);
                }
                let mut bytes = [0; $len];
                for (i, byte) in bytes.iter_mut().enumerate() {
                    *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| wrong)?;
                }
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    serializer.serialize_bytes(&self.0)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl de::Visitor<'_> for Visitor {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        write!(f, "{} bytes", $len)
                    }
                    fn visit_bytes<E: de::Error>(self, v: &[u8]) -> Result<$name, E> {
                        v.try_into().map($name).map_err(|_| E::invalid_length(v.len(), &self))
                    }
                    fn visit_str<E: de::Error>(self, v: &str) -> Result<$name, E> {
                        v.parse().map_err(E::custom)
                    }
                }
                if deserializer.is_human_readable() {
                    deserializer.deserialize_str(Visitor)
                } else {
                    deserializer.deserialize_bytes(Visitor)
                }
            }
        }
    };
}

bytes_id!(
    /// blake3 of an entry, signature included.
    BlockId,
    32
);
bytes_id!(
    /// The id of a fleet's genesis block.
    FleetId,
    32
);
bytes_id!(
    /// A device's ed25519 public key, which is also its iroh endpoint id.
    Author,
    32
);
bytes_id!(
    /// A random name for one start of one process; with the author it names a chain.
    Session,
    16
);
bytes_id!(
    /// blake3 of a component's or a manifest's bytes.
    BlobHash,
    32
);
bytes_id!(
    /// An ed25519 signature.
    Signature,
    64
);

/// One chain: what one author wrote in one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChainId {
    /// Who signs the chain.
    pub author: Author,
    /// Which start of its process wrote it.
    pub session: Session,
}

impl ChainId {
    /// `blake3(author ‖ session)`: the chain's automerge actor and its name in version vectors.
    #[must_use]
    pub fn actor(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.author.0);
        hasher.update(&self.session.0);
        *hasher.finalize().as_bytes()
    }

    /// The first half of the actor, by which vectors, gaps and digests name the chain.
    pub(crate) fn short_actor(&self) -> [u8; 16] {
        let actor = self.actor();
        std::array::from_fn(|at| actor[at])
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.author.short(), self.session.short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_the_bytes() {
        let mut bytes = vec![[0; 32], [1; 32], [0x80; 32], [0xff; 32]];
        for at in [0, 7, 8, 31] {
            for byte in [0, 1, 0x7f, 0x80] {
                let mut id = [1; 32];
                id[at] = byte;
                bytes.push(id);
            }
        }
        for (a, b) in bytes.iter().flat_map(|a| bytes.iter().map(move |b| (a, b))) {
            assert_eq!(BlockId(*a).cmp(&BlockId(*b)), a.cmp(b));
        }
    }

    #[test]
    fn text_form_round_trips_and_refuses_the_rest() {
        let id = BlockId([0xa7; 32]);
        assert_eq!(id.to_string().parse::<BlockId>(), Ok(id));
        assert!("a7".parse::<BlockId>().is_err());
        assert!("zz".repeat(32).parse::<BlockId>().is_err());
        assert!("é".repeat(32).parse::<BlockId>().is_err());
    }
}
