use std::time::Duration;

use bytes::Bytes;
use iroh::endpoint::Connection;
use osiris_protocol::{alpn, call::CallRequest};

use crate::support::{Node, bare_endpoint, endpoint_addr, id, pair};

/// SplitMix64 (Steele, Lea and Flood, 2014): the same garbage on every run.
struct Garbage(u64);

impl Garbage {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Random bytes, sometimes behind a plausible length and kind.
    fn message(&mut self) -> Vec<u8> {
        let len = (self.next() % 400) as usize;
        let mut bytes: Vec<u8> = (0..len).map(|_| self.next() as u8).collect();
        match self.next() % 3 {
            0 => {}
            1 => {
                let head = (len as u32).to_be_bytes();
                bytes.splice(0..0, head);
            }
            _ => {
                let kind = (self.next() % 5) as u8;
                let [a, b, c, d] = (len as u32 + 1).to_be_bytes();
                bytes.splice(0..0, [a, b, c, d, kind]);
            }
        }
        bytes
    }
}

async fn babble(conn: &Connection, garbage: &mut Garbage) {
    for _ in 0..5 {
        let Ok((mut send, mut recv)) = conn.open_bi().await else {
            return;
        };
        for _ in 0..3 {
            if send.write_all(&garbage.message()).await.is_err() {
                break;
            }
        }
        let _ = send.finish();
        let _ = tokio::time::timeout(Duration::from_millis(50), recv.read_to_end(1 << 20)).await;
    }
}

#[tokio::test]
async fn garbage_from_a_member_harms_nobody_else() {
    let mut a = Node::start(1, &[1, 2, 3], &[]).await;
    let mut b = Node::start(2, &[1, 2, 3], &[a.addr()]).await;
    a.up(2).await;
    b.up(1).await;
    let vandal = bare_endpoint(3).await;
    let mut garbage = Garbage(1);
    for round in 0..20 {
        for alpn in [alpn::SYNC, alpn::CALL, alpn::BLOB, alpn::JOIN] {
            if let Ok(conn) = vandal.connect(endpoint_addr(&a.addr()), alpn).await {
                babble(&conn, &mut garbage).await;
                conn.close(0_u32.into(), b"");
            }
        }
        let frame = Bytes::copy_from_slice(&[round]);
        b.mesh.send(id(1), frame.clone()).expect("the link is untouched");
        let mut got = a.frame().await;
        while got.0 != id(2) {
            got = a.frame().await;
        }
        assert_eq!(got.1, frame);
    }
    let reply = b.mesh.call(id(1), CallRequest::new("echo", "alive")).await;
    assert_eq!(reply.expect("an echo").body, "alive");
}

#[tokio::test]
async fn a_huge_declared_length_ends_the_link_alone() {
    let (mut a, b) = pair().await;
    let vandal = bare_endpoint(9).await;
    a.roster.add(9);
    let conn = vandal.connect(endpoint_addr(&a.addr()), alpn::SYNC).await.expect("a member");
    let (mut send, _recv) = conn.open_bi().await.expect("open");
    send.write_all(&u32::MAX.to_be_bytes()).await.expect("open");
    let closed = tokio::time::timeout(Duration::from_secs(5), conn.closed()).await;
    closed.expect("closed at once");
    let vandal = osiris_mesh::PeerId::from_bytes(*vandal.id().as_bytes());
    let wanted = osiris_mesh::MeshEvent::Malformed { peer: vandal };
    a.until("the vandal's name", |event| (event == wanted).then_some(())).await;
    b.mesh.send(id(1), Bytes::from_static(b"x")).expect("the link is untouched");
}
