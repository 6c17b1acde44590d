//! Canonical CBOR (RFC 8949 §4.2.1): one byte string for one value.
//!
//! `ciborium` writes shortest integers and definite lengths; the types of this crate contain no maps
//! with more than one key and no floats, so what it writes is canonical. What comes in is accepted
//! only if writing it again gives the same bytes.

use std::io;

use serde::{Serialize, de::DeserializeOwned};

/// Writes a value.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(384);
    ciborium::into_writer(value, &mut bytes).expect("a Vec takes every write");
    bytes
}

/// Why bytes are not the canonical form of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DecodeError {
    Malformed,
    NotCanonical,
}

/// Reads a value whose bytes are canonical and end where the value ends.
pub(crate) fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let value: T = ciborium::from_reader(bytes).map_err(|_| DecodeError::Malformed)?;
    let mut same = Same { left: bytes };
    match ciborium::into_writer(&value, &mut same) {
        Ok(()) if same.left.is_empty() => Ok(value),
        _ => Err(DecodeError::NotCanonical),
    }
}

/// Takes only the bytes that are expected.
struct Same<'a> {
    left: &'a [u8],
}

impl io::Write for Same<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self.left.strip_prefix(bytes).ok_or(io::ErrorKind::InvalidData)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
