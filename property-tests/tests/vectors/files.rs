//! `page.json`, `archive.json` and `document.json`: what a history becomes outside its blocks.

use std::sync::Arc;

use automerge::Automerge;
use ciborium::Value as Cbor;
use osiris_fleet::archive::{self, ArchiveError};
use osiris_ledger::{Block, BlockId, FleetId, Ledger, Page, PageError};
use serde_json::{Value, json};

use super::{hex, support::replica};

fn encode(value: &Cbor) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).expect("a Vec takes every write");
    bytes
}

/// The page's CBOR, changed.
fn changed(page: &Page, change: impl FnOnce(&mut Vec<Cbor>)) -> Vec<u8> {
    let mut value: Cbor = ciborium::from_reader(page.encode().as_slice()).expect("CBOR");
    change(value.as_array_mut().expect("an array"));
    encode(&value)
}

fn list(value: &mut Cbor) -> &mut Vec<Cbor> {
    value.as_array_mut().expect("an array")
}

/// A page, what its rows say, and pages that are refused.
pub(super) fn page(ledger: &Ledger, page: &Page) -> Value {
    let rows: Vec<_> = page
        .summaries()
        .map(|row| {
            let parents: Vec<_> = row.parents().map(|id| id.to_string()).collect();
            json!({
                "id": row.id().to_string(), "author": row.chain().author.to_string(),
                "session": row.chain().session.to_string(), "seq": row.seq(), "depth": row.order().depth,
                "grant": row.grant().to_string(), "prev": row.prev().to_string(), "parents": parents,
                "revision": row.revision().to_string(), "concurrency": row.concurrency(),
            })
        })
        .collect();
    let bytes = page.encode();
    let cases = [
        ("a page of another fleet", changed(page, |page| page[1] = Cbor::Bytes(vec![9; 32]))),
        ("a version that does not exist", changed(page, |page| page[0] = 2.into())),
        ("an integer that is longer than needed", [&[bytes[0], 0x18, 0x01], &bytes[2..]].concat()),
        ("a byte behind the array", [&bytes[..], &[0]].concat()),
        ("no row", changed(page, |page| list(&mut page[4]).clear())),
        ("rows out of order", changed(page, |page| list(&mut page[4]).swap(0, 1))),
        (
            "an id that no row refers to",
            changed(page, |page| list(&mut page[2]).push(Cbor::Bytes(vec![255; 32]))),
        ),
        ("ids out of order", changed(page, |page| list(&mut page[2]).swap(0, 1))),
        ("a chain that does not exist", changed(page, |page| list(&mut list(&mut page[4])[0])[1] = 9.into())),
        ("a parent that is the row itself", {
            changed(page, |page| list(&mut list(&mut page[4])[0])[6] = Cbor::Array(vec![0.into()]))
        }),
        (
            "a first block with a predecessor",
            changed(page, |page| list(&mut list(&mut page[4])[0])[5] = 3.into()),
        ),
    ];
    let refused = cases.map(|(what, bytes)| {
        let error = match Page::decode(&ledger.fleet(), &bytes).expect_err(what) {
            PageError::TooLarge(_) => "too-large",
            PageError::Malformed => "malformed",
            PageError::OtherFleet => "other-fleet",
            PageError::Lists => "lists",
            _ => "another",
        };
        json!({ "what": what, "error": error, "page": hex(&bytes) })
    });
    json!({
        "fleet": ledger.fleet().to_string(), "page": hex(&bytes), "hash": page.hash().to_string(), "rows": rows,
        "refused": refused,
    })
}

/// What was done to a copy.
enum Damage {
    Keep(usize),
    Xor(usize, u8),
    Append(u8),
    /// These bytes are left out, and the hash at the end is made anew.
    Without(usize, usize),
}

fn archived(fleet: &FleetId, pages: &[Arc<Page>], blocks: &[Arc<Block>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    archive::write(&mut bytes, fleet, pages, blocks).expect("a Vec takes every write");
    bytes
}

fn error_of(bytes: &[u8]) -> &'static str {
    match archive::verify(&mut &*bytes).expect_err("refused") {
        ArchiveError::Read(_) => "read",
        ArchiveError::Format => "format",
        ArchiveError::Damaged => "damaged",
        ArchiveError::Page(_) => "page",
        ArchiveError::Block(..) => "block",
        ArchiveError::Incomplete(_) => "incomplete",
        ArchiveError::Unsealed(_) => "unsealed",
        _ => "another",
    }
}

fn damaged(bytes: &[u8], what: &str, damage: &Damage) -> Value {
    let (copy, done) = match *damage {
        Damage::Keep(count) => (bytes[..count].to_vec(), json!({ "keep": count })),
        Damage::Xor(at, with) => {
            let mut copy = bytes.to_vec();
            copy[at] ^= with;
            (copy, json!({ "xor": [at, with] }))
        }
        Damage::Append(byte) => ([bytes, &[byte]].concat(), json!({ "append": byte })),
        Damage::Without(from, to) => {
            let body = [&bytes[..from], &bytes[to..bytes.len() - 32]].concat();
            let hash = blake3::hash(&body);
            ([body.as_slice(), hash.as_bytes()].concat(), json!({ "without": [from, to] }))
        }
    };
    json!({ "what": what, "done": done, "error": error_of(&copy) })
}

/// An archive with a page in the place of its blocks, and what was done to copies that are refused.
pub(super) fn archive(ledger: &Ledger, page: &Arc<Page>) -> Value {
    let fleet = ledger.fleet();
    let mut pruned = replica(fleet, &ledger.in_order());
    assert_eq!(pruned.prune(page), Ok(u64::from(page.rows())), "no block of the page is in a forked chain");
    let blocks = pruned.in_order();
    let bytes = archived(&fleet, std::slice::from_ref(page), &blocks);
    let said = archive::verify(&mut bytes.as_slice()).expect("sound");
    assert_eq!(said.view, BlockId(pruned.publish().hash()).to_string());

    // The first item is the page, the next the genesis block.
    let first = 8 + 32;
    let second = first + 5 + page.size() as usize;
    let third = second + 5 + blocks[0].entry().len();
    let cases = [
        ("cut within the last block", Damage::Keep(bytes.len() - 60)),
        ("cut before the hash", Damage::Keep(bytes.len() - 32)),
        ("a bit of a block changed", Damage::Xor(third + 100, 4)),
        ("another kind of item", Damage::Xor(third, 4)),
        ("a later format", Damage::Xor(7, 3)),
        ("a byte behind the hash", Damage::Append(0)),
        ("the page left out", Damage::Without(first, second)),
        ("the genesis block left out", Damage::Without(second, third)),
    ];
    let damaged: Vec<_> = cases.iter().map(|(what, damage)| damaged(&bytes, what, damage)).collect();
    // All that comes before the page was sealed, with the page.
    let seal = ledger.in_order().iter().position(|block| block.payload().name() == "sealed").expect("a seal");
    let before: Vec<_> =
        ledger.in_order()[..seal].iter().filter(|block| pruned.get(&block.id()).is_some()).cloned().collect();
    let unsealed = archived(&fleet, std::slice::from_ref(page), &before);
    assert_eq!(error_of(&unsealed), "unsealed");
    json!({
        "archive": hex(&bytes), "fleet": fleet.to_string(), "blocks": said.blocks, "summaries": said.summaries,
        "pages": said.pages, "view": said.view, "damaged": damaged,
        "unsealed": { "what": "the page before its seal", "error": "unsealed", "archive": hex(&unsealed) },
    })
}

/// The automerge changes of the first blocks, and the heads of the document that they make.
pub(super) fn document(ledger: &Ledger, count: usize) -> Value {
    let blocks = &ledger.in_order()[..count];
    let mut first = replica(ledger.fleet(), blocks);
    let heads: Vec<_> = first.document_heads().iter().map(|head| hex(head)).collect();
    let document = Automerge::load(&first.document_bytes()).expect("a document");
    let changes = document.get_changes(&[]);
    let row = |block: &Arc<Block>| {
        let of = |change: &&automerge::Change| {
            change.actor_id().to_bytes() == block.chain().actor() && change.seq() == block.seq()
        };
        let id = block.id().to_string();
        // A forked chain is left out from its fork upward.
        match changes.iter().find(of) {
            Some(change) => {
                json!({ "block": id, "hash": hex(&change.hash().0), "change": hex(change.raw_bytes()) })
            }
            None => json!({ "block": id, "hash": null, "change": null }),
        }
    };
    let rows: Vec<_> = blocks.iter().map(row).collect();
    let made = rows.iter().filter(|row| !row["change"].is_null()).count();
    assert!(made == changes.len() && made < count, "one change a block, but for those of a forked chain");
    json!({ "automerge": "0.12.0", "changes": rows, "heads": heads })
}
