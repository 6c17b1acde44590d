//! Real nodes: a voter seals pages and drops what they list, a newcomer joins from pages, both start again, and what they
//! hold can be checked and archived.

mod support;

use std::path::Path;

use osiris_fleet::{
    api::{NameVoters, Verified, Voters, Written},
    driver::{self, Journal},
    node::Retain,
};
use osiris_ledger::{
    Author, BlobHash, Block, BlockId, Founding, Ledger, Now, Payload, Roles, Session, SigningKey, World,
    Writer, join_proof, limits, op,
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
    assert_eq!((before.retain.as_str(), before.summaries), ("current", 0));
    until("a page is sealed and its blocks are dropped", || async { dropped(&a).await == rows }).await;
    let journal = || std::fs::metadata(founder.path().join("journal")).expect("a journal").len();
    until("the journal is written anew", || async { journal() < whole / 4 }).await;
    assert_eq!(a.status().await.blocks, before.blocks + 1, "and the seal");
    let voters: Voters = a.get("/v1/voters").await;
    assert_eq!((voters.founder, voters.sealed, voters.voters[0].sealed), (true, 1, 1));
    assert!(sound(&a).await);

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
