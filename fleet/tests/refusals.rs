//! What goes wrong from outside, and what is said and kept then.

mod support;

use osiris_fleet::{
    api,
    driver::{InitOptions, Offline, init},
    manifest::Manifest,
};
use osiris_protocol::ticket::{InvitationSecret, Ticket};
use support::{Folder, agree, until};

/// The ticket with something changed, and a checksum that fits again.
fn changed(ticket: &str, change: impl FnOnce(&mut osiris_protocol::ticket::JoinTicket)) -> String {
    let Ok(Ticket::Join(mut ticket)) = ticket.parse::<Ticket>() else { panic!("a join ticket") };
    change(&mut ticket);
    Ticket::Join(ticket).encode().expect("encodes")
}

#[tokio::test(flavor = "multi_thread")]
async fn tickets_that_admit_nobody_say_why() {
    let founder = Folder::founded();
    let node = founder.up().await;
    let good = node.invite(1).await;

    let mut mistyped = good.clone();
    mistyped.replace_range(40..41, if &good[40..41] == "a" { "b" } else { "a" });
    let refused = Folder::joined(&mistyped, "x").await.expect_err("mistyped");
    assert_eq!(refused.code, "bad-request", "{refused}");

    let altered = changed(&good, |ticket| ticket.secret = InvitationSecret::new([7; 32]));
    let refused = Folder::joined(&altered, "x").await.expect_err("another secret");
    assert_eq!(refused.code, "denied", "{refused}");
    assert!(refused.message.contains("secret does not fit"), "{refused}");

    let foreign = changed(&good, |ticket| ticket.fleet = [9; 32]);
    let refused = Folder::joined(&foreign, "x").await.expect_err("another fleet");
    assert_eq!(refused.code, "denied", "{refused}");
    assert!(refused.message.contains("another fleet"), "{refused}");

    let revoked = node.invite(1).await;
    let rows: Vec<api::InvitationRow> = node.get("/v1/invitations").await;
    let Ok(Ticket::Join(ticket)) = revoked.parse::<Ticket>() else { panic!("a join ticket") };
    let id = osiris_hex(&ticket.invitation);
    assert!(rows.iter().any(|row| row.id == id && row.state == "open"));
    let answer = node.manage("DELETE", &format!("/v1/invitations/{id}?timeout_ms=50"), "").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let refused = Folder::joined(&revoked, "x").await.expect_err("withdrawn");
    assert!(refused.message.contains("was withdrawn"), "{refused}");

    for uses in [0, 1_000_000] {
        let invite = format!(r#"{{"uses":{uses},"roles":["node"],"note":"","timeout_ms":50}}"#);
        let answer = node.manage("POST", "/v1/invitations", invite).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert!(answer.text().contains("number of uses"), "{}", answer.text());
    }

    // None of this used up the good one.
    Folder::joined(&good, "good").await.expect("joined");
    node.down().await;
}

fn osiris_hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_has_one_fleet_and_one_process() {
    let folder = Folder::founded();
    let options = InitOptions { name: "second".to_owned(), label: "x".to_owned() };
    let refused = init(folder.path(), options).expect_err("one fleet a folder");
    assert!(refused.message.contains("already belongs to a fleet"), "{refused}");
    let node = folder.up().await;
    let refused = folder.up_with(true).await.err().expect("one process a folder");
    assert!(refused.message.contains("in use by another osiris process"), "{refused}");
    assert!(refused.next.expect("a next step").contains("--data"));
    node.down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_is_reported_and_mended_from_another_member() {
    let founder = Folder::founded();
    let a = founder.up().await;
    let ticket = a.invite(1).await;
    let second = Folder::joined(&ticket, "second").await.expect("joined");
    let b = second.up().await;
    until("both are connected", || async { a.status().await.connected == 1 }).await;
    a.deploy(osiris_examples::SUMMARY, Manifest::named("summary")).await;
    agree(&[&a, &b]).await;
    let before = b.status().await;
    b.down().await;
    let journal = second.path().join("journal");
    let mut bytes = std::fs::read(&journal).expect("the journal");
    // The middle of the file: neither its first block nor its last.
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&journal, &bytes).expect("damaged");

    let b = second.up().await;
    assert!(
        b.addresses.warnings.iter().any(|warning| warning.contains("damaged on disk")),
        "{:?}",
        b.addresses.warnings
    );
    assert!(second.path().join("journal.damaged-1").exists(), "what was there is kept");
    agree(&[&a, &b]).await;
    assert!(b.status().await.blocks >= before.blocks);
    let verified: api::Verified = b.get("/v1/ledger/verify").await;
    assert_eq!(verified.problems.len(), 1, "the kept file is spoken of: {:?}", verified.problems);
    std::fs::remove_file(second.path().join("journal.damaged-1")).expect("looked at and removed");
    let verified: api::Verified = b.get("/v1/ledger/verify").await;
    assert_eq!(verified.problems, []);
    a.down().await;
    b.down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_for_one_admits_one_through_two_nodes() {
    let founder = Folder::founded();
    let a = founder.up().await;
    let second = Folder::joined(&a.invite(1).await, "second").await.expect("joined");
    let b = second.up().await;
    until("both are connected", || async { a.status().await.connected == 1 }).await;
    let ticket = a.invite(1).await;
    agree(&[&a, &b]).await;
    let at_b = changed(&ticket, |ticket| {
        ticket.peers = vec![osiris_protocol::PeerAddr {
            peer: b.addresses.device.parse::<osiris_mesh::PeerId>().expect("a key").to_bytes(),
            addrs: b.addresses.mesh.clone(),
        }];
    });
    let (one, other) = tokio::join!(Folder::joined(&ticket, "one"), Folder::joined(&at_b, "other"));
    let refused = match (one, other) {
        (Ok(_), Err(refused)) | (Err(refused), Ok(_)) => refused,
        both => panic!("exactly one is admitted: {both:?}"),
    };
    assert_eq!(refused.code, "denied", "{refused}");
    assert!(refused.message.contains("used up"), "{refused}");
    a.down().await;
    b.down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_runs_twice_is_said_and_a_restored_one_is_none() {
    let founder = Folder::founded();
    let a = founder.up().await;
    let second = Folder::joined(&a.invite(1).await, "second").await.expect("joined");
    let b = second.up().await;
    until("both are connected", || async { a.status().await.connected == 1 }).await;
    a.down().await;
    let backup = founder.copied();
    let a = founder.up().await;
    a.deploy(osiris_examples::SUMMARY, Manifest::named("summary")).await;
    a.down().await;

    // The backup lacks blocks of its own, and gets them from the other.
    let restored = backup.up().await;
    agree(&[&restored, &b]).await;
    assert_eq!(restored.get::<Vec<api::FunctionRow>>("/v1/functions").await.len(), 1, "it got them");
    assert_eq!(restored.status().await.problems, Vec::<String>::new());

    let copy = founder.up().await;
    let told = async |node: &support::Node| !node.status().await.problems.is_empty();
    until("one of the two knows", || async { told(&restored).await || told(&copy).await }).await;
    let (knows, other) = if told(&restored).await { (restored, copy) } else { (copy, restored) };
    let problem = knows.status().await.problems.remove(0);
    assert!(problem.contains("Stop one of the two"), "{problem}");
    let doctor: api::Doctor = knows.get("/v1/doctor").await;
    assert!(doctor.problems.iter().any(|said| said.contains("runs with this device's key")), "{doctor:?}");
    let rows: Vec<api::NodeRow> = knows.get("/v1/nodes").await;
    assert!(rows.iter().all(|row| row.twin == (row.state == "this")), "{rows:?}");
    for node in [knows, other, b] {
        node.down().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_said_until_somebody_has_looked() {
    let folder = Folder::founded();
    let node = folder.up().await;
    node.deploy(osiris_examples::SUMMARY, Manifest::named("summary")).await;
    node.down().await;
    let journal = folder.path().join("journal");
    let whole = std::fs::read(&journal).expect("the journal");

    // The last record: what is cut off is kept, and verify says so until the file is gone.
    let mut bytes = whole.clone();
    let last = bytes.len() - 20;
    bytes[last] ^= 1;
    std::fs::write(&journal, &bytes).expect("damaged");
    let found = osiris_fleet::driver::verify(folder.path()).expect("looked into");
    assert!(
        found.problems.iter().any(|problem| problem.what.contains("vanished at its end")),
        "the last record was acknowledged: {:?}",
        found.problems
    );
    assert!(!folder.path().join("journal.tail-1").exists(), "it was only looked at");
    for _ in 0..2 {
        let replica = Offline::open(folder.path()).await.expect("opened");
        drop(replica);
        let verified = osiris_fleet::driver::verify(folder.path()).expect("looked into");
        let files: Vec<_> = verified.problems.iter().map(|problem| problem.place.file.as_str()).collect();
        assert_eq!(files, ["journal.tail-1", "journal.cut-1"], "{:?}", verified.problems);
    }
    let kept = std::fs::read(folder.path().join("journal.tail-1")).expect("kept");
    assert!(bytes.ends_with(&kept));

    // The first record: nothing can be judged, and nothing pretends to.
    let mut bytes = whole;
    bytes[100] ^= 1;
    std::fs::write(&journal, &bytes).expect("damaged");
    let refused = Offline::open(folder.path()).await.expect_err("no first block");
    assert!(refused.message.contains("lacks the fleet's first block"), "{refused}");
    assert!(refused.message.contains("journal.damaged-1"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_vanishes_under_a_running_node_is_noticed_and_mended_from_another() {
    let founder = Folder::founded();
    let a = founder.up().await;
    let second = Folder::joined(&a.invite(1).await, "second").await.expect("joined");
    let b = second.up().await;
    until("both are connected", || async { a.status().await.connected == 1 }).await;
    let before = std::fs::read(founder.path().join("journal")).expect("the journal");
    a.deploy(osiris_examples::SUMMARY, Manifest::named("summary")).await;
    // A block that comes in after the cut would be written behind it, and leave a hole.
    until("both serve it", || async {
        let rows: Vec<api::FunctionRow> = a.get("/v1/functions").await;
        rows.iter().any(|row| row.name == "summary" && row.served_by == 2)
    })
    .await;
    agree(&[&a, &b]).await;

    // Cut exactly between two records.
    std::fs::write(founder.path().join("journal"), &before).expect("cut");
    let verified: api::Verified = a.get("/v1/ledger/verify").await;
    assert!(
        verified.problems.iter().any(|problem| problem.what.contains("vanished at its end")),
        "{:?}",
        verified.problems
    );
    a.down().await;
    let a = founder.up().await;
    assert!(
        a.addresses.warnings.iter().any(|warning| warning.contains("vanished at its end")),
        "{:?}",
        a.addresses.warnings
    );
    agree(&[&a, &b]).await;
    assert_eq!(a.status().await.blocks, b.status().await.blocks);
    let doctor: api::Doctor = a.get("/v1/doctor").await;
    assert!(
        doctor.problems.iter().any(|problem| problem.contains("of this device came back from other members")),
        "{:?}",
        doctor.problems
    );
    std::fs::remove_file(founder.path().join("journal.cut-1")).expect("looked at and removed");
    let verified: api::Verified = a.get("/v1/ledger/verify").await;
    assert_eq!(verified.problems, []);
    a.down().await;
    b.down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_key_is_not_replaced_by_another() {
    let folder = Folder::founded();
    std::fs::remove_file(folder.path().join("device.key")).expect("removed");
    let refused = folder.up_with(true).await.err().expect("another key is another device");
    assert!(refused.message.contains("device.key is missing"), "{refused}");
    assert!(!folder.path().join("device.key").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_takes_back_what_it_cannot_serve() {
    let folder = Folder::founded();
    let node = folder.up().await;
    node.deploy(osiris_examples::SUMMARY, Manifest::named("summary")).await;
    node.down().await;
    std::fs::remove_dir_all(folder.path().join("library")).expect("lost");

    let node = folder.up().await;
    until("the statement is taken back", || async {
        let rows: Vec<api::FunctionRow> = node.get("/v1/functions").await;
        rows.iter().any(|row| row.state == "pending" && row.served_by == 0)
    })
    .await;
    let detail: api::FunctionDetail = node.get("/v1/functions/summary").await;
    assert!(detail.problem.is_some_and(|problem| problem.contains("Its bytes are not here yet")));
    let doctor: api::Doctor = node.get("/v1/doctor").await;
    assert!(!doctor.problems.is_empty());
    // The same bytes again, and it serves again.
    node.deploy(osiris_examples::SUMMARY, Manifest::named("summary")).await;
    node.down().await;
}
