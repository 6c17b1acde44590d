//! `osiris scale`: how many replicas functions may have, and why they have as many as they have.

use osiris_fleet::api::{Scale, ScaleBounds, ScaleDecision, ScaleInputs, ScaleRow};

use super::seen;
use crate::args::{BoundsArgs, ScaleArgs, ScaleCommand};
use crate::backend::{Backend, millis};
use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::output::table::{self, Cell, Tone};
use crate::output::{Format, Out, human};

pub(crate) async fn run(args: &ScaleArgs, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    if let (Some(min), Some(max)) = (args.bounds.min, args.bounds.max)
        && min > max
    {
        return Err(Failure::usage(format!("At least {min} replicas cannot be at most {max}."))
            .next("give a --min that is no more than --max"));
    }
    match &args.command {
        Some(ScaleCommand::Explain { name }) => explain(name.as_deref(), settings, out).await,
        None if args.bounds.dry_run => dry_run(&args.bounds, settings, out).await,
        None => bound(&args.bounds, settings, out).await,
    }
}

async fn bound(args: &BoundsArgs, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    if args.max.is_none() && !args.reset {
        return Err(Failure::usage("Nothing is said about the replicas.").next(match args.all {
            true => "give --max N or --reset",
            false => "give --max N, with --min N for the least; --reset; or --dry-run",
        }));
    }
    let backend = Backend::open_within(settings, args.wait.timeout).await?;
    let offline = backend.is_offline();
    let min = args.name.as_ref().and_then(|_| args.max.map(|_| args.min.unwrap_or(1)));
    let name = args.name.clone();
    let says = says(name.as_deref(), min, args.max);
    let bounds = ScaleBounds { name, min, max: args.max, timeout_ms: millis(args.wait.timeout) };
    let written = backend.bound(bounds).await?;
    out.line(&written, &says)?;
    Ok(seen(&written, offline, out))
}

/// What was written, in a sentence.
fn says(name: Option<&str>, min: Option<u32>, max: Option<u32>) -> String {
    let replicas = |count: u32| human::count(u64::from(count), "replica");
    match (name, min, max) {
        (Some(name), Some(min), Some(max)) => format!("{name} has {min} to {} from now on", replicas(max)),
        (Some(name), ..) => format!("the manifest of {name} says how many replicas it has"),
        (None, _, Some(max)) => format!("all scaled functions together have at most {}", replicas(max)),
        (None, ..) => "all scaled functions together have as many replicas as their bounds allow".to_owned(),
    }
}

/// What the node knows of one function, or of all.
async fn known(
    name: Option<&str>,
    trial: Option<(u32, u32)>,
    settings: &Settings,
) -> Result<(Scale, bool), Failure> {
    let mut backend = Backend::open_to_read(settings).await?;
    let offline = backend.is_offline();
    let mut scale = backend.scale(trial).await?;
    if let Some(name) = name {
        scale.functions.retain(|row| row.name == name);
        scale.decisions.retain(|decision| decision.name == name);
        if scale.functions.is_empty() && !backend.functions().await?.iter().any(|row| row.name == name) {
            let message = format!("There is no function `{name}`.");
            return Err(Failure::new(Exit::NotFound, message).next("osiris ls lists the functions"));
        }
        if scale.functions.is_empty() && offline {
            let message = format!("No node runs here, so nothing is known of the replicas of `{name}`.");
            return Err(Failure::failed(message).next("osiris up starts one"));
        }
        if scale.functions.is_empty() {
            return Err(Failure::new(Exit::NotFound, format!("No function `{name}` is scaled."))
                .next(format!("osiris scale {name} --max N scales it; so does `scale` in its osiris.toml")));
        }
    }
    Ok((scale, offline))
}

async fn dry_run(args: &BoundsArgs, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    let trial = args.max.map(|max| (args.min.unwrap_or(1), max));
    let (scale, offline) = known(args.name.as_deref(), trial, settings).await?;
    let Some(row) = scale.functions.first() else { return Ok(Exit::Done) };
    let inputs = &row.inputs;
    let whose = match (trial, row.bounded) {
        (Some(_), _) => ", which nobody gave it yet",
        (None, true) => ", by an operator",
        (None, false) => "",
    };
    let bounds = format!("{} to {}{whose}", inputs.min, inputs.max);
    let facts = vec![
        ("function", Cell::new(&row.name)),
        ("bounds", Cell::new(bounds)),
        ("replicas", Cell::new(replicas(inputs))),
        ("calls", Cell::new(calls(inputs))),
        ("for how long", Cell::new(lasts(inputs))),
        ("this node", Cell::new(here(inputs))),
        ("would do", Cell::new(outcome(&row.act, row.to))),
        ("because", Cell::new(&row.says)),
    ];
    out.facts(row, facts)?;
    note(row, offline, out);
    Ok(Exit::Done)
}

fn note(row: &ScaleRow, offline: bool, out: Out) {
    match (offline, row.decides) {
        (true, _) => out.note("no node runs here, so nothing is measured"),
        (false, false) => out.note("this node is not among those that decide about it"),
        (false, true) => {}
    }
}

async fn explain(name: Option<&str>, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    let (scale, offline) = known(name, None, settings).await?;
    if out.format != Format::Table {
        out.document(&scale)?;
        return Ok(Exit::Done);
    }
    if scale.functions.is_empty() {
        out.note(if offline { "no node runs here, so nothing is measured" } else { "no function is scaled" });
        return Ok(Exit::Done);
    }
    let headers = ["FUNCTION", "BOUNDS", "REPLICAS", "CALLS", "NOW", "BECAUSE"];
    let rows = scale.functions.iter().map(row).collect();
    out.raw(table::render(&headers, rows, out).as_bytes())?;
    if !scale.decisions.is_empty() {
        let headers = ["AGO", "FUNCTION", "REPLICAS", "CALLS", "DID", "BECAUSE"];
        let rows = scale.decisions.iter().map(decision).collect();
        out.raw(b"\n")?;
        out.raw(table::render(&headers, rows, out).as_bytes())?;
    }
    notes(&scale, offline).iter().for_each(|note| out.note(note));
    Ok(Exit::Done)
}

fn row(row: &ScaleRow) -> Vec<Cell> {
    let inputs = &row.inputs;
    vec![
        Cell::new(&row.name),
        Cell::new(format!("{}-{}{}", inputs.min, inputs.max, if row.bounded { "!" } else { "" })),
        Cell::new(replicas(inputs)),
        Cell::new(calls(inputs)),
        Cell::new(outcome(&row.act, row.to)),
        Cell::dim(&row.says),
    ]
}

fn decision(decision: &ScaleDecision) -> Vec<Cell> {
    let did = outcome(&decision.act, decision.to);
    let did = match decision.failed.is_empty() {
        true => Cell::new(did),
        false => Cell::new(format!("{did}: {}", decision.failed)).tone(Tone::Warning),
    };
    vec![
        Cell::new(human::seconds(decision.age_ms / 1_000)),
        Cell::new(&decision.name),
        Cell::new(replicas(&decision.inputs)),
        Cell::new(calls(&decision.inputs)),
        did,
        Cell::dim(&decision.says),
    ]
}

fn replicas(inputs: &ScaleInputs) -> String {
    format!("{} of {} ready, {} could", inputs.ready, inputs.replicas, inputs.candidates)
}

fn calls(inputs: &ScaleInputs) -> String {
    format!("{} wait, {} run", inputs.backlog, inputs.running)
}

/// For how long what counts has lasted.
fn lasts(inputs: &ScaleInputs) -> String {
    let seconds = |ms: u64| human::seconds(ms / 1_000);
    let mut lasts = vec![format!("unchanged {}", seconds(inputs.unchanged_ms))];
    let more = [("more needed", inputs.pressed_ms), ("something waits", inputs.waiting_ms)];
    lasts.extend(more.iter().filter(|(_, ms)| *ms > 0).map(|(what, ms)| format!("{what} {}", seconds(*ms))));
    let fewer = [("one less would do", inputs.slack_ms), ("not called", inputs.quiet_ms)];
    lasts.extend(fewer.iter().filter_map(|(what, ms)| ms.map(|ms| format!("{what} {}", seconds(ms)))));
    lasts.join(", ")
}

/// What the node that is asked has to do with it.
fn here(inputs: &ScaleInputs) -> String {
    let percent = |name: &str, used: Option<u32>| used.map(|used| format!("{used} % of its {name}"));
    let side_by_side = match inputs.concurrency_here {
        0 => "does not serve it".to_owned(),
        now => format!("{now} of {} side by side", inputs.concurrency_max_here),
    };
    let busy = [percent("processors", inputs.cpu_here), percent("memory", inputs.memory_here)];
    let claims = inputs.may_claim.then(|| "may claim a machine".to_owned());
    let all = [Some(side_by_side)].into_iter().chain(busy).chain([claims]).flatten();
    all.collect::<Vec<_>>().join(", ")
}

fn outcome(act: &str, to: u32) -> String {
    match act {
        "none" => "nothing".to_owned(),
        "concurrency" => "more calls side by side here".to_owned(),
        "claim-ahead" => "a claim ahead of one more machine".to_owned(),
        "claim-machine" => "one more machine".to_owned(),
        "drain-machine" => "one machine less".to_owned(),
        "replica-here" => format!("{to}, one more of them here"),
        _ => to.to_string(),
    }
}

fn notes(scale: &Scale, offline: bool) -> Vec<String> {
    let mut notes = Vec::new();
    if offline {
        notes.push("no node runs here, so nothing is measured".to_owned());
    }
    if let (Some(cpu), Some(memory)) = (scale.cpu_percent, scale.memory_percent) {
        notes.push(format!("this machine: {cpu} % of its processors, {memory} % of its memory"));
    }
    if let Some(max) = scale.fleet_max {
        notes.push(format!(
            "all scaled functions together: at most {}",
            human::count(u64::from(max), "replica")
        ));
    }
    let others: Vec<_> =
        scale.functions.iter().filter(|row| !row.decides).map(|row| row.name.clone()).collect();
    if !others.is_empty() && !offline {
        notes.push(format!("other members decide about {}", human::list(&others)));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_a_sentence() {
        assert_eq!(says(Some("a"), Some(0), Some(1)), "a has 0 to 1 replica from now on");
        assert_eq!(says(Some("a"), None, None), "the manifest of a says how many replicas it has");
        assert_eq!(says(None, None, Some(2)), "all scaled functions together have at most 2 replicas");
        let mut inputs = ScaleInputs { unchanged_ms: 90_000, ..ScaleInputs::default() };
        assert_eq!(
            (lasts(&inputs), here(&inputs)),
            ("unchanged 1 min 30 s".into(), "does not serve it".into())
        );
        (inputs.pressed_ms, inputs.slack_ms, inputs.may_claim) = (2_000, Some(3_000), true);
        (inputs.concurrency_here, inputs.concurrency_max_here, inputs.cpu_here) = (2, 8, Some(40));
        assert_eq!(lasts(&inputs), "unchanged 1 min 30 s, more needed 2 s, one less would do 3 s");
        assert_eq!(here(&inputs), "2 of 8 side by side, 40 % of its processors, may claim a machine");
        assert_eq!(outcome("retire-replica", 2), "2");
        assert_eq!(outcome("replica-here", 2), "2, one more of them here");
    }
}
