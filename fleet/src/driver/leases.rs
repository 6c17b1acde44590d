//! The desk, for leases: slots for machines that the fleet makes itself.

use std::time::Duration;

use osiris_ledger::{BlockId, View, lease::Slot};

use super::{
    answer::ApiError,
    desk::{Desk, unexpected},
    rows,
};
use crate::{
    api,
    node::{
        Query, Reply, Request,
        lease::{LeaseFacts, Want, rule::Phase},
    },
};

type Result<T> = std::result::Result<T, ApiError>;

impl Desk {
    pub(crate) async fn leases(&self) -> Result<api::Leases> {
        match self.ask(Request::Query(Query::Leases)).await? {
            Reply::Leases(facts) => Ok(leases(&self.view(), &facts)),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn want_lease(&self, want: api::LeaseWant) -> Result<api::Leases> {
        let intent = || want.gone.parse::<BlockId>();
        let not_an_id = |error| ApiError::bad_request(format!("`{}` is no intent: {error}.", want.gone));
        let request = match (want.gone.is_empty(), want.vouched) {
            (true, _) => Request::Want(Want::Machine),
            (false, false) => Request::Want(Want::Gone(intent().map_err(not_an_id)?)),
            (false, true) => Request::Retire { intent: intent().map_err(not_an_id)?, timeout_ms: 0 },
        };
        self.ask(request).await?;
        self.leases().await
    }

    pub(crate) async fn limit_leases(&self, limit: api::LeaseLimit) -> Result<api::Written> {
        let api::LeaseLimit { machines, minority, timeout_ms } = limit;
        let reply = self.ask(Request::Spawning { machines, minority, timeout_ms }).await?;
        self.written(reply)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn leases(view: &View, facts: &LeaseFacts) -> api::Leases {
    let (connected, voters) = facts.voters;
    api::Leases {
        machines_max: view.spawning().machines,
        machines_here: facts.machines_here,
        minority: view.spawning().minority,
        voters: voters as u64,
        voters_connected: connected as u64,
        settle_ms: millis(facts.settle),
        expiry_ms: millis(facts.expiry),
        target: facts.target.clone().unwrap_or_default(),
        says: facts.says.clone().unwrap_or_default(),
        slots: view.slots().values().map(|held| slot(view, facts, held)).collect(),
    }
}

fn slot(view: &View, facts: &LeaseFacts, slot: &Slot) -> api::SlotRow {
    let own = facts.own.get(&slot.number);
    let is_live = |id| facts.heard.contains_key(id) || own.is_some_and(|own| own.claim == *id);
    let open: Vec<_> = slot.claims.iter().filter(|claim| !claim.released).collect();
    let state = match (open.iter().any(|claim| is_live(&claim.id)), slot.holder()) {
        _ if open.is_empty() => "free",
        (false, _) => "expired",
        (true, Some(_)) => "held",
        (true, None) => "claimed",
    };
    let first = slot.holder().or(open.first().copied());
    let held = own.filter(|own| own.phase == Phase::Held);
    api::SlotRow {
        slot: slot.number,
        round: slot.round,
        state: state.to_owned(),
        by: match slot.holder() {
            Some(holder) => vec![rows::label(view, &holder.author)],
            None => open.iter().map(|claim| rows::label(view, &claim.author)).collect(),
        },
        here: own.is_some(),
        age_ms: first.and_then(|claim| facts.heard.get(&claim.id)).copied().map_or(0, millis),
        spend: held.and_then(|own| own.spend.clone().err()).unwrap_or_default(),
        machines: slot
            .machines
            .iter()
            .map(|machine| api::MachineRow {
                intent: machine.intent.to_string(),
                round: machine.round,
                by: rows::label(view, &machine.by),
                target: machine.target.clone(),
                functions: machine.functions.clone(),
                counts: machine.counts,
                surplus: machine.surplus,
                device: machine.device.map_or_else(String::new, |device| rows::label(view, &device)),
                doing: facts.machines.get(&machine.intent).copied().unwrap_or_default().to_owned(),
            })
            .collect(),
    }
}
