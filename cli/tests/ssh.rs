//! Machines on a host of one's own: an sshd of this machine, on the loopback interface, with keys of its own.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longer than anything here takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(180);
fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("it runs");
    assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).expect("text").trim().to_owned()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn key(file: &Path) {
    run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(file));
}

fn sshd(dir: &Path) -> Child {
    // It starts itself again for each connection, so it has to be named by its whole path.
    let mut sshd = Command::new("/usr/sbin/sshd");
    sshd.args(["-D", "-e", "-f"]).arg(dir.join("sshd_config")).stdin(Stdio::null());
    sshd.stderr(fs::File::create(dir.join("sshd.log")).expect("a log"));
    sshd.spawn().expect("it starts")
}

/// A device with its node, and a host that it reaches.
struct Home {
    dir: tempfile::TempDir,
    port: u16,
    sshd: Child,
    node: Option<Child>,
}

impl Drop for Home {
    fn drop(&mut self) {
        self.kill();
        for row in self.machines() {
            let _ = Command::new("kill").args(["-9", row["id"].as_str().unwrap_or_default()]).status();
        }
        let _ = self.sshd.kill();
        let _ = self.sshd.wait();
    }
}

impl Home {
    fn founded() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let path = |name: &str| dir.path().join(name);
        let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let port = port.expect("a port").port();
        key(&path("host"));
        key(&path("user"));
        fs::copy(path("user.pub"), path("authorized")).expect("copied");
        let host = fs::read_to_string(path("host.pub")).expect("a key");
        fs::write(path("known"), format!("[127.0.0.1]:{port} {host}")).expect("written");
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\n\
             UsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n",
            path("host").display(),
            path("authorized").display()
        );
        fs::write(path("sshd_config"), config).expect("written");
        let sshd = sshd(dir.path());
        let home = Self { dir, port, sshd, node: None };
        run(&mut home.command(&["init", "--name", "home", "--label", "maker"]));
        until("sshd answers", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        home
    }

    fn place(&self) -> PathBuf {
        self.dir.path().join("m")
    }

    /// What tells of the host, by the names of the module's variables.
    fn host(&self) -> BTreeMap<&'static str, String> {
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        let user = run(Command::new("id").arg("-un"));
        BTreeMap::from([
            ("place", self.place().display().to_string()),
            ("mesh", "127.0.0.1:0".to_owned()),
            ("ssh_host", "127.0.0.1".to_owned()),
            ("ssh_port", self.port.to_string()),
            ("ssh_user", user),
            ("ssh_identity", path("user")),
            ("ssh_known_hosts", path("known")),
        ])
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_osiris"));
        command.args(arguments).env_clear().current_dir(self.dir.path()).stdin(Stdio::null());
        command.env("PATH", std::env::var("PATH").expect("a PATH")).env("HOME", self.dir.path());
        command.env("OSIRIS_DATA", self.dir.path().join("data")).env("OSIRIS_TARGET", "ssh");
        command.env("OSIRIS_HTTP", "127.0.0.1:0").stdout(Stdio::piped()).stderr(Stdio::piped());
        for (name, value) in self.host() {
            command.env(format!("OSIRIS_{}", name.to_ascii_uppercase()), value);
        }
        command
    }

    fn up(&mut self, arguments: &[&str]) {
        let mut command = self.command(&[&["up"], arguments].concat());
        self.node = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts"));
        until("the node serves", || {
            self.command(&["status", "--ready"]).output().expect("it runs").status.success()
        });
    }

    fn kill(&mut self) {
        if let Some(mut node) = self.node.take() {
            node.kill().expect("killed");
            node.wait().expect("ended");
        }
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let out = run(self.command(arguments).args(["-o", "json"]));
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }

    fn member(&self, label: &str) -> Option<String> {
        let nodes = self.json(&["nodes"]);
        let row = nodes.as_array().expect("rows").iter().find(|row| row["label"] == label)?;
        row["state"].as_str().map(str::to_owned)
    }

    fn invited(&self) -> (String, String) {
        let invited = self.json(&["invite", "--timeout", "300ms"]);
        let text = |key: &str| invited[key].as_str().expect("text").to_owned();
        (format!("m0-1-{}", &text("block")[..16]), text("ticket"))
    }

    fn provision_up(&self, spawn: &str, ticket: &str) -> Command {
        // With all that a shell could misread.
        let label = format!("{spawn} it's $(id)");
        let mut command =
            self.command(&["provision", "up", "--spawn", spawn, "--label", &label, "-o", "json"]);
        command.env("OSIRIS_TICKET", ticket);
        command
    }

    /// What runs there, by the program that is there: without SSH.
    fn machines(&self) -> Vec<Value> {
        let mut status = self.command(&["provision", "status", "-o", "json"]);
        let rows = status.env("OSIRIS_TARGET", "process").output().expect("it runs").stdout;
        serde_json::from_slice(&rows).unwrap_or_default()
    }

    /// Whether nothing of machines is left; the program stays.
    fn is_clean(&self) -> bool {
        let names = fs::read_dir(self.place()).into_iter().flatten().flatten();
        self.machines().is_empty() && names.into_iter().all(|entry| entry.file_name() == ".bin")
    }
}

/// Whether arguments, and whether environments of processes besides `but`, hold a text.
fn shown(text: &str, but: u32) -> (bool, bool) {
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    let processes = processes.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok());
    let (mut arguments, mut environment) = (false, false);
    for process in processes {
        let holds = |file: &str| {
            fs::read(process.path().join(file))
                .is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(text))
        };
        arguments |= holds("cmdline");
        environment |= process.file_name() != *but.to_string() && holds("environ");
    }
    (arguments, environment)
}

#[test]
#[ignore = "needs sshd"]
fn a_host_of_ones_own_gets_the_program_joins_once_and_leaves() {
    let mut home = Home::founded();
    home.up(&[]);
    let (spawn, ticket) = home.invited();
    let mut up = home.provision_up(&spawn, &ticket).spawn().expect("it starts");
    let mut asked = false;
    until("it ends", || {
        asked |= shown("--ticket-stdin", 0).0;
        assert_eq!(shown(&ticket, up.id()), (false, false), "the ticket is shown");
        up.try_wait().expect("a child").is_some()
    });
    let Output { status, stdout, stderr } = up.wait_with_output().expect("ended");
    assert!(status.success() && asked, "{}", String::from_utf8_lossy(&stderr));
    let first: Value = serde_json::from_slice(&stdout).expect("JSON");
    assert_eq!((&first["changed"], home.machines().len()), (&true.into(), 1));
    assert_eq!(home.member(&format!("{spawn} it's $(id)")).as_deref(), Some("connected"));
    let again: Value = serde_json::from_str(&run(&mut home.provision_up(&spawn, &ticket))).expect("JSON");
    assert_eq!((&again["changed"], &again["id"]), (&false.into(), &first["id"]));
    let row = &home.json(&["provision", "status"])[0];
    assert_eq!(
        (&row["spawn"], &row["id"], &row["state"]),
        (&spawn.as_str().into(), &first["id"], &"running".into())
    );
    assert_eq!(row["place"], format!("127.0.0.1:{}/{spawn}", home.place().display()));
    // Another program in its place is replaced, and one that was cut short is never used.
    let program = home.place().join(".bin/osiris");
    let before = fs::metadata(&program).expect("it is there").len();
    for other in ["#!/bin/sh\necho other\n", "\x7fELF"] {
        fs::remove_file(&program).expect("removed");
        fs::write(&program, other).expect("written");
        assert_eq!(home.json(&["provision", "status"]).as_array().map(Vec::len), Some(1));
        assert_eq!(fs::metadata(&program).expect("it is there").len(), before);
    }
    for changed in [true, false] {
        assert_eq!(home.json(&["provision", "down", "--spawn", &spawn])["changed"], changed);
        assert!(home.is_clean());
    }
    assert_eq!(home.member(&format!("{spawn} it's $(id)")).as_deref(), Some("revoked"), "it has left");
    let programs = fs::read_dir(home.place().join(".bin")).expect("a folder").count();
    assert_eq!(programs, 1, "copies are left");
}

#[test]
#[ignore = "needs sshd"]
fn what_was_begun_there_is_undone_when_this_side_is_killed() {
    let mut home = Home::founded();
    home.up(&[]);
    let (spawn, ticket) = home.invited();
    // It waits there for whoever works on the machine, which is this test.
    fs::create_dir(home.place()).expect("made");
    let lock = fs::File::create(home.place().join(format!("{spawn}.machine"))).expect("a lock");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("it is held");
    let mut up = home.provision_up(&spawn, &ticket).spawn().expect("it starts");
    until("it is at work there", || shown("--ticket-stdin", 0).0);
    up.kill().expect("killed");
    up.wait().expect("ended");
    drop(lock);
    // It could go on now, and join.
    until("nothing works there", || !shown(&spawn, 0).0);
    assert!(home.is_clean(), "{:?}", home.machines());
    // One that cannot join undoes itself, and says so.
    home.kill();
    let failed = home.provision_up(&spawn, &ticket).output().expect("it runs");
    let said = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(!failed.status.success() && said.contains("nothing of it is left"), "{said}");
    assert!(home.is_clean());
}

#[test]
#[ignore = "needs sshd"]
fn a_host_with_another_key_or_without_one_that_is_known_is_refused() {
    let home = Home::founded();
    let refused = |home: &Home, what: &str| {
        let output = home.command(&["provision", "status"]).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.code() == Some(1) && said.contains("cannot be reached by ssh"),
            "{what}: {said}"
        );
        assert!(!home.place().exists(), "{what}");
    };
    let known = home.dir.path().join("known");
    let right = fs::read_to_string(&known).expect("text");
    fs::write(&known, "").expect("written");
    refused(&home, "not known");
    key(&home.dir.path().join("other"));
    let other = fs::read_to_string(home.dir.path().join("other.pub")).expect("a key");
    fs::write(&known, format!("[127.0.0.1]:{} {other}", home.port)).expect("written");
    refused(&home, "another key");
    // One that is not known is taken where that was asked for, and another key is still refused then.
    let mut new = home.command(&["provision", "status"]);
    assert!(!new.env("OSIRIS_SSH_ACCEPT_NEW", "true").status().expect("it runs").success());
    fs::write(&known, "").expect("written");
    run(home.command(&["provision", "status"]).env("OSIRIS_SSH_ACCEPT_NEW", "true"));
    assert!(
        fs::read_to_string(&known).expect("text").contains(right.split(' ').nth(2).expect("a key").trim())
    );
    // This side's key is asked for, too.
    fs::copy(home.dir.path().join("other"), home.dir.path().join("user")).expect("copied");
    let output = home.command(&["provision", "status"]).output().expect("it runs");
    assert!(!output.status.success(), "another key of this side is taken");
}

#[test]
#[ignore = "needs sshd"]
fn a_host_that_still_boots_is_waited_for_where_that_was_asked() {
    let mut home = Home::founded();
    home.sshd.kill().expect("killed");
    home.sshd.wait().expect("ended");
    let status = home.command(&["provision", "status"]).output().expect("it runs");
    assert!(!status.status.success(), "nobody is there");
    let mut late = home.command(&["provision", "status", "--ssh-wait", "60s"]);
    let mut late = late.spawn().expect("it starts");
    std::thread::sleep(Duration::from_secs(3));
    assert!(late.try_wait().expect("a child").is_none(), "it does not wait");
    home.sshd = sshd(home.dir.path());
    let Output { status, stderr, .. } = late.wait_with_output().expect("ended");
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
}

#[test]
#[ignore = "needs both sshd and terraform"]
fn terraform_makes_the_machine_on_the_host() {
    let mut home = Home::founded();
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("../terraform/machines/ssh");
    let module = module.canonicalize().expect("the module");
    let mut config = format!(
        "[provision]\ntarget = \"ssh\"\nmodule = \"{}\"\n\n[provision.variables]\n",
        module.display()
    );
    for (name, value) in home.host() {
        config.push_str(&format!("{name} = \"{value}\"\n"));
    }
    fs::write(home.dir.path().join("data/config.toml"), config).expect("written");
    home.up(&["--machines", "1"]);
    run(&mut home.command(&["lease", "limit", "--machines", "1", "--timeout", "300ms"]));
    until("one may be wanted", || {
        home.command(&["lease", "want"]).output().expect("it runs").status.success()
    });
    let intents = |home: &Home| -> Vec<Value> {
        let leases = home.json(&["lease", "ls"]);
        let slots = leases["slots"].as_array().expect("slots").iter();
        slots.flat_map(|slot| slot["machines"].as_array().expect("machines").clone()).collect()
    };
    until("it is made", || intents(&home).iter().any(|made| made["doing"] == "made"));
    assert_eq!((home.machines().len(), home.member("m0-1").as_deref()), (1, Some("connected")));
    run(&mut home.command(&["lease", "retire", "0-1"]));
    until("it is retired", || intents(&home).is_empty());
    assert!(home.is_clean());
    assert_eq!(home.member("m0-1").as_deref(), Some("revoked"), "it has left the fleet");
}
