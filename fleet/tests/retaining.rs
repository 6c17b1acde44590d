//! Real nodes: a voter seals pages and drops what they list, a newcomer joins from pages, both start again, and what they
//! hold can be checked and archived.

mod support;

use std::path::{Path, PathBuf};

use osiris_fleet::{
    api::{BlockRow, Log, NameVoters, Verified, Voters, Written},
    driver::{self, Journal},
    node::Retain,
};
use osiris_ledger::{
    Author, BlobHash, Block, BlockId, FleetId, Founding, Ledger, Now, Page, Payload, Roles, Session,
    SigningKey, World, Writer, join_proof, limits, op,
};
use support::{Folder, Node, until};

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn public(seed: u8) -> Author {
    Author(key(seed).verifying_key().to_bytes())
}

/// The folder of a founding device, whose fleet has a member that served and stopped a function so often that one page
/// of it can be sealed. Nobody has that function's bytes, and it is removed.
fn busy_fleet() -> Folder {
    let mut founder = Writer::new(key(1), Session([1; 16]));
    let founding = Founding {
        name: "busy".to_owned(),
        label: "founder".to_owned(),
        admin: &key(2),
        recovery: public(3),
        nonce: Session([9; 16]),
    };
    let (mut ledger, _) = founder.found(Now::default(), founding).expect("founded");
    let mut write = |ledger: &mut Ledger, payload: Payload| -> BlockId {
        founder.append(ledger, Now::default(), payload).expect("the founder may").id()
    };
    let note = String::new();
    let offer = op::Invited { key: public(4), uses: 1, roles: Roles::NODE, device: None, note };
    let invitation = write(&mut ledger, Payload::Invited(offer));
    let device = public(5);
    let proof = join_proof(&key(4), &ledger.fleet(), &invitation, &device);
    let label = "busy".to_owned();
    write(&mut ledger, Payload::Admitted(op::Admitted { invitation, device, proof, label }));
    let deployed = op::Deployed {
        name: "gone".to_owned(),
        component: BlobHash([1; 32]),
        size: 1,
        world: World::Http,
        manifest: BlobHash([2; 32]),
        manifest_size: 1,
        replaces: Vec::new(),
    };
    let revision = write(&mut ledger, Payload::Deployed(deployed));
    let mut busy = Writer::new(key(5), Session([5; 16]));
    let serves = limits::PAGE_ROWS_MAX as u64 + limits::PAGE_MARGIN_DEPTH + 8;
    for n in 0..serves {
        let said = match n % 2 {
            0 => Payload::Serving(op::Serving { revision, concurrency: 1 }),
            _ => Payload::Stopped(op::Stopped { revision }),
        };
        busy.append(&mut ledger, Now::default(), said).expect("a member may");
    }
    let removed = op::Removed { name: "gone".to_owned(), replaces: vec![revision] };
    write(&mut ledger, Payload::Removed(removed));
    let dir = tempfile::tempdir().expect("a folder");
    let secret = key(1).to_bytes().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    std::fs::write(dir.path().join("device.key"), secret).expect("written");
    let blocks = ledger.in_order();
    let entries: Vec<_> = blocks.iter().map(|block| AsRef::<Block>::as_ref(block).entry()).collect();
    Journal::create(dir.path(), &ledger.fleet(), &entries).expect("a journal");
    Folder { dir }
}

/// The file of a library whose bytes fit.
fn library_file(folder: &Folder, fits: &dyn Fn(&[u8]) -> bool) -> PathBuf {
    let files = std::fs::read_dir(folder.path().join("library")).expect("a library");
    let files = files.map(|entry| entry.expect("an entry").path());
    let mut files = files.filter(|path| std::fs::read(path).is_ok_and(|bytes| fits(&bytes)));
    files.next().expect("one that fits")
}

/// All that a device wrote, as the log has it, so many rows at a time.
async fn log_of(node: &Node, author: &str, entries: bool) -> Vec<BlockRow> {
    let mut query = Log { limit: 1_500, author: Some(author.to_owned()), entries, ..Log::default() };
    let mut rows: Vec<BlockRow> = Vec::new();
    loop {
        let some: Vec<BlockRow> = node.post("/v1/ledger/log", &query).await;
        let Some(last) = some.last() else { return rows };
        query.before = Some(last.id.clone());
        rows.extend(some);
    }
}

async fn dropped(node: &Node) -> u64 {
    node.status().await.summaries
}

async fn sound(node: &Node) -> bool {
    let verified: Verified = node.get("/v1/ledger/verify").await;
    verified.problems.is_empty()
}

fn archived(folder: &Folder, to: &Path) -> driver::Archived {
    driver::archive(folder.path(), to).expect("an archive")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voter_drops_what_it_sealed_and_a_newcomer_joins_from_its_pages() {
    let rows = limits::PAGE_ROWS_MAX as u64;
    let founder = busy_fleet();
    let whole = std::fs::metadata(founder.path().join("journal")).expect("a journal").len();
    let a = founder.up_as(true, Retain::Current).await.expect("a node starts");
    let before = a.status().await;
    let fleet: FleetId = before.fleet.parse().expect("an id");
    assert_eq!((before.retain.as_str(), before.summaries), ("current", 0));
    until("a page is sealed and its blocks are dropped", || async { dropped(&a).await == rows }).await;
    let journal = || std::fs::metadata(founder.path().join("journal")).expect("a journal").len();
    until("the journal is written anew", || async { journal() < whole / 4 }).await;
    assert_eq!(a.status().await.blocks, before.blocks + 1, "and the seal");
    let voters: Voters = a.get("/v1/voters").await;
    assert_eq!((voters.founder, voters.sealed, voters.voters[0].sealed), (true, 1, 1));
    assert!(sound(&a).await);
    // The audit still has all, in order; of what was dropped neither clock nor signature.
    let log = log_of(&a, "busy", true).await;
    let written = limits::PAGE_ROWS_MAX as u64 + limits::PAGE_MARGIN_DEPTH + 8;
    assert_eq!(log.len() as u64, written);
    assert!(log.iter().zip(1..).all(|(row, after)| row.seq == written + 1 - after && row.effective));
    assert!(log.iter().zip(0..).all(|(row, n)| row.op == ["stopped", "serving"][n % 2]), "{:?}", log[0]);
    let (full, summaries): (Vec<_>, Vec<_>) = log.iter().partition(|row| row.wall_ms.is_some());
    assert_eq!(summaries.len() as u64, rows);
    assert!(summaries.iter().all(|row| row.entry.is_empty() && row.says.contains("serves gone@1")));
    for row in full {
        let entry: Vec<u8> = (0..row.entry.len() / 2)
            .map(|at| u8::from_str_radix(&row.entry[2 * at..2 * at + 2], 16).expect("hex"))
            .collect();
        assert_eq!((Block::id_of(&entry).to_string(), entry.len() as u64), (row.id.clone(), row.bytes));
    }
    let by_time = Log { limit: 9, since_ms: Some(0), author: Some("busy".to_owned()), ..Log::default() };
    let by_time: Vec<BlockRow> = a.post("/v1/ledger/log", &by_time).await;
    assert!(by_time.iter().all(|row| row.wall_ms.is_some()));
    let dropped_ones = Log { limit: 9, summaries_only: true, ..Log::default() };
    let dropped_ones: Vec<BlockRow> = a.post("/v1/ledger/log", &dropped_ones).await;
    assert!(dropped_ones.len() == 9 && dropped_ones.iter().all(|row| row.wall_ms.is_none()));

    // Who joins gets a page where the blocks were, and gives it on.
    let second = Folder::joined(&a.invite(2).await, "second").await.expect("joined");
    let b = second.up().await;
    until("both are connected", || async { b.status().await.connected == 1 }).await;
    until("both hold the same", || async { a.status().await.view == b.status().await.view }).await;
    assert_eq!((dropped(&b).await, b.status().await.retain.as_str()), (rows, "all"));
    assert!(sound(&b).await);
    let devices = vec![a.status().await.device, b.status().await.device];
    let name = NameVoters { devices, timeout_ms: 10_000 };
    let written: Written = a.post("/v1/voters", &name).await;
    assert_eq!(written.seen_by, 1);
    let voters: Voters = b.get("/v1/voters").await;
    assert_eq!(voters.voters.iter().filter(|voter| voter.able).count(), 1, "the second lacks the role");

    // An archive is made beside a running node, and is the same wherever it is made.
    let dir = tempfile::tempdir().expect("a folder");
    let [first, other] = ["a", "b"].map(|name| dir.path().join(name));
    until("both hold the same", || async { a.status().await.view == b.status().await.view }).await;
    let one = archived(&founder, &first);
    assert_eq!((one.summaries, one.pages), (rows, 1));
    let view = a.status().await.view;
    b.down().await;
    a.down().await;
    assert_eq!(archived(&second, &other), driver::verify_archive(&other).expect("sound"));
    assert_eq!(one.view, view);
    let taken = driver::archive(founder.path(), &first).expect_err("it is there");
    assert_eq!(taken.code, osiris_fleet::api::codes::CONFLICT.0);
    assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), 2, "no half-written file");

    // A page that is damaged, or another's, is named once, with what brings its blocks back.
    let page = library_file(&founder, &|bytes| Page::decode(&fleet, bytes).is_ok());
    let whole_page = std::fs::read(&page).expect("a page");
    let damaged = |harm: &dyn Fn(&Path)| {
        let copy = founder.copied();
        harm(&copy.path().join("library").join(page.file_name().expect("a name")));
        let found = driver::verify(copy.path()).expect("looked into").problems;
        let file = format!("library/{}", page.file_name().expect("a name").display());
        let about: Vec<_> = found.iter().filter(|problem| problem.place.file == file).collect();
        assert_eq!(about.len(), 1, "{found:?}");
        assert!(about[0].next.contains("`osiris sync` bring back"), "{found:?}");
        assert!(found.iter().all(|problem| !problem.next.contains("delete the file")), "{found:?}");
        about[0].what.clone()
    };
    let mut flipped = whole_page.clone();
    flipped[whole_page.len() / 2] ^= 1;
    damaged(&|page| std::fs::write(page, &flipped).expect("written"));
    damaged(&|page| std::fs::write(page, &whole_page[..100]).expect("written"));
    assert!(damaged(&|page| std::fs::remove_file(page).expect("removed")).contains("its file is missing"));
    assert!(
        damaged(&|page| {
            std::fs::remove_file(page).expect("removed");
            std::fs::create_dir(page).expect("made");
        })
        .contains("no regular file")
    );

    // Stopped, both are sound, and start again with what they had.
    for folder in [&founder, &second] {
        assert_eq!(driver::verify(folder.path()).expect("looked into").problems, []);
    }
    let a = founder.up_as(true, Retain::Current).await.expect("a node starts");
    assert_eq!((dropped(&a).await, a.status().await.view), (rows, view));
    a.down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_archive_is_found_out() {
    let founder = Folder::founded();
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("archive");
    archived(&founder, &path);
    let bytes = std::fs::read(&path).expect("the archive");
    let changed = dir.path().join("changed");
    for at in (0..bytes.len()).step_by(3) {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        std::fs::write(&changed, &bytes).expect("written");
        assert!(driver::verify_archive(&changed).is_err(), "byte {at}");
        std::fs::write(&changed, &bytes[..at]).expect("written");
        assert!(driver::verify_archive(&changed).is_err(), "cut at {at}");
    }
    std::fs::write(&changed, [bytes.as_slice(), b"\0"].concat()).expect("written");
    assert!(driver::verify_archive(&changed).is_err(), "a tail");
}
