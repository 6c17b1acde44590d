//! Every limit of this crate, in one place.
//!
//! [`Limits`] are the ones an operator may set for a function. The constants bound what no manifest
//! may change: they protect the node, not the function.

use std::fmt;
use std::num::NonZero;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Largest component that is accepted, in bytes. Python components are about 18 MiB.
pub const COMPONENT_BYTES_MAX: u64 = 64 << 20;
/// Largest body of one core function, in bytes. Register allocation grows faster than linearly with a
/// body's size, so this is what keeps a hostile component from compiling for hours. `CPython`'s largest
/// is about 200 KiB.
pub const FUNCTION_BODY_BYTES_MAX: u64 = 1 << 20;
/// Core functions in one component, all modules together.
pub const FUNCTIONS_MAX: u32 = 200_000;
/// Core modules in one component.
pub const MODULES_MAX: u32 = 64;
/// Longest time a caller waits for one compilation. The compiling thread itself cannot be stopped; it
/// keeps its place among the compilations, so it delays others but never multiplies.
pub const COMPILE_TIME_MAX: Duration = Duration::from_secs(180);

/// Period of the epoch tick: a guest that computes yields to the executor this often.
pub const EPOCH_TICK: Duration = Duration::from_millis(10);
/// Core instances one call may create (a component is made of several).
pub const CALL_INSTANCES_MAX: usize = 64;
/// Tables one call may create.
pub const CALL_TABLES_MAX: usize = 64;
/// Linear memories one call may create.
pub const CALL_MEMORIES_MAX: usize = 16;
/// Elements of one table.
pub const TABLE_ELEMENTS_MAX: usize = 20_000;
/// Host resources (streams, headers, bodies) one call may hold.
pub const RESOURCES_MAX: usize = 4096;
/// Most random bytes a guest may ask for at once.
pub const RANDOM_BYTES_MAX: u64 = 1 << 20;
/// Bytes all headers of one request or response may take.
pub const HEADER_BYTES_MAX: usize = 64 << 10;
/// Bytes a guest may hand to the host in one piece beyond `response_bytes`: headers, log lines.
pub const HOSTCALL_SLACK_BYTES: usize = 64 << 10;
/// Bytes of one piece of a response body.
pub const BODY_PIECE_BYTES: usize = 64 << 10;
/// Pieces of a response body that a guest may write before one has to be taken. Most toolchains write 4 KiB at
/// a time, and each wait costs the guest a switch and its task a turn.
pub const BODY_PIECES_WAITING: usize = 16;

/// Lines a function's log ring holds.
pub const LOG_RING_LINES: usize = 2048;
/// Bytes of text a function's log ring holds.
pub const LOG_RING_BYTES: usize = 512 << 10;
/// Lines a follower of the log may lag behind before it loses the oldest.
pub const LOG_FOLLOW_LINES: usize = 256;

/// Longest `Retry-After` that is suggested.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// What one function may use. All of them are always on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Linear memory of one call, all its memories together, in bytes. Default 128 MiB. A small
    /// device's pool may have smaller slots; the smaller one counts.
    pub memory_bytes: u64,
    /// Wall time of one call, from before its instance is made. A call waits in the queue at most
    /// this long as well. Default 10 s.
    pub timeout: Duration,
    /// Log text kept of one call, in bytes; the rest is dropped behind a marker. Default 64 KiB.
    pub log_bytes: u64,
    /// Largest input or request body, in bytes. Default 4 MiB.
    pub request_bytes: u64,
    /// Largest output or response body, in bytes. Default 4 MiB.
    pub response_bytes: u64,
    /// Calls that run at the same time. Default 16 a core, between 32 and 128; never more than a
    /// quarter of the machine's pool, so that one function cannot take all of it.
    pub concurrency: u32,
    /// Calls that wait for their turn; more are answered with 503. Default 256.
    pub queue_len: u32,
}

impl Default for Limits {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get) as u32;
        Self {
            memory_bytes: 128 << 20,
            timeout: Duration::from_secs(10),
            log_bytes: 64 << 10,
            request_bytes: 4 << 20,
            response_bytes: 4 << 20,
            concurrency: (16 * cores).clamp(32, 128),
            queue_len: 256,
        }
    }
}

impl Limits {
    /// Checks every field.
    ///
    /// # Errors
    ///
    /// All bad fields at once, each with its range.
    pub fn validate(&self) -> Result<(), LimitsError> {
        let millis = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
        let rows = [
            ("memory_bytes", self.memory_bytes, 64 << 10, 4 << 30),
            ("timeout (in milliseconds)", millis, 1, 3_600_000),
            ("log_bytes", self.log_bytes, 0, 16 << 20),
            ("request_bytes", self.request_bytes, 0, 1 << 30),
            ("response_bytes", self.response_bytes, 1, 1 << 30),
            ("concurrency", self.concurrency.into(), 1, 10_000),
            ("queue_len", self.queue_len.into(), 0, 1_000_000),
        ];
        let bad: Vec<BadLimit> = rows
            .into_iter()
            .filter(|(_, value, min, max)| !(min..=max).contains(&value))
            .map(|(field, value, min, max)| BadLimit { field, value, min, max })
            .collect();
        if bad.is_empty() { Ok(()) } else { Err(LimitsError { bad }) }
    }
}

/// One field of [`Limits`] outside its range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLimit {
    /// The field's name, with its unit where the type hides it.
    pub field: &'static str,
    /// The value that was given.
    pub value: u64,
    /// Smallest value that is accepted.
    pub min: u64,
    /// Largest value that is accepted.
    pub max: u64,
}

/// [`Limits`] that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct LimitsError {
    /// Every bad field.
    pub bad: Vec<BadLimit>,
}

impl fmt::Display for LimitsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "These limits are out of range:")?;
        for (i, BadLimit { field, value, min, max }) in self.bad.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma} {field} is {value} and must be from {min} to {max}")?;
        }
        write!(f, ".")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        assert_eq!(Limits::default().validate(), Ok(()));
    }

    #[test]
    fn every_bad_field_is_named() {
        let limits = Limits { memory_bytes: 1, timeout: Duration::ZERO, concurrency: 0, ..Limits::default() };
        let error = limits.validate().expect_err("three fields are bad");
        let fields: Vec<_> = error.bad.iter().map(|b| b.field).collect();
        assert_eq!(fields, ["memory_bytes", "timeout (in milliseconds)", "concurrency"]);
        assert!(error.to_string().ends_with("concurrency is 0 and must be from 1 to 10000."));
    }
}
