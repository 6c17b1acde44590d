//! Samples of the machine, smoothed over a window.

use std::collections::VecDeque;
use std::time::Duration;

use crate::monitor::Sample;
use crate::page::Load;

/// How far back the means reach.
pub const WINDOW: Duration = Duration::from_secs(30);
/// Samples that are kept, however often they are taken.
const SAMPLES_MAX: usize = 64;

/// The last samples.
#[derive(Debug, Default)]
pub struct Window {
    samples: VecDeque<(Duration, Sample)>,
}

impl Window {
    /// Takes a sample, `at` on a monotonic clock, and says what the machine does. Means weigh a sample by the time
    /// that it speaks of, and reach back over [`WINDOW`]; the first sample speaks for itself alone. Functions are
    /// left empty.
    pub fn push(&mut self, at: Duration, sample: Sample) -> Load {
        // One sample from before the window stays: the first interval begins with it.
        while self.samples.len() >= SAMPLES_MAX
            || self.samples.get(1).is_some_and(|(second, _)| *second + WINDOW <= at)
        {
            self.samples.pop_front();
        }
        self.samples.push_back((at, sample));
        let (Some((first_at, first)), Some((_, last))) = (self.samples.front(), self.samples.back()) else {
            return Load::default();
        };
        let span = at.saturating_sub(*first_at);
        let rate = |first: u64, last: u64| match span.as_secs_f64() {
            0.0 => 0,
            // A counter that went back belongs to an interface that is gone.
            seconds => (last.saturating_sub(first) as f64 / seconds) as u64,
        };
        let hottest = last.temperatures.iter().map(|sensor| sensor.celsius).fold(0.0, f32::max);
        Load {
            cpu_permille: permille(self.mean(|sample| sample.cpu_percent)),
            cpu_now_permille: permille(last.cpu_percent),
            cores: last.cores.into(),
            memory_used: last.memory_used,
            memory_total: last.memory_total,
            load1_milli: (last.load1.max(0.0) * 1_000.0) as u64,
            disk_used: last.disk_used,
            disk_total: last.disk_total,
            network_rx_per_s: rate(first.network_rx, last.network_rx),
            network_tx_per_s: rate(first.network_tx, last.network_tx),
            temperature_milli: (hottest * 1_000.0) as u64,
            node_memory: last.process_memory,
            node_cpu_permille: permille(self.mean(|sample| sample.process_cpu_percent)),
            window_ms: u64::try_from(span.as_millis()).unwrap_or(u64::MAX),
            ..Load::default()
        }
    }

    /// A percentage counts from the sample before, so each is weighed by the time since then.
    fn mean(&self, figure: impl Fn(&Sample) -> f32) -> f32 {
        let pairs = self.samples.iter().zip(self.samples.iter().skip(1));
        let (mut sum, mut weight) = (0.0, 0.0);
        for ((before, _), (at, sample)) in pairs {
            let seconds = at.saturating_sub(*before).as_secs_f32();
            sum += figure(sample) * seconds;
            weight += seconds;
        }
        match (weight > 0.0, self.samples.back()) {
            (true, _) => sum / weight,
            (false, Some((_, only))) => figure(only),
            (false, None) => 0.0,
        }
    }
}

fn permille(percent: f32) -> u64 {
    (percent.max(0.0) * 10.0).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(cpu_percent: f32, network_rx: u64) -> Sample {
        Sample { cpu_percent, network_rx, ..Sample::default() }
    }

    #[test]
    fn means_weigh_by_time_and_rates_reach_over_the_window() {
        let mut window = Window::default();
        let s = Duration::from_secs;
        let first = window.push(s(0), sample(90.0, 1_000));
        assert_eq!((first.cpu_permille, first.network_rx_per_s, first.window_ms), (900, 0, 0));
        window.push(s(10), sample(10.0, 2_000));
        let load = window.push(s(15), sample(40.0, 4_000));
        assert_eq!((load.cpu_permille, load.cpu_now_permille), (200, 400));
        assert_eq!((load.network_rx_per_s, load.window_ms), (200, 15_000));
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let mut window = Window::default();
        let s = Duration::from_secs;
        window.push(s(0), sample(100.0, 0));
        for at in 1..200 {
            window.push(s(at * 5), sample(if at < 190 { 100.0 } else { 0.0 }, at * 500));
        }
        let load = window.push(s(1_000), sample(0.0, 100_000));
        assert_eq!((load.cpu_permille, load.network_rx_per_s, load.window_ms), (0, 100, 30_000));
        assert!(window.samples.len() <= 8);
    }

    #[test]
    fn many_samples_at_once_stay_few() {
        let mut window = Window::default();
        for at in 0..1_000 {
            window.push(Duration::from_millis(at), sample(1.0, 0));
        }
        assert!(window.samples.len() <= SAMPLES_MAX);
    }
}
