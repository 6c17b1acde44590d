//! A folder is copied while its node runs, as `docs/backup.md` says, and goes on elsewhere.

use std::{cell::RefCell, fs, os::unix::fs::DirBuilderExt as _, time::Duration};

use serde_json::Value;

use super::{Home, founder, joined};

/// Copies a folder as the document says: every file of its table that is there, `journal.head` before the journal,
/// the journal before the library, and of the library nothing that ends in `.part`. The node goes on: `meanwhile` is
/// done between these.
fn back_up(from: &Home, to: &Home, meanwhile: impl Fn(&str)) {
    let (from, to) = (from.0.path().join("data"), to.0.path().join("data"));
    fs::DirBuilder::new().mode(0o700).create(&to).expect("a folder");
    let copy = |name: &str| {
        fs::copy(from.join(name), to.join(name)).expect("copied");
    };
    ["device.key", "admin.key"].into_iter().for_each(copy);
    ["peers.json", "mesh-port", "config.toml"]
        .into_iter()
        .filter(|name| from.join(name).exists())
        .for_each(copy);
    copy("journal.head");
    meanwhile("behind the head");
    copy("journal");
    meanwhile("behind the journal");
    fs::create_dir(to.join("library")).expect("a folder");
    for file in fs::read_dir(from.join("library")).expect("the library").flatten() {
        let name = file.file_name().into_string().expect("a name");
        if file.file_type().is_ok_and(|kind| kind.is_file()) && !name.ends_with(".part") {
            fs::copy(file.path(), to.join("library").join(name)).expect("copied");
        }
    }
}

/// The row of the audit that says these words.
fn says(home: &Home, words: &str) -> Option<Value> {
    let rows = home.lines(&["ledger", "log"]);
    let mut rows = rows.as_array().expect("rows").iter();
    rows.find(|row| row["says"].as_str().is_some_and(|says| says.contains(words))).cloned()
}

#[test]
fn a_folder_copied_while_its_node_ran_goes_on_elsewhere() {
    let (home, node) = founder();
    let guest = joined(&home, "guest");
    let _guest_node = guest.up();
    home.done(&["sync"]);
    home.deploy("before", 0);
    let copy = Home::new();
    // Looked into by `ledger verify` alone, as every other command would meet members as the device that still runs.
    let blocks = |of: &Home| of.json(&["ledger", "verify"])["blocks"].as_u64().expect("a number");
    let counts = RefCell::new(Vec::new());
    back_up(&home, &copy, |when| {
        home.deploy(&when.replace(' ', "-"), 0);
        counts.borrow_mut().push(blocks(&home));
    });
    assert_eq!(copy.json(&["ledger", "verify"])["problems"], serde_json::json!([]), "the copy is sound");
    let [behind_head, behind_journal] = counts.take()[..] else { panic!("two steps") };
    let copied = blocks(&copy);
    assert!(copied >= behind_head, "what was acknowledged before the journal was copied is in it");
    assert!(copied < behind_journal, "and what came later is not");
    // The guest confirms what the copy lacks; then the original is gone for good.
    home.deploy("after", 0);
    home.served_by("after", 2);
    drop(node);
    let _copy_node = copy.up();
    copy.done(&["sync", "--timeout", "20s"]);
    for name in ["behind-the-journal", "after"] {
        assert!(copy.has_function(name), "what was written after it came back from the peer");
    }
    copy.deploy("restored", 0);
    let rows = copy.json(&["nodes"]);
    assert!(rows.as_array().expect("rows").iter().all(|row| row["forks"] == 0), "{rows}");
    let session_of = |words: &str| says(&copy, words).expect("a block")["session"].clone();
    assert_ne!(session_of("deploys restored"), session_of("deploys before"), "a session of its own");
    // It fetches from the guest what it lacks.
    while copy.ends(&["ledger", "verify"], &[0, 1]).0.contains("problem") {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(copy.json(&["ledger", "verify"])["problems"], serde_json::json!([]));
}
