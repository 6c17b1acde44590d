//! How the machine is doing.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sysinfo::{
    Components, CpuRefreshKind, MemoryRefreshKind, Networks, Pid, ProcessRefreshKind, ProcessesToUpdate,
    RefreshKind, System,
};

use crate::cgroup::CpuLimit;

/// Where the system shows control groups, and which of them this process is in.
const CGROUPS: &str = "/sys/fs/cgroup";
const OWN_CGROUP: &str = "/proc/self/cgroup";

/// One look at the machine. What cannot be known is 0 or absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Use of all cores together, 0 to 100, since the sample before; of the time that a control group allows, where
    /// that is less: a container's or a service's share.
    pub cpu_percent: f32,
    /// Cores; of a share its next whole number.
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
    cgroups: PathBuf,
    own_cgroup: PathBuf,
    /// A limit of processor time, and what had been used of it at the last look.
    share: Option<(CpuLimit, Instant, Duration)>,
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
            cgroups: CGROUPS.into(),
            own_cgroup: OWN_CGROUP.into(),
            share: None,
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
            if let Some((cores, percent)) =
                share(&self.cgroups, &self.own_cgroup, &mut self.share, sample.cores)
            {
                (sample.cores, sample.cpu_percent) = (cores, percent);
            }
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

/// Cores that a control group leaves, and the use of that, percent, since the look before; none where it leaves all.
/// The limit is read anew each time, since it can be changed at any time.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a small whole number, and a percentage"
)]
fn share(
    cgroups: &Path,
    own: &Path,
    before: &mut Option<(CpuLimit, Instant, Duration)>,
    cores: u32,
) -> Option<(u32, f32)> {
    let limit = CpuLimit::find(cgroups, own).filter(|limit| limit.cores < f64::from(cores));
    let looked = limit.and_then(|limit| Some((limit.clone(), Instant::now(), limit.used()?)));
    let former = std::mem::replace(before, looked.clone());
    let (limit, now, used) = looked?;
    let percent = former.filter(|(known, ..)| *known == limit).map_or(0.0, |(_, then, before)| {
        let allowed = now.duration_since(then).as_secs_f64() * limit.cores;
        let share = used.saturating_sub(before).as_secs_f64() / allowed.max(f64::MIN_POSITIVE);
        (share * 100.0).clamp(0.0, 100.0) as f32
    });
    Some((limit.cores.ceil() as u32, percent))
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
        let work = |ms| {
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(ms) {
                std::hint::black_box(blake3::hash(&[7; 4096]));
            }
        };
        let mut monitor = Monitor::new(std::env::temp_dir());
        // A process that has used no tick of the clock yet, a hundredth of a second, has no use to count from.
        work(100);
        let first = monitor.sample();
        work(400);
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
    fn what_a_control_group_leaves_is_the_whole() {
        let dir = tempfile::tempdir().expect("a folder");
        let write =
            |name: &str, content: &str| std::fs::write(dir.path().join(name), content).expect("written");
        write("own", "0::/\n");
        write("cpu.max", "50000 100000\n");
        write("cpu.stat", "usage_usec 1000000\n");
        let mut monitor = Monitor::new(std::env::temp_dir());
        (monitor.cgroups, monitor.own_cgroup) = (dir.path().to_owned(), dir.path().join("own"));
        let first = monitor.sample();
        assert_eq!((first.cores, first.cpu_percent), (1, 0.0));
        // Nothing was used, and then more than any time since allows.
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(monitor.sample().cpu_percent, 0.0);
        write("cpu.stat", "usage_usec 900000000\n");
        let busy = monitor.sample();
        assert_eq!((busy.cores, busy.cpu_percent), (1, 100.0));
        // Another limit begins anew, and one that is no limit here is none.
        write("cpu.max", "60000 100000\n");
        assert_eq!(monitor.sample().cpu_percent, 0.0);
        write("cpu.max", "max 100000\n");
        let whole = monitor.sample();
        assert_eq!(whole.cores as usize, monitor.system.as_ref().expect("a system").cpus().len());
    }

    #[test]
    fn a_missing_folder_has_no_disk() {
        assert_eq!(disk(Path::new("/no/such/folder")), (0, 0));
    }
}
