//! The command line of `osiris user`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, ValueHint};

use super::{Role, Wait, parse_key, parse_label};

/// The key of a person.
#[derive(Debug, Args)]
pub(crate) struct UserKey {
    /// File of the user's key, encrypted. Default: osiris/user.key in the XDG configuration folder
    #[arg(long = "key", env = "OSIRIS_USER_KEY", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,
    /// File whose first line is the key's passphrase. Default: what the system's keyring was told, else it is asked for
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Make a person known, by a new key or by the public half of one
    #[command(after_help = "\
Examples:
  osiris user add isis --roles node,operator     makes the key here, and asks for a passphrase
  osiris user add isis --roles node --public-key KEY    KEY is what `osiris user key show` prints there

It prints a ticket. With it and the key, each of the person's devices joins with these roles.")]
    Add(UserAddArgs),
    /// List the users
    Ls,
    /// Print a ticket to join with as a user; without the user's key it admits nobody
    #[command(after_help = "Examples:\n  osiris user ticket isis > isis.ticket")]
    Ticket {
        /// The user's name, or the start of its id
        user: String,
    },
    /// Change what a user's devices get that join from now on; those that joined keep what they have
    #[command(after_help = "\
Examples:
  osiris user roles isis node,operator
  osiris user roles isis --devices 10

Earlier tickets of the user admit no more. `osiris role revoke` takes roles from devices that joined.")]
    Roles {
        /// The user's name, or the start of its id
        user: String,
        /// The roles. Default: as before
        #[arg(value_name = "ROLE", value_enum, value_delimiter = ',')]
        roles: Vec<Role>,
        /// Devices that may join from now on. Default: as before
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000))]
        devices: Option<u32>,
        #[command(flatten)]
        wait: Wait,
    },
    /// End a user: the key admits no more, and what it gave to devices ends
    #[command(after_help = "\
Examples:
  osiris user revoke isis                 its devices belong to the fleet no more; what they wrote counts
  osiris user revoke isis --keep-devices  only the key ends
  osiris user revoke isis --discard       what they wrote by the user's roles is void, too

A device that was also admitted otherwise stays a member with what that gave it.")]
    Revoke {
        /// The user's name, or the start of its id
        user: String,
        /// Its devices keep what the user gave them
        #[arg(long, conflicts_with = "discard")]
        keep_devices: bool,
        /// Void all that its devices wrote by what the user gave them
        #[arg(long)]
        discard: bool,
        #[command(flatten)]
        wait: Wait,
    },
    /// A person's own key: make it, show its public half, change its passphrase
    #[command(subcommand)]
    Key(UserKeyCommand),
}

#[derive(Debug, Args)]
pub(crate) struct UserAddArgs {
    /// The person's name
    #[arg(value_parser = parse_label)]
    pub(crate) name: String,
    /// What the person's devices may write
    #[arg(long, value_name = "ROLE", value_enum, value_delimiter = ',', default_value = "node")]
    pub(crate) roles: Vec<Role>,
    /// Devices that the key may admit
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) devices: u32,
    /// Public half of a key that the person made, instead of a new key: what `osiris user key show` prints there
    #[arg(long, value_name = "KEY", value_parser = parse_key)]
    pub(crate) public_key: Option<String>,
    #[command(flatten)]
    pub(crate) key: UserKey,
    #[command(flatten)]
    pub(crate) wait: Wait,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserKeyCommand {
    /// Make a key in a file that a passphrase encrypts
    #[command(
        after_help = "Examples:\n  osiris user key new\n  osiris user key new --key /media/stick/isis.key"
    )]
    New(UserKey),
    /// Print the public half; it needs no passphrase
    #[command(
        after_help = "Examples:\n  osiris user add isis --public-key \"$(ssh laptop osiris user key show)\""
    )]
    Show {
        /// The key file. Default: osiris/user.key in the XDG configuration folder
        #[arg(long = "key", env = "OSIRIS_USER_KEY", value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: Option<PathBuf>,
    },
    /// Encrypt the key with another passphrase
    #[command(after_help = "Examples:\n  osiris user key passphrase")]
    Passphrase {
        #[command(flatten)]
        key: UserKey,
        /// File whose first line is the new passphrase. Default: it is asked for on the terminal
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        new_passphrase_file: Option<PathBuf>,
    },
    /// Keep the passphrase in the system's keyring, so that it is not asked for on this machine
    #[command(after_help = "\
Examples:
  osiris user key remember               the desktop's keyring where there is one, else the kernel's
  osiris user key remember --in kernel   in memory alone: gone with a restart

Either is open to all programs of this user while the session is. `osiris user key forget` takes it back.")]
    Remember {
        #[command(flatten)]
        key: UserKey,
        /// Which keyring. Default: the desktop's where there is one, else the kernel's
        #[arg(long = "in", value_name = "KEYRING", value_enum)]
        place: Option<KeyringPlace>,
    },
    /// Take the passphrase out of the system's keyring
    #[command(after_help = "Examples:\n  osiris user key forget")]
    Forget {
        /// The key file. Default: osiris/user.key in the XDG configuration folder
        #[arg(long = "key", env = "OSIRIS_USER_KEY", value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: Option<PathBuf>,
    },
}

/// A keyring of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeyringPlace {
    /// The desktop's, over the Secret Service interface; `secret-tool` has to be installed
    Desktop,
    /// The kernel's, for this user; it forgets at a restart
    Kernel,
}
