//! What answers: a fleet of two nodes, a floor for each kind of call, and the echo server.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::args::BenchRole;
use crate::exit::Failure;

use super::child::Role;
use super::echo::{Echo, EchoJob, ProbeJob, Sizes};
use super::floor::{Floor, FloorJob};
use super::load::{LoadJob, Loaded};
use super::machine::{cpu_of, cpu_of_all};
use super::measures::{Measure, Sample, Spent};
use super::pins::Pins;
use super::wire::{Ask, Seen, capture};
use super::{Fleet, NODES};

/// The `wasi:http` function, and its path that answers a few bytes of JSON.
const CHART: &str = "chart";
const CHART_PATH: &str = "/function/chart/";
/// The native function.
const SUMMARY_PATH: &str = "/function/summary";
/// What the native function is given.
const SAMPLES: &str = r#"{"samples":[{"cpu_percent":12.5,"memory_used":1073741824,"memory_total":4294967296,"load1":0.4},{"cpu_percent":37.5,"memory_used":2147483648,"memory_total":4294967296,"load1":0.8}]}"#;
/// The header by which a node says whether another one ran the function.
const RELAYED: &str = "x-osiris-relayed";

/// A request, the answer that is right, and the processes whose CPU time it takes.
#[derive(Debug)]
struct Subject {
    ask: Ask,
    seen: Seen,
    /// In the order in which a request meets them.
    pids: Vec<u32>,
}

/// A subject without the function: its process and the same request to it.
#[derive(Debug)]
struct Base {
    _role: Role,
    subject: Subject,
}

/// Everything that answers.
#[derive(Debug)]
pub(super) struct Subjects {
    local: Subject,
    local_floor: Base,
    native: Subject,
    native_floor: Base,
    relayed: Subject,
    echo: Echo,
    echo_role: Role,
    sizes: Sizes,
    /// Or why nothing is pinned.
    pins: Result<Pins, String>,
}

/// How large requests and answers are, bytes.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Bytes {
    pub(super) http_answer: usize,
    pub(super) native_request: usize,
    pub(super) native_answer: usize,
    pub(super) echo_request: usize,
    pub(super) echo_reply: usize,
}

impl Subjects {
    /// Founds the fleet, deploys, calls everything once and starts the floors with the answers.
    pub(super) async fn start(fleet: &mut Fleet) -> Result<Self, Failure> {
        fleet.found().await?;
        fleet.join(NODES).await?;
        fleet.deploy_summary(osiris_examples::SUMMARY, 1).await?;
        let (holder, _) = fleet.deploy_chart().await?;
        let (http, pids): (Vec<_>, Vec<_>) =
            fleet.nodes().iter().map(|node| (node.http(), node.pid())).unzip();
        let other = (holder + 1) % NODES;
        let pids = |nodes: &[usize]| nodes.iter().filter_map(|node| pids[*node]).collect::<Vec<_>>();

        let chart = Ask { target: http[holder], path: CHART_PATH.to_owned(), body: None };
        let summary = Ask { path: SUMMARY_PATH.to_owned(), body: Some(SAMPLES.to_owned()), ..chart.clone() };
        let local = subject(chart.clone(), pids(&[holder]), "false").await?;
        let native = subject(summary, pids(&[holder]), "false").await?;
        let relayed = subject(chart.at(http[other]), pids(&[other, holder]), "true").await?;
        if relayed.seen.body != local.seen.body {
            return Err(Failure::failed("A relayed call answers something else than a local one."));
        }
        let sizes = Sizes::of(CHART, &relayed.ask, &relayed.seen)
            .map_err(|e| Failure::failed(format!("The call cannot be written: {e}.")))?;
        let mut echo_role = Role::start(BenchRole::Echo, &EchoJob { sizes }, None).await?;
        let echo = echo_role.answer(Duration::ZERO).await?;
        Ok(Self {
            local_floor: base(&local).await?,
            native_floor: base(&native).await?,
            local,
            native,
            relayed,
            echo,
            echo_role,
            sizes,
            pins: Pins::find().await,
        })
    }

    /// Which cores are used, or why nothing is pinned.
    pub(super) fn pins(&self) -> Result<Pins, String> {
        self.pins.clone()
    }

    /// How large everything is.
    pub(super) fn sizes(&self) -> Bytes {
        Bytes {
            http_answer: self.local.seen.head_bytes + self.local.seen.body.len(),
            native_request: self.native.ask.bytes().len(),
            native_answer: self.native.seen.head_bytes + self.native.seen.body.len(),
            echo_request: self.sizes.request_bytes,
            echo_reply: self.sizes.reply_bytes,
        }
    }

    /// Takes one measure.
    pub(super) async fn measure(
        &self,
        measure: Measure,
        seconds: u64,
        cores: usize,
    ) -> Result<Sample, Failure> {
        let connections = measure.connections();
        let subject = match measure {
            Measure::FloorOne | Measure::FloorMany => &self.local_floor.subject,
            Measure::LocalOne | Measure::LocalMany => &self.local,
            Measure::NativeFloorOne | Measure::NativeFloorMany => &self.native_floor.subject,
            Measure::NativeOne | Measure::NativeMany => &self.native,
            Measure::Relayed => &self.relayed,
            Measure::Echo => {
                let job = ProbeJob { echo: self.echo.clone(), sizes: self.sizes, seconds };
                let pids: Vec<u32> = self.echo_role.pid().into_iter().collect();
                let asks = self.place(connections, &pids).await?;
                return sample(BenchRole::Probe, &job, asks.as_deref(), seconds, &pids, cores).await;
            }
        };
        let (ask, seen) = (subject.ask.clone(), subject.seen.clone());
        let job = LoadJob { ask, seen, connections, seconds };
        let asks = self.place(connections, &subject.pids).await?;
        let sample = sample(BenchRole::Load, &job, asks.as_deref(), seconds, &subject.pids, cores).await;
        sample.map_err(|failure| Failure {
            message: format!("{} at {connections}: {}", measure.name(), failure.message),
            ..failure
        })
    }

    /// Puts servers on their cores. Returns those of the load generator, where anything is pinned.
    async fn place(&self, connections: usize, pids: &[u32]) -> Result<Option<String>, Failure> {
        match &self.pins {
            Ok(pins) => pins.place(connections, pids).await.map(Some),
            Err(_) => Ok(None),
        }
    }
}

/// Calls once, so that the answer is known.
async fn subject(ask: Ask, pids: Vec<u32>, relayed: &str) -> Result<Subject, Failure> {
    let seen = capture(&ask).await;
    let seen = seen.map_err(|e| Failure::failed(format!("{} did not answer: {e}.", ask.path)))?;
    if seen.header(RELAYED) != Some(relayed) {
        return Err(Failure::failed(format!(
            "{} at {} was answered with {RELAYED}: {}, where {relayed} was expected.",
            ask.path,
            ask.target,
            seen.header(RELAYED).unwrap_or("nothing"),
        )));
    }
    Ok(Subject { ask, seen, pids })
}

/// Starts a floor that gives a subject's answer, and checks that it does.
async fn base(of: &Subject) -> Result<Base, Failure> {
    let mut role = Role::start(BenchRole::Floor, &FloorJob { seen: of.seen.clone() }, None).await?;
    let floor: Floor = role.answer(Duration::ZERO).await?;
    let address: SocketAddr = floor.address;
    let ask = of.ask.at(address);
    let seen = capture(&ask).await;
    let seen = seen.map_err(|e| Failure::failed(format!("The floor did not answer: {e}.")))?;
    if seen != of.seen {
        return Err(Failure::failed("The floor does not give its subject's answer."));
    }
    let pids = role.pid().into_iter().collect();
    Ok(Base { _role: role, subject: Subject { ask, seen, pids } })
}

/// Runs a load generator, and notes what CPU time everything took meanwhile.
async fn sample<J: Serialize>(
    role: BenchRole,
    job: &J,
    asks: Option<&str>,
    seconds: u64,
    pids: &[u32],
    cores: usize,
) -> Result<Sample, Failure> {
    let servers = || pids.iter().map(|pid| cpu_of(*pid)).sum::<Option<f64>>();
    let (before, all_before, began) = (servers(), cpu_of_all(), Instant::now());
    let mut load = Role::start(role, job, asks).await?;
    let loaded: Loaded = load.answer(Duration::from_secs(seconds)).await?;
    let difference = |after: Option<f64>, before: Option<f64>| Some(after? - before?);
    let spent_servers = difference(servers(), before);
    let all = difference(cpu_of_all(), all_before);
    let spent = Spent {
        servers: spent_servers,
        rest: difference(all, spent_servers),
        seconds: began.elapsed().as_secs_f64(),
        cores,
    };
    Ok(Sample::new(&loaded, spent))
}
