//! A running node: core, journal, mesh, functions and servers, from start to a clean end.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use osiris_ledger::{BlobHash, SigningKey};
use osiris_mesh::{Mesh, MeshConfig, MeshError, MeshEvents, PeerId};
use osiris_protocol::PeerAddr;
use osiris_runtime::{Runtime, RuntimeConfig};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use super::{
    desk::{Desk, absolute},
    dispatch::Dispatcher,
    engine::Engine,
    error::DriverError,
    folder::{Folder, random},
    hosting::Hosting,
    inspect::blocks::Waiting,
    limits::{DRAIN_TIMEOUT, START_PATIENCE, UPKEEP_FIRST, UPKEEP_INTERVAL},
    load,
    manage::{FOREIGN_KEY_NEXT, Management, foreign_key},
    metrics::Metrics,
    open::{Clock, Opened},
    provision::{Kept, ProvisionOptions, Provisioner},
    routes::Routes,
    serve::{self, NodeState, State, Token, validate_listen},
    services::{MeshSlot, NodeServices, ViewRoster},
    store::{Journal, JournalThread},
};
use crate::{
    api::codes,
    node::{Config, Input, Node, PageRules, Retain},
    policy::Terms,
};

/// What a node is run with.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The data folder.
    pub data: PathBuf,
    /// The management socket; see [`super::socket_path`].
    pub socket: PathBuf,
    /// Where HTTP listens; port 0 takes any.
    pub http: SocketAddr,
    /// Where the mesh listens; all interfaces where none is given.
    pub mesh: Option<SocketAddr>,
    /// Addresses that tickets and other members are given instead of the interfaces' own.
    pub advertise: Vec<SocketAddr>,
    /// A file with one bearer token; needed for HTTP on any address but loopback.
    pub token_file: Option<PathBuf>,
    /// Whether entries are hinted by gossip. Off only in tests: anti-entropy alone must suffice.
    pub gossip: bool,
    /// What is kept of blocks that sealed pages list.
    pub retain: Retain,
    /// Machines that the fleet may have made for this node to make another; 0: it makes none.
    pub machines: u32,
    /// What it makes them with; none: it makes none.
    pub provision: Option<ProvisionOptions>,
    /// By what this node decides about replicas and machines; they were validated.
    pub terms: Terms,
}

/// Where a running node can be reached.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// HTTP.
    pub http: SocketAddr,
    /// Management.
    pub socket: PathBuf,
    /// Mesh.
    pub mesh: Vec<SocketAddr>,
    /// The device's key, hex.
    pub device: String,
    /// The fleet's id, hex.
    pub fleet: String,
    /// What people should know of the start, in sentences.
    pub warnings: Vec<String>,
}

/// A process's engine and desk over an open folder, with or without a network.
pub(crate) struct Process {
    /// Ends before the folder's lock is let go: its journal is written to until then.
    pub(crate) engine: Engine,
    pub(crate) folder: Folder,
    pub(crate) desk: Arc<Desk>,
    pub(crate) warnings: Vec<String>,
    /// What is wrong with the journal, where the folder is only read.
    pub(crate) problems: Vec<String>,
    /// Whether the journal lacks blocks that it held, or may, until another member holds the same ones: who belongs may
    /// be among them.
    lacks: bool,
    waiting: Waiting,
    secret: [u8; 32],
    mesh_slot: MeshSlot,
    roster_views: Arc<ArcSwap<osiris_ledger::View>>,
}

impl Process {
    /// Makes the engine. `serves` says whether this process runs functions, and so seals and drops blocks, too.
    pub(crate) fn new(opened: Opened, serves: bool, retain: Retain) -> Result<Self, DriverError> {
        let clock = Clock::start();
        let seed = u64::from_le_bytes(random()?);
        let Opened { folder, journal, ledger, writer, library, warnings, problems, lacks, waiting } = opened;
        let secret = folder.device_key()?.to_bytes();
        let confirmed = folder.confirmed();
        let (fleet, views, me) = (ledger.fleet(), ledger.views(), writer.author());
        // What the journal holds and cannot judge yet would be lost with a journal that is written anew.
        let retain = if lacks || !waiting.is_empty() { Retain::All } else { retain };
        let pages = PageRules { works: serves, retain, ..PageRules::default() };
        let config = Config { serves, seed, confirmed, idle_work: serves, pages };
        let node = Node::new(clock.now(), &config, ledger, writer);
        let state = Arc::new(NodeState::default());
        let metrics = Arc::new(Metrics::default());
        let (engine, handle) = Engine::new(
            node,
            clock,
            library.clone(),
            Arc::clone(&metrics),
            journal.map_or_else(JournalThread::none, Journal::spawn),
            Arc::clone(&state),
            Kept::new(folder.path()),
        );
        let desk = Desk {
            handle,
            views: Arc::clone(&views),
            library,
            sweep: Arc::default(),
            waiting: waiting.clone(),
            metrics,
            me,
            fleet,
            data: absolute(folder.path()),
            clock,
            known: folder.peers(),
            mesh: OnceLock::new(),
            hosting: OnceLock::new(),
            http: OnceLock::new(),
            state,
            stop: Arc::new(Notify::new()),
        };
        desk.sweep.hold_back(lacks);
        Ok(Self {
            folder,
            engine,
            desk: Arc::new(desk),
            warnings,
            problems,
            lacks,
            waiting,
            secret,
            mesh_slot: MeshSlot::default(),
            roster_views: views,
        })
    }

    /// Whether blocks are missing that the journal held, or may be.
    pub(crate) fn lacks(&self) -> bool {
        self.lacks
    }

    /// Joins the mesh.
    pub(crate) async fn connect(
        &mut self,
        bind: Option<SocketAddr>,
        advertise: Vec<SocketAddr>,
        gossip: bool,
        bootstrap: Vec<PeerAddr>,
        dispatcher: Option<Arc<Dispatcher>>,
    ) -> Result<MeshEvents, DriverError> {
        let mut config = MeshConfig::new(self.secret, self.desk.fleet.0);
        config.bind = bind;
        let advertises = !advertise.is_empty();
        config.advertise = advertise;
        config.gossip = gossip;
        config.known = self.folder.peers();
        config.known.extend(bootstrap.iter().cloned());
        let told = if self.lacks { &config.known } else { &bootstrap };
        let told: BTreeSet<_> = told.iter().map(|peer| PeerId::from_bytes(peer.peer)).collect();
        let roster = ViewRoster {
            me: self.desk.me,
            views: Arc::clone(&self.roster_views),
            told,
            lost: self.engine.lost(),
        };
        let services = NodeServices {
            views: Arc::clone(&self.roster_views),
            handle: self.desk.handle.clone(),
            library: self.desk.library.clone(),
            sweep: Arc::clone(&self.desk.sweep),
            inputs: self.engine.inputs(),
            dispatcher: dispatcher.clone(),
            mesh: Arc::clone(&self.mesh_slot),
            fleet: self.desk.fleet.0,
        };
        // After a power cut every node comes back at once: each is found where it was.
        config.port = self.folder.mesh_port();
        let (roster, services) = (Arc::new(roster), Arc::new(services));
        let first = Mesh::spawn(config.clone(), roster.clone(), services.clone()).await;
        let spawned = match first {
            Err(MeshError::Bind { .. }) if config.port.take().is_some() => {
                Mesh::spawn(config, roster, services).await
            }
            other => other,
        };
        let (mesh, events) = spawned.map_err(|error| mesh_error(&error))?;
        // An advertised port is another machine's.
        let own = mesh.addresses().iter().map(SocketAddr::port).find(|port| *port != 0 && !advertises);
        if let Some(port) = own {
            self.folder.save_mesh_port(port)?;
        }
        self.mesh_slot.store(Some(Arc::new(mesh.clone())));
        let _ = self.desk.mesh.set(mesh.clone());
        if let Some(dispatcher) = dispatcher {
            dispatcher.connect(mesh.clone());
        }
        self.engine.mesh = Some(mesh);
        Ok(events)
    }

    /// Ends cleanly: durable writes, addresses kept, mesh closed.
    pub(crate) async fn close(mut self) -> Result<(), DriverError> {
        self.engine.settle().await;
        self.mesh_slot.store(None);
        let mesh = self.engine.mesh.take();
        if let Some(mesh) = &mesh {
            save_peers(&self.folder, mesh)?;
            // A member that was dialled in vain must not hold up the end.
            let connected = mesh.peers().iter().any(|peer| peer.connected);
            let patience = if connected { MESH_CLOSE } else { MESH_CLOSE_ALONE };
            let _ = tokio::time::timeout(patience, mesh.shutdown()).await;
        }
        self.folder.save_confirmed(&self.engine.node.confirmed())
    }
}

pub(crate) fn mesh_error(error: &MeshError) -> DriverError {
    DriverError::new(
        codes::CONFLICT,
        format!("The mesh cannot start: {error}."),
        "Choose another address with `--mesh ADDR`, or port 0 for any free one.",
    )
}

fn save_peers(folder: &Folder, mesh: &Mesh) -> Result<(), DriverError> {
    let mut book = mesh.address_book();
    book.sort();
    if book.is_empty() || book == folder.peers() {
        return Ok(());
    }
    folder.save_peers(&book)
}

/// Runs a node until SIGTERM, SIGINT or `POST /v1/shutdown`; then drains and ends.
///
/// # Errors
/// [`DriverError`] where the node cannot start; what happens later is logged and repaired.
pub async fn run(options: RunOptions, ready: impl FnOnce(&Addresses)) -> Result<(), DriverError> {
    let token = options.token_file.as_deref().map(Token::read).transpose();
    let token = token.map_err(|error| DriverError::new(error.code(), error.to_string(), &error.next()))?;
    validate_listen(options.http, token.as_ref())
        .map_err(|error| listen_error(codes::BAD_REQUEST, &error))?;
    let until = Instant::now() + START_PATIENCE;
    let mut opened = loop {
        match Opened::open_founded(&options.data) {
            // A command lets go of the folder in a moment. A node that listens does not.
            Err(error) if error.is_in_use() && Instant::now() < until && !listens(&options.socket).await => {
                tokio::time::sleep(LOOK).await;
            }
            opened => break opened?,
        }
    };
    let (view, me) = (opened.ledger.publish(), opened.writer.author());
    // Its admission may be among what the journal lacks.
    if !opened.lacks && !view.members().contains_key(&me) {
        return Err(DriverError::new(codes::DENIED, foreign_key(&me), FOREIGN_KEY_NEXT));
    }
    run_opened(options, token, opened, ready).await
}

async fn listens(socket: &std::path::Path) -> bool {
    tokio::net::UnixStream::connect(socket).await.is_ok()
}

fn listen_error(code: (&'static str, u16), error: &serve::ListenError) -> DriverError {
    DriverError::new(code, error.to_string(), error.next())
}

/// The same over a folder that is open already.
pub(crate) async fn run_opened(
    options: RunOptions,
    token: Option<Token>,
    opened: Opened,
    ready: impl FnOnce(&Addresses),
) -> Result<(), DriverError> {
    // The log knows at once; people read the same on the terminal.
    for warning in &opened.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = Runtime::new(RuntimeConfig::new(opened.folder.cache())).map_err(|error| {
        DriverError::new(codes::INTERNAL, error.to_string(), "`osiris doctor` shows the limits.")
    })?;
    let mut process = Process::new(opened, true, options.retain)?;
    let desk = Arc::clone(&process.desk);
    let routes = Arc::new(ArcSwap::from_pointee(Routes::default()));
    let dispatcher = Arc::new(Dispatcher::new(Arc::clone(&routes), &desk.me));
    let view = desk.view();
    let hosting =
        Hosting::new(desk.me, runtime, desk.library.clone(), view, routes, Arc::clone(&desk.metrics));
    let hosting = Arc::new(hosting);
    let _ = desk.hosting.set(Arc::clone(&hosting));
    let inputs = process.engine.inputs();
    let bell = inputs.clone();
    dispatcher.wake_by(move |function| drop(bell.try_send(Input::Called(function.to_owned()))));
    let load = tokio::spawn(load::publish(desk.data.clone(), Arc::clone(&hosting), inputs));
    let load = AbortOnDropHandle::new(load);
    process.engine.hosting = Some(hosting);
    process.engine.node.set_terms(options.terms);
    // Without anything to make one with, a lease would come to nothing.
    if let Some(provision) = &options.provision {
        process.engine.node.allow_machines(options.machines);
        process.engine.node.provision(Some(provision.for_core(&process.secret)));
        process.engine.provision(Provisioner::new(
            provision.clone(),
            Arc::clone(&desk),
            SigningKey::from_bytes(&process.secret),
        ));
    }
    let mut events = process
        .connect(
            options.mesh,
            options.advertise.clone(),
            options.gossip,
            Vec::new(),
            Some(Arc::clone(&dispatcher)),
        )
        .await?;
    let management = Arc::new(Management::new(Arc::clone(&desk)));
    let config = serve::ServeConfig {
        http: Some(options.http),
        token,
        socket: Some(options.socket.clone()),
        ..serve::ServeConfig::default()
    };
    let parts = serve::Parts {
        dispatcher: Arc::clone(&dispatcher),
        manage: management.clone(),
        gauges: management,
        metrics: Arc::clone(&desk.metrics),
        state: Arc::clone(&desk.state),
    };
    let server = serve::Server::start(config, parts).await;
    let server = server.map_err(|error| listen_error(codes::CONFLICT, &error))?;
    let http = server.http_addr().unwrap_or(options.http);
    let _ = desk.http.set(http.to_string());
    process.engine.start().await;
    desk.state.set(State::Serving);
    // From here on a signal is heard: whoever is told that the node is ready may send one at once.
    let stopping = stop_asked(desk.stop.notified());
    ready(&Addresses {
        http,
        socket: options.socket,
        mesh: desk.mesh.get().map(Mesh::addresses).unwrap_or_default(),
        device: desk.me.to_string(),
        fleet: desk.fleet.to_string(),
        warnings: process.warnings.clone(),
    });
    process.run_until(&mut events, stopping).await?;
    tracing::info!("stopping: no new calls, running ones end");
    desk.state.set(State::Draining);
    process.engine.stopping().await;
    let provisioner = process.engine.provisioner.take();
    // The engine goes on while calls end: a call may wait for the core.
    let drained = async {
        let provisioned = async {
            if let Some(provisioner) = provisioner {
                provisioner.stop().await;
            }
        };
        let served = async {
            server.shutdown(DRAIN_TIMEOUT).await;
            if let Some(hosting) = desk.hosting.get() {
                hosting.drain(DRAIN_TIMEOUT).await;
            }
        };
        tokio::join!(provisioned, served);
    };
    process.engine.run(&mut events, drained).await;
    dispatcher.disconnect();
    // Its page is gone before the node says that it has ended.
    load.abort();
    let _ = load.await;
    process.close().await
}

impl Process {
    /// Removes components, their compiled code and manifests that nothing has used for a while. The core does
    /// nothing meanwhile, so it never counts on what is being removed.
    async fn sweep(&mut self, now: Instant) {
        let node = &self.engine.node;
        self.lacks &= !node.has_agreed();
        self.waiting = self.waiting.left(node.ledger());
        self.desk.sweep.hold_back(self.lacks || !self.waiting.is_empty());
        self.desk.sweep.rely_on(node.ledger().pages().map(|page| page.hash()));
        let removed = self.desk.sweep.look(now, &self.desk.view(), &self.desk.library);
        for hash in removed {
            tracing::info!(%hash, "bytes that no revision uses any more were removed");
            if let Some(hosting) = self.desk.hosting.get()
                && let Err(error) = hosting.runtime().forget(hash)
            {
                tracing::warn!(%error, "compiled code that nothing uses could not be removed");
            }
            self.engine.blob_gone(BlobHash(hash.0)).await;
        }
    }

    /// Runs, and now and then keeps what it learnt of members' addresses and of confirmed blocks, and removes
    /// what is unused.
    async fn run_until(
        &mut self,
        events: &mut MeshEvents,
        until: impl Future<Output = ()>,
    ) -> Result<(), DriverError> {
        tokio::pin!(until);
        // Early at first: a node that is killed soon after its start has to find the others again.
        let mut interval = UPKEEP_FIRST;
        loop {
            let pause = tokio::time::sleep(interval);
            interval = interval.saturating_mul(2).min(UPKEEP_INTERVAL);
            let ended = self
                .engine
                .run(events, async {
                    tokio::select! {
                        () = &mut until => true,
                        () = pause => false,
                    }
                })
                .await;
            if ended {
                return Ok(());
            }
            if let Some(mesh) = &self.engine.mesh
                && let Err(error) = save_peers(&self.folder, mesh)
            {
                tracing::warn!(%error, "the addresses of members were not kept");
            }
            if let Err(error) = self.folder.save_confirmed(&self.engine.node.confirmed()) {
                tracing::warn!(%error, "it was not kept which blocks other members have seen");
            }
            self.sweep(Instant::now()).await;
        }
    }
}

/// What ends the node; signals are heard from now on, and not only once this is waited for.
fn stop_asked(asked: impl Future<Output = ()>) -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).expect("a signal can be waited for");
    let mut interrupt = signal(SignalKind::interrupt()).expect("a signal can be waited for");
    async move {
        tokio::select! {
            () = asked => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

/// Longest wait for the mesh to say goodbye: with members connected, and with none. Goodbyes go out at
/// once; what takes longer is waiting for members that are dialled in vain.
const MESH_CLOSE: Duration = Duration::from_millis(700);
const MESH_CLOSE_ALONE: Duration = Duration::from_millis(200);
/// The pause between looks at a condition that no event announces.
pub(crate) const LOOK: Duration = Duration::from_millis(25);

/// Events of a process without a network: none.
pub(crate) fn no_events() -> MeshEvents {
    MeshEvents::none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{InitOptions, init, limits::UNUSED_KEPT};

    const SUMMARY: &[u8] = osiris_examples::SUMMARY;
    const CHART: &[u8] = osiris_examples::CHART;

    impl Process {
        /// Runs functions, without a network or servers.
        fn host(&mut self) {
            let config = RuntimeConfig {
                pool: osiris_runtime::PoolSize::Small,
                ..RuntimeConfig::new(self.folder.cache())
            };
            let desk = &self.desk;
            let hosting = Hosting::new(
                desk.me,
                Runtime::new(config).expect("a runtime"),
                desk.library.clone(),
                desk.view(),
                Arc::default(),
                Arc::clone(&desk.metrics),
            );
            let hosting = Arc::new(hosting);
            let _ = desk.hosting.set(Arc::clone(&hosting));
            self.engine.hosting = Some(hosting);
        }

        async fn deploy(&mut self, component: &'static [u8], version: &str) -> crate::api::Deployed {
            let mut manifest = crate::manifest::Manifest::named("f");
            manifest.version = Some(version.to_owned());
            let desk = Arc::clone(&self.desk);
            let work = async {
                let stored = desk.store(super::super::serve::manage::BlobKind::Component, component.into());
                let component = stored.await.expect("stored").hash;
                let deploy = crate::api::Deploy { component, manifest, timeout_ms: 60_000, wait: true };
                desk.deploy(deploy).await.expect("deployed")
            };
            self.engine.run(&mut no_events(), work).await
        }

        fn holds(&self, bytes: &[u8]) -> bool {
            self.desk.library.contains(osiris_runtime::ComponentHash::of(bytes))
        }

        fn compiled(&self) -> usize {
            std::fs::read_dir(self.folder.cache()).expect("the cache").count()
        }
    }

    /// A fleet of one node, which runs.
    async fn founded() -> (tempfile::TempDir, Process) {
        let dir = tempfile::tempdir().expect("a folder");
        let options = InitOptions { name: "sweep".to_owned(), label: "node".to_owned() };
        init(dir.path(), options).expect("founded");
        let mut process =
            Process::new(Opened::open(dir.path()).expect("opened"), true, Retain::All).expect("a process");
        process.host();
        process.engine.start().await;
        (dir, process)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_no_revision_uses_goes_after_a_while_and_not_what_is_wanted_again() {
        let (_dir, mut process) = founded().await;
        for (component, version) in [(SUMMARY, "1"), (CHART, "2"), (CHART, "3")] {
            assert!(process.deploy(component, version).await.live);
        }
        let start = Instant::now();
        process.sweep(start).await;
        process.sweep(start + UNUSED_KEPT).await;
        assert!(process.holds(SUMMARY), "one of the last three revisions");
        process.deploy(CHART, "4").await;
        let (blobs, compiled) = (process.desk.library.list().len(), process.compiled());
        assert_eq!(blobs, 2 + 4);
        process.sweep(start + UNUSED_KEPT).await;
        process.sweep(start + 2 * UNUSED_KEPT - Duration::from_millis(1)).await;
        assert!(process.holds(SUMMARY), "not yet");
        let desk = Arc::clone(&process.desk);
        let doctor = async { desk.doctor().await.expect("a doctor") };
        let doctor = process.engine.run(&mut no_events(), doctor).await;
        assert!(doctor.facts["unused in the library"].starts_with("2 blobs"), "{doctor:?}");
        process.sweep(start + 2 * UNUSED_KEPT).await;
        assert!(!process.holds(SUMMARY) && process.holds(CHART));
        assert_eq!(process.desk.library.list().len(), blobs - 2, "with its manifest");
        assert_eq!(process.compiled(), compiled - 1, "with its code");

        let removed = async { desk.remove("f".to_owned(), 0).await.expect("removed") };
        process.engine.run(&mut no_events(), removed).await;
        process.sweep(start + 2 * UNUSED_KEPT).await;
        // Somebody comes back with it just in time, and deploys it a little later.
        let put = async {
            let kind = super::super::serve::manage::BlobKind::Component;
            desk.store(kind, CHART.into()).await.expect("stored")
        };
        process.engine.run(&mut no_events(), put).await;
        process.sweep(start + 3 * UNUSED_KEPT).await;
        assert_eq!(process.desk.library.list().len(), 1, "no manifest is left");
        assert!(process.holds(CHART));
        assert!(process.deploy(CHART, "5").await.live);
        // What went comes back as if it had never been here.
        assert!(process.deploy(SUMMARY, "6").await.live);
    }

    /// Opens the folder and looks twice, ten minutes apart; whether the component is still there.
    async fn holds_after_looking(data: &std::path::Path) -> bool {
        let opened = Opened::open(data).expect("opened");
        let mut process = Process::new(opened, false, Retain::All).expect("a process");
        process.engine.start().await;
        let start = Instant::now();
        process.sweep(start).await;
        process.sweep(start + UNUSED_KEPT).await;
        process.holds(SUMMARY)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_goes_while_blocks_are_missing_that_may_name_it() {
        let (dir, mut process) = founded().await;
        assert!(process.deploy(SUMMARY, "1").await.live);
        process.close().await.expect("closed");
        let journal = dir.path().join("journal");
        let whole = std::fs::read(&journal).expect("the journal");
        let records = osiris_ledger::journal::scan(&whole, None).expect("a journal").records;
        let places: Vec<_> = records.iter().map(|record| record.offset).collect();
        assert!(places.len() >= 3, "the founding, the deploy, and that it is served");

        // The deploy is lost in the middle: what follows it waits.
        let mut flipped = whole.clone();
        flipped[places[1] + 60] ^= 1;
        std::fs::write(&journal, &flipped).expect("damaged");
        assert!(holds_after_looking(dir.path()).await, "now");
        std::fs::remove_file(dir.path().join("journal.damaged-1")).expect("looked at and removed");
        assert!(holds_after_looking(dir.path()).await, "as long as something waits for it");

        // It is lost at the end: until somebody says that this is settled.
        for name in ["journal", "journal.head"] {
            std::fs::remove_file(dir.path().join(name)).expect("removed");
        }
        std::fs::write(&journal, &whole).expect("put back");
        drop(Opened::open(dir.path()).expect("a new head"));
        std::fs::write(&journal, &whole[..places[1]]).expect("cut");
        assert!(holds_after_looking(dir.path()).await, "now");
        assert!(holds_after_looking(dir.path()).await, "and at the next start");
        std::fs::remove_file(dir.path().join("journal.cut-1")).expect("looked at and removed");
        assert!(!holds_after_looking(dir.path()).await, "nobody needs it");
    }
}
