//! What a machine of the demo is: a container where a Docker is reached that runs this program, else a process. Either
//! way machines are counted by whoever runs them, and not by the fleet's own records.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::Serialize;

use crate::args::{DemoScaleArgs, LocalTarget};
use crate::backend::driver;
use crate::commands::provision::{Engine, running_under};
use crate::exit::Failure;

/// Where Docker's socket is, unless DOCKER_HOST says otherwise.
const SOCKET: &str = "/var/run/docker.sock";

/// A module, as it is in `terraform/machines`.
macro_rules! module {
    ($target:literal) => {
        [
            ("main.tf", include_str!(concat!("../../../../../terraform/machines/", $target, "/main.tf"))),
            (
                "variables.tf",
                include_str!(concat!("../../../../../terraform/machines/", $target, "/variables.tf")),
            ),
            (
                "outputs.tf",
                include_str!(concat!("../../../../../terraform/machines/", $target, "/outputs.tf")),
            ),
            (
                "versions.tf",
                include_str!(concat!("../../../../../terraform/machines/", $target, "/versions.tf")),
            ),
        ]
    };
}

const PROCESS: [(&str, &str); 4] = module!("process");
const DOCKER: [(&str, &str); 4] = module!("docker");

/// What machines are, and where they are counted.
#[derive(Debug)]
pub(super) enum Target {
    /// Processes with their data below this folder.
    Process(PathBuf),
    /// Containers in a network of their own.
    Docker(Box<Engine>),
}

/// A machine that runs.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Machine {
    spawn: String,
    /// The socket of its node, where that can be reached from here.
    #[serde(skip)]
    pub(super) socket: Option<PathBuf>,
}

impl Target {
    /// The target that was asked for, or the one that this machine has; and why.
    pub(super) async fn choose(args: &DemoScaleArgs, root: &Path) -> Result<(Self, String), Failure> {
        let process = || Self::Process(root.join("m"));
        if args.target == Some(LocalTarget::Process) {
            return Ok((process(), "as asked for".to_owned()));
        }
        let name = format!("osiris-demo-{}", std::process::id());
        let socket = socket(std::env::var("DOCKER_HOST").ok().as_deref());
        let engine = match socket {
            Some(socket) => Engine::prepare(&socket, &name, args.image.as_deref()).await,
            None => Err(Failure::failed("DOCKER_HOST names no socket of this machine.")),
        };
        match engine {
            Ok(engine) => {
                let why = engine.says();
                Ok((Self::Docker(Box::new(engine)), why))
            }
            Err(failure) if args.target.is_none() => {
                Ok((process(), format!("no containers: {}", failure.message.trim_end_matches('.'))))
            }
            Err(failure) => Err(failure),
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Process(_) => "process",
            Self::Docker(_) => "docker",
        }
    }

    /// By what machines are counted.
    pub(super) fn counted_by(&self) -> &'static str {
        match self {
            Self::Process(_) => "the table of processes",
            Self::Docker(_) => "the engine's list of containers",
        }
    }

    /// Where the fleet's nodes listen for each other and for machines.
    pub(super) fn mesh(&self) -> SocketAddr {
        match self {
            Self::Process(_) => SocketAddr::from(([127, 0, 0, 1], 0)),
            Self::Docker(engine) => SocketAddr::new(engine.gateway(), 0),
        }
    }

    /// What the module takes besides the contract's variables.
    pub(super) fn variables(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Process(place) => {
                vec![("place", place.display().to_string()), ("mesh", "127.0.0.1:0".to_owned())]
            }
            Self::Docker(engine) => vec![
                ("docker", engine.socket().display().to_string()),
                ("image", engine.image().to_owned()),
                ("network", engine.network().to_owned()),
            ],
        }
    }

    /// Writes the module into a folder, and makes the place for machines.
    pub(super) fn prepare(&self, folder: &Path) -> Result<(), Failure> {
        let module = match self {
            Self::Process(_) => PROCESS,
            Self::Docker(_) => DOCKER,
        };
        let mut written = fs::create_dir_all(folder);
        for (name, text) in module {
            written = written.and_then(|()| fs::write(folder.join(name), text));
        }
        if let Self::Process(place) = self {
            written = written.and_then(|()| fs::create_dir_all(place));
        }
        written.map_err(|e| {
            Failure::failed(format!("The module cannot be written to {}: {e}.", folder.display()))
        })
    }

    /// The configuration of a node that makes machines.
    pub(super) fn config(&self, module: &Path, terraform: &Path) -> String {
        let mut config = format!(
            "[provision]\ntarget = {:?}\nmodule = {:?}\nshared = true\nterraform = {:?}\n\n[provision.variables]\n",
            self.name(),
            module.display().to_string(),
            terraform.display().to_string(),
        );
        for (name, value) in self.variables() {
            // Writing to a String cannot fail.
            let _ = writeln!(config, "{name} = {value:?}");
        }
        config
    }

    /// The machines that run.
    pub(super) async fn machines(&self) -> Result<Vec<Machine>, Failure> {
        match self {
            Self::Process(place) => {
                let machine =
                    |spawn, data: PathBuf| Machine { spawn, socket: Some(driver::socket_path(&data, None)) };
                Ok(running_under(place)?.into_iter().map(|found| machine(found.spawn, found.data)).collect())
            }
            Self::Docker(engine) => {
                let there = engine.machines().await?.into_iter().filter(|container| container.runs);
                Ok(there.map(|container| Machine { spawn: container.spawn, socket: None }).collect())
            }
        }
    }

    /// Whatever is left of machines, also of those that run no more.
    pub(super) async fn left(&self) -> Result<Vec<String>, Failure> {
        match self {
            Self::Process(place) => {
                let running = running_under(place)?.into_iter().map(|found| found.spawn);
                let entries = fs::read_dir(place).into_iter().flatten().flatten();
                let files = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
                Ok(running.chain(files).collect())
            }
            Self::Docker(engine) => {
                Ok(engine.machines().await?.into_iter().map(|found| found.spawn).collect())
            }
        }
    }

    /// Ends the machines and takes away what was made for them, however the demo ended.
    pub(super) async fn end(&self) {
        match self {
            Self::Process(place) => {
                for machine in running_under(place).unwrap_or_default() {
                    if let Ok(handle) = pidfd_open(machine.pid, PidfdFlags::empty()) {
                        let _ = pidfd_send_signal(&handle, Signal::KILL);
                    }
                }
            }
            Self::Docker(engine) => engine.end().await,
        }
    }
}

/// The socket that DOCKER_HOST names; Docker's own where it is not set.
fn socket(host: Option<&str>) -> Option<PathBuf> {
    match host.filter(|host| !host.is_empty()) {
        None => Some(PathBuf::from(SOCKET)),
        Some(host) => host.strip_prefix("unix://").map(PathBuf::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_docker_of_another_machine_is_none_of_this_one() {
        assert_eq!(socket(None), Some(PathBuf::from(SOCKET)));
        assert_eq!(socket(Some("")), Some(PathBuf::from(SOCKET)));
        assert_eq!(socket(Some("unix:///run/x")), Some(PathBuf::from("/run/x")));
        assert_eq!(socket(Some("tcp://192.0.2.1:2375")), None);
    }

    #[test]
    fn what_a_node_is_configured_with_is_toml() {
        let target = Target::Process(PathBuf::from("/a \"b\"/m"));
        let config: toml::Value =
            toml::from_str(&target.config(Path::new("/module"), Path::new("/t"))).expect("TOML");
        assert_eq!(config["provision"]["target"].as_str(), Some("process"));
        assert_eq!(config["provision"]["variables"]["place"].as_str(), Some("/a \"b\"/m"));
    }
}
