//! The JSON body of an HTTP error.

use serde::{Deserialize, Serialize};

/// What an application reads when a request fails: one stable code, one sentence, and, where there
/// is something to do about it, the next step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// A stable code for programs, such as `function_not_found`: lower-case words joined by `_`.
    pub error: String,
    /// A sentence for people.
    pub message: String,
    /// What to do next, as a sentence or a command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl ErrorBody {
    /// An error with its code and its sentence.
    pub fn new(error: impl Into<String>, message: impl Into<String>) -> Self {
        Self { error: error.into(), message: message.into(), next: None }
    }

    /// The same error with a next step.
    #[must_use]
    pub fn with_next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }
}
