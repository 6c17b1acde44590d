//! The desk, for members and their roles.

use std::collections::BTreeSet;

use osiris_ledger::{
    Author, BlockId, FleetId, InvitationState, Role, Roles, Signature, SigningKey, View, recovery_certificate,
};

use super::{
    DriverError,
    answer::ApiError,
    desk::{Desk, unexpected},
    folder, rows,
};
use crate::{
    api,
    api::codes,
    node::{Reply, Request, RoleChange},
};

type Result<T> = std::result::Result<T, ApiError>;

impl Desk {
    pub(crate) async fn revoke(&self, revoke: api::Revoke) -> Result<api::Revoked> {
        let device = device(&revoke.device)?;
        let before = self.view();
        let request = Request::Revoke { device, discard: revoke.discard, timeout_ms: revoke.timeout_ms };
        let written = self.written(self.ask(request).await?)?;
        let after = self.view();
        let ended = members(&before).into_iter().filter(|m| *m != device && !after.is_member(m));
        let functions = functions(&after);
        // What it left open would let it, or whom it chose, in again.
        let mut invitations_withdrawn = Vec::new();
        for invitation in after.invitations().values() {
            if invitation.by == device
                && invitation.state == InvitationState::Open
                && self.withdraw(invitation.id, 0).await.is_ok()
            {
                invitations_withdrawn.push(invitation.id.to_string());
            }
        }
        let admitted =
            before.members().get(&device).map(|member| member.users.as_slice()).unwrap_or_default();
        let users = after.users().values().filter(|user| {
            user.state == InvitationState::Open && (user.by == device || admitted.contains(&user.id))
        });
        Ok(api::Revoked {
            written,
            device: device.to_string(),
            label: rows::label(&before, &device),
            invitations_withdrawn,
            users_open: users.map(|user| user.name.clone()).collect(),
            members_ended: ended.map(|member| rows::label(&before, &member)).collect(),
            functions_ended: self::functions(&before).difference(&functions).cloned().collect(),
        })
    }

    pub(crate) async fn grant_roles(&self, change: api::RoleChange) -> Result<api::RolesChanged> {
        let (change, device) = role_change(&change)?;
        let written = self.written(self.ask(Request::GrantRoles(change)).await?)?;
        Ok(self.roles_changed(written, &device))
    }

    pub(crate) async fn revoke_roles(&self, change: api::RoleChange) -> Result<api::RolesChanged> {
        let (change, device) = role_change(&change)?;
        let written = self.written(self.ask(Request::RevokeRoles(change)).await?)?;
        Ok(self.roles_changed(written, &device))
    }

    pub(crate) async fn recovery(&self) -> Result<api::Recovery> {
        match self.ask(Request::Recovery).await? {
            Reply::Recovery { key, generation } => Ok(api::Recovery {
                fleet: self.fleet.to_string(),
                key: key.to_string(),
                device: self.me.to_string(),
                generation,
            }),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn recover(&self, recover: api::Recover) -> Result<api::Recovered> {
        let device = device(&recover.device)?;
        let certificate = recover.certificate.parse::<Signature>();
        let certificate = certificate.map_err(|error| {
            ApiError::bad_request(format!("The certificate is not a signature: {error}."))
        })?;
        let label = rows::label(&self.view(), &device);
        let (generation, timeout_ms) = (recover.generation, recover.timeout_ms);
        let request = Request::Recover { device, label, generation, certificate, timeout_ms };
        let written = self.written(self.ask(request).await?)?;
        let view = self.view();
        let admins = view.members().values().filter(|m| m.active && m.roles.has(Role::Admin));
        let others = admins.map(|member| member.device).filter(|admin| *admin != device);
        Ok(api::Recovered {
            written,
            device: device.to_string(),
            label: rows::label(&view, &device),
            generation,
            other_admins: others.map(|admin| admin.to_string()).collect(),
        })
    }

    fn roles_changed(&self, written: api::Written, device: &Author) -> api::RolesChanged {
        let view = self.view();
        let member = view.members().get(device);
        api::RolesChanged {
            written,
            device: device.to_string(),
            label: rows::label(&view, device),
            roles: member.map(|member| rows::role_names(member.roles)).unwrap_or_default(),
        }
    }
}

/// The recovery key's word for a device, made where the key is typed in: the key goes to no node.
///
/// # Errors
/// [`DriverError`] where `secret` is no key, or not this fleet's.
pub fn certify_recovery(
    secret: &str,
    recovery: &api::Recovery,
    device: &str,
) -> std::result::Result<String, DriverError> {
    let wrong = |code, message: &str| {
        DriverError::new(code, message, "Use the key that `osiris init` printed when the fleet was founded.")
    };
    let secret: BlockId = secret
        .trim()
        .parse()
        .map_err(|_| wrong(codes::BAD_REQUEST, "A recovery key is 64 hexadecimal digits."))?;
    let key = SigningKey::from_bytes(&secret.0);
    if Author(key.verifying_key().to_bytes()).to_string() != recovery.key {
        return Err(wrong(codes::DENIED, "This is not the recovery key of this fleet."));
    }
    let unreadable = |_| wrong(codes::INTERNAL, "The node's answer names no fleet or no device.");
    let fleet: BlockId = recovery.fleet.parse().map_err(unreadable)?;
    let device: Author = device.parse().map_err(unreadable)?;
    Ok(recovery_certificate(&key, &FleetId(fleet.0), recovery.generation, &device).to_string())
}

pub(super) fn device(text: &str) -> Result<Author> {
    text.parse().map_err(|error| {
        ApiError::bad_request(format!("The device's key is not valid: {error}."))
            .with_next("`osiris nodes -o json` prints the keys whole.")
    })
}

fn role_change(change: &api::RoleChange) -> Result<(RoleChange, Author)> {
    let device = device(&change.device)?;
    let mut roles = Vec::new();
    for name in &change.roles {
        roles.push(name.parse::<Role>().map_err(|error| ApiError::bad_request(format!("{error}.")))?);
    }
    if roles.is_empty() {
        return Err(
            ApiError::bad_request("No role is named.").with_next("Name node, operator, admin or voter.")
        );
    }
    let secret = folder::random::<32>().map_err(|error| ApiError::internal(error.message))?;
    let key = SigningKey::from_bytes(&secret);
    Ok((RoleChange { device, roles: Roles::of(&roles), key, timeout_ms: change.timeout_ms }, device))
}

fn members(view: &View) -> BTreeSet<Author> {
    view.members().values().filter(|member| member.active).map(|member| member.device).collect()
}

pub(super) fn functions(view: &View) -> BTreeSet<String> {
    let standing = view.functions().values().filter(|f| !f.removed && !f.revisions.is_empty());
    standing.map(|function| function.name.clone()).collect()
}
