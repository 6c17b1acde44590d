//! One invocation of a function: the messages of `osiris/call/1`.
//!
//! A call takes one bidirectional stream. Each way it carries a head, which is one CBOR frame, then
//! the body's raw bytes, whose length the head declares, then the end of the stream. So a body is
//! not copied through CBOR. A call that was relayed from another node is never relayed again.

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    frame::{self, FrameDecoder, FrameError},
    limits::{
        CALL_BODY_BYTES_MAX, CALL_DEADLINE_MS_MAX, CALL_HEAD_BYTES_MAX, CALL_HEADERS_MAX,
        CALL_METHOD_BYTES_MAX, CALL_PATH_BYTES_MAX,
    },
    name::{NameError, check_function_name},
};

/// A request to a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallRequest {
    /// The function's name.
    pub function: String,
    /// The revision to call; `None` calls the one that is live.
    pub revision: Option<[u8; 32]>,
    /// The HTTP method, in upper case.
    pub method: String,
    /// Path and query below the function, starting with `/`.
    pub path: String,
    /// Header names, in lower case, and values, in order.
    pub headers: Vec<(String, Bytes)>,
    /// The body, at most [`CALL_BODY_BYTES_MAX`].
    pub body: Bytes,
    /// How long the caller waits, milliseconds, at least 1.
    pub deadline_ms: u32,
}

/// A function's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallReply {
    /// The HTTP status, 200 to 599.
    pub status: u16,
    /// Header names, in lower case, and values, in order.
    pub headers: Vec<(String, Bytes)>,
    /// The body, at most [`CALL_BODY_BYTES_MAX`].
    pub body: Bytes,
}

/// Why a request or reply was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallMessageError {
    /// The head is broken or too large.
    #[error("the head of the call was refused: {0}")]
    Head(#[from] FrameError),
    /// The body is larger than allowed.
    #[error("the body has {len} bytes and at most {CALL_BODY_BYTES_MAX} are allowed; send it in parts")]
    BodyTooLarge {
        /// The length that was declared or given, bytes.
        len: usize,
    },
    /// The stream ended before the declared body.
    #[error("the stream ended early ({missing} bytes are missing); send the call again")]
    Cut {
        /// How many bytes are missing; 0 when the head itself was cut.
        missing: usize,
    },
    /// Bytes follow the declared body.
    #[error("bytes follow the declared body; check that both ends speak this version")]
    Trailing,
    /// The function's name breaks the rule.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A field breaks its rule.
    #[error("the {field} of the call is not allowed: {rule}")]
    Field {
        /// Which field.
        field: &'static str,
        /// What is allowed.
        rule: &'static str,
    },
}

type Headers = Vec<(String, Bytes)>;

#[derive(Serialize)]
struct RequestHeadRef<'a> {
    function: &'a str,
    #[serde(with = "serde_bytes")]
    revision: Option<[u8; 32]>,
    method: &'a str,
    path: &'a str,
    headers: &'a Headers,
    deadline_ms: u32,
    body_bytes: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestHead {
    function: String,
    #[serde(with = "serde_bytes")]
    revision: Option<[u8; 32]>,
    method: String,
    path: String,
    headers: Headers,
    deadline_ms: u32,
    body_bytes: u32,
}

#[derive(Serialize)]
struct ReplyHeadRef<'a> {
    status: u16,
    headers: &'a Headers,
    body_bytes: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplyHead {
    status: u16,
    headers: Headers,
    body_bytes: u32,
}

mod sealed {
    use bytes::Bytes;

    use super::CallMessageError;

    pub trait Parts: Sized {
        /// The head's payload decoded and checked, with an empty body and the declared length.
        fn from_head(payload: &[u8]) -> Result<(Self, usize), CallMessageError>;
        fn set_body(&mut self, body: Bytes);
    }
}
use sealed::Parts;

/// A message that travels as a head and a raw body: [`CallRequest`] and [`CallReply`].
pub trait CallMessage: Parts {
    /// The message checked and written: its head as a frame, and its body as it is.
    ///
    /// # Errors
    /// When a field breaks its rule, or head or body are too large.
    fn encode(&self) -> Result<[Bytes; 2], CallMessageError>;
}

impl CallMessage for CallRequest {
    fn encode(&self) -> Result<[Bytes; 2], CallMessageError> {
        let body_bytes = body_len(self.body.len())?;
        self.check()?;
        let head = RequestHeadRef {
            function: &self.function,
            revision: self.revision,
            method: &self.method,
            path: &self.path,
            headers: &self.headers,
            deadline_ms: self.deadline_ms,
            body_bytes,
        };
        let head = frame::encode(&head, CALL_HEAD_BYTES_MAX)?;
        Ok([head, self.body.clone()])
    }
}

impl CallMessage for CallReply {
    fn encode(&self) -> Result<[Bytes; 2], CallMessageError> {
        let body_bytes = body_len(self.body.len())?;
        self.check()?;
        let head = ReplyHeadRef { status: self.status, headers: &self.headers, body_bytes };
        let head = frame::encode(&head, CALL_HEAD_BYTES_MAX)?;
        Ok([head, self.body.clone()])
    }
}

impl Parts for CallRequest {
    fn from_head(payload: &[u8]) -> Result<(Self, usize), CallMessageError> {
        let head: RequestHead = decode_head(payload)?;
        let body_bytes = head.body_bytes as usize;
        body_len(body_bytes)?;
        let request = Self {
            function: head.function,
            revision: head.revision,
            method: head.method,
            path: head.path,
            headers: head.headers,
            body: Bytes::new(),
            deadline_ms: head.deadline_ms,
        };
        request.check()?;
        Ok((request, body_bytes))
    }

    fn set_body(&mut self, body: Bytes) {
        self.body = body;
    }
}

impl Parts for CallReply {
    fn from_head(payload: &[u8]) -> Result<(Self, usize), CallMessageError> {
        let head: ReplyHead = decode_head(payload)?;
        let body_bytes = head.body_bytes as usize;
        body_len(body_bytes)?;
        let reply = Self { status: head.status, headers: head.headers, body: Bytes::new() };
        reply.check()?;
        Ok((reply, body_bytes))
    }

    fn set_body(&mut self, body: Bytes) {
        self.body = body;
    }
}

impl CallRequest {
    /// A `POST /` to `function` with `body`, with 30 seconds to answer.
    pub fn new(function: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self {
            function: function.into(),
            revision: None,
            method: "POST".to_owned(),
            path: "/".to_owned(),
            headers: Vec::new(),
            body: body.into(),
            deadline_ms: 30_000,
        }
    }

    fn check(&self) -> Result<(), CallMessageError> {
        check_function_name(&self.function)?;
        let method = self.method.as_bytes();
        rule(
            (1..=CALL_METHOD_BYTES_MAX).contains(&method.len())
                && method.iter().all(|b| b.is_ascii_uppercase() || *b == b'-'),
            "method",
            "use 1 to 16 upper-case letters",
        )?;
        let path = self.path.as_bytes();
        rule(
            path.first() == Some(&b'/')
                && path.len() <= CALL_PATH_BYTES_MAX
                && path.iter().all(u8::is_ascii_graphic),
            "path",
            "start with '/', escape what is not printable ASCII, and use at most 8192 bytes",
        )?;
        rule(
            (1..=CALL_DEADLINE_MS_MAX).contains(&self.deadline_ms),
            "deadline",
            "use 1 to 600000 milliseconds",
        )?;
        check_headers(&self.headers)
    }
}

impl CallReply {
    fn check(&self) -> Result<(), CallMessageError> {
        rule((200..=599).contains(&self.status), "status", "use 200 to 599")?;
        check_headers(&self.headers)
    }
}

fn rule(holds: bool, field: &'static str, rule: &'static str) -> Result<(), CallMessageError> {
    if holds { Ok(()) } else { Err(CallMessageError::Field { field, rule }) }
}

/// RFC 9110, section 5: what could split a header in two is refused here, once, for every guest and
/// every HTTP front.
fn check_headers(headers: &Headers) -> Result<(), CallMessageError> {
    rule(headers.len() <= CALL_HEADERS_MAX, "header count", "use at most 128 headers")?;
    for (name, value) in headers {
        rule(
            !name.is_empty() && name.bytes().all(is_header_name_byte),
            "header name",
            "use lower-case letters, digits and !#$%&'*+-.^_`|~",
        )?;
        rule(
            !value.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)),
            "header value",
            "leave out line breaks and NUL",
        )?;
    }
    Ok(())
}

fn is_header_name_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn body_len(len: usize) -> Result<u32, CallMessageError> {
    match u32::try_from(len) {
        Ok(short) if len <= CALL_BODY_BYTES_MAX => Ok(short),
        _ => Err(CallMessageError::BodyTooLarge { len }),
    }
}

fn decode_head<T: DeserializeOwned>(payload: &[u8]) -> Result<T, CallMessageError> {
    Ok(frame::decode(payload)?)
}

/// Reads one [`CallRequest`] or [`CallReply`] from a stream that arrives in pieces.
///
/// Push every piece, then [`finish`](Self::finish) when the stream ends. Memory is bounded by what
/// has arrived, never by what was declared.
#[derive(Debug)]
pub struct CallReader<T> {
    state: State<T>,
}

#[derive(Debug)]
enum State<T> {
    Head(FrameDecoder),
    Body { message: T, missing: usize, body: Body },
}

/// A body that arrived in one piece is passed on without a copy.
#[derive(Debug)]
enum Body {
    Whole(Bytes),
    Pieces(BytesMut),
}

impl<T: CallMessage> CallReader<T> {
    /// A reader at the start of a stream.
    pub fn new() -> Self {
        Self { state: State::Head(FrameDecoder::new(CALL_HEAD_BYTES_MAX)) }
    }

    /// How many bytes of body are declared and have not arrived; `None` before the head has.
    pub fn missing(&self) -> Option<usize> {
        match &self.state {
            State::Head(_) => None,
            State::Body { missing, .. } => Some(*missing),
        }
    }

    /// Adds a piece of the stream.
    ///
    /// # Errors
    /// As soon as head or length break a rule. The stream cannot be read further.
    pub fn push(&mut self, piece: Bytes) -> Result<(), CallMessageError> {
        match &mut self.state {
            State::Head(decoder) => {
                decoder.push(&piece);
                let Some(payload) = decoder.next_frame()? else {
                    return Ok(());
                };
                let (message, missing) = T::from_head(&payload)?;
                let decoder = std::mem::replace(decoder, FrameDecoder::new(0));
                self.state = State::Body { message, missing, body: Body::Whole(Bytes::new()) };
                self.push(decoder.into_rest())
            }
            State::Body { missing, body, .. } => {
                if piece.is_empty() {
                    return Ok(());
                }
                *missing = missing.checked_sub(piece.len()).ok_or(CallMessageError::Trailing)?;
                match body {
                    Body::Whole(whole) if whole.is_empty() => *whole = piece,
                    Body::Whole(first) => {
                        let mut pieces = BytesMut::from(&first[..]);
                        pieces.extend_from_slice(&piece);
                        *body = Body::Pieces(pieces);
                    }
                    Body::Pieces(pieces) => pieces.extend_from_slice(&piece),
                }
                Ok(())
            }
        }
    }

    /// The message, once the stream has ended.
    ///
    /// # Errors
    /// [`CallMessageError::Cut`] when it ended early.
    pub fn finish(self) -> Result<T, CallMessageError> {
        match self.state {
            State::Body { mut message, missing: 0, body } => {
                message.set_body(match body {
                    Body::Whole(whole) => whole,
                    Body::Pieces(pieces) => pieces.freeze(),
                });
                Ok(message)
            }
            State::Body { missing, .. } => Err(CallMessageError::Cut { missing }),
            State::Head(_) => Err(CallMessageError::Cut { missing: 0 }),
        }
    }
}

impl<T: CallMessage> Default for CallReader<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
