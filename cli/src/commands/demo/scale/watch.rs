//! What happens to the fleet while the demo runs: looked at ten times a second, by the nodes' own interfaces and by what
//! runs the machines.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use osiris_fleet::api::{FunctionDetail, Leases, NodeRow, Scale, Status};
use serde::Serialize;
use tokio::task::JoinHandle;

use super::super::fleet::NODES;
use super::FUNCTION;
use super::target::{Machine, Target};
use crate::client::Client;
use crate::exit::Failure;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// Samples that are kept: twenty minutes of them.
const SAMPLES_MAX: usize = 12_000;
/// For so many looks in a row the backlog is below its mark before it counts as that.
const BELOW_LOOKS: usize = 10;

/// What is waited for, in the usual order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Event {
    Mark,
    Claim,
    Won,
    Intent,
    Terraform,
    Apply,
    Joined,
    NodeUp,
    Made,
    Decided,
    Serving,
    Killed,
    Below,
    LoadEnded,
    Going,
    Left,
    Destroyed,
}

impl Event {
    pub(super) fn says(self) -> &'static str {
        match self {
            Self::Mark => "more wait than the mark",
            Self::Claim => "a slot is claimed",
            Self::Won => "a claim has won",
            Self::Intent => "the intent is written",
            Self::Terraform => "Terraform starts",
            Self::Apply => "Terraform applies",
            Self::Joined => "the machine has joined",
            Self::NodeUp => "its node runs",
            Self::Made => "Terraform has ended",
            Self::Decided => "one replica more is decided",
            Self::Serving => "it serves",
            Self::Killed => "the maker is killed",
            Self::Below => "the backlog is below the mark",
            Self::LoadEnded => "the load ends",
            Self::Going => "the machine is sent for",
            Self::Left => "it is drained and has left",
            Self::Destroyed => "nothing is left of it",
        }
    }
}

/// The fleet at one moment.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Sample {
    /// Seconds since the watch began.
    pub(super) at: f64,
    /// Calls that wait, on all nodes.
    pub(super) backlog: u64,
    /// Members that serve the function.
    pub(super) replicas: u64,
    /// Members that are connected.
    pub(super) nodes: u64,
    /// Machines, by whoever runs them.
    pub(super) machines: u64,
}

/// All that was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) samples: Vec<Sample>,
    pub(super) events: BTreeMap<Event, f64>,
    /// Who claimed a slot, and in which round.
    pub(super) claims: BTreeSet<(u64, String)>,
    /// Who held it, in the order of the rounds.
    pub(super) winners: BTreeMap<u64, String>,
    pub(super) settle_ms: u64,
    /// Most machines that ran at one time.
    pub(super) machines_max: u64,
    below: usize,
    load_ended: bool,
}

impl Seen {
    fn note(&mut self, event: Event, at: f64) {
        self.events.entry(event).or_insert(at);
    }

    pub(super) fn at(&self, event: Event) -> Option<f64> {
        self.events.get(&event).copied()
    }
}

/// Watches until it is dropped.
pub(super) struct Watch {
    seen: Arc<Mutex<Seen>>,
    began: Instant,
    task: JoinHandle<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watch {
    /// `mark` is how many calls may wait for each replica.
    pub(super) fn start(root: PathBuf, sockets: Vec<PathBuf>, target: Arc<Target>, mark: u64) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (to, began) = (Arc::clone(&seen), Instant::now());
        let task = tokio::spawn(async move {
            let mut pause = tokio::time::interval(LOOK);
            pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                pause.tick().await;
                // A look that fails, at a node that was just killed for example, is one look less.
                if let Some(looked) = look(&root, &sockets, &target).await {
                    let at = began.elapsed().as_secs_f64();
                    judge(&mut to.lock().unwrap_or_else(PoisonError::into_inner), &looked, at, mark);
                }
            }
        });
        Self { seen, began, task }
    }

    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks no more. What was seen stays.
    pub(super) fn stop(&self) {
        self.task.abort();
    }

    /// Something that the demo did itself.
    pub(super) fn note(&self, event: Event) {
        let at = self.began.elapsed().as_secs_f64();
        let mut seen = self.seen();
        seen.load_ended |= event == Event::LoadEnded;
        seen.note(event, at);
    }

    /// Waits until something has happened.
    pub(super) async fn until(&self, event: Event, patience: Duration) -> Result<f64, Failure> {
        let end = Instant::now() + patience;
        loop {
            if let Some(at) = self.seen().at(event) {
                return Ok(at);
            }
            if Instant::now() >= end {
                let last = self.seen().samples.last().copied().unwrap_or_default();
                return Err(Failure::timed_out(format!(
                    "In vain for {} s: {}. Last seen: {last:?}.",
                    patience.as_secs(),
                    event.says()
                )));
            }
            tokio::time::sleep(LOOK / 4).await;
        }
    }
}

/// One look at everything.
struct Looked {
    statuses: Vec<Status>,
    leases: Leases,
    function: Option<FunctionDetail>,
    /// Replicas that it is to have.
    count: u32,
    members: Vec<NodeRow>,
    running: Vec<Machine>,
    terraform: Option<Terraform>,
}

async fn look(root: &Path, sockets: &[PathBuf], target: &Target) -> Option<Looked> {
    let running = target.machines().await.ok()?;
    let machines = running.iter().filter_map(|machine| machine.socket.clone());
    let mut statuses = Vec::new();
    let mut first = None;
    for socket in sockets.iter().cloned().chain(machines) {
        let Ok(Some(client)) = Client::find(&socket).await else { continue };
        if let Ok(status) = client.get::<Status>("/v1/status").await {
            statuses.push(status);
            first = first.or(Some(client));
        }
    }
    let client = first?;
    let leases = client.get::<Leases>("/v1/leases").await.ok()?;
    let mut doing = BTreeMap::new();
    // What a maker does about its machine it alone knows.
    for socket in sockets {
        let Ok(Some(client)) = Client::find(socket).await else { continue };
        let Ok(leases) = client.get::<Leases>("/v1/leases").await else { continue };
        for made in leases.slots.into_iter().flat_map(|slot| slot.machines) {
            if !made.doing.is_empty() {
                doing.insert(made.intent, made.doing);
            }
        }
    }
    let mut leases = leases;
    for made in leases.slots.iter_mut().flat_map(|slot| &mut slot.machines) {
        made.doing = doing.remove(&made.intent).unwrap_or_default();
    }
    let function = client.get(&format!("/v1/functions/{FUNCTION}")).await.ok();
    let scale = client.get::<Scale>("/v1/scale").await.ok();
    let count = scale.iter().flat_map(|scale| &scale.functions).find(|row| row.name == FUNCTION);
    let count = count.map_or(0, |row| row.inputs.replicas);
    let members = client.get("/v1/nodes").await.ok()?;
    let terraform = terraform_runs(&root.join("node-"));
    Some(Looked { statuses, leases, function, count, members, running, terraform })
}

/// What Terraform is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Terraform {
    Begins,
    Applies,
}

/// What Terraform is at in a folder of one of the nodes: `init` reads the module, `apply` makes the machine.
fn terraform_runs(nodes: &Path) -> Option<Terraform> {
    let nodes = nodes.display().to_string();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let folders = entries.filter_map(|entry| fs::read_link(entry.path().join("cwd")).ok().zip(Some(entry)));
    let inside = folders.filter(|(folder, _)| {
        let folder = folder.display().to_string();
        folder.starts_with(&nodes) && folder.contains("/provision/")
    });
    inside.filter_map(|(_, entry)| terraform(&fs::read(entry.path().join("cmdline")).ok()?)).max()
}

/// By a command line: its words end with a zero byte each, proc_pid_cmdline(5).
fn terraform(command_line: &[u8]) -> Option<Terraform> {
    let mut words = command_line.split(|byte| *byte == 0);
    let program = words.next()?.rsplit(|byte| *byte == b'/').next()?;
    if !matches!(program, b"terraform" | b"tofu") {
        return None;
    }
    Some(if words.any(|word| word == b"apply") { Terraform::Applies } else { Terraform::Begins })
}

fn judge(seen: &mut Seen, looked: &Looked, at: f64, mark: u64) {
    let backlog = looked.statuses.iter().map(|status| status.backlog).sum();
    let serving = looked.function.iter().flat_map(|function| function.revisions.last()).collect::<Vec<_>>();
    let serving: Vec<_> = serving.iter().flat_map(|revision| revision.serving.iter()).collect();
    let connected = looked.members.iter().filter(|row| matches!(row.state.as_str(), "this" | "connected"));
    let machines = looked.running.len() as u64;
    let sample =
        Sample { at, backlog, replicas: serving.len() as u64, nodes: connected.count() as u64, machines };
    if seen.samples.len() < SAMPLES_MAX {
        seen.samples.push(sample);
    }
    seen.machines_max = seen.machines_max.max(machines);
    seen.settle_ms = seen.settle_ms.max(looked.leases.settle_ms);
    let most = mark * sample.replicas;
    if sample.replicas > 0 && backlog > most {
        seen.note(Event::Mark, at);
    }
    for slot in &looked.leases.slots {
        if matches!(slot.state.as_str(), "claimed" | "held") {
            seen.note(Event::Claim, at);
            seen.claims.extend(slot.by.iter().map(|by| (slot.round, by.clone())));
        }
        if slot.state == "held" {
            seen.note(Event::Won, at);
            seen.winners.extend(slot.by.first().map(|by| (slot.round, by.clone())));
        }
    }
    if looked.count as usize > NODES {
        seen.note(Event::Decided, at);
    }
    let intents: Vec<_> = looked.leases.slots.iter().flat_map(|slot| &slot.machines).collect();
    if looked.terraform.is_some() {
        seen.note(Event::Terraform, at);
    }
    if looked.terraform == Some(Terraform::Applies) {
        seen.note(Event::Apply, at);
    }
    if machines > 0 {
        seen.note(Event::NodeUp, at);
    }
    for made in &intents {
        seen.note(Event::Won, at);
        seen.note(Event::Intent, at);
        seen.winners.entry(made.round).or_insert_with(|| made.by.clone());
        match (made.device.is_empty(), made.doing.as_str()) {
            (false, "made") => {
                seen.note(Event::Joined, at);
                seen.note(Event::Made, at);
            }
            (false, _) => seen.note(Event::Joined, at),
            _ => {}
        }
        if serving.iter().any(|label| **label == made.device) {
            seen.note(Event::Serving, at);
        }
        if seen.load_ended && matches!(made.doing.as_str(), "being taken away" | "to be taken away") {
            seen.note(Event::Going, at);
        }
        let is_member = |row: &NodeRow| row.label == made.device && row.state != "revoked";
        if seen.load_ended && !made.device.is_empty() && !looked.members.iter().any(is_member) {
            seen.note(Event::Left, at);
        }
    }
    if seen.at(Event::Serving).is_some() && !seen.load_ended {
        seen.below = if backlog <= most { seen.below + 1 } else { 0 };
        if seen.below == BELOW_LOOKS {
            seen.note(Event::Below, at - (BELOW_LOOKS - 1) as f64 * LOOK.as_secs_f64());
        }
    }
    if seen.load_ended && seen.at(Event::Intent).is_some() && intents.is_empty() && machines == 0 {
        seen.note(Event::Left, at);
        seen.note(Event::Destroyed, at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terraform_applies_when_its_command_line_says_so() {
        for (line, at) in [
            (&b"/usr/bin/terraform\0init\0-input=false\0"[..], Some(Terraform::Begins)),
            (b"terraform\0-chdir=x\0apply\0-json\0", Some(Terraform::Applies)),
            (b"/opt/tofu\0apply\0", Some(Terraform::Applies)),
            (b"/usr/bin/osiris\0provision\0up\0", None),
            (b"vi\0apply\0", None),
            (b"", None),
        ] {
            assert_eq!(terraform(line), at, "{}", String::from_utf8_lossy(line));
        }
    }
}
