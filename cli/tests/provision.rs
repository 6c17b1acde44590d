//! Machines: `osiris provision` by itself, and the whole way from a wish to a machine and back.
//!
//! The whole way is run by Terraform where that is installed, and in each run by a stand-in: a script that behaves as
//! Terraform does for `terraform/machines/process`, with the same environment, state and lock, and has no plan.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longer than anything here takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(180);

const STAND_IN: &str = r#"#!/bin/sh
# Behaves as Terraform does for terraform/machines/process.
set -eu
export OSIRIS_TARGET=process OSIRIS_SPAWN_ID="$TF_VAR_spawn_id" OSIRIS_PLACE="$TF_VAR_place"
export OSIRIS_LABEL="$TF_VAR_label" OSIRIS_MESH="$TF_VAR_mesh" OSIRIS_TICKET="${TF_VAR_ticket:-}"
# Without curl there is no state: then what is taken away goes by its label alone.
said() { command -v curl >/dev/null || return 0; curl --silent --show-error --fail --noproxy '*' -u "$TF_HTTP_USERNAME:$TF_HTTP_PASSWORD" "$@" >/dev/null; }
lock='{"ID":"stand-in"}'
case $1 in
init) exit 0 ;;
apply)
    said -X LOCK -d "$lock" "$TF_HTTP_LOCK_ADDRESS"
    sleep "$(cat "$TF_VAR_place/delay" 2>/dev/null || echo 0)"
    if ! "$TF_VAR_osiris" provision up >/dev/null; then
        echo '{"@level":"error","@message":"Error","diagnostic":{"summary":"local-exec provisioner error","detail":""}}'
        exit 1
    fi
    said -X POST -d "{\"spawn\":\"$TF_VAR_spawn_id\"}" "$TF_HTTP_ADDRESS?ID=stand-in"
    said -X UNLOCK -d "$lock" "$TF_HTTP_UNLOCK_ADDRESS" ;;
destroy)
    said "$TF_HTTP_ADDRESS"
    exec "$TF_VAR_osiris" provision down ;;
*) exit 64 ;;
esac
"#;

/// A device, and a place for machines.
struct Home {
    dir: tempfile::TempDir,
    node: Option<Child>,
}

impl Drop for Home {
    fn drop(&mut self) {
        self.kill();
        for row in self.machines() {
            let pid = row["id"].as_str().unwrap_or_default();
            let _ = Command::new("kill").args(["-9", pid]).status();
        }
    }
}

impl Home {
    /// Founds a fleet.
    fn founded() -> Self {
        let home = Self { dir: tempfile::tempdir().expect("a folder"), node: None };
        fs::create_dir(home.place()).expect("made");
        home.done(&["init", "--name", "home", "--label", "maker"]);
        home
    }

    fn place(&self) -> PathBuf {
        self.dir.path().join("m")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_osiris"));
        command.args(arguments).env_clear().current_dir(self.dir.path()).stdin(Stdio::null());
        command.env("PATH", self.path()).env("HOME", self.dir.path());
        command.env("OSIRIS_DATA", self.dir.path().join("data")).env("OSIRIS_PLACE", self.place());
        command.env("OSIRIS_MESH", "127.0.0.1:0").env("OSIRIS_HTTP", "127.0.0.1:0");
        command
    }

    /// The stand-in, where there is one, comes first.
    fn path(&self) -> String {
        format!("{}:{}", self.dir.path().join("bin").display(), std::env::var("PATH").expect("a PATH"))
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the binary runs")
    }

    fn done(&self, arguments: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.run(arguments);
        let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        // 5: recorded, and seen by nobody yet.
        assert!(matches!(status.code(), Some(0 | 5)), "{arguments:?}: {out}{err}");
        out.into_owned()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let mut arguments = arguments.to_vec();
        arguments.extend(["-o", "json"]);
        let out = self.done(&arguments);
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }

    /// Runs the node, which may make two machines.
    fn up(&mut self) {
        let log =
            fs::File::options().create(true).append(true).open(self.dir.path().join("log")).expect("a log");
        let mut command = self.command(&["up", "--machines", "2"]);
        self.node = Some(command.stdout(Stdio::null()).stderr(log).spawn().expect("it starts"));
        self.until("the node serves", || self.run(&["lease", "ls"]).status.success() && self.serves());
    }

    fn serves(&self) -> bool {
        let status: Value =
            serde_json::from_slice(&self.run(&["status", "-o", "json"]).stdout).unwrap_or_default();
        status["state"] == "serving"
    }

    fn kill(&mut self) {
        if let Some(mut node) = self.node.take() {
            node.kill().expect("killed");
            node.wait().expect("ended");
        }
    }

    fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !holds() {
            let log = || fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < end, "in vain: {what}: {}\n{}", self.json(&["lease", "ls"]), log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The labelled processes.
    fn machines(&self) -> Vec<Value> {
        let rows = self.run(&["provision", "status", "-o", "json"]).stdout;
        serde_json::from_slice(&rows).unwrap_or_default()
    }

    /// What the ledger says of machines.
    fn intents(&self) -> Vec<Value> {
        let leases = self.json(&["lease", "ls"]);
        let slots = leases["slots"].as_array().expect("slots").iter();
        slots.flat_map(|slot| slot["machines"].as_array().expect("machines").clone()).collect()
    }

    fn member(&self, label: &str) -> Option<String> {
        let nodes = self.json(&["nodes"]);
        let row = nodes.as_array().expect("rows").iter().find(|row| row["label"] == label)?;
        row["state"].as_str().map(str::to_owned)
    }

    /// A machine to be: its name, and its ticket.
    fn invited(&self) -> (String, String) {
        let invited = self.json(&["invite", "--timeout", "300ms"]);
        let text = |key: &str| invited[key].as_str().expect("text").to_owned();
        (format!("m0-1-{}", &text("block")[..16]), text("ticket"))
    }

    fn provision_up(&self, spawn: &str, ticket: &str) -> Command {
        let mut command = self.command(&["provision", "up", "--spawn", spawn, "-o", "json"]);
        command.env("OSIRIS_TICKET", ticket).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn is_clean(&self) -> bool {
        self.left().is_empty() && self.machines().is_empty()
    }

    /// What machines left in the place for them.
    fn left(&self) -> Vec<String> {
        let left = fs::read_dir(self.place()).expect("the place").flatten();
        let names = left.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name != "delay").collect()
    }
}

fn answer(output: &Output) -> Value {
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{err}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn a_machine_made_twice_is_one_and_taken_away_twice_is_none() {
    let mut home = Home::founded();
    home.up();
    let (spawn, ticket) = home.invited();
    let first = answer(&home.provision_up(&spawn, &ticket).output().expect("it runs"));
    assert_eq!((&first["changed"], home.machines().len()), (&true.into(), 1));
    let again = answer(&home.provision_up(&spawn, &ticket).output().expect("it runs"));
    assert_eq!((&again["changed"], &again["id"]), (&false.into(), &first["id"]));
    assert_eq!((home.member(&spawn).as_deref(), home.machines().len()), (Some("connected"), 1));
    // The label is in its environment, and the ticket is not.
    let environ = fs::read(format!("/proc/{}/environ", first["id"].as_str().expect("a pid"))).expect("read");
    let environ = String::from_utf8_lossy(&environ).into_owned();
    assert!(environ.contains(&format!("OSIRIS_SPAWN={spawn}")) && !environ.contains(&ticket));
    for changed in [true, false] {
        assert_eq!(home.json(&["provision", "down", "--spawn", &spawn])["changed"], changed);
        assert!(home.is_clean());
    }
    assert_eq!(home.member(&spawn).as_deref(), Some("revoked"), "it has left the fleet");
    // Another machine's ticket makes no machine of this name.
    let (_, other) = home.invited();
    let refused = home.provision_up(&spawn, &other).output().expect("it runs");
    assert_eq!(refused.status.code(), Some(2), "{}", String::from_utf8_lossy(&refused.stderr));
    assert!(home.is_clean());
}

#[test]
fn whenever_it_is_killed_one_machine_or_none_is_left_and_down_leaves_none() {
    let mut home = Home::founded();
    home.up();
    for moment in [0, 30, 100, 200, 400, 800] {
        let (spawn, ticket) = home.invited();
        let mut up = home.provision_up(&spawn, &ticket).spawn().expect("it starts");
        std::thread::sleep(Duration::from_millis(moment));
        up.kill().expect("killed");
        up.wait().expect("ended");
        assert!(home.machines().len() <= 1, "after {moment} ms: {:?}", home.machines());
        if moment % 200 == 0 {
            answer(&home.provision_up(&spawn, &ticket).output().expect("it runs"));
            assert_eq!(home.machines().len(), 1, "after {moment} ms");
        }
        home.done(&["provision", "down", "--spawn", &spawn]);
        assert!(home.is_clean(), "after {moment} ms: {:?}", home.machines());
    }
    // Asked to end, it undoes what it did.
    let (spawn, ticket) = home.invited();
    let mut up = home.provision_up(&spawn, &ticket).spawn().expect("it starts");
    home.until("it is at work", || home.place().join(&spawn).exists());
    let status = Command::new("kill").arg(up.id().to_string()).status().expect("kill");
    assert!(status.success() && !up.wait().expect("ended").success());
    assert!(home.is_clean(), "{:?}", home.machines());
    // One that cannot join undoes itself too.
    let (spawn, ticket) = home.invited();
    home.kill();
    let mut up = home.provision_up(&spawn, &ticket);
    let failed = up.args(["--timeout", "2s"]).output().expect("it runs");
    assert!(!failed.status.success() && home.is_clean(), "{}", String::from_utf8_lossy(&failed.stderr));
}

#[test]
fn what_carries_the_label_and_is_not_its_node_is_left_alone() {
    let mut home = Home::founded();
    home.up();
    let (spawn, ticket) = home.invited();
    let mut foreign = Command::new("sleep");
    foreign.arg("600").env("OSIRIS_SPAWN", &spawn).env("OSIRIS_DATA", "/somewhere/else");
    let mut foreign = foreign.spawn().expect("it starts");
    // A folder of the machine makes `down` look further than at processes.
    fs::create_dir(home.place().join(&spawn)).expect("made");
    let label = home.place().join(format!("{spawn}.machine"));
    fs::write(&label, format!("osiris.spawn={spawn}\n")).expect("written");
    for refused in [
        home.run(&["provision", "down", "--spawn", &spawn]),
        home.provision_up(&spawn, &ticket).output().expect("it runs"),
    ] {
        assert_eq!(refused.status.code(), Some(4), "{}", String::from_utf8_lossy(&refused.stderr));
    }
    assert!(foreign.try_wait().expect("a child").is_none(), "it still runs");
    assert!(home.place().join(&spawn).exists(), "nothing was removed");
    foreign.kill().expect("killed");
    foreign.wait().expect("ended");
    home.done(&["provision", "down", "--spawn", &spawn]);
    assert!(home.is_clean());
}

#[test]
fn a_folder_without_the_label_is_left_alone_whatever_its_name() {
    let mut home = Home::founded();
    home.up();
    let place = home.place();
    let kept = |file: &Path| fs::read_to_string(file).is_ok_and(|text| text == "kept");
    let (spawn, ticket) = home.invited();
    let photos = place.join(&spawn).join("photos");
    fs::create_dir(place.join(&spawn)).expect("made");
    let other = place.join("cargo.lock");
    for file in [&photos, &place.join("notes"), &other] {
        fs::write(file, "kept").expect("written");
    }
    std::os::unix::fs::symlink(place.join(&spawn), place.join("link")).expect("made");
    let before = home.left().len();
    let refused = |output: Output| {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(4) && said.contains("left alone"), "{said}");
        assert_eq!(home.left().len(), before, "{:?}", home.left());
    };
    for name in [&spawn, "notes", "link"] {
        refused(home.run(&["provision", "down", "--spawn", name]));
    }
    refused(home.provision_up(&spawn, &ticket).output().expect("it runs"));
    assert!(kept(&photos) && kept(&place.join("notes")));
    // Nothing has this name, and what merely begins with it stays.
    assert_eq!(home.json(&["provision", "down", "--spawn", "cargo"])["changed"], false);
    assert!(kept(&other));
    // The founder, which runs, is no machine: neither its node nor its folder is touched.
    let data = home.dir.path().display().to_string();
    refused(home.run(&["provision", "down", "--spawn", "data", "--place", &data]));
    assert_eq!(home.json(&["status"])["state"], "serving");
    // A machine's folder that somebody uses by hand waits for that one to end.
    fs::remove_dir_all(place.join(&spawn)).expect("removed");
    let made = answer(&home.provision_up(&spawn, &ticket).output().expect("it runs"));
    let pid = made["id"].as_str().expect("a pid");
    assert!(Command::new("kill").args(["-9", pid]).status().expect("kill").success());
    home.until("it has ended", || home.machines().is_empty());
    let mut by_hand = Command::new(env!("CARGO_BIN_EXE_osiris"));
    by_hand.args(["up", "--http", "127.0.0.1:0", "--mesh", "127.0.0.1:0", "--data"]).arg(place.join(&spawn));
    let mut by_hand = by_hand.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    home.until("it is up", || {
        let at = place.join(&spawn).display().to_string();
        home.json(&["status", "--data", &at])["state"] == "serving"
    });
    let said = home.run(&["provision", "down", "--spawn", &spawn]);
    assert_eq!(said.status.code(), Some(4), "{}", String::from_utf8_lossy(&said.stderr));
    assert!(by_hand.try_wait().expect("a child").is_none() && place.join(&spawn).exists());
    by_hand.kill().expect("killed");
    by_hand.wait().expect("ended");
    home.done(&["provision", "down", "--spawn", &spawn]);
    assert!(!place.join(&spawn).exists() && kept(&other));
}

fn stand_in(home: &Home) {
    let bin = home.dir.path().join("bin");
    fs::create_dir(&bin).expect("made");
    let script = bin.join("terraform");
    fs::write(&script, STAND_IN).expect("written");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("set");
}

fn configure(home: &Home) {
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("../terraform/machines/process");
    let module = module.canonicalize().expect("the module");
    let (module, place) = (module.display(), home.place());
    let config = format!(
        "[provision]\ntarget = \"process\"\nmodule = \"{module}\"\n\n[provision.variables]\nplace = \"{}\"\nmesh = \"127.0.0.1:0\"\n",
        place.display()
    );
    fs::write(home.dir.path().join("data/config.toml"), config).expect("written");
}

/// A wish becomes a machine, a maker that is killed in the middle leaves none, and what is retired goes.
fn the_whole_way(home: &mut Home) {
    configure(home);
    home.up();
    home.done(&["lease", "limit", "--machines", "1", "--timeout", "300ms"]);
    // Killed between the intent and the machine.
    fs::write(home.place().join("delay"), "2").expect("written");
    home.done(&["lease", "want"]);
    home.until("it is being made", || home.intents().iter().any(|made| made["doing"] == "being made"));
    home.kill();
    home.up();
    home.until("what was left is taken away", || home.intents().is_empty() && home.is_clean());
    fs::remove_file(home.place().join("delay")).expect("removed");
    // In the next round it is made.
    home.until("one more may be wanted", || home.run(&["lease", "want"]).status.success());
    home.until("it is made", || home.intents().iter().any(|made| made["doing"] == "made"));
    let intents = home.intents();
    assert_eq!((intents.len(), home.machines().len()), (1, 1), "{intents:?}");
    assert_eq!((&intents[0]["round"], &intents[0]["device"]), (&2.into(), &"m0-2".into()), "{intents:?}");
    assert_eq!(home.member("m0-2").as_deref(), Some("connected"));
    // The ticket is in no file of the maker.
    let folder = fs::read_dir(home.dir.path().join("data/provision")).expect("folders").next();
    let folder = folder.expect("the machine's folder").expect("an entry").path();
    for file in ["main.tf.json", "terraform.tfstate"] {
        let text = match fs::read_to_string(folder.join(file)) {
            // The stand-in has no state where there is no curl.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && file == "terraform.tfstate" => {
                continue;
            }
            text => text.expect("a file"),
        };
        let long = text
            .split(|c: char| !c.is_ascii_alphanumeric())
            .any(|word| word.starts_with("osiris") && word.len() > 40);
        assert!(!long, "{file}: {text}");
    }
    // The fleet may have one, which is there.
    let refused = home.run(&["lease", "want"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("1 machines already"), "{refused:?}");
    // A maker that starts again finds it, and leaves it.
    home.kill();
    home.up();
    home.until("it is connected", || home.member("m0-2").as_deref() == Some("connected"));
    assert_eq!(home.machines().len(), 1);
    home.done(&["lease", "retire", "0-2"]);
    home.until("it is retired", || home.intents().is_empty());
    // What the killed maker had begun undoes itself: its machine's invitation is retired.
    home.until("nothing is left", || home.is_clean());
    assert_eq!(home.member("m0-2").as_deref(), Some("revoked"), "it has left the fleet");
    assert_eq!(fs::read_dir(home.dir.path().join("data/provision")).expect("a folder").count(), 0);
}

#[test]
fn a_wish_becomes_a_machine_and_what_is_left_by_the_dead_is_taken_away() {
    let mut home = Home::founded();
    stand_in(&home);
    the_whole_way(&mut home);
}

/// Calls of a function that has to read much, over and over, until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    callers: Vec<JoinHandle<(u32, u32)>>,
}

impl Load {
    fn on(http: &str, callers: usize) -> Self {
        let address = http.trim_start_matches("http://").to_owned();
        let body = Arc::new(samples(20_000));
        let stop = Arc::new(AtomicBool::new(false));
        let caller = |_| {
            let (address, body, stop) = (address.clone(), Arc::clone(&body), Arc::clone(&stop));
            std::thread::spawn(move || {
                let (mut made, mut failed) = (0, 0);
                while !stop.load(Ordering::Relaxed) {
                    made += 1;
                    failed += u32::from(!call(&address, &body));
                }
                (made, failed)
            })
        };
        Self { callers: (0..callers).map(caller).collect(), stop }
    }

    /// Calls that were made and that failed.
    fn end(self) -> (u32, u32) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.callers.into_iter().map(|caller| caller.join().expect("ended"));
        ended.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }
}

fn samples(count: usize) -> String {
    let sample = r#"{"cpu_percent":12.5,"memory_used":1000,"memory_total":4000,"load1":0.25}"#;
    format!(r#"{{"samples":[{}]}}"#, vec![sample; count].join(","))
}

/// Whether a call is answered with 200.
fn call(address: &str, body: &str) -> bool {
    let answered = || {
        let mut stream = TcpStream::connect(address)?;
        let head = format!(
            "POST /function/busy HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok::<_, std::io::Error>(answer.starts_with(b"HTTP/1.1 200"))
    };
    answered().unwrap_or(false)
}

/// A load makes a machine, and its end takes it away again; nobody wishes for anything.
fn a_load_and_its_end(home: &mut Home) {
    configure(home);
    let file = home.dir.path().join("data/config.toml");
    let scale = "[scale]\nwindow = \"1s\"\nstagger = \"1s\"\ncool-up = \"1s\"\ncool-down = \"1s\"\nmachine-window = \"1s\"\nmachine-cool = \"5s\"\nmachine-idle = \"3s\"\n\n";
    let config = fs::read_to_string(&file).expect("written");
    fs::write(&file, format!("{scale}{config}")).expect("written");
    home.up();
    home.done(&["lease", "limit", "--machines", "1", "--timeout", "300ms"]);
    fs::write(home.dir.path().join("busy.wasm"), osiris_examples::SUMMARY).expect("written");
    let manifest = "name = \"busy\"\ncomponent = \"busy.wasm\"\nreplicas = 1\n\n[limits]\nconcurrency = 1\n\n[scale]\nmin = 1\nmax = 2\nbacklog = 1\nidle_s = 1\n";
    fs::write(home.dir.path().join("osiris.toml"), manifest).expect("written");
    home.done(&["deploy", "--timeout", "300ms"]);
    let http = home.json(&["status"])["http"].as_str().expect("an address").to_owned();
    home.until("it answers", || call(http.trim_start_matches("http://"), &samples(1)));
    let load = Load::on(&http, 6);
    home.until("a machine is made", || home.intents().iter().any(|made| made["doing"] == "made"));
    let intents = home.intents();
    assert_eq!((&intents[0]["functions"], home.machines().len()), (&serde_json::json!(["busy"]), 1));
    let serves =
        || home.json(&["describe", "busy"])["revisions"][0]["serving"].as_array().map_or(0, Vec::len);
    home.until("it serves", || serves() == 2);
    let (made, failed) = load.end();
    home.until("it is taken away", || home.intents().is_empty() && home.is_clean());
    assert!(made > 0 && failed == 0, "{failed} of {made} calls failed");
    let members = home.json(&["nodes"]);
    let active = members.as_array().expect("rows").iter().filter(|row| row["state"] != "revoked").count();
    assert_eq!(active, 1, "{members}");
}

#[test]
fn a_load_makes_a_machine_and_its_end_takes_it_away() {
    let mut home = Home::founded();
    stand_in(&home);
    a_load_and_its_end(&mut home);
}

#[test]
#[ignore = "needs terraform"]
fn a_load_makes_a_machine_by_terraform_and_its_end_takes_it_away() {
    let mut home = Home::founded();
    a_load_and_its_end(&mut home);
}

#[test]
#[ignore = "needs terraform"]
fn terraform_makes_the_machine_that_was_wished_for() {
    let mut home = Home::founded();
    the_whole_way(&mut home);
}

#[test]
fn without_terraform_one_sentence_says_so_and_all_else_works() {
    let home = Home::founded();
    configure(&home);
    let mut command = home.command(&["up", "--machines", "2"]);
    let mut node = command
        .env("PATH", "/nowhere")
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    home.until("the node serves", || home.serves());
    let refused = home.run(&["lease", "want"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("No machines are allowed"), "{refused:?}");
    node.kill().expect("killed");
    let said = node.wait_with_output().expect("ended").stderr;
    assert!(String::from_utf8_lossy(&said).contains("Neither terraform nor tofu is here"), "{said:?}");
}

/// Who cannot reach its target spends no lease on it, and `doctor` says which of the two is missing.
#[test]
fn a_target_that_is_not_reached_is_said_before_anything_is_claimed() {
    let mut home = Home::founded();
    stand_in(&home);
    configure(&home);
    let doctor = |home: &Home, path: &str| {
        let output = home.command(&["doctor"]).env("PATH", path).output().expect("it runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    };
    let (_, said) = doctor(&home, &home.path());
    assert!(said.contains("terraform, on process") && said.contains("reached, 0 machines"), "{said}");
    let (code, said) = doctor(&home, "/nowhere");
    assert!(code == Some(1) && said.contains("Neither terraform nor tofu is here"), "{said}");

    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("../terraform/machines/docker");
    let module = module.canonicalize().expect("the module");
    let (module, socket) = (module.display(), home.dir.path().join("no.socket"));
    let config = format!(
        "[provision]\ntarget = \"docker\"\nmodule = \"{module}\"\n\n[provision.variables]\ndocker = \"{}\"\n",
        socket.display()
    );
    fs::write(home.dir.path().join("data/config.toml"), config).expect("written");
    let (code, said) = doctor(&home, &home.path());
    assert!(code == Some(1) && said.contains("The target docker is not reached"), "{said}");
    home.up();
    home.done(&["lease", "limit", "--machines", "1", "--timeout", "300ms"]);
    let log = home.dir.path().join("log");
    home.until("the node has looked", || {
        fs::read_to_string(&log).is_ok_and(|log| log.contains("the target for machines is not reached"))
    });
    let refused = home.run(&["lease", "want"]);
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("The target docker is not reached"),
        "{refused:?}"
    );
    assert!(home.intents().is_empty());
}

#[test]
fn a_person_starts_a_node_as_a_process_and_takes_its_folder_up_again() {
    let home = Home { dir: tempfile::tempdir().expect("a folder"), node: None };
    let start = ["provision", "start", "--target", "process", "--spawn", "first", "--name", "home"];
    let whoami = || home.json(&["whoami"])["device"].clone();
    let said = home.done(&start);
    assert!(said.contains("recovery key") && home.serves(), "{said}");
    let device = whoami();
    // Again, it is another process of the same member.
    let said = home.done(&start);
    assert!(!said.contains("recovery key") && home.serves(), "{said}");
    assert_eq!(whoami(), device);
    home.done(&["down"]);
    assert!(!home.serves());
    // Its log stays, and no lock.
    assert!(home.dir.path().join("data/node.log").exists());
    assert!(!home.dir.path().join("data.lock").exists());
}
