//! `osiris deploy`.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use osiris_fleet::api::{Deployed, NodeRow, Status};
use osiris_fleet::manifest::Manifest;
use osiris_runtime::limits::COMPONENT_BYTES_MAX;
use osiris_runtime::{InspectError, Inspection, World, inspect};
use serde::Serialize;

use super::seen;
use crate::args::{DeployArgs, Role};
use crate::backend::Backend;
use crate::client::Patience;
use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::input;
use crate::output::table::{Cell, Tone};
use crate::output::{Out, human};
use crate::project;

#[derive(Serialize)]
struct Plan<'a> {
    manifest: &'a Manifest,
    component: String,
    #[serde(flatten)]
    inspection: &'a Inspection,
    /// Labels of the members that may serve it, as far as roles, labels and drains say here.
    may_serve: Vec<&'a str>,
}

pub(crate) async fn run(args: &DeployArgs, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    let folder = std::env::current_dir().map_err(|e| {
        Failure::failed(format!("The current folder cannot be used: {e}.")).next("cd elsewhere")
    })?;
    let (path, manifest) = project::resolve(args, &folder)?;
    // What is read counts, too: a pipe may be slow.
    let patience = Patience::exactly(args.confirm.timeout);
    let component = read(&path, args.confirm.timeout)?;
    let inspection = inspect(&component).map_err(|error| {
        let next = match error {
            InspectError::Import { .. } => {
                "build it without that; `osiris deploy --dry-run` lists what a component imports"
            }
            _ => "build a component for wasm32-wasip2, and give that file",
        };
        Failure::failed(format!("{}: {error}", path.display())).next(next)
    })?;
    let mut backend = Backend::open_before(settings, patience).await?;
    if args.dry_run {
        may_deploy(&backend.status().await?)?;
        return plan(&manifest, &component, &inspection, &backend.nodes().await?, out);
    }
    let offline = backend.is_offline();
    let (timeout, wait) = (args.confirm.timeout, args.wait);
    let began = std::time::Instant::now();
    let (deployed, cut) = backend.deploy(component, manifest, timeout, wait).await?;
    let live = if deployed.live { Cell::state("live") } else { Cell::state("pending") };
    let facts = vec![
        ("function", Cell::new(format!("{}@{}", deployed.name, deployed.revision))),
        ("world", Cell::new(&deployed.world)),
        ("state", live),
        ("component", Cell::new(holders(&deployed))),
        ("block", Cell::dim(human::short(&deployed.written.block))),
    ];
    out.facts(&deployed, facts)?;
    let exit = seen(&deployed.written, offline, out);
    if cut {
        out.note(
            "no other member has the component: no time, or no room there; it is kept beside the ledger",
        );
        out.note("next: `osiris sync --timeout 2m` hands it on, or `osiris up` while this device stays");
        return Ok(Exit::Unseen);
    }
    if !offline && deployed.component_held_by == 0 && deployed.written.others > 0 {
        out.note("nobody else has its bytes ready yet: were this device lost now, so were the function");
    }
    if offline {
        out.note("no node runs here; the component is kept beside the ledger");
    } else if wait && !deployed.live && exit == Exit::Done {
        let waited =
            Duration::from_millis(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX) / 100 * 100);
        out.note(&format!("the revision is not live after {}", human::span(waited)));
        out.note(&format!("next: `osiris describe {}` says why", deployed.name));
        return Ok(Exit::TimedOut);
    }
    Ok(exit)
}

/// Where the component is. A block and its component travel apart, so both are counted.
fn holders(deployed: &Deployed) -> String {
    match (deployed.component_held_by, deployed.live, deployed.written.others) {
        (0, _, 0) => "on this device".to_owned(),
        (0, true, _) => "on this device, which serves it; no other node has it yet".to_owned(),
        (0, false, _) => "on this device; no other node has it yet".to_owned(),
        (others, ..) => format!("on this device, and on {}", human::count(others, "other node")),
    }
}

/// What the ledger would say of a deploy by this device.
fn may_deploy(status: &Status) -> Result<(), Failure> {
    if status.roles.iter().any(|role| role == Role::Operator.name()) {
        return Ok(());
    }
    let device = &status.device;
    Err(Failure::new(Exit::Denied, "This device does not have the role operator, which deploying needs.")
        .next(format!(
            "ask an admin to run `osiris role grant {device} operator`; who is no member joins first"
        )))
}

fn plan(
    manifest: &Manifest,
    component: &[u8],
    inspection: &Inspection,
    members: &[NodeRow],
    out: Out,
) -> Result<Exit, Failure> {
    let replicas = match &manifest.scale {
        Some(keys) => format!("{} to {}, by its calls", keys.min, keys.max),
        None => manifest.replicas.to_string(),
    };
    let serves =
        |row: &&NodeRow| row.state != "revoked" && row.roles.iter().any(|role| role == Role::Node.name());
    let nodes: Vec<_> = members.iter().filter(serves).collect();
    let may_serve = nodes.iter().filter(|row| !row.draining && manifest.place.fits(&row.labels));
    let may_serve: Vec<_> = may_serve.map(|row| row.label.as_str()).collect();
    let place = match may_serve.as_slice() {
        [] => "on no member as it is".to_owned(),
        able if able.len() == nodes.len() => {
            format!("on any of {}", human::count(nodes.len() as u64, "node"))
        }
        able => format!("on {} of {}", able.len(), human::count(nodes.len() as u64, "node")),
    };
    let nobody = may_serve.is_empty();
    let plan = Plan { manifest, component: blake3::hash(component).to_string(), inspection, may_serve };
    let facts = vec![
        ("function", Cell::new(&manifest.name)),
        ("world", Cell::new(world(inspection.world))),
        ("size", Cell::new(human::bytes(inspection.size))),
        ("replicas", Cell::new(replicas)),
        ("place", Cell::new(place)),
        ("component", Cell::dim(human::short(&plan.component))),
        ("imports", Cell::new(human::list(&inspection.imports)).tone(Tone::Dim)),
    ];
    out.facts(&plan, facts)?;
    if nobody {
        let labels = manifest.place.labels.join(" ");
        out.note(&match labels.as_str() {
            "" => "nobody may serve it: no member has the role node and does not drain".to_owned(),
            labels => format!("nobody may serve it: no node that does not drain bears {labels}"),
        });
        out.note("next: `osiris nodes` shows labels and who drains");
    }
    out.note("nothing was deployed (--dry-run)");
    Ok(Exit::Done)
}

fn world(world: World) -> &'static str {
    match world {
        World::Native => "native",
        World::Http => "http",
    }
}

/// The component's bytes, and not one more than is accepted.
fn read(path: &Path, within: Duration) -> Result<Vec<u8>, Failure> {
    let mut read = input::file(path, COMPONENT_BYTES_MAX + 1, within).map_err(|error| {
        let failure = Failure::unread("component", path, &error);
        match error.kind() {
            ErrorKind::TimedOut => failure,
            _ => failure.next("check the path; your build may write it elsewhere"),
        }
    })?;
    let bytes = std::mem::take(&mut *read);
    if bytes.len() as u64 > COMPONENT_BYTES_MAX {
        return Err(Failure::failed(format!(
            "The component {} is larger than {}, which is the most that is accepted.",
            path.display(),
            human::bytes(COMPONENT_BYTES_MAX)
        ))
        .next("build it in release mode and strip it"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use osiris_fleet::api::Written;

    use super::*;

    #[test]
    fn where_the_component_is_and_whether_it_is_served_is_one_sentence() {
        let said = |component_held_by, live, others| {
            let written = Written { block: String::new(), seen_by: 0, others };
            let (name, world) = (String::new(), String::new());
            holders(&Deployed { name, revision: 1, world, component_held_by, live, written })
        };
        assert_eq!(said(0, true, 0), "on this device");
        assert_eq!(said(0, true, 2), "on this device, which serves it; no other node has it yet");
        assert_eq!(said(0, false, 2), "on this device; no other node has it yet");
        assert_eq!(said(1, true, 2), "on this device, and on 1 other node");
    }
}
