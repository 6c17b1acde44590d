//! Whole nodes: one, then several, from an empty folder to answered calls.

mod support;

use osiris_fleet::{
    api,
    driver::join,
    manifest::{Manifest, Replicas},
};
use support::{Folder, agree, join_options, until};

const SAMPLES: &str = r#"{"samples":[{"cpu_percent":1.0,"memory_used":10,"memory_total":100,"load1":0.5},
{"cpu_percent":3.0,"memory_used":20,"memory_total":100,"load1":0.7}]}"#;

fn manifest(name: &str, replicas: Replicas) -> Manifest {
    Manifest { replicas, ..Manifest::named(name) }
}

/// A founder and a second member, and their nodes, which are connected.
async fn connected() -> ([Folder; 2], [support::Node; 2]) {
    let founder = Folder::founded();
    let a = founder.up().await;
    let ticket = a.invite(1).await;
    let second = Folder::joined(&ticket, "second").await.expect("joined");
    let b = second.up().await;
    until("both are connected", || async {
        a.status().await.connected == 1 && b.status().await.connected == 1
    })
    .await;
    ([founder, second], [a, b])
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_deploys_calls_and_remembers() {
    let folder = Folder::founded();
    let node = folder.up().await;
    let deployed = node.deploy(osiris_examples::SUMMARY, manifest("summary", Replicas::All)).await;
    assert!(deployed.live, "{deployed:?}");
    assert_eq!((deployed.revision, deployed.written.others), (1, 0));
    let answer = node.http("POST", "/function/summary", SAMPLES).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let before = node.status().await;
    node.down().await;

    let again = folder.up().await;
    until("the function is ready again", || async {
        again.http("POST", "/function/summary", SAMPLES).await.status == 200
    })
    .await;
    let after = again.status().await;
    assert_eq!((after.view, after.blocks), (before.view, before.blocks), "a restart writes no block");
    let verified: api::Verified = again.get("/v1/ledger/verify").await;
    assert_eq!(verified.problems, []);
    again.down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_agree_and_relay() {
    let founder = Folder::founded();
    let a = founder.up().await;
    let ticket = a.invite(2).await;
    let second = Folder::joined(&ticket, "second").await.expect("joined");
    let third = Folder::joined(&ticket, "third").await.expect("joined");
    let (b, c) = (second.up().await, third.up().await);
    until("everyone is connected", || async {
        a.status().await.connected == 2 && b.status().await.connected == 2
    })
    .await;

    let deployed = b.manage("POST", "/v1/blobs?kind=component", osiris_examples::CHART).await;
    let stored: api::BlobStored = serde_json::from_slice(&deployed.body).expect("stored");
    let deploy = api::Deploy {
        component: stored.hash,
        manifest: manifest("chart", Replicas::Count(1)),
        timeout_ms: 100,
        wait: false,
    };
    let refused = b.manage("POST", "/v1/functions", serde_json::to_vec(&deploy).expect("JSON")).await;
    assert_eq!(refused.status, 403, "a node may not deploy: {}", refused.text());

    let deployed = a.deploy(osiris_examples::CHART, manifest("chart", Replicas::Count(1))).await;
    assert!(deployed.live && deployed.written.seen_by > 0, "{deployed:?}");
    agree(&[&a, &b, &c]).await;
    let mut relayed = 0;
    for node in [&a, &b, &c] {
        let answer = node.http("GET", "/function/chart/", "").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        relayed += u32::from(
            answer.headers.contains_key("x-osiris-relayed") && answer.headers["x-osiris-relayed"] == "true",
        );
    }
    assert_eq!(relayed, 2, "one replica, so two of three nodes pass the call on");

    // Where the block is and where the component is are two things.
    let again = a.deploy(osiris_examples::CHART, manifest("again", Replicas::All)).await;
    assert!(again.written.seen_by > 0, "{again:?}");
    until("all hold it", || async {
        let rows: Vec<api::FunctionRow> = a.get("/v1/functions").await;
        rows.iter().any(|row| row.name == "again" && row.served_by == 3)
    })
    .await;
    let deploy = api::Deploy { timeout_ms: 0, manifest: manifest("third", Replicas::Count(1)), ..deploy };
    let third: api::Deployed = a.post("/v1/functions", &deploy).await;
    // Others have its component, and not yet its manifest: if this device were lost now, so were the function.
    assert_eq!((third.component_held_by, third.written.seen_by), (0, 0), "{third:?}");
    let deploy = api::Deploy { manifest: manifest("again", Replicas::All), ..deploy };
    let same: api::Deployed = a.post("/v1/functions", &deploy).await;
    assert_eq!((same.component_held_by, same.written.seen_by), (2, 0), "{same:?}");

    let late = Folder::joined(&ticket, "late").await.expect_err("the invitation is used up");
    assert_eq!(late.code, "denied");
    assert!(late.message.contains("used up"), "{}", late.message);
    for node in [a, b, c] {
        node.down().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_converge_with_every_hint_dropped() {
    let founder = Folder::founded();
    let a = founder.up_with(false).await.expect("up");
    let ticket = a.invite(2).await;
    let second = Folder::joined(&ticket, "second").await.expect("joined");
    let third = Folder::joined(&ticket, "third").await.expect("joined");
    let b = second.up_with(false).await.expect("up");
    let c = third.up_with(false).await.expect("up");
    let deployed = a.deploy(osiris_examples::SUMMARY, manifest("summary", Replicas::All)).await;
    assert!(deployed.live);
    until("all three serve", || async {
        let rows: Vec<api::FunctionRow> = c.get("/v1/functions").await;
        rows.iter().any(|row| row.served_by == 3)
    })
    .await;
    agree(&[&a, &b, &c]).await;
    for node in [&a, &b, &c] {
        assert_eq!(node.http("POST", "/function/summary", SAMPLES).await.status, 200);
    }
    for node in [a, b, c] {
        node.down().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_power_cut_everyone_finds_everyone() {
    let ([founder, second], [a, b]) = connected().await;
    a.down().await;
    b.down().await;
    // Nobody is left to ask where the others are: each is where it was.
    let (b, a) = (second.up().await, founder.up().await);
    until("both are connected again", || async {
        a.status().await.connected == 1 && b.status().await.connected == 1
    })
    .await;
    a.down().await;
    b.down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_finds_a_fleet_that_has_moved_by_a_ticket() {
    let founder = Folder::founded();
    let a = founder.up().await;
    let ticket = a.invite(1).await;
    let second = Folder::joined(&ticket, "second").await.expect("joined");
    a.down().await;
    // It comes back elsewhere, and the member's old address of it leads nowhere.
    std::fs::remove_file(founder.path().join("mesh-port")).expect("there was one");
    let mut known = second.peers();
    for peer in &mut known {
        peer.addrs = vec!["127.0.0.1:9".parse().expect("an address")];
    }
    second.save_peers(&known);
    std::fs::remove_file(founder.path().join("peers.json")).expect("there was one");
    let a = founder.up().await;
    let invitation = a.invite(1).await;
    let again = join(second.path(), join_options(&invitation, "second")).await.expect("adopted");
    assert_eq!(again.addresses_of, Some(1));
    assert_eq!((again.fleet_name.as_str(), again.roles.as_slice()), ("test", ["node".to_owned()].as_slice()));
    let b = second.up().await;
    until("both are connected", || async { b.status().await.connected == 1 }).await;
    let rows: Vec<api::InvitationRow> = a.get("/v1/invitations").await;
    assert_eq!(rows.iter().filter(|row| row.state == "open" && row.used == 0).count(), 1, "{rows:?}");
    a.down().await;
    b.down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_hands_over_and_no_call_fails() {
    let (_folders, [a, b]) = connected().await;
    a.deploy(osiris_examples::SUMMARY, manifest("summary", Replicas::Count(1))).await;
    let serving = async |node: &support::Node| {
        let detail: api::FunctionDetail = node.get("/v1/functions/summary").await;
        detail.revisions.into_iter().flat_map(|revision| revision.serving).collect::<Vec<_>>()
    };
    until("both know who serves it", || async {
        !serving(&a).await.is_empty() && serving(&a).await == serving(&b).await
    })
    .await;
    let (first, other) = if serving(&a).await == ["second"] { (&b, &a) } else { (&a, &b) };

    let done = std::sync::atomic::AtomicBool::new(false);
    let calls = async {
        let mut answered = 0;
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            for node in [first, other] {
                let answer = node.http("POST", "/function/summary", SAMPLES).await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                answered += 1;
            }
        }
        answered
    };
    let drains = async {
        let drained: api::Drained = first.tell("/v1/drain").await;
        assert_eq!((drained.stopped, drained.left), (1, Vec::new()));
        // Calls that this leaves without a replica would fail from here on.
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    let (answered, ()) = tokio::join!(calls, drains);
    assert!(answered > 2, "{answered} calls");
    let rows: Vec<api::NodeRow> = other.get("/v1/nodes").await;
    let draining: Vec<_> = rows.iter().map(|row| (row.state == "this", row.draining)).collect();
    assert_eq!(draining, [(true, false), (false, true)]);
    // What is deployed now goes past it.
    a.deploy(osiris_examples::SUMMARY, manifest("later", Replicas::Count(1))).await;
    until("it is served", || async {
        other.http("POST", "/function/later", SAMPLES).await.headers.contains_key("x-osiris-relayed")
    })
    .await;
    let rows: Vec<api::NodeRow> = other.get("/v1/nodes").await;
    assert!(rows.iter().all(|row| row.draining == row.serving.is_empty()), "{rows:?}");
    a.down().await;
    b.down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn drained_and_left_nodes_serve_no_more() {
    let (_folders, [a, b]) = connected().await;
    a.deploy(osiris_examples::SUMMARY, manifest("summary", Replicas::All)).await;
    let replicas = async |node: &support::Node| {
        let rows: Vec<api::FunctionRow> = node.get("/v1/functions").await;
        rows.first().map_or(0, |row| row.served_by)
    };
    until("both serve", || async { replicas(&a).await == 2 && replicas(&b).await == 2 }).await;

    let drained: api::Drained = b.tell("/v1/drain").await;
    assert_eq!(drained.stopped, 1);
    until("the other knows", || async { replicas(&a).await == 1 }).await;
    assert_eq!(b.status().await.state, "draining");
    let relayed = b.http("POST", "/function/summary", SAMPLES).await;
    assert_eq!(relayed.status, 200, "a drained node still passes calls on: {}", relayed.text());
    assert_eq!(relayed.headers["x-osiris-relayed"], "true");

    let refused = a.manage("POST", "/v1/leave", "").await;
    assert_eq!(refused.status, 409, "the only admin may not leave: {}", refused.text());
    let left: api::Written = b.tell("/v1/leave").await;
    assert_eq!(left.seen_by, 1, "the other confirmed");
    until("the other shows it", || async {
        let rows: Vec<api::NodeRow> = a.get("/v1/nodes").await;
        rows.iter().any(|row| row.label == "second" && row.state == "revoked")
    })
    .await;
    until("they are apart", || async { a.status().await.connected == 0 }).await;
    b.down().await;
    a.down().await;
}
