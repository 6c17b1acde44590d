//! Requests: what people and strangers ask of a node.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use osiris_ledger::{Author, Block, BlockId, InvitationState, Mono, Now, Payload, op};
use osiris_mesh::PeerId;
use osiris_protocol::join::RefusalCode;

use super::{Effect, Facts, Node, Query, Refusal, Reply, Request, Token};
use crate::api::codes;

/// A request that is answered once another member confirmed, or its time is up.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) token: Token,
    /// The block to be confirmed; none when the request is for agreement.
    pub(super) block: Option<BlockId>,
    pub(super) until: Mono,
    pub(super) seen_by: BTreeSet<PeerId>,
    /// Wait until this revision is live, too.
    live: bool,
    /// The admission that was written, and of whom.
    admits: Option<(BlockId, Author)>,
}

/// What a stranger's proof is held against.
struct Offer {
    key: Author,
    device: Option<Author>,
    state: InvitationState,
    user: bool,
}

impl Offer {
    /// Why it admits nobody any more.
    fn refusal(&self) -> Option<Refusal> {
        let (code, why) = match (self.state, self.user) {
            (InvitationState::Open, _) => return None,
            (InvitationState::UsedUp, false) => (RefusalCode::UsedUp, USED_UP),
            (InvitationState::UsedUp, true) => (RefusalCode::UsedUp, USER_USED_UP),
            (InvitationState::Withdrawn, false) => (RefusalCode::Revoked, "The invitation was withdrawn."),
            (InvitationState::Withdrawn, true) => (RefusalCode::Revoked, USER_ENDED),
        };
        let mut refusal = Refusal::joining(code, why);
        if self.user && self.state == InvitationState::UsedUp {
            refusal.next = Some(USER_NEXT.to_owned());
        }
        Some(refusal)
    }
}

const USER_NEXT: &str = "An admin allows more with `osiris user roles NAME --devices N`.";
const USER_USED_UP: &str = "The user has admitted as many devices as it may.";
const USER_ENDED: &str = "The user was revoked, or made known again with other roles since the ticket was made: \
    where it still admits, `osiris user ticket` on a member prints a new one.";

const USED_UP: &str = "The invitation is used up: it admitted as many devices as it may.";

/// How long a welcome waits for agreement with the connected members: two nodes may have spent the last use
/// of an invitation at once, and only both blocks together say whose admission stands.
const WELCOME_AFTER: Duration = Duration::from_secs(2);

impl Node {
    pub(super) fn request(&mut self, now: Now, token: Token, request: Request) {
        let answer = match request {
            Request::Deploy { component, size, world, manifest, name, timeout_ms, live } => {
                let replaces = self.register_heads(&name);
                let (manifest, manifest_size) = manifest;
                self.functions.blob_held(component);
                self.functions.blob_held(manifest);
                let op = op::Deployed { name, component, size, world, manifest, manifest_size, replaces };
                self.write(now, token, Payload::Deployed(op), timeout_ms, live)
            }
            Request::Remove { name, timeout_ms } => self.remove(now, token, name, timeout_ms),
            Request::Invite { key, uses, roles, device, note, timeout_ms } => {
                let op = op::Invited { key, uses, roles, device, note };
                self.write(now, token, Payload::Invited(op), timeout_ms, false)
            }
            Request::AddUser { user, timeout_ms } => self.add_user(now, token, user, timeout_ms),
            Request::ChangeUser { user, roles, devices, timeout_ms } => {
                self.change_user(now, token, user, (roles, devices), timeout_ms)
            }
            Request::RevokeUser { user, devices, timeout_ms } => {
                self.revoke_user(now, token, user, devices, timeout_ms)
            }
            Request::Withdraw { invitation, timeout_ms } => self.withdraw(now, token, invitation, timeout_ms),
            Request::Admit { device, invitation, proof, label } => {
                self.admit(now, token, op::Admitted { invitation, device, proof, label })
            }
            Request::Ending { device, question } => self.tell_ending(device, &question).map(Some),
            Request::Leave { timeout_ms } => self.leave(now, token, timeout_ms),
            Request::Drain => self.drain(now, token),
            Request::Sync { timeout_ms } => self.make_contact(now, token, timeout_ms),
            Request::Recovery => {
                self.recovery().map(|(key, generation)| Some(Reply::Recovery { key, generation }))
            }
            Request::Query(query) => Ok(Some(self.query(now, query))),
            Request::Spawning { machines, minority, timeout_ms } => {
                let op = op::Spawning { machines, minority };
                self.write(now, token, Payload::Spawning(op), timeout_ms, false)
            }
            Request::NameVoters { devices, timeout_ms } => self.name_voters(now, token, devices, timeout_ms),
            Request::Bound { name, range, timeout_ms } => self.bound(now, token, name, range, timeout_ms),
            Request::Label { device, labels, timeout_ms } => {
                self.label(now, token, op::Labelled { device, labels }, timeout_ms)
            }
            Request::Budget { device, blocks, timeout_ms } => {
                self.budget(now, token, op::Budgeted { device, blocks }, timeout_ms)
            }
            Request::Want(want) => self.ask_for(now, want).map(|()| Some(self.query(now, Query::Leases))),
            Request::Retire { intent, timeout_ms } => self.retire(now, token, intent, timeout_ms),
            Request::Release { slot, timeout_ms } => self.release(now, token, slot, timeout_ms),
            Request::Recover { device, label, generation, certificate, timeout_ms } => {
                let op = op::Recovered { device, label, generation, certificate };
                self.recover(now, token, op, timeout_ms)
            }
            Request::Revoke { device, discard, timeout_ms } => {
                self.revoke(now, token, device, discard, timeout_ms)
            }
            Request::GrantRoles(change) => self.grant_roles(now, token, &change),
            Request::RevokeRoles(change) => self.revoke_roles(now, token, &change),
        };
        match answer {
            Ok(Some(reply)) => self.effects.push_back(Effect::Reply(token, Ok(reply))),
            Ok(None) => {}
            Err(refusal) => self.effects.push_back(Effect::Reply(token, Err(refusal))),
        }
    }

    /// Appends, and answers later.
    pub(super) fn write(
        &mut self,
        now: Now,
        token: Token,
        payload: Payload,
        timeout_ms: u64,
        live: bool,
    ) -> Result<Option<Reply>, Refusal> {
        let block = self.append(now, payload)?;
        self.wait(now, token, Some(block.id()), timeout_ms, live);
        Ok(None)
    }

    pub(super) fn wait(
        &mut self,
        now: Now,
        token: Token,
        block: Option<BlockId>,
        timeout_ms: u64,
        live: bool,
    ) {
        let until = now.mono.plus(Duration::from_millis(timeout_ms));
        self.waiting.push(Waiting { token, block, until, seen_by: BTreeSet::new(), live, admits: None });
    }

    /// Answers what is confirmed or out of time.
    pub(super) fn answer_waiting(&mut self, now: Now) {
        for waiting in std::mem::take(&mut self.waiting) {
            if now.mono < waiting.until && !self.is_settled(&waiting) {
                self.waiting.push(waiting);
                continue;
            }
            if let Some((grant, device)) = waiting.admits {
                let answer = self.welcome(grant, &device).map(Reply::Admitted);
                self.effects.push_back(Effect::Reply(waiting.token, answer));
                continue;
            }
            let block = waiting.block.and_then(|id| self.ledger.get(&id).cloned());
            // What counts is acknowledged, also where it is the last that this device wrote.
            let counts = match &block {
                Some(block) => self.ledger.is_effective(block),
                None => self.has_left(),
            };
            let void = if counts { None } else { self.void() };
            let reply = match (void, block) {
                (Some(refusal), _) => Err(refusal),
                (None, Some(block)) => Ok(self.written(block, &waiting)),
                (None, None) => Ok(self.contact()),
            };
            self.effects.push_back(Effect::Reply(waiting.token, reply));
        }
    }

    fn is_settled(&mut self, waiting: &Waiting) -> bool {
        if self.view.was_member(&self.me) {
            let block = waiting.block.and_then(|id| self.ledger.get(&id));
            match block {
                Some(block) if self.ledger.is_effective(block) => {}
                // Who has left hands on that it did.
                None if self.has_left() && !self.unseen.is_empty() => return false,
                _ => return true,
            }
        }
        let others = self.others;
        let Some(block) = waiting.block else {
            let counts = |peer: &&PeerId| !self.view.was_member(&Author(peer.to_bytes()));
            let connected = self.sync.peers().filter(counts).count();
            if waiting.admits.is_some() && connected == 0 {
                return true;
            }
            return others == 0 || (connected > 0 && self.agreeing() == connected);
        };
        let live = !waiting.live
            || self.view.functions().values().any(|f| f.live.as_ref().is_some_and(|live| live.id == block));
        live && (others == 0 || !waiting.seen_by.is_empty())
    }

    fn written(&self, block: Arc<Block>, waiting: &Waiting) -> Reply {
        let others = self.others;
        Reply::Written { block, seen_by: (waiting.seen_by.len() as u64).min(others), others }
    }

    fn make_contact(&mut self, now: Now, token: Token, timeout_ms: u64) -> Result<Option<Reply>, Refusal> {
        let has_news = self.has_left() && !self.unseen.is_empty();
        if let Some(refusal) = self.void().filter(|_| !has_news) {
            return Err(refusal);
        }
        self.sync.hurry(now);
        self.wait(now, token, None, timeout_ms, false);
        Ok(None)
    }

    fn contact(&mut self) -> Reply {
        let agreed = self.agreeing() as u64;
        if agreed > 0 {
            // A digest that came before the blocks which made this replica equal says as much as one that
            // comes after them.
            self.unseen.clear();
        }
        Reply::Synced {
            others: self.others,
            connected: self.sync.peers().count() as u64,
            agreed,
            unseen: self.unseen.len() as u64,
        }
    }

    fn register_heads(&self, name: &str) -> Vec<BlockId> {
        let heads = self.view.function(name).map(|function| function.heads.clone()).unwrap_or_default();
        heads.into_iter().take(osiris_ledger::limits::REPLACES_MAX).collect()
    }

    fn remove(
        &mut self,
        now: Now,
        token: Token,
        name: String,
        timeout_ms: u64,
    ) -> Result<Option<Reply>, Refusal> {
        if self.view.function(&name).is_none_or(|function| function.removed) {
            let message = format!("There is no function `{name}`.");
            return Err(Refusal::new(codes::NOT_FOUND, message, "`osiris ls` lists the functions."));
        }
        let replaces = self.register_heads(&name);
        self.write(now, token, Payload::Removed(op::Removed { name, replaces }), timeout_ms, false)
    }

    fn withdraw(
        &mut self,
        now: Now,
        token: Token,
        id: BlockId,
        timeout_ms: u64,
    ) -> Result<Option<Reply>, Refusal> {
        let Some(invitation) = self.view.invitations().get(&id) else {
            let message = format!("There is no invitation {}.", id.short());
            return Err(Refusal::new(codes::NOT_FOUND, message, "`osiris invite ls` lists the invitations."));
        };
        if invitation.state == InvitationState::Withdrawn {
            return Err(Refusal::new(codes::CONFLICT, "The invitation is already withdrawn.", ""));
        }
        self.write(
            now,
            token,
            Payload::Withdrawn(op::Withdrawn { invitation: id, stands: Vec::new() }),
            timeout_ms,
            false,
        )
    }

    fn admit(&mut self, now: Now, token: Token, op: op::Admitted) -> Result<Option<Reply>, Refusal> {
        let op::Admitted { invitation: id, device, .. } = op;
        let Some(offer) = self.offer(&id) else {
            let why = "This node does not know the invitation: the ticket was altered, or this node has not yet heard of it.";
            return Err(Refusal::joining(RefusalCode::Unknown, why));
        };
        if offer.device.is_some_and(|bound| bound != device) {
            let why = "The ticket is for another device.";
            return Err(Refusal::joining(RefusalCode::OtherDevice, why));
        }
        let message = osiris_ledger::join_proof_message(&self.ledger.fleet(), &id, &device);
        if !op::verify(&offer.key, &message, &op.proof) {
            return Err(Refusal::joining(
                RefusalCode::Altered,
                if offer.user {
                    "The user's key is not the one that the fleet knows."
                } else {
                    "The ticket's secret does not fit its invitation."
                },
            ));
        }
        // A joiner that lost the answer asks again, perhaps another node.
        let member = self.view.members().get(&device);
        let admitted = member.into_iter().flat_map(|member| &member.grants).find(|(grant, _, active)| {
            let block = self.ledger.get(grant);
            let by = block
                .is_some_and(|block| matches!(block.payload(), Payload::Admitted(op) if op.invitation == id));
            *active && by
        });
        if let Some((grant, ..)) = admitted {
            return Ok(Some(Reply::Admitted(*grant)));
        }
        if let Some(refusal) = offer.refusal() {
            return Err(refusal);
        }
        if !offer.user && self.was_revoked_since(&device, &id) {
            let why = "This device was revoked after the ticket was made: it needs a new one.";
            return Err(Refusal::joining(RefusalCode::Revoked, why));
        }
        let until = now.mono.plus(WELCOME_AFTER);
        let block = self.append(now, Payload::Admitted(op))?;
        self.sync.hurry(now);
        let admits = Some((block.id(), device));
        self.waiting.push(Waiting {
            token,
            block: None,
            until,
            seen_by: BTreeSet::new(),
            live: false,
            admits,
        });
        Ok(None)
    }

    /// Whether an admission stands, as far as this node knows by now.
    fn welcome(&self, grant: BlockId, device: &Author) -> Result<BlockId, Refusal> {
        let member = self.view.members().get(device).filter(|member| member.active);
        if member.is_some_and(|member| member.grants.iter().any(|(id, _, active)| *id == grant && *active)) {
            return Ok(grant);
        }
        let offer = self.ledger.get(&grant).and_then(|block| match block.payload() {
            Payload::Admitted(op) => self.offer(&op.invitation),
            _ => None,
        });
        let refusal = offer.and_then(|offer| offer.refusal());
        Err(refusal.unwrap_or_else(|| {
            Refusal::joining(
                RefusalCode::Revoked,
                "The invitation gives nothing any more: its author was revoked.",
            )
        }))
    }

    /// What admits devices by this id: an invitation, the intent of a machine that is not gone, or a user.
    fn offer(&self, id: &BlockId) -> Option<Offer> {
        if let Some(invitation) = self.view.invitations().get(id) {
            let (key, device, state) = (invitation.key, invitation.device, invitation.state);
            return Some(Offer { key, device, state, user: false });
        }
        if let Some(machine) = self.machine_of(id) {
            let state = match (machine.counts, machine.device) {
                (false, _) => InvitationState::Withdrawn,
                (true, Some(_)) => InvitationState::UsedUp,
                (true, None) => InvitationState::Open,
            };
            return Some(Offer { key: machine.key, device: None, state, user: false });
        }
        let user = self.view.users().get(id)?;
        Some(Offer { key: user.key, device: None, state: user.state, user: true })
    }

    fn machine_of(&self, intent: &BlockId) -> Option<&osiris_ledger::lease::Machine> {
        let mut machines = self.view.slots().values().flat_map(|slot| &slot.machines);
        machines.find(|machine| machine.intent == *intent)
    }

    fn leave(&mut self, now: Now, token: Token, timeout_ms: u64) -> Result<Option<Reply>, Refusal> {
        let member = self.view.members().get(&self.me).filter(|member| member.active);
        let Some(member) = member else {
            return Err(self.refused(osiris_ledger::AppendError::NotMember));
        };
        if self.is_last_admin(&self.me) && self.others > 0 {
            return Err(Refusal::new(
                codes::CONFLICT,
                "This device is the fleet's only admin: without it nobody could invite or revoke.",
                "Make another device an admin first: `osiris role grant MEMBER admin`.",
            ));
        }
        let grants = super::members::active_grants(member);
        self.release_all(now);
        let block = self.end_own_grants(now, grants)?;
        self.wait(now, token, Some(block.id()), timeout_ms, false);
        Ok(None)
    }

    fn query(&mut self, now: Now, query: Query) -> Reply {
        match query {
            Query::Facts => {
                let (early, _) = self.ledger.early();
                let by_member = |count: &dyn Fn(&PeerId) -> u64| {
                    let members = self.view.members().keys();
                    let counts = members.map(|member| (*member, count(&PeerId::from_bytes(member.0))));
                    counts.filter(|(_, count)| *count > 0).collect()
                };
                let members = self.view.members().keys();
                let reasons = members.map(|member| {
                    (*member, self.sync.reasons(&PeerId::from_bytes(member.0)).collect::<BTreeMap<_, _>>())
                });
                let rejected = reasons.filter(|(_, reasons)| !reasons.is_empty()).collect();
                let held_back = by_member(&|member| self.sync.held_back(member));
                Reply::Facts(Box::new(Facts {
                    rejected,
                    held_back,
                    busy: self.telemetry.busy_machines(now),
                    written: by_member(&|member| self.ledger.written_by(&Author(member.to_bytes()))),
                    early: early as u64,
                    summaries: self.ledger.len() - self.ledger.len_full(),
                    retain: self.pages.retain(),
                    unseen: self.unseen.len() as u64,
                    connected: self.sync.peers().count() as u64,
                    problems: self.problems(),
                    draining: self.draining.is_some(),
                    returned: self.returned,
                    read_only: self.read_only.clone(),
                    forged: self.idle.problem(),
                    twin: self.twin.problem(),
                    ended: self.ended(),
                    heads: self.ledger.heads(),
                    document_heads: self.idle.heads(now, &mut self.ledger),
                }))
            }
            Query::Lost => Reply::Lost(self.gone(now).collect()),
            Query::Log(query) => Reply::Log(self.log(&query)),
            Query::Counters => Reply::Counters(self.counters(now)),
            Query::Grants => Reply::Grants(self.own_grants()),
            Query::Missing(ids) => {
                Reply::Missing(ids.into_iter().filter(|id| !self.ledger.contains_all(&[*id])).collect())
            }
            Query::Leases => Reply::Leases(Box::new(self.lease_facts(now))),
            Query::Scale(trial) => Reply::Scale(Box::new(self.scale_facts(now, trial))),
            Query::Blocks => Reply::Blocks(
                self.ledger.in_order().into_iter().map(|block| self.with_verdict(block)).collect(),
                self.ledger.pages().cloned().collect(),
                Arc::clone(&self.view),
            ),
        }
    }

    fn with_verdict(&self, block: Arc<Block>) -> (Arc<Block>, bool) {
        let effective = self.ledger.is_effective(&block);
        (block, effective)
    }
}

#[cfg(test)]
mod tests {
    use osiris_ledger::{Ledger, Roles, join_proof};
    use osiris_mesh::proto::sync::Frame;

    use super::*;
    use crate::node::{
        Input,
        sample::{author, founded, key, play, replica},
    };

    fn at(ms: u64) -> Now {
        Now { mono: Mono::default().plus(Duration::from_millis(ms)), ..Now::default() }
    }

    fn invited(key: u8) -> Payload {
        let key = author(key);
        Payload::Invited(op::Invited { key, uses: 1, roles: Roles::NODE, device: None, note: String::new() })
    }

    fn admitted(ledger: &Ledger, invitation: BlockId, ticket: u8, device: u8) -> op::Admitted {
        let device = author(device);
        let proof = join_proof(&key(ticket), &ledger.fleet(), &invitation, &device);
        op::Admitted { invitation, device, proof, label: "joiner".to_owned() }
    }

    /// A restored copy of a folder holds own blocks that nobody confirmed to it, and lacks others.
    #[test]
    fn a_digest_that_came_before_the_missing_blocks_confirms_own_blocks() {
        let (mut founder, mut ledger) = founded(at(0));
        let second = founder.append(&mut ledger, at(0), invited(50)).expect("allowed").id();
        let second = Payload::Admitted(admitted(&ledger, second, 50, 2));
        founder.append(&mut ledger, at(0), second).expect("allowed");
        let mut node = replica(at(0), &ledger, 1, 9);
        let missing = founder.append(&mut ledger, at(0), invited(51)).expect("allowed");
        let peer = PeerId::from_bytes(author(2).0);
        let digest = Frame::Digest(ledger.digest().to_vec().into()).encode();
        let blocks = Frame::Blocks(vec![missing.entry().to_vec().into()], false).encode();
        let request = Input::Request(1, Request::Sync { timeout_ms: 1_000 });
        let frames = [digest, blocks].map(|frame| Input::Frame(peer, frame));
        let mut answer = None;
        for input in [Input::PeerUp(peer)].into_iter().chain(frames).chain([request]) {
            node.handle(at(1), input);
            while let Some(effect) = node.poll_effect() {
                if let Effect::Reply(1, reply) = effect {
                    answer = reply.ok();
                }
            }
        }
        assert!(matches!(answer, Some(Reply::Synced { agreed: 1, unseen: 0, .. })), "{answer:?}");
    }

    #[test]
    fn of_two_who_spend_a_last_use_at_once_one_is_welcomed() {
        let (mut founder, mut ledger) = founded(at(0));
        let second = founder.append(&mut ledger, at(0), invited(50)).expect("allowed").id();
        let second = Payload::Admitted(admitted(&ledger, second, 50, 2));
        founder.append(&mut ledger, at(0), second).expect("allowed");
        let last = founder.append(&mut ledger, at(0), invited(51)).expect("allowed").id();
        let requests = [20, 21].map(|device| {
            let op::Admitted { invitation, device, proof, label } = admitted(&ledger, last, 51, device);
            vec![Input::Request(1, Request::Admit { device, invitation, proof, label })]
        });
        let mut nodes = [2, 3].map(|session| replica(at(0), &ledger, session - 1, session));
        let other = [2, 1].map(|device| vec![Input::PeerUp(PeerId::from_bytes(author(device).0))]);
        assert!(play(at(0), &mut nodes, other).is_empty());

        let mut answers = play(at(1), &mut nodes, requests);
        for ms in [300, 600, 900] {
            answers.extend(play(at(ms), &mut nodes, [vec![Input::Tick], vec![Input::Tick]]));
        }
        assert_eq!(answers.len(), 2, "both are answered before {WELCOME_AFTER:?} are over: {answers:?}");
        let welcomed = answers.iter().filter(|answer| matches!(answer, Ok(Reply::Admitted(_)))).count();
        let refused = answers.iter().filter_map(|answer| answer.as_ref().err());
        assert_eq!((welcomed, refused.map(|refusal| refusal.message.as_str()).collect()), (1, vec![USED_UP]));
    }
}
