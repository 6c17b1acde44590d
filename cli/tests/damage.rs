//! `osiris ledger verify` on damaged folders: what it says, where the damage is, and how to mend it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Header and frame of the journal's format (`osiris_ledger::journal`).
const HEADER: usize = 44;
const FRAME: usize = 36;

struct Home(tempfile::TempDir);

impl Home {
    /// A folder with a fleet and so many deploys more.
    fn founded(deploys: usize) -> Self {
        let home = Self(tempfile::tempdir().expect("a folder"));
        home.done(&["init", "--name", "home"]);
        let wasm = home.0.path().join("summary.wasm");
        std::fs::write(&wasm, osiris_examples::SUMMARY).expect("written");
        for n in 0..deploys {
            home.done(&["deploy", wasm.to_str().expect("UTF-8"), "--name", &format!("f-{n}")]);
        }
        home
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join("data").join(name)
    }

    fn journal(&self) -> Vec<u8> {
        std::fs::read(self.file("journal")).expect("the journal")
    }

    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_osiris"));
        command.args(arguments).env_clear().current_dir(self.0.path());
        command.env("HOME", self.0.path()).env("OSIRIS_DATA", self.0.path().join("data"));
        let ran = command.env("OSIRIS_MESH", "127.0.0.1:0").stdin(Stdio::null()).output();
        let ran = ran.expect("the binary runs");
        (ran.status.code().unwrap_or(-1), String::from_utf8_lossy(&ran.stderr).into_owned())
    }

    fn done(&self, arguments: &[&str]) {
        let (code, err) = self.run(arguments);
        assert!(code == 0 || code == 5, "{arguments:?}: {err}");
    }

    /// Verifies, and expects each of `words`.
    fn finds(&self, words: &[&str]) {
        let (code, err) = self.run(&["ledger", "verify"]);
        assert_eq!(code, 1, "{err}");
        for word in words {
            assert!(err.contains(word), "no {word:?} in {err}");
        }
        assert!(err.contains("next: "), "{err}");
    }

    /// A folder with the same files and another journal.
    fn with_journal(&self, bytes: &[u8]) -> Self {
        let copy = Self(tempfile::tempdir().expect("a folder"));
        copy_folder(&self.0.path().join("data"), &copy.0.path().join("data"));
        std::fs::write(copy.file("journal"), bytes).expect("written");
        copy
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}

/// Where records start, and the end.
fn places(journal: &[u8]) -> Vec<usize> {
    let mut places = vec![HEADER];
    while let Some(length) = journal.get(places[places.len() - 1] + 4..).and_then(|rest| rest.first_chunk()) {
        places.push(places[places.len() - 1] + FRAME + u32::from_le_bytes(*length) as usize);
    }
    assert_eq!(places.last(), Some(&journal.len()));
    places
}

#[test]
fn verify_says_what_is_damaged_where_and_what_to_do() {
    let home = Home::founded(5);
    home.done(&["ledger", "verify"]);
    let whole = home.journal();
    let at = places(&whole);
    let last = at.len() - 1;

    let mut bytes = whole.clone();
    bytes[at[2] + 50] ^= 1;
    let flipped = home.with_journal(&bytes);
    let place = format!("{} bytes at {}: 1 record(s) missing", at[3] - at[2], at[2]);
    flipped.finds(&["damaged on disk", &place, "journal.damaged-1", "osiris sync"]);
    flipped.finds(&["An earlier start found the journal damaged", "journal.damaged-1", "delete that file"]);
    assert_eq!(std::fs::read(flipped.file("journal.damaged-1")).expect("kept"), bytes);

    let torn = home.with_journal(&[whole.as_slice(), b"\xB1oJR and no more"].concat());
    torn.finds(&["16 bytes that are no whole record", "journal.tail-1", "osiris sync"]);
    torn.finds(&["An earlier start cut off", "journal.tail-1", "delete that file"]);
    std::fs::remove_file(torn.file("journal.tail-1")).expect("looked at");
    torn.done(&["ledger", "verify"]);

    let removed = home.with_journal(&[&whole[..at[2]], &whole[at[4]..]].concat());
    removed.finds(&[&format!("at {}: 2 record(s) missing", at[2]), "journal.damaged-1"]);

    let cut = home.with_journal(&whole[..at[last - 2]]);
    cut.finds(&[
        "2 record(s) vanished at its end",
        &format!("at byte {}", at[last - 2]),
        "journal.cut-1",
        "backup",
    ]);
    cut.finds(&["durable records were missing at the journal's end", "journal.cut-1", "delete that file"]);

    let mut bytes = whole.clone();
    bytes[at[last] - 1] ^= 1;
    home.with_journal(&bytes).finds(&["1 record(s) vanished at its end", "journal.tail-1", "journal.cut-1"]);

    let mut bytes = whole.clone();
    bytes[20] ^= 1;
    home.with_journal(&bytes).finds(&["header does not fit its first record", "backup"]);
    bytes[0] ^= 1;
    home.with_journal(&bytes).finds(&["does not start like a journal", "backup"]);
    home.with_journal(&whole[..20]).finds(&["shorter than its header", "backup"]);
    let old = [b"OSIRISJ1".as_slice(), &whole[8..]].concat();
    home.with_journal(&old).finds(&["has format 1", "--data DIR"]);

    let foreign = home.with_journal(&Home::founded(1).journal());
    foreign.finds(&["of the fleet", "but the folder belonged to the fleet", "own journal"]);

    let missing = home.with_journal(b"");
    std::fs::remove_file(missing.file("journal")).expect("removed");
    missing.finds(&["is missing, though", "held 6 record(s)", "backup", "osiris join TICKET"]);
    let (code, err) = missing.run(&["init"]);
    assert!(code == 1 && err.contains("is missing, though"), "a lost journal is not founded over: {err}");

    let damaged_head = home.with_journal(&whole);
    std::fs::write(damaged_head.file("journal.head"), b"nothing").expect("written");
    let (code, err) = damaged_head.run(&["ledger", "verify"]);
    assert!(code == 0 && err.contains("journal.head was damaged"), "{code} {err}");
}
