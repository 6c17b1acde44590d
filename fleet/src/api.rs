//! The management interface: what `/v1/…` on the node's Unix socket takes and gives, as JSON.
//!
//! | method and path | body → answer |
//! |---|---|
//! | `GET /v1/status` | → [`Status`] |
//! | `GET /v1/nodes` | → [`NodeRow`]s |
//! | `GET /v1/functions` | → [`FunctionRow`]s |
//! | `GET /v1/backlog` | → [`BacklogRow`]s: every function over the fleet |
//! | `GET /v1/functions/{name}` | → [`FunctionDetail`] |
//! | `POST /v1/blobs` | component or manifest bytes → [`BlobStored`] |
//! | `POST /v1/functions` | [`Deploy`] → [`Deployed`] |
//! | `DELETE /v1/functions/{name}?timeout_ms=` | → [`Written`] |
//! | `GET /v1/functions/{name}/logs?lines=&follow=` | → [`LogRow`]s, one JSON object a line |
//! | `POST /v1/invitations` | [`Invite`] → [`Invited`] |
//! | `GET /v1/invitations` | → [`InvitationRow`]s |
//! | `DELETE /v1/invitations/{id}?timeout_ms=` | → [`Written`] |
//! | `GET /v1/whoami` | → [`Whoami`] |
//! | `GET /v1/users` | → [`UserRow`]s |
//! | `POST /v1/users` | [`AddUser`] → [`UserKnown`] |
//! | `POST /v1/users/change` | [`ChangeUser`] → [`UserKnown`] |
//! | `POST /v1/users/revoke` | [`RevokeUser`] → [`UserRevoked`] |
//! | `GET /v1/users/{id}/ticket` | → [`TicketReply`] (join ticket for the user's key) |
//! | `GET /v1/ticket` | → [`TicketReply`] (dial ticket) |
//! | `POST /v1/sync` | [`Sync`] → [`Synced`] |
//! | `POST /v1/drain` | → [`Drained`] once others took over and no invocation runs here |
//! | `POST /v1/leave` | → [`Written`] |
//! | `POST /v1/shutdown` | → `{}`; the node drains and ends |
//! | `POST /v1/ledger/log` | [`Log`] → [`BlockRow`]s, newest first |
//! | `GET /v1/ledger/verify` | → [`Verified`] |
//! | `GET /v1/doctor` | → [`Doctor`] |
//! | `POST /v1/members/revoke` | [`Revoke`] → [`Revoked`] |
//! | `POST /v1/roles/grant` | [`RoleChange`] → [`RolesChanged`] |
//! | `POST /v1/roles/revoke` | [`RoleChange`] → [`RolesChanged`] |
//! | `GET /v1/leases` | → [`Leases`] |
//! | `POST /v1/leases/limit` | [`LeaseLimit`] → [`Written`] |
//! | `GET /v1/voters` | → [`Voters`] |
//! | `POST /v1/voters` | [`NameVoters`] → [`Written`] |
//! | `GET /v1/scale` | → [`Scale`] |
//! | `POST /v1/scale` | [`ScaleBounds`] → [`Written`] |
//! | `POST /v1/members/labels` | [`MemberLabels`] → [`Written`] |
//! | `POST /v1/members/budget` | [`MemberBudget`] → [`Written`] |
//! | `POST /v1/leases/want` | [`LeaseWant`] → [`Leases`] |
//! | `GET /v1/recovery` | → [`Recovery`] |
//! | `POST /v1/recovery` | [`Recover`] → [`Recovered`] |
//!
//! An error is an [`osiris_protocol::error::ErrorBody`] with the status that its code has in [`codes`].

use std::collections::BTreeMap;

pub use osiris_ledger::op::is_label;

/// Whether people can see a name and tell it from others: a label without white space at its ends. The ledger itself
/// takes any label.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let looks_like_a_key = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_label(text) && text.trim() == text && !looks_like_a_key
}
use serde::{Deserialize, Serialize};

/// Machine-readable error codes of the management interface and of function calls, each with its
/// HTTP status.
pub mod codes {
    /// 400: the request does not parse or breaks a rule.
    pub const BAD_REQUEST: (&str, u16) = ("bad-request", 400);
    /// 401: a token is needed.
    pub const UNAUTHORIZED: (&str, u16) = ("unauthorized", 401);
    /// 403: not allowed.
    pub const DENIED: (&str, u16) = ("denied", 403);
    /// 404: there is no such thing.
    pub const NOT_FOUND: (&str, u16) = ("not-found", 404);
    /// 405: wrong method.
    pub const METHOD: (&str, u16) = ("method-not-allowed", 405);
    /// 409: the state does not allow it.
    pub const CONFLICT: (&str, u16) = ("conflict", 409);
    /// 413: a body is over its limit.
    pub const TOO_LARGE: (&str, u16) = ("too-large", 413);
    /// 422: the function answered with an error of its own.
    pub const FUNCTION_ERROR: (&str, u16) = ("function-error", 422);
    /// 500: the node is at fault.
    pub const INTERNAL: (&str, u16) = ("internal", 500);
    /// 502: the function trapped, or the node that ran it was lost.
    pub const FAILED: (&str, u16) = ("failed", 502);
    /// 503: full, draining or not ready. With `Retry-After`.
    pub const UNAVAILABLE: (&str, u16) = ("unavailable", 503);
    /// 504: the deadline passed.
    pub const TIMEOUT: (&str, u16) = ("timeout", 504);
    /// 507: the disk or a quota is full.
    pub const STORAGE: (&str, u16) = ("storage-full", 507);
    /// All of them.
    pub const ALL: [(&str, u16); 13] = [
        BAD_REQUEST,
        UNAUTHORIZED,
        DENIED,
        NOT_FOUND,
        METHOD,
        CONFLICT,
        TOO_LARGE,
        FUNCTION_ERROR,
        INTERNAL,
        FAILED,
        UNAVAILABLE,
        TIMEOUT,
        STORAGE,
    ];
}

/// [`Status::state`] of a device whose membership has ended.
pub const NOT_A_MEMBER: &str = "not a member";

/// What a device that is no member can do.
pub const JOIN_AGAIN: &str = "Ask an admin for a new invitation, and join again: `osiris join TICKET`.";

/// The node and its replica.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// Version of this build.
    pub version: String,
    /// Fleet's name.
    pub fleet_name: String,
    /// Fleet's id, hex.
    pub fleet: String,
    /// This device's key, hex.
    pub device: String,
    /// Its name.
    pub label: String,
    /// Its roles, lowest first.
    pub roles: Vec<String>,
    /// `starting`, `serving`, `draining`, `read-only` (the disk refused a write), `stopped` or
    /// `not a member`.
    pub state: String,
    /// The data folder.
    pub data_dir: String,
    /// Seconds since the process started.
    pub uptime_s: u64,
    /// Where the loopback HTTP interface listens.
    pub http: String,
    /// Mesh addresses.
    pub mesh: Vec<String>,
    /// Hash of the view, hex: equal on nodes that agree.
    pub view: String,
    /// Heads of the automerge document, hex.
    pub document_heads: Vec<String>,
    /// Admitted blocks.
    pub blocks: u64,
    /// Blocks that wait for others.
    pub early: u64,
    /// What is kept of blocks that sealed pages list: `all`, or `current`, which is summaries.
    pub retain: String,
    /// Blocks that are here as summaries alone.
    pub summaries: u64,
    /// Active members of the fleet.
    pub members: u64,
    /// Members connected now.
    pub connected: u64,
    /// Functions with a live revision.
    pub functions: u64,
    /// Own blocks that no other member has confirmed.
    pub unseen: u64,
    /// Invocations accepted here and not started.
    pub backlog: u64,
    /// Invocations running here.
    pub in_flight: u64,
    /// What is wrong with the node as a member of the fleet, in sentences; `osiris doctor` finds more.
    pub problems: Vec<String>,
}

/// One member.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct NodeRow {
    /// Device key, hex.
    pub device: String,
    /// Its name.
    pub label: String,
    /// Its roles.
    pub roles: Vec<String>,
    /// Its labels for the placement of functions.
    pub labels: Vec<String>,
    /// `this`, `connected`, `unreachable` or `revoked`.
    pub state: String,
    /// Round trip in microseconds, where connected.
    pub rtt_us: Option<u64>,
    /// Known addresses.
    pub addresses: Vec<String>,
    /// Revisions it has ready, as `name@number`.
    pub serving: Vec<String>,
    /// It said that others are to take over what it serves, and nothing is placed on it.
    #[serde(default)]
    pub draining: bool,
    /// Its machine's processors or memory are used to their marks, so replicas more go to others.
    #[serde(default)]
    pub busy: bool,
    /// Invalid blocks and broken messages of it since this node started.
    pub rejected: u64,
    /// How many of them were refused for which reason: a name of `docs/attacks.md`.
    #[serde(default)]
    pub reasons: BTreeMap<String, u64>,
    /// How often blocks were left with it since then because it writes faster than its quota.
    pub held_back: u64,
    /// Blocks of it that are here.
    pub blocks: u64,
    /// Blocks that it may write; those beyond come to others slowly.
    pub budget: u64,
    /// Forked chains proven against it.
    pub forks: u64,
    /// This device's key is in use by another process, too; only known of the node that is asked.
    pub twin: bool,
}

/// One function.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct FunctionRow {
    /// Its name.
    pub name: String,
    /// `live`, `idle` (scaled to none until it is called), `pending` (no node has it ready yet) or `removed`.
    pub state: String,
    /// `native` or `http`.
    pub world: String,
    /// The live revision's number; 0 when none is live.
    pub revision: u64,
    /// The newest revision's number.
    pub newest: u64,
    /// Members that serve the live revision now. How many are to serve it, a number or `"all"`, is the
    /// manifest's `replicas`.
    pub served_by: u64,
    /// Those of them that this node lost and takes for gone.
    #[serde(default)]
    pub lost: u64,
    /// Whether revisions were deployed side by side.
    pub concurrent: bool,
    /// Backlog on this node.
    pub backlog: u64,
    /// Running on this node.
    pub in_flight: u64,
    /// Finished well on this node since it started.
    pub done: u64,
    /// Failed on this node since it started.
    pub failed: u64,
}

/// What one function does over the fleet, as the members' signed counters say.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BacklogRow {
    /// The function.
    pub name: String,
    /// Invocations accepted and not started, on members heard of lately.
    pub backlog: u64,
    /// Invocations that run, on members heard of lately.
    pub in_flight: u64,
    /// Invocations that ended with a result.
    pub done: u64,
    /// Invocations that ended with an error.
    pub failed: u64,
    /// Members with invocations waiting or running that were not heard of lately; theirs are not in the sums.
    pub silent: u64,
    /// Each member's part.
    pub nodes: Vec<BacklogNodeRow>,
}

/// One member's part in a [`BacklogRow`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BacklogNodeRow {
    /// The member's name.
    pub node: String,
    /// Its device key, hex.
    pub device: String,
    /// Invocations accepted and not started.
    pub backlog: u64,
    /// Invocations that run.
    pub in_flight: u64,
    /// Invocations that ended with a result.
    pub done: u64,
    /// Invocations that ended with an error.
    pub failed: u64,
    /// Milliseconds since this node saw the member's counters change.
    pub age_ms: u64,
}

/// One revision.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RevisionRow {
    /// Its number.
    pub number: u64,
    /// Its block id, hex.
    pub id: String,
    /// `live`, `newest`, `old` or `removed`.
    pub state: String,
    /// Whether it stands beside another that did not know it.
    pub concurrent: bool,
    /// blake3 of the component, hex.
    pub component: String,
    /// Bytes of the component.
    pub size: u64,
    /// Who deployed it (label or key).
    pub by: String,
    /// When, by the author's clock, in milliseconds since 1970.
    pub wall_ms: u64,
    /// Members that have it ready (labels).
    pub serving: Vec<String>,
}

/// A function with its revisions.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct FunctionDetail {
    /// As in the list.
    pub function: FunctionRow,
    /// The manifest of the newest revision, where this node has it.
    pub manifest: Option<crate::manifest::Manifest>,
    /// Between how many replicas it is, where it is scaled.
    #[serde(default)]
    pub bounds: Option<Bounds>,
    /// Why no member may serve it, or why this node does not have the newest revision ready, where it should.
    pub problem: Option<String>,
    /// Newest first.
    pub revisions: Vec<RevisionRow>,
}

/// Bounds of a function's replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// At least so many.
    pub min: u32,
    /// At most so many.
    pub max: u32,
    /// Whether an operator gave them, in place of the manifest.
    pub bounded: bool,
}

/// Stored bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BlobStored {
    /// blake3, hex.
    pub hash: String,
    /// Bytes.
    pub size: u64,
    /// For a component: `native` or `http`.
    pub world: Option<String>,
}

/// Deploys stored bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Deploy {
    /// The component, stored by `POST /v1/blobs?kind=component`.
    pub component: String,
    /// The manifest.
    pub manifest: crate::manifest::Manifest,
    /// How long to wait for another member to confirm, in milliseconds.
    pub timeout_ms: u64,
    /// Also wait until the revision is live.
    #[serde(default)]
    pub wait: bool,
}

/// What a write to the ledger came to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Written {
    /// The block, hex.
    pub block: String,
    /// Other members that confirmed to hold it.
    pub seen_by: u64,
    /// Other active members.
    pub others: u64,
}

/// A deployed revision.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Deployed {
    /// The block.
    #[serde(flatten)]
    pub written: Written,
    /// The function.
    pub name: String,
    /// The revision's number.
    pub revision: u64,
    /// `native` or `http`.
    pub world: String,
    /// Other members that are known to hold the component and the manifest: those that have a revision of both ready, and
    /// one that was given them before. A member that is fetching them is counted once it is ready, so this may be less
    /// than [`Written::seen_by`].
    pub component_held_by: u64,
    /// Whether the revision is live.
    pub live: bool,
}

/// One line of a function's output.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogRow {
    /// Which call wrote it.
    pub call: u64,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// The text.
    pub text: String,
}

/// Asks for an invitation.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Invite {
    /// Devices it may admit; 1 by default.
    pub uses: u32,
    /// `node`, `operator`, `admin`, `voter`.
    pub roles: Vec<String>,
    /// The only device it is for, hex. Needed for more than `node`.
    pub device: Option<String>,
    /// For people.
    pub note: String,
    /// How long to wait for another member to confirm, in milliseconds.
    pub timeout_ms: u64,
}

/// A new invitation. The ticket is a secret.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Invited {
    /// The block.
    #[serde(flatten)]
    pub written: Written,
    /// The join ticket.
    pub ticket: String,
}

/// One invitation.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct InvitationRow {
    /// Its block, hex.
    pub id: String,
    /// `open`, `used-up` or `withdrawn`.
    pub state: String,
    /// Devices admitted and allowed.
    pub used: u32,
    /// Devices allowed.
    pub uses: u32,
    /// Void admissions beyond that.
    pub surplus: u32,
    /// What it gives.
    pub roles: Vec<String>,
    /// Who invited (label or key).
    pub by: String,
    /// For people.
    pub note: String,
}

/// A ticket to dial this node with. Not a secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TicketReply {
    /// The text.
    pub ticket: String,
}

/// Asks for contact with other members.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sync {
    /// How long to try, in milliseconds.
    pub timeout_ms: u64,
}

/// What contact came to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Synced {
    /// Other active members.
    pub others: u64,
    /// Those connected.
    pub connected: u64,
    /// Those that hold exactly the same blocks.
    pub agreed: u64,
    /// Own blocks that no other member has confirmed.
    pub unseen: u64,
    /// Components that members were still being given when the time was over, or that no member took. Always 0 of a
    /// node, which stays.
    pub cut: u64,
    /// Own blocks that nobody had confirmed before, and that do not count by what was learnt. Always none of a node.
    #[serde(default)]
    pub void: Vec<String>,
}

/// The node takes no more calls.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Drained {
    /// Revisions that are no longer served here.
    pub stopped: u64,
    /// Functions that nobody serves now: nobody else may, or those that may did not get ready in time.
    #[serde(default)]
    pub left: Vec<String>,
}

/// Names of the ledger's operations, for [`Log::op`].
pub const OPERATIONS: [&str; osiris_ledger::Payload::NAMES.len()] = osiris_ledger::Payload::NAMES;

/// Which blocks are asked for: those that fit all that is given.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Log {
    /// At most so many; at most 2,000, and more by asking again with `before`.
    pub limit: u64,
    /// Author's label, or the start of its key.
    #[serde(default)]
    pub author: Option<String>,
    /// Name of the user whose key gave the grant.
    #[serde(default)]
    pub user: Option<String>,
    /// The function.
    #[serde(default)]
    pub function: Option<String>,
    /// The operation's name.
    #[serde(default)]
    pub op: Option<String>,
    /// From then on, by the authors' clocks, in milliseconds since 1970.
    #[serde(default)]
    pub since_ms: Option<u64>,
    /// Before then, likewise.
    #[serde(default)]
    pub until_ms: Option<u64>,
    /// Before this block in ledger order: its id, hex.
    #[serde(default)]
    pub before: Option<String>,
    /// Whether the signed entries are wanted, too.
    #[serde(default)]
    pub entries: bool,
    /// Only blocks that are here as summaries.
    #[serde(default)]
    pub summaries_only: bool,
}

/// One block, for people.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BlockRow {
    /// Its id, hex.
    pub id: String,
    /// Its depth.
    pub depth: u64,
    /// Author's label or key.
    pub author: String,
    /// Its author's key, hex.
    pub device: String,
    /// Session, hex.
    pub session: String,
    /// Place in the chain.
    pub seq: u64,
    /// The operation's name.
    pub op: String,
    /// What it says, in a sentence.
    pub says: String,
    /// The author's clock, milliseconds since 1970; none where the block is here as a summary, which has no clock.
    pub wall_ms: Option<u64>,
    /// Whether it counts.
    pub effective: bool,
    /// Why not, in words; empty where it counts.
    pub void: String,
    /// The block that gave the grant it was written by, hex.
    pub grant: String,
    /// How that grant was given, in words.
    pub by: String,
    /// The user whose key gave that grant; empty where none did.
    pub user: String,
    /// Bytes of the entry; 0 of a summary.
    pub bytes: u64,
    /// The entry, hex: what the author signed, with the signature (`docs/ledger.md`), so that a row can be checked by
    /// itself. Empty where it was not asked for, and of a summary.
    pub entry: String,
}

/// What a verification came to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Verified {
    /// Blocks whose signature, links and rules were checked again.
    pub blocks: u64,
    /// Chains they form.
    pub chains: u64,
    /// Hash of the view, hex.
    pub view: String,
    /// Components whose bytes were hashed again.
    pub components: u64,
    /// What does not hold. Empty: all is well.
    pub problems: Vec<Problem>,
}

/// Something that does not hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What, in a sentence.
    pub what: String,
    /// Where.
    pub place: Place,
    /// What to do, in sentences.
    pub next: String,
}

/// A place in a data folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The file, below the data folder.
    pub file: String,
    /// The record of the journal, from 1, where there is one.
    pub record: Option<u64>,
    /// The byte of the file, from 0, where one is meant.
    pub byte: Option<u64>,
}

impl Problem {
    /// What, and what to do.
    #[must_use]
    pub fn sentences(&self) -> String {
        format!("{} {}", self.what, self.next)
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.file)?;
        self.record.map_or(Ok(()), |record| write!(f, ", record {record}"))?;
        self.byte.map_or(Ok(()), |byte| write!(f, ", byte {byte}"))
    }
}

/// What `osiris doctor` prints of a running node.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Doctor {
    /// Name → what was found, in a sentence.
    pub facts: BTreeMap<String, String>,
    /// What is wrong, in sentences.
    pub problems: Vec<String>,
    /// Resident memory of the process in bytes.
    pub memory_bytes: u64,
    /// CPU time used since start, in milliseconds.
    pub cpu_ms: u64,
    /// Bytes written to disk since start.
    pub written_bytes: u64,
    /// Seconds since start.
    pub uptime_s: u64,
}

/// Ends another device's membership.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Revoke {
    /// The device's key, hex.
    pub device: String,
    /// Void all that it wrote, too.
    #[serde(default)]
    pub discard: bool,
    /// How long to wait for another member to confirm, in milliseconds.
    pub timeout_ms: u64,
}

/// An ended membership.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Revoked {
    /// The block.
    #[serde(flatten)]
    pub written: Written,
    /// The device's key, hex.
    pub device: String,
    /// Its name.
    pub label: String,
    /// Other members (labels) whose membership rested on it and ended with it.
    pub members_ended: Vec<String>,
    /// Functions that no revision is left of.
    pub functions_ended: Vec<String>,
    /// Its open invitations, hex, which were withdrawn with it.
    pub invitations_withdrawn: Vec<String>,
    /// Names of users that it made known or that admitted it, and that still admit devices: it may come back by their
    /// keys until they are revoked, too.
    pub users_open: Vec<String>,
}

/// Gives roles to a member or takes them from it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RoleChange {
    /// The device's key, hex.
    pub device: String,
    /// `node`, `operator`, `admin`, `voter`.
    pub roles: Vec<String>,
    /// How long to wait for another member to confirm, in milliseconds.
    pub timeout_ms: u64,
}

/// This device, as the fleet knows it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Whoami {
    /// The device's key, hex.
    pub device: String,
    /// Its name.
    pub label: String,
    /// The fleet's id, hex.
    pub fleet: String,
    /// The fleet's name.
    pub fleet_name: String,
    /// Whether it is a member now.
    pub member: bool,
    /// What it may do: the roles of its active grants together.
    pub roles: Vec<String>,
    /// The users (names) whose keys gave it an active grant.
    pub users: Vec<String>,
    /// Its grants, highest rank first, ended ones included.
    pub grants: Vec<GrantRow>,
}

/// One grant of a device.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct GrantRow {
    /// The block that gave it, hex.
    pub id: String,
    /// Its roles.
    pub roles: Vec<String>,
    /// Whether it still holds.
    pub active: bool,
    /// How it was given, in words.
    pub by: String,
    /// Its rank, in words.
    pub rank: String,
}

/// One user: a person, by a key that admits the person's devices.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct UserRow {
    /// The `user` block, hex.
    pub id: String,
    /// The person's name.
    pub name: String,
    /// Public half of the key, hex.
    pub key: String,
    /// What devices that it admits may write.
    pub roles: Vec<String>,
    /// `open`, `used-up` or `revoked`.
    pub state: String,
    /// Devices admitted, past ones included.
    pub used: u32,
    /// Devices it may admit.
    pub devices_max: u32,
    /// Void admissions beyond that.
    pub surplus: u32,
    /// Its devices (labels) that are members by it now.
    pub devices: Vec<String>,
    /// Who made it known (label or key).
    pub by: String,
}

/// Makes a person known.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AddUser {
    /// The person's name.
    pub name: String,
    /// Public half of the person's key, hex.
    pub key: String,
    /// What the person's devices may write.
    pub roles: Vec<String>,
    /// How many devices the key may admit.
    pub devices: u32,
    /// How long to wait for another member to confirm, in milliseconds.
    pub timeout_ms: u64,
}

/// Makes a person known again, by the same key.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ChangeUser {
    /// The `user` block that ends, hex.
    pub id: String,
    /// What devices admitted from now on may write; none: as before.
    #[serde(default)]
    pub roles: Vec<String>,
    /// How many devices it may admit from now on; 0: as before.
    #[serde(default)]
    pub devices: u32,
    /// How long to wait for another member to confirm, in milliseconds.
    pub timeout_ms: u64,
}

/// A person that the fleet knows now.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct UserKnown {
    /// The last block written.
    #[serde(flatten)]
    pub written: Written,
    /// The `user` block, hex.
    pub id: String,
    /// The person's name.
    pub name: String,
    /// What the person's devices may write.
    pub roles: Vec<String>,
    /// A ticket to join with as this user, where members can be named. Without the key it admits nobody.
    pub ticket: Option<String>,
}

/// Ends a user.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RevokeUser {
    /// The `user` block, hex.
    pub id: String,
    /// Its devices keep what it gave them.
    #[serde(default)]
    pub keep_devices: bool,
    /// Void all that its devices wrote by it, too.
    #[serde(default)]
    pub discard: bool,
    /// How long to wait for another member to confirm, in milliseconds.
    pub timeout_ms: u64,
}

/// An ended user.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct UserRevoked {
    /// The last block written.
    #[serde(flatten)]
    pub written: Written,
    /// The person's name.
    pub name: String,
    /// Devices of the user (labels) that are no members any more.
    pub devices_ended: Vec<String>,
    /// Devices of the user (labels) that stay members, each with the roles that it has now.
    pub devices_staying: Vec<String>,
    /// Functions that no revision is left of.
    pub functions_ended: Vec<String>,
}

/// A member with changed roles.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RolesChanged {
    /// The block.
    #[serde(flatten)]
    pub written: Written,
    /// The device's key, hex.
    pub device: String,
    /// Its name.
    pub label: String,
    /// What it may do now.
    pub roles: Vec<String>,
}

/// What the recovery key has to sign. The key itself stays with whoever holds it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Recovery {
    /// The fleet's id, hex.
    pub fleet: String,
    /// Public half of the fleet's recovery key, hex.
    pub key: String,
    /// This device's key, hex.
    pub device: String,
    /// One above the highest generation known here.
    pub generation: u32,
}

/// Makes a device an admin by the recovery key's word.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Recover {
    /// The device's key, hex.
    pub device: String,
    /// As in [`Recovery`].
    pub generation: u32,
    /// The recovery key's signature, hex.
    pub certificate: String,
    /// How long to wait for another member to confirm, in milliseconds.
    pub timeout_ms: u64,
}

/// A recovered fleet.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Recovered {
    /// The block.
    #[serde(flatten)]
    pub written: Written,
    /// The device's key, hex.
    pub device: String,
    /// Its name.
    pub label: String,
    /// Its generation.
    pub generation: u32,
    /// Keys of the other admins, hex; each ranks below.
    pub other_admins: Vec<String>,
}

/// Slots for machines that the fleet makes itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Leases {
    /// Machines that the fleet may have made and not retired, by its policy.
    pub machines_max: u32,
    /// The same by the configuration of the node that is asked; 0: it makes none.
    pub machines_here: u32,
    /// Whether one may be made without contact to a majority of the voters.
    pub minority: bool,
    /// Voters.
    pub voters: u64,
    /// Of those: connected, the node that is asked included.
    pub voters_connected: u64,
    /// How long a claim waits here before it may be activated, at least, in milliseconds.
    pub settle_ms: u64,
    /// After how long without a renewal a claim may be taken over, in milliseconds.
    pub expiry_ms: u64,
    /// Name of the target that the node that is asked makes machines with; empty where it makes none.
    pub target: String,
    /// Why the last claim of the node that is asked came to nothing, in a sentence; empty where none did.
    pub says: String,
    /// The slots that were ever claimed.
    pub slots: Vec<SlotRow>,
}

/// One slot.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SlotRow {
    /// Its number, from 0.
    pub slot: u32,
    /// Its round.
    pub round: u64,
    /// `free`, `claimed`, `held` or `expired` (it was claimed or held, and its author is not heard of any more).
    pub state: String,
    /// Who claims or holds it (labels), who comes first in the round first.
    pub by: Vec<String>,
    /// Whether the node that is asked is among them.
    pub here: bool,
    /// Milliseconds since the node that is asked heard of its holder; 0 for itself.
    pub age_ms: u64,
    /// Why the node that is asked, which holds it, may make no machine now; empty where it may or does not hold it.
    pub spend: String,
    /// Machines that may be there.
    pub machines: Vec<MachineRow>,
}

/// One machine that was to be made and is not known to be gone.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct MachineRow {
    /// Its intent, hex.
    pub intent: String,
    /// The round by which it was to be made.
    pub round: u64,
    /// Who was to make it (label or key).
    pub by: String,
    /// Name of the target.
    pub target: String,
    /// Functions that it is for.
    pub functions: Vec<String>,
    /// Whether the intent counts.
    pub counts: bool,
    /// Whether it has to go.
    pub surplus: bool,
    /// The device that was admitted as this machine (label or key); empty while none was.
    pub device: String,
    /// What the node that is asked does about it, in a word; empty where that is nothing.
    pub doing: String,
}

/// Asks for a machine, or for one to be gone.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LeaseWant {
    /// The intent of the machine that is to be gone, hex; empty: one more machine is wanted.
    #[serde(default)]
    pub gone: String,
    /// Whether whoever asks vouches that it is gone already: the ledger is told, and nothing is taken away.
    #[serde(default)]
    pub vouched: bool,
}

/// Says how many machines the fleet may make.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LeaseLimit {
    /// Machines that it may have made and not retired, at most.
    pub machines: u32,
    /// Whether one may be made without contact to a majority of the voters.
    #[serde(default)]
    pub minority: bool,
    /// How long to wait for another member to confirm, in milliseconds.
    pub timeout_ms: u64,
}

/// Who seals pages of summaries, and which pages there are.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Voters {
    /// The `voters` block that names them, or the genesis block before the first; hex.
    pub block: String,
    /// Whether nobody was named yet: then the founding device alone seals.
    pub founder: bool,
    /// The devices, ascending by key.
    pub voters: Vec<VoterRow>,
    /// Pages that more than two thirds of the voters of one block sealed.
    pub sealed: u64,
    /// Pages that fewer sealed.
    pub proposed: u64,
}

/// A device that is named as a voter.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct VoterRow {
    /// Its key, hex.
    pub device: String,
    /// Its name.
    pub label: String,
    /// Whether it is a member and holds the role `voter`. Without, it is counted among the voters and cannot seal.
    pub able: bool,
    /// Pages that it sealed.
    pub sealed: u64,
}

/// Says who seals pages from now on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct NameVoters {
    /// Keys of active members, hex: 1 to 64, each once.
    pub devices: Vec<String>,
    /// How long to wait for another member to confirm, in milliseconds.
    pub timeout_ms: u64,
}

/// How many replicas scaled functions have, and why, as the node that is asked sees it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Scale {
    /// Use of all its cores, percent; none: not measured yet.
    pub cpu_percent: Option<u32>,
    /// Use of its memory, percent; none: not measured yet.
    pub memory_percent: Option<u32>,
    /// The most replicas of all scaled functions together; none: as many as their bounds allow.
    pub fleet_max: Option<u32>,
    /// The thresholds of the node.
    pub terms: ScaleTerms,
    /// Scaled functions, by name.
    pub functions: Vec<ScaleRow>,
    /// What the node decided to do since it started, the last first, at most 64.
    pub decisions: Vec<ScaleDecision>,
}

/// By what a node decides about replicas and machines: milliseconds and percent. `docs/scaling.md` says what each is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScaleTerms {
    /// More must be needed for so long.
    pub window_ms: u64,
    /// Each rank waits longer by so much.
    pub stagger_ms: u64,
    /// Something waits for too long.
    pub age_ms: u64,
    /// After a change, before one more.
    pub cool_up_ms: u64,
    /// After a change, before one less.
    pub cool_down_ms: u64,
    /// Replicas that were added may take so long.
    pub start_max_ms: u64,
    /// Processors are busy from here on.
    pub cpu_high: u32,
    /// Memory is, likewise.
    pub memory_high: u32,
    /// One replica less would do where the others are used to no more than this.
    pub use_low: u32,
    /// More must be needed for so long before a machine is wished for.
    pub machine_window_ms: u64,
    /// Between two wishes of one member.
    pub machine_cool_ms: u64,
    /// A machine holds no replica for so long before it goes.
    pub machine_idle_ms: u64,
    /// Two changes so close are a turn.
    pub flap_ms: u64,
}

/// What a decision about replicas is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScaleInputs {
    /// Replicas, at least.
    pub min: u32,
    /// Replicas, at most.
    pub max: u32,
    /// Replicas by the ledger.
    pub replicas: u32,
    /// Of those: ready.
    pub ready: u32,
    /// Members that may serve it and are not known to be gone.
    pub candidates: u32,
    /// Of those: without a replica, on machines that are not busy, and with no calls of other functions waiting.
    pub free: u32,
    /// Calls that wait, over the fleet.
    pub backlog: u64,
    /// Calls that run, over the fleet.
    pub running: u64,
    /// Calls that one replica runs side by side.
    pub per_replica: u32,
    /// Calls that may wait for each replica.
    pub target_backlog: u32,
    /// Seconds for which there must be too many replicas before one goes.
    pub idle_s: u64,
    /// Replicas of all other scaled functions.
    pub others: u32,
    /// The node's place among those that may serve it, from 0.
    pub rank: u32,
    /// Calls that wait on the node.
    pub backlog_here: u64,
    /// The most replicas of all scaled functions together; none: not bounded.
    pub fleet_max: Option<u32>,
    /// Calls that run side by side on the node; 0: it does not serve it.
    pub concurrency_here: u32,
    /// As many as may.
    pub concurrency_max_here: u32,
    /// Use of the node's cores, percent; none: not measured yet.
    pub cpu_here: Option<u32>,
    /// Use of its memory, percent; none: not measured yet.
    pub memory_here: Option<u32>,
    /// Whether the node may wish for a machine.
    pub may_claim: bool,
    /// Milliseconds between its last such wish and the decision; none: there was none, or nothing was decided yet.
    pub wished_ms: Option<u64>,
    /// Slot of a machine that the node can take away, and that holds no replica.
    pub spare_slot: Option<u32>,
    /// For how long something has been waiting without a break.
    pub waiting_ms: u64,
    /// For how long more replicas have been needed.
    pub pressed_ms: u64,
    /// For how long one less would do; none: it would not.
    pub slack_ms: Option<u64>,
    /// For how long nobody has called it; none: somebody does.
    pub quiet_ms: Option<u64>,
    /// For how long nobody has changed the count.
    pub unchanged_ms: u64,
    /// How many times as long as `idle_s` replicas must be too many, as the count went up and down.
    pub patience: u32,
}

/// One scaled function now.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ScaleRow {
    /// The function.
    pub name: String,
    /// Whether an operator gave its bounds, in place of its manifest.
    pub bounded: bool,
    /// Whether the node is among those that decide about it.
    pub decides: bool,
    /// What is measured.
    pub inputs: ScaleInputs,
    /// What would be done now: `concurrency`, `replica-here`, `replica-on-peer`, `claim-ahead`, `claim-machine`,
    /// `retire-replica`, `drain-machine`, `none`, or with bounds on trial `bounds`, where these alone change it.
    pub act: String,
    /// Replicas after that, or now.
    pub to: u32,
    /// The rule, in a word.
    pub rule: String,
    /// The rule, in a sentence.
    pub says: String,
}

/// A decision that something was to be done.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ScaleDecision {
    /// The function.
    pub name: String,
    /// Milliseconds since then.
    pub age_ms: u64,
    /// What it was made of.
    pub inputs: ScaleInputs,
    /// What was done; see [`ScaleRow::act`].
    pub act: String,
    /// Replicas after that.
    pub to: u32,
    /// The rule, in a word.
    pub rule: String,
    /// The rule, in a sentence.
    pub says: String,
    /// Why it could not be done; empty where it was.
    pub failed: String,
}

/// Says how many replicas a function may have.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ScaleBounds {
    /// The function; none: all scaled functions together, with a `max` alone.
    #[serde(default)]
    pub name: Option<String>,
    /// Replicas, at least; with `max`.
    #[serde(default)]
    pub min: Option<u32>,
    /// Replicas, at most; none: what the manifest says, or without a limit for all together.
    #[serde(default)]
    pub max: Option<u32>,
    /// How long to wait for another member to confirm, in milliseconds.
    pub timeout_ms: u64,
}

/// Says which labels a member bears, for the placement of functions.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct MemberLabels {
    /// The device's key, hex.
    pub device: String,
    /// All its labels: `KEY` or `KEY=VALUE`.
    pub labels: Vec<String>,
    /// How long to wait for another member to confirm, in milliseconds.
    pub timeout_ms: u64,
}

/// Says how many blocks a member may write.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct MemberBudget {
    /// The device's key, hex.
    pub device: String,
    /// Blocks in all, from its first on: 1 to 1,000,000,000.
    pub blocks: u64,
    /// How long to wait for another member to confirm, in milliseconds.
    pub timeout_ms: u64,
}
