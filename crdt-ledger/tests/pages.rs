//! Pages of summaries: who seals them, which are believed, and what a hostile one comes to.

mod support;

use std::sync::Arc;

use osiris_ledger::{
    Author, Block, BlockId, Ledger, Now, Page, Payload, Reject, Role, Writer, is_enough, limits, op,
};
use support::{
    FOUNDER, Forged, NODE, append, author, copy, deploy, enrol, found, is_new, key, merge, replica, revoked,
    serving, session,
};

fn device(n: u8) -> Writer {
    Writer::new(key(n), session(n))
}

fn voters(devices: &[u8]) -> Payload {
    let mut devices: Vec<_> = devices.iter().map(|n| author(*n)).collect();
    devices.sort_unstable();
    Payload::Voters(op::Voters { devices })
}

/// A fleet with a function that a node served and stopped, three devices that may seal, and a page of it.
struct Fleet {
    ledger: Ledger,
    founder: Writer,
    grants: Vec<BlockId>,
    revision: BlockId,
    page: Arc<Page>,
}

const VOTERS: [u8; 3] = [20, 21, 22];

fn fleet() -> Fleet {
    let (mut ledger, mut founder) = found(0);
    enrol(&mut ledger, &mut founder, 0, NODE, &[Role::Node]);
    let enrolled = VOTERS
        .iter()
        .zip(1..)
        .map(|(voter, ticket)| enrol(&mut ledger, &mut founder, ticket, *voter, &[Role::Node, Role::Voter]));
    let grants = enrolled.collect();
    let revision = append(&mut ledger, &mut founder, deploy("hello", 1, &[])).id();
    let mut node = device(NODE);
    for _ in 0..4 {
        append(&mut ledger, &mut node, serving(&revision));
        append(&mut ledger, &mut node, Payload::Stopped(op::Stopped { revision }));
    }
    append(&mut ledger, &mut node, serving(&revision));
    let page = page_of(&ledger);
    Fleet { ledger, founder, grants, revision, page }
}

fn page_of(ledger: &Ledger) -> Arc<Page> {
    let blocks = ledger.in_order();
    Arc::new(Page::of(ledger.fleet(), blocks.iter().map(AsRef::<Block>::as_ref)).expect("a page"))
}

fn seal(ledger: &mut Ledger, voter: &mut Writer, page: &Page) -> BlockId {
    let said = ledger.seal_of(&voter.author(), page).expect("a voter that holds all of it");
    append(ledger, voter, said).id()
}

/// What a replica says that knows nothing yet, gets these pages and all other blocks.
fn joined(blocks: &[Arc<Block>], page: &Arc<Page>, fleet: &Ledger) -> Ledger {
    let mut joined = Ledger::new(fleet.fleet());
    joined.offer(page);
    let full = blocks.iter().filter(|block| page.summaries().all(|row| row.id() != block.id()));
    for block in full {
        let _ = joined.admit(block.entry());
    }
    joined.take_offered();
    joined.publish();
    joined
}

#[test]
fn a_page_is_sealed_by_more_than_two_thirds() {
    let enough = |n: usize| (0..=n).find(|seals| is_enough(*seals, n));
    let least: Vec<_> = (1..=7).filter_map(enough).collect();
    assert_eq!(least, [1, 2, 3, 3, 4, 5, 5]);

    let Fleet { mut ledger, mut founder, page, .. } = fleet();
    append(&mut ledger, &mut founder, voters(&VOTERS));
    assert_eq!(ledger.voters().map(|voters| voters.devices.len()), Some(3));
    for (n, voter) in VOTERS.iter().enumerate() {
        assert!(!ledger.is_sealed(&page.hash()), "{n} of 3");
        seal(&mut ledger, &mut device(*voter), &page);
    }
    assert!(ledger.is_sealed(&page.hash()));
    let row = ledger.publish().pages()[0].clone();
    assert_eq!((row.page, row.by.len(), row.sealed), (page.hash(), 3, true));
    assert_eq!(row.size as usize, page.encode().len());

    // Others become voters: what was sealed stays sealed.
    append(&mut ledger, &mut founder, voters(&[FOUNDER]));
    assert!(ledger.is_sealed(&page.hash()));
    assert!(ledger.seal_of(&author(VOTERS[0]), &page).is_none(), "no voter any more");
}

#[test]
fn the_founding_device_alone_seals_until_voters_are_named() {
    let Fleet { mut ledger, mut founder, page, .. } = fleet();
    assert!(ledger.seal_of(&author(VOTERS[0]), &page).is_none());
    seal(&mut ledger, &mut founder, &page);
    assert!(ledger.is_sealed(&page.hash()));
}

#[test]
fn who_is_not_named_or_has_no_such_role_cannot_seal() {
    let Fleet { mut ledger, mut founder, page, .. } = fleet();
    let named = append(&mut ledger, &mut founder, voters(&[VOTERS[0], NODE])).id();
    let size = u32::try_from(page.encode().len()).expect("small");
    let said = |voters| Payload::Sealed(op::Sealed { voters, page: page.hash(), size });
    let try_to = |ledger: &mut Ledger, n: u8, said| device(n).append(ledger, Now::default(), said).err();
    assert!(matches!(
        try_to(&mut ledger, VOTERS[1], said(named)),
        Some(osiris_ledger::AppendError::Invalid(Reject::ReferenceKind))
    ));
    assert!(matches!(
        try_to(&mut ledger, NODE, said(named)),
        Some(osiris_ledger::AppendError::Denied(Role::Voter))
    ));
    let genesis = BlockId(ledger.fleet().0);
    assert!(try_to(&mut ledger, VOTERS[1], said(genesis)).is_some(), "only its author is named there");
    assert!(try_to(&mut ledger, VOTERS[0], voters(&[VOTERS[0]])).is_some(), "no admin");
    for size in [0, u32::MAX] {
        let said = Payload::Sealed(op::Sealed { voters: named, page: page.hash(), size });
        assert!(try_to(&mut ledger, VOTERS[0], said).is_some());
    }
    assert_eq!(try_to(&mut ledger, VOTERS[0], said(named)), None);
}

#[test]
fn a_void_seal_and_a_void_naming_of_voters_count_for_nothing() {
    let Fleet { mut ledger, mut founder, grants, page, .. } = fleet();
    append(&mut ledger, &mut founder, voters(&VOTERS));
    for voter in VOTERS {
        seal(&mut ledger, &mut device(voter), &page);
    }
    let mut kept = copy(&ledger);
    let pins = kept.pins_for(&author(VOTERS[0]));
    append(&mut kept, &mut device_again(FOUNDER), revoked(&grants[..1], &pins));
    assert!(kept.is_sealed(&page.hash()), "what a voter sealed before it was revoked goes on counting");
    append(&mut ledger, &mut founder, revoked(&grants[..1], &[]));
    assert!(!ledger.is_sealed(&page.hash()), "a voter whose seal is void");

    let Fleet { mut ledger, mut founder, page, .. } = fleet();
    let admin = enrol(&mut ledger, &mut founder, 9, 30, &Role::ALL);
    let mut hostile = device(30);
    append(&mut ledger, &mut hostile, voters(&[30]));
    seal(&mut ledger, &mut hostile, &page);
    assert!(ledger.is_sealed(&page.hash()));
    append(&mut ledger, &mut founder, revoked(&[admin], &[]));
    assert!(!ledger.is_sealed(&page.hash()), "voters whom a revoked admin named");
    assert_eq!(ledger.voters().map(|voters| voters.devices), Some(vec![author(FOUNDER)]));
}

/// A second session of a device.
fn device_again(n: u8) -> Writer {
    Writer::new(key(n), session(n + 100))
}

#[test]
fn a_replica_joins_from_a_sealed_page_and_not_from_another() {
    let Fleet { mut ledger, mut founder, page, .. } = fleet();
    let unsealed = joined(&ledger.in_order(), &page, &ledger);
    assert_eq!((unsealed.len(), unsealed.offered()), (ledger.len(), 0), "it fits");
    assert_eq!(unsealed.vouched(), Err(page.hash()), "and nobody vouches for it");

    seal(&mut ledger, &mut founder, &page);
    let mut good = joined(&ledger.in_order(), &page, &ledger);
    assert_eq!(good.vouched(), Ok(()));
    assert_eq!(good.publish().hash(), ledger.publish().hash());
    assert_eq!(good.digest(), ledger.digest());
    assert_eq!(good.verify(), Ok(ledger.len()));
    assert!(good.seal_of(&author(FOUNDER), &page).is_none(), "who holds summaries vouches for none");
    // It goes on: others write above what it has as summaries, and it writes itself.
    let mut late = device_again(NODE);
    let revision = ledger.publish().function("hello").expect("deployed").revisions[0].id;
    append(&mut good, &mut late, serving(&revision));
    merge(&mut [&mut ledger, &mut good]);
    assert_eq!(good.publish().hash(), ledger.publish().hash());
    assert_eq!(good.digest(), ledger.digest());
}

/// Every kind of lie in one summary, told with all other blocks true and the true page sealed.
#[test]
fn an_invented_or_altered_summary_never_gets_in() {
    let Fleet { mut ledger, mut founder, page, revision, .. } = fleet();
    seal(&mut ledger, &mut founder, &page);
    let blocks = ledger.in_order();
    let bytes = page.encode();
    let mut refused = [0, 0, 0];
    for at in 0..bytes.len() {
        for bit in [0, 3, 7] {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            let Ok(lie) = Page::decode(&ledger.fleet(), &changed).map(Arc::new) else {
                refused[0] += 1;
                continue;
            };
            let taken = joined(&blocks, &lie, &ledger);
            refused[if taken.page_fault().is_some() { 1 } else { 2 }] += 1;
            assert_eq!(taken.vouched(), Err(lie.hash()), "byte {at} bit {bit}");
        }
    }
    assert!(refused.iter().all(|count| *count > 0), "by shape, by a rule, by its name: {refused:?}");

    // A page of blocks that nobody wrote, of the right shape, sealed by nobody who counts.
    let mut other = replica(ledger.fleet(), &blocks);
    append(&mut other, &mut device_again(NODE), serving(&revision));
    let invented = page_of(&other);
    assert_eq!(joined(&blocks, &invented, &ledger).vouched(), Err(invented.hash()));
    assert!(ledger.seal_of(&author(FOUNDER), &invented).is_none(), "a voter does not seal what it lacks");
}

#[test]
fn a_page_has_one_form_and_one_fleet() {
    let Fleet { ledger, page, .. } = fleet();
    let bytes = page.encode();
    let (other, _) = found(1);
    assert!(Page::decode(&other.fleet(), &bytes).is_err(), "another fleet");
    assert!(Page::decode(&ledger.fleet(), &[bytes.as_slice(), b"\0"].concat()).is_err(), "a tail");
    assert!(Page::decode(&ledger.fleet(), &[]).is_err());
    assert!(Page::decode(&ledger.fleet(), &vec![0; limits::PAGE_BYTES_MAX + 1]).is_err());
    let mut shuffled = ledger.in_order();
    shuffled.reverse();
    let again = Page::of(ledger.fleet(), shuffled.iter().map(AsRef::<Block>::as_ref)).expect("a page");
    assert_eq!(again.hash(), page.hash(), "whatever the order in which its blocks are named");
}

/// Replicas that hold the same blocks propose the same page, and what is sealed is proposed no more.
#[test]
fn voters_converge_on_the_same_pages() {
    let Fleet { mut ledger, mut founder, revision, .. } = fleet();
    let mut node = device_again(NODE);
    let rows = u64::try_from(limits::PAGE_ROWS_MAX).expect("small");
    while ledger.len() < rows + limits::PAGE_MARGIN_DEPTH {
        assert!(ledger.next_page().is_none());
        for _ in 0..1_024 {
            node.append(&mut ledger, Now::default(), serving(&revision)).expect("allowed");
        }
    }
    for _ in 0..64 {
        node.append(&mut ledger, Now::default(), serving(&revision)).expect("allowed");
    }
    ledger.publish();
    let page = Arc::new(ledger.next_page().expect("enough for a page"));
    assert_eq!(page.rows() as usize, limits::PAGE_ROWS_MAX);
    assert!(page.encode().len() <= limits::PAGE_BYTES_MAX);
    let mut mixed = ledger.in_order();
    mixed.chunks_mut(100).for_each(<[_]>::reverse);
    let mut other = Ledger::new(ledger.fleet());
    other.admit_all(&mixed.iter().map(|block| block.entry()).collect::<Vec<_>>());
    other.publish();
    assert_eq!(other.next_page().map(|page| page.hash()), Some(page.hash()));
    seal(&mut ledger, &mut founder, &page);
    let before = (ledger.publish().hash(), ledger.digest(), ledger.len());
    ledger.cover(&page);
    assert!(ledger.next_page().is_none(), "kept in full, and proposed no more");
    assert_eq!(ledger.prune(&page), Ok(rows));
    assert!(ledger.next_page().is_none());
    assert_eq!((ledger.publish().hash(), ledger.digest(), ledger.len()), before);
    let own: Author = node.author();
    assert_eq!(ledger.pins_for(&own), other.pins_for(&own));
}

/// The first blocks of a device's sessions lead from a pin to its earlier sessions. Here a session is forked at its
/// first block, and two sessions cite one branch each: which one is followed must not depend on whether the block
/// that cites both is here in full or as a summary, whose parents stand in another order.
#[test]
fn what_a_pin_leads_to_is_the_same_by_summaries() {
    let Fleet { mut ledger, revision, .. } = fleet();
    let (fleet, node) = (ledger.fleet(), author(NODE));
    let grant = ledger.in_order().iter().find(|block| block.chain().author == node).expect("a block").grant();
    let draft = |ledger: &Ledger, n: u8, parents: &[BlockId], concurrency: u32| Forged {
        version: 2,
        author: node,
        session: session(n),
        seq: 1,
        prev: BlockId::ZERO,
        parents: parents.to_vec(),
        depth: 1 + parents
            .iter()
            .map(|id| ledger.get(id).expect("here").order().depth)
            .max()
            .expect("parents"),
        wall_ms: 0,
        grant,
        payload: Payload::Serving(op::Serving { revision, concurrency }),
    };
    let write = |ledger: &mut Ledger, n: u8, parents: &[BlockId], concurrency: u32| {
        let entry = draft(ledger, n, parents, concurrency).seal(&fleet, &key(NODE));
        assert!(is_new(&ledger.admit(&entry)));
        Block::id_of(&entry)
    };
    // Session 40 has a first block; 41 is forked at its first, of which only one branch cites it.
    let old = write(&mut ledger, 40, &[revision], 1);
    let branches = [write(&mut ledger, 41, &[old], 2), write(&mut ledger, 41, &[revision], 2)];
    let citing = [write(&mut ledger, 42, &[branches[0]], 3), write(&mut ledger, 43, &[branches[1]], 3)];
    let mut verdicts = Vec::new();
    for (n, order) in [(44, citing), (45, [citing[1], citing[0]])] {
        let mut whole = copy(&ledger);
        let entry = draft(&ledger, n, &order, 4).seal(&fleet, &key(NODE));
        assert!(is_new(&whole.admit(&entry)));
        let mut admin = Writer::new(key(FOUNDER), session(46));
        append(&mut whole, &mut admin, revoked(&[grant], &[Block::id_of(&entry)]));
        let again = joined(&whole.in_order(), &page_of(&whole), &whole);
        assert_eq!(again.len(), whole.len());
        assert_eq!(again.counts(&old), whole.counts(&old), "in either order");
        verdicts.push(whole.counts(&old));
    }
    assert_eq!(verdicts[0], verdicts[1], "the author's order of parents decides nothing");
}
