//! The driver's one error: a code, a sentence, a next step.

use crate::{api::codes, node::Refusal};

/// Why the driver could not do something. `code` is one of [`codes`].
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct DriverError {
    /// The first half of one of [`codes`].
    pub code: &'static str,
    /// A sentence for people.
    pub message: String,
    /// What to do next.
    pub next: Option<String>,
    /// Whether another process has the data folder now.
    in_use: bool,
}

impl DriverError {
    pub(crate) fn new(code: (&'static str, u16), message: impl Into<String>, next: &str) -> Self {
        Self {
            code: code.0,
            message: message.into(),
            next: (!next.is_empty()).then(|| next.to_owned()),
            in_use: false,
        }
    }

    /// Whether another process has the data folder now.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.in_use
    }

    pub(crate) fn in_use(folder: &std::path::Path) -> Self {
        let message = format!("The data folder {} is in use by another osiris process.", folder.display());
        let next = "Stop it with `osiris down`, or give this one its own folder with `--data DIR`.";
        Self { in_use: true, ..Self::new(codes::CONFLICT, message, next) }
    }

    /// A file or folder that cannot be used.
    pub(crate) fn io(what: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        let full =
            matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
        let code = match error.kind() {
            _ if full => codes::STORAGE,
            std::io::ErrorKind::PermissionDenied => codes::DENIED,
            _ => codes::INTERNAL,
        };
        let next = if full {
            "Free some space on that disk and try again."
        } else if osiris_runtime::NotRegular::is(error) {
            "Put the file itself in its place, from a backup where it has to be."
        } else {
            "Check the path and its permissions."
        };
        Self::new(code, format!("{what} {}: {error}.", path.display()), next)
    }
}

impl From<Refusal> for DriverError {
    fn from(refusal: Refusal) -> Self {
        Self { code: refusal.code.0, message: refusal.message, next: refusal.next, in_use: false }
    }
}
