//! `osiris ledger verify` on damaged, strange and foreign folders: what it says, where the damage is, how to mend
//! it, and that nothing is changed by looking. Then that a start mends what it can.

mod support;

use support::{Found, HEADER, Home, Snapshot};

/// What a row expects: file, record, byte, a word of what is said, a word of what to do.
type Expected = (String, Option<u64>, Option<u64>, &'static str, &'static str);

/// One kind of damage: its name, what is done to a folder, and what has to be said of it.
struct Case {
    name: String,
    harm: Box<dyn Fn(&Home)>,
    expected: Vec<Expected>,
}

fn case(name: impl Into<String>, harm: impl Fn(&Home) + 'static, expected: &[Expected]) -> Case {
    Case { name: name.into(), harm: Box::new(harm), expected: expected.to_vec() }
}

fn whole(file: &str, what: &'static str, next: &'static str) -> Expected {
    (file.to_owned(), None, None, what, next)
}

fn journal(record: u64, byte: usize, what: &'static str, next: &'static str) -> Expected {
    ("journal".to_owned(), Some(record), Some(byte as u64), what, next)
}

fn flip(home: &Home, file: &str, byte: usize, mask: u8) {
    let mut bytes = std::fs::read(home.file(file)).expect("a file");
    bytes[byte] ^= mask;
    home.put(file, bytes);
}

fn remove(home: &Home, file: &str) {
    std::fs::remove_file(home.file(file)).expect("removed");
}

const BACKUP: &str = "only a backup";

/// Runs every row on a copy of the folder.
fn try_all(base: &Home, cases: Vec<Case>) {
    for Case { name, harm, expected } in cases {
        let home = base.copied();
        harm(&home);
        let before = Snapshot::of(&home);
        let Found { code, problems, text } = home.verified();
        assert_eq!(Snapshot::of(&home), before, "{name}: something was changed");
        let places: Vec<_> = problems.iter().map(|p| (p.file.as_str(), p.record, p.byte)).collect();
        let wanted: Vec<_> = expected.iter().map(|e| (e.0.as_str(), e.1, e.2)).collect();
        assert_eq!(places, wanted, "{name}: {text}");
        for (problem, (.., what, next)) in problems.iter().zip(&expected) {
            assert!(problem.what.contains(what), "{name}: no {what:?} in {problem:?}");
            assert!(problem.next.contains(next), "{name}: no {next:?} in {problem:?}");
        }
        assert_eq!(code, i32::from(!expected.is_empty()), "{name}");
    }
}

#[test]
fn damage_of_the_journal_is_said_with_its_record_and_byte_and_how_to_mend_it() {
    let home = Home::founded(5);
    let bytes = home.journal();
    let at = support::places(&bytes);
    let last = at[5];
    let lost = journal(6, last, "1 record(s) vanished at its end", BACKUP);
    let mut cases = vec![
        case("sound", |_| {}, &[]),
        case(
            "garbage behind the end",
            {
                let longer = [bytes.as_slice(), b"\xB1oJR and no more"].concat();
                move |home| home.put("journal", &longer)
            },
            &[journal(7, at[6], "16 bytes", "names no record in them")],
        ),
        case(
            "a flipped bit in a record's length",
            {
                let byte = at[2] + 4;
                move |home| flip(home, "journal", byte, 1)
            },
            &[
                journal(3, at[2], "1 record is damaged", BACKUP),
                journal(4, at[3], "3 whole block(s) of the journal cannot be judged", "count again"),
            ],
        ),
        case(
            "a flipped bit in a record's body",
            {
                let byte = at[2] + 50;
                move |home| flip(home, "journal", byte, 1)
            },
            &[
                journal(3, at[2], "are no whole record: 1 record is damaged", "journal.damaged-N"),
                journal(4, at[3], "3 by test", "count again"),
            ],
        ),
        case(
            "a flipped bit in the first record",
            |home| flip(home, "journal", HEADER + 60, 1),
            &[
                journal(1, HEADER, "1 record is damaged", "backup"),
                journal(2, at[1], "lacks the fleet's first block", "backup"),
            ],
        ),
        case(
            "two records missing",
            {
                let shorter = [&bytes[..at[2]], &bytes[at[4]..]].concat();
                move |home| home.put("journal", &shorter)
            },
            &[
                journal(3, at[2], "2 records are missing", BACKUP),
                journal(5, at[2], "2 whole block(s)", "count again"),
            ],
        ),
    ];
    let other = Home::founded(1).journal();
    let other = other[support::places(&other)[1]..].to_vec();
    let behind = at[1] + other.len();
    let mixed = [&bytes[..at[1]], &other, &bytes[at[2]..]].concat();
    let odd =
        |byte: usize| ("journal".to_owned(), None, Some(byte as u64), "do not follow each other", BACKUP);
    cases.push(case(
        "a record of another history",
        move |home| home.put("journal", &mixed),
        &[
            odd(at[1]),
            odd(behind),
            journal(2, at[1], "is not valid", "backup"),
            journal(3, behind, "4 whole block(s)", "count again"),
        ],
    ));
    for cut in [1, 4, 20, 36, 60, at[6] - last - 1] {
        let harm = move |home: &Home| support::cut(home, "journal", last + cut);
        let torn = journal(6, last, "that are no whole record", BACKUP);
        cases.push(case(
            format!("cut {cut} bytes into the last record"),
            harm,
            &[torn.clone(), lost.clone()],
        ));
        let harm = move |home: &Home| {
            support::cut(home, "journal", last + cut);
            remove(home, "journal.head");
        };
        let headless = whole("journal.head", "is missing", "makes it anew");
        cases.push(case(format!("cut {cut} bytes into the last record, no head"), harm, &[torn, headless]));
    }
    cases.push(case(
        "the last record",
        move |home| flip(home, "journal", last + 60, 4),
        &[journal(6, last, "no whole record", BACKUP), lost.clone()],
    ));
    let end = at[4];
    cases.push(case(
        "cut between two records",
        move |home| support::cut(home, "journal", end),
        &[journal(5, end, "2 record(s) vanished at its end", "journal.cut-N")],
    ));
    for byte in [0, 5, 20, 40] {
        let header = ("journal".to_owned(), None, Some(0), "header", "Nothing is lost");
        let harm = move |home: &Home| flip(home, "journal", byte, 1);
        cases.push(case(format!("byte {byte} of the header"), harm, std::slice::from_ref(&header)));
        let harm = move |home: &Home| {
            flip(home, "journal", byte, 1);
            remove(home, "journal.head");
        };
        let headless = whole("journal.head", "is missing", "makes it anew");
        cases.push(case(format!("byte {byte} of the header, no head"), harm, &[header, headless]));
    }
    cases.push(case(
        "a format that is not known",
        |home| flip(home, "journal", 7, 1),
        &[whole("journal", "has format 3", "byte 7")],
    ));
    let old = [b"OSIRISJ1".as_slice(), &[7; 300]].concat();
    cases.push(case(
        "format 1",
        move |home| home.put("journal", &old),
        &[whole("journal", "has format 1", "--data DIR")],
    ));
    cases.push(case(
        "no journal at all in the file",
        |home| {
            home.put("journal", [7; 300]);
        },
        &[whole("journal", "does not start like a journal", "backup")],
    ));
    cases.push(case(
        "cut within the header",
        |home| support::cut(home, "journal", 20),
        &[whole("journal", "shorter than its header", "backup")],
    ));
    try_all(&home, cases);
}

#[test]
fn a_head_that_is_missing_damaged_or_ahead_is_said() {
    let home = Home::founded(2);
    let before = home.journal();
    let older = home.copied();
    home.deploy("f-2");
    let newer = std::fs::read(home.file("journal.head")).expect("the head");
    let at = support::places(&before);
    let mended = older.copied();
    flip(&mended, "journal", at[1] + 50, 1);
    assert_eq!(mended.run(&["sync"]).0, 0, "a start mends it");
    let later = std::fs::read(mended.file("journal.head")).expect("the head");
    let known = (Some(2), Some((at[1] + at[3] - at[2]) as u64));
    let end = before.len();
    let cases = vec![
        case(
            "missing",
            |home| remove(home, "journal.head"),
            &[whole("journal.head", "is missing", "makes it anew")],
        ),
        case(
            "damaged",
            |home| home.put("journal.head", b"nothing"),
            &[whole("journal.head", "is damaged", "makes it anew")],
        ),
        case(
            "ahead",
            move |home| home.put("journal.head", &newer),
            &[journal(4, end, "1 record(s) vanished at its end", BACKUP)],
        ),
        case(
            "of a later generation",
            move |home| home.put("journal.head", &later),
            &[(
                "journal.head".to_owned(),
                known.0,
                known.1,
                "is not the one that was last used here",
                BACKUP,
            )],
        ),
        case(
            "without its journal",
            |home| remove(home, "journal"),
            &[whole("journal", "is missing, though", "osiris join TICKET")],
        ),
        case(
            "without journal and head",
            |home| {
                remove(home, "journal");
                remove(home, "journal.head");
            },
            &[whole("journal", "a node used this folder", "backup")],
        ),
        case(
            "what earlier starts kept",
            |home| {
                for file in ["journal.damaged-1", "journal.tail-1", "journal.cut-1"] {
                    home.put(file, b"kept");
                }
            },
            &[
                whole("journal.damaged-1", "found the journal damaged", "Delete that file"),
                whole("journal.tail-1", "cut off", "Delete that file"),
                whole("journal.cut-1", "durable records were missing", "Delete that file"),
            ],
        ),
    ];
    try_all(&older, cases);
}

#[test]
fn foreign_files_are_said_to_be_foreign() {
    let home = Home::founded(1);
    let foreign = Home::founded(2);
    let theirs = |file: &str| std::fs::read(foreign.file(file)).expect("a file");
    let [their_journal, their_head, their_key, their_admin] =
        ["journal", "journal.head", "device.key", "admin.key"].map(theirs);
    let alone = their_journal.clone();
    let cases = vec![
        case(
            "another device's key",
            move |home| {
                home.put("device.key", &their_key);
            },
            &[whole("device.key", "the file is another device's", "backup")],
        ),
        case(
            "another founder's key",
            move |home| {
                home.put("admin.key", &their_admin);
            },
            &[whole("admin.key", "did not found the fleet", "backup")],
        ),
        case(
            "another fleet's journal",
            move |home| {
                home.put("journal", &alone);
            },
            &[
                whole("journal.head", "but journal.head is of the fleet", "own journal"),
                whole("journal", "another fleet's", "own journal"),
            ],
        ),
        case(
            "another fleet's journal with its head",
            move |home| {
                home.put("journal", &their_journal);
                home.put("journal.head", &their_head);
            },
            &[whole("journal", "another fleet's", "journal.head from a backup")],
        ),
        case("no key", |home| remove(home, "device.key"), &[whole("device.key", "is missing", "backup")]),
        case(
            "a key that is none",
            |home| home.put("device.key", b"7"),
            &[whole("device.key", "64 hexadecimal digits", "backup")],
        ),
        case(
            "a note that names blocks which are gone",
            |home| {
                home.put("confirmed", format!("{}\n", "07".repeat(32)));
            },
            &[whole("confirmed", "names 1 own block(s) that the journal lacks", "backup")],
        ),
        case(
            "notes that say nothing",
            |home| {
                for file in ["confirmed", "peers.json", "mesh-port"] {
                    home.put(file, b"\xff?");
                }
            },
            &[
                whole("confirmed", "is damaged", "Delete it"),
                whole("peers.json", "is damaged", "Delete it"),
                whole("mesh-port", "is damaged", "Delete it"),
            ],
        ),
    ];
    try_all(&home, cases);
}

/// A node would take part in nothing, and say that it is ready.
#[test]
fn a_node_does_not_start_with_another_devices_key() {
    let (home, foreign) = (Home::founded(1), Home::founded(0));
    home.put("device.key", std::fs::read(foreign.file("device.key")).expect("a key"));
    let (code, _, err) = home.run(&["up"]);
    assert!(
        code == 4 && err.contains("No member of the fleet ever had the key") && err.contains("backup"),
        "{code} {err}"
    );
    let (code, out, _) = home.run(&["status"]);
    assert!(code == 0 && out.contains("No member of the fleet ever had the key"), "{code} {out}");
}

#[test]
fn bytes_that_are_missing_or_damaged_are_said_and_that_they_are_lost() {
    let home = Home::founded(2);
    let (component, manifest) = home.blobs();
    let lost = "no other member is known to hold them";
    let gone = |what, next| whole(&component, what, next);
    let aside = component.replace(".blob", ".damaged");
    let [for_removal, for_harm, for_aside, for_both] = [(); 4].map(|()| component.clone());
    let [to, beside] = [(); 2].map(|()| aside.clone());
    let one = manifest.clone();
    let cases = vec![
        case(
            "no library",
            |home| std::fs::remove_dir_all(home.file("library")).expect("removed"),
            &[
                whole("library", "is missing", "backup"),
                gone(lost, "deploy the function again"),
                gone("bytes of f-1@1 are missing", "deploy the function again"),
            ],
        ),
        case(
            "a component is missing",
            move |home| remove(home, &for_removal),
            &[gone("bytes of f-0@1 are missing", "backup"), gone(lost, "deploy the function again")],
        ),
        case(
            "a manifest is missing",
            move |home| remove(home, &one),
            &[whole(&manifest, lost, "deploy the function again")],
        ),
        case(
            "a damaged component",
            move |home| flip(home, &for_harm, 100, 1),
            &[gone("is damaged", "No other member is known to hold these bytes")],
        ),
        case(
            "moved aside",
            move |home| {
                std::fs::rename(home.file(&for_aside), home.file(&to)).expect("renamed");
            },
            &[
                whole(&aside, "moved it to", "deploy the function again"),
                gone(lost, "backup"),
                gone(lost, "backup"),
            ],
        ),
        case(
            "moved aside and here again",
            move |home| {
                std::fs::copy(home.file(&for_both), home.file(&beside)).expect("copied");
            },
            &[whole(&aside, "moved it to", "here again, whole: delete")],
        ),
        case(
            "what no revision uses",
            |home| {
                let name = format!("library/{}.blob", "07".repeat(32));
                home.put(&name, b"other");
            },
            &[(format!("library/{}.blob", "07".repeat(32)), None, None, "is damaged", "delete the file")],
        ),
    ];
    try_all(&home, cases);
}

/// In the place of each file a pipe, which waits for its other end, a link, which leads elsewhere, and a folder.
#[test]
fn what_is_no_regular_file_is_refused_at_once_and_named() {
    let home = Home::founded(1);
    let (component, _) = home.blobs();
    let files = [
        "lock",
        "device.key",
        "admin.key",
        "confirmed",
        "peers.json",
        "mesh-port",
        "journal",
        "journal.head",
    ];
    for (kind, word) in [("pipe", "a pipe"), ("link", "a symbolic link"), ("folder", "a folder")] {
        let mut cases = Vec::new();
        for file in files.into_iter().chain([component.as_str()]) {
            let name = file.to_owned();
            let harm = move |home: &Home| support::exchange(home, &name, kind);
            let next = if file.starts_with("library") { "backup" } else { "Put the file itself" };
            cases.push(case(format!("{file} is a {kind}"), harm, &[whole(file, word, next)]));
        }
        try_all(&home, cases);
        for file in ["lock", "device.key", "journal", "journal.head"] {
            let home = home.copied();
            support::exchange(&home, file, kind);
            let (code, _, err) = home.run(&["up"]);
            assert!(
                code == 1 && err.contains(word) && err.contains(file),
                "up, {file}, {kind}: {code} {err}"
            );
            let (code, out, err) = home.run(&["doctor"]);
            assert!(code == 1 && out.contains(word), "doctor, {file}, {kind}: {code} {out} {err}");
        }
    }
    let home = home.copied();
    support::exchange(&home, "config.toml", "pipe");
    for command in [["ledger", "verify"].as_slice(), &["doctor"], &["up"]] {
        let (code, _, err) = home.run(command);
        assert!(
            code == 1 && err.contains("config.toml") && err.contains("a pipe"),
            "{command:?}: {code} {err}"
        );
    }
    // Who keeps it elsewhere may link to it.
    remove(&home, "config.toml");
    let elsewhere = home.file("../elsewhere.toml");
    std::fs::write(&elsewhere, "output = \"json\"\n").expect("written");
    std::os::unix::fs::symlink(elsewhere, home.file("config.toml")).expect("a link");
    let (code, out, err) = home.run(&["ledger", "verify"]);
    assert!(code == 0 && out.starts_with('{'), "{code} {out} {err}");
}

#[test]
fn a_folder_that_is_empty_or_cannot_be_read_is_no_sound_one() {
    let home = Home::founded(0);
    let empty = home.copied();
    std::fs::remove_dir_all(empty.file("")).expect("removed");
    for made in [false, true] {
        if made {
            std::fs::create_dir(empty.file("")).expect("made");
        }
        let (code, out, err) = empty.run(&["ledger", "verify"]);
        assert!(code == 3 && out.is_empty() && err.contains("belongs to no fleet yet"), "{code} {out} {err}");
        assert!(err.contains("osiris init"), "{err}");
        assert_eq!(empty.file("").exists(), made, "nothing is made");
        assert!(!made || std::fs::read_dir(empty.file("")).expect("a folder").next().is_none());
    }
    // To the administrator every file is readable.
    if !rustix::process::geteuid().is_root() {
        let deny = |file: &'static str| move |home: &Home| support::deny(home, file);
        let cases = vec![
            case("journal", deny("journal"), &[whole("journal", "denied", "permissions")]),
            case("key", deny("device.key"), &[whole("device.key", "denied", "permissions")]),
        ];
        try_all(&home, cases);
    }
}

/// Commands that only read show what is left, say what is wrong with the journal, and change nothing.
fn only_looked_at(home: &Home, found: &Found) {
    let before = Snapshot::of(home);
    let wrong = &found.problems[0].what;
    for command in [["ls"].as_slice(), &["nodes"], &["ledger", "log"], &["whoami"], &["user", "ls"]] {
        let (code, _, err) = home.run(command);
        assert!(code == 0 && err.contains(wrong.as_str()), "{command:?}: {code} {err}");
        assert_eq!(Snapshot::of(home), before, "{command:?} changed something");
    }
    for (command, expected) in [("status", 0), ("doctor", 1)] {
        let (code, out, err) = home.run(&[command, "-o", "json"]);
        assert_eq!(code, expected, "{command}: {err}");
        let said: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        let problems = said["problems"].as_array().expect("problems");
        let says = |problem: &serde_json::Value| {
            problem.as_str().is_some_and(|text| text.starts_with(wrong.as_str()))
        };
        assert_eq!(problems.iter().filter(|problem| says(problem)).count(), 1, "{command}: {out}");
        assert_eq!(Snapshot::of(home), before, "{command} changed something");
    }
}

/// What verify says that the next start does, it does; then nothing is left to say but what was kept.
#[test]
fn a_start_mends_what_verify_says_it_mends() {
    let home = Home::founded(5);
    let bytes = home.journal();
    let at = support::places(&bytes);
    let mended = |harmed: &[u8], kept: &[&str], blocks: u64| {
        let home = home.copied();
        home.put("journal", harmed);
        let found = home.verified();
        assert_eq!(found.code, 1);
        only_looked_at(&home, &found);
        let (code, _, err) = home.run(&["sync"]);
        assert_eq!(code, 0, "{err}");
        let (_, out, _) = home.run(&["status", "-o", "json"]);
        let status: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!(status["blocks"], blocks, "{out}");
        let found = home.verified();
        let files: Vec<_> = found.problems.iter().map(|problem| problem.file.as_str()).collect();
        assert_eq!(files, kept, "{}", found.text);
        (home, err)
    };
    let mut header = bytes.clone();
    header[20] ^= 1;
    let (folder, said) = mended(&header, &["journal.damaged-1"], 6);
    assert!(said.contains("its header, 44 bytes at 0"), "{said}");
    assert_eq!(std::fs::read(folder.file("journal.damaged-1")).expect("kept"), header);
    remove(&folder, "journal.damaged-1");
    assert_eq!(folder.verified().code, 0, "nothing was lost");

    let torn = [bytes.as_slice(), b"\xB1oJR and no more"].concat();
    mended(&torn, &["journal.tail-1"], 6);
    mended(&bytes[..at[4]], &["journal.cut-1"], 4);

    // Blocks that wait are kept, counted and named by author, and keep what they name from being removed.
    let mut flipped = bytes.clone();
    flipped[at[2] + 50] ^= 1;
    let (folder, said) = mended(&flipped, &["journal", "journal.damaged-1"], 2);
    assert!(said.contains("3 whole block(s)") && said.contains("3 by test"), "{said}");
    let (code, out, _) = folder.run(&["doctor", "-o", "json"]);
    let doctor: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(code, 1);
    let unused = doctor["facts"]["unused in the library"].as_str().expect("a fact");
    assert!(unused.contains("kept, because blocks are missing"), "{unused}");
    let problems = doctor["problems"].to_string();
    assert!(problems.contains("3 by test") && problems.contains(BACKUP), "{problems}");

    // A journal that is lost is not founded over.
    let missing = home.copied();
    remove(&missing, "journal");
    let (code, _, err) = missing.run(&["init"]);
    assert!(code == 1 && err.contains("is missing, though"), "{err}");
}
