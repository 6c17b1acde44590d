use bytes::Bytes;
use osiris_mesh::{MeshEvent, limits::FRAME_BYTES_MAX};
use osiris_protocol::alpn::{self, code};

use crate::support::{Node, PATIENCE, bare_endpoint, endpoint_addr, id, pair};

async fn turned_away(node: &mut Node, by: u8) {
    let peer = id(by);
    node.until("being turned away", |event| (event == MeshEvent::TurnedAway { peer }).then_some(())).await;
}

#[tokio::test]
async fn a_device_that_was_removed_is_told_by_who_turns_it_away() {
    let (mut a, mut b) = pair().await;
    a.roster.remove(2);
    a.mesh.roster_changed();
    a.down(2).await;
    turned_away(&mut b, 1).await;
    let question = Bytes::from(vec![7; FRAME_BYTES_MAX - 32]);
    let answer = b.mesh.ask_ending(id(1), question.clone()).await.expect("told");
    assert_eq!(answer[..32], id(2).to_bytes(), "it is told about the key of its connection");
    assert!(answer[32..] == question[..]);
    let silent = b.mesh.ask_ending(id(1), Bytes::new()).await.expect_err("nothing to say");
    assert!(silent.contains("closed it"), "{silent}");
    let over = b.mesh.ask_ending(id(1), Bytes::from(vec![7; FRAME_BYTES_MAX + 1])).await;
    over.expect_err("too long a question");
}

#[tokio::test]
async fn a_stranger_is_turned_away_and_told_nothing() {
    let a = Node::start(1, &[1], &[]).await;
    let mut b = Node::start(2, &[1, 2], &[a.addr()]).await;
    turned_away(&mut b, 1).await;
    let refused = b.mesh.ask_ending(id(1), Bytes::from_static(b"why")).await.expect_err("a stranger");
    assert!(refused.contains("not a member"), "{refused}");
}

#[tokio::test]
async fn a_removed_device_that_sends_garbage_or_asks_too_often_harms_nobody() {
    let a = Node::start(1, &[1], &[]).await;
    a.roster.remove(7);
    let removed = bare_endpoint(7).await;
    let mut codes = Vec::new();
    for head in [&b"\xff\xff\xff\xff"[..], b"\0\0\0\x05abc", b""].into_iter().cycle().take(20) {
        let conn = removed.connect(endpoint_addr(&a.addr()), alpn::ENDED).await.expect("open to it");
        if let Ok((mut send, _recv)) = conn.open_bi().await {
            let _ = send.write_all(head).await;
            let _ = send.finish();
        }
        let closed = tokio::time::timeout(PATIENCE, conn.closed()).await.expect("given up");
        let iroh::endpoint::ConnectionError::ApplicationClosed(close) = closed else { panic!("{closed:?}") };
        codes.push(u32::try_from(close.error_code.into_inner()).expect("small"));
    }
    assert!(codes[..3].iter().all(|code| *code == code::MALFORMED), "{codes:?}");
    assert!(codes.contains(&code::BUSY), "{codes:?}");
    let mut c = Node::start(3, &[1, 3], &[a.addr()]).await;
    a.roster.add(3);
    a.mesh.roster_changed();
    c.up(1).await;
}
