//! Running the node, looking at it and stopping it.

use std::io;
use std::time::Instant;

use osiris_fleet::api::{Drained, Status};
use serde::Serialize;
use tracing_subscriber::EnvFilter;

use crate::args::{DownArgs, DrainArgs, LogFormat, StatusArgs, UpArgs, Wait};
use crate::backend::{self, Backend, NOTHING, driver};
use crate::client::{Client, Patience, QUICK};
use crate::config::{NodeSettings, Settings};
use crate::exit::{Exit, Failure};
use crate::output::table::{Cell, Tone};
use crate::output::{Format, Out, human, progress::Progress};
use crate::replica;

#[derive(Serialize)]
struct Addresses {
    http: String,
    socket: String,
    mesh: Vec<String>,
    device: String,
    fleet: String,
    data_dir: String,
    pid: u32,
}

/// `osiris up`.
pub(crate) async fn up(args: &UpArgs, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    if let Some(ticket) = &args.join
        && backend::has_to_join(&settings.data)
    {
        super::members::admit(ticket, settings.label(args.label.as_deref()), settings).await?;
    }
    backend::must_be_member(&settings.data)?;
    let node = settings.node(&args.node)?;
    start_log(&node, out)?;
    let provision = match settings.provision(|name| std::env::var_os(name))? {
        Some(Ok(provision)) => Some(provision),
        Some(Err(why)) => {
            out.warn(&why);
            None
        }
        None if node.machines > 0 => {
            out.warn("This node makes no machines: config.toml has no [provision].");
            None
        }
        None => None,
    };
    let options = driver::RunOptions {
        data: settings.data.clone(),
        socket: settings.socket.clone(),
        http: node.http,
        mesh: settings.mesh,
        advertise: node.advertise,
        token_file: node.token_file,
        gossip: true,
        machines: node.machines,
        retain: node.retain,
        provision,
        terms: settings.terms()?,
    };
    let data_dir = settings.data.display().to_string();
    driver::run(options, |addresses| {
        let addresses = Addresses {
            http: format!("http://{}", addresses.http),
            socket: addresses.socket.display().to_string(),
            mesh: addresses.mesh.iter().map(ToString::to_string).collect(),
            device: addresses.device.clone(),
            fleet: addresses.fleet.clone(),
            data_dir,
            pid: std::process::id(),
        };
        let told = match out.format {
            Format::Table => out.facts(&addresses, facts(&addresses)),
            _ => out.item(&addresses),
        };
        if let Err(error) = crate::notify::ready() {
            out.warn(&format!("systemd was not told that the node is ready: {error}"));
        }
        // Whoever started the node may have closed stdout; that is no reason to stop.
        if let Err(failure) = told {
            out.failure(&failure);
        }
    })
    .await?;
    Ok(Exit::Done)
}

fn facts(addresses: &Addresses) -> Vec<(&'static str, Cell)> {
    vec![
        ("http", Cell::new(&addresses.http)),
        ("mesh", Cell::new(human::list(&addresses.mesh))),
        ("socket", Cell::new(&addresses.socket)),
        ("device", Cell::new(human::short(&addresses.device))),
        ("fleet", Cell::new(human::short(&addresses.fleet))),
        ("data", Cell::new(&addresses.data_dir)),
    ]
}

/// The filter for a level or a filter as it was given. A level alone is about this program; what its
/// libraries say at `info` is of no use to people. Nor are the warnings of iroh's router and of gossip, up to
/// `debug`: that a stranger was refused or a member that restarts was dialled in vain is everyday life, and
/// the mesh sees to it.
fn log_filter(log: &str) -> String {
    let base = match log {
        "error" => "error",
        "warn" | "info" => "warn,iroh::protocol=error,iroh_gossip::net=error",
        "debug" | "trace" => "warn",
        other => return other.to_owned(),
    };
    let names = ["cli", "fleet", "mesh", "runtime", "ledger"];
    names.iter().fold(base.to_owned(), |filter, name| format!("{filter},osiris_{name}={log}"))
}

/// What goes to stderr while the node runs.
fn start_log(args: &NodeSettings, out: Out) -> Result<(), Failure> {
    let filter = EnvFilter::builder().parse(log_filter(&args.log)).map_err(|e| {
        Failure::usage(format!("The log filter `{}` cannot be used: {e}.", args.log))
            .next("give error, warn, info, debug or trace, or a filter such as osiris_mesh=debug")
    })?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match args.log_format {
        LogFormat::Json => log.json().init(),
        LogFormat::Text => log.with_target(false).with_ansi(out.color_messages).init(),
    }
    Ok(())
}

/// `osiris status`.
pub(crate) async fn status(args: &StatusArgs, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    if args.ready {
        let client = backend::node(settings).await?;
        let status: Status = client.get("/v1/status").await?;
        return Ok(if status.state == "serving" { Exit::Done } else { Exit::Failed });
    }
    let mut backend = Backend::open_to_show(settings).await?;
    let status = backend.status().await?;
    let others = status.members.saturating_sub(1);
    let unseen = match status.unseen {
        0 => Cell::new("none"),
        some => Cell::new(format!("{} not confirmed by another member", human::count(some, "block")))
            .tone(if others == 0 { Tone::Plain } else { Tone::Warning }),
    };
    let offline = backend.is_offline();
    let state =
        if offline { Cell::new("no node runs").tone(Tone::Warning) } else { Cell::state(&status.state) };
    let mut facts = vec![
        ("fleet", Cell::new(format!("{} ({})", status.fleet_name, human::short(&status.fleet)))),
        ("device", Cell::new(format!("{} ({})", status.label, human::short(&status.device)))),
        ("roles", Cell::new(human::list(&status.roles))),
        ("state", state),
        ("members", Cell::new(format!("{}, {} connected", status.members, status.connected))),
        ("functions", Cell::new(status.functions.to_string())),
        ("blocks", Cell::new(blocks(&status))),
        ("unseen", unseen),
        ("view", Cell::dim(human::short(&status.view))),
        ("data", Cell::new(&status.data_dir)),
    ];
    if !offline {
        facts.extend([
            ("calls", Cell::new(format!("{} running, {} waiting", status.in_flight, status.backlog))),
            ("retains", Cell::new(&status.retain)),
            ("http", Cell::new(&status.http)),
            ("mesh", Cell::new(human::list(&status.mesh))),
            ("up for", Cell::new(human::seconds(status.uptime_s))),
        ]);
    }
    facts.push(("version", Cell::new(&status.version)));
    facts.extend(status.problems.iter().map(|problem| ("problem", Cell::new(problem).tone(Tone::Bad))));
    out.facts(&status, facts)?;
    Ok(Exit::Done)
}

fn blocks(status: &Status) -> String {
    let mut blocks = status.blocks.to_string();
    if status.summaries > 0 {
        blocks.push_str(&format!(", {} of them summaries", status.summaries));
    }
    if status.early > 0 {
        blocks.push_str(&format!(", and {} that wait for others", status.early));
    }
    blocks
}

/// `osiris sync`.
pub(crate) async fn sync(wait: Wait, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    let mut backend = Backend::open_to_meet(settings, wait.timeout).await?;
    let status = backend.status().await?;
    if status.members == 0 && !status.problems.is_empty() {
        return Err(replica::no_member(&status));
    }
    let synced = backend.sync(wait.timeout).await?;
    let facts = vec![
        ("other members", Cell::new(synced.others.to_string())),
        ("connected", Cell::new(synced.connected.to_string())),
        ("agreed", Cell::new(synced.agreed.to_string())),
        ("unseen blocks", Cell::new(synced.unseen.to_string())),
    ];
    out.facts(&synced, facts)?;
    Ok(match (synced.others, synced.agreed, synced.unseen) {
        (0, ..) => {
            out.note("the fleet has no other member");
            Exit::Done
        }
        (_, _, unseen) if unseen > 0 => {
            out.note(&format!("{} recorded here, seen by 0 nodes", human::count(unseen, "block")));
            out.note("next: check that other members run, `osiris nodes` lists them; what is large takes a longer --timeout");
            Exit::Unseen
        }
        _ if !synced.void.is_empty() => return Err(replica::void(synced.void.len() as u64)),
        _ if synced.cut > 0 => {
            let cut = human::count(synced.cut, "file");
            out.note(&format!(
                "{cut} of what was deployed here are with no other member: no time, or no room there"
            ));
            out.note("next: `osiris sync --timeout 2m`, once a member has room, or `osiris up` while this device stays");
            Exit::Unseen
        }
        (_, 0, _) => {
            out.note(&format!("no other member could be reached within {}", human::span(wait.timeout)));
            out.note("next: check the network, and that other members run; `osiris nodes` lists them");
            Exit::TimedOut
        }
        _ => Exit::Done,
    })
}

/// `osiris drain`.
pub(crate) async fn drain(args: &DrainArgs, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    let client = backend::node(settings).await?;
    let progress = Progress::spinner("waiting until others serve, and for running calls");
    let drained: Drained = client
        .post("/v1/drain", &NOTHING, Patience::exactly(args.timeout).records("osiris status"))
        .await
        .map_err(|failure| match failure.exit {
            Exit::TimedOut => Failure::timed_out(format!(
                "The node has not ended its calls within {}. It may be draining from now on all the same.",
                human::span(args.timeout)
            ))
            .next("`osiris status` shows its state and its calls; `osiris drain` waits again, `osiris down` ends it"),
            _ => failure,
        })?;
    drop(progress);
    let stopped = human::count(drained.stopped, "function");
    out.line(&drained, &format!("drained: {stopped} no longer served here"))?;
    if !drained.left.is_empty() {
        out.warn(&format!(
            "Nobody else serves {} now: `osiris describe NAME` says why.",
            human::list(&drained.left)
        ));
    }
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Stopped {
    stopped: bool,
}

/// `osiris down`.
pub(crate) async fn down(args: &DownArgs, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    let Some(client) = Client::find(&settings.socket).await? else {
        backend::must_be_member(&settings.data)?;
        // What was asked for is so already.
        out.line(&Stopped { stopped: false }, "no node runs")?;
        return Ok(Exit::Done);
    };
    let until = Instant::now() + args.timeout;
    let progress = Progress::spinner("waiting for the node to end");
    let _: serde_json::Value =
        client.post("/v1/shutdown", &NOTHING, Patience::exactly(args.timeout.min(QUICK))).await?;
    if !backend::wait_for_release(&settings.data, until).await {
        return Err(Failure::timed_out(format!(
            "The node has not ended after {}; calls may be running.",
            human::span(args.timeout)
        ))
        .next("look at `osiris status`, or give it longer with --timeout"));
    }
    drop(progress);
    out.line(&Stopped { stopped: true }, "stopped")?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_hides_what_is_everyday_life_and_a_filter_is_taken_as_it_is() {
        for (log, quiet) in
            [("error", true), ("warn", true), ("info", true), ("debug", false), ("trace", false)]
        {
            let filter = log_filter(log);
            assert!(filter.contains(&format!("osiris_mesh={log}")), "{filter}");
            let hidden = filter.starts_with("error") || filter.contains("iroh_gossip::net=error");
            assert_eq!(hidden, quiet, "{filter}");
            assert!(EnvFilter::builder().parse(&filter).is_ok(), "{filter}");
        }
        assert_eq!(log_filter("iroh_gossip=warn"), "iroh_gossip=warn");
    }
}
