//! Watches the machine and publishes what it does on the load page.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use osiris_runtime::{FunctionLoad, Load, Monitor, PAGE_FUNCTIONS_MAX, PageWriter, Window};
use tokio::{sync::mpsc, time::MissedTickBehavior};

use super::hosting::Hosting;
use crate::node::{Input, scale::MachineLoad};

/// Time between two samples. One takes about a millisecond.
pub const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);

/// Where the load page of a data folder is: in memory where the system has such a file system, else in the folder.
#[must_use]
pub fn load_page_path(data: &Path) -> PathBuf {
    let data = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
    let memory = Path::new("/dev/shm");
    if !memory.is_dir() {
        return data.join("run").join("load");
    }
    let name = blake3::hash(data.as_os_str().as_encoded_bytes()).to_hex();
    let user = rustix::process::geteuid().as_raw();
    memory.join(format!("osiris-{user}")).join(format!("{}.load", &name[..16]))
}

/// Samples, publishes and tells the core until it is dropped. Without a page the node runs on: nobody depends on it.
pub(super) async fn publish(data: PathBuf, hosting: Arc<Hosting>, to_core: mpsc::Sender<Input>) {
    let path = load_page_path(&data);
    let mut page = match PageWriter::create(&path) {
        Ok(page) => Some(page),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "there is no load page; `osiris top` shows nothing");
            None
        }
    };
    let began = Instant::now();
    let mut monitor = Monitor::new(data);
    let mut window = Window::default();
    let mut due = tokio::time::interval(SAMPLE_INTERVAL);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        let sampled = tokio::task::spawn_blocking(move || {
            let sample = monitor.sample();
            (monitor, sample)
        });
        let sample;
        (monitor, sample) = match sampled.await {
            Ok(sampled) => sampled,
            Err(error) => {
                tracing::warn!(%error, "the machine is watched no more");
                return;
            }
        };
        let load = window.push(began.elapsed(), sample);
        // A core that is behind hears of the next sample.
        let _ = to_core.try_send(Input::Machine(machine_load(&load)));
        if let Some(page) = &mut page {
            page.write(&with_functions(load, &hosting));
        }
    }
}

/// What decides about replicas, in whole percent: of the processors the mean of the window, so that no replica is made or
/// kept from being made for a moment's work; of the memory the last sample.
#[allow(clippy::cast_possible_truncation, reason = "clamped to a percentage")]
fn machine_load(load: &Load) -> MachineLoad {
    let memory = load.memory_used.saturating_mul(100).checked_div(load.memory_total).unwrap_or(0);
    MachineLoad { cpu: (load.cpu_permille / 10).min(100) as u32, memory: memory.min(100) as u32 }
}

fn with_functions(mut load: Load, hosting: &Hosting) -> Load {
    let figures = hosting.figures().into_iter();
    let mut functions: Vec<_> = figures
        .map(|(name, figures)| FunctionLoad {
            name,
            backlog: figures.backlog,
            in_flight: figures.in_flight,
            done: figures.done,
            failed: figures.failed,
        })
        .collect();
    load.backlog = functions.iter().map(|function| function.backlog).sum();
    load.in_flight = functions.iter().map(|function| function.in_flight).sum();
    functions
        .sort_by_key(|function| std::cmp::Reverse((function.backlog + function.in_flight, function.done)));
    functions.truncate(PAGE_FUNCTIONS_MAX);
    functions.sort_by(|a, b| a.name.cmp(&b.name));
    load.functions = functions;
    load
}

#[cfg(test)]
mod tests {
    use osiris_runtime::Sample;

    use super::*;

    #[test]
    fn one_busy_sample_is_no_busy_machine() {
        let mut window = Window::default();
        let sample =
            |cpu_percent| Sample { cpu_percent, memory_used: 30, memory_total: 90, ..Sample::default() };
        let mut at = |second, cpu_percent| {
            let load = window.push(Duration::from_secs(second), sample(cpu_percent));
            machine_load(&load)
        };
        for second in 0..6 {
            at(5 * second, 10.0);
        }
        assert_eq!(at(30, 100.0), MachineLoad { cpu: 25, memory: 33 });
        for second in 7..13 {
            at(5 * second, 100.0);
        }
        assert_eq!(at(65, 100.0).cpu, 100);
    }
}
