//! `wire.json`: what travels beside the frames of `osiris/sync/1`, and packed blocks that are refused.

use std::net::SocketAddr;

use bytes::Bytes;
use osiris_ledger::{BlockId, FleetId, op};
use osiris_mesh::proto::{
    message::{AddressEntry, AgedAddr, Hello, Message},
    pack::unpack,
};
use osiris_protocol::{
    PeerAddr,
    join::{JoinReply, JoinRequest, RefusalCode, Welcome},
    ticket::{DialTicket, InvitationSecret, JoinTicket, Ticket},
};
use serde_json::{Value, json};

use super::{
    FOUNDER, NODE, TICKET, hex,
    support::{author, key},
};

fn addresses() -> Vec<SocketAddr> {
    ["192.0.2.7:4433", "[2001:db8::7]:4433"].map(|text| text.parse().expect("an address")).to_vec()
}

/// Messages of a link, of a join, and tickets.
pub(super) fn wire(fleet: FleetId, invitation: BlockId, grant: BlockId, heads: &[BlockId]) -> Value {
    let (member, device) = (author(FOUNDER).0, author(NODE).0);
    let aged = addresses().into_iter().map(|addr| AgedAddr { addr, age_s: 60 }).collect();
    let hello = Hello { topic: fleet.0.into(), version: 1, session: [3; 16].into(), addrs: addresses() };
    let messages = [
        ("hello", Message::Hello(hello)),
        ("frame", Message::Frame(Bytes::from_static(b"a frame"))),
        ("addresses", Message::Addresses(vec![AddressEntry { peer: member.into(), addrs: aged }])),
        ("wanted", Message::Wanted(vec![device.into()])),
    ];
    let messages = messages.map(|(what, message)| {
        let [head, payload] = message.encode().expect("small");
        json!({ "what": what, "bytes": hex(&[head, payload].concat()) })
    });

    let op::Admitted { proof, label, .. } = super::support::admitted(&fleet, &invitation, 0, NODE);
    let request =
        JoinRequest { fleet: fleet.0, invitation: invitation.0, proof: proof.0, label, addrs: addresses() };
    let peers = || vec![PeerAddr { peer: member, addrs: addresses() }];
    let welcome = JoinReply::Welcome(Welcome { grant: grant.0, addrs: peers() });
    let refused = JoinReply::refused(RefusalCode::UsedUp, "No use is left.");
    let bytes = |reply: &JoinReply| hex(&reply.encode().expect("small"));
    let joins = json!({
        "device": author(NODE).to_string(), "request": hex(&request.encode().expect("small")),
        "welcome": bytes(&welcome), "refused": bytes(&refused),
    });

    let (fleet, fleet_name) = (fleet.0, "berlin".to_owned());
    let join = |secret, device| {
        let heads = heads.iter().map(|head| head.0).collect();
        let (fleet_name, invitation) = (fleet_name.clone(), invitation.0);
        Ticket::Join(JoinTicket { fleet, fleet_name, peers: peers(), invitation, secret, heads, device })
    };
    let tickets = [
        ("dial", Ticket::Dial(DialTicket { fleet, fleet_name: fleet_name.clone(), peers: peers() })),
        ("join", join(InvitationSecret::new(key(TICKET).to_bytes()), None)),
        ("join, bound to a device, by a user's own key", join(InvitationSecret::none(), Some(device))),
    ];
    let tickets =
        tickets.map(|(what, ticket)| json!({ "what": what, "text": ticket.encode().expect("small") }));
    json!({ "messages": messages, "join": joins, "tickets": tickets })
}

/// Bytes that are not packed entries.
pub(super) fn refused_packed() -> Vec<Value> {
    let value = [&[0b11][..], &[7; 32]].concat();
    let two = [&[68][..], &value, &[0b01]].concat();
    assert_eq!(unpack(&two).map(|entries| entries.len()), Ok(1), "what the others are changes of");
    let cases = [
        ("an entry of no more than a signature", [&[64, 0x80, 2][..], &[1; 64]].concat()),
        ("an entry of 3,073 bytes", vec![0x81, 0x18]),
        ("an end within an entry", two[..two.len() - 1].to_vec()),
        ("pieces that make more than the length", [&[67][..], &two[1..]].concat()),
        ("a value that does not exist", [&[68][..], &value, &[0b101]].concat()),
        ("an entry that does not exist", [&[68][..], &value, &[0b10]].concat()),
        ("no bytes", [&[68][..], &value, &[0]].concat()),
        ("a new value of a third kind", [&[68][..], &[0b1011], &[7; 32]].concat()),
        ("a number that is longer than needed", [&[0xc4, 0][..], &two[1..]].concat()),
        ("a number of 2^32", vec![0x80, 0x80, 0x80, 0x80, 0x10]),
    ];
    let row = |(what, packed): (&str, Vec<u8>)| {
        assert!(unpack(&packed).is_err(), "{what}");
        json!({ "what": what, "packed": hex(&packed) })
    };
    cases.map(row).to_vec()
}
