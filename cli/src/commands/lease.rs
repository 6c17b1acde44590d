//! `osiris lease`: who may make new machines, and which there are.

use osiris_fleet::api::{LeaseLimit, Leases, MachineRow, SlotRow};

use super::seen;
use crate::args::{LeaseCommand, LimitArgs, Minority};
use crate::backend::{Backend, millis};
use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::output::table::{self, Cell, Tone};
use crate::output::{Format, Out, human};

pub(crate) async fn run(command: &LeaseCommand, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    match command {
        LeaseCommand::Ls => ls(settings, out).await,
        LeaseCommand::Limit(args) => limit(args, settings, out).await,
    }
}

async fn ls(settings: &Settings, out: Out) -> Result<Exit, Failure> {
    let leases = Backend::open_to_read(settings).await?.leases().await?;
    if out.format != Format::Table {
        out.document(&leases)?;
        return Ok(Exit::Done);
    }
    let rows: Vec<_> = leases.slots.iter().map(cells).collect();
    match rows.is_empty() {
        true => out.note("no slot was claimed yet"),
        false => {
            let headers = ["SLOT", "ROUND", "STATE", "BY", "HEARD", "MACHINES"];
            out.raw(table::render(&headers, rows, out).as_bytes())?;
        }
    }
    notes(&leases).iter().for_each(|note| out.note(note));
    Ok(Exit::Done)
}

fn cells(row: &SlotRow) -> Vec<Cell> {
    let heard = match (row.state.as_str(), row.here) {
        ("free" | "expired", _) => Cell::dim("-"),
        (_, true) => Cell::new("this node"),
        (_, false) => Cell::new(human::seconds(row.age_ms / 1_000)),
    };
    let machines: Vec<_> = row.machines.iter().map(|made| machine(row.slot, made)).collect();
    let surplus = row.machines.iter().any(|machine| machine.surplus);
    vec![
        Cell::right(row.slot),
        Cell::right(row.round),
        Cell::state(&row.state),
        Cell::new(human::list(&row.by)),
        heard,
        Cell::new(human::list(&machines)).tone(if surplus { Tone::Warning } else { Tone::Plain }),
    ]
}

/// Its name, what made it, and whether it has to go.
fn machine(slot: u32, machine: &MachineRow) -> String {
    let MachineRow { round, by, target, .. } = machine;
    let void = if machine.counts { "" } else { ", void" };
    let surplus = if machine.surplus { ", has to go" } else { "" };
    format!("{slot}-{round} ({target} by {by}{void}{surplus})")
}

fn notes(leases: &Leases) -> Vec<String> {
    let minority = if leases.minority { ", also without a majority of the voters" } else { "" };
    let mut notes = vec![
        format!(
            "at most {} by the fleet's policy{minority}, {} by this node's configuration",
            human::count(u64::from(leases.machines_max), "machine"),
            leases.machines_here
        ),
        format!(
            "{} of {} connected; a claim waits {} s",
            leases.voters_connected,
            human::count(leases.voters, "voter"),
            leases.settle_ms / 1_000
        ),
    ];
    notes.extend(
        leases
            .slots
            .iter()
            .filter(|row| !row.spend.is_empty())
            .map(|row| format!("this node holds slot {} and may make no machine: {}", row.slot, row.spend)),
    );
    notes.extend(Some(leases.says.clone()).filter(|says| !says.is_empty()));
    notes
}

async fn limit(args: &LimitArgs, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    let backend = Backend::open(settings).await?;
    let offline = backend.is_offline();
    let minority = args.minority == Minority::Allow;
    let limit = LeaseLimit { machines: args.machines, minority, timeout_ms: millis(args.wait.timeout) };
    let written = backend.limit_leases(limit).await?;
    let most = human::count(u64::from(args.machines), "machine");
    out.line(&written, &format!("the fleet may make {most}"))?;
    Ok(seen(&written, offline, out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_named_by_slot_and_round_and_says_why_it_has_to_go() {
        let made = MachineRow {
            round: 2,
            by: "roof".to_owned(),
            target: "process".to_owned(),
            counts: false,
            surplus: true,
            ..MachineRow::default()
        };
        assert_eq!(machine(3, &made), "3-2 (process by roof, void, has to go)");
        assert_eq!(machine(0, &MachineRow { counts: true, surplus: false, ..made }), "0-2 (process by roof)");
    }
}
