//! The `osiris` command.

mod args;
mod backend;
mod client;
mod commands;
mod config;
mod exit;
mod input;
mod keyring;
mod notify;
mod output;
mod project;
mod replica;
mod user_key;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Cli;
use crate::config::{Folders, Settings};
use crate::exit::{Exit, Failure};
use crate::output::{Format, Out};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = Settings::new(&cli.global, &Folders::here()).and_then(|settings| run(cli, settings));
    match result {
        Ok(exit) => exit.into(),
        Err(failure) => {
            Out::new(Format::Table).failure(&failure);
            failure.exit.into()
        }
    }
}

fn run(cli: Cli, settings: Settings) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::failed(format!("No threads can be started: {e}.")).next("raise ulimit -u"))?;
    let exit = runtime.block_on(commands::run(cli.command, &settings));
    // What still runs ends with the process, such as a read of stdin, or the goodbye to a member that does not
    // answer. It is not dropped before: iroh would report that as an error of an endpoint.
    std::mem::forget(runtime);
    exit
}
