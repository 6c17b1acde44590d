//! `histories.json`: generated histories of a fleet with hostile members, and what is to be said of each block.
//!
//! They are drawn anew only with `UPDATE_VECTORS`: else the file's entries are read and judged again, so a change
//! of what is drawn changes no vector.

use std::collections::BTreeSet;

use osiris_ledger::{Block, FleetId, Held, Ledger, Void};
use osiris_property_tests::{
    model::History,
    strategy::{config, script_with_leases},
};
use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::TestRunner,
};
use serde_json::{Value, json};

use super::{hex, unhex};

/// Histories that are drawn, and those of them that are kept.
const DRAWN: usize = 60;
const KEPT: usize = 4;
const STEPS: usize = 130;

/// Why a block does not count; null where it does.
pub(super) fn void(ledger: &Ledger, block: &std::sync::Arc<Block>) -> Value {
    match ledger.why_void(Held::Full(block)) {
        None => Value::Null,
        Some(Void::NotGiven) => json!("not-given"),
        Some(Void::Revoked) => json!("revoked"),
        Some(Void::Forked) => json!("forked"),
    }
}

/// What is to be said of these entries, which are a whole history in any order.
fn judged(fleet: FleetId, entries: &[Vec<u8>]) -> Value {
    let mut ledger = Ledger::new(fleet);
    for entry in entries {
        ledger.admit(entry).expect("valid");
    }
    assert_eq!((ledger.len(), ledger.early().0), (entries.len() as u64, 0));
    let view = ledger.publish().hash();
    let blocks: Vec<_> = ledger
        .in_order()
        .iter()
        .map(|block| json!({ "entry": hex(block.entry()), "void": void(&ledger, block) }))
        .collect();
    json!({
        "fleet": fleet.to_string(), "blocks": blocks, "digest": hex(&ledger.digest()), "view": hex(&view),
    })
}

/// What blocks of each operation there are, and how they stand.
fn kinds(history: &Value) -> BTreeSet<String> {
    let fleet: FleetId = history["fleet"].as_str().expect("a text").parse().expect("an id");
    let rows = history["blocks"].as_array().expect("rows");
    let mut ledger = Ledger::new(fleet);
    let kind = |row: &Value| {
        let entry = unhex(&row["entry"]);
        ledger.admit(&entry).expect("valid");
        let block = ledger.get(&Block::id_of(&entry)).expect("in ledger order");
        format!("{} {}", block.payload().name(), row["void"])
    };
    rows.iter().map(kind).collect()
}

/// Of many drawn histories those that together show the most.
pub(super) fn drawn() -> Value {
    let mut runner = TestRunner::new(config(1));
    let mut all: Vec<_> = (0..DRAWN)
        .map(|_| {
            let script = script_with_leases(STEPS).new_tree(&mut runner).expect("a script").current();
            let history = History::play(&script);
            let entries: Vec<_> =
                history.in_order().into_iter().map(|at| history.blocks[at].entry.clone()).collect();
            let judged = judged(history.fleet, &entries);
            (kinds(&judged), judged)
        })
        .collect();
    let (mut shown, mut kept) = (BTreeSet::new(), Vec::new());
    for _ in 0..KEPT {
        let new = |(kinds, _): &(BTreeSet<String>, Value)| kinds.difference(&shown).count();
        let best = (0..all.len()).max_by_key(|at| new(&all[*at])).expect("some are left");
        let (kinds, history) = all.swap_remove(best);
        shown.extend(kinds);
        kept.push(history);
    }
    json!({ "histories": kept })
}

/// The file, judged by this build.
pub(super) fn again(held: &Value) -> Value {
    let judge = |history: &Value| {
        let entries: Vec<_> =
            history["blocks"].as_array().expect("rows").iter().map(|row| unhex(&row["entry"])).collect();
        judged(history["fleet"].as_str().expect("a text").parse().expect("an id"), &entries)
    };
    let histories = held["histories"].as_array().expect("histories");
    let kinds: BTreeSet<_> = histories.iter().flat_map(kinds).collect();
    for void in ["null", "\"not-given\"", "\"revoked\"", "\"forked\""] {
        for op in ["admitted", "deployed", "serving", "revoked"] {
            assert!(kinds.contains(&format!("{op} {void}")), "no block is {op} {void}: {kinds:?}");
        }
    }
    json!({ "histories": histories.iter().map(judge).collect::<Vec<_>>() })
}
