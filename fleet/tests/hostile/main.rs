//! Attacks of a member that turned hostile, over the real wire, while honest members go on. The table of
//! attacks is `docs/attacks.md`; what needs bytes below a message is in the mesh's own tests.

mod forge;
#[path = "../support/mod.rs"]
mod support;

use std::{collections::BTreeMap, time::Instant};

use bytes::Bytes;
use forge::{Body, Hostile, blocks};
use osiris_fleet::{
    api,
    driver::{
        limits::{held_bytes_max, held_terms},
        metrics::HeldNow,
    },
    manifest::Manifest,
    node::REBUILD_INTERVAL,
};
use osiris_ledger::{Vector, limits as ledger};
use osiris_mesh::{
    MeshHeld, limits as mesh,
    proto::sync::{BROKEN_MESSAGE, Frame, PERIOD},
};
use osiris_protocol::call::CallRequest;
use support::{Folder, Node, agree, until};

/// How often each reason was one.
type Reasons = BTreeMap<String, u64>;

/// Of an honest node: the other one, and the hostile one.
const PEERS: u64 = 2;

async fn metrics(node: &Node) -> String {
    node.http("GET", "/metrics", "").await.text()
}

fn sample(metrics: &str, name: &str) -> u64 {
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{name} is measured")).parse().expect("a whole number")
}

/// A founder, an honest member and a hostile one, and a deployed function.
struct Scene {
    a: Node,
    b: Node,
    hostile: Hostile,
    deploys: u32,
    _folders: [Folder; 3],
}

impl Scene {
    async fn new() -> Self {
        let founder = Folder::founded();
        let a = founder.up().await;
        let ticket = a.invite(2).await;
        let second = Folder::joined(&ticket, "second").await.expect("joined");
        let b = second.up().await;
        let third = Folder::joined(&ticket, "mallory").await.expect("joined");
        a.deploy(osiris_examples::SUMMARY, Manifest::named("summary")).await;
        agree(&[&a, &b]).await;
        let hostile = Hostile::new(&third, &founder, &a).await;
        Self { a, b, hostile, deploys: 0, _folders: [founder, second, third] }
    }

    async fn mallory(&self) -> api::NodeRow {
        let rows: Vec<api::NodeRow> = self.a.get("/v1/nodes").await;
        assert!(rows.iter().all(|row| row.label == "mallory" || (row.rejected, row.held_back) == (0, 0)));
        rows.into_iter().find(|row| row.label == "mallory").expect("still a member")
    }

    /// One more is refused, for this reason and no other.
    async fn blames(&self, count: &mut Reasons, reason: &str, what: &str) {
        *count.entry(reason.to_owned()).or_default() += 1;
        let all: u64 = count.values().sum();
        until(what, || async { self.mallory().await.rejected >= all }).await;
        let row = self.mallory().await;
        assert_eq!((row.rejected, &row.reasons), (all, &*count), "{what}");
    }

    async fn gauge(&self, name: &str) -> u64 {
        sample(&metrics(&self.a).await, name)
    }

    /// What both honest nodes hold stays under each limit, and together under their sum.
    async fn is_bounded(&self) {
        for node in [&self.a, &self.b] {
            let text = metrics(node).await;
            let early = sample(&text, "osiris_ledger_early_blocks");
            assert!(early <= ledger::EARLY_BLOCKS_MAX as u64, "{early} early blocks");
            let queued = sample(&text, "osiris_peer_queued_bytes_max");
            assert!(queued <= mesh::SEND_BYTES_QUEUED_MAX as u64, "{queued} bytes queued for one");
            let mut sum = 0;
            for term in held_terms(PEERS, &HeldNow::default(), &MeshHeld::default()) {
                let held = sample(&text, &format!("osiris_held_bytes{{what=\"{}\"}}", term.what));
                assert!(held <= term.max, "{}: {held} of at most {}", term.what, term.max);
                sum += held;
            }
            assert!(sum <= held_bytes_max(PEERS), "{sum} bytes are held");
        }
    }

    /// Honest members go on while the attack does.
    async fn goes_on_during(&mut self, attack: Vec<Bytes>) {
        let sending = self.hostile.keep_sending(attack);
        let before = sending.sent();
        self.goes_on().await;
        self.is_bounded().await;
        until("the attack goes on", || async { sending.sent() > before }).await;
        sending.end();
    }

    /// An honest deploy is acknowledged and seen, and the function answers.
    async fn goes_on(&mut self) {
        self.deploys += 1;
        let manifest = Manifest { version: Some(self.deploys.to_string()), ..Manifest::named("summary") };
        let deployed = self.a.deploy(osiris_examples::SUMMARY, manifest).await;
        assert!(deployed.live && deployed.written.seen_by > 0, "{deployed:?}");
        let samples = r#"{"samples":[{"cpu_percent":1.0,"memory_used":1,"memory_total":9,"load1":0.5}]}"#;
        assert_eq!(self.b.http("POST", "/function/summary", samples).await.status, 200);
    }

    async fn down(self) {
        self.hostile.mesh.shutdown().await;
        self.a.down().await;
        self.b.down().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_invalid_is_refused_counted_and_named() {
    let mut scene = Scene::new().await;
    let blocks = scene.a.status().await.blocks;
    let hostile = &scene.hostile;
    let (good, entries) = hostile.chain(3);
    let mut altered = entries[0].clone();
    // The last byte of its payload, before the signature: all else of it is as it should be.
    let last = altered.len() - ledger::SIGNATURE_BYTES - 1;
    altered[last] ^= 1;
    let removal = forge::removal("summary", &hostile.revision);
    let with = |body: Body| hostile.seal(&body);
    let first = good[0].clone();
    let attacks = [
        ("BadSignature", "altered envelope", altered),
        ("BadSignature", "wrong key", with(Body { author: hostile.founder.0, ..first.clone() })),
        ("BadSignature", "replay into another fleet", first.seal([9; 32], &hostile.key)),
        ("NotCanonical", "re-encoded CBOR", with(Body { spelled: true, ..first.clone() })),
        ("Role", "foreign delete", with(Body { payload: removal.clone(), ..first.clone() })),
        ("Grant", "a grant it does not hold", with(Body { grant: hostile.genesis(), ..first.clone() })),
        (
            BROKEN_MESSAGE,
            "oversized entry",
            with(Body { payload: vec![0; ledger::ENTRY_BYTES_MAX], ..first.clone() }),
        ),
        // automerge's magic and its kinds of chunk: its own bytes have no way in.
        ("Malformed", "deflate bomb", [&[0x85, 0x6f, 0x4a, 0x83, 0, 0, 0, 0, 2][..], &[0; 900]].concat()),
        (
            "Malformed",
            "run-length bomb",
            [&[0x85, 0x6f, 0x4a, 0x83, 0, 0, 0, 0, 1][..], &[0xff; 107]].concat(),
        ),
    ];
    let second = good[1].clone();
    let follow = [
        ("Seq", "seq gap", with(Body { seq: 3, ..second.clone() })),
        ("OtherChain", "another session's seq", with(Body { session: [8; 16], ..second.clone() })),
        ("BadSignature", "another author's seq", with(Body { author: hostile.founder.0, ..second.clone() })),
        ("Depth", "wrong depth", with(Body { depth: second.depth + 1, ..second.clone() })),
    ];
    let late = with(Body { depth: good[2].depth + 1, ..good[2].clone() });
    let deletion = with(Body { payload: removal, ..good[2].clone() });
    let again: Vec<_> =
        attacks.iter().map(|(.., entry)| forge::blocks(std::slice::from_ref(entry))).collect();
    let mut count = Reasons::new();
    for (reason, what, entry) in attacks {
        scene.hostile.send_blocks(&[entry]).await;
        scene.blames(&mut count, reason, what).await;
        assert_eq!(scene.a.status().await.blocks, blocks, "{what}");
    }
    // The next are refused by what they follow, so that is here.
    scene.hostile.send_blocks(&entries[..1]).await;
    until("a valid block", || async { scene.a.status().await.blocks == blocks + 1 }).await;
    for (reason, what, entry) in follow {
        scene.hostile.send_blocks(&[entry]).await;
        scene.blames(&mut count, reason, what).await;
        assert_eq!(scene.a.status().await.blocks, blocks + 1, "{what}");
    }
    // Frames that say nothing, one with a length of 2^64 − 1 inside.
    for frame in [&b"\xff\xff"[..], b"\xa1\x66blocks\x82\x5b\xff\xff\xff\xff\xff\xff\xff\xff", b""] {
        scene.hostile.send(frame.to_vec()).await;
        scene.blames(&mut count, BROKEN_MESSAGE, "a broken frame").await;
    }
    // Early first, invalid later: its own fault, though an honest member might bring the second.
    scene.hostile.send_blocks(&[late]).await;
    until("it waits", || async { scene.a.status().await.early == 1 }).await;
    scene.hostile.send_blocks(&entries[1..2]).await;
    scene.blames(&mut count, "Depth", "early and invalid").await;

    // Nobody is to blame for what is asked politely.
    let node = scene.hostile.node;
    let call = scene.hostile.mesh.call(node, CallRequest::new("nothing", "")).await;
    assert_eq!(call.expect("an answer").status, 404);
    let dir = tempfile::tempdir().expect("a folder");
    scene.hostile.mesh.fetch(node, [5; 32], &dir.path().join("x"), 9).await.expect_err("nobody has it");
    assert_eq!(scene.mallory().await.reasons, count, "questions");

    // By gossip, without a sender: the author signed it.
    until("a hint is held against its author", || async {
        scene.hostile.mesh.hint(deletion.clone().into());
        scene.mallory().await.reasons.get("Role") > count.get("Role")
    })
    .await;
    let before = scene.mallory().await.rejected;
    scene.goes_on_during(again).await;
    assert!(scene.mallory().await.rejected > before, "the attack went on");
    let rows: Vec<api::FunctionRow> = scene.a.get("/v1/functions").await;
    assert!(rows.iter().any(|row| row.name == "summary" && row.state == "live"));
    scene.is_bounded().await;
    scene.down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_parents_for_ever_fill_a_bounded_room_and_blame_nobody() {
    let mut scene = Scene::new().await;
    let (bodies, _) = scene.hostile.chain(1);
    let flood: Vec<_> = (0..ledger::EARLY_BLOCKS_MAX as u64 + 600)
        .map(|n| {
            let mut body = bodies[0].clone();
            body.grant[..8].copy_from_slice(&n.to_le_bytes());
            scene.hostile.seal(&body)
        })
        .collect();
    for some in flood.chunks(1_000) {
        scene.hostile.send_blocks(some).await;
        scene.is_bounded().await;
    }
    until("the room is full", || async {
        scene.gauge("osiris_ledger_early_blocks").await == ledger::EARLY_BLOCKS_MAX as u64
    })
    .await;
    scene.goes_on_during(flood.chunks(1_000).map(blocks).collect()).await;
    assert_eq!(scene.mallory().await.rejected, 0);
    scene.down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_valid_blocks_is_held_back_and_a_slow_reader_waits_alone() {
    let mut scene = Scene::new().await;
    // Longer than a period of anti-entropy: the two found out that they agree, and history is over.
    scene.hostile.keep_still(PERIOD * 2).await;
    let before = scene.a.status().await.blocks;
    let count = usize::try_from(mesh::AUTHOR_BLOCKS_BURST).expect("positive") + 4_000;
    let (_, flood) = scene.hostile.chain(count);
    for some in flood.chunks(2_500) {
        scene.hostile.send_blocks(some).await;
    }
    until("it is held back", || async { scene.mallory().await.held_back > 0 }).await;
    scene.is_bounded().await;
    let row = scene.mallory().await;
    assert_eq!(row.rejected, 0, "valid blocks are nobody's fault");
    assert!(scene.a.status().await.blocks < before + count as u64);
    // It asks for everything again and again and takes no answer.
    let question = Bytes::from(Frame::Vector(false, Vector::default()).encode());
    let asking = scene.hostile.keep_sending(vec![question.clone()]);
    until("its queue is full, and answers are dropped", || async {
        scene.is_bounded().await;
        let text = metrics(&scene.a).await;
        let queued = sample(&text, "osiris_peer_queued_bytes_max");
        let is_full = queued > (mesh::SEND_BYTES_QUEUED_MAX - mesh::FRAME_BYTES_MAX) as u64;
        is_full && sample(&text, "osiris_frames_dropped_total") > 0
    })
    .await;
    asking.end();
    scene.goes_on_during(vec![question]).await;
    scene.down().await;
}

/// Valid blocks beyond what a member may write come at a trickle, until an admin allows more.
#[tokio::test(flavor = "multi_thread")]
async fn beyond_its_budget_a_member_is_held_back_until_an_admin_allows_more() {
    const MAY: u64 = 50;
    let mut scene = Scene::new().await;
    let allow = async |node: &Node, device: String, blocks| {
        let budget = api::MemberBudget { device, blocks, timeout_ms: 10_000 };
        node.post::<api::Written>("/v1/members/budget", &budget).await
    };
    let start = scene.mallory().await;
    assert_eq!(start.budget, ledger::BUDGET_BLOCKS);
    allow(&scene.a, start.device.clone(), start.blocks + MAY).await;
    let most = start.blocks + MAY + mesh::SPENT_BLOCKS_BURST as u64;
    let (_, flood) = scene.hostile.chain(500);
    let begin = Instant::now();
    until("it is held back", || async {
        scene.hostile.send_blocks(&flood).await;
        scene.mallory().await.held_back > 0
    })
    .await;
    for _ in 0..3 {
        scene.hostile.send_blocks(&flood).await;
    }
    let trickled = 1 + begin.elapsed().as_millis() as u64 / mesh::SPENT_BLOCK_INTERVAL_MS as u64;
    let row = scene.mallory().await;
    assert!(row.blocks > row.budget && row.blocks <= most + trickled, "{row:?}");
    assert_eq!(row.rejected, 0, "they are valid");
    // The other member has no more of them, and whoever else writes is not held up.
    agree(&[&scene.a, &scene.b]).await;
    scene.goes_on_during(vec![blocks(&flood)]).await;
    // With what it writes within a larger budget nothing is slow.
    allow(&scene.a, row.device.clone(), start.blocks + 500).await;
    until("all of it", || async {
        scene.hostile.send_blocks(&flood).await;
        scene.mallory().await.blocks == start.blocks + 500
    })
    .await;
    agree(&[&scene.a, &scene.b]).await;
    scene.goes_on().await;
    scene.down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forks_at_many_places_rebuild_the_document_at_a_bounded_rate() {
    const FORKS: usize = 100;
    let mut scene = Scene::new().await;
    let start = Instant::now();
    let (bodies, chain) = scene.hostile.chain(FORKS);
    // Its own: on a machine that is busy, others may write as well.
    let before = scene.mallory().await.blocks;
    // Sent again until it is there: a frame is lost where two dials meet and one link replaces the other.
    until("the chain", || async {
        scene.hostile.send_blocks(&chain).await;
        scene.mallory().await.blocks == before + FORKS as u64
    })
    .await;
    for (n, body) in bodies.iter().enumerate().rev() {
        let twin = scene.hostile.seal(&Body { wall_ms: 1, ..body.clone() });
        let blocks = before + (2 * FORKS - n) as u64;
        let twin = [twin];
        until("a fork", || async {
            scene.hostile.send_blocks(&twin).await;
            scene.mallory().await.blocks == blocks
        })
        .await;
    }
    let rebuilds = scene.gauge("osiris_document_rebuilds_total").await;
    let most = 1 + start.elapsed().as_millis() / REBUILD_INTERVAL.as_millis();
    assert!(rebuilds > 0 && u128::from(rebuilds) <= most, "{rebuilds} rebuilds, at most {most}");
    let row = scene.mallory().await;
    assert_eq!((row.rejected, row.forks), (0, 1), "a fork is proven, not invalid");
    let twins = bodies.iter().map(|body| scene.hostile.seal(&Body { wall_ms: 2, ..body.clone() }));
    let twins: Vec<_> = twins.map(|twin| blocks(&[twin])).collect();
    scene.goes_on_during(twins).await;
    agree(&[&scene.a, &scene.b]).await;
    scene.down().await;
}
