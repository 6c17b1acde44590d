//! The desk: what people ask of a node, whether it runs or not.
//!
//! A running node answers its management interface from here; an offline command makes the same
//! desk over an engine without a network. So both say and do the same.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use arc_swap::ArcSwap;
use osiris_ledger::{Author, BlobHash, BlockId, FleetId, Role, Roles, SigningKey, View, World};
use osiris_mesh::{Artifact, Mesh, MeshHeld, PeerStatus};
use osiris_protocol::{
    PeerAddr,
    limits::{TICKET_HEADS_MAX, TICKET_PEERS_MAX},
    ticket::{DialTicket, InvitationSecret, JoinTicket, Ticket},
};
use osiris_runtime::{ComponentHash, Library, LibraryError};
use tokio::sync::Notify;

use super::{
    answer::ApiError,
    engine::NodeHandle,
    folder,
    hosting::Hosting,
    inspect::blocks::Waiting,
    metrics::Metrics,
    offline::offer_to_any,
    open::Clock,
    rows,
    serve::{NodeState, State, manage::BlobKind},
    sweep::Sweep,
};
use crate::{
    api,
    manifest::Manifest,
    node::{
        Facts, LogQuery, Query, Refusal, Reply, Request, named_by_tickets,
        scale::{target, wanted_count},
    },
};

/// Answers people's requests.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) handle: NodeHandle,
    pub(crate) views: Arc<ArcSwap<View>>,
    pub(crate) library: Library,
    pub(crate) sweep: Arc<Sweep>,
    /// Blocks of the journal that waited at the start for others that it lacked.
    pub(crate) waiting: Waiting,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) me: Author,
    pub(crate) fleet: FleetId,
    pub(crate) data: PathBuf,
    pub(crate) clock: Clock,
    /// Members' addresses from the last run, for tickets made offline.
    pub(crate) known: Vec<PeerAddr>,
    pub(crate) mesh: OnceLock<Mesh>,
    pub(crate) hosting: OnceLock<Arc<Hosting>>,
    pub(crate) http: OnceLock<String>,
    pub(crate) state: Arc<NodeState>,
    pub(crate) stop: Arc<Notify>,
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let error = Self::new(refusal.code, refusal.message);
        match refusal.next {
            Some(next) => error.with_next(next),
            None => error,
        }
    }
}

type Result<T> = std::result::Result<T, ApiError>;

impl Desk {
    pub(crate) fn view(&self) -> Arc<View> {
        self.views.load_full()
    }

    pub(super) async fn ask(&self, request: Request) -> Result<Reply> {
        Ok(self.handle.ask(request).await?)
    }

    pub(crate) async fn facts(&self) -> Result<Facts> {
        match self.ask(Request::Query(Query::Facts)).await? {
            Reply::Facts(facts) => Ok(*facts),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) fn peers(&self) -> Vec<PeerStatus> {
        self.mesh.get().map(Mesh::peers).unwrap_or_default()
    }

    /// What peers make the mesh hold.
    pub(crate) fn held(&self) -> MeshHeld {
        self.mesh.get().map(Mesh::held).unwrap_or_default()
    }

    pub(crate) async fn status(&self) -> Result<api::Status> {
        let facts = self.facts().await?;
        let view = self.view();
        let me = view.members().get(&self.me);
        let state = match (&facts.read_only, facts.draining) {
            (Some(_), _) => State::ReadOnly,
            (None, true) => State::Draining,
            (None, false) => self.state.get(),
        };
        let (backlog, in_flight) = self.hosting.get().map(|hosting| hosting.load()).unwrap_or_default();
        Ok(api::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            fleet_name: view.name().to_owned(),
            fleet: self.fleet.to_string(),
            device: self.me.to_string(),
            label: rows::label(&view, &self.me),
            roles: me.map(|member| rows::role_names(member.roles)).unwrap_or_default(),
            state: if view.is_member(&self.me) { state.word() } else { api::NOT_A_MEMBER }.to_owned(),
            data_dir: self.data.display().to_string(),
            uptime_s: self.clock.uptime().as_secs(),
            http: self.http.get().cloned().unwrap_or_default(),
            mesh: self
                .mesh
                .get()
                .map(|mesh| mesh.addresses().iter().map(ToString::to_string).collect())
                .unwrap_or_default(),
            view: BlockId(view.hash()).to_string(),
            document_heads: facts.document_heads.iter().map(|head| BlockId(*head).to_string()).collect(),
            blocks: view.blocks(),
            early: facts.early,
            retain: facts.retain.word().to_owned(),
            summaries: facts.summaries,
            members: view.members().values().filter(|member| member.active).count() as u64,
            connected: facts.connected,
            functions: view.functions().values().filter(|function| function.live.is_some()).count() as u64,
            unseen: facts.unseen,
            backlog,
            in_flight,
            problems: match &facts.ended {
                Some(ended) => vec![ended.problem()],
                None => self.foreign_key().into_iter().chain(self.budget_problem(&facts)).collect(),
            }
            .into_iter()
            .chain(facts.read_only.as_deref().map(rows::journal_problem))
            .chain(facts.twin)
            .chain(facts.forged)
            .collect(),
        })
    }

    pub(crate) async fn nodes(&self) -> Result<Vec<api::NodeRow>> {
        let facts = self.facts().await?;
        Ok(rows::nodes(&self.view(), &self.me, &facts, &self.peers()))
    }

    /// What waits and runs on all members.
    pub(crate) async fn backlog(&self) -> Result<Vec<api::BacklogRow>> {
        match self.ask(Request::Query(Query::Counters)).await? {
            Reply::Counters(counters) => Ok(rows::backlog(&self.view(), &counters)),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn functions(&self) -> Result<Vec<api::FunctionRow>> {
        let lost = self.lost().await?;
        let view = self.view();
        let standing = view.functions().values().filter(|function| !function.removed);
        Ok(standing.map(|function| self.function_row(function, &lost)).collect())
    }

    async fn lost(&self) -> Result<BTreeSet<Author>> {
        match self.ask(Request::Query(Query::Lost)).await? {
            Reply::Lost(lost) => Ok(lost),
            other => Err(unexpected(&other)),
        }
    }

    fn function_row(&self, function: &osiris_ledger::Function, lost: &BTreeSet<Author>) -> api::FunctionRow {
        let live = function.live.as_ref();
        let load = live.and_then(|live| self.hosting.get()?.function(&live.id)).map(|ready| ready.figures());
        let mut row = rows::function(
            function,
            &self.metrics,
            load.map_or((0, 0), |figures| (figures.backlog, figures.in_flight)),
            lost,
        );
        // Whether one without replicas is to have any is in its manifest.
        if live.is_none()
            && let Some(manifest) = function.newest.as_ref().and_then(|newest| self.manifest_of(newest))
            && wanted_count(&self.view(), function, &manifest) == Some(0)
        {
            row.state = "idle".to_owned();
        }
        row
    }

    /// The manifest of a revision, where it is here.
    fn manifest_of(&self, revision: &osiris_ledger::Revision) -> Option<Manifest> {
        let bytes = self.library.read(ComponentHash(revision.manifest.0)).ok()?;
        Manifest::from_bytes(&bytes).ok()
    }

    pub(crate) async fn function(&self, name: &str) -> Result<api::FunctionDetail> {
        let (facts, lost) = (self.facts().await?, self.lost().await?);
        let view = self.view();
        let function = view.function(name).ok_or_else(|| unknown_function(name))?;
        let newest = function.newest.as_ref().or(function.revisions.last());
        let manifest = newest.and_then(|newest| self.manifest_of(newest));
        let scaled = manifest.as_ref().filter(|_| !function.removed);
        let target = scaled.and_then(|manifest| target(&view, name, manifest, None));
        let bounds = target.map(|target| api::Bounds {
            min: target.min,
            max: target.max,
            bounded: view.scaling().bounds(name).is_some(),
        });
        let here = || newest.and_then(|newest| facts.problems.get(&newest.id).cloned());
        let nobody = scaled.and_then(|manifest| rows::why_nobody(&view, &manifest.place));
        Ok(api::FunctionDetail {
            function: self.function_row(function, &lost),
            manifest,
            bounds,
            problem: nobody.or_else(here),
            revisions: rows::revisions(&view, function),
        })
    }

    /// Checks bytes and keeps them in the library, durably.
    pub(crate) async fn store(&self, kind: BlobKind, bytes: bytes::Bytes) -> Result<api::BlobStored> {
        let (library, sweep) = (self.library.clone(), Arc::clone(&self.sweep));
        let stored = tokio::task::spawn_blocking(move || {
            let world = match kind {
                BlobKind::Component => Some(inspect(&bytes)?),
                BlobKind::Manifest => {
                    Manifest::from_bytes(&bytes)
                        .map_err(|error| ApiError::bad_request(format!("{error}.")))?;
                    None
                }
            };
            let hash = put(&library, &sweep, &bytes)?;
            Ok(api::BlobStored {
                hash: hash.to_string(),
                size: bytes.len() as u64,
                world: world.map(rows::world_name),
            })
        });
        stored.await.map_err(|_| ApiError::internal("Checking the bytes failed inside the node."))?
    }

    pub(crate) async fn deploy(&self, deploy: api::Deploy) -> Result<api::Deployed> {
        let hash: ComponentHash = deploy.component.parse().map_err(|_| {
            ApiError::bad_request(format!("`{}` is not the hash of a component.", deploy.component))
        })?;
        let manifest_bytes =
            deploy.manifest.to_bytes().map_err(|error| ApiError::bad_request(format!("{error}.")))?;
        let (library, sweep) = (self.library.clone(), Arc::clone(&self.sweep));
        let read = tokio::task::spawn_blocking(move || {
            sweep.touch(hash);
            let component = library.read(hash).map_err(|error| library_error(&error))?;
            let world = inspect(&component)?;
            let manifest = put(&library, &sweep, &manifest_bytes)?;
            Ok::<_, ApiError>((component.len() as u64, world, manifest, manifest_bytes.len() as u64))
        });
        let read =
            read.await.map_err(|_| ApiError::internal("Checking the component failed inside the node."))?;
        let (size, world, manifest, manifest_size) = read?;
        let name = deploy.manifest.name.clone();
        let start = tokio::time::Instant::now();
        let held = self.bring([hash, manifest], Duration::from_millis(deploy.timeout_ms / 2)).await;
        let took = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let reply = self
            .ask(Request::Deploy {
                component: BlobHash(hash.0),
                size,
                world,
                manifest: (BlobHash(manifest.0), manifest_size),
                name: name.clone(),
                timeout_ms: deploy.timeout_ms.saturating_sub(took),
                live: deploy.wait,
            })
            .await?;
        let written = self.written(reply)?;
        let view = self.view();
        let revisions =
            view.function(&name).map(|function| function.revisions.as_slice()).unwrap_or_default();
        let revision = revisions.iter().find(|revision| revision.id.to_string() == written.block);
        let live = view.function(&name).and_then(|function| function.live.clone());
        Ok(api::Deployed {
            name,
            revision: revision.map_or(0, |revision| revision.number),
            world: rows::world_name(world),
            component_held_by: rows::holders(&view, BlobHash(hash.0), BlobHash(manifest.0), &self.me)
                .max(u64::from(held)),
            live: live.is_some_and(|live| live.id.to_string() == written.block),
            written,
        })
    }

    /// Gives what is about to be deployed to one connected member: were this device lost right after, somebody else has
    /// it. Whether one holds it. Where none does in time, the block is written all the same, since this node stays.
    async fn bring(&self, artifacts: [ComponentHash; 2], within: Duration) -> bool {
        let artifacts = artifacts.map(|hash| Artifact { hash: hash.0, file: self.library.path(hash) });
        tokio::time::timeout(within, offer_to_any(self.mesh.get(), Arc::new(artifacts)))
            .await
            .unwrap_or(false)
    }

    pub(super) fn written(&self, reply: Reply) -> Result<api::Written> {
        match reply {
            Reply::Written { block, seen_by, others } => {
                Ok(api::Written { block: block.id().to_string(), seen_by, others })
            }
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn remove(&self, name: String, timeout_ms: u64) -> Result<api::Written> {
        let reply = self.ask(Request::Remove { name, timeout_ms }).await?;
        self.written(reply)
    }

    pub(crate) async fn invite(&self, invite: api::Invite) -> Result<api::Invited> {
        let mut roles = Vec::new();
        for name in &invite.roles {
            roles.push(name.parse::<Role>().map_err(|error| ApiError::bad_request(format!("{error}.")))?);
        }
        let roles = Roles::of(&roles);
        // Who is to read or to call, and no more, serves nothing. Anybody else who runs a device is a node, too.
        let reads = roles != Roles::NONE && Roles::of(&[Role::Viewer, Role::Invoker]).covers(roles);
        let roles = if reads { roles } else { roles.with(Roles::NODE) };
        let device = invite.device.as_deref().map(str::parse::<Author>).transpose();
        let device = device.map_err(|error| {
            ApiError::bad_request(format!("The device's key is not valid: {error}."))
                .with_next("`osiris whoami` on that device prints it.")
        })?;
        if device.is_none() && !Roles::NODE.covers(roles) {
            return Err(ApiError::bad_request("An invitation for a role above node must name the device.")
                .with_next("Run `osiris whoami` on the device and pass its key: `osiris invite --role operator --device KEY`."));
        }
        // Before anything is written: a ticket that names nobody is none.
        if let Err(error) = self.ticket_peers() {
            // Who is no member any more has something else to mend first.
            return Err(match self.facts().await?.ended {
                Some(ended) => ApiError::new(api::codes::DENIED, ended.sentence()).with_next(api::JOIN_AGAIN),
                None => error,
            });
        }
        let secret = folder::random::<32>().map_err(|error| ApiError::internal(error.message))?;
        let key = Author(SigningKey::from_bytes(&secret).verifying_key().to_bytes());
        let (uses, note) = (invite.uses, invite.note);
        let request = Request::Invite { key, uses, roles, device, note, timeout_ms: invite.timeout_ms };
        let written = self.written(self.ask(request).await?)?;
        let invitation: BlockId =
            written.block.parse().map_err(|_| ApiError::internal("The block's id is not an id."))?;
        let ticket = self.join_ticket(invitation, InvitationSecret::new(secret), device).await?;
        Ok(api::Invited { written, ticket })
    }

    pub(super) async fn join_ticket(
        &self,
        invitation: BlockId,
        secret: InvitationSecret,
        device: Option<Author>,
    ) -> Result<String> {
        let facts = self.facts().await?;
        // The invitation's own chain head comes with every other head; the newest matter most.
        let heads = facts.heads.iter().rev().take(TICKET_HEADS_MAX).map(|head| head.0).collect();
        let ticket = Ticket::Join(JoinTicket {
            fleet: self.fleet.0,
            fleet_name: self.view().name().to_owned(),
            peers: self.ticket_peers()?,
            invitation: invitation.0,
            secret,
            heads,
            device: device.map(|device| device.0),
        });
        ticket.encode().map_err(|error| ApiError::internal(format!("{error}.")))
    }

    pub(crate) fn invitations(&self) -> Vec<api::InvitationRow> {
        rows::invitations(&self.view())
    }

    pub(crate) async fn withdraw(&self, id: BlockId, timeout_ms: u64) -> Result<api::Written> {
        let reply = self.ask(Request::Withdraw { invitation: id, timeout_ms }).await?;
        self.written(reply)
    }

    pub(crate) fn ticket(&self) -> Result<api::TicketReply> {
        let ticket = Ticket::Dial(DialTicket {
            fleet: self.fleet.0,
            fleet_name: self.view().name().to_owned(),
            peers: self.ticket_peers()?,
        });
        let ticket = ticket.encode().map_err(|error| ApiError::internal(format!("{error}.")))?;
        Ok(api::TicketReply { ticket })
    }

    /// This node where it runs, then other members.
    fn ticket_peers(&self) -> Result<Vec<PeerAddr>> {
        let mut peers = Vec::new();
        let mut others = self.known.clone();
        if let Some(mesh) = self.mesh.get() {
            peers.push(PeerAddr { peer: self.me.0, addrs: mesh.addresses() });
            others = mesh.address_book();
        }
        let view = self.view();
        peers.extend(named_by_tickets(&view, &self.me, others));
        peers.truncate(TICKET_PEERS_MAX);
        if peers.is_empty() {
            return Err(ApiError::conflict(
                "A ticket must say where a node can be reached, and this folder's node does not run.",
            )
            .with_next("Start it with `osiris up`, then ask again."));
        }
        Ok(peers)
    }

    pub(crate) async fn sync(&self, timeout_ms: u64) -> Result<api::Synced> {
        match self.ask(Request::Sync { timeout_ms }).await? {
            Reply::Synced { others, connected, agreed, unseen } => {
                Ok(api::Synced { others, connected, agreed, unseen, cut: 0, void: Vec::new() })
            }
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn drain(&self) -> Result<api::Drained> {
        // Who balances load over several nodes sends this one no more from now on; what comes all the same is served.
        let before = self.state.get();
        self.state.set(State::Draining);
        let reply = match self.ask(Request::Drain).await {
            Ok(reply) => reply,
            Err(error) => {
                self.state.set(before);
                return Err(error);
            }
        };
        if let Some(hosting) = self.hosting.get() {
            hosting.drain(super::limits::DRAIN_TIMEOUT).await;
        }
        match reply {
            Reply::Drained { stopped, left } => Ok(api::Drained { stopped, left }),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn leave(&self, timeout_ms: u64) -> Result<api::Written> {
        let reply = self.ask(Request::Leave { timeout_ms }).await?;
        self.written(reply)
    }

    pub(crate) async fn ledger(&self, log: api::Log) -> Result<Vec<api::BlockRow>> {
        let entries = log.entries;
        let query = log_query(&self.view(), log)?;
        match self.ask(Request::Query(Query::Log(Box::new(query)))).await? {
            Reply::Log(logged) => {
                let view = self.view();
                Ok(logged.iter().map(|logged| rows::block(&view, logged, entries)).collect())
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Checks everything again, as if it came from a stranger.
    pub(crate) async fn verify(&self) -> Result<api::Verified> {
        let Reply::Blocks(blocks, pages, view) = self.ask(Request::Query(Query::Blocks)).await? else {
            return Err(ApiError::internal("The ledger did not give its blocks."));
        };
        let (fleet, me, data) = (self.fleet, self.me, self.data.clone());
        let verified = tokio::task::spawn_blocking(move || {
            super::verify::verify(fleet, &blocks, &pages, &view, &me, &data)
        });
        verified.await.map_err(|_| ApiError::internal("The verification failed inside the node."))
    }
}

/// Names of people and devices as the ledger knows them. A name that nobody has is a mistake of typing, and
/// not an empty answer.
fn log_query(view: &View, log: api::Log) -> Result<LogQuery> {
    let known = |name: &str, what: &str, next: &str| {
        ApiError::not_found(format!("There is no {what} {name}.")).with_next(next)
    };
    let authors = log.author.map(|name| {
        let key = name.to_ascii_lowercase();
        let is_start = key.len() >= 4 && key.bytes().all(|byte| byte.is_ascii_hexdigit());
        let members = view.members().values();
        let fits =
            members.filter(|m| m.label == name || (is_start && m.device.to_string().starts_with(&key)));
        let devices: BTreeSet<_> = fits.map(|member| member.device).collect();
        let unknown = || known(&name, "member", "`osiris nodes` lists the members.");
        if devices.is_empty() { Err(unknown()) } else { Ok(devices) }
    });
    let users = log.user.map(|name| {
        let users = view.users().values().filter(|user| user.name == name);
        let users: BTreeSet<_> = users.map(|user| user.id).collect();
        let unknown = || known(&name, "user", "`osiris user ls` lists the users.");
        if users.is_empty() { Err(unknown()) } else { Ok(users) }
    });
    let before = log.before.map(|id| {
        id.parse().map_err(|_| {
            ApiError::bad_request(format!("`{id}` is no id of a block."))
                .with_next("give all 64 digits of one that the ledger's log shows")
        })
    });
    Ok(LogQuery {
        before: before.transpose()?,
        summaries_only: log.summaries_only,
        limit: usize::try_from(log.limit).unwrap_or(usize::MAX).min(super::limits::LEDGER_ROWS_MAX),
        authors: authors.transpose()?,
        users: users.transpose()?,
        function: log.function,
        op: log.op,
        since_ms: log.since_ms,
        until_ms: log.until_ms,
    })
}

pub(crate) fn unknown_function(name: &str) -> ApiError {
    ApiError::not_found(format!("There is no function `{name}`."))
        .with_next("`osiris ls` lists the functions.")
}

pub(super) fn unexpected(reply: &Reply) -> ApiError {
    ApiError::internal(format!("The node gave an answer to another question: {reply:?}."))
}

fn inspect(bytes: &[u8]) -> Result<World> {
    let inspection =
        osiris_runtime::inspect(bytes).map_err(|error| ApiError::bad_request(error.to_string()))?;
    Ok(match inspection.world {
        osiris_runtime::World::Native => World::Native,
        osiris_runtime::World::Http => World::Http,
    })
}

/// Keeps bytes, which nobody removes as unused for a while.
fn put(library: &Library, sweep: &Sweep, bytes: &[u8]) -> Result<ComponentHash> {
    sweep.touch(ComponentHash::of(bytes));
    library.put(bytes).map_err(|error| library_error(&error))
}

fn library_error(error: &LibraryError) -> ApiError {
    match error {
        LibraryError::Missing { .. } => ApiError::not_found(error.to_string()),
        LibraryError::Quota { .. } => ApiError::storage(error.to_string())
            .with_next("`osiris ls` lists the functions, and `osiris remove NAME` removes one."),
        LibraryError::DiskFull { wanted, .. } => ApiError::storage(error.to_string())
            .with_next(format!("Free at least {wanted} bytes on that disk, then try again.")),
        _ => ApiError::internal(error.to_string()),
    }
}

/// The folder's path as people gave it, made absolute.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
