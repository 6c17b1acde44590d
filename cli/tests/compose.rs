//! `compose.yaml`: what it says is what the command takes, and its services are a fleet.
//!
//! Where Docker and Compose are, they do what the head of the file says.

mod image;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use image::{docker, image, run};
use serde_norway::Value;

const IMAGE: &str = "osiris-test-compose:latest";
/// Longer than anything here takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(120);

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn compose() -> Value {
    let mut value: Value = serde_norway::from_str(&file("compose.yaml")).expect("YAML");
    value.apply_merge().expect("merged");
    value
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        other => panic!("no text: {other:?}"),
    }
}

fn list(value: &Value) -> Vec<String> {
    value.as_sequence().unwrap_or_else(|| panic!("no list: {value:?}")).iter().map(text).collect()
}

fn map(value: &Value) -> Vec<(String, Value)> {
    let map = value.as_mapping().unwrap_or_else(|| panic!("no map: {value:?}"));
    map.iter().map(|(name, value)| (text(name), value.clone())).collect()
}

fn osiris(folder: &Path, arguments: &[String]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_osiris"));
    command.args(arguments).env_clear().env("HOME", folder).env("OSIRIS_DATA", folder.join("data"));
    command.output().expect("it runs")
}

#[test]
fn commands_and_variables_are_those_of_the_program() {
    let folder = tempfile::tempdir().expect("a folder");
    let help = osiris(folder.path(), &["up".to_owned(), "--help".to_owned()]);
    let help = String::from_utf8(help.stdout).expect("text");
    let known: BTreeSet<_> = help.split("[env: ").skip(1).filter_map(|rest| rest.split('=').next()).collect();
    let compose = compose();
    let services = map(&compose["services"]);
    assert_eq!(services.len(), 3);
    let mut addresses = BTreeSet::new();
    for (name, service) in services {
        // A folder without a fleet, and no ticket: not found. What it does not take would be a wrong use, which is 2.
        let said = osiris(folder.path(), &list(&service["command"]));
        assert_eq!(said.status.code(), Some(3), "{name}: {}", String::from_utf8_lossy(&said.stderr));
        let check = list(&service["healthcheck"]["test"]);
        assert_eq!(check[..2], ["CMD", "/osiris"], "{name}");
        let said = osiris(folder.path(), &check[2..]);
        assert_ne!(said.status.code(), Some(2), "{name}: {}", String::from_utf8_lossy(&said.stderr));
        for (variable, _) in map(&service["environment"]) {
            assert!(known.contains(variable.as_str()), "{name}: `osiris up` reads no {variable}");
        }
        addresses.insert(text(&service["networks"]["fleet"]["ipv4_address"]));
        for secret in list(&service["secrets"]) {
            assert!(compose["secrets"][secret.as_str()]["file"].is_string(), "{name}: {secret}");
        }
    }
    assert_eq!(addresses.len(), 3, "{addresses:?}");
}

#[test]
fn functions_are_built_by_the_toolchain_of_this_repository_from_what_is_there() {
    let toolchain: toml::Value = toml::from_str(&file("rust-toolchain.toml")).expect("TOML");
    let channel = toolchain["toolchain"]["channel"].as_str().expect("text");
    let dockerfile = file("examples/Dockerfile");
    assert!(dockerfile.contains(&format!("FROM rust:{channel}-slim-bookworm AS build\n")), "not {channel}");
    let ignored = file("examples/Dockerfile.dockerignore");
    let mut copied = 0;
    for line in dockerfile.lines().filter_map(|line| line.strip_prefix("COPY ")) {
        let from = line.split(' ').next().expect("a word");
        if !from.starts_with("--from") {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(from);
            assert!(path.exists(), "{from} is not there");
            assert!(ignored.lines().any(|line| line == format!("!{from}")), "{from} is not sent");
            copied += 1;
        }
    }
    assert_eq!(copied, 4);
}

/// The project, in a folder with its secrets.
struct Project {
    dir: tempfile::TempDir,
    name: String,
    /// Compose, as a part of Docker's command or as a command of its own.
    command: &'static [&'static str],
}

impl Drop for Project {
    fn drop(&mut self) {
        let _ = self.compose(&["down", "--volumes", "--timeout", "5"]).output();
    }
}

impl Project {
    fn new(dir: tempfile::TempDir) -> Self {
        let part = Command::new("docker").args(["compose", "version"]).output();
        let is_part = part.is_ok_and(|said| said.status.success());
        let command: &[_] = if is_part { &["docker", "compose"] } else { &["docker-compose"] };
        Self { dir, name: format!("c{}", std::process::id()), command }
    }

    fn compose(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.command[0]);
        command.args(&self.command[1..]);
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join("compose.yaml");
        command.arg("--project-directory").arg(self.dir.path()).arg("--file").arg(file);
        command.args(["--project-name", &self.name]).args(arguments).env("OSIRIS_IMAGE", IMAGE);
        // Whoever runs this may have a node at the ports that the file says, so Docker chooses.
        for port in ["FIRST_PORT", "SECOND_PORT", "THIRD_PORT"] {
            command.env(port, "0");
        }
        command
    }

    fn put(&self, secret: &str, content: &str) {
        fs::write(self.dir.path().join(secret), content).expect("written");
    }

    fn connected(&self) -> usize {
        let mut nodes = self.compose(&["exec", "-T", "first", "/osiris", "nodes", "-o", "json"]);
        let said = nodes.output().expect("it runs").stdout;
        let nodes: Value = serde_norway::from_slice(&said).unwrap_or_default();
        let rows = nodes.as_sequence().into_iter().flatten();
        rows.filter(|row| ["this", "connected"].contains(&row["state"].as_str().unwrap_or_default())).count()
    }

    fn until_connected(&self, many: usize) {
        let end = Instant::now() + PATIENCE;
        while self.connected() != many {
            let log = || self.compose(&["logs", "--tail=5"]).output();
            assert!(Instant::now() < end, "{} of {many} are connected: {:?}", self.connected(), log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The container of a service.
    fn container(&self, service: &str) -> String {
        run(&mut self.compose(&["ps", "-q", service]))
    }
}

#[test]
#[ignore = "needs both docker and compose"]
fn its_services_are_a_fleet_that_comes_back() {
    let dir = tempfile::tempdir().expect("a folder");
    image(dir.path(), IMAGE, &[]);
    let project = Project::new(dir);
    // The steps at the head of the file.
    let token = "0123456789abcdef0123456789abcdef";
    for (name, content) in [("ticket", ""), ("token", token)] {
        project.put(name, content);
        run(Command::new("chmod").arg("600").arg(project.dir.path().join(name)));
        run(Command::new("chown").arg("65532").arg(project.dir.path().join(name)));
    }
    let done = |arguments: &[&str]| run(&mut project.compose(arguments));
    let said = done(&["run", "--rm", "-T", "first", "init", "--name", "home"]);
    assert!(said.contains("recovery key"), "{said}");
    done(&["up", "--detach", "first"]);
    project.until_connected(1);
    let ticket = done(&["exec", "-T", "first", "/osiris", "invite", "--uses", "2"]);
    project.put("ticket", &ticket);
    done(&["up", "--detach"]);
    project.until_connected(3);
    project.put("ticket", "");
    done(&["down"]);
    assert_eq!(project.connected(), 0);
    done(&["up", "--detach"]);
    project.until_connected(3);
    // Its own check says so too.
    let third = project.container("third");
    let end = Instant::now() + PATIENCE;
    while docker(&["inspect", "--format", "{{.State.Health.Status}}", &third]) != "healthy" {
        assert!(Instant::now() < end, "it is not healthy");
        std::thread::sleep(Duration::from_millis(100));
    }
    // It is confined as the file says.
    let confined = "{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}} \
                    {{.HostConfig.Memory}} {{.HostConfig.PidsLimit}} {{.Config.User}} {{.Config.StopTimeout}}";
    let confined = docker(&["inspect", "--format", confined, &third]);
    assert_eq!(confined, "true [ALL] [no-new-privileges] 1073741824 256 65532:65532 40");
}
