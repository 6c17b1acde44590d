//! HTTP/1 over the node's Unix socket.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper_util::rt::TokioIo;
use osiris_protocol::error::ErrorBody;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::exit::Failure;
use crate::output::{human, progress::Progress};

/// Longest wait for the answer to a question that a node answers from memory.
pub(crate) const QUICK: Duration = Duration::from_secs(20);
/// Added to a wait that the node itself keeps to, so that its own answer comes first.
pub(crate) const GRACE: Duration = Duration::from_secs(5);
/// Largest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Longest line of a stream.
const LINE_BYTES_MAX: usize = 1 << 20;
/// Bytes that go out at once.
const CHUNK_BYTES: usize = 256 << 10;

/// A running node.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    socket: PathBuf,
}

/// A function's answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// The body.
    pub(crate) body: Bytes,
}

impl Client {
    /// The node that listens at `socket`; `None` where nothing does.
    pub(crate) async fn find(socket: &Path) -> Result<Option<Self>, Failure> {
        match UnixStream::connect(socket).await {
            Ok(_) => Ok(Some(Self { socket: socket.to_owned() })),
            Err(error) => match error.kind() {
                // A socket without a listener is what a killed node leaves behind.
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory => {
                    Ok(None)
                }
                // Longer than any socket's path: no node can listen there.
                io::ErrorKind::InvalidInput => Ok(None),
                io::ErrorKind::PermissionDenied => Err(Failure::new(
                    crate::exit::Exit::Denied,
                    format!("The node's socket {} belongs to another user.", socket.display()),
                )
                .next("run this as the user that runs the node, or give your own --data DIR")),
                _ => Err(Failure::failed(format!(
                    "The node's socket {} cannot be used: {error}.",
                    socket.display()
                ))),
            },
        }
    }

    /// `GET` of a JSON document.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.json(Method::GET, path, Bytes::new(), QUICK, Progress::none()).await
    }

    /// A request with a JSON body.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        wait: Duration,
    ) -> Result<T, Failure> {
        let body = serde_json::to_vec(body)
            .map_err(|e| Failure::failed(format!("The request is not JSON: {e}.")))?;
        self.json(Method::POST, path, body.into(), wait, Progress::none()).await
    }

    /// A request with any body, and a JSON answer.
    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        wait: Duration,
        progress: Progress,
    ) -> Result<T, Failure> {
        let request = builder(method, path).body(Upload { rest: body, progress }).map_err(bad_request)?;
        let answer = self.answer(request, wait).await?;
        if !(200..300).contains(&answer.status) {
            return Err(refusal(&answer));
        }
        serde_json::from_slice(&answer.body).map_err(|error| {
            Failure::failed(format!("The node's answer to {path} cannot be read: {error}."))
                .next("check that the node and this program are of the same version: osiris status")
        })
    }

    /// A call: whatever the status, it is an answer.
    pub(crate) async fn call(
        &self,
        method: &Method,
        path: &str,
        headers: &[(String, String)],
        body: Bytes,
        wait: Duration,
    ) -> Result<Answer, Failure> {
        let mut request = builder(method.clone(), path);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Upload { rest: body, progress: Progress::none() }).map_err(bad_request)?;
        self.answer(request, wait).await
    }

    /// `GET` of JSON lines, each handed on as it comes.
    pub(crate) async fn lines<T: DeserializeOwned>(
        &self,
        path: &str,
        mut each: impl FnMut(T) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let request = builder(Method::GET, path)
            .body(Upload { rest: Bytes::new(), progress: Progress::none() })
            .map_err(bad_request)?;
        let response = within(QUICK, self.send(request)).await?;
        if !response.status().is_success() {
            return Err(refusal(&within(QUICK, collect(response)).await?));
        }
        let mut body = response.into_body();
        let mut pending = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(lost)?;
            let Ok(data) = frame.into_data() else { continue };
            pending.extend_from_slice(&data);
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let line = pending.split_to(end + 1);
                if !line.trim_ascii().is_empty() {
                    each(line_of(&line)?)?;
                }
            }
            if pending.len() > LINE_BYTES_MAX {
                return Err(Failure::failed("The node sent a line that does not end."));
            }
        }
        if pending.trim_ascii().is_empty() { Ok(()) } else { each(line_of(&pending)?) }
    }

    async fn answer(&self, request: Request<Upload>, wait: Duration) -> Result<Answer, Failure> {
        within(wait, async { collect(self.send(request).await?).await }).await
    }

    async fn send(&self, request: Request<Upload>) -> Result<Response<Incoming>, Failure> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| {
            Failure::failed(format!("The node at {} is gone: {error}.", self.socket.display()))
                .next("start it with `osiris up`")
        })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
        // It ends when the sender and the response's body are dropped; what goes wrong shows there.
        tokio::spawn(connection);
        sender.send_request(request).await.map_err(lost)
    }
}

fn line_of<T: DeserializeOwned>(line: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(line)
        .map_err(|error| Failure::failed(format!("The node sent a line that cannot be read: {error}.")))
}

fn builder(method: Method, path: &str) -> http::request::Builder {
    let request = Request::builder().method(method.clone()).uri(path).header(header::HOST, "osiris");
    if method == Method::GET { request } else { request.header(header::ACCEPT, "application/json, */*") }
}

fn bad_request(error: http::Error) -> Failure {
    Failure::usage(format!("The request cannot be sent: {error}."))
        .next("escape what is not printable ASCII in --path, and check --method and --header")
}

fn lost(error: hyper::Error) -> Failure {
    Failure::failed(format!("The connection to the node was lost: {error}."))
        .next("check the node with `osiris status`")
}

async fn within<T>(wait: Duration, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::time::timeout(wait, work).await.unwrap_or_else(|_| {
        Err(Failure::timed_out(format!("No answer came within {}.", human::span(wait)))
            .next("give it longer with --timeout, or look at `osiris status`"))
    })
}

async fn collect(response: Response<Incoming>) -> Result<Answer, Failure> {
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| {
        Failure::failed(format!("The node's answer was cut: {error}.")).next("send the request again")
    })?;
    Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body: body.to_bytes() })
}

/// What an error's answer says: its body, or at least its status.
pub(crate) fn refusal(answer: &Answer) -> Failure {
    let Answer { status, body, .. } = answer;
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(error) => Failure::of_status(*status, error.message, error.next),
        Err(_) => Failure::of_status(*status, format!("The answer has status {status}."), None),
    }
}

/// A body that goes out in pieces, so that its progress can be seen.
struct Upload {
    rest: Bytes,
    progress: Progress,
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if !self.rest.has_remaining() {
            return Poll::Ready(None);
        }
        let len = self.rest.len().min(CHUNK_BYTES);
        self.progress.advance(len as u64);
        let chunk = self.rest.split_to(len);
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A node that gives one fixed answer to one request.
    async fn node(answer: &'static str) -> (tempfile::TempDir, Client) {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("s");
        let listener = tokio::net::UnixListener::bind(&socket).expect("listens");
        tokio::spawn(async move {
            // The first connection is the one that looks whether somebody is there.
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let mut request = vec![0; 64 << 10];
                if stream.read(&mut request).await.is_ok_and(|len| len > 0) {
                    stream.write_all(answer.as_bytes()).await.expect("answered");
                }
            }
        });
        let client = Client::find(&socket).await.expect("usable").expect("somebody listens");
        (folder, client)
    }

    #[tokio::test]
    async fn an_error_is_its_sentence_and_its_exit_code() {
        let (_folder, client) = node(
            "HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\n\
             {\"error\":\"not-found\",\"message\":\"No such thing.\",\"next\":\"osiris ls\"} ",
        )
        .await;
        let failure = client.get::<serde_json::Value>("/v1/functions/x").await.expect_err("404");
        assert_eq!(failure.exit, Exit::NotFound);
        assert_eq!(
            (failure.message.as_str(), failure.next.as_deref()),
            ("No such thing.", Some("osiris ls"))
        );
    }

    #[tokio::test]
    async fn a_stream_comes_line_by_line() {
        let (_folder, client) =
            node("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n1\n2\r\n3\r\n3\n4\r\n0\r\n\r\n")
                .await;
        let mut seen = Vec::new();
        client
            .lines("/v1/functions/x/logs", |line: u64| {
                seen.push(line);
                Ok(())
            })
            .await
            .expect("read");
        assert_eq!(seen, [1, 23, 4]);
    }

    #[tokio::test]
    async fn nobody_there_is_no_failure() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(Client::find(&folder.path().join("none")).await.expect("looked").is_none());
        drop(tokio::net::UnixListener::bind(folder.path().join("stale")).expect("listens"));
        assert!(Client::find(&folder.path().join("stale")).await.expect("looked").is_none());
        let long = folder.path().join("x".repeat(200));
        assert!(Client::find(&long).await.expect("looked").is_none());
    }
}
