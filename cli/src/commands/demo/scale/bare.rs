//! What the same machine takes without a fleet that decides: Terraform by hand, with the same module.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::process::Command;

use super::super::fleet::Fleet;
use super::target::Target;
use crate::exit::Failure;

/// Longest run of Terraform.
const RUN: Duration = Duration::from_secs(120);

/// Makes a machine by hand, takes it away again, and says how long `init`, `apply`, start and join took together.
pub(super) async fn measure(fleet: &Fleet, terraform: &Path, target: &Target) -> Result<Duration, Failure> {
    let invited = fleet.osiris(&fleet.folder(1), &["invite", "--uses", "1"]).await?;
    let text = |key: &str| invited.get(key).and_then(Value::as_str).map(str::to_owned);
    let (Some(block), Some(ticket)) = (text("block"), text("ticket")) else {
        return Err(Failure::failed("`osiris invite` printed no ticket."));
    };
    let spawn = format!("bare-{}", block.get(..16).unwrap_or_default());
    let folder = fleet.root().join("bare");
    let text = json!({ "type": "string" });
    let mut variables = json!({ "spawn_id": text, "label": text, "osiris": text });
    let mut module = json!({
        "source": fleet.root().join("module"),
        "spawn_id": "${var.spawn_id}", "label": "${var.label}", "osiris": "${var.osiris}", "ticket": "${var.ticket}",
    });
    variables["ticket"] = json!({ "type": "string", "sensitive": true, "ephemeral": true, "default": null });
    for (name, value) in target.variables() {
        module[name] = json!(value);
    }
    let root = json!({
        "terraform": { "required_version": ">= 1.10" }, "variable": variables, "module": { "machine": module },
    });
    let written =
        fs::create_dir_all(&folder).and_then(|()| fs::write(folder.join("main.tf.json"), root.to_string()));
    written.map_err(|e| Failure::failed(format!("{} cannot be written: {e}.", folder.display())))?;
    let variables = [
        ("TF_VAR_spawn_id", OsString::from(&spawn)),
        ("TF_VAR_label", "bare".into()),
        ("TF_VAR_osiris", fleet.program().into()),
        ("TF_IN_AUTOMATION", "1".into()),
        ("CHECKPOINT_DISABLE", "1".into()),
    ];
    let run = async |arguments: &[&str], ticket: &str| {
        let mut command = Command::new(terraform);
        command.args(arguments).current_dir(&folder).env_clear().envs(variables.clone());
        for name in ["PATH", "HOME", "TMPDIR"] {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        if !ticket.is_empty() {
            command.env("TF_VAR_ticket", ticket);
        }
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(RUN, command.output()).await;
        let output = output.map_err(|_| Failure::timed_out("Terraform took too long."))?;
        let output = output.map_err(|e| Failure::failed(format!("Terraform cannot be run: {e}.")))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Failure::failed(format!("`terraform {}` failed: {:.600}", arguments.join(" "), said.trim())))
    };
    let began = Instant::now();
    run(&["init", "-input=false", "-no-color"], "").await?;
    run(&["apply", "-auto-approve", "-input=false", "-no-color"], &ticket).await?;
    let took = began.elapsed();
    run(&["destroy", "-auto-approve", "-input=false", "-no-color"], "").await?;
    Ok(took)
}

/// Terraform, or OpenTofu where that alone is here.
pub(super) fn terraform() -> Result<PathBuf, Failure> {
    let path = std::env::var_os("PATH");
    crate::config::find_program(&["terraform", "tofu"], path.as_deref()).ok_or_else(|| {
        Failure::failed("Neither terraform nor tofu is here, and this demo makes a machine by one of them.")
            .next("install Terraform 1.10 or OpenTofu 1.11, or later; `osiris demo` needs neither")
    })
}
