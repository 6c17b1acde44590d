//! How the program ends: one code for each kind of end, and the sentence that goes with a bad one.

use std::fmt;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use osiris_fleet::api::codes;

/// The exit codes, which scripts rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done = 0,
    /// It failed.
    Failed = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// There is no such thing.
    NotFound = 3,
    /// Not allowed.
    Denied = 4,
    /// Recorded here and not yet seen by another member.
    Unseen = 5,
    /// It took longer than allowed.
    TimedOut = 6,
}

impl Exit {
    /// The code for an HTTP status of a node or of a function.
    pub(crate) fn of_status(status: u16) -> Self {
        match status {
            200..=399 => Self::Done,
            401 | 403 => Self::Denied,
            404 => Self::NotFound,
            408 | 504 => Self::TimedOut,
            _ => Self::Failed,
        }
    }

    /// The code for one of the [`codes`].
    fn of_code(code: &str) -> Self {
        let known = [codes::UNAUTHORIZED, codes::DENIED, codes::NOT_FOUND, codes::TIMEOUT];
        known
            .into_iter()
            .find(|(name, _)| *name == code)
            .map_or(Self::Failed, |(_, status)| Self::of_status(status))
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not do what it was asked: a sentence, what to do next, and the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The code.
    pub(crate) exit: Exit,
    /// The sentence.
    pub(crate) message: String,
    /// What to do next.
    pub(crate) next: Option<String>,
    /// Whether a node ended before it answered, or none took the request.
    pub(crate) node_gone: bool,
}

impl Failure {
    /// A failure with its code and its sentence.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), next: None, node_gone: false }
    }

    /// Something failed.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// The command line or the configuration is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// There is no such thing.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(Exit::NotFound, message)
    }

    /// It took too long.
    pub(crate) fn timed_out(message: impl Into<String>) -> Self {
        Self::new(Exit::TimedOut, message)
    }

    /// A file that was named cannot be read: 3 where there is none, 6 where the time was over, 1 for any other cause.
    pub(crate) fn unread(what: &str, path: &Path, error: &io::Error) -> Self {
        Self::unread_from(&format!("The {what} {} cannot be read", path.display()), error)
    }

    /// The same of what was to come from somewhere; `what` is the sentence up to the cause.
    pub(crate) fn unread_from(what: &str, error: &io::Error) -> Self {
        let (exit, next) = match error.kind() {
            io::ErrorKind::NotFound => (Exit::NotFound, "check its name and permissions"),
            io::ErrorKind::TimedOut => (
                Exit::TimedOut,
                "a pipe ends when who writes to it closes it; a command with --timeout can be given longer",
            ),
            _ => (Exit::Failed, "check its name and permissions"),
        };
        Self::new(exit, format!("{what}: {error}.")).next(next)
    }

    /// An error that names one of the [`codes`].
    pub(crate) fn of_code(code: &str, message: impl Into<String>, next: Option<String>) -> Self {
        Self { next, ..Self::new(Exit::of_code(code), message) }
    }

    /// An error that came with an HTTP status.
    pub(crate) fn of_status(status: u16, message: impl Into<String>, next: Option<String>) -> Self {
        let exit = match Exit::of_status(status) {
            Exit::Done => Exit::Failed,
            exit => exit,
        };
        Self { next, ..Self::new(exit, message) }
    }

    /// The same, because the node ended before it answered.
    #[must_use]
    pub(crate) fn for_lack_of_node(self) -> Self {
        Self { node_gone: true, ..self }
    }

    /// The same with a next step.
    #[must_use]
    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_have_their_exit_codes() {
        for (status, exit) in [
            (200, Exit::Done),
            (204, Exit::Done),
            (302, Exit::Done),
            (400, Exit::Failed),
            (401, Exit::Denied),
            (403, Exit::Denied),
            (404, Exit::NotFound),
            (409, Exit::Failed),
            (413, Exit::Failed),
            (422, Exit::Failed),
            (500, Exit::Failed),
            (502, Exit::Failed),
            (503, Exit::Failed),
            (504, Exit::TimedOut),
            (507, Exit::Failed),
        ] {
            assert_eq!(Exit::of_status(status), exit, "{status}");
        }
    }

    #[test]
    fn codes_have_their_exit_codes() {
        for (code, exit) in [
            (codes::NOT_FOUND, Exit::NotFound),
            (codes::DENIED, Exit::Denied),
            (codes::UNAUTHORIZED, Exit::Denied),
            (codes::TIMEOUT, Exit::TimedOut),
            (codes::CONFLICT, Exit::Failed),
            (codes::STORAGE, Exit::Failed),
        ] {
            assert_eq!(Exit::of_code(code.0), exit, "{}", code.0);
        }
        assert_eq!(Exit::of_code("something-new"), Exit::Failed);
    }

    #[test]
    fn the_numbers_are_those_that_are_documented() {
        let all = [
            Exit::Done,
            Exit::Failed,
            Exit::Usage,
            Exit::NotFound,
            Exit::Denied,
            Exit::Unseen,
            Exit::TimedOut,
        ];
        assert_eq!(all.map(|exit| exit as u8), [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn a_failure_is_never_a_success() {
        assert_eq!(Failure::of_status(200, "odd", None).exit, Exit::Failed);
    }
}
