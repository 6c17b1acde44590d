use std::time::{Duration, Instant};

use osiris_mesh::{JoinError, join};
use osiris_protocol::{
    PeerAddr,
    join::RefusalCode,
    ticket::{InvitationSecret, JoinTicket},
};

use crate::support::{Node, config, id};

fn ticket(invitation: u8, peers: Vec<PeerAddr>) -> JoinTicket {
    JoinTicket {
        fleet: [1; 32],
        fleet_name: "home".to_owned(),
        peers,
        invitation: [invitation; 32],
        secret: InvitationSecret::new([0; 32]),
        heads: Vec::new(),
        device: None,
    }
}

fn nobody(n: u8) -> PeerAddr {
    PeerAddr { peer: id(n).to_bytes(), addrs: vec![([127, 0, 0, 1], 9).into()] }
}

#[tokio::test]
async fn a_stranger_is_admitted_past_a_dead_address() {
    let a = Node::start(1, &[1], &[]).await;
    let started = Instant::now();
    let ticket = ticket(1, vec![nobody(8), a.addr(), nobody(9)]);
    let welcome = join(config(7, &[]), &ticket, [0; 64], "newcomer").await.expect("admitted");
    assert_eq!(welcome.grant, id(7).to_bytes(), "the key of the connection");
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_refusal_is_final_and_its_reason_arrives() {
    let a = Node::start(1, &[1], &[]).await;
    let refused = join(config(7, &[]), &ticket(2, vec![a.addr()]), [0; 64], "newcomer").await;
    let Err(JoinError::Refused { code, message }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(code, RefusalCode::UsedUp);
    assert!(message.contains("used up"));
}

#[tokio::test]
async fn a_busy_node_and_a_defect_pass_the_newcomer_on() {
    let a = Node::start(1, &[1], &[]).await;
    for (invitation, code) in [(3, RefusalCode::Internal), (4, RefusalCode::Busy)] {
        let refused = join(config(7, &[]), &ticket(invitation, vec![a.addr()]), [0; 64], "newcomer").await;
        assert!(matches!(refused, Err(JoinError::Refused { code: got, .. }) if got == code), "{refused:?}");
    }
    join(config(7, &[]), &ticket(1, vec![a.addr()]), [0; 64], "newcomer").await.expect("the node goes on");
}

#[tokio::test]
async fn every_failure_is_named() {
    let ticket_to_nobody = ticket(1, vec![nobody(8), nobody(9)]);
    let error = join(config(7, &[]), &ticket_to_nobody, [0; 64], "newcomer").await;
    let error = error.expect_err("nobody there");
    let JoinError::Unreachable { attempts } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(attempts.len(), 2);
    assert!(error.to_string().contains("127.0.0.1:9"), "{error}");

    let mut bound = ticket(1, vec![nobody(8)]);
    bound.device = Some(id(9).to_bytes());
    let error = join(config(7, &[]), &bound, [0; 64], "newcomer").await;
    assert!(matches!(error, Err(JoinError::OtherDevice { .. })), "{error:?}");
    let error = join(config(7, &[]), &ticket(1, Vec::new()), [0; 64], "newcomer").await;
    assert!(matches!(error, Err(JoinError::NoPeers)), "{error:?}");
}

#[tokio::test]
async fn strangers_cannot_take_all_of_a_nodes_time() {
    let a = Node::start(1, &[1], &[]).await;
    let mut busy = false;
    for _ in 0..60 {
        let joined = join(config(7, &[]), &ticket(1, vec![a.addr()]), [0; 64], "newcomer").await;
        busy |= matches!(joined, Err(JoinError::Refused { code: RefusalCode::Busy, .. }));
        if busy {
            break;
        }
    }
    assert!(busy, "sixty joins in a row were all served");
}
