//! What can be said of scaling: the last decisions, and what would be decided now.

use std::time::Duration;

use osiris_ledger::{Mono, Now};

use super::{MachineLoad, Node, wanted_count};
use crate::policy::{Decision, Inputs, Terms, Times, policy};

/// A decision that something was to be done.
#[derive(Clone, Debug)]
pub struct Decided {
    /// When.
    pub at: Mono,
    /// The function.
    pub name: String,
    /// What it was made of.
    pub inputs: Inputs,
    /// For how long it had lasted.
    pub times: Times,
    /// What was decided, and by which rule.
    pub decision: Decision,
    /// Why it could not be done.
    pub failed: Option<String>,
}

/// A scaled function at this moment.
#[derive(Clone, Debug)]
pub struct FunctionScale {
    /// The function.
    pub name: String,
    /// Replicas that it is to have as the ledger stands; with bounds on trial these may ask for another number.
    pub count: u32,
    /// What is measured.
    pub inputs: Inputs,
    /// For how long it has lasted.
    pub times: Times,
    /// What would be decided now, and by which rule.
    pub decision: Decision,
    /// Whether this node is among those that decide about it.
    pub decides: bool,
    /// Whether an operator gave it bounds, in place of the manifest's.
    pub bounded: bool,
}

/// Scaling as this node knows it, beside the view.
#[derive(Clone, Debug, Default)]
pub struct ScaleFacts {
    /// Every scaled function whose manifest is known here, by name.
    pub functions: Vec<FunctionScale>,
    /// What this process decided to do, the last in front, each with its age.
    pub decided: Vec<(Duration, Decided)>,
    /// The thresholds.
    pub terms: Terms,
    /// How busy this machine is; none: not measured.
    pub machine: Option<MachineLoad>,
}

impl Node {
    /// Scaling as this node knows it. Nothing is changed by asking. With bounds on `trial`, the least and the most, of
    /// each function by itself as if it had these.
    pub fn scale_facts(&mut self, now: Now, trial: Option<(u32, u32)>) -> ScaleFacts {
        let known = self.scaled(now, None);
        let tried = trial.is_some().then(|| self.scaled(now, trial));
        let totals = self.telemetry.totals(now);
        let mut functions = Vec::new();
        for one in tried.as_ref().unwrap_or(&known) {
            let name = one.function.name.clone();
            let manifest = self.functions.manifest(&one.newest.manifest);
            let count = manifest.and_then(|manifest| wanted_count(&self.view, &one.function, manifest));
            let count = count.unwrap_or_else(|| u32::try_from(one.candidates.len()).unwrap_or(u32::MAX));
            let rank = one.candidates.iter().position(|member| *member == self.me);
            let decides = self.decides_as(now, one, rank).is_some() && self.looks_after_functions();
            let busy = self.busy(now, one, &totals);
            let inputs = self.inputs(now, one, &known, &totals, &busy, rank.unwrap_or(one.candidates.len()));
            let mut state = self.scale.states.get(&name).cloned().unwrap_or_default();
            let decision = policy(now.mono, &self.scale.terms, &inputs, &mut state);
            let bounded = self.view.scaling().bounds(&name).is_some();
            let times = state.times(now.mono);
            functions.push(FunctionScale { name, count, inputs, times, decision, decides, bounded });
        }
        let decided = self.scale.decisions.iter().rev();
        let decided = decided.map(|decided| (now.mono.since(decided.at), decided.clone())).collect();
        ScaleFacts { functions, decided, terms: self.scale.terms, machine: self.scale.machine }
    }
}
