//! `osiris member`, `osiris role` and `osiris recover`: what admins do with members, and how one becomes
//! an admin where none is left.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use osiris_fleet::api::{MemberBudget, MemberLabels, NodeRow, Recover, Revoke, RoleChange};
use osiris_fleet::manifest::PLACE_LABELS_MAX;
use zeroize::Zeroizing;

use super::seen;
use crate::args::{MemberCommand, RecoverArgs, RoleArgs, RoleCommand, Wait};
use crate::backend::{Backend, driver, millis};
use crate::client::Patience;
use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::input;
use crate::output::{Out, human};

/// Bytes of a recovery file that are read: a key and white space around it.
const RECOVERY_FILE_BYTES_MAX: u64 = 1_024;

/// `osiris member`.
pub(crate) async fn member(command: &MemberCommand, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    match command {
        MemberCommand::Revoke { member, discard, wait } => {
            revoke(member, *discard, *wait, settings, out).await
        }
        MemberCommand::Label { member, labels, wait } => label(member, labels, *wait, settings, out).await,
        MemberCommand::Budget { member, blocks, wait } => budget(member, *blocks, *wait, settings, out).await,
    }
}

async fn budget(
    member: &str,
    blocks: u64,
    wait: Wait,
    settings: &Settings,
    out: Out,
) -> Result<Exit, Failure> {
    let mut backend = Backend::open_within(settings, wait.timeout).await?;
    let row = find(&backend.nodes().await?, member)?;
    let offline = backend.is_offline();
    let timeout_ms = millis(wait.timeout);
    let written = backend.budget(MemberBudget { device: row.device, blocks, timeout_ms }).await?;
    let (may, wrote) = (human::count(blocks, "block"), human::count(row.blocks, "block"));
    out.line(&written, &format!("{} may write {may} from now on; {wrote} of it are known here", row.label))?;
    Ok(seen(&written, offline, out))
}

/// A member has one value of a key, so that a function may be spread over them.
fn check_labels(labels: &[String]) -> Result<(), Failure> {
    if labels.len() > PLACE_LABELS_MAX {
        let message =
            format!("{} labels are too many: a member bears at most {PLACE_LABELS_MAX}.", labels.len());
        return Err(Failure::usage(message).next("name those alone that functions ask for"));
    }
    let mut values = BTreeMap::new();
    for label in labels {
        let (key, value) =
            label.split_once('=').map_or((label.as_str(), None), |(key, value)| (key, Some(value)));
        if values.insert(key, value).is_some_and(|other| other != value) {
            return Err(Failure::usage(format!("The label {key} is given twice, with different values."))
                .next(format!("give one of them, or two keys: {key}-1, {key}-2")));
        }
    }
    Ok(())
}

async fn label(
    member: &str,
    labels: &[String],
    wait: Wait,
    settings: &Settings,
    out: Out,
) -> Result<Exit, Failure> {
    check_labels(labels)?;
    let mut backend = Backend::open_within(settings, wait.timeout).await?;
    let row = find(&backend.nodes().await?, member)?;
    let offline = backend.is_offline();
    let timeout_ms = millis(wait.timeout);
    let written =
        backend.label(MemberLabels { device: row.device, labels: labels.to_vec(), timeout_ms }).await?;
    let bears = if labels.is_empty() { "no label".to_owned() } else { human::list(labels) };
    out.line(&written, &format!("{} bears {bears} from now on", row.label))?;
    Ok(seen(&written, offline, out))
}

async fn revoke(
    member: &str,
    discard: bool,
    wait: Wait,
    settings: &Settings,
    out: Out,
) -> Result<Exit, Failure> {
    let mut backend = Backend::open_within(settings, wait.timeout).await?;
    let row = find(&backend.nodes().await?, member)?;
    let offline = backend.is_offline();
    let timeout_ms = millis(wait.timeout);
    let revoked = backend.revoke(Revoke { device: row.device, discard, timeout_ms }).await?;
    out.line(&revoked, &format!("revoked {} ({})", revoked.label, human::short(&revoked.device)))?;
    if discard {
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
    if !revoked.invitations_withdrawn.is_empty() {
        let many = human::count(revoked.invitations_withdrawn.len() as u64, "open invitation");
        out.note(&format!("Withdrawn with it: {many} of its"));
    }
    for user in &revoked.users_open {
        out.note(&format!(
            "The key of the user {user} still admits devices: `osiris user revoke {user}` ends that"
        ));
    }
    Ok(seen(&revoked.written, offline, out))
}

/// `osiris role grant` and `osiris role revoke`.
pub(crate) async fn role(command: &RoleCommand, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    let (RoleArgs { member, roles, wait }, give) = match command {
        RoleCommand::Grant(args) => (args, true),
        RoleCommand::Revoke(args) => (args, false),
    };
    let mut backend = Backend::open_within(settings, wait.timeout).await?;
    let row = find(&backend.nodes().await?, member)?;
    let offline = backend.is_offline();
    let roles = roles.iter().map(|role| role.name().to_owned()).collect();
    let change = RoleChange { device: row.device, roles, timeout_ms: millis(wait.timeout) };
    let changed = backend.change_roles(change, give).await?;
    out.line(&changed, &format!("{} is {} now", changed.label, human::list(&changed.roles)))?;
    Ok(seen(&changed.written, offline, out))
}

/// `osiris recover`.
pub(crate) async fn recover(args: &RecoverArgs, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    let patience = Patience::exactly(args.wait.timeout);
    let secret = recovery_key(args.recovery_file.as_deref(), args.wait.timeout)?;
    // The time that a person takes to type it is not the command's.
    let typed = args.recovery_file.is_none();
    let patience = if typed { Patience::exactly(args.wait.timeout) } else { patience };
    let mut backend = Backend::open_before(settings, patience).await?;
    let recovery = backend.recovery().await?;
    let rows = backend.nodes().await?;
    let device = match &args.device {
        None => recovery.device.clone(),
        Some(key) if is_key(key) => key.to_ascii_lowercase(),
        Some(name) => find(&rows, name)?.device,
    };
    let certificate = driver::certify_recovery(&secret, &recovery, &device)?;
    let offline = backend.is_offline();
    let generation = recovery.generation;
    let timeout_ms = millis(args.wait.timeout);
    let recovered = backend.recover(Recover { device, generation, certificate, timeout_ms }).await?;
    let short = human::short(&recovered.device);
    out.line(&recovered, &format!("{} ({short}) is an admin above all others now", recovered.label))?;
    if let Some(path) = args.recovery_file.as_deref().filter(|path| others_may_read(path)) {
        out.warn(&format!(
            "Others may read {}, and whoever has the recovery key has the fleet: chmod 600, or keep it elsewhere.",
            path.display()
        ));
    }
    for admin in &recovered.other_admins {
        let label = rows.iter().find(|row| row.device == *admin).map_or("", |row| row.label.as_str());
        let short = human::short(admin);
        out.note(&format!("another admin: {label} ({short}); `osiris member revoke {short}` ends it"));
    }
    Ok(seen(&recovered.written, offline, out))
}

fn others_may_read(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.mode() & 0o077 != 0)
}

fn is_key(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The recovery key, from a file or from the terminal. It is never an argument: other users see those.
fn recovery_key(file: Option<&Path>, within: Duration) -> Result<Zeroizing<String>, Failure> {
    let Some(path) = file else {
        if !std::io::stdin().is_terminal() {
            return Err(Failure::usage("The recovery key is needed, and nobody is here to be asked.")
                .next("give --recovery-file FILE"));
        }
        return rpassword::prompt_password("Recovery key: ").map(Zeroizing::new).map_err(|error| {
            Failure::failed(format!("The recovery key cannot be read from the terminal: {error}."))
                .next("give --recovery-file FILE")
        });
    };
    let unread = |error: std::io::Error| Failure::unread("recovery file", path, &error);
    let bytes = input::file(path, RECOVERY_FILE_BYTES_MAX, within).map_err(unread)?;
    Ok(Zeroizing::new(input::text(&bytes).map_err(unread)?.to_owned()))
}

/// The one member with this label, or whose key starts so. Past members are looked at last.
pub(super) fn find(rows: &[NodeRow], name: &str) -> Result<NodeRow, Failure> {
    let key = name.to_ascii_lowercase();
    let is_start = key.len() >= 4 && key.bytes().all(|byte| byte.is_ascii_hexdigit());
    // A whole key names its device alone: a label may look like another one's.
    let labelled = !is_key(name);
    let fits = |row: &&NodeRow| (labelled && row.label == name) || (is_start && row.device.starts_with(&key));
    let (past, present): (Vec<_>, Vec<_>) = rows.iter().filter(fits).partition(|row| row.state == "revoked");
    let found = if present.is_empty() { past } else { present };
    match found.as_slice() {
        [row] => Ok((*row).clone()),
        [] if name.is_empty() => Err(Failure::usage("An empty text names no member.")
            .next("give its label or the start of its key; `osiris nodes` lists the members")),
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
        let key = "ab".repeat(32);
        let alike = [row(&key, "beef0000", "connected")];
        assert_eq!(find(&alike, &key).expect_err("a label that looks like a key").exit, Exit::NotFound);
        let both = [row(&key, "beef0000", "connected"), row("roof", &key, "connected")];
        assert_eq!(find(&both, &key).expect("by its key").label, "roof");
        assert_eq!(find(&rows, "").expect_err("nobody").exit, Exit::Usage);
        assert_eq!(find(&rows, "b").expect_err("too short a key").exit, Exit::NotFound);
    }
}
