//! `[scale]`: the thresholds of the policy, each with its unit. `docs/scaling.md` has them in a table.

use std::time::Duration;

use osiris_fleet::policy::Terms;
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::output::human;

/// A time with its unit, such as `"3s"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span(Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if !text.ends_with(|last: char| last.is_ascii_alphabetic()) {
            return Err(D::Error::custom(format!("`{text}` has no unit of time; write one such as \"3s\"")));
        }
        human::parse_span(&text).map(Self).map_err(D::Error::custom)
    }
}

/// A part of a hundred with its sign, such as `"85%"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Percent(u32);

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let number = text.strip_suffix('%').map(str::trim_end).and_then(|digits| digits.parse().ok());
        let wrong = || D::Error::custom(format!("`{text}` is no percentage; write one such as \"85%\""));
        number.map(Self).ok_or_else(wrong)
    }
}

/// What the file says; the rest stays as it is by default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct ScaleFile {
    window: Option<Span>,
    stagger: Option<Span>,
    age: Option<Span>,
    cool_up: Option<Span>,
    cool_down: Option<Span>,
    start_max: Option<Span>,
    cpu_high: Option<Percent>,
    memory_high: Option<Percent>,
    use_low: Option<Percent>,
    machine_window: Option<Span>,
    machine_cool: Option<Span>,
    machine_idle: Option<Span>,
    flap: Option<Span>,
}

impl ScaleFile {
    /// The thresholds that result, or which of them is out of range.
    pub(super) fn terms(&self) -> Result<Terms, String> {
        let mut terms = Terms::default();
        set(&mut terms.window, self.window.map(|said| said.0));
        set(&mut terms.stagger, self.stagger.map(|said| said.0));
        set(&mut terms.age, self.age.map(|said| said.0));
        set(&mut terms.cool_up, self.cool_up.map(|said| said.0));
        set(&mut terms.cool_down, self.cool_down.map(|said| said.0));
        set(&mut terms.start_max, self.start_max.map(|said| said.0));
        set(&mut terms.cpu_high, self.cpu_high.map(|said| said.0));
        set(&mut terms.memory_high, self.memory_high.map(|said| said.0));
        set(&mut terms.use_low, self.use_low.map(|said| said.0));
        set(&mut terms.machine_window, self.machine_window.map(|said| said.0));
        set(&mut terms.machine_cool, self.machine_cool.map(|said| said.0));
        set(&mut terms.machine_idle, self.machine_idle.map(|said| said.0));
        set(&mut terms.flap, self.flap.map(|said| said.0));
        terms.validate().map_err(|error| {
            let field = error.field.replace('_', "-");
            let unit = if TIMES.contains(&error.field) { " ms" } else { " %" };
            format!(
                "`{field}` is {}{unit}; it lies between {}{unit} and {}{unit}",
                error.value, error.min, error.max
            )
        })?;
        Ok(terms)
    }
}

/// The thresholds that are times.
const TIMES: [&str; 10] = [
    "window",
    "stagger",
    "age",
    "cool_up",
    "cool_down",
    "start_max",
    "machine_window",
    "machine_cool",
    "machine_idle",
    "flap",
];

fn set<T>(to: &mut T, said: Option<T>) {
    if let Some(said) = said {
        *to = said;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(text: &str) -> Result<Terms, String> {
        let file: ScaleFile = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        file.terms()
    }

    #[test]
    fn thresholds_are_read_with_their_units_and_the_rest_is_the_default() {
        let read = terms("window = \"1500ms\"\nmachine-idle = \"2m\"\ncpu-high = \"70%\"").expect("read");
        let expected = Terms {
            window: Duration::from_millis(1_500),
            machine_idle: Duration::from_secs(120),
            cpu_high: 70,
            ..Terms::default()
        };
        assert_eq!(read, expected);
        assert_eq!(terms(""), Ok(Terms::default()));
    }

    #[test]
    fn what_has_no_unit_is_unknown_or_out_of_range_is_named() {
        for (text, said) in [
            ("window = 3", "string"),
            ("window = \"3\"", "has no unit"),
            ("cpu-high = \"85\"", "percentage"),
            ("cpu-high = \"101%\"", "`cpu-high` is 101 %"),
            ("use-low = \"95%\"", "between 0 % and 90 %"),
            ("machine-idle = \"0s\"", "out of range"),
            ("flap = \"48h\"", "out of range"),
            ("backlog = \"4\"", "unknown field"),
        ] {
            let wrong = terms(text).expect_err(text);
            assert!(wrong.contains(said), "{text}: {wrong}");
        }
    }
}
