//! The management interface of a running node, answered at the desk.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use osiris_ledger::BlockId;
use osiris_runtime::{LogLine, Stream};
use tokio::sync::{broadcast, mpsc};

use super::{
    answer::ApiError,
    desk::{Desk, unknown_function},
    inspect::{self, Mend},
    metrics::{Gauges, NodeGauges, ProcessUse},
    serve::manage::{Answer, BlobKind, Logs, Manage},
};
use crate::{
    api,
    node::{Ended, Facts, Query, Reply, Request},
};

/// Followed lines that wait for a slow reader.
const FOLLOW_LINES: usize = 256;

/// Answers `/v1/…`.
#[derive(Debug)]
pub(crate) struct Management {
    desk: Arc<Desk>,
}

impl Management {
    pub(crate) fn new(desk: Arc<Desk>) -> Self {
        Self { desk }
    }

    fn function_logs(&self, name: &str, lines: usize, follow: bool) -> Result<Logs, ApiError> {
        let view = self.desk.view();
        let function =
            view.function(name).filter(|function| !function.removed).ok_or_else(|| unknown_function(name))?;
        let hosted = function.live.as_ref().and_then(|live| self.desk.hosting.get()?.function(&live.id));
        let Some(hosted) = hosted else {
            return Err(ApiError::conflict(format!(
                "`{name}` is not served on this node, so it has no output here."
            ))
            .with_next("`osiris describe` shows which nodes serve it; ask there."));
        };
        let followed = follow.then(|| hosted.follow_logs());
        let lines = hosted.logs(lines).into_iter().map(row).collect();
        Ok(Logs { lines, follow: followed.map(forward) })
    }
}

fn row(line: LogLine) -> api::LogRow {
    let stream = match line.stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    };
    api::LogRow { call: line.call, stream: stream.to_owned(), text: line.text }
}

/// A slow reader loses lines, and is told how many.
fn forward(mut lines: broadcast::Receiver<LogLine>) -> mpsc::Receiver<api::LogRow> {
    let (to_reader, reader) = mpsc::channel(FOLLOW_LINES);
    tokio::spawn(async move {
        loop {
            let row = match lines.recv().await {
                Ok(line) => row(line),
                Err(broadcast::error::RecvError::Lagged(lost)) => api::LogRow {
                    call: 0,
                    stream: "stderr".to_owned(),
                    text: format!("({lost} lines were lost: this reader is too slow)"),
                },
                Err(broadcast::error::RecvError::Closed) => return,
            };
            if to_reader.send(row).await.is_err() {
                return;
            }
        }
    });
    reader
}

fn millis(timeout: Duration) -> u64 {
    u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)
}

impl Manage for Management {
    fn status(&self) -> Answer<'_, api::Status> {
        Box::pin(self.desk.status())
    }

    fn nodes(&self) -> Answer<'_, Vec<api::NodeRow>> {
        Box::pin(self.desk.nodes())
    }

    fn functions(&self) -> Answer<'_, Vec<api::FunctionRow>> {
        Box::pin(self.desk.functions())
    }

    fn backlog(&self) -> Answer<'_, Vec<api::BacklogRow>> {
        Box::pin(self.desk.backlog())
    }

    fn function(&self, name: String) -> Answer<'_, api::FunctionDetail> {
        Box::pin(async move { self.desk.function(&name).await })
    }

    fn store(&self, kind: BlobKind, bytes: Bytes) -> Answer<'_, api::BlobStored> {
        Box::pin(self.desk.store(kind, bytes))
    }

    fn deploy(&self, deploy: api::Deploy) -> Answer<'_, api::Deployed> {
        Box::pin(self.desk.deploy(deploy))
    }

    fn remove(&self, name: String, timeout: Duration) -> Answer<'_, api::Written> {
        Box::pin(self.desk.remove(name, millis(timeout)))
    }

    fn logs(&self, name: String, lines: usize, follow: bool) -> Answer<'_, Logs> {
        Box::pin(std::future::ready(self.function_logs(&name, lines, follow)))
    }

    fn invite(&self, invite: api::Invite) -> Answer<'_, api::Invited> {
        Box::pin(self.desk.invite(invite))
    }

    fn invitations(&self) -> Answer<'_, Vec<api::InvitationRow>> {
        Box::pin(std::future::ready(Ok(self.desk.invitations())))
    }

    fn withdraw(&self, id: BlockId, timeout: Duration) -> Answer<'_, api::Written> {
        Box::pin(self.desk.withdraw(id, millis(timeout)))
    }

    fn ticket(&self) -> Answer<'_, api::TicketReply> {
        Box::pin(std::future::ready(self.desk.ticket()))
    }

    fn sync(&self, sync: api::Sync) -> Answer<'_, api::Synced> {
        Box::pin(self.desk.sync(sync.timeout_ms))
    }

    fn drain(&self) -> Answer<'_, api::Drained> {
        Box::pin(self.desk.drain())
    }

    fn leave(&self) -> Answer<'_, api::Written> {
        Box::pin(self.desk.leave(millis(super::limits::CONFIRM_TIMEOUT)))
    }

    fn shutdown(&self) -> Answer<'_, ()> {
        self.desk.stop.notify_one();
        Box::pin(std::future::ready(Ok(())))
    }

    fn ledger(&self, log: api::Log) -> Answer<'_, Vec<api::BlockRow>> {
        Box::pin(self.desk.ledger(log))
    }

    fn verify(&self) -> Answer<'_, api::Verified> {
        Box::pin(self.desk.verify())
    }

    fn doctor(&self) -> Answer<'_, api::Doctor> {
        Box::pin(self.desk.doctor())
    }

    fn revoke(&self, revoke: api::Revoke) -> Answer<'_, api::Revoked> {
        Box::pin(self.desk.revoke(revoke))
    }

    fn grant_roles(&self, change: api::RoleChange) -> Answer<'_, api::RolesChanged> {
        Box::pin(self.desk.grant_roles(change))
    }

    fn revoke_roles(&self, change: api::RoleChange) -> Answer<'_, api::RolesChanged> {
        Box::pin(self.desk.revoke_roles(change))
    }

    fn leases(&self) -> Answer<'_, api::Leases> {
        Box::pin(self.desk.leases())
    }

    fn want_lease(&self, want: api::LeaseWant) -> Answer<'_, api::Leases> {
        Box::pin(self.desk.want_lease(want))
    }

    fn limit_leases(&self, limit: api::LeaseLimit) -> Answer<'_, api::Written> {
        Box::pin(self.desk.limit_leases(limit))
    }

    fn voters(&self) -> Answer<'_, api::Voters> {
        Box::pin(async { Ok(self.desk.voters()) })
    }

    fn name_voters(&self, name: api::NameVoters) -> Answer<'_, api::Written> {
        Box::pin(self.desk.name_voters(name))
    }

    fn scale(&self, trial: Option<(u32, u32)>) -> Answer<'_, api::Scale> {
        Box::pin(self.desk.scale(trial))
    }

    fn bound(&self, bounds: api::ScaleBounds) -> Answer<'_, api::Written> {
        Box::pin(self.desk.bound(bounds))
    }

    fn label(&self, labels: api::MemberLabels) -> Answer<'_, api::Written> {
        Box::pin(self.desk.label(labels))
    }

    fn budget(&self, budget: api::MemberBudget) -> Answer<'_, api::Written> {
        Box::pin(self.desk.budget(budget))
    }

    fn recovery(&self) -> Answer<'_, api::Recovery> {
        Box::pin(self.desk.recovery())
    }

    fn recover(&self, recover: api::Recover) -> Answer<'_, api::Recovered> {
        Box::pin(self.desk.recover(recover))
    }

    fn whoami(&self) -> Answer<'_, api::Whoami> {
        Box::pin(self.desk.whoami())
    }

    fn users(&self) -> Answer<'_, Vec<api::UserRow>> {
        Box::pin(std::future::ready(Ok(self.desk.users())))
    }

    fn add_user(&self, user: api::AddUser) -> Answer<'_, api::UserKnown> {
        Box::pin(self.desk.add_user(user))
    }

    fn change_user(&self, change: api::ChangeUser) -> Answer<'_, api::UserKnown> {
        Box::pin(self.desk.change_user(change))
    }

    fn revoke_user(&self, revoke: api::RevokeUser) -> Answer<'_, api::UserRevoked> {
        Box::pin(self.desk.revoke_user(revoke))
    }

    fn user_ticket(&self, id: BlockId) -> Answer<'_, api::TicketReply> {
        Box::pin(self.desk.user_ticket(id))
    }
}

impl Gauges for Management {
    fn read(&self) -> NodeGauges {
        let view = self.desk.view();
        let peers = self.desk.peers();
        let connected = peers.iter().filter(|peer| peer.connected).count();
        NodeGauges {
            held: self.desk.metrics.held(),
            mesh: self.desk.held(),
            queued_bytes_most: peers.iter().map(|peer| peer.queued_bytes as u64).max().unwrap_or(0),
            blocks: view.blocks(),
            members: view.members().values().filter(|member| member.active).count() as u64,
            connected: connected as u64,
            view: view.hash(),
            uptime: self.desk.clock.uptime(),
        }
    }
}

impl Desk {
    /// What `osiris doctor` prints of a running node.
    pub(crate) async fn doctor(&self) -> Result<api::Doctor, ApiError> {
        let facts = self.facts().await?;
        let key = self.key_problem(facts.ended.as_ref());
        let budget = self.budget_problem(&facts);
        let used = ProcessUse::read();
        let mut doctor = api::Doctor {
            memory_bytes: used.memory_bytes,
            cpu_ms: millis(used.cpu),
            written_bytes: written_bytes(),
            uptime_s: self.clock.uptime().as_secs(),
            ..api::Doctor::default()
        };
        let mut fact = |name: &str, text: String| {
            doctor.facts.insert(name.to_owned(), text);
        };
        if let Some(hosting) = self.hosting.get() {
            fact("instance pool", hosting.runtime().describe_pool().to_string());
        }
        let (used, quota) = (self.library.used_bytes(), self.library.quota_bytes());
        fact("library", format!("{} blobs, {used} of {quota} bytes used", self.library.list().len()));
        let unused = super::sweep::unused_in(&self.view(), &self.library);
        if !unused.is_empty() {
            let (blobs, bytes) = (unused.len(), unused.iter().map(|(_, bytes)| bytes).sum::<u64>());
            let minutes = super::limits::UNUSED_KEPT.as_secs() / 60;
            let then = match self.sweep.is_held_back() {
                true => "kept, because blocks are missing that may name them".to_owned(),
                false => format!("removed after {minutes} min"),
            };
            fact("unused in the library", format!("{blobs} blobs, {bytes} bytes; {then}"));
        }
        fact("data folder", self.data.display().to_string());
        fact("connected members", facts.connected.to_string());
        fact("blocks that wait for others", facts.early.to_string());
        fact("own blocks nobody confirmed", facts.unseen.to_string());
        doctor.problems.extend(facts.read_only.as_deref().map(super::rows::journal_problem));
        doctor.problems.extend(facts.twin);
        doctor.problems.extend(facts.forged);
        doctor
            .problems
            .extend(facts.problems.values().map(|why| format!("A revision cannot run here: {why}")));
        doctor.problems.extend(key);
        doctor.problems.extend(budget);
        let (view, me, library) = (self.view(), self.me, self.library.clone());
        let served = tokio::task::spawn_blocking(move || super::verify::served_bytes(&view, &me, &library));
        doctor
            .problems
            .extend(served.await.map_err(|_| ApiError::internal("Looking into the library failed."))?);
        let mend = Mend::new(&self.view(), Some(self.me), true, &self.known);
        doctor.problems.extend(self.waiting(mend).await?);
        doctor.problems.extend(inspect::kept(&self.data, mend).map(|kept| kept.sentences()));
        if facts.returned > 0 {
            doctor.problems.push(format!(
                "{} block(s) of this device came back from other members: the journal here had lost them, or the folder was restored from a backup, or joined again. They are held again. Only one process may use a device's key: make sure that no copy of this folder runs elsewhere.",
                facts.returned
            ));
        }
        let rejected: u64 = facts.rejected.values().flat_map(|reasons| reasons.values()).sum();
        if rejected > 0 {
            doctor.problems.push(format!(
                "Members sent {rejected} invalid blocks or broken messages; `osiris nodes` names them."
            ));
        }
        if !facts.held_back.is_empty() {
            doctor.problems.push(
                "A member writes blocks faster than its quota; they are taken in later. `osiris nodes` names it; revoke it if it goes on.".to_owned(),
            );
        }
        Ok(doctor)
    }
}

impl Desk {
    /// Blocks of the own journal that still wait for what it lost.
    async fn waiting(&self, mend: Mend) -> Result<Option<String>, ApiError> {
        if self.waiting.is_empty() {
            return Ok(None);
        }
        let ids = self.waiting.blocks.iter().map(|(id, _)| *id).collect();
        let Reply::Missing(missing) = self.ask(Request::Query(Query::Missing(ids))).await? else {
            return Err(ApiError::internal("The ledger did not say which blocks it holds."));
        };
        let left = self.waiting.among(&missing);
        Ok((!left.is_empty()).then(|| format!("{} {}", left.sentence(&self.view()), mend.blocks())))
    }

    /// That the device has written nearly all that it may: early enough that an admin hears of it before others wait.
    pub(crate) fn budget_problem(&self, facts: &Facts) -> Option<String> {
        let written = facts.written.get(&self.me).copied().unwrap_or(0);
        let budget = self.view().budget(&self.me);
        (written.saturating_mul(5) >= budget.saturating_mul(4)).then(|| {
            format!(
                "This device has written {written} of the {budget} blocks that it may write; what it writes beyond comes to others slowly. An admin allows more with `osiris member budget`."
            )
        })
    }

    /// What is wrong with the device's key: as a file, and in the eyes of the fleet.
    fn key_problem(&self, ended: Option<&Ended>) -> Option<String> {
        match super::folder::device(&self.data) {
            Err(error) => return Some(format!("{} {}", error.message, error.next.unwrap_or_default())),
            Ok(key) if key != self.me.to_string() => {
                return Some(
                    "The file device.key was replaced while the node runs: from its next start on this would be another device. Restore the file from a backup."
                        .to_owned(),
                );
            }
            Ok(_) => {}
        }
        if let Some(ended) = ended {
            return Some(ended.problem());
        }
        self.foreign_key()
    }

    /// That no member ever had this device's key, where that is so.
    pub(crate) fn foreign_key(&self) -> Option<String> {
        // Its admission may be among what the journal lacks, of which is spoken apart.
        let known = self.sweep.is_held_back() || self.view().members().contains_key(&self.me);
        (!known).then(|| format!("{} {FOREIGN_KEY_NEXT}", foreign_key(&self.me)))
    }
}

/// What to do where [`foreign_key`] is said.
pub(crate) const FOREIGN_KEY_NEXT: &str = "Restore the right one from a backup, or join again with a new ticket and a new folder: `osiris join TICKET --data DIR`.";

/// Said of a key that no member of the fleet ever had.
pub(crate) fn foreign_key(me: &osiris_ledger::Author) -> String {
    format!(
        "No member of the fleet ever had the key in device.key ({}): the file is another device's.",
        me.short()
    )
}

/// Bytes that this process caused to be written to storage (Linux: `write_bytes` of proc(5)).
fn written_bytes() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or(0)
}
