//! What admins do with users: persons, whose keys admit devices.

use osiris_ledger::{
    BlockId, InvitationState, Now, Payload, Roles, User,
    op::{self, Withdrawn},
};

use super::{Node, Refusal, Reply, Token, UserDevices};
use crate::api::codes;

type Answer = Result<Option<Reply>, Refusal>;

impl Node {
    /// Names and keys of users that still admit are unique as far as this node knows: two admins that
    /// cannot hear each other may make the same name known twice, and both stand.
    pub(super) fn add_user(&mut self, now: Now, token: Token, user: op::User, timeout_ms: u64) -> Answer {
        let mut users = self.view.users().values().filter(|user| user.state != InvitationState::Withdrawn);
        if let Some(known) = users.find(|known| known.name == user.name || known.key == user.key) {
            let message =
                format!("The fleet knows the user {} already, by this name or by this key.", known.name);
            let next = "`osiris user roles` changes the roles; `osiris user revoke` ends the user.";
            return Err(Refusal::new(codes::CONFLICT, message, next));
        }
        self.write(now, token, Payload::User(user), timeout_ms, false)
    }

    /// A new `user` block for the same key, then the withdrawal of the one before. Devices that were
    /// admitted keep what they were given; who comes from now on gets the new roles.
    pub(super) fn change_user(
        &mut self,
        now: Now,
        token: Token,
        id: BlockId,
        (roles, devices): (Option<Roles>, Option<u32>),
        timeout_ms: u64,
    ) -> Answer {
        let user = self.admitting_user(&id)?;
        let changed = op::User {
            name: user.name.clone(),
            key: user.key,
            roles: roles.unwrap_or(user.roles),
            devices: devices.unwrap_or(user.devices_max),
        };
        if (changed.roles, changed.devices) == (user.roles, user.devices_max) {
            let message = format!("{} has these roles and this number of devices already.", user.name);
            return Err(Refusal::new(codes::CONFLICT, message, "`osiris user ls` shows them."));
        }
        let withdrawal = withdrawal(id);
        // Both or none: a key that admits by two blocks would be no change.
        self.writer.may_append(&mut self.ledger, &Payload::User(changed.clone()))?;
        self.writer.may_append(&mut self.ledger, &withdrawal)?;
        self.append(now, Payload::User(changed))?;
        self.write(now, token, withdrawal, timeout_ms, false)
    }

    /// The key admits no more, and what it gave to devices ends as `devices` says. Grants that they have
    /// from elsewhere stay.
    pub(super) fn revoke_user(
        &mut self,
        now: Now,
        token: Token,
        id: BlockId,
        devices: UserDevices,
        timeout_ms: u64,
    ) -> Answer {
        let user = self.admitting_user(&id)?;
        let key = user.key;
        let withdrawal = withdrawal(id);
        self.writer.may_append(&mut self.ledger, &withdrawal)?;
        // Those admitted before the roles were changed are the same person's.
        let mut ending: Vec<_> = match devices {
            UserDevices::Keep => Vec::new(),
            _ => {
                let same = self.view.users().values().filter(|user| user.key == key);
                same.flat_map(|user| user.devices.iter().map(|(grant, device)| (*device, *grant))).collect()
            }
        };
        ending.sort_unstable();
        if let Some(own) = ending.iter().find(|(device, _)| *device == self.me) {
            let message = format!("This device belongs to the user, by the grant {}.", own.1.short());
            let next = "Revoke the user from another admin's device, or give --keep-devices.";
            return Err(Refusal::new(codes::CONFLICT, message, next));
        }
        for (_, grant) in &ending {
            self.may_end(&[*grant])?;
        }
        let mut last = self.append(now, withdrawal)?;
        for of_one in ending.chunk_by(|(a, _), (b, _)| a == b) {
            let grants = of_one.iter().map(|(_, grant)| *grant).collect();
            let pins = match devices {
                UserDevices::Discard => Vec::new(),
                _ => self.ledger.pins_for(&of_one[0].0),
            };
            last = self.end_grants(now, grants, pins)?;
        }
        self.wait(now, token, Some(last.id()), timeout_ms, false);
        Ok(None)
    }

    fn admitting_user(&self, id: &BlockId) -> Result<&User, Refusal> {
        let next = "`osiris user ls` lists the users.";
        match self.view.users().get(id) {
            Some(user) if user.state != InvitationState::Withdrawn => Ok(user),
            Some(user) => {
                let message = format!("The user {} was revoked already.", user.name);
                Err(Refusal::new(codes::CONFLICT, message, next))
            }
            None => Err(Refusal::new(codes::NOT_FOUND, format!("There is no user {}.", id.short()), next)),
        }
    }
}

fn withdrawal(user: BlockId) -> Payload {
    Payload::Withdrawn(Withdrawn { invitation: user, stands: Vec::new() })
}
