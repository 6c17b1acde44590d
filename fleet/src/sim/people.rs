//! People: what they ask of nodes, what they are told, and strangers on their way in.

use std::sync::Arc;

use osiris_ledger::{BlockId, InvitationState, Role, Session, SigningKey, Writer};
use osiris_protocol::join::RefusalCode;

use crate::node::{HAND_OVER_WITHIN, Input, Refusal, Reply, Request, Token};

use super::{
    payload,
    process::Running,
    queue::{NodeId, What},
    workload::{Asked, Ticket, Wish},
    world::{Standing, World},
};

/// How long a newcomer waits for the ledger.
const JOIN_MS: u64 = 30_000;
/// Pause between a newcomer's tries, and how many there are.
const JOIN_AGAIN_MS: u64 = 2_000;
const JOIN_TRIES: u32 = 8;

impl World<'_> {
    /// Somebody wants something of some node.
    pub(super) fn work(&mut self) {
        if self.healed {
            return;
        }
        let pause = self.options.work_every_ms;
        self.queue.at(self.now + self.random.between(pause / 2 + 1, pause * 3 / 2), What::Work);
        let wish = self.people.wish();
        if let Wish::Revoke = wish {
            return self.revoke();
        }
        let able: Vec<_> = self.belonging().into_iter().filter(|node| self.may(*node, &wish)).collect();
        let Some(node) = self.random.pick(&able) else { return };
        match wish {
            Wish::Deploy(release) => {
                // The bytes are kept first, the block is written second.
                self.manifests.insert(release.manifest_hash, release.manifest.clone());
                let library = &mut self.devices[node as usize].library;
                library.extend([release.manifest_hash, release.component]);
                self.ask(node, Asked::Deploy, release.request());
            }
            Wish::Remove(name) => self.ask(node, Asked::Remove, payload::remove(name)),
            Wish::Invite { uses, strangers } => {
                let key = SigningKey::from_bytes(&self.random.bytes());
                let request = payload::invite(&key, uses);
                self.ask(node, Asked::Invite { key: Box::new(key), uses, strangers }, request);
            }
            Wish::Withdraw => {
                let open = self.running(node).map(|running| {
                    let invitations = running.node.view().invitations().values();
                    let open = invitations.filter(|invitation| invitation.state == InvitationState::Open);
                    open.map(|invitation| invitation.id).collect::<Vec<_>>()
                });
                if let Some(invitation) = self.random.pick(&open.unwrap_or_default()) {
                    self.ask(node, Asked::Withdraw, payload::withdraw(invitation));
                }
            }
            Wish::Leave if self.canonical(node) > 0 => self.ask(node, Asked::Leave, payload::leave()),
            Wish::Drain => {
                let since = self.now;
                self.ask(node, Asked::Drain { since }, Request::Drain);
            }
            Wish::Leave | Wish::Revoke => {}
        }
    }

    fn running(&self, node: NodeId) -> Option<&Running> {
        self.devices[node as usize].running.as_ref()
    }

    /// Whether a node's grant allows a wish; a few ask all the same.
    fn may(&mut self, node: NodeId, wish: &Wish) -> bool {
        let roles = self.running(node).and_then(|running| {
            let view = running.node.view();
            view.members().get(&self.devices[node as usize].author).map(|member| member.roles)
        });
        payload::allows(roles.unwrap_or_default(), wish) || self.random.chance(20)
    }

    pub(super) fn ask(&mut self, node: NodeId, asked: Asked, request: Request) {
        let (now, wall) = (self.now, self.wall(node));
        if let Some(process) = self.run_of(node).filter(|_| self.is_still(node)) {
            self.unless_still(What::Asked(process, Box::new((asked, request))));
            return;
        }
        self.say(format_args!("asks {node} {}", asked.name()));
        let Some(running) = self.devices[node as usize].running.as_mut() else { return };
        let done = running.ask(now, wall, asked, request);
        self.perform(node, done);
    }

    /// A request is answered.
    pub(super) fn answered(&mut self, node: NodeId, token: Token, reply: Result<Reply, Refusal>) {
        let asked = self.devices[node as usize].running.as_mut().and_then(|r| r.asked.remove(&token));
        let Some(asked) = asked else { return };
        let code = reply.as_ref().map_or_else(|refusal| refusal.code.0, |_| "done");
        self.say(format_args!("answers {node} {} {code}", asked.name()));
        if let Asked::Admit { stranger } = asked {
            return self.welcomed(node, stranger, reply);
        }
        if let (Asked::Ending { device }, Ok(Reply::Ending(frame))) = (&asked, &reply) {
            return self.tell_ending(node, *device, frame.clone());
        }
        if let Ok(Reply::Drained { stopped, left }) = &reply {
            return self.drained(node, *stopped, left);
        }
        let Ok(Reply::Written { block, .. }) = reply else { return };
        let id = block.id();
        self.promise(node, id, "acknowledged");
        match asked {
            Asked::Deploy => {
                self.acknowledged.insert(id, node);
            }
            Asked::Invite { key, uses, strangers } => self.hand_out(node, id, &key, uses, strangers),
            Asked::Leave => {
                self.branches.count("left");
                self.vanish(node, true);
                self.end(node);
                self.devices[node as usize].standing = Standing::Gone;
            }
            Asked::Remove
            | Asked::Withdraw
            | Asked::Drain { .. }
            | Asked::Admit { .. }
            | Asked::Ending { .. } => {}
        }
    }

    /// A node is relieved of what it served, and started again after a while.
    fn drained(&mut self, node: NodeId, stopped: u64, left: &[String]) {
        self.branches.add("handed over", u64::from(stopped > 0 && left.is_empty()));
        if self.day.is_none() {
            self.stop(node);
            let away = self.random.between(100, 20_000);
            self.queue.at(self.now + away, What::Start(node));
        }
    }

    /// What a node stops that drains is served by another, unless nobody may, or nobody did in time.
    pub(super) fn look_at_handover(&mut self, node: NodeId, revision: BlockId) {
        let Some(running) = self.running(node) else { return };
        let since = running.asked.values().filter_map(|asked| match asked {
            Asked::Drain { since } => Some(*since),
            _ => None,
        });
        let Some(waited) = since.min().map(|since| self.now - since) else { return };
        let view = running.node.view();
        let mut newest = view.functions().values().filter_map(|function| function.newest.as_ref());
        let Some(newest) = newest.find(|newest| newest.id == revision) else { return };
        // How many replicas a function has that is scaled, and whether it has any, changes all the time.
        if self.manifests.get(&newest.manifest).is_none_or(|manifest| manifest.scale.is_some()) {
            return;
        }
        let me = running.node.device();
        let may_serve = |member: &osiris_ledger::Member| {
            let is_able = member.active && member.roles.has(Role::Node) && member.device != me;
            is_able && !view.scaling().is_draining(&member.device)
        };
        let in_time = u128::from(waited) < HAND_OVER_WITHIN.as_millis();
        if in_time && newest.serving.is_empty() && view.members().values().any(may_serve) {
            let what =
                format_args!("node {node} drained {} {waited} ms and left it to nobody", revision.short());
            self.check.violated(self.now, what);
        }
    }

    /// What is acknowledged, or leaves its node, is durable there, and stays.
    pub(super) fn promise(&mut self, node: NodeId, id: BlockId, deed: &str) {
        let device = &mut self.devices[node as usize];
        if device.durable.contains(&id) {
            device.promised.insert(id);
        } else {
            let now = self.now;
            self.check.violated(
                now,
                format_args!("block {} was {deed} by node {node} before it was durable there", id.short()),
            );
        }
    }

    /// A ticket goes to strangers, all at once.
    fn hand_out(&mut self, node: NodeId, invitation: BlockId, key: &SigningKey, uses: u32, strangers: u64) {
        let heads = self.running(node).map(|running| running.node.ledger().heads()).unwrap_or_default();
        let waiting = |standing: &Standing| matches!(standing, Standing::Stranger { ticket: None, .. });
        let free = (0..).zip(&self.devices).filter(|(_, device)| waiting(&device.standing));
        let free: Vec<NodeId> =
            free.map(|(node, _)| node).take(usize::try_from(strangers).unwrap_or(0)).collect();
        self.branches.add("more strangers than uses", u64::from(free.len() > uses as usize));
        for stranger in free {
            let ticket = Ticket { invitation, key: key.clone(), heads: heads.clone(), peers: None };
            self.devices[stranger as usize].standing = Standing::Stranger { ticket: Some(ticket), tries: 0 };
            let pause = self.random.between(200, 600);
            self.queue.at(self.now + pause, What::Join(stranger));
        }
    }

    /// A stranger asks some node that it reaches; one that is receiving looks whether its time is up.
    pub(super) fn join(&mut self, stranger: NodeId) {
        match self.devices[stranger as usize].standing.clone() {
            Standing::Stranger { ticket: Some(ticket), tries } => {
                if tries >= JOIN_TRIES || self.healed {
                    self.devices[stranger as usize].standing = Standing::Gone;
                    return;
                }
                let again = Standing::Stranger { ticket: Some(ticket.clone()), tries: tries + 1 };
                self.devices[stranger as usize].standing = again;
                self.queue.at(self.now + JOIN_AGAIN_MS, What::Join(stranger));
                let named = |node: &NodeId| ticket.peers.as_ref().is_none_or(|peers| peers.contains(node));
                let open = self.belonging().into_iter().filter(named);
                let open: Vec<_> = open.filter(|node| self.network.reaches(*node, stranger)).collect();
                let Some(node) = self.random.pick(&open) else { return };
                let device = self.devices[stranger as usize].author;
                let request = payload::admit(&self.fleet, ticket.invitation, &ticket.key, device);
                self.ask(node, Asked::Admit { stranger }, request);
            }
            Standing::Joining { ticket, until, tries, .. } if self.now >= until => {
                // The same `osiris join` again: the admission stands, unless it was one too many.
                self.vanish(stranger, true);
                self.end(stranger);
                self.devices[stranger as usize].standing =
                    Standing::Stranger { ticket: Some(ticket), tries: tries + 4 };
                self.queue.at(self.now + JOIN_AGAIN_MS, What::Join(stranger));
            }
            _ => {}
        }
    }

    /// A stranger hears what the node that it asked decided, unless the answer is lost.
    fn welcomed(&mut self, node: NodeId, stranger: NodeId, reply: Result<Reply, Refusal>) {
        if !self.network.reaches(node, stranger) || !self.network.greets() {
            self.branches.count("welcome lost");
            return;
        }
        let Standing::Stranger { ticket: Some(ticket), tries } =
            self.devices[stranger as usize].standing.clone()
        else {
            return;
        };
        match reply {
            Ok(Reply::Admitted(grant)) => {
                let mut needed = ticket.heads.clone();
                needed.push(grant);
                let until = self.now + JOIN_MS;
                let known = self.belonging();
                let known = known.iter().map(|node| self.devices[*node as usize].peer).collect();
                let device = &mut self.devices[stranger as usize];
                device.standing = Standing::Joining { ticket, needed, until, tries };
                device.known = known;
                self.queue.at(self.now + 50, What::Start(stranger));
                self.queue.at(until, What::Join(stranger));
            }
            Err(Refusal { join: Some(RefusalCode::UsedUp | RefusalCode::Revoked), .. }) => {
                self.branches.count("stranger refused");
                self.devices[stranger as usize].standing = Standing::Gone;
            }
            _ => {}
        }
    }

    /// A newcomer that durably holds what it needs starts as a node.
    pub(super) fn is_joined(&mut self, node: NodeId) {
        let Standing::Joining { needed, .. } = &self.devices[node as usize].standing else { return };
        let Some(running) = self.running(node) else { return };
        if running.outbox.is_waiting() || !running.node.ledger().contains_all(needed) {
            return;
        }
        self.branches.count("joined");
        self.say(format_args!("joined {node}"));
        self.stop(node);
        self.devices[node as usize].standing = Standing::Member;
        self.queue.at(self.now + 100, What::Start(node));
    }

    /// An admin's second device, which holds what some node holds, ends a member's grants.
    fn revoke(&mut self) {
        let belonging = self.belonging();
        let Some(witness) = self.random.pick(&belonging) else { return };
        let hostile = self.random.chance(700);
        let targets = (1..self.options.nodes).filter(|node| self.devices[*node as usize].hostile == hostile);
        let Some(target) = self.random.pick(&targets.collect::<Vec<_>>()) else { return };
        let author = self.devices[target as usize].author;
        let Some(running) = self.running(witness) else { return };
        let grants: Vec<_> = running.node.view().members().get(&author).map_or_else(Vec::new, |member| {
            member.grants.iter().filter(|(_, _, active)| *active).map(|(id, ..)| *id).collect()
        });
        if grants.is_empty() {
            return;
        }
        let mut ledger = running.node.ledger().apart();
        ledger.publish();
        let mut writer = Writer::new(self.clerk.clone(), Session(self.random.bytes()));
        let now = osiris_ledger::Now { wall: osiris_ledger::WallMs(self.wall(0)), ..Default::default() };
        let revocation = payload::revoke(&ledger, &author, grants);
        let Ok(block) = writer.append(&mut ledger, now, revocation) else { return };
        self.branches.count("revoked");
        self.say(format_args!("revokes {target} {}", block.id().short()));
        self.check.made(block.id(), true);
        self.pool.push(Arc::clone(&block));
        self.last_written = self.now;
        // It is handed to the node whose replica it was written on.
        self.input(witness, Input::Hint(block.entry().to_vec()));
    }
}
