//! Length-prefixed CBOR frames.
//!
//! A frame is its payload's length as a big-endian `u32`, then the payload. The length is checked
//! against a cap that the caller names before a byte is allocated for it. A structured payload is
//! one CBOR item (RFC 8949) with nothing after it; structs are maps keyed by field name, in
//! declaration order, with definite lengths.

use bytes::{Buf, Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};

use crate::limits::CBOR_DEPTH_MAX;

/// Bytes of the length prefix.
pub const PREFIX_BYTES: usize = 4;

/// Why a frame was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The length is above the cap of this kind of frame.
    #[error("the frame has {len} bytes and at most {cap} are allowed; send less in one message")]
    TooLarge {
        /// The length that was declared or that the value would take, bytes.
        len: usize,
        /// The cap, bytes.
        cap: usize,
    },
    /// The payload is not the CBOR item that was expected.
    #[error("the frame is not the expected CBOR ({what}); check that both ends speak this version")]
    Malformed {
        /// What the decoder stumbled over.
        what: String,
    },
    /// The item decoded, and bytes follow it.
    #[error("{extra} bytes follow the frame's CBOR item; check that both ends speak this version")]
    Trailing {
        /// How many bytes follow.
        extra: usize,
    },
    /// The value cannot be written as CBOR.
    #[error("the value cannot be encoded as CBOR ({what}); this is a defect in the caller")]
    Unencodable {
        /// What the encoder stumbled over.
        what: String,
    },
}

/// Encodes `value` as a payload, without the length prefix.
///
/// # Errors
/// [`FrameError::TooLarge`] above `cap`, [`FrameError::Unencodable`] when `Serialize` fails.
pub fn encode_payload<T: Serialize>(value: &T, cap: usize) -> Result<Bytes, FrameError> {
    let bytes = encode(value, cap)?;
    Ok(bytes.slice(PREFIX_BYTES..))
}

/// Encodes `value` as a whole frame: length prefix and payload.
///
/// # Errors
/// [`FrameError::TooLarge`] above `cap`, [`FrameError::Unencodable`] when `Serialize` fails.
pub fn encode<T: Serialize>(value: &T, cap: usize) -> Result<Bytes, FrameError> {
    let mut out = vec![0; PREFIX_BYTES];
    ciborium::into_writer(value, &mut out)
        .map_err(|error| FrameError::Unencodable { what: error.to_string() })?;
    let len = out.len() - PREFIX_BYTES;
    let prefix = prefix(len, cap)?;
    out[..PREFIX_BYTES].copy_from_slice(&prefix);
    Ok(out.into())
}

/// The length prefix of a payload of `len` bytes.
///
/// # Errors
/// [`FrameError::TooLarge`] above `cap`.
pub fn prefix(len: usize, cap: usize) -> Result<[u8; PREFIX_BYTES], FrameError> {
    match u32::try_from(len) {
        Ok(len32) if len <= cap => Ok(len32.to_be_bytes()),
        _ => Err(FrameError::TooLarge { len, cap }),
    }
}

/// The payload's length that a prefix declares.
///
/// # Errors
/// [`FrameError::TooLarge`] above `cap`.
pub fn declared_len(prefix: [u8; PREFIX_BYTES], cap: usize) -> Result<usize, FrameError> {
    let len = u32::from_be_bytes(prefix) as usize;
    if len > cap {
        return Err(FrameError::TooLarge { len, cap });
    }
    Ok(len)
}

/// Decodes a payload: exactly one CBOR item.
///
/// # Errors
/// [`FrameError::Malformed`] or [`FrameError::Trailing`].
pub fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, FrameError> {
    let mut rest = payload;
    let value = ciborium::de::from_reader_with_recursion_limit(&mut rest, CBOR_DEPTH_MAX)
        .map_err(|error| FrameError::Malformed { what: error.to_string() })?;
    if rest.is_empty() { Ok(value) } else { Err(FrameError::Trailing { extra: rest.len() }) }
}

/// Cuts frames out of a stream that arrives in pieces of any size.
///
/// Memory is bounded by one frame plus the piece last pushed: the buffer grows with what has
/// arrived, never with what was declared.
#[derive(Debug)]
pub struct FrameDecoder {
    cap: usize,
    buffer: BytesMut,
}

impl FrameDecoder {
    /// A decoder for frames of at most `cap` bytes of payload.
    pub fn new(cap: usize) -> Self {
        Self { cap, buffer: BytesMut::new() }
    }

    /// Adds bytes that arrived. Call [`next_frame`](Self::next_frame) until it is empty after each.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame's payload, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`] as soon as the prefix is seen. The stream cannot be read further.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(prefix) = self.buffer.first_chunk::<PREFIX_BYTES>() else {
            return Ok(None);
        };
        let len = declared_len(*prefix, self.cap)?;
        if self.buffer.len() < PREFIX_BYTES + len {
            return Ok(None);
        }
        self.buffer.advance(PREFIX_BYTES);
        Ok(Some(self.buffer.split_to(len).freeze()))
    }

    /// Whether the stream may end here: no frame has been begun.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// What has arrived behind the frames that were taken.
    pub fn into_rest(self) -> Bytes {
        self.buffer.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_fragmentation() {
        let frames: Vec<Bytes> = [0usize, 1, 5, 300].iter().map(|n| Bytes::from(vec![7u8; *n])).collect();
        let mut wire = Vec::new();
        for frame in &frames {
            wire.extend_from_slice(&prefix(frame.len(), 300).expect("within the cap"));
            wire.extend_from_slice(frame);
        }
        for piece in [1, 2, 3, 7, wire.len()] {
            let mut decoder = FrameDecoder::new(300);
            let mut got = Vec::new();
            for chunk in wire.chunks(piece) {
                decoder.push(chunk);
                while let Some(frame) = decoder.next_frame().expect("well-formed") {
                    got.push(frame);
                }
            }
            assert_eq!(got, frames, "pieces of {piece}");
            assert!(decoder.is_empty());
        }
    }

    #[test]
    fn a_length_over_the_cap_is_refused_from_the_prefix_alone() {
        let mut decoder = FrameDecoder::new(16);
        decoder.push(&17u32.to_be_bytes());
        assert_eq!(decoder.next_frame(), Err(FrameError::TooLarge { len: 17, cap: 16 }));
        let mut decoder = FrameDecoder::new(16);
        decoder.push(&u32::MAX.to_be_bytes());
        assert!(decoder.next_frame().is_err());
    }

    #[test]
    fn a_payload_is_exactly_one_item() {
        let bytes = encode_payload(&(1u8, "x"), 16).expect("small");
        assert_eq!(decode::<(u8, String)>(&bytes), Ok((1, "x".to_owned())));
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert_eq!(decode::<(u8, String)>(&longer), Err(FrameError::Trailing { extra: 1 }));
        assert!(encode(&"too long for the cap", 4).is_err());
    }

    #[test]
    fn deep_nesting_is_refused_without_overflowing_the_stack() {
        let payload = vec![0x81u8; 1 << 20];
        assert!(decode::<Vec<Vec<u8>>>(&payload).is_err());
    }

    #[test]
    fn a_huge_declared_string_allocates_nothing() {
        // A CBOR byte string and a text string of 2^62 bytes, of which none follow.
        for head in [0x5bu8, 0x7b, 0x9b, 0xbb] {
            let mut payload = vec![head];
            payload.extend_from_slice(&(1u64 << 62).to_be_bytes());
            assert!(decode::<String>(&payload).is_err());
            assert!(decode::<Bytes>(&payload).is_err());
            assert!(decode::<Vec<u64>>(&payload).is_err());
        }
    }
}
