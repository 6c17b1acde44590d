//! `compose.yaml`: what it says is what the command takes, and its services are a fleet.
//!
//! There is no compose here. Where Docker is, this test does with it what the file says, key by key; a key that it does
//! not know fails it.

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

/// What the file says, done by Docker alone.
struct Project {
    dir: tempfile::TempDir,
    name: String,
    compose: Value,
}

impl Drop for Project {
    fn drop(&mut self) {
        self.down();
        for (volume, _) in map(&self.compose["volumes"]) {
            let _ = Command::new("docker").args(["volume", "rm", "-f", &self.named(&volume)]).output();
        }
        let _ = Command::new("docker").args(["network", "rm", &self.named("fleet")]).output();
    }
}

impl Project {
    fn named(&self, thing: &str) -> String {
        format!("{}_{thing}", self.name)
    }

    /// The arguments of `docker run` for a service.
    fn arguments(&self, service: &str) -> Vec<String> {
        let mut words = Vec::new();
        let mut flag = |name: &str, value: String| words.push(format!("--{name}={value}"));
        for (key, value) in map(&self.compose["services"][service]) {
            match key.as_str() {
                "image" | "command" => {}
                "user" | "restart" | "cpus" => flag(&key, text(&value)),
                "read_only" => flag("read-only", value.as_bool().expect("true or false").to_string()),
                "mem_limit" => flag("memory", text(&value)),
                "pids_limit" => flag("pids-limit", text(&value)),
                "stop_grace_period" => flag("stop-timeout", text(&value).trim_end_matches('s').to_owned()),
                "cap_drop" => list(&value).into_iter().for_each(|value| flag("cap-drop", value)),
                "security_opt" => list(&value).into_iter().for_each(|value| flag("security-opt", value)),
                // Whoever runs this may have a node at these ports.
                "ports" => list(&value).into_iter().for_each(|value| {
                    let [address, _, port] = value.split(':').collect::<Vec<_>>()[..] else {
                        panic!("no address and two ports: {value}")
                    };
                    flag("publish", format!("{address}::{port}"));
                }),
                "volumes" => list(&value).into_iter().for_each(|value| flag("volume", self.named(&value))),
                "environment" => {
                    map(&value)
                        .into_iter()
                        .for_each(|(name, value)| flag("env", format!("{name}={}", text(&value))));
                }
                "networks" => {
                    for (name, network) in map(&value) {
                        flag("network", self.named(&name));
                        flag("ip", text(&network["ipv4_address"]));
                    }
                }
                "secrets" => list(&value).into_iter().for_each(|name| {
                    let file = text(&self.compose["secrets"][name.as_str()]["file"]);
                    let file = self.dir.path().join(file.trim_start_matches("./"));
                    flag("volume", format!("{}:/run/secrets/{name}:ro", file.display()));
                }),
                "healthcheck" => map(&value).into_iter().for_each(|(key, value)| match key.as_str() {
                    // Docker's command line has it run by a shell, so the image says it here.
                    "test" => assert_eq!(list(&value), ["CMD", "/osiris", "status", "--ready"]),
                    "interval" | "timeout" | "retries" => flag(&format!("health-{key}"), text(&value)),
                    other => panic!("healthcheck: {other}"),
                }),
                other => panic!("the key {other} is not known here"),
            }
        }
        words
    }

    /// `docker compose run --rm`, or `up --detach` where no other command is given.
    fn start(&self, service: &str, other: Option<&[&str]>) -> String {
        let mut command = Command::new("docker");
        command.arg("run").args(self.arguments(service).iter().filter(|word| {
            // Those that go at once are not restarted, publish nothing, and are not looked after.
            other.is_none() || !["--restart", "--publish"].iter().any(|flag| word.starts_with(flag))
        }));
        match other {
            None => {
                command.args(["--detach", "--name", &self.named(service), IMAGE]);
                command.args(list(&self.compose["services"][service]["command"]));
            }
            Some(other) => {
                command.args(["--rm", IMAGE]).args(other);
            }
        }
        run(&mut command)
    }

    fn up(&self) {
        for (service, _) in map(&self.compose["services"]) {
            let there = docker(&["ps", "-q", "--filter", &format!("name={}", self.named(&service))]);
            if there.is_empty() {
                self.start(&service, None);
            }
        }
    }

    fn down(&self) {
        for (service, _) in map(&self.compose["services"]) {
            let name = self.named(&service);
            let _ = Command::new("docker").args(["stop", &name]).output();
            let _ = Command::new("docker").args(["rm", "-f", &name]).output();
        }
    }

    fn connected(&self) -> usize {
        let mut nodes = Command::new("docker");
        nodes.args(["exec", &self.named("first"), "/osiris", "nodes", "-o", "json"]);
        let said = nodes.output().expect("it runs").stdout;
        let nodes: Value = serde_norway::from_slice(&said).unwrap_or_default();
        let rows = nodes.as_sequence().into_iter().flatten();
        rows.filter(|row| ["this", "connected"].contains(&row["state"].as_str().unwrap_or_default())).count()
    }

    fn until_connected(&self, many: usize) {
        let end = Instant::now() + PATIENCE;
        while self.connected() != many {
            let log = || Command::new("docker").args(["logs", "--tail=5", &self.named("first")]).output();
            assert!(Instant::now() < end, "{} of {many} are connected: {:?}", self.connected(), log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
#[ignore = "needs docker"]
fn its_services_are_a_fleet_that_comes_back() {
    let dir = tempfile::tempdir().expect("a folder");
    // Without a check of the image its times, which are those of the file, would mean nothing to Docker.
    image(dir.path(), IMAGE, &["HEALTHCHECK CMD [\"/osiris\", \"status\", \"--ready\"]"]);
    let project = Project { dir, name: format!("c{}", std::process::id()), compose: compose() };
    let subnet = text(&project.compose["networks"]["fleet"]["ipam"]["config"][0]["subnet"]);
    docker(&["network", "create", "--subnet", &subnet, &project.named("fleet")]);
    // The steps at the head of the file.
    let put = |name: &str, content: &str| fs::write(project.dir.path().join(name), content).expect("written");
    for (name, content) in [("ticket", ""), ("token", "0123456789abcdef0123456789abcdef")] {
        put(name, content);
        run(Command::new("chmod").arg("600").arg(project.dir.path().join(name)));
        run(Command::new("chown").arg("65532").arg(project.dir.path().join(name)));
    }
    assert!(project.start("first", Some(&["init", "--name", "home"])).contains("recovery key"));
    project.start("first", None);
    project.until_connected(1);
    let ticket = docker(&["exec", &project.named("first"), "/osiris", "invite", "--uses", "2"]);
    put("ticket", &ticket);
    project.up();
    project.until_connected(3);
    put("ticket", "");
    project.down();
    assert_eq!(project.connected(), 0);
    project.up();
    project.until_connected(3);
    // Its own check says so too.
    let end = Instant::now() + PATIENCE;
    while docker(&["inspect", "--format", "{{.State.Health.Status}}", &project.named("third")]) != "healthy" {
        assert!(Instant::now() < end, "it is not healthy");
        std::thread::sleep(Duration::from_millis(100));
    }
}
