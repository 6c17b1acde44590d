//! Effects, performed on the simulated disk, network and host.

use std::sync::Arc;

use osiris_ledger::{Author, BlobHash, Block, BlockId, View, op};
use osiris_mesh::{PeerId, proto::sync::Frame};

use crate::{
    manifest::Replicas,
    node::{Effect, Input, Request},
    placement,
};

use super::{
    day::PREPARE_MS,
    load::SIDE_BY_SIDE,
    payload,
    process::Done,
    queue::{NodeId, Process, What},
    report::print,
    workload::Asked,
    world::{Standing, World},
};

/// How long connections of a member that left or was revoked stay open, as in the engine.
const GOODBYE_MS: u64 = 250;
/// Longest time that a dial to a member that is gone takes.
const GONE_MS: u64 = 4_000;
/// Components of a hundred that cannot be compiled.
const BROKEN_PERCENT: u8 = 5;

impl World<'_> {
    /// Performs what came of an input, in order.
    pub(super) fn perform(&mut self, node: NodeId, done: Vec<Done>) {
        self.perform_all(node, done);
        if self.devices[node as usize].running.is_some() {
            self.look_at_leases(node);
            self.arrange_tick(node);
            self.lost_changed(node);
        }
    }

    fn perform_all(&mut self, node: NodeId, done: Vec<Done>) {
        for done in done {
            match done {
                Done::Write(group) => {
                    match (group.anew, group.pages.is_empty()) {
                        (true, _) => self.branches.count("blocks dropped"),
                        (false, false) => self.branches.count("joined from pages"),
                        (false, true) => {}
                    }
                    // A journal that is written anew holds nothing that was not taken in before.
                    for block in group.blocks.iter().filter(|_| !group.anew) {
                        self.taken_in(node, block);
                    }
                    if let Some(running) = self.devices[node as usize].running.as_mut() {
                        running.last_group = group.number;
                        running.unsynced.push(group);
                    }
                    self.write(node);
                }
                Done::Perform(effect) => self.effect(node, effect),
            }
            if self.devices[node as usize].running.is_none() {
                return;
            }
        }
    }

    /// A core admitted a block, its own or another's.
    fn taken_in(&mut self, node: NodeId, block: &Block) {
        let (now, id) = (self.now, block.id());
        self.say(format_args!("takes {node} {} {}", id.short(), block.payload().name()));
        let device = &self.devices[node as usize];
        let Some(running) = device.running.as_ref() else { return };
        let (author, session) = (device.author, running.session);
        let own = block.author() == author && block.chain().session == session;
        self.check.admitted(now, node, author, session, block);
        self.claim_taken_in(node, own, block);
        if own {
            self.last_written = now;
            self.count_written(node, block);
            if let Some(revision) = payload::serves(block.payload()) {
                self.note_takeover(node, revision);
            }
            if let osiris_ledger::Payload::Stopped(op) = block.payload() {
                self.look_at_handover(node, op.revision);
            }
        }
    }

    /// A replica that is ready on a node which is not among the first in rank took over from one.
    fn note_takeover(&mut self, node: NodeId, revision: BlockId) {
        let device = &self.devices[node as usize];
        let Some(running) = device.running.as_ref() else { return };
        let view = running.node.view();
        let mut revisions = view.functions().values().flat_map(|function| &function.revisions);
        let Some(held) = revisions.find(|held| held.id == revision) else { return };
        let Some(manifest) = self.manifests.get(&held.manifest) else { return };
        // Where a scaled function is depends on its count.
        let Replicas::Count(count) = manifest.replicas else { return };
        if manifest.scale.is_some() {
            return;
        }
        let members = view.members().values();
        let members =
            members.filter(|m| m.active && m.roles.has(osiris_ledger::Role::Node)).map(|m| m.device);
        let ranked = placement::ranked(&revision, members);
        let first = placement::placed(&ranked, count as usize, |_| true);
        if !first.contains(&device.author) {
            self.branches.count("takeover");
        }
    }

    /// Starts a write of all that waits, unless one is under way.
    fn write(&mut self, node: NodeId) {
        let time = self.random.between(1, self.options.sync_ms_max);
        let now = self.now;
        let device = &mut self.devices[node as usize];
        let Some(running) = device.running.as_mut() else { return };
        if running.syncing || running.unsynced.is_empty() {
            return;
        }
        running.syncing = true;
        let groups = std::mem::take(&mut running.unsynced);
        let last = groups.last().map_or(0, |group| group.number);
        for group in &groups {
            device.journal.write(group);
        }
        self.queue.at(now + time, What::Synced(Process { node, run: running.run }, last));
        if let Some(away_ms) = device.crash_in_write.take() {
            self.crash(node, away_ms);
        }
    }

    /// The disk has done what it was asked.
    pub(super) fn synced(&mut self, process: Process, group: u64) {
        if !self.is_current(process) {
            return;
        }
        let node = process.node;
        let (now, wall) = (self.now, self.wall(node));
        let device = &mut self.devices[node as usize];
        let Some(running) = device.running.as_mut() else { return };
        running.syncing = false;
        if std::mem::take(&mut device.disk_fails) {
            let done = running.disk_failed(now, wall, "the simulated disk failed");
            let refused = running.own_blocks().filter(|id| !device.durable.contains(id)).count();
            self.branches.count("disk failed");
            self.say(format_args!("disk fails {node}"));
            if refused > 0 {
                self.check.violated(
                    now,
                    format_args!("node {node} goes on showing {refused} own blocks that its disk refused"),
                );
            }
            let back = now + self.random.between(2_000, 10_000);
            self.perform(node, done);
            let fault = super::faults::Fault::Crash { node, in_write: false, away_ms: 500 };
            self.queue.at(back, What::Fault(fault));
            return;
        }
        self.made_durable(node, group);
        self.write(node);
        self.is_joined(node);
    }

    /// Everything that was written is durable: what waited for it happens.
    fn made_durable(&mut self, node: NodeId, group: u64) {
        let all = self.options.owns_everything();
        let device = &mut self.devices[node as usize];
        let Some(running) = device.running.as_mut() else { return };
        let author = device.author;
        let durable = device.journal.sync();
        for block in durable.iter().filter(|block| all || block.author() == author) {
            device.durable.insert(block.id());
        }
        let done = running.durable(group);
        for block in durable.iter().filter(|block| block.author() == author) {
            if self.check.made(block.id(), true) {
                self.pool.push(Arc::clone(block));
            }
        }
        self.say(format_args!("durable {node} {group}"));
        // The core was not asked: what it held when it stood still, it gives up at its next input.
        self.perform_all(node, done);
    }

    /// Makes every write durable and performs what waited for it, as the engine does before it ends.
    pub(super) fn settle(&mut self, node: NodeId) {
        let device = &mut self.devices[node as usize];
        let Some(running) = device.running.as_mut() else { return };
        if running.outbox.has_failed() || !running.outbox.is_waiting() {
            return;
        }
        for group in std::mem::take(&mut running.unsynced) {
            device.journal.write(&group);
        }
        let last = running.last_group;
        self.made_durable(node, last);
    }

    fn effect(&mut self, node: NodeId, effect: Effect) {
        match effect {
            Effect::Persist(_) | Effect::PersistPages(..) | Effect::Compact(..) => {}
            Effect::WritePage(page) => {
                let hash = page.hash();
                self.devices[node as usize].library.insert(hash);
                self.pages.insert(hash, Arc::clone(&page));
                let pause = self.random.between(1, self.options.sync_ms_max);
                self.later(node, pause, Input::Page(hash, Ok(page)));
            }
            Effect::ReadPage(hash) => {
                let held = self.devices[node as usize].library.contains(&hash);
                let page = self.pages.get(&hash).filter(|_| held).cloned();
                self.later(node, 2, Input::Page(hash, page.ok_or_else(|| "it is not here".to_owned())));
            }
            Effect::Send(peer, bytes) => self.send(node, peer, bytes.into()),
            Effect::AskEnding(peer, question) => self.ask_ending(node, peer, question),
            Effect::JoinAgain(peer, admission) => self.join_again(node, peer, *admission),
            Effect::Hint(entry) => self.hint(node, entry.into()),
            Effect::Reply(token, reply) => self.answered(node, token, reply),
            Effect::Published(view) => self.published(node, &view),
            Effect::Fetch { hash, from, .. } => self.fetch(node, hash, &from),
            Effect::ReadManifest(hash) => {
                let manifest = self.manifests.get(&hash).cloned();
                let manifest = manifest.ok_or_else(|| "there is no such manifest".to_owned());
                self.later(node, 5, Input::Manifest(hash, manifest));
            }
            Effect::Provision(errand) => self.provision(node, &errand),
            // Calls are figures here, and a replica runs as many side by side as it always does.
            Effect::Concurrency(..) => {}
            // Its machines are known by their labels.
            Effect::SealState(..) | Effect::KeepState(..) | Effect::DropState(_) => {}
            Effect::Prepare { revision, ref manifest, .. } if self.day.is_some() => {
                self.occupies(node, revision, Some(&manifest.name));
                self.later(node, PREPARE_MS, Input::Prepared(revision, SIDE_BY_SIDE as u32));
            }
            Effect::Retire(revision) if self.day.is_some() => self.occupies(node, revision, None),
            Effect::HintRow(bytes) if self.day.is_some() => self.gossip_row(node, bytes),
            Effect::Prepare { revision, component, .. } => {
                let pause = self.random.between(20, 800);
                let input = match component.0[0] % 100 < BROKEN_PERCENT {
                    true => Input::PrepareFailed(revision, "it cannot be compiled".to_owned()),
                    false => Input::Prepared(revision, 4),
                };
                self.later(node, pause, input);
            }
            // Gossip of rows is lost here: anti-entropy has to bring them.
            Effect::Retire(_) | Effect::Warn(_) | Effect::HintRow(_) => {}
        }
    }

    /// Something that this process of a node will be told.
    pub(super) fn later(&mut self, node: NodeId, pause_ms: u64, input: Input) {
        if let Some(process) = self.run_of(node) {
            self.queue.at(self.now + pause_ms, What::Input(process, Box::new(input)));
        }
    }

    /// Sends a frame. One that cannot be sent is dropped, as by the mesh.
    pub(super) fn send(&mut self, node: NodeId, peer: PeerId, bytes: Arc<[u8]>) {
        let Some(to) = self.by_peer.get(&peer).map(|peer| self.connected(node, *peer)) else { return };
        if self.says_nothing(node, to, &bytes) {
            return;
        }
        if self.options.owns_everything() && !self.devices[node as usize].hostile {
            self.inspect(node, &bytes);
        }
        if let Some((pair, generation, side, arrivals)) = self.network.send(self.now, node, to) {
            for at in arrivals {
                self.queue.at(at, What::Frame { pair, generation, to: side, bytes: Arc::clone(&bytes) });
            }
        }
    }

    /// A node that was turned away asks why, on a connection of its own.
    fn ask_ending(&mut self, node: NodeId, peer: PeerId, question: Vec<u8>) {
        let Some(to) = self.by_peer.get(&peer).copied() else { return };
        let device = self.devices[node as usize].author;
        let was_member = |view: &View| view.was_member(&device);
        let told = self.devices[to as usize].running.as_ref().is_some_and(|run| was_member(run.node.view()));
        if !self.is_up(to) || !self.network.reaches(node, to) || !self.network.greets() {
            return;
        }
        if told {
            self.ask(to, Asked::Ending { device: node }, Request::Ending { device, question });
        } else {
            let pause = 2 * self.network.delay();
            self.later(node, pause, Input::NoEnding(peer));
        }
    }

    /// A member that does not know a node is asked to admit it, on a connection of its own.
    fn join_again(&mut self, node: NodeId, peer: PeerId, admission: op::Admitted) {
        let Some(to) = self.by_peer.get(&peer).copied() else { return };
        let joins = self.is_up(to) && self.network.reaches(node, to) && self.network.greets();
        if joins && self.devices[to as usize].running.is_some() {
            self.branches.count("joined again");
            let op::Admitted { invitation, device, proof, label } = admission;
            let request = Request::Admit { device, invitation, proof, label };
            self.ask(to, Asked::Admit { stranger: node }, request);
        }
    }

    /// It is told, unless the answer is lost.
    pub(super) fn tell_ending(&mut self, node: NodeId, device: NodeId, frame: Vec<u8>) {
        if self.options.owns_everything() && !self.devices[node as usize].hostile {
            self.inspect(node, &frame);
        }
        if self.network.reaches(node, device) && self.network.greets() {
            self.branches.count("told of its end");
            let (pause, peer) = (2 * self.network.delay(), self.devices[node as usize].peer);
            self.later(device, pause, Input::Ending(peer, frame));
        }
    }

    /// What an honest node sends holds no own block, and confirms no block, that is not durable there.
    fn inspect(&mut self, node: NodeId, bytes: &[u8]) {
        let author = self.devices[node as usize].author;
        match Frame::decode(bytes) {
            Ok(Frame::Blocks(entries, _)) => {
                let blocks = entries.iter().map(|entry| Block::id_of(entry));
                let own = |id: &BlockId| {
                    let running = self.devices[node as usize].running.as_ref()?;
                    // What was durable here once, was lost by the disk, and came back from others while the journal
                    // takes no more is theirs: nobody is told that it is durable here.
                    let returned = running.outbox.has_failed() && self.check.was_durable(id);
                    let is_own = |block: &&Arc<Block>| block.author() == author && !returned;
                    running.node.ledger().get(id).filter(is_own).map(|_| *id)
                };
                for id in blocks.filter_map(|id| own(&id)).collect::<Vec<_>>() {
                    self.promise(node, id, "let out");
                }
            }
            Ok(Frame::Receipt(ids)) => {
                for id in ids {
                    if !self.devices[node as usize].durable.contains(&id) {
                        let now = self.now;
                        self.check.violated(
                            now,
                            format_args!(
                                "node {node} confirmed block {}, which is not durable there",
                                id.short()
                            ),
                        );
                    }
                }
            }
            Ok(_) => {}
            Err(_) => {
                let now = self.now;
                self.check.violated(now, format_args!("node {node} sent bytes that are no frame"));
            }
        }
    }

    /// Gossip: a hint reaches a part of those who can be reached, each after a few hops.
    fn hint(&mut self, node: NodeId, entry: Arc<[u8]>) {
        let id = Block::id_of(&entry);
        if !self.devices[node as usize].hostile {
            self.promise(node, id, "let out");
        }
        self.say(format_args!("gossip {node} {}", print(&entry)));
        let hints = if self.is_deaf() { 0 } else { self.options.hints };
        let later = self.gossips_later();
        if later && hints > 0 {
            self.gossip_block(node, &entry);
        }
        for to in 0..self.nodes() {
            if later && self.day.as_ref().is_some_and(|day| day.only_calls(to)) {
                continue;
            }
            let heard = self.random.chance(hints);
            let member = matches!(self.devices[to as usize].standing, Standing::Member);
            if to != node && heard && member && self.network.carries(node, to) {
                let hops = self.random.between(1, 3);
                let delay = (0..hops).map(|_| self.network.delay()).sum::<u64>();
                self.queue.at(self.now + delay, What::Hint { to, bytes: Arc::clone(&entry) });
            }
        }
    }

    fn published(&mut self, node: NodeId, view: &View) {
        let now = self.now;
        self.makers(node, view);
        let device = &mut self.devices[node as usize];
        let Some(running) = device.running.as_mut() else { return };
        // The effect may have waited for the disk; what is checked is the core as it is.
        if device.sampled {
            let digest = running.node.digest();
            let current = Arc::clone(running.node.view());
            self.check.published(now, node, digest, &current);
        }
        if Arc::ptr_eq(&running.members, view.shared_members()) {
            return;
        }
        running.members = Arc::clone(view.shared_members());
        let active = view.members().values().filter(|member| member.active);
        let (members, roster) = active.fold((0_usize, 0_u64), |(count, sum), member| {
            let start: [u8; 8] = member.device.0[..8].try_into().expect("eight of 32 bytes");
            (count + 1, sum.wrapping_add(u64::from_le_bytes(start)))
        });
        if roster != running.roster.1 {
            let fewer = members < running.roster.0;
            running.roster = (members, roster);
            let process = Process { node, run: running.run };
            self.queue.at(now + if fewer { GOODBYE_MS } else { 0 }, What::Roster(process));
        }
    }

    /// Members are asked for bytes one after the other.
    fn fetch(&mut self, node: NodeId, hash: BlobHash, from: &[Author]) {
        let mut pause = 0;
        for member in from {
            let Some(holder) = self.by_peer.get(&PeerId::from_bytes(member.0)).copied() else { continue };
            pause += 2 * self.network.delay() + 1;
            if !self.is_up(holder) || !self.network.reaches(node, holder) {
                pause += GONE_MS;
            } else if self.devices[holder as usize].library.contains(&hash) {
                // Whether a process that dies meanwhile holds the bytes when it is back, both are well.
                self.devices[node as usize].library.insert(hash);
                return self.later(node, pause, Input::BlobHeld(hash));
            }
        }
        self.later(node, pause + 1, Input::FetchFailed(hash, "nobody has it".to_owned()));
    }
}
