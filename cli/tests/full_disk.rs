//! A disk that is full, a real one of its own size: what is refused then, what goes on, and that nothing is lost.

mod driven;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use driven::Home;
use serde_json::json;

/// Set where the test runs in a mount namespace of its own.
const INSIDE: &str = "OSIRIS_TEST_MOUNTS_ARE_OWN";
/// What is left of the disk: enough for blocks and manifests, too little for a component.
const LEFT_BYTES: u64 = 64 << 10;
/// Longer than anything here takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the test of this name again, where what it mounts is gone when it ends, however it ends.
fn with_mounts_of_its_own(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "private"]);
    if !rustix::process::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    unshare.arg(std::env::current_exe().expect("this test"));
    unshare.args(["--exact", test, "--ignored", "--nocapture"]).env(INSIDE, "yes");
    let ended = unshare.output().expect("unshare runs");
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(
        ended.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&ended.stderr)
    );
}

/// A data folder on a small disk.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn under(home: &Home) -> Self {
        let data = home.path().join("data");
        fs::create_dir(&data).expect("made");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=16m,mode=700", "osiris-test"]).arg(&data);
        assert!(mount.status().expect("mount runs").success());
        Self(data)
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    fn fill(&self) {
        let mut file = fs::File::create(self.filler()).expect("made");
        let full = loop {
            if let Err(error) = file.write_all(&[0; 4096]) {
                break error;
            }
        };
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull, "{full}");
        let written = file.metadata().expect("there").len();
        file.set_len(written - LEFT_BYTES).expect("cut");
    }

    fn empty(&self) {
        fs::remove_file(self.filler()).expect("removed");
    }

    fn library(&self) -> PathBuf {
        self.0.join("library")
    }
}

/// The names in a library's folder.
fn names(library: &Path) -> Vec<String> {
    let entries = fs::read_dir(library).expect("the library");
    let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
    names.sort();
    names.into_iter().map(|name| name.into_string().expect("UTF-8")).collect()
}

/// What a full disk has a command say of a component.
fn sentence(disk: &SmallDisk, component: &[u8]) -> String {
    let (library, bytes) = (disk.library(), component.len());
    format!(
        "The library {} has no room for a file of {bytes} bytes, because its disk is full",
        library.display()
    )
}

const SAMPLES: &str = r#"{"samples": [{"cpu_percent": 10.0}]}"#;

#[test]
#[ignore = "needs a mount namespace"]
fn a_component_that_the_disk_has_no_room_for_is_refused_and_nothing_is_lost() {
    let body = || {
        let home = Home::new();
        let disk = SmallDisk::under(&home);
        home.done(&["init", "--name", "home", "--label", "test"]);
        let node = home.up();
        let summary = home.write("summary.wasm", osiris_examples::SUMMARY);
        let chart = home.write("chart.wasm", osiris_examples::CHART);
        let deploy = |wasm, name| ["deploy", wasm, "--name", name, "--wait", "--timeout", "60s"];
        home.done(&deploy(&summary, "kept"));
        let before = (names(&disk.library()), home.done(&["ledger", "log"]).out);

        disk.fill();
        let refused = sentence(&disk, osiris_examples::CHART);
        let room = format!("next: Free at least {} bytes", osiris_examples::CHART.len());
        let said = home.fails(&deploy(&chart, "chart"), 1, &[&refused, &room]);
        assert!(!said.err.contains(".part"), "{said:?}");
        let status = home.done(&["status", "-o", "json"]).json();
        assert_eq!(status["state"], "serving", "the journal is as it was: {status}");
        home.done(&["call", "kept", SAMPLES]);
        node.down();
        // The same words where no node runs.
        home.fails(&deploy(&chart, "chart"), 1, &[&refused, &room]);
        let after = (names(&disk.library()), home.done(&["ledger", "log"]).out);
        assert_eq!(after, before, "something was kept of what was refused, or lost");

        // It starts and serves with the disk full.
        let node = home.up();
        home.done(&["call", "kept", SAMPLES]);
        disk.empty();
        home.done(&deploy(&chart, "chart"));
        home.done(&["call", "chart", "--path", "/"]);
        home.done(&["call", "kept", SAMPLES]);
        node.down();
        assert_eq!(home.done(&["ledger", "verify", "-o", "json"]).json()["problems"], json!([]));
    };
    with_mounts_of_its_own("a_component_that_the_disk_has_no_room_for_is_refused_and_nothing_is_lost", body);
}

#[test]
#[ignore = "needs a mount namespace"]
fn a_member_whose_disk_is_full_says_so_and_fetches_once_there_is_room() {
    let body = || {
        let home = Home::founded();
        let node = home.up();
        let ticket = home.done(&["invite"]).out.trim().to_owned();
        let small = Home::new();
        let disk = SmallDisk::under(&small);
        small.done(&["join", &ticket, "--label", "small"]);
        let member = small.up();
        disk.fill();
        let before = names(&disk.library());
        let wasm = home.write("summary.wasm", osiris_examples::SUMMARY);
        home.done(&["deploy", &wasm, "--name", "summary", "--wait", "--timeout", "60s"]);

        let describe = || small.run(&["describe", "summary", "-o", "json"]);
        let mut problem = String::new();
        let end = Instant::now() + PATIENCE;
        while !problem.contains("its disk is full") {
            assert!(Instant::now() < end, "it does not say so: {problem:?}");
            std::thread::sleep(Duration::from_millis(50));
            let said = describe();
            if said.code == 0 {
                problem = said.json()["problem"].as_str().unwrap_or_default().to_owned();
            }
        }
        let room = format!("Free at least {} bytes on that disk", osiris_examples::SUMMARY.len());
        for words in [sentence(&disk, osiris_examples::SUMMARY), room, "fetched again by itself.".to_owned()]
        {
            assert!(problem.contains(&words), "no {words:?} in {problem:?}");
        }
        assert!(!problem.contains(".part") && !problem.contains(".."), "{problem}");
        let here: Vec<_> = names(&disk.library());
        assert!(!here.iter().any(|name| name.ends_with(".part")), "{here:?} after {before:?}");
        assert_eq!(small.done(&["status", "-o", "json"]).json()["state"], "serving");
        // Meanwhile another member answers.
        small.done(&["call", "summary", SAMPLES]);

        disk.empty();
        let end = Instant::now() + PATIENCE;
        while describe().json()["function"]["served_by"] != 2 {
            assert!(Instant::now() < end, "it was not fetched again: {:?}", describe());
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(describe().json()["problem"], serde_json::Value::Null);
        node.down();
        small.done(&["call", "summary", SAMPLES]);
        member.down();
        assert_eq!(small.done(&["ledger", "verify", "-o", "json"]).json()["problems"], json!([]));
    };
    with_mounts_of_its_own("a_member_whose_disk_is_full_says_so_and_fetches_once_there_is_room", body);
}
