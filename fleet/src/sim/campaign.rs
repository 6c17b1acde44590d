//! Many runs, and whether together they tried what they are there to try.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    options::Options,
    report::{FAULTS, RARE, Report},
    run,
};

/// What a campaign came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Campaign {
    /// Whether every run passed, every kind of fault was inflicted, every rare branch reached and something
    /// compared.
    pub passed: bool,
    /// The first seed; the others follow it one by one.
    pub first_seed: u64,
    /// Runs.
    pub runs: u64,
    /// Members at the ends of all runs together, newcomers included.
    pub nodes: u64,
    /// Runs that broke a promise.
    pub failed: Vec<Report>,
    /// Rare branches that no run reached, and faults of which no run had one.
    pub never: Vec<String>,
    /// Virtual milliseconds, events, frames and blocks over all runs.
    pub virtual_ms: u64,
    /// Events.
    pub events: u64,
    /// Frames sent.
    pub sent: u64,
    /// Frames lost.
    pub dropped: u64,
    /// Frames that came twice.
    pub duplicated: u64,
    /// Frames that overtook another.
    pub overtaken: u64,
    /// Blocks that honest nodes wrote.
    pub written: u64,
    /// Deploys that were acknowledged.
    pub acknowledged: u64,
    /// Views of equal sets of blocks that were compared.
    pub views_compared: u64,
    /// Blocks in the replicas that were compared at the ends.
    pub blocks_compared: u64,
    /// Longest time that a healed fleet took to agree, virtual milliseconds.
    pub agreed_after_ms_max: u64,
    /// Faults injected, by kind.
    pub faults: BTreeMap<String, u64>,
    /// Branches reached, by name.
    pub branches: BTreeMap<String, u64>,
}

impl Campaign {
    /// Runs the seeds from `first` on, `runs` of them, each with the members that it draws or with `nodes`.
    ///
    /// # Errors
    /// A sentence where an option is out of range.
    pub fn run(
        first: u64,
        runs: u64,
        nodes: Option<u32>,
        mut after: impl FnMut(&Report),
    ) -> Result<Self, String> {
        let mut campaign = Self { first_seed: first, ..Self::default() };
        for seed in first..first.saturating_add(runs) {
            let nodes = nodes.unwrap_or_else(|| Options::small_fleet(seed));
            let report = run(&Options::drawn(seed, nodes), None)?;
            after(&report);
            campaign.add(report);
        }
        campaign.judge();
        Ok(campaign)
    }

    fn add(&mut self, report: Report) {
        self.runs += 1;
        self.nodes += report.nodes;
        self.virtual_ms += report.virtual_ms;
        self.events += report.events;
        self.sent += report.sent;
        self.dropped += report.dropped;
        self.duplicated += report.duplicated;
        self.overtaken += report.overtaken;
        self.written += report.written;
        self.acknowledged += report.acknowledged;
        self.views_compared += report.views_compared;
        self.blocks_compared += report.blocks_compared;
        self.agreed_after_ms_max = self.agreed_after_ms_max.max(report.agreed_after_ms.unwrap_or(0));
        let sum = |all: &mut BTreeMap<String, u64>, one: &BTreeMap<String, u64>| {
            for (what, times) in one {
                *all.entry(what.clone()).or_default() += times;
            }
        };
        sum(&mut self.faults, &report.faults);
        sum(&mut self.branches, &report.branches);
        if !report.passed {
            self.failed.push(report);
        }
    }

    fn judge(&mut self) {
        let named = RARE.iter().map(|what| (&self.branches, *what));
        let named = named.chain(FAULTS.iter().map(|what| (&self.faults, *what)));
        let never = named.filter(|(counts, what)| counts.get(*what).is_none_or(|times| *times == 0));
        let traffic = [
            ("a frame lost", self.dropped),
            ("a frame doubled", self.duplicated),
            ("a frame overtaken", self.overtaken),
        ];
        let still = traffic.iter().filter(|(_, times)| *times == 0).map(|(what, _)| *what);
        self.never = never.map(|(_, what)| what).chain(still).map(str::to_owned).collect();
        let compared = self.views_compared > 0 && self.blocks_compared > 0;
        self.passed = self.failed.is_empty() && self.never.is_empty() && compared;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_campaign_in_which_little_happened_fails() {
        let campaign = Campaign::run(1, 1, Some(3), |_| {}).expect("valid options");
        assert!(campaign.never.contains(&"early evicted".to_owned()));
        assert!(!campaign.passed);
        let mut nothing = Campaign::default();
        nothing.branches.extend(RARE.iter().map(|what| ((*what).to_owned(), 1)));
        nothing.judge();
        assert_eq!(nothing.never[..FAULTS.len()], FAULTS, "a fault that never was");
        nothing.faults.extend(FAULTS.iter().map(|what| ((*what).to_owned(), 1)));
        nothing.judge();
        assert_eq!(nothing.never, ["a frame lost", "a frame doubled", "a frame overtaken"]);
        (nothing.dropped, nothing.duplicated, nothing.overtaken) = (1, 1, 1);
        nothing.judge();
        assert!(nothing.never.is_empty() && !nothing.passed, "nothing was compared");
    }
}
