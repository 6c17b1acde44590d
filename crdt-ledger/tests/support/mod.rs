//! A small fleet for the tests, and what a hostile member of it can make.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub(crate) mod forge;

use std::sync::Arc;

use osiris_ledger::{
    Admission, Author, BlobHash, Block, BlockId, FleetId, Founding, Ledger, Now, Payload, Reject, Role,
    Roles, Session, Signature, SigningKey, World, Writer, join_proof, op,
};

pub(crate) use forge::Forged;

/// The key of device `n`.
pub(crate) fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

/// The public half of [`key`].
pub(crate) fn author(n: u8) -> Author {
    Author(key(n).verifying_key().to_bytes())
}

pub(crate) fn session(n: u8) -> Session {
    Session([n; 16])
}

pub(crate) const FOUNDER: u8 = 1;
pub(crate) const NODE: u8 = 2;
pub(crate) const OPERATOR: u8 = 3;
pub(crate) const ADMIN: u8 = 4;
/// Keys that are no device's.
pub(crate) const FOUNDER_ADMIN: u8 = 100;
pub(crate) const RECOVERY: u8 = 101;
/// The key of invitation `n` is `key(TICKET + n)`.
pub(crate) const TICKET: u8 = 150;

pub(crate) fn founding(nonce: u8, admin: &SigningKey) -> Founding<'_> {
    Founding {
        name: "berlin".to_owned(),
        label: "founder".to_owned(),
        admin,
        recovery: author(RECOVERY),
        nonce: session(nonce),
    }
}

/// A fleet of one: its ledger and the founder's writer.
pub(crate) fn found(nonce: u8) -> (Ledger, Writer) {
    let mut writer = Writer::new(key(FOUNDER), session(FOUNDER));
    let (ledger, _) =
        writer.found(Now::default(), founding(nonce, &key(FOUNDER_ADMIN))).expect("a valid founding");
    (ledger, writer)
}

pub(crate) fn append(ledger: &mut Ledger, writer: &mut Writer, payload: Payload) -> Arc<Block> {
    let block = writer.append(ledger, Now::default(), payload).expect("allowed");
    ledger.publish();
    block
}

pub(crate) fn invited(ticket: u8, uses: u32, roles: &[Role], device: Option<u8>) -> Payload {
    Payload::Invited(op::Invited {
        key: author(TICKET + ticket),
        uses,
        roles: Roles::of(roles),
        device: device.map(author),
        note: String::new(),
    })
}

pub(crate) fn admitted(fleet: &FleetId, invitation: &BlockId, ticket: u8, device: u8) -> op::Admitted {
    op::Admitted {
        invitation: *invitation,
        device: author(device),
        proof: join_proof(&key(TICKET + ticket), fleet, invitation, &author(device)),
        label: format!("device-{device}"),
    }
}

pub(crate) fn deployed(name: &str, version: u8, replaces: &[BlockId]) -> op::Deployed {
    let mut replaces = replaces.to_vec();
    replaces.sort_unstable();
    op::Deployed {
        name: name.to_owned(),
        component: BlobHash([version; 32]),
        size: 1_000,
        world: World::Native,
        manifest: BlobHash([version; 32]),
        manifest_size: 100,
        replaces,
    }
}

pub(crate) fn deploy(name: &str, version: u8, replaces: &[BlockId]) -> Payload {
    Payload::Deployed(deployed(name, version, replaces))
}

pub(crate) fn serving(revision: &BlockId) -> Payload {
    Payload::Serving(op::Serving { revision: *revision, concurrency: 4 })
}

pub(crate) fn revoked(grants: &[BlockId], pins: &[BlockId]) -> Payload {
    let (mut grants, mut pins) = (grants.to_vec(), pins.to_vec());
    grants.sort_unstable();
    pins.sort_unstable();
    Payload::Revoked(op::Revoked { grants, pins })
}

pub(crate) fn withdrawn(invitation: BlockId) -> Payload {
    Payload::Withdrawn(op::Withdrawn { invitation, stands: Vec::new() })
}

pub(crate) fn user(ticket: u8, devices: u32, roles: Roles) -> Payload {
    Payload::User(op::User { name: "isis".to_owned(), key: author(TICKET + ticket), roles, devices })
}

/// Invites a device with roles and admits it; returns its grant.
pub(crate) fn enrol(
    ledger: &mut Ledger,
    inviter: &mut Writer,
    ticket: u8,
    device: u8,
    roles: &[Role],
) -> BlockId {
    let invitation = append(ledger, inviter, invited(ticket, 1, roles, Some(device))).id();
    let fleet = ledger.fleet();
    append(ledger, inviter, Payload::Admitted(admitted(&fleet, &invitation, ticket, device))).id()
}

/// A replica that got these blocks in this order.
pub(crate) fn replica(fleet: FleetId, blocks: &[Arc<Block>]) -> Ledger {
    let mut ledger = Ledger::new(fleet);
    for block in blocks {
        ledger.admit(block.entry()).expect("a valid block");
    }
    ledger.publish();
    ledger
}

pub(crate) fn copy(ledger: &Ledger) -> Ledger {
    replica(ledger.fleet(), &ledger.in_order())
}

/// Each replica gets what the others have.
pub(crate) fn merge(ledgers: &mut [&mut Ledger]) {
    let all: Vec<_> = ledgers.iter().flat_map(|ledger| ledger.in_order()).collect();
    for ledger in ledgers {
        for block in &all {
            ledger.admit(block.entry()).expect("a valid block");
        }
        ledger.publish();
    }
}

/// Everything that two equal replicas agree on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    view: [u8; 32],
    digest: [u8; 32],
    document: Vec<[u8; 32]>,
    effective: Vec<(BlockId, bool)>,
}

pub(crate) fn fingerprint(ledger: &mut Ledger) -> Fingerprint {
    let view = ledger.publish().hash();
    let effective = ledger.in_order().iter().map(|block| (block.id(), ledger.is_effective(block))).collect();
    Fingerprint { view, digest: ledger.digest(), document: ledger.document_heads(), effective }
}

/// A fleet with one device of each role, and a function.
#[derive(Debug)]
pub(crate) struct Fixture {
    pub(crate) blocks: Vec<Arc<Block>>,
    pub(crate) fleet: FleetId,
    pub(crate) genesis: BlockId,
    /// A bearer invitation of ticket 0 with three uses, one of them spent by `NODE`.
    pub(crate) bearer: BlockId,
    /// The invitation of ticket 1 for `OPERATOR`.
    pub(crate) named: BlockId,
    pub(crate) node: BlockId,
    pub(crate) operator: BlockId,
    pub(crate) admin: BlockId,
    pub(crate) revision: BlockId,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let (mut ledger, mut founder) = found(0);
        let fleet = ledger.fleet();
        let genesis = BlockId(fleet.0);
        let bearer = append(&mut ledger, &mut founder, invited(0, 3, &[Role::Node], None)).id();
        let join = Payload::Admitted(admitted(&fleet, &bearer, 0, NODE));
        let node = append(&mut ledger, &mut founder, join).id();
        let operator = enrol(&mut ledger, &mut founder, 1, OPERATOR, &[Role::Node, Role::Operator]);
        let Some(Payload::Admitted(join)) = ledger.get(&operator).map(|block| block.payload().clone()) else {
            panic!("an admission")
        };
        let admin = enrol(&mut ledger, &mut founder, 2, ADMIN, &[Role::Node, Role::Operator, Role::Admin]);
        let mut writer = Writer::new(key(OPERATOR), session(OPERATOR));
        let revision = append(&mut ledger, &mut writer, deploy("hello", 1, &[])).id();
        let blocks = ledger.in_order();
        Self { blocks, fleet, genesis, bearer, named: join.invitation, node, operator, admin, revision }
    }

    pub(crate) fn ledger(&self) -> Ledger {
        replica(self.fleet, &self.blocks)
    }

    pub(crate) fn grant(&self, device: u8) -> BlockId {
        match device {
            FOUNDER => self.genesis,
            NODE => self.node,
            OPERATOR => self.operator,
            ADMIN => self.admin,
            _ => BlockId([device; 32]),
        }
    }

    pub(crate) fn last(&self) -> &Arc<Block> {
        self.blocks.last().expect("the fleet was founded")
    }

    /// The first block of a new session of a member, valid wherever the payload is.
    pub(crate) fn draft<P>(&self, device: u8, payload: P) -> Forged<P> {
        Forged {
            version: 2,
            author: author(device),
            session: session(200),
            seq: 1,
            prev: BlockId::ZERO,
            parents: vec![self.last().id()],
            depth: self.last().order().depth + 1,
            wall_ms: 0,
            grant: self.grant(device),
            payload,
        }
    }

    /// What a fresh replica answers to a draft that its author signs.
    pub(crate) fn answer<P: serde::Serialize>(
        &self,
        device: u8,
        draft: &Forged<P>,
    ) -> Result<Admission, Reject> {
        self.ledger().admit(&draft.seal(&self.fleet, &key(device)))
    }
}

pub(crate) fn is_new(admission: &Result<Admission, Reject>) -> bool {
    matches!(admission, Ok(Admission::New { .. }))
}

pub(crate) fn some_signature() -> Signature {
    Signature([7; 64])
}
