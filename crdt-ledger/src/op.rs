//! Operations: what a block says.

mod budget;
mod lease;
mod scale;

use ed25519_dalek::{Signature as DalekSignature, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::{
    authority::{Role, Roles},
    id::{Author, BlobHash, BlockId, FleetId, Session, Signature},
    limits,
};
pub use budget::Budgeted;
pub use lease::{Activated, Claimed, Intent, Released, Retired, Spawning};
pub use scale::{Bounded, Draining, Labelled, Range, Scaled, is_place_label};

/// Declares a struct whose CBOR form is the array of its fields, in their order.
macro_rules! array_struct {
    ($(#[$doc:meta])* $vis:vis struct $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        $vis struct $name { $($(#[$field_doc])* $vis $field: $type,)+ }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                ($(&self.$field,)+).serialize(serializer)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let ($($field,)+) = Deserialize::deserialize(deserializer)?;
                Ok(Self { $($field),+ })
            }
        }
    };
}
pub(crate) use array_struct;

/// What a component exports, and so how it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum World {
    /// `osiris:function@0.1.0`: JSON text in, JSON text out.
    Native,
    /// `wasi:http/proxy@0.2`.
    Http,
}

/// The content of a block. In CBOR: a map of one key, the operation's name, to an array.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Payload {
    /// The fleet begins. The only block without parents; its id is the fleet's id.
    Founded(Founded),
    /// An invitation: who holds its secret key may become a member.
    Invited(Invited),
    /// A person, by a key that admits the person's devices. The block's id is the user's id.
    User(User),
    /// An invitation or a user admits nobody any more.
    Withdrawn(Withdrawn),
    /// A device becomes a member. The block's id is the device's grant.
    Admitted(Admitted),
    /// The recovery key makes a device an admin above all others. The block's id is the device's grant.
    Recovered(Recovered),
    /// Grants of one device end; its sessions count up to the pins.
    Revoked(Revoked),
    /// A new revision of a function. The block's id is the revision's id.
    Deployed(Deployed),
    /// A function is removed.
    Removed(Removed),
    /// A revision is ready to be called on the author's device.
    Serving(Serving),
    /// A revision is no longer ready on the author's device.
    Stopped(Stopped),
    /// Who seals pages of summaries from now on.
    Voters(Voters),
    /// The author holds every block of a page in full, and the page's summaries are those of its blocks.
    Sealed(Sealed),
    /// The author wants to make, or to look after, the machine of a slot. See [`crate::lease`].
    Claimed(Claimed),
    /// The author's claim won its round, as far as the author knows.
    Activated(Activated),
    /// The author is about to make a machine: written before anything is made.
    Intent(Intent),
    /// The author's claim is over: it lost, or what it was for is done.
    Released(Released),
    /// The machine of an intent is gone.
    Retired(Retired),
    /// How many machines the fleet may make, and whether without a majority of the voters.
    Spawning(Spawning),
    /// How many replicas a function, or all functions together, may have.
    Bounded(Bounded),
    /// How many replicas a function has from now on, within its bounds.
    Scaled(Scaled),
    /// The labels that a device bears, for the placement of functions.
    Labelled(Labelled),
    /// How many blocks a device may write: what it writes beyond comes to others slowly.
    Budgeted(Budgeted),
    /// The author's device is to be relieved of all that it serves, or no longer.
    Draining(Draining),
}

array_struct! {
    /// See [`Payload::Founded`].
    pub struct Founded {
        /// The fleet's name, for people.
        name: String,
        /// The founding device's name, for people.
        label: String,
        /// Public half of the founder's key, which is not a device key: it certifies the founding
        /// device and, later, users.
        admin: Author,
        /// Public half of the offline recovery key.
        recovery: Author,
        /// Random bytes, so that no two fleets share a genesis.
        nonce: Session,
        /// The admin key's signature over the founding device; see [`Founded::certificate`].
        certificate: Signature,
    }
}

array_struct! {
    /// See [`Payload::Invited`].
    pub struct Invited {
        /// Public half of the invitation's key; the secret half is in the ticket.
        key: Author,
        /// How many devices it may admit.
        uses: u32,
        /// What it gives.
        roles: Roles,
        /// The only device it is for. Needed for anything above `node`.
        device: Option<Author>,
        /// For people.
        note: String,
    }
}

array_struct! {
    /// See [`Payload::User`].
    pub struct User {
        /// The person's name, for people.
        name: String,
        /// Public half of the user's key. It signs nothing but admissions of the user's devices.
        key: Author,
        /// What each of the devices may write.
        roles: Roles,
        /// How many devices it may admit.
        devices: u32,
    }
}

array_struct! {
    /// See [`Payload::Withdrawn`]. Admissions that this block's author had seen stand; all others are void,
    /// whatever depth they claim, so nobody can sign one from before the withdrawal afterwards.
    pub struct Withdrawn {
        /// The `invited` or `user` block.
        invitation: BlockId,
        /// Admissions that stand although they are no ancestors of this block.
        stands: Vec<BlockId>,
    }
}

array_struct! {
    /// See [`Payload::Admitted`].
    pub struct Admitted {
        /// The `invited` or `user` block.
        invitation: BlockId,
        /// The new member.
        device: Author,
        /// The invitation's or user's signature over (fleet, invitation, device); see [`join_proof`].
        proof: Signature,
        /// The device's name, for people.
        label: String,
    }
}

array_struct! {
    /// See [`Payload::Recovered`].
    pub struct Recovered {
        /// The device that becomes an admin.
        device: Author,
        /// Its name, for people.
        label: String,
        /// From 1; a higher one ranks above a lower one, and every one above the founder.
        generation: u32,
        /// The recovery key's signature; see [`recovery_message`].
        certificate: Signature,
    }
}

array_struct! {
    /// See [`Payload::Revoked`].
    pub struct Revoked {
        /// Grants to end: `founded`, `admitted` or `recovered` blocks of one device.
        grants: Vec<BlockId>,
        /// The last block that counts of each session, at most one a session. A session without one
        /// counts as far as the first block of a pinned one cites it, else not at all. A device that
        /// ends its own grant need not pin the session in which it says so.
        pins: Vec<BlockId>,
    }
}

array_struct! {
    /// See [`Payload::Deployed`].
    pub struct Deployed {
        /// The function.
        name: String,
        /// blake3 of the component.
        component: BlobHash,
        /// Its bytes.
        size: u64,
        /// How it is called.
        world: World,
        /// blake3 of the manifest, which travels as a blob.
        manifest: BlobHash,
        /// Its bytes.
        manifest_size: u64,
        /// The newest blocks of this function that the author knew: deploys or removals.
        replaces: Vec<BlockId>,
    }
}

array_struct! {
    /// See [`Payload::Removed`].
    pub struct Removed {
        /// The function.
        name: String,
        /// The newest blocks of this function that the author knew.
        replaces: Vec<BlockId>,
    }
}

array_struct! {
    /// See [`Payload::Serving`].
    pub struct Serving {
        /// The `deployed` block.
        revision: BlockId,
        /// Invocations it runs side by side here.
        concurrency: u32,
    }
}

array_struct! {
    /// See [`Payload::Stopped`].
    pub struct Stopped {
        /// The `deployed` block.
        revision: BlockId,
    }
}

array_struct! {
    /// See [`Payload::Voters`].
    pub struct Voters {
        /// The devices, ascending.
        devices: Vec<Author>,
    }
}

array_struct! {
    /// See [`Payload::Sealed`].
    pub struct Sealed {
        /// The `voters` block that names the author; the genesis block names the founding device.
        voters: BlockId,
        /// blake3 of the page, which travels as a blob.
        page: BlobHash,
        /// Its bytes.
        size: u32,
    }
}

impl Founded {
    /// What the admin key signs: `blake3("osiris-founder-v1" ‖ nonce ‖ device ‖ recovery)`.
    #[must_use]
    pub fn certificate(nonce: &Session, device: &Author, recovery: &Author) -> [u8; 32] {
        digest(b"osiris-founder-v1", &[&nonce.0, &device.0, &recovery.0])
    }
}

/// What an invitation's key signs for a device:
/// `blake3("osiris-join-v1" ‖ fleet ‖ invitation ‖ device)`.
#[must_use]
pub fn join_proof_message(fleet: &FleetId, invitation: &BlockId, device: &Author) -> [u8; 32] {
    digest(b"osiris-join-v1", &[&fleet.0, &invitation.0, &device.0])
}

/// Proves to the fleet that `device` holds the ticket of `invitation`.
#[must_use]
pub fn join_proof(key: &SigningKey, fleet: &FleetId, invitation: &BlockId, device: &Author) -> Signature {
    sign(key, &join_proof_message(fleet, invitation, device))
}

/// What the recovery key signs: `blake3("osiris-recover-v1" ‖ fleet ‖ generation u32 LE ‖ device)`.
#[must_use]
pub fn recovery_message(fleet: &FleetId, generation: u32, device: &Author) -> [u8; 32] {
    digest(b"osiris-recover-v1", &[&fleet.0, &generation.to_le_bytes(), &device.0])
}

/// The recovery key's word that `device` is to be an admin.
#[must_use]
pub fn recovery_certificate(
    key: &SigningKey,
    fleet: &FleetId,
    generation: u32,
    device: &Author,
) -> Signature {
    sign(key, &recovery_message(fleet, generation, device))
}

/// What admits devices: an invitation, a user, or the intent of a machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    pub(crate) key: Author,
    pub(crate) uses: u32,
    pub(crate) roles: Roles,
    pub(crate) device: Option<Author>,
}

/// Signs 32 bytes; the counterpart of [`verify`].
#[must_use]
pub fn sign(key: &SigningKey, message: &[u8; 32]) -> Signature {
    use ed25519_dalek::Signer as _;
    Signature(key.sign(message).to_bytes())
}

/// Strict verification: no weak key, no malleable signature, the same answer on every node.
#[must_use]
pub fn verify(key: &Author, message: &[u8; 32], signature: &Signature) -> bool {
    usable_key(key)
        .is_some_and(|key| key.verify_strict(message, &DalekSignature::from_bytes(&signature.0)).is_ok())
}

/// The key's curve point, unless it is none or of small order.
pub(crate) fn usable_key(key: &Author) -> Option<VerifyingKey> {
    VerifyingKey::from_bytes(&key.0).ok().filter(|key| !key.is_weak())
}

fn digest(domain: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(domain);
    for part in parts {
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

impl Payload {
    /// The role a grant must hold for this operation.
    #[must_use]
    pub fn needs(&self) -> Role {
        match self {
            Self::Founded(_)
            | Self::Invited(_)
            | Self::User(_)
            | Self::Withdrawn(_)
            | Self::Revoked(_)
            | Self::Voters(_)
            | Self::Spawning(_)
            | Self::Labelled(_)
            | Self::Budgeted(_) => Role::Admin,
            Self::Sealed(_) => Role::Voter,
            Self::Deployed(_) | Self::Removed(_) | Self::Bounded(_) => Role::Operator,
            // A recovery brings its own authority; whoever belongs to the fleet may carry it.
            // And whoever may not spawn any more may say that it does not.
            Self::Admitted(_)
            | Self::Recovered(_)
            | Self::Serving(_)
            | Self::Stopped(_)
            | Self::Scaled(_)
            | Self::Draining(_)
            | Self::Released(_) => Role::Node,
            Self::Claimed(_) | Self::Activated(_) | Self::Intent(_) | Self::Retired(_) => Role::Spawner,
        }
    }

    /// The names of all operations.
    pub const NAMES: [&'static str; 24] = [
        "founded",
        "invited",
        "user",
        "withdrawn",
        "admitted",
        "recovered",
        "revoked",
        "deployed",
        "removed",
        "serving",
        "stopped",
        "voters",
        "sealed",
        "claimed",
        "activated",
        "intent",
        "released",
        "retired",
        "spawning",
        "bounded",
        "scaled",
        "labelled",
        "budgeted",
        "draining",
    ];

    /// The operation's name, as in the block.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Founded(_) => "founded",
            Self::Invited(_) => "invited",
            Self::User(_) => "user",
            Self::Withdrawn(_) => "withdrawn",
            Self::Admitted(_) => "admitted",
            Self::Recovered(_) => "recovered",
            Self::Revoked(_) => "revoked",
            Self::Deployed(_) => "deployed",
            Self::Removed(_) => "removed",
            Self::Serving(_) => "serving",
            Self::Stopped(_) => "stopped",
            Self::Voters(_) => "voters",
            Self::Sealed(_) => "sealed",
            Self::Claimed(_) => "claimed",
            Self::Activated(_) => "activated",
            Self::Intent(_) => "intent",
            Self::Released(_) => "released",
            Self::Retired(_) => "retired",
            Self::Spawning(_) => "spawning",
            Self::Bounded(_) => "bounded",
            Self::Scaled(_) => "scaled",
            Self::Labelled(_) => "labelled",
            Self::Budgeted(_) => "budgeted",
            Self::Draining(_) => "draining",
        }
    }

    /// Whether it changes who belongs and what they may do, rather than a register.
    pub(crate) fn is_authority(&self) -> bool {
        matches!(
            self,
            Self::Founded(_) | Self::Withdrawn(_) | Self::Admitted(_) | Self::Recovered(_) | Self::Revoked(_)
        )
    }

    /// What this operation offers to those who hold its key.
    pub(crate) fn offer(&self) -> Option<Offer> {
        match self {
            Self::Invited(op) => {
                Some(Offer { key: op.key, uses: op.uses, roles: op.roles, device: op.device })
            }
            Self::User(op) => Some(Offer { key: op.key, uses: op.devices, roles: op.roles, device: None }),
            Self::Intent(op) => Some(Offer { key: op.key, uses: 1, roles: Roles::NODE, device: None }),
            _ => None,
        }
    }

    /// Whether a grant with these roles may offer what this operation offers. Who may make a machine may have it
    /// admitted, as a node and no more.
    pub(crate) fn may_be_offered_by(&self, roles: Roles) -> bool {
        matches!(self, Self::Intent(_)) || self.offer().is_none_or(|offer| roles.covers(offer.roles))
    }

    /// The blocks this operation is about. They must be known and lie below it in depth.
    pub fn references(&self) -> impl Iterator<Item = BlockId> + '_ {
        let one = std::slice::from_ref;
        let none: &[BlockId] = &[];
        let (first, more) = match self {
            Self::Founded(_)
            | Self::Invited(_)
            | Self::User(_)
            | Self::Recovered(_)
            | Self::Voters(_)
            | Self::Spawning(_)
            | Self::Bounded(_)
            | Self::Scaled(_)
            | Self::Labelled(_)
            | Self::Budgeted(_)
            | Self::Draining(_) => (none, none),
            Self::Withdrawn(op) => (one(&op.invitation), op.stands.as_slice()),
            Self::Admitted(op) => (one(&op.invitation), none),
            Self::Revoked(op) => (op.grants.as_slice(), op.pins.as_slice()),
            Self::Deployed(op) => (op.replaces.as_slice(), none),
            Self::Removed(op) => (op.replaces.as_slice(), none),
            Self::Serving(op) => (one(&op.revision), none),
            Self::Stopped(op) => (one(&op.revision), none),
            Self::Sealed(op) => (one(&op.voters), none),
            Self::Claimed(op) => (op.after.as_slice(), none),
            Self::Activated(op) => (one(&op.claim), none),
            Self::Intent(op) => (one(&op.activation), none),
            Self::Released(op) => (one(&op.claim), none),
            Self::Retired(op) => (one(&op.intent), none),
        };
        first.iter().chain(more).copied()
    }

    /// Checks what can be checked without any other block.
    pub(crate) fn check_fields(&self) -> Result<(), &'static str> {
        let ensure = |holds: bool, what: &'static str| if holds { Ok(()) } else { Err(what) };
        match self {
            Self::Founded(op) => {
                ensure(is_label(&op.name), "the fleet's name is empty, too long or not printable")?;
                ensure(is_label(&op.label), "the device's name is empty, too long or not printable")?;
                ensure(usable_key(&op.admin).is_some(), "the admin key is weak or no key")?;
                ensure(usable_key(&op.recovery).is_some(), "the recovery key is weak or no key")?;
                ensure(op.admin != op.recovery, "the admin key and the recovery key are the same")
            }
            Self::Invited(op) => {
                ensure(usable_key(&op.key).is_some(), "the invitation's key is weak or no key")?;
                ensure(
                    (1..=limits::INVITATION_USES_MAX).contains(&op.uses),
                    "the number of uses is out of range",
                )?;
                ensure(op.roles.is_well_formed(), "the roles are none or unknown")?;
                ensure(
                    op.device.is_none_or(|key| usable_key(&key).is_some()),
                    "the device's key is weak or no key",
                )?;
                ensure(
                    op.device.is_some() || Roles::NODE.covers(op.roles),
                    "a role above node needs a named device",
                )?;
                ensure(op.note.is_empty() || is_label(&op.note), "the note is too long or not printable")
            }
            Self::User(op) => {
                ensure(usable_key(&op.key).is_some(), "the user's key is weak or no key")?;
                ensure(
                    (1..=limits::USER_DEVICES_MAX).contains(&op.devices),
                    "the number of devices is out of range",
                )?;
                ensure(op.roles.is_well_formed(), "the roles are none or unknown")?;
                ensure(is_label(&op.name), "the user's name is empty, too long or not printable")
            }
            Self::Stopped(_)
            | Self::Activated(_)
            | Self::Released(_)
            | Self::Retired(_)
            | Self::Draining(_) => Ok(()),
            Self::Claimed(op) => op.check_fields(),
            Self::Intent(op) => op.check_fields(),
            Self::Spawning(op) => op.check_fields(),
            Self::Bounded(op) => op.check_fields(),
            Self::Scaled(op) => op.check_fields(),
            Self::Labelled(op) => op.check_fields(),
            Self::Budgeted(op) => op.check_fields(),
            Self::Withdrawn(op) => {
                ensure(op.stands.len() <= limits::STANDS_MAX, "too many admissions are named")?;
                ensure(is_ascending(&op.stands), "the admissions are not in ascending order")
            }
            Self::Recovered(op) => {
                ensure(usable_key(&op.device).is_some(), "the device's key is weak or no key")?;
                ensure(is_label(&op.label), "the device's name is empty, too long or not printable")?;
                ensure(op.generation > 0, "a generation of zero")
            }
            Self::Admitted(op) => {
                ensure(usable_key(&op.device).is_some(), "the device's key is weak or no key")?;
                ensure(is_label(&op.label), "the device's name is empty, too long or not printable")
            }
            Self::Revoked(op) => {
                ensure(!op.grants.is_empty(), "no grant is named")?;
                ensure(op.grants.len() <= limits::REVOKED_GRANTS_MAX, "too many grants are named")?;
                ensure(op.pins.len() <= limits::PINS_MAX, "too many sessions are pinned")?;
                ensure(is_ascending(&op.grants), "the grants are not in ascending order")?;
                ensure(is_ascending(&op.pins), "the pins are not in ascending order")
            }
            Self::Deployed(op) => {
                ensure(is_function_name(&op.name), "the function's name is not allowed")?;
                ensure(
                    (1..=limits::COMPONENT_BYTES_MAX).contains(&op.size),
                    "the component's size is out of range",
                )?;
                ensure(
                    (1..=limits::MANIFEST_BYTES_MAX).contains(&op.manifest_size),
                    "the manifest's size is out of range",
                )?;
                check_replaces(&op.replaces)
            }
            Self::Removed(op) => {
                ensure(is_function_name(&op.name), "the function's name is not allowed")?;
                ensure(!op.replaces.is_empty(), "a removal names no deploy")?;
                check_replaces(&op.replaces)
            }
            Self::Serving(op) => ensure(op.concurrency > 0, "a concurrency of zero"),
            Self::Voters(op) => {
                ensure(
                    (1..=limits::VOTERS_MAX).contains(&op.devices.len()),
                    "the number of voters is out of range",
                )?;
                ensure(is_ascending(&op.devices), "the voters are not in ascending order")?;
                ensure(
                    op.devices.iter().all(|key| usable_key(key).is_some()),
                    "a voter's key is weak or no key",
                )
            }
            Self::Sealed(op) => ensure(
                (1..=limits::PAGE_BYTES_MAX).contains(&(op.size as usize)),
                "the page's size is out of range",
            ),
        }
    }
}

fn check_replaces(replaces: &[BlockId]) -> Result<(), &'static str> {
    if replaces.len() > limits::REPLACES_MAX {
        return Err("too many earlier blocks are named");
    }
    if is_ascending(replaces) { Ok(()) } else { Err("the earlier blocks are not in ascending order") }
}

fn is_ascending<T: Ord>(items: &[T]) -> bool {
    items.windows(2).all(|pair| pair[0] < pair[1])
}

/// 1 to 63 of `a-z`, `0-9` and `-`, a letter first, no `-` last: fit for a path, a file and a DNS label.
pub(crate) fn is_function_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    (1..=limits::NAME_CHARS_MAX).contains(&bytes.len())
        && bytes[0].is_ascii_lowercase()
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
        && bytes[bytes.len() - 1] != b'-'
}

/// Text for people: not empty, at most [`limits::LABEL_BYTES_MAX`] bytes, nothing that moves a terminal's cursor or
/// reverses a line.
#[must_use]
pub fn is_label(text: &str) -> bool {
    (1..=limits::LABEL_BYTES_MAX).contains(&text.len())
        && text.chars().all(|c| !c.is_control() && !('\u{200b}'..='\u{206f}').contains(&c) && c != '\u{feff}')
}

#[cfg(test)]
mod tests {
    use serde::{
        Deserializer,
        de::{Error, Visitor},
        forward_to_deserialize_any,
    };

    use super::*;

    /// Reads nothing: it notes the names that an enum can be read from.
    #[derive(Debug)]
    struct Names(&'static [&'static str]);

    impl std::fmt::Display for Names {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "{:?}", self.0)
        }
    }

    impl std::error::Error for Names {}

    impl Error for Names {
        fn custom<T: std::fmt::Display>(_: T) -> Self {
            Self(&[])
        }
    }

    struct Probe;

    impl<'de> Deserializer<'de> for Probe {
        type Error = Names;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Names> {
            Err(Names(&[]))
        }

        fn deserialize_enum<V: Visitor<'de>>(
            self,
            _: &'static str,
            variants: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Names> {
            Err(Names(variants))
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map struct identifier ignored_any
        }
    }

    #[test]
    fn the_names_are_those_that_blocks_can_have() {
        let Err(Names(names)) = Payload::deserialize(Probe) else { panic!("nothing was to be read") };
        assert_eq!(Payload::NAMES, *names);
        let removed = Payload::Removed(Removed { name: "f".to_owned(), replaces: Vec::new() });
        assert_eq!(removed.name(), "removed");
    }
}
