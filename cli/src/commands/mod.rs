//! One module a command, or a few that belong together.

mod bench;
mod call;
mod demo;
mod deploy;
mod doctor;
mod functions;
mod invite;
mod lease;
mod ledger;
mod logs;
mod members;
mod node;
mod people;
mod provision;
mod scale;
mod service;
mod sim;
mod top;
mod user;
mod voters;

use std::time::Instant;

use clap::CommandFactory;
use osiris_fleet::api::Written;

use crate::args::{Cli, Command, InviteCommand, LedgerCommand, UserCommand};
use crate::backend::{HANDOVER, LOOK};
use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::output::{Out, human};

/// Runs a command. One that only reads is run again where a node that was just ending took its question: a moment
/// later the folder itself answers it.
pub(crate) async fn run(command: Command, settings: &Settings) -> Result<Exit, Failure> {
    let until = Instant::now() + HANDOVER;
    loop {
        match run_once(&command, settings).await {
            Err(failure) if failure.node_gone && only_reads(&command) && Instant::now() < until => {
                tokio::time::sleep(LOOK).await;
            }
            ended => return ended,
        }
    }
}

/// Whether a command changes nothing, and prints nothing before it knows all.
fn only_reads(command: &Command) -> bool {
    match command {
        Command::Status(_)
        | Command::Nodes
        | Command::Ls
        | Command::Describe(_)
        | Command::Ledger(LedgerCommand::Log(_) | LedgerCommand::Verify(_))
        | Command::Whoami
        | Command::Ticket => true,
        Command::Invite(args) => matches!(args.command, Some(InviteCommand::Ls)),
        Command::User(command) => matches!(command, UserCommand::Ls | UserCommand::Ticket { .. }),
        _ => false,
    }
}

async fn run_once(command: &Command, settings: &Settings) -> Result<Exit, Failure> {
    let out = Out::new(settings.output);
    match command {
        Command::Init(args) => members::init(args, settings, out),
        Command::Join(args) => members::join(args, settings, out).await,
        Command::Leave(args) => members::leave(args, settings, out).await,
        Command::Nodes => members::nodes(settings, out).await,
        Command::Whoami => members::whoami(settings, out).await,
        Command::Ticket => members::ticket(settings, out).await,
        Command::Invite(args) => invite::run(args, settings, out).await,
        Command::Up(args) => node::up(args, settings, out).await,
        Command::Status(args) => node::status(args, settings, out).await,
        Command::Sync(wait) => node::sync(*wait, settings, out).await,
        Command::Drain(args) => node::drain(args, settings, out).await,
        Command::Down(args) => node::down(args, settings, out).await,
        Command::Deploy(args) => deploy::run(args, settings, out).await,
        Command::Ls => functions::ls(settings, out).await,
        Command::Top(args) => top::run(args, settings, out).await,
        Command::Backlog(args) => functions::backlog(args, settings, out).await,
        Command::Describe(args) => functions::describe(&args.name, settings, out).await,
        Command::Remove(args) => functions::remove(args, settings, out).await,
        Command::Call(args) => call::run(args, settings, out).await,
        Command::Logs(args) => logs::run(args, settings, out).await,
        Command::Ledger(command) => ledger::run(command, settings, out).await,
        Command::Doctor(args) => doctor::run(args, settings, out).await,
        Command::Service(command) => service::run(command, settings, out),
        Command::Demo(args) => demo::run(args, out).await,
        Command::Bench(args) => bench::run(args, out).await,
        Command::Sim(command) => sim::run(command, out),
        Command::Member(command) => people::member(command, settings, out).await,
        Command::Role(command) => people::role(command, settings, out).await,
        Command::User(command) => user::run(command, settings, out).await,
        Command::Lease(command) => lease::run(command, settings, out).await,
        Command::Scale(args) => scale::run(args, settings, out).await,
        Command::Provision(command) => provision::run(command, settings, out).await,
        Command::Recover(args) => people::recover(args, settings, out).await,
        Command::Completion(args) => {
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), "osiris", &mut script);
            out.raw(&script)?;
            Ok(Exit::Done)
        }
    }
}

/// Says how far a write has come, and what that means for the exit code.
fn seen(written: &Written, offline: bool, out: Out) -> Exit {
    let Written { seen_by, others, .. } = *written;
    if others == 0 {
        out.note("recorded here, seen by 0 nodes (the fleet has no other member)");
        return Exit::Done;
    }
    if seen_by > 0 {
        out.note(&format!("recorded here, seen by {}", human::count(seen_by, "node")));
        return Exit::Done;
    }
    out.note(&format!("recorded here, seen by 0 nodes of {others}"));
    let how = if offline { "`osiris sync` hands it on" } else { "the node hands it on" };
    out.note(&format!("next: {how} as soon as another member can be reached"));
    Exit::Unseen
}

/// The name of this machine, for people.
fn label(given: Option<&str>) -> String {
    match given {
        Some(label) => label.to_owned(),
        None => {
            let name = rustix::system::uname();
            let name = name.nodename().to_string_lossy();
            let short = name.split('.').next().unwrap_or_default();
            if short.is_empty() { "node".to_owned() } else { short.to_owned() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    #[test]
    fn only_other_members_that_saw_nothing_make_it_5() {
        let out = Out { format: Format::Table, terminal: false, color: false, color_messages: false };
        for (seen_by, others, exit) in [(0, 0, Exit::Done), (0, 2, Exit::Unseen), (1, 2, Exit::Done)] {
            let written = Written { block: String::new(), seen_by, others };
            assert_eq!(seen(&written, false, out), exit);
        }
    }
}
