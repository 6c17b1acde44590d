//! `osiris ledger voters`: who seals pages of summaries.

use std::collections::BTreeSet;

use osiris_fleet::api::{NameVoters, NodeRow, VoterRow, Voters};

use super::{people::find, seen};
use crate::args::VotersArgs;
use crate::backend::{Backend, millis};
use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::output::table::{self, Cell, Tone};
use crate::output::{Format, Out, human};

pub(crate) async fn run(args: &VotersArgs, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    if args.set.is_empty() { list(settings, out).await } else { name(args, settings, out).await }
}

async fn list(settings: &Settings, out: Out) -> Result<Exit, Failure> {
    let voters = Backend::open_to_read(settings).await?.voters().await?;
    if out.format != Format::Table {
        out.document(&voters)?;
        return Ok(Exit::Done);
    }
    let rows = voters.voters.iter().map(cells).collect();
    out.raw(table::render(&["VOTER", "DEVICE", "SEALED", "ROLE"], rows, out).as_bytes())?;
    notes(&voters).iter().for_each(|note| out.note(note));
    Ok(Exit::Done)
}

fn cells(row: &VoterRow) -> Vec<Cell> {
    let role = match row.able {
        true => Cell::new("voter"),
        false => Cell::new("lacks the role voter").tone(Tone::Warning),
    };
    vec![Cell::new(&row.label), Cell::dim(human::short(&row.device)), Cell::right(row.sealed), role]
}

fn notes(voters: &Voters) -> Vec<String> {
    let mut notes = vec![format!(
        "{} sealed, {} waiting for more seals",
        human::count(voters.sealed, "page"),
        human::count(voters.proposed, "page")
    )];
    if voters.founder {
        notes.push("nobody was named yet, so the founding device seals alone".to_owned());
    }
    notes
}

async fn name(args: &VotersArgs, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    let mut backend = Backend::open_within(settings, args.wait.timeout).await?;
    let nodes = backend.nodes().await?;
    let named = args.set.iter().map(|name| find(&nodes, name)).collect::<Result<Vec<_>, _>>()?;
    let offline = backend.is_offline();
    let devices: BTreeSet<_> = named.iter().map(|row| row.device.clone()).collect();
    let count = devices.len() as u64;
    let name = NameVoters { devices: devices.into_iter().collect(), timeout_ms: millis(args.wait.timeout) };
    let written = backend.name_voters(name).await?;
    out.line(&written, &format!("{} from now on", human::count(count, "voter")))?;
    if let Some(warning) = lacking(&named) {
        out.warn(&warning);
    }
    Ok(seen(&written, offline, out))
}

/// What is to be done where a named member cannot seal.
fn lacking(named: &[NodeRow]) -> Option<String> {
    let lacks = |row: &&NodeRow| !row.roles.iter().any(|role| role == "voter");
    let names: BTreeSet<_> = named.iter().filter(lacks).map(|row| row.label.as_str()).collect();
    let names: Vec<_> = names.into_iter().collect();
    (!names.is_empty()).then(|| {
        format!(
            "Without the role voter these cannot seal, and count among the voters all the same: {}. \
             `osiris role grant MEMBER voter` gives it.",
            names.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_named_without_the_role_is_said() {
        let row = |label: &str, role: &str| NodeRow {
            label: label.to_owned(),
            roles: vec!["node".to_owned(), role.to_owned()],
            ..NodeRow::default()
        };
        assert_eq!(lacking(&[row("a", "voter")]), None);
        let said = lacking(&[row("b", "admin"), row("a", "voter")]).expect("b lacks it");
        assert!(said.contains(": b. "), "{said}");
    }
}
