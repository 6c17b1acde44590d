//! Simulated fleets: the same seed gives the same run, every promise is kept, every rare branch reached.

use std::{fs, path::Path};

use osiris_fleet::sim::{Campaign, DayOptions, Options, Recorded, Report, history, run, run_day};

/// Seeds in an ordinary run. `OSIRIS_SIM_SEEDS` asks for more, `OSIRIS_SIM_FIRST` for others.
const SEEDS: u64 = 100;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is `{text}`; it must be a number")))
}

fn passed(options: &Options) -> Report {
    let report = run(options, None).expect("valid options");
    assert!(report.passed, "{}", serde_json::to_string_pretty(&report).expect("a report is JSON"));
    report
}

#[test]
fn the_same_seed_gives_the_same_log_and_another_seed_another() {
    let first = run(&Options::drawn(1, 4), None).expect("valid options");
    let other = run(&Options::drawn(2, 4), None).expect("valid options");
    let mut lines = 0_u64;
    let mut count = |_: &str| lines += 1;
    let again = run(&Options::drawn(1, 4), Some(&mut count)).expect("valid options");
    assert_eq!(first, again);
    assert_eq!(lines, first.events);
    assert_ne!(first.event_log_hash, other.event_log_hash);
}

#[test]
fn what_nodes_share_changes_nothing_in_a_run() {
    for (seed, nodes) in [(1, 5), (7, 5), (2, 5), (4, 9)] {
        let alone = run(&Options::drawn(seed, nodes), None).expect("valid options");
        let options = Options { memo: true, ..Options::drawn(seed, nodes) };
        let shared = run(&options, None).expect("valid options");
        assert_eq!(shared, Report { options, ..alone });
    }
}

#[test]
fn a_healthy_fleet_agrees_at_once() {
    for nodes in 3..=5 {
        let report = passed(&Options::healthy(u64::from(nodes), nodes));
        assert!(report.acknowledged > 5, "{report:?}");
        assert!(report.views_compared > 20, "{report:?}");
        assert_eq!(report.faults.values().sum::<u64>(), 0, "{report:?}");
    }
}

#[test]
fn nobody_is_taken_for_gone_for_ever_in_a_fleet_that_is_not_connected_in_full() {
    let report = passed(&Options::drawn(2, 30));
    assert!(report.faults["partition"] > 0, "{report:?}");
}

#[test]
fn small_fleets_keep_every_promise_and_reach_every_rare_branch() {
    let (first, runs) =
        (number("OSIRIS_SIM_FIRST").unwrap_or(1), number("OSIRIS_SIM_SEEDS").unwrap_or(SEEDS));
    let campaign = Campaign::run(first, runs, None, |_| {}).expect("valid options");
    for report in &campaign.failed {
        let text = serde_json::to_string(report).expect("a report is JSON");
        eprintln!("failed, to be replayed with `osiris sim replay FILE`:\n{text}");
    }
    let Campaign { failed, never, branches, .. } = &campaign;
    assert!(campaign.passed, "{} runs failed; never reached: {never:?}; reached: {branches:?}", failed.len());
}

#[test]
fn what_once_failed_passes() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../property-tests/corpus/sim");
    let mut replayed = 0;
    for file in fs::read_dir(corpus).expect("the corpus") {
        let file = file.expect("an entry").path();
        let text = fs::read_to_string(&file).expect("a file of the corpus");
        let recorded = Recorded::read(&text).expect("a file of the corpus");
        let report = recorded.replay(None).expect("valid options");
        assert!(report.passed, "{}: {} {:?}", file.display(), recorded.note, report.violations);
        replayed += 1;
    }
    assert!(replayed > 0, "the corpus is empty");
}

#[test]
fn a_healthy_fleet_makes_machines_and_no_slot_has_two_holders() {
    let (mut lost, mut made) = (0, 0);
    for nodes in 3..=5 {
        let healthy = Options::healthy(u64::from(nodes), nodes);
        let report = passed(&Options { wants_every_ms: 4_000, safety_ms: 80_000, ..healthy });
        made += report.branches.get("machine made").copied().unwrap_or_default();
        assert_eq!(report.branches.get("two holders"), None, "{report:?}");
        lost += report.branches.get("lease lost").copied().unwrap_or_default();
    }
    assert!(made > 0, "no holder lived long enough to make one");
    assert!(lost > 0, "nobody ever wanted what another won");
}

#[test]
fn who_stood_still_acts_on_no_lease_that_it_lost_meanwhile() {
    let mut lost = std::collections::BTreeMap::<String, u64>::new();
    for seed in 1..=6 {
        let options = Options { wants_every_ms: 4_000, still_every_ms: 8_000, ..Options::healthy(seed, 4) };
        let report = passed(&Options { safety_ms: 120_000, ..options });
        for (branch, count) in report.branches {
            *lost.entry(branch).or_default() += count;
        }
    }
    for branch in ["lease lost by a pause", "lease lost by a suspend", "machine made"] {
        assert!(lost.get(branch).is_some_and(|count| *count > 0), "{branch}: {lost:?}");
    }
}

#[test]
fn a_folder_that_runs_twice_forks_nothing_and_is_noticed() {
    let (mut cloned, mut noticed) = (0, 0);
    for nodes in 3..=6 {
        let healthy = Options::healthy(u64::from(nodes), nodes);
        let report = passed(&Options { clone_every_ms: 8_000, safety_ms: 60_000, ..healthy });
        cloned += report.faults.get("cloned disk").copied().unwrap_or_default();
        noticed += report.branches.get("twin noticed").copied().unwrap_or_default();
        assert_eq!(report.branches.get("fork proven"), None, "{report:?}");
    }
    assert!(cloned > 4, "{cloned} folders were copied");
    // Of two processes each is told by the members that left it for the other.
    assert!(noticed > cloned, "{cloned} folders were copied, and {noticed} processes noticed");
}

#[test]
fn replicas_of_a_healthy_fleet_follow_calls_that_come_and_go() {
    let mut sums = std::collections::BTreeMap::<String, u64>::new();
    let mut branches = std::collections::BTreeMap::<String, u64>::new();
    for nodes in 4..=6 {
        let healthy = Options::healthy(u64::from(nodes), nodes);
        // People deploy for the first moments only: a new revision begins with a replica each time.
        let options = Options { load: 12, safety_ms: 300_000, work_every_ms: 20_000, ..healthy };
        let report = passed(&options);
        for (what, sum) in report.load {
            *sums.entry(what).or_default() += sum;
        }
        for (branch, count) in report.branches {
            *branches.entry(branch).or_default() += count;
        }
    }
    // Not in each run: whether calls come while there is no replica is chance.
    for branch in ["scaled up", "scaled down", "scaled to none", "woken"] {
        assert!(branches.get(branch).is_some_and(|count| *count > 0), "{branch}: {branches:?}");
    }
    eprintln!("{sums:?} {branches:?}");
    let of = |what: &str| sums.get(what).copied().unwrap_or(0);
    let (had, needed) = (of("replicas, seconds"), of("replicas of an oracle, seconds"));
    // Not a figure to be proud of, but a bound: neither everything all the time nor far too little.
    assert!(had < 3 * needed && 2 * had > needed, "{sums:?}");
}

#[test]
fn a_short_day_makes_machines_for_its_peak_and_leaves_none_and_is_the_same_again() {
    let options = DayOptions { seed: 3, nodes: 8, hours: 1 };
    let report = run_day(&options, None).expect("valid options");
    assert_eq!(report.violations, Vec::<String>::new());
    assert!(report.agreed_after_ms.is_some(), "{report:?}");
    let reached = |what: &str| report.branches.get(what).copied().unwrap_or_default();
    for what in ["machine joined", "machine served", "machine retired", "spawn reconciled"] {
        assert!(reached(what) > 0, "{what}: {report:?}");
    }
    for what in ["partition during a claim", "minority side wanted a machine"] {
        assert!(reached(what) > 0, "{what}: {report:?}");
    }
    assert!(report.ratio >= 1.0, "nobody spends less than who knows the day: {report:?}");
    assert_eq!(report, run_day(&options, None).expect("valid options"));
}

#[test]
fn a_history_of_days_is_the_same_again_and_holds_what_its_fleet_wrote() {
    let (nodes, days) = (4, 7);
    let made = history(1, nodes, days).expect("a fleet that agrees");
    let mut ledger = osiris_ledger::Ledger::new(made.fleet);
    for block in &made.blocks {
        ledger.admit(block.entry()).expect("valid");
    }
    assert_eq!(ledger.early(), (0, 0), "each behind all it names");
    let mut named = std::collections::BTreeMap::<_, usize>::new();
    let mut sessions = std::collections::BTreeSet::new();
    for block in &made.blocks {
        *named.entry(block.payload().name()).or_default() += 1;
        sessions.insert(block.chain());
    }
    // Some deploys come while a member restarts, which takes it as it starts, and some are replaced at once.
    let count = |name: &str| named.get(name).copied().unwrap_or(0);
    assert!(count("deployed") > 100, "{named:?}");
    assert!(count("serving") > 3 * count("deployed"), "{named:?}");
    assert!(count("stopped") > 2 * count("deployed"), "{named:?}");
    assert!(sessions.len() > nodes as usize + 1, "nobody restarted: {}", sessions.len());
    let again = history(1, nodes, days).expect("the same");
    let entries = |made: &osiris_fleet::sim::History| -> Vec<Vec<u8>> {
        made.blocks.iter().map(|block| block.entry().to_vec()).collect()
    };
    assert!(entries(&made) == entries(&again));
    assert_eq!((made.founder, made.events), (again.founder, again.events));
    assert!(entries(&made) != entries(&history(2, nodes, days).expect("another")));
    assert!(history(1, 0, 1).is_err(), "a fleet of nobody");
}
