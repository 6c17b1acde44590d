//! A fleet to try the core on.

use osiris_ledger::{Author, Founding, Ledger, Now, Session, SigningKey, Writer};
use osiris_mesh::PeerId;

use super::{Config, Effect, Input, Node, Refusal, Reply};

pub(super) fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

pub(super) fn author(seed: u8) -> Author {
    Author(key(seed).verifying_key().to_bytes())
}

/// A fleet of the device `key(1)`, and the writer that founded it in session 1.
pub(super) fn founded(now: Now) -> (Writer, Ledger) {
    let mut writer = Writer::new(key(1), Session([1; 16]));
    let founding = Founding {
        name: "test".to_owned(),
        label: "one".to_owned(),
        admin: &key(100),
        recovery: author(101),
        nonce: Session([9; 16]),
    };
    let (ledger, _) = writer.found(now, founding).expect("founded");
    (writer, ledger)
}

/// The core of device `key(device)` over a copy of a ledger, in the session of this number.
pub(super) fn replica(now: Now, ledger: &Ledger, device: u8, session: u8) -> Node {
    node(now, ledger, device, session, false)
}

/// The same of a process that runs functions.
pub(super) fn server(now: Now, ledger: &Ledger, device: u8, session: u8) -> Node {
    node(now, ledger, device, session, true)
}

fn node(now: Now, ledger: &Ledger, device: u8, session: u8, serves: bool) -> Node {
    let mut replica = Ledger::new(ledger.fleet());
    for block in ledger.in_order() {
        replica.replay(block.entry()).expect("valid");
    }
    let config = Config {
        serves,
        seed: device.into(),
        confirmed: Vec::new(),
        idle_work: false,
        pages: crate::node::PageRules::default(),
    };
    Node::new(now, &config, replica, Writer::new(key(device), Session([session; 16])))
}

/// Lets both handle their inputs, and what each sends the other, until neither has anything to say. Gossip is lost.
pub(super) fn play(
    now: Now,
    nodes: &mut [Node; 2],
    mut inputs: [Vec<Input>; 2],
) -> Vec<Result<Reply, Refusal>> {
    let peers = nodes.each_ref().map(|node| PeerId::from_bytes(node.device().0));
    let mut answers = Vec::new();
    while inputs.iter().any(|inputs| !inputs.is_empty()) {
        for at in 0..2 {
            for input in std::mem::take(&mut inputs[at]) {
                nodes[at].handle(now, input);
                while let Some(effect) = nodes[at].poll_effect() {
                    match effect {
                        Effect::Send(_, frame) => inputs[1 - at].push(Input::Frame(peers[at], frame)),
                        Effect::Reply(_, answer) => answers.push(answer),
                        _ => {}
                    }
                }
            }
        }
    }
    answers
}
