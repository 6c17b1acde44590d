//! `osiris ls`, `describe` and `remove`.

use osiris_fleet::api::{BacklogRow, Bounds, FunctionDetail, FunctionRow};
use osiris_fleet::manifest::Replicas;

use super::seen;
use crate::args::{BacklogArgs, RemoveArgs};
use crate::backend::{self, Backend};
use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::output::table::{self, Cell, Tone};
use crate::output::{Format, Out, human};

/// `osiris ls`.
pub(crate) async fn ls(settings: &Settings, out: Out) -> Result<Exit, Failure> {
    let rows = Backend::open_to_read(settings).await?.functions().await?;
    let headers = ["NAME", "STATE", "WORLD", "REVISION", "NODES", "RUNNING", "WAITING", "DONE", "FAILED"];
    out.rows(&rows, &headers, "no functions; `osiris deploy` deploys one", |row| {
        vec![
            Cell::new(&row.name),
            Cell::state(&row.state),
            Cell::new(&row.world),
            Cell::right(revision(row)),
            serving(row),
            Cell::right(row.in_flight),
            Cell::right(row.backlog),
            Cell::right(row.done),
            match row.failed {
                0 => Cell::right(0),
                failed => Cell::right(failed).tone(Tone::Warning),
            },
        ]
    })?;
    Ok(Exit::Done)
}

/// `osiris backlog`.
pub(crate) async fn backlog(args: &BacklogArgs, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    let rows: Vec<BacklogRow> = backend::node(settings).await?.get("/v1/backlog").await?;
    let none = "no function was called yet on any member";
    let failed = |failed| match failed {
        0 => Cell::right(0),
        failed => Cell::right(failed).tone(Tone::Warning),
    };
    if !args.nodes || out.format != Format::Table {
        let headers = ["NAME", "WAITING", "RUNNING", "DONE", "FAILED", "NODES", "NOT HEARD OF", "AGE"];
        out.rows(&rows, &headers, none, |row| {
            vec![
                Cell::new(&row.name),
                Cell::right(row.backlog),
                Cell::right(row.in_flight),
                Cell::right(row.done),
                failed(row.failed),
                Cell::right(row.nodes.len()),
                match row.silent {
                    0 => Cell::right(0),
                    silent => Cell::right(silent).tone(Tone::Warning),
                },
                Cell::right(age(row).map_or_else(|| "-".to_owned(), |ms| human::seconds(ms / 1_000))),
            ]
        })?;
        return Ok(Exit::Done);
    }
    let rows: Vec<_> =
        rows.iter().flat_map(|row| row.nodes.iter().map(move |node| (&row.name, node))).collect();
    let headers = ["NAME", "NODE", "WAITING", "RUNNING", "DONE", "FAILED", "AGE"];
    let cells = rows.iter().map(|(name, node)| {
        vec![
            Cell::new(name),
            Cell::new(&node.node),
            Cell::right(node.backlog),
            Cell::right(node.in_flight),
            Cell::right(node.done),
            failed(node.failed),
            Cell::right(human::seconds(node.age_ms / 1_000)),
        ]
    });
    match rows.is_empty() {
        true => out.note(none),
        false => out.raw(table::render(&headers, cells.collect(), out).as_bytes())?,
    }
    Ok(Exit::Done)
}

/// How old the oldest part of a sum is, in milliseconds: of a member that was not heard of lately, nothing but what
/// ended is in it.
fn age(row: &BacklogRow) -> Option<u64> {
    row.nodes.iter().map(|node| node.age_ms).max()
}

/// `3`, `3 (4 pending)`, and `*` where revisions were deployed side by side.
fn revision(row: &FunctionRow) -> String {
    let mark = if row.concurrent { "*" } else { "" };
    match (row.revision, row.newest) {
        (0, newest) if row.state == "idle" => format!("{newest}{mark}"),
        (0, newest) => format!("-{mark} ({newest} pending)"),
        (live, newest) if live < newest => format!("{live}{mark} ({newest} pending)"),
        (live, _) => format!("{live}{mark}"),
    }
}

/// `3`, and `3 (1 lost)` where one of the three does not answer.
fn serving(row: &FunctionRow) -> Cell {
    match row.lost {
        0 => Cell::right(row.served_by),
        lost => Cell::right(format!("{} ({lost} lost)", row.served_by)).tone(Tone::Warning),
    }
}

/// `osiris describe`.
pub(crate) async fn describe(name: &str, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    let detail = Backend::open_to_read(settings).await?.function(name).await?;
    if out.format != Format::Table {
        out.document(&detail)?;
        return Ok(Exit::Done);
    }
    out.raw(table::facts(facts(&detail), out).as_bytes())?;
    let rows = detail.revisions.iter().map(|row| {
        let mark = if row.concurrent { "*" } else { "" };
        vec![
            Cell::right(format!("{}{mark}", row.number)),
            Cell::state(&row.state),
            Cell::dim(human::short(&row.component)),
            Cell::right(human::bytes(row.size)),
            Cell::new(&row.by),
            Cell::new(human::date(row.wall_ms)),
            Cell::new(human::list(&row.serving)),
        ]
    });
    let headers = ["REVISION", "STATE", "COMPONENT", "SIZE", "BY", "WHEN", "SERVING"];
    out.raw(format!("\n{}", table::render(&headers, rows.collect(), out)).as_bytes())?;
    if detail.revisions.iter().any(|row| row.concurrent) {
        out.note("* deployed by devices that did not know of each other; the newest is the same everywhere");
    }
    Ok(Exit::Done)
}

fn facts(detail: &FunctionDetail) -> Vec<(&'static str, Cell)> {
    let row = &detail.function;
    let mut facts = vec![
        ("function", Cell::new(&row.name)),
        ("state", Cell::state(&row.state)),
        ("world", Cell::new(&row.world)),
        ("revision", Cell::new(revision(row))),
        ("served by", serving(row)),
        ("calls", Cell::new(format!("{} running, {} waiting here", row.in_flight, row.backlog))),
        ("since start", Cell::new(format!("{} done, {} failed here", row.done, row.failed))),
    ];
    if let Some(manifest) = &detail.manifest {
        let limit = |value: Option<u64>, unit: &str| match value {
            Some(value) => Cell::new(format!("{value}{unit}")),
            None => Cell::dim("default"),
        };
        let limits = &manifest.limits;
        facts.extend([
            ("replicas", replicas(manifest.replicas, detail.bounds)),
            ("memory", limit(limits.memory_mib, " MiB")),
            ("timeout", limit(limits.timeout_ms, " ms")),
            ("concurrency", limit(limits.concurrency.map(u64::from), "")),
            ("queue", limit(limits.queue.map(u64::from), "")),
        ]);
        if let Some(version) = &manifest.version {
            facts.insert(1, ("version", Cell::new(version)));
        }
    }
    if let Some(problem) = &detail.problem {
        facts.push(("problem", Cell::new(problem).tone(Tone::Bad)));
    }
    facts
}

/// How many replicas a function has, or between how many it is.
fn replicas(fixed: Replicas, bounds: Option<Bounds>) -> Cell {
    Cell::new(match bounds {
        None => fixed.to_string(),
        Some(Bounds { min, max, bounded }) => {
            let whose = if bounded { " (`osiris scale` set it)" } else { "" };
            format!("{min} to {max}, by its calls{whose}")
        }
    })
}

/// `osiris remove`.
pub(crate) async fn remove(args: &RemoveArgs, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    let backend = Backend::open_within(settings, args.wait.timeout).await?;
    let offline = backend.is_offline();
    let written = backend.remove(&args.name, args.wait.timeout).await?;
    out.line(&written, &format!("removed {}", args.name))?;
    Ok(seen(&written, offline, out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_says_what_is_still_to_come() {
        let row = |revision, newest, concurrent| FunctionRow {
            revision,
            newest,
            concurrent,
            ..FunctionRow::default()
        };
        assert_eq!(revision(&row(2, 2, false)), "2");
        assert_eq!(revision(&row(2, 3, true)), "2* (3 pending)");
        assert_eq!(revision(&row(0, 1, false)), "- (1 pending)");
    }
}
