//! The hostile member: a real endpoint with a member's key, and blocks with any field, written against the
//! format in `docs/ledger.md` and not with the ledger's own encoder.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use osiris_ledger::{Author, BlockId, FleetId, Ledger, Payload, Signer as _, SigningKey, journal};
use osiris_mesh::{BoxFuture, Mesh, MeshConfig, MeshEvents, PeerId, Roster, Services, proto::sync::Frame};
use osiris_protocol::{
    PeerAddr,
    call::{CallReply, CallRequest},
    join::{JoinReply, JoinRequest},
};

use crate::support::{Folder, Node, until};

#[derive(Debug)]
struct Anybody(PeerId);

impl Roster for Anybody {
    fn is_member(&self, _: &PeerId) -> bool {
        true
    }
    fn members(&self) -> Vec<PeerId> {
        vec![self.0]
    }
}

#[derive(Debug)]
struct Nothing;

impl Services for Nothing {
    fn join(&self, _: PeerId, _: JoinRequest) -> BoxFuture<'static, JoinReply> {
        Box::pin(std::future::pending())
    }
    fn call(&self, _: PeerId, _: CallRequest) -> BoxFuture<'static, CallReply> {
        Box::pin(std::future::pending())
    }
    fn blob(&self, _: [u8; 32]) -> Option<PathBuf> {
        None
    }
}

/// A body, every field free.
#[derive(Clone, Debug)]
pub(crate) struct Body {
    pub(crate) author: [u8; 32],
    pub(crate) session: [u8; 16],
    pub(crate) seq: u64,
    pub(crate) prev: [u8; 32],
    pub(crate) parent: Option<[u8; 32]>,
    pub(crate) depth: u64,
    pub(crate) wall_ms: u64,
    pub(crate) grant: [u8; 32],
    /// CBOR.
    pub(crate) payload: Vec<u8>,
    /// Spell seq with a byte more than it needs.
    pub(crate) spelled: bool,
}

/// The shortest head of a CBOR item.
fn head(out: &mut Vec<u8>, major: u8, n: u64) {
    let major = major << 5;
    match n {
        0..24 => out.push(major | n as u8),
        24..0x100 => out.extend([major | 24, n as u8]),
        0x100..0x1_0000 => {
            out.push(major | 25);
            out.extend((n as u16).to_be_bytes());
        }
        _ => {
            out.push(major | 26);
            out.extend(u32::try_from(n).expect("small").to_be_bytes());
        }
    }
}

fn string(out: &mut Vec<u8>, major: u8, bytes: &[u8]) {
    head(out, major, bytes.len() as u64);
    out.extend(bytes);
}

/// A map of one: an operation's name and its fields, already CBOR.
fn payload(name: &str, fields: &[Vec<u8>]) -> Vec<u8> {
    let mut out = vec![0xa1];
    string(&mut out, 3, name.as_bytes());
    head(&mut out, 4, fields.len() as u64);
    out.extend(fields.concat());
    out
}

fn item(major: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    string(&mut out, major, bytes);
    out
}

/// `removed`, which takes an operator.
pub(crate) fn removal(name: &str, replaces: &BlockId) -> Vec<u8> {
    payload("removed", &[item(3, name.as_bytes()), [vec![0x81], item(2, &replaces.0)].concat()])
}

impl Body {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![0x8a, 2];
        string(&mut out, 2, &self.author);
        string(&mut out, 2, &self.session);
        if self.spelled {
            out.extend([0x18, self.seq as u8]);
        } else {
            head(&mut out, 0, self.seq);
        }
        string(&mut out, 2, &self.prev);
        head(&mut out, 4, u64::from(self.parent.is_some()));
        if let Some(id) = &self.parent {
            string(&mut out, 2, id);
        }
        head(&mut out, 0, self.depth);
        head(&mut out, 0, self.wall_ms);
        string(&mut out, 2, &self.grant);
        out.extend(&self.payload);
        out
    }

    /// The entry: `body ‖ ed25519(blake3("osiris-ledger-v1" ‖ fleet ‖ body))`.
    pub(crate) fn seal(&self, fleet: [u8; 32], key: &SigningKey) -> Vec<u8> {
        let body = self.encode();
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"osiris-ledger-v1").update(&fleet).update(&body);
        let signature = key.sign(hasher.finalize().as_bytes());
        [&body[..], &signature.to_bytes()].concat()
    }
}

/// Blocks as a frame.
pub(crate) fn blocks(entries: &[Vec<u8>]) -> Bytes {
    Frame::Blocks(entries.iter().map(|entry| entry.clone().into()).collect(), false).encode().into()
}

/// An attack that goes on.
pub(crate) struct Sending {
    task: tokio::task::JoinHandle<()>,
    sent: Arc<AtomicUsize>,
}

impl Sending {
    /// Frames that were sent.
    pub(crate) fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    pub(crate) fn end(self) {
        assert!(!self.task.is_finished(), "it went on to the end");
        self.task.abort();
    }
}

/// The hostile member.
pub(crate) struct Hostile {
    pub(crate) mesh: Mesh,
    /// Never read: what it is told waits.
    _events: MeshEvents,
    pub(crate) node: PeerId,
    pub(crate) key: SigningKey,
    fleet: FleetId,
    pub(crate) founder: Author,
    pub(crate) revision: BlockId,
    first: Body,
}

impl Hostile {
    /// Takes over the key of a folder that joined, and a copy of what the fleet has written.
    pub(crate) async fn new(own: &Folder, founder: &Folder, node: &Node) -> Self {
        let secret: [u8; 32] = {
            let hex = std::fs::read_to_string(own.path().join("device.key")).expect("a key");
            hex.trim().parse::<BlockId>().expect("64 hexadecimal digits").0
        };
        let key = SigningKey::from_bytes(&secret);
        let author = Author(key.verifying_key().to_bytes());
        let bytes = std::fs::read(founder.path().join("journal")).expect("a journal");
        let fleet = journal::read_header(&bytes).expect("a journal").fleet;
        let mut ledger = Ledger::new(fleet);
        for record in journal::scan(&bytes, None).expect("a journal").records {
            ledger.replay(record.payload).expect("valid");
        }
        let blocks = ledger.in_order();
        let find = |wanted: &dyn Fn(&Payload) -> bool| {
            blocks.iter().find(|block| wanted(block.payload())).expect("in the ledger").id()
        };
        let grant = find(&|payload| matches!(payload, Payload::Admitted(op) if op.device == author));
        let revision = find(&|payload| matches!(payload, Payload::Deployed(_)));
        let deepest = blocks.last().expect("some");
        let first = Body {
            author: author.0,
            session: [7; 16],
            seq: 1,
            prev: [0; 32],
            parent: Some(deepest.id().0),
            depth: deepest.order().depth + 1,
            wall_ms: 0,
            grant: grant.0,
            payload: payload("stopped", &[item(2, &revision.0)]),
            spelled: false,
        };
        let mut config = MeshConfig::new(secret, fleet.0);
        config.bind = Some(([127, 0, 0, 1], 0).into());
        let peer = node.addresses.device.parse::<PeerId>().expect("a key");
        config.known = vec![PeerAddr { peer: peer.to_bytes(), addrs: node.addresses.mesh.clone() }];
        let (mesh, events) =
            Mesh::spawn(config, Arc::new(Anybody(peer)), Arc::new(Nothing)).await.expect("it listens");
        until("the hostile member is connected", || async {
            mesh.peers().iter().any(|status| status.peer == peer && status.connected)
        })
        .await;
        // Each side may have dialled the other: what is sent while one link replaces the other is lost.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let founder = blocks[0].author();
        Self { mesh, _events: events, node: peer, key, fleet, founder, revision, first }
    }

    pub(crate) fn genesis(&self) -> [u8; 32] {
        self.fleet.0
    }

    pub(crate) fn seal(&self, body: &Body) -> Vec<u8> {
        body.seal(self.fleet.0, &self.key)
    }

    /// A chain of so many valid blocks.
    pub(crate) fn chain(&self, len: usize) -> (Vec<Body>, Vec<Vec<u8>>) {
        let (mut bodies, mut entries) = (Vec::new(), Vec::new());
        let mut body = self.first.clone();
        let mut ids = BTreeSet::new();
        for _ in 0..len {
            let entry = self.seal(&body);
            let id = *blake3::hash(&entry).as_bytes();
            assert!(ids.insert(id));
            let next =
                Body { seq: body.seq + 1, prev: id, parent: None, depth: body.depth + 1, ..body.clone() };
            bodies.push(std::mem::replace(&mut body, next));
            entries.push(entry);
        }
        (bodies, entries)
    }

    pub(crate) async fn send(&self, frame: impl Into<Bytes>) {
        let frame = frame.into();
        until("a frame is taken", || async { self.mesh.send(self.node, frame.clone()).is_ok() }).await;
    }

    /// Sends these again and again, each as soon as it is taken, until the task is ended. What a slow link does not take
    /// is left out.
    pub(crate) fn keep_sending(&self, frames: Vec<Bytes>) -> Sending {
        let (mesh, node) = (self.mesh.clone(), self.node);
        let sent = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&sent);
        let task = tokio::spawn(async move {
            for frame in frames.iter().cycle() {
                if mesh.send(node, frame.clone()).is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                // Other tasks of the same machine have their turn.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        Sending { task, sent }
    }

    pub(crate) async fn send_blocks(&self, entries: &[Vec<u8>]) {
        self.send(blocks(entries)).await;
    }

    /// Gives the other side time to find out that it agrees with somebody else.
    pub(crate) async fn keep_still(&self, long: Duration) {
        tokio::time::sleep(long).await;
    }
}
