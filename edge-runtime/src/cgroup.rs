//! The processor time that a control group allows: a container's share, or a service's.
//!
//! Both hierarchies are read, `cgroup-v1` and `cgroup-v2` of the kernel's documentation. A limit binds wherever it
//! stands on the way up from this process' group, so the tightest is what there is. A container that sees only its
//! own part of the tree finds that at the root.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A limit, and where the time is counted that it is about.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CpuLimit {
    /// Cores' worth of time, above 0; half a core is 0.5.
    pub(crate) cores: f64,
    usage: Usage,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Usage {
    /// `usage_usec` in `cpu.stat`.
    V2(PathBuf),
    /// Nanoseconds in `cpuacct.usage`.
    V1(PathBuf),
}

impl CpuLimit {
    /// The tightest limit of the group that `own` (`/proc/self/cgroup`) names, below `root` (`/sys/fs/cgroup`). None
    /// where there is none, or nothing that can be read.
    pub(crate) fn find(root: &Path, own: &Path) -> Option<Self> {
        let own = fs::read_to_string(own).ok()?;
        let mut tightest: Option<Self> = None;
        let mut consider = |limit: Option<Self>| {
            let is_tighter = |limit: &Self| tightest.as_ref().is_none_or(|known| limit.cores < known.cores);
            if let Some(limit) = limit.filter(is_tighter) {
                tightest = Some(limit);
            }
        };
        // Lines of `hierarchy:controllers:path`; version 2 has the hierarchy 0 and names no controllers.
        for line in own.lines() {
            let mut parts = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
                continue;
            };
            if controllers.is_empty() {
                groups(root, path).for_each(|group| consider(of_v2(&group)));
            } else if controllers.split(',').any(|controller| controller == "cpu") {
                // The folder is named as the line, or by one of its controllers, where a link leads to it.
                let base = root.join(controllers);
                let base = if base.is_dir() { base } else { root.join("cpu") };
                groups(&base, path).for_each(|group| consider(of_v1(root, &base, &group)));
            }
        }
        tightest
    }

    /// Processor time that was used so far.
    pub(crate) fn used(&self) -> Option<Duration> {
        match &self.usage {
            Usage::V2(stat) => {
                let stat = fs::read_to_string(stat).ok()?;
                let used = stat.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
                used.trim().parse().ok().map(Duration::from_micros)
            }
            Usage::V1(usage) => fs::read_to_string(usage).ok()?.trim().parse().ok().map(Duration::from_nanos),
        }
    }
}

/// The group of a path and those above it, from the inside out, as far as they can be seen.
fn groups(base: &Path, path: &str) -> impl Iterator<Item = PathBuf> {
    let inner = base.join(path.trim_start_matches('/'));
    let inner: Vec<_> = inner.ancestors().map(Path::to_owned).collect();
    let base = base.to_owned();
    // A path with `..` leads to where this process does not see.
    inner.into_iter().filter(move |group| group.starts_with(&base) && group.is_dir())
}

fn of_v2(group: &Path) -> Option<CpuLimit> {
    let max = fs::read_to_string(group.join("cpu.max")).ok()?;
    let (quota, period) = max.trim().split_once(' ')?;
    Some(CpuLimit { cores: cores(quota, period)?, usage: Usage::V2(group.join("cpu.stat")) })
}

fn of_v1(root: &Path, base: &Path, group: &Path) -> Option<CpuLimit> {
    let read = |name| fs::read_to_string(group.join(name)).ok();
    let cores = cores(read("cpu.cfs_quota_us")?.trim(), read("cpu.cfs_period_us")?.trim())?;
    // Time is counted by a controller of its own, which has the same path where it has another folder.
    let below = group.strip_prefix(base).ok()?;
    let counted = [group.to_owned(), root.join("cpuacct").join(below)];
    let mut counted = counted.into_iter().map(|folder| folder.join("cpuacct.usage"));
    Some(CpuLimit { cores, usage: Usage::V1(counted.find(|file| file.is_file())?) })
}

/// None where nothing is limited: `max` in version 2, -1 in version 1.
fn cores(quota: &str, period: &str) -> Option<f64> {
    let (quota, period) = (quota.parse::<u32>().ok()?, period.parse::<u32>().ok()?);
    (quota > 0 && period > 0).then(|| f64::from(quota) / f64::from(period))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// A tree of files, and the limit that is found with this list of groups.
    fn found(own: &str, files: &[(&str, &str)]) -> (TempDir, Option<CpuLimit>) {
        let dir = tempfile::tempdir().expect("a folder");
        let root = dir.path().join("cgroup");
        for (name, content) in files {
            let file = root.join(name);
            fs::create_dir_all(file.parent().expect("a folder")).expect("made");
            fs::write(file, content).expect("written");
        }
        fs::write(dir.path().join("own"), own).expect("written");
        let limit = CpuLimit::find(&root, &dir.path().join("own"));
        (dir, limit)
    }

    #[test]
    fn the_tightest_limit_on_the_way_up_is_found() {
        let (_dir, limit) = found(
            "0::/system.slice/osiris.service\n",
            &[
                ("cpu.stat", "usage_usec 9\n"),
                ("system.slice/cpu.max", "50000 100000\n"),
                ("system.slice/cpu.stat", "usage_usec 2500000\nuser_usec 1\n"),
                ("system.slice/osiris.service/cpu.max", "150000 100000\n"),
                ("system.slice/osiris.service/cpu.stat", "usage_usec 7\n"),
            ],
        );
        let limit = limit.expect("a limit");
        assert_eq!((limit.cores, limit.used()), (0.5, Some(Duration::from_millis(2_500))));
    }

    #[test]
    fn a_container_that_sees_its_own_group_alone_finds_the_limit_at_the_root() {
        let files = [("cpu.max", "25000 100000\n"), ("cpu.stat", "usage_usec 10\n")];
        for own in ["0::/\n", "0::/docker/0123\n", "0::/../../elsewhere\n"] {
            let (_dir, limit) = found(own, &files);
            assert_eq!(limit.map(|limit| limit.cores), Some(0.25), "{own}");
        }
    }

    #[test]
    fn version_1_is_read_with_its_controllers_apart_and_together() {
        let quota = |folder: &str| format!("{folder}/docker/7/cpu.cfs_quota_us");
        let period = |folder: &str| format!("{folder}/docker/7/cpu.cfs_period_us");
        let (_dir, limit) = found(
            "4:memory:/docker/7\n2:cpuacct:/docker/7\n1:cpu:/docker/7\n0::/docker/7\n",
            &[
                (&quota("cpu"), "200000\n"),
                (&period("cpu"), "100000\n"),
                ("cpuacct/docker/7/cpuacct.usage", "3000000000\n"),
            ],
        );
        let limit = limit.expect("a limit");
        assert_eq!((limit.cores, limit.used()), (2.0, Some(Duration::from_secs(3))));
        let (_dir, limit) = found(
            "3:cpu,cpuacct:/docker/7\n",
            &[
                (&quota("cpu,cpuacct"), "10000\n"),
                (&period("cpu,cpuacct"), "100000\n"),
                ("cpu,cpuacct/docker/7/cpuacct.usage", "5\n"),
            ],
        );
        assert_eq!(
            limit.map(|limit| (limit.cores, limit.used())),
            Some((0.1, Some(Duration::from_nanos(5))))
        );
    }

    #[test]
    fn where_nothing_is_limited_or_said_there_is_no_limit() {
        let none: [(&str, &[(&str, &str)]); 5] = [
            ("0::/\n", &[("cpu.max", "max 100000\n"), ("cpu.stat", "usage_usec 10\n")]),
            ("1:cpu:/\n", &[("cpu/cpu.cfs_quota_us", "-1\n"), ("cpu/cpu.cfs_period_us", "100000\n")]),
            ("0::/\n", &[]),
            ("0::/\n", &[("cpu.max", "0 0\n")]),
            ("garbage\n:\n", &[("cpu.max", "50000 100000\n")]),
        ];
        for (own, files) in none {
            assert_eq!(found(own, files).1, None, "{own} {files:?}");
        }
    }
}
