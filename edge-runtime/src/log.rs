//! What a function prints: cut to a size for each call, kept in a ring for each function.
//!
//! A write never fails and never traps: a function that floods its log loses the text, not the call.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWrite;
use tokio::sync::broadcast;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::limits;

/// Bytes a guest may write in one piece; wasi streams use this size.
const WRITE_BYTES: usize = 64 << 10;

/// Which stream a line was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error, where panics appear.
    Stderr,
}

/// One line a function printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// The call that printed it, as in [`Outcome::call`](crate::Outcome::call).
    pub call: u64,
    /// Where it was printed to.
    pub stream: Stream,
    /// The text without its line ending; bytes that are not UTF-8 are replaced.
    pub text: String,
}

#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<LogLine>,
    bytes: usize,
}

/// The last lines of one function.
#[derive(Debug)]
pub(crate) struct LogRing {
    ring: Mutex<Ring>,
    follow: broadcast::Sender<LogLine>,
}

impl LogRing {
    pub(crate) fn new() -> Arc<Self> {
        let (follow, _) = broadcast::channel(limits::LOG_FOLLOW_LINES);
        Arc::new(Self { ring: Mutex::default(), follow })
    }

    fn push(&self, line: LogLine) {
        if self.follow.receiver_count() > 0 {
            // It fails only when the last follower has just left.
            let _ = self.follow.send(line.clone());
        }
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.bytes += line.text.len();
        ring.lines.push_back(line);
        while ring.lines.len() > limits::LOG_RING_LINES || ring.bytes > limits::LOG_RING_BYTES {
            let Some(oldest) = ring.lines.pop_front() else { break };
            ring.bytes -= oldest.text.len();
        }
    }

    /// The last `max_lines` lines, oldest first.
    pub(crate) fn last(&self, max_lines: usize) -> Vec<LogLine> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let skip = ring.lines.len().saturating_sub(max_lines);
        ring.lines.iter().skip(skip).cloned().collect()
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<LogLine> {
        self.follow.subscribe()
    }
}

#[derive(Debug, Default)]
struct Pending {
    written: usize,
    truncated: bool,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// The log of one call. When the last of its streams is dropped, an unfinished line is kept as it is.
#[derive(Debug)]
pub(crate) struct CallLog {
    ring: Arc<LogRing>,
    call: u64,
    bytes_max: usize,
    pending: Mutex<Pending>,
}

impl CallLog {
    pub(crate) fn new(ring: Arc<LogRing>, call: u64, bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { ring, call, bytes_max, pending: Mutex::default() })
    }

    pub(crate) fn stream(self: &Arc<Self>, stream: Stream) -> LogStream {
        LogStream { log: self.clone(), stream }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self, stream: Stream, text: &[u8]) {
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        self.ring.push(LogLine { call: self.call, stream, text: String::from_utf8_lossy(text).into_owned() });
    }

    /// Adds a line of the host's own, under the same limit as the guest's text.
    pub(crate) fn write_line(&self, stream: Stream, text: &str) {
        self.write(stream, format!("{text}\n").as_bytes());
    }

    fn write(&self, stream: Stream, bytes: &[u8]) {
        let mut pending = self.pending();
        let kept = &bytes[..bytes.len().min(self.bytes_max - pending.written)];
        pending.written += kept.len();
        let buffer = match stream {
            Stream::Stdout => &mut pending.stdout,
            Stream::Stderr => &mut pending.stderr,
        };
        let mut rest = kept;
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            buffer.extend_from_slice(&rest[..end]);
            self.line(stream, &mem::take(buffer));
            rest = &rest[end + 1..];
        }
        buffer.extend_from_slice(rest);
        if kept.len() < bytes.len() && !pending.truncated {
            pending.truncated = true;
            self.flush_unfinished(&mut pending);
            let max = self.bytes_max;
            self.line(
                stream,
                format!("[osiris: the log of this call was truncated after {max} bytes]").as_bytes(),
            );
        }
    }

    fn flush_unfinished(&self, pending: &mut Pending) {
        for (stream, buffer) in [(Stream::Stdout, &mut pending.stdout), (Stream::Stderr, &mut pending.stderr)]
        {
            if !buffer.is_empty() {
                self.line(stream, &mem::take(buffer));
            }
        }
    }
}

impl Drop for CallLog {
    fn drop(&mut self) {
        let mut pending = mem::take(&mut *self.pending());
        self.flush_unfinished(&mut pending);
    }
}

/// One stream of a call's log, as the guest sees it.
#[derive(Clone, Debug)]
pub(crate) struct LogStream {
    log: Arc<CallLog>,
    stream: Stream,
}

impl IsTerminal for LogStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LogStream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for LogStream {
    async fn ready(&mut self) {}
}

impl OutputStream for LogStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.log.write(self.stream, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES)
    }
}

impl AsyncWrite for LogStream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.log.write(self.stream, bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(ring: &LogRing) -> Vec<String> {
        ring.last(usize::MAX).into_iter().map(|l| l.text).collect()
    }

    #[test]
    fn lines_are_put_together_and_the_last_is_kept_unfinished() {
        let ring = LogRing::new();
        let log = CallLog::new(ring.clone(), 7, 100);
        log.write(Stream::Stdout, b"one\ntw");
        log.write(Stream::Stderr, b"oops\r\n");
        log.write(Stream::Stdout, b"o\n\nthree");
        drop(log);
        assert_eq!(texts(&ring), ["one", "oops", "two", "", "three"]);
        assert_eq!(ring.last(1)[0], LogLine { call: 7, stream: Stream::Stdout, text: "three".into() });
    }

    #[test]
    fn a_flood_is_cut_once_with_a_marker() {
        let ring = LogRing::new();
        let log = CallLog::new(ring.clone(), 1, 10);
        for _ in 0..1000 {
            log.write(Stream::Stdout, b"abcd\n");
        }
        drop(log);
        assert_eq!(
            texts(&ring),
            ["abcd", "abcd", "[osiris: the log of this call was truncated after 10 bytes]"]
        );
    }

    #[test]
    fn the_ring_is_bounded_in_lines_and_bytes() {
        let ring = LogRing::new();
        for call in 0..10_000 {
            ring.push(LogLine { call, stream: Stream::Stdout, text: "x".into() });
        }
        assert_eq!(ring.last(usize::MAX).len(), limits::LOG_RING_LINES);
        assert_eq!(ring.last(1)[0].call, 9_999);
        for call in 0..100 {
            ring.push(LogLine { call, stream: Stream::Stdout, text: "y".repeat(50 << 10) });
        }
        let kept: usize = ring.last(usize::MAX).iter().map(|l| l.text.len()).sum();
        assert!(kept <= limits::LOG_RING_BYTES, "{kept}");
    }

    #[tokio::test]
    async fn a_follower_sees_new_lines() {
        let ring = LogRing::new();
        let mut follower = ring.subscribe();
        CallLog::new(ring, 3, 100).write(Stream::Stderr, b"hello\n");
        assert_eq!(follower.recv().await.expect("a line").text, "hello");
    }
}
