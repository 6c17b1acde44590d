//! `osiris demo`: three real nodes of this very binary, and what a fleet is for.
//!
//! Everything goes through the command line and the nodes' own interfaces, as a person would do it;
//! the samples are this machine's own, taken while the demo runs.

mod calls;
pub(super) mod fleet;
mod samples;
mod scale;

use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::{DemoArgs, DemoCommand};
use crate::exit::{Exit, Failure};
use crate::output::table::{self, Cell, Tone};
use crate::output::{Format, Out, human, progress::Progress};

use calls::{Caller, Outage, Target};
use fleet::{Fleet, NODES};
use samples::Sampler;

/// How long a step may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long calls go on before a node is killed, and after it is seen to be gone.
const AROUND: Duration = Duration::from_millis(1_500);

/// One row of the report.
#[derive(Debug, Serialize)]
struct Step {
    step: &'static str,
    held: bool,
    took_ms: u64,
    result: String,
}

/// What the demo came to.
#[derive(Debug, Serialize)]
struct Report {
    held: bool,
    took_ms: u64,
    steps: Vec<Step>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    nodes: Vec<fleet::Kept>,
    /// Admits other devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    ticket: Option<String>,
    /// Says to applications where the nodes are.
    #[serde(skip_serializing_if = "Option::is_none")]
    dial_ticket: Option<String>,
}

/// Runs steps, one after the other, until one does not hold.
struct Script {
    steps: Vec<Step>,
    started: Instant,
}

impl Script {
    fn new() -> Self {
        Self { steps: Vec::new(), started: Instant::now() }
    }

    async fn step<T>(
        &mut self,
        name: &'static str,
        work: impl Future<Output = Result<(T, String), Failure>>,
    ) -> Result<T, Failure> {
        self.long_step(name, PATIENCE, work).await
    }

    /// A step that may take so long.
    async fn long_step<T>(
        &mut self,
        name: &'static str,
        patience: Duration,
        work: impl Future<Output = Result<(T, String), Failure>>,
    ) -> Result<T, Failure> {
        let progress = Progress::spinner(name);
        let began = Instant::now();
        let done = match tokio::time::timeout(patience, work).await {
            Ok(done) => done,
            Err(_) => Err(Failure::timed_out(format!("It took longer than {} s.", patience.as_secs()))),
        };
        drop(progress);
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (value, result, held) = match done {
            Ok((value, result)) => (Ok(value), result, true),
            Err(failure) => {
                let result = failure.message.clone();
                (Err(failure), result, false)
            }
        };
        self.steps.push(Step { step: name, held, took_ms, result });
        value
    }
}

/// Waits until somebody wants this to end: by Ctrl-C, by SIGTERM, or as the terminal went away.
async fn interrupted() {
    let [mut hangup, mut terminate] =
        [SignalKind::hangup(), SignalKind::terminate()].map(|kind| signal(kind).ok());
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = came(&mut hangup) => {}
        () = came(&mut terminate) => {}
    }
}

/// Waits for a signal; one that cannot be listened to never comes.
async fn came(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// `osiris demo`.
pub(crate) async fn run(args: &DemoArgs, out: Out) -> Result<Exit, Failure> {
    if let Some(DemoCommand::Scale(args)) = &args.command {
        return scale::run(args, out).await;
    }
    let mut script = Script::new();
    let mut fleet = Fleet::new(args.dir.as_deref(), args.keep)?;
    let (played, told_to_end) = tokio::select! {
        played = play(&mut script, &mut fleet) => (played, false),
        () = interrupted() => (Err(Failure::failed("The demo was interrupted.")), true),
    };
    let mut report = Report {
        held: played.is_ok(),
        took_ms: u64::try_from(script.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        steps: script.steps,
        nodes: Vec::new(),
        ticket: None,
        dial_ticket: None,
    };
    if args.keep && played.is_ok() {
        report.ticket = Some(fleet.invite(3).await?);
        report.dial_ticket = Some(fleet.dial_ticket().await?);
        report.nodes = fleet.keep();
    }
    print(&report, out)?;
    match played {
        Ok(()) => Ok(Exit::Done),
        // Nobody looks for a fault in it.
        Err(failure) if told_to_end => Err(failure),
        Err(failure) => Err(fleet.explain(failure)),
    }
}

async fn play(script: &mut Script, fleet: &mut Fleet) -> Result<(), Failure> {
    let sampler = Sampler::start(fleet.root());
    script.step("found a fleet", fleet.found()).await?;
    script.step("join two nodes by ticket", fleet.join(NODES)).await?;
    script.step("deploy summary to all", fleet.deploy_summary(osiris_examples::SUMMARY, 1)).await?;
    let holder = script.step("deploy chart to one", fleet.deploy_chart()).await?;
    script.step("call both through every node", call_everywhere(fleet, &sampler)).await?;
    let victim = if holder == 0 { NODES - 1 } else { holder };
    script.step("kill a node during calls", kill_during_calls(fleet, &sampler, victim)).await?;
    script.step("deploy revision 2 meanwhile", fleet.deploy_summary(osiris_examples::SUMMARY_V2, 2)).await?;
    script.step("start the killed node again", fleet.revive(victim)).await?;
    script.step("all nodes hold one view", fleet.agree()).await?;
    script.step("revision 2 answers everywhere", revision_2_everywhere(fleet, &sampler)).await?;
    script.step("verify every chain on all", fleet.verify()).await?;
    if !fleet.is_kept() {
        script.step("stop all nodes cleanly", fleet.stop()).await?;
    }
    Ok(())
}

async fn call_everywhere(fleet: &Fleet, sampler: &Sampler) -> Result<((), String), Failure> {
    let mut answered = 0;
    let mut relayed = 0;
    let mut slowest = Duration::ZERO;
    for node in fleet.nodes() {
        for target in Target::BOTH {
            let mut caller = Caller::new(node.http());
            let answer = caller.call(target, sampler.json()).await.map_err(|error| {
                Failure::failed(format!(
                    "{} did not answer through {}: {error}.",
                    target.name(),
                    node.label()
                ))
            })?;
            target.check(&answer, sampler)?;
            answered += 1;
            relayed += u32::from(answer.relayed);
            slowest = slowest.max(answer.took);
        }
    }
    // The chart has one replica, so two of three nodes must have passed its call on.
    if relayed != 2 {
        return Err(Failure::failed(format!("{relayed} of {answered} calls were relayed; 2 were expected.")));
    }
    let latest = sampler.latest();
    let result = format!(
        "{answered} answers, {relayed} of them relayed, slowest {:.1} ms; this device: CPU {:.0} %, memory {:.0} %",
        slowest.as_secs_f64() * 1e3,
        latest.cpu_percent,
        100.0 * latest.memory_used as f64 / latest.memory_total.max(1) as f64,
    );
    Ok(((), result))
}

async fn kill_during_calls(
    fleet: &mut Fleet,
    sampler: &Sampler,
    victim: usize,
) -> Result<((), String), Failure> {
    let survivors: Vec<_> = (0..NODES).filter(|node| *node != victim).collect();
    let addresses: Vec<_> = survivors.iter().map(|node| fleet.nodes()[*node].http()).collect();
    let outage = Outage::watch(addresses, sampler.json());
    tokio::time::sleep(AROUND).await;
    let killed = fleet.kill(victim)?;
    // Until the survivors have taken over what the killed node served, and a little longer.
    let moved = outage.until_both_answer(killed + AROUND, PATIENCE - 4 * AROUND).await?;
    tokio::time::sleep(AROUND).await;
    let [summary, chart] = outage.end().await;
    if summary.failed > 0 {
        return Err(Failure::failed(format!(
            "{} of {} calls of summary failed through nodes that serve it themselves.",
            summary.failed, summary.made
        )));
    }
    let result = format!(
        "{} (SIGKILL): summary {} calls, 0 failed; chart {} calls, {} failed, over {:.1} s until a survivor took over ({:.1} s)",
        fleet.nodes()[victim].label(),
        summary.made,
        chart.made,
        chart.failed,
        chart.failing_for.as_secs_f64(),
        moved.as_secs_f64(),
    );
    Ok(((), result))
}

async fn revision_2_everywhere(fleet: &Fleet, sampler: &Sampler) -> Result<((), String), Failure> {
    let until = Instant::now() + PATIENCE;
    let mut local = 0;
    for node in fleet.nodes() {
        loop {
            let answer = Caller::new(node.http()).call(Target::Summary, sampler.json()).await;
            let ready = answer.as_ref().is_ok_and(|answer| answer.revision() == Some(2) && !answer.relayed);
            if ready {
                local += 1;
                break;
            }
            if Instant::now() >= until {
                let seen = answer.map(|answer| format!("{:?}", answer.revision()));
                return Err(Failure::failed(format!(
                    "{} does not serve revision 2 itself: {seen:?}.",
                    node.label()
                )));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(((), format!("{local} nodes run it themselves, {} samples summarised", sampler.count())))
}

fn step_rows(steps: &[Step]) -> Vec<Vec<Cell>> {
    let row = |step: &Step| {
        let held = match step.held {
            true => Cell::new("ok").tone(Tone::Good),
            false => Cell::new("FAILED").tone(Tone::Bad),
        };
        let took = Cell::right(format!("{:.2} s", step.took_ms as f64 / 1e3));
        vec![held, Cell::new(step.step), took, Cell::new(&step.result)]
    };
    steps.iter().map(row).collect()
}

fn print(report: &Report, out: Out) -> Result<(), Failure> {
    if out.format != Format::Table {
        return out.document(report);
    }
    out.raw(table::render(&["", "STEP", "TIME", "RESULT"], step_rows(&report.steps), out).as_bytes())?;
    let verdict = if report.held { "every step held" } else { "not every step held" };
    out.raw(format!("\n{verdict}, {:.1} s in all\n", report.took_ms as f64 / 1e3).as_bytes())?;
    if let (Some(join), Some(dial)) = (&report.ticket, &report.dial_ticket) {
        let row = |node: &fleet::Kept| {
            let mesh = Cell::new(human::list(&node.mesh));
            vec![Cell::new(&node.label), Cell::new(&node.http), mesh, Cell::new(&node.data)]
        };
        out.raw(b"\nThe fleet stays up:\n")?;
        let rows = report.nodes.iter().map(row).collect();
        out.raw(table::render(&["NODE", "HTTP", "MESH", "DATA"], rows, out).as_bytes())?;
        let tickets = format!(
            "\njoin it from another folder:\n  osiris join {join}\na ticket for applications:\n  {dial}\n"
        );
        out.raw(tickets.as_bytes())?;
        out.raw(b"stop a node:\n  osiris --data DATA down\n")?;
    }
    Ok(())
}
