//! A machine that is known by Terraform's state alone, as a cloud's server is: its maker dies and loses its disk, and
//! another spawner takes the machine away by the state that was shared.
//!
//! The cloud is a folder with a file for each server, and Terraform a stand-in that keeps to what a run of it says:
//! the same backend, the same commands, a plan in the same JSON.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longer than anything here takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(180);

const STAND_IN: &str = r#"#!/bin/bash
# Behaves as Terraform does for a module with one server of a cloud.
set -eu
export OSIRIS_TARGET=process OSIRIS_SPAWN_ID="$TF_VAR_spawn_id" OSIRIS_PLACE="$TF_VAR_place"
export OSIRIS_LABEL="$TF_VAR_label" OSIRIS_MESH="127.0.0.1:0" OSIRIS_TICKET="${TF_VAR_ticket:-}"
login=$(printf '%s:%s' "$TF_HTTP_USERNAME" "$TF_HTTP_PASSWORD" | base64 -w0)
# METHOD URL BODY: what the backend answers, without its head.
says() {
    local rest=${2#http://} host path
    host=${rest%%/*} path=/${rest#*/}
    exec 3<>"/dev/tcp/${host%:*}/${host#*:}"
    printf '%s %s HTTP/1.1\r\nhost: %s\r\nconnection: close\r\nauthorization: Basic %s\r\ncontent-length: %d\r\n\r\n%s' \
        "$1" "$path" "$host" "$login" "${#3}" "$3" >&3
    sed '1,/^\r$/d' <&3
}
write() {
    says LOCK "$TF_HTTP_LOCK_ADDRESS" '{"ID":"stand-in"}' >/dev/null
    says POST "$TF_HTTP_ADDRESS?ID=stand-in" "$1" >/dev/null
    says UNLOCK "$TF_HTTP_UNLOCK_ADDRESS" '{"ID":"stand-in"}' >/dev/null
}
servers() { says GET "$TF_HTTP_ADDRESS" '' | grep -o '"server":"[a-z0-9-]*"' | cut -d'"' -f4; }
state() {
    local resources=
    [ -z "$1" ] || resources='{"mode":"managed","type":"cloud_server","name":"machine","provider":"module.machine.provider[\"example.org/a/cloud\"]","instances":[{"attributes":{"server":"'$1'"}}]},{"mode":"managed","type":"terraform_data","name":"machine","provider":"module.machine.provider[\"terraform.io/builtin/terraform\"]","instances":[{"attributes":{"input":"/bin/false"}}]}'
    printf '{"version":4,"serial":1,"lineage":"a","resources":[%s]}' "$resources"
}
gone() {
    "$TF_VAR_osiris" provision down >/dev/null
    for server in $1; do rm -f "$TF_VAR_cloud/$server"; done
    write "$(state '')"
}
case "$1 ${2:-}" in
init*) ;;
apply*plan) exit 65 ;;
"apply -json")
    for word; do :; done
    if [ "$word" = plan ]; then
        gone "$(cat plan.servers)"
        exit 0
    fi
    server=server-$RANDOM$RANDOM
    printf '%s' "$TF_VAR_spawn_id" >"$TF_VAR_cloud/$server"
    write "$(state "$server")"
    "$TF_VAR_osiris" provision up >/dev/null ;;
"destroy -json") gone "$(servers)" ;;
"plan -destroy")
    servers >plan.servers
    says GET "$TF_HTTP_ADDRESS" '' >plan.state
    # What is built in would run what the state says: then it is there.
    ! grep -q terraform_data plan.state || exit 66
    changes=
    for server in $(cat plan.servers); do
        # Read anew, as a refresh does.
        label=$(cat "$TF_VAR_cloud/$server" 2>/dev/null) || continue
        changes="$changes${changes:+,}{\"address\":\"module.machine.cloud_server.machine\",\"change\":{\"actions\":[\"delete\"],\"before\":{\"labels\":{\"osiris.spawn\":\"$label\"}}}}"
    done
    printf '{"resource_changes":[%s]}' "$changes" >plan ;;
"show -json") cat plan ;;
*) exit 64 ;;
esac
"#;

/// Starts a machine, and would run whatever its state says when that is destroyed.
const MODULE: &str = r#"
variable "spawn_id" { type = string }
variable "label" { type = string }
variable "osiris" { type = string }
variable "place" { type = string }
variable "cloud" { type = string }
variable "ticket" {
  type      = string
  ephemeral = true
  sensitive = true
  default   = null
}
resource "terraform_data" "machine" {
  input = { osiris = var.osiris, cloud = var.cloud }
  provisioner "local-exec" {
    interpreter = [self.input.osiris, "provision"]
    command     = "up"
    quiet       = true
    environment = {
      OSIRIS_TARGET   = "process"
      OSIRIS_SPAWN_ID = var.spawn_id
      OSIRIS_PLACE    = var.place
      OSIRIS_LABEL    = var.label
      OSIRIS_MESH     = "127.0.0.1:0"
      OSIRIS_TICKET   = var.ticket
    }
  }
  provisioner "local-exec" {
    when        = destroy
    interpreter = ["/bin/sh", "-c"]
    command     = "touch \"$CLOUD/ran\""
    environment = { CLOUD = self.input.cloud }
  }
}
"#;

fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("it runs");
    let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    // 5: recorded, and seen by nobody yet.
    assert!(matches!(status.code(), Some(0 | 5)), "{command:?}: {out}{err}");
    out.into_owned()
}

/// A fleet of three: a founder, a maker and one that takes over.
struct Fleet {
    dir: tempfile::TempDir,
    nodes: Vec<(&'static str, Option<Child>)>,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for (_, node) in &mut self.nodes {
            if let Some(node) = node {
                let _ = node.kill();
                let _ = node.wait();
            }
        }
        let place = self.path("m").display().to_string();
        let rows =
            self.command("founder", &["provision", "status", "--place", &place, "-o", "json"]).output();
        let rows: Vec<Value> = serde_json::from_slice(&rows.expect("it runs").stdout).unwrap_or_default();
        for row in rows {
            let _ = Command::new("kill").args(["-9", row["id"].as_str().unwrap_or_default()]).status();
        }
    }
}

impl Fleet {
    /// With Terraform itself, or with the stand-in.
    fn new(terraform: bool) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let mut fleet = Self { dir, nodes: Vec::new() };
        for folder in ["bin", "cloud", "m", "module"] {
            fs::create_dir(fleet.path(folder)).expect("made");
        }
        fs::write(fleet.path("module/main.tf"), MODULE).expect("written");
        if !terraform {
            let script = fleet.path("bin/terraform");
            fs::write(&script, STAND_IN).expect("written");
            fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("set");
        }
        fleet.done("founder", &["init", "--name", "home", "--label", "founder"]);
        fleet.up("founder");
        let invited = fleet.json("founder", &["invite", "--uses", "2"]);
        let ticket = invited["ticket"].as_str().expect("a ticket");
        for name in ["maker", "taker"] {
            fleet.done(name, &["join", ticket, "--label", name]);
            fleet.configure(name);
            fleet.done("founder", &["role", "grant", name, "spawner"]);
            fleet.up(name);
        }
        fleet.done("founder", &["lease", "limit", "--machines", "1"]);
        fleet
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn configure(&self, name: &str) {
        let path = |name: &str| self.path(name).display().to_string();
        let config = format!(
            "[provision]\ntarget = \"cloud\"\nmodule = {:?}\nshared = true\n\n[provision.variables]\nplace = {:?}\ncloud = {:?}\n",
            path("module"),
            path("m"),
            path("cloud"),
        );
        fs::write(self.path(name).join("config.toml"), config).expect("written");
    }

    fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_osiris"));
        command.args(arguments).env_clear().current_dir(self.dir.path()).stdin(Stdio::null());
        let path = std::env::var("PATH").expect("a PATH");
        command.env("PATH", format!("{}:{path}", self.path("bin").display()));
        command.env("HOME", self.dir.path()).env("OSIRIS_DATA", self.path(name));
        command.env("OSIRIS_MESH", "127.0.0.1:0").env("OSIRIS_HTTP", "127.0.0.1:0");
        command
    }

    fn done(&self, name: &str, arguments: &[&str]) -> String {
        run(&mut self.command(name, arguments))
    }

    fn json(&self, name: &str, arguments: &[&str]) -> Value {
        let out = self.done(name, &[arguments, &["-o", "json"]].concat());
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }

    fn up(&mut self, name: &'static str) {
        let log = fs::File::create(self.path(&format!("{name}.log"))).expect("a log");
        let machines = if name == "founder" { "0" } else { "1" };
        let mut command = self.command(name, &["up", "--machines", machines]);
        let node = command.stdout(Stdio::null()).stderr(log).spawn().expect("it starts");
        self.nodes.push((name, Some(node)));
        self.until("a node serves", || {
            self.command(name, &["status", "--ready"]).output().expect("it runs").status.success()
        });
    }

    fn kill(&mut self, name: &str) {
        let (_, node) = self.nodes.iter_mut().find(|(known, _)| *known == name).expect("a node");
        let mut node = node.take().expect("it runs");
        node.kill().expect("killed");
        node.wait().expect("ended");
    }

    fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !holds() {
            if Instant::now() >= end {
                for (name, _) in &self.nodes {
                    let log = fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default();
                    println!("{name}:\n{log}");
                }
                panic!("in vain: {what}: {}", self.json("taker", &["lease", "ls"]));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn machines(&self, name: &str) -> Vec<Value> {
        let leases = self.json(name, &["lease", "ls"]);
        let slots = leases["slots"].as_array().expect("slots").iter();
        slots.flat_map(|slot| slot["machines"].as_array().expect("machines").clone()).collect()
    }

    /// The cloud's servers, by its own word.
    fn servers(&self) -> Vec<PathBuf> {
        files(&self.path("cloud"))
    }

    fn kept(&self, name: &str) -> Vec<PathBuf> {
        files(&self.path(name).join("provision/shared"))
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default()
}

#[test]
fn a_machine_without_a_label_here_is_taken_away_by_the_state_that_its_dead_maker_shared() {
    let mut fleet = Fleet::new(false);
    fleet.done("maker", &["lease", "want"]);
    fleet.until("it is made", || fleet.machines("maker").iter().any(|made| made["doing"] == "made"));
    let [server] = fleet.servers().try_into().expect("one server");
    // The founder is a spawner as well, and makes none: it keeps what it is told all the same.
    fleet.until("all keep its state", || {
        ["founder", "maker", "taker"].iter().all(|name| fleet.kept(name).len() == 1)
    });
    let record = fs::read(&fleet.kept("taker")[0]).expect("read");
    let id = server.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(!record.windows(id.len()).any(|window| window == id.as_bytes()), "it is sealed");
    // The maker dies, and its disk is lost.
    fleet.kill("maker");
    fs::remove_dir_all(fleet.path("maker")).expect("removed");
    // Somebody has given the server another label: it is not to be touched, whatever a state says.
    let label = fs::read_to_string(&server).expect("a label");
    fs::write(&server, "another").expect("written");
    fleet.done("taker", &["lease", "retire", "0-1"]);
    fleet.until("it is refused", || {
        let says = fleet.json("taker", &["lease", "ls"])["says"].as_str().unwrap_or_default().to_owned();
        says.contains("does not carry the label osiris.spawn=")
    });
    assert!(server.exists() && fleet.machines("taker").len() == 1);
    fs::write(&server, label).expect("written");
    fleet.until("it is gone", || fleet.machines("taker").is_empty());
    assert!(!server.exists() && fleet.servers().is_empty(), "the cloud has none");
    fleet.until("its state is forgotten", || {
        ["founder", "taker"].iter().all(|name| fleet.kept(name).is_empty())
    });
    let folders = files(&fleet.path("taker").join("provision"));
    assert!(folders.iter().all(|folder| folder.ends_with("shared")), "{folders:?}");
}

#[test]
#[ignore = "needs terraform"]
fn by_terraform_itself_nothing_of_a_shared_state_runs() {
    let mut fleet = Fleet::new(true);
    fleet.done("maker", &["lease", "want"]);
    fleet.until("it is made", || fleet.machines("maker").iter().any(|made| made["doing"] == "made"));
    fleet.until("its state is shared", || fleet.kept("taker").len() == 1);
    fleet.kill("maker");
    fs::remove_dir_all(fleet.path("maker")).expect("removed");
    fleet.done("taker", &["lease", "retire", "0-1"]);
    // Terraform knows of nothing outside: that is no reason to take the machine for gone.
    fleet.until("it is refused", || {
        let says = fleet.json("taker", &["lease", "ls"])["says"].as_str().unwrap_or_default().to_owned();
        says.contains("names nothing outside of Terraform")
    });
    assert_eq!(fleet.machines("taker").len(), 1);
    assert!(fleet.servers().is_empty(), "no provisioner of the dead maker's state ran");
}
