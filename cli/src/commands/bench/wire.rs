//! HTTP/1.1 as the bench speaks it: prepared requests over a kept connection, and answers that must
//! be the one that was seen before. There is no parser in the way of the figures.

use std::io;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Largest answer that is read, bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// What is read at once, and the first size of the buffer, bytes.
const BUFFER_BYTES: usize = 16 << 10;
/// How much of a wrong answer is shown, characters.
const SHOWN_CHARS: usize = 200;
/// Between an answer's head and its body.
const HEAD_END: &[u8] = b"\r\n\r\n";
/// How an answer that counts starts.
const GOOD: &[u8] = b"HTTP/1.1 200 ";
/// The header whose value differs from second to second.
const DATE: &str = "date";
/// The header that says where the body ends.
const LENGTH: &str = "content-length";

/// One request, the same each time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Ask {
    /// Whom to ask.
    pub(super) target: SocketAddr,
    /// The path.
    pub(super) path: String,
    /// JSON to send by `POST`; without it the request is a `GET`.
    pub(super) body: Option<String>,
}

impl Ask {
    /// The method.
    pub(super) fn method(&self) -> &'static str {
        if self.body.is_some() { "POST" } else { "GET" }
    }

    /// The headers, as every server of the bench gets them.
    pub(super) fn headers(&self) -> Vec<(String, String)> {
        let mut headers = vec![("host".to_owned(), self.target.to_string())];
        if let Some(body) = &self.body {
            headers.push(("content-type".to_owned(), "application/json".to_owned()));
            headers.push((LENGTH.to_owned(), body.len().to_string()));
        }
        headers
    }

    /// The request's bytes.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method(), self.path);
        for (name, value) in self.headers() {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        text.push_str(self.body.as_deref().unwrap_or_default());
        text.into_bytes()
    }

    /// The same request to another server.
    pub(super) fn at(&self, target: SocketAddr) -> Self {
        Self { target, ..self.clone() }
    }
}

/// An answer with the status 200 that was seen, and that a floor gives again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    /// The length of the head with its empty line, bytes.
    pub(super) head_bytes: usize,
    /// The headers in lower case and in the order of their names, without the date and the length, which
    /// every server here sends too.
    pub(super) headers: Vec<(String, String)>,
    /// The body.
    pub(super) body: Vec<u8>,
}

impl Seen {
    /// A header's value.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Whether these bytes are this answer again: its status, the length of its head, its body.
    fn is(&self, bytes: &[u8]) -> bool {
        bytes.len() == self.head_bytes + self.body.len()
            && bytes.starts_with(GOOD)
            && bytes[..self.head_bytes].ends_with(HEAD_END)
            && bytes[self.head_bytes..] == self.body
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let (head, body) = split(bytes)?.ok_or("an answer ended early")?;
        if !head.starts_with(GOOD) {
            return Err(wrong(bytes));
        }
        let text = std::str::from_utf8(head).map_err(|_| "an answer's head is not text".to_owned())?;
        let mut headers: Vec<_> = text
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .filter(|(name, _)| name != DATE && name != LENGTH)
            .collect();
        headers.sort_unstable();
        Ok(Self { head_bytes: head.len(), headers, body: body.to_vec() })
    }
}

/// A head with its empty line, and a body.
type Parts<'a> = (&'a [u8], &'a [u8]);

/// The head and the whole body, when all of it is here.
fn split(bytes: &[u8]) -> Result<Option<Parts<'_>>, String> {
    let Some(end) = bytes.windows(HEAD_END.len()).position(|window| window == HEAD_END) else {
        return Ok(None);
    };
    let (head, body) = bytes.split_at(end + HEAD_END.len());
    let length = String::from_utf8_lossy(head)
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case(LENGTH))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok());
    match length {
        None => Err(format!("an answer does not say its length: {}", shown(bytes))),
        Some(length) if body.len() < length => Ok(None),
        Some(length) if body.len() > length => Err("more came than one answer".to_owned()),
        Some(_) => Ok(Some((head, body))),
    }
}

fn wrong(bytes: &[u8]) -> String {
    format!("another answer came than 200 with the expected bytes: {}", shown(bytes))
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(SHOWN_CHARS).collect()
}

fn io_text(error: &io::Error) -> String {
    format!("the connection failed: {error}")
}

/// One kept connection.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    /// Over an open connection.
    pub(super) fn new(stream: TcpStream) -> Result<Self, String> {
        stream.set_nodelay(true).map_err(|e| io_text(&e))?;
        Ok(Self { stream, buffer: vec![0; BUFFER_BYTES] })
    }

    /// Asks, and takes no other answer than the one that was seen.
    pub(super) async fn again(&mut self, request: &[u8], seen: &Seen) -> Result<(), String> {
        self.send(request).await?;
        let mut filled = 0;
        loop {
            filled += self.read(filled).await?;
            let bytes = &self.buffer[..filled];
            if seen.is(bytes) {
                return Ok(());
            }
            if split(bytes)?.is_some() {
                return Err(wrong(bytes));
            }
        }
    }

    async fn first(&mut self, request: &[u8]) -> Result<Seen, String> {
        self.send(request).await?;
        let mut filled = 0;
        loop {
            filled += self.read(filled).await?;
            let bytes = &self.buffer[..filled];
            if split(bytes)?.is_some() {
                return Seen::parse(bytes);
            }
        }
    }

    async fn send(&mut self, request: &[u8]) -> Result<(), String> {
        self.stream.write_all(request).await.map_err(|e| io_text(&e))
    }

    async fn read(&mut self, filled: usize) -> Result<usize, String> {
        if filled == self.buffer.len() {
            if filled >= ANSWER_BYTES_MAX {
                return Err(format!("an answer has more than {ANSWER_BYTES_MAX} bytes"));
            }
            self.buffer.resize(2 * filled, 0);
        }
        match self.stream.read(&mut self.buffer[filled..]).await.map_err(|e| io_text(&e))? {
            0 => Err("the server closed the connection".to_owned()),
            count => Ok(count),
        }
    }
}

/// Asks once, over a connection of its own.
pub(super) async fn capture(ask: &Ask) -> Result<Seen, String> {
    let stream = TcpStream::connect(ask.target).await.map_err(|e| io_text(&e))?;
    Wire::new(stream)?.first(&ask.bytes()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nX-B: 2\r\ncontent-length: 2\r\nA: 1\r\ndate: now\r\n\r\nhi";

    #[test]
    fn an_answer_is_known_again_and_no_other_is() {
        let seen = Seen::parse(ANSWER).expect("an answer");
        assert_eq!(seen.headers, [("a".into(), "1".into()), ("x-b".into(), "2".into())]);
        assert_eq!(seen.body, b"hi");
        assert!(seen.is(ANSWER));
        assert!(!seen.is(&ANSWER[..ANSWER.len() - 1]));
        let text = String::from_utf8(ANSWER.to_vec()).expect("text");
        for other in [
            text.replace("200", "503"),
            text.replace("A: 1", "A: 12"),
            text.replace("\r\n\r\nhi", "\r\n\r\nho"),
        ] {
            assert!(!seen.is(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn half_an_answer_is_waited_for_and_one_without_length_is_not() {
        for end in 0..ANSWER.len() {
            assert_eq!(split(&ANSWER[..end]), Ok(None), "{end}");
        }
        assert!(split(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(Seen::parse(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n").is_err());
    }

    #[test]
    fn a_request_has_its_body_and_its_length() {
        let ask = Ask {
            target: SocketAddr::from(([127, 0, 0, 1], 9)),
            path: "/p".to_owned(),
            body: Some("{}".to_owned()),
        };
        let text = String::from_utf8(ask.bytes()).expect("text");
        assert_eq!(
            text,
            "POST /p HTTP/1.1\r\nhost: 127.0.0.1:9\r\ncontent-type: application/json\r\n\
             content-length: 2\r\n\r\n{}"
        );
        let get = Ask { body: None, ..ask };
        assert_eq!(get.bytes(), b"GET /p HTTP/1.1\r\nhost: 127.0.0.1:9\r\n\r\n");
    }
}
