//! A client against real nodes on loopback.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use osiris_client::{Client, ClientError};
use osiris_mesh::{BoxFuture, Mesh, MeshConfig, MeshEvents, PeerId, Roster, Services};
use osiris_protocol::{
    PeerAddr,
    call::{CallReply, CallRequest},
    join::{JoinReply, JoinRequest, RefusalCode},
};
use tokio::sync::Notify;

const DEVICE: [u8; 32] = [7; 32];

fn key(secret: [u8; 32]) -> PeerId {
    let public = iroh::SecretKey::from_bytes(&secret).public();
    PeerId::from_bytes(*public.as_bytes())
}

/// Lets one device call, and knows no other node.
struct OneCaller;

impl Roster for OneCaller {
    fn is_member(&self, _: &PeerId) -> bool {
        false
    }
    fn members(&self) -> Vec<PeerId> {
        Vec::new()
    }
    fn may_call(&self, peer: &PeerId) -> bool {
        *peer == key(DEVICE)
    }
}

/// Answers with its own number.
struct Numbered {
    number: u8,
    started: Arc<Notify>,
}

impl Services for Numbered {
    fn join(&self, _: PeerId, _: JoinRequest) -> BoxFuture<'static, JoinReply> {
        let refused = JoinReply::refused(RefusalCode::Busy, "Not here.");
        Box::pin(std::future::ready(refused))
    }
    fn call(&self, _: PeerId, request: CallRequest) -> BoxFuture<'static, CallReply> {
        let (number, started) = (self.number, Arc::clone(&self.started));
        Box::pin(async move {
            if request.function == "forever" {
                started.notify_one();
                std::future::pending::<()>().await;
            }
            let mut body = vec![number];
            body.extend_from_slice(&request.body);
            CallReply { status: 200, headers: Vec::new(), body: body.into() }
        })
    }
    fn blob(&self, _: [u8; 32]) -> Option<PathBuf> {
        None
    }
}

struct Node {
    mesh: Mesh,
    started: Arc<Notify>,
    _events: MeshEvents,
}

async fn node(number: u8) -> Node {
    let mut config = MeshConfig::new([number; 32], [42; 32]);
    config.bind = Some(([127, 0, 0, 1], 0).into());
    config.gossip = false;
    let started = Arc::new(Notify::new());
    let services = Arc::new(Numbered { number, started: Arc::clone(&started) });
    let spawned = Mesh::spawn(config, Arc::new(OneCaller), services).await;
    let (mesh, _events) = spawned.expect("loopback can be listened on");
    Node { mesh, started, _events }
}

fn addr(node: &Node) -> PeerAddr {
    PeerAddr { peer: node.mesh.peer_id().to_bytes(), addrs: node.mesh.addresses() }
}

fn dead() -> PeerAddr {
    PeerAddr { peer: key([9; 32]).to_bytes(), addrs: vec![([127, 0, 0, 1], 9).into()] }
}

/// Waits until the client has noticed who is left: a call that is sent before that may be lost.
async fn connected(client: &Client, count: usize) {
    let noticed = async {
        while client.nodes().iter().filter(|n| n.rtt.is_some()).count() != count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let noticed = tokio::time::timeout(Duration::from_secs(5), noticed).await;
    noticed.expect("a node that stops says so");
}

#[tokio::test]
async fn calls_go_to_the_nearest_and_fall_over_when_it_stops() {
    let nodes = [node(1).await, node(2).await];
    let known = [dead(), addr(&nodes[0]), addr(&nodes[1])];
    let started = Instant::now();
    let client = Client::connect(DEVICE, &known).await.expect("two nodes run");
    assert!(started.elapsed() < Duration::from_secs(2), "not held up by the dead");
    let reply = client.call("echo", "x").await.expect("a reply");
    let (number, rest) = reply.body.split_first().expect("a number");
    assert_eq!((reply.status, rest), (200, &b"x"[..]));

    let (first, second) = if *number == 1 { (0, 1) } else { (1, 0) };
    // A node that took longer than the first is not waited for, and is there later.
    connected(&client, 2).await;
    nodes[first].mesh.shutdown().await;
    connected(&client, 1).await;
    let reply = client.call("echo", "y").await.expect("the other node answers");
    assert_eq!(reply.body[0], second as u8 + 1);
    assert!(client.nodes()[0].rtt.is_some());

    nodes[second].mesh.shutdown().await;
    connected(&client, 0).await;
    let error = client.call("echo", "z").await.expect_err("nobody is left");
    assert!(error.certainly_not_started(), "{error}");
    client.close().await;
}

#[tokio::test]
async fn a_call_that_may_have_started_is_not_made_twice() {
    let nodes = [node(1).await, node(2).await];
    let known = [addr(&nodes[0]), addr(&nodes[1])];
    let client = Client::connect(DEVICE, &known).await.expect("two nodes run");
    let calling = client.clone();
    let call = tokio::spawn(async move { calling.call("forever", "").await });
    let taken = tokio::select! {
        () = nodes[0].started.notified() => 0,
        () = nodes[1].started.notified() => 1,
    };
    nodes[taken].mesh.shutdown().await;
    let error = call.await.expect("no panic").expect_err("the node stopped");
    assert!(!error.certainly_not_started(), "{error}");
    let other = &nodes[1 - taken].started;
    let twice = tokio::time::timeout(Duration::from_millis(50), other.notified()).await;
    assert!(twice.is_err(), "the other node was asked too");
}

#[tokio::test]
async fn a_device_that_may_not_call_is_told_so() {
    let node = node(1).await;
    let refused = match Client::connect([8; 32], &[addr(&node)]).await {
        Ok(client) => client.call("echo", "").await.expect_err("not allowed"),
        Err(error) => error,
    };
    assert!(refused.certainly_not_started());
    assert!(matches!(refused, ClientError::NotTaken { .. }), "{refused:?}");
    assert!(refused.to_string().contains("may call"), "{refused}");
}

#[tokio::test]
async fn what_cannot_work_is_said_at_once() {
    let none = Client::connect(DEVICE, &[]).await;
    assert!(matches!(none, Err(ClientError::NoNodes)));
    let node = node(1).await;
    let client = Client::connect(DEVICE, &[addr(&node)]).await.expect("a node runs");
    let invalid = client.call("Not A Name", "").await;
    assert!(matches!(invalid, Err(ClientError::Invalid(_))), "{invalid:?}");
    let mut request = CallRequest::new("forever", "");
    request.deadline_ms = 100;
    let late = client.request(request).await.expect_err("no answer");
    assert!(!late.certainly_not_started(), "{late}");
}
