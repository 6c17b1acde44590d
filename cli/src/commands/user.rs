//! `osiris user`: persons, whose keys admit their devices.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use osiris_fleet::api::{AddUser, ChangeUser, RevokeUser, UserKnown, UserRow};
use serde::Serialize;
use zeroize::Zeroizing;

use super::seen;
use crate::args::{Role, UserAddArgs, UserCommand, UserKey, UserKeyCommand};
use crate::backend::driver::{SecretKey, public_key};
use crate::backend::{Backend, millis};
use crate::client::QUICK;
use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::input;
use crate::keyring::{self, PASSPHRASE_BYTES_MAX};
use crate::output::table::{Cell, Tone};
use crate::output::{Out, human};
use crate::user_key::{KeyFile, KeyFileError, PASSPHRASE_BYTES_MIN};

pub(crate) async fn run(command: &UserCommand, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    match command {
        UserCommand::Add(args) => add(args, settings, out).await,
        UserCommand::Ls => ls(settings, out).await,
        UserCommand::Ticket { user } => {
            let mut backend = Backend::open_to_read(settings).await?;
            let row = find(&backend.users().await?, user)?;
            let reply = backend.user_ticket(&row.id).await?;
            out.line(&reply, &reply.ticket)?;
            Ok(Exit::Done)
        }
        UserCommand::Roles { user, roles, devices, wait } => {
            if roles.is_empty() && devices.is_none() {
                return Err(Failure::usage("Nothing is to be changed.").next("name roles, or give --devices"));
            }
            let mut backend = Backend::open_within(settings, wait.timeout).await?;
            let id = find(&backend.users().await?, user)?.id;
            let offline = backend.is_offline();
            let (roles, devices) = (names(roles), devices.unwrap_or(0));
            let change = ChangeUser { id, roles, devices, timeout_ms: millis(wait.timeout) };
            let known = backend.change_user(change).await?;
            told(&known, out)?;
            out.note(
                "Devices that joined before keep what they have: `osiris role grant` and `revoke` change it.",
            );
            Ok(seen(&known.written, offline, out))
        }
        UserCommand::Revoke { user, keep_devices, discard, wait } => {
            let mut backend = Backend::open_within(settings, wait.timeout).await?;
            let id = find(&backend.users().await?, user)?.id;
            let offline = backend.is_offline();
            let timeout_ms = millis(wait.timeout);
            let revoke = RevokeUser { id, keep_devices: *keep_devices, discard: *discard, timeout_ms };
            let revoked = backend.revoke_user(revoke).await?;
            out.line(&revoked, &format!("revoked the user {}", revoked.name))?;
            if !revoked.devices_ended.is_empty() {
                out.note(&format!("No members any more: {}", human::list(&revoked.devices_ended)));
            }
            if !revoked.devices_staying.is_empty() {
                out.note(&format!("Members still: {}", human::list(&revoked.devices_staying)));
            }
            if !revoked.functions_ended.is_empty() {
                out.note(&format!("No functions any more: {}", human::list(&revoked.functions_ended)));
            }
            Ok(seen(&revoked.written, offline, out))
        }
        UserCommand::Key(command) => key(command, settings, out),
    }
}

async fn add(args: &UserAddArgs, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    let mut backend = Backend::open_within(settings, args.wait.timeout).await?;
    let offline = backend.is_offline();
    let key = match &args.public_key {
        Some(key) => key.clone(),
        None => {
            let path = path(args.key.file.as_deref(), settings)?;
            if path.exists() {
                let message = format!("There is a key in {} already.", path.display());
                return Err(Failure::usage(message).next(
                    "add its owner with --public-key \"$(osiris user key show)\", or give another --key",
                ));
            }
            // No key is left behind by a command that is refused.
            let who = backend.whoami().await?;
            if !who.roles.iter().any(|role| role == Role::Admin.name()) {
                let message = "This device does not have the role admin, which making a person known needs.";
                return Err(Failure::new(Exit::Denied, message)
                    .next(format!("ask an admin, or for the role: osiris role grant {} admin", who.label)));
            }
            if backend.users().await?.iter().any(|user| user.name == args.name && user.state != "revoked") {
                return Err(Failure::failed(format!("The fleet knows the user {} already.", args.name))
                    .next("`osiris user roles` changes the roles; `osiris user revoke` ends the user"));
            }
            let lacks: Vec<_> =
                names(&args.roles).into_iter().filter(|role| !who.roles.contains(role)).collect();
            if !lacks.is_empty() {
                let message =
                    format!("This device does not hold the role(s) {} itself.", human::list(&lacks));
                return Err(Failure::new(Exit::Denied, message)
                    .next("`osiris whoami` shows the roles that it can give"));
            }
            let public = new_key(&args.key, &path, args.wait.timeout)?;
            if args.key.passphrase_file.is_none() {
                // The time that a person takes to think of a passphrase is not the command's.
                backend.renew(args.wait.timeout);
            }
            out.note(&format!("The new key is in {}.", path.display()));
            public
        }
    };
    let user = AddUser {
        name: args.name.clone(),
        key,
        roles: names(&args.roles),
        devices: args.devices,
        timeout_ms: millis(args.wait.timeout),
    };
    let known = backend.add_user(user).await?;
    if args.public_key.is_none() {
        out.note(&format!("The key is for {}: hand it over.", args.name));
    }
    told(&known, out)?;
    Ok(seen(&known.written, offline, out))
}

/// What a user is now. The ticket is what people pipe on.
fn told(known: &UserKnown, out: Out) -> Result<(), Failure> {
    out.note(&format!(
        "{} is known, and its devices are {} from now on",
        known.name,
        human::list(&known.roles)
    ));
    match &known.ticket {
        Some(ticket) => out.line(known, ticket),
        None => {
            out.note("next: `osiris user ticket` prints a ticket once a node runs");
            out.line(known, &known.id)
        }
    }
}

async fn ls(settings: &Settings, out: Out) -> Result<Exit, Failure> {
    let rows = Backend::open_to_read(settings).await?.users().await?;
    let headers = ["NAME", "ID", "STATE", "ROLES", "ADMITTED", "DEVICES", "KEY", "BY"];
    out.rows(&rows, &headers, "no users; `osiris user add` makes a person known", |row| {
        let used = format!("{} of {}", row.used, row.devices_max);
        vec![
            Cell::new(&row.name),
            Cell::dim(human::short(&row.id)),
            Cell::state(&row.state),
            Cell::new(human::list(&row.roles)),
            if row.surplus > 0 {
                Cell::new(format!("{used}, {} void", row.surplus)).tone(Tone::Warning)
            } else {
                Cell::new(used)
            },
            Cell::new(human::list(&row.devices)),
            Cell::dim(human::short(&row.key)),
            Cell::new(&row.by),
        ]
    })?;
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct PublicKey {
    key: String,
    file: String,
}

fn key(command: &UserKeyCommand, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    let (public, path) = match command {
        UserKeyCommand::New(args) => {
            let path = path(args.file.as_deref(), settings)?;
            let public = new_key(args, &path, QUICK)?;
            out.note("next: an admin runs `osiris user add NAME --public-key` with this key");
            (public, path)
        }
        UserKeyCommand::Show { file } => {
            let path = path(file.as_deref(), settings)?;
            (read(&path, QUICK)?.public(), path)
        }
        UserKeyCommand::Passphrase { key, new_passphrase_file } => {
            let path = path(key.file.as_deref(), settings)?;
            let secret = unlock(key, settings, QUICK)?;
            let passphrase = new_passphrase(new_passphrase_file.as_deref(), QUICK)?;
            let file = seal(&secret, &passphrase)?;
            file.replace(&path).map_err(|error| unwritten(&path, &error))?;
            out.note("Copies of the file keep the passphrase that they had.");
            remember_instead(&file.public(), &passphrase, out);
            (file.public(), path)
        }
        UserKeyCommand::Remember { key, place } => {
            let path = path(key.file.as_deref(), settings)?;
            let file = read(&path, QUICK)?;
            let passphrase = passphrase_of(key, QUICK)?;
            file.open(&passphrase).map_err(|error| unusable(&path, &error))?;
            let public = file.public();
            let place = keyring::remember(&public, &passphrase, *place).map_err(|error| {
                let message = format!("The passphrase cannot be kept: {error}.");
                Failure::failed(message).next("give --passphrase-file FILE to the commands that need it")
            })?;
            out.note(&format!("The passphrase is in {}, {}.", place.named(), place.keeps()));
            (public, path)
        }
        UserKeyCommand::Forget { file } => {
            let path = path(file.as_deref(), settings)?;
            let public = read(&path, QUICK)?.public();
            let forgotten = keyring::forget(&public)
                .map_err(|error| Failure::failed(format!("A keyring keeps the passphrase: {error}.")))?;
            if forgotten.is_empty() {
                return Err(Failure::not_found(
                    "No keyring that is reached here holds this key's passphrase.",
                ));
            }
            let places: Vec<_> = forgotten.iter().map(|place| place.named().to_owned()).collect();
            out.note(&format!("Taken out of {}.", human::list(&places)));
            (public, path)
        }
    };
    let key = PublicKey { key: public, file: path.display().to_string() };
    out.line(&key, &key.key)?;
    Ok(Exit::Done)
}

/// A keyring that holds the former passphrase of a key gets the new one.
fn remember_instead(public: &str, passphrase: &str, out: Out) {
    let Some((place, _)) = keyring::recall(public) else { return };
    match keyring::remember(public, passphrase, Some(place)) {
        Ok(place) => out.note(&format!("The new one is in {}, too.", place.named())),
        Err(error) => out.warn(&format!("{} keeps the former one: {error}.", place.named())),
    }
}

/// The user's key, with the passphrase from a file, from the system's keyring or from the terminal.
pub(crate) fn unlock(args: &UserKey, settings: &Settings, within: Duration) -> Result<SecretKey, Failure> {
    let path = path(args.file.as_deref(), settings)?;
    let file = read(&path, within)?;
    if args.passphrase_file.is_none()
        && let Some((place, passphrase)) = keyring::recall(&file.public())
    {
        match file.open(&passphrase) {
            // The file was given another passphrase elsewhere.
            Err(KeyFileError::Passphrase) if std::io::stdin().is_terminal() => {}
            Err(KeyFileError::Passphrase) => {
                let message = format!("The passphrase in {} is not the key file's.", place.named());
                return Err(Failure::new(Exit::Denied, message)
                    .next("give --passphrase-file FILE, or `osiris user key remember` with the right one"));
            }
            opened => return opened.map_err(|error| unusable(&path, &error)),
        }
    }
    let passphrase = passphrase_of(args, within)?;
    file.open(&passphrase).map_err(|error| unusable(&path, &error))
}

/// A passphrase from a file or from the terminal.
fn passphrase_of(args: &UserKey, within: Duration) -> Result<Zeroizing<String>, Failure> {
    match &args.passphrase_file {
        Some(file) => passphrase_in(file, within),
        None => ask("Passphrase of the user's key: "),
    }
}

fn new_key(args: &UserKey, path: &Path, within: Duration) -> Result<String, Failure> {
    if path.exists() {
        return Err(taken(path));
    }
    let passphrase = new_passphrase(args.passphrase_file.as_deref(), within)?;
    let secret = SecretKey(random()?);
    seal(&secret, &passphrase)?.create(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => taken(path),
        _ => unwritten(path, &error),
    })?;
    Ok(public_key(&secret.0))
}

fn seal(secret: &SecretKey, passphrase: &str) -> Result<KeyFile, Failure> {
    KeyFile::seal(secret, passphrase, &random()?)
        .map_err(|error| Failure::failed(format!("The key cannot be encrypted: {error}.")))
}

fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::failed(format!("The system gives no random bytes: {error}.")))?;
    Ok(bytes)
}

fn path(given: Option<&Path>, settings: &Settings) -> Result<PathBuf, Failure> {
    given.map(Path::to_owned).or_else(|| settings.user_key.clone()).ok_or_else(|| {
        Failure::usage("There is no home folder to keep a user's key in.")
            .next("give --key FILE, or set OSIRIS_USER_KEY")
    })
}

fn read(path: &Path, within: Duration) -> Result<KeyFile, Failure> {
    KeyFile::read(path, within).map_err(|error| unusable(path, &error))
}

fn unusable(path: &Path, error: &KeyFileError) -> Failure {
    let message = format!("The user's key {} cannot be used: {error}.", path.display());
    match error {
        KeyFileError::Io(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Failure::not_found(message).next("give --key FILE, or make a key with `osiris user key new`")
        }
        KeyFileError::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => {
            Failure::timed_out(message).next("a pipe ends when who writes to it closes it; give a file")
        }
        KeyFileError::Io(_) => Failure::usage(message).next("check its name and permissions"),
        KeyFileError::Passphrase => {
            Failure::new(Exit::Denied, message).next("try again; nobody can open the key without it")
        }
        _ => Failure::failed(message).next("take a copy from a backup, or be made known with a new key"),
    }
}

fn taken(path: &Path) -> Failure {
    Failure::usage(format!("The file {} is there already and is left alone.", path.display()))
        .next("give another --key; `osiris user key show` prints what this one holds")
}

fn unwritten(path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(format!("The key file {} cannot be written: {error}.", path.display()))
        .next("check its folder, permissions and free space")
}

/// A passphrase that is to be kept in mind: asked for twice.
fn new_passphrase(file: Option<&Path>, within: Duration) -> Result<Zeroizing<String>, Failure> {
    let passphrase = match file {
        Some(file) => passphrase_in(file, within)?,
        None => {
            let passphrase = ask("New passphrase for the user's key: ")?;
            if *ask("The same again: ")? != *passphrase {
                return Err(
                    Failure::failed("The two are not the same; nothing was written.").next("try again")
                );
            }
            passphrase
        }
    };
    if passphrase.len() < PASSPHRASE_BYTES_MIN {
        return Err(Failure::usage(format!("A passphrase has at least {PASSPHRASE_BYTES_MIN} bytes."))
            .next("take several words"));
    }
    Ok(passphrase)
}

fn ask(prompt: &str) -> Result<Zeroizing<String>, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("A passphrase is needed, and nobody is here to be asked.")
            .next("give --passphrase-file FILE, or have it kept by `osiris user key remember`"));
    }
    rpassword::prompt_password(prompt).map(Zeroizing::new).map_err(|error| {
        Failure::failed(format!("The passphrase cannot be read from the terminal: {error}."))
            .next("give --passphrase-file FILE")
    })
}

fn passphrase_in(path: &Path, within: Duration) -> Result<Zeroizing<String>, Failure> {
    let unread = |error: std::io::Error| Failure::unread("passphrase file", path, &error);
    let bytes = input::file(path, PASSPHRASE_BYTES_MAX as u64 + 1, within).map_err(unread)?;
    // The end of a longer file may be in the middle of a character, and is not the passphrase's.
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if line.len() > PASSPHRASE_BYTES_MAX {
        return Err(Failure::usage(format!("A passphrase has at most {PASSPHRASE_BYTES_MAX} bytes."))
            .next("take several words"));
    }
    let line = input::text(line).map_err(unread)?;
    Ok(Zeroizing::new(line.trim_end_matches('\r').to_owned()))
}

fn names(roles: &[Role]) -> Vec<String> {
    roles.iter().map(|role| role.name().to_owned()).collect()
}

/// The one user of this name, or whose id starts so. Revoked ones are looked at last.
fn find(rows: &[UserRow], name: &str) -> Result<UserRow, Failure> {
    let id = name.to_ascii_lowercase();
    let is_start = id.len() >= 4 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let fits = |row: &&UserRow| row.name == name || (is_start && row.id.starts_with(&id));
    let (past, present): (Vec<_>, Vec<_>) = rows.iter().filter(fits).partition(|row| row.state == "revoked");
    match if present.is_empty() { &past } else { &present }.as_slice() {
        [row] => Ok((*row).clone()),
        [] => {
            Err(Failure::not_found(format!("There is no user {name}."))
                .next("`osiris user ls` lists the users"))
        }
        // Of past ones any says that it is past.
        [row, ..] if present.is_empty() => Ok((*row).clone()),
        several => {
            let several: Vec<_> = several.iter().map(|row| human::short(&row.id)).collect();
            Err(Failure::usage(format!("{name} names several users: {}.", several.join(", ")))
                .next("give the start of the one's id"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_name_or_id_and_nobody_is_guessed() {
        let row = |name: &str, id: &str, state: &str| UserRow {
            name: name.to_owned(),
            id: id.to_owned(),
            state: state.to_owned(),
            ..UserRow::default()
        };
        let rows = [
            row("isis", "abcd1111", "revoked"),
            row("isis", "abcd2222", "open"),
            row("seth", "beef0000", "open"),
            row("seth", "dead0000", "used-up"),
        ];
        assert_eq!(find(&rows, "isis").expect("the one that admits").id, "abcd2222");
        assert_eq!(find(&rows, "abcd1").expect("by id").id, "abcd1111");
        assert_eq!(find(&rows, "seth").expect_err("two").exit, Exit::Usage);
        assert_eq!(find(&rows, "nobody").expect_err("none").exit, Exit::NotFound);
    }
}
