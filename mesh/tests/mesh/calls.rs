use std::time::{Duration, Instant};

use osiris_mesh::CallFailure;
use osiris_protocol::{call::CallRequest, limits::CALL_BODY_BYTES_MAX};

use crate::support::{Node, PATIENCE, id, pair};

#[tokio::test]
async fn bodies_come_back_as_they_went() {
    let (a, _b) = pair().await;
    for len in [0, 1, 1 << 10, CALL_BODY_BYTES_MAX] {
        let body: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
        let reply = a.mesh.call(id(2), CallRequest::new("echo", body.clone())).await;
        let reply = reply.expect("an echo");
        assert_eq!((reply.status, reply.body.len()), (200, len));
        assert!(reply.body == body);
    }
}

#[tokio::test]
async fn calls_reuse_one_connection_and_run_side_by_side() {
    let (a, _b) = pair().await;
    let body = vec![7; 1 << 10];
    a.mesh.call(id(2), CallRequest::new("echo", body.clone())).await.expect("an echo");
    let started = Instant::now();
    for _ in 0..200 {
        a.mesh.call(id(2), CallRequest::new("echo", body.clone())).await.expect("an echo");
    }
    println!("1 KiB echo, warm, one after the other: {:?} each", started.elapsed() / 200);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let (mesh, body) = (a.mesh.clone(), body.clone());
        calls.spawn(async move { mesh.call(id(2), CallRequest::new("echo", body)).await });
    }
    while let Some(reply) = calls.join_next().await {
        assert_eq!(reply.expect("no panic").expect("an echo").body, body);
    }
}

#[tokio::test]
async fn what_is_over_its_cap_is_named() {
    let (a, _b) = pair().await;
    let over = CallRequest::new("echo", vec![0; CALL_BODY_BYTES_MAX + 1]);
    let failure = a.mesh.call(id(2), over).await.expect_err("over the cap");
    assert_eq!(failure, CallFailure::TooLarge { what: "request" });
    assert!(failure.certainly_not_started());
    let failure = a.mesh.call(id(2), CallRequest::new("too-much", "")).await;
    let failure = failure.expect_err("over the cap");
    assert_eq!(failure, CallFailure::TooLarge { what: "reply" });
    assert!(!failure.certainly_not_started());
    let failure = a.mesh.call(id(2), CallRequest::new("Not A Name", "")).await;
    assert!(matches!(failure, Err(CallFailure::Invalid(_))));
}

#[tokio::test]
async fn a_panic_in_a_function_fails_that_call_alone() {
    let (a, _b) = pair().await;
    let failure = a.mesh.call(id(2), CallRequest::new("defect", "")).await;
    assert_eq!(failure, Err(CallFailure::Failed { peer: id(2) }));
    let reply = a.mesh.call(id(2), CallRequest::new("echo", "x")).await;
    assert_eq!(reply.expect("an echo").body, "x");
}

#[tokio::test]
async fn a_call_that_runs_out_of_time_is_dropped_at_the_other_end() {
    let (a, b) = pair().await;
    let mut request = CallRequest::new("forever", "");
    request.deadline_ms = 300;
    let started = Instant::now();
    let failure = a.mesh.call(id(2), request).await.expect_err("no answer");
    assert!(matches!(failure, CallFailure::Timeout { sent: true, .. } | CallFailure::Failed { .. }));
    assert!(!failure.certainly_not_started());
    assert!(started.elapsed() < Duration::from_secs(1));
    let dropped = tokio::time::timeout(PATIENCE, b.services.dropped.notified());
    dropped.await.expect("the work was dropped");
}

#[tokio::test]
async fn a_caller_that_leaves_takes_its_work_with_it() {
    let (a, b) = pair().await;
    let mesh = a.mesh.clone();
    let call = tokio::spawn(async move { mesh.call(id(2), CallRequest::new("forever", "")).await });
    b.services.started.notified().await;
    call.abort();
    let dropped = tokio::time::timeout(PATIENCE, b.services.dropped.notified());
    dropped.await.expect("the work was dropped");
}

#[tokio::test]
async fn a_dead_peer_is_a_typed_error_soon() {
    let a = Node::start(1, &[1, 2, 3], &[]).await;
    let call = || CallRequest::new("echo", "");
    let started = Instant::now();
    let failure = a.mesh.call(id(3), call()).await.expect_err("no address");
    assert!(matches!(failure, CallFailure::NotConnected { .. }), "{failure}");
    assert!(started.elapsed() < Duration::from_millis(200));
    // Nobody listens on the discard port.
    a.mesh.learn(&osiris_protocol::PeerAddr {
        peer: id(2).to_bytes(),
        addrs: vec![([127, 0, 0, 1], 9).into()],
    });
    let started = Instant::now();
    let failure = a.mesh.call(id(2), call()).await.expect_err("nobody there");
    println!("call to a dead address failed after {:?}", started.elapsed());
    assert!(matches!(failure, CallFailure::NotConnected { .. }), "{failure}");
    assert!(failure.certainly_not_started());
    assert!(started.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_peer_that_stops_during_a_call_may_have_started_it() {
    let (a, b) = pair().await;
    let mesh = a.mesh.clone();
    let call = tokio::spawn(async move { mesh.call(id(2), CallRequest::new("forever", "")).await });
    b.services.started.notified().await;
    b.mesh.shutdown().await;
    let failure = call.await.expect("no panic").expect_err("the node stopped");
    assert!(!failure.certainly_not_started(), "{failure}");
}
