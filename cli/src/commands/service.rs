//! `osiris service install`: a systemd unit.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::args::{ServiceArgs, ServiceCommand};
use crate::config::{NodeSettings, Settings};
use crate::exit::{Exit, Failure};
use crate::output::{Format, Out};

/// There while systemd runs the machine (`sd_booted(3)`).
const BOOTED: &str = "/run/systemd/system";
const UNIT: &str = "osiris.service";

#[derive(Serialize)]
struct Unit {
    unit: PathBuf,
    text: String,
}

pub(crate) fn run(command: &ServiceCommand, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    let ServiceCommand::Install(args) = command;
    let program = std::env::current_exe()
        .map_err(|e| Failure::failed(format!("The path of this program is not known: {e}.")))?;
    let text = unit(&program, settings, &settings.node(&args.node)?, args)?;
    if args.print {
        match out.format {
            Format::Table => out.raw(text.as_bytes())?,
            _ => out.document(&Unit { unit: folder(args)?.join(UNIT), text })?,
        }
        return Ok(Exit::Done);
    }
    if !Path::new(BOOTED).exists() {
        return Err(Failure::failed("systemd does not run this machine, so no unit was written.").next(
            "`osiris service install --print` shows what to run; put `osiris up` under your own supervisor",
        ));
    }
    let folder = folder(args)?;
    let path = folder.join(UNIT);
    write(&folder, &path, &text)?;
    let line = format!("wrote {}", path.display());
    out.line(&Unit { unit: path, text }, &line)?;
    let user = if args.system { "" } else { "--user " };
    if !settings.data.join("journal").exists() {
        out.warn("the data folder belongs to no fleet yet; run `osiris init` or `osiris join TICKET` first");
    }
    out.note(&format!("next: systemctl {user}daemon-reload && systemctl {user}enable --now osiris"));
    if !args.system {
        out.note("      loginctl enable-linger keeps it running while you are logged out");
    }
    Ok(Exit::Done)
}

fn folder(args: &ServiceArgs) -> Result<PathBuf, Failure> {
    if args.system {
        return Ok(PathBuf::from("/etc/systemd/system"));
    }
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_CONFIG_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".config")))
        .map(|config| config.join("systemd/user"))
        .ok_or_else(|| {
            Failure::failed("There is no home folder for a unit of your own.").next("use --system")
        })
}

fn write(folder: &Path, path: &Path, text: &str) -> Result<(), Failure> {
    // Whole or not at all.
    let part = folder.join(".osiris.service.part");
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&part, text))
        .and_then(|()| fs::rename(&part, path))
        .map_err(|error| {
            let exit = match error.kind() {
                std::io::ErrorKind::PermissionDenied => Exit::Denied,
                _ => Exit::Failed,
            };
            Failure::new(exit, format!("The unit {} cannot be written: {error}.", path.display()))
                .next("run this with sudo, or without --system for a unit of your own")
        })
}

fn unit(
    program: &Path,
    settings: &Settings,
    node: &NodeSettings,
    args: &ServiceArgs,
) -> Result<String, Failure> {
    if args.system && !settings.socket.starts_with(&settings.data) {
        return Err(Failure::usage(
            "The data folder's path is too long for a socket in it, which a service needs.",
        )
        .next("give a --data DIR with a shorter path, such as /var/lib/osiris"));
    }
    let mut command =
        vec![program.display().to_string(), "--data".into(), settings.data.display().to_string()];
    if let Some(mesh) = settings.mesh {
        command.extend(["--mesh".into(), mesh.to_string()]);
    }
    command.extend(["up".into(), "--http".into(), node.http.to_string()]);
    for address in &node.advertise {
        command.extend(["--advertise".into(), address.to_string()]);
    }
    if let Some(file) = &node.token_file {
        command.extend(["--token-file".into(), file.display().to_string()]);
    }
    if node.retain != osiris_fleet::node::Retain::All {
        command.extend(["--retain".into(), node.retain.word().to_owned()]);
    }
    let command = command.iter().map(|word| quoted(word)).collect::<Result<Vec<_>, _>>()?.join(" ");
    let mut text = format!(
        "\
[Unit]
Description=Osiris node
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
# Ready when calls are taken; before that a long ledger is read, however long that takes.
Type=notify
TimeoutStartSec=infinity
ExecStart={command}
Restart=always
RestartSec=1
KillSignal=SIGTERM
TimeoutStopSec=90
LimitNOFILE=65536
UMask=0077
# Functions are compiled to machine code here, so MemoryDenyWriteExecute= must stay off.
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
"
    );
    if args.system {
        if let Some(user) = &args.run_as {
            let sound = user.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.$".contains(&b));
            if !sound || user.is_empty() {
                return Err(Failure::usage(format!("`{user}` is no user.")).next("give the name of one"));
            }
            // Writing to a String does not fail.
            let _ = writeln!(text, "User={user}");
        }
        // These need privileges that a user's own systemd does not always have.
        let data = quoted(&settings.data.display().to_string())?;
        let _ = write!(
            text,
            "\
CapabilityBoundingSet=
ProtectSystem=strict
ProtectHome=read-only
ReadWritePaths={data}
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_NETLINK AF_UNIX
RestrictNamespaces=yes
"
        );
    }
    let target = if args.system { "multi-user.target" } else { "default.target" };
    let _ = write!(text, "\n[Install]\nWantedBy={target}\n");
    Ok(text)
}

/// A word as systemd reads it back (`systemd.service(5)`, "Command lines").
fn quoted(word: &str) -> Result<String, Failure> {
    if word.chars().any(char::is_control) {
        return Err(Failure::usage(format!("{word:?} cannot stand in a unit."))
            .next("use a path without line breaks"));
    }
    let escaped = word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    let plain = escaped.chars().all(|c| c.is_ascii_alphanumeric() || "/._-:[]=@,".contains(c));
    Ok(if plain && !escaped.is_empty() { escaped } else { format!("\"{escaped}\"") })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::Folders;

    fn print(line: &[&str]) -> Result<String, Failure> {
        let line = ["osiris", "service", "install"].iter().chain(line);
        let cli = crate::args::Cli::try_parse_from(line).expect("the command line parses");
        let crate::args::Command::Service(ServiceCommand::Install(args)) = cli.command else {
            panic!("it is service install")
        };
        let folders = Folders { xdg_runtime: Some("/run/user/1".into()), ..Folders::default() };
        let settings = Settings::new(&cli.global, &folders)?;
        unit(Path::new("/usr/bin/osiris"), &settings, &settings.node(&args.node)?, &args)
    }

    #[test]
    fn a_unit_starts_the_same_node_again_and_stops_it_gently() {
        let text =
            print(&["--data", "/no such/a%b", "--http", "0", "--advertise", "10.0.0.1:5"]).expect("a unit");
        assert!(text.contains(
            "ExecStart=/usr/bin/osiris --data \"/no such/a%%b\" up --http 127.0.0.1:0 --advertise 10.0.0.1:5\n"
        ));
        for line in [
            "Type=notify\n",
            "TimeoutStartSec=infinity\n",
            "Restart=always\n",
            "KillSignal=SIGTERM\n",
            "WantedBy=default.target\n",
        ] {
            assert!(text.contains(line), "{line}");
        }
        assert!(!text.contains("ProtectSystem"));
    }

    #[test]
    fn a_unit_of_the_system_writes_to_its_folder_only() {
        let text = print(&["--system", "--run-as", "osiris", "--data", "/no/such"]).expect("a unit");
        for line in
            ["ProtectSystem=strict\n", "ReadWritePaths=/no/such\n", "User=osiris\n", "multi-user.target\n"]
        {
            assert!(text.contains(line), "{line}");
        }
        assert!(print(&["--system", "--run-as", "a b", "--data", "/no/such"]).is_err());
        assert!(print(&["--data", "/no/such\nExecStartPre=/bin/evil"]).is_err());
        let long = format!("/{}", "x".repeat(120));
        assert!(print(&["--system", "--data", &long]).is_err());
    }
}
