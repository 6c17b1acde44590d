//! `osiris logs`.

use osiris_fleet::api::LogRow;

use crate::args::LogsArgs;
use crate::backend;
use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::output::{Format, Out, table::printable};

pub(crate) async fn run(args: &LogsArgs, settings: &Settings, out: Out) -> Result<Exit, Failure> {
    let client = backend::node(settings).await?;
    let path = format!("/v1/functions/{}/logs?lines={}&follow={}", args.name, args.lines, args.follow);
    let mut all = Vec::new();
    client
        .lines(&path, |row: LogRow| {
            if out.format == Format::Table {
                return out.raw(line(&row, out).as_bytes());
            }
            if args.follow {
                return out.item(&row);
            }
            all.push(row);
            Ok(())
        })
        .await?;
    if out.format != Format::Table && !args.follow {
        out.document(&all)?;
    }
    Ok(Exit::Done)
}

/// `12 stdout text`: which call wrote what where.
fn line(row: &LogRow, out: Out) -> String {
    let (dim, off) = if out.color { ("\x1b[2m", "\x1b[0m") } else { ("", "") };
    let tone = if out.color && row.stream == "stderr" { "\x1b[33m" } else { "" };
    // A function may write anything; nothing of it is obeyed by the terminal.
    let text = printable(row.text.trim_end_matches(['\n', '\r']));
    format!("{dim}{:>5} {}{off} {tone}{text}{off}\n", row.call, row.stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_who_wrote_it_and_commands_no_terminal() {
        let row = LogRow { call: 7, stream: "stderr".to_owned(), text: "a\u{1b}[2Jb\n".to_owned() };
        let mut out = Out { format: Format::Table, terminal: false, color: false, color_messages: false };
        assert_eq!(line(&row, out), "    7 stderr a\u{fffd}[2Jb\n");
        out.color = true;
        assert!(line(&row, out).ends_with("\x1b[33ma\u{fffd}[2Jb\x1b[0m\n"));
    }
}
