//! Tables and lists of facts for people.

use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, CellAlignment, Color, ContentArrangement, Table};

use super::Out;

/// What a cell's colour says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Good,
    Warning,
    Bad,
    Dim,
}

/// One cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
    right: bool,
}

impl Cell {
    /// Text, with everything taken out that could move the cursor or hide what follows: names, notes
    /// and versions come from other people's devices.
    pub(crate) fn new(text: impl AsRef<str>) -> Self {
        Self { text: printable(text.as_ref()), tone: Tone::Plain, right: false }
    }

    /// A number or another value that reads best from the right.
    pub(crate) fn right(value: impl ToString) -> Self {
        Self { right: true, ..Self::new(value.to_string()) }
    }

    /// A text that matters less.
    pub(crate) fn dim(text: impl AsRef<str>) -> Self {
        Self { tone: Tone::Dim, ..Self::new(text) }
    }

    /// The same in another tone.
    #[must_use]
    pub(crate) fn tone(mut self, tone: Tone) -> Self {
        self.tone = tone;
        self
    }

    /// A state by its usual word.
    pub(crate) fn state(state: &str) -> Self {
        let tone = match state {
            "live" | "serving" | "connected" | "this" | "open" | "effective" => Tone::Good,
            "pending" | "starting" | "stopped" | "draining" | "unreachable" => Tone::Warning,
            "read-only" | "revoked" | "void" => Tone::Bad,
            "old" | "removed" | "used-up" | "withdrawn" => Tone::Dim,
            _ => Tone::Plain,
        };
        Self::new(state).tone(tone)
    }

    fn styled(self, color: bool) -> comfy_table::Cell {
        let mut cell = comfy_table::Cell::new(self.text);
        if self.right {
            cell = cell.set_alignment(CellAlignment::Right);
        }
        match self.tone {
            _ if !color => cell,
            Tone::Plain => cell,
            Tone::Good => cell.fg(Color::Green),
            Tone::Warning => cell.fg(Color::Yellow),
            Tone::Bad => cell.fg(Color::Red),
            Tone::Dim => cell.add_attribute(Attribute::Dim),
        }
    }
}

/// The text on one line, with control characters and those that change the direction of writing shown
/// as `�`.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' | '\r' => ' ',
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// Aligned columns under their headers.
pub(crate) fn render(headers: &[&str], rows: Vec<Vec<Cell>>, out: Out) -> String {
    let mut table = empty(out);
    let right: Vec<bool> = (0..headers.len())
        .map(|column| rows.first().and_then(|row| row.get(column)).is_some_and(|cell| cell.right))
        .collect();
    table.set_header(headers.iter().zip(right).map(|(header, right)| {
        let mut cell = comfy_table::Cell::new(header);
        if right {
            cell = cell.set_alignment(CellAlignment::Right);
        }
        if out.color { cell.add_attribute(Attribute::Bold) } else { cell }
    }));
    for row in rows {
        table.add_row(row.into_iter().map(|cell| cell.styled(out.color)));
    }
    finish(table)
}

/// Names and values, one a line.
pub(crate) fn facts(facts: Vec<(&str, Cell)>, out: Out) -> String {
    let mut table = empty(out);
    for (name, value) in facts {
        table.add_row([Cell::dim(name).styled(out.color), value.styled(out.color)]);
    }
    finish(table)
}

fn empty(out: Out) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    if out.terminal {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    } else {
        // A pipe has no width: nothing is wrapped, so that `grep` finds whole rows.
        table.force_no_tty().set_content_arrangement(ContentArrangement::Disabled);
    }
    if out.color {
        table.enforce_styling();
    }
    table
}

fn finish(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    fn out(color: bool) -> Out {
        Out { format: Format::Table, terminal: false, color, color_messages: false }
    }

    fn rows() -> Vec<Vec<Cell>> {
        vec![
            vec![Cell::new("summary"), Cell::state("live"), Cell::right(1)],
            vec![Cell::new("a"), Cell::state("pending"), Cell::right(200)],
        ]
    }

    #[test]
    fn a_table_without_colour_is_plain_and_aligned() {
        let text = render(&["NAME", "STATE", "REVISION"], rows(), out(false));
        assert_eq!(
            text,
            "NAME     STATE    REVISION\nsummary  live            1\na        pending       200\n"
        );
    }

    #[test]
    fn colour_says_good_and_not_yet() {
        let text = render(&["NAME", "STATE", "REVISION"], rows(), out(true));
        assert!(text.contains("\u{1b}["), "{text:?}");
    }

    #[test]
    fn facts_are_aligned() {
        let text = facts(vec![("fleet", Cell::new("home")), ("device key", Cell::new("ab"))], out(false));
        assert_eq!(text, "fleet       home\ndevice key  ab\n");
    }

    #[test]
    fn what_others_wrote_cannot_move_the_cursor() {
        assert_eq!(printable("a\u{1b}[2Jb\nc\u{202e}d\u{9b}"), "a\u{fffd}[2Jb c\u{fffd}d\u{fffd}");
        let text = facts(vec![("label", Cell::new("x\u{1b}]0;y\u{7}"))], out(false));
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}
