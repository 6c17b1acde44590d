//! `osiris demo` as a person and as a program run it: what it prints, and what it leaves.

mod driven;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use driven::{Home, Ran};
use osiris_protocol::ticket::Ticket;
use rustix::process::{Pid, Signal, kill_process};

const STEPS: usize = 12;

/// A demo's folder, whose nodes end with the test.
struct Left(PathBuf);

impl Left {
    fn nodes(&self) -> impl Iterator<Item = PathBuf> + use<'_> {
        (1..=3).map(|number| self.0.join(format!("node-{number}"))).filter(|data| data.exists())
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        for data in self.nodes() {
            let _ = osiris(&data, &["down"]);
        }
    }
}

fn osiris(data: &Path, arguments: &[&str]) -> Ran {
    let home = Home::new();
    let mut command = home.command(arguments);
    command.env("OSIRIS_DATA", data);
    Ran::of(arguments, command.output().expect("the binary runs"))
}

#[test]
fn a_kept_demo_stays_up_and_its_tickets_admit_a_device_and_name_the_nodes() {
    let home = Home::new();
    let left = Left(home.path().join("demo"));
    let folder = left.0.display().to_string();
    let said = home.done(&["demo", "--keep", "--dir", &folder]);
    assert!(said.out.contains("every step held") && !said.out.contains("stop all nodes"), "{said:?}");
    let after = |words: &str| {
        let (_, rest) = said.out.split_once(words).unwrap_or_else(|| panic!("no {words:?} in {said:?}"));
        rest.split_whitespace().next().expect("a word").to_owned()
    };
    let (join, dial) = (after("osiris join "), after("for applications:\n"));
    assert!(matches!(join.parse(), Ok(Ticket::Join(_))), "{join}");
    let Ok(Ticket::Dial(dial)) = dial.parse::<Ticket>() else { panic!("no ticket to dial: {dial}") };
    assert!(!dial.peers.is_empty());

    // Each is where it is said to be, and answers.
    assert_eq!(left.nodes().count(), 3);
    for data in left.nodes() {
        let status = osiris(&data, &["status", "-o", "json"]).json();
        assert_eq!((&status["state"], &status["connected"]), (&"serving".into(), &2.into()));
        let addresses =
            [status["http"].as_str().expect("an address"), status["mesh"][0].as_str().expect("one")];
        for words in addresses.into_iter().chain(data.to_str()) {
            assert!(said.out.contains(words), "no {words:?} in {said:?}");
        }
        let answer = osiris(&data, &["call", "summary", r#"{"samples": [{"cpu_percent": 10.0}]}"#]);
        assert_eq!(answer.code, 0, "{answer:?}");
    }
    let guest = Home::new();
    guest.done(&["join", &join, "--label", "guest"]);
    assert!(guest.done(&["nodes"]).out.contains("node-3"));
    for data in left.nodes() {
        let down = osiris(&data, &["down"]);
        assert_eq!((down.code, down.out.trim()), (0, "stopped"), "{down:?}");
    }
}

#[test]
fn a_demo_for_programs_is_one_document_and_leaves_nothing() {
    let home = Home::new();
    let mut command = home.command(&["demo", "-o", "json"]);
    let said = Ran::of(&["demo"], command.env("TMPDIR", home.path()).output().expect("the binary runs"));
    assert_eq!(said.code, 0, "{said:?}");
    let report = said.json();
    assert_eq!(report["held"], true, "{report}");
    let steps = report["steps"].as_array().expect("steps");
    assert_eq!(steps.len(), STEPS, "{report}");
    for step in steps {
        assert!(step["held"] == true && step["step"].is_string() && step["result"].is_string(), "{step}");
        assert!(step["took_ms"].is_u64(), "{step}");
    }
    // Nothing was kept, so no place and no ticket is named.
    for key in ["nodes", "ticket", "dial_ticket"] {
        assert!(report.get(key).is_none(), "{report}");
    }
    assert_eq!(std::fs::read_dir(home.path()).expect("a folder").count(), 0, "something was left");
}

#[test]
fn a_demo_that_is_told_to_end_ends_its_nodes() {
    let home = Home::new();
    let left = Left(home.path().join("demo"));
    for signal in [Signal::TERM, Signal::HUP] {
        // A folder that was there stays.
        std::fs::create_dir(&left.0).expect("a folder");
        let mut command = home.command(&["demo", "--dir", &left.0.display().to_string()]);
        let mut demo =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
        // Its first node listens, so more are about to.
        let socket = left.0.join("node-1/osiris.sock");
        let until = Instant::now() + Duration::from_secs(60);
        while !socket.exists() && demo.try_wait().expect("a child").is_none() {
            assert!(Instant::now() < until, "no node was started");
            std::thread::sleep(Duration::from_millis(20));
        }
        kill_process(Pid::from_child(&demo), signal).expect("a demo");
        let said = Ran::of(&["demo"], demo.wait_with_output().expect("it ends"));
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.err.contains("interrupted"), "{said:?}");
        assert!(left.nodes().count() > 0);
        for data in left.nodes() {
            let down = osiris(&data, &["down"]);
            assert!(!down.out.contains("stopped"), "a node ran on: {down:?}");
        }
        std::fs::remove_dir_all(&left.0).expect("removed");
    }
    // One of its own does not.
    let own = home.path().join("own");
    std::fs::create_dir(&own).expect("a folder");
    let count = || std::fs::read_dir(&own).expect("a folder").count();
    let mut command = home.command(&["demo"]);
    command.env("TMPDIR", &own).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut demo = command.spawn().expect("the binary runs");
    let until = Instant::now() + Duration::from_secs(60);
    while count() == 0 && demo.try_wait().expect("a child").is_none() {
        assert!(Instant::now() < until, "no folder was made");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(200));
    kill_process(Pid::from_child(&demo), Signal::TERM).expect("a demo");
    let said = Ran::of(&["demo"], demo.wait_with_output().expect("it ends"));
    assert!(said.code == 1 && !said.err.contains("logs are in"), "{said:?}");
    assert_eq!(count(), 0, "something was left");
}
