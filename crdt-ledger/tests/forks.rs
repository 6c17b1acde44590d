//! Forked chains: proven alike everywhere, void from the fork upward, and told apart by the digest.

mod support;

use std::sync::Arc;

use osiris_ledger::{Admission, AppendError, Block, BlockId, Ledger, Now, Role, Writer};
use support::{
    OPERATOR, append, author, deploy, enrol, fingerprint, found, is_new, key, merge, replica, session,
};

fn device(n: u8) -> Writer {
    Writer::new(key(n), session(n))
}

fn effective(ledger: &mut Ledger, block: &Arc<Block>) -> bool {
    ledger.publish();
    ledger.is_effective(block)
}

/// A cloned folder: two processes write the same session.
#[test]
fn a_fork_is_proven_alike_and_voids_the_chain_from_there() {
    let (mut left, mut founder) = found(0);
    let grant = enrol(&mut left, &mut founder, 0, OPERATOR, &[Role::Node, Role::Operator]);
    let mut operator = device(OPERATOR);
    let kept = append(&mut left, &mut operator, deploy("kept", 1, &[]));
    let second = append(&mut left, &mut operator, deploy("left", 1, &[]));
    let third = append(&mut left, &mut operator, deploy("after", 1, &[]));

    let fleet = left.fleet();
    let mut right = replica(fleet, &left.in_order()[..4]);
    assert!(right.contains_all(&[kept.id()]) && !right.contains_all(&[second.id()]));
    let other = support::Forged {
        version: 2,
        author: author(OPERATOR),
        session: session(OPERATOR),
        seq: 2,
        prev: kept.id(),
        parents: vec![],
        depth: kept.order().depth + 1,
        wall_ms: 0,
        grant,
        payload: deploy("right", 1, &[]),
    };
    let entry = other.seal(&fleet, &key(OPERATOR));
    let Ok(Admission::New { admitted: forked, .. }) = right.admit(&entry) else { panic!("valid") };
    // Both sides had the block before in their document already.
    let left_before = left.document_heads();
    let right_before = right.document_heads();
    assert_ne!(left_before, right_before);
    merge(&mut [&mut left, &mut right]);

    let mut proof = [second.id(), forked[0].id()];
    proof.sort_unstable();
    for ledger in [&mut left, &mut right] {
        let view = ledger.publish();
        assert_eq!(view.forks().len(), 1);
        let fork = view.forks()[0];
        assert_eq!((fork.author, fork.session, fork.seq), (author(OPERATOR), session(OPERATOR), 2));
        assert_eq!(fork.proof, proof);
        assert_eq!(view.functions().keys().collect::<Vec<_>>(), ["kept"]);
        assert!(view.is_member(&author(OPERATOR)), "a fork is shown; it ends no membership");
        for void in [&second, &third, &forked[0]] {
            assert!(!effective(ledger, void));
        }
        assert!(effective(ledger, &kept));
    }
    assert_eq!(fingerprint(&mut left), fingerprint(&mut right));
    assert_ne!(left.document_heads(), left_before, "the document was built again without the fork");
    assert_eq!(left.verify(), Ok(left.len()));
    // The device writes on in a new session; in the old one it would write void blocks.
    let refused = operator.append(&mut left, Now::default(), deploy("void", 1, &[])).err();
    assert_eq!(refused, Some(AppendError::Forked));
    let mut again = Writer::new(key(OPERATOR), session(99));
    let block = append(&mut left, &mut again, deploy("again", 1, &[]));
    assert!(effective(&mut left, &block));
}

/// Another second block of the operator's chain, which forks it behind its first.
fn rival_of(ledger: &Ledger, first: &Block, grant: BlockId, version: u8) -> Vec<u8> {
    let rival = support::Forged {
        version: 2,
        author: author(OPERATOR),
        session: session(OPERATOR),
        seq: 2,
        prev: first.id(),
        parents: vec![],
        depth: first.order().depth + 1,
        wall_ms: 0,
        grant,
        payload: deploy("rival", version, &[]),
    };
    rival.seal(&ledger.fleet(), &key(OPERATOR))
}

/// The proof that is shown does not depend on when a third block at the fork came.
#[test]
fn a_third_branch_is_shown_alike_whenever_it_comes() {
    let (mut ledger, mut founder) = found(0);
    let grant = enrol(&mut ledger, &mut founder, 0, OPERATOR, &[Role::Node, Role::Operator]);
    let first = append(&mut ledger, &mut device(OPERATOR), deploy("first", 1, &[]));
    let rival = |version| {
        let entry = rival_of(&ledger, &first, grant, version);
        (*blake3::hash(&entry).as_bytes(), entry)
    };
    let mut rivals: Vec<_> = (1..=4).map(rival).collect();
    // The least comes last, so each that comes is shown.
    rivals.sort_unstable_by(|a, b| b.cmp(a));
    for (_, entry) in &rivals {
        ledger.admit(entry).expect("valid");
        ledger.publish();
    }
    let proof = [BlockId(rivals[3].0), BlockId(rivals[2].0)];
    assert_eq!(ledger.publish().forks()[0].proof, proof);
    let mut at_once = replica(ledger.fleet(), &ledger.in_order());
    assert_eq!(ledger.publish().hash(), at_once.publish().hash());
}

/// Replicas that hold the same longest branch and differ in a shorter one must not take each other for
/// equal, or the fork would never spread.
#[test]
fn the_digest_tells_each_branch_of_a_fork() {
    let (mut ledger, mut founder) = found(0);
    let grant = enrol(&mut ledger, &mut founder, 0, OPERATOR, &[Role::Node, Role::Operator]);
    let mut operator = device(OPERATOR);
    let first = append(&mut ledger, &mut operator, deploy("first", 1, &[]));
    append(&mut ledger, &mut operator, deploy("second", 1, &[]));
    append(&mut ledger, &mut operator, deploy("third", 1, &[]));
    let mut digests = vec![ledger.digest()];
    for version in [2, 3] {
        let rival = rival_of(&ledger, &first, grant, version);
        assert!(is_new(&ledger.admit(&rival)));
        digests.push(ledger.digest());
    }
    let different: std::collections::BTreeSet<_> = digests.iter().collect();
    assert_eq!(different.len(), 3, "a branch that the digest does not tell");
}
