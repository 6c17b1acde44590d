//! `osiris top`: what this device does, from the load page of its node, without asking the node.

use std::time::Duration;

use osiris_fleet::driver::{PageReader, Reading, load_page_path};

use crate::args::TopArgs;
use crate::backend::must_be_member;
use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::output::table::{self, Cell, Tone};
use crate::output::{Format, Out, human};

/// A page that is older than this is a dead node's.
const STALE: Duration = Duration::from_secs(20);
/// Moves to the upper left corner and clears what follows.
const REDRAW: &str = "\x1b[H\x1b[J";

/// `osiris top`.
pub(crate) async fn run(args: &TopArgs, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    let path = load_page_path(&settings.data);
    let Ok(page) = PageReader::open(&path) else {
        must_be_member(&settings.data)?;
        let message = format!("No node publishes its load for the data folder {}.", settings.data.display());
        return Err(Failure::failed(message).next("start it with `osiris up`"));
    };
    let watch = out.format == Format::Table && out.terminal && !args.once;
    loop {
        let reading = page.read().map_err(|error| Failure::failed(format!("{error}.")))?;
        if out.format != Format::Table {
            out.document(&reading)?;
            return Ok(Exit::Done);
        }
        let text = render(&reading, out);
        if !watch {
            out.raw(text.as_bytes())?;
            return Ok(Exit::Done);
        }
        out.raw(format!("{REDRAW}{text}").as_bytes())?;
        tokio::time::sleep(args.every).await;
        if !path.exists() {
            out.note("the node has stopped");
            return Ok(Exit::Done);
        }
    }
}

fn render(reading: &Reading, out: Out) -> String {
    let load = &reading.load;
    let age = Duration::from_millis(reading.age_ms);
    let percent = |permille: u64| format!("{}.{} %", permille / 10, permille % 10);
    let share = |used: u64, total: u64| {
        let permille = used.saturating_mul(1_000).checked_div(total).unwrap_or(0);
        let text = format!("{} of {} ({})", human::bytes(used), human::bytes(total), percent(permille));
        Cell::new(text).tone(if permille >= 900 { Tone::Warning } else { Tone::Plain })
    };
    let window = human::seconds(load.window_ms / 1_000);
    let mut facts = vec![
        (
            "cpu",
            Cell::new(format!(
                "{} of {} now, {} over {window}",
                percent(load.cpu_now_permille),
                human::count(load.cores, "core"),
                percent(load.cpu_permille)
            )),
        ),
        ("load", Cell::new(format!("{}.{:02}", load.load1_milli / 1_000, load.load1_milli % 1_000 / 10))),
        ("memory", share(load.memory_used, load.memory_total)),
        ("disk", share(load.disk_used, load.disk_total)),
        (
            "network",
            Cell::new(format!(
                "{}/s in, {}/s out",
                human::bytes(load.network_rx_per_s),
                human::bytes(load.network_tx_per_s)
            )),
        ),
    ];
    if load.temperature_milli > 0 {
        facts.push(("hottest", Cell::new(format!("{} °C", load.temperature_milli / 1_000))));
    }
    let node = format!(
        "{}, {} of a core, process {}",
        human::bytes(load.node_memory),
        percent(load.node_cpu_permille),
        reading.pid
    );
    facts.push(("node", Cell::new(node)));
    facts.push(("calls", Cell::new(format!("{} running, {} waiting", load.in_flight, load.backlog))));
    let told = Cell::new(format!("{} ago", human::seconds(age.as_secs())));
    facts.push(("sampled", if age > STALE { told.tone(Tone::Bad) } else { told }));
    let mut text = table::facts(facts, out);
    if !load.functions.is_empty() {
        let rows = load.functions.iter().map(|function| {
            vec![
                Cell::new(&function.name),
                Cell::right(function.in_flight),
                Cell::right(function.backlog),
                Cell::right(function.done),
                Cell::right(function.failed).tone(if function.failed > 0 {
                    Tone::Warning
                } else {
                    Tone::Plain
                }),
            ]
        });
        let headers = ["NAME", "RUNNING", "WAITING", "DONE", "FAILED"];
        text.push('\n');
        text.push_str(&table::render(&headers, rows.collect(), out));
    }
    text
}
