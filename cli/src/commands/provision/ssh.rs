//! Machines on a host of one's own, by the system's `ssh`: it knows the user's keys, agents, jump hosts and host keys,
//! and is kept well by others.
//!
//! Nothing has to be installed on the host. This program is copied there, and what makes, lists and takes away machines
//! is its target `process`, run over there. The ticket goes by standard input, which stays open for as long as this
//! process lives: its end tells the other side to undo what it began.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStdin, Command};

use super::{DRAIN_WITHIN, HEARD_WITHIN, KILL_WITHIN, LEAVE_WITHIN, LOCK_PATIENCE, Row, TICKET, process};
use crate::args::{PlaceArgs, ProvisionUpArgs, SshArgs};
use crate::exit::{Exit, Failure};

/// Folder in the place with the program. No machine's name starts so.
const PROGRAMS: &str = ".bin";
/// Longest wait for a connection, and for a sign of life of one.
const CONNECT_S: u64 = 15;
const SILENT_S: u64 = 10;
/// Pause before a host that does not answer yet is asked again.
const AGAIN: Duration = Duration::from_secs(2);
/// Longest wait for an answer that needs no work.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// Longest wait for the program to be copied.
const COPY_WITHIN: Duration = Duration::from_secs(10 * 60);
/// Largest program that is copied, bytes.
const PROGRAM_BYTES_MAX: u64 = 1 << 30;
/// Most of what the other side writes that is read, bytes; all else is thrown away.
const OUT_BYTES_MAX: u64 = 1 << 20;
const ERR_BYTES_MAX: u64 = 64 << 10;
/// What `ssh` exits with where it failed itself.
const SSH_FAILED: i32 = 255;

/// What goes to the other side's standard input.
enum Given<'a> {
    Nothing,
    /// A line, after which it stays open.
    Line(&'a str),
    File(&'a Path),
}

struct Host<'a> {
    args: &'a SshArgs,
    name: &'a str,
    place: PathBuf,
}

impl<'a> Host<'a> {
    fn new(args: &'a PlaceArgs) -> Result<Self, Failure> {
        let name = args.ssh.host.as_deref().ok_or_else(|| {
            Failure::usage("Machines by SSH need a host.")
                .next("give --ssh-host HOST, or set OSIRIS_SSH_HOST")
        })?;
        Ok(Self { args: &args.ssh, name, place: process::folder(args)? })
    }

    fn program(&self) -> String {
        format!("{}/{PROGRAMS}/osiris", self.place.display())
    }

    /// The words before the command. What this user configured for SSH applies, where it weakens nothing.
    fn options(&self) -> Vec<String> {
        let checking = if self.args.accept_new { "accept-new" } else { "yes" };
        let mut words = vec!["-T".to_owned()];
        for option in [
            "BatchMode=yes".to_owned(),
            format!("StrictHostKeyChecking={checking}"),
            format!("ConnectTimeout={CONNECT_S}"),
            format!("ServerAliveInterval={SILENT_S}"),
            "ServerAliveCountMax=3".to_owned(),
            "ClearAllForwardings=yes".to_owned(),
            "ForwardAgent=no".to_owned(),
            "ForwardX11=no".to_owned(),
            "PermitLocalCommand=no".to_owned(),
            // A connection that is shared outlives this process, and so would what waits for its end.
            "ControlPath=none".to_owned(),
        ] {
            words.extend(["-o".to_owned(), option]);
        }
        if let Some(port) = self.args.port {
            words.extend(["-p".to_owned(), port.to_string()]);
        }
        if let Some(user) = &self.args.user {
            words.extend(["-l".to_owned(), user.clone()]);
        }
        if let Some(identity) = &self.args.identity {
            let identity = identity.display().to_string();
            words.extend(["-i".to_owned(), identity, "-o".to_owned(), "IdentitiesOnly=yes".to_owned()]);
        }
        if let Some(known) = &self.args.known_hosts {
            words.extend(["-o".to_owned(), format!("UserKnownHostsFile={}", known.display())]);
            words.extend(["-o".to_owned(), "GlobalKnownHostsFile=/dev/null".to_owned()]);
        }
        words.extend(["--".to_owned(), self.name.to_owned()]);
        words
    }

    /// Runs a script of the POSIX shell there, whatever the user's own shell is.
    async fn run(
        &self,
        script: &str,
        given: Given<'_>,
        within: Duration,
    ) -> Result<(ExitStatus, String, String), Failure> {
        let mut command = Command::new("ssh");
        command.args(self.options()).arg(format!("exec sh -c {}", quoted(script)));
        // Someone's configuration may send variables.
        command.env_remove(TICKET).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| {
            Failure::failed(format!("The program ssh cannot be started: {error}."))
                .next("install OpenSSH's client, and see that it is in PATH")
        })?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let work = async {
            let (kept, out, err) =
                tokio::join!(give(stdin, given), read(stdout, OUT_BYTES_MAX), read(stderr, ERR_BYTES_MAX));
            drop(kept);
            child.wait().await.map(|status| (status, out, err))
        };
        let late = || Failure::timed_out(format!("{} takes too long to answer.", self.name));
        let ended = tokio::time::timeout(within, work).await.map_err(|_| late())?;
        let (status, out, err) =
            ended.map_err(|error| Failure::failed(format!("ssh cannot be waited for: {error}.")))?;
        match status.code() {
            Some(SSH_FAILED) | None => {
                let last = err.trim().lines().next_back().unwrap_or("it does not say why").trim();
                Err(Failure::failed(format!(
                    "{} cannot be reached by ssh: {}.",
                    self.name,
                    last.trim_end_matches('.')
                ))
                .next(
                    "check host, port, user and key, and that the host's key is in the file of known hosts",
                ))
            }
            Some(_) => Ok((status, out, err)),
        }
    }

    /// Runs a script that has to succeed, and gives what it wrote.
    async fn done(&self, script: &str, given: Given<'_>, within: Duration) -> Result<String, Failure> {
        let (status, out, err) = self.run(script, given, within).await?;
        match status.success() {
            true => Ok(out),
            false => Err(failure(self.name, status.code(), &err)),
        }
    }

    /// Waits until the host takes this side's key.
    async fn reached(&self, within: Duration) -> Result<(), Failure> {
        let until = Instant::now() + within;
        loop {
            match self.run("exit 0", Given::Nothing, ANSWER_WITHIN).await {
                Err(_) if Instant::now() + AGAIN < until => tokio::time::sleep(AGAIN).await,
                done => return done.map(|_| ()),
            }
        }
    }

    /// Sees to it that the program is there, and is this one.
    async fn equip(&self) -> Result<(), Failure> {
        let file = match &self.args.binary {
            Some(path) => path.clone(),
            None => super::this_program()?,
        };
        let wanted = super::fingerprint(&file)?;
        let program = self.program();
        let (status, said, _) = self
            .run(&format!("{} provision fingerprint", quoted(&program)), Given::Nothing, ANSWER_WITHIN)
            .await?;
        if status.success() && said.trim() == wanted {
            return Ok(());
        }
        let folder = format!("{}/{PROGRAMS}", self.place.display());
        self.done(&copying(&folder, &wanted), Given::File(&file), COPY_WITHIN).await.map(|_| ())
    }

    /// `osiris provision` over there.
    async fn provision(&self, ask: Ask<'_>) -> Result<String, Failure> {
        if let Some(within) = self.args.wait {
            self.reached(within).await?;
        }
        self.equip().await?;
        let place = self.place.display().to_string();
        // No configuration of that user's own node applies.
        let mut words = vec!["exec".to_owned(), "env".to_owned()];
        words.push(format!("OSIRIS_DATA={place}/{PROGRAMS}"));
        words.extend(ask.mesh.map(|mesh| format!("OSIRIS_MESH={mesh}")));
        words.extend([self.program(), "provision".to_owned(), ask.what.to_owned()]);
        let mut flag = |name: &str, value: String| words.extend([name.to_owned(), value]);
        flag("--target", "process".to_owned());
        flag("--output", "json".to_owned());
        flag("--place", place);
        for (name, value) in ask.flags {
            flag(name, value);
        }
        if matches!(ask.given, Given::Line(_)) {
            words.push("--ticket-stdin".to_owned());
        }
        let script = words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
        self.done(&script, ask.given, ask.within).await
    }
}

struct Ask<'a> {
    what: &'a str,
    flags: Vec<(&'a str, String)>,
    mesh: Option<SocketAddr>,
    given: Given<'a>,
    within: Duration,
}

/// The script that takes the program from standard input. It has its name only once it is whole and runs.
fn copying(folder: &str, fingerprint: &str) -> String {
    let folder = quoted(folder);
    format!(
        r#"umask 077
mkdir -p {folder} && cd {folder} || exit 1
find . -name 'osiris.part-*' -mmin +60 -exec rm -f {{}} +
part=./osiris.part-$$
trap 'rm -f "$part"' EXIT
trap 'exit 1' HUP INT TERM PIPE
cat >"$part" && chmod 700 "$part" || exit 1
said=$("$part" provision fingerprint) || {{
    echo 'error: The program does not run there: name a static one for that machine.' >&2
    exit 1
}}
test "$said" = {fingerprint} || {{
    echo 'error: The program did not arrive as it was sent.' >&2
    exit 1
}}
mv -f "$part" ./osiris"#
    )
}

/// A word of a POSIX shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Gives the other side what it is to read, and the open end where it stays open.
async fn give(stdin: Option<ChildStdin>, given: Given<'_>) -> Option<ChildStdin> {
    let mut stdin = stdin?;
    // One that ended reads no more, and says why by other means.
    match given {
        Given::Nothing => None,
        Given::Line(line) => {
            let _ = stdin.write_all(format!("{line}\n").as_bytes()).await;
            let _ = stdin.flush().await;
            Some(stdin)
        }
        Given::File(path) => {
            let file = tokio::fs::File::open(path).await.ok()?;
            let _ = tokio::io::copy(&mut file.take(PROGRAM_BYTES_MAX), &mut stdin).await;
            None
        }
    }
}

/// Reads to the end, and keeps the beginning.
async fn read(from: Option<impl AsyncRead + Unpin>, max: u64) -> String {
    let Some(mut from) = from else { return String::new() };
    let mut kept = Vec::new();
    let _ = (&mut from).take(max).read_to_end(&mut kept).await;
    let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&kept).into_owned()
}

/// What the other side said, as a failure of this one.
fn failure(host: &str, code: Option<i32>, err: &str) -> Failure {
    let said = |what: &str| err.lines().rev().find_map(|line| line.strip_prefix(what)).map(str::trim);
    let message = said("error:").or_else(|| err.lines().rev().find(|line| !line.trim().is_empty()));
    let message = format!("{host}: {}", message.unwrap_or("it failed, and does not say why."));
    let exits = [Exit::Usage, Exit::NotFound, Exit::Denied, Exit::Unseen, Exit::TimedOut];
    let exit = exits.into_iter().find(|exit| Some(*exit as i32) == code).unwrap_or(Exit::Failed);
    Failure { next: said("next:").map(str::to_owned), ..Failure::new(exit, message) }
}

#[derive(Deserialize)]
struct Said {
    changed: bool,
    id: String,
}

fn said(host: &Host<'_>, text: &str) -> Result<Said, Failure> {
    serde_json::from_str(text).map_err(|error| odd(host, &error))
}

fn odd(host: &Host<'_>, error: &serde_json::Error) -> Failure {
    Failure::failed(format!("What {} says cannot be read: {error}.", host.name))
        .next("see that the user's shell writes nothing by itself where it runs a command")
}

pub(super) async fn up(
    args: &ProvisionUpArgs,
    ticket: &str,
    mesh: Option<SocketAddr>,
) -> Result<(String, bool), Failure> {
    let host = Host::new(&args.at)?;
    let label = args.label.clone().unwrap_or_else(|| args.spawn.clone());
    let ask = Ask {
        what: "up",
        flags: vec![
            ("--spawn", args.spawn.clone()),
            ("--label", label),
            ("--http", args.http.to_string()),
            ("--timeout", span(args.timeout)),
        ],
        mesh,
        given: Given::Line(ticket.trim()),
        // It undoes what it did after its time; this side's is over first, and waits for that.
        within: args.timeout + ANSWER_WITHIN,
    };
    let said = said(&host, &host.provision(ask).await?)?;
    Ok((said.id, said.changed))
}

pub(super) async fn down(args: &PlaceArgs, spawn: &str, patience: Duration) -> Result<bool, Failure> {
    let host = Host::new(args)?;
    let ask = Ask {
        what: "down",
        flags: vec![("--spawn", spawn.to_owned()), ("--timeout", span(patience))],
        mesh: None,
        given: Given::Nothing,
        within: LOCK_PATIENCE
            + DRAIN_WITHIN
            + 2 * HEARD_WITHIN
            + LEAVE_WITHIN
            + patience
            + KILL_WITHIN
            + ANSWER_WITHIN,
    };
    Ok(said(&host, &host.provision(ask).await?)?.changed)
}

fn span(time: Duration) -> String {
    format!("{}ms", time.as_millis())
}

#[derive(Deserialize)]
struct Listed {
    spawn: String,
    state: String,
    id: String,
    place: String,
}

pub(super) async fn rows(args: &PlaceArgs) -> Result<Vec<Row>, Failure> {
    let host = Host::new(args)?;
    let ask =
        Ask { what: "status", flags: Vec::new(), mesh: None, given: Given::Nothing, within: ANSWER_WITHIN };
    let listed: Vec<Listed> =
        serde_json::from_str(&host.provision(ask).await?).map_err(|error| odd(&host, &error))?;
    let row = |row: Listed| Row {
        spawn: row.spawn,
        state: if row.state == "running" { "running" } else { "stopped" },
        id: row.id,
        place: format!("{}:{}", host.name, row.place),
    };
    Ok(listed.into_iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_comes_out_of_a_shell_as_it_went_in() {
        for word in ["m0-1", "a b", "it's", "$(id)", "`id`", "a;b", "\\", "\"", "'", "''", "*", "-n"] {
            let inner = format!("printf %s {}", quoted(word));
            let script = format!("exec sh -c {}", quoted(&inner));
            let said = std::process::Command::new("sh").arg("-c").arg(script).output().expect("a shell");
            assert_eq!(String::from_utf8_lossy(&said.stdout), word);
        }
    }

    #[test]
    fn what_the_other_side_says_keeps_its_code_and_its_next_step() {
        let denied = failure("host", Some(4), "warning: x\nerror: It is left alone.\nnext: see what it is\n");
        assert_eq!((denied.exit, denied.message.as_str()), (Exit::Denied, "host: It is left alone."));
        assert_eq!(denied.next.as_deref(), Some("see what it is"));
        let odd = failure("host", Some(127), "sh: 1: not found\n");
        assert_eq!((odd.exit, odd.message.as_str()), (Exit::Failed, "host: sh: 1: not found"));
        assert_eq!(failure("host", Some(0), "").exit, Exit::Failed);
    }

    #[test]
    fn a_program_that_is_cut_short_gets_no_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let bin = folder.path().join("bin");
        let copy = |program: &str, fingerprint: &str| {
            let file = folder.path().join("program");
            std::fs::write(&file, program).expect("written");
            let script = copying(&bin.display().to_string(), fingerprint);
            let input = std::fs::File::open(&file).expect("a file");
            let said = std::process::Command::new("sh").arg("-c").arg(script).stdin(input).output();
            let said = said.expect("a shell");
            let err = String::from_utf8_lossy(&said.stderr).into_owned();
            let names =
                std::fs::read_dir(&bin).expect("a folder").map(|entry| entry.expect("one").file_name());
            (said.status.success(), err, names.collect::<Vec<_>>())
        };
        let (done, err, names) = copy("#!/bin/sh\necho other\n", "abc");
        assert!(!done && err.contains("as it was sent") && names.is_empty(), "{err} {names:?}");
        let (done, err, names) = copy("#!/bin/sh\nexit 1\n", "abc");
        assert!(!done && err.contains("does not run there") && names.is_empty(), "{err} {names:?}");
        let (done, err, names) = copy("#!/bin/sh\necho abc\n", "abc");
        assert!(done && names == ["osiris"], "{err} {names:?}");
    }
}
