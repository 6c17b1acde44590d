//! `osiris demo scale`: from a load to a machine and back, with a real fleet and a real Terraform on this machine.
//!
//! What is told comes from the nodes' own interfaces, ten times a second, but for the number of machines: those are
//! counted by their label in the system's table of processes, or in the list of the engine that runs containers.

mod bare;
mod load;
mod race;
mod report;
mod svg;
mod target;
mod watch;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::Script;
use super::fleet::{Fleet, NODES};
use crate::args::{DemoScaleArgs, Fault};
use crate::exit::{Exit, Failure};
use crate::output::Out;

use load::{Load, Tally};
use report::Report;
use target::Target;
use watch::{Event, Watch};

/// The function that is called.
const FUNCTION: &str = "summary";
/// Callers of the crowd. With one call at a time on each node, 16 wait with three replicas, which is more than 12, and
/// 15 with four, which is less than 16.
const CALLERS: usize = 19;
/// Calls that may wait for each replica.
const BACKLOG: u64 = 4;
/// Longest wait for what the policy, a lease or Terraform does next.
const PATIENCE: Duration = Duration::from_secs(90);
/// The load goes on for so long once the backlog is below its mark.
const BELOW: Duration = Duration::from_secs(5);
/// Pause of the callers that go on while the machine goes.
const LIGHT: Duration = Duration::from_millis(200);

/// Shorter than the defaults, so that the demo takes two minutes and not ten.
const TERMS: &str = "[scale]
window = \"2s\"
stagger = \"1s\"
cool-up = \"2s\"
cool-down = \"3s\"
machine-window = \"3s\"
machine-cool = \"20s\"
machine-idle = \"5s\"
";

/// What the demo came to, beside what was watched.
#[derive(Default)]
struct Came {
    bare: Duration,
    crowd: Tally,
    light: Tally,
    /// Who claimed one slot in one round, the winner first.
    race: Vec<String>,
    killed: Option<String>,
}

/// `osiris demo scale`.
pub(super) async fn run(args: &DemoScaleArgs, out: Out) -> Result<Exit, Failure> {
    let terraform = bare::terraform()?;
    let svg = std::path::absolute(&args.svg)
        .map_err(|e| Failure::usage(format!("The file {} has no place: {e}.", args.svg.display())))?;
    let mut fleet = Fleet::new(args.dir.as_deref(), false)?;
    let root = fs::canonicalize(fleet.root())
        .map_err(|e| Failure::failed(format!("The folder {} has no place: {e}.", fleet.root().display())))?;
    let mut script = Script::new();
    let chosen = script.long_step("what a machine is", PATIENCE * 2, choose(args, &root)).await;
    let target = match chosen {
        Ok(target) => Arc::new(target),
        Err(failure) => {
            Report::new(&script, false, &Came::default(), None, None).print(&svg, out)?;
            return Err(failure);
        }
    };
    let (mut came, mut watch) = (Came::default(), None);
    let (played, told_to_end) = match prepare(&mut fleet, &target, &root, &terraform) {
        Err(failure) => (Err(failure), false),
        Ok(()) => tokio::select! {
            played = play(&mut script, &mut fleet, args.fault, &target, &terraform, &mut came, &mut watch) => (played, false),
            () = super::interrupted() => (Err(Failure::failed("The demo was interrupted.")), true),
        },
    };
    if let Some(watch) = &watch {
        watch.stop();
    }
    target.end().await;
    let seen = watch.as_ref().map(|watch: &Watch| watch.seen());
    let report = Report::new(&script, played.is_ok(), &came, seen.as_deref(), Some(&target));
    if let Some(picture) = report.picture() {
        fs::write(&svg, picture).map_err(|e| {
            Failure::failed(format!("The picture cannot be written to {}: {e}.", svg.display()))
        })?;
    }
    report.print(&svg, out)?;
    match played {
        Ok(()) => Ok(Exit::Done),
        Err(failure) if told_to_end => Err(failure),
        Err(failure) => Err(fleet.explain(failure)),
    }
}

async fn choose(args: &DemoScaleArgs, root: &Path) -> Result<(Target, String), Failure> {
    let (target, why) = Target::choose(args, root).await?;
    let says = match &target {
        Target::Process(_) => format!("a process of this machine; {why}"),
        Target::Docker(_) => format!("a container; {why}"),
    };
    Ok((target, says))
}

/// The module, the place for machines, and what the nodes are told of both.
fn prepare(fleet: &mut Fleet, target: &Target, root: &Path, terraform: &Path) -> Result<(), Failure> {
    let module = root.join("module");
    target.prepare(&module)?;
    fleet.listen_at(target.mesh());
    for number in 1..=NODES {
        let config = format!("{TERMS}\n{}", target.config(&module, terraform));
        // The first takes the load, and makes nothing: it stays when a maker is killed.
        fleet.configure(number, config, u32::from(number > 1));
    }
    Ok(())
}

async fn play(
    script: &mut Script,
    fleet: &mut Fleet,
    fault: Option<Fault>,
    target: &Arc<Target>,
    terraform: &Path,
    came: &mut Came,
    watching: &mut Option<Watch>,
) -> Result<(), Failure> {
    script.step("found a fleet", fleet.found()).await?;
    script.step("join two nodes by ticket", fleet.join(NODES)).await?;
    script.step("two spawners, one machine", allow(fleet)).await?;
    // Without a maker that was killed, two members are left to serve.
    let least = if fault.is_some() { NODES - 1 } else { NODES };
    script.step("deploy summary, up to 4 replicas", deploy(fleet, least)).await?;
    // A run with a fault is about what follows from that alone.
    if fault.is_none() {
        script.step("one machine by hand", by_hand(fleet, terraform, target, came)).await?;
        let race = race::run(fleet, target, &mut came.race);
        script.long_step("two members claim at once", PATIENCE * race::ATTEMPTS, race).await?;
    }
    let http = fleet.nodes()[0].http();
    let (body, took) = load::heavy(http).await?;
    let sockets = fleet.nodes().iter().map(|node| node.socket.clone()).collect();
    let root = fs::canonicalize(fleet.root()).unwrap_or_else(|_| fleet.root().to_owned());
    let watch = watching.insert(Watch::start(root, sockets, Arc::clone(target), BACKLOG));
    let load = Load::start(&[http], CALLERS, &body, Duration::ZERO);
    let up = script
        .long_step("a load makes a machine", PATIENCE * 4, grow(watch, fleet, fault, &mut came.killed, took))
        .await;
    if up.is_ok() {
        tokio::time::sleep(BELOW).await;
    }
    came.crowd = load.end().await;
    up?;
    watch.note(Event::LoadEnded);
    let left: Vec<_> =
        fleet.nodes().iter().filter(|node| node.pid().is_some()).map(super::fleet::Node::http).collect();
    let light = Load::start(&left, 1, &Load::light(), LIGHT);
    let down = script.long_step("its end takes it away", PATIENCE * 2, shrink(watch)).await;
    came.light = light.end().await;
    down?;
    script.step("nothing is left, and no call failed", check(watch, target, came)).await
}

/// Nodes 2 and 3 may make machines, of which the fleet may have one; all three vote.
async fn allow(fleet: &Fleet) -> Result<((), String), Failure> {
    let folder = fleet.folder(1);
    for node in ["node-2", "node-3"] {
        fleet.osiris(&folder, &["role", "grant", node, "spawner", "voter"]).await?;
    }
    fleet.osiris(&folder, &["ledger", "voters", "--set", "node-1,node-2,node-3"]).await?;
    fleet.osiris(&folder, &["lease", "limit", "--machines", "1"]).await?;
    Ok(((), "node-2 and node-3; three voters, of whom two have to agree".to_owned()))
}

async fn deploy(fleet: &Fleet, least: usize) -> Result<((), String), Failure> {
    let (component, manifest) = (fleet.root().join("summary.wasm"), fleet.root().join("summary.toml"));
    let text = format!(
        "name = \"{FUNCTION}\"\ncomponent = \"summary.wasm\"\nreplicas = {NODES}\n\n[limits]\nconcurrency = 1\n\n[scale]\nmin = {least}\nmax = {}\nbacklog = {BACKLOG}\nidle_s = 3\n",
        NODES + 1
    );
    let written = fs::write(&component, osiris_examples::SUMMARY).and_then(|()| fs::write(&manifest, text));
    written.map_err(|e| Failure::failed(format!("The function cannot be written: {e}.")))?;
    let manifest = manifest.display().to_string();
    fleet.osiris(&fleet.folder(1), &["deploy", "--manifest", &manifest]).await?;
    // It starts with three, and without calls it may have come down to the least already.
    fleet.until_served(FUNCTION, 1, least as u64).await?;
    Ok((
        (),
        format!("at least {least}; one call at a time on each node; {BACKLOG} may wait for each replica"),
    ))
}

async fn by_hand(
    fleet: &Fleet,
    terraform: &Path,
    target: &Target,
    came: &mut Came,
) -> Result<((), String), Failure> {
    came.bare = bare::measure(fleet, terraform, target).await?;
    let left = target.left().await?;
    if !left.is_empty() {
        return Err(Failure::failed(format!("{left:?} is left of a machine that was destroyed.")));
    }
    let said = format!("init, apply, start and join: {:.2} s", came.bare.as_secs_f64());
    Ok(((), said))
}

/// Until the machine serves and the backlog is below its mark.
async fn grow(
    watch: &Watch,
    fleet: &mut Fleet,
    fault: Option<Fault>,
    killed: &mut Option<String>,
    took: Duration,
) -> Result<((), String), Failure> {
    watch.until(Event::Claim, PATIENCE).await?;
    let moment = match fault {
        Some(Fault::Before) => Some(Event::Claim),
        Some(Fault::During) => Some(Event::Apply),
        Some(Fault::After) => Some(Event::Serving),
        None => None,
    };
    if let Some(moment) = moment {
        watch.until(moment, PATIENCE).await?;
        *killed = Some(kill_maker(watch, fleet)?);
        watch.note(Event::Killed);
    }
    watch.until(Event::Mark, PATIENCE).await?;
    watch.until(Event::Serving, PATIENCE * 2).await?;
    watch.until(Event::Below, PATIENCE).await?;
    let seen = watch.seen();
    let said = format!(
        "{CALLERS} callers, {} ms a call when alone; made by {}{}",
        took.as_millis(),
        seen.winners.values().last().map_or("nobody", String::as_str),
        killed.as_ref().map_or(String::new(), |killed| format!(", after {killed} was killed")),
    );
    Ok(((), said))
}

/// SIGKILL for the member whose claim is, or was, the first.
fn kill_maker(watch: &Watch, fleet: &mut Fleet) -> Result<String, Failure> {
    let maker = {
        let seen = watch.seen();
        let winner = seen.winners.values().next().cloned();
        winner.or_else(|| seen.claims.iter().next().map(|(_, by)| by.clone()))
    };
    let maker = maker.ok_or_else(|| Failure::failed("Nobody is known to have claimed a slot."))?;
    let which = fleet.nodes().iter().position(|node| node.label() == maker);
    let which = which.ok_or_else(|| Failure::failed(format!("{maker} is no node of the demo.")))?;
    fleet.kill(which)?;
    Ok(maker)
}

/// Until the machine is gone.
async fn shrink(watch: &Watch) -> Result<((), String), Failure> {
    watch.until(Event::Going, PATIENCE).await?;
    let gone = watch.until(Event::Destroyed, PATIENCE).await?;
    let ended = watch.seen().at(Event::LoadEnded).unwrap_or_default();
    Ok(((), format!("{:.1} s after the load ended", gone - ended)))
}

/// By whoever runs the machines, and by what callers saw.
async fn check(watch: &Watch, target: &Target, came: &Came) -> Result<((), String), Failure> {
    let left = target.left().await?;
    if !left.is_empty() {
        return Err(Failure::failed(format!("{left:?} is left of machines.")));
    }
    let most = watch.seen().machines_max;
    if most != 1 {
        return Err(Failure::failed(format!("{most} machines ran at one time; one was allowed.")));
    }
    let light = &came.light;
    if light.failed > 0 || light.made == 0 {
        return Err(Failure::failed(format!(
            "{} of {} calls failed while the machine went: {}",
            light.failed,
            light.made,
            light.said.join("; ")
        )));
    }
    let crowd = &came.crowd;
    if crowd.failed > 0 && came.killed.is_none() {
        return Err(Failure::failed(format!(
            "{} of {} calls of the load failed: {}",
            crowd.failed,
            crowd.made,
            crowd.said.join("; ")
        )));
    }
    let said =
        format!("at most {most} machine at a time, 0 now; {} calls while it went, 0 failed", light.made);
    Ok(((), said))
}
