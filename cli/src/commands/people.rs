//! `osiris member` and `osiris role`: what admins do with members.

use osiris_fleet::api::{NodeRow, Revoke, RoleChange};

use super::seen;
use crate::args::{MemberCommand, RoleArgs, RoleCommand};
use crate::backend::{Backend, millis};
use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::output::{Out, human};

/// `osiris member revoke`.
pub(crate) async fn member(command: &MemberCommand, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    let MemberCommand::Revoke { member, discard, wait } = command;
    let mut backend = Backend::open(settings).await?;
    let row = find(&backend.nodes().await?, member)?;
    let offline = backend.is_offline();
    let timeout_ms = millis(wait.timeout);
    let revoked = backend.revoke(Revoke { device: row.device, discard: *discard, timeout_ms }).await?;
    out.line(&revoked, &format!("revoked {} ({})", revoked.label, human::short(&revoked.device)))?;
    if *discard {
        out.note(
            "All that it wrote is void: its deploys and removals, its invitations, and who came by them.",
        );
    } else {
        out.note("What it is known to have written goes on counting; what comes from it now is void.");
    }
    if !revoked.members_ended.is_empty() {
        out.note(&format!("No members any more, too: {}", human::list(&revoked.members_ended)));
    }
    if !revoked.functions_ended.is_empty() {
        out.note(&format!("No functions any more: {}", human::list(&revoked.functions_ended)));
    }
    Ok(seen(&revoked.written, offline, out))
}

/// `osiris role grant` and `osiris role revoke`.
pub(crate) async fn role(command: &RoleCommand, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    let (RoleArgs { member, roles, wait }, give) = match command {
        RoleCommand::Grant(args) => (args, true),
        RoleCommand::Revoke(args) => (args, false),
    };
    let mut backend = Backend::open(settings).await?;
    let row = find(&backend.nodes().await?, member)?;
    let offline = backend.is_offline();
    let roles = roles.iter().map(|role| role.name().to_owned()).collect();
    let change = RoleChange { device: row.device, roles, timeout_ms: millis(wait.timeout) };
    let changed = backend.change_roles(change, give).await?;
    out.line(&changed, &format!("{} is {} now", changed.label, human::list(&changed.roles)))?;
    Ok(seen(&changed.written, offline, out))
}

/// The one member with this label, or whose key starts so. Past members are looked at last.
fn find(rows: &[NodeRow], name: &str) -> Result<NodeRow, Failure> {
    let key = name.to_ascii_lowercase();
    let is_start = key.len() >= 4 && key.bytes().all(|byte| byte.is_ascii_hexdigit());
    let fits = |row: &&NodeRow| row.label == name || (is_start && row.device.starts_with(&key));
    let (past, present): (Vec<_>, Vec<_>) = rows.iter().filter(fits).partition(|row| row.state == "revoked");
    let found = if present.is_empty() { past } else { present };
    match found.as_slice() {
        [row] => Ok((*row).clone()),
        [] => Err(Failure::not_found(format!("There is no member {name}."))
            .next("`osiris nodes` lists the members")),
        several => {
            let several = several.iter().map(|row| format!("{} ({})", row.label, human::short(&row.device)));
            let several: Vec<_> = several.collect();
            Err(Failure::usage(format!("{name} names several members: {}.", several.join(", ")))
                .next("give the start of the one's key"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_found_by_label_or_key_and_nobody_is_guessed() {
        let row = |label: &str, device: &str, state: &str| NodeRow {
            label: label.to_owned(),
            device: device.to_owned(),
            state: state.to_owned(),
            ..NodeRow::default()
        };
        let rows = [
            row("till", "abcd1111", "connected"),
            row("till", "abcd2222", "unreachable"),
            row("desk", "beef0000", "this"),
            row("desk", "dead0000", "revoked"),
        ];
        assert_eq!(find(&rows, "desk").expect("the active one").device, "beef0000");
        assert_eq!(find(&rows, "DEAD").expect("by key").device, "dead0000");
        let ambiguous = find(&rows, "till").expect_err("two");
        assert_eq!(ambiguous.exit, Exit::Usage);
        assert!(ambiguous.message.contains("abcd1111") && ambiguous.message.contains("abcd2222"));
        assert_eq!(find(&rows, "abcd").expect_err("two keys").exit, Exit::Usage);
        assert_eq!(find(&rows, "").expect_err("nobody").exit, Exit::NotFound);
        assert_eq!(find(&rows, "b").expect_err("too short a key").exit, Exit::NotFound);
    }
}
