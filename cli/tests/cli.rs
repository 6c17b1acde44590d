//! The real binary, driven as people and scripts drive it: arguments in, output and exit code out.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Stdio;
use std::time::Duration;

mod driven;

use driven::{Home, Node, Ran};

#[test]
fn usage_errors_are_2_and_say_what_is_expected() {
    let home = Home::new();
    for (arguments, words) in [
        (&["nonsense"][..], "unrecognized subcommand"),
        (&["deploy", "a.wasm", "--name", "Bad_Name"], "cannot name a function"),
        (&["deploy", "a.wasm", "--name", "a", "--replicas", "0"], "no number of replicas"),
        (&["deploy", "a.wasm"], "has no name"),
        (&["deploy"], "osiris.toml"),
        (&["call", "a/b", "1"], "cannot name a function"),
        (&["sync", "--timeout", "soon"], "no unit of time"),
        (&["up", "--http", "nowhere"], "no address"),
        (&["ls", "-o", "xml"], "invalid value 'xml'"),
        (&["invite", "--role", "admin"], "names the one device"),
        (&["invite", "--device", "abc"], "64 hexadecimal digits"),
        (&["init", "--name", "a\u{7}b"], "cannot name a fleet"),
        (&["init", "--name", "a\u{200b}b"], "1 to 64 bytes of printable text"),
        (&["init", "--label", ""], "1 to 64 bytes of printable text"),
        (&["join", "osiris", "--label", "a\nb"], "1 to 64 bytes of printable text"),
        (&["user", "add", "a\u{1b}b"], "1 to 64 bytes of printable text"),
        (&["invite", "--note", "a\nb"], "at most 64 bytes of printable text"),
        (&["leave"], "error:"),
    ] {
        let ran = home.run(arguments);
        let expected = if arguments == ["leave"] { 3 } else { 2 };
        assert_eq!(ran.code, expected, "{ran:?}");
        assert!(ran.err.contains(words), "no {words:?} in {ran:?}");
    }
    assert!(!home.path().join("data").exists(), "a wrong command made the data folder");
}

#[test]
fn help_and_completions_are_there() {
    let home = Home::new();
    let help = home.done(&["--help"]);
    assert!(help.out.contains("Examples:") && help.out.contains("5 recorded here"), "{help:?}");
    assert!(home.done(&["deploy", "--help"]).out.contains("osiris.toml"));
    assert!(home.done(&["--version"]).out.starts_with("osiris "));
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(home.done(&["completion", shell]).out.contains("osiris"), "{shell}");
    }
}

#[test]
fn the_environment_wins_over_the_file_and_a_flag_over_both() {
    let home = Home::new();
    home.done(&["whoami"]);
    home.write("data/config.toml", b"output = \"yaml\"\n");
    assert!(home.done(&["whoami"]).out.starts_with("device: "));
    let mut command = home.command(&["whoami"]);
    let ran = Ran::of(&[], command.env("OSIRIS_OUTPUT", "json").output().expect("runs"));
    assert!(ran.json()["device"].is_string());
    let mut command = home.command(&["whoami", "-o", "table"]);
    let ran = Ran::of(&[], command.env("OSIRIS_OUTPUT", "json").output().expect("runs"));
    assert_eq!(ran.out.trim().len(), 64, "{ran:?}");
    home.write("data/config.toml", b"output = \"yaml\"\nhtpp = 1\n");
    home.fails(&["whoami"], 2, &["line 2", "unknown field `htpp`", "next: "]);
}

#[test]
fn a_folder_without_a_fleet_says_how_to_get_one() {
    let home = Home::new();
    let words = ["belongs to no fleet", "osiris init", "osiris join"];
    for arguments in
        [&["up"][..], &["status"], &["ls"], &["down"], &["call", "a", "1"], &["ledger", "verify"]]
    {
        home.fails(arguments, 3, &words);
    }
    assert!(!home.path().join("data").exists());
    // Whoever only looks changes nothing.
    assert_eq!(home.run(&["doctor"]).code, 0);
    assert!(!home.path().join("data").exists());
}

#[test]
fn a_fleet_is_founded_once_and_its_recovery_key_is_printed() {
    let home = Home::new();
    let device = home.done(&["whoami"]).out;
    let ran = home.done(&["init", "--name", "home", "--label", "test", "-o", "json"]);
    let founded = ran.json();
    assert_eq!(founded["device"].as_str(), Some(device.trim()));
    assert_eq!(founded["recovery_key"].as_str().map(str::len), Some(64));
    home.fails(&["init"], 1, &["already belongs to a fleet", "next: "]);
    let status = home.done(&["status", "-o", "json"]).json();
    assert_eq!((&status["fleet_name"], &status["label"]), (&"home".into(), &"test".into()));
    let table = home.done(&["status"]).out;
    assert!(!table.contains('\u{1b}') && table.contains("home ("), "{table}");
}

#[test]
fn a_recovery_key_goes_into_a_file_of_its_own_and_never_over_another() {
    let home = Home::new();
    let taken = home.write("taken", b"mine");
    home.fails(&["init", "--recovery-file", &taken], 2, &["left alone", "next: "]);
    assert_eq!(std::fs::read(&taken).expect("kept"), b"mine");
    assert!(!home.path().join("data").exists(), "nothing was founded");

    let file = home.path().join("recovery").display().to_string();
    let ran = home.done(&["init", "--recovery-file", &file, "-o", "json"]);
    assert_eq!(ran.json()["recovery_file"].as_str(), Some(file.as_str()));
    assert!(ran.json().get("recovery_key").is_none(), "{ran:?}");
    let key = std::fs::read_to_string(&file).expect("written");
    assert!(key.len() == 65 && key.trim().bytes().all(|byte| byte.is_ascii_hexdigit()), "{key:?}");
    assert!(!ran.out.contains(key.trim()) && !ran.err.contains(key.trim()));
    let mode = std::fs::metadata(&file).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // A second fleet is refused, and no file is left behind.
    let other = home.path().join("other");
    home.fails(&["init", "--recovery-file", &other.display().to_string()], 1, &["already belongs"]);
    assert!(!other.exists());
}

#[test]
fn without_a_node_a_deploy_is_signed_into_the_local_replica() {
    let home = Home::founded();
    let wasm = home.write("summary.wasm", osiris_examples::SUMMARY);
    let ran = home.done(&["deploy", &wasm, "--name", "summary", "-o", "json"]);
    assert_eq!(ran.json()["revision"], 1);
    assert!(ran.err.contains("recorded here, seen by 0 nodes"), "{ran:?}");

    home.write("osiris.toml", b"name = \"other\"\ncomponent = \"summary.wasm\"\nreplicas = 2\n");
    let plan = home.done(&["deploy", "--dry-run", "-o", "json"]).json();
    assert_eq!((&plan["manifest"]["replicas"], &plan["world"]), (&2.into(), &"native".into()));
    home.done(&["deploy"]);
    let names: Vec<String> = home
        .done(&["ls", "-o", "json"])
        .json()
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| row["name"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(names, ["other", "summary"]);
    assert!(home.done(&["describe", "summary"]).out.contains("REVISION"));
    home.done(&["remove", "other"]);
    home.fails(&["call", "other", "1"], 3, &["removed", "next: "]);
    home.fails(&["describe", "nobody"], 3, &["nobody", "next: "]);
    home.fails(&["remove", "nobody"], 3, &["nobody", "next: "]);
    let log = home.done(&["ledger", "log"]).out;
    assert!(log.starts_with("DEPTH") && log.contains("summary"), "{log}");
    let verified = home.done(&["ledger", "verify", "-o", "json"]).json();
    assert_eq!(verified["problems"].as_array().map(Vec::len), Some(0));
    home.fails(&["logs", "summary"], 1, &["No node runs", "osiris up"]);
    assert_eq!(home.done(&["sync"]).code, 0);
}

#[test]
fn service_install_prints_a_unit() {
    let home = Home::new();
    let unit = home.done(&["service", "install", "--print", "--http", "0"]).out;
    assert!(unit.contains("Restart=always") && unit.contains(" up --http 127.0.0.1:0\n"), "{unit}");
}

#[test]
fn a_node_tells_systemd_when_it_is_ready() {
    let home = Home::founded();
    let path = home.path().join("notify");
    let name = format!("osiris-test-{}", std::process::id());
    let hidden = SocketAddr::from_abstract_name(&name).expect("a name");
    for (socket, told) in [
        (UnixDatagram::bind(&path).expect("a socket"), path.display().to_string()),
        (UnixDatagram::bind_addr(&hidden).expect("a socket"), format!("@{name}")),
    ] {
        socket.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
        let mut command = home.command(&["up", "--http", "0", "--log", "error"]);
        let child = command.env("NOTIFY_SOCKET", told).stdout(Stdio::null()).spawn().expect("it runs");
        let node = Node { home: &home, child, addresses: serde_json::Value::Null };
        let mut message = [0; 64];
        let read = socket.recv(&mut message).expect("a message");
        assert_eq!(&message[..read], b"READY=1");
        assert_eq!(home.done(&["status", "-o", "json"]).json()["state"], "serving");
        node.down();
    }
}

#[test]
fn one_node_from_init_to_down() {
    let home = Home::founded();
    let node = home.up();
    assert!(node.addresses["http"].as_str().is_some_and(|http| http.starts_with("http://127.0.0.1:")));
    assert!(node.addresses["mesh"].as_array().is_some_and(|mesh| !mesh.is_empty()));

    let status = home.done(&["status", "-o", "json"]).json();
    assert_eq!(status["state"], "serving");
    home.fails(&["up", "--http", "0"], 1, &["in use", "next: "]);

    let wasm = home.write("summary.wasm", osiris_examples::SUMMARY);
    let deploy = ["deploy", &wasm, "--name", "summary", "--wait", "--timeout", "60s", "-o", "json"];
    let deployed = home.done(&deploy).json();
    assert_eq!((&deployed["live"], &deployed["world"]), (&true.into(), &"native".into()));

    let sample = r#"{"samples": [{"cpu_percent": 10.0}, {"cpu_percent": 20.0}]}"#;
    let answer = home.done(&["call", "summary", sample]);
    assert_eq!(answer.json()["fields"]["cpu_percent"]["mean"], 15.0, "{answer:?}");
    let input = home.write("input.json", sample.as_bytes());
    assert_eq!(home.done(&["call", "summary", &format!("@{input}")]).out, answer.out);
    assert_eq!(home.run_with_input(&["call", "summary", "-"], sample.as_bytes()).out, answer.out);
    home.fails(&["call", "summary", "[1,"], 2, &["not JSON", "line 1 column 3", "next: "]);
    home.fails(&["call", "summary"], 2, &["takes JSON"]);
    home.fails(&["call", "nobody", "1"], 3, &["nobody"]);
    home.fails(&["call", "summary", "\"text\""], 1, &[]);

    let chart = home.write("chart.wasm", osiris_examples::CHART);
    home.done(&["deploy", &chart, "--name", "chart", "--wait", "--timeout", "60s"]);
    assert!(home.done(&["call", "chart", "--path", "/"]).out.contains('{'));
    let missing = home.run(&["call", "chart", "--path", "/missing"]);
    assert!(missing.code == 3 && missing.err.contains("404"), "{missing:?}");

    let rows = home.done(&["logs", "summary", "-o", "json"]).json();
    assert!(rows.is_array());
    let detail = home.done(&["describe", "summary", "-o", "json"]).json();
    assert_eq!(detail["function"]["state"], "live");
    assert_eq!(
        (&detail["function"]["served_by"], &detail["manifest"]["replicas"]),
        (&1.into(), &"all".into())
    );
    assert!(home.done(&["nodes"]).out.contains("this"));
    assert!(home.done(&["ticket"]).out.starts_with("osiris"));
    home.done(&["invite"]);
    let invitations = home.done(&["invite", "ls", "-o", "json"]).json();
    let id = invitations[0]["id"].as_str().expect("an id");
    let withdrawn = home.done(&["invite", "revoke", &id[..12]]);
    assert!(withdrawn.out.contains("withdrew") && !withdrawn.out.contains("revoked"), "{withdrawn:?}");
    assert!(home.done(&["invite", "ls"]).out.contains("withdrawn"));
    home.fails(&["invite", "revoke", "0000000000000000"], 3, &["no invitation"]);
    assert!(home.done(&["doctor"]).out.contains("pool"));
    let idle = home.done(&["doctor", "--idle", "--seconds", "1", "-o", "json"]).json();
    assert!(idle["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{idle}");

    home.done(&["remove", "summary"]);
    home.fails(&["call", "summary", "[]"], 3, &["summary"]);
    home.done(&["drain", "--timeout", "20s"]);
    node.down();
    // The folder is free at once.
    assert_eq!(home.done(&["status", "-o", "json"]).json()["state"], "stopped");
    assert_eq!(home.done(&["down"]).code, 0);
}

#[test]
fn a_guest_is_admitted_by_a_running_node() {
    let home = Home::founded();
    let node = home.up();
    let ticket = home.done(&["invite", "--note", "guest"]).out.trim().to_owned();
    let guest = Home::new();
    let joined = guest.done(&["join", &ticket, "--label", "guest", "-o", "json"]).json();
    assert_eq!(joined["fleet_name"], "home");
    let again = guest.done(&["join", &ticket, "-o", "json"]);
    assert_eq!(again.json()["already_member"], true);
    assert!(again.err.contains("invitation was not used"), "{again:?}");
    let third = Home::new();
    third.fails(&["join", &ticket, "--timeout", "10s"], 4, &["refused"]);
    assert!(guest.done(&["nodes"]).out.contains("guest"));
    let operator = Home::new();
    let key = operator.done(&["whoami"]).out.trim().to_owned();
    // The guest's node does not run, so nobody else sees the invitation; the ticket is good all the same.
    let invited = home.run(&["invite", "--device", &key, "--role", "operator", "--timeout", "100ms"]);
    assert_eq!(invited.code, 5, "{invited:?}");
    let ticket = invited.out.trim().to_owned();
    third.fails(&["join", &ticket, "--timeout", "10s"], 4, &["next: "]);
    operator.done(&["join", &ticket]);
    // A node may not deploy; that is said before anything is sent anywhere.
    let wasm = guest.write("a.wasm", osiris_examples::SUMMARY);
    guest.fails(&["deploy", &wasm, "--name", "a"], 4, &["operator", "next: "]);
    guest.fails(&["deploy", &wasm, "--name", "a", "--dry-run"], 4, &["operator", "next: "]);
    let wasm = operator.write("a.wasm", osiris_examples::SUMMARY);
    operator.done(&["deploy", &wasm, "--name", "a"]);
    let mesh = node.addresses["mesh"][0].as_str().expect("an address").to_owned();
    node.down();
    // With everybody away, it is recorded here and seen by nobody.
    let ran = operator.run(&["remove", "a"]);
    assert!(ran.code == 5 && ran.err.contains("seen by 0 nodes"), "{ran:?}");
    assert_eq!(operator.run(&["sync", "--timeout", "500ms"]).code, 5);
    // Where the others knew it, it is found again.
    let node = home.up_at(&mesh);
    operator.done(&["sync", "--timeout", "5s"]);
    home.fails(&["call", "a", "1"], 3, &["a"]);
    node.down();
    // What was confirmed stays so: of all that this device ever wrote, one block is new.
    for _ in 0..2 {
        assert_eq!(operator.done(&["status", "-o", "json"]).json()["unseen"], 0);
    }
    assert_eq!(operator.run(&["deploy", &wasm, "--name", "b"]).code, 5);
    for _ in 0..2 {
        assert_eq!(operator.done(&["status", "-o", "json"]).json()["unseen"], 1);
    }
}

#[test]
fn a_command_waits_for_a_process_that_is_about_to_let_go_of_the_folder() {
    let home = Home::founded();
    let lock = std::fs::OpenOptions::new().write(true).open(home.path().join("data/lock")).expect("the lock");
    lock.lock().expect("nobody else has it");
    let holder = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(1));
        drop(lock);
    });
    home.done(&["ls"]);
    holder.join().expect("it ends");
}

/// What a command that only reads meets while a node ends: it takes connections, and answers none.
#[test]
fn a_question_that_an_ending_node_took_is_answered_from_the_folder() {
    let home = Home::founded();
    let socket = home.path().join("data/osiris.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("listens");
    let ending = std::thread::spawn(move || {
        // One connection looks whether somebody is there, the other one asks.
        for _ in 0..2 {
            drop(listener.accept().expect("a connection"));
        }
        std::fs::remove_file(&socket).expect("removed");
    });
    home.done(&["ls"]);
    ending.join().expect("it ends");
}

#[test]
fn the_demo_takes_no_folder_that_holds_something() {
    let home = Home::new();
    home.write("mine.txt", b"mine");
    let folder = home.path().display().to_string();
    home.fails(&["demo", "--dir", &folder], 2, &["not empty", "next: "]);
    assert_eq!(std::fs::read_dir(home.path()).expect("a folder").count(), 1);
}

#[test]
fn a_node_that_hangs_is_not_waited_for_and_the_doctor_says_so() {
    let home = Home::founded();
    let node = home.up();
    let pid = rustix::process::Pid::from_child(&node.child);
    let wasm = home.write("a.wasm", osiris_examples::SUMMARY);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("stopped");
    home.fails(
        &["deploy", &wasm, "--name", "a", "--timeout", "100ms"],
        6,
        &["Nothing was recorded", "next: "],
    );
    let remove = ["remove", "a", "--timeout", "100ms"];
    home.fails(&remove, 6, &["unknown whether this was recorded", "osiris ledger log"]);
    // The bound holds for all that a command asks, and not for the last question alone.
    home.write("key", b"7777777777777777777777777777777777777777777777777777777777777777");
    for asks in [
        &["member", "revoke", "x"][..],
        &["role", "grant", "x", "admin"],
        &["invite", "revoke", "abcd"],
        &["user", "revoke", "x"],
        &["recover", "--recovery-file", "key"],
        &["call", "a", "1"],
        &["sync"],
    ] {
        home.fails(&[asks, &["--timeout", "100ms"]].concat(), 6, &["within 100 ms", "--timeout"]);
    }
    home.fails(&["ledger", "verify", "--timeout", "100ms"], 6, &["No answer", "--timeout"]);
    // Ten minutes are allowed, and ten seconds are enough to see that nothing will come.
    home.fails(&["ledger", "verify"], 6, &["within 10 s", "osiris doctor"]);
    let doctor = home.run(&["doctor"]);
    assert!(doctor.code == 1 && doctor.out.contains("does not answer"), "{doctor:?}");
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).expect("goes on");
    assert_eq!(home.done(&["ledger", "verify", "-o", "json"]).json()["problems"], serde_json::json!([]));
    node.down();
}

#[test]
fn the_doctor_looks_at_what_is_served_at_what_was_kept_and_at_the_key() {
    let home = Home::founded();
    let node = home.up();
    let wasm = home.write("summary.wasm", osiris_examples::SUMMARY);
    home.done(&["deploy", &wasm, "--name", "summary", "--wait", "--timeout", "60s"]);
    assert_eq!(home.done(&["doctor"]).code, 0);
    let library = home.path().join("data/library");
    let largest = std::fs::read_dir(&library)
        .expect("the library")
        .map(|entry| entry.expect("an entry"))
        .max_by_key(|entry| entry.metadata().expect("there").len());
    let component = largest.expect("a component").path();
    let mut bytes = std::fs::read(&component).expect("its bytes");
    bytes[100] ^= 1;
    std::fs::write(&component, bytes).expect("damaged");
    let finds = |words: &[&str]| {
        let doctor = home.run(&["doctor", "-o", "json"]);
        assert_eq!(doctor.code, 1, "{doctor:?}");
        let problems = doctor.json()["problems"].to_string();
        for word in words {
            assert!(problems.contains(word), "no {word:?} in {problems}");
        }
    };
    finds(&["was moved", "bytes of summary@1 are missing"]);
    node.down();
    finds(&["bytes of summary@1 are missing", "deploy the function again"]);
    std::fs::remove_dir_all(&library).expect("removed");
    finds(&["bytes of summary@1 are missing"]);
    home.done(&["deploy", &wasm, "--name", "summary"]);

    let data = home.path().join("data");
    for (file, says) in
        [("journal.tail-1", "cut off"), ("journal.damaged-1", "damaged"), ("journal.cut-1", "missing")]
    {
        std::fs::write(data.join(file), b"kept").expect("written");
        finds(&[file, says, "Delete that file"]);
        std::fs::remove_file(data.join(file)).expect("removed");
    }
    std::fs::write(data.join("device.key"), format!("{}\n", "07".repeat(32))).expect("another's");
    finds(&["device.key", "another device's"]);
}
