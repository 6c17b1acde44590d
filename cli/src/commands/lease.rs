//! `osiris lease`: who may make new machines, and which there are.

use osiris_fleet::api::{LeaseLimit, LeaseWant, Leases, MachineRow, SlotRow};

use super::seen;
use crate::args::{LeaseCommand, LimitArgs, Minority};
use crate::backend::{self, Backend, millis};
use crate::client::Patience;
use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::output::table::{self, Cell, Tone};
use crate::output::{Format, Out, human};

pub(crate) async fn run(command: &LeaseCommand, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    match command {
        LeaseCommand::Ls => ls(settings, out).await,
        LeaseCommand::Limit(args) => limit(args, settings, out).await,
        LeaseCommand::Want => {
            let leases: Leases = ask(settings, &LeaseWant::default()).await?;
            let what = match leases.slots.iter().find(|row| row.here && row.state == "claimed") {
                Some(row) => {
                    format!("slot {} is claimed; `osiris lease ls` shows what becomes of it", row.slot)
                }
                None => "asked for; `osiris lease ls` shows what becomes of it".to_owned(),
            };
            out.line(&leases, &what)?;
            Ok(Exit::Done)
        }
        LeaseCommand::Retire(args) => {
            let leases = Backend::open_to_read(settings).await?.leases().await?;
            let want = LeaseWant { gone: find(&leases, &args.machine)?, vouched: args.gone };
            let leases: Leases = ask(settings, &want).await?;
            let what = if args.gone { "the ledger says that it is gone" } else { "it is taken away" };
            out.line(&leases, &format!("{}: {what}", args.machine))?;
            Ok(Exit::Done)
        }
    }
}

/// Only a running node makes machines and takes them away.
async fn ask(settings: &Settings, want: &LeaseWant) -> Result<Leases, Failure> {
    let client = backend::node(settings).await?;
    client.post("/v1/leases/want", want, Patience::question().records("osiris lease ls")).await
}

/// The intent of the one machine that is meant.
fn find(leases: &Leases, name: &str) -> Result<String, Failure> {
    let machines = leases.slots.iter().flat_map(|row| row.machines.iter().map(move |made| (row.slot, made)));
    let is_start = name.len() >= 4 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let fits = |(slot, made): &(u32, &MachineRow)| {
        format!("{slot}-{}", made.round) == name || (is_start && made.intent.starts_with(name))
    };
    let found: Vec<_> = machines.filter(fits).map(|(_, made)| made.intent.clone()).collect();
    match found.as_slice() {
        [intent] => Ok(intent.clone()),
        [] => Err(Failure::not_found(format!("There is no machine {name}."))
            .next("`osiris lease ls` lists the machines")),
        _ => Err(Failure::usage(format!("Several machines are named {name}."))
            .next("give the beginning of its intent's id; `osiris lease ls -o json` prints it")),
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
    let MachineRow { round, by, target, device, doing, .. } = machine;
    let device = if device.is_empty() { String::new() } else { format!(", is {device}") };
    let doing = if doing.is_empty() { String::new() } else { format!(", {doing}") };
    let void = if machine.counts { "" } else { ", void" };
    let surplus = if machine.surplus { ", has to go" } else { "" };
    format!("{slot}-{round} ({target} by {by}{device}{doing}{void}{surplus})")
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
    let backend = Backend::open_within(settings, args.wait.timeout).await?;
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
            device: "m3-2".to_owned(),
            doing: "made".to_owned(),
            counts: false,
            surplus: true,
            ..MachineRow::default()
        };
        assert_eq!(machine(3, &made), "3-2 (process by roof, is m3-2, made, void, has to go)");
        let plain =
            MachineRow { counts: true, surplus: false, device: String::new(), doing: String::new(), ..made };
        assert_eq!(machine(0, &plain), "0-2 (process by roof)");
    }

    #[test]
    fn a_machine_is_found_by_its_name_or_its_intent_and_not_by_half() {
        let made = |intent: &str| MachineRow { round: 1, intent: intent.to_owned(), ..MachineRow::default() };
        let slot = |slot, machines| SlotRow { slot, machines, ..SlotRow::default() };
        let slots = vec![slot(0, vec![made("aaaa11"), made("aaaa22")]), slot(1, vec![made("bbbb33")])];
        let leases = Leases { slots, ..Leases::default() };
        assert_eq!(find(&leases, "1-1").expect("one"), "bbbb33");
        assert_eq!(find(&leases, "aaaa2").expect("one"), "aaaa22");
        assert_eq!(find(&leases, "0-1").expect_err("two sides of a split made it").exit, Exit::Usage);
        assert_eq!(find(&leases, "2-1").expect_err("none").exit, Exit::NotFound);
    }
}
