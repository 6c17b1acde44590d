//! Whether the healed fleet agrees, and on what.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use osiris_ledger::{BlockId, Role, View};

use super::{
    queue::NodeId,
    world::{Standing, World},
};

/// What the replicas at the end came to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Agreement {
    pub(super) blocks: u64,
    pub(super) documents: u64,
}

/// The heads of an automerge document.
type Heads = Vec<[u8; 32]>;

impl World<'_> {
    /// Honest members that belong by all that honest members hold together. All of them run by now and can
    /// reach each other; who was revoked and has not heard of it is none of them.
    fn expected(&mut self) -> Vec<NodeId> {
        let view = self.view_of_all();
        let members = (0..).zip(&self.devices).filter(|(_, device)| {
            let member = matches!(device.standing, Standing::Member) && !device.hostile;
            member && view.is_member(&device.author)
        });
        let members: Vec<_> = members.map(|(node, _)| node).collect();
        let knows = |node: NodeId, peer: NodeId| {
            let running = self.devices[node as usize].running.as_ref();
            let author = &self.devices[peer as usize].author;
            running.is_none_or(|running| running.node.view().members().contains_key(author))
        };
        // A newcomer that only members know which are none any more, or are hostile, is a stranger to all others: it
        // has to join again (`docs/simulator.md`). Two such that know each other are expected to agree.
        let is_known = |peer: &NodeId| members.iter().any(|node| node != peer && knows(*node, *peer));
        let alone = members.len() < 2;
        members.iter().filter(|node| alone || is_known(node)).copied().collect()
    }

    /// Whether at most one is left that has to agree with others.
    pub(super) fn is_alone(&mut self) -> bool {
        self.expected().len() < 2
    }

    /// What the blocks of all honest members say together.
    fn view_of_all(&mut self) -> Arc<View> {
        let mut different = BTreeMap::new();
        for (node, device) in self.devices.iter_mut().enumerate() {
            if let (Standing::Member, Some(running)) = (&device.standing, device.running.as_mut()) {
                different.entry(running.node.digest()).or_insert(node);
            }
        }
        let digests: BTreeSet<_> = different.keys().copied().collect();
        if let Some((known, view)) = &self.all
            && *known == digests
        {
            return Arc::clone(view);
        }
        let mut all = self.beginning.ledger();
        all.leave_out_document();
        for node in different.values() {
            let Some(running) = self.devices[*node].running.as_ref() else { continue };
            // What an honest member admitted is valid, and follows all it names.
            all.follow(running.node.ledger());
        }
        let view = all.publish();
        self.all = Some((digests, Arc::clone(&view)));
        view
    }

    /// Of some nodes, who takes another of them for gone that may serve functions, and whom. All run and can reach each
    /// other.
    fn misses(&self, expected: &[NodeId]) -> impl Iterator<Item = (NodeId, NodeId)> {
        let serves = |node: &NodeId| {
            let running = self.devices[*node as usize].running.as_ref();
            running.is_some_and(|running| {
                let member = running.node.view().members().get(&running.node.device());
                running.serves && member.is_some_and(|member| member.roles.has(Role::Node))
            })
        };
        expected.iter().flat_map(move |node| {
            let lost = self.devices[*node as usize].running.as_ref().map(|running| running.node.lost());
            let lost = lost.unwrap_or_default().into_iter().filter_map(|peer| self.by_peer.get(&peer));
            let lost: Vec<_> = lost.filter(|peer| expected.contains(peer) && serves(peer)).copied().collect();
            lost.into_iter().map(|peer| (*node, peer))
        })
    }

    /// Whether every expected node runs, holds the same blocks, writes them durably, and takes none of the others for
    /// gone that may serve functions.
    pub(super) fn agrees(&mut self) -> bool {
        let expected = self.expected();
        let mut digest = None;
        let only_calls: Vec<_> =
            (0..self.nodes()).map(|node| self.day.as_ref().is_some_and(|day| day.only_calls(node))).collect();
        let calls = |node: NodeId| only_calls[node as usize];
        !expected.is_empty()
            && expected.iter().all(|node| {
                let Some(running) = self.devices[*node as usize].running.as_mut() else { return false };
                let own = running.node.digest();
                (running.serves || calls(*node))
                    && !running.outbox.is_waiting()
                    && !running.outbox.has_failed()
                    && *digest.get_or_insert(own) == own
            })
            && self.misses(&expected).next().is_none()
    }

    /// Checks what must hold of replicas that agree.
    pub(super) fn compare(&mut self) -> Agreement {
        let now = self.now;
        let expected = self.expected();
        let mut agreement = Agreement::default();
        let mut first: Option<(Arc<View>, Option<Heads>)> = None;
        let all = self.options.owns_everything();
        for node in &expected {
            let device = &mut self.devices[*node as usize];
            let Some(running) = device.running.as_mut() else { continue };
            let view = Arc::clone(running.node.view());
            agreement.blocks += running.node.ledger().len();
            // A document holds what is here in full, so those of members that dropped blocks differ.
            let whole = running.node.ledger().len_full() == running.node.ledger().len();
            let heads = (device.sampled && whole).then(|| running.node.document_heads());
            agreement.documents += u64::from(heads.is_some());
            let Some((known, known_heads)) = &mut first else {
                first = Some((view, heads));
                continue;
            };
            if !known.says_the_same(&view) && known.hash() != view.hash() {
                self.check.violated(now, format_args!("node {node} holds the same blocks and another view"));
            }
            match (heads, &known_heads) {
                (Some(heads), Some(known)) if heads != *known => {
                    self.check.violated(
                        now,
                        format_args!("node {node} holds the same blocks and another automerge document"),
                    );
                }
                (Some(heads), None) => *known_heads = Some(heads),
                _ => {}
            }
        }
        self.look_for_false_alarms();
        self.deploys_are_there(&expected);
        let view = self.view_of_all();
        self.machines_are_seen(&expected, &view);
        self.count_branches(&expected, all);
        agreement
    }

    /// Every acknowledged deploy is everywhere, and counts unless its author's grant does not.
    fn deploys_are_there(&mut self, expected: &[NodeId]) {
        let now = self.now;
        let acknowledged: Vec<_> = self
            .acknowledged
            .iter()
            .filter(|(id, _)| !self.excused.contains(id))
            .map(|(id, n)| (*id, *n))
            .collect();
        for node in expected {
            let Some(running) = self.devices[*node as usize].running.as_ref() else { continue };
            let view = running.node.view();
            let revisions = view.functions().values().flat_map(|function| &function.revisions);
            let listed: BTreeSet<BlockId> = revisions.map(|revision| revision.id).collect();
            let mut missing = Vec::new();
            for (id, author) in &acknowledged {
                let active = view.is_member(&self.devices[*author as usize].author);
                if running.node.ledger().get(id).is_none() {
                    missing.push((*id, *author, "does not hold"));
                } else if active && !listed.contains(id) {
                    missing.push((*id, *author, "does not count"));
                }
            }
            for (id, author, what) in missing {
                // Who left or was revoked before it was heard of takes its blocks along.
                let gone = !matches!(self.devices[author as usize].standing, Standing::Member)
                    || !expected.contains(&author);
                if !gone {
                    self.check.violated(
                        now,
                        format_args!(
                            "node {node} {what} deploy {}, which node {author} had acknowledged",
                            id.short()
                        ),
                    );
                }
            }
        }
    }

    fn count_branches(&mut self, expected: &[NodeId], all: bool) {
        for node in expected {
            let Some(running) = self.devices[*node as usize].running.as_ref() else { continue };
            let (_, evicted) = running.node.ledger().early();
            self.branches.add("early evicted", evicted);
        }
        let Some(running) = expected.first().and_then(|node| self.devices[*node as usize].running.as_ref())
        else {
            return;
        };
        let (view, ledger) = (running.node.view(), running.node.ledger());
        self.branches.add("fork proven", view.forks().len() as u64);
        self.branches.add("page sealed", view.pages().iter().filter(|page| page.sealed).count() as u64);
        let surplus = view.invitations().values().map(|invitation| u64::from(invitation.surplus)).sum();
        self.branches.add("surplus admission", surplus);
        if all {
            let blocks = ledger.in_order();
            let void = blocks.iter().filter(|block| !ledger.is_effective(block)).count() as u64;
            self.branches.add("void blocks", void);
        }
        let revisions = view.functions().values().flat_map(|function| &function.revisions);
        let concurrent = revisions.filter(|revision| revision.concurrent).count() as u64;
        self.branches.add("concurrent deploys", concurrent);
    }

    /// No agreement in time: what each node holds.
    pub(super) fn say_why_not(&mut self) {
        let now = self.now;
        let mut said = String::new();
        let expected = self.expected();
        for (node, peer) in self.misses(&expected).take(5) {
            said.push_str(&format!("; node {node} takes node {peer} for gone"));
        }
        for (node, peer) in expected.iter().flat_map(|node| expected.iter().map(move |peer| (*node, *peer))) {
            if !self.accepts(node, peer) {
                said.push_str(&format!("; node {node} takes node {peer} for no member"));
            }
        }
        for node in expected {
            let connected = self.network.peers(node).len();
            let device = &mut self.devices[node as usize];
            let what = match device.running.as_mut() {
                None => "does not run".to_owned(),
                Some(running) => {
                    let digest = BlockId(running.node.digest());
                    let (blocks, early) = (running.node.ledger().len(), running.node.ledger().early().0);
                    format!(
                        "{blocks} blocks, digest {}, {early} early, {connected} connections",
                        digest.short()
                    )
                }
            };
            said.push_str(&format!("; node {node}: {what}"));
            if said.len() > 1_000 {
                said.push_str(" …");
                break;
            }
        }
        self.check.violated(now, format_args!("the healed fleet does not agree{said}"));
    }
}
