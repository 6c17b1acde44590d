//! What people and programs read: data on stdout, messages on stderr.

pub(crate) mod human;
pub(crate) mod progress;
pub(crate) mod table;

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::exit::{Exit, Failure};
use table::Cell;

/// How data is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON document; streams are one document a line.
    Json,
    /// YAML; streams are one document after the other.
    Yaml,
}

/// Where a command writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Out {
    /// The format.
    pub(crate) format: Format,
    /// Whether stdout is a terminal.
    pub(crate) terminal: bool,
    /// Whether stdout is coloured.
    pub(crate) color: bool,
    /// Whether stderr is coloured.
    pub(crate) color_messages: bool,
}

impl Out {
    /// Colours only on a terminal, and not with `NO_COLOR` (<https://no-color.org>) or a dumb one.
    pub(crate) fn new(format: Format) -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let colors = !set("NO_COLOR") && !dumb;
        let terminal = io::stdout().is_terminal();
        Self {
            format,
            terminal,
            color: terminal && colors,
            color_messages: io::stderr().is_terminal() && colors,
        }
    }

    /// Rows: a table, or the list as it is.
    pub(crate) fn rows<T: Serialize>(
        self,
        rows: &[T],
        headers: &[&str],
        empty: &str,
        cells: impl Fn(&T) -> Vec<Cell>,
    ) -> Result<(), Failure> {
        if self.format != Format::Table {
            return self.document(&rows);
        }
        if rows.is_empty() {
            self.note(empty);
            return Ok(());
        }
        self.raw(table::render(headers, rows.iter().map(cells).collect(), self).as_bytes())
    }

    /// One thing: its facts as names and values, or the document as it is.
    pub(crate) fn facts<T: Serialize>(self, value: &T, facts: Vec<(&str, Cell)>) -> Result<(), Failure> {
        match self.format {
            Format::Table => Self::last(self.written(table::facts(facts, self).as_bytes())),
            _ => Self::last(self.written(self.text(value)?.as_bytes())),
        }
    }

    /// The same of what is shown this once: an error unless all of it was written.
    pub(crate) fn facts_once<T: Serialize>(self, value: &T, facts: Vec<(&str, Cell)>) -> Result<(), Unread> {
        match self.format {
            Format::Table => self.written(table::facts(facts, self).as_bytes()).map_err(Unread::from),
            _ => self.document_once(value),
        }
    }

    /// One thing that is one line for people, or the document as it is.
    pub(crate) fn line<T: Serialize>(self, value: &T, line: &str) -> Result<(), Failure> {
        match self.format {
            Format::Table => Self::last(self.written(format!("{line}\n").as_bytes())),
            _ => Self::last(self.written(self.text(value)?.as_bytes())),
        }
    }

    /// The same of what is shown this once: an error unless all of it was written.
    pub(crate) fn line_once<T: Serialize>(self, value: &T, line: &str) -> Result<(), Unread> {
        match self.format {
            Format::Table => self.written(format!("{line}\n").as_bytes()).map_err(Unread::from),
            _ => self.document_once(value),
        }
    }

    fn document_once<T: Serialize>(self, value: &T) -> Result<(), Unread> {
        let text = self.text(value).map_err(|failure| Unread(failure.message))?;
        self.written(text.as_bytes()).map_err(Unread::from)
    }

    /// One JSON or YAML document.
    pub(crate) fn document<T: Serialize>(self, value: &T) -> Result<(), Failure> {
        self.raw(self.text(value)?.as_bytes())
    }

    fn text<T: Serialize>(self, value: &T) -> Result<String, Failure> {
        match self.format {
            Format::Yaml => serde_norway::to_string(value).map_err(|e| unwritable(&e)),
            _ => {
                let mut text = serde_json::to_string_pretty(value).map_err(|e| unwritable(&e))?;
                text.push('\n');
                Ok(text)
            }
        }
    }

    /// One document of a stream: a line of JSON, or a YAML document.
    pub(crate) fn item<T: Serialize>(self, value: &T) -> Result<(), Failure> {
        let text = match self.format {
            Format::Yaml => format!("---\n{}", serde_norway::to_string(value).map_err(|e| unwritable(&e))?),
            _ => format!("{}\n", serde_json::to_string(value).map_err(|e| unwritable(&e))?),
        };
        self.raw(text.as_bytes())
    }

    /// Bytes as they are.
    pub(crate) fn raw(self, bytes: &[u8]) -> Result<(), Failure> {
        self.written(bytes).map_err(|error| match error.kind() {
            // `osiris ls | head -1` has had enough, which is no failure.
            io::ErrorKind::BrokenPipe => Failure::new(Exit::Done, ""),
            _ => Failure::failed(format!("The output cannot be written: {error}."))
                .next("check where stdout goes, and its free space"),
        })
    }

    /// A reader that has gone does not change how a command ends that has done its work by now.
    fn last(written: io::Result<()>) -> Result<(), Failure> {
        match written {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::failed(format!("It is done, and the answer cannot be written: {error}."))
                    .next("check where stdout goes, and its free space"))
            }
            _ => Ok(()),
        }
    }

    fn written(self, bytes: &[u8]) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush())
    }

    /// Refuses, before anything is done, to show something this once to a stdout that nobody reads. (The standard
    /// library opens the null device in the place of a closed one.)
    pub(crate) fn must_be_read(self, what: &str) -> Result<(), Failure> {
        // What cannot be told is found out when it is written.
        if !leads_nowhere().unwrap_or(false) {
            return Ok(());
        }
        Err(Failure::usage(format!(
            "{what} is shown on stdout this once, and stdout is closed or the null device; nothing was done."
        ))
        .next("run it with stdout on a terminal, a pipe or a file that others cannot read"))
    }

    /// A message for people.
    pub(crate) fn note(self, message: &str) {
        // Where stderr is gone there is nobody to tell.
        let _ = writeln!(io::stderr().lock(), "{message}");
    }

    /// A message about something that is not as it should be.
    pub(crate) fn warn(self, message: &str) {
        let (on, off) = if self.color_messages { ("\x1b[33m", "\x1b[0m") } else { ("", "") };
        let _ = writeln!(io::stderr().lock(), "{on}warning:{off} {message}");
    }

    /// A failure: `error: …` and, where there is something to do, `next: …`.
    pub(crate) fn failure(self, failure: &Failure) {
        if failure.message.is_empty() {
            return;
        }
        let (red, dim, off) =
            if self.color_messages { ("\x1b[31m", "\x1b[2m", "\x1b[0m") } else { ("", "", "") };
        let message = table::printable(&failure.message);
        let stop = if message.ends_with(['.', '!', '?']) { "" } else { "." };
        let mut text = format!("{red}error:{off} {message}{stop}\n");
        if let Some(next) = &failure.next {
            text.push_str(&format!("{dim}next:{off} {}\n", table::printable(next)));
        }
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }
}

/// Why something that is shown this once was not.
#[derive(Debug)]
pub(crate) struct Unread(pub(crate) String);

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        Self(match error.kind() {
            io::ErrorKind::BrokenPipe => "nobody reads stdout any more".to_owned(),
            _ => error.to_string(),
        })
    }
}

fn leads_nowhere() -> io::Result<bool> {
    let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?).metadata()?;
    Ok(stdout.file_type().is_char_device() && stdout.rdev() == std::fs::metadata("/dev/null")?.rdev())
}

fn unwritable(error: &dyn std::fmt::Display) -> Failure {
    Failure::failed(format!("The output cannot be written in this format: {error}.")).next("use another -o")
}
