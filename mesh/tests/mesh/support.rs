//! A test node: a mesh with a roster that can be changed and services that answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use osiris_mesh::{BoxFuture, Mesh, MeshConfig, MeshEvent, MeshEvents, Offered, PeerId, Roster, Services};
use osiris_protocol::{
    PeerAddr,
    call::{CallReply, CallRequest},
    join::{JoinReply, JoinRequest, RefusalCode, Welcome},
    limits::CALL_BODY_BYTES_MAX,
};
use tokio::sync::Notify;

pub(crate) const TOPIC: [u8; 32] = [42; 32];
/// Longer than anything here takes; reaching it means that something is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

pub(crate) fn secret(n: u8) -> [u8; 32] {
    [n; 32]
}

pub(crate) fn id(n: u8) -> PeerId {
    PeerId::from_bytes(*iroh::SecretKey::from_bytes(&secret(n)).public().as_bytes())
}

#[derive(Debug, Default)]
pub(crate) struct TestRoster(Mutex<BTreeSet<PeerId>>, Mutex<BTreeSet<PeerId>>);

impl TestRoster {
    pub(crate) fn of(members: &[u8]) -> Arc<Self> {
        Arc::new(Self(Mutex::new(members.iter().map(|n| id(*n)).collect()), Mutex::default()))
    }

    pub(crate) fn add(&self, n: u8) {
        self.0.lock().expect("not poisoned").insert(id(n));
    }

    pub(crate) fn remove(&self, n: u8) {
        self.0.lock().expect("not poisoned").remove(&id(n));
        self.1.lock().expect("not poisoned").insert(id(n));
    }
}

impl Roster for TestRoster {
    fn is_member(&self, peer: &PeerId) -> bool {
        self.0.lock().expect("not poisoned").contains(peer)
    }

    fn members(&self) -> Vec<PeerId> {
        let members = self.0.lock().expect("not poisoned");
        members.iter().copied().collect()
    }

    fn was_member(&self, peer: &PeerId) -> bool {
        self.1.lock().expect("not poisoned").contains(peer)
    }
}

#[derive(Debug, Default)]
pub(crate) struct TestServices {
    pub(crate) files: Mutex<BTreeMap<[u8; 32], PathBuf>>,
    /// Where offered artifacts go; none are taken without it.
    pub(crate) taking: Mutex<Option<PathBuf>>,
    /// Told when a call to `forever` is dropped.
    pub(crate) dropped: Arc<Notify>,
    pub(crate) started: Arc<Notify>,
}

struct TellOnDrop(Arc<Notify>);

impl Drop for TellOnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

pub(crate) fn reply(status: u16, body: impl Into<Bytes>) -> CallReply {
    CallReply { status, headers: Vec::new(), body: body.into() }
}

impl Services for TestServices {
    fn join(&self, device: PeerId, request: JoinRequest) -> BoxFuture<'static, JoinReply> {
        let answer = match request.invitation[0] {
            1 => JoinReply::Welcome(Welcome { grant: device.to_bytes(), addrs: Vec::new() }),
            2 => JoinReply::refused(RefusalCode::UsedUp, "The invitation is used up."),
            3 => panic!("a defect in the services"),
            _ => JoinReply::refused(RefusalCode::Busy, "Come back later."),
        };
        Box::pin(std::future::ready(answer))
    }

    fn ending(&self, device: PeerId, question: Bytes) -> BoxFuture<'static, Option<Bytes>> {
        let answer = Bytes::from([device.as_bytes(), &question[..]].concat());
        Box::pin(std::future::ready((!question.is_empty()).then_some(answer)))
    }

    fn call(&self, _peer: PeerId, request: CallRequest) -> BoxFuture<'static, CallReply> {
        let (started, dropped) = (Arc::clone(&self.started), Arc::clone(&self.dropped));
        Box::pin(async move {
            match request.function.as_str() {
                "echo" => reply(200, request.body),
                "too-much" => reply(200, vec![0; CALL_BODY_BYTES_MAX + 1]),
                "defect" => panic!("a defect in the services"),
                "forever" => {
                    let _tell = TellOnDrop(dropped);
                    started.notify_one();
                    std::future::pending().await
                }
                _ => reply(404, ""),
            }
        })
    }

    fn blob(&self, hash: [u8; 32]) -> Option<PathBuf> {
        self.files.lock().expect("not poisoned").get(&hash).cloned()
    }

    fn offered(&self, _peer: PeerId, hash: [u8; 32], size: u64) -> Offered {
        if self.blob(hash).is_some() {
            return Offered::Held;
        }
        let taking = self.taking.lock().expect("not poisoned").clone();
        taking.filter(|_| size <= 1 << 20).map_or(Offered::Refused, |dir| Offered::Wanted(dir.join("taken")))
    }

    fn keep(&self, hash: [u8; 32], file: PathBuf) -> BoxFuture<'static, bool> {
        let kept = file.with_file_name(blake3::Hash::from_bytes(hash).to_string());
        std::fs::rename(&file, &kept).expect("a writable directory");
        self.files.lock().expect("not poisoned").insert(hash, kept);
        Box::pin(std::future::ready(true))
    }
}

pub(crate) struct Node {
    pub(crate) mesh: Mesh,
    pub(crate) events: MeshEvents,
    pub(crate) roster: Arc<TestRoster>,
    pub(crate) services: Arc<TestServices>,
}

pub(crate) fn config(n: u8, known: &[PeerAddr]) -> MeshConfig {
    let mut config = MeshConfig::new(secret(n), TOPIC);
    config.bind = Some(([127, 0, 0, 1], 0).into());
    config.known = known.to_vec();
    config.gossip = false;
    config
}

impl Node {
    pub(crate) async fn with(config: MeshConfig, members: &[u8]) -> Self {
        let roster = TestRoster::of(members);
        let services = Arc::new(TestServices::default());
        let (mesh, events) = Mesh::spawn(
            config,
            Arc::clone(&roster) as Arc<dyn Roster>,
            Arc::clone(&services) as Arc<dyn Services>,
        )
        .await
        .expect("loopback can be listened on");
        Self { mesh, events, roster, services }
    }

    pub(crate) async fn start(n: u8, members: &[u8], known: &[PeerAddr]) -> Self {
        Self::with(config(n, known), members).await
    }

    pub(crate) fn addr(&self) -> PeerAddr {
        PeerAddr { peer: self.mesh.peer_id().to_bytes(), addrs: self.mesh.addresses() }
    }

    /// Takes events until one is what is waited for.
    pub(crate) async fn until<T>(&mut self, what: &str, mut pick: impl FnMut(MeshEvent) -> Option<T>) -> T {
        let waiting = async {
            loop {
                let event = self.events.recv().await.expect("the node runs");
                if let Some(picked) = pick(event) {
                    return picked;
                }
            }
        };
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .unwrap_or_else(|_| panic!("{:?} waits for {what}", self.mesh.peer_id()))
    }

    pub(crate) async fn up(&mut self, n: u8) {
        let wanted = id(n);
        self.until("a link", |event| (event == MeshEvent::PeerUp { peer: wanted }).then_some(())).await;
    }

    /// Waits for links to all of these, in any order.
    pub(crate) async fn all_up(&mut self, wanted: &[u8]) {
        let mut missing: BTreeSet<PeerId> = wanted.iter().map(|n| id(*n)).collect();
        self.until("every link", |event| {
            if let MeshEvent::PeerUp { peer } = event {
                missing.remove(&peer);
            }
            missing.is_empty().then_some(())
        })
        .await;
    }

    pub(crate) async fn down(&mut self, n: u8) -> String {
        let wanted = id(n);
        self.until("the end of a link", |event| match event {
            MeshEvent::PeerDown { peer, why } if peer == wanted => Some(why),
            _ => None,
        })
        .await
    }

    pub(crate) async fn frame(&mut self) -> (PeerId, Bytes) {
        self.until("a frame", |event| match event {
            MeshEvent::Frame { peer, bytes } => Some((peer, bytes)),
            _ => None,
        })
        .await
    }
}

/// Two nodes with a link.
pub(crate) async fn pair() -> (Node, Node) {
    let mut a = Node::start(1, &[1, 2], &[]).await;
    let mut b = Node::start(2, &[1, 2], &[a.addr()]).await;
    a.up(2).await;
    b.up(1).await;
    (a, b)
}

/// An endpoint that speaks for itself, not through a mesh.
pub(crate) async fn bare_endpoint(n: u8) -> iroh::Endpoint {
    iroh::Endpoint::builder(iroh::endpoint::presets::Minimal)
        .secret_key(iroh::SecretKey::from_bytes(&secret(n)))
        .relay_mode(iroh::RelayMode::Disabled)
        .clear_ip_transports()
        .bind_addr("127.0.0.1:0")
        .expect("an address")
        .bind()
        .await
        .expect("loopback can be listened on")
}

pub(crate) fn endpoint_addr(addr: &PeerAddr) -> iroh::EndpointAddr {
    let id = iroh::EndpointId::from_bytes(&addr.peer).expect("a key");
    let addrs = addr.addrs.iter().map(|a| iroh::TransportAddr::Ip(*a));
    iroh::EndpointAddr::from_parts(id, addrs)
}
