//! The nodes of a fleet as one client sees them: who is connected, and who is nearest.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use iroh::{
    Endpoint, EndpointAddr, EndpointId, RelayMode, SecretKey, TransportAddr,
    endpoint::{Connection, QuicTransportConfig, VarInt, presets},
};
use osiris_protocol::{
    PeerAddr,
    alpn::{self, code},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    Attempt, ClientError, NodeStatus,
    limits::{CONNECTIONS_KEPT, DIAL_TIMEOUT, IDLE_TIMEOUT, KEEP_ALIVE, NODES_MAX, OTHERS_WAIT_MIN},
};

type Node = [u8; 32];

/// The endpoint, and the connections that are kept.
#[derive(Debug, Clone)]
pub(crate) struct Nodes {
    endpoint: Endpoint,
    known: Arc<[PeerAddr]>,
    open: Arc<Mutex<BTreeMap<Node, Connection>>>,
}

impl Nodes {
    pub(crate) async fn bind(device: [u8; 32], known: &[PeerAddr]) -> Result<Self, ClientError> {
        let local = |why: String| ClientError::Local { why };
        let idle =
            IDLE_TIMEOUT.try_into().map_err(|_| local("the idle timeout is out of range".to_owned()))?;
        let transport = QuicTransportConfig::builder()
            .keep_alive_interval(KEEP_ALIVE)
            .default_path_keep_alive_interval(KEEP_ALIVE)
            .max_idle_timeout(Some(idle))
            .default_path_max_idle_timeout(IDLE_TIMEOUT)
            .build();
        // No relays, no DNS: only the addresses that were given.
        let endpoint = Endpoint::builder(presets::Minimal)
            .secret_key(SecretKey::from_bytes(&device))
            .relay_mode(RelayMode::Disabled)
            .transport_config(transport)
            .bind()
            .await
            .map_err(|error| local(format!("{error:#}")))?;
        Ok(Self { endpoint, known: known.iter().take(NODES_MAX).cloned().collect(), open: Arc::default() })
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<Node, Connection>> {
        // Plain data, changed in one step: a panic elsewhere leaves it sound.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Dials every node that is not connected, side by side. Returns why some did not answer. Those that take
    /// longer than others are not waited for, and are kept when they answer, so that there is another node where
    /// the first one stops.
    pub(crate) async fn dial_all(&self) -> Vec<Attempt> {
        let started = Instant::now();
        let mut dials = JoinSet::new();
        let connected = self.nearest();
        for known in self.known.iter() {
            if connected.iter().all(|(node, _)| *node != known.peer) {
                let (nodes, known) = (self.clone(), known.clone());
                dials.spawn(async move {
                    let peer = known.peer;
                    let dialled = dial(&nodes.endpoint, known).await;
                    (peer, dialled.map(|conn| nodes.keep(peer, conn)))
                });
            }
        }
        let mut attempts = Vec::new();
        let mut enough = started + DIAL_TIMEOUT;
        let mut first = true;
        loop {
            let dialled = tokio::select! {
                dialled = dials.join_next() => dialled,
                () = sleep_until(enough) => break,
            };
            match dialled {
                Some(Ok((_, Ok(())))) => {
                    if std::mem::take(&mut first) {
                        let elapsed = started.elapsed();
                        enough = Instant::now() + elapsed.max(OTHERS_WAIT_MIN);
                    }
                }
                Some(Ok((node, Err(why)))) => attempts.push(Attempt { node, why }),
                Some(Err(_)) => {}
                None => break,
            }
        }
        // Each of them ends after DIAL_TIMEOUT at the latest, or with the endpoint.
        dials.detach_all();
        attempts
    }

    /// Adds a connection, unless another dial to the same node was faster.
    fn keep(&self, node: Node, conn: Connection) {
        let mut open = self.open();
        match open.get(&node).filter(|kept| kept.close_reason().is_none()) {
            Some(_) => conn.close(VarInt::from_u32(code::DONE), b"done"),
            None => drop(open.insert(node, conn)),
        }
        drop(open);
        self.keep_nearest();
    }

    /// The connected nodes, nearest first, by the round-trip time as measured by now: the ranking is
    /// refreshed by the keep-alives.
    pub(crate) fn nearest(&self) -> Vec<(Node, Connection)> {
        let mut open = self.open();
        open.retain(|_, conn| conn.close_reason().is_none());
        let mut ranked: Vec<(Duration, Node, Connection)> =
            open.iter().map(|(node, conn)| (rtt(conn), *node, conn.clone())).collect();
        drop(open);
        ranked.sort_by_key(|(rtt, node, _)| (*rtt, *node));
        ranked.into_iter().map(|(_, node, conn)| (node, conn)).collect()
    }

    fn keep_nearest(&self) {
        for (node, conn) in self.nearest().into_iter().skip(CONNECTIONS_KEPT) {
            self.forget(&node, &conn);
        }
    }

    /// Closes a connection that is of no use; a newer one to the same node stays.
    pub(crate) fn forget(&self, node: &Node, conn: &Connection) {
        conn.close(VarInt::from_u32(code::DONE), b"done");
        let mut open = self.open();
        if open.get(node).is_some_and(|kept| kept.stable_id() == conn.stable_id()) {
            open.remove(node);
        }
    }

    pub(crate) fn statuses(&self) -> Vec<NodeStatus> {
        let mut statuses: Vec<NodeStatus> = self
            .nearest()
            .iter()
            .map(|(node, conn)| NodeStatus { node: *node, rtt: Some(rtt(conn)) })
            .collect();
        for known in self.known.iter() {
            if statuses.iter().all(|status| status.node != known.peer) {
                statuses.push(NodeStatus { node: known.peer, rtt: None });
            }
        }
        statuses
    }

    pub(crate) async fn close(&self) {
        self.endpoint.close().await;
    }
}

async fn dial(endpoint: &Endpoint, known: PeerAddr) -> Result<Connection, String> {
    let id = EndpointId::from_bytes(&known.peer).map_err(|_| "its key is not an Ed25519 key".to_owned())?;
    let addrs = known.addrs.into_iter().map(TransportAddr::Ip);
    let addr = EndpointAddr::from_parts(id, addrs);
    match timeout(DIAL_TIMEOUT, endpoint.connect(addr, alpn::CALL)).await {
        Ok(Ok(conn)) => Ok(conn),
        Ok(Err(error)) => Err(format!("{error:#}")),
        Err(_) => Err("it does not answer at any known address".to_owned()),
    }
}

fn rtt(conn: &Connection) -> Duration {
    let paths = conn.paths();
    let selected = paths.iter().find(|path| path.is_selected());
    selected.or_else(|| paths.iter().next()).map_or(Duration::MAX, |path| path.rtt())
}
