//! Bounds and counts of replicas, and labels of devices: who may write them, which word is the last, and what is no
//! block at all.

mod support;

use osiris_ledger::{Author, Ledger, Payload, Reject, Role, Writer, limits, op};
use support::{
    ADMIN, FOUNDER, Fixture, NODE, OPERATOR, append, author, copy, deploy, enrol, found, key, merge, revoked,
    session,
};

fn bounded(name: Option<&str>, range: Option<(u32, u32)>) -> Payload {
    let range = range.map(|(min, max)| op::Range { min, max });
    Payload::Bounded(op::Bounded { name: name.map(str::to_owned), range })
}

fn scaled(name: &str, replicas: u32) -> Payload {
    passing(name, replicas, Vec::new())
}

fn passing(name: &str, replicas: u32, past: Vec<Author>) -> Payload {
    Payload::Scaled(op::Scaled { name: name.to_owned(), replicas, past })
}

fn labelled(device: u8, labels: &[&str]) -> Payload {
    let labels = labels.iter().map(|label| (*label).to_owned()).collect();
    Payload::Labelled(op::Labelled { device: author(device), labels })
}

fn replicas(ledger: &mut Ledger) -> Option<u32> {
    ledger.publish().scaling().replicas("f").map(|(_, replicas)| replicas)
}

#[test]
fn bounds_outlive_a_deploy_and_end_when_an_operator_says_so() {
    let (mut ledger, mut founder) = found(0);
    let first = append(&mut ledger, &mut founder, deploy("f", 1, &[])).id();
    append(&mut ledger, &mut founder, bounded(Some("f"), Some((1, 3))));
    append(&mut ledger, &mut founder, bounded(None, Some((0, 9))));
    append(&mut ledger, &mut founder, deploy("f", 2, &[first]));
    let view = ledger.publish();
    assert_eq!(view.scaling().bounds("f"), Some(&op::Range { min: 1, max: 3 }));
    assert_eq!((view.scaling().fleet_max(), view.scaling().bounds("g")), (Some(9), None));
    append(&mut ledger, &mut founder, bounded(Some("f"), None));
    append(&mut ledger, &mut founder, bounded(None, None));
    let after = ledger.publish();
    assert_eq!((after.scaling().bounds("f"), after.scaling().fleet_max()), (None, None));
    assert_ne!(after.hash(), view.hash());
    assert_eq!(view.scaling().fleet_max(), Some(9), "a view that was given stays as it was");
}

#[test]
fn of_two_counts_written_at_once_every_replica_takes_the_same() {
    let (mut ledger, mut founder) = found(0);
    enrol(&mut ledger, &mut founder, 0, NODE, &[Role::Node]);
    let mut node = Writer::new(key(NODE), session(NODE));
    append(&mut ledger, &mut founder, scaled("f", 9));
    let mut other = copy(&ledger);
    let a = append(&mut ledger, &mut founder, scaled("f", 2));
    let b = append(&mut other, &mut node, scaled("f", 5));
    let last = if a.order() > b.order() { 2 } else { 5 };
    merge(&mut [&mut ledger, &mut other]);
    assert_eq!((replicas(&mut ledger), replicas(&mut other)), (Some(last), Some(last)));
    assert_eq!(ledger.publish().hash(), other.publish().hash());
}

#[test]
fn who_is_passed_over_follows_from_the_last_count_alone() {
    let (mut ledger, mut founder) = found(0);
    enrol(&mut ledger, &mut founder, 0, NODE, &[Role::Node]);
    let mut node = Writer::new(key(NODE), session(NODE));
    let passed = |ledger: &mut Ledger| ledger.publish().scaling().passed_over("f").to_vec();
    assert_eq!(passed(&mut ledger), []);
    append(&mut ledger, &mut founder, scaled("f", 2));
    let without = ledger.publish().hash();
    append(&mut ledger, &mut founder, passing("f", 2, vec![author(NODE)]));
    assert_eq!((passed(&mut ledger), replicas(&mut ledger)), (vec![author(NODE)], Some(2)));
    assert_ne!(ledger.publish().hash(), without, "members agree on it");
    append(&mut ledger, &mut node, scaled("f", 3));
    assert_eq!(passed(&mut ledger), []);
}

#[test]
fn what_a_revoked_member_counted_does_not_count() {
    let (mut ledger, mut founder) = found(0);
    let grant = enrol(&mut ledger, &mut founder, 0, NODE, &[Role::Node]);
    let mut node = Writer::new(key(NODE), session(NODE));
    append(&mut ledger, &mut founder, scaled("f", 2));
    append(&mut ledger, &mut founder, labelled(NODE, &["gpu"]));
    append(&mut ledger, &mut node, scaled("f", 7));
    assert_eq!(replicas(&mut ledger), Some(7));
    append(&mut ledger, &mut founder, revoked(&[grant], &[]));
    assert_eq!(replicas(&mut ledger), Some(2));
    assert_eq!(ledger.publish().scaling().labels(&author(NODE)), ["gpu"]);
}

#[test]
fn a_device_says_of_itself_alone_whether_it_drains() {
    let (mut ledger, mut founder) = found(0);
    let grant = enrol(&mut ledger, &mut founder, 0, NODE, &[Role::Node]);
    let mut node = Writer::new(key(NODE), session(NODE));
    let draining = |draining| Payload::Draining(op::Draining { draining });
    let drains = |ledger: &mut Ledger| {
        let view = ledger.publish();
        ([NODE, FOUNDER].map(|device| view.scaling().is_draining(&author(device))), view.hash())
    };
    let (none, before) = drains(&mut ledger);
    append(&mut ledger, &mut node, draining(true));
    let (said, during) = drains(&mut ledger);
    assert_eq!((none, said), ([false, false], [true, false]));
    assert_ne!(before, during, "members agree on it");
    append(&mut ledger, &mut node, draining(false));
    assert_eq!(drains(&mut ledger).0, [false, false]);
    append(&mut ledger, &mut node, draining(true));
    append(&mut ledger, &mut founder, revoked(&[grant], &[]));
    assert_eq!(drains(&mut ledger).0, [false, false], "it does not count");
}

#[test]
fn who_may_write_them_is_checked_at_the_door() {
    let fixture = Fixture::new();
    let answer = |device, payload| fixture.answer(device, &fixture.draft(device, payload)).err();
    let bounds = || bounded(Some("hello"), Some((0, 1)));
    assert_eq!(answer(NODE, bounds()), Some(Reject::Role));
    assert_eq!(answer(OPERATOR, bounds()), None);
    assert_eq!(answer(NODE, scaled("hello", 1)), None);
    for device in [NODE, OPERATOR] {
        assert_eq!(answer(device, labelled(NODE, &["gpu"])), Some(Reject::Role));
    }
    for device in [ADMIN, FOUNDER] {
        assert_eq!(answer(device, labelled(NODE, &["gpu"])), None);
    }
}

#[test]
fn fields_out_of_range_are_refused() {
    let fixture = Fixture::new();
    let is_field = |payload: Payload| {
        let what = format!("{payload:?}");
        let answer = fixture.answer(FOUNDER, &fixture.draft(FOUNDER, payload)).err();
        assert!(matches!(answer, Some(Reject::Field(_))), "{what}: {answer:?}");
    };
    is_field(bounded(Some("No"), Some((0, 1))));
    is_field(bounded(Some("f"), Some((0, 0))));
    is_field(bounded(Some("f"), Some((2, 1))));
    is_field(bounded(Some("f"), Some((0, limits::REPLICAS_MAX + 1))));
    is_field(bounded(None, Some((1, 2))));
    is_field(scaled("", 1));
    is_field(scaled("f", limits::REPLICAS_MAX + 1));
    is_field(passing("f", 1, vec![Author([2; 32]), Author([1; 32])]));
    is_field(passing("f", 1, vec![Author([1; 32]); 2]));
    is_field(passing("f", 1, (0..=limits::PASSED_OVER_MAX as u8).map(|n| Author([n; 32])).collect()));
    for label in ["", "=", "a=", "=a", "a=b=c", "a b", "zone=ä", &"x".repeat(65)] {
        is_field(labelled(NODE, &[label]));
    }
    is_field(labelled(NODE, &["b", "a"]));
    is_field(labelled(NODE, &["a", "a"]));
    let many: Vec<_> = (0..=limits::PLACE_LABELS_MAX).map(|n| format!("l{n:02}")).collect();
    is_field(labelled(NODE, &many.iter().map(String::as_str).collect::<Vec<_>>()));
}

#[test]
fn the_longest_labels_fit_a_block() {
    let (mut ledger, mut founder) = found(0);
    let long = |n: usize| format!("l{n:02}={}", "x".repeat(limits::PLACE_LABEL_BYTES_MAX - 4));
    let labels: Vec<_> = (0..limits::PLACE_LABELS_MAX).map(long).collect();
    append(&mut ledger, &mut founder, labelled(NODE, &labels.iter().map(String::as_str).collect::<Vec<_>>()));
}
