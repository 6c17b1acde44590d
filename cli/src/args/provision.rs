//! `osiris provision`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum, ValueHint};

use crate::output::human;

/// What is done about a machine that the fleet makes. Terraform modules run these; what varies goes by the
/// environment.
#[derive(Debug, Subcommand)]
pub(crate) enum ProvisionCommand {
    /// Make a machine: join the fleet with the ticket in OSIRIS_TICKET, run its node, wait until it serves
    #[command(after_help = "\
Examples:
  OSIRIS_TICKET=osiris… osiris provision up --spawn m0-1-0123456789abcdef --place /srv/machines

Run again for a machine that runs it does nothing. Where it fails, or is ended by SIGTERM, it undoes what it did.")]
    Up(UpArgs),
    /// Take a machine away: it leaves the fleet, ends, and its folder is removed
    #[command(after_help = "\
Examples:
  osiris provision down --spawn m0-1-0123456789abcdef --place /srv/machines

It touches only what carries the label osiris.spawn with this name. Where there is nothing it does nothing.")]
    Down(DownArgs),
    /// List the machines of a place by their labels
    #[command(after_help = "Examples:\n  osiris provision status --place /srv/machines -o json")]
    Status(PlaceArgs),
    /// Start a node of a fleet that a person makes: a container whose data stays in a volume of its name, or a process
    #[command(after_help = "\
Examples:
  osiris provision start --spawn home-0 --name home
  osiris provision start --spawn home-1 --founder home-0
  osiris provision start --spawn home-0 --target process --data /var/lib/osiris

Without --founder it founds a fleet, and prints the recovery key once; where its volume or folder holds a member it \
takes that up again. Run again for a container that runs it does nothing; a process is ended, its calls first, and \
started as this says. `osiris down` ends a process.")]
    Start(StartArgs),
    /// Stop such a node. It stays a member, and its data stays
    #[command(after_help = "Examples:\n  osiris provision stop --spawn home-1")]
    Stop(StopArgs),
    /// Print the hash by which this program is known on a host that it was copied to
    #[command(hide = true, after_help = "Examples:\n  osiris provision fingerprint")]
    Fingerprint,
}

/// Where machines are.
#[derive(Clone, Debug, Args)]
pub(crate) struct PlaceArgs {
    /// What they are made on
    #[arg(long, env = "OSIRIS_TARGET", value_name = "TARGET", value_enum, default_value = "process")]
    pub(crate) target: Target,
    /// For processes, here or by SSH: the folder in which each has a folder of its own
    #[arg(long, env = "OSIRIS_PLACE", value_name = "DIR", value_hint = ValueHint::DirPath, value_parser = parse_place)]
    pub(crate) place: Option<PathBuf>,
    /// For containers: the socket of Docker's API
    #[arg(long, env = "OSIRIS_DOCKER", value_name = "SOCKET", default_value = "/var/run/docker.sock", value_parser = parse_place)]
    pub(crate) docker: PathBuf,
    #[command(flatten)]
    pub(crate) ssh: SshArgs,
}

/// How a host is reached by the system's `ssh`. What is not given is as this user configured it.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "By SSH")]
pub(crate) struct SshArgs {
    /// The host: its name or address
    #[arg(id = "ssh_host", long = "ssh-host", env = "OSIRIS_SSH_HOST", value_name = "HOST", value_parser = parse_host)]
    pub(crate) host: Option<String>,
    /// Its port
    #[arg(id = "ssh_port", long = "ssh-port", env = "OSIRIS_SSH_PORT", value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    /// The user there, whose processes the machines are
    #[arg(id = "ssh_user", long = "ssh-user", env = "OSIRIS_SSH_USER", value_name = "NAME", value_parser = parse_user)]
    pub(crate) user: Option<String>,
    /// File with the key that this side shows, and no other
    #[arg(id = "ssh_identity", long = "ssh-identity", env = "OSIRIS_SSH_IDENTITY", value_name = "FILE", value_hint = ValueHint::FilePath, value_parser = parse_place)]
    pub(crate) identity: Option<PathBuf>,
    /// File with the keys of hosts, and no other
    #[arg(id = "ssh_known_hosts", long = "ssh-known-hosts", env = "OSIRIS_SSH_KNOWN_HOSTS", value_name = "FILE", value_hint = ValueHint::FilePath, value_parser = parse_place)]
    pub(crate) known_hosts: Option<PathBuf>,
    /// Take the key of a host that is not known yet, and remember it. Without it such a host is refused
    #[arg(id = "ssh_accept_new", long = "ssh-accept-new", env = "OSIRIS_SSH_ACCEPT_NEW")]
    pub(crate) accept_new: bool,
    /// How long a host may take to be reached, such as one that still boots
    #[arg(id = "ssh_wait", long = "ssh-wait", env = "OSIRIS_SSH_WAIT", value_name = "TIME", value_parser = human::parse_span)]
    pub(crate) wait: Option<Duration>,
    /// The program that is copied to the host. Default: this one
    #[arg(id = "ssh_binary", long = "ssh-binary", env = "OSIRIS_SSH_BINARY", value_name = "FILE", value_hint = ValueHint::FilePath, value_parser = parse_place)]
    pub(crate) binary: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) at: PlaceArgs,
    /// Name of the machine, which it carries as its label
    #[arg(long, env = "OSIRIS_SPAWN_ID", value_name = "ID", value_parser = parse_spawn)]
    pub(crate) spawn: String,
    /// What people call the device. Default: the name of the machine
    #[arg(long, env = "OSIRIS_LABEL", value_parser = super::parse_label)]
    pub(crate) label: Option<String>,
    /// Address or port for function calls over HTTP
    #[arg(long, env = "OSIRIS_HTTP", value_name = "ADDR", default_value = "127.0.0.1:0", value_parser = crate::config::parse_http)]
    pub(crate) http: std::net::SocketAddr,
    /// For containers: the image, whose entry is the osiris binary, and which has a folder /data of user 65532
    #[arg(long, env = "OSIRIS_IMAGE", value_name = "IMAGE", default_value = "osiris:latest", value_parser = parse_image)]
    pub(crate) image: String,
    /// For containers: the network
    #[arg(long, env = "OSIRIS_NETWORK", value_name = "NAME", default_value = "bridge", value_parser = parse_image)]
    pub(crate) network: String,
    /// Read the ticket from standard input, as a line; the end of standard input ends this, and undoes what it did
    #[arg(long)]
    pub(crate) ticket_stdin: bool,
    /// How long it may take
    #[arg(long, env = "OSIRIS_TIMEOUT", value_name = "TIME", default_value = "2m", value_parser = human::parse_span)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct DownArgs {
    #[command(flatten)]
    pub(crate) at: PlaceArgs,
    /// Name of the machine
    #[arg(long, env = "OSIRIS_SPAWN_ID", value_name = "ID", value_parser = parse_spawn)]
    pub(crate) spawn: String,
    /// How long it has to end, running calls included, before it is killed
    #[arg(long, env = "OSIRIS_TIMEOUT", value_name = "TIME", default_value = "30s", value_parser = human::parse_span)]
    pub(crate) timeout: Duration,
}

/// A node of a fleet that a person makes.
#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// What it is: a container, or a process on the folder that --data names
    #[arg(long, env = "OSIRIS_TARGET", value_name = "TARGET", value_enum, default_value = "docker")]
    pub(crate) target: LocalTarget,
    /// Name of the node, of its container and of its volume
    #[arg(long, env = "OSIRIS_SPAWN_ID", value_name = "ID", value_parser = parse_spawn)]
    pub(crate) spawn: String,
    /// For containers: the node that invites this one. Without it, this one founds the fleet
    #[arg(long, env = "OSIRIS_FOUNDER", value_name = "ID", value_parser = parse_spawn)]
    pub(crate) founder: Option<String>,
    /// What people call the fleet that it founds
    #[arg(long, env = "OSIRIS_NAME", default_value = "home", value_parser = super::parse_label)]
    pub(crate) name: String,
    /// What people call the device. Default: the name of the node
    #[arg(long, env = "OSIRIS_LABEL", value_parser = super::parse_label)]
    pub(crate) label: Option<String>,
    /// The image, whose entry is the osiris binary, and which has a folder /data of user 65532
    #[arg(long, env = "OSIRIS_IMAGE", value_name = "IMAGE", default_value = "osiris:latest", value_parser = parse_image)]
    pub(crate) image: String,
    /// For a process: address and port at which functions are called
    #[arg(long, env = "OSIRIS_HTTP", value_name = "ADDR", default_value = "127.0.0.1:7420", value_parser = crate::config::parse_http)]
    pub(crate) http: std::net::SocketAddr,
    /// For containers: address and port of this machine at which functions are called; it needs a token file
    #[arg(long, env = "OSIRIS_PUBLISH", value_name = "ADDR", value_parser = crate::config::parse_http, requires = "token_file")]
    pub(crate) publish: Option<std::net::SocketAddr>,
    /// File of this machine with the token that HTTP callers must present
    #[arg(long, env = "OSIRIS_TOKEN_FILE", value_name = "FILE", value_hint = ValueHint::FilePath, value_parser = parse_place)]
    pub(crate) token_file: Option<PathBuf>,
    /// For containers: address and UDP port in the container's network for other members
    #[arg(long, env = "OSIRIS_NODE_MESH", value_name = "ADDR", default_value = "0.0.0.0:7421", value_parser = crate::config::parse_mesh)]
    pub(crate) listen: std::net::SocketAddr,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    /// How long it may take
    #[arg(long, env = "OSIRIS_TIMEOUT", value_name = "TIME", default_value = "2m", value_parser = human::parse_span)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// Name of the node
    #[arg(long, env = "OSIRIS_SPAWN_ID", value_name = "ID", value_parser = parse_spawn)]
    pub(crate) spawn: String,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    /// How long it has to end, running calls included, before it is killed
    #[arg(long, env = "OSIRIS_TIMEOUT", value_name = "TIME", default_value = "30s", value_parser = human::parse_span)]
    pub(crate) timeout: Duration,
}

/// Docker, and the network that nodes of one fleet share.
#[derive(Debug, Args)]
pub(crate) struct NetworkArgs {
    /// The socket of Docker's API
    #[arg(long, env = "OSIRIS_DOCKER", value_name = "SOCKET", default_value = "/var/run/docker.sock", value_parser = parse_place)]
    pub(crate) docker: PathBuf,
    /// The network of the containers
    #[arg(long, env = "OSIRIS_NETWORK", value_name = "NAME", default_value = "bridge", value_parser = parse_image)]
    pub(crate) network: String,
    /// Make the network with these addresses where there is none, and remove it after the last container
    #[arg(long, env = "OSIRIS_SUBNET", value_name = "CIDR", value_parser = parse_subnet)]
    pub(crate) subnet: Option<String>,
    /// Address of the container in it, which then stays the same
    #[arg(long, env = "OSIRIS_ADDRESS", value_name = "IP")]
    pub(crate) address: Option<std::net::Ipv4Addr>,
}

/// What is started on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LocalTarget {
    /// A process of this machine.
    Process,
    /// A container of this machine's Docker.
    Docker,
}

/// What a machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// A process of this machine.
    Process,
    /// A container of this machine's Docker.
    Docker,
    /// A process of a host that is reached by SSH.
    Ssh,
}

fn parse_spawn(text: &str) -> Result<String, String> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let sound = (2..=63).contains(&text.len())
        && text.bytes().all(inner)
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && !text.ends_with('-');
    match sound {
        true => Ok(text.to_owned()),
        false => Err("a name has 2 to 63 characters of a-z, 0-9 and -, and starts with a letter".to_owned()),
    }
}

fn parse_place(text: &str) -> Result<PathBuf, String> {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"._/-".contains(&byte);
    let path = PathBuf::from(text);
    let up = path.components().any(|part| matches!(part, std::path::Component::ParentDir));
    match text.starts_with('/') && text.len() <= 200 && text.bytes().all(sound) && !up {
        true => Ok(path),
        false => {
            Err("a place is an absolute path of at most 200 letters, digits and . _ / -, without .."
                .to_owned())
        }
    }
}

pub(super) fn parse_image(text: &str) -> Result<String, String> {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"._/:@-".contains(&byte);
    match (1..=255).contains(&text.len()) && text.bytes().all(sound) && !text.starts_with(['-', '/']) {
        true => Ok(text.to_owned()),
        false => Err("it has 1 to 255 letters, digits and . _ / : @ -".to_owned()),
    }
}

fn parse_subnet(text: &str) -> Result<String, String> {
    let sound = text.split_once('/').is_some_and(|(address, bits)| {
        address.parse::<std::net::Ipv4Addr>().is_ok() && bits.parse::<u8>().is_ok_and(|bits| bits <= 30)
    });
    match sound {
        true => Ok(text.to_owned()),
        false => Err("a subnet is an IPv4 address and at most 30 bits, such as 10.20.0.0/24".to_owned()),
    }
}

/// It may not look like an option, nor hold what a shell or ssh reads as something else.
fn parse_host(text: &str) -> Result<String, String> {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b".:_-".contains(&byte);
    let starts = text.starts_with(|first: char| first.is_ascii_alphanumeric() || first == ':');
    match starts && text.len() <= 253 && text.bytes().all(sound) {
        true => Ok(text.to_owned()),
        false => Err("a host has 1 to 253 letters, digits and . : _ -, and starts with no - . _".to_owned()),
    }
}

fn parse_user(text: &str) -> Result<String, String> {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let starts = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    match starts && text.len() <= 32 && text.bytes().all(sound) {
        true => Ok(text.to_owned()),
        false => {
            Err("a user has 1 to 32 letters, digits and . _ -, and starts with a letter or _".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_in_paths_labels_and_requests_has_a_narrow_pattern() {
        for good in ["m0-1-0123456789abcdef", "first", "a1"] {
            assert!(parse_spawn(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "A1", "-a", "a-", "1a", "../x", "a b", "a;b", "$(id)", "a\n", &"a".repeat(64)] {
            assert!(parse_spawn(bad).is_err(), "{bad:?}");
        }
        assert!(parse_place("/srv/machines").is_ok());
        for bad in ["", "srv", "/srv/../etc", "/srv/$(id)", "/a b", "/a\n"] {
            assert!(parse_place(bad).is_err(), "{bad:?}");
        }
        assert!(parse_image("registry.example/osiris:0.1").is_ok());
        for bad in ["", "--privileged", "a b", "a?b"] {
            assert!(parse_image(bad).is_err(), "{bad:?}");
        }
        for good in ["host", "10.0.0.1", "::1", "2001:db8::1", "host.example"] {
            assert!(parse_host(good).is_ok(), "{good}");
        }
        for bad in ["", "-oProxyCommand=id", "a b", "a@b", "a;b", "[::1]", "a%b", "a/b", "a\n"] {
            assert!(parse_host(bad).is_err(), "{bad:?}");
        }
        assert!(parse_user("_osiris-1").is_ok());
        for bad in ["", "-l", "1a", "a b", "a@b", "a$"] {
            assert!(parse_user(bad).is_err(), "{bad:?}");
        }
    }
}
