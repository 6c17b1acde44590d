//! The thresholds of the policy.

use std::time::Duration;

/// Thresholds that hold for every function on this member. `docs/scaling.md` has them in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How long more replicas must be needed before one is added. Default 3 s: three looks at the counters.
    pub window: Duration,
    /// How long each rank waits for the one before it. Default 6 s: anti-entropy to a neighbour, and a look.
    pub stagger: Duration,
    /// Invocations have waited for too long when something has been waiting without a break for so long. Default 10 s.
    pub age: Duration,
    /// Pause between a change and a further replica. Default 10 s.
    pub cool_up: Duration,
    /// Pause between a change and one replica less. Default 30 s.
    pub cool_down: Duration,
    /// How long replicas that were added may take before others are added in their place. Default 60 s.
    pub start_max: Duration,
    /// Use of all cores from which on a member counts as busy, percent. Default 85.
    pub cpu_high: u32,
    /// Use of the memory from which on no more invocations are let in side by side, and its member counts as busy,
    /// percent. Default 85.
    pub memory_high: u32,
    /// One replica less would do where the one that is left would then be used to no more than this, percent. Where
    /// `n` are left, what is free of them may be smaller by the square root of `n`. Default 60.
    pub use_low: u32,
    /// How long more replicas must be needed before a machine is wished for. Default 30 s.
    pub machine_window: Duration,
    /// Pause between two wishes of one member for a machine. Default 120 s.
    pub machine_cool: Duration,
    /// How long a machine must have held no replica, and none must have been missed, before it goes. Default 120 s,
    /// twice what it takes to make one that boots for a minute: who keeps what is not needed for about as long as a
    /// new one takes never spends much more than twice what one that knows the future does (ski rental; Karlin,
    /// Manasse, Rudolph and Sleator, "Competitive snoopy caching", 1988).
    pub machine_idle: Duration,
    /// Two changes in opposite directions within this time make the second kind rarer. Default 600 s.
    pub flap: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            window: seconds(3),
            stagger: seconds(6),
            age: seconds(10),
            cool_up: seconds(10),
            cool_down: seconds(30),
            start_max: seconds(60),
            cpu_high: 85,
            memory_high: 85,
            use_low: 60,
            machine_window: seconds(30),
            machine_cool: seconds(120),
            machine_idle: seconds(120),
            flap: seconds(600),
        }
    }
}

/// [`Terms`] that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("The scaling threshold {field} is {value}; it must lie between {min} and {max}.")]
pub struct TermsError {
    /// The field's name.
    pub field: &'static str,
    /// The value that was given, in milliseconds or percent.
    pub value: u64,
    /// Smallest value that is accepted.
    pub min: u64,
    /// Largest value that is accepted.
    pub max: u64,
}

impl Terms {
    /// Checks every field.
    ///
    /// # Errors
    /// [`TermsError`] names the first that is out of range.
    pub fn validate(&self) -> Result<(), TermsError> {
        const DAY_MS: u64 = 86_400_000;
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let rows = [
            ("window", ms(self.window), 0, DAY_MS),
            ("stagger", ms(self.stagger), 1, DAY_MS),
            ("age", ms(self.age), 1, DAY_MS),
            ("cool_up", ms(self.cool_up), 1, DAY_MS),
            ("cool_down", ms(self.cool_down), 1, DAY_MS),
            ("start_max", ms(self.start_max), 1, DAY_MS),
            ("cpu_high", self.cpu_high.into(), 1, 100),
            ("memory_high", self.memory_high.into(), 1, 100),
            // At 100 what one replica less can just carry would take it away, and the next invocation bring it back.
            ("use_low", self.use_low.into(), 0, 90),
            ("machine_window", ms(self.machine_window), 0, DAY_MS),
            ("machine_cool", ms(self.machine_cool), 1, DAY_MS),
            ("machine_idle", ms(self.machine_idle), 1, DAY_MS),
            ("flap", ms(self.flap), 0, DAY_MS),
        ];
        for (field, value, min, max) in rows {
            if value < min || value > max {
                return Err(TermsError { field, value, min, max });
            }
        }
        Ok(())
    }
}
