//! What a run is made of, drawn from its seed or given.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::random::Random;
use crate::node::{PageRules, Retain};

/// Of more nodes than this, only a sample is compared.
pub const OWN_EVERYTHING_MAX: u32 = 50;
/// Nodes whose views and automerge documents are compared in a larger run.
pub const SAMPLE: u32 = 8;
/// Copies of data folders that run at once.
pub(super) const TWINS: u32 = 2;

/// Everything that decides a run. The same options give the same run, to the bit.
///
/// Times are virtual milliseconds. `…_every_ms` is the mean pause between two faults of a kind, over the
/// whole fleet; zero is never.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The seed of every choice.
    pub seed: u64,
    /// Members at the start, hostile ones included.
    pub nodes: u32,
    /// Members that are hostile. The founder is not.
    pub hostile: u32,
    /// How long faults and work go on.
    pub safety_ms: u64,
    /// How long the healed fleet may take to agree.
    pub liveness_ms: u64,
    /// Least and most time a frame takes; a few take ten times as long.
    pub delay_ms: (u64, u64),
    /// Frames lost, of a thousand.
    pub loss: u32,
    /// Frames that come twice, of a thousand.
    pub duplicate: u32,
    /// Frames that overtake others, of a thousand.
    pub reorder: u32,
    /// Gossip hints that arrive, of a thousand.
    pub hints: u32,
    /// Longest time that a sync of the disk takes.
    pub sync_ms_max: u64,
    /// Pause between two things that people ask for.
    pub work_every_ms: u64,
    /// Pause between two deeds of a hostile member.
    pub hostile_every_ms: u64,
    /// Whether hostile members flood others with blocks that come too early.
    pub flood: bool,
    /// A node dies, and starts again.
    pub crash_every_ms: u64,
    /// A node is stopped in order, and started again.
    pub restart_every_ms: u64,
    /// The fleet falls into two or three parts.
    pub partition_every_ms: u64,
    /// One direction between two nodes is cut.
    pub cut_every_ms: u64,
    /// A connection breaks.
    pub reset_every_ms: u64,
    /// A wall clock jumps by up to ten years.
    pub clock_every_ms: u64,
    /// A node dies and comes back with an older copy of its disk.
    pub restore_every_ms: u64,
    /// A write or sync of a disk fails.
    pub disk_every_ms: u64,
    /// A node dies and comes back with a damaged disk.
    pub damage_every_ms: u64,
    /// Whether nodes share a memo of checked entries, the places of the first blocks, and what follows from equal sets
    /// of blocks. Above [`OWN_EVERYTHING_MAX`] nodes they always do. It changes how long a run takes, and nothing in
    /// it.
    #[serde(default)]
    pub memo: bool,
    /// A spawner wants a machine. Zero: the fleet makes none.
    #[serde(default)]
    pub wants_every_ms: u64,
    /// Whether machines may be made without a majority of the voters.
    #[serde(default)]
    pub minority: bool,
    /// Members, of a thousand, that retain summaries of what sealed pages list.
    #[serde(default)]
    pub current: u32,
    /// A process stands still for a while, or its machine is suspended.
    #[serde(default)]
    pub still_every_ms: u64,
    /// A node's data folder is copied and runs twice for a while. None is where machines are made.
    #[serde(default)]
    pub clone_every_ms: u64,
    /// Calls of one function that want to run at its busiest time. Zero: nobody calls, and none is scaled.
    #[serde(default)]
    pub load: u32,
    /// Whether people do nothing but deploy, each time to all members, and pages have their real size.
    #[serde(default)]
    pub everywhere: bool,
}

/// Summaries that fill a page, and how far below the deepest block they lie: so small that short runs have some.
const PAGE: (usize, u64) = (6, 12);
/// Time between two looks at pages.
const PAGE_LOOK: Duration = Duration::from_millis(700);

impl Options {
    /// A fleet without faults: a steady network, no hostile member.
    #[must_use]
    pub fn healthy(seed: u64, nodes: u32) -> Self {
        Self {
            seed,
            nodes,
            hostile: 0,
            safety_ms: 20_000,
            liveness_ms: 120_000,
            delay_ms: (1, 20),
            loss: 0,
            duplicate: 0,
            reorder: 0,
            hints: 1_000,
            sync_ms_max: 10,
            work_every_ms: 500,
            hostile_every_ms: 1_000,
            flood: false,
            crash_every_ms: 0,
            restart_every_ms: 0,
            partition_every_ms: 0,
            cut_every_ms: 0,
            reset_every_ms: 0,
            clock_every_ms: 0,
            restore_every_ms: 0,
            disk_every_ms: 0,
            damage_every_ms: 0,
            memo: false,
            wants_every_ms: 0,
            minority: false,
            current: 0,
            still_every_ms: 0,
            clone_every_ms: 0,
            load: 0,
            everywhere: false,
        }
    }

    /// Faults drawn from the seed. Each kind is left out of some runs, so that a run shows what the
    /// others would hide.
    #[must_use]
    pub fn drawn(seed: u64, nodes: u32) -> Self {
        let mut random = Random::new(seed, 1);
        let mut sometimes = |permille: u32, low: u64, high: u64| {
            let value = random.between(low, high);
            if random.chance(permille) { value } else { 0 }
        };
        let crash_every_ms = sometimes(800, 2_000, 12_000);
        let restart_every_ms = sometimes(500, 5_000, 20_000);
        let partition_every_ms = sometimes(600, 8_000, 20_000);
        let cut_every_ms = sometimes(500, 2_000, 10_000);
        let reset_every_ms = sometimes(600, 1_000, 8_000);
        let clock_every_ms = sometimes(600, 2_000, 10_000);
        let restore_every_ms = sometimes(300, 10_000, 40_000);
        let disk_every_ms = sometimes(300, 8_000, 30_000);
        let damage_every_ms = sometimes(200, 10_000, 40_000);
        let safety_ms = random.between(20_000, 60_000);
        let slow = random.chance(300);
        let small = nodes <= OWN_EVERYTHING_MAX;
        let hostile = u32::from(nodes > 3 && random.chance(500));
        // Leases take longer than all else: a claim settles in 13 s, and expires in 28 s.
        let wants_every_ms = if small && random.chance(200) { random.between(3_000, 9_000) } else { 0 };
        let safety_ms = if wants_every_ms > 0 { safety_ms + 70_000 } else { safety_ms };
        // And none is won where everybody dies all the time.
        let rarer = if wants_every_ms > 0 { 5 } else { 1 };
        let minority = random.chance(400);
        // Drawn apart from the others, which would change with it. A function goes to none and comes back within two
        // or three minutes.
        let mut calls = Random::new(seed, 8);
        let load = if small && calls.chance(250) { calls.between(6, 16) } else { 0 };
        let safety_ms = if load > 0 { safety_ms + 120_000 } else { safety_ms };
        let mut pauses = Random::new(seed, 9);
        let still_every_ms = if pauses.chance(500) { pauses.between(4_000, 20_000) } else { 0 };
        let clone_every_ms = if pauses.chance(300) { pauses.between(10_000, 30_000) } else { 0 };
        let clones = small && wants_every_ms == 0;
        Self {
            hostile,
            safety_ms: if small { safety_ms } else { 20_000 },
            delay_ms: if slow { (50, 400) } else { (1, 30) },
            loss: random.pick(&[0, 0, 20, 100, 300, 500]).unwrap_or(0),
            duplicate: random.pick(&[0, 10, 100]).unwrap_or(0),
            reorder: random.pick(&[0, 10, 200, 1_000]).unwrap_or(0),
            hints: random.pick(&[0, 300, 900, 1_000]).unwrap_or(0),
            sync_ms_max: random.pick(&[5, 40, 400]).unwrap_or(5),
            work_every_ms: random.between(200, 1_500),
            hostile_every_ms: random.between(300, 2_000),
            // Not every flood meets a full room; in some tens of runs one has to.
            flood: hostile > 0 && random.chance(250),
            crash_every_ms: crash_every_ms * rarer,
            restart_every_ms: restart_every_ms * rarer,
            partition_every_ms,
            cut_every_ms,
            reset_every_ms,
            clock_every_ms,
            restore_every_ms: restore_every_ms * rarer,
            disk_every_ms: disk_every_ms * rarer,
            damage_every_ms: damage_every_ms * rarer,
            wants_every_ms,
            minority,
            still_every_ms: still_every_ms * rarer,
            clone_every_ms: if clones { clone_every_ms } else { 0 },
            // Drawn apart from the others, which would change with it.
            load: u32::try_from(load).unwrap_or(0),
            current: Random::new(seed, 7).pick(&[0, 0, 500, 500, 1_000]).unwrap_or(0),
            ..Self::healthy(seed, nodes)
        }
    }

    /// The members of a small fleet, drawn from a seed: 3 to 9.
    #[must_use]
    pub fn small_fleet(seed: u64) -> u32 {
        u32::try_from(Random::new(seed, 6).between(3, 9)).expect("a small number")
    }

    /// Places for copies of data folders.
    pub(super) fn copies(&self) -> u32 {
        if self.clone_every_ms > 0 { TWINS } else { 0 }
    }

    /// What a node does about pages.
    pub(super) fn page_rules(&self, node: u32) -> PageRules {
        if self.everywhere {
            return PageRules { works: true, ..PageRules::default() };
        }
        let current = Random::new(self.seed, 10_000 + u64::from(node)).chance(self.current);
        let retain = if current { Retain::Current } else { Retain::All };
        let (rows, margin) = PAGE;
        PageRules { works: self.current > 0, retain, rows, margin, look_every: PAGE_LOOK }
    }

    /// Whether two voters are named. Where machines are made, the founder has to be enough: they ask the voters.
    pub(super) fn names_voters(&self) -> bool {
        self.current > 0 && self.wants_every_ms == 0 && self.nodes > 3 && self.seed.is_multiple_of(2)
    }

    /// Whether nodes share what they know.
    #[must_use]
    pub fn shares_memo(&self) -> bool {
        self.memo || !self.owns_everything()
    }

    /// Whether every node holds a document and has its views compared.
    #[must_use]
    pub fn owns_everything(&self) -> bool {
        self.nodes <= OWN_EVERYTHING_MAX
    }

    /// Checks every field.
    ///
    /// # Errors
    /// A sentence that names the first field that is out of range.
    pub fn validate(&self) -> Result<(), String> {
        let within = |name: &str, value: u64, low: u64, high: u64| match (low..=high).contains(&value) {
            true => Ok(()),
            false => Err(format!("`{name}` is {value}; it must lie between {low} and {high}")),
        };
        within("nodes", self.nodes.into(), 1, 100_000)?;
        within("hostile", self.hostile.into(), 0, u64::from(self.nodes).saturating_sub(1))?;
        within("safety_ms", self.safety_ms, 0, 86_400_000)?;
        within("liveness_ms", self.liveness_ms, 1, 86_400_000)?;
        within("delay_ms", self.delay_ms.0, 0, self.delay_ms.1)?;
        within("delay_ms", self.delay_ms.1, 1, 60_000)?;
        for (name, permille) in [
            ("loss", self.loss),
            ("duplicate", self.duplicate),
            ("reorder", self.reorder),
            ("hints", self.hints),
            ("current", self.current),
        ] {
            within(name, permille.into(), 0, 1_000)?;
        }
        // What the simulator sees of leases from outside knows a device by one process.
        let most = if self.wants_every_ms > 0 || !self.owns_everything() { 0 } else { u64::MAX };
        within("clone_every_ms", self.clone_every_ms, 0, most)?;
        within("sync_ms_max", self.sync_ms_max, 1, 60_000)?;
        within("work_every_ms", self.work_every_ms, 1, 86_400_000)?;
        within("hostile_every_ms", self.hostile_every_ms, 1, 86_400_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drawn_is_valid_and_varies() {
        let drawn: Vec<_> = (0..200).map(|seed| Options::drawn(seed, 5)).collect();
        assert!(drawn.iter().all(|options| options.validate() == Ok(())));
        let kinds = |o: &Options| [o.crash_every_ms, o.restore_every_ms, o.hostile.into(), o.loss.into()];
        for kind in 0..4 {
            assert!(drawn.iter().any(|o| kinds(o)[kind] == 0), "{kind}");
            assert!(drawn.iter().any(|o| kinds(o)[kind] > 0), "{kind}");
        }
        assert!(Options { nodes: 0, ..Options::healthy(1, 3) }.validate().is_err());
    }
}
