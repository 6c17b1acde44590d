//! The command line.

mod deploy;
mod lease;
mod provision;
mod scale;
mod user;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, ValueHint};
use osiris_fleet::node::Retain;
use serde::Deserialize;

use crate::config::{parse_advertise, parse_http, parse_mesh};
pub(crate) use deploy::{DeployArgs, HELP as DEPLOY_HELP};
pub(crate) use lease::{LeaseCommand, LimitArgs, Minority};
pub(crate) use provision::{
    LocalTarget, PlaceArgs, ProvisionCommand, SshArgs, StartArgs, StopArgs, Target, UpArgs as ProvisionUpArgs,
};
pub(crate) use scale::{BoundsArgs, ScaleArgs, ScaleCommand};
pub(crate) use user::{KeyringPlace, UserAddArgs, UserCommand, UserKey, UserKeyCommand};

use crate::output::human::Moment;
use crate::output::{Format, human};

/// WebAssembly functions on a fleet of edge nodes without a leader.
#[derive(Debug, Parser)]
#[command(
    name = "osiris",
    version,
    about,
    disable_help_subcommand = true,
    after_help = "\
Examples:
  osiris init --name home                 found a fleet on this device
  osiris up                               run its node
  osiris deploy hello.wasm --name hello   deploy a function to every member
  osiris call hello '{\"name\":\"Isis\"}'     call it

Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 denied, 5 recorded here but not yet seen
elsewhere, 6 timed out."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Common options")]
pub(crate) struct Global {
    /// Folder of the device: its key, its ledger and its components. One node uses it at a time.
    /// Default: osiris in the XDG data folder
    #[arg(long, global = true, env = "OSIRIS_DATA", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) data: Option<PathBuf>,
    /// How data is written: json and yaml for programs
    #[arg(short, long, global = true, env = "OSIRIS_OUTPUT", value_name = "FORMAT", value_enum)]
    pub(crate) output: Option<Format>,
    /// Address or port for other members (UDP). Default: any port on all interfaces
    #[arg(long, global = true, env = "OSIRIS_MESH", value_name = "ADDR", value_parser = parse_mesh)]
    pub(crate) mesh: Option<SocketAddr>,
}

/// What a running node takes besides.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct NodeArgs {
    /// Address or port for function calls over HTTP; 0 takes any free port. Default: 127.0.0.1:7420
    #[arg(long, env = "OSIRIS_HTTP", value_name = "ADDR", value_parser = parse_http)]
    pub(crate) http: Option<SocketAddr>,
    /// Address at which other members reach this node, where it does not see that itself
    #[arg(long, env = "OSIRIS_ADVERTISE", value_name = "ADDR", value_delimiter = ',', value_parser = parse_advertise)]
    pub(crate) advertise: Vec<SocketAddr>,
    /// File with the token that HTTP callers must present
    #[arg(long, env = "OSIRIS_TOKEN_FILE", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) token_file: Option<PathBuf>,
    /// What is kept of the oldest blocks once more than two thirds of the voters sealed a page of them: all, or
    /// current, which is a summary of each without its signature. Default: all
    #[arg(long, env = "OSIRIS_RETAIN", value_name = "WHAT", value_enum)]
    pub(crate) retain: Option<RetainWord>,
    /// Machines that the fleet may have made for this node to make another; 0: it makes none. It needs the role
    /// spawner, and what `osiris lease limit` allows. Default: 0
    #[arg(long, env = "OSIRIS_MACHINES", value_name = "N")]
    pub(crate) machines: Option<u32>,
    /// What is logged to stderr: error, warn, info, debug, trace, or a filter such as osiris_mesh=debug. Default: info
    #[arg(long, env = "OSIRIS_LOG", value_name = "LEVEL")]
    pub(crate) log: Option<String>,
    /// How it is logged. Default: text
    #[arg(long, env = "OSIRIS_LOG_FORMAT", value_name = "FORMAT", value_enum)]
    pub(crate) log_format: Option<LogFormat>,
}

/// What is kept of blocks that sealed pages list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RetainWord {
    /// Every block, with its signature.
    All,
    /// Summaries.
    Current,
}

impl RetainWord {
    pub(crate) fn retain(self) -> Retain {
        match self {
            Self::All => Retain::All,
            Self::Current => Retain::Current,
        }
    }
}

/// How long a write waits for another member.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Wait {
    /// How long the command may take, which is to wait for another member to confirm
    #[arg(long, env = "OSIRIS_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = human::parse_span)]
    pub(crate) timeout: Duration,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Found a fleet with this device as its first member
    #[command(after_help = "\
Examples:
  osiris init --name home
  osiris init --name shop --label till-1 -o json

  osiris init --name home --recovery-file /media/stick/home.recovery

The recovery key is printed once. Write it down and keep it away from the device.")]
    Init(InitArgs),
    /// Be admitted to a fleet with a join ticket
    #[command(after_help = "\
Examples:
  osiris join osiris…                    with the ticket from `osiris invite`
  osiris join @ticket.txt --label till-2
  osiris join @isis.ticket               with the ticket from `osiris user ticket`, as the user isis
  ssh admin osiris invite | osiris join -")]
    Join(JoinArgs),
    /// Run the node of this device in the foreground
    #[command(after_help = "\
Examples:
  osiris up
  osiris up --http 0 -o json             any port; one line of JSON with the addresses
  osiris up --join @ticket.txt           joins a fleet at its first start
  osiris up --advertise 203.0.113.7:7421 --mesh 7421

DATA/config.toml says the same for every start. Its keys are the flags' names: http, mesh,
advertise, token-file, retain, machines, label, log, log-format, output; and there are the sections
[provision] and [scale]. Flags and the environment take precedence.")]
    Up(UpArgs),
    /// Show the node, its replica and whether others have seen its blocks
    #[command(after_help = "Examples:\n  osiris status\n  osiris status -o json\n  osiris status --ready")]
    Status(StatusArgs),
    /// Stop the node of this device and wait until it is gone
    #[command(after_help = "Examples:\n  osiris down\n  osiris down --timeout 1m")]
    Down(DownArgs),
    /// Have other nodes take over what this one serves, and wait for the calls that run
    #[command(after_help = "\
Examples:
  osiris drain && osiris down

Nothing is placed on the node until `osiris up` starts it again. It serves on for at most 30 s while
others get ready; what no other node may serve ends at once, and is named.")]
    Drain(DrainArgs),
    /// Leave the fleet for good
    #[command(after_help = "Examples:\n  osiris leave --yes")]
    Leave(LeaveArgs),
    /// Make a ticket that admits a device, or list and withdraw invitations
    #[command(
        args_conflicts_with_subcommands = true,
        after_help = "\
Examples:
  osiris invite                          one device, as a node
  osiris invite --uses 20 --note 'shop tills'
  osiris invite --device KEY --role operator    KEY is what `osiris whoami` prints there
  osiris invite ls
  osiris invite revoke 3f9a1c2b7d04"
    )]
    Invite(InviteArgs),
    /// List the members of the fleet
    #[command(after_help = "Examples:\n  osiris nodes\n  osiris nodes -o yaml")]
    Nodes,
    /// Print a ticket for applications to reach this node with
    #[command(after_help = "Examples:\n  osiris ticket > fleet.ticket")]
    Ticket,
    /// Deploy a component as a function, or a new revision of it
    #[command(after_help = DEPLOY_HELP)]
    Deploy(DeployArgs),
    /// List the functions
    #[command(
        visible_alias = "list",
        after_help = "\
Examples:
  osiris ls
  osiris ls -o json

What runs and waits, and what ended since its start, are this node's; `osiris backlog` has the whole fleet's."
    )]
    Ls,
    /// Show what this device does: CPU, memory, disk, network, calls
    #[command(after_help = "\
Examples:
  osiris top
  osiris top --once
  osiris top -o json

It reads a page of memory that the running node writes every 5 s, and does not ask the node. Other programs of
the same user may map the same page: a line of its layout is in docs/load-page.md.")]
    Top(TopArgs),
    /// Show what waits and runs on all members
    #[command(after_help = "\
Examples:
  osiris backlog
  osiris backlog --nodes
  osiris backlog -o json

Each member signs its own counters; AGE says how long ago this node saw them change.")]
    Backlog(BacklogArgs),
    /// Show a function with its revisions
    #[command(after_help = "Examples:\n  osiris describe hello")]
    Describe(NameArgs),
    /// Call a function and print its answer
    #[command(after_help = "\
Examples:
  osiris call hello '{\"name\":\"Isis\"}'
  osiris call hello @input.json
  generate | osiris call hello -
  osiris call chart --path /chart --method POST --header 'content-type: application/json' @samples.json

The exit code follows the answer's status: 404 is 3, 401 and 403 are 4, 504 is 6, other errors are 1.")]
    Call(CallArgs),
    /// Show what a function wrote on this node
    #[command(after_help = "Examples:\n  osiris logs hello\n  osiris logs hello -f -o json")]
    Logs(LogsArgs),
    /// Remove a function from every member
    #[command(after_help = "Examples:\n  osiris remove hello")]
    Remove(RemoveArgs),
    /// Exchange blocks with other members now
    #[command(after_help = "Examples:\n  osiris sync\n  osiris sync --timeout 30s")]
    Sync(Wait),
    /// Read and check the ledger
    #[command(subcommand)]
    Ledger(LedgerCommand),
    /// Check the machine, the data folder and the node
    #[command(after_help = "Examples:\n  osiris doctor\n  osiris doctor --idle --seconds 60 -o json")]
    Doctor(DoctorArgs),
    /// Run the node as a service of the system
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Show who this device is in the fleet; outside of one, print its key, making it if there is none
    #[command(
        after_help = "Examples:\n  osiris whoami\n  osiris invite --device \"$(ssh laptop osiris whoami)\" --role operator"
    )]
    Whoami,
    /// Print the completion script of a shell
    #[command(after_help = "\
Examples:
  osiris completion bash > ~/.local/share/bash-completion/completions/osiris
  osiris completion zsh > ~/.zfunc/_osiris
  osiris completion fish > ~/.config/fish/completions/osiris.fish")]
    Completion(CompletionArgs),
    /// Show a fleet at work: three nodes of this program on this machine, for less than a minute
    ///
    /// Founds a fleet, joins two nodes, deploys functions, calls them through every node, kills a node
    /// during calls, deploys meanwhile, and checks that all nodes agree again.
    #[command(after_help = "\
Examples:
  osiris demo
  osiris demo --keep            leave the fleet up and print addresses and tickets
  osiris demo -o json")]
    Demo(DemoArgs),
    /// Measure what calls cost on this machine, beside hyper and iroh alone, for two minutes
    ///
    /// Starts two nodes of this program and a load generator, each a process of its own. The machine must
    /// have nothing else to do. A missed aim is no failure; -o json says which were met.
    #[command(after_help = "\
Examples:
  osiris bench
  osiris bench --seconds 5 --rounds 9
  osiris bench -o json")]
    Bench(BenchArgs),
    /// Simulate a whole fleet in memory, with faults that follow from a seed
    #[command(subcommand)]
    Sim(SimCommand),
    /// End the membership of another device
    #[command(subcommand)]
    Member(MemberCommand),
    /// Give roles to a member, or take them
    #[command(subcommand)]
    Role(RoleCommand),
    /// Persons, whose keys admit their devices
    #[command(subcommand)]
    User(UserCommand),
    /// Who may make new machines for the fleet, and which there are
    #[command(subcommand)]
    Lease(LeaseCommand),
    /// Say how many replicas a function may have, or why it has as many as it has
    #[command(after_help = "\
Examples:
  osiris scale hello --min 0 --max 4     outlives deploys
  osiris scale hello --reset             its manifest says it again
  osiris scale --all --max 20            all scaled functions together
  osiris scale hello --dry-run           what would be decided now
  osiris scale explain                   what was decided, and why")]
    Scale(ScaleArgs),
    /// Make a machine, and take it away: what Terraform modules run
    #[command(subcommand)]
    Provision(ProvisionCommand),
    /// Make this device, or another one, an admin above all others with the fleet's recovery key
    #[command(after_help = "\
Examples:
  osiris recover                         asks for the key
  osiris recover --recovery-file key.txt --device till-2

The key is the one that `osiris init` printed. It works without a node, too.")]
    Recover(RecoverArgs),
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// What people call the fleet
    #[arg(long, env = "OSIRIS_NAME", default_value = "home", value_parser = parse_fleet_name)]
    pub(crate) name: String,
    /// What people call this device. Default: its host name
    #[arg(long, env = "OSIRIS_LABEL", value_parser = parse_label)]
    pub(crate) label: Option<String>,
    /// Write the recovery key to this new file, which only its owner may read, and do not print it
    #[arg(long, env = "OSIRIS_RECOVERY_FILE", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) recovery_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// The ticket, @FILE with it, or - for stdin (a ticket is a secret: other users see arguments)
    pub(crate) ticket: String,
    /// What people call this device. Default: its host name
    #[arg(long, env = "OSIRIS_LABEL", value_parser = parse_label)]
    pub(crate) label: Option<String>,
    #[command(flatten)]
    pub(crate) key: UserKey,
    /// How long to try
    #[arg(long, env = "OSIRIS_TIMEOUT", value_name = "TIME", default_value = "30s", value_parser = human::parse_span)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    /// Be admitted first, where this device belongs to no fleet: the ticket, @FILE with it, or - for stdin
    #[arg(long, value_name = "TICKET")]
    pub(crate) join: Option<String>,
    /// What people call this device, where it joins. Default: its host name
    #[arg(long, env = "OSIRIS_LABEL", value_parser = parse_label)]
    pub(crate) label: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Print nothing; succeed only where the node runs and serves, as a health check asks
    #[arg(long)]
    pub(crate) ready: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DownArgs {
    /// How long to wait for the node to end
    #[arg(long, env = "OSIRIS_TIMEOUT", value_name = "TIME", default_value = "60s", value_parser = human::parse_span)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// How long to wait until others serve what this node does, and for running calls
    #[arg(long, env = "OSIRIS_TIMEOUT", value_name = "TIME", default_value = "60s", value_parser = human::parse_span)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct LeaveArgs {
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InviteArgs {
    #[command(subcommand)]
    pub(crate) command: Option<InviteCommand>,
    /// Devices the ticket admits
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) uses: u32,
    /// What it gives; more than node needs --device
    #[arg(long = "role", value_enum, default_value = "node")]
    pub(crate) roles: Vec<Role>,
    /// The only device that may use it: what `osiris whoami` prints there
    #[arg(long, value_name = "KEY", value_parser = parse_key)]
    pub(crate) device: Option<String>,
    /// For people: who or what it is for
    #[arg(long, default_value = "", value_parser = parse_note)]
    pub(crate) note: String,
    #[command(flatten)]
    pub(crate) wait: Wait,
}

/// What a member may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Holds a replica and serves functions.
    Node,
    /// Deploys and removes functions.
    Operator,
    /// Invites, withdraws invitations and revokes members.
    Admin,
    /// Reads; calls and writes nothing.
    Viewer,
    /// Calls functions; writes nothing.
    Invoker,
    /// Claims slots for new machines.
    Spawner,
    /// Seals pages of the ledger, where an admin names it.
    Voter,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Operator => "operator",
            Self::Admin => "admin",
            Self::Viewer => "viewer",
            Self::Invoker => "invoker",
            Self::Spawner => "spawner",
            Self::Voter => "voter",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Print once and end; also where the output is no terminal
    #[arg(long)]
    pub(crate) once: bool,
    /// Time between two looks
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = human::parse_span)]
    pub(crate) every: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct BacklogArgs {
    /// One row for each member instead of one for each function
    #[arg(long)]
    pub(crate) nodes: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum InviteCommand {
    /// List the invitations
    Ls,
    /// Withdraw an invitation: it admits nobody any more
    #[command(after_help = "Examples:\n  osiris invite revoke 3f9a1c2b7d04")]
    Revoke {
        /// The invitation's id, or its start, as `osiris invite ls` prints it
        #[arg(value_parser = parse_hex)]
        id: String,
        #[command(flatten)]
        wait: Wait,
    },
}

#[derive(Debug, Args)]
pub(crate) struct NameArgs {
    /// The function
    #[arg(value_parser = parse_name)]
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct CallArgs {
    /// The function
    #[arg(value_parser = parse_name)]
    pub(crate) name: String,
    /// What to send: JSON, @FILE, or - for stdin
    #[arg(value_name = "JSON|@FILE|-", allow_hyphen_values = true)]
    pub(crate) body: Option<String>,
    /// Path and query below the function, for http functions
    #[arg(long)]
    pub(crate) path: Option<String>,
    /// Method, for http functions. Default: POST with a body, GET without
    #[arg(long)]
    pub(crate) method: Option<String>,
    /// Header, for http functions; may be repeated
    #[arg(long = "header", value_name = "NAME: VALUE", action = ArgAction::Append, value_parser = parse_header)]
    pub(crate) headers: Vec<(String, String)>,
    /// How long to wait for the answer
    #[arg(long, env = "OSIRIS_TIMEOUT", value_name = "TIME", default_value = "30s", value_parser = human::parse_span)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The function
    #[arg(value_parser = parse_name)]
    pub(crate) name: String,
    /// Go on with what is written from now on
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Latest lines to begin with
    #[arg(long, default_value_t = 100)]
    pub(crate) lines: u32,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// The function
    #[arg(value_parser = parse_name)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) wait: Wait,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LedgerCommand {
    /// Who did what by which grant, and whether it counts: blocks, newest first
    #[command(after_help = "\
Examples:
  osiris ledger log --limit 1000 -o json
  osiris ledger log --user isis --since 24h
  osiris ledger log --author till-2 --function hello --op deployed --since 2026-11-01T00:00:00Z

Times are those of the authors' clocks, which nobody else vouches for; the order is the ledger's.")]
    Log(LogArgs),
    /// Check every signature, link and rule again, and every component's hash
    #[command(after_help = "\
Examples:
  osiris ledger verify && echo sound
  osiris ledger verify -o json | jq '.problems[]'

Nothing is changed. Where no node runs, the folder itself is looked into, and may be on a medium that cannot be
written to; every problem is said with its file, record and byte, and with what to do.")]
    Verify(VerifyArgs),
    /// Keep all blocks and pages that are here in a file, or check such a file
    #[command(after_help = "\
Examples:
  osiris ledger archive ledger-2026-11.osiris
  osiris ledger archive --verify ledger-2026-11.osiris && echo sound

The file needs no key and no node to be checked: every block is judged as if a stranger had sent it, and every page by
the voters' seals. A file that is there is left alone.")]
    Archive(ArchiveArgs),
    /// Show or say who seals pages, by which the oldest blocks may be dropped
    #[command(after_help = "\
Examples:
  osiris ledger voters
  osiris role grant till-1 voter
  osiris ledger voters --set till-1,till-2,roof

Before anybody is named the founding device alone seals. More than two thirds of those that are named have to seal a
page, so with three named all three must. A voter seals only with the role voter.")]
    Voters(VotersArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ArchiveArgs {
    /// The archive
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// Check it instead of making it
    #[arg(long)]
    pub(crate) verify: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VotersArgs {
    /// From now on these seal: labels, or starts of keys, as `osiris nodes` prints them. It needs the role admin
    #[arg(long, value_name = "MEMBER", value_delimiter = ',')]
    pub(crate) set: Vec<String>,
    #[command(flatten)]
    pub(crate) wait: Wait,
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct VerifyArgs {
    /// How long checking everything may take
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = human::parse_span)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// Blocks to list, the newest first
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: u64,
    /// Only what this device wrote: its label, or the start of its key
    #[arg(long, value_name = "NAME|KEY")]
    pub(crate) author: Option<String>,
    /// Only what was written by a grant that this user's key gave
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// Only what concerns this function
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    pub(crate) function: Option<String>,
    /// Only this operation
    #[arg(long, value_name = "OP", value_parser = osiris_fleet::api::OPERATIONS)]
    pub(crate) op: Option<String>,
    /// Only from then on: so long ago, or a time as in RFC 3339
    #[arg(long, value_name = "TIME", value_parser = human::parse_moment)]
    pub(crate) since: Option<Moment>,
    /// Only before then, likewise
    #[arg(long, value_name = "TIME", value_parser = human::parse_moment)]
    pub(crate) until: Option<Moment>,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Measure the running node: memory, CPU and bytes written a minute
    #[arg(long)]
    pub(crate) idle: bool,
    /// How long to measure
    #[arg(long, default_value_t = 60, requires = "idle", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) seconds: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    /// Write a systemd unit that runs `osiris up` and starts it again whenever it ends
    #[command(after_help = "\
Examples:
  osiris service install                 for the user who runs this
  sudo osiris service install --system --data /var/lib/osiris
  osiris service install --print")]
    Install(ServiceArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ServiceArgs {
    /// For the whole machine, in /etc/systemd/system
    #[arg(long)]
    pub(crate) system: bool,
    /// Print the unit and write nothing
    #[arg(long)]
    pub(crate) print: bool,
    /// The user that the node runs as, with --system
    #[arg(long, value_name = "USER", requires = "system")]
    pub(crate) run_as: Option<String>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

/// Other demos.
#[derive(Debug, Subcommand)]
pub(crate) enum DemoCommand {
    /// Show a fleet that makes a machine for a load and takes it away again, by Terraform or OpenTofu
    ///
    /// Three nodes of this program on this machine, two of which may make machines. A load on the first makes a fourth
    /// node; its end takes it away. It takes about two minutes, prints when what happened, and draws a picture. The
    /// machine is a container where a Docker is reached, and a process where none is.
    #[command(after_help = "\
Examples:
  osiris demo scale
  osiris demo scale --target process --svg scale.svg
  osiris demo scale --fault during      kill the node that makes the machine while it does")]
    Scale(DemoScaleArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DemoScaleArgs {
    /// Where the picture is written
    #[arg(long, value_name = "FILE", default_value = "osiris-scale.svg", value_hint = ValueHint::FilePath)]
    pub(crate) svg: PathBuf,
    /// What a machine is. Default: docker where one is reached that runs this program, else process
    #[arg(long, value_enum)]
    pub(crate) target: Option<LocalTarget>,
    /// For containers: the image, whose entry is an osiris of this version. Default: one that is made of this program, and
    /// removed at the end
    #[arg(long, value_name = "IMAGE", value_parser = provision::parse_image)]
    pub(crate) image: Option<String>,
    /// Kill the node that makes the machine: before Terraform runs, while it applies, or when the machine serves
    #[arg(long, value_enum)]
    pub(crate) fault: Option<Fault>,
    /// An empty folder to work in. Default: one of its own, removed at the end
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: Option<PathBuf>,
}

/// When the maker of a machine is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fault {
    /// Its claim is known, and it has not won yet.
    Before,
    /// `terraform apply` runs for it.
    During,
    /// The machine serves.
    After,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct DemoArgs {
    #[command(subcommand)]
    pub(crate) command: Option<DemoCommand>,
    /// Leave the fleet up and print its addresses, a ticket that admits devices and one for applications
    #[arg(long)]
    pub(crate) keep: bool,
    /// An empty folder to work in. Default: one of its own, removed at the end
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// How long each measure takes in a round
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub(crate) seconds: u64,
    /// Rounds, of whose figures the median counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub(crate) rounds: u32,
    /// What a process that the bench itself starts does, with its job on stdin
    #[arg(long, hide = true, value_enum)]
    pub(crate) role: Option<BenchRole>,
}

/// A process of the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchRole {
    /// Asks an HTTP server.
    Load,
    /// Answers over HTTP without a function.
    Floor,
    /// Answers over iroh without a node.
    Echo,
    /// Asks the echo.
    Probe,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SimCommand {
    /// Simulate one fleet: the same seed and size give the same run
    #[command(after_help = "\
Examples:
  osiris sim run --nodes 5 --seed 7
  osiris sim run --nodes 100 --seed 1 -o json > report.json
  osiris sim run --nodes 3 --seed 7 --events 2> events.log

Crashes, partitions, lost frames, disks that fail and hostile members are drawn from the seed. The exit
code is 1 where a promise was broken.")]
    Run(SimRunArgs),
    /// Simulate many small fleets, one a seed, and fail where a rare branch was never reached
    #[command(after_help = "\
Examples:
  osiris sim campaign
  osiris sim campaign --seed 1000 --runs 500 -o json")]
    Campaign(SimCampaignArgs),
    /// Simulate a day of one fleet: load by the hour, machines made and taken away, compared with an oracle
    #[command(after_help = "\
Examples:
  osiris sim day --nodes 100 --seed 1
  osiris sim day --nodes 20 --hours 2 -o json

Members run the real policy with its default thresholds. The network falls apart and makers die on the way.
The exit code is 1 where a promise was broken, and in a day of 24 hours or more also where a branch that must be
reached was not.")]
    Day(SimDayArgs),
    /// Run a simulation again from its report, and compare the event logs
    #[command(after_help = "\
Examples:
  osiris sim replay report.json
  osiris sim replay property-tests/corpus/sim/split-by-damage.json --events 2> events.log")]
    Replay(SimReplayArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SimRunArgs {
    /// Members at the start
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) nodes: u32,
    /// What every choice follows from
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// How long faults go on, in virtual seconds. Default: drawn from the seed
    #[arg(long, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub(crate) seconds: Option<u64>,
    /// No faults and no hostile members
    #[arg(long)]
    pub(crate) healthy: bool,
    /// Write the event log to stderr
    #[arg(long)]
    pub(crate) events: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SimCampaignArgs {
    /// The first seed
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Runs, each with the next seed
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) runs: u64,
    /// Members at the start of each run. Default: 3 to 9, drawn from the seed
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) nodes: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct SimDayArgs {
    /// Members at the start
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(6..=10_000))]
    pub(crate) nodes: u32,
    /// What every choice follows from
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Hours from the first call to the last, over which one curve of a day lies
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=48))]
    pub(crate) hours: u32,
    /// Write the event log to stderr
    #[arg(long)]
    pub(crate) events: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SimReplayArgs {
    /// A report, or a file of the corpus
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// Write the event log to stderr
    #[arg(long)]
    pub(crate) events: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MemberCommand {
    /// Revoke a member: it belongs to the fleet no more, and what it writes from now on is void
    #[command(after_help = "\
Examples:
  osiris member revoke till-2            what it wrote so far goes on counting
  osiris member revoke 3f9a1c2b --discard    all that it wrote becomes void

It comes back only by a new invitation. For this device itself there is `osiris leave`.")]
    Revoke {
        /// The member's label, or the start of its key, as `osiris nodes` prints them
        member: String,
        /// Void all that it ever wrote: its deploys, its invitations, and who was admitted by them
        #[arg(long)]
        discard: bool,
        #[command(flatten)]
        wait: Wait,
    },
    /// Say how many blocks a member may write in all. What it writes beyond comes to others slowly: one block in ten
    /// seconds
    #[command(after_help = "\
Without a word of an admin a member may write 50,000 blocks: years of a busy node.

Examples:
  osiris member budget till-2 200000
  osiris nodes -o json                     shows of each member its blocks and its budget")]
    Budget {
        /// The member's label, or the start of its key, as `osiris nodes` prints them
        member: String,
        /// Blocks in all, from its first on
        #[arg(value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
        blocks: u64,
        #[command(flatten)]
        wait: Wait,
    },
    /// Say which labels a member bears, for functions that ask for some in `place`; no label takes all away
    #[command(after_help = "\
Examples:
  osiris member label till-2 gpu zone=shop
  osiris member label till-2               it bears none any more")]
    Label {
        /// The member's label, or the start of its key, as `osiris nodes` prints them
        member: String,
        /// All its labels: KEY or KEY=VALUE
        #[arg(value_name = "LABEL", value_parser = parse_place_label)]
        labels: Vec<String>,
        #[command(flatten)]
        wait: Wait,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum RoleCommand {
    /// Give a member more roles
    #[command(after_help = "Examples:\n  osiris role grant laptop operator")]
    Grant(RoleArgs),
    /// Take roles from a member; it stays a member
    #[command(after_help = "Examples:\n  osiris role revoke laptop operator admin")]
    Revoke(RoleArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RoleArgs {
    /// The member's label, or the start of its key, as `osiris nodes` prints them
    pub(crate) member: String,
    /// The roles
    #[arg(required = true, value_name = "ROLE", value_enum)]
    pub(crate) roles: Vec<Role>,
    #[command(flatten)]
    pub(crate) wait: Wait,
}

#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    /// The member's label, the start of its key, or the whole key of a device that is no member.
    /// Default: this device
    #[arg(long, value_name = "KEY")]
    pub(crate) device: Option<String>,
    /// File with the recovery key. Default: it is asked for on the terminal
    #[arg(long, env = "OSIRIS_RECOVERY_FILE", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) recovery_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) wait: Wait,
}

fn parse_name(text: &str) -> Result<String, osiris_protocol::name::NameError> {
    osiris_protocol::name::check_function_name(text)?;
    Ok(text.to_owned())
}

fn parse_fleet_name(text: &str) -> Result<String, String> {
    osiris_protocol::name::check_fleet_name(text).map_err(|error| error.to_string())?;
    parse_label(text)
}

/// A name of a device, a fleet or a person.
pub(crate) fn parse_label(text: &str) -> Result<String, String> {
    if osiris_fleet::api::is_name(text) {
        return Ok(text.to_owned());
    }
    Err("a name has 1 to 64 bytes of printable text, without white space at its ends, and is no key"
        .to_owned())
}

fn parse_place_label(text: &str) -> Result<String, String> {
    if osiris_fleet::manifest::is_place_label(text) {
        return Ok(text.to_owned());
    }
    Err("a label is KEY or KEY=VALUE, of letters, digits, '.', '_' and '-', in at most 64 bytes".to_owned())
}

fn parse_note(text: &str) -> Result<String, String> {
    if text.is_empty() || osiris_fleet::api::is_label(text) {
        return Ok(text.to_owned());
    }
    Err("a note has at most 64 bytes of printable text".to_owned())
}

fn parse_hex(text: &str) -> Result<String, String> {
    let text = text.to_ascii_lowercase();
    let sound = (4..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    if sound { Ok(text) } else { Err("an id is 4 to 64 hexadecimal digits".to_owned()) }
}

fn parse_key(text: &str) -> Result<String, String> {
    match parse_hex(text) {
        Ok(key) if key.len() == 64 => Ok(key),
        _ => Err("a key is 64 hexadecimal digits; `osiris whoami` prints a device's, `osiris user key show` a user's".to_owned()),
    }
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    let wrong = || format!("`{text}` is no header; write 'name: value'");
    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
    let name = name.trim().to_ascii_lowercase();
    let value = value.trim().to_owned();
    let sound = http::HeaderName::try_from(&name).is_ok() && http::HeaderValue::try_from(&value).is_ok();
    if sound { Ok((name, value)) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        fn check(command: &clap::Command) {
            let leaf = command.get_subcommands().next().is_none();
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            // `invite ls` has nothing to show beyond its name.
            assert!(
                !leaf || command.get_name() == "ls" || help.contains("Examples:"),
                "{}",
                command.get_name()
            );
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn every_flag_that_configures_has_a_variable() {
        let command = Cli::command();
        let up = command.find_subcommand("up").expect("there is up");
        let env = |command: &clap::Command, id: &str| {
            let argument = command.get_arguments().find(|a| a.get_id() == id).expect("the argument is there");
            argument.get_env().map(|env| env.to_string_lossy().into_owned())
        };
        for (id, name) in [("data", "OSIRIS_DATA"), ("output", "OSIRIS_OUTPUT"), ("mesh", "OSIRIS_MESH")] {
            assert_eq!(env(&command, id).as_deref(), Some(name));
        }
        for (id, name) in
            [("http", "OSIRIS_HTTP"), ("advertise", "OSIRIS_ADVERTISE"), ("token_file", "OSIRIS_TOKEN_FILE")]
        {
            assert_eq!(env(up, id).as_deref(), Some(name));
        }
    }

    #[test]
    fn keys_ids_and_headers_are_checked() {
        assert!(parse_key(&"a".repeat(64)).is_ok());
        assert!(parse_key("abcd").is_err());
        assert!(parse_hex("xyzw").is_err());
        assert_eq!(parse_header("X-A:  b"), Ok(("x-a".to_owned(), "b".to_owned())));
        assert!(parse_header("nothing").is_err());
        assert!(parse_header("a b: c").is_err());
    }
}
