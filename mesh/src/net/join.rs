//! `osiris/join/1`, the newcomer's side.

use std::{net::SocketAddr, time::Duration};

use iroh::{
    Endpoint,
    endpoint::{Connection, VarInt},
};
use osiris_protocol::{
    PeerAddr,
    alpn::{self, code},
    frame::{self, PREFIX_BYTES},
    join::{JoinReply, JoinRequest, RefusalCode, Welcome},
    limits::{JOIN_FRAME_BYTES_MAX, TICKET_PEERS_MAX},
    ticket::JoinTicket,
};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

use super::{
    bind::{self, close_code, describe_close, endpoint_addr, endpoint_id},
    config::{MeshConfig, MeshError},
};
use crate::{
    PeerId,
    limits::{DIAL_TIMEOUT, JOIN_SERVE_TIMEOUT, JOIN_TIMEOUT},
};

/// How long closing the endpoint may take.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(300);

/// Why one of the ticket's nodes did not admit the newcomer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinAttempt {
    /// The node.
    pub peer: PeerId,
    /// Where it was tried.
    pub addrs: Vec<SocketAddr>,
    /// What happened.
    pub why: String,
}

impl std::fmt::Display for JoinAttempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let addrs: Vec<String> = self.addrs.iter().map(ToString::to_string).collect();
        write!(f, "{:?} at {}: {}", self.peer, addrs.join(", "), self.why)
    }
}

/// Why a device did not join.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The ticket names no node.
    #[error("the ticket names no node to join through; ask for a new one")]
    NoPeers,
    /// The ticket is bound to another device.
    #[error("the ticket is for another device; ask for one for this device, {this}")]
    OtherDevice {
        /// This device's key.
        this: PeerId,
    },
    /// A node looked at the invitation and refused it.
    #[error("the fleet refused the invitation: {message}")]
    Refused {
        /// The reason, for programs.
        code: RefusalCode,
        /// The reason and the next step, for people.
        message: String,
    },
    /// No node answered.
    #[error("no node of the ticket admitted this device ({}); check that one runs and can be reached", list(.attempts))]
    Unreachable {
        /// What happened with each node.
        attempts: Vec<JoinAttempt>,
    },
    /// This device cannot use the network as configured.
    #[error(transparent)]
    Local(#[from] MeshError),
}

fn list(attempts: &[JoinAttempt]) -> String {
    let texts: Vec<String> = attempts.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

/// Joins a fleet with a ticket. `proof` is the invitation key's signature, as the ledger defines it,
/// and `label` the device's name, for people.
///
/// The ticket's nodes are dialled side by side. The request goes to one at a time, in the order in
/// which they answer, because an invitation may be good for one use only; a node that is busy or
/// does not know the invitation yet passes it on to the next. When a connection breaks after the
/// request was sent, the next node is asked: admitting the same device twice with the same
/// invitation has to be harmless.
///
/// This uses an endpoint of its own, on a free port, and closes it. `config.known` is not used.
///
/// # Errors
/// [`JoinError`]; each node's failure is named.
pub async fn join(
    config: MeshConfig,
    ticket: &JoinTicket,
    proof: [u8; 64],
    label: &str,
) -> Result<Welcome, JoinError> {
    config.validate()?;
    if ticket.peers.is_empty() {
        return Err(JoinError::NoPeers);
    }
    // The port of the node to come stays free for it; the interface is the same.
    let bind = config.bind.map(|addr| SocketAddr::new(addr.ip(), 0));
    let endpoint = bind::bind(bind::builder(&config, bind)?, bind).await?;
    let this = bind::peer_id(&endpoint.id());
    let joined = if ticket.device.is_some_and(|device| device != this.to_bytes()) {
        Err(JoinError::OtherDevice { this })
    } else {
        let request = JoinRequest {
            fleet: ticket.fleet,
            invitation: ticket.invitation,
            proof,
            label: label.to_owned(),
            addrs: addrs_to_come(&config),
        };
        ask_all(&endpoint, ticket, &request).await
    };
    // Every answer has been read by now. Dials to dead addresses would hold the end up for seconds.
    let _ = timeout(CLOSE_TIMEOUT, endpoint.close()).await;
    joined
}

/// Where the node will listen, as far as that is known before it runs.
fn addrs_to_come(config: &MeshConfig) -> Vec<SocketAddr> {
    if !config.advertise.is_empty() {
        return config.advertise.clone();
    }
    let fixed = config.bind.filter(|addr| addr.port() != 0 && !addr.ip().is_unspecified());
    fixed.into_iter().collect()
}

async fn ask_all(
    endpoint: &Endpoint,
    ticket: &JoinTicket,
    request: &JoinRequest,
) -> Result<Welcome, JoinError> {
    let deadline = Instant::now() + JOIN_TIMEOUT;
    let mut dials = JoinSet::new();
    for peer in ticket.peers.iter().take(TICKET_PEERS_MAX) {
        let (endpoint, peer) = (endpoint.clone(), peer.clone());
        dials.spawn(async move {
            let connected = dial(&endpoint, &peer).await;
            (peer, connected)
        });
    }
    let mut attempts = Vec::new();
    let mut refused = None;
    while let Some(dialled) = dials.join_next().await {
        let Ok((peer, connected)) = dialled else {
            continue;
        };
        let answered = match connected {
            Ok(conn) => timeout_at(deadline, ask(&conn, request))
                .await
                .unwrap_or_else(|_| Err("it did not answer in time".to_owned())),
            Err(why) => Err(why),
        };
        let why = match answered {
            Ok(JoinReply::Welcome(welcome)) => return Ok(welcome),
            Ok(JoinReply::Refused(refusal)) if !refusal.code.is_transient() => {
                return Err(JoinError::Refused { code: refusal.code, message: refusal.message });
            }
            Ok(JoinReply::Refused(refusal)) => {
                let why = refusal.message.clone();
                refused = Some(refusal);
                why
            }
            Err(why) => why,
        };
        attempts.push(JoinAttempt { peer: PeerId::from_bytes(peer.peer), addrs: peer.addrs, why });
    }
    match (refused, attempts.len()) {
        (Some(refusal), 1) => Err(JoinError::Refused { code: refusal.code, message: refusal.message }),
        _ => Err(JoinError::Unreachable { attempts }),
    }
}

/// Asks one node.
pub(super) async fn ask_one(
    endpoint: &Endpoint,
    peer: &PeerAddr,
    request: &JoinRequest,
) -> Result<JoinReply, String> {
    let conn = dial(endpoint, peer).await?;
    ask(&conn, request).await
}

async fn dial(endpoint: &Endpoint, peer: &PeerAddr) -> Result<Connection, String> {
    let id = endpoint_id(&PeerId::from_bytes(peer.peer))
        .ok_or_else(|| "its key is not an Ed25519 key".to_owned())?;
    let addr = endpoint_addr(id, peer.addrs.iter().copied());
    match timeout(DIAL_TIMEOUT, endpoint.connect(addr, alpn::JOIN)).await {
        Ok(Ok(conn)) => Ok(conn),
        Ok(Err(error)) => Err(format!("{error:#}")),
        Err(_) => Err("it does not answer".to_owned()),
    }
}

async fn ask(conn: &Connection, request: &JoinRequest) -> Result<JoinReply, String> {
    let bytes = request.encode().map_err(|error| error.to_string())?;
    let talk = async {
        let (mut send, mut recv) = conn.open_bi().await.ok()?;
        send.write_all(&bytes).await.ok()?;
        let _ = send.finish();
        let mut prefix = [0; PREFIX_BYTES];
        recv.read_exact(&mut prefix).await.ok()?;
        let len = frame::declared_len(prefix, JOIN_FRAME_BYTES_MAX).ok()?;
        let mut payload = vec![0; len];
        recv.read_exact(&mut payload).await.ok()?;
        Some(payload)
    };
    let Ok(answer) = timeout(JOIN_SERVE_TIMEOUT, talk).await else {
        return Err("it did not answer in time".to_owned());
    };
    let reply = match (answer, conn.close_reason()) {
        (Some(payload), _) => JoinReply::decode(&payload).map_err(|error| error.to_string()),
        (None, Some(reason)) if close_code(&reason) == Some(code::BUSY) => Ok(JoinReply::refused(
            RefusalCode::Busy,
            "Too many devices are joining through this node; try again in a minute.",
        )),
        (None, Some(reason)) => Err(describe_close(&reason)),
        (None, None) => Err("its answer was cut or is too long".to_owned()),
    };
    conn.close(VarInt::from_u32(code::DONE), b"done");
    reply
}
