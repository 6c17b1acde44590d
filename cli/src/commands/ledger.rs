//! `osiris ledger log`, `ledger verify` and `ledger archive`.

use osiris_fleet::api::{BlockRow, Log};
use serde::Serialize;

use crate::args::{ArchiveArgs, LedgerCommand, LogArgs, VerifyArgs};
use crate::backend::{self, Backend, driver, must_be_member};
use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::output::human::Moment;
use crate::output::table::{Cell, Tone, printable};
use crate::output::{Format, Out, human, progress::Progress};

pub(crate) async fn run(command: &LedgerCommand, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    match command {
        LedgerCommand::Log(args) => log(args, settings, out).await,
        LedgerCommand::Archive(args) => archive(args, settings, out),
        LedgerCommand::Voters(args) => super::voters::run(args, settings, out).await,
        LedgerCommand::Verify(args) => verify(*args, settings, out).await,
    }
}

async fn log(args: &LogArgs, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    let mut query = Log {
        limit: args.limit,
        author: args.author.clone(),
        user: args.user.clone(),
        function: args.function.clone(),
        op: args.op.clone(),
        since_ms: args.since.map(Moment::ms),
        until_ms: args.until.map(Moment::ms),
        before: None,
        entries: out.format != Format::Table,
        summaries_only: false,
    };
    let mut backend = Backend::open_to_read(settings).await?;
    let (mut rows, mut found): (Vec<BlockRow>, bool) = (Vec::new(), false);
    loop {
        let some = backend.ledger(query.clone()).await?;
        let (last, count) = (some.last().map(|row| row.id.clone()), some.len() as u64);
        found |= count > 0;
        match out.format {
            // Widths are those of all rows.
            Format::Table => rows.extend(some),
            // A line each, so that a program has the first before the last is read.
            _ => some.iter().try_for_each(|row| out.item(row))?,
        }
        query.limit -= count.min(query.limit);
        // A node gives as many at once as it likes, and none where there are no more.
        if query.limit == 0 || last.is_none() {
            break;
        }
        query.before = last;
    }
    // By other filters a function that is there may have no block.
    let by_name_alone = [&args.author, &args.user, &args.op].into_iter().all(Option::is_none)
        && args.since.is_none()
        && args.until.is_none()
        && args.limit > 0;
    if let Some(name) = args.function.as_ref().filter(|_| !found && by_name_alone)
        && !backend.functions().await?.iter().any(|row| row.name == *name)
    {
        return Err(Failure::not_found(format!("No block speaks of a function {name}."))
            .next("`osiris ls` lists the functions"));
    }
    if args.since.is_some() || args.until.is_some() {
        let summaries = Log {
            limit: 1,
            before: None,
            since_ms: None,
            until_ms: None,
            entries: false,
            summaries_only: true,
            ..query
        };
        if !backend.ledger(summaries).await?.is_empty() {
            out.note(
                "Of older serving and stopped blocks this device keeps summaries without a clock: they are not listed by time.",
            );
        }
    }
    if out.format != Format::Table {
        return Ok(Exit::Done);
    }
    // The time is what each author's clock said.
    let headers = ["DEPTH", "BLOCK", "AUTHOR'S CLOCK", "WHO", "OP", "SAYS", "BY", "COUNTS"];
    out.rows(&rows, &headers, "no blocks", |row| {
        vec![
            Cell::right(row.depth),
            Cell::dim(human::short(&row.id)),
            row.wall_ms.map_or_else(|| Cell::dim("not kept"), |ms| Cell::new(human::date(ms))),
            Cell::new(&row.author),
            Cell::new(&row.op),
            Cell::new(&row.says),
            Cell::dim(&row.by),
            if row.effective {
                Cell::state("effective")
            } else {
                Cell::new(format!("void: {}", row.void)).tone(Tone::Bad)
            },
        ]
    })?;
    Ok(Exit::Done)
}

async fn verify(args: VerifyArgs, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    let verified = backend::verify(settings, args.timeout).await?;
    let sound = verified.problems.is_empty();
    let verdict = if sound {
        Cell::new("all is well").tone(Tone::Good)
    } else {
        Cell::new(human::count(verified.problems.len() as u64, "problem")).tone(Tone::Bad)
    };
    let facts = vec![
        ("blocks", Cell::new(verified.blocks.to_string())),
        ("chains", Cell::new(verified.chains.to_string())),
        ("components", Cell::new(verified.components.to_string())),
        ("view", Cell::new(&verified.view)),
        ("result", verdict),
    ];
    out.facts(&verified, facts)?;
    for problem in &verified.problems {
        out.note(&printable(&format!("{}: {}", problem.place, problem.what)));
        out.note(&printable(&format!("next: {}", problem.next)));
    }
    Ok(if sound { Exit::Done } else { Exit::Failed })
}

#[derive(Serialize)]
struct Archive {
    file: String,
    fleet: String,
    blocks: u64,
    summaries: u64,
    pages: u64,
    view: String,
}

fn archive(args: &ArchiveArgs, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    let progress = Progress::spinner("checking the archive");
    let archived = match args.verify {
        true => {
            std::fs::metadata(&args.file).map_err(|error| Failure::unread("archive", &args.file, &error))?;
            driver::verify_archive(&args.file)?
        }
        false => {
            must_be_member(&settings.data)?;
            driver::archive(&settings.data, &args.file)?
        }
    };
    drop(progress);
    let archive = Archive {
        file: args.file.display().to_string(),
        fleet: archived.fleet.to_string(),
        blocks: archived.blocks,
        summaries: archived.summaries,
        pages: archived.pages,
        view: archived.view,
    };
    let facts = vec![
        ("file", Cell::new(&archive.file)),
        ("fleet", Cell::new(&archive.fleet)),
        ("blocks", Cell::new(archive.blocks.to_string())),
        ("summaries", Cell::new(format!("{} in {}", archive.summaries, human::count(archive.pages, "page")))),
        ("view", Cell::new(&archive.view)),
        ("result", Cell::new("all is well").tone(Tone::Good)),
    ];
    out.facts(&archive, facts)?;
    Ok(Exit::Done)
}
