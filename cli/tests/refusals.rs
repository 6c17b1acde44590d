//! What is refused, by the real binary: each time a sentence, what to do next, the right exit code, and nothing lost.

use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;

mod driven;

use driven::{BINARY, Home, Ran};
use osiris_protocol::ticket::{InvitationSecret, Ticket};
use serde_json::json;

#[test]
fn tickets_that_admit_nobody_are_refused_with_a_reason() {
    let home = Home::founded();
    // A ticket says where somebody can be reached, so one is made while the node runs.
    home.fails(&["invite"], 1, &["ticket", "osiris up"]);
    let node = home.up();
    let ticket = home.done(&["invite"]).out.trim().to_owned();
    let dial = home.done(&["ticket"]).out.trim().to_owned();
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
    assert_eq!(home.done(&["ls", "-o", "json"]).json(), json!([]));
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
        &["ledger", "archive", "--verify", "none"],
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

/// A native component that is in order, but for one interface that it imports.
fn importing(interface: &str) -> Vec<u8> {
    let text = format!(
        r#"(component
        (import "{interface}" (instance))
        (core module $m
            (memory (export "memory") 1)
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024)
            (func (export "call") (param i32 i32) (result i32) i32.const 0))
        (core instance $i (instantiate $m))
        (func (export "call") (param "input" string) (result (result string (error string)))
            (canon lift (core func $i "call") (memory (core memory $i "memory")) (realloc (core func $i "realloc")))))"#
    );
    wat::parse_str(text).expect("valid text")
}

#[test]
fn a_component_that_imports_what_nothing_grants_is_refused_and_not_recorded() {
    let home = Home::founded();
    let granted = home.write("granted.wasm", &importing("wasi:random/random@0.2.0"));
    home.done(&["deploy", &granted, "--name", "granted", "--dry-run"]);
    let store = home.write("store.wasm", &importing("wasi:keyvalue/store@0.2.0"));
    let held = || {
        let library = std::fs::read_dir(home.path().join("data/library"));
        (home.done(&["ledger", "log"]).out, library.map_or(0, Iterator::count))
    };
    let before = held();
    let words =
        ["store.wasm", "imports 'wasi:keyvalue/store@0.2.0'", "does not offer", "next: ", "without that"];
    for arguments in [&["--name", "a"][..], &["--name", "a", "--dry-run"]] {
        home.fails(&[&["deploy", &store], arguments].concat(), 1, &words);
    }
    // The same where a node runs.
    let node = home.up();
    home.fails(&["deploy", &store, "--name", "a", "--wait"], 1, &words);
    assert_eq!(home.done(&["ls", "-o", "json"]).json(), json!([]));
    home.fails(&["call", "a", "1"], 3, &["no function `a`"]);
    node.down();
    assert_eq!(held(), before, "something was recorded or kept");
}

#[test]
fn a_ticket_whose_invitation_was_withdrawn_admits_nobody() {
    let home = Home::founded();
    let node = home.up();
    let ticket = home.done(&["invite", "--uses", "2"]).out.trim().to_owned();
    let first = Home::new();
    first.done(&["join", &ticket, "--label", "first"]);
    let id = home.done(&["invite", "ls", "-o", "json"]).json()[0]["id"].as_str().expect("an id").to_owned();
    // The first one's node does not run, so nobody else sees it yet.
    let withdrawn = home.run(&["invite", "revoke", &id, "--timeout", "100ms"]);
    assert!(withdrawn.code == 5 && withdrawn.out.contains("withdrew the invitation"), "{withdrawn:?}");
    let guest = Home::new();
    guest.fails(&["join", &ticket, "--timeout", "30s"], 4, &["The invitation was withdrawn", "a new ticket"]);
    guest.fails(&["up"], 3, &["belongs to no fleet"]);
    let members = home.done(&["nodes", "-o", "json"]).json();
    let mut labels: Vec<_> = members.as_array().expect("rows").iter().map(|row| &row["label"]).collect();
    labels.sort_by_key(|label| label.as_str());
    assert_eq!(labels, ["first", "test"], "who had joined before stays, and nobody came");
    node.down();
}

#[test]
fn an_invitation_that_was_altered_admits_nobody() {
    let home = Home::founded();
    let node = home.up();
    let ticket = home.done(&["invite"]).out.trim().to_owned();
    let guest = Home::new();
    // One character, at places all over it: the check sum does not fit, and nobody is asked.
    for place in (0..ticket.len()).step_by(11).chain([ticket.len() - 1]) {
        let other = if &ticket[place..=place] == "a" { "b" } else { "a" };
        let altered = format!("{}{other}{}", &ticket[..place], &ticket[place + 1..]);
        let said = guest.fails(&["join", &altered], 2, &["icket", "next: "]);
        assert!(!said.err.contains(&altered), "a secret is told: {said:?}");
    }
    assert!(!guest.path().join("data").exists());
    // Altered by somebody who knows the format: another secret, and another invitation.
    let Ok(Ticket::Join(join)) = ticket.parse::<Ticket>() else { panic!("no ticket to join by: {ticket}") };
    let mut secret = join.clone();
    secret.secret = InvitationSecret::new([7; 32]);
    let mut invitation = join;
    invitation.invitation[0] ^= 1;
    for forged in [secret, invitation] {
        let forged = Ticket::Join(forged).encode().expect("encoded");
        guest.fails(&["join", &forged, "--timeout", "30s"], 4, &["refused", "a new ticket"]);
        guest.fails(&["up"], 3, &["belongs to no fleet"]);
    }
    assert_eq!(home.done(&["nodes", "-o", "json"]).json().as_array().map(Vec::len), Some(1));
    // The ticket itself was not used up by that.
    guest.done(&["join", &ticket]);
    node.down();
}

#[test]
fn a_node_whose_mesh_port_is_taken_says_so_and_ends() {
    let home = Home::founded();
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let mesh = taken.local_addr().expect("bound").to_string();
    let up = ["up", "--http", "0", "--log", "error", "--mesh", &mesh];
    let words = ["The mesh cannot start", &mesh, "next: ", "--mesh ADDR"];
    home.fails(&up, 1, &words);
    // Also where the node was elsewhere before: an address that was asked for is not exchanged for another.
    home.up().down();
    home.fails(&up, 1, &words);
    assert_eq!(home.done(&["status", "-o", "json"]).json()["state"], "stopped");
    drop(taken);
    let node = home.up_at(&mesh);
    assert_eq!(node.addresses["mesh"][0], mesh);
    node.down();
}

/// A command whose stdout is a pipe that nobody reads any more.
fn unread(home: &Home, arguments: &[&str]) -> Ran {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    Ran::of(
        arguments,
        home.command(arguments).stdout(writer).stderr(Stdio::piped()).output().expect("it runs"),
    )
}

#[test]
fn a_recovery_key_that_nobody_reads_is_not_lost() {
    let home = Home::new();
    let init = ["init", "--name", "home", "--label", "test"];
    let nowhere = home.command(&init).stdout(Stdio::null()).output().expect("it runs");
    let nowhere = Ran::of(&init, nowhere);
    assert_eq!(nowhere.code, 2, "{nowhere:?}");
    assert!(
        nowhere.err.contains("nothing was done") && nowhere.err.contains("--recovery-file"),
        "{nowhere:?}"
    );
    assert!(!home.path().join("data").exists());

    let cut = unread(&home, &init);
    assert_eq!(cut.code, 1, "{cut:?}");
    let key = home.path().join("data/recovery-key");
    assert!(cut.err.contains(&key.display().to_string()), "{cut:?}");
    assert_eq!(std::fs::metadata(&key).expect("kept").permissions().mode() & 0o777, 0o600);
    let secret = std::fs::read_to_string(&key).expect("readable");
    assert!(!cut.err.contains(secret.trim()), "a secret in an error");
    let recovered = home.done(&["recover", "--recovery-file", &key.display().to_string()]);
    assert_eq!(recovered.err.matches("warning").count(), 0, "{recovered:?}");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("changed");
    let open = home.done(&["recover", "--recovery-file", &key.display().to_string()]);
    assert!(open.err.contains("chmod 600"), "{open:?}");
}

#[test]
fn a_ticket_that_nobody_reads_is_named_so_that_it_can_be_withdrawn() {
    let home = Home::founded();
    let node = home.up();
    let nowhere = home.command(&["invite"]).stdout(Stdio::null()).output().expect("it runs");
    assert_eq!(nowhere.status.code(), Some(2));
    assert_eq!(home.done(&["invite", "ls", "-o", "json"]).json(), json!([]));
    let cut = unread(&home, &["invite"]);
    assert_eq!(cut.code, 1, "{cut:?}");
    let id = home.done(&["invite", "ls", "-o", "json"]).json()[0]["id"].as_str().expect("an id").to_owned();
    assert!(cut.err.contains(&format!("osiris invite revoke {}", &id[..8])), "{cut:?}");
    // What is done and was told to nobody ends as it would have.
    let label = home.done(&["whoami", "-o", "json"]).json()["label"].as_str().expect("a label").to_owned();
    assert_eq!(unread(&home, &["member", "label", &label, "roof"]).code, 0);
    node.down();
}

#[test]
fn what_is_not_asked_of_a_native_function_or_without_a_role_is_said() {
    let home = Home::founded();
    let node = home.up();
    let summary = home.write("summary.wasm", osiris_examples::SUMMARY);
    home.done(&["deploy", &summary, "--name", "summary"]);
    home.fails(&["call", "summary", "{}", "--path", "/x"], 2, &["no paths", "next: "]);
    home.fails(&["ledger", "voters", "--set", ""], 2, &["names no member", "next: "]);
    node.down();
    let node = home.up();
    home.done(&["role", "revoke", "test", "spawner"]);
    home.fails(&["lease", "want"], 4, &["spawner", "next: "]);
    node.down();
}
