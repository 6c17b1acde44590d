//! What the view says, as rows for people and programs.

use std::collections::BTreeSet;

use osiris_ledger::{
    Author, BlobHash, BlockId, Function, InvitationState, Payload, Revision, Role, Roles, View, Void, World,
};
use osiris_mesh::PeerStatus;

use super::metrics::Metrics;
use crate::{
    api::{BacklogNodeRow, BacklogRow, BlockRow, FunctionRow, InvitationRow, NodeRow, RevisionRow, UserRow},
    manifest::PlaceKeys,
    node::{Facts, FleetCounters, Logged, Recorded, Refusal, scale::may_be_placed_on},
};

/// A member's name, or the start of its key.
pub(crate) fn label(view: &View, device: &Author) -> String {
    let label =
        view.members().get(device).map(|member| member.label.clone()).filter(|label| !label.is_empty());
    label.unwrap_or_else(|| device.short())
}

pub(crate) fn role_names(roles: Roles) -> Vec<String> {
    roles.iter().map(|role| role.name().to_owned()).collect()
}

pub(crate) fn world_name(world: World) -> String {
    match world {
        World::Native => "native".to_owned(),
        World::Http => "http".to_owned(),
    }
}

/// One row a member, this device first, then by name.
pub(crate) fn nodes(view: &View, me: &Author, facts: &Facts, peers: &[PeerStatus]) -> Vec<NodeRow> {
    let reasons = |device| facts.rejected.get(device).into_iter().flatten();
    let mut rows: Vec<_> = view
        .members()
        .values()
        .map(|member| {
            let peer = peers.iter().find(|peer| peer.peer.as_bytes() == &member.device.0);
            let connected = peer.is_some_and(|peer| peer.connected);
            let state = match (member.active, member.device == *me, connected) {
                (false, ..) => "revoked",
                (true, true, _) => "this",
                (true, false, true) => "connected",
                (true, false, false) => "unreachable",
            };
            NodeRow {
                device: member.device.to_string(),
                label: member.label.clone(),
                roles: role_names(member.roles),
                labels: view.scaling().labels(&member.device).to_vec(),
                state: state.to_owned(),
                rtt_us: peer
                    .and_then(|peer| peer.rtt)
                    .map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
                addresses: peer
                    .map(|peer| peer.addrs.iter().map(ToString::to_string).collect())
                    .unwrap_or_default(),
                serving: served_by(view, &member.device),
                draining: view.scaling().is_draining(&member.device),
                busy: facts.busy.contains(&member.device),
                rejected: reasons(&member.device).map(|(_, count)| count).sum(),
                reasons: reasons(&member.device).map(|(name, count)| ((*name).to_owned(), *count)).collect(),
                held_back: facts.held_back.get(&member.device).copied().unwrap_or(0),
                blocks: facts.written.get(&member.device).copied().unwrap_or(0),
                budget: view.budget(&member.device),
                twin: member.device == *me && facts.twin.is_some(),
                forks: view.forks().iter().filter(|fork| fork.author == member.device).count() as u64,
            }
        })
        .collect();
    rows.sort_by_key(|row| {
        (row.state != "this", row.state == "revoked", row.label.clone(), row.device.clone())
    });
    rows
}

fn served_by(view: &View, device: &Author) -> Vec<String> {
    let serves = |revision: &Revision| revision.is_served_by(device);
    let all = view.functions().values().flat_map(|function| {
        let served = function.served.iter().filter(|revision| serves(revision));
        served.map(|revision| format!("{}@{}", function.name, revision.number))
    });
    all.collect()
}

/// Members other than this device that have a revision of this component and this manifest ready, and so hold both. Who
/// has the component alone, by another revision, cannot serve this one.
pub(crate) fn holders(view: &View, component: BlobHash, manifest: BlobHash, me: &Author) -> u64 {
    let served = view.functions().values().flat_map(|function| &function.served);
    let with_it = served.filter(|revision| (revision.component, revision.manifest) == (component, manifest));
    let devices = with_it.flat_map(|revision| &revision.serving).map(|serving| serving.device);
    devices.filter(|device| device != me).collect::<BTreeSet<_>>().len() as u64
}

/// One function's row.
pub(crate) fn function(
    function: &Function,
    metrics: &Metrics,
    load: (u64, u64),
    lost: &BTreeSet<Author>,
) -> FunctionRow {
    let serving = || function.live.iter().flat_map(|live| &live.serving);
    let state = match (&function.live, function.removed) {
        (_, true) => "removed",
        (Some(_), false) => "live",
        (None, false) => "pending",
    };
    let shown = function.live.as_ref().or(function.newest.as_ref()).or(function.revisions.last());
    let figures = metrics.function(&function.name);
    let (done, failed) = figures.done_and_failed();
    FunctionRow {
        name: function.name.clone(),
        state: state.to_owned(),
        world: shown.map(|revision| world_name(revision.world)).unwrap_or_default(),
        revision: function.live.as_ref().map_or(0, |live| live.number),
        newest: function.newest.as_ref().map_or(0, |newest| newest.number),
        served_by: serving().count() as u64,
        lost: serving().filter(|serving| lost.contains(&serving.device)).count() as u64,
        concurrent: function.revisions.iter().any(|revision| revision.concurrent),
        backlog: load.0,
        in_flight: load.1,
        done,
        failed,
    }
}

/// What each function does over the fleet, by name; within it by the members' names.
pub(crate) fn backlog(view: &View, counters: &FleetCounters) -> Vec<BacklogRow> {
    let rows = counters.totals.iter().map(|(name, total)| {
        let parts = counters.by_node.iter().filter(|part| part.name == *name);
        let mut nodes: Vec<_> = parts
            .map(|part| BacklogNodeRow {
                node: label(view, &part.node),
                device: part.node.to_string(),
                backlog: part.backlog,
                in_flight: part.in_flight,
                done: part.done,
                failed: part.failed,
                age_ms: u64::try_from(part.age.as_millis()).unwrap_or(u64::MAX),
            })
            .collect();
        nodes.sort_by(|a, b| (&a.node, &a.device).cmp(&(&b.node, &b.device)));
        BacklogRow {
            name: name.clone(),
            backlog: total.backlog,
            in_flight: total.in_flight,
            done: total.done,
            failed: total.failed,
            silent: total.silent,
            nodes,
        }
    });
    rows.collect()
}

/// A function's revisions, newest first.
pub(crate) fn revisions(view: &View, function: &Function) -> Vec<RevisionRow> {
    let is = |held: Option<&std::sync::Arc<Revision>>, id| held.is_some_and(|held| held.id == id);
    let rows = function.revisions.iter().rev().map(|revision| {
        let state = if is(function.live.as_ref(), revision.id) {
            "live"
        } else if function.removed {
            "removed"
        } else if is(function.newest.as_ref(), revision.id) {
            "newest"
        } else {
            "old"
        };
        RevisionRow {
            number: revision.number,
            id: revision.id.to_string(),
            state: state.to_owned(),
            concurrent: revision.concurrent,
            component: revision.component.to_string(),
            size: revision.size,
            by: label(view, &revision.by),
            wall_ms: revision.wall_ms,
            serving: revision.serving.iter().map(|serving| label(view, &serving.device)).collect(),
        }
    });
    rows.collect()
}

/// Invitations, open ones first.
pub(crate) fn invitations(view: &View) -> Vec<InvitationRow> {
    let mut rows: Vec<_> = view
        .invitations()
        .values()
        .map(|invitation| InvitationRow {
            id: invitation.id.to_string(),
            state: match invitation.state {
                InvitationState::Open => "open",
                InvitationState::UsedUp => "used-up",
                InvitationState::Withdrawn => "withdrawn",
            }
            .to_owned(),
            used: invitation.used,
            uses: invitation.uses,
            surplus: invitation.surplus,
            roles: role_names(invitation.roles),
            by: label(view, &invitation.by),
            note: invitation.note.clone(),
        })
        .collect();
    rows.sort_by_key(|row| (row.state != "open", row.id.clone()));
    rows
}

/// Users, those that still admit first, then by name.
pub(crate) fn users(view: &View) -> Vec<UserRow> {
    let mut rows: Vec<_> = view
        .users()
        .values()
        .map(|user| UserRow {
            id: user.id.to_string(),
            name: user.name.clone(),
            key: user.key.to_string(),
            roles: role_names(user.roles),
            state: match user.state {
                InvitationState::Open => "open",
                InvitationState::UsedUp => "used-up",
                InvitationState::Withdrawn => "revoked",
            }
            .to_owned(),
            used: user.used,
            devices_max: user.devices_max,
            surplus: user.surplus,
            devices: user.devices.iter().map(|(_, device)| label(view, device)).collect(),
            by: label(view, &user.by),
        })
        .collect();
    rows.sort_by_key(|row| (row.state == "revoked", row.name.clone(), row.id.clone()));
    rows
}

fn user_name(view: &View, logged: &Logged) -> Option<String> {
    let user = logged.user?;
    Some(view.users().get(&user).map_or_else(|| user.short(), |known| known.name.clone()))
}

/// How the grant that a block was written by was given, in words.
pub(crate) fn granted(view: &View, logged: &Logged) -> String {
    match (
        logged.granted_by.as_deref().map(|grant| (grant.payload(), grant.author())),
        user_name(view, logged),
    ) {
        (_, Some(user)) => format!("the key of {user}"),
        (Some((Payload::Founded(_), _)), None) => "as founder".to_owned(),
        (Some((Payload::Recovered(_), _)), None) => "the recovery key".to_owned(),
        (Some((_, author)), None) => format!("admitted by {}", label(view, &author)),
        (None, None) => String::new(),
    }
}

/// A block, with what it says in a sentence.
pub(crate) fn block(view: &View, logged: &Logged, entries: bool) -> BlockRow {
    let block = logged.block.full();
    let (chain, seq) = logged.block.place();
    let user =
        logged.user.map(|user| view.users().get(&user).map_or_else(|| user.short(), |u| u.name.clone()));
    let void = match logged.void {
        None => "",
        Some(Void::NotGiven) => "its grant was not given: the offer or the admission is void",
        Some(Void::Revoked) => "its grant was revoked, and this block is not among what was left",
        Some(Void::Forked) => "its author signed two blocks at one place",
    };
    let (op, says) = match &logged.block {
        Recorded::Full(block) => (block.payload().name(), says(view, block.payload())),
        Recorded::Summary { revision, concurrency: Some(concurrency), .. } => {
            ("serving", serves(view, *revision, *concurrency))
        }
        Recorded::Summary { revision, .. } => ("stopped", stopped(view, *revision)),
    };
    let entry = block.map(|block| block.entry()).unwrap_or_default();
    BlockRow {
        id: logged.block.order().id.to_string(),
        depth: logged.block.order().depth,
        author: label(view, &chain.author),
        device: chain.author.to_string(),
        session: chain.session.to_string(),
        seq,
        op: op.to_owned(),
        says,
        wall_ms: block.map(|block| block.wall().0),
        effective: logged.void.is_none(),
        void: void.to_owned(),
        grant: logged.granted_by.as_ref().map(|grant| grant.id().to_string()).unwrap_or_default(),
        by: granted(view, logged),
        user: user.unwrap_or_default(),
        bytes: entry.len() as u64,
        entry: if entries { hex(entry) } else { String::new() },
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // A string takes whatever it is given.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A revision as people name it.
fn revision(view: &View, id: BlockId) -> String {
    let mut all = view.functions().values().flat_map(|f| f.revisions.iter().map(move |held| (f, held)));
    let found = all.find(|(_, held)| held.id == id);
    found.map_or_else(|| id.short(), |(function, held)| format!("{}@{}", function.name, held.number))
}

fn serves(view: &View, of: BlockId, concurrency: u32) -> String {
    format!("serves {} ({concurrency} side by side)", revision(view, of))
}

fn stopped(view: &View, of: BlockId) -> String {
    format!("no longer serves {}", revision(view, of))
}

fn says(view: &View, payload: &Payload) -> String {
    match payload {
        Payload::Founded(op) => format!("founds the fleet {} on {}", op.name, op.label),
        Payload::Invited(op) => match op.device {
            Some(device) => format!("invites {} as {}", device.short(), op.roles),
            None => format!("invites {} device(s) as {}", op.uses, op.roles),
        },
        Payload::User(op) => format!("makes the user {} known as {}", op.name, op.roles),
        Payload::Withdrawn(op) => match view.users().get(&op.invitation) {
            Some(user) => format!("ends the user {}", user.name),
            None => format!("withdraws the invitation {}", op.invitation.short()),
        },
        Payload::Recovered(op) => {
            format!("makes {} ({}) an admin by the recovery key", op.label, op.device.short())
        }
        Payload::Admitted(op) => format!("admits {} ({})", op.label, op.device.short()),
        Payload::Revoked(op) => {
            let grants: Vec<_> = op.grants.iter().map(osiris_ledger::BlockId::short).collect();
            format!("revokes the grant(s) {}", grants.join(", "))
        }
        Payload::Deployed(op) => {
            format!(
                "deploys {} ({}, {} bytes, component {})",
                op.name,
                world_name(op.world),
                op.size,
                op.component.short()
            )
        }
        Payload::Removed(op) => format!("removes {}", op.name),
        Payload::Serving(op) => serves(view, op.revision, op.concurrency),
        Payload::Stopped(op) => stopped(view, op.revision),
        Payload::Voters(op) => {
            let devices: Vec<_> = op.devices.iter().map(|device| label(view, device)).collect();
            format!("names the voters {}", devices.join(", "))
        }
        Payload::Sealed(op) => format!("seals the page {} ({} bytes)", op.page.short(), op.size),
        Payload::Claimed(op) => format!("claims slot {}, round {}", op.slot, op.round),
        Payload::Activated(op) => format!("holds the slot of the claim {}", op.claim.short()),
        Payload::Intent(op) => {
            let functions = if op.functions.is_empty() { "any function" } else { &op.functions.join(", ") };
            format!("is about to make a machine by {} for {functions}", op.target)
        }
        Payload::Released(op) => format!("gives up the claim {}", op.claim.short()),
        Payload::Retired(op) => format!("says that the machine of {} is gone", op.intent.short()),
        Payload::Spawning(op) => {
            let without = if op.minority { ", also without a majority of the voters" } else { "" };
            format!("allows the fleet {} machine(s) of its own{without}", op.machines)
        }
        Payload::Bounded(op) => {
            let what = op.name.as_deref().unwrap_or("all scaled functions together");
            match &op.range {
                Some(range) if op.name.is_some() => {
                    format!("keeps {what} between {} and {} replica(s)", range.min, range.max)
                }
                Some(range) => format!("keeps {what} at no more than {} replica(s)", range.max),
                None => format!("leaves the bounds of {what} to the manifest"),
            }
        }
        Payload::Scaled(op) => {
            let past: Vec<_> = op.past.iter().map(|device| label(view, device)).collect();
            let past = if past.is_empty() { String::new() } else { format!(", past {}", past.join(", ")) };
            format!("scales {} to {} replica(s){past}", op.name, op.replicas)
        }
        Payload::Labelled(op) => {
            let labels = if op.labels.is_empty() { "nothing" } else { &op.labels.join(", ") };
            format!("labels {} with {labels}", label(view, &op.device))
        }
        Payload::Budgeted(op) => format!("allows {} {} block(s)", label(view, &op.device), op.blocks),
        Payload::Draining(op) if op.draining => "drains: others are to take over what it serves".to_owned(),
        Payload::Draining(_) => "drains no more: functions may be placed on it".to_owned(),
    }
}

/// Why nobody may serve a function, and what helps; none where somebody may.
pub(crate) fn why_nobody(view: &View, place: &PlaceKeys) -> Option<String> {
    let nodes = view.members().values().filter(|member| member.active && member.roles.has(Role::Node));
    let nodes: Vec<_> = nodes.map(|member| member.device).collect();
    if nodes.iter().any(|member| may_be_placed_on(view, place, member)) {
        return None;
    }
    let labels = place.labels.join(" ");
    Some(if nodes.is_empty() {
        "No member has the role node, which serving needs.".to_owned()
    } else if nodes.iter().any(|member| place.fits(view.scaling().labels(member))) {
        "Every member that may serve it drains: `osiris up` on one of them serves again.".to_owned()
    } else if let [label] = place.labels.as_slice() {
        format!(
            "No member bears the label {label}, which it asks for: `osiris member label MEMBER {label}` gives it."
        )
    } else {
        format!(
            "No member bears all the labels that it asks for: `osiris member label MEMBER {labels}` gives them."
        )
    })
}

/// A journal that takes no more writes, and what to do.
pub(crate) fn journal_problem(why: &str) -> String {
    let Refusal { message, next, .. } = Refusal::storage(why);
    next.into_iter().fold(message, |message, next| format!("{message} {next}"))
}
