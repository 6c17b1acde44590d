//! Members, roles and what becomes of them, with the real binary and real nodes.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_osiris"));
        command.args(arguments).env_clear().current_dir(self.0.path());
        command.env("HOME", self.0.path()).env("OSIRIS_DATA", self.0.path().join("data"));
        command.env("OSIRIS_MESH", "127.0.0.1:0").stdin(Stdio::null());
        command
    }

    /// Runs a command that must end with one of `codes`; its output, and what it said beside.
    fn ends(&self, arguments: &[&str], codes: &[i32]) -> (String, String) {
        let output = self.command(arguments).output().expect("the binary runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        let code = output.status.code().unwrap_or(-1);
        assert!(codes.contains(&code), "{arguments:?} ended with {code}: {out}{err}");
        (out, err)
    }

    fn done(&self, arguments: &[&str]) -> String {
        self.ends(arguments, &[0]).0
    }

    /// Recorded; whether another member runs to see it is not this test's matter.
    fn written(&self, arguments: &[&str]) -> String {
        self.ends(&[arguments, &["--timeout", "100ms"]].concat(), &[0, 5]).0
    }

    fn fails(&self, arguments: &[&str], code: i32, words: &str) {
        let (_, err) = self.ends(arguments, &[code]);
        assert!(err.contains(words) && err.contains("next: "), "{arguments:?}: {err}");
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.done(&[arguments, &["-o", "json"]].concat())).expect("JSON")
    }

    fn deploy(&self, name: &str, code: i32) {
        std::fs::write(self.0.path().join("a.wasm"), osiris_examples::SUMMARY).expect("written");
        self.ends(&["deploy", "a.wasm", "--name", name], &[code]);
    }

    fn up(&self) -> Node {
        let mut command = self.command(&["up", "--http", "0", "-o", "json", "--log", "warn"]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the binary runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        assert!(line.starts_with('{'), "{line}");
        Node(child)
    }

    fn roles_of(&self, label: &str) -> (String, Value) {
        let rows = self.json(&["nodes"]);
        let row = rows.as_array().expect("rows").iter().find(|row| row["label"] == label).expect("a row");
        (row["state"].as_str().expect("a state").to_owned(), row["roles"].clone())
    }

    fn has_function(&self, name: &str) -> bool {
        self.json(&["ls"]).as_array().expect("rows").iter().any(|row| row["name"] == name)
    }
}

struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A founder whose node runs.
fn founder() -> (Home, Node) {
    let home = Home::new();
    home.done(&["init", "--name", "home", "--label", "founder"]);
    let node = home.up();
    (home, node)
}

fn joined(home: &Home, label: &str) -> Home {
    let ticket = home.written(&["invite"]);
    let guest = Home::new();
    guest.done(&["join", ticket.trim(), "--label", label]);
    guest
}

#[test]
fn roles_are_given_and_taken_while_the_member_stays() {
    let (home, _node) = founder();
    let guest = joined(&home, "guest");
    guest.deploy("a", 4);
    assert!(home.written(&["role", "grant", "guest", "operator"]).contains("guest is"));
    home.fails(&["role", "grant", "guest", "operator"], 1, "already");
    guest.done(&["sync"]);
    guest.deploy("a", 0);
    home.written(&["role", "revoke", "guest", "operator"]);
    home.fails(&["role", "revoke", "guest", "operator"], 1, "does not have");
    home.fails(&["role", "revoke", "guest", "node"], 1, "Every member has the role node");
    home.fails(&["role", "revoke", "founder", "admin"], 1, "only admin");
    guest.done(&["sync"]);
    guest.deploy("b", 4);
    assert_eq!(home.roles_of("guest").1, serde_json::json!(["node"]));
    assert!(home.has_function("a"), "what was written under the role stays");

    // Of two roles that came together one can stay.
    home.written(&["role", "grant", "guest", "operator", "admin"]);
    home.written(&["role", "revoke", "guest", "admin"]);
    assert_eq!(home.roles_of("guest").1, serde_json::json!(["node", "operator"]));
    guest.done(&["sync"]);
    guest.deploy("c", 0);

    // With a second admin the founder may step back.
    home.written(&["role", "grant", "guest", "admin"]);
    home.written(&["role", "revoke", "founder", "admin"]);
    assert_eq!(home.roles_of("founder").1, serde_json::json!(["node", "operator"]));
    home.fails(&["role", "grant", "founder", "admin"], 4, "role admin");
    home.deploy("d", 5);
}

#[test]
fn a_member_is_revoked_and_what_it_wrote_stays_unless_discarded() {
    let (home, _node) = founder();
    let keeper = joined(&home, "keeper");
    let thief = joined(&home, "thief");
    for (guest, name, function) in [(&keeper, "keeper", "kept"), (&thief, "thief", "stolen")] {
        home.written(&["role", "grant", name, "operator", "admin"]);
        guest.done(&["sync"]);
        guest.deploy(function, 0);
    }
    thief.fails(&["member", "revoke", "founder"], 4, "ranks below");
    home.fails(&["member", "revoke", "nobody"], 3, "no member");
    home.fails(&["member", "revoke", "founder"], 1, "osiris leave");

    home.written(&["member", "revoke", "keeper"]);
    assert_eq!(home.roles_of("keeper").0, "revoked");
    assert!(home.has_function("kept"));
    home.fails(&["member", "revoke", "keeper"], 1, "no member any more");

    let ended = home.written(&["member", "revoke", "thief", "--discard", "-o", "json"]);
    let ended: Value = serde_json::from_str(&ended).expect("JSON");
    assert_eq!(ended["functions_ended"], serde_json::json!(["stolen"]));
    assert!(!home.has_function("stolen") && home.has_function("kept"));
    // Its later blocks are void wherever they come from; its own node may not have heard.
    thief.ends(&["deploy", "a.wasm", "--name", "late"], &[4, 5]);
    assert!(!home.has_function("late"));
    assert_eq!(home.json(&["ledger", "verify"])["problems"], serde_json::json!([]));
}

#[test]
fn the_recovery_key_makes_a_member_the_highest_admin_after_the_founder_is_lost() {
    let home = Home::new();
    let founded = home.json(&["init", "--name", "home", "--label", "founder"]);
    let key = founded["recovery_key"].as_str().expect("a key").to_owned();
    let node = home.up();
    let guest = joined(&home, "guest");
    // The founder is lost. Nobody else may do anything about it.
    drop(node);
    guest.fails(&["member", "revoke", "founder"], 4, "role admin");
    let file = guest.0.path().join("key");
    let file = file.to_str().expect("a path");
    let recover = ["recover", "--recovery-file", file];
    guest.fails(&["recover"], 2, "nobody is here to be asked");
    guest.fails(&recover, 3, "cannot be read");
    std::fs::write(file, "none").expect("written");
    guest.fails(&recover, 1, "64 hexadecimal digits");
    std::fs::write(file, "1".repeat(64)).expect("written");
    guest.fails(&recover, 4, "not the recovery key of this fleet");

    std::fs::write(file, format!("{key}\n")).expect("written");
    let (out, err) = guest.ends(&recover, &[5]);
    assert!(out.contains("guest") && err.contains("another admin: founder"), "{out}{err}");
    assert!(!format!("{out}{err}").contains(&key), "the key is printed");
    guest.written(&["member", "revoke", "founder"]);
    assert_eq!(guest.roles_of("founder").0, "revoked");
    assert_eq!(guest.roles_of("guest").1, serde_json::json!(["node", "operator", "admin"]));

    // With a node, again: the next generation.
    let _node = guest.up();
    let again = guest.json(&recover);
    assert_eq!((&again["generation"], &again["other_admins"]), (&2.into(), &serde_json::json!([])));
    guest.deploy("after", 0);
}

/// Copies what `docs/backup.md` says to copy, the journal first, as a backup of a live folder does.
fn back_up(from: &Home, to: &Home) {
    let (from, to) = (from.0.path().join("data"), to.0.path().join("data"));
    std::fs::create_dir(&to).expect("a folder");
    for name in ["journal", "device.key", "admin.key", "peers.json", "mesh-port"] {
        if from.join(name).exists() {
            std::fs::copy(from.join(name), to.join(name)).expect("copied");
        }
    }
    std::fs::create_dir(to.join("library")).expect("a folder");
    for file in std::fs::read_dir(from.join("library")).expect("the library").flatten() {
        if file.file_type().is_ok_and(|kind| kind.is_file()) {
            std::fs::copy(file.path(), to.join("library").join(file.file_name())).expect("copied");
        }
    }
}

#[test]
fn a_folder_copied_while_its_node_ran_goes_on_elsewhere() {
    let (home, node) = founder();
    let guest = joined(&home, "guest");
    let _guest_node = guest.up();
    home.done(&["sync"]);
    home.deploy("before", 0);
    let copy = Home::new();
    back_up(&home, &copy);
    // The guest confirms what the copy lacks; then the original is gone for good.
    home.deploy("after", 0);
    drop(node);

    assert!(copy.has_function("before"), "what was acknowledged before the copy is in it");
    let _copy_node = copy.up();
    copy.done(&["sync", "--timeout", "20s"]);
    assert!(copy.has_function("after"), "what was written after it came back from the peer");
    copy.deploy("restored", 0);
    let rows = copy.json(&["nodes"]);
    assert!(rows.as_array().expect("rows").iter().all(|row| row["forks"] == 0), "{rows}");
    let log = copy.json(&["ledger", "log"]);
    let session_of = |words: &str| {
        let log = log.as_array().expect("rows").iter();
        let mut found = log.filter(|row| row["says"].as_str().is_some_and(|says| says.contains(words)));
        found.next().expect("a block")["session"].clone()
    };
    assert_ne!(session_of("deploys restored"), session_of("deploys before"), "a session of its own");
    assert_eq!(copy.json(&["ledger", "verify"])["problems"], serde_json::json!([]));
}
