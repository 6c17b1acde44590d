//! Signs of life during long work, on a terminal only.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

const TICK: Duration = Duration::from_millis(100);

/// A spinner or a bar on stderr that is gone when it is dropped.
#[derive(Debug)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// A spinner with what is waited for.
    pub(crate) fn spinner(message: impl Into<String>) -> Self {
        let bar = if shown() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        bar.set_message(message.into());
        if shown() {
            bar.enable_steady_tick(TICK);
        }
        Self(bar)
    }

    /// A bar over bytes.
    pub(crate) fn bytes(total: u64, message: impl Into<String>) -> Self {
        Self::bar(total, message, "{msg} [{bar:30}] {binary_bytes}/{binary_total_bytes}")
    }

    /// A bar over seconds.
    pub(crate) fn seconds(total: u64, message: impl Into<String>) -> Self {
        Self::bar(total, message, "{msg} [{bar:30}] {pos}/{len} s")
    }

    /// A bar over things of a kind.
    pub(crate) fn count(total: u64, message: impl Into<String>) -> Self {
        Self::bar(total, message, "{msg} [{bar:30}] {pos}/{len}")
    }

    /// Nothing.
    pub(crate) fn none() -> Self {
        Self(ProgressBar::hidden())
    }

    fn bar(total: u64, message: impl Into<String>, template: &str) -> Self {
        if !shown() {
            return Self::none();
        }
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(total).with_style(style.progress_chars("=> "));
        bar.set_message(message.into());
        Self(bar)
    }

    /// So much more is done.
    pub(crate) fn advance(&self, by: u64) {
        self.0.inc(by);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn shown() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}
