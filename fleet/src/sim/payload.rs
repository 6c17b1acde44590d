//! What simulated people ask for, and what hostile members write: the only file here that makes
//! requests and payloads, so that a change of the ledger's operations is a change in one place.

use osiris_ledger::{
    Author, BlobHash, Block, BlockId, FleetId, Founding, Ledger, Now, Payload, Role, Roles, Session,
    SigningKey, WallMs, World, Writer, join_proof, op,
};

use crate::{
    manifest::{Manifest, Replicas, ScaleKeys},
    node::Request,
};

use super::workload::Wish;

/// How long a request waits for another member.
const PATIENCE_MS: u64 = 3_000;

/// A revision to deploy: its manifest, and hashes that stand for its bytes.
#[derive(Clone, Debug)]
pub(super) struct Release {
    pub(super) manifest: Manifest,
    pub(super) manifest_hash: BlobHash,
    pub(super) component: BlobHash,
}

impl Release {
    /// The `number`th release of a run. It is scaled where the most replicas are given.
    pub(super) fn new(name: String, number: u64, replicas: Replicas, max: Option<u32>) -> Self {
        let mut manifest = Manifest::named(&name);
        manifest.version = Some(number.to_string());
        manifest.replicas = replicas;
        let min = u32::from(number.is_multiple_of(3));
        manifest.scale =
            max.map(|max| ScaleKeys { min, max, backlog: Some(2), idle_s: Some(5), concurrency: None });
        Self::of(manifest, number)
    }

    fn of(manifest: Manifest, number: u64) -> Self {
        let bytes = manifest.to_bytes().expect("a valid manifest");
        let component = BlobHash(*blake3::hash(format!("component {number}").as_bytes()).as_bytes());
        Self { manifest_hash: BlobHash(*blake3::hash(&bytes).as_bytes()), manifest, component }
    }

    /// A release that is scaled by these keys.
    pub(super) fn scaled(name: String, number: u64, replicas: Replicas, scale: ScaleKeys) -> Self {
        let mut manifest = Self::new(name, number, replicas, None).manifest;
        manifest.scale = Some(scale);
        Self::of(manifest, number)
    }

    pub(super) fn request(&self) -> Request {
        Request::Deploy {
            component: self.component,
            size: 1_000,
            world: World::Native,
            manifest: (self.manifest_hash, 100),
            name: self.manifest.name.clone(),
            timeout_ms: PATIENCE_MS,
            live: false,
        }
    }
}

pub(super) fn remove(name: String) -> Request {
    Request::Remove { name, timeout_ms: PATIENCE_MS }
}

pub(super) fn leave() -> Request {
    Request::Leave { timeout_ms: PATIENCE_MS }
}

pub(super) fn withdraw(invitation: BlockId) -> Request {
    Request::Withdraw { invitation, timeout_ms: PATIENCE_MS }
}

/// Invites up to `uses` devices as nodes.
pub(super) fn invite(key: &SigningKey, uses: u32) -> Request {
    Request::Invite {
        key: public(key),
        uses,
        roles: Roles::NODE,
        device: None,
        note: String::new(),
        timeout_ms: PATIENCE_MS,
    }
}

/// A stranger asks to be admitted.
pub(super) fn admit(fleet: &FleetId, invitation: BlockId, ticket: &SigningKey, device: Author) -> Request {
    Request::Admit {
        device,
        invitation,
        proof: join_proof(ticket, fleet, &invitation, &device),
        label: "joined".to_owned(),
    }
}

pub(super) fn public(key: &SigningKey) -> Author {
    Author(key.verifying_key().to_bytes())
}

/// A member of the fleet at its start.
pub(super) struct Initial {
    pub(super) author: Author,
    pub(super) roles: Roles,
}

/// What members of a larger fleet hold: one in four is an operator and a spawner, one in eight an admin.
pub(super) fn roles_of(number: u32) -> Roles {
    match number {
        n if n % 8 == 1 => Roles::ALL,
        n if n % 4 == 2 => Roles::of(&[Role::Node, Role::Operator, Role::Spawner]),
        _ => Roles::NODE,
    }
}

/// The blocks with which a fleet starts: genesis, and the admission of each member by the founder.
pub(super) fn found(
    founder: &SigningKey,
    session: Session,
    nonce: Session,
    others: &[Initial],
    (spawning, voters): (Option<op::Spawning>, Option<Vec<Author>>),
) -> (osiris_ledger::Ledger, Vec<std::sync::Arc<Block>>) {
    let secret = |n: u8| SigningKey::from_bytes(&[n; 32]);
    let mut writer = Writer::new(founder.clone(), session);
    let founding = Founding {
        name: "simulated".to_owned(),
        label: "founder".to_owned(),
        admin: &secret(2),
        recovery: public(&secret(3)),
        nonce,
    };
    let now = Now { wall: WallMs(super::world::WALL_START_MS), ..Now::default() };
    let (mut ledger, genesis) = writer.found(now, founding).expect("a valid founding");
    let fleet = ledger.fleet();
    let mut blocks = vec![genesis];
    let mut write = |payload| {
        let block = writer.append(&mut ledger, now, payload).expect("the founder may do anything");
        blocks.push(std::sync::Arc::clone(&block));
        block.id()
    };
    let ticket = secret(4);
    let invited = |uses: usize, roles, device| {
        let uses = u32::try_from(uses).unwrap_or(u32::MAX);
        Payload::Invited(op::Invited { key: public(&ticket), uses, roles, device, note: String::new() })
    };
    let nodes = others.iter().filter(|member| member.roles == Roles::NODE).count();
    let uses_max = usize::try_from(osiris_ledger::limits::INVITATION_USES_MAX).expect("it fits");
    let mut bearer = Vec::new();
    for _ in 0..nodes.div_ceil(uses_max) {
        bearer.push(write(invited(uses_max.min(nodes), Roles::NODE, None)));
    }
    // Who only calls belongs to people, and is admitted by their keys.
    let calls = Roles::of(&[Role::Invoker]);
    let devices = others.iter().filter(|member| member.roles == calls).count();
    let devices_max = usize::try_from(osiris_ledger::limits::USER_DEVICES_MAX).expect("it fits");
    let mut users = Vec::new();
    for _ in 0..devices.div_ceil(devices_max) {
        let devices = u32::try_from(devices_max).unwrap_or(u32::MAX);
        let key = public(&ticket);
        users.push(write(Payload::User(op::User { name: "callers".to_owned(), key, roles: calls, devices })));
    }
    let (mut admitted, mut callers) = (0, 0);
    for member in others {
        let invitation = if member.roles == Roles::NODE {
            admitted += 1;
            bearer[(admitted - 1) / uses_max]
        } else if member.roles == calls {
            callers += 1;
            users[(callers - 1) / devices_max]
        } else {
            write(invited(1, member.roles, Some(member.author)))
        };
        let proof = join_proof(&ticket, &fleet, &invitation, &member.author);
        let label = "member".to_owned();
        write(Payload::Admitted(op::Admitted { invitation, device: member.author, proof, label }));
    }
    if let Some(spawning) = spawning {
        write(Payload::Spawning(spawning));
    }
    if let Some(mut devices) = voters {
        devices.sort_unstable();
        write(Payload::Voters(op::Voters { devices }));
    }
    ledger.publish();
    (ledger, blocks)
}

/// What the admin's second device holds. It runs no functions.
pub(super) fn clerk_roles() -> Roles {
    Roles::of(&[Role::Operator, Role::Admin])
}

/// Whether roles allow a wish.
pub(super) fn allows(roles: Roles, wish: &Wish) -> bool {
    match wish {
        Wish::Deploy(_) | Wish::Remove(_) => roles.has(Role::Operator),
        Wish::Invite { .. } | Wish::Withdraw | Wish::Revoke => roles.has(Role::Admin),
        Wish::Leave | Wish::Drain => true,
    }
}

/// Ends grants of a device from outside a node: each session counts up to what the ledger holds of it.
pub(super) fn revoke(ledger: &Ledger, device: &Author, mut grants: Vec<BlockId>) -> Payload {
    grants.sort_unstable();
    grants.truncate(osiris_ledger::limits::REVOKED_GRANTS_MAX);
    Payload::Revoked(op::Revoked { grants, pins: ledger.pins_for(device) })
}

/// A fact that any member may write about itself.
pub(super) fn serving(revision: BlockId, concurrency: u32) -> Payload {
    Payload::Serving(op::Serving { revision, concurrency })
}

/// The revision of a `serving` block.
pub(super) fn serves(payload: &Payload) -> Option<BlockId> {
    match payload {
        Payload::Serving(op) => Some(op.revision),
        _ => None,
    }
}
