//! Every decoder survives bytes that nobody meant: random ones, and well-formed ones with a change.

use bytes::Bytes;
use osiris_protocol::{
    call::{CallMessage, CallReader, CallReply, CallRequest},
    frame::FrameDecoder,
    join::{JoinReply, JoinRequest, Welcome},
    ticket::{DialTicket, Ticket},
};

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

    fn bytes(&mut self, max: u64) -> Vec<u8> {
        let len = self.next() % max;
        (0..len).map(|_| self.next() as u8).collect()
    }
}

fn feed(bytes: &[u8]) {
    let _ = JoinRequest::decode(bytes);
    let _ = JoinReply::decode(bytes);
    let mut request = CallReader::<CallRequest>::new();
    if request.push(Bytes::copy_from_slice(bytes)).is_ok() {
        let _ = request.finish();
    }
    let mut reply = CallReader::<CallReply>::new();
    if reply.push(Bytes::copy_from_slice(bytes)).is_ok() {
        let _ = reply.finish();
    }
    let mut frames = FrameDecoder::new(1_024);
    frames.push(bytes);
    while let Ok(Some(_)) = frames.next_frame() {}
    let text = data_encoding::BASE32_NOPAD.encode(bytes);
    let _ = format!("osiris{text}").parse::<Ticket>();
    let _ = String::from_utf8_lossy(bytes).parse::<Ticket>();
}

#[test]
fn random_bytes_are_refused_calmly() {
    let mut garbage = Garbage(1);
    for _ in 0..20_000 {
        feed(&garbage.bytes(200));
    }
}

#[test]
fn changed_messages_are_read_or_refused_calmly() {
    let welcome = JoinReply::Welcome(Welcome { grant: [1; 32], addrs: Vec::new() });
    let request = JoinRequest {
        fleet: [1; 32],
        invitation: [2; 32],
        proof: [3; 64],
        label: "shelf-3".to_owned(),
        addrs: vec!["127.0.0.1:1".parse().expect("an address")],
    };
    let ticket =
        Ticket::Dial(DialTicket { fleet: [1; 32], fleet_name: "home".to_owned(), peers: Vec::new() });
    let ticket = ticket.encode().expect("within limits").to_ascii_uppercase();
    let seeds: Vec<Vec<u8>> = vec![
        welcome.encode().expect("within limits")[4..].to_vec(),
        request.encode().expect("within limits")[4..].to_vec(),
        CallRequest::new("hello", "body").encode().expect("within limits").concat(),
        data_encoding::BASE32_NOPAD.decode(&ticket.as_bytes()[6..]).expect("base32"),
    ];
    let mut garbage = Garbage(2);
    for seed in &seeds {
        for at in 0..seed.len() {
            for _ in 0..8 {
                let mut changed = seed.clone();
                changed[at] = garbage.next() as u8;
                feed(&changed);
            }
            feed(&seed[..at]);
        }
    }
}
