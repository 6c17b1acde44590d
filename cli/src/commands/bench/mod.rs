//! `osiris bench`: what a call costs, beside what it cannot cost less than.
//!
//! ```text
//! subjects   two nodes, the floors and the echo server    child    processes of this program
//! measures   what is compared with what, medians          machine  cores, load average, CPU time
//! load       the load generator                           wire     requests and answers
//! floor      raw hyper                                    echo     raw iroh
//! report     the table                                    pins     which cores processes run on
//! ```
//!
//! The same load generator, in a process of its own, asks floor and subject the same way, and takes no
//! answer but the one it was shown: the status, the head's length and the body's bytes. A floor gives
//! its subject's answer. Rounds are interleaved, and ratios are taken within a round.

mod child;
mod echo;
mod floor;
mod load;
mod machine;
mod measures;
mod pins;
mod report;
mod subjects;
mod wire;

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::args::BenchArgs;
use crate::exit::{Exit, Failure};
use crate::output::{Out, progress::Progress};

use super::demo::fleet::Fleet;
use machine::Machine;
use measures::{Measure, Round};
use report::Report;
use subjects::Subjects;

/// Pause between two measures, in which connections end and threads come to rest.
const PAUSE: Duration = Duration::from_millis(100);
/// Nodes of the bench: one that runs the functions, and one that passes calls on to it.
const NODES: usize = 2;

/// `osiris bench`.
pub(crate) async fn run(args: &BenchArgs, out: Out) -> Result<Exit, Failure> {
    if let Some(role) = args.role {
        return child::play(role, out).await;
    }
    let machine = Machine::now();
    if let Some(why) = machine.busy() {
        out.warn(&why);
    }
    let root = std::env::temp_dir().join(format!("osiris-bench-{}", std::process::id()));
    let mut fleet = Fleet::new(Some(&root), false)?;
    let mut terminated = signal(SignalKind::terminate())
        .map_err(|e| Failure::failed(format!("Signals cannot be received: {e}.")))?;
    let measured = tokio::select! {
        measured = measure(args, machine, &mut fleet) => measured,
        _ = tokio::signal::ctrl_c() => return Err(interrupted()),
        _ = terminated.recv() => return Err(interrupted()),
    };
    match measured {
        Ok(report) => report.print(out).map(|()| Exit::Done),
        Err(failure) => Err(fleet.explain(failure)),
    }
}

fn interrupted() -> Failure {
    Failure::failed("The bench was interrupted.")
}

async fn measure(args: &BenchArgs, machine: Machine, fleet: &mut Fleet) -> Result<Report, Failure> {
    let progress = Progress::spinner("start two nodes and deploy functions");
    let subjects = Subjects::start(fleet).await?;
    drop(progress);
    let mut rounds = Vec::new();
    for number in 1..=args.rounds {
        let mut round = Round::default();
        for measure in Measure::ALL {
            let what =
                format!("round {number} of {}: {} at {}", args.rounds, measure.name(), measure.connections());
            let progress = Progress::spinner(what);
            round.push(subjects.measure(measure, args.seconds, machine.cores).await?);
            drop(progress);
            tokio::time::sleep(PAUSE).await;
        }
        rounds.push(round);
    }
    Ok(Report::new(machine, subjects.pins(), args.seconds, subjects.sizes(), &rounds))
}
