//! What commands work on: the running node, or the folder's own replica where none runs.
//!
//! All of `osiris_fleet::driver` that the commands use is used here.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use osiris_fleet::api::{
    AddUser, BlobStored, BlockRow, ChangeUser, Deploy, Deployed, Doctor, FunctionDetail, FunctionRow,
    InvitationRow, Invite, Invited, LeaseLimit, Leases, Log, MemberBudget, MemberLabels, NameVoters, NodeRow,
    Recover, Recovered, Recovery, Revoke, RevokeUser, Revoked, RoleChange, RolesChanged, Scale, ScaleBounds,
    Status, Sync, Synced, TicketReply, UserKnown, UserRevoked, UserRow, Verified, Voters, Whoami, Written,
};
pub(crate) use osiris_fleet::driver;
use osiris_fleet::manifest::Manifest;

use crate::client::{Client, Patience};
use crate::config::Settings;
use crate::exit::Failure;
use crate::output::{Out, human, progress::Progress};
use crate::replica::{Replica, Use};

/// Longest wait for a node that is about to listen, or to let go of the folder.
pub(crate) const HANDOVER: Duration = Duration::from_secs(3);
/// How often a condition is looked at that nothing announces.
pub(crate) const LOOK: Duration = Duration::from_millis(50);
/// What says whether a function was deployed or removed, an invitation made or withdrawn, a member changed.
const DEPLOYED: &str = "osiris ledger log";
const INVITED: &str = "osiris invite ls";
const MEMBERS: &str = "osiris nodes";
const USERS: &str = "osiris user ls";
const VOTERS: &str = "osiris ledger voters";
const LEASES: &str = "osiris lease ls";
const SCALE: &str = "osiris scale explain";

/// Where the node of a data folder listens.
pub(crate) fn socket_path(data: &Path, xdg_runtime: Option<&Path>) -> PathBuf {
    driver::socket_path(data, xdg_runtime)
}

impl From<driver::DriverError> for Failure {
    fn from(error: driver::DriverError) -> Self {
        Self::of_code(error.code, error.message, error.next)
    }
}

/// The node, or the replica.
#[derive(Debug)]
pub(crate) enum Backend {
    /// A node runs and has the folder.
    Node(Client),
    /// No node runs; this process has the folder.
    Replica(Box<Replica>),
}

impl Backend {
    /// The node or the replica, to write with.
    pub(crate) async fn open(settings: &Settings) -> Result<Self, Failure> {
        Self::open_for(settings, None, Use::Write).await
    }

    /// The same, for a command that takes no longer than this, whatever it asks.
    pub(crate) async fn open_within(settings: &Settings, timeout: Duration) -> Result<Self, Failure> {
        Self::open_for(settings, Some(Patience::exactly(timeout)), Use::Write).await
    }

    /// The same, for a command that has begun to use up its time.
    pub(crate) async fn open_before(settings: &Settings, patience: Patience) -> Result<Self, Failure> {
        Self::open_for(settings, Some(patience), Use::Write).await
    }

    /// The same to meet other members with: nothing is written before.
    pub(crate) async fn open_to_meet(settings: &Settings, timeout: Duration) -> Result<Self, Failure> {
        Self::open_for(settings, Some(Patience::exactly(timeout)), Use::Meet).await
    }

    /// The same to call with: nothing is written.
    pub(crate) async fn open_to_call(settings: &Settings, patience: Patience) -> Result<Self, Failure> {
        Self::open_for(settings, Some(patience), Use::Read).await
    }

    /// The same to read with, as it is.
    pub(crate) async fn open_to_look(settings: &Settings) -> Result<Self, Failure> {
        Self::open_for(settings, None, Use::Read).await
    }

    async fn open_for(settings: &Settings, bound: Option<Patience>, use_for: Use) -> Result<Self, Failure> {
        let patience = bound.map_or(HANDOVER, |bound| bound.left().min(HANDOVER));
        let until = Instant::now() + patience;
        let replica = loop {
            if let Some(client) = Client::find_within(&settings.socket, bound).await? {
                return Ok(Self::Node(client));
            }
            must_be_member(&settings.data)?;
            match Replica::open(settings, bound, use_for).await {
                // A node that starts has the folder before it listens, and one that stops still has it.
                Err(error) if error.is_in_use() && Instant::now() < until => tokio::time::sleep(LOOK).await,
                opened => break opened?,
            }
        };
        let out = Out::new(settings.output);
        if !matches!(use_for, Use::Show | Use::Examine) {
            replica.offline.problems().iter().for_each(|problem| out.warn(problem));
        }
        if use_for != Use::Examine {
            replica.offline.warnings().iter().for_each(|warning| out.warn(warning));
        }
        let replica = match use_for {
            Use::Write => replica.after_contact(settings).await?,
            _ => replica,
        };
        Ok(Self::Replica(Box::new(replica)))
    }

    /// The same to read with: what nobody has seen yet is handed on first.
    pub(crate) async fn open_to_read(settings: &Settings) -> Result<Self, Failure> {
        Self::open_after_contact(settings, Use::Read).await
    }

    /// The same for a command that shows the status's problems.
    pub(crate) async fn open_to_show(settings: &Settings) -> Result<Self, Failure> {
        Self::open_after_contact(settings, Use::Show).await
    }

    /// The same as it is, for a command that shows all that is wrong with the folder.
    pub(crate) async fn open_to_examine(settings: &Settings) -> Result<Self, Failure> {
        Self::open_for(settings, None, Use::Examine).await
    }

    async fn open_after_contact(settings: &Settings, use_for: Use) -> Result<Self, Failure> {
        let mut backend = Self::open_for(settings, None, use_for).await?;
        if let Self::Replica(replica) = &mut backend
            && replica.offline.is_sound()
        {
            let status = replica.offline.status().await?;
            if status.unseen > 0 && status.members > 1 {
                drop(backend);
                // What comes of it is in the ledger, where it is read; that it cannot be opened is said then.
                if let Ok(replica) = Replica::open(settings, None, Use::Meet).await {
                    let _ = replica.try_contact().await;
                }
                return Ok(Self::Replica(Box::new(Replica::open(settings, None, use_for).await?)));
            }
        }
        Ok(backend)
    }

    /// A ticket to reach the fleet with.
    pub(crate) async fn ticket(&mut self) -> Result<TicketReply, Failure> {
        match self {
            Self::Node(client) => client.get("/v1/ticket").await,
            Self::Replica(replica) => Ok(replica.offline.ticket()?),
        }
    }

    /// What the command may take begins anew: a person was asked something meanwhile.
    pub(crate) fn renew(&mut self, timeout: Duration) {
        let bound = Some(Patience::exactly(timeout));
        match self {
            Self::Node(client) => client.bound = bound,
            Self::Replica(replica) => replica.bound = bound,
        }
    }

    /// Whether no node runs.
    pub(crate) fn is_offline(&self) -> bool {
        matches!(self, Self::Replica(_))
    }

    pub(crate) async fn status(&mut self) -> Result<Status, Failure> {
        match self {
            Self::Node(client) => client.get("/v1/status").await,
            Self::Replica(replica) => Ok(replica.offline.status().await?),
        }
    }

    pub(crate) async fn doctor(&mut self) -> Result<Doctor, Failure> {
        match self {
            Self::Node(client) => client.get("/v1/doctor").await,
            Self::Replica(replica) => Ok(replica.offline.doctor().await?),
        }
    }

    pub(crate) async fn nodes(&mut self) -> Result<Vec<NodeRow>, Failure> {
        match self {
            Self::Node(client) => client.get("/v1/nodes").await,
            Self::Replica(replica) => Ok(replica.offline.nodes().await?),
        }
    }

    pub(crate) async fn functions(&mut self) -> Result<Vec<FunctionRow>, Failure> {
        match self {
            Self::Node(client) => client.get("/v1/functions").await,
            Self::Replica(replica) => Ok(replica.offline.functions().await?),
        }
    }

    pub(crate) async fn function(&mut self, name: &str) -> Result<FunctionDetail, Failure> {
        match self {
            Self::Node(client) => client.get(&format!("/v1/functions/{name}")).await,
            Self::Replica(replica) => replica.function(name).await,
        }
    }

    pub(crate) async fn invitations(&mut self) -> Result<Vec<InvitationRow>, Failure> {
        match self {
            Self::Node(client) => client.get("/v1/invitations").await,
            Self::Replica(replica) => Ok(replica.offline.invitations()),
        }
    }

    pub(crate) async fn ledger(&mut self, log: Log) -> Result<Vec<BlockRow>, Failure> {
        match self {
            Self::Node(client) => client.post("/v1/ledger/log", &log, Patience::question()).await,
            Self::Replica(replica) => Ok(replica.offline.ledger(log).await?),
        }
    }

    pub(crate) async fn deploy(
        self,
        component: Vec<u8>,
        manifest: Manifest,
        timeout: Duration,
        wait: bool,
    ) -> Result<(Deployed, bool), Failure> {
        match self {
            Self::Node(client) => {
                // One patience for both requests.
                let patience = client.patience();
                let upload = Progress::bytes(component.len() as u64, "handing over the component");
                let path = "/v1/blobs?kind=component";
                let stored: BlobStored =
                    client.json(Method::POST, path, component.into(), patience.prepares(), upload).await?;
                let _progress =
                    Progress::spinner(format!("waiting for other members ({})", human::span(timeout)));
                let timeout_ms = millis(patience.left());
                let deploy = Deploy { component: stored.hash, manifest, timeout_ms, wait };
                Ok((client.post("/v1/functions", &deploy, patience.records(DEPLOYED)).await?, false))
            }
            Self::Replica(mut replica) => {
                let mut deployed = replica.offline.deploy(&component, manifest).await?;
                let cut = replica.hand_on(&mut deployed.written).await?;
                if !cut && deployed.written.seen_by > 0 {
                    // Somebody had the bytes before anybody heard of the block.
                    deployed.component_held_by = deployed.component_held_by.max(1);
                }
                Ok((deployed, cut))
            }
        }
    }

    pub(crate) async fn remove(self, name: &str, timeout: Duration) -> Result<Written, Failure> {
        match self {
            Self::Node(client) => delete(&client, &format!("/v1/functions/{name}"), timeout, DEPLOYED).await,
            Self::Replica(mut replica) => {
                let mut written = replica.offline.remove(name).await?;
                replica.hand_on(&mut written).await?;
                Ok(written)
            }
        }
    }

    pub(crate) async fn invite(self, invite: Invite) -> Result<Invited, Failure> {
        match self {
            Self::Node(client) => {
                let patience = client.patience().records(INVITED);
                let invite = Invite { timeout_ms: millis(patience.left()), ..invite };
                client.post("/v1/invitations", &invite, patience).await
            }
            Self::Replica(mut replica) => {
                let mut invited = replica.offline.invite(invite).await?;
                replica.hand_on(&mut invited.written).await?;
                Ok(invited)
            }
        }
    }

    pub(crate) async fn withdraw(self, id: &str, timeout: Duration) -> Result<Written, Failure> {
        match self {
            Self::Node(client) => delete(&client, &format!("/v1/invitations/{id}"), timeout, INVITED).await,
            Self::Replica(mut replica) => {
                let mut written = replica.offline.withdraw(id).await?;
                replica.hand_on(&mut written).await?;
                Ok(written)
            }
        }
    }

    pub(crate) async fn revoke(self, revoke: Revoke) -> Result<Revoked, Failure> {
        match self {
            Self::Node(client) => {
                let patience = client.patience().records(MEMBERS);
                let revoke = Revoke { timeout_ms: millis(patience.left()), ..revoke };
                client.post("/v1/members/revoke", &revoke, patience).await
            }
            Self::Replica(mut replica) => {
                let mut revoked = replica.offline.revoke(revoke).await?;
                replica.hand_on(&mut revoked.written).await?;
                Ok(revoked)
            }
        }
    }

    /// Gives roles to a member, or takes them.
    pub(crate) async fn change_roles(self, change: RoleChange, give: bool) -> Result<RolesChanged, Failure> {
        match self {
            Self::Node(client) => {
                let patience = client.patience().records(MEMBERS);
                let change = RoleChange { timeout_ms: millis(patience.left()), ..change };
                let path = if give { "/v1/roles/grant" } else { "/v1/roles/revoke" };
                client.post(path, &change, patience).await
            }
            Self::Replica(mut replica) => {
                let changed = match give {
                    true => replica.offline.grant_roles(change).await,
                    false => replica.offline.revoke_roles(change).await,
                };
                let mut changed = changed?;
                replica.hand_on(&mut changed.written).await?;
                Ok(changed)
            }
        }
    }

    pub(crate) async fn whoami(&mut self) -> Result<Whoami, Failure> {
        match self {
            Self::Node(client) => client.get("/v1/whoami").await,
            Self::Replica(replica) => Ok(replica.offline.whoami().await?),
        }
    }

    pub(crate) async fn users(&mut self) -> Result<Vec<UserRow>, Failure> {
        match self {
            Self::Node(client) => client.get("/v1/users").await,
            Self::Replica(replica) => Ok(replica.offline.users()),
        }
    }

    pub(crate) async fn user_ticket(&mut self, id: &str) -> Result<TicketReply, Failure> {
        match self {
            Self::Node(client) => client.get(&format!("/v1/users/{id}/ticket")).await,
            Self::Replica(replica) => Ok(replica.offline.user_ticket(id).await?),
        }
    }

    pub(crate) async fn add_user(self, user: AddUser) -> Result<UserKnown, Failure> {
        match self {
            Self::Node(client) => {
                let patience = client.patience().records(USERS);
                let user = AddUser { timeout_ms: millis(patience.left()), ..user };
                client.post("/v1/users", &user, patience).await
            }
            Self::Replica(mut replica) => {
                let mut known = replica.offline.add_user(user).await?;
                replica.hand_on(&mut known.written).await?;
                Ok(known)
            }
        }
    }

    pub(crate) async fn change_user(self, change: ChangeUser) -> Result<UserKnown, Failure> {
        match self {
            Self::Node(client) => {
                let patience = client.patience().records(USERS);
                let change = ChangeUser { timeout_ms: millis(patience.left()), ..change };
                client.post("/v1/users/change", &change, patience).await
            }
            Self::Replica(mut replica) => {
                let mut known = replica.offline.change_user(change).await?;
                replica.hand_on(&mut known.written).await?;
                Ok(known)
            }
        }
    }

    pub(crate) async fn revoke_user(self, revoke: RevokeUser) -> Result<UserRevoked, Failure> {
        match self {
            Self::Node(client) => {
                let patience = client.patience().records(USERS);
                let revoke = RevokeUser { timeout_ms: millis(patience.left()), ..revoke };
                client.post("/v1/users/revoke", &revoke, patience).await
            }
            Self::Replica(mut replica) => {
                let mut revoked = replica.offline.revoke_user(revoke).await?;
                replica.hand_on(&mut revoked.written).await?;
                Ok(revoked)
            }
        }
    }

    pub(crate) async fn leases(&mut self) -> Result<Leases, Failure> {
        match self {
            Self::Node(client) => client.get("/v1/leases").await,
            Self::Replica(replica) => Ok(replica.offline.leases().await?),
        }
    }

    pub(crate) async fn limit_leases(self, limit: LeaseLimit) -> Result<Written, Failure> {
        match self {
            Self::Node(client) => {
                let patience = client.patience().records(LEASES);
                let limit = LeaseLimit { timeout_ms: millis(patience.left()), ..limit };
                client.post("/v1/leases/limit", &limit, patience).await
            }
            Self::Replica(mut replica) => {
                let mut written = replica.offline.limit_leases(limit).await?;
                replica.hand_on(&mut written).await?;
                Ok(written)
            }
        }
    }

    pub(crate) async fn voters(&mut self) -> Result<Voters, Failure> {
        match self {
            Self::Node(client) => client.get("/v1/voters").await,
            Self::Replica(replica) => Ok(replica.offline.voters()),
        }
    }

    pub(crate) async fn name_voters(self, name: NameVoters) -> Result<Written, Failure> {
        match self {
            Self::Node(client) => {
                let patience = client.patience().records(VOTERS);
                let name = NameVoters { timeout_ms: millis(patience.left()), ..name };
                client.post("/v1/voters", &name, patience).await
            }
            Self::Replica(mut replica) => {
                let mut written = replica.offline.name_voters(name).await?;
                replica.hand_on(&mut written).await?;
                Ok(written)
            }
        }
    }

    /// `trial` are bounds that each function is taken to have; none: those that it has.
    pub(crate) async fn scale(&mut self, trial: Option<(u32, u32)>) -> Result<Scale, Failure> {
        match self {
            Self::Node(client) => {
                let (min, max) = trial.unwrap_or_default();
                client.get(&format!("/v1/scale?min={min}&max={max}")).await
            }
            Self::Replica(replica) => Ok(replica.offline.scale(trial).await?),
        }
    }

    pub(crate) async fn bound(self, bounds: ScaleBounds) -> Result<Written, Failure> {
        match self {
            Self::Node(client) => {
                let patience = client.patience().records(SCALE);
                let bounds = ScaleBounds { timeout_ms: millis(patience.left()), ..bounds };
                client.post("/v1/scale", &bounds, patience).await
            }
            Self::Replica(mut replica) => {
                let mut written = replica.offline.bound(bounds).await?;
                replica.hand_on(&mut written).await?;
                Ok(written)
            }
        }
    }

    pub(crate) async fn label(self, labels: MemberLabels) -> Result<Written, Failure> {
        match self {
            Self::Node(client) => {
                let patience = client.patience().records(MEMBERS);
                let labels = MemberLabels { timeout_ms: millis(patience.left()), ..labels };
                client.post("/v1/members/labels", &labels, patience).await
            }
            Self::Replica(mut replica) => {
                let mut written = replica.offline.label(labels).await?;
                replica.hand_on(&mut written).await?;
                Ok(written)
            }
        }
    }

    pub(crate) async fn budget(self, budget: MemberBudget) -> Result<Written, Failure> {
        match self {
            Self::Node(client) => {
                let patience = client.patience().records(MEMBERS);
                let budget = MemberBudget { timeout_ms: millis(patience.left()), ..budget };
                client.post("/v1/members/budget", &budget, patience).await
            }
            Self::Replica(mut replica) => {
                let mut written = replica.offline.budget(budget).await?;
                replica.hand_on(&mut written).await?;
                Ok(written)
            }
        }
    }

    pub(crate) async fn recovery(&mut self) -> Result<Recovery, Failure> {
        match self {
            Self::Node(client) => client.get("/v1/recovery").await,
            Self::Replica(replica) => Ok(replica.offline.recovery().await?),
        }
    }

    pub(crate) async fn recover(self, recover: Recover) -> Result<Recovered, Failure> {
        match self {
            Self::Node(client) => {
                let patience = client.patience().records(MEMBERS);
                let recover = Recover { timeout_ms: millis(patience.left()), ..recover };
                client.post("/v1/recovery", &recover, patience).await
            }
            Self::Replica(mut replica) => {
                let mut recovered = replica.offline.recover(recover).await?;
                replica.hand_on(&mut recovered.written).await?;
                Ok(recovered)
            }
        }
    }

    pub(crate) async fn leave(self) -> Result<Written, Failure> {
        match self {
            Self::Node(client) => {
                client.post("/v1/leave", &NOTHING, Patience::question().records(MEMBERS)).await
            }
            Self::Replica(mut replica) => {
                let mut written = replica.offline.leave().await?;
                replica.hand_on(&mut written).await?;
                Ok(written)
            }
        }
    }

    pub(crate) async fn sync(self, timeout: Duration) -> Result<Synced, Failure> {
        let _progress = Progress::spinner(format!("looking for other members ({})", human::span(timeout)));
        match self {
            Self::Node(client) => {
                let patience = client.patience();
                let sync = Sync { timeout_ms: millis(patience.left()) };
                client.post("/v1/sync", &sync, patience).await
            }
            Self::Replica(replica) => {
                let wait = replica.bound.map_or(timeout, |bound| bound.left());
                Ok(replica.offline.contact(wait, wait, replica.mesh).await?)
            }
        }
    }
}

/// Checks everything again: the node does where one runs; else the folder is looked into, and nothing in it is
/// changed.
pub(crate) async fn verify(settings: &Settings, timeout: Duration) -> Result<Verified, Failure> {
    let progress = Progress::spinner("checking the ledger");
    let patience = Patience::exactly(timeout);
    let asked = |client: Client, progress| async move {
        client.get_slowly("/v1/ledger/verify", "/v1/whoami", patience, progress).await
    };
    if let Some(client) = Client::find(&settings.socket).await? {
        return asked(client, progress).await;
    }
    let data = settings.data.clone();
    let looked = tokio::task::spawn_blocking(move || driver::verify(&data));
    let looked = tokio::time::timeout(timeout, looked).await.map_err(|_| {
        Failure::timed_out(format!("The folder was not checked within {}.", human::span(timeout)))
            .next("give it longer with --timeout")
    })?;
    match looked.map_err(|error| Failure::failed(format!("The check ended early: {error}.")))? {
        Ok(verified) => Ok(verified),
        // A node may have been started, or a command ended, in between.
        Err(error) if driver::is_in_use(&settings.data)? => match Client::find(&settings.socket).await? {
            Some(client) => asked(client, progress).await,
            None => Err(error.into()),
        },
        Err(error) => Err(error.into()),
    }
}

/// Waits until no process has the folder's lock any more, or says that one still has it.
pub(crate) async fn wait_for_release(data: &Path, until: Instant) -> bool {
    loop {
        // Where that cannot be told, whoever opens the folder next says why.
        if !driver::is_in_use(data).unwrap_or(false) {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// An empty JSON object.
pub(crate) const NOTHING: std::collections::BTreeMap<(), ()> = std::collections::BTreeMap::new();

async fn delete(
    client: &Client,
    path: &str,
    timeout: Duration,
    look: &'static str,
) -> Result<Written, Failure> {
    let _progress = Progress::spinner(format!("waiting for other members ({})", human::span(timeout)));
    let patience = client.patience().records(look);
    let path = format!("{path}?timeout_ms={}", millis(patience.left()));
    client.json(Method::DELETE, &path, Bytes::new(), patience, Progress::none()).await
}

pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// The running node, for what only a node can do.
pub(crate) async fn node(settings: &Settings) -> Result<Client, Failure> {
    match Client::find(&settings.socket).await? {
        Some(client) => Ok(client),
        None => {
            must_be_member(&settings.data)?;
            Err(Failure::failed(format!("No node runs for the data folder {}.", settings.data.display()))
                .next("start it with `osiris up`, or give the --data DIR of the one that runs"))
        }
    }
}

/// Whether this folder's device still has to join, also where a join was killed in between.
pub(crate) fn has_to_join(data: &Path) -> bool {
    must_be_member(data).is_err() || driver::join_is_unfinished(data)
}

/// A folder that belongs to no fleet is refused before anything is made in it.
pub(crate) fn must_be_member(data: &Path) -> Result<(), Failure> {
    // A journal that is lost is spoken of where it is opened.
    if data.join("journal").exists() || data.join("journal.head").exists() {
        return Ok(());
    }
    Err(Failure::not_found(format!("The data folder {} belongs to no fleet yet.", data.display()))
        .next("found one with `osiris init`, or be admitted to one with `osiris join TICKET`"))
}
