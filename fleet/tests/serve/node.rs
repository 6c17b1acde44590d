//! A node's servers over a real runtime, a ledger made for the test, and a management that answers with
//! defaults.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use osiris_examples::{CHART, SENSOR, SUMMARY};
use osiris_fleet::api::*;
use osiris_fleet::driver::dispatch::Dispatcher;
use osiris_fleet::driver::metrics::{Gauges, Metrics, NodeGauges};
use osiris_fleet::driver::routes::Routes;
use osiris_fleet::driver::serve::manage::{Answer, ApiError, BlobKind, Logs, Manage};
use osiris_fleet::driver::serve::{NodeState, Parts, ServeConfig, Server, State};
use osiris_ledger::op::{Admitted, Deployed as DeployedOp, Invited as InvitedOp, Removed, Serving};
use osiris_ledger::{
    Author, BlobHash, BlockId, Founding, Ledger, Now, Payload, Roles, Session, SigningKey, World, Writer,
    join_proof,
};
use osiris_runtime::{ComponentHash, Function, Limits, PoolSize, Runtime, RuntimeConfig};
use tokio::sync::mpsc;

struct Kit {
    dir: tempfile::TempDir,
    runtime: Runtime,
}

/// The size of the pool of instances, where it is not the small one.
pub(crate) static POOL: OnceLock<PoolSize> = OnceLock::new();

static KIT: LazyLock<Kit> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a folder");
    let config = RuntimeConfig {
        pool: POOL.get().copied().unwrap_or(PoolSize::Small),
        ..RuntimeConfig::new(dir.path().join("code"))
    };
    Kit { runtime: Runtime::new(config).expect("a runtime"), dir }
});

/// A component, ready to be called.
pub(crate) async fn prepare(name: &str, component: &[u8], limits: Limits) -> Arc<Function> {
    let hash = ComponentHash::of(component);
    let path = KIT.dir.path().join(hash.to_string());
    // Tests share the folder: another one may be reading the same component under its name.
    let file = tempfile::NamedTempFile::new_in(KIT.dir.path()).expect("a file");
    std::fs::write(file.path(), component).expect("written");
    file.persist(&path).expect("renamed");
    KIT.runtime.prepare(name, hash, path, limits).await.expect("prepared")
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

/// A fleet of three members and its ledger, as this node sees it.
pub(crate) struct Fleet {
    ledger: Ledger,
    writers: Vec<Writer>,
}

impl Fleet {
    pub(crate) fn new() -> Self {
        let mut me = Writer::new(key(1), Session([1; 16]));
        let founding = Founding {
            name: "test".to_owned(),
            label: "one".to_owned(),
            admin: &key(100),
            recovery: Author(key(101).verifying_key().to_bytes()),
            nonce: Session([9; 16]),
        };
        let (mut ledger, _) = me.found(Now::default(), founding).expect("founded");
        let ticket = key(50);
        let invited = Payload::Invited(InvitedOp {
            key: Author(ticket.verifying_key().to_bytes()),
            uses: 2,
            roles: Roles::NODE,
            device: None,
            note: String::new(),
        });
        let invitation = me.append(&mut ledger, Now::default(), invited).expect("invited").id();
        let mut others = Vec::new();
        for seed in [2, 3] {
            let writer = Writer::new(key(seed), Session([seed; 16]));
            let device = writer.author();
            let proof = join_proof(&ticket, &ledger.fleet(), &invitation, &device);
            let admitted =
                Payload::Admitted(Admitted { invitation, device, proof, label: format!("node {seed}") });
            me.append(&mut ledger, Now::default(), admitted).expect("admitted");
            others.push(writer);
        }
        others.insert(0, me);
        Self { ledger, writers: others }
    }

    pub(crate) fn author(&self, who: usize) -> Author {
        self.writers[who].author()
    }

    pub(crate) fn deploy(&mut self, name: &str, world: World, component: &[u8]) -> BlockId {
        let heads = self.ledger.publish().function(name).map(|f| f.heads.clone()).unwrap_or_default();
        let op = DeployedOp {
            name: name.to_owned(),
            component: BlobHash(*blake3::hash(component).as_bytes()),
            size: component.len() as u64,
            world,
            manifest: BlobHash([1; 32]),
            manifest_size: 1,
            replaces: heads,
        };
        self.append(0, Payload::Deployed(op))
    }

    pub(crate) fn remove(&mut self, name: &str) {
        let replaces = self.ledger.publish().function(name).expect("deployed").heads.clone();
        self.append(0, Payload::Removed(Removed { name: name.to_owned(), replaces }));
    }

    pub(crate) fn serve(&mut self, who: usize, revision: BlockId) {
        self.append(who, Payload::Serving(Serving { revision, concurrency: 8 }));
    }

    fn append(&mut self, who: usize, payload: Payload) -> BlockId {
        self.writers[who].append(&mut self.ledger, Now::default(), payload).expect("allowed").id()
    }

    pub(crate) fn routes(&mut self, local: &BTreeMap<BlockId, Arc<Function>>, metrics: &Metrics) -> Routes {
        let me = self.author(0);
        Routes::build(&self.ledger.publish(), local, &me, metrics)
    }
}

/// Answers every route with defaults and keeps what was asked.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    pub(crate) asked: Mutex<Vec<String>>,
    pub(crate) follow: Mutex<Option<mpsc::Receiver<LogRow>>>,
}

impl Desk {
    fn answer<T: Send + 'static>(&self, asked: impl Into<String>, value: T) -> Answer<'_, T> {
        self.asked.lock().expect("not poisoned").push(asked.into());
        Box::pin(async { Ok(value) })
    }

    pub(crate) fn last(&self) -> String {
        self.asked.lock().expect("not poisoned").last().cloned().unwrap_or_default()
    }
}

impl Manage for Desk {
    fn status(&self) -> Answer<'_, Status> {
        self.answer("status", Status::default())
    }
    fn nodes(&self) -> Answer<'_, Vec<NodeRow>> {
        self.answer("nodes", vec![NodeRow::default()])
    }
    fn functions(&self) -> Answer<'_, Vec<FunctionRow>> {
        self.answer("functions", vec![])
    }
    fn backlog(&self) -> Answer<'_, Vec<BacklogRow>> {
        self.answer("backlog", vec![])
    }
    fn function(&self, name: String) -> Answer<'_, FunctionDetail> {
        if name == "none" {
            return Box::pin(async { Err(ApiError::not_found("There is no such function.")) });
        }
        self.answer(format!("function {name}"), FunctionDetail::default())
    }
    fn store(&self, kind: BlobKind, bytes: Bytes) -> Answer<'_, BlobStored> {
        let stored = BlobStored { hash: String::new(), size: bytes.len() as u64, world: None };
        self.answer(format!("store {kind:?} {}", bytes.len()), stored)
    }
    fn deploy(&self, deploy: Deploy) -> Answer<'_, Deployed> {
        self.answer(format!("deploy {}", deploy.manifest.name), Deployed::default())
    }
    fn remove(&self, name: String, timeout: Duration) -> Answer<'_, Written> {
        self.answer(format!("remove {name} {timeout:?}"), Written::default())
    }
    fn logs(&self, name: String, lines: usize, follow: bool) -> Answer<'_, Logs> {
        let row = LogRow { call: 1, stream: "stdout".to_owned(), text: "first".to_owned() };
        let rows = self.follow.lock().expect("not poisoned").take().filter(|_| follow);
        self.answer(format!("logs {name} {lines} {follow}"), Logs { lines: vec![row], follow: rows })
    }
    fn invite(&self, invite: Invite) -> Answer<'_, Invited> {
        self.answer(format!("invite {}", invite.uses), Invited::default())
    }
    fn invitations(&self) -> Answer<'_, Vec<InvitationRow>> {
        self.answer("invitations", vec![])
    }
    fn withdraw(&self, id: BlockId, timeout: Duration) -> Answer<'_, Written> {
        self.answer(format!("withdraw {} {timeout:?}", id.short()), Written::default())
    }
    fn ticket(&self) -> Answer<'_, TicketReply> {
        self.answer("ticket", TicketReply { ticket: String::new() })
    }
    fn sync(&self, sync: Sync) -> Answer<'_, Synced> {
        self.answer(format!("sync {}", sync.timeout_ms), Synced::default())
    }
    fn drain(&self) -> Answer<'_, Drained> {
        self.answer("drain", Drained::default())
    }
    fn leave(&self) -> Answer<'_, Written> {
        self.answer("leave", Written::default())
    }
    fn shutdown(&self) -> Answer<'_, ()> {
        self.answer("shutdown", ())
    }
    fn ledger(&self, log: Log) -> Answer<'_, Vec<BlockRow>> {
        self.answer(format!("log {} {:?}", log.limit, log.author), vec![])
    }
    fn verify(&self) -> Answer<'_, Verified> {
        self.answer("verify", Verified::default())
    }
    fn revoke(&self, revoke: Revoke) -> Answer<'_, Revoked> {
        self.answer(format!("revoke {} {}", revoke.device, revoke.discard), Revoked::default())
    }
    fn grant_roles(&self, change: RoleChange) -> Answer<'_, RolesChanged> {
        self.answer(format!("grant {} {:?}", change.device, change.roles), RolesChanged::default())
    }
    fn leases(&self) -> Answer<'_, Leases> {
        self.answer("leases", Leases::default())
    }
    fn want_lease(&self, want: LeaseWant) -> Answer<'_, Leases> {
        self.answer(format!("want lease {:?} {}", want.gone, want.vouched), Leases::default())
    }
    fn limit_leases(&self, limit: LeaseLimit) -> Answer<'_, Written> {
        self.answer(format!("limit leases {} {}", limit.machines, limit.minority), Written::default())
    }
    fn voters(&self) -> Answer<'_, Voters> {
        self.answer("voters", Voters::default())
    }
    fn name_voters(&self, name: NameVoters) -> Answer<'_, Written> {
        self.answer(format!("name voters {:?}", name.devices), Written::default())
    }
    fn scale(&self, trial: Option<(u32, u32)>) -> Answer<'_, Scale> {
        self.answer(format!("scale {trial:?}"), Scale::default())
    }
    fn bound(&self, bounds: ScaleBounds) -> Answer<'_, Written> {
        let ScaleBounds { name, min, max, .. } = bounds;
        self.answer(format!("bound {name:?} {min:?} {max:?}"), Written::default())
    }
    fn label(&self, labels: MemberLabels) -> Answer<'_, Written> {
        self.answer(format!("label {} {:?}", labels.device, labels.labels), Written::default())
    }
    fn budget(&self, budget: MemberBudget) -> Answer<'_, Written> {
        self.answer(format!("budget {} {}", budget.device, budget.blocks), Written::default())
    }
    fn recovery(&self) -> Answer<'_, Recovery> {
        self.answer("recovery", Recovery::default())
    }
    fn recover(&self, recover: Recover) -> Answer<'_, Recovered> {
        self.answer(format!("recover {} {}", recover.device, recover.generation), Recovered::default())
    }
    fn revoke_roles(&self, change: RoleChange) -> Answer<'_, RolesChanged> {
        self.answer(format!("take {} {:?}", change.device, change.roles), RolesChanged::default())
    }
    fn whoami(&self) -> Answer<'_, Whoami> {
        self.answer("whoami", Whoami::default())
    }
    fn users(&self) -> Answer<'_, Vec<UserRow>> {
        self.answer("users", vec![])
    }
    fn add_user(&self, user: AddUser) -> Answer<'_, UserKnown> {
        self.answer(format!("add user {} {:?}", user.name, user.roles), UserKnown::default())
    }
    fn change_user(&self, change: ChangeUser) -> Answer<'_, UserKnown> {
        self.answer(format!("change user {} {:?}", change.id, change.roles), UserKnown::default())
    }
    fn revoke_user(&self, revoke: RevokeUser) -> Answer<'_, UserRevoked> {
        let said = format!("revoke user {} {} {}", revoke.id, revoke.keep_devices, revoke.discard);
        self.answer(said, UserRevoked::default())
    }
    fn user_ticket(&self, id: BlockId) -> Answer<'_, TicketReply> {
        self.answer(format!("user ticket {id}"), TicketReply { ticket: "osirisuser".to_owned() })
    }
    fn doctor(&self) -> Answer<'_, Doctor> {
        self.answer("doctor", Doctor::default())
    }
}

#[derive(Debug)]
struct Fixed;

impl Gauges for Fixed {
    fn read(&self) -> NodeGauges {
        NodeGauges { blocks: 7, members: 3, connected: 2, view: [0xab; 32], ..NodeGauges::default() }
    }
}

/// A node with its two interfaces.
pub(crate) struct Node {
    pub(crate) server: Server,
    pub(crate) http: SocketAddr,
    pub(crate) socket: PathBuf,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) routes: Arc<ArcSwap<Routes>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) desk: Arc<Desk>,
    pub(crate) state: Arc<NodeState>,
    pub(crate) fleet: Fleet,
    _dir: tempfile::TempDir,
}

impl Node {
    pub(crate) async fn start() -> Self {
        Self::with(ServeConfig::default()).await
    }

    /// `summary` and `chart` are live here, `far` is live on the two other members, `waiting` is live
    /// nowhere, `gone` was removed.
    pub(crate) async fn with(config: ServeConfig) -> Self {
        let mut fleet = Fleet::new();
        let metrics = Arc::new(Metrics::default());
        let mut local = BTreeMap::new();
        for (name, world, component) in [("summary", World::Native, SUMMARY), ("chart", World::Http, CHART)] {
            let revision = fleet.deploy(name, world, component);
            fleet.serve(0, revision);
            local.insert(revision, prepare(name, component, Limits::default()).await);
        }
        let far = fleet.deploy("far", World::Http, CHART);
        fleet.serve(1, far);
        fleet.serve(2, far);
        fleet.deploy("waiting", World::Http, CHART);
        fleet.deploy("gone", World::Http, CHART);
        fleet.remove("gone");
        let routes = fleet.routes(&local, &metrics);
        Self::over(config, fleet, routes, metrics).await
    }

    /// `sensor` is live on all three members, here with these limits.
    pub(crate) async fn sharing(limits: Limits) -> Self {
        let (mut fleet, metrics) = (Fleet::new(), Arc::new(Metrics::default()));
        let revision = fleet.deploy("sensor", World::Native, SENSOR);
        (0..3).for_each(|who| fleet.serve(who, revision));
        let local = BTreeMap::from([(revision, prepare("sensor", SENSOR, limits).await)]);
        let routes = fleet.routes(&local, &metrics);
        Self::over(ServeConfig::default(), fleet, routes, metrics).await
    }

    /// `far` is live on one other member alone. Its revision is returned.
    pub(crate) async fn with_one_remote() -> (Self, BlockId) {
        let (mut fleet, metrics) = (Fleet::new(), Arc::new(Metrics::default()));
        let far = fleet.deploy("far", World::Http, CHART);
        fleet.serve(1, far);
        let routes = fleet.routes(&BTreeMap::new(), &metrics);
        (Self::over(ServeConfig::default(), fleet, routes, metrics).await, far)
    }

    /// The routes of its fleet as it is now.
    pub(crate) fn fleet_routes(&mut self, local: &BTreeMap<BlockId, Arc<Function>>) -> Routes {
        self.fleet.routes(local, &self.metrics)
    }

    async fn over(config: ServeConfig, fleet: Fleet, routes: Routes, metrics: Arc<Metrics>) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let socket = dir.path().join("osiris.sock");
        let routes = Arc::new(ArcSwap::from_pointee(routes));
        let dispatcher = Arc::new(Dispatcher::new(Arc::clone(&routes), &fleet.author(0)));
        let (desk, state) = (Arc::new(Desk::default()), Arc::new(NodeState::default()));
        state.set(State::Serving);
        let http = config.http.or(Some(SocketAddr::from(([127, 0, 0, 1], 0))));
        let config = ServeConfig { http, socket: Some(socket.clone()), ..config };
        let parts = Parts {
            dispatcher: Arc::clone(&dispatcher),
            manage: desk.clone(),
            gauges: Arc::new(Fixed),
            metrics: Arc::clone(&metrics),
            state: Arc::clone(&state),
        };
        let server = Server::start(config, parts).await.expect("started");
        let http = server.http_addr().expect("listens");
        Self { server, http, socket, dispatcher, routes, metrics, desk, state, fleet, _dir: dir }
    }
}
