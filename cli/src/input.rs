//! What a command is handed: a file or standard input, within a limit of bytes and of time.
//!
//! A file may be a pipe that nobody writes to, such as a FIFO: opening it waits for ever, and nothing interrupts
//! that. So a thread of its own reads, and is left behind where the time is over: the process is about to end.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use zeroize::Zeroizing;

use crate::output::human;

/// At most so many bytes are made room for before they come. A secret fits, and so is never copied.
const ROOM_BYTES: u64 = 4 << 10;

/// Reads a file to its end or to `limit` bytes, whichever comes first.
///
/// # Errors
/// What the system says; [`io::ErrorKind::TimedOut`] where that takes longer than `within`.
pub(crate) fn file(path: &Path, limit: u64, within: Duration) -> io::Result<Zeroizing<Vec<u8>>> {
    let path = path.to_owned();
    bounded(move || all(File::open(path)?, limit), within)
}

/// The same of standard input. A person who types is given the time that it takes.
///
/// # Errors
/// As [`file`].
pub(crate) fn stdin(limit: u64, within: Duration) -> io::Result<Zeroizing<Vec<u8>>> {
    let read = move || all(io::stdin().lock(), limit);
    if io::stdin().is_terminal() { read() } else { bounded(read, within) }
}

/// Bytes as text.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`].
pub(crate) fn text(bytes: &[u8]) -> io::Result<&str> {
    std::str::from_utf8(bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it holds bytes that are no UTF-8 text"))
}

fn all(source: impl Read, limit: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let room = usize::try_from(limit.min(ROOM_BYTES)).unwrap_or_default();
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    source.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn bounded<T: Send + 'static>(
    read: impl FnOnce() -> io::Result<T> + Send + 'static,
    within: Duration,
) -> io::Result<T> {
    let (told, answer) = mpsc::sync_channel(1);
    std::thread::Builder::new().name("osiris-input".to_owned()).spawn(move || {
        // Nobody listens any more where the time was over.
        let _ = told.send(read());
    })?;
    answer.recv_timeout(within).unwrap_or_else(|gone| {
        Err(match gone {
            RecvTimeoutError::Timeout => io::Error::new(
                io::ErrorKind::TimedOut,
                format!("it did not come to its end within {}", human::span(within)),
            ),
            RecvTimeoutError::Disconnected => io::Error::other("reading it ended early"),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_that_nobody_writes_to_is_given_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs");
        assert!(made.success());
        let error = file(&pipe, 10, Duration::from_millis(50)).expect_err("nobody writes");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.to_string().contains("within"), "{error}");
    }

    #[test]
    fn what_is_there_comes_up_to_the_limit() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("input");
        std::fs::write(&path, b"0123456789\xff").expect("written");
        let read = |limit| file(&path, limit, Duration::from_secs(60)).expect("read").to_vec();
        assert_eq!(read(4), b"0123");
        assert_eq!(read(1 << 20).len(), 11);
        assert_eq!(text(&read(10)).expect("text"), "0123456789");
        assert_eq!(text(&read(11)).expect_err("no text").kind(), io::ErrorKind::InvalidData);
        let gone = file(&folder.path().join("none"), 4, Duration::from_secs(60));
        assert_eq!(gone.expect_err("missing").kind(), io::ErrorKind::NotFound);
    }
}
