//! The test vectors of `docs/vectors`: made here, from fixed keys, and checked against what is there.
//!
//! `UPDATE_VECTORS=1 cargo test --workspace --test vectors` writes them again after a change of the format.
//! `docs/vectors/check.py` reads them by the specification alone.

#[path = "../../crdt-ledger/tests/support/mod.rs"]
mod support;

#[path = "vectors/files.rs"]
mod files;
#[path = "vectors/histories.rs"]
mod histories;
#[path = "vectors/wire.rs"]
mod wire;

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use osiris_ledger::{
    Admission, Author, BlobHash, BlockId, Buckets, FleetId, Ledger, Page, Payload, Reject, Role, Roles,
    Session, WallMs, Writer,
    journal::{self, Head, Header},
    op, recovery_certificate,
};
use osiris_mesh::proto::sync::{Frame, StatesFrame};
use serde_json::{Value, json};
use support::{
    ADMIN, FOUNDER, FOUNDER_ADMIN, Forged, NODE, OPERATOR, RECOVERY, TICKET, admitted, append, author,
    deploy, enrol, forge, found, invited, key, revoked, serving, session, some_signature, user, withdrawn,
};

const PHONE: u8 = 7;
const RESCUED: u8 = 8;
const MACHINE: u8 = 9;
const SEEDS: [(&str, u8); 13] = [
    ("founder", FOUNDER),
    ("node", NODE),
    ("operator", OPERATOR),
    ("admin", ADMIN),
    ("phone", PHONE),
    ("rescued", RESCUED),
    ("machine", MACHINE),
    ("founder's admin key", FOUNDER_ADMIN),
    ("recovery key", RECOVERY),
    ("bearer invitation", TICKET),
    ("user", TICKET + 5),
    ("machine's invitation", TICKET + 6),
    ("stranger", 77),
];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &Value) -> Vec<u8> {
    let text = text.as_str().expect("a text");
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hex")).collect()
}

/// A small history with each operation, a fork, revocations, a withdrawal and a recovery; and the page that is sealed in it.
fn history() -> (Ledger, Arc<Page>) {
    let (mut ledger, mut founder) = found(0);
    let fleet = ledger.fleet();
    let bearer = append(&mut ledger, &mut founder, invited(0, 3, &[Role::Node], None)).id();
    let join = |device| Payload::Admitted(admitted(&fleet, &bearer, 0, device));
    let node_grant = append(&mut ledger, &mut founder, join(NODE)).id();
    enrol(&mut ledger, &mut founder, 1, OPERATOR, &[Role::Node, Role::Operator]);
    let admin_grant = enrol(&mut ledger, &mut founder, 2, ADMIN, &[Role::Node, Role::Operator, Role::Admin]);

    let mut operator = Writer::new(key(OPERATOR), session(OPERATOR));
    let first = append(&mut ledger, &mut operator, deploy("hello", 1, &[])).id();
    let mut node = Writer::new(key(NODE), session(NODE));
    let serves = append(&mut ledger, &mut node, serving(&first)).id();
    let stops = Payload::Stopped(op::Stopped { revision: first });
    append(&mut ledger, &mut node, stops);
    append(&mut ledger, &mut operator, deploy("hello", 2, &[first]));
    let old = append(&mut ledger, &mut operator, deploy("old", 3, &[])).id();
    let removes = Payload::Removed(op::Removed { name: "old".to_owned(), replaces: vec![old] });
    append(&mut ledger, &mut operator, removes);
    let mut admin = Writer::new(key(ADMIN), session(ADMIN));
    append(&mut ledger, &mut admin, serving(&first));
    let page =
        Page::of(fleet, ledger.in_order().iter().map(AsRef::as_ref)).expect("blocks that can be summarised");
    let person = append(&mut ledger, &mut admin, user(5, 2, Roles::NODE)).id();
    append(&mut ledger, &mut node, Payload::Admitted(admitted(&fleet, &person, 5, PHONE)));
    // It will turn out that the node could not admit it any more.
    append(&mut ledger, &mut Writer::new(key(PHONE), session(PHONE)), serving(&first));
    append(&mut ledger, &mut founder, withdrawn(bearer));
    let voters = Payload::Voters(op::Voters { devices: vec![author(FOUNDER)] });
    let voters = append(&mut ledger, &mut founder, voters).id();
    let sealed = Payload::Sealed(op::Sealed { voters, page: page.hash(), size: page.size() });
    append(&mut ledger, &mut founder, sealed);
    let range = |min, max| Some(op::Range { min, max });
    let bounded =
        |name: Option<&str>, range| Payload::Bounded(op::Bounded { name: name.map(str::to_owned), range });
    let scaled = |replicas, past| Payload::Scaled(op::Scaled { name: "hello".to_owned(), replicas, past });
    append(&mut ledger, &mut founder, bounded(Some("hello"), range(0, 4)));
    append(&mut ledger, &mut founder, bounded(Some("hello"), range(1, 3)));
    append(&mut ledger, &mut founder, bounded(None, range(0, 8)));
    append(&mut ledger, &mut founder, bounded(Some("old"), None));
    append(&mut ledger, &mut node, scaled(2, Vec::new()));
    append(&mut ledger, &mut founder, scaled(3, vec![author(NODE)]));
    let labels = vec!["gpu".to_owned(), "zone=a".to_owned()];
    let labelled = Payload::Labelled(op::Labelled { device: author(NODE), labels });
    append(&mut ledger, &mut founder, labelled);
    for blocks in [200_000, 100_000] {
        let budgeted = Payload::Budgeted(op::Budgeted { device: author(NODE), blocks });
        append(&mut ledger, &mut founder, budgeted);
    }
    for draining in [true, false] {
        append(&mut ledger, &mut node, Payload::Draining(op::Draining { draining }));
    }
    append(&mut ledger, &mut founder, Payload::Draining(op::Draining { draining: true }));
    // One machine was made and is gone, another one may be there.
    append(&mut ledger, &mut founder, Payload::Spawning(op::Spawning { machines: 2, minority: false }));
    let mut after = None;
    for round in 1..=2 {
        let claim = Payload::Claimed(op::Claimed { slot: 1, round, after });
        let claim = append(&mut ledger, &mut founder, claim).id();
        let activated = Payload::Activated(op::Activated { claim });
        let activation = append(&mut ledger, &mut founder, activated).id();
        let functions = vec!["hello".to_owned()];
        // The ticket of a machine is for that machine alone.
        let (target, ticket) = ("process".to_owned(), author(TICKET + 6));
        let intent = op::Intent { activation, target, functions, key: ticket };
        let intent = append(&mut ledger, &mut founder, Payload::Intent(intent)).id();
        if round == 2 {
            let joins = Payload::Admitted(admitted(&fleet, &intent, 6, MACHINE));
            append(&mut ledger, &mut founder, joins);
        }
        append(&mut ledger, &mut founder, Payload::Released(op::Released { claim }));
        if round == 1 {
            append(&mut ledger, &mut founder, Payload::Retired(op::Retired { intent }));
        }
        after = Some(claim);
    }

    // A second block at the operator's second place, signed aside.
    let base = ledger.get(&first).cloned().expect("deployed");
    let rival = Forged {
        version: 2,
        author: author(OPERATOR),
        session: session(OPERATOR),
        seq: 2,
        prev: first,
        parents: vec![],
        depth: base.order().depth + 1,
        wall_ms: 0,
        grant: base.grant(),
        payload: deploy("rival", 4, &[]),
    };
    ledger.admit(&rival.seal(&fleet, &key(OPERATOR))).expect("valid");
    ledger.publish();
    // The node counts as far as its first block.
    append(&mut ledger, &mut founder, revoked(&[node_grant], &[serves]));
    let certificate = recovery_certificate(&key(RECOVERY), &fleet, 1, &author(RESCUED));
    let recovered =
        op::Recovered { device: author(RESCUED), label: "rescued".to_owned(), generation: 1, certificate };
    append(&mut ledger, &mut founder, Payload::Recovered(recovered));
    let mut rescued = Writer::new(key(RESCUED), session(RESCUED));
    let pins = ledger.pins_for(&author(ADMIN));
    append(&mut ledger, &mut rescued, revoked(&[admin_grant], &pins));
    (ledger, Arc::new(page))
}

fn blocks(ledger: &Ledger) -> Vec<Value> {
    let row = |block: &std::sync::Arc<osiris_ledger::Block>| {
        let (body, signature) = block.entry().split_at(block.entry().len() - 64);
        let WallMs(wall_ms) = block.wall();
        json!({
            "op": block.payload().name(),
            "id": block.id().to_string(),
            "author": block.author().to_string(),
            "session": block.chain().session.to_string(),
            "seq": block.seq(),
            "depth": block.order().depth,
            "wall_ms": wall_ms,
            "body": hex(body),
            "signature": hex(signature),
            "effective": ledger.is_effective(block),
            "void": histories::void(ledger, block),
        })
    };
    ledger.in_order().iter().map(row).collect()
}

fn view(ledger: &mut Ledger) -> Value {
    let view = ledger.publish();
    let member = |member: &osiris_ledger::Member| {
        let roles: Vec<_> = member.roles.iter().map(Role::name).collect();
        json!({ "device": member.device.to_string(), "active": member.active, "roles": roles, "label": member.label })
    };
    let fork = |fork: &osiris_ledger::Fork| {
        json!({
            "author": fork.author.to_string(), "session": fork.session.to_string(), "seq": fork.seq,
            "proof": fork.proof.map(|id| id.to_string()),
        })
    };
    let function = |function: &std::sync::Arc<osiris_ledger::Function>| {
        let ids: Vec<_> = function.revisions.iter().map(|revision| revision.id.to_string()).collect();
        json!({ "name": function.name, "revisions": ids })
    };
    let slot = |slot: &std::sync::Arc<osiris_ledger::lease::Slot>| {
        let machines: Vec<_> = slot.machines.iter().map(|machine| machine.intent.to_string()).collect();
        let claims: Vec<_> = slot.claims.iter().map(|claim| claim.id.to_string()).collect();
        json!({ "number": slot.number, "round": slot.round, "claims": claims, "machines": machines })
    };
    let members = view.members().keys();
    let draining: Vec<_> =
        members.filter(|device| view.scaling().is_draining(device)).map(ToString::to_string).collect();
    json!({
        "hash": hex(&view.hash()),
        "slots": view.slots().values().map(slot).collect::<Vec<_>>(),
        "spawning": json!({ "machines": view.spawning().machines, "minority": view.spawning().minority }),
        "bounds": json!({ "hello": view.scaling().bounds("hello"), "old": view.scaling().bounds("old") }),
        "bounds_of_all": view.scaling().fleet_max(),
        "replicas": view.scaling().replicas("hello").map(|(_, replicas)| replicas),
        "passed_over": view.scaling().passed_over("hello").iter().map(ToString::to_string).collect::<Vec<_>>(),
        "labels": view.scaling().labels(&author(NODE)),
        "draining": draining,
        "budget": view.budget(&author(NODE)),
        "members": view.members().values().map(member).collect::<Vec<_>>(),
        "functions": view.functions().values().map(function).collect::<Vec<_>>(),
        "forks": view.forks().iter().map(fork).collect::<Vec<_>>(),
    })
}

/// Entries that a replica which holds the history refuses, each with the name of its reject.
fn refused(ledger: &mut Ledger) -> Vec<Value> {
    let fleet = ledger.fleet();
    let last = ledger.in_order().pop().expect("blocks");
    let genesis = BlockId(fleet.0);
    let claim = ledger.in_order().into_iter().find(|block| block.payload().name() == "claimed");
    let claim = claim.expect("a claim").id();
    let base = Forged {
        version: 2,
        author: author(FOUNDER),
        session: Session([200; 16]),
        seq: 1,
        prev: BlockId::ZERO,
        parents: vec![last.id()],
        depth: last.order().depth + 1,
        wall_ms: 0,
        grant: genesis,
        payload: deploy("new", 9, &[]),
    };
    let sign = |draft: &Forged<Payload>| draft.seal(&fleet, &key(FOUNDER));
    let with = |change: &dyn Fn(&mut Forged<Payload>)| {
        let mut draft = base.clone();
        change(&mut draft);
        sign(&draft)
    };
    let body = base.body();
    let sealed = |body: &[u8]| forge::seal(body, &fleet, &key(FOUNDER));
    let mut flipped = sign(&base);
    flipped[100] ^= 1;
    let mut s_plus_order = sign(&base);
    add_group_order(&mut s_plus_order);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("signed by another key", base.seal(&fleet, &key(77))),
        ("signed for another fleet", base.seal(&FleetId([9; 32]), &key(FOUNDER))),
        ("a signature that is none", [body.as_slice(), &some_signature().0].concat()),
        ("the signature's s plus the group's order", s_plus_order),
        ("a bit of a parent changed after signing", flipped),
        ("an array without a length", sealed(&[&[0x9f], &body[1..], &[0xff]].concat())),
        ("an integer that is longer than needed", sealed(&[&[0x8a, 0x18, 0x02], &body[2..]].concat())),
        ("a byte behind the array", sealed(&[&body[..], &[0]].concat())),
        ("no block", vec![0; 80]),
        ("too large", vec![0x8a; 3_073]),
        ("a version that does not exist", with(&|draft| draft.version = 9)),
        ("an author of small order", {
            let mut draft = base.clone();
            draft.author = Author({
                let mut neutral = [0; 32];
                neutral[0] = 1;
                neutral
            });
            sign(&draft)
        }),
        ("a sequence number of 0", with(&|draft| draft.seq = 0)),
        ("a predecessor of another chain", with(&|draft| (draft.seq, draft.prev) = (2, last.id()))),
        ("a first block without parents", with(&|draft| draft.parents.clear())),
        ("a parent twice", with(&|draft| draft.parents.push(last.id()))),
        ("a depth that is one too great", with(&|draft| draft.depth += 1)),
        ("a grant of another device", with(&|draft| draft.grant = last.grant())),
        ("a name that is none", with(&|draft| draft.payload = deploy("No", 9, &[]))),
        ("an invitation without uses", with(&|draft| draft.payload = invited(9, 0, &[Role::Node], None))),
        ("a deploy that replaces no deploy", with(&|draft| draft.payload = deploy("new", 9, &[genesis]))),
        ("serving what is no revision", with(&|draft| draft.payload = serving(&last.id()))),
        ("a round that follows none", {
            let claim = op::Claimed { slot: 0, round: 2, after: None };
            with(&|draft| draft.payload = Payload::Claimed(claim.clone()))
        }),
        ("a claim of another slot's next round", {
            let claim = op::Claimed { slot: 0, round: 2, after: Some(claim) };
            with(&|draft| draft.payload = Payload::Claimed(claim.clone()))
        }),
        ("activated in another session than it was claimed", {
            with(&|draft| draft.payload = Payload::Activated(op::Activated { claim }))
        }),
        ("bounds whose least is above the most", {
            let range = Some(op::Range { min: 3, max: 2 });
            let bounded = op::Bounded { name: Some("hello".to_owned()), range };
            with(&|draft| draft.payload = Payload::Bounded(bounded.clone()))
        }),
        ("a count that passes over nobody, and says so", {
            let Forged { version, author, session, seq, prev, parents, depth, wall_ms, grant, .. } =
                base.clone();
            let payload = std::collections::BTreeMap::from([("scaled", ("hello", 3, [(); 0]))]);
            Forged { version, author, session, seq, prev, parents, depth, wall_ms, grant, payload }
                .seal(&fleet, &key(FOUNDER))
        }),
        ("a count that passes over a member twice", {
            let past = vec![author(NODE), author(NODE)];
            let scaled = op::Scaled { name: "hello".to_owned(), replicas: 3, past };
            with(&|draft| draft.payload = Payload::Scaled(scaled.clone()))
        }),
        ("a label with two values", {
            let labelled = op::Labelled { device: author(NODE), labels: vec!["zone=a=b".to_owned()] };
            with(&|draft| draft.payload = Payload::Labelled(labelled.clone()))
        }),
        ("a budget of no blocks", {
            let budgeted = op::Budgeted { device: author(NODE), blocks: 0 };
            with(&|draft| draft.payload = Payload::Budgeted(budgeted.clone()))
        }),
        ("an admission without its proof", {
            let offer = ledger.in_order().into_iter().find(|block| block.payload().name() == "invited");
            let offer = offer.expect("an invitation").id();
            let mut join = admitted(&fleet, &offer, 0, 9);
            join.proof = some_signature();
            with(&|draft| draft.payload = Payload::Admitted(join.clone()))
        }),
    ];
    let mut rows = Vec::new();
    for (what, entry) in cases {
        let reject = ledger.admit(&entry).map(|_| ()).expect_err(what);
        rows.push(json!({ "what": what, "reject": name(&reject), "entry": hex(&entry) }));
    }
    rows
}

/// The malleable form of a signature.
fn add_group_order(entry: &mut [u8]) {
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let start = entry.len() - 32;
    let mut carry = 0_u16;
    for (byte, order) in entry[start..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        (*byte, carry) = (sum.to_le_bytes()[0], sum >> 8);
    }
}

fn name(reject: &Reject) -> String {
    let debug = format!("{reject:?}");
    debug.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

/// A journal of the history: the genesis block alone, then groups of two.
fn journal_files(ledger: &Ledger) -> Value {
    let header = Header { fleet: ledger.fleet(), generation: 1 };
    let blocks = ledger.in_order();
    let (mut bytes, mut head) = journal::write(&header, []);
    let mut head_file = journal::write_head_file(&header, &Head::empty(&header));
    let (first, rest) = blocks.split_at(1);
    for group in std::iter::once(first).chain(rest[..4].chunks(2)) {
        bytes.extend(head.write_group(group.iter().map(|block| block.entry())));
        head_file.extend(head.to_bytes(&header));
    }
    let scan = journal::scan(&bytes, Some(&head)).expect("a journal");
    let records: Vec<_> = scan
        .records
        .iter()
        .map(|record| {
            json!({
                "offset": record.offset, "number": record.head.number, "place": record.place,
                "end": record.head.bytes, "check": hex(&record.head.check), "link": hex(&record.link),
                "block": hex(blake3::hash(record.payload).as_bytes()),
            })
        })
        .collect();
    let damaged = |what: &str, bytes: Vec<u8>| {
        let scan = journal::scan(&bytes, Some(&head)).expect("a journal");
        let numbers: Vec<_> = scan.records.iter().map(|record| record.head.number).collect();
        let holes: Vec<_> = scan
            .damage
            .iter()
            .map(|hole| json!({ "offset": hole.offset, "bytes": hole.bytes, "records": hole.records }))
            .collect();
        json!({
            "what": what, "journal": hex(&bytes), "records": numbers, "damage": holes,
            "tail": scan.torn_tail.map(|tail| json!({ "offset": tail.offset, "bytes": tail.bytes })),
            "holds_head": scan.holds(&head),
        })
    };
    let at = |n: usize| scan.records[n].offset;
    let mut flipped = bytes.clone();
    flipped[at(1) + 60] ^= 4;
    let cases = vec![
        damaged("one flipped bit in the second record", flipped),
        damaged("the second record is missing", [&bytes[..at(1)], &bytes[at(2)..]].concat()),
        damaged("cut within the last record", bytes[..bytes.len() - 9].to_vec()),
        damaged("cut before the last record", bytes[..at(4)].to_vec()),
    ];
    json!({
        "fleet": header.fleet.to_string(), "generation": header.generation, "journal": hex(&bytes),
        "head_file": hex(&head_file), "records": records, "damaged": cases,
    })
}

fn frames(ledger: &mut Ledger) -> Value {
    let blocks = ledger.in_order();
    let entries = blocks.iter().map(|block| block.entry().to_vec().into()).collect();
    let empty = Ledger::new(ledger.fleet());
    let (_, gaps) = empty.compare(&ledger.vector(false), 0);
    let mut bucket = Buckets::NONE;
    bucket.insert(blocks[0].chain().actor()[0]);
    let part = Frame::Part(false, bucket.as_bytes().to_vec().into(), ledger.vector_of(&bucket, false));
    let states = Frame::States;
    let frames = [
        ("digest", Frame::Digest(ledger.digest().to_vec().into())),
        ("short vector", Frame::Vector(false, ledger.vector(false))),
        ("full vector", Frame::Vector(true, ledger.vector(true))),
        ("hashes of buckets", Frame::Buckets(ledger.bucket_hashes().into())),
        ("the part of one bucket", part),
        ("gaps of an empty replica", Frame::Gaps(gaps)),
        ("blocks, and there are more", Frame::Blocks(entries, true)),
        ("pages", Frame::Pages(vec![(BlobHash([7; 32]), 1_000)])),
        ("receipt", Frame::Receipt(vec![blocks[0].id()])),
        ("states that are kept", states(StatesFrame::Notes(vec![(blocks[0].id(), blocks[1].id(), 3)]))),
        ("states that are wanted", states(StatesFrame::Wanted(vec![blocks[0].id()]))),
        ("records of states", states(StatesFrame::Records(vec![vec![8; 90].into()]))),
    ];
    let row = |(what, frame): (&str, Frame)| {
        let bytes = frame.encode();
        assert_eq!(Frame::decode(&bytes), Ok(frame), "{what}");
        json!({ "what": what, "bytes": hex(&bytes) })
    };
    json!({ "protocol": "osiris/sync/1", "frames": frames.map(row), "refused_packed": wire::refused_packed() })
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/vectors").join(name)
}

fn updates() -> bool {
    std::env::var_os("UPDATE_VECTORS").is_some()
}

fn check(name: &str, value: &Value) {
    let path = path(name);
    let mut text = serde_json::to_string_pretty(value).expect("JSON");
    text.push('\n');
    if updates() {
        fs::write(&path, &text).expect("written");
    }
    let held = fs::read_to_string(&path).expect("a file of vectors");
    assert!(
        held == text,
        "{name} is no longer what this build writes; where the format was meant to change: \
         UPDATE_VECTORS=1 cargo test --workspace --test vectors"
    );
}

#[test]
fn the_vectors_are_what_this_build_writes_and_reads() {
    let (mut ledger, page) = history();
    let view = view(&mut ledger);
    let keys: Vec<_> = SEEDS
        .iter()
        .map(|(name, seed)| json!({ "name": name, "seed": hex(&[*seed; 32]), "public": author(*seed).to_string() }))
        .collect();
    let blocks = blocks(&ledger);
    let names: std::collections::BTreeSet<_> = blocks.iter().map(|row| row["op"].to_string()).collect();
    assert_eq!(names.len(), 24, "each operation has a block: {names:?}");
    let verdicts: Vec<_> = blocks.iter().map(|row| row["effective"] == json!(true)).collect();
    assert!(verdicts.contains(&true) && verdicts.contains(&false));
    for void in ["not-given", "revoked", "forked"] {
        assert!(blocks.iter().any(|row| row["void"] == void), "no block is {void}");
    }
    let held = ledger.len();
    let rows = refused(&mut ledger);
    assert_eq!((ledger.len(), ledger.early()), (held, (0, 0)), "what is refused leaves nothing");
    check(
        "ledger.json",
        &json!({
            "version": 2, "fleet": ledger.fleet().to_string(), "keys": keys, "blocks": blocks,
            "digest": hex(&ledger.digest()), "view": view, "refused": rows,
        }),
    );
    check("journal.json", &journal_files(&ledger));
    check("frames.json", &frames(&mut ledger));
    check("page.json", &files::page(&ledger, &page));
    check("archive.json", &files::archive(&ledger, &page));
    check("document.json", &files::document(&ledger, 14));
    let of_kind = |op: &str| ledger.in_order().into_iter().find(|block| block.payload().name() == op);
    let [invitation, grant] = ["invited", "admitted"].map(|op| of_kind(op).expect("a block").id());
    check("wire.json", &wire::wire(ledger.fleet(), invitation, grant, &[grant, invitation]));

    // Whoever gets the entries in another order says the same.
    let mut again = Ledger::new(ledger.fleet());
    for block in ledger.in_order().iter().rev() {
        assert!(matches!(again.admit(block.entry()), Ok(Admission::Early { .. } | Admission::New { .. })));
    }
    assert_eq!(again.publish().hash(), ledger.publish().hash());
    assert_eq!(again.digest(), ledger.digest());
}

#[test]
fn histories_of_hostile_members_are_judged_as_they_were() {
    if updates() {
        check("histories.json", &histories::drawn());
    }
    let held = fs::read_to_string(path("histories.json")).expect("a file of vectors");
    check("histories.json", &histories::again(&serde_json::from_str(&held).expect("JSON")));
}
