//! Founding, joining and leaving a fleet, and who is in it.

use std::fs::File;
use std::io::{self, BufRead, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use osiris_fleet::api::NodeRow;
use osiris_protocol::limits::TICKET_CHARS_MAX;
use osiris_protocol::ticket::Ticket;
use serde::Serialize;
use zeroize::Zeroizing;

use super::{label, seen};
use crate::args::{InitArgs, JoinArgs, LeaveArgs};
use crate::backend::{Backend, driver, must_be_member};
use crate::client::Patience;
use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::input;
use crate::output::table::{Cell, Tone};
use crate::output::{Format, Out, Unread, human, progress::Progress};

/// How long a node tries to join that starts for the first time.
const JOIN_WITHIN: Duration = Duration::from_secs(60);

#[derive(Serialize)]
struct Founded {
    fleet: String,
    fleet_name: String,
    device: String,
    label: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovery_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovery_file: Option<String>,
    data_dir: String,
}

/// `osiris init`.
pub(crate) fn init(args: &InitArgs, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    let label = label(settings.label(args.label.as_deref()));
    if args.recovery_file.is_none() {
        out.must_be_read("The recovery key").map_err(|failure| {
            failure.next("give --recovery-file FILE, which keeps the key readable by its owner alone")
        })?;
    }
    let options = driver::InitOptions { name: args.name.clone(), label: label.clone() };
    let recovery = args.recovery_file.as_deref().map(SecretFile::create).transpose()?;
    let inited = driver::init(&settings.data, options)?;
    let recovery = recovery.map(|file| file.keep(&inited.recovery_secret)).transpose();
    let (recovery_key, recovery_file) = match &recovery {
        Ok(Some(path)) => (None, Some(path.display().to_string())),
        // Shown after all: there is no second chance.
        Ok(None) | Err(_) => (Some(inited.recovery_secret), None),
    };
    let founded = Founded {
        fleet: inited.fleet,
        fleet_name: args.name.clone(),
        device: inited.device,
        label,
        recovery_key,
        recovery_file,
        data_dir: settings.data.display().to_string(),
    };
    let mut facts = vec![
        ("fleet", Cell::new(format!("{} ({})", founded.fleet_name, human::short(&founded.fleet)))),
        ("device", Cell::new(format!("{} ({})", founded.label, human::short(&founded.device)))),
        ("data", Cell::new(&founded.data_dir)),
    ];
    facts.extend(
        founded.recovery_key.as_ref().map(|key| ("recovery key", Cell::new(key).tone(Tone::Warning))),
    );
    facts
        .extend(founded.recovery_file.as_ref().map(|file| ("recovery key", Cell::new(format!("in {file}")))));
    if let Err(unread) = out.facts_once(&founded, facts) {
        return kept_instead(&founded, &unread, &settings.data, out);
    }
    if let Err(failure) = recovery {
        out.warn(&failure.message);
    }
    if founded.recovery_file.is_some() {
        out.note("Keep the file with the recovery key away from this device; `osiris recover` uses it.");
    } else if out.format == Format::Table {
        out.note("");
        out.note("The recovery key is shown this once. Write it down and keep it away from this device:");
        out.note("with it, `osiris recover` makes any member an admin above all others.");
    }
    out.note("next: `osiris up` runs the node, `osiris invite` makes a ticket for another device");
    Ok(Exit::Done)
}

/// The end of an `init` whose answer could not be written: the fleet is founded, and its recovery key must not be
/// lost. It is not written to stderr either, which may well be a log.
fn kept_instead(founded: &Founded, unread: &Unread, data: &Path, out: Out) -> Result<Exit, Failure> {
    let founding =
        format!("The fleet {} is founded, and this could not be written: {}.", founded.fleet_name, unread.0);
    let Some(key) = &founded.recovery_key else {
        return Err(Failure::failed(founding).next("`osiris status` shows it"));
    };
    let path = data.join("recovery-key");
    match SecretFile::create(&path).and_then(|file| file.keep(key)) {
        Ok(path) => Err(Failure::failed(format!("{founding} Its recovery key is in {}.", path.display()))
            .next("move that file away from this device; `osiris recover` uses it")),
        Err(failure) => {
            out.warn(&failure.message);
            Err(Failure::failed(format!("{founding} Its recovery key is lost."))
                .next(format!("remove the folder {} and found another fleet", data.display())))
        }
    }
}

/// A new file for a secret. It is removed unless the secret got into it.
struct SecretFile {
    file: Option<File>,
    path: PathBuf,
}

impl SecretFile {
    /// Makes the file, readable by its owner alone, before there is a secret to lose.
    fn create(path: &Path) -> Result<Self, Failure> {
        let file = File::options().write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                Failure::usage(format!("The file {} is there already and is left alone.", path.display()))
                    .next("give another --recovery-file; if it holds another fleet's key, keep it")
            }
            _ => Failure::failed(format!("The recovery file {} cannot be made: {error}.", path.display()))
                .next("check its folder and permissions"),
        })?;
        Ok(Self { file: Some(file), path: path.to_owned() })
    }

    /// Writes the secret, durably.
    fn keep(mut self, secret: &str) -> Result<PathBuf, Failure> {
        let written = self.file.as_mut().map_or(Ok(()), |file| {
            file.write_all(format!("{secret}\n").as_bytes())?;
            file.sync_all()?;
            let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        });
        written.map_err(|error| {
            let message = format!("The recovery key could not be kept in {}: {error}.", self.path.display());
            Failure::failed(message).next("write down the printed one")
        })?;
        self.file = None;
        Ok(std::mem::take(&mut self.path))
    }
}

impl Drop for SecretFile {
    fn drop(&mut self) {
        if self.file.is_some() {
            // An empty or half-written file that stays says nothing to anybody.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[derive(Serialize)]
struct Admitted {
    fleet: String,
    fleet_name: String,
    device: String,
    label: String,
    roles: Vec<String>,
    blocks: u64,
    data_dir: String,
    /// Whether it was a member before, and the ticket gave no more than addresses.
    already_member: bool,
}

/// `osiris join`.
pub(crate) async fn join(args: &JoinArgs, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    // What is read counts, too: a pipe may be slow.
    let patience = Patience::exactly(args.timeout);
    let text = ticket_text(&args.ticket, args.timeout)?;
    let ticket: Ticket = text
        .parse()
        .map_err(|e| Failure::usage(format!("{e}.")).next("`osiris invite` on a member makes a new one"))?;
    if let Ticket::Dial(_) = ticket {
        return Err(Failure::usage("This ticket lets applications call functions; it admits no device.")
            .next("ask for a ticket made by `osiris invite`"));
    }
    let label = match settings.label(args.label.as_deref()) {
        Some(label) => label.to_owned(),
        None => former_label(settings).await.unwrap_or_else(|| label(None)),
    };
    let user = match &ticket {
        Ticket::Join(ticket) if ticket.secret.is_none() => {
            Some(super::user::unlock(&args.key, settings, args.timeout)?)
        }
        _ => None,
    };
    // The time that a person takes to type a passphrase is not the command's.
    let typed = user.is_some() && args.key.passphrase_file.is_none();
    let timeout = if typed { args.timeout } else { patience.rest() };
    let options =
        driver::JoinOptions { user, ticket: text.trim().to_owned(), label, mesh: settings.mesh, timeout };
    let name = ticket.fleet_name().to_owned();
    let progress = Progress::spinner(format!("asking for admission to {name}"));
    let joined = driver::join(&settings.data, options).await?;
    drop(progress);
    let admitted = Admitted {
        fleet: joined.fleet,
        fleet_name: joined.fleet_name,
        device: joined.device,
        label: joined.label,
        roles: joined.roles,
        blocks: joined.blocks,
        data_dir: settings.data.display().to_string(),
        already_member: joined.addresses_of.is_some(),
    };
    let facts = vec![
        ("fleet", Cell::new(format!("{} ({})", admitted.fleet_name, human::short(&admitted.fleet)))),
        ("device", Cell::new(format!("{} ({})", admitted.label, human::short(&admitted.device)))),
        ("roles", Cell::new(human::list(&admitted.roles))),
        ("blocks", Cell::new(admitted.blocks.to_string())),
        ("data", Cell::new(&admitted.data_dir)),
    ];
    out.facts(&admitted, facts)?;
    if let Some(members) = joined.addresses_of {
        out.note(&format!(
            "This device is a member already. The addresses of {} were taken from the ticket; its invitation was \
             not used, and the roles stay.",
            human::count(members, "member")
        ));
    }
    out.note("next: `osiris up` runs the node");
    Ok(Exit::Done)
}

/// The name that this device had in the fleet. A folder that cannot be read is spoken of by what opens it next.
async fn former_label(settings: &Settings) -> Option<String> {
    must_be_member(&settings.data).ok()?;
    let mut folder = driver::Offline::open_to_read(&settings.data).await.ok()?;
    let known = folder.whoami().await.ok()?;
    // The device's key stands where there is no name.
    (!known.label.is_empty() && !known.device.starts_with(&known.label)).then_some(known.label)
}

/// Joins with an invitation, and says nothing: for a node that starts for the first time.
pub(super) async fn admit(ticket: &str, name: Option<&str>, settings: &Settings) -> Result<(), Failure> {
    let ticket = ticket_text(ticket, JOIN_WITHIN)?.trim().to_owned();
    let (label, mesh) = (label(name), settings.mesh);
    let options = driver::JoinOptions { ticket, label, user: None, mesh, timeout: JOIN_WITHIN };
    driver::join(&settings.data, options).await.map(|_| ()).map_err(Into::into)
}

/// The ticket itself, from the argument, a file or stdin.
fn ticket_text(argument: &str, within: Duration) -> Result<Zeroizing<String>, Failure> {
    // White space may surround it, so a little more than a ticket is read, and never a whole disk.
    let limit = 2 * TICKET_CHARS_MAX as u64;
    let (bytes, unread): (_, &dyn Fn(&io::Error) -> Failure) = match argument.strip_prefix('@') {
        _ if argument == "-" => (input::stdin(limit, within), &|error| {
            Failure::unread_from("The ticket cannot be read from stdin", error)
        }),
        Some(path) => (input::file(path.as_ref(), limit, within), &move |error| {
            Failure::unread("ticket file", path.as_ref(), error)
        }),
        None => return Ok(Zeroizing::new(argument.to_owned())),
    };
    let bytes = bytes.map_err(|error| unread(&error))?;
    input::text(&bytes).map(|text| Zeroizing::new(text.to_owned())).map_err(|error| unread(&error))
}

/// `osiris leave`.
pub(crate) async fn leave(args: &LeaveArgs, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    let mut backend = Backend::open(settings).await?;
    if !args.yes {
        let status = backend.status().await?;
        if !std::io::stdin().is_terminal() {
            return Err(
                Failure::usage("Leaving is for good, and nobody is here to be asked.").next("give --yes")
            );
        }
        out.note(&format!(
            "{} leaves the fleet {} for good. To come back it needs a new invitation.",
            status.label, status.fleet_name
        ));
        out.note("Type `leave` to go on:");
        let mut answer = String::new();
        let read = std::io::stdin().lock().read_line(&mut answer);
        if read.is_err() || answer.trim() != "leave" {
            return Err(Failure::failed("Nothing was done."));
        }
    }
    let offline = backend.is_offline();
    let written = backend.leave().await?;
    out.line(&written, &format!("left (block {})", human::short(&written.block)))?;
    if written.others == 0 {
        out.note("It was the fleet's last member: nothing in that fleet can be changed any more.");
        return Ok(Exit::Done);
    }
    Ok(seen(&written, offline, out))
}

/// `osiris nodes`.
pub(crate) async fn nodes(settings: &Settings, out: Out) -> Result<Exit, Failure> {
    let mut backend = Backend::open_to_show(settings).await?;
    let rows = backend.nodes().await?;
    let headers = ["LABEL", "DEVICE", "STATE", "ROLES", "RTT", "SERVING", "ADDRESSES", "TROUBLE"];
    out.rows(&rows, &headers, "no members", |row| {
        vec![
            Cell::new(&row.label),
            Cell::dim(human::short(&row.device)),
            Cell::state(&row.state),
            Cell::new(human::list(&row.roles)),
            Cell::new(row.rtt_us.map_or_else(|| "-".to_owned(), human::micros)),
            Cell::new(human::list(&row.serving)),
            Cell::new(human::list(&row.addresses)),
            trouble(row),
        ]
    })?;
    // Whether this device belongs to them is the first thing to know of the list.
    backend.status().await?.problems.iter().for_each(|problem| out.warn(problem));
    Ok(Exit::Done)
}

/// Every cause of trouble with a member, the worst first.
fn trouble(row: &NodeRow) -> Cell {
    let bad = [
        row.twin.then(|| "runs twice: see osiris doctor".to_owned()),
        (row.forks > 0).then(|| human::count(row.forks, "forked chain")),
    ];
    let reasons: Vec<_> = row.reasons.iter().map(|(name, count)| format!("{name} {count}")).collect();
    let invalid = match reasons.as_slice() {
        [] => human::count(row.rejected, "invalid message"),
        reasons => format!("{} ({})", human::count(row.rejected, "invalid message"), reasons.join(", ")),
    };
    let warned = [
        (row.draining && row.state != "revoked").then(|| "draining".to_owned()),
        (row.rejected > 0).then_some(invalid),
        (row.blocks > row.budget).then(|| "over its budget".to_owned()),
        (row.held_back > 0).then(|| "floods".to_owned()),
        (row.busy && row.state != "revoked").then(|| "busy".to_owned()),
    ];
    let is_bad = bad.iter().any(Option::is_some);
    let causes: Vec<_> = bad.into_iter().chain(warned).flatten().collect();
    match (causes.is_empty(), is_bad) {
        (true, _) => Cell::dim("-"),
        (false, true) => Cell::new(causes.join("; ")).tone(Tone::Bad),
        (false, false) => Cell::new(causes.join("; ")).tone(Tone::Warning),
    }
}

#[derive(Serialize)]
struct Device {
    device: String,
}

/// `osiris whoami`. A device that belongs to no fleet has a key alone, on one line to be handed to an admin.
pub(crate) async fn whoami(settings: &Settings, out: Out) -> Result<Exit, Failure> {
    if must_be_member(&settings.data).is_err() {
        let device = Device { device: driver::device(&settings.data)? };
        out.line(&device, &device.device)?;
        return Ok(Exit::Done);
    }
    let who = Backend::open_to_look(settings).await?.whoami().await?;
    let fleet = format!("{} ({})", who.fleet_name, human::short(&who.fleet));
    let mut facts = vec![
        ("device", Cell::new(&who.device)),
        ("label", Cell::new(&who.label)),
        ("fleet", Cell::new(if who.member { fleet } else { format!("{fleet}, no member any more") })),
        ("users", Cell::new(human::list(&who.users))),
        ("roles", Cell::new(human::list(&who.roles))),
    ];
    for grant in &who.grants {
        let (id, roles) = (human::short(&grant.id), human::list(&grant.roles));
        let ended = if grant.active { "" } else { "; ended" };
        facts.push(("grant", Cell::new(format!("{id}: {roles}; {}; {}{ended}", grant.by, grant.rank))));
    }
    out.facts(&who, facts)?;
    Ok(Exit::Done)
}

/// `osiris ticket`.
pub(crate) async fn ticket(settings: &Settings, out: Out) -> Result<Exit, Failure> {
    let reply = Backend::open_to_read(settings).await?.ticket().await?;
    out.line(&reply, &reply.ticket)?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_names_every_cause_the_worst_first() {
        let quiet = NodeRow { blocks: 5, budget: 5, ..NodeRow::default() };
        assert_eq!(trouble(&quiet), Cell::dim("-"));
        let busy = NodeRow { busy: true, ..quiet.clone() };
        assert_eq!(trouble(&busy), Cell::new("busy").tone(Tone::Warning));
        let floods = NodeRow { held_back: 3, ..quiet.clone() };
        assert_eq!(trouble(&floods), Cell::new("floods").tone(Tone::Warning));
        let reasons = [("BadSignature".to_owned(), 2), ("Role".to_owned(), 1)].into();
        let invalid = NodeRow { rejected: 3, reasons, blocks: 6, ..floods };
        let said = "3 invalid messages (BadSignature 2, Role 1); over its budget; floods";
        assert_eq!(trouble(&invalid), Cell::new(said).tone(Tone::Warning));
        // A node of an earlier build gives no reasons.
        let unexplained = NodeRow { rejected: 1, ..quiet };
        assert_eq!(trouble(&unexplained), Cell::new("1 invalid message").tone(Tone::Warning));
        let all = NodeRow { twin: true, forks: 1, ..invalid };
        let said = format!("runs twice: see osiris doctor; 1 forked chain; {said}");
        assert_eq!(trouble(&all), Cell::new(said).tone(Tone::Bad));
    }
}
