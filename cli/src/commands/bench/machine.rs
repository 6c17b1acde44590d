//! What the machine does meanwhile, from `/proc`.

use std::fs;
use std::num::NonZeroUsize;

use serde::Serialize;

/// Ticks of `/proc` a second: `USER_HZ`, which is 100 on every architecture that Linux shares with this
/// program (proc(5)).
const TICKS_PER_SECOND: f64 = 100.0;
/// Above this load average, for each core, figures are not comparable.
const LOAD_A_CORE_MAX: f64 = 0.5;

/// The machine before the bench starts.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Machine {
    pub(super) cores: usize,
    /// The load average over a minute.
    pub(super) load1: Option<f64>,
}

impl Machine {
    /// The machine at this moment.
    pub(super) fn now() -> Self {
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Self {
            cores: std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
            load1: load.split(' ').next().and_then(|load| load.parse().ok()),
        }
    }

    /// Why its figures cannot be compared, where they cannot.
    pub(super) fn busy(&self) -> Option<String> {
        let max = LOAD_A_CORE_MAX * self.cores as f64;
        let load = self.load1.filter(|load| *load > max)?;
        Some(format!(
            "the load average is {load:.2}, above {max:.1} for {} cores: other programs take CPU time, and \
             the figures are not comparable",
            self.cores
        ))
    }
}

/// CPU seconds of a process so far, without its children. `None` where `/proc` does not say.
pub(super) fn cpu_of(pid: u32) -> Option<f64> {
    process_seconds(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// CPU seconds that all processes took and that the host took away, so far.
pub(super) fn cpu_of_all() -> Option<f64> {
    busy_seconds(&fs::read_to_string("/proc/stat").ok()?)
}

/// Fields 14 and 15 of proc_pid_stat(5); the second, in brackets, may hold spaces.
fn process_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / TICKS_PER_SECOND)
}

/// user, nice, system, (idle, iowait,) irq, softirq and steal of proc_stat(5). Guests are in user.
fn busy_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace();
    let mut ticks = 0.0;
    for column in 0..8 {
        let value: f64 = fields.next()?.parse().ok()?;
        if column != 3 && column != 4 {
            ticks += value;
        }
    }
    Some(ticks / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read_by_its_columns() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 1 0 0 0 250 50 9 9 20 0 3 0 5";
        assert_eq!(process_seconds(stat), Some(3.0));
        let all = "cpu  100 20 30 4000 500 6 7 8 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n";
        assert_eq!(busy_seconds(all), Some(1.71));
        assert_eq!((process_seconds(""), busy_seconds("")), (None, None));
    }

    #[test]
    fn a_busy_machine_says_so() {
        assert_eq!(Machine { cores: 2, load1: Some(1.0) }.busy(), None);
        assert_eq!(Machine { cores: 2, load1: None }.busy(), None);
        let said = Machine { cores: 2, load1: Some(6.5) }.busy().expect("it is busy");
        assert!(said.contains("6.50") && said.contains("2 cores"), "{said}");
    }
}
