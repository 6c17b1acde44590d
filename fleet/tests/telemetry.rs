//! What nodes say of their load: to each other, and to other programs on the device.

mod support;

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
    for node in [&a, &a, &a, &b, &b] {
        assert_eq!(node.http("POST", "/function/summary", SAMPLES).await.status, 200);
    }
    until("both count five calls", || async { done(&a).await == (5, 2) && done(&b).await == (5, 2) }).await;

    b.down().await;
    let b = second.up().await;
    until("it is ready again", || async { b.http("POST", "/function/summary", SAMPLES).await.status == 200 })
        .await;
    // At least six: a call that was tried too early may have been answered by the other node.
    until("the restart lost no count", || async {
        let (of_a, of_b) = (done(&a).await, done(&b).await);
        of_a.0 >= 6 && of_a == of_b
    })
    .await;
    a.down().await;
    b.down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_programs_read_the_load_without_asking() {
    let founder = Folder::founded();
    let path = load_page_path(founder.path());
    let node = founder.up().await;
    node.deploy(osiris_examples::SUMMARY, Manifest::named("summary")).await;
    assert_eq!(node.http("POST", "/function/summary", SAMPLES).await.status, 200);
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
