//! The desk, for members and their roles.

use std::collections::BTreeSet;

use osiris_ledger::{Author, Role, Roles, SigningKey, View};

use super::{answer::ApiError, desk::Desk, folder, rows};
use crate::{
    api,
    node::{Request, RoleChange},
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
        Ok(api::Revoked {
            written,
            device: device.to_string(),
            label: rows::label(&before, &device),
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

fn device(text: &str) -> Result<Author> {
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
        return Err(ApiError::bad_request("No role is named.").with_next("Name node, operator or admin."));
    }
    let secret = folder::random::<32>().map_err(|error| ApiError::internal(error.message))?;
    let key = SigningKey::from_bytes(&secret);
    Ok((RoleChange { device, roles: Roles::of(&roles), key, timeout_ms: change.timeout_ms }, device))
}

fn members(view: &View) -> BTreeSet<Author> {
    view.members().values().filter(|member| member.active).map(|member| member.device).collect()
}

fn functions(view: &View) -> BTreeSet<String> {
    let standing = view.functions().values().filter(|f| !f.removed && !f.revisions.is_empty());
    standing.map(|function| function.name.clone()).collect()
}
