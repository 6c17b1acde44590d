//! `osiris lease`.

use clap::{Args, Subcommand, ValueEnum};

use super::Wait;

/// What is done about leases.
#[derive(Debug, Subcommand)]
pub(crate) enum LeaseCommand {
    /// List the slots for machines: who claims or holds them, and which machines may be there
    #[command(after_help = "Examples:\n  osiris lease ls\n  osiris lease ls -o json")]
    Ls,
    /// Say how many machines the fleet may make; at first none
    #[command(after_help = "\
Examples:
  osiris lease limit --machines 3
  osiris lease limit --machines 3 --minority allow
  osiris lease limit --machines 0        nothing new is made; what is there stays

A node makes machines only if it has the role spawner and was started with `osiris up --machines N`, too.")]
    Limit(LimitArgs),
    /// Ask the node of this device for one more machine, or for none but what is there
    #[command(after_help = "\
Examples:
  osiris lease want

It is claimed, won and made by rules of its own: `osiris lease ls` shows how far it is.")]
    Want,
    /// Have a machine drained, ended and taken out of the fleet
    #[command(after_help = "\
Examples:
  osiris lease retire 0-1
  osiris lease retire 0-1 --gone        it is gone already: the ledger is told so")]
    Retire(RetireArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RetireArgs {
    /// The machine, by slot and round as `osiris lease ls` names it, or by the beginning of its intent's id
    pub(crate) machine: String,
    /// Only tell the ledger that it is gone: by your word, where nobody can look
    #[arg(long)]
    pub(crate) gone: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LimitArgs {
    /// Machines that the fleet may have made and not retired, at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1_000))]
    pub(crate) machines: u32,
    /// Whether one may be made without contact to a majority of the voters: then each side of a split may make one
    #[arg(long, value_enum, default_value = "deny")]
    pub(crate) minority: Minority,
    #[command(flatten)]
    pub(crate) wait: Wait,
}

/// Whether a minority may make machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Minority {
    /// Only with a majority.
    Deny,
    /// Also without.
    Allow,
}
