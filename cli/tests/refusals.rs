//! What is refused, by the real binary: each time a sentence, what to do next, the right exit code, and nothing lost.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

mod home;

use home::{BINARY, Home, Ran};

#[test]
fn tickets_that_admit_nobody_are_refused_with_a_reason() {
    let home = Home::founded();
    // A ticket says where somebody can be reached, so one is made while the node runs.
    home.fails(&["invite"], 1, &["ticket", "osiris up"]);
    let node = home.up();
    let ticket = home.done(&["invite"]).out.trim().to_owned();
    let dial = home.done(&["ticket"]).out.trim().to_owned();
    let withdrawn = home.done(&["invite", "--note", "withdrawn"]).out.trim().to_owned();
    let open = home.done(&["invite", "ls", "-o", "json"]).json();
    let open = open.as_array().expect("rows");
    let id = open.iter().find(|row| row["note"] == "withdrawn").and_then(|row| row["id"].as_str());
    home.done(&["invite", "revoke", id.expect("the invitation")]);
    let late = Home::new();
    late.fails(
        &["join", &withdrawn, "--timeout", "20s"],
        4,
        &["was withdrawn.", "Ask an admin for a new ticket."],
    );
    assert_eq!(home.done(&["nodes", "-o", "json"]).json().as_array().map(Vec::len), Some(1));
    node.down();

    let guest = Home::new();
    guest.fails(&["join", "nonsense"], 2, &["not an Osiris ticket", "next: "]);
    guest.fails(&["join", &ticket[..ticket.len() - 9]], 2, &["ticket", "next: "]);
    let last = if ticket.ends_with('a') { "b" } else { "a" };
    let altered = format!("{}{last}", &ticket[..ticket.len() - 1]);
    guest.fails(&["join", &altered], 2, &["ticket", "next: "]);
    guest.fails(&["join", &dial], 2, &["admits no device"]);
    guest.fails(&["join", "@missing.txt"], 3, &["cannot be read", "next: "]);
    assert_eq!(guest.run_with_input(&["join", "-"], b"nonsense").code, 2);
    assert!(!guest.path().join("data").exists());

    let other = Home::founded();
    other.fails(&["join", &ticket], 1, &["another fleet", "next: "]);
    // Nobody runs that could admit.
    guest.fails(&["join", &ticket, "--timeout", "1s"], 6, &["answered in time", "next: "]);
}

#[test]
fn what_no_block_could_say_is_a_usage_error_and_what_is_not_there_is_not_found() {
    let home = Home::founded();
    home.fails(&["member", "label", "test", "a b"], 2, &["a label is KEY or KEY=VALUE"]);
    home.fails(
        &["scale", "f", "--min", "5", "--max", "2"],
        2,
        &["At least 5 replicas cannot be at most 2", "next: "],
    );
    home.fails(
        &["ledger", "log", "--function", "nobody"],
        3,
        &["No block speaks of a function nobody", "next: "],
    );
    home.fails(&["ledger", "log", "--function", "nobody", "-o", "json"], 3, &["nobody"]);
    // A key that nobody was told of is not left behind, so that the command can be given again.
    home.write("passphrase", b"correct horse battery staple\n");
    let add =
        ["user", "add", "isis", "--passphrase-file", "passphrase", "--key", "isis.key", "--timeout", "1s"];
    home.done(&add);
    std::fs::rename(home.path().join("isis.key"), home.path().join("kept.key")).expect("moved");
    home.fails(&add, 1, &["isis", "next: "]);
    assert!(!home.path().join("isis.key").exists());
    // A pipe is no archive, and nobody waits for what comes out of it.
    let pipe = home.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).expect("a pipe");
    home.fails(&["ledger", "archive", "--verify", "pipe"], 1, &["pipe", "next: "]);
}

#[test]
fn bad_components_are_refused_before_anything_is_written() {
    let home = Home::founded();
    let text = home.write("a.wasm", b"hello");
    let core = home.write("b.wasm", b"\0asm\x01\0\0\0");
    home.fails(&["deploy", &text, "--name", "a"], 1, &["not a WebAssembly file", "next: "]);
    home.fails(&["deploy", &core, "--name", "a"], 1, &["core WebAssembly module", "wasm32-wasip2"]);
    home.fails(&["deploy", "none.wasm", "--name", "a"], 3, &["none.wasm", "next: "]);
    let import = r#"(component (import "acme:database/store@1.0.0" (instance)))"#;
    let import = home.write("c.wasm", &wat::parse_str(import).expect("valid text"));
    let refused = &["imports 'acme:database/store@1.0.0'", "functions may use wasi:cli", "next: "];
    home.fails(&["deploy", &import, "--name", "a"], 1, refused);
    home.fails(&["deploy", &import, "--name", "a", "--dry-run"], 1, refused);
    let good = home.write("d.wasm", osiris_examples::SUMMARY);
    for name in ["A", "a b", "a/b", "", "-a", "ä"] {
        home.fails(
            &["deploy", &good, &format!("--name={name}")],
            2,
            &["cannot name a function: use 1 to 63 characters"],
        );
    }
    home.write("osiris.toml", b"name = \"a\"\ncomponent = \"a.wasm\"\nroutes = []\n");
    home.fails(&["deploy"], 2, &["line 3", "unknown field `routes`"]);
    assert_eq!(home.done(&["ls", "-o", "json"]).json(), serde_json::json!([]));
}

#[test]
fn a_flipped_bit_in_the_journal_is_found_and_what_lies_before_it_is_kept() {
    let home = Home::founded();
    let wasm = home.write("a.wasm", osiris_examples::SUMMARY);
    let before = std::fs::read(home.path().join("data/journal")).expect("the journal").len();
    home.done(&["deploy", &wasm, "--name", "first"]);
    let between = std::fs::read(home.path().join("data/journal")).expect("the journal").len();
    home.done(&["deploy", &wasm, "--name", "second"]);
    let journal = home.path().join("data/journal");
    let sound = std::fs::read(&journal).expect("the journal");
    for (place, kept) in [((between + sound.len()) / 2, &["first"][..]), ((before + between) / 2, &[])] {
        let mut bytes = sound.clone();
        bytes[place] ^= 1;
        std::fs::write(&journal, &bytes).expect("written");
        let verified = home.run(&["ledger", "verify", "-o", "json"]);
        let problem = &verified.json()["problems"][0];
        let (file, byte) = (&problem["place"]["file"], problem["place"]["byte"].as_u64());
        assert!(
            verified.code == 1 && file.as_str().is_some_and(|file| file.ends_with("journal")),
            "{verified:?}"
        );
        assert!(byte.is_some_and(|byte| byte <= place as u64), "{verified:?}");
        let listed = home.run(&["ls", "-o", "json"]);
        let names: Vec<_> =
            listed.json().as_array().expect("rows").iter().map(|row| row["name"].clone()).collect();
        assert_eq!(names, kept, "{listed:?}");
        assert!(listed.code == 0 && listed.err.contains("warning:"), "{listed:?}");
        // Looking has changed nothing, so whoever puts the bit back has everything again.
        assert!(std::fs::read(&journal).expect("the journal") == bytes);
    }
    std::fs::write(&journal, sound).expect("written");
    assert_eq!(home.done(&["ls", "-o", "json"]).json().as_array().map(Vec::len), Some(2));
    home.done(&["ledger", "verify"]);
}

#[test]
fn a_node_that_cannot_listen_says_what_to_do() {
    let home = Home::founded();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("bound");
    let (port, token) = (taken.to_string(), home.write("token", b"short"));
    for format in ["table", "json"] {
        let up = |more: &[&str], words: &[&str]| {
            home.fails(&[&["up", "--log", "error", "-o", format], more].concat(), 1, words);
        };
        up(&["--http", &port], &["cannot listen", "next: ", "--http PORT"]);
        up(&["--http", "0.0.0.0:0"], &["without a token", "next: ", "--token-file"]);
        up(&["--http", "0", "--token-file", &token], &["the mode", "next: ", "chmod 600"]);
    }
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("bound").to_string();
    let up = ["up", "--log", "error", "--http", "0", "--mesh", &taken];
    home.fails(&up, 1, &[&taken, "next: ", "--mesh"]);
    let socket = home.path().join("data/osiris.sock");
    std::fs::write(&socket, "mine").expect("written");
    home.fails(&["up", "--log", "error", "--http", "0"], 1, &["not a socket", "next: "]);
}

#[test]
fn a_file_that_is_missing_is_3_in_every_command() {
    let home = Home::founded();
    for arguments in [
        &["join", "@none"][..],
        &["recover", "--recovery-file", "none"],
        &["up", "--http", "0", "--token-file", "none"],
        &["call", "f", "@none"],
        &["deploy", "none", "--name", "f"],
        &["deploy", "--manifest", "none"],
        &["sim", "replay", "none"],
        &["user", "key", "new", "--passphrase-file", "none"],
    ] {
        home.fails(arguments, 3, &["none cannot be read", "next: "]);
    }
}

#[test]
fn a_folder_that_nothing_can_be_written_to_is_read_and_says_what_cannot_be_done() {
    let home = Home::founded();
    let wasm = home.write("a.wasm", osiris_examples::SUMMARY);
    home.done(&["deploy", &wasm, "--name", "kept"]);
    let data = home.path().join("data");
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("changed");
    };
    let (mut folders, mut files) = (vec![home.path().to_owned(), data.clone()], Vec::new());
    for entry in std::fs::read_dir(&data).expect("the folder").flatten() {
        let is_folder = entry.file_type().expect("a kind").is_dir();
        if is_folder { &mut folders } else { &mut files }.push(entry.path());
    }
    // No mode keeps root from writing, and root's folders are closed to everyone else: the binary as well.
    let root = rustix::process::geteuid().is_root();
    let binary = if root { home.path().join("osiris") } else { BINARY.into() };
    if root {
        std::fs::copy(BINARY, &binary).expect("copied");
    }
    files.iter().for_each(|file| mode(file, 0o444));
    folders.iter().for_each(|folder| mode(folder, 0o555));
    let run = |arguments: &[&str]| {
        let mut command = home.command_of(&binary, arguments);
        if root {
            command.uid(65_534);
        }
        Ran::of(arguments, command.output().expect("the binary runs"))
    };
    for arguments in
        [&["status"][..], &["nodes"], &["ls"], &["describe", "kept"], &["ledger", "log"], &["whoami"]]
    {
        let ran = run(arguments);
        assert!(ran.code == 0 && ran.err.contains("Nothing can be written"), "{ran:?}");
    }
    assert!(run(&["ledger", "log"]).out.contains("deploys kept"));
    let doctor = run(&["doctor"]);
    assert!(doctor.code == 1 && doctor.out.contains("cannot be written to"), "{doctor:?}");
    for arguments in [&["deploy", &wasm, "--name", "b"][..], &["remove", "kept"], &["invite"]] {
        let ran = run(arguments);
        assert!(ran.code == 4 && ran.err.contains("may not write") && ran.err.contains("next: "), "{ran:?}");
    }
    folders.iter().for_each(|folder| mode(folder, 0o755));
}

/// Counts to ten thousand million, which takes seconds, and says "done".
const COUNTS: &str = r#"(component
    (core module $m
        (memory (export "memory") 1)
        (data (i32.const 0) "\00\00\00\00\10\00\00\00\06\00\00\00\00\00\00\00\22done\22")
        (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024)
        (func (export "call") (param i32 i32) (result i32) (local $left i64)
            (local.set $left (i64.const 10000000000))
            (loop $again
                (local.set $left (i64.sub (local.get $left) (i64.const 1)))
                (br_if $again (i64.ne (local.get $left) (i64.const 0))))
            i32.const 0))
    (core instance $i (instantiate $m))
    (func (export "call") (param "input" string) (result (result string (error string)))
        (canon lift (core func $i "call") (memory (core memory $i "memory"))
            (realloc (core func $i "realloc")))))"#;

#[test]
fn a_node_that_is_told_to_end_answers_what_it_has_begun() {
    for signal in [Signal::TERM, Signal::INT] {
        let home = Home::founded();
        let node = home.up();
        home.write("counts.wasm", &wat::parse_str(COUNTS).expect("valid text"));
        let manifest = "name = \"counts\"\ncomponent = \"counts.wasm\"\n[limits]\ntimeout_ms = 120000\n";
        home.write("osiris.toml", manifest.as_bytes());
        home.done(&["deploy", "--wait", "--timeout", "60s"]);
        let http =
            node.addresses["http"].as_str().and_then(|http| http.strip_prefix("http://")).expect("one");
        let mut call = std::net::TcpStream::connect(http).expect("it listens");
        let request = format!(
            "POST /function/counts HTTP/1.1\r\nhost: {http}\r\ncontent-type: application/json\r\n\
             content-length: 1\r\nconnection: close\r\n\r\n1"
        );
        call.write_all(request.as_bytes()).expect("sent");
        let in_flight = || {
            let rows = home.done(&["backlog", "-o", "json"]).json();
            rows.as_array().is_some_and(|rows| rows.iter().any(|row| row["in_flight"] == 1))
        };
        let end = Instant::now() + Duration::from_secs(30);
        while !in_flight() {
            assert!(Instant::now() < end, "{:?}", home.done(&["backlog", "-o", "json"]));
            std::thread::sleep(Duration::from_millis(50));
        }
        rustix::process::kill_process(Pid::from_child(&node.child), signal).expect("signalled");
        call.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
        let mut answer = String::new();
        call.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\n\"done\""), "{answer}");
        node.ended();
        assert_eq!(home.done(&["status", "-o", "json"]).json()["state"], "stopped");
    }
}

/// A small disk of its own; it goes with the test.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn at(place: &Path, options: &str) -> Self {
        std::fs::create_dir_all(place).expect("made");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "osiris-test"]).arg(place);
        assert!(mount.status().expect("mount runs").success());
        Self(place.to_owned())
    }

    /// Takes all space but so many bytes.
    fn fill_but(&self, left: usize) {
        let mut filler = std::fs::File::create(self.0.join("filler")).expect("made");
        while filler.write_all(&[0; 4_096]).is_ok() {}
        let held = filler.metadata().expect("there").len();
        filler.set_len(held.saturating_sub(left as u64)).expect("cut");
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).expect("removed");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a test that failed may have left a process in it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
#[ignore = "needs root"]
fn on_a_full_disk_nothing_is_acknowledged_and_nothing_is_lost() {
    let home = Home::new();
    let disk = SmallDisk::at(&home.path().join("data"), "size=3m");
    home.done(&["init", "--name", "home", "--label", "test"]);
    let summary = home.write("summary.wasm", osiris_examples::SUMMARY);
    let chart = home.write("chart.wasm", osiris_examples::CHART);
    home.done(&["deploy", &summary, "--name", "kept"]);

    // Without a node: there is no room for the component.
    disk.fill_but(32 << 10);
    let refused = home.fails(&["deploy", &chart, "--name", "second"], 1, &["is full", "free", "library"]);
    assert!(refused.err.contains("data/library is full;"), "no temporary file is named: {refused:?}");
    let names = |home: &Home| {
        let rows = home.done(&["ls", "-o", "json"]).json();
        rows.as_array().expect("rows").iter().map(|row| row["name"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&home), ["kept"]);
    disk.free();
    home.done(&["deploy", &chart, "--name", "second"]);

    // A node whose disk fills up: what it refuses is not there, and what it serves goes on.
    let node = home.up();
    let sample = r#"{"samples": [{"cpu_percent": 10.0}]}"#;
    home.done(&["deploy", &summary, "--name", "third", "--wait", "--timeout", "60s"]);
    home.done(&["call", "third", sample]);
    disk.fill_but(0);
    for name in ["fourth", "fifth"] {
        home.fails(&["deploy", &summary, "--name", name], 1, &["next: "]);
    }
    // The journal's last block has room for some records more; then it refuses for good.
    let labelled = |n: usize| home.run(&["member", "label", "test", &format!("label-{n}")]);
    let acknowledged = (0..100).take_while(|n| labelled(*n).code == 0).count();
    assert!(acknowledged < 100, "the disk is full, and everything was acknowledged");
    home.fails(&["member", "label", "test", "again"], 1, &["next: "]);
    home.done(&["call", "third", sample]);
    drop(node);
    disk.free();
    assert_eq!(names(&home), ["kept", "second", "third"]);
    let log = home.done(&["ledger", "log", "--op", "labelled", "--limit", "200", "-o", "json"]);
    assert!(log.out.lines().count() >= acknowledged, "{log:?}");
    home.done(&["ledger", "verify"]);
    let node = home.up();
    home.done(&["deploy", &summary, "--name", "fourth", "--wait", "--timeout", "60s"]);
    node.down();
}
