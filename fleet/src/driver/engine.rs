//! Runs the core: takes what happens, performs what it decides.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use bytes::Bytes;
use osiris_ledger::{Author, BlobHash, Page, View, counter::Figures, op};
use osiris_mesh::{FetchError, Mesh, MeshEvent, MeshEvents, PeerId};
use osiris_protocol::join::JoinRequest;
use osiris_runtime::{ComponentHash, Library, LibraryError};
use tokio::{
    sync::{mpsc, oneshot},
    time::MissedTickBehavior,
};

use super::{
    hosting::Hosting,
    limits::HELD_BYTES_MAX,
    metrics::{HeldNow, Metrics},
    open::Clock,
    provision::{Kept, Provisioner},
    serve::NodeState,
    store::JournalThread,
};
use crate::{
    api::codes,
    manifest::Manifest,
    node::{Effect, Group, Input, Node, Outbox, ROW_INTERVAL, Refusal, Reply, Request, Step, Token},
};

/// Requests that wait for the core.
const REQUESTS: usize = 256;
/// How long connections of a member that left or was revoked stay open.
const GOODBYE: Duration = Duration::from_millis(250);
/// Shortest sleep of the machine that counts as one; below, two clocks were read one after the other.
const SUSPENDED_MIN: Duration = Duration::from_millis(100);
/// Results of tasks that wait for the core.
const INPUTS: usize = 256;

type Answer = oneshot::Sender<Result<Reply, Refusal>>;

/// Asks the core. Clones ask the same one.
#[derive(Clone, Debug)]
pub(crate) struct NodeHandle {
    requests: mpsc::Sender<(Request, Answer)>,
}

impl NodeHandle {
    /// Asks, and waits for the answer.
    pub(crate) async fn ask(&self, request: Request) -> Result<Reply, Refusal> {
        let (answer, answered) = oneshot::channel();
        let stopped = || Refusal::new(codes::UNAVAILABLE, "The node is stopping.", "Try another node.");
        self.requests.send((request, answer)).await.map_err(|_| stopped())?;
        answered.await.unwrap_or_else(|_| Err(stopped()))
    }
}

/// The engine of one process.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) node: Node,
    clock: Clock,
    requests: mpsc::Receiver<(Request, Answer)>,
    inputs: mpsc::Receiver<Input>,
    to_core: mpsc::Sender<Input>,
    answers: BTreeMap<Token, Answer>,
    next_token: Token,
    journal: JournalThread,
    outbox: Outbox,
    /// Why the journal failed, until the core is told.
    failure: Option<String>,
    /// What `/readyz` says.
    state: Arc<NodeState>,
    metrics: Arc<Metrics>,
    /// Active members at the last look.
    members: usize,
    library: Library,
    /// What the outside world offers, once it is there.
    pub(crate) mesh: Option<Mesh>,
    pub(crate) hosting: Option<Arc<Hosting>>,
    pub(crate) provisioner: Option<Arc<Provisioner>>,
    /// States of machines that spawners share.
    kept: Kept,
    /// What the core was told last of this process's functions.
    observed: Vec<(String, Figures)>,
    /// How long the machine had been suspended when the core was last called.
    asleep: Duration,
    /// Peers whose connection was lost: the mesh goes on dialling them.
    lost: Arc<ArcSwap<Vec<PeerId>>>,
}

impl Engine {
    pub(crate) fn new(
        node: Node,
        clock: Clock,
        library: Library,
        metrics: Arc<Metrics>,
        journal: JournalThread,
        state: Arc<NodeState>,
        kept: Kept,
    ) -> (Self, NodeHandle) {
        let (to_handle, requests) = mpsc::channel(REQUESTS);
        let (to_core, inputs) = mpsc::channel(INPUTS);
        let engine = Self {
            node,
            clock,
            requests,
            inputs,
            to_core,
            answers: BTreeMap::new(),
            next_token: 0,
            journal,
            outbox: Outbox::default(),
            failure: None,
            state,
            metrics,
            members: 0,
            library,
            mesh: None,
            hosting: None,
            provisioner: None,
            kept,
            observed: Vec::new(),
            asleep: Clock::asleep(),
            lost: Arc::default(),
        };
        (engine, NodeHandle { requests: to_handle })
    }

    /// Peers whose connection was lost, kept up to date.
    pub(crate) fn lost(&self) -> Arc<ArcSwap<Vec<PeerId>>> {
        Arc::clone(&self.lost)
    }

    /// How tasks tell the core what they found out.
    pub(crate) fn inputs(&self) -> mpsc::Sender<Input> {
        self.to_core.clone()
    }

    /// Tells the core what the library holds, and that effects can be performed.
    pub(crate) async fn start(&mut self) {
        for (hash, _) in self.library.list() {
            self.handle(Input::BlobHeld(BlobHash(hash.0))).await;
        }
        let kept = self.kept.read();
        if !kept.is_empty() {
            self.handle(Input::StatesKept(kept)).await;
        }
        self.handle(Input::Start).await;
    }

    /// Handles what happens until `until` resolves.
    pub(crate) async fn run<T>(&mut self, events: &mut MeshEvents, until: impl Future<Output = T>) -> T {
        tokio::pin!(until);
        let mut look = tokio::time::interval(ROW_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let deadline = self.node.deadline().map(|deadline| self.clock.instant(deadline));
            let due = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                ended = &mut until => return ended,
                Some(acknowledged) = self.journal.acknowledged.recv() => self.acknowledge(acknowledged).await,
                Some((request, answer)) = self.requests.recv() => self.request(request, answer).await,
                // While the disk lags, peers are not listened to: their links fill and they wait.
                Some(event) = events.recv(), if self.outbox.frame_bytes_held() < HELD_BYTES_MAX => self.event(event).await,
                Some(input) = self.inputs.recv() => self.handle(input).await,
                () = due => self.handle(Input::Tick).await,
                _ = look.tick(), if self.hosting.is_some() => self.observe().await,
            }
        }
    }

    /// Tells the core what functions do here, where that changed.
    async fn observe(&mut self) {
        let Some(figures) = self.hosting.as_ref().map(|hosting| hosting.figures()) else { return };
        if figures != self.observed {
            self.observed.clone_from(&figures);
            self.handle(Input::Observed(figures)).await;
        }
    }

    pub(super) async fn event(&mut self, event: MeshEvent) {
        let input = match event {
            MeshEvent::PeerUp { peer } => Input::PeerUp(peer),
            MeshEvent::PeerDown { peer, .. } => Input::PeerDown(peer),
            MeshEvent::Frame { peer, bytes } => Input::Frame(peer, bytes.to_vec()),
            MeshEvent::Hint { bytes } => Input::Hint(bytes.to_vec()),
            MeshEvent::Row { bytes } => Input::RowHint(bytes.to_vec()),
            MeshEvent::Malformed { peer } => Input::Malformed(peer),
            MeshEvent::TurnedAway { peer } => Input::TurnedAway(peer),
            MeshEvent::HintsLagged => Input::HintsLagged,
            MeshEvent::Twin { peer } => Input::Twin(peer),
            _ => return,
        };
        self.handle(input).await;
    }

    async fn request(&mut self, request: Request, answer: Answer) {
        self.next_token += 1;
        self.answers.insert(self.next_token, answer);
        self.handle(Input::Request(self.next_token, request)).await;
    }

    async fn handle(&mut self, input: Input) {
        // The core's clock stood still meanwhile: it hears of that before it decides anything.
        if self.was_suspended(Clock::asleep()) {
            tracing::warn!("this machine was suspended; leases that this node held are lost");
            self.node.handle(self.clock.now(), Input::Suspended);
            self.drain().await;
        }
        self.node.handle(self.clock.now(), input);
        self.drain().await;
        self.tell_failure().await;
        self.note_held();
        if self.node.lost_changed() {
            self.lost.store(Arc::new(self.node.lost()));
            if let Some(mesh) = &self.mesh {
                mesh.kept_changed();
            }
        }
    }

    fn was_suspended(&mut self, asleep: Duration) -> bool {
        asleep.saturating_sub(std::mem::replace(&mut self.asleep, asleep)) > SUSPENDED_MIN
    }

    fn note_held(&self) {
        self.metrics.note_held(HeldNow {
            core: self.node.held(),
            apart_bytes: self.node.apart_bytes(),
            journal_groups: self.outbox.groups_waiting(),
            journal_bytes: self.outbox.frame_bytes_held() as u64,
        });
    }

    async fn tell_failure(&mut self) {
        if let Some(why) = self.failure.take() {
            let lost = self.outbox.core_told();
            self.node.handle(self.clock.now(), Input::StoreFailed(why, lost));
            self.drain().await;
        }
    }

    async fn drain(&mut self) {
        while let Some(effect) = self.node.poll_effect() {
            match self.outbox.push(effect) {
                Some(Step::Write(group)) => self.write(group).await,
                Some(Step::Perform(effect)) => self.perform(effect),
                None => {}
            }
        }
    }

    async fn write(&mut self, mut group: Group) {
        // The journal's queue is bounded; while it is full, acknowledgements make room.
        while let Err(error) = self.journal.groups.try_send(group) {
            group = match error {
                mpsc::error::TrySendError::Full(group) => group,
                mpsc::error::TrySendError::Closed(_) => {
                    return self.fail("the journal's thread has ended".to_owned());
                }
            };
            match self.journal.acknowledged.recv().await {
                Some(Ok(number)) => self.release(number),
                Some(Err(why)) => return self.fail(why),
                None => return self.fail("the journal's thread has ended".to_owned()),
            }
        }
    }

    async fn acknowledge(&mut self, acknowledged: Result<u64, String>) {
        match acknowledged {
            Ok(number) => self.release(number),
            Err(why) => {
                self.fail(why);
                self.tell_failure().await;
            }
        }
    }

    fn release(&mut self, number: u64) {
        for effect in self.outbox.durable(number) {
            self.perform(effect);
        }
        self.note_held();
    }

    /// The journal failed: what waited for it must not happen, and its requests are refused.
    fn fail(&mut self, why: String) {
        tracing::error!(%why, "the journal takes no more writes; calls go on");
        self.state.fail();
        for effect in self.outbox.fail(&why) {
            self.perform(effect);
        }
        self.failure = Some(why);
    }

    fn reply(&mut self, token: Token, reply: Result<Reply, Refusal>) {
        if let Some(answer) = self.answers.remove(&token) {
            // Who asked may have gone; nobody else wants the answer.
            let _ = answer.send(reply);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            // Written already, in order; only effects behind it come here.
            Effect::Persist(_) | Effect::PersistPages(..) | Effect::Compact(..) => {}
            Effect::WritePage(page) => self.write_page(page),
            Effect::ReadPage(hash) => self.read_page(hash),
            Effect::Send(peer, frame) => {
                if let Some(mesh) = &self.mesh
                    && let Err(error) = mesh.send(peer, Bytes::from(frame))
                {
                    tracing::debug!(%error, "a frame was not sent; the next digest repairs it");
                }
            }
            Effect::AskEnding(peer, question) => self.ask_ending(peer, question),
            Effect::JoinAgain(peer, admission) => self.join_again(peer, *admission),
            Effect::Hint(entry) => {
                if let Some(mesh) = &self.mesh {
                    mesh.hint(Bytes::from(entry));
                }
            }
            Effect::HintRow(row) => {
                if let Some(mesh) = &self.mesh {
                    mesh.hint_row(Bytes::from(row));
                }
            }
            Effect::Reply(token, reply) => self.reply(token, reply),
            Effect::Warn(warning) => tracing::warn!("{warning}"),
            Effect::Published(view) => {
                self.tell_roster(&view);
                if let Some(hosting) = &self.hosting {
                    hosting.publish(view);
                }
            }
            Effect::Provision(errand) => match &self.provisioner {
                Some(provisioner) => provisioner.perform(errand, self.to_core.clone()),
                None => tracing::warn!("this process makes no machines"),
            },
            Effect::SealState(machine, share) => {
                if let Some(provisioner) = &self.provisioner {
                    provisioner.seal_again(machine, share, self.to_core.clone());
                }
            }
            Effect::KeepState(intent, record) => self.kept.keep(intent, record),
            Effect::DropState(intent) => self.kept.forget(intent),
            Effect::Fetch { hash, size, from } => self.fetch(hash, size, from),
            Effect::ReadManifest(hash) => self.read_manifest(hash),
            Effect::Prepare { revision, component, manifest } => {
                if let Some(hosting) = &self.hosting {
                    let (hosting, to_core) = (Arc::clone(hosting), self.to_core.clone());
                    tokio::spawn(async move {
                        let input = match hosting.prepare(revision, component, &manifest).await {
                            Ok(concurrency) => Input::Prepared(revision, concurrency),
                            Err(why) => {
                                tracing::warn!(function = %manifest.name, %why, "a revision cannot run here");
                                Input::PrepareFailed(revision, why)
                            }
                        };
                        let _ = to_core.send(input).await;
                    });
                }
            }
            Effect::Concurrency(revision, concurrency) => {
                let function = self.hosting.as_ref().and_then(|hosting| hosting.function(&revision));
                if let Some(function) = function {
                    function.set_concurrency(concurrency);
                }
            }
            Effect::Retire(revision) => {
                if let Some(hosting) = &self.hosting {
                    hosting.retire(revision);
                }
            }
        }
    }

    /// New members are dialled at once. Those that are members no more cannot open anything from now on;
    /// what is open is closed after a moment, so that the last receipt arrives.
    fn tell_roster(&mut self, view: &View) {
        let active = view.members().values().filter(|member| member.active).count();
        let fewer = active < std::mem::replace(&mut self.members, active);
        let Some(mesh) = self.mesh.clone() else { return };
        if fewer {
            tokio::spawn(async move {
                tokio::time::sleep(GOODBYE).await;
                mesh.roster_changed();
            });
        } else {
            mesh.roster_changed();
        }
    }

    fn ask_ending(&self, peer: PeerId, question: Vec<u8>) {
        let Some(mesh) = self.mesh.clone() else { return };
        let to_core = self.to_core.clone();
        tokio::spawn(async move {
            match mesh.ask_ending(peer, Bytes::from(question)).await {
                Ok(frame) => drop(to_core.send(Input::Ending(peer, frame.to_vec())).await),
                Err(why) => {
                    tracing::debug!(?peer, %why, "it did not say why it turned this device away");
                    let _ = to_core.send(Input::NoEnding(peer)).await;
                }
            }
        });
    }

    fn join_again(&self, peer: PeerId, admission: op::Admitted) {
        let Some(mesh) = self.mesh.clone() else { return };
        let request = JoinRequest {
            fleet: self.node.ledger().fleet().0,
            invitation: admission.invitation.0,
            proof: admission.proof.0,
            label: admission.label,
            addrs: mesh.addresses(),
        };
        tokio::spawn(async move {
            match mesh.join_again(peer, &request).await {
                Ok(()) => {
                    tracing::info!(?peer, "a member that did not know this device admitted it once more")
                }
                Err(why) => tracing::info!(?peer, %why, "a member does not know this device"),
            }
        });
    }

    fn fetch(&self, hash: BlobHash, size: u64, from: Vec<Author>) {
        let (library, to_core, mesh) = (self.library.clone(), self.to_core.clone(), self.mesh.clone());
        tokio::spawn(async move {
            let input = match fetch_blob(mesh, &library, hash, size, &from).await {
                Ok(()) => Input::BlobHeld(hash),
                Err(why) => {
                    tracing::info!(hash = %hash.short(), %why, "bytes could not be fetched yet");
                    Input::FetchFailed(hash, why)
                }
            };
            let _ = to_core.send(input).await;
        });
    }

    fn read_manifest(&self, hash: BlobHash) {
        let (library, to_core) = (self.library.clone(), self.to_core.clone());
        tokio::task::spawn_blocking(move || {
            let bytes = library.read(ComponentHash(hash.0)).map_err(|error| error.to_string());
            let manifest =
                bytes.and_then(|bytes| Manifest::from_bytes(&bytes).map_err(|error| error.to_string()));
            let _ = to_core.blocking_send(Input::Manifest(hash, manifest));
        });
    }

    fn write_page(&self, page: Arc<Page>) {
        let (library, to_core) = (self.library.clone(), self.to_core.clone());
        tokio::task::spawn_blocking(move || {
            let hash = page.hash();
            let written = library.put(&page.encode()).map(|_| page).map_err(|error| error.to_string());
            let _ = to_core.blocking_send(Input::Page(hash, written));
        });
    }

    fn read_page(&self, hash: BlobHash) {
        let (library, to_core) = (self.library.clone(), self.to_core.clone());
        let fleet = self.node.ledger().fleet();
        tokio::task::spawn_blocking(move || {
            let bytes = library.read(ComponentHash(hash.0)).map_err(|error| error.to_string());
            let page =
                bytes.and_then(|bytes| Page::decode(&fleet, &bytes).map_err(|error| error.to_string()));
            let _ = to_core.blocking_send(Input::Page(hash, page.map(Arc::new)));
        });
    }

    /// Makes machines with this from now on, and looks which are there.
    pub(crate) fn provision(&mut self, provisioner: Arc<Provisioner>) {
        provisioner.watch(self.to_core.clone());
        self.provisioner = Some(provisioner);
    }

    /// Tells the core that the process is about to end.
    pub(crate) async fn stopping(&mut self) {
        self.handle(Input::Stopping).await;
    }

    /// Tells the core that the library holds something no more.
    pub(crate) async fn blob_gone(&mut self, hash: BlobHash) {
        self.handle(Input::BlobGone(hash)).await;
    }

    /// Makes every write durable and performs what waited for it.
    pub(crate) async fn settle(&mut self) {
        while self.outbox.is_waiting() {
            match self.journal.acknowledged.recv().await {
                Some(acknowledged) => self.acknowledge(acknowledged).await,
                None => break,
            }
        }
    }
}

async fn fetch_blob(
    mesh: Option<Mesh>,
    library: &Library,
    hash: BlobHash,
    size: u64,
    from: &[Author],
) -> Result<(), String> {
    let mesh = mesh.ok_or("this process has no network")?;
    let mut failures = Vec::new();
    for member in from {
        let temporary = library.fetch_path(ComponentHash(hash.0), size).map_err(|error| error.to_string())?;
        match mesh.fetch(Node::peer(member), hash.0, &temporary, size).await {
            Ok(_) => {
                let library = library.clone();
                let adopted =
                    tokio::task::spawn_blocking(move || library.adopt(ComponentHash(hash.0), &temporary))
                        .await;
                return match adopted {
                    Ok(adopted) => adopted.map_err(|error| not_kept(&error)),
                    Err(error) => Err(error.to_string()),
                };
            }
            // This disk is at fault, and with every member.
            Err(FetchError::File { path, source }) => {
                return Err(not_kept(&library.unwritten(&path, size, source)));
            }
            Err(error) => failures.push(format!("{}: {error}", member.short())),
        }
    }
    if failures.is_empty() {
        return Err("no member is known to hold it".to_owned());
    }
    Err(failures.join("; "))
}

/// Why fetched bytes could not be kept, and what to do.
fn not_kept(error: &LibraryError) -> String {
    match error {
        LibraryError::DiskFull { wanted, .. } => {
            format!("{error} Free at least {wanted} bytes on that disk; then it is fetched again by itself.")
        }
        _ => error.to_string(),
    }
}
