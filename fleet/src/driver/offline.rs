//! The folder without a running node: sign into the local replica, hand over later.

use std::{collections::VecDeque, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use osiris_mesh::{Artifact, Mesh, MeshEvent, MeshEvents, PeerId};
use osiris_protocol::PeerAddr;
use osiris_runtime::ComponentHash;
use tokio::task::{JoinError, JoinSet};

use super::{
    answer::ApiError,
    desk::Desk,
    error::DriverError,
    inspect::may_be_members,
    open::Opened,
    run::{LOOK, Process, no_events},
    serve::manage::BlobKind,
    users,
};
use crate::{api, api::codes, manifest::Manifest, node::Retain};

/// Extra time for the network's own setup and end, on top of what the caller allows for contact.
const SETUP: Duration = Duration::from_millis(500);

/// A frame with a digest is no larger.
const DIGEST_BYTES_MAX: usize = 256;
/// So many members are given the same bytes side by side: one of them may have fallen silent.
const OFFERS_AT_ONCE_MAX: usize = 2;
/// So many events are kept for the core while bytes are on their way.
const EVENTS_KEPT_MAX: usize = 256;

/// An open folder of a node that does not run. Holds the folder's lock.
pub struct Offline {
    process: Process,
}

impl std::fmt::Debug for Offline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Offline").field("desk", &self.process.desk).finish_non_exhaustive()
    }
}

impl From<ApiError> for DriverError {
    fn from(error: ApiError) -> Self {
        let code = codes::ALL.iter().find(|(code, _)| *code == error.body.error).copied();
        let next = error.body.next.as_deref().unwrap_or_default();
        Self::new(code.unwrap_or(codes::INTERNAL), error.body.message.as_str(), next)
    }
}

type Result<T> = std::result::Result<T, DriverError>;

impl Offline {
    /// Opens the folder. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`DriverError`] where the folder belongs to no fleet, is damaged beyond repair, or in use.
    pub async fn open(data: &Path) -> Result<Self> {
        let mut process = Process::new(Opened::open_founded(data)?, false, Retain::All)?;
        process.engine.start().await;
        Ok(Self { process })
    }

    /// Opens the folder to read it as it is: nothing in it is changed or repaired. Others may read it at the same
    /// time.
    ///
    /// # Errors
    /// As [`Offline::open`].
    pub async fn open_to_read(data: &Path) -> Result<Self> {
        let mut process = Process::new(Opened::look(data)?.founded()?, false, Retain::All)?;
        process.engine.start().await;
        Ok(Self { process })
    }

    /// Whether opening the folder to write would change nothing that people want to look at first, and can be done.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        !self.process.folder.is_unwritable() && self.process.problems.is_empty()
    }

    /// What people should know of the journal's recovery, in sentences.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.process.warnings
    }

    /// What is wrong with the journal of a folder that is only read, in sentences that say what to do.
    #[must_use]
    pub fn problems(&self) -> &[String] {
        &self.process.problems
    }

    async fn at_desk<T, F>(&mut self, work: impl FnOnce(Arc<Desk>) -> F) -> Result<T>
    where
        F: Future<Output = std::result::Result<T, ApiError>>,
    {
        let work = work(Arc::clone(&self.process.desk));
        let done = self.process.engine.run(&mut no_events(), work).await;
        self.process.engine.settle().await;
        Ok(done?)
    }

    /// The replica's status.
    ///
    /// # Errors
    /// [`DriverError`], as for every method here: what was refused, and what to do next.
    pub async fn status(&mut self) -> Result<api::Status> {
        let mut status = self.at_desk(|desk| async move { desk.status().await }).await?;
        status.state = "stopped".to_owned();
        status.problems.extend(self.process.problems.iter().cloned());
        Ok(status)
    }

    /// What the folder holds, and what is wrong with this device as a member. What a running node costs is nothing
    /// here, and what is wrong with the folder's files is [`super::verify`]'s to find.
    ///
    /// # Errors
    /// As [`Offline::status`].
    pub async fn doctor(&mut self) -> Result<api::Doctor> {
        let doctor = self.at_desk(|desk| async move { desk.doctor().await }).await?;
        let status = self.at_desk(|desk| async move { desk.status().await }).await?;
        Ok(api::Doctor { facts: doctor.facts, problems: status.problems, ..api::Doctor::default() })
    }

    /// Members.
    ///
    /// # Errors
    /// As [`Offline::status`].
    pub async fn nodes(&mut self) -> Result<Vec<api::NodeRow>> {
        self.at_desk(|desk| async move { desk.nodes().await }).await
    }

    /// Functions.
    ///
    /// # Errors
    /// As [`Offline::status`].
    pub async fn functions(&mut self) -> Result<Vec<api::FunctionRow>> {
        self.at_desk(|desk| async move { desk.functions().await }).await
    }

    /// One function.
    ///
    /// # Errors
    /// As [`Offline::status`].
    pub async fn function(&mut self, name: &str) -> Result<api::FunctionDetail> {
        self.at_desk(|desk| async move { desk.function(name).await }).await
    }

    /// Deploys into the local replica; the component is kept first, the block second.
    ///
    /// # Errors
    /// As [`Offline::status`].
    pub async fn deploy(&mut self, component: &[u8], manifest: Manifest) -> Result<api::Deployed> {
        let component = bytes::Bytes::copy_from_slice(component);
        self.at_desk(|desk| async move {
            let stored = desk.store(BlobKind::Component, component).await?;
            desk.deploy(api::Deploy { component: stored.hash, manifest, timeout_ms: 0, wait: false }).await
        })
        .await
    }

    /// Removes a function.
    ///
    /// # Errors
    /// As [`Offline::status`].
    pub async fn remove(&mut self, name: &str) -> Result<api::Written> {
        self.at_desk(|desk| async move { desk.remove(name.to_owned(), 0).await }).await
    }

    /// Makes an invitation, whose ticket names members known from the last run.
    ///
    /// # Errors
    /// As [`Offline::status`].
    pub async fn invite(&mut self, invite: api::Invite) -> Result<api::Invited> {
        self.at_desk(|desk| async move { desk.invite(api::Invite { timeout_ms: 0, ..invite }).await }).await
    }

    /// Invitations.
    #[must_use]
    pub fn invitations(&self) -> Vec<api::InvitationRow> {
        self.process.desk.invitations()
    }

    /// Withdraws an invitation.
    ///
    /// # Errors
    /// As [`Offline::status`].
    pub async fn withdraw(&mut self, id: &str) -> Result<api::Written> {
        let id = id.parse().map_err(|error: osiris_ledger::ParseIdError| {
            DriverError::new(
                codes::BAD_REQUEST,
                format!("`{id}`: {error}."),
                "`osiris invite ls` lists the invitations.",
            )
        })?;
        self.at_desk(|desk| async move { desk.withdraw(id, 0).await }).await
    }

    /// Ends this device's membership.
    ///
    /// # Errors
    /// As [`Offline::status`].
    pub async fn leave(&mut self) -> Result<api::Written> {
        self.at_desk(|desk| async move { desk.leave(0).await }).await
    }

    /// Ends another device's membership.
    ///
    /// # Errors
    /// As [`Offline::status`].
    pub async fn revoke(&mut self, revoke: api::Revoke) -> Result<api::Revoked> {
        self.at_desk(|desk| async move { desk.revoke(api::Revoke { timeout_ms: 0, ..revoke }).await }).await
    }

    /// Gives roles to a member.
    ///
    /// # Errors
    /// As [`Offline::status`].
    pub async fn grant_roles(&mut self, change: api::RoleChange) -> Result<api::RolesChanged> {
        let change = api::RoleChange { timeout_ms: 0, ..change };
        self.at_desk(|desk| async move { desk.grant_roles(change).await }).await
    }

    /// Takes roles from a member.
    ///
    /// # Errors
    /// As [`Offline::status`].
    pub async fn revoke_roles(&mut self, change: api::RoleChange) -> Result<api::RolesChanged> {
        let change = api::RoleChange { timeout_ms: 0, ..change };
        self.at_desk(|desk| async move { desk.revoke_roles(change).await }).await
    }

    /// What the recovery key has to sign.
    ///
    /// # Errors
    /// As [`Offline::status`].
    pub async fn recovery(&mut self) -> Result<api::Recovery> {
        self.at_desk(|desk| async move { desk.recovery().await }).await
    }

    /// Makes a device an admin by the recovery key's word.
    ///
    /// # Errors
    /// As [`Offline::status`].
    pub async fn recover(&mut self, recover: api::Recover) -> Result<api::Recovered> {
        let recover = api::Recover { timeout_ms: 0, ..recover };
        self.at_desk(|desk| async move { desk.recover(recover).await }).await
    }

    /// This device, as the fleet knows it.
    ///
    /// # Errors
    /// As [`Offline::status`].
    pub async fn whoami(&mut self) -> Result<api::Whoami> {
        self.at_desk(|desk| async move { desk.whoami().await }).await
    }

    /// Users.
    #[must_use]
    pub fn users(&self) -> Vec<api::UserRow> {
        self.process.desk.users()
    }

    /// Makes a person known.
    ///
    /// # Errors
    /// As [`Offline::status`].
    pub async fn add_user(&mut self, user: api::AddUser) -> Result<api::UserKnown> {
        self.at_desk(|desk| async move { desk.add_user(api::AddUser { timeout_ms: 0, ..user }).await }).await
    }

    /// Makes a person known again, by the same key.
    ///
    /// # Errors
    /// As [`Offline::status`].
    pub async fn change_user(&mut self, change: api::ChangeUser) -> Result<api::UserKnown> {
        let change = api::ChangeUser { timeout_ms: 0, ..change };
        self.at_desk(|desk| async move { desk.change_user(change).await }).await
    }

    /// Ends a user.
    ///
    /// # Errors
    /// As [`Offline::status`].
    pub async fn revoke_user(&mut self, revoke: api::RevokeUser) -> Result<api::UserRevoked> {
        let revoke = api::RevokeUser { timeout_ms: 0, ..revoke };
        self.at_desk(|desk| async move { desk.revoke_user(revoke).await }).await
    }

    /// A ticket to join with as a user.
    ///
    /// # Errors
    /// As [`Offline::status`].
    pub async fn user_ticket(&mut self, id: &str) -> Result<api::TicketReply> {
        self.at_desk(|desk| async move { desk.user_ticket(users::id(id)?).await }).await
    }

    /// Slots for machines.
    ///
    /// # Errors
    /// As [`Offline::status`].
    pub async fn leases(&mut self) -> Result<api::Leases> {
        self.at_desk(|desk| async move { desk.leases().await }).await
    }

    /// Says how many machines the fleet may make.
    ///
    /// # Errors
    /// As [`Offline::status`].
    pub async fn limit_leases(&mut self, limit: api::LeaseLimit) -> Result<api::Written> {
        let limit = api::LeaseLimit { timeout_ms: 0, ..limit };
        self.at_desk(|desk| async move { desk.limit_leases(limit).await }).await
    }

    /// Who seals pages of summaries.
    #[must_use]
    pub fn voters(&self) -> api::Voters {
        self.process.desk.voters()
    }

    /// Says who seals pages from now on.
    ///
    /// # Errors
    /// As [`Offline::status`].
    pub async fn name_voters(&mut self, name: api::NameVoters) -> Result<api::Written> {
        let name = api::NameVoters { timeout_ms: 0, ..name };
        self.at_desk(|desk| async move { desk.name_voters(name).await }).await
    }

    /// Replicas of scaled functions, as far as a process knows that runs none.
    ///
    /// # Errors
    /// As [`Offline::status`].
    pub async fn scale(&mut self, trial: Option<(u32, u32)>) -> Result<api::Scale> {
        self.at_desk(move |desk| async move { desk.scale(trial).await }).await
    }

    /// Says how many replicas a function may have.
    ///
    /// # Errors
    /// As [`Offline::status`].
    pub async fn bound(&mut self, bounds: api::ScaleBounds) -> Result<api::Written> {
        let bounds = api::ScaleBounds { timeout_ms: 0, ..bounds };
        self.at_desk(|desk| async move { desk.bound(bounds).await }).await
    }

    /// Says which labels a member bears.
    ///
    /// # Errors
    /// As [`Offline::status`].
    pub async fn label(&mut self, labels: api::MemberLabels) -> Result<api::Written> {
        let labels = api::MemberLabels { timeout_ms: 0, ..labels };
        self.at_desk(|desk| async move { desk.label(labels).await }).await
    }

    /// Says how many blocks a member may write.
    ///
    /// # Errors
    /// As [`Offline::status`].
    pub async fn budget(&mut self, budget: api::MemberBudget) -> Result<api::Written> {
        let budget = api::MemberBudget { timeout_ms: 0, ..budget };
        self.at_desk(|desk| async move { desk.budget(budget).await }).await
    }

    /// A ticket to dial members with.
    ///
    /// # Errors
    /// As [`Offline::status`].
    pub fn ticket(&self) -> Result<api::TicketReply> {
        Ok(self.process.desk.ticket()?)
    }

    /// The newest blocks that fit.
    ///
    /// # Errors
    /// As [`Offline::status`].
    pub async fn ledger(&mut self, log: api::Log) -> Result<Vec<api::BlockRow>> {
        self.at_desk(|desk| async move { desk.ledger(log).await }).await
    }

    /// Meets other members for at most so long: hands over what they lack, takes what they have, and
    /// serves them the components they ask for, at most until `patience` is over. Ends the process's use of the folder.
    ///
    /// # Errors
    /// As [`Offline::status`].
    pub async fn contact(
        self,
        timeout: Duration,
        patience: Duration,
        mesh: Option<SocketAddr>,
    ) -> Result<api::Synced> {
        let end = tokio::time::Instant::now() + patience.max(timeout);
        let mut process = self.process;
        let known = process.folder.peers();
        let written = process.engine.node.unseen();
        let mut events = process.connect(mesh, Vec::new(), true, known.clone(), None).await?;
        let artifacts = process.artifacts();
        let until = (tokio::time::Instant::now() + timeout).min(end);
        let brought = process.bring(&mut events, &artifacts, until, end).await;
        if let Brought::Nothing = brought {
            let desk = Arc::clone(&process.desk);
            let synced = process.engine.run(&mut no_events(), desk.sync(0)).await;
            process.close().await?;
            return Ok(synced?);
        }
        let desk = Arc::clone(&process.desk);
        // Where blocks are missing, the admissions of all others may be: those that may be members are waited for.
        let lacks = process.lacks();
        let others = |said: u64| match lacks {
            true => said.max(may_be_members(&desk.view(), Some(desk.me), &known) as u64),
            false => said,
        };
        let until = (tokio::time::Instant::now() + timeout).min(end);
        let meeting = async {
            loop {
                let left = until.saturating_duration_since(tokio::time::Instant::now());
                let synced = desk.sync(u64::try_from(left.as_millis()).unwrap_or(u64::MAX)).await?;
                let (view, me) = (desk.view(), desk.me);
                let left = synced.unseen == 0 && !view.is_member(&me) && (!lacks || view.was_member(&me));
                let met = left
                    || others(synced.others) == 0
                    || (synced.connected > 0 && synced.agreed == synced.connected);
                if met || tokio::time::Instant::now() + LOOK >= until {
                    return Ok::<_, ApiError>(synced);
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let synced = process.engine.run(&mut events, tokio::time::timeout(timeout + SETUP, meeting)).await;
        let synced = synced.unwrap_or_else(|_| Ok(api::Synced::default()));
        let agreed = synced.as_ref().map_or(0, |synced| synced.agreed);
        // A member that has just learnt of a deploy fetches its bytes from here, and it is no use to it before: so this
        // device stays until nobody has asked for a moment.
        let mut cut = 0;
        if agreed > 0 {
            cut = process.hand_over(&mut events, end).await;
            // By now they may know this device for an operator, or have fetched the bytes.
            if cut == 0 && matches!(brought, Brought::Refused) {
                let mesh = process.engine.mesh.clone();
                let offering =
                    tokio::time::timeout_at(end, offer_to_any(mesh.as_ref(), Arc::clone(&artifacts)));
                let held = process.engine.run(&mut events, offering).await;
                cut = if held == Ok(true) { 0 } else { artifacts.len() as u64 };
            }
        }
        let void = process.engine.node.void_among(&written).map(|id| id.to_string()).collect();
        process.close().await?;
        let synced = synced?;
        Ok(api::Synced { cut, void, others: others(synced.others), ..synced })
    }

    /// What a client needs to call members as this device: its secret key, and where members are.
    ///
    /// # Errors
    /// As [`Offline::status`].
    pub fn dialing(&self) -> Result<([u8; 32], Vec<PeerAddr>)> {
        let mut peers = self.process.folder.peers();
        peers.retain(|peer| peer.peer != self.process.desk.me.0);
        Ok((self.process.folder.device_key()?.to_bytes(), peers))
    }
}

/// What became of bytes that were to go before their blocks.
enum Brought {
    /// A member has them, or there are none.
    All,
    /// Those that were met take none from this device: it may be an operator that they do not know for one yet, or
    /// they have no room. The blocks follow all the same.
    Refused,
    /// Nobody was met, or it took too long: the blocks stay as well.
    Nothing,
}

/// Whether one of the connected members holds all of it in the end, the nearest asked first.
pub(super) async fn offer_to_any(mesh: Option<&Mesh>, artifacts: Arc<[Artifact]>) -> bool {
    let Some(mesh) = mesh else { return false };
    let mut peers: Vec<_> = mesh.peers().into_iter().filter(|peer| peer.connected).collect();
    peers.sort_by_key(|peer| peer.rtt.unwrap_or(Duration::MAX));
    let mut offers = Offers { waiting: peers.iter().map(|peer| peer.peer).collect(), ..Offers::default() };
    loop {
        offers.go_on(mesh, &artifacts);
        let Some(offered) = offers.under_way.join_next().await else { return false };
        if went_well(offered) {
            return true;
        }
    }
}

/// Members to whom the same bytes are offered: [`OFFERS_AT_ONCE_MAX`] at a time.
#[derive(Default)]
struct Offers {
    waiting: VecDeque<PeerId>,
    under_way: JoinSet<std::result::Result<(), String>>,
}

impl Offers {
    fn go_on(&mut self, mesh: &Mesh, artifacts: &Arc<[Artifact]>) {
        while self.under_way.len() < OFFERS_AT_ONCE_MAX
            && let Some(peer) = self.waiting.pop_front()
        {
            let (mesh, artifacts) = (mesh.clone(), Arc::clone(artifacts));
            self.under_way.spawn(async move { mesh.offer(peer, &artifacts).await });
        }
    }

    fn is_over(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_empty()
    }
}

/// Whether a member holds it all; else the log says why not.
fn went_well(offered: std::result::Result<std::result::Result<(), String>, JoinError>) -> bool {
    let failure = offered.map_err(|error| error.to_string()).flatten().err();
    if let Some(why) = &failure {
        tracing::info!(why, "a member does not take what is deployed here");
    }
    failure.is_none()
}

impl Process {
    /// What was deployed here and no other member is known to have: to be offered.
    fn artifacts(&self) -> Arc<[Artifact]> {
        let library = &self.desk.library;
        let lonely = self.engine.node.lonely_artifacts();
        let here =
            lonely.iter().map(|artifact| ComponentHash(artifact.0)).filter(|hash| library.contains(*hash));
        here.map(|hash| Artifact { hash: hash.0, file: library.path(hash) }).collect()
    }

    /// Gives bytes to a member before any hears of the blocks that name them: until one holds them all, the core is not
    /// told of anybody. A link has to come up until `until`; then the bytes may take all the time until `end`.
    async fn bring(
        &mut self,
        events: &mut MeshEvents,
        artifacts: &Arc<[Artifact]>,
        mut until: tokio::time::Instant,
        end: tokio::time::Instant,
    ) -> Brought {
        let Some(mesh) = self.engine.mesh.clone() else { return Brought::All };
        let view = self.desk.view();
        let has_others = view.members().values().any(|member| member.active && member.device != self.desk.me);
        if artifacts.is_empty() || !has_others {
            return Brought::All;
        }
        let (mut came, mut offers, mut refused) = (Vec::new(), Offers::default(), false);
        let brought = loop {
            offers.go_on(&mesh, artifacts);
            tokio::select! {
                () = tokio::time::sleep_until(until) => break if refused { Brought::Refused } else { Brought::Nothing },
                event = events.recv() => match event {
                    Some(MeshEvent::PeerUp { peer }) => {
                        offers.waiting.push_back(peer);
                        came.push(MeshEvent::PeerUp { peer });
                        until = end;
                    }
                    // It may have to learn that it is no member any more.
                    Some(event @ MeshEvent::TurnedAway { .. }) => {
                        came.push(event);
                        refused = true;
                        if offers.is_over() {
                            until = end.min(tokio::time::Instant::now() + SETUP);
                        }
                    }
                    // A digest is said once in some seconds.
                    Some(MeshEvent::Frame { peer, bytes }) if bytes.len() <= DIGEST_BYTES_MAX && came.len() < EVENTS_KEPT_MAX => {
                        came.push(MeshEvent::Frame { peer, bytes });
                    }
                    // What else is said meanwhile is said again once both compare what they hold.
                    Some(MeshEvent::Frame { .. } | MeshEvent::Hint { .. } | MeshEvent::Row { .. }) => {}
                    Some(event) => came.push(event),
                    None => break Brought::Nothing,
                },
                Some(offered) = offers.under_way.join_next() => {
                    if went_well(offered) {
                        break Brought::All;
                    }
                    refused = true;
                    if offers.is_over() {
                        until = end.min(tokio::time::Instant::now() + SETUP);
                    }
                }
            }
        };
        if !matches!(brought, Brought::Nothing) {
            for event in came {
                self.engine.event(event).await;
            }
        }
        brought
    }

    /// Serves components until no member has asked for any, or been given any, for [`SETUP`]. Returns how many are
    /// still under way at the end of the time.
    async fn hand_over(&mut self, events: &mut MeshEvents, end: tokio::time::Instant) -> u64 {
        let Some(mesh) = self.engine.mesh.clone() else { return 0 };
        let quiet = async {
            tokio::time::sleep(SETUP).await;
            loop {
                let (open, since) = mesh.giving();
                let is_quiet = open == 0 && since.is_none_or(|since| since >= SETUP);
                if is_quiet || tokio::time::Instant::now() >= end {
                    return open as u64;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        self.engine.run(events, quiet).await
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
        net::{TcpStream, UnixStream},
    };

    use super::*;
    use crate::driver::{Addresses, InitOptions, JoinOptions, RunOptions, init, join, run};

    /// Longer than anything here takes.
    const PATIENCE: Duration = Duration::from_secs(60);
    const SAMPLES: &[u8] = br#"{"samples":[{"load1":1}]}"#;

    fn local() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    async fn up(data: &Path) -> Addresses {
        let options = RunOptions {
            data: data.to_owned(),
            socket: data.join("osiris.sock"),
            http: local(),
            mesh: Some(local()),
            advertise: Vec::new(),
            token_file: None,
            gossip: true,
            terms: crate::policy::Terms::default(),
            machines: 0,
            retain: Retain::All,
            provision: None,
        };
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        tokio::spawn(run(options, move |addresses| {
            let _ = ready.send(addresses.clone());
        }));
        is_ready.await.expect("the node starts")
    }

    /// One request on a connection of its own: the whole answer, head and body.
    async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, what: &str, body: &[u8]) -> String {
        let length = body.len();
        let head = format!(
            "{what} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("written");
        stream.write_all(body).await.expect("written");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("an answer");
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn manage<T: serde::de::DeserializeOwned>(node: &Addresses, what: &str, body: &[u8]) -> T {
        let stream = UnixStream::connect(&node.socket).await.expect("the node answers");
        let answer = ask(stream, what, body).await;
        let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }

    async fn call(node: &Addresses) -> String {
        let stream = TcpStream::connect(node.http).await.expect("the node answers");
        ask(stream, "POST /function/summary", SAMPLES).await
    }

    async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let end = tokio::time::Instant::now() + PATIENCE;
        while !holds().await {
            assert!(tokio::time::Instant::now() < end, "in vain: {what}");
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn replicas(node: &Addresses) -> u64 {
        let rows: Vec<api::FunctionRow> = manage(node, "GET /v1/functions", b"").await;
        rows.first().map_or(0, |row| row.served_by)
    }

    /// A folder that was admitted by this node.
    async fn joined(by: &Addresses, label: &str) -> tempfile::TempDir {
        let invite = serde_json::to_vec(&api::Invite { uses: 1, ..api::Invite::default() }).expect("JSON");
        let invited: api::Invited = manage(by, "POST /v1/invitations", &invite).await;
        let dir = tempfile::tempdir().expect("a folder");
        let (label, mesh) = (label.to_owned(), Some(local()));
        let options = JoinOptions { ticket: invited.ticket, label, user: None, mesh, timeout: PATIENCE };
        join(dir.path(), options).await.expect("joined");
        dir
    }

    /// A founder's node, its folder, and one of a member.
    async fn founder_and_member() -> (Addresses, tempfile::TempDir, tempfile::TempDir) {
        let dir = tempfile::tempdir().expect("a folder");
        let options = InitOptions { name: "bytes".to_owned(), label: "first".to_owned() };
        init(dir.path(), options).expect("founded");
        let a = up(dir.path()).await;
        let second = joined(&a, "second").await;
        (a, dir, second)
    }

    /// The folder of a founder whose node has ended, that of a member, and the member's node, whose address the first
    /// folder has.
    async fn founder_and_node() -> (tempfile::TempDir, tempfile::TempDir, Addresses) {
        let (a, dir, second) = founder_and_member().await;
        let b = up(second.path()).await;
        until("they are connected", async || {
            manage::<api::Status>(&a, "GET /v1/status", b"").await.connected == 1
        })
        .await;
        manage::<serde_json::Value>(&a, "POST /v1/shutdown", b"").await;
        (dir, second, b)
    }

    /// The folder, once no node has it.
    async fn opened(dir: &tempfile::TempDir) -> Offline {
        let mut folder = None;
        until("the folder is free", async || {
            folder = Offline::open(dir.path()).await.ok();
            folder.is_some()
        })
        .await;
        folder.expect("opened")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn bytes_are_with_a_member_before_it_hears_of_their_block() {
        let (dir, second, b) = founder_and_node().await;
        let mut folder = opened(&dir).await;
        let manifest = Manifest { version: Some("1.2.3".to_owned()), ..Manifest::named("summary") };
        folder.deploy(osiris_examples::SUMMARY, manifest).await.expect("deployed here");
        let mut process = folder.process;
        let artifacts = process.artifacts();
        assert_eq!(artifacts.len(), 2, "component and manifest");
        let known = process.folder.peers();
        let mut events = process.connect(Some(local()), Vec::new(), true, known, None).await.expect("a mesh");
        let end = tokio::time::Instant::now() + PATIENCE;
        assert!(matches!(process.bring(&mut events, &artifacts, end, end).await, Brought::All));
        let kept = |artifact: &Artifact| {
            let library = second.path().join("library");
            osiris_runtime::Library::path_in(&library, ComponentHash(artifact.hash)).exists()
        };
        assert!(artifacts.iter().all(kept), "it has the bytes");
        assert!(
            manage::<Vec<api::FunctionRow>>(&b, "GET /v1/functions", b"").await.is_empty(),
            "and no block"
        );
        let patience = u64::try_from(PATIENCE.as_millis()).expect("short");
        let desk = Arc::clone(&process.desk);
        let serves = async {
            until("they agree", async || desk.sync(patience).await.is_ok_and(|synced| synced.unseen == 0))
                .await;
            until("it serves", async || replicas(&b).await > 0 && call(&b).await.starts_with("HTTP/1.1 200"))
                .await;
        };
        process.engine.run(&mut events, serves).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn that_no_member_can_keep_the_bytes_is_said_until_one_can() {
        let (dir, second, b) = founder_and_node().await;
        let mut folder = opened(&dir).await;
        folder.deploy(osiris_examples::SUMMARY, Manifest::named("summary")).await.expect("deployed here");
        // Its disk takes nothing.
        let library = second.path().join("library");
        let aside = second.path().join("aside");
        std::fs::rename(&library, &aside).expect("moved");
        std::fs::write(&library, b"no folder").expect("written");
        let wait = Duration::from_secs(3);
        let synced = folder.contact(wait, wait, Some(local())).await.expect("met");
        assert_eq!((synced.agreed, synced.unseen, synced.cut), (1, 0, 2), "{synced:?}");
        let synced = opened(&dir).await.contact(wait, wait, Some(local())).await.expect("met");
        assert_eq!(synced.cut, 2, "also when its block is known: {synced:?}");
        std::fs::remove_file(&library).expect("removed");
        std::fs::rename(&aside, &library).expect("moved back");
        let synced = opened(&dir).await.contact(PATIENCE, PATIENCE, Some(local())).await.expect("met");
        assert_eq!((synced.unseen, synced.cut), (0, 0), "{synced:?}");
        until("it serves", async || replicas(&b).await > 0 && call(&b).await.starts_with("HTTP/1.1 200"))
            .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn where_nobody_is_met_blocks_stay_with_their_bytes() {
        let (a, dir, _second) = founder_and_member().await;
        manage::<serde_json::Value>(&a, "POST /v1/shutdown", b"").await;
        let mut folder = opened(&dir).await;
        folder.deploy(osiris_examples::SUMMARY, Manifest::named("summary")).await.expect("deployed here");
        let wait = Duration::from_millis(300);
        let synced = folder.contact(wait, wait, Some(local())).await.expect("tried");
        assert_eq!((synced.others, synced.agreed, synced.unseen > 0), (1, 0, true), "{synced:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_only_makes_contact_turns_calls_away_and_another_member_is_asked() {
        let dir = tempfile::tempdir().expect("a folder");
        let options = InitOptions { name: "contact".to_owned(), label: "first".to_owned() };
        init(dir.path(), options).expect("founded");
        let a = up(dir.path()).await;
        let second = joined(&a, "second").await;
        let b = up(second.path()).await;
        let stored: api::BlobStored =
            manage(&a, "POST /v1/blobs?kind=component", osiris_examples::SUMMARY).await;
        let manifest = Manifest::named("summary");
        let deploy = api::Deploy { component: stored.hash, manifest, timeout_ms: 60_000, wait: true };
        let deploy = serde_json::to_vec(&deploy).expect("JSON");
        let deployed: api::Deployed = manage(&a, "POST /v1/functions", &deploy).await;
        assert!(deployed.component_held_by > 0, "somebody else has it when the answer comes: {deployed:?}");
        until("both serve", async || replicas(&a).await == 2 && replicas(&b).await == 2).await;
        manage::<api::Drained>(&a, "POST /v1/drain", b"").await;
        manage::<serde_json::Value>(&b, "POST /v1/shutdown", b"").await;

        // The second device's ledger still says that it serves; now it only makes contact.
        let opened = async || Offline::open(second.path()).await.ok();
        let mut contact = opened().await;
        until("the folder is free", async || {
            contact = if contact.is_none() { opened().await } else { contact.take() };
            contact.is_some()
        })
        .await;
        let mut process = contact.expect("opened").process;
        let known = process.folder.peers();
        let mut events = process.connect(Some(local()), Vec::new(), true, known, None).await.expect("a mesh");
        let calls = async {
            until("the call reaches it", async || {
                call(&a).await.contains("turned the call away: This process runs no functions")
            })
            .await;
            let third = joined(&a, "third").await;
            let _c = up(third.path()).await;
            until("another serves", async || call(&a).await.starts_with("HTTP/1.1 200")).await;
            // So many at once that both are asked, whichever is nearer.
            for _ in 0..20 {
                let all = tokio::join!(call(&a), call(&a), call(&a), call(&a), call(&a), call(&a));
                for answer in [all.0, all.1, all.2, all.3, all.4, all.5] {
                    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                }
            }
        };
        process.engine.run(&mut events, calls).await;
    }
}
