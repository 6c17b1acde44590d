//! `osiris sim` through the binary: the same seed gives the same run in any process, and a report can be run again.

use std::process::{Command, Output};

use serde_json::Value;

fn osiris(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_osiris")).args(arguments).output().expect("the binary runs")
}

#[test]
fn one_seed_is_one_run_in_every_process_and_a_report_is_run_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = |seed: &str| {
        let ended = osiris(&["sim", "run", "--nodes", "3", "--seed", seed, "-o", "json"]);
        assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
        ended.stdout
    };
    let hash = |report: &[u8]| {
        let report: Value = serde_json::from_slice(report).expect("JSON");
        report["event_log_hash"].as_str().expect("a hash").to_owned()
    };
    let first = run("7");
    assert_eq!(hash(&first), hash(&run("7")), "in another process");
    assert_ne!(hash(&first), hash(&run("8")), "another seed");

    let file = folder.path().join("report.json");
    let replay = |report: &[u8]| {
        std::fs::write(&file, report).expect("written");
        osiris(&["sim", "replay", file.to_str().expect("a path")]).status.code()
    };
    assert_eq!(replay(&first), Some(0));
    let other = String::from_utf8(first.clone()).expect("text").replace(&hash(&first), &"0".repeat(64));
    assert_eq!(replay(other.as_bytes()), Some(1), "a report of something else");
}
