//! What `osiris ledger verify` says of a stopped member's folder, where others are members, too.

mod support;

use osiris_fleet::{
    api::{FunctionRow, Problem},
    driver,
    manifest::Manifest,
};
use osiris_ledger::journal;
use support::{Folder, agree, until};

fn problems(folder: &Folder) -> Vec<Problem> {
    driver::verify(folder.path()).expect("looked into").problems
}

#[tokio::test(flavor = "multi_thread")]
async fn a_members_folder_is_looked_into_and_others_are_named_that_can_mend_it() {
    let founder = Folder::founded();
    let a = founder.up().await;
    let second = Folder::joined(&a.invite(1).await, "second").await.expect("joined");
    let b = second.up().await;
    until("both are connected", || async { a.status().await.connected == 1 }).await;
    a.deploy(osiris_examples::SUMMARY, Manifest::named("summary")).await;
    until("both serve it, and know that the other has seen it", || async {
        let mut done = true;
        for node in [&a, &b] {
            let rows: Vec<FunctionRow> = node.get("/v1/functions").await;
            done &= rows.iter().all(|row| row.served_by == 2) && node.status().await.unseen == 0;
        }
        done
    })
    .await;
    agree(&[&a, &b]).await;
    let used = driver::verify(second.path()).expect_err("a node has the folder");
    assert_eq!(used.code, osiris_fleet::api::codes::CONFLICT.0, "{used}");
    a.down().await;
    b.down().await;
    assert_eq!(problems(&founder), []);
    assert_eq!(problems(&second), []);

    // The keys are exchanged: each is a member's, and none is this folder's.
    for (folder, other) in [(&founder, &second), (&second, &founder)] {
        let copy = folder.copied();
        std::fs::copy(other.path().join("device.key"), copy.path().join("device.key")).expect("exchanged");
        let found = problems(&copy);
        let about = found.iter().find(|problem| problem.place.file == "device.key").expect("said");
        assert!(about.what.contains("but this folder was used by"), "{found:?}");
        assert!(about.next.contains("two nodes would have one key"), "{found:?}");
    }
    let unnoted = second.copied();
    std::fs::remove_file(unnoted.path().join("confirmed")).expect("removed");
    assert_eq!(problems(&unnoted), [], "it is made again");

    let bare = second.copied();
    std::fs::remove_dir_all(bare.path().join("library")).expect("removed");
    let found = problems(&bare);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[1].what.contains("bytes of summary@1 are missing"), "{found:?}");
    assert!(!found[1].what.contains("lost") && found[1].next.contains("another member ("), "{found:?}");

    let flipped = second.copied();
    let path = flipped.path().join("journal");
    let mut bytes = std::fs::read(&path).expect("the journal");
    // All that was written after the founding follows it.
    let second = journal::scan(&bytes, None).expect("a journal").records[1].offset;
    bytes[second + 60] ^= 1;
    std::fs::write(&path, &bytes).expect("damaged");
    let found = problems(&flipped);
    assert!(found[0].what.contains("1 record is damaged"), "{found:?}");
    assert!(found[0].next.contains("`osiris sync` bring back"), "{found:?}");
    assert!(found[1].what.contains("cannot be judged"), "{found:?}");
    assert_eq!(found.len(), 2, "that this device is a member is among what cannot be judged: {found:?}");
    let mut replica = driver::Offline::open(flipped.path()).await.expect("opened");
    let doctor = replica.doctor().await.expect("a doctor").problems;
    let warnings = replica.warnings();
    assert!(warnings.iter().any(|warning| warning.contains("cannot be judged")), "{warnings:?}");
    assert!(!doctor.iter().any(|problem| problem.contains("device.key")), "{doctor:?}");
}
