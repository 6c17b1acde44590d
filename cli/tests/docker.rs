//! Machines that are containers. The socket is that of `DOCKER_HOST`, or Docker's own.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const IMAGE: &str = "osiris-test:latest";
/// Longer than anything here takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(120);

fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("it runs");
    let err = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command:?}: {err}");
    String::from_utf8(stdout).expect("text").trim().to_owned()
}

fn docker(arguments: &[&str]) -> String {
    run(Command::new("docker").args(arguments))
}

/// The binary of this build with the libraries that it names, as an image.
fn image(dir: &Path) {
    let root = dir.join("image");
    fs::create_dir_all(root.join("data")).expect("made");
    let binary = env!("CARGO_BIN_EXE_osiris");
    run(Command::new("strip").arg("-o").arg(root.join("osiris")).arg(binary));
    for word in run(Command::new("ldd").arg(binary)).split_whitespace().filter(|word| word.starts_with('/')) {
        let to = root.join(&word[1..]);
        fs::create_dir_all(to.parent().expect("a folder")).expect("made");
        fs::copy(word, to).expect("copied");
    }
    run(Command::new("chown").arg("65532:65532").arg(root.join("data")));
    let tar = dir.join("image.tar");
    run(Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(&root).arg("."));
    docker(&["import", "--change", "ENTRYPOINT [\"/osiris\"]", tar.to_str().expect("UTF-8"), IMAGE]);
}

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
        let node = osiris(dir.path(), &["up"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let home = Self { dir, node: node.expect("it starts") };
        let end = Instant::now() + PATIENCE;
        while !home.command(&["status", "--ready"]).status().expect("it runs").success() {
            assert!(Instant::now() < end, "the node does not serve");
            std::thread::sleep(Duration::from_millis(50));
        }
        home
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
    image(home.dir.path());
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
