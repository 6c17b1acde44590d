//! `osiris provision`: what stands behind a Terraform module's provisioners.
//!
//! Each of the three may be run twice, and after one that was killed at any moment. What is touched carries the label
//! `osiris.spawn` with the machine's name, which holds the beginning of the intent's id; and what `up` makes joins by
//! that intent, or not at all.

mod archive;
mod docker;
mod engine;
mod first;
mod process;
mod ssh;

pub(super) use engine::Engine;
pub(super) use process::running_under;

use std::fs::File;
use std::io::{BufRead as _, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use osiris_fleet::node::HAND_OVER_WITHIN;
use osiris_protocol::ticket::{JoinTicket, Ticket};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::args::{LocalTarget, ProvisionCommand, ProvisionUpArgs, Target};
use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::output::table::Cell;
use crate::output::{Out, human};

/// The variable with the ticket. It is no flag: other users see arguments.
const TICKET: &str = "OSIRIS_TICKET";
/// Longest ticket, bytes.
const TICKET_BYTES_MAX: u64 = 16 << 10;
/// Longest wait for a ticket on standard input.
const TICKET_WITHIN: Duration = Duration::from_secs(30);
/// How often a condition is looked at that nothing announces.
const LOOK: Duration = Duration::from_millis(50);
/// Longest wait for another command that works on the same machine.
const LOCK_PATIENCE: Duration = Duration::from_secs(120);
/// Longest wait for a machine that goes to hand over what it serves, and then for its last calls: a node gives them 20 s.
const DRAIN_WITHIN: Duration = Duration::from_secs(HAND_OVER_WITHIN.as_secs() + 25);
/// Longest wait for another member to hear that a machine serves nothing any more.
const HEARD_WITHIN: Duration = Duration::from_secs(5);
/// Longest wait for the fleet to hear that a machine leaves it.
const LEAVE_WITHIN: Duration = Duration::from_secs(10);
/// Longest wait for a process that was killed.
const KILL_WITHIN: Duration = Duration::from_secs(10);

/// One machine.
#[derive(Clone, Debug, Serialize)]
struct Row {
    /// Its name.
    spawn: String,
    /// `running`, or `stopped` where its data is there alone.
    state: &'static str,
    /// What it is on its target: a process id, or a container's.
    id: String,
    /// Where its data is, in the target's own terms.
    place: String,
}

#[derive(Serialize)]
struct Done<'a> {
    spawn: &'a str,
    /// Whether anything was done.
    changed: bool,
    id: String,
}

pub(crate) async fn run(command: &ProvisionCommand, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    match command {
        ProvisionCommand::Up(args) => {
            let (ticket, gone) = ticket(args).await?;
            let work = async {
                match args.at.target {
                    Target::Process => process::up(args, &ticket, settings.mesh).await,
                    Target::Docker => docker::up(args, &ticket).await,
                    Target::Ssh => ssh::up(args, &ticket, settings.mesh).await,
                }
            };
            let (id, changed) = undoing(args, work, gone).await?;
            let what = if changed { "made" } else { "there already" };
            out.line(
                &Done { spawn: &args.spawn, changed, id: id.clone() },
                &format!("{}: {what} ({id})", args.spawn),
            )?;
        }
        ProvisionCommand::Down(args) => {
            let changed = match args.at.target {
                Target::Process => process::down(&args.at, &args.spawn, args.timeout).await?,
                Target::Docker => docker::down(&args.at, &args.spawn, args.timeout).await?,
                Target::Ssh => ssh::down(&args.at, &args.spawn, args.timeout).await?,
            };
            let what = if changed { "gone" } else { "nothing is there" };
            let done = Done { spawn: &args.spawn, changed, id: String::new() };
            out.line(&done, &format!("{}: {what}", args.spawn))?;
        }
        ProvisionCommand::Status(args) => {
            let rows = match args.target {
                Target::Process => process::rows(args)?,
                Target::Docker => docker::rows(args).await?,
                Target::Ssh => ssh::rows(args).await?,
            };
            out.rows(&rows, &["MACHINE", "STATE", "ID", "PLACE"], "no machine is there", |row| {
                vec![Cell::new(&row.spawn), Cell::state(row.state), Cell::new(&row.id), Cell::new(&row.place)]
            })?;
        }
        ProvisionCommand::Start(args) => {
            let (id, changed) = match args.target {
                LocalTarget::Process => process::start_first(args, settings, out).await?,
                LocalTarget::Docker => first::start(args, out).await?,
            };
            let what = if changed { "started" } else { "runs already" };
            let done = Done { spawn: &args.spawn, changed, id };
            out.line(&done, &format!("{}: {what}", args.spawn))?;
        }
        ProvisionCommand::Stop(args) => {
            let changed = first::stop(args).await?;
            let what = if changed { "stopped; its data stays in its volume" } else { "nothing is there" };
            let done = Done { spawn: &args.spawn, changed, id: String::new() };
            out.line(&done, &format!("{}: {what}", args.spawn))?;
        }
        ProvisionCommand::Fingerprint => {
            // For the other end of a connection, which compares it.
            out.raw(format!("{}\n", fingerprint(&this_program()?)?).as_bytes())?;
        }
    }
    Ok(Exit::Done)
}

/// Does the work within its time, and undoes it where it fails, this process is asked to end, or whoever asked for it
/// is gone.
async fn undoing<T>(
    args: &ProvisionUpArgs,
    work: impl Future<Output = Result<T, Failure>>,
    gone: Option<oneshot::Receiver<()>>,
) -> Result<T, Failure> {
    let unheard = |error: std::io::Error| Failure::failed(format!("Signals cannot be waited for: {error}."));
    let mut terminate = signal(SignalKind::terminate()).map_err(unheard)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(unheard)?;
    let done = tokio::select! {
        done = work => done,
        () = tokio::time::sleep(args.timeout) => Err(Failure::timed_out(format!(
            "The machine {} was not ready within {}.", args.spawn, human::span(args.timeout)
        ))),
        _ = terminate.recv() => Err(Failure::failed("Making the machine was ended.")),
        _ = interrupt.recv() => Err(Failure::failed("Making the machine was ended.")),
        () = async {
            match gone {
                Some(gone) => drop(gone.await),
                None => std::future::pending().await,
            }
        } => Err(Failure::failed("Whoever asked for the machine is gone.")),
    };
    let Err(failure) = done else { return done };
    if failure.exit == Exit::Denied {
        // It is not ours: nothing of it was touched.
        return Err(failure);
    }
    let undone = match args.at.target {
        Target::Process => process::down(&args.at, &args.spawn, KILL_WITHIN).await,
        Target::Docker => docker::down(&args.at, &args.spawn, KILL_WITHIN).await,
        Target::Ssh => ssh::down(&args.at, &args.spawn, KILL_WITHIN).await,
    };
    Err(match undone {
        Ok(_) => failure.next("nothing of it is left; try again"),
        Err(second) => {
            let message =
                format!("{} What it left could not be taken away: {}", failure.message, second.message);
            Failure::new(failure.exit, message).next("run `osiris provision down` for it")
        }
    })
}

/// The ticket, which has to be that of this machine's intent; and what ends when standard input does, if it came by
/// that.
async fn ticket(
    args: &ProvisionUpArgs,
) -> Result<(Zeroizing<String>, Option<oneshot::Receiver<()>>), Failure> {
    let next = "a node that makes machines sets it";
    let (text, gone) = match args.ticket_stdin {
        true => {
            let (text, gone) = ticket_of_stdin().await?;
            (text, Some(gone))
        }
        false => {
            let text = std::env::var(TICKET);
            let text = text.map_err(|_| Failure::usage(format!("{TICKET} holds no ticket.")).next(next))?;
            (Zeroizing::new(text), None)
        }
    };
    let ticket: Ticket =
        text.trim().parse().map_err(|error| Failure::usage(format!("The ticket: {error}.")).next(next))?;
    match ticket {
        Ticket::Join(ticket) if is_of(&ticket, &args.spawn) => Ok((text, gone)),
        _ => Err(Failure::usage(format!("It is not the ticket of the machine {}.", args.spawn))
            .next("each machine has a ticket of its own, whose invitation its name begins")),
    }
}

/// A line of standard input, and what is told when standard input ends. A thread of its own reads: nothing interrupts
/// that, and it is left behind at the end of the process.
async fn ticket_of_stdin() -> Result<(Zeroizing<String>, oneshot::Receiver<()>), Failure> {
    let unread = |error: std::io::Error| Failure::unread_from("The ticket cannot be read", &error);
    let ((told, line), (ended, gone)) = (oneshot::channel(), oneshot::channel());
    let reader = move || {
        let mut stdin = std::io::stdin().lock();
        let mut text = Zeroizing::new(String::with_capacity(TICKET_BYTES_MAX as usize));
        let read = (&mut stdin).take(TICKET_BYTES_MAX).read_line(&mut text);
        let _ = told.send(read.map(|_| text));
        let _ = std::io::copy(&mut stdin, &mut std::io::sink());
        let _ = ended.send(());
    };
    std::thread::Builder::new().name("osiris-input".to_owned()).spawn(reader).map_err(unread)?;
    let late = || Failure::timed_out("No ticket came by standard input in time.").next("give it as a line");
    let line = tokio::time::timeout(TICKET_WITHIN, line).await.map_err(|_| late())?;
    let text = line.map_err(|_| late())?.map_err(unread)?;
    Ok((text, gone))
}

fn this_program() -> Result<PathBuf, Failure> {
    std::env::current_exe()
        .map_err(|error| Failure::failed(format!("This program cannot be found again: {error}.")))
}

/// By which a program is known to be the same: the blake3 hash of its file, in hexadecimal digits.
fn fingerprint(program: &Path) -> Result<String, Failure> {
    let mut hasher = blake3::Hasher::new();
    let read = File::open(program).and_then(|file| hasher.update_reader(file).map(|_| ()));
    read.map_err(|error| Failure::unread("program", program, &error))?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// Whether a name ends with the beginning of the ticket's invitation.
fn is_of(ticket: &JoinTicket, spawn: &str) -> bool {
    let digits: String = ticket.invitation.iter().map(|byte| format!("{byte:02x}")).collect();
    let end = spawn.rsplit('-').next().unwrap_or_default();
    end.len() == 16 && digits.starts_with(end)
}
