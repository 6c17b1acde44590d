//! Opening a data folder as a node: key, journal, ledger, library.

use std::{path::Path, time::Instant};

use osiris_ledger::{Admission, Ledger, Mono, Now, WallMs, Writer};
use osiris_runtime::Library;

use super::{
    error::DriverError,
    folder::{Folder, fresh_session},
    limits::LIBRARY_QUOTA_BYTES,
    store::Journal,
};
use crate::api::codes;

/// Both clocks of this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { start: Instant::now() }
    }

    pub(crate) fn now(&self) -> Now {
        let mono = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Now { mono: Mono(mono), wall: WallMs(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)) }
    }

    /// The moment on tokio's clock.
    pub(crate) fn instant(&self, mono: Mono) -> tokio::time::Instant {
        (self.start + std::time::Duration::from_millis(mono.0)).into()
    }

    /// How long this machine was suspended since its boot: what CLOCK_BOOTTIME counts and CLOCK_MONOTONIC, by which
    /// [`Clock::now`] goes, does not. Zero where the system does not tell.
    #[cfg(target_os = "linux")]
    pub(crate) fn asleep() -> std::time::Duration {
        use rustix::time::{ClockId, Timespec, clock_gettime};
        let since = |clock| {
            let Timespec { tv_sec, tv_nsec } = clock_gettime(clock);
            let seconds = u64::try_from(tv_sec).unwrap_or_default();
            std::time::Duration::new(seconds, u32::try_from(tv_nsec).unwrap_or_default())
        };
        // In this order what passes between the two looks is never taken for sleep.
        let boot = since(ClockId::Boottime);
        boot.saturating_sub(since(ClockId::Monotonic))
    }

    /// As above: not told here.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn asleep() -> std::time::Duration {
        std::time::Duration::ZERO
    }

    pub(crate) fn uptime(&self) -> std::time::Duration {
        self.start.elapsed()
    }
}

/// A data folder, locked and replayed.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) folder: Folder,
    pub(crate) journal: Journal,
    pub(crate) ledger: Ledger,
    pub(crate) writer: Writer,
    pub(crate) library: Library,
    /// What people should know of the journal's recovery.
    pub(crate) warnings: Vec<String>,
    /// Whether the journal lacks blocks that it held.
    pub(crate) damaged: bool,
}

impl Opened {
    /// Opens an initialised folder.
    pub(crate) fn open(data: &Path) -> Result<Self, DriverError> {
        let folder = Folder::open(data)?;
        let key = folder.device_key()?;
        let (journal, found) = Journal::open(folder.path())?;
        let mut warnings = found.warnings(folder.path());
        let mut ledger = Ledger::new(found.fleet);
        for answer in ledger.replay_all(&found.entries) {
            match answer {
                Ok(Admission::New { .. } | Admission::Known | Admission::Early { .. }) => {}
                Err(reject) => warnings.push(format!(
                    "The journal holds a block that this build refuses ({reject}); `osiris ledger verify` says more."
                )),
            }
        }
        ledger.publish();
        // A journal holds each block behind all it names; where one waits, something was lost before.
        let damaged = !found.damage.is_empty() || ledger.early().0 > 0;
        let writer = Writer::new(key, fresh_session()?);
        let library = open_library(&folder)?;
        Ok(Self { folder, journal, ledger, writer, library, warnings, damaged })
    }

    /// The same, for all but a join under way: without the fleet's first block nothing can be judged.
    pub(crate) fn open_founded(data: &Path) -> Result<Self, DriverError> {
        let opened = Self::open(data)?;
        if opened.ledger.is_founded() {
            return Ok(opened);
        }
        let mut message = format!(
            "The journal in {} lacks the fleet's first block, so nothing in it can be judged.",
            data.display()
        );
        for warning in &opened.warnings {
            message.push(' ');
            message.push_str(warning);
        }
        Err(DriverError::new(
            codes::INTERNAL,
            message,
            "If a join was interrupted, run it again. Else restore the folder from a backup, or move the journal away and join again with a new ticket.",
        ))
    }
}

pub(crate) fn open_library(folder: &Folder) -> Result<Library, DriverError> {
    Library::open(folder.library(), LIBRARY_QUOTA_BYTES).map_err(|error| {
        DriverError::new(codes::STORAGE, error.to_string(), "Check the data folder's disk and permissions.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clocks_agree_with_the_runtime() {
        let clock = Clock::start();
        let now = clock.now();
        assert!(clock.instant(now.mono) <= tokio::time::Instant::now());
        assert!(now.wall.0 > 1_500_000_000_000);
    }
}
