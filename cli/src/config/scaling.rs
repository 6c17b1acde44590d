//! `[scaling]` of `config.toml`: the thresholds by which a node decides about replicas and machines.

use std::path::Path;
use std::time::Duration;

use osiris_fleet::policy::Terms;
use serde::Deserialize;

use super::bad_key;
use crate::exit::Failure;
use crate::output::human;

/// Spans are written as for `--timeout`: `500ms`, `3s`, `2m`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct ScalingFile {
    window: Option<String>,
    stagger: Option<String>,
    age: Option<String>,
    cool_up: Option<String>,
    cool_down: Option<String>,
    start_max: Option<String>,
    cpu_high: Option<u32>,
    memory_high: Option<u32>,
    use_low: Option<u32>,
    machine_window: Option<String>,
    machine_cool: Option<String>,
    machine_idle: Option<String>,
    flap: Option<String>,
}

impl ScalingFile {
    /// The thresholds: what is not said is as it is by default.
    pub(super) fn terms(&self, path: &Path) -> Result<Terms, Failure> {
        let mut terms = Terms::default();
        let spans = [
            ("window", &self.window, &mut terms.window),
            ("stagger", &self.stagger, &mut terms.stagger),
            ("age", &self.age, &mut terms.age),
            ("cool-up", &self.cool_up, &mut terms.cool_up),
            ("cool-down", &self.cool_down, &mut terms.cool_down),
            ("start-max", &self.start_max, &mut terms.start_max),
            ("machine-window", &self.machine_window, &mut terms.machine_window),
            ("machine-cool", &self.machine_cool, &mut terms.machine_cool),
            ("machine-idle", &self.machine_idle, &mut terms.machine_idle),
            ("flap", &self.flap, &mut terms.flap),
        ];
        for (key, text, span) in spans {
            read(path, key, text.as_deref(), span)?;
        }
        terms.cpu_high = self.cpu_high.unwrap_or(terms.cpu_high);
        terms.memory_high = self.memory_high.unwrap_or(terms.memory_high);
        terms.use_low = self.use_low.unwrap_or(terms.use_low);
        terms.validate().map_err(|error| {
            let field = error.field.replace('_', "-");
            let unit = if field.ends_with("high") || field == "use-low" { "%" } else { "ms" };
            let range = format!("it must lie between {} and {} {unit}", error.min, error.max);
            bad_key(path, &format!("scaling.{field}"), &range)
        })?;
        Ok(terms)
    }
}

fn read(path: &Path, key: &str, text: Option<&str>, span: &mut Duration) -> Result<(), Failure> {
    if let Some(text) = text {
        *span = human::parse_span(text).map_err(|error| bad_key(path, &format!("scaling.{key}"), &error))?;
    }
    Ok(())
}
