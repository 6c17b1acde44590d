//! A block of which one byte is another one is refused, whatever the block says: every byte of every block of the test
//! vectors, which hold each operation.

use std::{collections::BTreeSet, fs, path::Path};

use osiris_ledger::{Admission, Author, FleetId, Ledger, Payload};
use serde_json::Value;

fn unhex(text: &Value) -> Vec<u8> {
    let text = text.as_str().expect("a text");
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hex")).collect()
}

/// The entry with every byte changed, one at a time: each of its bits alone, and all of them.
fn changed(entry: &[u8]) -> Vec<Vec<u8>> {
    let masks = (0..8).map(|bit| 1_u8 << bit).chain([0xff]);
    let one = |(at, mask): (usize, u8)| {
        let mut changed = entry.to_vec();
        changed[at] ^= mask;
        changed
    };
    masks.flat_map(|mask| (0..entry.len()).map(move |at| (at, mask))).map(one).collect()
}

#[test]
fn every_changed_byte_of_every_kind_of_block_is_refused() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/vectors/ledger.json");
    let vectors: Value = serde_json::from_slice(&fs::read(path).expect("the vectors")).expect("JSON");
    let fleet = FleetId(unhex(&vectors["fleet"]).try_into().expect("32 bytes"));
    let mut ledger = Ledger::new(fleet);
    let sender = Author([9; 32]);
    let mut kinds = BTreeSet::new();
    let mut tried = 0;
    for block in vectors["blocks"].as_array().expect("blocks") {
        let kind = block["op"].as_str().expect("an operation");
        let entry = [unhex(&block["body"]), unhex(&block["signature"])].concat();
        // All that it names is here, so nothing has to wait.
        let before = (ledger.len(), ledger.early(), ledger.digest());
        let copies = changed(&entry);
        for (n, answer) in ledger.admit_all_from(sender, &copies).into_iter().enumerate() {
            assert!(answer.is_err(), "{kind}: {n} of {}: {answer:?}", copies.len());
        }
        // The other door, one after the other: each byte once.
        for (at, copy) in
            copies.iter().skip(entry.len() * (ledger.len() as usize % 9)).take(entry.len()).enumerate()
        {
            let answer = ledger.admit(copy);
            assert!(answer.is_err(), "{kind}: byte {at}: {answer:?}");
        }
        tried += copies.len();
        assert_eq!((ledger.len(), ledger.early(), ledger.digest()), before, "{kind}: something was taken in");
        assert!(matches!(ledger.admit(&entry), Ok(Admission::New { .. })), "{kind}: the block itself");
        // The same where the block is here already: a changed one is not taken for it.
        let at = entry.len() / 2;
        assert!(ledger.admit(&copies[at]).is_err(), "{kind}: byte {at} of a block that is here");
        kinds.insert(kind.to_owned());
    }
    let names: BTreeSet<_> = Payload::NAMES.iter().map(ToString::to_string).collect();
    assert_eq!(kinds, names, "each operation is among the vectors");
    println!("{tried} changed copies of {} blocks", ledger.len());
}
