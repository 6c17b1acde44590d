//! One bit of a node's journal is another one than was written: what is said of it, where, and that nothing that was
//! acknowledged is lost to a fleet that has another member.

mod driven;
#[allow(dead_code, reason = "of folders to damage, only where records are is needed here")]
mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use driven::{Home, Node};
use serde_json::json;

const FUNCTIONS: [&str; 3] = ["f-0", "f-1", "f-2"];
/// Longer than anything here takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);

/// The ids of all blocks that a ledger holds.
fn blocks(home: &Home) -> BTreeSet<String> {
    let log = home.done(&["ledger", "log", "-o", "json"]).out;
    let rows = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a row"));
    rows.map(|row| row["id"].as_str().expect("an id").to_owned()).collect()
}

/// The files of a data folder beside its library and cache, which no damage is done to.
fn files(data: &Path) -> Vec<(std::ffi::OsString, Vec<u8>)> {
    let entries = std::fs::read_dir(data).expect("the folder").map(|entry| entry.expect("an entry"));
    let files = entries.filter(|entry| entry.file_type().expect("a kind").is_file());
    files.map(|entry| (entry.file_name(), std::fs::read(entry.path()).expect("read"))).collect()
}

fn put_back(data: &Path, kept: &[(std::ffi::OsString, Vec<u8>)]) {
    for (name, _) in files(data) {
        std::fs::remove_file(data.join(name)).expect("removed");
    }
    for (name, bytes) in kept {
        std::fs::write(data.join(name), bytes).expect("written");
    }
}

/// A fleet of two, both up, and the second one's home, which holds all that was acknowledged.
fn joined<'a>(node: &Node<'_>, peer: &'a Home) -> Node<'a> {
    let ticket = node.home.done(&["invite"]).out.trim().to_owned();
    peer.done(&["join", &ticket, "--label", "peer"]);
    peer.up()
}

fn harm(data: &Path, journal: &[u8], byte: usize) {
    let mut harmed = journal.to_vec();
    harmed[byte] ^= 1 << (byte % 8);
    std::fs::write(data.join("journal"), harmed).expect("written");
}

#[test]
fn a_flipped_bit_in_the_journal_is_found_where_it_is_and_no_acknowledged_block_is_lost() {
    let (home, peer) = (Home::founded(), Home::new());
    let node = home.up();
    let other = joined(&node, &peer);
    let wasm = home.write("summary.wasm", osiris_examples::SUMMARY);
    for name in FUNCTIONS {
        let deployed = home.done(&["deploy", &wasm, "--name", name, "--timeout", "60s"]);
        assert!(deployed.err.contains("seen by 1 node"), "{deployed:?}");
    }
    node.down();
    let acknowledged = blocks(&home);
    let data = home.path().join("data");
    let sound = files(&data);
    let journal = std::fs::read(data.join("journal")).expect("the journal");
    let at = support::places(&journal);
    assert!(acknowledged.len() > 5 && at.len() > acknowledged.len(), "{acknowledged:?} {at:?}");

    // In each record: a bit of its check, and one of what it holds.
    for (record, ends) in (1..).zip(at.windows(2)) {
        let (start, end) = (ends[0], ends[1]);
        for byte in [start + 20, start + (end - start) / 2] {
            put_back(&data, &sound);
            harm(&data, &journal, byte);
            let last = end == journal.len();
            is_found(&home, record, start, last);
            if record == 1 {
                is_beyond_repair(&home);
            } else {
                is_mended(&home, &acknowledged);
            }
        }
    }
    // Whatever became of the one, the other has all.
    assert!(blocks(&peer).is_superset(&acknowledged));
    other.down();
}

/// What verify says of the damage, and that who only looks is told the same.
fn is_found(home: &Home, record: u64, start: usize, last: bool) {
    let verified = home.run(&["ledger", "verify", "-o", "json"]);
    assert_eq!(verified.code, 1, "{verified:?}");
    let problem = &verified.json()["problems"][0];
    let place = json!({"file": "journal", "record": record, "byte": start});
    assert_eq!(problem["place"], place, "{verified:?}");
    let what = problem["what"].as_str().expect("a sentence");
    // Behind the last one comes no whole record that would say how many are damaged.
    let says = match last {
        true => format!("at {start} that are no whole record"),
        false => format!("at {start} of the journal are no whole record: 1 record is damaged."),
    };
    assert!(what.contains(&says), "{verified:?}");
    let next = problem["next"].as_str().expect("what to do");
    let gives_back = if record == 1 { "from a backup" } else { "bring back what other members hold" };
    assert!(next.contains(gives_back) && next.ends_with('.'), "{verified:?}");
    assert!(verified.err.contains(what) && verified.err.contains(&format!("next: {next}")), "{verified:?}");
    if record > 1 {
        let looked = home.done(&["status"]);
        assert!(looked.out.contains(what) && looked.out.contains(next), "{looked:?}");
    }
}

/// A start keeps what was damaged for people, and has everything again from the other member.
fn is_mended(home: &Home, acknowledged: &BTreeSet<String>) {
    let synced = home.done(&["sync", "--timeout", "30s", "-o", "json"]);
    let agreed = synced.json();
    assert_eq!((&agreed["others"], &agreed["agreed"]), (&1.into(), &1.into()), "{synced:?}");
    assert!(synced.err.contains("warning: ") && synced.err.contains("journal"), "{synced:?}");
    // Meanwhile the other member went on, and serves.
    let held = blocks(home);
    assert!(held.is_superset(acknowledged), "{held:?}, and not {acknowledged:?}");
    let rows = home.done(&["ls", "-o", "json"]).json();
    let names: Vec<_> = rows.as_array().expect("rows").iter().map(|row| row["name"].clone()).collect();
    assert_eq!(names, FUNCTIONS);
    let verified = home.run(&["ledger", "verify", "-o", "json"]);
    assert_eq!(verified.code, 1, "it goes on to say that something was kept: {verified:?}");
    let verified = verified.json();
    assert_eq!(verified["blocks"], held.len());
    for problem in verified["problems"].as_array().expect("problems") {
        let file = problem["place"]["file"].as_str().expect("a file");
        assert!(file.starts_with("journal.") && file.ends_with("-1"), "{verified}");
    }
}

/// Without the fleet's first block nothing here can be judged: that is said, and what is there is kept.
fn is_beyond_repair(home: &Home) {
    for command in ["status", "sync", "up"] {
        let words = ["lacks the fleet's first block", "next: ", "join again with a new ticket"];
        home.fails(&[command], 1, &words);
    }
    let kept = std::fs::read_dir(home.path().join("data")).expect("the folder");
    let kept: Vec<_> = kept.map(|entry| entry.expect("an entry").file_name()).collect();
    assert!(kept.contains(&"journal.damaged-1".into()), "{kept:?}");
}

/// The admission of the only other member is what was lost: the node knows it by its address alone, and asks it.
#[test]
fn a_node_whose_journal_lost_the_admission_of_the_other_member_learns_of_it_again() {
    for by_command in [true, false] {
        let (home, peer) = (Home::founded(), Home::new());
        let node = home.up();
        let other = joined(&node, &peer);
        let end = Instant::now() + PATIENCE;
        while home.done(&["status", "-o", "json"]).json()["connected"] != 1 {
            assert!(Instant::now() < end, "the two do not meet");
            std::thread::sleep(Duration::from_millis(20));
        }
        node.down();
        let acknowledged = blocks(&home);
        let data = home.path().join("data");
        let journal = std::fs::read(data.join("journal")).expect("the journal");
        harm(&data, &journal, journal.len() - 1);
        assert!(blocks(&home).len() < acknowledged.len(), "the last record was no block");
        if by_command {
            home.done(&["sync", "--timeout", "30s"]);
        } else {
            let node = home.up();
            let end = Instant::now() + PATIENCE;
            while !blocks(&home).is_superset(&acknowledged) {
                assert!(Instant::now() < end, "it was not given back");
                std::thread::sleep(Duration::from_millis(20));
            }
            node.down();
        }
        assert!(blocks(&home).is_superset(&acknowledged));
        assert!(home.done(&["nodes"]).out.contains("peer"));
        other.down();
        // Where nobody answers, it is not said that there is nobody.
        std::fs::write(data.join("journal"), &journal).expect("written");
        harm(&data, &journal, journal.len() - 1);
        let alone = home.run(&["sync", "--timeout", "1s", "-o", "json"]);
        assert!(alone.code == 5 && alone.err.contains("seen by 0 nodes"), "{alone:?}");
        assert_eq!((&alone.json()["others"], &alone.json()["agreed"]), (&1.into(), &0.into()), "{alone:?}");
    }
}
