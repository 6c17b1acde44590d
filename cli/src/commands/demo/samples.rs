//! The demo's input: this machine's own load, sampled while it runs.

use std::path::Path;
use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};
use std::thread::JoinHandle;
use std::time::Duration;

use osiris_runtime::Monitor;
use serde::Serialize;

/// Time between two samples; shorter ones have no CPU figure.
const PERIOD: Duration = Duration::from_millis(250);
/// Samples that are kept.
const SAMPLES_MAX: usize = 240;

/// One sample, as the example functions take it.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Sample {
    pub(super) cpu_percent: f64,
    pub(super) memory_used: u64,
    pub(super) memory_total: u64,
    pub(super) load1: f64,
}

#[derive(Serialize)]
struct Samples<'a> {
    samples: &'a [Sample],
}

/// Samples until it is dropped.
pub(super) struct Sampler {
    samples: Arc<Mutex<Vec<Sample>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sampler {
    /// Takes the first sample at once, so that there is always one.
    pub(super) fn start(root: &Path) -> Self {
        let mut monitor = Monitor::new(root);
        let samples = Arc::new(Mutex::new(vec![take(&mut monitor)]));
        let stop = Arc::new(AtomicBool::new(false));
        let (to, ended) = (Arc::clone(&samples), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                std::thread::sleep(PERIOD);
                let sample = take(&mut monitor);
                let mut samples = to.lock().unwrap_or_else(PoisonError::into_inner);
                if samples.len() == SAMPLES_MAX {
                    samples.remove(0);
                }
                samples.push(sample);
            }
        });
        Self { samples, stop, thread: Some(thread) }
    }

    fn all(&self) -> Vec<Sample> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The samples as the functions' input.
    pub(super) fn json(&self) -> String {
        serde_json::to_string(&Samples { samples: &self.all() }).unwrap_or_default()
    }

    pub(super) fn count(&self) -> usize {
        self.all().len()
    }

    pub(super) fn latest(&self) -> Sample {
        self.all().last().copied().unwrap_or_default()
    }
}

fn take(monitor: &mut Monitor) -> Sample {
    let sample = monitor.sample();
    Sample {
        cpu_percent: f64::from(sample.cpu_percent),
        memory_used: sample.memory_used,
        memory_total: sample.memory_total,
        load1: sample.load1,
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
