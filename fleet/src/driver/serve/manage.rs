//! What the management interface asks of the node: one method a route.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use osiris_ledger::BlockId;
use tokio::sync::mpsc;

pub use crate::driver::answer::ApiError;

use crate::api::{
    AddUser, BacklogRow, BlobStored, BlockRow, ChangeUser, Deploy, Deployed, Doctor, Drained, FunctionDetail,
    FunctionRow, InvitationRow, Invite, Invited, LeaseLimit, LeaseWant, Leases, Log, LogRow, MemberBudget,
    MemberLabels, NameVoters, NodeRow, Recover, Recovered, Recovery, Revoke, RevokeUser, Revoked, RoleChange,
    RolesChanged, Scale, ScaleBounds, Status, Sync as SyncRequest, Synced, TicketReply, UserKnown,
    UserRevoked, UserRow, Verified, Voters, Whoami, Written,
};

/// A boxed future that can be sent to another thread.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// An answer, or the error with its status.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, ApiError>>;

/// What stored bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobKind {
    /// A component, which is checked before it is kept.
    Component,
    /// A manifest, likewise.
    Manifest,
}

/// A function's output.
#[derive(Debug, Default)]
pub struct Logs {
    /// The last lines, oldest first.
    pub lines: Vec<LogRow>,
    /// Those that follow, until the sender is dropped or the caller goes away. Bounded: who sends
    /// decides what a slow reader misses.
    pub follow: Option<mpsc::Receiver<LogRow>>,
}

/// The node, as the management interface sees it. A future is dropped when its caller goes away.
pub trait Manage: Send + std::marker::Sync + 'static {
    /// `GET /v1/status`.
    fn status(&self) -> Answer<'_, Status>;
    /// `GET /v1/nodes`.
    fn nodes(&self) -> Answer<'_, Vec<NodeRow>>;
    /// `GET /v1/functions`.
    fn functions(&self) -> Answer<'_, Vec<FunctionRow>>;
    /// `GET /v1/backlog`.
    fn backlog(&self) -> Answer<'_, Vec<BacklogRow>>;
    /// `GET /v1/functions/{name}`.
    fn function(&self, name: String) -> Answer<'_, FunctionDetail>;
    /// `POST /v1/blobs?kind=`.
    fn store(&self, kind: BlobKind, bytes: Bytes) -> Answer<'_, BlobStored>;
    /// `POST /v1/functions`.
    fn deploy(&self, deploy: Deploy) -> Answer<'_, Deployed>;
    /// `DELETE /v1/functions/{name}?timeout_ms=`: waits so long for another member to confirm.
    fn remove(&self, name: String, timeout: Duration) -> Answer<'_, Written>;
    /// `GET /v1/functions/{name}/logs?lines=&follow=`.
    fn logs(&self, name: String, lines: usize, follow: bool) -> Answer<'_, Logs>;
    /// `POST /v1/invitations`.
    fn invite(&self, invite: Invite) -> Answer<'_, Invited>;
    /// `GET /v1/invitations`.
    fn invitations(&self) -> Answer<'_, Vec<InvitationRow>>;
    /// `DELETE /v1/invitations/{id}?timeout_ms=`: waits so long for another member to confirm.
    fn withdraw(&self, id: BlockId, timeout: Duration) -> Answer<'_, Written>;
    /// `GET /v1/ticket`.
    fn ticket(&self) -> Answer<'_, TicketReply>;
    /// `POST /v1/sync`.
    fn sync(&self, sync: SyncRequest) -> Answer<'_, Synced>;
    /// `POST /v1/drain`.
    fn drain(&self) -> Answer<'_, Drained>;
    /// `POST /v1/leave`.
    fn leave(&self) -> Answer<'_, Written>;
    /// `POST /v1/shutdown`: returns once the end is asked for; the node ends after the answer is sent.
    fn shutdown(&self) -> Answer<'_, ()>;
    /// `POST /v1/ledger/log`: newest first.
    fn ledger(&self, log: Log) -> Answer<'_, Vec<BlockRow>>;
    /// `GET /v1/ledger/verify`.
    fn verify(&self) -> Answer<'_, Verified>;
    /// `GET /v1/doctor`.
    fn doctor(&self) -> Answer<'_, Doctor>;
    /// `POST /v1/members/revoke`.
    fn revoke(&self, revoke: Revoke) -> Answer<'_, Revoked>;
    /// `POST /v1/roles/grant`.
    fn grant_roles(&self, change: RoleChange) -> Answer<'_, RolesChanged>;
    /// `POST /v1/roles/revoke`.
    fn revoke_roles(&self, change: RoleChange) -> Answer<'_, RolesChanged>;
    /// `GET /v1/leases`.
    fn leases(&self) -> Answer<'_, Leases>;
    /// `POST /v1/leases/limit`.
    fn limit_leases(&self, limit: LeaseLimit) -> Answer<'_, Written>;
    /// `GET /v1/voters`.
    fn voters(&self) -> Answer<'_, Voters>;
    /// `POST /v1/voters`.
    fn name_voters(&self, name: NameVoters) -> Answer<'_, Written>;
    /// `GET /v1/scale`; as if each function by itself had these bounds, at least and at most, where some are given.
    fn scale(&self, trial: Option<(u32, u32)>) -> Answer<'_, Scale>;
    /// `POST /v1/scale`.
    fn bound(&self, bounds: ScaleBounds) -> Answer<'_, Written>;
    /// `POST /v1/members/labels`.
    fn label(&self, labels: MemberLabels) -> Answer<'_, Written>;
    /// `POST /v1/members/budget`.
    fn budget(&self, budget: MemberBudget) -> Answer<'_, Written>;
    /// `POST /v1/leases/want`.
    fn want_lease(&self, want: LeaseWant) -> Answer<'_, Leases>;
    /// `GET /v1/recovery`.
    fn recovery(&self) -> Answer<'_, Recovery>;
    /// `POST /v1/recovery`.
    fn recover(&self, recover: Recover) -> Answer<'_, Recovered>;
    /// `GET /v1/whoami`.
    fn whoami(&self) -> Answer<'_, Whoami>;
    /// `GET /v1/users`.
    fn users(&self) -> Answer<'_, Vec<UserRow>>;
    /// `POST /v1/users`.
    fn add_user(&self, user: AddUser) -> Answer<'_, UserKnown>;
    /// `POST /v1/users/change`.
    fn change_user(&self, change: ChangeUser) -> Answer<'_, UserKnown>;
    /// `POST /v1/users/revoke`.
    fn revoke_user(&self, revoke: RevokeUser) -> Answer<'_, UserRevoked>;
    /// `GET /v1/users/{id}/ticket`.
    fn user_ticket(&self, id: BlockId) -> Answer<'_, TicketReply>;
}
