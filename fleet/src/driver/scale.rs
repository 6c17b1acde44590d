//! The desk, for replicas: their bounds, members' labels, and why there are as many as there are.

use std::time::Duration;

use osiris_ledger::{Mono, limits, op::Range};

use super::{
    answer::ApiError,
    desk::{Desk, unexpected},
    people,
};
use crate::{
    api,
    node::{
        Query, Reply, Request,
        scale::{Decided, FunctionScale},
    },
    policy::{Decision, Inputs, Terms, Times},
};

type Result<T> = std::result::Result<T, ApiError>;

impl Desk {
    /// `trial` are bounds that each function by itself is taken to have; none: those that it has.
    pub(crate) async fn scale(&self, trial: Option<(u32, u32)>) -> Result<api::Scale> {
        if let Some((min, max)) = trial.filter(|(min, max)| min > max) {
            let message = format!("At least {min} replicas cannot be at most {max}.");
            return Err(ApiError::bad_request(message));
        }
        match self.ask(Request::Query(Query::Scale(trial))).await? {
            Reply::Scale(facts) => Ok(api::Scale {
                cpu_percent: facts.machine.map(|load| load.cpu),
                memory_percent: facts.machine.map(|load| load.memory),
                fleet_max: self.view().scaling().fleet_max(),
                terms: terms(&facts.terms),
                functions: facts.functions.iter().map(function).collect(),
                decisions: facts.decided.iter().map(|(age, decided)| decision(*age, decided)).collect(),
            }),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn bound(&self, bounds: api::ScaleBounds) -> Result<api::Written> {
        let api::ScaleBounds { name, min, max, timeout_ms } = bounds;
        let range = match (min, max) {
            (None, None) => None,
            (Some(_), None) => {
                return Err(ApiError::bad_request("`min` is given without `max`; give both."));
            }
            (min, Some(max)) => Some(Range { min: min.unwrap_or(u32::from(name.is_some())), max }),
        };
        let reply = self.ask(Request::Bound { name, range, timeout_ms }).await?;
        self.written(reply)
    }

    pub(crate) async fn label(&self, labels: api::MemberLabels) -> Result<api::Written> {
        let device = people::device(&labels.device)?;
        let (timeout_ms, mut labels) = (labels.timeout_ms, labels.labels);
        labels.sort_unstable();
        labels.dedup();
        let reply = self.ask(Request::Label { device, labels, timeout_ms }).await?;
        self.written(reply)
    }

    pub(crate) async fn budget(&self, budget: api::MemberBudget) -> Result<api::Written> {
        let device = people::device(&budget.device)?;
        let api::MemberBudget { blocks, timeout_ms, .. } = budget;
        if !(1..=limits::BUDGET_BLOCKS_MAX).contains(&blocks) {
            let message = format!("A member may write 1 to {} blocks.", limits::BUDGET_BLOCKS_MAX);
            return Err(ApiError::bad_request(message));
        }
        let reply = self.ask(Request::Budget { device, blocks, timeout_ms }).await?;
        self.written(reply)
    }
}

fn terms(terms: &Terms) -> api::ScaleTerms {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    api::ScaleTerms {
        window_ms: ms(terms.window),
        stagger_ms: ms(terms.stagger),
        age_ms: ms(terms.age),
        cool_up_ms: ms(terms.cool_up),
        cool_down_ms: ms(terms.cool_down),
        start_max_ms: ms(terms.start_max),
        cpu_high: terms.cpu_high,
        memory_high: terms.memory_high,
        use_low: terms.use_low,
        machine_window_ms: ms(terms.machine_window),
        machine_cool_ms: ms(terms.machine_cool),
        machine_idle_ms: ms(terms.machine_idle),
        flap_ms: ms(terms.flap),
    }
}

fn function(now: &FunctionScale) -> api::ScaleRow {
    let (mut act, mut to) = outcome(&now.inputs, now.decision);
    let (mut rule, mut says) = (now.decision.rule.name().to_owned(), now.decision.rule.says().to_owned());
    if now.inputs.count != now.count {
        // What bounds ask for comes before what is decided within them.
        (act, to, rule) = ("bounds".to_owned(), now.inputs.count, "bounds".to_owned());
        says = format!(
            "bounds come first: it has {} replica(s) as it is, and with these begins with {}",
            now.count, now.inputs.count
        );
    }
    api::ScaleRow {
        name: now.name.clone(),
        bounded: now.bounded,
        decides: now.decides,
        inputs: inputs(&now.inputs, &now.times, None),
        act,
        to,
        rule,
        says,
    }
}

fn decision(age: Duration, decided: &Decided) -> api::ScaleDecision {
    let (act, to) = outcome(&decided.inputs, decided.decision);
    api::ScaleDecision {
        name: decided.name.clone(),
        age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
        inputs: inputs(&decided.inputs, &decided.times, Some(decided.at)),
        act,
        to,
        rule: decided.decision.rule.name().to_owned(),
        says: decided.decision.rule.says().to_owned(),
        failed: decided.failed.clone().unwrap_or_default(),
    }
}

/// What is done, and how many replicas there are after it.
fn outcome(inputs: &Inputs, decision: Decision) -> (String, u32) {
    let act = decision.act.map_or("none", |act| act.name());
    (act.to_owned(), decision.act.and_then(|act| act.count()).unwrap_or(inputs.count))
}

/// `at` is when it was decided; none: now, of which no clock is known here.
fn inputs(inputs: &Inputs, times: &Times, at: Option<Mono>) -> api::ScaleInputs {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let wished = at.zip(inputs.machines.wished).map(|(at, wished)| ms(at.since(wished)));
    api::ScaleInputs {
        fleet_max: inputs.fleet_max,
        concurrency_here: inputs.here.concurrency,
        concurrency_max_here: inputs.here.concurrency_max,
        cpu_here: inputs.here.cpu,
        memory_here: inputs.here.memory,
        may_claim: inputs.machines.may_claim,
        wished_ms: wished,
        spare_slot: inputs.machines.spare,
        waiting_ms: ms(times.waiting),
        pressed_ms: ms(times.pressed),
        slack_ms: times.slack.map(ms),
        quiet_ms: times.quiet.map(ms),
        unchanged_ms: ms(times.unchanged),
        patience: times.patience,
        min: inputs.target.min,
        max: inputs.target.max,
        replicas: inputs.count,
        ready: inputs.ready,
        candidates: inputs.candidates,
        free: inputs.free,
        backlog: inputs.backlog,
        running: inputs.running,
        per_replica: inputs.per_replica,
        target_backlog: inputs.target.backlog,
        idle_s: inputs.target.idle.as_secs(),
        others: inputs.others,
        rank: inputs.rank,
        backlog_here: inputs.here.backlog,
    }
}
