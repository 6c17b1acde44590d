//! Machines that are processes of this one. Linux alone: the label is a variable of the process's environment, which
//! `/proc` shows.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use osiris_fleet::api::Status;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{DRAIN_WITHIN, HEARD_WITHIN, KILL_WITHIN, LEAVE_WITHIN, LOCK_PATIENCE, LOOK, Row};
use crate::args::{PlaceArgs, ProvisionUpArgs, StartArgs};
use crate::backend::{NOTHING, driver, has_to_join, must_be_member, wait_for_release};
use crate::client::{Client, Patience};
use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::output::Out;

/// The variable that is the label.
const LABEL: &str = "OSIRIS_SPAWN";
const DATA: &str = "OSIRIS_DATA";
/// Largest environment that is read, bytes. Linux allows a process 2 MiB of arguments and environment by default.
const ENVIRON_BYTES_MAX: u64 = 4 << 20;
/// Longest wait for a process that is being started to have an environment. It reads the program's head from a disk.
const EXEC_WITHIN: Duration = Duration::from_secs(5);
const EXEC_LOOK: Duration = Duration::from_millis(1);
/// Flags in proc_pid_stat(5) of processes that end, and of the kernel's own threads.
const PF_EXITING: u64 = 0x0000_0004;
const PF_KTHREAD: u64 = 0x0020_0000;
/// Longest path of a machine's folder: a Unix socket in it must have a path that every system takes.
const FOLDER_BYTES_MAX: usize = 90;

/// Largest file beside a machine's folder that is read for its label, bytes.
const MARK_BYTES_MAX: u64 = 256;

/// A machine's folder and what stands beside it.
struct Place {
    spawn: String,
    data: PathBuf,
    /// Locked by who works on the machine. It holds the label of a machine from before its folder is made until after
    /// that is gone: a folder without it is none of ours, whatever its name.
    lock: PathBuf,
    log: PathBuf,
}

impl Place {
    fn new(args: &PlaceArgs, spawn: &str) -> Result<Self, Failure> {
        let folder = folder(args)?;
        let data = folder.join(spawn);
        if data.as_os_str().len() > FOLDER_BYTES_MAX {
            return Err(Failure::usage(format!("The place {} has too long a path.", folder.display())).next(
                format!("give one with which {} has at most {FOLDER_BYTES_MAX} bytes", data.display()),
            ));
        }
        let beside = |ending: &str| folder.join(format!("{spawn}.{ending}"));
        Ok(Self { spawn: spawn.to_owned(), data, lock: beside("machine"), log: beside("machine.log") })
    }

    /// One command works on a machine at a time. The lock ends with the process, however it ends.
    async fn lock(&self) -> Result<File, Failure> {
        let folder = self.beside();
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|error| unusable(folder, &error))?;
        let locked = self.lock_by(File::options().create(true)).await?;
        locked.map_err(|error| unusable(&self.lock, &error))
    }

    /// The same of a file that is opened so, or why it cannot be.
    async fn lock_by(&self, options: &OpenOptions) -> Result<io::Result<File>, Failure> {
        let until = Instant::now() + LOCK_PATIENCE;
        loop {
            let mut options = options.clone();
            let file = match options.truncate(false).read(true).write(true).mode(0o600).open(&self.lock) {
                Err(error) => return Ok(Err(error)),
                Ok(file) => file,
            };
            // Whoever had it may have removed it: then another file has its name.
            let is_current = || {
                let (held, named) = (file.metadata(), fs::metadata(&self.lock));
                matches!((held, named), (Ok(held), Ok(named)) if held.ino() == named.ino())
            };
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() && is_current() {
                return Ok(Ok(file));
            }
            if Instant::now() >= until {
                return Err(Failure::timed_out(format!(
                    "Another command works on the machine {}.",
                    self.spawn
                ))
                .next("wait for it, or end it"));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The folder in which all of it stands.
    fn beside(&self) -> &Path {
        self.lock.parent().unwrap_or(Path::new("/"))
    }

    /// What the file beside the folder of a machine says.
    fn label(&self) -> String {
        format!("osiris.spawn={}\n", self.spawn)
    }

    fn is_there(&self) -> bool {
        // A link is not followed: what it leads to is not asked for either.
        fs::symlink_metadata(&self.data).is_ok()
    }

    /// Whether the file beside it has the machine's label. False where there is nothing at all yet.
    fn is_labelled(&self, lock: &File) -> Result<bool, Failure> {
        let (label, mut text) = (self.label(), Vec::new());
        let read = lock.take(MARK_BYTES_MAX).read_to_end(&mut text);
        read.map_err(|error| unusable(&self.lock, &error))?;
        if text == label.as_bytes() {
            return Ok(true);
        }
        // Who wrote it may have been killed: what it labels was not made before it was whole.
        if label.as_bytes().starts_with(&text) && !self.is_there() {
            return Ok(false);
        }
        if text.is_empty() {
            // It was made to be locked.
            let _ = fs::remove_file(&self.lock);
        }
        Err(self.foreign())
    }

    /// From now on the folder is a machine's, as far as it is not there yet.
    fn be_labelled(&self, lock: &File) -> Result<(), Failure> {
        if self.is_labelled(lock)? {
            return Ok(());
        }
        let written = lock.write_all_at(self.label().as_bytes(), 0).and_then(|()| lock.sync_all());
        let written = written.and_then(|()| File::open(self.beside())?.sync_all());
        written.map_err(|error| unusable(&self.lock, &error))
    }

    fn foreign(&self) -> Failure {
        let message = format!(
            "{} is no machine's folder, as {} does not say so: it is left alone.",
            self.data.display(),
            self.lock.display()
        );
        Failure::new(Exit::Denied, message)
            .next("see what it is; machines have a place to themselves, and are known by that file")
    }

    /// Nobody uses the folder, but for processes with the label.
    async fn must_be_free(&self) -> Result<(), Failure> {
        if self.processes()?.is_empty() && !wait_for_release(&self.data, Instant::now() + KILL_WITHIN).await {
            let message = format!(
                "A process without the label of {} uses {}: both are left alone.",
                self.spawn,
                self.data.display()
            );
            return Err(
                Failure::new(Exit::Denied, message).next("end it with `osiris down`, then repeat this")
            );
        }
        Ok(())
    }

    fn socket(&self) -> PathBuf {
        driver::socket_path(&self.data, None)
    }

    /// The processes that carry the label. One that runs on another folder is not ours.
    fn processes(&self) -> Result<Vec<Pid>, Failure> {
        let labelled = labelled()?.into_iter().filter(|process| process.spawn == self.spawn);
        let mut own = Vec::new();
        for process in labelled {
            if process.data.as_deref() != Some(self.data.as_path()) {
                return Err(Failure::new(
                    Exit::Denied,
                    format!(
                        "Process {} carries the label of {} and is not its node: it is left alone.",
                        process.pid.as_raw_nonzero(),
                        self.spawn
                    ),
                )
                .next("see what it is, and end it yourself"));
            }
            own.push(process.pid);
        }
        Ok(own)
    }

    /// Whether its node serves.
    async fn is_healthy(&self) -> bool {
        let Ok(Some(client)) = Client::find(&self.socket()).await else { return false };
        client.get::<Status>("/v1/status").await.is_ok_and(|status| status.state == "serving")
    }

    /// Waits until the node serves, or has ended.
    async fn healthy(&self, mut is_there: impl FnMut() -> Result<bool, Failure>) -> Result<(), Failure> {
        while !self.is_healthy().await {
            if !is_there()? {
                return Err(Failure::failed(format!(
                    "The node of {} ended at once: {}.",
                    self.spawn,
                    self.last_words()
                )));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let text = osiris_runtime::read_regular(&self.log, 1 << 20).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
        last.trim_end_matches('.').to_owned()
    }

    /// Has the node take no more calls and end those that run, and the fleet hear of it, while it is a member: calls
    /// that were on their way are turned away as not started, and made elsewhere.
    async fn drain(&self) {
        let Ok(Some(client)) = Client::find(&self.socket()).await else { return };
        let patience = Patience::exactly(DRAIN_WITHIN);
        if client.post::<serde_json::Value>("/v1/drain", &NOTHING, patience).await.is_err() {
            return;
        }
        let timeout_ms = u64::try_from(HEARD_WITHIN.as_millis()).unwrap_or(u64::MAX);
        let patience = Patience::exactly(2 * HEARD_WITHIN);
        let asked = serde_json::json!({ "timeout_ms": timeout_ms });
        // Without anybody to hear it, nobody calls it either.
        let _ = client.post::<serde_json::Value>("/v1/sync", &asked, patience).await;
    }

    /// Tells the fleet that the device leaves it, by its node or without one. A machine that cannot say so goes all
    /// the same, and stays a member until an admin revokes it.
    async fn leave(&self) {
        if must_be_member(&self.data).is_err() {
            return;
        }
        let leaving = async {
            if let Some(client) = Client::find(&self.socket()).await? {
                let patience = Patience::exactly(LEAVE_WITHIN);
                return client.post::<serde_json::Value>("/v1/leave", &NOTHING, patience).await.map(|_| ());
            }
            let mut offline = driver::Offline::open(&self.data).await?;
            offline.leave().await?;
            offline.contact(LEAVE_WITHIN / 2, LEAVE_WITHIN / 2, None).await?;
            Ok::<_, Failure>(())
        };
        if let Ok(Err(failure)) | Err(failure) = tokio::time::timeout(LEAVE_WITHIN, leaving)
            .await
            .map_err(|_| Failure::timed_out("It took too long."))
        {
            eprintln!("warning: the machine {} did not leave the fleet: {}", self.spawn, failure.message);
        }
    }

    fn remove_files(&self) -> Result<(), Failure> {
        match fs::remove_dir_all(&self.data) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(unusable(&self.data, &error));
            }
            _ => {}
        }
        // The label goes last: until then this can be done again.
        for file in [&self.log, &self.lock] {
            let _ = fs::remove_file(file);
        }
        Ok(())
    }
}

fn unusable(path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("{} cannot be used: {error}.", path.display()))
        .next("check its folder and permissions")
}

pub(super) fn folder(args: &PlaceArgs) -> Result<PathBuf, Failure> {
    let place = args.place.clone();
    place.ok_or_else(|| {
        Failure::usage("Machines that are processes need a place.")
            .next("give --place DIR, or set OSIRIS_PLACE")
    })
}

/// A process of this user with a label.
struct Labelled {
    pid: Pid,
    spawn: String,
    data: Option<PathBuf>,
}

fn labelled() -> Result<Vec<Labelled>, Failure> {
    let user = rustix::process::geteuid().as_raw();
    let entries = fs::read_dir("/proc").map_err(|error| {
        Failure::failed(format!("/proc cannot be read: {error}.")).next("this target needs Linux")
    })?;
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw)
        else {
            continue;
        };
        // A process may end, or change its user, while it is looked at.
        if entry.metadata().is_ok_and(|metadata| metadata.uid() == user) {
            found.extend(look(pid));
        }
    }
    Ok(found)
}

/// What a process shows of itself, where it has the label.
fn look(pid: Pid) -> Option<Labelled> {
    let path = format!("/proc/{}/environ", pid.as_raw_nonzero());
    let until = Instant::now() + EXEC_WITHIN;
    let environment = loop {
        // Asked before the environment is read: in between it may have got one.
        let starts = is_starting(pid);
        let mut bytes = Vec::new();
        File::open(&path).ok()?.take(ENVIRON_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        if !bytes.is_empty() || !starts || Instant::now() >= until {
            break bytes;
        }
        std::thread::sleep(EXEC_LOOK);
    };
    let text = String::from_utf8_lossy(&environment);
    let value = |name: &str| {
        let mut variables = text.split('\0');
        variables.find_map(|variable| variable.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
    };
    Some(Labelled { pid, spawn: value(LABEL)?, data: value(DATA).map(PathBuf::from) })
}

/// Whether a process is within execve(2), where it has left its old memory and its new one has no environment yet.
/// Whoever started it goes on from there: it would be taken for a process without the label.
fn is_starting(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    // proc_pid_stat(5). The second field is a name, which may hold anything; after it comes the third.
    let Some((_, fields)) = stat.rsplit_once(')') else { return false };
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<u64>().ok());
    let (state, flags, env_end) = (fields.first(), number(9), number(51));
    // These get no environment any more.
    let has_none = matches!(state, Some(&("Z" | "X")))
        || flags.is_none_or(|flags| flags & (PF_EXITING | PF_KTHREAD) != 0);
    env_end == Some(0) && !has_none
}

/// A machine's process, as the system's table of processes has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::commands) struct Running {
    pub(in crate::commands) pid: Pid,
    pub(in crate::commands) spawn: String,
    pub(in crate::commands) data: PathBuf,
}

/// The machines whose data is below a folder.
pub(in crate::commands) fn running_under(folder: &Path) -> Result<Vec<Running>, Failure> {
    let found = labelled()?.into_iter().filter_map(|process| {
        let data = process.data.filter(|data| data.starts_with(folder))?;
        Some(Running { pid: process.pid, spawn: process.spawn, data })
    });
    Ok(found.collect())
}

pub(super) async fn up(
    args: &ProvisionUpArgs,
    ticket: &str,
    mesh: Option<SocketAddr>,
) -> Result<(String, bool), Failure> {
    let place = Place::new(&args.at, &args.spawn)?;
    let lock = place.lock().await?;
    place.be_labelled(&lock)?;
    if let [first, ..] = place.processes()?.as_slice() {
        place.healthy(|| Ok(!place.processes()?.is_empty())).await?;
        return Ok((first.as_raw_nonzero().to_string(), false));
    }
    if has_to_join(&place.data) {
        let label = args.label.clone().unwrap_or_else(|| args.spawn.clone());
        let ticket = ticket.trim().to_owned();
        let options = driver::JoinOptions { ticket, label, user: None, mesh, timeout: args.timeout };
        let was_there = place.is_there();
        if let Err(error) = driver::join(&place.data, options).await {
            // Whose invitation is retired, because its maker was killed and is back, leaves nothing here.
            if !was_there {
                place.remove_files()?;
            }
            return Err(error.into());
        }
    }
    let pid = start(&place, args.http, mesh, Of::Fleet)?;
    place.healthy(|| Ok(!place.processes()?.is_empty())).await?;
    Ok((pid.to_string(), true))
}

/// Whose a node is.
enum Of<'a> {
    /// A machine's, which a fleet made: of the environment it has what is set here alone.
    Fleet,
    /// A person's, with that person's environment, and the file with the token for HTTP.
    Person(Option<&'a Path>),
}

/// Starts its node, with output in a file: whoever runs this waits for all that hold its own output open.
fn start(place: &Place, http: SocketAddr, mesh: Option<SocketAddr>, of: Of<'_>) -> Result<u32, Failure> {
    let log = File::options().create(true).append(true).mode(0o600).open(&place.log);
    let log = log.map_err(|error| unusable(&place.log, &error))?;
    let errors = log.try_clone().map_err(|error| unusable(&place.log, &error))?;
    let program = std::env::current_exe()
        .map_err(|error| Failure::failed(format!("This program cannot be found again: {error}.")))?;
    let mut command = Command::new(program);
    match of {
        Of::Fleet => _ = command.env_clear(),
        Of::Person(token_file) => {
            without_own_variables(&mut command);
            command.envs(token_file.map(|file| ("OSIRIS_TOKEN_FILE", file)));
        }
    }
    command.arg("up").env(LABEL, &place.spawn).env(DATA, &place.data);
    command.env("OSIRIS_HTTP", http.to_string());
    if let Some(mesh) = mesh {
        command.env("OSIRIS_MESH", mesh.to_string());
    }
    let started =
        command.current_dir("/").stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0).spawn();
    let started =
        started.map_err(|error| Failure::failed(format!("The node cannot be started: {error}.")))?;
    Ok(started.id())
}

/// What was said to this command is not said to the one that it runs.
fn without_own_variables(command: &mut Command) {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("OSIRIS_")) {
        command.env_remove(name);
    }
}

/// Starts a person's node on the folder of the settings, and founds a fleet there where it belongs to none.
pub(super) async fn start_first(
    args: &StartArgs,
    settings: &Settings,
    out: Out,
) -> Result<(String, bool), Failure> {
    let data = std::path::absolute(&settings.data).map_err(|error| unusable(&settings.data, &error))?;
    let beside = |ending: &str| {
        let mut name = data.clone().into_os_string();
        name.push(ending);
        PathBuf::from(name)
    };
    let (lock, log) = (beside(".lock"), data.join("node.log"));
    let place = Place { spawn: args.spawn.clone(), data, lock, log };
    let _lock = place.lock().await?;
    // It may have other settings: whoever replaces a node may have lost sight of it half-way.
    end(&place, Signal::TERM, args.timeout).await?;
    end(&place, Signal::KILL, KILL_WITHIN).await?;
    if must_be_member(&place.data).is_err() {
        let label = args.label.as_ref().unwrap_or(&args.spawn);
        let mut init = Command::new(super::this_program()?);
        without_own_variables(&mut init);
        let init =
            init.args(["init", "--name", &args.name, "--label", label]).env(DATA, &place.data).output();
        let init = init.map_err(|error| Failure::failed(format!("No fleet can be founded: {error}.")))?;
        if !init.status.success() {
            let why = String::from_utf8_lossy(&init.stderr).trim().trim_end_matches('.').to_owned();
            return Err(Failure::failed(format!("No fleet can be founded: {why}.")));
        }
        // The recovery key, which is kept nowhere.
        out.raw(&init.stdout)?;
    }
    let pid = start(&place, args.http, settings.mesh, Of::Person(args.token_file.as_deref()))?;
    let healthy = place.healthy(|| Ok(!place.processes()?.is_empty()));
    let healthy = tokio::time::timeout(args.timeout, healthy).await;
    healthy.map_err(|_| Failure::timed_out(format!("{} was not ready in time.", args.spawn)))??;
    let _ = fs::remove_file(&place.lock);
    Ok((pid.to_string(), true))
}

pub(super) async fn down(args: &PlaceArgs, spawn: &str, patience: Duration) -> Result<bool, Failure> {
    let place = Place::new(args, spawn)?;
    let lock = match place.lock_by(&File::options()).await? {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let is_there = !place.processes()?.is_empty() || place.is_there();
            return if is_there { Err(place.foreign()) } else { Ok(false) };
        }
        lock => lock.map_err(|error| unusable(&place.lock, &error))?,
    };
    let changed = place.is_labelled(&lock)?;
    place.must_be_free().await?;
    place.drain().await;
    place.leave().await;
    end(&place, Signal::TERM, patience).await?;
    end(&place, Signal::KILL, KILL_WITHIN).await?;
    if !place.processes()?.is_empty() {
        return Err(Failure::timed_out(format!("The machine {spawn} did not end.")).next("try again"));
    }
    place.remove_files()?;
    Ok(changed)
}

/// Signals all of it and waits until it is gone, or the time is up.
async fn end(place: &Place, signal: Signal, patience: Duration) -> Result<(), Failure> {
    let until = Instant::now() + patience;
    for pid in place.processes()? {
        // Between look and signal the number may have become another process's: the handle is looked at again.
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        if look(pid).is_some_and(|process| process.spawn == place.spawn) {
            let _ = pidfd_send_signal(&handle, signal);
        }
    }
    while !place.processes()?.is_empty() && Instant::now() < until {
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// What runs.
pub(super) fn rows(args: &PlaceArgs) -> Result<Vec<Row>, Failure> {
    let folder = folder(args)?;
    let mut rows = Vec::new();
    for process in labelled()? {
        let Some(data) = process.data.filter(|data| *data == folder.join(&process.spawn)) else { continue };
        let id = process.pid.as_raw_nonzero().to_string();
        rows.push(Row { spawn: process.spawn, state: "running", id, place: data.display().to_string() });
    }
    rows.sort_by(|a, b| a.spawn.cmp(&b.spawn));
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_was_just_started_is_seen_with_its_label() {
        // Within execve(2) it has no environment: without waiting for that, some of these are missed.
        for number in 0..1000 {
            let spawn = format!("m0-{number}-{}", std::process::id());
            let mut sleep = Command::new("sleep");
            let mut sleep = sleep.arg("60").env_clear().env(LABEL, &spawn).spawn().expect("it starts");
            let pid = Pid::from_child(&sleep);
            let seen = look(pid).map(|process| process.spawn);
            let among =
                number % 100 != 0 || labelled().expect("/proc").iter().any(|process| process.spawn == spawn);
            sleep.kill().expect("killed");
            // Not waited for yet: it has no environment, and is not waited for here.
            assert!(!is_starting(pid), "it has started, or ended");
            sleep.wait().expect("ended");
            assert_eq!((seen.as_deref(), among), (Some(spawn.as_str()), true));
            assert!(look(pid).is_none() && !is_starting(pid));
        }
    }
}
