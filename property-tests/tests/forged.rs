//! No forged block is admitted: blocks of a history, changed or not, signed by anybody but their author, and blocks that
//! somebody takes for its own.

use std::{cell::RefCell, collections::BTreeMap};

use ed25519_dalek::{Signer as _, SigningKey};
use osiris_ledger::{Ledger, limits::SIGNATURE_BYTES};
use osiris_property_tests::{
    law,
    model::{DEVICES, History, device_key},
    strategy::script_with_leases,
};
use proptest::{collection::vec, prelude::*, sample::Index};

/// Where a body has its author's key: behind the head of the array, the version and the head of the string.
const AUTHOR: std::ops::Range<usize> = 4..36;

#[derive(Clone, Debug)]
struct Forgery {
    block: Index,
    /// A member's device, or a stranger.
    signer: u8,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    /// The body as it was.
    Same,
    /// Some bits of one byte of it.
    Byte(Index, u8),
    /// The signer's key in the author's place.
    Takeover,
}

fn forgery() -> impl Strategy<Value = Forgery> {
    let bits = || 1..=u8::MAX;
    let what = prop_oneof![
        1 => Just(What::Same),
        4 => (any::<Index>(), bits()).prop_map(|(at, bits)| What::Byte(at, bits)),
        2 => Just(What::Takeover),
    ];
    (any::<Index>(), 0..=DEVICES, what).prop_map(|(block, signer, what)| Forgery { block, signer, what })
}

/// `body ‖ ed25519(blake3("osiris-ledger-v1" ‖ fleet ‖ body))`.
fn seal(ledger: &Ledger, body: &[u8], key: &SigningKey) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"osiris-ledger-v1").update(&ledger.fleet().0).update(body);
    [body, &key.sign(hasher.finalize().as_bytes()).to_bytes()].concat()
}

#[test]
fn no_forged_block_is_admitted() {
    let reasons = RefCell::new(BTreeMap::<&str, u32>::new());
    law("forged", 60, (script_with_leases(80), vec(forgery(), 1..60)), |(script, forgeries)| {
        let history = History::play(&script);
        let mut ledger = history.replica(history.in_order());
        ledger.publish();
        let (digest, len, early) = (ledger.digest(), ledger.len(), ledger.early());
        for Forgery { block, signer, what } in forgeries {
            let entry = &history.blocks[block.index(history.blocks.len())].entry;
            let mut body = entry[..entry.len() - SIGNATURE_BYTES].to_vec();
            let key = device_key(signer);
            let public = key.verifying_key().to_bytes();
            if body[AUTHOR] == public {
                // What somebody signs for itself is no forgery.
                continue;
            }
            match what {
                What::Same => {}
                What::Byte(at, bits) => {
                    let at = at.index(body.len());
                    body[at] ^= bits;
                }
                What::Takeover => body[AUTHOR].copy_from_slice(&public),
            }
            let answer = ledger.admit(&seal(&ledger, &body, &key));
            let Err(reject) = answer else {
                return Err(TestCaseError::fail(format!("{answer:?} for {what:?} by {signer}")));
            };
            *reasons.borrow_mut().entry(reject.name()).or_default() += 1;
        }
        ledger.publish();
        prop_assert_eq!((ledger.digest(), ledger.len(), ledger.early()), (digest, len, early));
        Ok(())
    });
    let reasons = reasons.into_inner();
    eprintln!("{reasons:?}");
    for reason in ["BadSignature", "Grant", "OtherChain", "NotCanonical", "Malformed"] {
        assert!(reasons.contains_key(reason), "in the whole run there was no {reason}: {reasons:?}");
    }
}
