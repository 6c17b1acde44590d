//! Calls that another member runs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderValue, Request};
use osiris_examples::CHART;
use osiris_fleet::driver::dispatch::{Call, Hop, Relay};
use osiris_fleet::driver::metrics::RelayEnd;
use osiris_fleet::driver::routes::Routes;
use osiris_fleet::driver::serve::{ServeConfig, Token};
use osiris_mesh::{BoxFuture, CallFailure, PeerId};
use osiris_protocol::call::{CallReply, CallRequest};
use osiris_runtime::Limits;

use super::client::{error, request, tcp};
use super::node::{Node, prepare};

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
    /// What the node hears of while the next call is under way.
    news: Mutex<Option<(Arc<ArcSwap<Routes>>, Routes)>>,
}

impl Relay for Peers {
    fn call(&self, peer: PeerId, request: CallRequest) -> BoxFuture<'_, Said> {
        self.0.asked.lock().expect("whole").push((peer, request));
        let said = self.0.says.lock().expect("whole").get(&peer).cloned();
        if let Some((routes, news)) = self.0.news.lock().expect("whole").take() {
            routes.store(Arc::new(news));
        }
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

    fn hears(&self, node: &Node, news: Routes) {
        *self.0.news.lock().expect("whole") = Some((Arc::clone(&node.routes), news));
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

/// What would wait here goes to a member with fewer calls of this node's, and comes back where that is busy as well.
#[tokio::test]
async fn calls_that_would_wait_here_are_shared_with_members_that_serve_too() {
    let limits = Limits { concurrency: 1, queue_len: 1, ..Limits::default() };
    let node = Node::sharing(limits).await;
    let peers = Peers::default();
    node.dispatcher.connect(peers.clone());
    let [one, two] = [1, 2].map(|who| PeerId::from_bytes(node.fleet.author(who).0));
    let call = |wait_ms: u64| {
        let dispatcher = Arc::clone(&node.dispatcher);
        tokio::spawn(async move {
            let request = Request::post("/").body(Bytes::from(format!(r#"{{"wait_ms":{wait_ms}}}"#)));
            let (request, hop) = (request.expect("a request"), Hop::First);
            let deadline = Duration::from_secs(20);
            dispatcher.invoke(Call { function: "sensor", request, hop, deadline }).await
        })
    };
    let figures = || node.dispatcher.routes().live()[0].local.as_ref().expect("here").figures();
    let until = async |in_flight, backlog| {
        while (figures().in_flight, figures().backlog) != (in_flight, backlog) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let first = call(1_500);
    until(1, 0).await;
    assert!(peers.asked().is_empty(), "it runs here");
    // Nobody is connected: it waits here.
    let second = call(0);
    until(1, 1).await;
    assert!(peers.asked().is_empty());
    peers.rtt_ms(one, 9);
    peers.rtt_ms(two, 1);
    let third = call(0).await.expect("ended");
    assert_eq!((third.status().as_u16(), peers.asked()), (200, vec![two]), "the nearest of those with none");
    assert_eq!(third.headers()["x-osiris-relayed"], "true");
    // It turns the call away, and here is no room either: then that is said, and when to come back.
    let busy = CallReply {
        headers: vec![("x-osiris-not-started".to_owned(), Bytes::from_static(b"1"))],
        ..reply(503, "{}")
    };
    peers.say(two, Ok(busy));
    let fourth = call(0).await.expect("ended");
    assert_eq!((fourth.status().as_u16(), peers.asked()), (503, vec![two]));
    assert!(fourth.headers().contains_key("retry-after"));
    // Another member is told the same, and so looks for nobody that has no more room.
    let refused = node.dispatcher.serve_relayed(CallRequest::new("sensor", "{}")).await;
    let why = refused.headers.iter().find(|(name, _)| name == "x-osiris-not-started").expect("not started");
    assert_eq!((refused.status, &why.1[..]), (503, &b"full"[..]));
    for ended in [first, second] {
        assert_eq!(ended.await.expect("ended").status(), 200);
    }
    // With a place free here nobody else is asked.
    assert_eq!(call(0).await.expect("ended").headers()["x-osiris-relayed"], "false");
    assert!(peers.asked().is_empty());
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

/// Between the last word of a member that drains and the first of who took over, this node knows nobody that is ready.
#[tokio::test]
async fn a_call_that_was_turned_away_finds_who_took_over() {
    let peers = Peers::default();
    let function = prepare("far", CHART, Limits::default()).await;
    let start = async || {
        let (node, far) = Node::with_one_remote().await;
        node.dispatcher.connect(peers.clone());
        let [one, two] = [1, 2].map(|who| PeerId::from_bytes(node.fleet.author(who).0));
        peers.rtt_ms(one, 1);
        peers.rtt_ms(two, 1);
        (node, far, one, two)
    };
    let call = async |node: &Node, deadline_ms: u64| {
        let request = Request::get("/chart").body(Bytes::new()).expect("a request");
        let deadline = Duration::from_millis(deadline_ms);
        node.dispatcher.invoke(Call { function: "far", request, hop: Hop::First, deadline }).await
    };
    // Nobody takes over.
    let (mut node, far, one, two) = start().await;
    let refusal = node.dispatcher.serve_relayed(CallRequest::new("far", "")).await;
    peers.say(one, Ok(refusal));
    assert_eq!((call(&node, 9_000).await.status().as_u16(), peers.asked()), (503, vec![one]));
    // Another member does, which is heard of while the first is asked.
    node.fleet.serve(2, far);
    let news = node.fleet_routes(&BTreeMap::new());
    peers.hears(&node, news);
    assert_eq!((call(&node, 9_000).await.status().as_u16(), peers.asked()), (200, vec![one, two]));
    // This one does.
    let (mut node, far, ..) = start().await;
    node.fleet.serve(0, far);
    let news = node.fleet_routes(&BTreeMap::from([(far, function)]));
    peers.hears(&node, news);
    let answer = call(&node, 9_000).await;
    assert_eq!((answer.headers()["x-osiris-relayed"].as_bytes(), peers.asked()), (&b"false"[..], vec![one]));
    // Who is full is believed: its caller is to come back, and nobody else is looked for.
    let (mut node, far, ..) = start().await;
    let mut full = reply(503, "{}");
    for (name, value) in [("x-osiris-not-started", "full"), ("retry-after", "7")] {
        full.headers.push((name.to_owned(), Bytes::from_static(value.as_bytes())));
    }
    peers.say(one, Ok(full));
    node.fleet.serve(2, far);
    let news = node.fleet_routes(&BTreeMap::new());
    peers.hears(&node, news);
    let answer = call(&node, 9_000).await;
    assert_eq!((answer.headers()["retry-after"].as_bytes(), peers.asked()), (&b"7"[..], vec![one]));
    // Without time there is nobody to look for, either.
    let (mut node, far, ..) = start().await;
    peers.say(one, Err(CallFailure::Timeout { peer: one, deadline_ms: 20, sent: false }));
    *peers.0.slow.lock().expect("whole") = Some(Duration::from_millis(30));
    node.fleet.serve(2, far);
    let news = node.fleet_routes(&BTreeMap::new());
    peers.hears(&node, news);
    assert_eq!((call(&node, 20).await.status().as_u16(), peers.asked()), (503, vec![one]));
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
