//! One run of Terraform or OpenTofu: bounded in time and output, and ended as a group.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{Child, Command},
};
use tokio_util::sync::CancellationToken;

use crate::driver::limits::{OUTPUT_BYTES_MAX, OUTPUT_GRACE, PROVISION_GRACE};

/// What is run, and with what.
#[derive(Clone, Debug)]
pub(super) struct Run<'a> {
    pub(super) program: &'a Path,
    pub(super) folder: &'a Path,
    pub(super) arguments: &'a [&'a str],
    /// The whole environment; secrets are in it, and nowhere else.
    pub(super) environment: &'a [(OsString, OsString)],
    pub(super) timeout: Duration,
}

/// The last bytes of what a program wrote.
#[derive(Debug, Default)]
struct Tail(Vec<u8>);

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        // Twice the limit, so that not every read moves what is there.
        if self.0.len() > 2 * OUTPUT_BYTES_MAX {
            self.0.drain(..self.0.len() - OUTPUT_BYTES_MAX);
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

impl Run<'_> {
    /// Runs to the end and gives what was written to stdout; else why it failed, in a sentence.
    pub(super) async fn done(&self, stop: &CancellationToken) -> Result<String, String> {
        let name = self.program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let what = format!("{name} {}", self.arguments.first().copied().unwrap_or_default());
        let mut child = Command::new(self.program)
            .args(self.arguments)
            .current_dir(self.folder)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{what} cannot be started: {error}"))?;
        let (mut out, mut err) = (Tail::default(), Tail::default());
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let ended = {
            let work = async {
                let mut read =
                    std::pin::pin!(async { tokio::join!(drain(stdout, &mut out), drain(stderr, &mut err)) });
                tokio::select! {
                    status = child.wait() => {
                        // What it wrote is read, but whoever inherited its output may hold it open for longer
                        // than it lives.
                        let _ = tokio::time::timeout(OUTPUT_GRACE, read).await;
                        status
                    }
                    _ = &mut read => child.wait().await,
                }
            };
            tokio::select! {
                status = work => Some(status),
                () = tokio::time::sleep(self.timeout) => None,
                () = stop.cancelled() => None,
            }
        };
        match ended {
            Some(Ok(status)) if status.success() => Ok(out.text()),
            Some(Ok(status)) => Err(why(&what, status, &out.text(), &err.text())),
            Some(Err(error)) => Err(format!("{what} cannot be waited for: {error}")),
            None => {
                end(&mut child).await;
                match stop.is_cancelled() {
                    true => Err(format!("{what} was stopped, because this node stops")),
                    false => Err(format!("{what} took longer than {} s", self.timeout.as_secs())),
                }
            }
        }
    }
}

/// SIGTERM to all of it, so that what it runs can undo itself; then SIGKILL.
async fn end(child: &mut Child) {
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let Some(group) = group else { return };
    let _ = kill_process_group(group, Signal::TERM);
    if tokio::time::timeout(PROVISION_GRACE, child.wait()).await.is_err() {
        let _ = kill_process_group(group, Signal::KILL);
        let _ = child.wait().await;
    }
}

async fn drain(from: Option<impl AsyncRead + Unpin>, to: &mut Tail) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; 8 << 10];
    while let Ok(read) = from.read(&mut buffer).await {
        match buffer.get(..read) {
            None | Some([]) => return,
            Some(bytes) => to.push(bytes),
        }
    }
}

/// The errors of Terraform's `-json` lines; without any, the end of what it wrote.
fn why(what: &str, status: ExitStatus, out: &str, err: &str) -> String {
    let said: Vec<_> = out.lines().filter_map(diagnosis).collect();
    let said = match said.is_empty() {
        false => said.join("; "),
        true => {
            // Of its `-json` lines the message: one that was killed ends with whatever it was about to say.
            let last = err.trim().lines().next_back().or(out.trim().lines().next_back());
            last.map_or("it said nothing".to_owned(), |last| message(last).unwrap_or_else(|| last.to_owned()))
        }
    };
    let said: String = said.chars().take(SAID_CHARS_MAX).collect();
    format!("{what} failed ({status}): {}", said.trim_end_matches('.'))
}

/// Characters of an error that are told on.
const SAID_CHARS_MAX: usize = 600;

fn message(line: &str) -> Option<String> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    Some(line.get("@message")?.as_str()?.to_owned())
}

fn diagnosis(line: &str) -> Option<String> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let text = |value: &serde_json::Value, key: &str| {
        let text = value.get(key)?.as_str()?;
        Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    if line.get("@level")?.as_str()? != "error" {
        return None;
    }
    match line.get("diagnostic") {
        Some(said) => {
            let summary = text(said, "summary")?;
            let detail = text(said, "detail").filter(|detail| !detail.is_empty());
            Some(detail.map_or(summary.clone(), |detail| format!("{summary}: {detail}")))
        }
        None => text(&line, "@message"),
    }
}

/// The folder of one machine's runs.
pub(super) fn folder(place: &Path, id: &str) -> PathBuf {
    place.join(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shell(script: &str, timeout: Duration, stop: &CancellationToken) -> Result<String, String> {
        let arguments = ["-c", script];
        let environment = [(OsString::from("PATH"), std::env::var_os("PATH").unwrap_or_default())];
        let program = Path::new("/bin/sh");
        let folder = Path::new("/");
        Run { program, folder, arguments: &arguments, environment: &environment, timeout }.done(stop).await
    }

    const LONG: Duration = Duration::from_secs(120);

    #[tokio::test]
    async fn errors_are_those_of_the_json_lines_and_output_without_end_is_bounded() {
        let stop = CancellationToken::new();
        assert_eq!(shell("echo well", LONG, &stop).await, Ok("well\n".to_owned()));
        let script = r#"
            echo '{"@level":"info","@message":"Plan"}'
            printf '%s\n' '{"@level":"error","@message":"Error: x","diagnostic":{"summary":"no room","detail":"in the\n house."}}'
            exit 3"#;
        let error = shell(script, LONG, &stop).await.expect_err("it failed");
        assert!(error.ends_with("no room: in the house"), "{error}");
        let error = shell("echo first >&2; echo last >&2; exit 1", LONG, &stop).await.expect_err("it failed");
        assert!(error.ends_with("last"), "{error}");
        let killed = r#"echo '{"@level":"info","@message":"Creating..."}'; kill -9 $$"#;
        let error = shell(killed, LONG, &stop).await.expect_err("it failed");
        assert!(error.contains("signal: 9") && error.ends_with("): Creating"), "{error}");
        let much = shell("yes | head -c 3000000", LONG, &stop).await.expect("it ends");
        assert!(much.len() <= 2 * OUTPUT_BYTES_MAX, "{}", much.len());
        // What holds its output open does not keep it from having ended.
        assert_eq!(shell("sleep 100 & echo well", LONG, &stop).await.map(|_| ()), Ok(()));
    }

    #[tokio::test]
    async fn what_takes_too_long_or_is_not_wanted_any_more_is_ended_and_can_undo_itself() {
        let stop = CancellationToken::new();
        let folder = tempfile::tempdir().expect("a folder");
        let undone = folder.path().join("undone");
        let script = format!("trap 'touch {}; exit 1' TERM; sleep 100 & wait", undone.display());
        let error = shell(&script, Duration::from_millis(300), &stop).await.expect_err("too long");
        assert!(error.contains("took longer") && undone.exists(), "{error}");
        stop.cancel();
        let error = shell("sleep 100", LONG, &stop).await.expect_err("it was stopped");
        assert!(error.contains("this node stops"), "{error}");
    }
}
