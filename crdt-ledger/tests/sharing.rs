//! Replicas that share their beginning, and what follows from their blocks, are replicas like any other.

mod support;

use std::{collections::BTreeSet, sync::Arc};

use osiris_ledger::{Block, BlockId, Ledger, Memo, Payload, Role, Writer, op};
use support::{
    ADMIN, FOUNDER, NODE, OPERATOR, admitted, append, author, deploy, enrol, found, invited, key, replica,
    revoked, serving, session,
};

/// A fleet of four, and its blocks in order.
fn fleet() -> (Ledger, Writer, [BlockId; 3], Vec<Arc<Block>>) {
    let (mut ledger, mut founder) = found(1);
    let grants = [
        enrol(&mut ledger, &mut founder, 1, NODE, &[Role::Node]),
        enrol(&mut ledger, &mut founder, 2, OPERATOR, &[Role::Node, Role::Operator]),
        enrol(&mut ledger, &mut founder, 3, ADMIN, &[Role::Node, Role::Admin]),
    ];
    let blocks = ledger.in_order();
    (ledger, founder, grants, blocks)
}

/// A replica with these blocks that others are forked from.
fn beginning(ledger: &Ledger, blocks: &[Arc<Block>]) -> Ledger {
    let mut first = Ledger::sharing(Memo::new(ledger.fleet()));
    for block in blocks {
        first.admit(block.entry()).expect("a valid block");
    }
    first.freeze();
    first
}

fn take(ledger: &mut Ledger, blocks: &[Arc<Block>]) {
    for block in blocks {
        ledger.admit(block.entry()).expect("a valid block");
    }
    ledger.publish();
}

/// Two replicas hold the same, say the same and answer alike.
fn assert_same(one: &mut Ledger, other: &mut Ledger) {
    let (first, second) = (one.publish(), other.publish());
    assert!(first.says_the_same(&second), "{first:?} {second:?}");
    assert_eq!((first.hash(), one.digest()), (second.hash(), other.digest()));
    assert_eq!(one.bucket_hashes(), other.bucket_hashes());
    assert_eq!((one.vector(true), one.heads()), (other.vector(true), other.heads()));
    assert_eq!((one.len(), one.len_full(), one.early()), (other.len(), other.len_full(), other.early()));
    let ids = |ledger: &Ledger| ledger.in_order().iter().map(|block| block.id()).collect::<Vec<_>>();
    assert_eq!(ids(one), ids(other));
    for block in one.in_order() {
        assert_eq!(one.is_effective(&block), other.is_effective(&block));
        assert_eq!(one.tree_of(&block.id()), other.tree_of(&block.id()));
        assert_eq!(one.user_of(&block.id()), other.user_of(&block.id()));
        assert_eq!(one.written_by(&block.author()), other.written_by(&block.author()));
        assert_eq!(one.pins_for(&block.author()), other.pins_for(&block.author()));
    }
    assert_eq!(one.check_signatures(None, 1_000), other.check_signatures(None, 1_000));
    assert_eq!(one.verify(), other.verify());
    assert_eq!(one.document_heads(), other.document_heads());
}

#[test]
fn a_fork_is_what_a_replay_of_its_blocks_gives() {
    let (ledger, _, _, blocks) = fleet();
    let mut first = beginning(&ledger, &blocks);
    for at in 0..blocks.len() {
        let mut some = beginning(&ledger, &blocks[..at]);
        take(&mut some, &blocks[at..]);
        assert_same(&mut some.fork(), &mut replica(ledger.fleet(), &blocks));
        some.freeze();
        assert_same(&mut some, &mut first.fork());
    }
    assert_same(&mut first, &mut replica(ledger.fleet(), &blocks));
}

#[test]
fn what_a_fork_takes_in_later_neither_its_origin_nor_another_knows() {
    let (mut ledger, mut founder, grants, blocks) = fleet();
    let mut first = beginning(&ledger, &blocks);
    let (mut one, mut other) = (first.fork(), first.fork());
    append(&mut ledger, &mut founder, revoked(&[grants[0]], &[]));
    let invitation = append(&mut ledger, &mut founder, invited(4, 2, &[Role::Node], None)).id();
    for device in [7, 8] {
        let op = admitted(&ledger.fleet(), &invitation, 4, device);
        append(&mut ledger, &mut founder, Payload::Admitted(op));
    }
    let later = ledger.in_order()[blocks.len()..].to_vec();
    take(&mut one, &later);
    assert!(!one.publish().is_member(&author(NODE)) && one.publish().is_member(&author(8)));
    assert_same(&mut one, &mut ledger);
    for held in [&mut first, &mut other] {
        assert!(held.publish().is_member(&author(NODE)) && !held.knows(&author(8)));
        assert_same(held, &mut replica(ledger.fleet(), &blocks));
    }
    // In another order.
    for block in later.iter().rev() {
        other.admit(block.entry()).expect("a valid block");
    }
    assert_same(&mut other, &mut one);
}

#[test]
fn blocks_of_the_beginning_are_voided_by_revocations_and_forks_that_come_later() {
    let (mut ledger, mut founder, grants, _) = fleet();
    let mut operator = Writer::new(key(OPERATOR), session(OPERATOR));
    let revision = append(&mut ledger, &mut operator, deploy("web", 1, &[])).id();
    let mut node = Writer::new(key(NODE), session(NODE));
    append(&mut ledger, &mut node, serving(&revision));
    let blocks = ledger.in_order();
    let mut first = beginning(&ledger, &blocks);
    // The operator's deploy, which all begin with, counts no more.
    let revocation = append(&mut ledger, &mut founder, revoked(&[grants[1]], &[]));
    let mut one = first.fork();
    assert_eq!(one.publish().functions().len(), 1);
    take(&mut one, std::slice::from_ref(&revocation));
    assert_eq!(one.publish().functions().len(), 0);
    assert_same(&mut one, &mut ledger);
    // The node forked its chain at its first block, as another replica shows.
    let mut twin = Writer::new(key(NODE), session(NODE));
    let mut apart = replica(ledger.fleet(), &blocks[..blocks.len() - 1]);
    let second = append(&mut apart, &mut twin, Payload::Stopped(op::Stopped { revision }));
    let mut forked = first.fork();
    take(&mut forked, &[Arc::clone(&second), revocation]);
    take(&mut ledger, &[second]);
    assert_eq!(forked.publish().forks().len(), 1);
    assert_same(&mut forked, &mut ledger);
    assert_same(&mut first.fork(), &mut replica(ledger.fleet(), &blocks));
    assert_same(&mut first, &mut replica(ledger.fleet(), &blocks));
}

#[test]
fn forks_forget_and_follow_like_others() {
    let (mut ledger, mut founder, _, blocks) = fleet();
    let first = beginning(&ledger, &blocks);
    let newest = append(&mut ledger, &mut founder, invited(4, 1, &[Role::Node], None));
    let mut one = first.fork();
    take(&mut one, &[newest]);
    let mut other = first.fork();
    other.follow(&one);
    assert_same(&mut other, &mut ledger);
    // The last admission, which is in the beginning, and all that follows it.
    let gone = BTreeSet::from([blocks[blocks.len() - 1].id()]);
    for held in [&mut one, &mut ledger] {
        held.forget(&gone);
    }
    assert_eq!(one.early().0, 1);
    assert_eq!((one.publish().hash(), one.digest()), (ledger.publish().hash(), ledger.digest()));
    let mut apart = other.apart();
    assert_same(&mut apart, &mut other);
}

#[test]
fn replicas_with_one_memo_share_what_follows_from_equal_blocks_unless_one_works_alone() {
    let (mut ledger, mut founder, _, blocks) = fleet();
    let first = beginning(&ledger, &blocks);
    let (mut one, mut other, mut alone) = (first.fork(), first.fork(), first.fork());
    alone.derive_alone();
    let before = Arc::clone(one.publish().shared_members());
    assert!(Arc::ptr_eq(&before, other.publish().shared_members()));
    enrol(&mut ledger, &mut founder, 4, 7, &[Role::Node]);
    let later = &ledger.in_order()[blocks.len()..];
    let views = [&mut one, &mut other, &mut alone].map(|held| {
        take(held, later);
        held.publish()
    });
    assert!(views[0].is_member(&author(7)) && !before.contains_key(&author(7)));
    assert!(Arc::ptr_eq(views[0].shared_members(), views[1].shared_members()));
    assert!(!Arc::ptr_eq(views[0].shared_members(), views[2].shared_members()));
    assert!(views[0].says_the_same(&views[2]) && views[0].hash() == views[2].hash());
    assert_eq!(author(FOUNDER), founder.author());
    assert!(!views[0].says_the_same(&first.views().load()));
}
