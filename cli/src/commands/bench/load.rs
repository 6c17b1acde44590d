//! The load generator: kept connections, each with one request under way at a time.

use std::net::TcpStream;
use std::num::NonZeroUsize;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::wire::{Ask, Seen, Wire};

/// How long calls run before they count.
pub(super) const WARM: Duration = Duration::from_millis(250);
/// Longest wait for the last answers.
const STALL: Duration = Duration::from_secs(10);
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// What a load generator is told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LoadJob {
    pub(super) ask: Ask,
    /// The only answer that is right.
    pub(super) seen: Seen,
    pub(super) connections: usize,
    pub(super) seconds: u64,
}

/// What it measured.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Loaded {
    /// Requests that were asked and answered within the time that counts.
    pub(super) requests: u64,
    /// All requests, those before and after it too.
    pub(super) requests_all: u64,
    pub(super) seconds: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    /// CPU time of the load generator within the time that counts.
    pub(super) cpu_ms: f64,
}

/// The time that counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    from: Instant,
    to: Instant,
}

impl Window {
    /// From when the first calls have warmed everything.
    pub(super) fn new(seconds: u64) -> Self {
        let from = Instant::now() + WARM;
        Self { from, to: from + Duration::from_secs(seconds) }
    }

    /// The latest time at which everything must have ended.
    pub(super) fn last(&self) -> Instant {
        self.to + STALL
    }
}

/// How long each call took, of calls that follow each other.
#[derive(Debug)]
pub(super) struct Times {
    /// In tenths of a microsecond, so that 429 s fit.
    counted: Vec<u32>,
    all: u64,
    /// When the call under way began.
    began: Instant,
}

impl Times {
    /// The first call begins.
    pub(super) fn start() -> Self {
        Self { counted: Vec::new(), all: 0, began: Instant::now() }
    }

    /// Whether there is time for another call.
    pub(super) fn go_on(&self, window: Window) -> bool {
        self.began < window.to
    }

    /// A call has ended and the next begins.
    pub(super) fn note(&mut self, window: Window) {
        let ended = Instant::now();
        self.all += 1;
        if self.began >= window.from && ended <= window.to {
            let tenths = (ended - self.began).as_nanos() / 100;
            self.counted.push(u32::try_from(tenths).unwrap_or(u32::MAX));
        }
        self.began = ended;
    }

    fn add(&mut self, other: Self) {
        self.counted.extend(other.counted);
        self.all += other.all;
    }

    /// The figures of the window.
    pub(super) fn figures(mut self, window: Window, cpu: Duration) -> Result<Loaded, String> {
        self.counted.sort_unstable();
        let quantile = |percent: usize| {
            // The nearest rank.
            let rank = (self.counted.len() * percent).div_ceil(100).max(1);
            self.counted.get(rank - 1).map(|tenths| f64::from(*tenths) / 10.0)
        };
        let (Some(p50_us), Some(p99_us)) = (quantile(50), quantile(99)) else {
            return Err("no call ended in time".to_owned());
        };
        Ok(Loaded {
            requests: self.counted.len() as u64,
            requests_all: self.all,
            seconds: (window.to - window.from).as_secs_f64(),
            p50_us,
            p99_us,
            cpu_ms: cpu.as_secs_f64() * 1e3,
        })
    }
}

/// The CPU time of this process.
fn cpu() -> Duration {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(spent.tv_sec).unwrap_or(0), u32::try_from(spent.tv_nsec).unwrap_or(0))
}

/// The CPU time of this process within the window. Blocks until it has passed.
pub(super) fn cpu_within(window: Window) -> Duration {
    let sleep_until = |at: Instant| thread::sleep(at.saturating_duration_since(Instant::now()));
    sleep_until(window.from);
    let before = cpu();
    sleep_until(window.to);
    cpu() - before
}

/// Runs the load: a thread a core, each with its part of the connections and an event loop of its own,
/// so that no connection wakes another thread.
pub(super) fn run(job: &LoadJob) -> Result<Loaded, String> {
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let mut parts: Vec<Vec<TcpStream>> = (0..cores.min(job.connections)).map(|_| Vec::new()).collect();
    let count = parts.len();
    for connection in 0..job.connections {
        let stream = TcpStream::connect_timeout(&job.ask.target, CONNECT)
            .and_then(|stream| stream.set_nonblocking(true).map(|()| stream))
            .map_err(|e| format!("{} cannot be reached: {e}", job.ask.target))?;
        parts[connection % count].push(stream);
    }
    let request = job.ask.bytes();
    let window = Window::new(job.seconds);
    thread::scope(|scope| {
        let threads: Vec<_> =
            parts.into_iter().map(|part| scope.spawn(|| drive(part, &request, &job.seen, window))).collect();
        let cpu = cpu_within(window);
        let mut times = Times::start();
        for thread in threads {
            times.add(thread.join().map_err(|_| "a thread of the load generator broke".to_owned())??);
        }
        times.figures(window, cpu)
    })
}

fn drive(part: Vec<TcpStream>, request: &[u8], seen: &Seen, window: Window) -> Result<Times, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| format!("no event loop can be made: {e}"))?;
    runtime.block_on(async {
        let mut calls = JoinSet::new();
        for stream in part {
            let stream = tokio::net::TcpStream::from_std(stream).map_err(|e| e.to_string())?;
            let mut wire = Wire::new(stream)?;
            let (request, seen) = (request.to_vec(), seen.clone());
            calls.spawn(async move {
                let mut times = Times::start();
                while times.go_on(window) {
                    wire.again(&request, &seen).await?;
                    times.note(window);
                }
                Ok::<_, String>(times)
            });
        }
        let mut times = Times::start();
        let all = async {
            while let Some(ended) = calls.join_next().await {
                times.add(ended.map_err(|_| "a connection of the load generator broke".to_owned())??);
            }
            Ok(())
        };
        match tokio::time::timeout_at(window.last().into(), all).await {
            Ok(ended) => ended.map(|()| times),
            Err(_) => Err(format!("an answer did not come within {} s", STALL.as_secs())),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_nearest_rank() {
        let times = Times { counted: (1..=200).rev().collect(), all: 300, began: Instant::now() };
        let window = Window::new(2);
        let loaded = times.figures(window, Duration::from_millis(5)).expect("figures");
        assert_eq!((loaded.requests, loaded.requests_all), (200, 300));
        assert!((loaded.p50_us - 10.0).abs() < 1e-9 && (loaded.p99_us - 19.8).abs() < 1e-9, "{loaded:?}");
        assert!((loaded.seconds - 2.0).abs() < 1e-9 && (loaded.cpu_ms - 5.0).abs() < 1e-9, "{loaded:?}");
        assert!(Times::start().figures(window, Duration::ZERO).is_err());
    }
}
