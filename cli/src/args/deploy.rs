//! What `osiris deploy` takes.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use osiris_fleet::manifest::Replicas;

use super::{Wait, parse_name};

/// Behind the flags of `osiris deploy --help`. `cli/src/project.rs` tries the manifest in it.
pub(crate) const HELP: &str = r#"Examples:
  osiris deploy hello.wasm --name hello
  osiris deploy hello.wasm --name hello --replicas 3 --wait
  osiris deploy                          with ./osiris.toml
  osiris deploy --dry-run                says what would be deployed, and what the component imports

An osiris.toml with every key there is; all but name and component may be left out. Flags take
precedence.

  name = "thumbs"
  component = "thumbs.wasm"  # beside this file, where it is relative
  version = "1.4"            # for people
  replicas = 2               # members that serve it, or "all" (default); unused with [scale]

  [limits]                   # of one node; a node may hold a function to less
  memory_mib = 64            # of one call
  timeout_ms = 5000          # of one call, waiting not counted
  concurrency = 8            # calls side by side
  queue = 100                # calls that may wait

  [scale]                    # as many replicas as its calls need
  min = 0                    # at least (default 1); 0: none while nobody calls it
  max = 5                    # at most
  backlog = 4                # calls that may wait for each before one more is added (default 4)
  idle_s = 60                # seconds of too many replicas before one goes (default 60)
  concurrency = 2            # calls side by side at first; more where some wait

  [place]                    # which members may serve it
  labels = ["gpu"]           # those that bear all of these: `osiris member label`
  spread = "zone"            # replicas are spread over the values of this label"#;

#[derive(Debug, Args)]
pub(crate) struct DeployArgs {
    /// The component (.wasm). Without it, osiris.toml names it
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,
    /// The function's name
    #[arg(long, value_parser = parse_name)]
    pub(crate) name: Option<String>,
    /// How many members serve it: a number, or all
    #[arg(long, value_name = "N|all")]
    pub(crate) replicas: Option<Replicas>,
    /// A manifest other than ./osiris.toml
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) manifest: Option<PathBuf>,
    /// Also wait, within the timeout, until the revision is live
    #[arg(long)]
    pub(crate) wait: bool,
    /// Check everything, the role of this device too, and deploy nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) confirm: Wait,
}
