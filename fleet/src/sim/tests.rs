use super::*;

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
fn a_healthy_fleet_agrees_at_once() {
    for nodes in 3..=5 {
        let report = passed(&Options::healthy(u64::from(nodes), nodes));
        assert!(report.acknowledged > 5, "{report:?}");
        assert!(report.views_compared > 20, "{report:?}");
        assert_eq!(report.faults.values().sum::<u64>(), 0, "{report:?}");
    }
}
