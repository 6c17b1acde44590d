//! What a hostile author can send, and the typed answer to each.

mod support;

use osiris_ledger::{
    Admission, Author, BlobHash, BlockId, FleetId, Ledger, Payload, Reject, Role, Roles, Signature,
    join_proof, limits, op,
};
use support::{
    ADMIN, FOUNDER, FOUNDER_ADMIN, Fixture, NODE, OPERATOR, TICKET, admitted, append, author, deploy,
    deployed, fingerprint, forge, found, invited, is_new, key, replica, revoked, serving, session,
    some_signature, user, withdrawn,
};

/// The eight points of small order, as ed25519 encodes them.
const WEAK: [&str; 8] = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
];

fn weak_keys() -> impl Iterator<Item = Author> {
    WEAK.iter().map(|hex| hex.parse().expect("hexadecimal"))
}

#[test]
fn drafts_are_valid_until_something_is_wrong_with_them() {
    let fixture = Fixture::new();
    let answers = [
        fixture.answer(NODE, &fixture.draft(NODE, serving(&fixture.revision))),
        fixture.answer(OPERATOR, &fixture.draft(OPERATOR, deploy("hello", 2, &[fixture.revision]))),
        fixture.answer(ADMIN, &fixture.draft(ADMIN, invited(9, 2, &[Role::Node], None))),
        fixture.answer(NODE, &fixture.draft(NODE, revoked(&[fixture.node], &[]))),
    ];
    for answer in answers {
        assert!(is_new(&answer), "{answer:?}");
    }
}

#[test]
fn an_altered_byte_anywhere_is_refused() {
    let fixture = Fixture::new();
    let mut cases = 0;
    // The genesis block, an invitation, an admission and a deploy.
    for (at, block) in fixture.blocks.iter().enumerate() {
        if ![0, 1, 2, fixture.blocks.len() - 1].contains(&at) {
            continue;
        }
        let mut ledger = replica(fixture.fleet, &fixture.blocks[..at]);
        let before = fingerprint(&mut ledger);
        for byte in 0..block.entry().len() {
            for flip in [0x01, 0x20, 0x80, 0xff] {
                let mut entry = block.entry().to_vec();
                entry[byte] ^= flip;
                let answer = ledger.admit(&entry);
                assert!(answer.is_err(), "block {at} byte {byte} flip {flip}: {answer:?}");
                cases += 1;
            }
        }
        for len in 0..block.entry().len() {
            assert!(ledger.admit(&block.entry()[..len]).is_err(), "block {at} cut at {len}");
        }
        assert_eq!(ledger.early(), (0, 0));
        assert_eq!(fingerprint(&mut ledger), before);
        assert!(is_new(&ledger.admit(block.entry())));
    }
    assert!(cases > 4_000, "only {cases} alterations were tried");
}

#[test]
fn any_other_spelling_of_a_body_is_refused() {
    let fixture = Fixture::new();
    let body = fixture.draft(NODE, serving(&fixture.revision)).body();
    assert_eq!(body[..2], [0x8a, 0x02], "an array of ten, then version 2");
    let spelled = |spelling: &[&[u8]]| {
        let entry = forge::seal(&spelling.concat(), &fixture.fleet, &key(NODE));
        fixture.ledger().admit(&entry).map(|_| ())
    };
    assert_eq!(spelled(&[&body]), Ok(()));
    let other: [(&str, &[&[u8]]); 7] = [
        ("a version in two bytes", &[&[0x8a, 0x18, 0x02], &body[2..]]),
        ("a version in nine bytes", &[&[0x8a, 0x1b, 0, 0, 0, 0, 0, 0, 0, 2], &body[2..]]),
        ("a length in two bytes", &[&[0x98, 0x0a], &body[1..]]),
        ("an array without length", &[&[0x9f], &body[1..], &[0xff]]),
        ("a tag before the array", &[&[0xd9, 0xd9, 0xf7], &body]),
        ("an author in chunks", &[&body[..2], &[0x5f], &body[2..36], &[0xff], &body[36..]]),
        ("a trailing byte", &[&body, &[0]]),
    ];
    for (what, spelling) in other {
        let answer = spelled(spelling);
        assert!(matches!(answer, Err(Reject::NotCanonical | Reject::Malformed)), "{what}: {answer:?}");
    }
    assert_eq!(spelled(other[0].1), Err(Reject::NotCanonical));
    assert_eq!(spelled(other[3].1), Err(Reject::NotCanonical));
    assert_eq!(spelled(other[6].1), Err(Reject::NotCanonical));
}

#[test]
fn bytes_that_are_no_block_are_refused() {
    let fixture = Fixture::new();
    let mut ledger = fixture.ledger();
    assert_eq!(ledger.admit(&[]).err(), Some(Reject::Malformed));
    assert_eq!(ledger.admit(&[0; 63]).err(), Some(Reject::Malformed));
    let nested = forge::seal(&[0x81; 2_000], &fixture.fleet, &key(NODE));
    assert_eq!(ledger.admit(&nested).err(), Some(Reject::Malformed));
    // An array that claims 2^60 elements.
    let huge = forge::seal(&[0x9b, 0x10, 0, 0, 0, 0, 0, 0, 0], &fixture.fleet, &key(NODE));
    assert_eq!(ledger.admit(&huge).err(), Some(Reject::Malformed));
    let unknown = fixture.draft(NODE, std::collections::BTreeMap::from([("erased", [0])]));
    assert_eq!(fixture.answer(NODE, &unknown).err(), Some(Reject::Malformed));
}

#[test]
fn an_entry_above_the_limit_is_refused_unread() {
    let fixture = Fixture::new();
    let mut draft = fixture.draft(NODE, serving(&fixture.revision));
    draft.parents = vec![draft.parents[0]; 100];
    let entry = draft.seal(&fixture.fleet, &key(NODE));
    assert!(entry.len() > limits::ENTRY_BYTES_MAX);
    assert_eq!(fixture.ledger().admit(&entry).err(), Some(Reject::TooLarge(entry.len())));
    let zeros = vec![0; limits::ENTRY_BYTES_MAX + 1];
    assert_eq!(fixture.ledger().admit(&zeros).err(), Some(Reject::TooLarge(zeros.len())));
}

#[test]
fn an_unknown_version_is_refused() {
    let fixture = Fixture::new();
    for version in [0, 1, 3, 255] {
        let mut draft = fixture.draft(NODE, serving(&fixture.revision));
        draft.version = version;
        let expected = Reject::Version(u8::try_from(version).expect("small"));
        assert_eq!(fixture.answer(NODE, &draft).err(), Some(expected));
    }
    // Another version may have another shape: what it is comes first.
    let entry = forge::seal(&[0x82, 0x01, 0x00], &fixture.fleet, &key(NODE));
    assert_eq!(fixture.ledger().admit(&entry).err(), Some(Reject::Malformed), "an array of another length");
    let body = fixture.draft(NODE, [1, 2, 3]).body();
    let entry = forge::seal(&[&[0x8a, 0x01], &body[2..]].concat(), &fixture.fleet, &key(NODE));
    assert_eq!(fixture.ledger().admit(&entry).err(), Some(Reject::Version(1)));
}

#[test]
fn another_key_cannot_sign_for_an_author() {
    let fixture = Fixture::new();
    let draft = fixture.draft(NODE, serving(&fixture.revision));
    for other in [OPERATOR, ADMIN, FOUNDER_ADMIN, 77] {
        let entry = draft.seal(&fixture.fleet, &key(other));
        assert_eq!(fixture.ledger().admit(&entry).err(), Some(Reject::BadSignature), "key {other}");
    }
    let mut unsigned = draft.body();
    unsigned.extend_from_slice(&some_signature().0);
    assert_eq!(fixture.ledger().admit(&unsigned).err(), Some(Reject::BadSignature));
}

#[test]
fn a_weak_key_is_refused_wherever_it_stands() {
    let fixture = Fixture::new();
    for weak in weak_keys() {
        let mut draft = fixture.draft(NODE, serving(&fixture.revision));
        draft.author = weak;
        let mut entry = draft.body();
        // R the neutral element, s zero: holds for every message under a key of small order.
        let mut signature = [0; 64];
        signature[0] = 1;
        entry.extend_from_slice(&signature);
        assert_eq!(fixture.ledger().admit(&entry).err(), Some(Reject::WeakKey), "{weak}");

        let ticket =
            op::Invited { key: weak, uses: 1, roles: Roles::NODE, device: None, note: String::new() };
        let as_ticket = fixture.draft(ADMIN, Payload::Invited(ticket.clone()));
        let as_device = fixture
            .draft(ADMIN, Payload::Invited(op::Invited { key: author(9), device: Some(weak), ..ticket }));
        let join = op::Admitted { device: weak, ..admitted(&fixture.fleet, &fixture.bearer, 0, 9) };
        let as_member = fixture.draft(NODE, Payload::Admitted(join));
        for (device, draft) in [(ADMIN, as_ticket), (ADMIN, as_device), (NODE, as_member)] {
            let answer = fixture.answer(device, &draft);
            assert!(matches!(answer, Err(Reject::Field(_))), "{weak}: {answer:?}");
        }
    }
    // Bytes that are no point of the curve.
    let mut draft = fixture.draft(NODE, serving(&fixture.revision));
    draft.author = Author([2; 32]);
    assert_eq!(fixture.answer(NODE, &draft).err(), Some(Reject::WeakKey));
}

/// A signature by a sound key whose R is the neutral element: RFC 8032 without cofactor takes it, other
/// verifiers do not. Strict verification refuses it, so that no two nodes differ.
fn small_order_signature(key: &osiris_ledger::SigningKey, message: &[u8; 32]) -> [u8; 64] {
    use curve25519_dalek::Scalar;
    use sha2::{Digest as _, Sha512};
    let mut r = [0; 32];
    r[0] = 1;
    let hash =
        Sha512::new().chain_update(r).chain_update(key.verifying_key()).chain_update(message).finalize();
    let wide = <[u8; 64]>::try_from(hash.as_slice()).expect("64 bytes");
    let s = Scalar::from_bytes_mod_order_wide(&wide) * key.to_scalar();
    [r, s.to_bytes()].concat().try_into().expect("64 bytes")
}

#[test]
fn a_signature_over_a_point_of_small_order_is_refused() {
    let fixture = Fixture::new();
    let body = fixture.draft(NODE, serving(&fixture.revision)).body();
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"osiris-ledger-v1").update(&fixture.fleet.0).update(&body);
    let message = *hasher.finalize().as_bytes();
    let signature = small_order_signature(&key(NODE), &message);
    let plain = ed25519_dalek::Signature::from_bytes(&signature);
    ed25519_dalek::Verifier::verify(&key(NODE).verifying_key(), &message, &plain)
        .expect("plain verification takes it, or this test shows nothing");
    let entry = [body.as_slice(), &signature].concat();
    assert_eq!(fixture.ledger().admit(&entry).err(), Some(Reject::BadSignature));

    let mut join = admitted(&fixture.fleet, &fixture.bearer, 0, 9);
    let message = osiris_ledger::join_proof_message(&fixture.fleet, &fixture.bearer, &author(9));
    join.proof = Signature(small_order_signature(&key(TICKET), &message));
    let draft = fixture.draft(NODE, Payload::Admitted(join));
    assert_eq!(fixture.answer(NODE, &draft).err(), Some(Reject::Proof));
}

#[test]
fn a_block_of_another_fleet_is_refused() {
    let fixture = Fixture::new();
    let (mut other, mut founder) = found(1);
    assert_ne!(other.fleet(), fixture.fleet);
    let theirs = append(&mut other, &mut founder, invited(0, 1, &[Role::Node], None));
    assert_eq!(fixture.ledger().admit(theirs.entry()).err(), Some(Reject::BadSignature));
    let genesis = other.get(&BlockId(other.fleet().0)).expect("founded");
    assert_eq!(fixture.ledger().admit(genesis.entry()).err(), Some(Reject::OtherFleet));
    assert_eq!(Ledger::new(FleetId([9; 32])).admit(genesis.entry()).err(), Some(Reject::OtherFleet));
}

#[test]
fn a_second_genesis_is_refused() {
    let fixture = Fixture::new();
    let (second, _) = found(7);
    let Some(Payload::Founded(founded)) = second.in_order().first().map(|block| block.payload().clone())
    else {
        panic!("a genesis block")
    };
    // For this fleet, by a member, in the founder's chain and in any other place.
    let mut draft = fixture.draft(FOUNDER, Payload::Founded(founded));
    draft.session = session(FOUNDER);
    assert_eq!(fixture.answer(FOUNDER, &draft).err(), Some(Reject::Parents));
    draft.parents.clear();
    assert_eq!(fixture.answer(FOUNDER, &draft).err(), Some(Reject::Malformed));
    draft.depth = 1;
    draft.grant = BlockId::ZERO;
    assert_eq!(fixture.answer(FOUNDER, &draft).err(), Some(Reject::BadSignature));
    let entry = draft.seal(&FleetId::ZERO, &key(FOUNDER));
    assert_eq!(fixture.ledger().admit(&entry).err(), Some(Reject::OtherFleet));
}

#[test]
fn a_founding_needs_the_admin_keys_certificate() {
    let fixture = Fixture::new();
    let Payload::Founded(founded) = fixture.blocks[0].payload().clone() else { panic!("a genesis block") };
    let mut draft =
        fixture.draft(FOUNDER, Payload::Founded(op::Founded { certificate: some_signature(), ..founded }));
    draft.parents.clear();
    draft.depth = 1;
    draft.grant = BlockId::ZERO;
    let entry = draft.seal(&FleetId::ZERO, &key(FOUNDER));
    let fleet = FleetId(*blake3::hash(&entry).as_bytes());
    assert_eq!(Ledger::new(fleet).admit(&entry).err(), Some(Reject::Proof));
}

#[test]
fn a_chain_is_only_continued_by_its_author_at_its_end() {
    let fixture = Fixture::new();
    let first = fixture.draft(NODE, serving(&fixture.revision));
    let first_entry = first.seal(&fixture.fleet, &key(NODE));
    let mut ledger = fixture.ledger();
    let Ok(Admission::New { admitted, .. }) = ledger.admit(&first_entry) else { panic!("valid") };
    let first_id = admitted[0].id();
    let mut second = first.clone();
    (second.seq, second.prev, second.depth) = (2, first_id, first.depth + 1);
    second.parents.clear();
    let mut answer = |draft: &forge::Forged<Payload>, device| {
        ledger.admit(&draft.seal(&fixture.fleet, &key(device))).map(|_| ())
    };

    let mut gap = second.clone();
    gap.seq = 3;
    assert_eq!(answer(&gap, NODE), Err(Reject::Seq { expected: 2, got: 3 }));
    gap.seq = u64::MAX;
    assert_eq!(answer(&gap, NODE), Err(Reject::Seq { expected: 2, got: u64::MAX }));
    let mut no_prev = second.clone();
    no_prev.prev = BlockId::ZERO;
    assert_eq!(answer(&no_prev, NODE), Err(Reject::Seq { expected: 1, got: 2 }));
    let mut zeroth = first.clone();
    zeroth.seq = 0;
    assert_eq!(answer(&zeroth, NODE), Err(Reject::Seq { expected: 1, got: 0 }));
    let mut first_with_prev = second.clone();
    first_with_prev.seq = 1;
    first_with_prev.parents = first.parents.clone();
    assert_eq!(answer(&first_with_prev, NODE), Err(Reject::Seq { expected: 1, got: 1 }));

    let mut other_session = second.clone();
    other_session.session = session(201);
    assert_eq!(answer(&other_session, NODE), Err(Reject::OtherChain));
    // Another author's chain: its own key, but a predecessor of NODE's.
    let mut others_chain = second.clone();
    (others_chain.author, others_chain.grant) = (author(OPERATOR), fixture.operator);
    assert_eq!(answer(&others_chain, OPERATOR), Err(Reject::OtherChain));

    for depth in [0, first.depth, first.depth + 2, u64::MAX] {
        let mut draft = second.clone();
        draft.depth = depth;
        assert_eq!(answer(&draft, NODE), Err(Reject::Depth { expected: first.depth + 1, got: depth }));
    }
    assert_eq!(answer(&second, NODE), Ok(()));
}

#[test]
fn parents_are_few_and_distinct() {
    let fixture = Fixture::new();
    let base = fixture.draft(NODE, serving(&fixture.revision));
    let answer = |parents: Vec<BlockId>| {
        let mut draft = base.clone();
        draft.parents = parents;
        fixture.answer(NODE, &draft).map(|_| ())
    };
    let all: Vec<_> = fixture.blocks.iter().map(|block| block.id()).collect();
    let last = base.parents[0];
    assert_eq!(answer(vec![]), Err(Reject::Parents));
    assert_eq!(answer(vec![last, last]), Err(Reject::Parents));
    let many: Vec<_> = (0..9).map(|n| BlockId([n; 32])).collect();
    assert_eq!(many.len(), limits::PARENTS_MAX + 1);
    assert_eq!(answer(many), Err(Reject::Parents));
    let mut shallow = base.clone();
    shallow.parents = vec![all[0]];
    let expected = Reject::Depth { expected: 2, got: base.depth };
    assert_eq!(fixture.answer(NODE, &shallow).err(), Some(expected));
}

#[test]
fn the_grant_must_be_the_authors_and_allow_the_operation() {
    let fixture = Fixture::new();
    let answer = |device, grant, payload| {
        let mut draft = fixture.draft(device, payload);
        draft.grant = grant;
        fixture.answer(device, &draft).map(|_| ())
    };
    let serves = || serving(&fixture.revision);
    // Another device's grant; a block that is no grant; none.
    for grant in [fixture.admin, fixture.genesis, fixture.revision, fixture.bearer, BlockId::ZERO] {
        assert_eq!(answer(NODE, grant, serves()), Err(Reject::Grant), "{grant:?}");
    }
    // A stranger with a key of its own.
    assert_eq!(answer(77, fixture.node, serves()), Err(Reject::Grant));

    let denied: [(u8, Payload); 9] = [
        (NODE, deploy("hello", 2, &[])),
        (NODE, Payload::Removed(op::Removed { name: "hello".to_owned(), replaces: vec![fixture.revision] })),
        (NODE, invited(5, 1, &[Role::Node], None)),
        (NODE, withdrawn(fixture.bearer)),
        (OPERATOR, user(5, 1, Roles::NODE)),
        (NODE, revoked(&[fixture.operator], &[])),
        (OPERATOR, revoked(&[fixture.node], &[])),
        (OPERATOR, revoked(&[fixture.node, fixture.operator], &[])),
        (OPERATOR, invited(5, 1, &[Role::Node], None)),
    ];
    for (device, payload) in denied {
        let name = payload.name();
        assert_eq!(answer(device, fixture.grant(device), payload), Err(Reject::Role), "{device} {name}");
    }
    // A device may leave; that ends its own grant and no other.
    assert_eq!(answer(NODE, fixture.node, revoked(&[fixture.node], &[])), Ok(()));
}

#[test]
fn nobody_grants_what_they_do_not_hold() {
    // A device that is admin without being operator.
    let (mut ledger, mut founder) = found(3);
    let grant = support::enrol(&mut ledger, &mut founder, 1, 9, &[Role::Node, Role::Admin]);
    let head = ledger.in_order().pop().expect("blocks");
    let fixture = Fixture::new();
    let mut draft = fixture.draft(9, invited(2, 1, &[Role::Operator], Some(10)));
    (draft.grant, draft.parents, draft.depth) = (grant, vec![head.id()], head.order().depth + 1);
    let entry = draft.seal(&ledger.fleet(), &key(9));
    assert_eq!(ledger.admit(&entry).err(), Some(Reject::Role));
    draft.payload = invited(2, 1, &[Role::Node], Some(10));
    assert!(is_new(&ledger.admit(&draft.seal(&ledger.fleet(), &key(9)))));
}

#[test]
fn an_admission_needs_the_tickets_proof_for_this_device_and_fleet() {
    let fixture = Fixture::new();
    let good = admitted(&fixture.fleet, &fixture.bearer, 0, 9);
    let answer = |op: op::Admitted| fixture.answer(NODE, &fixture.draft(NODE, Payload::Admitted(op)));
    assert!(is_new(&answer(good.clone())));
    let ticket = key(TICKET);
    let wrong = [
        some_signature(),
        Signature([0; 64]),
        admitted(&fixture.fleet, &fixture.bearer, 1, 9).proof,
        admitted(&fixture.fleet, &fixture.bearer, 0, 10).proof,
        admitted(&fixture.fleet, &fixture.named, 0, 9).proof,
        join_proof(&ticket, &FleetId([1; 32]), &fixture.bearer, &author(9)),
    ];
    for proof in wrong {
        assert_eq!(answer(op::Admitted { proof, ..good.clone() }).err(), Some(Reject::Proof));
    }
    // An invitation for OPERATOR, redeemed with its own ticket for another device.
    let stolen = admitted(&fixture.fleet, &fixture.named, 1, 9);
    assert_eq!(answer(stolen).err(), Some(Reject::Proof));
}

#[test]
fn references_are_of_the_right_kind() {
    let fixture = Fixture::new();
    let answer = |device, payload| fixture.answer(device, &fixture.draft(device, payload)).map(|_| ());
    let wrong: [(u8, Payload); 14] = [
        (NODE, serving(&fixture.bearer)),
        (NODE, serving(&fixture.genesis)),
        (NODE, Payload::Stopped(op::Stopped { revision: fixture.node })),
        (OPERATOR, deploy("other", 1, &[fixture.revision])),
        (OPERATOR, deploy("hello", 1, &[fixture.bearer])),
        (
            OPERATOR,
            Payload::Removed(op::Removed { name: "other".to_owned(), replaces: vec![fixture.revision] }),
        ),
        (ADMIN, withdrawn(fixture.node)),
        (ADMIN, revoked(&[fixture.bearer], &[])),
        (ADMIN, revoked(&[fixture.node, fixture.operator], &[])),
        (ADMIN, revoked(&[fixture.node], &[fixture.revision])),
        (ADMIN, revoked(&[fixture.node], &[fixture.genesis])),
        (ADMIN, {
            let stands = vec![fixture.operator];
            Payload::Withdrawn(op::Withdrawn { invitation: fixture.bearer, stands })
        }),
        (NODE, Payload::Admitted(admitted(&fixture.fleet, &fixture.node, 0, 9))),
        (NODE, Payload::Admitted(admitted(&fixture.fleet, &fixture.revision, 0, 9))),
    ];
    for (device, payload) in wrong {
        let what = format!("{payload:?}");
        assert_eq!(answer(device, payload), Err(Reject::ReferenceKind), "{what}");
    }
}

#[test]
fn references_lie_below() {
    let fixture = Fixture::new();
    let at = |device, payload, parent: usize| {
        let mut draft = fixture.draft(device, payload);
        let parent = &fixture.blocks[parent];
        draft.parents = vec![parent.id()];
        draft.depth = parent.order().depth + 1;
        fixture.answer(device, &draft).map(|_| ())
    };
    // A grant, a revision and an invitation that are not below the genesis block's first child.
    assert_eq!(at(NODE, serving(&fixture.revision), 0), Err(Reject::ReferenceDepth));
    let before_revision = fixture.blocks.len() - 2;
    assert_eq!(at(NODE, serving(&fixture.revision), before_revision), Err(Reject::ReferenceDepth));
    let join = Payload::Admitted(admitted(&fixture.fleet, &fixture.bearer, 0, 9));
    assert_eq!(at(FOUNDER, join, 0), Err(Reject::ReferenceDepth));
}

#[test]
fn fields_out_of_range_are_refused() {
    let fixture = Fixture::new();
    let refused = |device, payload: Payload| {
        let what = format!("{payload:?}");
        let answer = fixture.answer(device, &fixture.draft(device, payload));
        assert!(matches!(answer, Err(Reject::Field(_))), "{what}: {answer:?}");
    };
    let long = "a".repeat(limits::NAME_CHARS_MAX + 1);
    for name in
        ["", "Hello", "1st", "-a", "a-", "a_b", "a.b", "a/b", "../a", "a b", "a\0", "ä", "a\u{202e}", &long]
    {
        refused(OPERATOR, deploy(name, 1, &[]));
        let replaces = vec![fixture.revision];
        refused(OPERATOR, Payload::Removed(op::Removed { name: name.to_owned(), replaces }));
    }
    let good = deployed("hello", 1, &[]);
    let with = |size, manifest_size| Payload::Deployed(op::Deployed { size, manifest_size, ..good.clone() });
    for (size, manifest_size) in [
        (0, 1),
        (1, 0),
        (limits::COMPONENT_BYTES_MAX + 1, 1),
        (1, limits::MANIFEST_BYTES_MAX + 1),
        (u64::MAX, 1),
    ] {
        refused(OPERATOR, with(size, manifest_size));
    }
    let mut many: Vec<_> = (0..9).map(|n| BlockId([n; 32])).collect();
    refused(OPERATOR, Payload::Deployed(op::Deployed { replaces: many.clone(), ..good.clone() }));
    many.truncate(2);
    many.reverse();
    refused(OPERATOR, Payload::Deployed(op::Deployed { replaces: many, ..good.clone() }));
    let twice = vec![fixture.revision; 2];
    refused(OPERATOR, Payload::Deployed(op::Deployed { replaces: twice, ..good }));
    refused(OPERATOR, Payload::Removed(op::Removed { name: "hello".to_owned(), replaces: vec![] }));
    refused(NODE, Payload::Serving(op::Serving { revision: fixture.revision, concurrency: 0 }));

    let label_long = "a".repeat(limits::LABEL_BYTES_MAX + 1);
    for label in
        ["", "a\nb", "\u{1b}[2J", "a\u{7f}", "a\u{85}", "\u{202e}exe", "a\u{200b}", "\u{feff}a", &label_long]
    {
        let join = admitted(&fixture.fleet, &fixture.bearer, 0, 9);
        refused(NODE, Payload::Admitted(op::Admitted { label: label.to_owned(), ..join }));
    }
    let invitation = op::Invited {
        key: author(9),
        uses: 1,
        roles: Roles::NODE,
        device: None,
        note: "for the roof".to_owned(),
    };
    for uses in [0, limits::INVITATION_USES_MAX + 1, u32::MAX] {
        refused(ADMIN, Payload::Invited(op::Invited { uses, ..invitation.clone() }));
    }
    for roles in [Roles::NONE, Roles::ALL, Roles::of(&[Role::Operator]), Roles::of(&[Role::Admin])] {
        // The higher ones without a named device.
        refused(ADMIN, Payload::Invited(op::Invited { roles, ..invitation.clone() }));
    }
    refused(ADMIN, Payload::Invited(op::Invited { note: "\u{1b}]0;".to_owned(), ..invitation }));

    refused(ADMIN, revoked(&[], &[]));
    let grants: Vec<_> = (0..9).map(|n| BlockId([n; 32])).collect();
    refused(ADMIN, revoked(&grants, &[]));
    refused(ADMIN, revoked(&[fixture.node, fixture.node], &[]));
    let pins: Vec<_> = (0..33).map(|n| BlockId([n; 32])).collect();
    let fits = forge::Forged { parents: vec![], ..fixture.draft(ADMIN, revoked(&[fixture.node], &pins)) };
    assert!(fits.body().len() < limits::ENTRY_BYTES_MAX, "the pins' limit must be what refuses it");
    refused(ADMIN, revoked(&[fixture.node], &pins));
    let twice = op::Revoked { grants: vec![fixture.node], pins: vec![fixture.revision; 2] };
    refused(ADMIN, Payload::Revoked(twice));
    let stands = (0..17).map(|n| BlockId([n; 32])).collect();
    refused(ADMIN, Payload::Withdrawn(op::Withdrawn { invitation: fixture.bearer, stands }));
    refused(ADMIN, user(5, 0, Roles::NODE));
    refused(ADMIN, user(5, 1_001, Roles::NODE));
    refused(ADMIN, user(5, 1, Roles::NONE));
    let recovered = op::Recovered {
        device: author(5),
        label: "back".to_owned(),
        generation: 0,
        certificate: support::some_signature(),
    };
    refused(ADMIN, Payload::Recovered(recovered));
}

/// Roles that no version of this format knows: the type cannot hold them, so the CBOR is made here.
#[test]
fn unknown_roles_and_worlds_are_refused() {
    let fixture = Fixture::new();
    for roles in [128_u8, 129, 255] {
        let payload =
            std::collections::BTreeMap::from([("invited", (author(9), 1, roles, Some(author(10)), "note"))]);
        let answer = fixture.answer(ADMIN, &fixture.draft(ADMIN, payload));
        assert!(matches!(answer, Err(Reject::Field(_))), "{roles}: {answer:?}");
    }
    let hash = BlobHash([1; 32]);
    let with = |world: &'static str| {
        let fields = ("hello", hash, 1, world, hash, 1, Vec::<BlockId>::new());
        fixture.answer(
            OPERATOR,
            &fixture.draft(OPERATOR, std::collections::BTreeMap::from([("deployed", fields)])),
        )
    };
    assert!(is_new(&with("http")));
    assert_eq!(with("kernel").err(), Some(Reject::Malformed));
}
