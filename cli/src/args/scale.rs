//! `osiris scale`.

use clap::{Args, Subcommand};

use super::Wait;

/// What is done about replicas.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct ScaleArgs {
    #[command(subcommand)]
    pub(crate) command: Option<ScaleCommand>,
    #[command(flatten)]
    pub(crate) bounds: BoundsArgs,
}

#[derive(Debug, Args)]
pub(crate) struct BoundsArgs {
    /// The function
    #[arg(required_unless_present = "all")]
    pub(crate) name: Option<String>,
    /// All scaled functions together, with --max or --reset
    #[arg(long, conflicts_with_all = ["name", "min", "dry_run"])]
    pub(crate) all: bool,
    /// Replicas, at least; 0: none while nobody calls it. Default with --max: 1
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=10_000), requires = "max")]
    pub(crate) min: Option<u32>,
    /// Replicas, at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) max: Option<u32>,
    /// Leave the bounds to the manifest again
    #[arg(long, conflicts_with_all = ["min", "max", "dry_run"])]
    pub(crate) reset: bool,
    /// Only say what would be decided now, by --min and --max where they are given
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) wait: Wait,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ScaleCommand {
    /// Say how many replicas scaled functions have, and why: what is measured, by which rule, what was done
    #[command(after_help = "Examples:\n  osiris scale explain\n  osiris scale explain hello -o json")]
    Explain {
        /// Only this function
        name: Option<String>,
    },
}
