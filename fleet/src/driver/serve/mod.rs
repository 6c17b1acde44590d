//! The HTTP interfaces of the node: functions over TCP and a Unix socket, management over the socket.
//!
//! ```text
//! table       every route, once            openapi   the document made of it, with schema
//! listen      TCP and Unix sockets         connection  accepting, serving, ending
//! room        which connection gives way
//! guard       who may speak over TCP       token     the bearer token
//! answer      one request                  body      what requests and answers carry
//! v1, manage  the management interface     prometheus  /metrics
//! ```
//!
//! **Architecture invariants.** `/v1` is never answered over TCP. No body is read beyond its limit. A
//! call takes no lock that another call could hold for long.

mod answer;
mod body;
mod connection;
mod guard;
mod listen;
pub mod manage;
mod openapi;
mod prometheus;
mod room;
mod schema;
mod table;
mod token;
mod v1;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use listen::{ListenError, validate_listen};
pub use token::{Token, TokenError};

use self::answer::Via;
use self::body::Budget;
use self::connection::{Listener, Terms};
use self::guard::Guard;
use self::listen::UnixSocket;
use self::manage::Manage;
use super::dispatch::Dispatcher;
use super::limits::{CONNECTIONS_MAX, HEAD_TIMEOUT};
use super::metrics::{Gauges, Metrics};

/// What the node is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// It replays its journal and prepares functions.
    Starting,
    /// It takes calls.
    Serving,
    /// Others take over what it serves, or have; calls that come are passed on.
    Draining,
    /// It takes calls; the disk refuses writes.
    ReadOnly,
}

impl State {
    /// The word for it, as in [`Status::state`](crate::api::Status::state).
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::ReadOnly => "read-only",
        }
    }

    /// Why it takes no calls.
    fn refusal(self) -> Option<&'static str> {
        match self {
            Self::Serving | Self::ReadOnly => None,
            Self::Starting => Some("The node is starting: it reads its ledger and prepares its functions."),
            Self::Draining => Some("The node is draining: others take over what it serves."),
        }
    }
}

/// The [`State`], shared by who sets it and who shows it.
#[derive(Debug, Default)]
pub struct NodeState(AtomicU8);

impl NodeState {
    /// Sets the state. A node whose disk refuses writes does not get back to [`State::Serving`].
    pub fn set(&self, state: State) {
        let next = |now| (now != State::ReadOnly as u8 || state != State::Serving).then_some(state as u8);
        // Where there is nothing to set, it stays.
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
    }

    /// The disk refuses writes. Who drains goes on with that.
    pub fn fail(&self) {
        if self.get() != State::Draining {
            self.set(State::ReadOnly);
        }
    }

    /// The state.
    #[must_use]
    pub fn get(&self) -> State {
        match self.0.load(Ordering::Acquire) {
            1 => State::Serving,
            2 => State::Draining,
            3 => State::ReadOnly,
            _ => State::Starting,
        }
    }
}

/// Where and how to listen.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// The TCP address of the functions' interface; port 0 takes a free one. `None`: no TCP.
    pub http: Option<SocketAddr>,
    /// Asked for over TCP, where given. Needed to listen on more than loopback.
    pub token: Option<Token>,
    /// The Unix socket. Its folder must be there. `None`: no management interface.
    pub socket: Option<PathBuf>,
    /// Open connections, of each listener; a few more may ask for health. Default [`CONNECTIONS_MAX`].
    pub connections_max: usize,
    /// Longest wait for a request's head. Default [`HEAD_TIMEOUT`].
    pub head_timeout: Duration,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            http: None,
            token: None,
            socket: None,
            connections_max: CONNECTIONS_MAX,
            head_timeout: HEAD_TIMEOUT,
        }
    }
}

/// What the interfaces are made of.
#[derive(Clone)]
pub struct Parts {
    /// Calls functions.
    pub dispatcher: Arc<Dispatcher>,
    /// Performs what `/v1` asks.
    pub manage: Arc<dyn Manage>,
    /// Knows the node's figures.
    pub gauges: Arc<dyn Gauges>,
    /// Counts calls; the same that [`Routes`](super::routes::Routes) are built with.
    pub metrics: Arc<Metrics>,
    /// What `/readyz` says.
    pub state: Arc<NodeState>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("state", &self.state.get()).finish_non_exhaustive()
    }
}

/// Connections go on.
const RUNNING: u8 = 0;
/// Connections end after the request that they are at.
const STOPPING: u8 = 1;
/// Connections end now.
const ENDED: u8 = 2;

/// What all connections share.
struct Shared {
    dispatcher: Arc<Dispatcher>,
    manage: Arc<dyn Manage>,
    gauges: Arc<dyn Gauges>,
    metrics: Arc<Metrics>,
    state: Arc<NodeState>,
    bodies: Budget,
    openapi: Bytes,
    phase: AtomicU8,
    stop: CancellationToken,
    end: CancellationToken,
    tasks: TaskTracker,
}

/// The running interfaces. Dropping it ends them at once; [`shutdown`](Self::shutdown) does it well.
pub struct Server {
    shared: Arc<Shared>,
    http: Option<SocketAddr>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("http", &self.http).finish_non_exhaustive()
    }
}

impl Server {
    /// Opens the listeners and serves them.
    ///
    /// # Errors
    /// [`ListenError`]; then nothing is left open.
    pub async fn start(config: ServeConfig, parts: Parts) -> Result<Self, ListenError> {
        let Parts { dispatcher, manage, gauges, metrics, state } = parts;
        let tcp = match config.http {
            Some(addr) => {
                validate_listen(addr, config.token.as_ref())?;
                Some(listen::tcp(addr)?)
            }
            None => None,
        };
        let unix = match &config.socket {
            Some(path) => Some(UnixSocket::bind(path).await?),
            None => None,
        };
        let shared = Arc::new(Shared {
            dispatcher,
            manage,
            gauges,
            metrics,
            state,
            bodies: Budget::new(),
            openapi: Bytes::from(openapi::document().to_string()),
            phase: AtomicU8::new(RUNNING),
            stop: CancellationToken::new(),
            end: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let terms = Terms { connections_max: config.connections_max, head_timeout: config.head_timeout };
        let mut http = None;
        if let (Some(listener), Some(asked)) = (tcp, config.http) {
            let addr = listener.local_addr().map_err(|source| ListenError::Tcp { addr: asked, source })?;
            http = Some(addr);
            let via = Via::Tcp(Arc::new(Guard::new(addr, config.token)));
            let listener = Listener::Tcp(listener);
            shared.tasks.spawn(connection::accept(listener, via, terms, Arc::clone(&shared)));
        }
        if let Some(socket) = unix {
            let listener = Listener::Unix(socket);
            shared.tasks.spawn(connection::accept(listener, Via::Unix, terms, Arc::clone(&shared)));
        }
        shared.tasks.close();
        Ok(Self { shared, http })
    }

    /// The TCP address, with the port that was taken.
    #[must_use]
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Accepts no more connections, lets running requests finish for so long, and ends the rest.
    /// Returns how many connections were cut.
    pub async fn shutdown(self, within: Duration) -> usize {
        let shared = &self.shared;
        shared.phase.store(STOPPING, Ordering::Release);
        shared.stop.cancel();
        if tokio::time::timeout(within, shared.tasks.wait()).await.is_ok() {
            return 0;
        }
        let cut = shared.tasks.len();
        shared.phase.store(ENDED, Ordering::Release);
        shared.end.cancel();
        shared.tasks.wait().await;
        cut
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.phase.store(ENDED, Ordering::Release);
        self.shared.stop.cancel();
        self.shared.end.cancel();
    }
}
