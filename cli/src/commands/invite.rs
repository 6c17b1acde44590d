//! `osiris invite`, `invite ls` and `invite revoke`.

use osiris_fleet::api::{InvitationRow, Invite};

use super::seen;
use crate::args::{InviteArgs, InviteCommand, Role};
use crate::backend::{Backend, millis};
use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::output::table::{Cell, Tone};
use crate::output::{Out, human};

pub(crate) async fn run(args: &InviteArgs, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    match &args.command {
        None => invite(args, settings, out).await,
        Some(InviteCommand::Ls) => ls(settings, out).await,
        Some(InviteCommand::Revoke { id, wait }) => {
            let mut backend = Backend::open_within(settings, wait.timeout).await?;
            let row = find(&backend.invitations().await?, id)?;
            let id = row.id.clone();
            if row.state == "withdrawn" {
                // What was asked for is so already.
                out.line(&row, &format!("the invitation {} is withdrawn already", human::short(&id)))?;
                return Ok(Exit::Done);
            }
            let offline = backend.is_offline();
            let written = backend.withdraw(&id, wait.timeout).await?;
            out.line(&written, &format!("withdrew the invitation {}", human::short(&id)))?;
            Ok(seen(&written, offline, out))
        }
    }
}

async fn invite(args: &InviteArgs, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    if args.device.is_none() && args.roles.iter().any(|role| *role != Role::Node) {
        return Err(Failure::usage("A ticket for more than a node names the one device that may use it.")
            .next("add --device KEY, where KEY is what `osiris whoami` prints on that device"));
    }
    if args.device.is_some() && args.uses > 1 {
        return Err(
            Failure::usage("A ticket for one device has one use.").next("leave out --uses or --device")
        );
    }
    out.must_be_read("The ticket")?;
    let backend = Backend::open_within(settings, args.wait.timeout).await?;
    let offline = backend.is_offline();
    let invited = backend
        .invite(Invite {
            uses: args.uses,
            roles: args.roles.iter().map(|role| role.name().to_owned()).collect(),
            device: args.device.clone(),
            note: args.note.clone(),
            timeout_ms: millis(args.wait.timeout),
        })
        .await?;
    out.line_once(&invited, &invited.ticket).map_err(|unread| {
        let id = human::short(&invited.written.block);
        Failure::failed(format!(
            "The invitation {id} is made, and its ticket could not be written: {}.",
            unread.0
        ))
        .next(format!("withdraw it with `osiris invite revoke {id}`, and make another"))
    })?;
    if args.device.is_none() {
        out.note("Whoever has the ticket can join: hand it over as a secret.");
    }
    Ok(seen(&invited.written, offline, out))
}

async fn ls(settings: &Settings, out: Out) -> Result<Exit, Failure> {
    let rows = Backend::open_to_read(settings).await?.invitations().await?;
    let headers = ["ID", "STATE", "USED", "ROLES", "BY", "NOTE"];
    out.rows(&rows, &headers, "no invitations; `osiris invite` makes one", |row| {
        let used = Cell::new(format!("{} of {}", row.used, row.uses));
        vec![
            Cell::new(human::short(&row.id)),
            Cell::state(&row.state),
            // More devices used it, on nodes that could not know of one another.
            if row.surplus > 0 {
                Cell::new(format!("{} of {}, {} void", row.used, row.uses, row.surplus)).tone(Tone::Warning)
            } else {
                used
            },
            Cell::new(human::list(&row.roles)),
            Cell::new(&row.by),
            Cell::new(&row.note),
        ]
    })?;
    Ok(Exit::Done)
}

/// The one invitation whose id starts so.
fn find(rows: &[InvitationRow], start: &str) -> Result<InvitationRow, Failure> {
    let mut found = rows.iter().filter(|row| row.id.starts_with(start));
    match (found.next(), found.next()) {
        (Some(row), None) => Ok(row.clone()),
        (Some(_), Some(_)) => Err(Failure::usage(format!("Several invitations start with {start}."))
            .next("give more of the id; `osiris invite ls -o json` prints it whole")),
        (None, _) => Err(Failure::not_found(format!("There is no invitation {start}."))
            .next("`osiris invite ls` lists them")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_may_be_cut_while_it_is_unique() {
        let row = |id: &str| InvitationRow { id: id.to_owned(), ..InvitationRow::default() };
        let rows = [row("abcd1111"), row("abcd2222"), row("beef0000")];
        assert_eq!(find(&rows, "beef").expect("one").id, "beef0000");
        assert_eq!(find(&rows, "abcd").expect_err("two").exit, Exit::Usage);
        assert_eq!(find(&rows, "0000").expect_err("none").exit, Exit::NotFound);
    }
}
