use std::time::{Duration, Instant};

use bytes::Bytes;
use osiris_mesh::{
    MeshEvent, SendError,
    limits::{
        CONNECTIONS_ACCEPTED_MAX, EVENTS_BYTES_QUEUED_MAX, FRAME_BYTES_MAX, SEND_BYTES_QUEUED_MAX,
        SEND_FRAMES_QUEUED_MAX,
    },
};
use osiris_protocol::{
    PeerAddr,
    alpn::{self, code},
};

use crate::support::{Node, PATIENCE, bare_endpoint, config, endpoint_addr, id, pair};

#[tokio::test]
async fn three_nodes_that_know_one_address_each_connect_in_full() {
    let members = [1, 2, 3];
    let mut a = Node::start(1, &members, &[]).await;
    let mut b = Node::start(2, &members, &[a.addr()]).await;
    let mut c = Node::start(3, &members, &[b.addr()]).await;
    tokio::join!(a.all_up(&[2, 3]), b.all_up(&[1, 3]), c.all_up(&[1, 2]));
    for node in [&a, &b, &c] {
        assert_eq!(node.mesh.peers().iter().filter(|p| p.connected).count(), 2);
        assert_eq!(node.mesh.address_book().len(), 2);
    }
    assert!(a.mesh.rtt(id(3)).expect("a link") < Duration::from_secs(1));
}

#[tokio::test]
async fn frames_arrive_whole_and_in_order_both_ways() {
    let (mut a, mut b) = pair().await;
    let frames: Vec<Bytes> = (0..200_usize)
        .map(|n| Bytes::from(vec![n as u8; n * 37]))
        .chain([Bytes::from(vec![9; FRAME_BYTES_MAX])])
        .collect();
    for frame in &frames {
        a.mesh.send(id(2), frame.clone()).expect("room in the queue");
        b.mesh.send(id(1), frame.clone()).expect("room in the queue");
    }
    for frame in &frames {
        assert_eq!(b.frame().await, (id(1), frame.clone()));
        assert_eq!(a.frame().await, (id(2), frame.clone()));
    }
}

#[tokio::test]
async fn sending_never_blocks_and_says_what_was_dropped() {
    let (a, b) = pair().await;
    let over = Bytes::from(vec![0; FRAME_BYTES_MAX + 1]);
    let len = over.len();
    assert_eq!(a.mesh.send(id(2), over), Err(SendError::TooLarge { len }));
    let nobody = a.mesh.send(id(9), Bytes::new());
    assert_eq!(nobody, Err(SendError::NotConnected(id(9))));
    // Nothing between these two waits, so what is accepted is what the queue has room for: by bytes, and by frames.
    const { assert!(SEND_FRAMES_QUEUED_MAX * FRAME_BYTES_MAX > SEND_BYTES_QUEUED_MAX) };
    let accepted = fill(&a, FRAME_BYTES_MAX);
    assert_eq!(accepted * FRAME_BYTES_MAX, SEND_BYTES_QUEUED_MAX);
    let held = a.mesh.held();
    assert_eq!((held.send_bytes, held.frames_dropped), (SEND_BYTES_QUEUED_MAX as u64, 1));
    drop(b);
    let (a, _b) = pair().await;
    assert_eq!(fill(&a, 1), SEND_FRAMES_QUEUED_MAX);
}

/// Sends until nothing more is accepted, and says how much was. The test has one thread, and does not let go of it: the
/// link takes nothing meanwhile.
fn fill(node: &Node, len: usize) -> usize {
    let frame = Bytes::from(vec![0; len]);
    let mut accepted = 0;
    loop {
        match node.mesh.send(id(2), frame.clone()) {
            Ok(()) => accepted += 1,
            full => {
                assert_eq!(full, Err(SendError::Full(id(2))));
                return accepted;
            }
        }
    }
}

#[tokio::test]
async fn a_peer_that_reads_nothing_loses_its_link_and_delays_nobody() {
    let mut config = config(1, &[]);
    config.write_stall = Duration::from_millis(300);
    let mut a = Node::with(config, &[1, 2, 3]).await;
    // b takes no events: its links are not read once its own queue is full.
    let mut b = Node::start(2, &[1, 2, 3], &[a.addr()]).await;
    let mut c = Node::start(3, &[1, 2, 3], &[a.addr()]).await;
    tokio::join!(a.all_up(&[2, 3]), b.up(1), c.up(1));
    let frame = Bytes::from(vec![7; FRAME_BYTES_MAX]);
    // More than b, its window and a's queue have room for together: it stays full until the link is given up.
    let given_up = async {
        loop {
            let _ = a.mesh.send(id(2), frame.clone());
            a.mesh.send(id(3), Bytes::from_static(b"hello")).expect("another's queue is not full");
            assert_eq!(c.frame().await, (id(1), Bytes::from_static(b"hello")));
            tokio::select! {
                why = a.down(2) => return why,
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
            }
            assert!(a.mesh.held().send_bytes <= SEND_BYTES_QUEUED_MAX as u64);
            assert!(b.mesh.held().event_bytes <= EVENTS_BYTES_QUEUED_MAX as u64);
        }
    };
    let why = tokio::time::timeout(PATIENCE, given_up).await.expect("the limit of the configuration counts");
    assert!(why.contains("does not read"), "{why}");
    assert!(a.mesh.held().frames_dropped > 0, "what did not fit was dropped");
    assert!(
        b.mesh.held().event_bytes > (EVENTS_BYTES_QUEUED_MAX - FRAME_BYTES_MAX) as u64,
        "its own queue was full, by bytes"
    );
}

#[tokio::test]
async fn a_peer_opens_a_bounded_number_of_connections() {
    let mut a = Node::start(1, &[1, 2, 3], &[]).await;
    let member = bare_endpoint(2).await;
    let mut open = Vec::new();
    for n in 0..CONNECTIONS_ACCEPTED_MAX + 1 {
        // Those that fit are taken, whatever they are for.
        let alpn = if n % 2 == 0 { alpn::CALL } else { alpn::BLOB };
        open.push(member.connect(endpoint_addr(&a.addr()), alpn).await.expect("a handshake"));
    }
    let last = open.pop().expect("the last");
    let refused = tokio::time::timeout(PATIENCE, last.closed()).await.expect("refused at once");
    let iroh::endpoint::ConnectionError::ApplicationClosed(close) = refused else { panic!("{refused:?}") };
    assert_eq!(close.error_code, code::BUSY.into());
    assert!(open.iter().all(|conn| conn.close_reason().is_none()), "the others stay");
    assert_eq!(a.mesh.held().connections, CONNECTIONS_ACCEPTED_MAX as u64);
    // Another member is not told that it has too many, and neither is this one when it closes some.
    let mut c = Node::start(3, &[1, 3], &[a.addr()]).await;
    tokio::join!(a.up(3), c.up(1));
    open.clear();
    let connections = |wanted: u64| {
        let mesh = a.mesh.clone();
        let reached = async move {
            while mesh.held().connections != wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        async move { tokio::time::timeout(PATIENCE, reached).await.expect("so many connections") }
    };
    connections(1).await;
    let again = member.connect(endpoint_addr(&a.addr()), alpn::CALL).await.expect("a handshake");
    connections(2).await;
    assert!(again.close_reason().is_none(), "there is room again");
}

#[tokio::test]
async fn nodes_that_dial_each_other_at_once_keep_one_link() {
    for _ in 0..5 {
        let mut a = Node::start(1, &[1, 2], &[]).await;
        let mut b = Node::start(2, &[1, 2], &[]).await;
        let (to_a, to_b) = (a.addr(), b.addr());
        a.mesh.learn(&to_b);
        b.mesh.learn(&to_a);
        tokio::join!(a.up(2), b.up(1));
        // If the link flapped, a frame or its answer would be preceded by the end of the link.
        a.mesh.send(id(2), Bytes::from_static(b"ping")).expect("a link");
        let first = b.events.recv().await.expect("the node runs");
        assert!(matches!(first, MeshEvent::Frame { .. }), "{first:?}");
        b.mesh.send(id(1), Bytes::from_static(b"pong")).expect("a link");
        let first = a.events.recv().await.expect("the node runs");
        assert!(matches!(first, MeshEvent::Frame { .. }), "{first:?}");
        tokio::join!(a.mesh.shutdown(), b.mesh.shutdown());
    }
}

#[tokio::test]
async fn a_stranger_is_refused_on_every_protocol_but_join() {
    let a = Node::start(1, &[1], &[]).await;
    let stranger = bare_endpoint(7).await;
    for closed in [alpn::SYNC, alpn::CALL, alpn::BLOB] {
        let refused = match stranger.connect(endpoint_addr(&a.addr()), closed).await {
            // A refused client's handshake succeeds; the refusal comes right after it.
            Ok(conn) => tokio::time::timeout(PATIENCE, conn.closed()).await.expect("refused at once"),
            Err(error) => panic!("{error:#}"),
        };
        let iroh::endpoint::ConnectionError::ApplicationClosed(close) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(close.error_code, code::NOT_A_MEMBER.into());
    }
    let conn = stranger.connect(endpoint_addr(&a.addr()), alpn::JOIN).await.expect("open to strangers");
    let (mut send, mut recv) = conn.open_bi().await.expect("open to strangers");
    send.write_all(b"\0\0\0\x01x").await.expect("open to strangers");
    send.finish().expect("open");
    assert!(recv.read_to_end(10).await.is_err(), "a malformed request");
}

#[tokio::test]
async fn a_newcomer_is_let_in_soon_after_the_others_hear_of_it() {
    let mut a = Node::start(1, &[1], &[]).await;
    let mut b = Node::start(2, &[1, 2], &[a.addr()]).await;
    let refused = async {
        loop {
            let status = b.mesh.peers();
            if status.iter().any(|p| p.last_error.is_some()) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let status = tokio::time::timeout(PATIENCE, refused).await.expect("a refusal");
    let why = status[0].last_error.clone().expect("a refusal");
    assert!(why.contains("not a member"), "{why}");
    let heard = Instant::now();
    a.roster.add(2);
    a.mesh.roster_changed();
    tokio::join!(a.up(2), b.up(1));
    assert!(heard.elapsed() < Duration::from_secs(1), "{:?}", heard.elapsed());
}

#[tokio::test]
async fn a_removed_member_is_cut_off() {
    let (mut a, mut b) = pair().await;
    b.mesh
        .call(id(1), osiris_protocol::call::CallRequest::new("echo", "x"))
        .await
        .expect("a member may call");
    a.roster.remove(2);
    a.mesh.roster_changed();
    a.down(2).await;
    b.down(1).await;
    assert!(a.mesh.peers().is_empty() && a.mesh.address_book().is_empty());
    let refused = b
        .mesh
        .call(id(1), osiris_protocol::call::CallRequest::new("echo", "x"))
        .await
        .expect_err("no longer a member");
    assert!(refused.certainly_not_started(), "{refused}");
}

#[tokio::test]
async fn a_node_of_another_fleet_is_turned_away() {
    let a = Node::start(1, &[1, 2], &[]).await;
    let mut other = config(2, &[a.addr()]);
    other.topic = [43; 32];
    let b = Node::with(other, &[1, 2]).await;
    let refused = async {
        loop {
            if let Some(why) = b.mesh.peers().into_iter().find_map(|p| p.last_error) {
                return why;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let why = tokio::time::timeout(PATIENCE, refused).await.expect("a refusal");
    assert!(why.contains("different fleets"), "{why}");
    assert!(a.mesh.peers().iter().all(|p| !p.connected));
}

#[tokio::test]
async fn a_node_that_stops_says_so_and_comes_back_on_another_port() {
    let (mut a, b) = pair().await;
    let before = b.addr();
    let stopped = Instant::now();
    b.mesh.shutdown().await;
    a.down(2).await;
    assert!(stopped.elapsed() < Duration::from_secs(2), "{:?}", stopped.elapsed());
    drop(b);
    let mut b = Node::start(2, &[1, 2], &[a.addr()]).await;
    tokio::join!(a.up(2), b.up(1));
    assert_ne!(before, b.addr());
    let after: PeerAddr = b.addr();
    let book = a.mesh.address_book();
    assert!(book[0].addrs.contains(&after.addrs[0]), "{book:?}");
}

/// A node that can be killed: nothing of it runs any more, and nobody is told.
fn mortal() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

#[tokio::test]
async fn a_killed_node_is_noticed_and_dials_back_when_it_returns() {
    let mut a = Node::start(1, &[1, 2], &[]).await;
    let to_a = a.addr();
    let runtime = mortal();
    let known = to_a.clone();
    let b = runtime.spawn(async move { Node::start(2, &[1, 2], &[known]).await });
    let b = b.await.expect("started");
    a.up(2).await;
    let killed = Instant::now();
    runtime.shutdown_background();
    let why = a.down(2).await;
    let noticed = killed.elapsed();
    println!("killed peer noticed after {noticed:?}: {why}");
    assert!(noticed < Duration::from_millis(4_500), "{noticed:?}");

    // A call now fails at once or after one attempt, and says that it was not started.
    let started = Instant::now();
    let call = osiris_protocol::call::CallRequest::new("echo", "x");
    let failure = a.mesh.call(id(2), call).await.expect_err("it is dead");
    assert!(failure.certainly_not_started(), "{failure}");
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());

    let returned = Instant::now();
    let mut again = Node::start(2, &[1, 2], &[to_a]).await;
    tokio::join!(a.up(2), again.up(1));
    println!("restarted peer linked after {:?}", returned.elapsed());
    drop(b);
}

#[tokio::test]
async fn a_restart_is_taken_before_the_old_link_has_timed_out() {
    // The smaller key decides about duplicates; the one that restarts has the larger, so that it
    // depends on being recognised as restarted.
    let (deciding, restarting) = if id(1) < id(2) { (1, 2) } else { (2, 1) };
    let mut a = Node::start(deciding, &[1, 2], &[]).await;
    let to_a = a.addr();
    let runtime = mortal();
    let known = to_a.clone();
    let first = runtime.spawn(async move { Node::start(restarting, &[1, 2], &[known]).await });
    let first = first.await.expect("started");
    a.up(restarting).await;
    runtime.shutdown_background();
    let killed = Instant::now();
    let mut again = Node::start(restarting, &[1, 2], &[to_a]).await;
    let why = a.down(restarting).await;
    a.up(restarting).await;
    again.up(deciding).await;
    assert!(why.contains("replaced"), "{why}");
    assert!(killed.elapsed() < Duration::from_secs(2), "{:?}", killed.elapsed());
    drop(first);
}

#[tokio::test]
async fn reconnecting_makes_the_link_anew() {
    let (mut a, mut b) = pair().await;
    a.mesh.reconnect(id(2));
    a.down(2).await;
    b.down(1).await;
    tokio::join!(a.up(2), b.up(1));
}

#[tokio::test]
async fn hints_spread_by_gossip_and_none_without() {
    let with_gossip = |n, known: &[PeerAddr]| {
        let mut config = config(n, known);
        config.gossip = true;
        config
    };
    let mut a = Node::with(with_gossip(1, &[]), &[1, 2, 3]).await;
    let mut b = Node::with(with_gossip(2, &[a.addr()]), &[1, 2, 3]).await;
    let mut silent = Node::start(3, &[1, 2, 3], &[a.addr()]).await;
    a.all_up(&[2, 3]).await;
    silent.all_up(&[1, 2]).await;
    a.mesh.hint(Bytes::from(vec![0; 1 << 20]));
    // A hint sent before gossip has joined is lost, which is its right: send until one arrives.
    let arrives = b.until("a hint", |event| match event {
        MeshEvent::Hint { bytes } => Some(bytes),
        _ => None,
    });
    let mut n = 0_u32;
    let sends = async {
        loop {
            a.mesh.hint(Bytes::copy_from_slice(&n.to_be_bytes()));
            silent.mesh.hint(Bytes::from_static(b"never sent"));
            n += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let got = tokio::select! {
        got = arrives => got,
        () = sends => unreachable!("sends for ever"),
    };
    assert_eq!(got.len(), 4);
}

#[tokio::test]
async fn nodes_on_every_interface_find_each_other() {
    let everywhere = |n, known: &[PeerAddr]| {
        let mut config = config(n, known);
        config.bind = None;
        config
    };
    let mut a = Node::with(everywhere(1, &[]), &[1, 2]).await;
    println!("every interface: {:?}", a.mesh.addresses());
    assert!(!a.mesh.addresses().is_empty());
    let mut b = Node::with(everywhere(2, &[a.addr()]), &[1, 2]).await;
    tokio::join!(a.up(2), b.up(1));
}

#[tokio::test]
async fn a_newcomer_finds_everyone_though_only_one_knew_of_it() {
    // c knows b as a member but no address of it, and nobody tells it twice: it has to ask.
    let mut a = Node::start(1, &[1, 2, 3], &[]).await;
    let mut c = Node::start(3, &[1, 3], &[a.addr()]).await;
    tokio::join!(a.up(3), c.up(1));
    let mut b = Node::start(2, &[1, 2], &[a.addr()]).await;
    tokio::join!(a.up(2), b.up(1));
    b.roster.add(3);
    b.mesh.roster_changed();
    c.roster.add(2);
    c.mesh.roster_changed();
    tokio::join!(b.up(3), c.up(2));
}

#[tokio::test]
async fn of_two_processes_with_one_key_the_one_that_is_cut_off_is_told() {
    for (here, twins) in [(1, 2), (2, 1)] {
        let mut a = Node::start(here, &[1, 2], &[]).await;
        let mut first = Node::start(twins, &[1, 2], &[a.addr()]).await;
        tokio::join!(a.up(twins), first.up(here));
        let _second = Node::start(twins, &[1, 2], &[a.addr()]).await;
        let said = first.until("a word about the twin", |event| match event {
            MeshEvent::Twin { peer } => Some(peer),
            _ => None,
        });
        assert_eq!(said.await, id(here));
    }
}
