//! What goes into the core and what comes out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use osiris_ledger::{
    AppendError, Author, BlobHash, Block, BlockId, ChainId, Order, Page, Reject, Role, Roles, Signature,
    SigningKey, View, Void, World, counter::Figures, op, state::Record,
};
use osiris_mesh::PeerId;
use osiris_protocol::join::RefusalCode;

use super::{
    Ended, FleetCounters, Retain,
    lease::{Errand, LeaseFacts, Share, Spawn, Want},
    scale::{MachineLoad, ScaleFacts},
};
use crate::{api::codes, manifest::Manifest};

/// Names a request until it is answered.
pub type Token = u64;

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// The driver is ready to perform effects.
    Start,
    /// A member is connected.
    PeerUp(PeerId),
    /// A member's connection is gone.
    PeerDown(PeerId),
    /// A connected member sent a frame of `osiris/sync/1`.
    Frame(PeerId, Vec<u8>),
    /// A member sent what none of the mesh's protocols knows.
    Malformed(PeerId),
    /// A member does not take this device for one.
    TurnedAway(PeerId),
    /// It answered [`Effect::AskEnding`] with this frame.
    Ending(PeerId, Vec<u8>),
    /// It did not: it does not know of this device, or could not be asked.
    NoEnding(PeerId),
    /// Gossip brought an entry.
    Hint(Vec<u8>),
    /// Gossip brought a row of counters.
    RowHint(Vec<u8>),
    /// What the functions of this process do now, by name.
    Observed(Vec<(String, Figures)>),
    /// One more machine is wanted, or somebody to look after those of a slot.
    Want(Want),
    /// How busy this machine is.
    Machine(MachineLoad),
    /// A function that has no replica was called here, and the invocation waits for one.
    Called(String),
    /// [`Effect::Provision`] has made the machine of this intent, and it is a member; or why not.
    Provisioned(BlockId, Result<(), String>),
    /// Records that [`Effect::KeepState`] kept in earlier processes. Comes before [`Input::Start`].
    StatesKept(Vec<Vec<u8>>),
    /// A record that this device signed.
    StateSealed(Record),
    /// [`Effect::Provision`] has taken the machine of this intent away; or why not.
    Removed(BlockId, Result<(), String>),
    /// Which machines of this node's target are there, by [`super::lease::Spawn::id`]; or why the target cannot be
    /// asked.
    Machines(Result<BTreeSet<String>, String>),
    /// The process is about to end, in order.
    Stopping,
    /// This machine was suspended since the last input: its monotonic clock did not count that time. Comes before
    /// anything else that is handled after it.
    Suspended,
    /// A member says that another process said hello with this device's key.
    Twin(PeerId),
    /// Gossip lost something.
    HintsLagged,
    /// [`super::Node::deadline`] has come.
    Tick,
    /// Somebody asks for something.
    Request(Token, Request),
    /// The library holds these bytes.
    BlobHeld(BlobHash),
    /// The library holds them no more: no revision that counts uses them.
    BlobGone(BlobHash),
    /// A page is in the library, durably: it was written there, or read from there.
    Page(BlobHash, Result<Arc<Page>, String>),
    /// A manifest was read from the library.
    Manifest(BlobHash, Result<Manifest, String>),
    /// No member gave these bytes.
    FetchFailed(BlobHash, String),
    /// A revision is compiled and can run so many invocations side by side.
    Prepared(BlockId, u32),
    /// A revision cannot run here.
    PrepareFailed(BlockId, String),
    /// The journal could not be written or synced: why, and the blocks that it was given and did not
    /// make durable.
    StoreFailed(String, Vec<BlockId>),
}

/// What can be asked of a node.
#[derive(Debug)]
pub enum Request {
    /// Deploy a component that the library holds.
    Deploy {
        /// The component.
        component: BlobHash,
        /// Its bytes.
        size: u64,
        /// What it exports.
        world: World,
        /// Its manifest's hash and bytes, in the library too.
        manifest: (BlobHash, u64),
        /// The function.
        name: String,
        /// Wait so long for another member.
        timeout_ms: u64,
        /// Wait until it is live.
        live: bool,
    },
    /// Remove a function.
    Remove {
        /// The function.
        name: String,
        /// Wait so long for another member.
        timeout_ms: u64,
    },
    /// Invite.
    Invite {
        /// Public half of the invitation's key.
        key: Author,
        /// Devices it may admit.
        uses: u32,
        /// What it gives.
        roles: Roles,
        /// The only device it is for.
        device: Option<Author>,
        /// For people.
        note: String,
        /// Wait so long for another member.
        timeout_ms: u64,
    },
    /// Make a person known by a key that admits devices.
    AddUser {
        /// The person and the key.
        user: op::User,
        /// Wait so long for another member.
        timeout_ms: u64,
    },
    /// Make a person known again by the same key, with other roles or another number of devices.
    ChangeUser {
        /// The `user` block that ends.
        user: BlockId,
        /// What devices admitted from now on may write; none: as before.
        roles: Option<Roles>,
        /// How many devices may be admitted from now on; none: as before.
        devices: Option<u32>,
        /// Wait so long for another member.
        timeout_ms: u64,
    },
    /// End a user: the key admits no more.
    RevokeUser {
        /// The `user` block.
        user: BlockId,
        /// What becomes of its devices.
        devices: UserDevices,
        /// Wait so long for another member.
        timeout_ms: u64,
    },
    /// Withdraw an invitation.
    Withdraw {
        /// Its block.
        invitation: BlockId,
        /// Wait so long for another member.
        timeout_ms: u64,
    },
    /// A stranger holds a ticket.
    Admit {
        /// Its key, proven by its connection.
        device: Author,
        /// The invitation it names.
        invitation: BlockId,
        /// Its proof.
        proof: Signature,
        /// Its name.
        label: String,
    },
    /// A device that was a member asks what ended that.
    Ending {
        /// Its key, proven by its connection.
        device: Author,
        /// The frame that says what it holds.
        question: Vec<u8>,
    },
    /// End this device's membership.
    Leave {
        /// Wait so long for another member.
        timeout_ms: u64,
    },
    /// Serve no more, once others do.
    Drain,
    /// Agree with every connected member.
    Sync {
        /// Wait so long.
        timeout_ms: u64,
    },
    /// Say how many machines the fleet may make.
    Spawning {
        /// At most so many that are not retired.
        machines: u32,
        /// Whether one may be made without contact to a majority of the voters.
        minority: bool,
        /// Wait so long for another member.
        timeout_ms: u64,
    },
    /// Say who seals pages from now on.
    NameVoters {
        /// The devices.
        devices: BTreeSet<Author>,
        /// Wait so long for another member.
        timeout_ms: u64,
    },
    /// Say how many replicas a function, or all scaled ones together, may have.
    Bound {
        /// The function; none: all together.
        name: Option<String>,
        /// The bounds; none: what manifests say.
        range: Option<op::Range>,
        /// Wait so long for another member.
        timeout_ms: u64,
    },
    /// Say which labels a device bears.
    Label {
        /// The device.
        device: Author,
        /// All its labels, ascending.
        labels: Vec<String>,
        /// Wait so long for another member.
        timeout_ms: u64,
    },
    /// Say how many blocks a device may write.
    Budget {
        /// The device.
        device: Author,
        /// Blocks in all, from its first on.
        blocks: u64,
        /// Wait so long for another member.
        timeout_ms: u64,
    },
    /// Say that the machine of an intent is gone, by the word of whoever asks; [`Want::Gone`] takes it away.
    Retire {
        /// The `intent` block.
        intent: BlockId,
        /// Wait so long for another member.
        timeout_ms: u64,
    },
    /// What [`Input::Want`] wants, with an answer: leases as they are then, or why it comes to nothing.
    Want(Want),
    /// Give up a lease that this node holds or waits for.
    Release {
        /// Its slot.
        slot: u32,
        /// Wait so long for another member.
        timeout_ms: u64,
    },
    /// Read.
    Query(Query),
    /// End another device's membership.
    Revoke {
        /// The device.
        device: Author,
        /// Void all that it wrote, rather than only what it writes from now on.
        discard: bool,
        /// Wait so long for another member.
        timeout_ms: u64,
    },
    /// Give a member more roles.
    GrantRoles(RoleChange),
    /// Take roles from a member.
    RevokeRoles(RoleChange),
    /// What a recovery has to be signed for.
    Recovery,
    /// Make a device an admin by the recovery key's word.
    Recover {
        /// The device.
        device: Author,
        /// Its name.
        label: String,
        /// What the certificate was signed for; [`Request::Recovery`] says which one is next.
        generation: u32,
        /// The recovery key's signature.
        certificate: Signature,
        /// Wait so long for another member.
        timeout_ms: u64,
    },
}

/// What becomes of a revoked user's devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserDevices {
    /// They keep what the user gave them.
    Keep,
    /// What the user gave them ends; what they wrote by it goes on counting.
    End,
    /// What the user gave them ends, and what they wrote by it is void.
    Discard,
}

/// What [`Request::GrantRoles`] and [`Request::RevokeRoles`] change.
#[derive(Debug)]
pub struct RoleChange {
    /// The member.
    pub device: Author,
    /// The roles in question.
    pub roles: Roles,
    /// A fresh random key for the invitation behind a new grant: it signs once.
    pub key: SigningKey,
    /// Wait so long for another member.
    pub timeout_ms: u64,
}

/// Which blocks of the log are asked for: those that fit all that is given.
#[derive(Clone, Debug, Default)]
pub struct LogQuery {
    /// At most so many.
    pub limit: usize,
    /// By one of these devices.
    pub authors: Option<BTreeSet<Author>>,
    /// By a grant that one of these users' keys gave.
    pub users: Option<BTreeSet<BlockId>>,
    /// About this function.
    pub function: Option<String>,
    /// This operation.
    pub op: Option<String>,
    /// From this time on, by the author's clock, in milliseconds since 1970.
    pub since_ms: Option<u64>,
    /// Before this time, likewise.
    pub until_ms: Option<u64>,
    /// Before this block in ledger order.
    pub before: Option<BlockId>,
    /// Only what is here as a summary.
    pub summaries_only: bool,
}

/// A block of the log, as this replica holds it.
#[derive(Clone, Debug)]
pub enum Recorded {
    /// With its bytes.
    Full(Arc<Block>),
    /// As a summary: its clock and its signature were dropped.
    Summary {
        /// Its place among all blocks, with its id.
        order: Order,
        /// Its chain.
        chain: ChainId,
        /// Its place there.
        seq: u64,
        /// The revision that it is about.
        revision: BlockId,
        /// Calls side by side of a `serving`; none: a `stopped`.
        concurrency: Option<u32>,
    },
}

/// A block with what the ledger makes of it.
#[derive(Clone, Debug)]
pub struct Logged {
    /// The block.
    pub block: Recorded,
    /// Why it does not count.
    pub void: Option<Void>,
    /// The block that gave the grant it was written by; none where it is not here.
    pub granted_by: Option<Arc<Block>>,
    /// The user whose key gave that grant.
    pub user: Option<BlockId>,
}

/// What can be read.
#[derive(Clone, Debug)]
pub enum Query {
    /// [`Facts`].
    Facts,
    /// Members that are taken for gone, as their connection was lost and did not come back.
    Lost,
    /// The newest blocks that fit, newest first.
    Log(Box<LogQuery>),
    /// Every block, in order.
    Blocks,
    /// Which of these blocks are not here.
    Missing(Vec<BlockId>),
    /// [`FleetCounters`].
    Counters,
    /// This device's grants, highest rank first.
    Grants,
    /// [`LeaseFacts`].
    Leases,
    /// [`ScaleFacts`], as they are, or as if each function by itself had these bounds, the least and the most.
    Scale(Option<(u32, u32)>),
}

/// What the core holds in memory that peers can make grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Blocks that wait for others.
    pub early: u64,
    /// What those hold, bytes; at most [`osiris_ledger::limits::EARLY_BYTES_MAX`].
    pub early_bytes: u64,
    /// Own blocks that nobody confirmed.
    pub unseen: u64,
    /// Blocks whose changes wait for the automerge document. All are admitted blocks, and only pointers to them
    /// are held.
    pub document_pending: u64,
    /// How often the document was built again because of a fork.
    pub document_rebuilds: u64,
    /// Blocks from the journal whose signatures were not checked yet since the start.
    pub signatures_unchecked: u64,
    /// Those whose signatures were found wrong.
    pub signatures_wrong: u64,
}

/// What the core knows beside the view.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Heads of the automerge document.
    pub document_heads: Vec<[u8; 32]>,
    /// Blocks that wait for others.
    pub early: u64,
    /// Blocks that are here as summaries alone.
    pub summaries: u64,
    /// What is kept of blocks that sealed pages list.
    pub retain: Retain,
    /// Own blocks that nobody confirmed.
    pub unseen: u64,
    /// Members connected.
    pub connected: u64,
    /// Invalid blocks and broken messages, by the member whose fault they are and the reason's name.
    pub rejected: BTreeMap<Author, BTreeMap<&'static str, u64>>,
    /// How often blocks were left with their author because it writes faster than its quota.
    pub held_back: BTreeMap<Author, u64>,
    /// Blocks of each member that are here.
    pub written: BTreeMap<Author, u64>,
    /// Members whose machines are busy.
    pub busy: BTreeSet<Author>,
    /// Revisions that should be ready here and are not: why.
    pub problems: BTreeMap<BlockId, String>,
    /// Whether this node serves no more.
    pub draining: bool,
    /// Own blocks of earlier sessions that other members held and this replica did not.
    pub returned: u64,
    /// Why the journal takes no more writes.
    pub read_only: Option<String>,
    /// What is wrong where the journal holds blocks that nobody signed, in sentences.
    pub forged: Option<String>,
    /// What is wrong where another process runs with this device's key, in sentences.
    pub twin: Option<String>,
    /// How this device's membership ended, where it is no member.
    pub ended: Option<Ended>,
    /// Heads of all chains, for a ticket.
    pub heads: Vec<BlockId>,
}

/// A request's answer.
#[derive(Debug)]
pub enum Reply {
    /// To [`Query::Lost`].
    Lost(BTreeSet<Author>),
    /// The block is durable here; so many of the other members confirmed it.
    Written {
        /// The block.
        block: Arc<Block>,
        /// Members that confirmed.
        seen_by: u64,
        /// Other active members.
        others: u64,
    },
    /// A stranger is a member; its grant.
    Admitted(BlockId),
    /// [`Request::Ending`]: the frame for the device.
    Ending(Vec<u8>),
    /// Contact: other members, those connected, those that agree, own blocks nobody confirmed.
    Synced {
        /// Other active members.
        others: u64,
        /// Connected.
        connected: u64,
        /// Agreeing.
        agreed: u64,
        /// Unconfirmed own blocks.
        unseen: u64,
    },
    /// Nothing is served here any more.
    Drained {
        /// Revisions that were.
        stopped: u64,
        /// Functions that nobody serves now.
        left: Vec<String>,
    },
    /// [`Query::Facts`].
    Facts(Box<Facts>),
    /// [`Query::Log`].
    Log(Vec<Logged>),
    /// [`Query::Grants`], each with the admissions between the genesis block and it.
    Grants(Vec<(Logged, i64)>),
    /// [`Query::Blocks`], each with whether it counts, the pages by which the others are here, and the view at that
    /// moment.
    Blocks(Vec<(Arc<Block>, bool)>, Vec<Arc<Page>>, Arc<View>),
    /// [`Query::Missing`].
    Missing(BTreeSet<BlockId>),
    /// [`Query::Counters`].
    Counters(FleetCounters),
    /// [`Query::Leases`].
    Leases(Box<LeaseFacts>),
    /// [`Query::Scale`].
    Scale(Box<ScaleFacts>),
    /// [`Request::Recovery`].
    Recovery {
        /// Public half of the fleet's recovery key.
        key: Author,
        /// One above the highest generation that is known here.
        generation: u32,
    },
}

/// Why a request was refused.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// One of [`codes`].
    pub code: (&'static str, u16),
    /// A sentence.
    pub message: String,
    /// What to do next.
    pub next: Option<String>,
    /// For a joining stranger.
    pub join: Option<RefusalCode>,
}

impl Refusal {
    pub(crate) fn new(code: (&'static str, u16), message: impl Into<String>, next: &str) -> Self {
        let next = (!next.is_empty()).then(|| next.to_owned());
        Self { code, message: message.into(), next, join: None }
    }

    pub(crate) fn joining(join: RefusalCode, message: impl Into<String>) -> Self {
        Self { join: Some(join), ..Self::new(codes::DENIED, message, "Ask an admin for a new ticket.") }
    }

    pub(crate) fn storage(why: &str) -> Self {
        Self::new(
            codes::STORAGE,
            format!("The journal takes no more writes: {why}."),
            "Free space on the data folder's disk or replace it, then restart the node; calls go on meanwhile.",
        )
    }
}

impl Refusal {
    /// The journal failed over what was asked: it is not here now, and may be on the disk all the same.
    pub(crate) fn in_doubt(why: &str) -> Self {
        Self::new(
            codes::STORAGE,
            format!(
                "The journal failed while this was written: {why}. It does not count now; the next start shows whether the disk kept it."
            ),
            "Free space on the data folder's disk or replace it, then restart the node and look at `osiris ledger log` before you ask again; calls go on meanwhile.",
        )
    }
}

impl From<AppendError> for Refusal {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::NotMember => Self::new(
                codes::DENIED,
                "This device is not a member of the fleet, or was revoked.",
                "Join with a new ticket: `osiris join TICKET`.",
            ),
            AppendError::Denied(role) => Self::new(
                codes::DENIED,
                format!("This device holds no grant with the role {role}."),
                denied_next(role),
            ),
            AppendError::Lacks(roles) => Self::new(
                codes::DENIED,
                format!(
                    "This device does not hold the role(s) {roles} itself, and nobody gives what they do not hold."
                ),
                "Ask an admin that holds them: `osiris nodes` shows who has which roles.",
            ),
            AppendError::Rank => Self::new(
                codes::DENIED,
                "This device's grant ranks below what the operation would end.",
                "Ask the member that admitted it, or one above.",
            ),
            AppendError::Invalid(reject) => Self::from_reject(&reject),
            other => Self::new(codes::INTERNAL, other.to_string(), ""),
        }
    }
}

fn denied_next(role: Role) -> &'static str {
    match role {
        Role::Node => "Ask an admin for a ticket and join.",
        Role::Operator => {
            "Ask an admin to run `osiris role grant MEMBER operator`; `osiris whoami` prints this member's name."
        }
        Role::Admin => {
            "Ask an admin to run `osiris role grant MEMBER admin`; `osiris whoami` prints this member's name."
        }
        Role::Viewer | Role::Invoker | Role::Spawner | Role::Voter => {
            "Ask an admin to run `osiris role grant MEMBER ROLE`."
        }
    }
}

impl Refusal {
    fn from_reject(reject: &Reject) -> Self {
        let message = match reject {
            Reject::TooLarge(bytes) => {
                format!("The operation needs {bytes} bytes, more than a block may have.")
            }
            other => format!("The operation is not allowed: {other}."),
        };
        Self::new(codes::BAD_REQUEST, message, "")
    }
}

/// What the driver is to do.
#[derive(Debug)]
pub enum Effect {
    /// Make these blocks durable. The effects behind it wait for that.
    Persist(Vec<Arc<Block>>),
    /// Make durable that blocks are here by these pages, whose bytes are durable already, and these blocks. The
    /// effects behind it wait for that.
    PersistPages(Vec<BlobHash>, Vec<Arc<Block>>),
    /// Write the journal anew with these pages, whose bytes are durable already, and these blocks alone. The effects
    /// behind it wait for that.
    Compact(Vec<BlobHash>, Vec<Arc<Block>>),
    /// Keep a page in the library, durably: [`Input::Page`] says what came of it.
    WritePage(Arc<Page>),
    /// Read a page from the library.
    ReadPage(BlobHash),
    /// Send a frame to a connected member; drop it where that is not possible.
    Send(PeerId, Vec<u8>),
    /// Ask a member that turned this device away what ended the membership, with this frame; drop it where that
    /// is not possible.
    AskEnding(PeerId, Vec<u8>),
    /// Join by a member that does not know this device, once more by what admitted it; drop it where that is not
    /// possible.
    JoinAgain(PeerId, Box<osiris_ledger::op::Admitted>),
    /// Broadcast an entry by gossip.
    Hint(Vec<u8>),
    /// Broadcast a row of counters by gossip.
    HintRow(Vec<u8>),
    /// Answer a request.
    Reply(Token, Result<Reply, Refusal>),
    /// Fetch bytes into the library from one of these members.
    Fetch {
        /// Their hash.
        hash: BlobHash,
        /// How many there are.
        size: u64,
        /// Who may have them, likeliest first.
        from: Vec<Author>,
    },
    /// Read a manifest from the library.
    ReadManifest(BlobHash),
    /// Compile a component and make it callable.
    Prepare {
        /// The revision.
        revision: BlockId,
        /// Its component, which the library holds.
        component: BlobHash,
        /// Its manifest.
        manifest: Box<Manifest>,
    },
    /// Let a revision that is ready run so many invocations side by side from now on.
    Concurrency(BlockId, u32),
    /// Let a revision's invocations end and forget it.
    Retire(BlockId),
    /// Make a machine, or take one away.
    Provision(Errand),
    /// Seal the state of a machine that this node made, for the spawners of now: [`Input::StateSealed`].
    SealState(Spawn, Share),
    /// Keep the record of a machine's state, durably, in the place of an earlier one.
    KeepState(BlockId, Record),
    /// Forget it.
    DropState(BlockId),
    /// Tell people, in the log.
    Warn(String),
    /// The view changed: roster and routes follow.
    Published(Arc<View>),
}
