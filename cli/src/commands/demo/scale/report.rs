//! What the demo tells: its steps, when what happened, and what of that the fleet adds to Terraform.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::super::{Script, Step, step_rows};
use super::target::Target;
use super::watch::{Event, Sample, Seen};
use super::{BACKLOG, Came, load::Tally, svg};
use crate::exit::Failure;
use crate::output::table::{self, Cell};
use crate::output::{Format, Out};

/// What the fleet may add to Terraform, start and join, beside the settle window.
const AIM: Duration = Duration::from_secs(1);

#[derive(Debug, Serialize)]
struct Moment {
    event: Event,
    /// Seconds since more waited than the mark.
    at: f64,
}

#[derive(Debug, Serialize)]
struct Phase {
    phase: &'static str,
    seconds: f64,
}

/// What the fleet took, beside the same without a fleet.
#[derive(Debug, Serialize)]
struct Beside {
    /// From the mark until the machine serves.
    mark_s: f64,
    /// From the claim to the end of Terraform.
    claim_s: f64,
    bare_s: f64,
    settle_s: f64,
    /// What both are more than the settle window and a run by hand.
    mark_over_s: f64,
    claim_over_s: f64,
    met: bool,
}

#[derive(Serialize)]
pub(super) struct Report<'a> {
    held: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'static str>,
    steps: &'a [Step],
    timeline: Vec<Moment>,
    phases: Vec<Phase>,
    #[serde(skip_serializing_if = "Option::is_none")]
    beside: Option<Beside>,
    /// Who asked for a machine at the same moment, before the load: the winner first.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    at_once: &'a [String],
    claims: Vec<(u64, String, bool)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    killed: Option<&'a str>,
    machines_max: u64,
    load: &'a Tally,
    while_it_went: &'a Tally,
    /// How the number of machines changed, by whoever runs them: seconds since the mark, and how many.
    machines: Vec<(f64, u64)>,
    #[serde(skip)]
    counted_by: &'static str,
    #[serde(skip)]
    samples: Vec<Sample>,
    #[serde(skip)]
    zero: f64,
}

impl<'a> Report<'a> {
    pub(super) fn new(
        script: &'a Script,
        held: bool,
        came: &'a Came,
        seen: Option<&Seen>,
        target: Option<&Target>,
    ) -> Self {
        let none = Seen::default();
        let seen = seen.unwrap_or(&none);
        let zero = seen.at(Event::Mark).unwrap_or(0.0);
        let mut timeline: Vec<_> =
            seen.events.iter().map(|(event, at)| Moment { event: *event, at: at - zero }).collect();
        timeline.sort_by(|a, b| a.at.total_cmp(&b.at));
        let won = |round: &u64, by: &String| seen.winners.get(round) == Some(by);
        let claims = seen.claims.iter().map(|(round, by)| (*round, by.clone(), won(round, by))).collect();
        let mut machines: Vec<(f64, u64)> = Vec::new();
        for sample in &seen.samples {
            if machines.last().is_none_or(|(_, count)| *count != sample.machines) {
                machines.push((sample.at - zero, sample.machines));
            }
        }
        Self {
            held,
            target: target.map(Target::name),
            counted_by: target.map_or("", Target::counted_by),
            steps: &script.steps,
            timeline,
            phases: phases(&seen.events),
            beside: beside(seen, came.bare).filter(|_| came.killed.is_none()),
            at_once: &came.race,
            claims,
            killed: came.killed.as_deref(),
            machines_max: seen.machines_max,
            load: &came.crowd,
            while_it_went: &came.light,
            machines,
            samples: seen.samples.clone(),
            zero,
        }
    }

    /// The picture, where there is anything to draw.
    pub(super) fn picture(&self) -> Option<String> {
        let events: Vec<_> = self.timeline.iter().map(|m| (m.event, m.at + self.zero)).collect();
        (!events.is_empty()).then(|| svg::draw(&self.samples, &events, self.zero, BACKLOG))
    }

    pub(super) fn print(&self, picture: &Path, out: Out) -> Result<(), Failure> {
        if out.format != Format::Table {
            return out.document(self);
        }
        out.raw(table::render(&["", "STEP", "TIME", "RESULT"], step_rows(self.steps), out).as_bytes())?;
        if self.timeline.is_empty() {
            return Ok(());
        }
        let row = |m: &Moment| vec![Cell::right(format!("{:.1} s", m.at)), Cell::new(m.event.says())];
        let rows = self.timeline.iter().map(row).collect();
        out.raw(b"\n")?;
        out.raw(table::render(&["SINCE MARK", "WHAT"], rows, out).as_bytes())?;
        let row = |p: &Phase| vec![Cell::right(format!("{:.1} s", p.seconds)), Cell::new(p.phase)];
        let rows = self.phases.iter().map(row).collect();
        out.raw(b"\n")?;
        out.raw(table::render(&["TOOK", "PHASE"], rows, out).as_bytes())?;
        out.raw(self.words(picture).as_bytes())
    }

    fn words(&self, picture: &Path) -> String {
        let mut words = String::from("\n");
        let mut say = |text: String| {
            words.push_str(&text);
            words.push('\n');
        };
        if let Some(beside) = &self.beside {
            let Beside { mark_s, claim_s, bare_s, settle_s, mark_over_s, claim_over_s, met } = beside;
            let met = if *met { "met" } else { "missed" };
            say(format!("by hand {bare_s:.1} s; the settle window is {settle_s:.1} s"));
            say(format!(
                "from the mark until it serves {mark_s:.1} s, over both {mark_over_s:.1} s (aim: at most {} s, {met})",
                AIM.as_secs()
            ));
            say(format!(
                "from the claim to the end of Terraform {claim_s:.1} s, over both {claim_over_s:.1} s"
            ));
        }
        if let [winner, losers @ ..] = self.at_once {
            let losers = losers.join(", ");
            say(format!("claimed at once, before the load: {winner} won, {losers} lost and released"));
        }
        let claims = self.claims.iter().map(|(round, by, won)| {
            format!("round {round}: {by} {}", if *won { "won" } else { "did not win" })
        });
        say(format!("claims: {}", claims.collect::<Vec<_>>().join(", ")));
        let machines = self.machines.iter().map(|(at, count)| format!("{count} from {at:.1} s"));
        let machines = machines.collect::<Vec<_>>().join(", ");
        say(format!("machines, by {}: {machines}", self.counted_by));
        let Tally { made, failed, relayed, slowest_ms, .. } = self.load;
        say(format!(
            "load: {made} calls, {failed} failed, {relayed} run by other nodes, slowest {slowest_ms} ms"
        ));
        let Tally { made, failed, slowest_ms, .. } = self.while_it_went;
        say(format!("while the machine went: {made} calls, {failed} failed, slowest {slowest_ms} ms"));
        say(format!("picture: {}", picture.display()));
        words
    }
}

/// What lies between two moments, where both were seen in this order.
fn phases(events: &BTreeMap<Event, f64>) -> Vec<Phase> {
    let parts = [
        ("the policy sees that it lasts", Event::Mark, Event::Claim),
        ("the claim waits for others", Event::Claim, Event::Won),
        ("intent, and Terraform is begun", Event::Won, Event::Terraform),
        ("Terraform: init", Event::Terraform, Event::Apply),
        ("Terraform: apply, which is join and start", Event::Apply, Event::Made),
        ("one replica more is decided", Event::NodeUp, Event::Decided),
        ("it is ready on the machine", Event::Decided, Event::Serving),
        ("the machine has nothing to do", Event::LoadEnded, Event::Going),
        ("it drains, leaves, and is destroyed", Event::Going, Event::Destroyed),
    ];
    let both = |(phase, from, to): (&'static str, Event, Event)| {
        let (from, to) = (events.get(&from)?, events.get(&to)?);
        (to >= from).then_some(Phase { phase, seconds: to - from })
    };
    parts.into_iter().filter_map(both).collect()
}

fn beside(seen: &Seen, bare: Duration) -> Option<Beside> {
    let mark_s = seen.at(Event::Serving)? - seen.at(Event::Mark)?;
    let claim_s = seen.at(Event::Made)? - seen.at(Event::Claim)?;
    let (bare_s, settle_s) = (bare.as_secs_f64(), seen.settle_ms as f64 / 1e3);
    let [mark_over_s, claim_over_s] = [mark_s, claim_s].map(|took| took - bare_s - settle_s);
    let met = mark_over_s <= AIM.as_secs_f64();
    Some(Beside { mark_s, claim_s, bare_s, settle_s, mark_over_s, claim_over_s, met })
}
