//! The bench's child processes: this very program in one role each. A child gets its job as one line of
//! JSON on stdin and answers with one line of JSON on stdout.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use crate::args::BenchRole;
use crate::exit::{Exit, Failure};
use crate::output::Out;

use super::{echo, floor, load, pins};

/// Longest wait for a child beyond the time that its job takes.
const PATIENCE: Duration = Duration::from_secs(20);
/// Largest job or answer, bytes.
const LINE_BYTES_MAX: u64 = 4 << 20;
/// How much of what a child says on stderr is read, bytes.
const COMPLAINT_BYTES_MAX: u64 = 4 << 10;

/// A child process. It is killed when this is dropped, and a server ends by itself when its stdin does.
#[derive(Debug)]
pub(super) struct Role {
    name: &'static str,
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    stderr: ChildStderr,
}

fn name(role: BenchRole) -> &'static str {
    match role {
        BenchRole::Load => "load",
        BenchRole::Floor => "floor",
        BenchRole::Echo => "echo",
        BenchRole::Probe => "probe",
    }
}

impl Role {
    /// Starts a child, on these cores where some are named, and hands it its job.
    pub(super) async fn start<J: Serialize>(
        role: BenchRole,
        job: &J,
        cores: Option<&str>,
    ) -> Result<Self, Failure> {
        let name = name(role);
        let fail = |e: &dyn std::fmt::Display| Failure::failed(format!("The bench's {name} failed: {e}."));
        let program = std::env::current_exe().map_err(|e| fail(&e))?;
        let mut command = cores.map_or_else(|| Command::new(&program), |list| pins::on(list, &program));
        for (variable, _) in std::env::vars_os().filter(|(v, _)| v.to_string_lossy().starts_with("OSIRIS_")) {
            command.env_remove(variable);
        }
        command.args(["bench", "--role", name]).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| fail(&e))?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(fail(&"it has no pipes"));
        };
        let mut role = Self { name, child, stdin, stdout: BufReader::new(stdout), stderr };
        let mut line = serde_json::to_vec(job).map_err(|e| fail(&e))?;
        line.push(b'\n');
        role.stdin.write_all(&line).await.map_err(|e| fail(&e))?;
        Ok(role)
    }

    /// The process.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Reads its answer, which takes as long as its job and not much longer.
    pub(super) async fn answer<A: DeserializeOwned>(&mut self, job: Duration) -> Result<A, Failure> {
        let within = job + PATIENCE;
        let name = self.name;
        let read = async {
            let mut line = String::new();
            let mut limited = (&mut self.stdout).take(LINE_BYTES_MAX);
            limited.read_line(&mut line).await.map_err(|e| e.to_string())?;
            if !line.is_empty() {
                return serde_json::from_str(&line).map_err(|e| format!("it answered something else: {e}"));
            }
            let mut said = String::new();
            let _ = (&mut self.stderr).take(COMPLAINT_BYTES_MAX).read_to_string(&mut said).await;
            let said = said.trim().trim_start_matches("error:").trim().trim_end_matches('.');
            let status = self.child.wait().await.map_err(|e| e.to_string())?;
            Err(if said.is_empty() { ended(status) } else { said.to_owned() })
        };
        match tokio::time::timeout(within, read).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Failure::failed(format!("The bench's {name} failed: {error}."))),
            Err(_) => Err(Failure::timed_out(format!(
                "The bench's {name} did not answer within {} s.",
                within.as_secs()
            ))),
        }
    }
}

fn ended(status: ExitStatus) -> String {
    format!("it ended with {status}")
}

/// `osiris bench --role`: what a child does.
pub(super) async fn play(role: BenchRole, out: Out) -> Result<Exit, Failure> {
    let mut stdin = BufReader::new(tokio::io::stdin());
    let mut line = String::new();
    let read = (&mut stdin).take(LINE_BYTES_MAX).read_line(&mut line).await;
    read.map_err(|e| Failure::failed(format!("The job cannot be read: {e}.")))?;
    match role {
        BenchRole::Load => {
            let job: load::LoadJob = job(&line)?;
            let ran = tokio::task::spawn_blocking(move || load::run(&job)).await;
            let ran = ran.map_err(|e| Failure::failed(format!("The load generator broke: {e}.")))?;
            say(&ran.map_err(Failure::failed)?, out)?;
        }
        BenchRole::Probe => say(&echo::probe(job(&line)?).await.map_err(Failure::failed)?, out)?,
        BenchRole::Floor => {
            say(&floor::start(job(&line)?).await.map_err(Failure::failed)?, out)?;
            until_closed(stdin).await;
        }
        BenchRole::Echo => {
            say(&echo::start(job(&line)?).await.map_err(Failure::failed)?, out)?;
            until_closed(stdin).await;
        }
    }
    Ok(Exit::Done)
}

fn job<J: DeserializeOwned>(line: &str) -> Result<J, Failure> {
    serde_json::from_str(line).map_err(|e| {
        Failure::usage(format!("The job on stdin is not one of this role: {e}."))
            .next("run `osiris bench` without --role")
    })
}

fn say<A: Serialize>(answer: &A, out: Out) -> Result<(), Failure> {
    let mut line = serde_json::to_vec(answer).map_err(|e| Failure::failed(e.to_string()))?;
    line.push(b'\n');
    out.raw(&line)
}

/// Serves until the bench is gone, however it went.
async fn until_closed(mut stdin: BufReader<tokio::io::Stdin>) {
    let mut rest = [0; 64];
    while stdin.read(&mut rest).await.is_ok_and(|count| count > 0) {}
}
