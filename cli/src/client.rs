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

/// Longest wait for a connection to the node's socket.
const CONNECT: Duration = Duration::from_secs(2);
/// Longest wait for the answer to a question that a node answers from memory.
pub(crate) const QUICK: Duration = Duration::from_secs(10);
/// Most of a --timeout that is kept for the node's own answer to arrive; at most a quarter of it.
pub(crate) const GRACE: Duration = Duration::from_secs(1);
/// Largest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Longest line of a stream.
const LINE_BYTES_MAX: usize = 1 << 20;
/// Bytes that go out at once.
const CHUNK_BYTES: usize = 256 << 10;

/// How long a request may take, and what is known where no answer comes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    until: tokio::time::Instant,
    wait: Duration,
    /// Whether the command takes --timeout.
    adjustable: bool,
    stake: Stake,
}

/// What a request may have changed when no answer comes.
#[derive(Clone, Copy, Debug)]
enum Stake {
    /// Nothing that counts.
    Nothing,
    /// Nothing yet: it only prepares for what is to be recorded.
    Prepares,
    /// A block may have been recorded; the command that says whether.
    Records(&'static str),
    /// A function may have run, or still run.
    Calls,
}

impl Patience {
    /// For a question that a node answers from memory.
    pub(crate) fn question() -> Self {
        Self::fixed(QUICK)
    }

    /// For a command without --timeout.
    pub(crate) fn fixed(wait: Duration) -> Self {
        let until = tokio::time::Instant::now() + wait;
        Self { until, wait, adjustable: false, stake: Stake::Nothing }
    }

    /// For a --timeout that the node does not know of.
    pub(crate) fn exactly(timeout: Duration) -> Self {
        Self { adjustable: true, ..Self::fixed(timeout) }
    }

    /// For a request that comes before the one that records something.
    #[must_use]
    pub(crate) fn prepares(self) -> Self {
        Self { stake: Stake::Prepares, ..self }
    }

    /// For a request that records something; `look` is the command that says whether it did.
    #[must_use]
    pub(crate) fn records(self, look: &'static str) -> Self {
        Self { stake: Stake::Records(look), ..self }
    }

    /// For a call of a function.
    #[must_use]
    pub(crate) fn calls(self) -> Self {
        Self { stake: Stake::Calls, ..self }
    }

    /// How long the node itself may wait for other members, so that its own answer comes in time: what is left, save
    /// [`GRACE`].
    pub(crate) fn left(&self) -> Duration {
        self.rest().saturating_sub(GRACE.min(self.wait / 4))
    }

    /// What is left of it.
    pub(crate) fn rest(&self) -> Duration {
        self.until.saturating_duration_since(tokio::time::Instant::now())
    }

    /// The same, and not longer than this.
    fn within(self, bound: Option<Self>) -> Self {
        match bound {
            Some(bound) if bound.until < self.until => Self { stake: self.stake, ..bound },
            _ => self,
        }
    }

    /// Nothing came in time.
    fn over(&self) -> Failure {
        let known = match self.stake {
            Stake::Nothing => "",
            Stake::Prepares => " Nothing was recorded.",
            Stake::Records(_) => " It is unknown whether this was recorded.",
            Stake::Calls => " It is unknown whether the function ran.",
        };
        let failure = Failure::timed_out(format!(
            "No answer came from the node within {}.{known}",
            human::span(self.wait)
        ));
        match (self.stake, self.adjustable) {
            (Stake::Records(look), _) => failure.next(format!(
                "see with `osiris doctor` whether the node answers at all; when it does, look with `{look}` before you repeat this"
            )),
            (Stake::Calls, _) => failure.next(
                "give it longer with --timeout; `osiris logs NAME` shows what the function wrote, `osiris ls` what waits and runs",
            ),
            (_, true) => failure.next(
                "give it longer with --timeout, or see with `osiris doctor` whether the node answers at all",
            ),
            (_, false) => failure.next("see with `osiris doctor` whether the node answers at all"),
        }
    }

    /// The connection broke after the request went out.
    fn cut(&self, error: &dyn std::error::Error) -> Failure {
        let (known, next) = match self.stake {
            Stake::Nothing => ("", "check it with `osiris status`".to_owned()),
            Stake::Prepares => {
                (" Nothing was recorded.", "check it with `osiris status`, then repeat this".to_owned())
            }
            Stake::Calls => (
                " It is unknown whether the function ran.",
                "check it with `osiris status` before you call again".to_owned(),
            ),
            Stake::Records(look) => (
                " It is unknown whether this was recorded.",
                format!("check it with `osiris status`, and look with `{look}` before you repeat this"),
            ),
        };
        Failure::failed(format!("The node went away before it answered ({error}).{known}"))
            .next(next)
            .for_lack_of_node()
    }

    async fn keep<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::time::timeout_at(self.until, work).await.unwrap_or_else(|_| Err(self.over()))
    }
}

/// A running node.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    socket: PathBuf,
    /// What all requests of the command together may take, where it has a --timeout.
    pub(crate) bound: Option<Patience>,
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
        Self::find_within(socket, None).await
    }

    /// The same, for a command whose requests all together take no longer than `bound`.
    pub(crate) async fn find_within(socket: &Path, bound: Option<Patience>) -> Result<Option<Self>, Failure> {
        let wait = bound.map_or(CONNECT, |bound| bound.rest().min(CONNECT));
        let connected = tokio::time::timeout(wait, UnixStream::connect(socket));
        match connected.await.unwrap_or_else(|_| Err(io::ErrorKind::WouldBlock.into())) {
            Ok(_) => Ok(Some(Self { socket: socket.to_owned(), bound })),
            Err(error) => match error.kind() {
                // Somebody listens and takes no more connections.
                io::ErrorKind::WouldBlock => Err(Failure::timed_out(format!(
                    "The node at {} takes no connection: it hangs or has too much to do.",
                    socket.display()
                ))
                .next("look at its log; a node that hangs is ended by SIGKILL, and started again by `osiris up`")),
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
        self.json(Method::GET, path, Bytes::new(), Patience::question(), Progress::none()).await
    }

    /// `GET` of what takes a node long to find out. Meanwhile it is asked a `question` that it answers at once: one
    /// that does not has stopped or hangs, however long the answer may take.
    pub(crate) async fn get_slowly<T: DeserializeOwned>(
        &self,
        path: &str,
        question: &str,
        patience: Patience,
        progress: Progress,
    ) -> Result<T, Failure> {
        let hangs = async {
            loop {
                let answered = self.get::<serde::de::IgnoredAny>(question).await;
                if let Err(failure) = answered
                    && failure.exit == crate::exit::Exit::TimedOut
                {
                    return failure;
                }
                tokio::time::sleep(QUICK).await;
            }
        };
        tokio::select! {
            answer = self.json(Method::GET, path, Bytes::new(), patience, progress) => answer,
            failure = hangs => Err(failure),
        }
    }

    /// A request with a JSON body.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        patience: Patience,
    ) -> Result<T, Failure> {
        let body = serde_json::to_vec(body)
            .map_err(|e| Failure::failed(format!("The request is not JSON: {e}.")))?;
        self.json(Method::POST, path, body.into(), patience, Progress::none()).await
    }

    /// A request with any body, and a JSON answer.
    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        patience: Patience,
        progress: Progress,
    ) -> Result<T, Failure> {
        let request = builder(method, path).body(Upload { rest: body, progress }).map_err(bad_request)?;
        let answer = self.answer(request, &patience).await?;
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
        patience: Patience,
    ) -> Result<Answer, Failure> {
        let mut request = builder(method.clone(), path);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Upload { rest: body, progress: Progress::none() }).map_err(bad_request)?;
        self.answer(request, &patience).await
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
        let patience = Patience::question();
        let response = patience.keep(self.send(request, &patience)).await?;
        if !response.status().is_success() {
            return Err(refusal(&patience.keep(collect(response, &patience)).await?));
        }
        let mut body = response.into_body();
        let mut pending = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| patience.cut(&error))?;
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

    /// For a request that is to be over with the command's --timeout; of a command without one, as a question.
    pub(crate) fn patience(&self) -> Patience {
        self.bound.unwrap_or_else(Patience::question)
    }

    async fn answer(&self, request: Request<Upload>, patience: &Patience) -> Result<Answer, Failure> {
        let patience = &patience.within(self.bound);
        patience.keep(async { collect(self.send(request, patience).await?, patience).await }).await
    }

    async fn send(
        &self,
        request: Request<Upload>,
        patience: &Patience,
    ) -> Result<Response<Incoming>, Failure> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| {
            Failure::failed(format!("The node at {} is gone: {error}.", self.socket.display()))
                .next("start it with `osiris up`")
                .for_lack_of_node()
        })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| patience.cut(&e))?;
        // It ends when the sender and the response's body are dropped; what goes wrong shows there.
        tokio::spawn(connection);
        sender.send_request(request).await.map_err(|error| patience.cut(&error))
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

async fn collect(response: Response<Incoming>, patience: &Patience) -> Result<Answer, Failure> {
    let (parts, body) = response.into_parts();
    let body =
        Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| patience.cut(error.as_ref()))?;
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

    #[test]
    fn of_a_timeout_a_part_is_kept_for_the_answer() {
        for (timeout, kept) in [(2_000, 500), (60_000, 1_000), (100, 25)] {
            let timeout = Duration::from_millis(timeout);
            let patience = Patience::exactly(timeout);
            assert!(patience.left() <= timeout - Duration::from_millis(kept));
            assert_eq!(Patience { until: tokio::time::Instant::now(), ..patience }.left(), Duration::ZERO);
        }
    }

    #[tokio::test]
    async fn a_timeout_bounds_all_requests_of_a_command() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("s");
        let _listener = tokio::net::UnixListener::bind(&socket).expect("listens");
        let bound = Patience::exactly(Duration::from_millis(20));
        let client = Client::find_within(&socket, Some(bound)).await.expect("usable").expect("listens");
        tokio::time::sleep(Duration::from_millis(20)).await;
        // A question, which has longer by itself, and a write.
        let read = client.get::<serde_json::Value>("/v1/nodes").await.expect_err("over");
        assert!(read.exit == Exit::TimedOut && read.message.contains("within 20 ms"), "{read}");
        let write = client.post::<serde_json::Value>("/v1/x", &(), client.patience().records("x")).await;
        assert!(write.expect_err("over").message.contains("within 20 ms"));
    }

    #[tokio::test]
    async fn of_a_node_that_does_not_answer_the_truth_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("s");
        // It listens and never accepts, as a stopped process does.
        let _listener = tokio::net::UnixListener::bind(&socket).expect("listens");
        let client = Client::find(&socket).await.expect("usable").expect("somebody listens");
        let over = |patience| Patience { until: tokio::time::Instant::now(), ..patience };
        let asked = [
            (
                Patience::exactly(QUICK).records("osiris ls"),
                "unknown whether this was recorded",
                "`osiris ls`",
            ),
            (Patience::exactly(QUICK).prepares(), "Nothing was recorded", "--timeout"),
            (Patience::exactly(QUICK).calls(), "unknown whether the function ran", "--timeout"),
            (Patience::question(), "No answer came", "`osiris doctor`"),
        ];
        for (patience, says, next) in asked {
            let answer = client.post::<serde_json::Value>("/v1/x", &(), over(patience)).await;
            let failure = answer.expect_err("no answer");
            assert_eq!(failure.exit, Exit::TimedOut);
            assert!(failure.message.contains(says), "{failure}");
            let said = failure.next.expect("a next step");
            assert!(said.contains(next) && said.contains("--timeout") == (next == "--timeout"), "{said}");
        }
    }

    /// A node that answers the question `/q` at once, and anything else once it has answered it `after` times.
    async fn slow_node(after: usize) -> (tempfile::TempDir, Client) {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("s");
        let listener = tokio::net::UnixListener::bind(&socket).expect("listens");
        let (asked, answered) = tokio::sync::watch::channel(0);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let (asked, mut answered) = (asked.clone(), answered.clone());
                tokio::spawn(async move {
                    let mut request = vec![0; 64 << 10];
                    let read = stream.read(&mut request).await.unwrap_or(0);
                    match request[..read].starts_with(b"GET /q ") {
                        true => asked.send_modify(|asked| *asked += 1),
                        false => drop(answered.wait_for(|asked| *asked >= after).await),
                    }
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n7";
                    // Whoever only looked whether somebody is there has gone.
                    let _ = stream.write_all(answer).await;
                });
            }
        });
        let client = Client::find(&socket).await.expect("usable").expect("somebody listens");
        (folder, client)
    }

    #[tokio::test]
    async fn a_long_answer_is_waited_for_as_long_as_allowed_while_the_node_answers_other_questions() {
        let ask = async |client: Client, patience| {
            client.get_slowly::<u8>("/slow", "/q", Patience::exactly(patience), Progress::none()).await
        };
        let (_folder, client) = slow_node(1).await;
        assert_eq!(ask(client, Duration::from_secs(3_600)).await.expect("an answer"), 7);
        let (_folder, client) = slow_node(usize::MAX).await;
        let failure = ask(client, Duration::from_millis(50)).await.expect_err("longer than allowed");
        assert_eq!(failure.exit, Exit::TimedOut);
        assert!(failure.next.is_some_and(|next| next.contains("--timeout")));
    }

    #[tokio::test]
    async fn a_write_that_was_cut_off_is_unknown_and_not_lost() {
        let (_folder, client) = node("").await;
        let write = Patience::exactly(Duration::from_secs(60)).records("osiris ls");
        let failure = client.post::<serde_json::Value>("/v1/functions", &(), write).await.expect_err("cut");
        assert_eq!(failure.exit, Exit::Failed);
        assert!(failure.message.contains("unknown whether this was recorded"), "{failure}");
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
