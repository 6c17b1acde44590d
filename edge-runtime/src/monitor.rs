//! How the machine is doing.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sysinfo::{
    Components, CpuRefreshKind, MemoryRefreshKind, Networks, Pid, ProcessRefreshKind, ProcessesToUpdate,
    RefreshKind, System,
};

/// One look at the machine. What cannot be known is 0 or absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Use of all cores together, 0 to 100, since the sample before.
    pub cpu_percent: f32,
    /// Cores.
    pub cores: u32,
    /// Memory in use, in bytes; of the container where there is one with a limit.
    pub memory_used: u64,
    /// Memory there is, in bytes; the container's limit where it has one.
    pub memory_total: u64,
    /// Mean number of runnable tasks over a minute.
    pub load1: f64,
    /// The same over 5 minutes.
    pub load5: f64,
    /// The same over 15 minutes.
    pub load15: f64,
    /// Bytes in use on the disk that holds the data folder.
    pub disk_used: u64,
    /// Bytes of that disk.
    pub disk_total: u64,
    /// Bytes received on all interfaces but loopback since the machine started.
    pub network_rx: u64,
    /// Bytes sent, likewise.
    pub network_tx: u64,
    /// Sensors, where the machine has any.
    pub temperatures: Vec<Temperature>,
    /// Resident memory of this process, in bytes.
    pub process_memory: u64,
    /// Use of one core by this process since the sample before; 200 is two whole cores.
    pub process_cpu_percent: f32,
}

/// One sensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Temperature {
    /// What it measures, in the words of its driver.
    pub label: String,
    /// Degrees Celsius.
    pub celsius: f32,
}

/// Takes samples. Percentages count from the sample before, so keep one and ask it every few seconds.
#[derive(Debug)]
pub struct Monitor {
    data_dir: PathBuf,
    system: Option<System>,
    networks: Option<Networks>,
    sensors: Option<Components>,
    process: Option<Pid>,
}

impl Monitor {
    /// A monitor of this machine and of the disk that holds `data_dir`.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let kinds = RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing().with_usage())
            .with_memory(MemoryRefreshKind::nothing().with_ram());
        // A machine may hide any of these; the rest is still worth having.
        Self {
            data_dir: data_dir.into(),
            system: System::new_with_specifics(kinds).ok(),
            networks: Networks::new_with_refreshed_list().ok(),
            sensors: Components::new_with_refreshed_list().ok(),
            process: sysinfo::get_current_pid().ok(),
        }
    }

    /// Looks at the machine. It blocks for about a millisecond.
    pub fn sample(&mut self) -> Sample {
        let mut sample = Sample::default();
        if let Some(system) = &mut self.system {
            system.refresh_cpu_usage();
            system.refresh_memory();
            sample.cpu_percent = system.global_cpu_usage();
            sample.cores = system.cpus().len() as u32;
            (sample.memory_used, sample.memory_total) = memory(system);
            if let Some(pid) = self.process {
                let kinds = ProcessRefreshKind::nothing().with_cpu().with_memory();
                system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, kinds);
                if let Some(process) = system.process(pid) {
                    sample.process_memory = process.memory();
                    sample.process_cpu_percent = process.cpu_usage();
                }
            }
        }
        if let Ok(load) = System::load_average() {
            (sample.load1, sample.load5, sample.load15) = (load.one, load.five, load.fifteen);
        }
        (sample.disk_used, sample.disk_total) = disk(&self.data_dir);
        if let Some(networks) = &mut self.networks {
            networks.refresh(true);
            for (_, network) in networks.iter().filter(|(name, _)| *name != "lo") {
                sample.network_rx += network.total_received();
                sample.network_tx += network.total_transmitted();
            }
        }
        if let Some(sensors) = &mut self.sensors {
            sensors.refresh(false);
            let read = |s: &sysinfo::Component| {
                Some(Temperature { label: s.label().to_owned(), celsius: s.temperature()? })
            };
            sample.temperatures = sensors.iter().filter_map(read).filter(|t| t.celsius.is_finite()).collect();
        }
        sample
    }
}

/// Bytes used and there, of the container where its limit is below the machine's.
fn memory(system: &System) -> (u64, u64) {
    match system.cgroup_limits() {
        Some(limits) if limits.total_memory > 0 && limits.total_memory < system.total_memory() => {
            (limits.total_memory.saturating_sub(limits.free_memory), limits.total_memory)
        }
        _ => (system.used_memory(), system.total_memory()),
    }
}

/// Memory there is: what the pool and the budget are chosen by. A machine that does not say counts as a
/// small one.
pub(crate) fn memory_total_bytes() -> u64 {
    let kinds = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    System::new_with_specifics(kinds).map_or(1 << 30, |system| memory(&system).1)
}

fn disk(dir: &Path) -> (u64, u64) {
    rustix::fs::statvfs(dir).map_or((0, 0), |disk| {
        let total = disk.f_blocks * disk.f_frsize;
        (total.saturating_sub(disk.f_bavail * disk.f_frsize), total)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_plausible_and_survives_json() {
        let mut monitor = Monitor::new(std::env::temp_dir());
        let first = monitor.sample();
        // Work, so that there is something to measure.
        let start = std::time::Instant::now();
        while start.elapsed() < std::time::Duration::from_millis(400) {
            std::hint::black_box(blake3::hash(&[7; 4096]));
        }
        let second = monitor.sample();
        assert!(first.memory_total > 0 && (1..=first.memory_total).contains(&first.memory_used));
        assert!(first.disk_total > 0 && first.disk_used <= first.disk_total);
        assert!((1..=first.memory_total).contains(&first.process_memory));
        assert!(first.cores > 0);
        assert!(second.cpu_percent > 0.0 && second.cpu_percent <= 100.0, "{}", second.cpu_percent);
        assert!(second.process_cpu_percent > 10.0, "{}", second.process_cpu_percent);
        let text = serde_json::to_string(&second).expect("serializes");
        assert_eq!(serde_json::from_str::<Sample>(&text).expect("reads back"), second);
    }

    #[test]
    fn a_missing_folder_has_no_disk() {
        assert_eq!(disk(Path::new("/no/such/folder")), (0, 0));
    }
}
