//! The desk, for users: persons, whose keys admit devices.

use std::collections::BTreeSet;

use osiris_ledger::{Author, BlockId, InvitationState, Role, Roles, SigningKey, op};
use osiris_protocol::ticket::InvitationSecret;

use super::{
    answer::ApiError,
    desk::{Desk, unexpected},
    people::functions,
    rows,
};
use crate::{
    api,
    node::{Query, Reply, Request, UserDevices},
};

type Result<T> = std::result::Result<T, ApiError>;

/// Public half of a user's secret key, hex.
#[must_use]
pub fn public_key(secret: &[u8; 32]) -> String {
    Author(SigningKey::from_bytes(secret).verifying_key().to_bytes()).to_string()
}

impl Desk {
    pub(crate) async fn whoami(&self) -> Result<api::Whoami> {
        let grants = match self.ask(Request::Query(Query::Grants)).await? {
            Reply::Grants(grants) => grants,
            other => return Err(unexpected(&other)),
        };
        let view = self.view();
        let member = view.members().get(&self.me);
        let held = member.map(|member| member.grants.as_slice()).unwrap_or_default();
        let rows = grants.iter().filter_map(|(logged, tree)| {
            let (id, roles, active) = held.iter().find(|(id, ..)| *id == logged.block.order().id)?;
            Some(api::GrantRow {
                id: id.to_string(),
                roles: rows::role_names(*roles),
                active: *active,
                by: rows::granted(&view, logged),
                rank: rank(*tree),
            })
        });
        let users = member.map(|member| member.users.as_slice()).unwrap_or_default();
        let users: BTreeSet<_> =
            users.iter().filter_map(|id| view.users().get(id)).map(|u| u.name.clone()).collect();
        Ok(api::Whoami {
            device: self.me.to_string(),
            label: rows::label(&view, &self.me),
            fleet: self.fleet.to_string(),
            fleet_name: view.name().to_owned(),
            member: view.is_member(&self.me),
            roles: member.map(|member| rows::role_names(member.roles)).unwrap_or_default(),
            users: users.into_iter().collect(),
            grants: rows.collect(),
        })
    }

    pub(crate) fn users(&self) -> Vec<api::UserRow> {
        rows::users(&self.view())
    }

    pub(crate) async fn add_user(&self, user: api::AddUser) -> Result<api::UserKnown> {
        let roles = roles(&user.roles)?;
        let key: Author = user.key.parse().map_err(|error| {
            ApiError::bad_request(format!("The user's key is not valid: {error}."))
                .with_next("`osiris user key show` prints it.")
        })?;
        let op = op::User { name: user.name, key, roles, devices: user.devices };
        let request = Request::AddUser { user: op, timeout_ms: user.timeout_ms };
        let written = self.written(self.ask(request).await?)?;
        self.user_known(written, &key).await
    }

    pub(crate) async fn change_user(&self, change: api::ChangeUser) -> Result<api::UserKnown> {
        let user = id(&change.id)?;
        let roles = if change.roles.is_empty() { None } else { Some(roles(&change.roles)?) };
        let devices = (change.devices > 0).then_some(change.devices);
        let timeout_ms = change.timeout_ms;
        let key = self.view().users().get(&user).map(|user| user.key);
        let request = Request::ChangeUser { user, roles, devices, timeout_ms };
        let written = self.written(self.ask(request).await?)?;
        let key = key.ok_or_else(|| ApiError::internal("The user's key is not known."))?;
        self.user_known(written, &key).await
    }

    async fn user_known(&self, written: api::Written, key: &Author) -> Result<api::UserKnown> {
        let view = self.view();
        let mut users = view.users().values().filter(|user| user.key == *key);
        let user = users.find(|user| user.state != InvitationState::Withdrawn);
        let user = user.ok_or_else(|| ApiError::internal("The user is not in the view."))?;
        Ok(api::UserKnown {
            written,
            id: user.id.to_string(),
            name: user.name.clone(),
            roles: rows::role_names(user.roles),
            // Where no address is known yet, `osiris user ticket` makes one later.
            ticket: self.user_ticket(user.id).await.ok().map(|reply| reply.ticket),
        })
    }

    pub(crate) async fn revoke_user(&self, revoke: api::RevokeUser) -> Result<api::UserRevoked> {
        let user = id(&revoke.id)?;
        let devices = match (revoke.keep_devices, revoke.discard) {
            (true, true) => {
                let why = "Devices cannot go on with what they have while what they wrote becomes void.";
                return Err(ApiError::bad_request(why).with_next("Give keep_devices or discard."));
            }
            (true, false) => UserDevices::Keep,
            (false, true) => UserDevices::Discard,
            (false, false) => UserDevices::End,
        };
        let before = self.view();
        let request = Request::RevokeUser { user, devices, timeout_ms: revoke.timeout_ms };
        let written = self.written(self.ask(request).await?)?;
        let after = self.view();
        let known = before.users().get(&user);
        let same = before.users().values().filter(|other| known.is_some_and(|known| known.key == other.key));
        let devices: BTreeSet<_> =
            same.flat_map(|user| user.devices.iter().map(|(_, device)| *device)).collect();
        let (staying, ended): (Vec<_>, Vec<_>) = devices.into_iter().partition(|d| after.is_member(d));
        let staying = staying.iter().map(|device| {
            let roles = after.members().get(device).map_or(Roles::NONE, |member| member.roles);
            format!("{} ({roles})", rows::label(&after, device))
        });
        let left = functions(&after);
        Ok(api::UserRevoked {
            written,
            name: known.map(|user| user.name.clone()).unwrap_or_default(),
            devices_ended: ended.iter().map(|device| rows::label(&before, device)).collect(),
            devices_staying: staying.collect(),
            functions_ended: functions(&before).difference(&left).cloned().collect(),
        })
    }

    /// A join ticket whose secret is the user's own key, which is not in it.
    pub(crate) async fn user_ticket(&self, id: BlockId) -> Result<api::TicketReply> {
        let view = self.view();
        let user = view.users().get(&id).ok_or_else(|| {
            ApiError::not_found(format!("There is no user {}.", id.short()))
                .with_next("`osiris user ls` lists the users.")
        })?;
        if user.state == InvitationState::Withdrawn {
            return Err(ApiError::conflict(format!("The user {} was revoked.", user.name))
                .with_next("`osiris user ls` lists the users."));
        }
        let ticket = self.join_ticket(id, InvitationSecret::none(), None).await?;
        Ok(api::TicketReply { ticket })
    }
}

/// What stands above a grant may revoke it, and nothing else.
fn rank(tree: i64) -> String {
    match tree {
        ..0 => format!("above the founder: recovery {}", tree.unsigned_abs()),
        0 => "the founder: only a recovery ranks higher".to_owned(),
        1 => "directly below the founder".to_owned(),
        more => format!("{more} admissions below the founder"),
    }
}

pub(crate) fn id(text: &str) -> Result<BlockId> {
    text.parse().map_err(|error| {
        ApiError::bad_request(format!("`{text}` does not name a user: {error}."))
            .with_next("`osiris user ls -o json` prints the ids.")
    })
}

fn roles(names: &[String]) -> Result<Roles> {
    let mut roles = Vec::new();
    for name in names {
        roles.push(name.parse::<Role>().map_err(|error| ApiError::bad_request(format!("{error}.")))?);
    }
    Ok(Roles::of(&roles))
}
