//! A fleet to try the core on.

use osiris_ledger::{Author, Founding, Ledger, Now, Session, SigningKey, Writer};

pub(super) fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

pub(super) fn author(seed: u8) -> Author {
    Author(key(seed).verifying_key().to_bytes())
}

/// A fleet of the device `key(1)`, and the writer that founded it in session 1.
pub(super) fn founded(now: Now) -> (Writer, Ledger) {
    let mut writer = Writer::new(key(1), Session([1; 16]));
    let founding = Founding {
        name: "test".to_owned(),
        label: "one".to_owned(),
        admin: &key(100),
        recovery: author(101),
        nonce: Session([9; 16]),
    };
    let (ledger, _) = writer.found(now, founding).expect("founded");
    (writer, ledger)
}
