//! Members, roles and what becomes of them, with the real binary and real nodes.

#[path = "people/backup.rs"]
mod backup;
#[path = "people/handover.rs"]
mod handover;
#[path = "people/idle.rs"]
mod idle;

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
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
        self.ends(&[arguments, &["--timeout", "1s"]].concat(), &[0, 5]).0
    }

    fn fails(&self, arguments: &[&str], code: i32, words: &str) {
        let (_, err) = self.ends(arguments, &[code]);
        assert!(err.contains(words) && err.contains("next: "), "{arguments:?}: {err}");
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.done(&[arguments, &["-o", "json"]].concat())).expect("JSON")
    }

    /// Documents of a stream, one a line.
    fn lines(&self, arguments: &[&str]) -> Value {
        let out = self.done(&[arguments, &["-o", "json"]].concat());
        out.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")).collect()
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

    /// Waits until so many nodes serve a function's newest revision.
    fn served_by(&self, name: &str, nodes: u64) {
        let serves = |row: &Value| row["name"] == name && row["served_by"] == nodes;
        while !self.json(&["ls"]).as_array().expect("rows").iter().any(serves) {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
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

/// What a founder holds, so that it can be given to others.
fn every_role() -> Value {
    serde_json::json!(["node", "operator", "admin", "viewer", "invoker", "spawner", "voter"])
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
    home.fails(&["role", "revoke", "guest", "node"], 1, "role node is not taken by itself");
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

    // What it writes before it hears that the role has ended does not count, and it is told so once it meets others.
    home.written(&["role", "revoke", "guest", "operator"]);
    guest.deploy("late", 4);
    assert!(!home.has_function("late"));
    home.written(&["role", "grant", "guest", "operator"]);
    guest.done(&["sync"]);
    guest.deploy("c", 0);

    // With a second admin the founder may step back.
    home.written(&["role", "grant", "guest", "admin"]);
    // It may do what an admin does: a block names one grant, which holds all of its roles.
    guest.done(&["sync"]);
    let node = guest.up();
    assert!(guest.written(&["invite"]).starts_with("osiris"));
    drop(node);
    home.written(&["role", "revoke", "founder", "admin"]);
    let mut left = every_role();
    left.as_array_mut().expect("roles").retain(|role| role != "admin");
    assert_eq!(home.roles_of("founder").1, left);
    home.fails(&["role", "grant", "founder", "admin"], 4, "role admin");
    home.deploy("d", 5);
}

const CALL: [&str; 3] = ["call", "summary", r#"{"samples":[{"cpu_percent":10}]}"#];

#[test]
fn who_only_reads_calls_nothing_and_leaves_as_it_came() {
    let (home, _node) = founder();
    home.deploy("summary", 0);
    home.served_by("summary", 1);
    let wall = Home::new();
    let device = wall.json(&["whoami"])["device"].as_str().expect("a key").to_owned();
    let ticket = home.written(&["invite", "--role", "viewer", "--device", &device]);
    wall.done(&["join", ticket.trim(), "--label", "wall"]);
    assert_eq!(home.roles_of("wall").1, serde_json::json!(["viewer"]));
    wall.fails(&CALL, 4, "may not call functions");
    let node = wall.up();
    wall.fails(&CALL, 4, "may not call functions");
    drop(node);

    home.written(&["role", "grant", "wall", "invoker"]);
    wall.done(&["sync"]);
    wall.done(&CALL);
    wall.done(&["leave", "--yes"]);
    assert_eq!(home.roles_of("wall").0, "revoked");
    // It keeps its name, whatever the machine is called.
    let ticket = home.written(&["invite"]);
    wall.done(&["join", ticket.trim()]);
    assert_eq!(home.roles_of("wall").1, serde_json::json!(["node"]));
}

#[test]
fn an_admin_gives_no_role_that_it_lacks_and_hears_which() {
    let (home, _node) = founder();
    let (admin, _other) = (joined(&home, "admin"), joined(&home, "other"));
    home.written(&["role", "grant", "admin", "admin"]);
    admin.done(&["sync"]);
    admin.fails(&["role", "grant", "other", "spawner"], 4, "does not hold the role(s) spawner");
}

#[test]
fn what_was_deployed_since_the_last_contact_can_be_called_without_a_node() {
    let (home, _node) = founder();
    let laptop = joined(&home, "laptop");
    home.deploy("summary", 5);
    home.served_by("summary", 1);
    laptop.done(&CALL);
    laptop.fails(&["call", "nothing", "[]"], 3, "nothing");
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
    // Its later blocks are void wherever they come from, and it learns that from the first member that it meets.
    thief.fails(&["deploy", "a.wasm", "--name", "late"], 4, "revoked by founder");
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
    assert_eq!(guest.roles_of("guest").1, every_role());

    // With a node, again: the next generation.
    let _node = guest.up();
    let again = guest.json(&recover);
    assert_eq!((&again["generation"], &again["other_admins"]), (&2.into(), &serde_json::json!([])));
    guest.deploy("after", 0);
}

const TOLD: &str = "This device was revoked by founder on 20";

impl Home {
    /// Every command says that this device is no member, and those that write are denied.
    fn is_told(&self) {
        let says = |arguments: &[&str], code| {
            let (out, err) = self.ends(arguments, &[code]);
            let said = format!("{out}{err}");
            assert!(said.contains(TOLD) && said.contains("osiris join TICKET"), "{arguments:?}: {said}");
        };
        says(&["status"], 0);
        says(&["nodes"], 0);
        says(&["doctor"], 1);
        self.deploy("void", 4);
        says(&["deploy", "a.wasm", "--name", "void"], 4);
        says(&["invite"], 4);
        says(&["leave", "--yes"], 4);
        says(&["sync"], 4);
        says(&["call", "kept", "1"], 4);
    }
}

#[test]
fn a_device_that_was_revoked_while_it_was_away_learns_it_and_says_so_everywhere() {
    let (home, _node) = founder();
    home.deploy("kept", 0);
    let guests = ["runs", "asks", "calls", "joins"].map(|label| (label, joined(&home, label)));
    for (label, guest) in &guests {
        home.written(&["role", "grant", label, "operator"]);
        guest.done(&["sync"]);
        home.written(&["member", "revoke", label]);
    }
    let [(_, runs), (_, asks), (_, calls), (_, joins)] = guests;
    // A node that comes back: it is told while it runs.
    let node = runs.up();
    assert!((0..1_200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        runs.json(&["status"])["state"] == "not a member"
    }));
    runs.is_told();
    drop(node);
    runs.is_told();
    // One that calls is turned away, and asks why.
    calls.fails(&["call", "kept", "1"], 4, TOLD);
    calls.is_told();
    // Commands without a node: the first that meets a member.
    std::fs::write(asks.0.path().join("a.wasm"), osiris_examples::SUMMARY).expect("written");
    asks.fails(&["deploy", "a.wasm", "--name", "unseen"], 4, TOLD);
    asks.is_told();
    assert!(!home.has_function("unseen") && !home.has_function("void"));
    // A new ticket is what it needs, though it has not heard yet that it does.
    let ticket = home.written(&["invite"]);
    let admitted = joins.json(&["join", ticket.trim(), "--label", "joined"]);
    assert_eq!((&admitted["already_member"], &admitted["label"]), (&false.into(), &"joined".into()));
    assert_ne!(home.roles_of("joined").0, "revoked");
    // It is one now: another ticket changes neither that nor its name.
    let ticket = home.written(&["invite"]);
    let again = joins.json(&["join", ticket.trim(), "--label", "renamed"]);
    assert_eq!((&again["already_member"], &again["label"]), (&true.into(), &"joined".into()));
}

#[test]
fn a_device_leaves_without_a_node_and_the_others_hear_of_it() {
    let (home, _node) = founder();
    let guest = joined(&home, "guest");
    let (_, err) = guest.ends(&["leave", "--yes"], &[0]);
    assert!(err.contains("seen by 1 node"), "{err}");
    assert_eq!(home.roles_of("guest").0, "revoked");
    guest.fails(&["sync"], 4, "This device left the fleet on 20");
}

/// What others did since this device met them last is taken in before it writes: else its deploy would lose against
/// theirs, and its revocation would miss what they gave.
#[test]
fn what_is_written_without_a_node_speaks_of_the_fleet_as_it_is() {
    let (home, _node) = founder();
    let guest = joined(&home, "guest");
    home.written(&["role", "grant", "guest", "operator"]);
    // Nobody is there to see what is deployed meanwhile.
    for _ in 0..3 {
        home.deploy("f", 5);
    }
    home.deploy("g", 5);
    std::fs::write(guest.0.path().join("b.wasm"), osiris_examples::SUMMARY_V2).expect("written");
    let deployed = guest.json(&["deploy", "b.wasm", "--name", "f"]);
    assert_eq!(deployed["revision"], 4, "{deployed}");
    let row = |home: &Home| home.json(&["ls"])[0].clone();
    assert!(
        (0..1_200).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            row(&home)["revision"] == 4
        }),
        "what was deployed last is live: {}",
        row(&home)
    );
    assert_eq!(row(&home)["concurrent"], false);
    guest.done(&["remove", "g"]);
    assert!(!home.has_function("g"));
}

/// What a member left open when it was revoked lets nobody in, and a key that still does is named.
#[test]
fn a_revoked_member_leaves_no_open_invitation() {
    let (home, _node) = founder();
    let guest = Home::new();
    let key = guest.done(&["whoami"]);
    let ticket = home.written(&["invite", "--role", "admin", "--device", key.trim()]);
    guest.done(&["join", ticket.trim(), "--label", "guest"]);
    let ticket = guest.written(&["invite"]);
    guest.done(&["sync", "--timeout", "20s"]);
    let (_, said) = home.ends(&["member", "revoke", "guest", "--timeout", "1s"], &[0, 5]);
    assert!(said.contains("1 open invitation"), "{said}");
    let other = Home::new();
    other.ends(&["join", ticket.trim(), "--label", "other", "--timeout", "5s"], &[1, 3, 4]);
    assert_eq!(home.json(&["nodes"]).as_array().expect("rows").len(), 2);
}

#[test]
fn the_last_member_that_leaves_hears_what_that_means() {
    let home = Home::new();
    home.done(&["init", "--name", "home", "--label", "founder"]);
    let (_, said) = home.ends(&["leave", "--yes"], &[0]);
    assert!(said.contains("last member"), "{said}");
    for arguments in [&["sync"][..], &["invite"], &["call", "f", "1"], &["leave", "--yes"]] {
        home.fails(arguments, 4, "This device left the fleet on 20");
    }
}

#[test]
fn an_invitation_that_is_withdrawn_already_is_as_it_was_asked_for() {
    let (home, _node) = founder();
    home.written(&["invite"]);
    let id = home.json(&["invite", "ls"])[0]["id"].as_str().expect("an id").to_owned();
    assert!(home.written(&["invite", "revoke", &id]).contains("withdrew"));
    assert!(home.done(&["invite", "revoke", &id]).contains("withdrawn already"));
}

impl Home {
    /// A file with a passphrase.
    fn passphrase(&self, words: &str) -> String {
        let path = self.0.path().join("passphrase");
        std::fs::write(&path, format!("{words}\n")).expect("written");
        path.to_str().expect("a path").to_owned()
    }

    fn user(&self, name: &str) -> Value {
        let rows = self.json(&["user", "ls"]);
        let mut rows = rows.as_array().expect("rows").iter();
        rows.find(|row| row["name"] == name && row["state"] != "revoked").expect("a user").clone()
    }

    /// All files of the data folder, as one text.
    fn kept(&self) -> String {
        let files = std::fs::read_dir(self.0.path().join("data")).expect("the folder").flatten();
        let files = files.filter(|file| file.file_type().is_ok_and(|kind| kind.is_file()));
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        files.map(|file| text(std::fs::read(file.path()).expect("read"))).collect()
    }
}

const WORDS: &str = "correct horse battery";

/// A person with a key on a laptop: the laptop, the file with the passphrase, and the key's public half.
fn person() -> (Home, String, String) {
    let laptop = Home::new();
    let words = laptop.passphrase(WORDS);
    let (key, err) = laptop.ends(&["user", "key", "new", "--passphrase-file", &words], &[0]);
    assert!(!format!("{key}{err}").contains(WORDS));
    (laptop, words, key.trim().to_owned())
}

#[test]
fn a_persons_key_admits_laptops_with_the_persons_roles_by_any_member() {
    let (home, node) = founder();
    let guest = joined(&home, "guest");
    let guest_node = guest.up();
    let other = joined(&home, "other");
    let (laptop, words, key) = person();
    assert_eq!(laptop.done(&["user", "key", "show"]).trim(), key);
    let add = ["user", "add", "isis", "--roles", "node,operator", "--devices", "2", "--public-key", &key];
    guest.ends(&add, &[4]);
    home.written(&add);
    home.fails(&add, 1, "already");
    assert_eq!(home.user("isis")["devices"], serde_json::json!([]));
    guest.done(&["sync"]);

    // The admin is away: a plain member makes the ticket, and admits.
    drop(node);
    let ticket = guest.done(&["user", "ticket", "isis"]);
    let ticket = ticket.trim();
    laptop.fails(&["join", ticket], 2, "nobody is here to be asked");
    std::fs::write(laptop.0.path().join("wrong"), "not the words\n").expect("written");
    laptop.fails(&["join", ticket, "--passphrase-file", "wrong"], 4, "the passphrase is wrong");
    // The ticket alone admits nobody, nor does another person's key.
    Home::new().fails(&["join", ticket], 3, "cannot be used");
    let (stranger, strange_words, _) = person();
    let (_, err) = stranger.ends(&["join", ticket, "--passphrase-file", &strange_words], &[4]);
    assert!(err.contains("not the one that the fleet knows"), "{err}");

    let join = ["join", ticket, "--label", "laptop", "--passphrase-file", &words];
    let (out, err) = laptop.ends(&join, &[0]);
    assert!(out.contains("node, operator"), "{out}");
    assert!(!format!("{out}{err}{}", laptop.kept()).contains(WORDS), "the passphrase is told or kept");
    laptop.deploy("by-isis", 0);
    // A member gets the user's roles on top, by the same key.
    let key_file = laptop.0.path().join(".config/osiris/user.key");
    let key_file = key_file.to_str().expect("a path");
    let second = ["join", ticket, "--key", key_file, "--passphrase-file", &words];
    other.done(&second);
    assert_eq!(guest.user("isis")["state"], "used-up");
    let (_, err) = Home::new().ends(&second, &[4]);
    assert!(err.contains("as many devices as it may") && err.contains("--devices"), "{err}");
    drop(guest_node);
}

#[test]
fn a_revoked_user_admits_no_more_and_its_devices_go_or_stay_as_told() {
    let (home, _node) = founder();
    let words = home.passphrase(WORDS);
    let add = ["user", "add", "isis", "--roles", "node", "--passphrase-file", &words];
    let ticket = home.done(&add);
    home.fails(&["user", "add", "seth", "--passphrase-file", &words], 2, "already");
    let key = home.0.path().join(".config/osiris/user.key");
    let mode = std::fs::metadata(&key).expect("the key file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let key = key.to_str().expect("a path");
    let with_key = ["--key", key, "--passphrase-file", &words, "--timeout", "20s"];
    let join = |home: &Home, ticket: &str, label: &str, code| {
        home.ends(&[&["join", ticket.trim(), "--label", label], &with_key[..]].concat(), &[code]).1
    };
    let (first, second) = (Home::new(), Home::new());
    join(&first, &ticket, "first", 0);

    // Other roles: by the same key, for those that come later.
    home.fails(&["user", "roles", "isis", "node"], 1, "already");
    let changed = home.written(&["user", "roles", "isis", "node,operator", "-o", "json"]);
    let changed: Value = serde_json::from_str(&changed).expect("JSON");
    let changed = changed["ticket"].as_str().expect("a ticket");
    assert!(join(&second, &ticket, "second", 4).contains("other roles"), "the ticket of before");
    join(&second, changed, "second", 0);
    assert_eq!(home.roles_of("first").1, serde_json::json!(["node"]));
    assert_eq!(home.roles_of("second").1, serde_json::json!(["node", "operator"]));
    second.deploy("by-isis", 0);

    // Who did what, by which grant: also from the folder alone.
    let log = |arguments: &[&str]| -> Vec<String> {
        let rows = second.lines(&[&["ledger", "log"], arguments].concat());
        let says = |row: &Value| row["says"].as_str().expect("words").to_owned();
        rows.as_array().expect("rows").iter().map(says).collect()
    };
    let by_isis = log(&["--user", "isis", "--op", "deployed"]);
    assert!(by_isis.len() == 1 && by_isis[0].contains("deploys by-isis"), "{by_isis:?}");
    assert_eq!(log(&["--author", "second", "--function", "by-isis", "--since", "1h"]), by_isis);
    assert!(log(&["--op", "deployed", "--until", "2020-01-01T00:00:00Z"]).is_empty());
    assert_eq!(log(&["--limit", "1"]).len(), 1);
    second.fails(&["ledger", "log", "--user", "nobody"], 3, "no user");
    second.fails(&["ledger", "log", "--author", "nobody"], 3, "no member");
    let row = second.lines(&["ledger", "log", "--op", "deployed"])[0].clone();
    assert_eq!((&row["by"], &row["void"]), (&"the key of isis".into(), &"".into()));
    // A row can be checked by itself: its id is the hash of what was signed.
    let entry = row["entry"].as_str().expect("hex");
    assert_eq!(entry.len() as u64, 2 * row["bytes"].as_u64().expect("bytes"));
    assert!(second.done(&["ledger", "log", "--op", "claimed"]).is_empty());

    let who = second.json(&["whoami"]);
    assert_eq!(
        (&who["label"], &who["users"], &who["member"]),
        (&"second".into(), &serde_json::json!(["isis"]), &true.into())
    );
    assert_eq!(who["grants"][0]["rank"], "directly below the founder");
    assert!(home.done(&["whoami"]).contains("the founder: only a recovery ranks higher"));

    // The second device has a role from elsewhere, too, so it stays.
    home.written(&["role", "grant", "second", "voter"]);
    let ended = home.written(&["user", "revoke", "isis", "--discard", "-o", "json"]);
    let ended: Value = serde_json::from_str(&ended).expect("JSON");
    assert_eq!(ended["devices_ended"], serde_json::json!(["first"]));
    assert_eq!(ended["devices_staying"], serde_json::json!(["second (voter)"]));
    assert_eq!(ended["functions_ended"], serde_json::json!(["by-isis"]));
    let row = home.lines(&["ledger", "log", "--op", "deployed"])[0].clone();
    assert!(row["void"].as_str().expect("words").contains("revoked") && row["effective"] == false, "{row}");
    home.fails(&["user", "revoke", "isis"], 1, "revoked already");
    home.fails(&["user", "ticket", "isis"], 1, "was revoked");
    let third = Home::new();
    assert!(join(&third, changed, "third", 4).contains("refused"));
    assert_eq!(home.json(&["ledger", "verify"])["problems"], serde_json::json!([]));

    // A key file that was damaged says so, and not that the passphrase is wrong.
    let mut bytes = std::fs::read(key).expect("the key file");
    bytes[100] ^= 1;
    std::fs::write(key, bytes).expect("written");
    assert!(join(&third, changed, "third", 1).contains("damaged"));
}

#[test]
fn a_key_that_one_fleet_knows_opens_no_other_and_takes_another_passphrase() {
    let (laptop, words, key) = person();
    let (one, _one_node) = founder();
    let (two, _two_node) = founder();
    let of_one = one.done(&["user", "add", "isis", "--public-key", &key]);
    let (_, _, other) = person();
    let of_two = two.done(&["user", "add", "isis", "--public-key", &other]);
    let (_, err) = laptop.ends(&["join", of_two.trim(), "--passphrase-file", &words], &[4]);
    assert!(err.contains("not the one that the fleet knows"), "{err}");

    std::fs::write(laptop.0.path().join("new"), "entirely other words\n").expect("written");
    std::fs::write(laptop.0.path().join("short"), "1234567\n").expect("written");
    let change = ["user", "key", "passphrase", "--passphrase-file", &words, "--new-passphrase-file"];
    laptop.fails(&[&change[..], &["short"]].concat(), 2, "at least 8 bytes");
    assert_eq!(laptop.done(&[&change[..], &["new"]].concat()).trim(), key);
    laptop.fails(&["join", of_one.trim(), "--passphrase-file", &words], 4, "the passphrase is wrong");
    laptop.done(&["join", of_one.trim(), "--passphrase-file", "new"]);
}
