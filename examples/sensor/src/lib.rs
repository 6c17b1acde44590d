//! A reading of a slow device: the call waits for it and needs no processor meanwhile.
//!
//! ```json
//! {"wait_ms": 250}
//! ```
//!
//! So several nodes on one machine take more calls than one of them, as they would on machines of their own.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Longest wait, milliseconds.
const WAIT_MS_MAX: u64 = 10_000;

/// What a call is given.
#[derive(Deserialize)]
pub struct Input {
    wait_ms: u64,
}

/// What a call answers.
#[derive(Serialize)]
pub struct Reading {
    waited_ms: u64,
}

fn read(input: Input) -> Result<Reading, String> {
    if input.wait_ms > WAIT_MS_MAX {
        return Err(format!("give a wait_ms of at most {WAIT_MS_MAX}"));
    }
    let begun = Instant::now();
    std::thread::sleep(Duration::from_millis(input.wait_ms));
    Ok(Reading { waited_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX) })
}

osiris_function::function!(read);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_as_long_as_it_is_told_and_never_for_ever() {
        assert!(read(Input { wait_ms: 20 }).is_ok_and(|reading| reading.waited_ms >= 20));
        assert!(read(Input { wait_ms: WAIT_MS_MAX + 1 }).is_err());
    }
}
