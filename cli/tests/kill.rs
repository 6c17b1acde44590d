//! An acknowledged deploy is never lost: a node is killed with SIGKILL at seeded moments, 50 times in a
//! row, while deploys go on, beside a peer that stays. Each start shows all that was acknowledged. At the end both hold
//! the same, neither proves a fork (a killed node never signs two blocks for one place), and the node that was killed
//! answers calls of each of these functions by itself. (SIGKILL tests the order of writes and acknowledgements, not the
//! disk.)

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

const ROUNDS: u64 = 50;
/// A kill comes so many milliseconds after the node is up, at most.
const KILL_WITHIN_MS: u64 = 320;
/// Reaching it means that something is broken.
const AGREE_WITHIN: Duration = Duration::from_secs(60);

fn osiris(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_osiris"));
    command.arg("--data").arg(data).args(["-o", "json", "--mesh", "127.0.0.1:0"]);
    command.env_remove("OSIRIS_DATA").stdin(Stdio::null()).stderr(Stdio::null());
    command
}

fn json(data: &Path, args: &[&str]) -> serde_json::Value {
    let output = osiris(data).args(args).output().expect("osiris runs");
    assert!(output.status.success(), "osiris {args:?} ended with {}", output.status);
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn up(data: &Path) -> Child {
    let mut node =
        osiris(data).args(["up", "--http", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn().expect("spawned");
    let mut line = String::new();
    BufReader::new(node.stdout.take().expect("piped")).read_line(&mut line).expect("a line of addresses");
    assert!(line.contains("\"http\""), "the node did not start: {line}");
    node
}

/// What a deploy says whose node was killed while it waited for the answer.
const CUT: &str = "The node went away before it answered";
const SAMPLES: &str = r#"{"samples": [{"cpu_percent": 10.0}]}"#;

/// Deploys under new names, until it is told to stop. The names that were acknowledged, and how many were cut off.
fn deploys(data: &Path, component: &Path, next: &AtomicU32, stop: &AtomicBool) -> (Vec<String>, u32) {
    let (mut acknowledged, mut cut) = (Vec::new(), 0);
    while !stop.load(Ordering::Relaxed) {
        let name = format!("f-{}", next.fetch_add(1, Ordering::Relaxed));
        let path = component.to_str().expect("UTF-8");
        let mut deploy = osiris(data);
        deploy.args(["deploy", path, "--name", &name]).stderr(Stdio::piped());
        let done = deploy.output().expect("osiris runs");
        if done.status.success() {
            acknowledged.push(name);
        } else {
            cut += u32::from(String::from_utf8_lossy(&done.stderr).contains(CUT));
        }
    }
    (acknowledged, cut)
}

/// Calls a function through the node until it answers, which it does once it has it ready.
fn answers(data: &Path, name: &str) {
    let end = Instant::now() + AGREE_WITHIN;
    loop {
        let output = osiris(data).args(["call", name, SAMPLES]).output().expect("osiris runs");
        if output.status.success() {
            let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
            assert_eq!(answer["fields"]["cpu_percent"]["mean"], 10.0, "{name}: {answer}");
            return;
        }
        assert!(Instant::now() < end, "{name} does not answer: {}", output.status);
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn deployed(data: &Path) -> BTreeSet<String> {
    let rows = json(data, &["ls"]);
    let names =
        rows.as_array().expect("rows").iter().map(|row| row["name"].as_str().expect("a name").to_owned());
    names.collect()
}

/// Waits until both show the same view.
fn agree(nodes: [&Path; 2]) {
    let end = Instant::now() + AGREE_WITHIN;
    while json(nodes[0], &["status"])["view"] != json(nodes[1], &["status"])["view"] {
        assert!(Instant::now() < end, "the two do not agree");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// splitmix64: the moments of the kills are the same in each run.
fn random(seed: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[test]
fn a_killed_node_loses_no_acknowledged_deploy() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data");
    let component = dir.path().join("summary.wasm");
    std::fs::write(&component, osiris_examples::SUMMARY).expect("written");
    json(&data, &["init", "--name", "kill"]);
    let peer_data = dir.path().join("peer");
    let mut peer = {
        let mut first = up(&data);
        let invited = json(&data, &["invite"]);
        json(&peer_data, &["join", invited["ticket"].as_str().expect("a ticket"), "--label", "peer"]);
        let peer = up(&peer_data);
        agree([&data, &peer_data]);
        first.kill().expect("killed");
        first.wait().expect("ended");
        peer
    };
    let next = Arc::new(AtomicU32::new(0));
    let mut acknowledged = BTreeSet::new();
    let mut killed_during_deploys = 0;
    for round in 0..ROUNDS {
        let mut node = up(&data);
        let held = deployed(&data);
        let lost: Vec<_> = acknowledged.difference(&held).collect();
        assert!(lost.is_empty(), "round {round}: acknowledged, and the node that was started lacks {lost:?}");
        let stop = Arc::new(AtomicBool::new(false));
        let deploying = std::thread::spawn({
            let (data, component, next, stop) =
                (data.clone(), component.clone(), Arc::clone(&next), Arc::clone(&stop));
            move || deploys(&data, &component, &next, &stop)
        });
        std::thread::sleep(Duration::from_millis(random(round) % KILL_WITHIN_MS));
        node.kill().expect("killed");
        node.wait().expect("ended");
        stop.store(true, Ordering::Relaxed);
        let (fresh, cut) = deploying.join().expect("no panic");
        killed_during_deploys += cut;
        acknowledged.extend(fresh);
        let held = deployed(&data);
        let lost: Vec<_> = acknowledged.difference(&held).collect();
        assert!(lost.is_empty(), "round {round}: acknowledged and lost: {lost:?}");
    }
    let mut node = up(&data);
    agree([&data, &peer_data]);
    let held = deployed(&peer_data);
    let lost: Vec<_> = acknowledged.difference(&held).collect();
    assert!(lost.is_empty(), "acknowledged, and not with the peer: {lost:?}");
    for data in [&data, &peer_data] {
        let rows = json(data, &["nodes"]);
        let rows = rows.as_array().expect("rows");
        assert_eq!(rows.len(), 2, "{rows:?}");
        for row in rows {
            assert_eq!((&row["forks"], &row["rejected"]), (&0.into(), &0.into()), "{row}");
        }
    }
    // The peer first, which also serves them: from here on the node answers by itself.
    end(&mut peer, &peer_data);
    for name in &acknowledged {
        answers(&data, name);
    }
    end(&mut node, &data);
    assert!(acknowledged.len() > 10, "only {} deploys were acknowledged", acknowledged.len());
    assert!(killed_during_deploys > 0, "no kill came while a deploy waited for the node");
    println!(
        "{ROUNDS} kills, {} acknowledged deploys, {killed_during_deploys} kills with one under way",
        acknowledged.len()
    );
}

/// Kills a node, and looks at what it leaves.
fn end(node: &mut Child, data: &Path) {
    node.kill().expect("killed");
    node.wait().expect("ended");
    let verified = json(data, &["ledger", "verify"]);
    assert_eq!(verified["problems"], serde_json::json!([]), "{verified}");
}
