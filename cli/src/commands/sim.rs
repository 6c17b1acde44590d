//! `osiris sim`: a fleet that exists only in memory, with faults that come from a seed.

use std::collections::BTreeMap;
use std::path::Path;

use osiris_fleet::sim::{self, Campaign, DayOptions, DayReport, FunctionDay, Options, Recorded, Report};

use crate::args::{SimCampaignArgs, SimCommand, SimDayArgs, SimReplayArgs, SimRunArgs};
use crate::client::QUICK;
use crate::exit::{Exit, Failure};
use crate::input;
use crate::output::table::{Cell, Tone};
use crate::output::{Format, Out, human, progress::Progress};

/// Largest report that is read.
const REPORT_BYTES_MAX: u64 = 16 << 20;
/// Violations that a table lists.
const SHOWN: usize = 5;

/// Runs one of the commands.
pub(crate) fn run(command: &SimCommand, out: Out) -> Result<Exit, Failure> {
    match command {
        SimCommand::Run(args) => one(args, out),
        SimCommand::Campaign(args) => campaign(args, out),
        SimCommand::Day(args) => day(args, out),
        SimCommand::Replay(args) => replay(args, out),
    }
}

fn one(args: &SimRunArgs, out: Out) -> Result<Exit, Failure> {
    let mut options = match args.healthy {
        true => Options::healthy(args.seed, args.nodes),
        false => Options::drawn(args.seed, args.nodes),
    };
    if let Some(seconds) = args.seconds {
        options.safety_ms = seconds.saturating_mul(1_000);
    }
    let spinner = Progress::spinner(format!("simulating {}", human::count(args.nodes.into(), "node")));
    let report = simulate(&options, args.events);
    drop(spinner);
    print(&report.map_err(wrong)?, out)
}

fn simulate(options: &Options, events: bool) -> Result<Report, String> {
    let mut listen = |line: &str| eprintln!("{line}");
    sim::run(options, if events { Some(&mut listen) } else { None })
}

fn campaign(args: &SimCampaignArgs, out: Out) -> Result<Exit, Failure> {
    let bar = Progress::count(args.runs, "runs");
    let campaign = Campaign::run(args.seed, args.runs, args.nodes, |_| bar.advance(1));
    drop(bar);
    let campaign = campaign.map_err(wrong)?;
    let facts = vec![
        ("runs", Cell::new(format!("{}, {} failed", campaign.runs, campaign.failed.len()))),
        ("seeds", Cell::new(seeds(campaign.first_seed, campaign.runs))),
        ("nodes", Cell::new(format!("{} in all", campaign.nodes))),
        ("virtual time", Cell::new(seconds(campaign.virtual_ms))),
        ("events", Cell::new(campaign.events.to_string())),
        (
            "frames",
            Cell::new(frames(campaign.sent, campaign.dropped, campaign.duplicated, campaign.overtaken)),
        ),
        ("blocks", Cell::new(format!("{} written, {} compared", campaign.written, campaign.blocks_compared))),
        ("views compared", Cell::new(campaign.views_compared.to_string())),
        ("slowest agreement", Cell::new(seconds(campaign.agreed_after_ms_max))),
        ("faults", Cell::new(counts(&campaign.faults))),
        ("rare branches", Cell::new(counts(&campaign.branches))),
        ("never reached", Cell::new(campaign.never.join(", ")).tone(Tone::Bad)),
        ("result", verdict(campaign.passed)),
    ];
    out.facts(&campaign, facts)?;
    for report in campaign.failed.iter().filter(|_| out.format == Format::Table) {
        let Options { seed, nodes, .. } = report.options;
        out.note(&format!("failed: osiris sim run --nodes {nodes} --seed {seed}"));
    }
    Ok(if campaign.passed { Exit::Done } else { Exit::Failed })
}

fn seeds(first: u64, runs: u64) -> String {
    match runs {
        0 => "none".to_owned(),
        1 => first.to_string(),
        _ => format!("{first} to {}", first.saturating_add(runs - 1)),
    }
}

fn day(args: &SimDayArgs, out: Out) -> Result<Exit, Failure> {
    let options = DayOptions { seed: args.seed, nodes: args.nodes, hours: args.hours };
    let spinner =
        Progress::spinner(format!("simulating {} for a day", human::count(args.nodes.into(), "node")));
    let mut listen = |line: &str| eprintln!("{line}");
    let report = sim::run_day(&options, if args.events { Some(&mut listen) } else { None });
    drop(spinner);
    let report = report.map_err(wrong)?;
    let mut facts = vec![
        ("nodes", Cell::new(format!("{}, {} of them run functions", args.nodes, report.hosts))),
        ("virtual time", Cell::new(seconds(report.virtual_ms))),
        ("events", Cell::new(report.events.to_string())),
        ("blocks", Cell::new(format!("{} written", report.written))),
        ("hours", Cell::new(spent(&report))),
        ("waits", Cell::new(format!("99 of 100 calls at most {}", seconds(report.wait_p99_ms)))),
    ];
    let functions: Vec<_> = report.functions.iter().map(|one| (one.name.clone(), function(one))).collect();
    facts.extend(functions.iter().map(|(name, cell)| (name.as_str(), cell.clone())));
    facts.extend([
        ("faults", Cell::new(counts(&report.faults))),
        ("branches", Cell::new(counts(&report.branches))),
        ("never reached", Cell::new(report.never.join(", ")).tone(Tone::Bad)),
        ("event log", Cell::new(&report.event_log_hash)),
        ("left out", Cell::dim(&report.left_out)),
        ("result", verdict(report.passed)),
    ]);
    out.facts(&report, facts)?;
    for violation in report.violations.iter().take(SHOWN) {
        out.warn(violation);
    }
    Ok(if report.passed { Exit::Done } else { Exit::Failed })
}

fn spent(report: &DayReport) -> String {
    let DayReport { hours, oracle_hours, ratio, .. } = report;
    format!("{hours:.1} of members and machines; {oracle_hours:.1} of an oracle; {ratio:.2} times (aim: 1.3)")
}

fn function(one: &FunctionDay) -> Cell {
    Cell::new(format!(
        "{} calls, {} failed; waits {} and {}; up to {} replicas; {:.1} h on members, {:.1} h of machines, \
         {:.2} times an oracle; its count turned {} times, its demand {}",
        one.calls,
        one.failed,
        seconds(one.wait_p50_ms),
        seconds(one.wait_p99_ms),
        one.replicas_max,
        one.member_hours,
        one.machine_hours,
        one.ratio,
        one.count_turns,
        one.demand_turns,
    ))
}

fn replay(args: &SimReplayArgs, out: Out) -> Result<Exit, Failure> {
    let recorded = read(&args.file)?;
    let spinner = Progress::spinner("replaying");
    let mut listen = |line: &str| eprintln!("{line}");
    let report = recorded.replay(if args.events { Some(&mut listen) } else { None });
    drop(spinner);
    print(&report.map_err(|why| Failure::failed(format!("{why}.")))?, out)
}

fn read(file: &Path) -> Result<Recorded, Failure> {
    let unread = |error: std::io::Error| {
        Failure::unread("report", file, &error).next("name a report that `osiris sim run -o json` wrote")
    };
    let bytes = input::file(file, REPORT_BYTES_MAX, QUICK).map_err(unread)?;
    Recorded::read(input::text(&bytes).map_err(unread)?)
        .map_err(|why| Failure::usage(format!("{}: {why}.", file.display())))
}

fn wrong(why: String) -> Failure {
    Failure::usage(format!("This cannot be simulated: {why}."))
        .next("`osiris sim run --help` shows the options")
}

fn print(report: &Report, out: Out) -> Result<Exit, Failure> {
    let agreed = report.agreed_after_ms.map_or_else(|| "not in time".to_owned(), seconds);
    let mut facts = vec![
        ("seed", Cell::new(report.options.seed.to_string())),
        ("nodes", Cell::new(format!("{}, {} hostile", report.nodes, report.options.hostile))),
        ("virtual time", Cell::new(seconds(report.virtual_ms))),
        ("agreed after", Cell::new(agreed)),
        ("events", Cell::new(report.events.to_string())),
        ("frames", Cell::new(frames(report.sent, report.dropped, report.duplicated, report.overtaken))),
        ("blocks", Cell::new(format!("{} written, {} compared", report.written, report.blocks_compared))),
        ("deploys", Cell::new(format!("{} acknowledged", report.acknowledged))),
        ("views compared", Cell::new(report.views_compared.to_string())),
        ("documents compared", Cell::new(report.documents_compared.to_string())),
        ("faults", Cell::new(counts(&report.faults))),
        ("branches", Cell::new(counts(&report.branches))),
        ("event log", Cell::new(&report.event_log_hash)),
        ("result", verdict(report.passed)),
    ];
    if !report.left_out.is_empty() {
        facts.push(("left out", Cell::dim(&report.left_out)));
    }
    out.facts(report, facts)?;
    for violation in report.violations.iter().take(SHOWN) {
        out.warn(violation);
    }
    Ok(if report.passed { Exit::Done } else { Exit::Failed })
}

fn verdict(passed: bool) -> Cell {
    if passed { Cell::new("passed").tone(Tone::Good) } else { Cell::new("failed").tone(Tone::Bad) }
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03} s", ms / 1_000, ms % 1_000)
}

fn frames(sent: u64, dropped: u64, duplicated: u64, overtaken: u64) -> String {
    format!("{sent} sent, {dropped} lost, {duplicated} doubled, {overtaken} overtook another")
}

fn counts(by_name: &BTreeMap<String, u64>) -> String {
    let counts: Vec<_> = by_name.iter().map(|(name, count)| format!("{name} {count}")).collect();
    if counts.is_empty() { "none".to_owned() } else { counts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_replays_and_another_log_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("report.json");
        let options = Options { safety_ms: 2_000, ..Options::healthy(5, 3) };
        let report = sim::run(&options, None).expect("valid options");
        std::fs::write(&file, serde_json::to_vec(&report).expect("JSON")).expect("written");
        let out = Out { format: Format::Json, terminal: false, color: false, color_messages: false };
        let args = SimReplayArgs { file: file.clone(), events: false };
        assert_eq!(replay(&args, out).expect("replayed"), Exit::Done);
        let other = Report { event_log_hash: "0".repeat(64), ..report };
        std::fs::write(&file, serde_json::to_vec(&other).expect("JSON")).expect("written");
        let refused = replay(&args, out).expect_err("another log");
        assert_eq!(refused.exit, Exit::Failed);
        assert!(refused.message.contains("not reproduced"), "{refused}");
        let missing = SimReplayArgs { file: dir.path().join("none"), events: false };
        assert_eq!(replay(&missing, out).expect_err("no file").exit, Exit::NotFound);
    }
}
