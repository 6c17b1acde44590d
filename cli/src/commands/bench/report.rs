//! What the bench came to.

use serde::Serialize;

use crate::exit::Failure;
use crate::output::table::{self, Cell, Tone};
use crate::output::{Format, Out};

use super::machine::Machine;
use super::measures::{Ratio, Round, Row, rows};
use super::pins::Pins;
use super::subjects::Bytes;

/// Columns of the table.
const HEADERS: [&str; 10] =
    ["MEASURE", "CONNECTIONS", "REQUESTS/S", "P50", "P99", "SERVER CPU", "LOAD CPU", "RATIO", "AIM", ""];
/// Above this share of the machine, other programs have moved the figures, percent.
const OTHERS_PERCENT_MAX: f64 = 5.0;

/// All figures.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    machine: Machine,
    /// The cores of each end at one connection; without, nothing was pinned, and why.
    pins: Option<Pins>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_pinned: Option<String>,
    seconds: u64,
    bytes: Bytes,
    /// CPU time of everything but the bench, of all that the machine has: the most of the measures'
    /// medians.
    others_cpu_percent: Option<f64>,
    measures: Vec<Row>,
}

impl Report {
    /// The medians over the rounds.
    pub(super) fn new(
        machine: Machine,
        pins: Result<Pins, String>,
        seconds: u64,
        bytes: Bytes,
        rounds: &[Round],
    ) -> Self {
        let measures = rows(rounds);
        let others = measures.iter().filter_map(|row| row.median.others_cpu_percent).reduce(f64::max);
        let (pins, not_pinned) = pins.map_or_else(|why| (None, Some(why)), |pins| (Some(pins), None));
        Self { machine, pins, not_pinned, seconds, bytes, others_cpu_percent: others, measures }
    }

    /// Prints them.
    pub(super) fn print(&self, out: Out) -> Result<(), Failure> {
        if out.format != Format::Table {
            return out.document(self);
        }
        let rows = self.measures.iter().map(cells).collect();
        out.raw(table::render(&HEADERS, rows, out).as_bytes())?;
        out.raw(self.notes().as_bytes())
    }

    fn notes(&self) -> String {
        let rounds = self.measures.first().map_or(0, |row| row.rounds.len());
        let load = self.machine.load1.map_or_else(|| "unknown".to_owned(), |load| format!("{load:.2}"));
        let others = match self.others_cpu_percent {
            Some(share) if share > OTHERS_PERCENT_MAX => {
                format!(
                    "other programs took up to {share:.0} % of the CPU time: the figures are not comparable"
                )
            }
            Some(share) => format!("other programs took up to {share:.0} % of the CPU time"),
            None => "what other programs took is not known".to_owned(),
        };
        let busy = self.machine.busy().map_or_else(String::new, |why| format!("BUSY: {why}\n"));
        let pinned = match (&self.pins, &self.not_pinned) {
            (Some(pins), _) => pins.describe(),
            (None, why) => format!(
                "nothing was pinned: {}; so at 1 connection latency also depends on whether the kernel puts both \
                 processes on one core",
                why.as_deref().unwrap_or_default()
            ),
        };
        let Bytes { http_answer, native_request, native_answer, echo_request, echo_reply } = self.bytes;
        format!(
            "\n{busy}{} cores, load average {load} before; {others}\n\
             {pinned}\n\
             medians of {rounds} rounds of {} s a measure; ratios are taken within a round, their least and \
             most in brackets\n\
             ratio: p50 of that of hyper at 1 connection, requests/s of hyper's at {}, p50 of that of echo + \
             wasi:http call where relayed\n\
             SERVER CPU: for each request, of all processes that answer; LOAD CPU: the load generator's share \
             of all cores\n\
             answers: {http_answer} B wasi:http, {native_answer} B native to {native_request} B; echo: \
             {echo_reply} B to {echo_request} B\n",
            self.machine.cores,
            self.seconds,
            super::measures::MANY,
        )
    }
}

fn cells(row: &Row) -> Vec<Cell> {
    let median = &row.median;
    let cpu = median.server_cpu_us.map_or_else(String::new, |us| format!("{us:.1} µs"));
    let (aim, verdict) = verdict(row);
    vec![
        Cell::new(row.measure.name()),
        Cell::right(row.connections),
        Cell::right(format!("{:.0}", median.requests_per_s)),
        Cell::right(latency(median.p50_us)),
        Cell::right(latency(median.p99_us)),
        Cell::right(cpu),
        Cell::right(format!("{:.0} %", median.load_cpu_percent)),
        Cell::new(row.compared.as_ref().map_or_else(String::new, |compared| {
            format!("{:.2} ({:.2}–{:.2})", compared.ratio, compared.least, compared.most)
        })),
        Cell::new(aim),
        verdict,
    ]
}

fn latency(us: f64) -> String {
    if us < 1e3 { format!("{us:.0} µs") } else { format!("{:.2} ms", us / 1e3) }
}

/// The aim, and whether it was met: by the median, and where the rounds differ, in how many of them.
fn verdict(row: &Row) -> (String, Cell) {
    let aimed = row.compared.and_then(|compared| Some((compared.aim?, compared.met?, compared.met_rounds?)));
    let Some((aim, met, met_rounds)) = aimed else {
        return (String::new(), Cell::new(""));
    };
    let sign = match row.measure.ratio() {
        Some(Ratio::Rate(_)) => "≥",
        _ => "≤",
    };
    let (word, tone) = if met { ("met", Tone::Good) } else { ("missed", Tone::Bad) };
    let (rounds, same) = (row.rounds.len(), if met { met_rounds } else { row.rounds.len() - met_rounds });
    let verdict = if same == rounds {
        Cell::new(word).tone(tone)
    } else {
        Cell::new(format!("{word} in {same} of {rounds}")).tone(Tone::Warning)
    };
    (format!("{sign} {aim:.2}"), verdict)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: Bytes =
        Bytes { http_answer: 1, native_request: 1, native_answer: 1, echo_request: 1, echo_reply: 1 };

    fn notes(load: f64, pins: Result<Pins, String>) -> String {
        Report::new(Machine { cores: 2, load1: Some(load) }, pins, 1, BYTES, &[]).notes()
    }

    #[test]
    fn a_busy_machine_and_free_processes_are_said_under_the_table() {
        let said = notes(6.5, Err("there is only one core".to_owned()));
        assert!(said.contains("\nBUSY: the load average is 6.50, above 1.0 for 2 cores"), "{said}");
        assert!(said.contains("\nnothing was pinned: there is only one core; so at 1 connection"), "{said}");
        let quiet = notes(0.25, Err(String::new()));
        assert!(!quiet.contains("BUSY") && quiet.contains("load average 0.25 before"), "{quiet}");
    }
}
