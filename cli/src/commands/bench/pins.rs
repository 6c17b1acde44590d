//! Which cores processes run on.
//!
//! At one connection latency depends on whether the kernel puts both ends on one core or on two. So each
//! end gets a core, the same for a floor and its subject, and every hop goes from one core to the other.
//! At many connections every process may use every core. `taskset` of util-linux does it: the system
//! call is not reachable from here without unsafe code.

use std::fs;
use std::process::Stdio;

use serde::Serialize;
use tokio::process::Command;

use crate::exit::Failure;

/// The program that pins.
const TASKSET: &str = "taskset";

/// The cores that are used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Pins {
    /// Of a request over one connection: where it is asked, and where it is answered.
    ends: [usize; 2],
    /// All cores, as `taskset -c` takes them.
    all: String,
}

impl Pins {
    /// The cores of this machine, or why nothing can be pinned.
    pub(super) async fn find() -> Result<Self, String> {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let all = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let all = all.map(str::trim).ok_or("/proc does not say which cores there are")?;
        let siblings = |core| {
            let path = format!("/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list");
            fs::read_to_string(path).unwrap_or_default()
        };
        let ends = ends(&cores(all), siblings).ok_or("there is only one core")?;
        let found = Command::new(TASKSET).arg("--version").stdout(Stdio::null()).status().await;
        match found {
            Ok(status) if status.success() => Ok(Self { ends, all: all.to_owned() }),
            _ => Err("taskset (util-linux) is not installed".to_owned()),
        }
    }

    /// Puts the processes that answer, in the order in which a request meets them, where they belong.
    /// Returns the cores for the one that asks.
    pub(super) async fn place(&self, connections: usize, servers: &[u32]) -> Result<String, Failure> {
        for (hop, pid) in servers.iter().enumerate() {
            put(*pid, &self.list(connections, hop + 1)).await?;
        }
        Ok(self.list(connections, 0))
    }

    fn list(&self, connections: usize, hop: usize) -> String {
        if connections == 1 { self.ends[hop % 2].to_string() } else { self.all.clone() }
    }

    /// What was pinned, for people.
    pub(super) fn describe(&self) -> String {
        let [asks, answers] = self.ends;
        format!(
            "pinned by taskset at 1 connection: who asks to core {asks}, who answers to core {answers}, and a node \
             that a relay goes on to to core {asks}; else cores {} for all",
            self.all
        )
    }
}

/// A command that runs on these cores.
pub(super) fn on(list: &str, program: &std::path::Path) -> Command {
    let mut command = Command::new(TASKSET);
    command.args(["-c", list]).arg(program);
    command
}

/// Moves a process, thread by thread: `taskset -a` fails when one of them ends meanwhile.
async fn put(pid: u32, list: &str) -> Result<(), Failure> {
    let fail = |said: &str| {
        Failure::failed(format!("The process {pid} cannot be put on the cores {list}: {}.", said.trim()))
    };
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_err(|e| fail(&e.to_string()))?;
    for thread in threads.flatten() {
        let mut taskset = Command::new(TASKSET);
        let moved = taskset.args(["-c", "-p", list]).arg(thread.file_name()).output().await;
        let moved = moved.map_err(|e| fail(&e.to_string()))?;
        // A thread that is gone needs no core.
        if !moved.status.success() && thread.path().exists() {
            return Err(fail(&String::from_utf8_lossy(&moved.stderr)));
        }
    }
    Ok(())
}

/// A list of cores such as `0-3,8`.
fn cores(list: &str) -> Vec<usize> {
    let part = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some(from.trim().parse().ok()?..=to.trim().parse().ok()?)
    };
    list.split(',').filter_map(part).flatten().collect()
}

/// The first core, and the first other one that is not another thread of it, where there is one.
fn ends(cores: &[usize], siblings: impl Fn(usize) -> String) -> Option<[usize; 2]> {
    let (first, others) = cores.split_first()?;
    let own = self::cores(&siblings(*first));
    let apart = others.iter().find(|core| !own.contains(core)).or(others.first())?;
    Some([*first, *apart])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ends_are_no_threads_of_one_core() {
        assert_eq!(cores("0-3,8\n"), [0, 1, 2, 3, 8]);
        let pairs = |core: usize| format!("{}-{}\n", core / 2 * 2, core / 2 * 2 + 1);
        assert_eq!(ends(&[2, 3, 6], pairs), Some([2, 6]));
        assert_eq!(ends(&[2, 3], pairs), Some([2, 3]), "better than none");
        assert_eq!(ends(&[0, 1], |core| core.to_string()), Some([0, 1]));
        assert_eq!(ends(&[5], |_| String::new()), None);
    }

    #[test]
    fn every_hop_goes_to_the_other_core_and_many_connections_to_all() {
        let pins = Pins { ends: [1, 4], all: "0-7".to_owned() };
        assert_eq!([0, 1, 2].map(|hop| pins.list(1, hop)), ["1", "4", "1"]);
        assert_eq!([0, 1, 2].map(|hop| pins.list(32, hop)), ["0-7"; 3]);
    }

    #[tokio::test]
    async fn a_process_runs_where_it_was_put() {
        let pins = match Pins::find().await {
            Ok(pins) => pins,
            Err(why) => {
                assert!(why.contains("core") || why.contains("taskset"), "{why}");
                return;
            }
        };
        let list = |status: &str| {
            let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
            list.expect("a list").trim().to_owned()
        };
        let allowed = |pid: u32| list(&fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs"));
        let last = pins.ends[1].to_string();
        let own = on(&last, "cat".as_ref()).arg("/proc/self/status").output().await.expect("started");
        assert_eq!(list(&String::from_utf8_lossy(&own.stdout)), last);
        let mut child = Command::new("sleep").arg("60").kill_on_drop(true).spawn().expect("started");
        let pid = child.id().expect("it runs");
        let asks = pins.place(1, &[pid]).await.expect("pinned");
        assert_eq!((allowed(pid), asks), (last, pins.ends[0].to_string()));
        assert_eq!(pins.place(32, &[pid]).await.expect("pinned"), pins.all);
        assert_eq!(allowed(pid), pins.all);
        let nowhere = Pins { ends: [9999; 2], all: "9999".to_owned() };
        let refused = nowhere.place(1, &[pid]).await.expect_err("there is no such core").message;
        assert!(refused.contains("9999"), "{refused}");
        child.kill().await.expect("ended");
        assert!(pins.place(1, &[pid]).await.is_err(), "it is gone");
    }
}
