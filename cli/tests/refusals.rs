//! What is refused, by the real binary: each time a sentence, what to do next, the right exit code, and nothing lost.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;

mod driven;

use driven::{BINARY, Home, Ran};

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
    assert_eq!(home.done(&["ls", "-o", "json"]).json(), serde_json::json!([]));
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
