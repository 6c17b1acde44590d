//! A run again, from its report or from a file of the corpus.

use serde::{Deserialize, Serialize};

use super::{
    options::Options,
    report::{Listener, Report},
    run,
};

/// What a file for a replay holds. A report is one too: what else it says is not needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// What it once showed, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// What decides the run.
    pub options: Options,
    /// What the event log came to, where the build that wrote the file is the one that replays it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_log_hash: Option<String>,
}

impl Recorded {
    /// Reads a file's text.
    ///
    /// # Errors
    /// A sentence where it is neither a report nor a file of the corpus.
    pub fn read(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| {
            format!("This is neither the JSON of a report nor a file of the corpus: {error}")
        })
    }

    /// Runs it again.
    ///
    /// # Errors
    /// A sentence where an option is out of range, or where the event log is another than the recorded one.
    pub fn replay(&self, listener: Option<Listener<'_>>) -> Result<Report, String> {
        let report = run(&self.options, listener)?;
        match &self.event_log_hash {
            Some(recorded) if *recorded != report.event_log_hash => Err(format!(
                "The run was not reproduced: its event log has the hash {}, the recorded one {recorded}. \
                 Replay it with the build that recorded it",
                report.event_log_hash
            )),
            _ => Ok(report),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_replays_to_the_same_log_and_a_changed_one_is_told() {
        let options = Options { safety_ms: 5_000, ..Options::drawn(3, 3) };
        let report = run(&options, None).expect("valid options");
        let text = serde_json::to_string(&report).expect("a report is JSON");
        let recorded = Recorded::read(&text).expect("a report can be replayed");
        assert_eq!(recorded.replay(None), Ok(report));
        let other = Recorded { event_log_hash: Some("00".to_owned()), ..recorded };
        assert!(other.replay(None).expect_err("another log").contains("not reproduced"));
        assert!(Recorded::read("{}").is_err());
    }
}
