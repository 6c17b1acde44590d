//! What admins do with members: revoking them, and changing their roles.

use std::{collections::BTreeSet, sync::Arc};

use osiris_ledger::{
    AppendError, Author, Block, BlockId, Member, Now, Payload, Role, Roles, join_proof,
    limits::{REVOKED_GRANTS_MAX, VOTERS_MAX},
    op, recovery_message,
};

use super::{Node, Refusal, Reply, RoleChange, Token};
use crate::api::codes;

/// The note of an invitation that is redeemed at once, to give a member more roles.
const GRANT_NOTE: &str = "role grant";

type Answer = Result<Option<Reply>, Refusal>;

impl Node {
    pub(super) fn revoke(
        &mut self,
        now: Now,
        token: Token,
        device: Author,
        discard: bool,
        timeout_ms: u64,
    ) -> Answer {
        if device == self.me {
            return Err(Refusal::new(
                codes::CONFLICT,
                "This device does not revoke itself.",
                "`osiris leave` ends this device's own membership.",
            ));
        }
        let grants = active_grants(self.active_member(&device)?);
        let pins = if discard { Vec::new() } else { self.ledger.pins_for(&device) };
        let block = self.end_grants(now, grants, pins)?;
        self.wait(now, token, Some(block.id()), timeout_ms, false);
        Ok(None)
    }

    /// Says how many blocks a member may write.
    pub(super) fn budget(
        &mut self,
        now: Now,
        token: Token,
        budgeted: op::Budgeted,
        timeout_ms: u64,
    ) -> Answer {
        self.active_member(&budgeted.device)?;
        self.write(now, token, Payload::Budgeted(budgeted), timeout_ms, false)
    }

    pub(super) fn grant_roles(&mut self, now: Now, token: Token, change: &RoleChange) -> Answer {
        let member = self.active_member(&change.device)?;
        if member.roles.covers(change.roles) {
            let message = format!("{} has the role(s) {} already.", member.label, change.roles);
            return Err(Refusal::new(codes::CONFLICT, message, "`osiris nodes` shows the roles."));
        }
        // With what it was given already, where this device may give that: a block names one grant, and an admin whose
        // grant is for the role admin alone could invite no node. What it has by a person's key ends with that person.
        let own = member.grants.iter().filter(|(id, _, active)| *active && self.ledger.user_of(id).is_none());
        let all = own.fold(change.roles, |all, (_, roles, _)| all.with(*roles));
        let offer = Payload::Invited(offer(change, all));
        let gives_all = self.writer.may_append(&mut self.ledger, &offer).is_ok();
        let block = self.give(now, change, if gives_all { all } else { change.roles })?;
        self.wait(now, token, Some(block.id()), change.timeout_ms, false);
        Ok(None)
    }

    pub(super) fn revoke_roles(&mut self, now: Now, token: Token, change: &RoleChange) -> Answer {
        let member = self.active_member(&change.device)?;
        if change.roles.has(Role::Node) {
            return Err(Refusal::new(
                codes::BAD_REQUEST,
                "The role node is not taken by itself: who is no node any more serves nothing.",
                "`osiris member revoke` ends a membership.",
            ));
        }
        if !change.roles.iter().any(|role| member.roles.has(role)) {
            let message = format!("{} does not have the role(s) {}.", member.label, change.roles);
            return Err(Refusal::new(codes::CONFLICT, message, "`osiris nodes` shows the roles."));
        }
        let gives = |roles: Roles| roles.iter().any(|role| change.roles.has(role));
        let active = member.grants.iter().filter(|(_, _, active)| *active);
        let (mut ending, mut staying) = (Vec::new(), Roles::NONE);
        for (grant, roles, _) in active {
            if gives(*roles) {
                ending.push(*grant);
            } else {
                staying = staying.with(*roles);
            }
        }
        ending.sort_unstable();
        let kept: Vec<_> = member.roles.iter().filter(|role| !change.roles.has(*role)).collect();
        let kept = Roles::of(&kept);
        // Refused before anything is written, where the roles cannot be taken.
        if change.device != self.me {
            self.may_end(&ending)?;
        }
        if change.roles.has(Role::Admin) && self.is_last_admin(&change.device) {
            return Err(Refusal::new(
                codes::CONFLICT,
                "This is the fleet's only admin: without it nobody could invite or revoke.",
                "Make another member an admin first: `osiris role grant MEMBER admin`.",
            ));
        }
        if !staying.covers(kept) {
            self.give(now, change, kept)?;
        }
        let block = if change.device == self.me {
            self.end_own_grants(now, ending)?
        } else {
            let pins = self.ledger.pins_for(&change.device);
            self.end_grants(now, ending, pins)?
        };
        self.wait(now, token, Some(block.id()), change.timeout_ms, false);
        Ok(None)
    }

    /// Says who seals pages from now on.
    pub(super) fn name_voters(
        &mut self,
        now: Now,
        token: Token,
        devices: BTreeSet<Author>,
        timeout_ms: u64,
    ) -> Answer {
        for device in &devices {
            self.active_member(device)?;
        }
        if !(1..=VOTERS_MAX).contains(&devices.len()) {
            let message = format!("A fleet has 1 to {VOTERS_MAX} voters, not {}.", devices.len());
            return Err(Refusal::new(codes::BAD_REQUEST, message, "`osiris nodes` lists the members."));
        }
        let op = op::Voters { devices: devices.into_iter().collect() };
        self.write(now, token, Payload::Voters(op), timeout_ms, false)
    }

    /// The recovery key, and the generation that is next.
    pub(super) fn recovery(&self) -> Result<(Author, u32), Refusal> {
        let genesis = self.ledger.get(&BlockId(self.ledger.fleet().0));
        let Some(Payload::Founded(founded)) = genesis.map(|block| block.payload()) else {
            return Err(Refusal::new(
                codes::CONFLICT,
                "The fleet's first block is not here yet, so its recovery key is not known.",
                "`osiris sync` fetches blocks from other members.",
            ));
        };
        let known = self.ledger.in_order().into_iter().filter_map(|block| match block.payload() {
            Payload::Recovered(op) => Some(op.generation),
            _ => None,
        });
        // Only the recovery key can have signed the highest one away.
        Ok((founded.recovery, known.max().unwrap_or(0).saturating_add(1)))
    }

    pub(super) fn recover(&mut self, now: Now, token: Token, op: op::Recovered, timeout_ms: u64) -> Answer {
        let (key, next) = self.recovery()?;
        if op.generation < next {
            return Err(Refusal::new(
                codes::CONFLICT,
                "Another recovery came in between.",
                "Run the same command again.",
            ));
        }
        let message = recovery_message(&self.ledger.fleet(), op.generation, &op.device);
        if !op::verify(&key, &message, &op.certificate) {
            return Err(Refusal::new(
                codes::DENIED,
                "This is not the recovery key of this fleet.",
                "Use the key that `osiris init` printed when the fleet was founded.",
            ));
        }
        let block = self.append(now, Payload::Recovered(op))?;
        self.wait(now, token, Some(block.id()), timeout_ms, false);
        Ok(None)
    }

    /// An invitation for one member with a key of its own, and the admission by it at once: a grant with
    /// further roles, with nothing to be handed over.
    fn give(&mut self, now: Now, change: &RoleChange, roles: Roles) -> Result<Arc<Block>, Refusal> {
        let label = self.active_member(&change.device)?.label.clone();
        let invitation = self.append(now, Payload::Invited(offer(change, roles)))?.id();
        let proof = join_proof(&change.key, &self.ledger.fleet(), &invitation, &change.device);
        self.append(now, Payload::Admitted(op::Admitted { invitation, device: change.device, proof, label }))
    }

    /// Ends grants of another device, all or none; of what it wrote, the pins and what lies below count.
    pub(super) fn end_grants(
        &mut self,
        now: Now,
        grants: Vec<BlockId>,
        pins: Vec<BlockId>,
    ) -> Result<Arc<Block>, Refusal> {
        self.may_end(&grants)?;
        let mut last = None;
        for grants in grants.chunks(REVOKED_GRANTS_MAX) {
            let op = op::Revoked { grants: grants.to_vec(), pins: pins.clone() };
            last = Some(self.append(now, Payload::Revoked(op))?);
        }
        last.ok_or_else(|| self.refused(AppendError::NotMember))
    }

    pub(super) fn may_end(&mut self, grants: &[BlockId]) -> Result<(), Refusal> {
        let op = op::Revoked { grants: grants.to_vec(), pins: Vec::new() };
        let may = self.writer.may_append(&mut self.ledger, &Payload::Revoked(op));
        may.map_err(|error| self.refused(error))
    }

    /// Ends grants of this device, each in the grant's own name.
    pub(super) fn end_own_grants(&mut self, now: Now, grants: Vec<BlockId>) -> Result<Arc<Block>, Refusal> {
        let mut last = None;
        for grant in grants {
            // The block pins its own session by itself; sessions that this one does not cite need a pin.
            let mut pins = self.ledger.pins_for(&self.me);
            pins.retain(|pin| self.ledger.get(pin).is_some_and(|block| block.chain() != self.writer.chain()));
            last = Some(self.append(now, Payload::Revoked(op::Revoked { grants: vec![grant], pins }))?);
        }
        last.ok_or_else(|| self.refused(AppendError::NotMember))
    }

    pub(super) fn active_member(&self, device: &Author) -> Result<&Member, Refusal> {
        match self.view.members().get(device) {
            Some(member) if member.active => Ok(member),
            Some(member) => {
                let message = format!("{} is no member any more.", member.label);
                Err(Refusal::new(codes::CONFLICT, message, "`osiris nodes` lists the members."))
            }
            None => {
                let message = format!("There is no member {}.", device.short());
                Err(Refusal::new(codes::NOT_FOUND, message, "`osiris nodes` lists the members."))
            }
        }
    }

    /// Whether the fleet would have no admin without this one.
    pub(super) fn is_last_admin(&self, device: &Author) -> bool {
        let admins = self.view.members().values().filter(|m| m.active && m.roles.has(Role::Admin));
        let admins: Vec<_> = admins.map(|member| member.device).collect();
        admins == [*device]
    }
}

/// An invitation for one device, which it redeems at once.
fn offer(change: &RoleChange, roles: Roles) -> op::Invited {
    op::Invited {
        key: Author(change.key.verifying_key().to_bytes()),
        uses: 1,
        roles,
        device: Some(change.device),
        note: GRANT_NOTE.to_owned(),
    }
}

/// Grants of a member that are active, by id.
pub(super) fn active_grants(member: &Member) -> Vec<BlockId> {
    let active = member.grants.iter().filter(|(_, _, active)| *active);
    let mut grants: Vec<_> = active.map(|(id, ..)| *id).collect();
    grants.sort_unstable();
    grants
}
