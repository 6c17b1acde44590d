//! What goes wrong from outside, and what is said and kept then.

mod support;

use osiris_fleet::{
    api,
    driver::{InitOptions, init, join},
    manifest::Manifest,
};
use osiris_protocol::ticket::{InvitationSecret, Ticket};
use support::{Folder, agree, join_options, until};

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
    let refused = Folder::joined(&revoked, "x").await.expect_err("revoked");
    assert!(refused.message.contains("was revoked"), "{refused}");

    // None of this used up the good one.
    let folder = Folder::joined(&good, "good").await.expect("joined");
    let again = join(folder.path(), join_options(&good, "good")).await.expect_err("a member already");
    assert_eq!(again.code, "conflict", "{again}");
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
    assert_eq!(verified.problems, Vec::<String>::new());
    a.down().await;
    b.down().await;
}
