//! Calls that another member runs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request};
use osiris_fleet::driver::dispatch::{Call, Hop, Relay};
use osiris_fleet::driver::metrics::RelayEnd;
use osiris_fleet::driver::serve::{ServeConfig, Token};
use osiris_mesh::{BoxFuture, CallFailure, PeerId};
use osiris_protocol::call::{CallReply, CallRequest};

use super::client::{error, request, tcp};
use super::node::Node;

type Said = Result<CallReply, CallFailure>;

/// Two other members that answer as they are told.
#[derive(Clone, Default)]
struct Peers(Arc<Told>);

#[derive(Default)]
struct Told {
    says: Mutex<BTreeMap<PeerId, Said>>,
    rtts: Mutex<BTreeMap<PeerId, Duration>>,
    asked: Mutex<Vec<(PeerId, CallRequest)>>,
    slow: Mutex<Option<Duration>>,
}

impl Relay for Peers {
    fn call(&self, peer: PeerId, request: CallRequest) -> BoxFuture<'_, Said> {
        self.0.asked.lock().expect("whole").push((peer, request));
        let said = self.0.says.lock().expect("whole").get(&peer).cloned();
        let slow = *self.0.slow.lock().expect("whole");
        Box::pin(async move {
            if let Some(slow) = slow {
                tokio::time::sleep(slow).await;
            }
            said.unwrap_or_else(|| Ok(reply(200, "done")))
        })
    }

    fn rtt(&self, peer: PeerId) -> Option<Duration> {
        self.0.rtts.lock().expect("whole").get(&peer).copied()
    }
}

impl Peers {
    fn say(&self, peer: PeerId, said: Said) {
        self.0.says.lock().expect("whole").insert(peer, said);
    }

    fn rtt_ms(&self, peer: PeerId, ms: u64) {
        self.0.rtts.lock().expect("whole").insert(peer, Duration::from_millis(ms));
    }

    /// Who was asked since the last time.
    fn asked(&self) -> Vec<PeerId> {
        self.0.asked.lock().expect("whole").drain(..).map(|(peer, _)| peer).collect()
    }
}

fn reply(status: u16, body: &'static str) -> CallReply {
    let node = ("x-osiris-node".to_owned(), Bytes::from_static(b"them"));
    CallReply { status, headers: vec![node], body: Bytes::from_static(body.as_bytes()) }
}

async fn node() -> (Node, Peers, PeerId, PeerId) {
    let node = Node::start().await;
    let peers = Peers::default();
    node.dispatcher.connect(peers.clone());
    let [one, two] = [1, 2].map(|who| PeerId::from_bytes(node.fleet.author(who).0));
    (node, peers, one, two)
}

#[tokio::test]
async fn the_nearest_and_least_busy_member_is_asked() {
    let (node, peers, one, two) = node().await;
    peers.rtt_ms(two, 10);
    let response = tcp(node.http, request("GET", "/function/far/x?y", "")).await;
    assert_eq!((response.status().as_u16(), &response.body()[..]), (200, &b"done"[..]));
    assert_eq!(response.headers()["x-osiris-node"], "them");
    assert_eq!(response.headers()["x-osiris-relayed"], "true");
    assert_eq!(peers.asked(), [two], "the other is not connected");
    peers.rtt_ms(one, 4);
    *peers.0.slow.lock().expect("whole") = Some(Duration::from_millis(300));
    let calls = (0..5).map(|_| {
        let dispatcher = Arc::clone(&node.dispatcher);
        tokio::spawn(async move {
            let (request, hop) = (Request::new(Bytes::new()), Hop::First);
            dispatcher.invoke(Call { function: "far", request, hop, deadline: Duration::from_secs(9) }).await
        })
    });
    let calls: Vec<_> = calls.collect();
    for call in calls {
        assert_eq!(call.await.expect("ended").status(), 200);
    }
    // Scores: 4 8 (12 > 10) 12 16 (20 = 20, then by key).
    let asked = peers.asked();
    let to_one = asked.iter().filter(|peer| **peer == one).count();
    assert!((3..=4).contains(&to_one) && asked.len() == 5, "{asked:?}");
    let route = &node.dispatcher.routes();
    let far = route.live().iter().find(|route| route.name == "far").expect("live");
    assert_eq!(far.figures.relayed(RelayEnd::Answered), 6);
}

#[tokio::test]
async fn another_member_is_asked_only_when_the_call_was_not_started() {
    let (node, peers, one, two) = node().await;
    peers.rtt_ms(one, 1);
    peers.rtt_ms(two, 2);
    let call = || tcp(node.http, request("GET", "/function/far", ""));
    let why = || "gone".to_owned();
    peers.say(one, Err(CallFailure::NotConnected { peer: one, why: why() }));
    assert_eq!(call().await.status(), 200);
    assert_eq!(peers.asked(), [one, two]);
    peers.say(one, Err(CallFailure::Lost { peer: one, why: why(), sent: true }));
    let lost = call().await;
    assert_eq!((lost.status().as_u16(), peers.asked()), (502, vec![one]));
    assert!(error(&lost).message.contains("may have been started"));
    peers.say(one, Err(CallFailure::Timeout { peer: one, deadline_ms: 9, sent: true }));
    let late = call().await;
    assert_eq!((late.status().as_u16(), peers.asked()), (504, vec![one]));
    // Two members that do not serve it: the first refuses, marked as not started, and so the second.
    let refusal = node.dispatcher.serve_relayed(CallRequest::new("far", "")).await;
    assert_eq!(refusal.status, 503);
    peers.say(one, Ok(refusal.clone()));
    assert_eq!(call().await.status(), 200);
    assert_eq!(peers.asked(), [one, two]);
    peers.say(two, Ok(refusal));
    let nobody = call().await;
    assert_eq!((nobody.status().as_u16(), peers.asked()), (503, vec![one, two]));
    assert!(error(&nobody).message.contains("turned the call away"), "{:?}", error(&nobody));
    // A function's own 503 is an answer.
    peers.say(one, Ok(reply(503, "mine")));
    assert_eq!((&call().await.body()[..], peers.asked()), (&b"mine"[..], vec![one]));
}

#[tokio::test]
async fn a_call_is_never_passed_on_twice() {
    let (node, peers, ..) = node().await;
    let far = CallRequest { method: "GET".to_owned(), ..CallRequest::new("far", "") };
    assert_eq!(node.dispatcher.serve_relayed(far).await.status, 503);
    let none = node.dispatcher.serve_relayed(CallRequest::new("nothing", "")).await;
    assert_eq!(none.status, 404);
    let call = Call {
        function: "far",
        request: Request::new(Bytes::new()),
        hop: Hop::Relayed,
        deadline: Duration::from_secs(1),
    };
    assert_eq!(node.dispatcher.invoke(call).await.status(), 503);
    assert_eq!(peers.asked(), []);
}

#[tokio::test]
async fn a_call_from_another_member_runs_here() {
    let (node, ..) = node().await;
    let body = r#"{"samples":[{"load1":1}]}"#;
    for revision in [None, Some([7; 32])] {
        let call = CallRequest { revision, ..CallRequest::new("summary", body) };
        let reply = node.dispatcher.serve_relayed(call).await;
        assert_eq!(reply.status, 200, "an unknown revision falls back to the live one");
        let relayed = reply.headers.iter().find(|(name, _)| name == "x-osiris-relayed").expect("a header");
        assert_eq!(&relayed.1[..], b"true");
    }
    let bad = node.dispatcher.serve_relayed(CallRequest::new("summary", "{")).await;
    assert_eq!(bad.status, 400);
    let get = CallRequest { method: "GET".to_owned(), ..CallRequest::new("summary", "") };
    assert_eq!(node.dispatcher.serve_relayed(get).await.status, 405);
}

#[tokio::test]
async fn what_concerns_one_connection_or_the_node_stays_here() {
    let token = Token::new("0123456789abcdef").expect("a token");
    let node = Node::with(ServeConfig { token: Some(token), ..ServeConfig::default() }).await;
    let peers = Peers::default();
    node.dispatcher.connect(peers.clone());
    let one = PeerId::from_bytes(node.fleet.author(1).0);
    peers.rtt_ms(one, 1);
    let mut asked = request("POST", "/function/far/a?b=c", "body");
    for (name, value) in [
        ("authorization", "Bearer 0123456789abcdef"),
        ("connection", "x-mine, keep-alive"),
        ("x-mine", "1"),
        ("te", "trailers"),
        ("x-osiris-relayed", "true"),
        ("x-kept", "2"),
    ] {
        asked.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    assert_eq!(tcp(node.http, asked).await.status(), 200);
    let (peer, call) = peers.0.asked.lock().expect("whole").pop().expect("asked");
    let names: Vec<_> = call.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(peer, one);
    assert!(names.contains(&"x-kept") && names.contains(&"host"));
    for gone in ["authorization", "connection", "x-mine", "te", "x-osiris-relayed"] {
        assert!(!names.contains(&gone), "{gone} in {names:?}");
    }
    assert_eq!((call.method.as_str(), call.path.as_str(), &call.body[..]), ("POST", "/a?b=c", &b"body"[..]));
    assert!(call.revision.is_some() && call.deadline_ms > 1_000);
}

/// So many calls at once that most wait; how many were answered with 200, and how many went to the other member.
async fn crowd(scaled: bool, told: Option<Said>) -> (usize, usize) {
    let node = Node::narrow(scaled).await;
    let peers = Peers::default();
    node.dispatcher.connect(peers.clone());
    let other = PeerId::from_bytes(node.fleet.author(1).0);
    peers.rtt_ms(other, 1);
    *peers.0.slow.lock().expect("whole") = Some(Duration::from_millis(300));
    if let Some(told) = told {
        peers.say(other, told);
    }
    let body = format!(r#"{{"samples":[{}]}}"#, vec![r#"{"load1":1}"#; 20_000].join(","));
    let calls: Vec<_> = (0..16)
        .map(|_| {
            let (dispatcher, body) = (Arc::clone(&node.dispatcher), body.clone());
            tokio::spawn(async move {
                let request = Request::post("/").body(Bytes::from(body)).expect("a request");
                let call =
                    Call { function: "slow", request, hop: Hop::First, deadline: Duration::from_secs(60) };
                dispatcher.invoke(call).await.status()
            })
        })
        .collect();
    let mut well = 0;
    for call in calls {
        well += usize::from(call.await.expect("ended") == 200);
    }
    (well, peers.asked().len())
}

#[tokio::test]
async fn calls_that_would_wait_for_a_scaled_function_go_to_a_member_with_fewer() {
    let (well, passed) = crowd(true, None).await;
    assert!(well == 16 && (1..16).contains(&passed), "{well} answered, {passed} passed on");
    assert_eq!(crowd(false, None).await, (16, 0), "without a count of replicas they wait here");
    // Turned away there, they run here.
    let why = || "gone".to_owned();
    let peer = PeerId::from_bytes([1; 32]);
    let (well, passed) = crowd(true, Some(Err(CallFailure::NotConnected { peer, why: why() }))).await;
    assert!(well == 16 && passed > 0, "{well} answered, {passed} passed on");
}
