//! Machines that are containers. The socket is that of `DOCKER_HOST`, or Docker's own.

mod image;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use image::{docker, image, run, terraform};
use serde_json::Value;

const IMAGE: &str = "osiris-test:latest";
/// Longer than anything here takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(120);

/// A node of this machine.
struct Home {
    dir: tempfile::TempDir,
    node: Child,
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = self.node.kill();
        let _ = self.node.wait();
    }
}

fn osiris(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_osiris"));
    command.args(arguments).env_clear().current_dir(dir).stdin(Stdio::null());
    command.env("HOME", dir).env("OSIRIS_DATA", dir.join("data")).env("OSIRIS_TARGET", "docker");
    command.env("OSIRIS_MESH", "0.0.0.0:0").env("OSIRIS_HTTP", "127.0.0.1:0").env("OSIRIS_IMAGE", IMAGE);
    if let Ok(host) = std::env::var("DOCKER_HOST") {
        command.env("OSIRIS_DOCKER", host.trim_start_matches("unix://"));
    }
    command
}

impl Home {
    fn founded() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        run(&mut osiris(dir.path(), &["init", "--name", "home", "--label", "maker"]));
        Self::up(dir, &[])
    }

    /// One that makes containers by Terraform.
    fn maker() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        run(&mut osiris(dir.path(), &["init", "--name", "home", "--label", "maker"]));
        let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("../terraform/machines/docker");
        let module = module.canonicalize().expect("the module");
        let socket = std::env::var("DOCKER_HOST").unwrap_or_default();
        let docker = match socket.strip_prefix("unix://") {
            Some(socket) => format!("docker = \"{socket}\"\n"),
            None => String::new(),
        };
        let config = format!(
            "[provision]\ntarget = \"docker\"\nmodule = {module:?}\n\n[provision.variables]\nimage = \"{IMAGE}\"\n{docker}"
        );
        fs::write(dir.path().join("data/config.toml"), config).expect("written");
        Self::up(dir, &["--machines", "1"])
    }

    fn up(dir: tempfile::TempDir, arguments: &[&str]) -> Self {
        let log = fs::File::create(dir.path().join("log")).expect("a log");
        let mut node = osiris(dir.path(), &[&["up"], arguments].concat());
        node.env("PATH", std::env::var("PATH").expect("a PATH")).stdout(Stdio::null()).stderr(log);
        let home = Self { dir, node: node.spawn().expect("it starts") };
        home.until("the node serves", || {
            home.command(&["status", "--ready"]).status().expect("it runs").success()
        });
        home
    }

    fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !holds() {
            let log = || fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < end, "in vain: {what}\n{}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What the ledger says of machines.
    fn machines(&self) -> Vec<Value> {
        let leases = self.json(&["lease", "ls"], "");
        let slots = leases["slots"].as_array().expect("slots").iter();
        slots.flat_map(|slot| slot["machines"].as_array().expect("machines").clone()).collect()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        osiris(self.dir.path(), arguments)
    }

    fn json(&self, arguments: &[&str], ticket: &str) -> Value {
        let mut command = self.command(arguments);
        let out = run(command.args(["-o", "json"]).env("OSIRIS_TICKET", ticket));
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }

    fn member(&self, label: &str) -> Option<String> {
        let nodes = self.json(&["nodes"], "");
        let row = nodes.as_array().expect("rows").iter().find(|row| row["label"] == label)?;
        row["state"].as_str().map(str::to_owned)
    }
}

#[test]
#[ignore = "needs docker"]
fn a_container_joins_is_healthy_can_do_little_and_leaves() {
    let home = Home::founded();
    image(home.dir.path(), IMAGE, &[]);
    let invited = home.json(&["invite"], "");
    let (block, ticket) =
        (invited["block"].as_str().expect("text"), invited["ticket"].as_str().expect("text"));
    let spawn = format!("m0-1-{}", &block[..16]);
    let up = ["provision", "up", "--spawn", &spawn];
    let made = home.json(&up, ticket);
    assert_eq!((&made["changed"], home.member(&spawn).as_deref()), (&true.into(), Some("connected")));
    let again = home.json(&up, ticket);
    assert_eq!((&again["changed"], &again["id"]), (&false.into(), &made["id"]));
    let inspected: Value = serde_json::from_str(&docker(&["inspect", &spawn])).expect("JSON");
    let inspected = &inspected[0];
    assert_eq!(inspected["State"]["Health"]["Status"], "healthy");
    assert_eq!(inspected["Config"]["User"], "65532:65532");
    assert_eq!(inspected["HostConfig"]["ReadonlyRootfs"], true);
    assert_eq!(inspected["HostConfig"]["CapDrop"][0], "ALL");
    assert_eq!(inspected["HostConfig"]["NanoCpus"], 1_000_000_000);
    assert!(!inspected.to_string().contains(ticket), "the ticket is shown");
    assert_eq!(home.json(&["provision", "status"], "")[0]["spawn"], spawn.as_str());
    // What has its name without its label is left alone.
    let foreign = format!("m9-1-{}", &block[..16]);
    docker(&["create", "--name", &foreign, IMAGE, "up"]);
    let refused =
        home.command(&["provision", "up", "--spawn", &foreign]).env("OSIRIS_TICKET", ticket).output();
    assert_eq!(refused.expect("it runs").status.code(), Some(4));
    assert_eq!(home.json(&["provision", "down", "--spawn", &foreign], "")["changed"], false);
    docker(&["rm", &foreign]);
    for changed in [true, false] {
        assert_eq!(home.json(&["provision", "down", "--spawn", &spawn], "")["changed"], changed);
    }
    assert_eq!(home.member(&spawn).as_deref(), Some("revoked"), "it has left the fleet");
    assert_eq!(home.json(&["provision", "status"], "").as_array().map(Vec::len), Some(0));
}

#[test]
#[ignore = "needs both docker and terraform"]
fn a_wish_becomes_a_container_by_terraform_and_it_goes_again() {
    let place = tempfile::tempdir().expect("a folder");
    image(place.path(), IMAGE, &[]);
    let home = Home::maker();
    home.json(&["lease", "limit", "--machines", "1", "--timeout", "300ms"], "");
    home.json(&["lease", "want"], "");
    home.until("it is made", || home.machines().iter().any(|made| made["doing"] == "made"));
    // Counted by the engine, not by the ledger.
    let made = home.machines();
    let spawn = format!("m0-1-{}", &made[0]["intent"].as_str().expect("an id")[..16]);
    let labelled = || docker(&["ps", "-a", "-q", "--filter", &format!("label=osiris.spawn={spawn}")]);
    assert_eq!(labelled().lines().count(), 1);
    assert_eq!(home.member("m0-1").as_deref(), Some("connected"));
    let inspected: Value = serde_json::from_str(&docker(&["inspect", labelled().trim()])).expect("JSON");
    assert_eq!(inspected[0]["State"]["Health"]["Status"], "healthy");
    home.json(&["lease", "retire", "0-1"], "");
    home.until("nothing is left", || home.machines().is_empty() && labelled().trim().is_empty());
    assert_eq!(home.member("m0-1").as_deref(), Some("revoked"), "it has left the fleet");
}

/// A person's fleet, with names that no other one has, and nothing left of it at the end.
struct Fleet {
    dir: tempfile::TempDir,
    name: String,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for n in 0..3 {
            let node = self.node(n);
            for thing in [&["rm", "-f", "-v", &node][..], &["volume", "rm", "-f", &node]] {
                let _ = Command::new("docker").args(thing).output();
            }
        }
        let _ = Command::new("docker").args(["network", "rm", &self.name]).output();
    }
}

impl Fleet {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        image(dir.path(), IMAGE, &[]);
        Self { dir, name: format!("t{}", std::process::id()) }
    }

    fn node(&self, n: usize) -> String {
        format!("{}-{n}", self.name)
    }

    /// What the first node says of the members: how many it is connected with, itself included.
    fn connected(&self) -> usize {
        let nodes = docker(&["exec", &self.node(0), "/osiris", "nodes", "-o", "json"]);
        let nodes: Value = serde_json::from_str(&nodes).expect("JSON");
        let states = nodes.as_array().expect("rows").iter().map(|row| row["state"].as_str());
        states.filter(|state| matches!(state, Some("this" | "connected"))).count()
    }

    fn fleet(&self, n: usize) -> (String, String) {
        let said = docker(&["exec", &self.node(n), "/osiris", "whoami", "-o", "json"]);
        let said: Value = serde_json::from_str(&said).expect("JSON");
        let text = |key: &str| said[key].as_str().expect("text").to_owned();
        (text("fleet"), text("device"))
    }

    fn until_connected(&self, many: usize) {
        let end = Instant::now() + PATIENCE;
        while self.connected() != many {
            assert!(Instant::now() < end, "{} of {many} are connected", self.connected());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn containers(&self) -> usize {
        docker(&["ps", "-aq", "--filter", &format!("name={}", self.name)]).lines().count()
    }

    /// Copies the module once, and gives a run of Terraform in it.
    fn terraform(&self, arguments: &[&str]) -> String {
        let module = self.dir.path().join("module");
        if !module.exists() {
            fs::create_dir(&module).expect("made");
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../terraform/modules/docker");
            for entry in fs::read_dir(source).expect("the module").map(|entry| entry.expect("one")) {
                if entry.file_name().to_string_lossy().ends_with(".tf") {
                    fs::copy(entry.path(), module.join(entry.file_name())).expect("copied");
                }
            }
            run(&mut self.command(&["init", "-input=false", "-no-color"]));
        }
        run(self.command(arguments).args(["-auto-approve", "-input=false", "-no-color"]))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(terraform());
        command.args(arguments).current_dir(self.dir.path().join("module"));
        command.env("CHECKPOINT_DISABLE", "1").env_remove("TF_CLI_CONFIG_FILE");
        let host = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
        let token = self.dir.path().join("token").display().to_string();
        for (name, value) in [
            ("spawn_id", self.name.as_str()),
            ("osiris", env!("CARGO_BIN_EXE_osiris")),
            ("image", IMAGE),
            ("docker", host.trim_start_matches("unix://")),
            ("subnet", "10.213.7.0/24"),
            ("http", "127.0.0.1:17420"),
            ("token_file", &token),
        ] {
            command.env(format!("TF_VAR_{name}"), value);
        }
        command
    }
}

/// The recovery key, where a text shows one: the only word of 64 hexadecimal digits behind these words.
fn recovery_key(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.contains("recovery key"))?;
    let key = line.split_whitespace().last()?;
    (key.len() == 64 && key.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| key.to_owned())
}

#[test]
#[ignore = "needs both docker and terraform"]
fn one_apply_starts_a_fleet_whose_members_outlive_its_containers() {
    let fleet = Fleet::new();
    let token = "0123456789abcdef0123456789abcdef";
    fs::write(fleet.dir.path().join("token"), token).expect("written");
    let said = fleet.terraform(&["apply"]);
    let key = recovery_key(&said).unwrap_or_else(|| panic!("no recovery key: {said}"));
    fleet.until_connected(3);
    let before = [0, 1, 2].map(|n| fleet.fleet(n));
    assert!(before.iter().all(|(name, _)| *name == before[0].0), "{before:?}");
    // Neither key, token nor ticket is in the state.
    let state = fs::read_to_string(fleet.dir.path().join("module/terraform.tfstate")).expect("a state");
    assert!(!state.contains(&key) && !state.contains(token), "a secret is in the state");
    let words = state.split(|c: char| !c.is_ascii_alphanumeric());
    assert_eq!(words.filter(|word| word.starts_with("osiris") && word.len() > 40).count(), 0);
    // Each node answers at its port of this machine, and asks for the token.
    for port in 17420..17423 {
        for (shown, status) in [("another", "401"), (token, "404")] {
            let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("published");
            let ask = format!(
                "GET /f/none HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {shown}\r\n\r\n"
            );
            std::io::Write::write_all(&mut stream, ask.as_bytes()).expect("written");
            let mut answer = String::new();
            std::io::Read::read_to_string(&mut stream, &mut answer).expect("an answer");
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        }
    }
    let inspected: Value = serde_json::from_str(&docker(&["inspect", &fleet.node(1)])).expect("JSON");
    assert_eq!(inspected[0]["HostConfig"]["ReadonlyRootfs"], true);
    assert_eq!(inspected[0]["HostConfig"]["CapDrop"][0], "ALL");
    assert!(!inspected.to_string().contains(token), "the token is shown");
    // Again, it does nothing; and no command that ended at once is left.
    assert!(fleet.terraform(&["apply"]).contains("0 added, 0 changed, 0 destroyed"));
    assert_eq!(fleet.containers(), 3);
    fleet.terraform(&["destroy"]);
    assert_eq!(fleet.containers(), 0);
    let network = docker(&["network", "ls", "-q", "--filter", &format!("name={}", fleet.name)]);
    assert_eq!(network, "", "its network is left");
    // What was there is taken up, and no fleet is founded again.
    let said = fleet.terraform(&["apply"]);
    assert_eq!(recovery_key(&said), None, "it was founded again");
    fleet.until_connected(3);
    assert_eq!([0, 1, 2].map(|n| fleet.fleet(n)), before);
    fleet.terraform(&["destroy"]);
    // What is someone else's is left alone.
    docker(&["volume", "rm", &fleet.node(0)]);
    docker(&["volume", "create", &fleet.node(0)]);
    let refused = fleet.command(&["apply", "-auto-approve", "-input=false", "-no-color"]).output();
    let refused = refused.expect("it runs");
    assert!(!refused.status.success() && fleet.containers() == 0, "{refused:?}");
    fleet.terraform(&["destroy"]);
}
