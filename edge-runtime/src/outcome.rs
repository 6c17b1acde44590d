//! How a call ended.

use std::time::Duration;

/// The result of one call, with what it cost.
#[derive(Debug)]
pub struct Outcome<T> {
    /// What the function answered, or why there is no answer.
    pub result: Result<T, CallError>,
    /// The call's number, unique in its [`Function`](crate::Function); its log lines carry it.
    pub call: u64,
    /// From arrival to the end, waiting included.
    pub elapsed: Duration,
    /// The part of it spent waiting for a turn.
    pub queued: Duration,
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The instance trapped, or broke one of its limits.
    #[error("The function trapped: {message}.")]
    Trap {
        /// The root cause.
        message: String,
    },
    /// A native function answered with its own error.
    #[error("The function answered with an error: {message}")]
    Guest {
        /// The function's words.
        message: String,
    },
    /// It took longer than its limit.
    #[error("The function took longer than its limit of {after:?} and was stopped.")]
    Deadline {
        /// The limit.
        after: Duration,
    },
    /// All places are taken, in the function's queue or on the node.
    #[error("The function is busy; try again in {} s.", retry_after.as_secs().max(1))]
    Busy {
        /// When to try again.
        retry_after: Duration,
    },
    /// This revision takes no more calls.
    #[error("This revision of the function is being replaced; try again.")]
    Draining,
    /// The request does not suit the function.
    #[error("The request cannot be given to the function: {message}.")]
    BadRequest {
        /// What is wrong with it.
        message: String,
    },
    /// The input or the request body is over the limit.
    #[error("The request has {size} bytes and the function takes at most {max}.")]
    TooLarge {
        /// Bytes that came.
        size: u64,
        /// The limit.
        max: u64,
    },
    /// The output or the response body is over the limit.
    #[error("The function's answer has more than the {max} bytes it may have.")]
    ResponseTooLarge {
        /// The limit.
        max: u64,
    },
    /// A `wasi:http` function returned without setting a response.
    #[error("The function ended without an answer.")]
    NoResponse,
    /// A `wasi:http` function set an error or an unusable body instead of a response.
    #[error("The function's answer is not usable: {message}.")]
    BadResponse {
        /// What is wrong with it.
        message: String,
    },
}

impl CallError {
    /// The HTTP status that says the same.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Trap { .. }
            | Self::ResponseTooLarge { .. }
            | Self::NoResponse
            | Self::BadResponse { .. } => 502,
            Self::Guest { .. } => 500,
            Self::Deadline { .. } => 504,
            Self::Busy { .. } | Self::Draining => 503,
            Self::BadRequest { .. } => 400,
            Self::TooLarge { .. } => 413,
        }
    }

    /// For a `Retry-After` header, where trying again makes sense.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after } => Some(*retry_after),
            Self::Draining => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_says_when_and_a_trap_says_why() {
        let busy = CallError::Busy { retry_after: Duration::from_secs(3) };
        assert_eq!((busy.status(), busy.retry_after()), (503, Some(Duration::from_secs(3))));
        assert_eq!(busy.to_string(), "The function is busy; try again in 3 s.");
        let trap = CallError::Trap { message: "unreachable".into() };
        assert_eq!((trap.status(), trap.retry_after()), (502, None));
    }
}
