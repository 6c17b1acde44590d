//! What nodes say of their load: to each other, and to other programs on the device.

mod support;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use osiris_fleet::{
    api,
    driver::{PageReader, load_page_path},
    manifest::{Manifest, Replicas},
};
use support::{Folder, Node, until};

const SAMPLES: &str = r#"{"samples":[{"cpu_percent":1.0,"memory_used":10,"memory_total":100,"load1":0.5}]}"#;

async fn done(node: &Node) -> (u64, usize) {
    let rows: Vec<api::BacklogRow> = node.get("/v1/backlog").await;
    rows.iter().find(|row| row.name == "summary").map_or((0, 0), |row| (row.done, row.nodes.len()))
}

/// Calls until an answer comes, and counts it: whoever ran the function, it ran once.
async fn answers(node: &Node, answered: &AtomicU64) {
    until("the call is answered", || async {
        let ok = node.http("POST", "/function/summary", SAMPLES).await.status == 200;
        answered.fetch_add(u64::from(ok), Relaxed);
        ok
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_member_knows_what_all_have_done_also_after_a_restart() {
    let founder = Folder::founded();
    let a = founder.up().await;
    let second = Folder::joined(&a.invite(1).await, "second").await.expect("joined");
    let b = second.up().await;
    let manifest = Manifest { replicas: Replicas::All, ..Manifest::named("summary") };
    a.deploy(osiris_examples::SUMMARY, manifest).await;
    until("both serve", || async {
        let rows: Vec<api::FunctionRow> = b.get("/v1/functions").await;
        rows.iter().any(|row| row.served_by == 2)
    })
    .await;
    // A route is there a moment after its block, so calls are tried until they are answered.
    let answered = AtomicU64::new(0);
    for node in [&a, &a, &a, &b, &b] {
        answers(node, &answered).await;
    }
    until("both count all calls", || async { done(&a).await == (5, 2) && done(&b).await == (5, 2) }).await;

    b.down().await;
    let b = second.up().await;
    answers(&b, &answered).await;
    assert_eq!(answered.load(Relaxed), 6);
    until("the restart lost no count", || async { done(&a).await.0 == 6 && done(&b).await.0 == 6 }).await;
    a.down().await;
    b.down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_programs_read_the_load_without_asking() {
    let founder = Folder::founded();
    let path = load_page_path(founder.path());
    let node = founder.up().await;
    node.deploy(osiris_examples::SUMMARY, Manifest::named("summary")).await;
    answers(&node, &AtomicU64::new(0)).await;
    until("the page says so", || async {
        let Ok(page) = PageReader::open(&path) else { return false };
        let load = page.read().expect("whole").load;
        load.memory_total > 0
            && load.cores > 0
            && load.functions.iter().any(|f| f.name == "summary" && f.done > 0)
    })
    .await;
    node.down().await;
    assert!(PageReader::open(&path).is_err(), "it goes away with its node");
}
