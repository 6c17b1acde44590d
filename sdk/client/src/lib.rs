//! Call functions of an Osiris fleet by name, from an application.
//!
//! A [`Client`] has a device key that the fleet lets call, and a ticket or a list of nodes. It
//! connects to all of them side by side, keeps the nearest, and falls over to the next when that one
//! has gone.
//!
//! ```no_run
//! # async fn example() -> Result<(), osiris_client::ClientError> {
//! use osiris_client::Client;
//! use osiris_protocol::ticket::Ticket;
//!
//! let ticket: Ticket = "osiris…".parse().expect("a ticket");
//! let client = Client::connect([7; 32], ticket.peers()).await?;
//! let reply = client.call("hello", "world").await?;
//! println!("{}: {} bytes", reply.status, reply.body.len());
//! client.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! **At most once.** A call is sent to a second node only when the first had certainly not started
//! it: it was not sent whole, or was turned away. Otherwise the failure is yours to judge; see
//! [`ClientError::certainly_not_started`].

mod exchange;
pub mod limits;
mod nodes;

use std::time::Duration;

use bytes::Bytes;
use osiris_protocol::{
    PeerAddr,
    call::{CallMessage, CallMessageError, CallReply, CallRequest},
};
use tokio::time::{Instant, timeout, timeout_at};

use exchange::Exchange;
use nodes::Nodes;

/// Calls functions of one fleet. Cheap to clone; clones share the connections.
#[derive(Debug, Clone)]
pub struct Client {
    nodes: Nodes,
}

/// What happened with one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The node's key.
    pub node: [u8; 32],
    /// What happened.
    pub why: String,
}

/// A node as the client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// The node's key.
    pub node: [u8; 32],
    /// The round-trip time; `None` without a connection.
    pub rtt: Option<Duration>,
}

/// Why a call brought no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No node was named.
    #[error("there is no node to call; use a ticket that names one")]
    NoNodes,
    /// This device cannot use the network.
    #[error("cannot use the network ({why}); check the system's network and its limits")]
    Local {
        /// What the system said.
        why: String,
    },
    /// The request breaks a rule of the protocol and was not sent.
    #[error(transparent)]
    Invalid(CallMessageError),
    /// No node took the call. It has not been started.
    #[error("no node took the call ({}); check that one runs and lets this device call", list(.attempts))]
    NotTaken {
        /// What happened with each node, nearest first.
        attempts: Vec<Attempt>,
    },
    /// The deadline passed.
    #[error("no answer came within the deadline of {deadline_ms} ms")]
    Timeout {
        /// The deadline, milliseconds.
        deadline_ms: u32,
        /// Whether a node may have started the call.
        may_have_started: bool,
    },
    /// The connection broke after the call was sent: it may or may not have been performed.
    #[error("the connection was lost after the call was sent ({why}); it may have been performed")]
    Lost {
        /// What happened.
        why: String,
    },
    /// The node started the call and failed.
    #[error("the node failed while it performed the call; look at its log")]
    Failed,
    /// The reply is larger than one call can carry.
    #[error("the reply is too large for one call; ask for less")]
    ReplyTooLarge,
    /// The reply breaks a rule of the protocol.
    #[error("the reply breaks the protocol ({why}); check the node's version")]
    BadReply {
        /// The rule.
        why: CallMessageError,
    },
}

impl ClientError {
    /// Whether the function has certainly not been started, so that calling again cannot perform it
    /// twice.
    pub fn certainly_not_started(&self) -> bool {
        match self {
            Self::NoNodes | Self::Local { .. } | Self::Invalid(_) | Self::NotTaken { .. } => true,
            Self::Timeout { may_have_started, .. } => !may_have_started,
            Self::Lost { .. } | Self::Failed | Self::ReplyTooLarge | Self::BadReply { .. } => false,
        }
    }
}

fn list(attempts: &[Attempt]) -> String {
    let texts: Vec<String> = attempts
        .iter()
        .map(|attempt| {
            let [a, b, c, d, e, ..] = attempt.node;
            format!("{a:02x}{b:02x}{c:02x}{d:02x}{e:02x}: {}", attempt.why)
        })
        .collect();
    texts.join("; ")
}

impl Client {
    /// Connects to the nodes, all of them side by side, with the device's Ed25519 secret key. Takes
    /// as long as the first answer and a moment more, so that a nearer node is not missed.
    ///
    /// At most [`NODES_MAX`](limits::NODES_MAX) nodes are used.
    ///
    /// # Errors
    /// [`ClientError::NotTaken`] when no node can be reached, with each node's reason.
    pub async fn connect(device: [u8; 32], nodes: &[PeerAddr]) -> Result<Self, ClientError> {
        if nodes.is_empty() {
            return Err(ClientError::NoNodes);
        }
        let nodes = Nodes::bind(device, nodes).await?;
        let attempts = nodes.dial_all().await;
        if nodes.nearest().is_empty() {
            nodes.close().await;
            return Err(ClientError::NotTaken { attempts });
        }
        Ok(Self { nodes })
    }

    /// Calls a function with a body: `POST /`, 30 seconds to answer.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub async fn call(&self, function: &str, body: impl Into<Bytes>) -> Result<CallReply, ClientError> {
        self.request(CallRequest::new(function, body)).await
    }

    /// Makes a call at the nearest node, or at the next nearest when that one does not take it.
    ///
    /// # Errors
    /// [`ClientError`]; [`certainly_not_started`](ClientError::certainly_not_started) says whether
    /// the call may be repeated without a second thought.
    pub async fn request(&self, request: CallRequest) -> Result<CallReply, ClientError> {
        let parts = request.encode().map_err(ClientError::Invalid)?;
        let deadline_ms = request.deadline_ms;
        let deadline = Instant::now() + Duration::from_millis(deadline_ms.into());
        let exchange = Exchange::new(parts);
        timeout_at(deadline, self.take_to_nodes(&exchange)).await.unwrap_or_else(|_| {
            Err(ClientError::Timeout { deadline_ms, may_have_started: exchange.was_sent() })
        })
    }

    async fn take_to_nodes(&self, exchange: &Exchange) -> Result<CallReply, ClientError> {
        let mut attempts = Vec::new();
        // Every connection may have died of the same cause, such as sleep: dial once, at the start
        // when there is none, or when those that there were did not take the call.
        let mut dialled = false;
        loop {
            if self.nodes.nearest().is_empty() || !attempts.is_empty() {
                attempts.extend(self.nodes.dial_all().await);
                dialled = true;
            }
            for (node, conn) in self.nodes.nearest() {
                match exchange.with(&conn).await {
                    Ok(reply) => return Ok(reply),
                    Err(exchange::Failure::NotTaken { why, busy }) => {
                        if !busy {
                            self.nodes.forget(&node, &conn);
                        }
                        attempts.push(Attempt { node, why });
                    }
                    Err(exchange::Failure::Final(error)) => return Err(error),
                }
            }
            if dialled {
                return Err(ClientError::NotTaken { attempts });
            }
        }
    }

    /// The nodes, connected ones first, nearest first.
    pub fn nodes(&self) -> Vec<NodeStatus> {
        self.nodes.statuses()
    }

    /// Closes every connection. Calls under way are lost.
    pub async fn close(&self) {
        let _ = timeout(limits::CLOSE_TIMEOUT, self.nodes.close()).await;
    }
}
