//! Which faults happen when: a schedule drawn from the seed before the run begins.

use super::{options::Options, queue::NodeId, random::Random};

/// A fault, or the end of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A node dies at once, or in the middle of its next write, and starts again after a while.
    Crash { node: NodeId, in_write: bool, away_ms: u64 },
    /// A node that holds a lease dies, for longer than the lease lasts.
    HolderGone { choice: u64, away_ms: u64 },
    /// A process stands still, or its machine is suspended.
    Still { node: NodeId, suspended: bool, for_ms: u64 },
    /// One that has a claim does.
    SpawnerStill { choice: u64, suspended: bool, for_ms: u64 },
    /// A node's data folder is copied, and the copy runs for a while.
    Clone { node: NodeId, for_ms: u64 },
    /// A node is stopped in order.
    Restart { node: NodeId, away_ms: u64 },
    /// Nodes fall into parts.
    Partition(Vec<u8>),
    /// All parts are one again.
    Heal,
    /// One direction carries nothing.
    Cut { from: NodeId, to: NodeId },
    /// It carries again.
    Mend { from: NodeId, to: NodeId },
    /// A connection of a node breaks.
    Reset { node: NodeId, choice: u64 },
    /// A wall clock is off by so many milliseconds from now on.
    Clock { node: NodeId, offset_ms: i64 },
    /// A copy of a disk is kept.
    BackUp { node: NodeId },
    /// A node dies and comes back with that copy.
    Restore { node: NodeId, away_ms: u64 },
    /// The next write of a disk fails.
    DiskFails { node: NodeId },
    /// A node dies and one of its records is unreadable when it is back.
    Damage { node: NodeId, away_ms: u64 },
    /// Gossip tells a node that it lost something.
    HintsLagged { node: NodeId },
}

impl Fault {
    /// The node whose process it is inflicted on, if it needs one that runs.
    pub(super) fn process(&self) -> Option<NodeId> {
        match self {
            Self::Crash { node, .. }
            | Self::Restart { node, .. }
            | Self::Restore { node, .. }
            | Self::DiskFails { node }
            | Self::Damage { node, .. }
            | Self::HintsLagged { node } => Some(*node),
            _ => None,
        }
    }

    /// Its name in a report. The end of a fault is none.
    pub(super) fn name(&self) -> Option<&'static str> {
        match self {
            Self::Crash { in_write: false, .. } => Some("crash"),
            Self::Crash { in_write: true, .. } => Some("crash in a write"),
            Self::Restart { .. } => Some("restart"),
            Self::Partition(_) => Some("partition"),
            Self::Cut { .. } => Some("one-way cut"),
            Self::Reset { .. } => Some("broken connection"),
            Self::Clock { .. } => Some("clock"),
            Self::Restore { .. } => Some("restored disk"),
            Self::DiskFails { .. } => Some("failed write"),
            Self::Damage { .. } => Some("damaged disk"),
            Self::HintsLagged { .. } => Some("hints lost"),
            // Counted where there is a holder, or a process that goes on until then.
            Self::HolderGone { .. } | Self::Still { .. } | Self::SpawnerStill { .. } | Self::Clone { .. } => {
                None
            }
            Self::Heal | Self::Mend { .. } | Self::BackUp { .. } => None,
        }
    }
}

/// Ten years.
pub(super) const CLOCK_OFF_MS_MAX: i64 = 10 * 366 * 86_400_000;

/// Draws faults for a moment.
type Make<'a> = dyn FnMut(&mut Random, u64, &mut Vec<(u64, Fault)>) + 'a;

/// All faults of a run, each with its moment.
pub(super) fn schedule(options: &Options, nodes: u32) -> Vec<(u64, Fault)> {
    let mut random = Random::new(options.seed, 3);
    let mut faults = Vec::new();
    let node = |random: &mut Random| NodeId::try_from(random.below(nodes.into())).expect("a node's number");
    let mut every = |pause: u64, make: &mut Make| {
        if pause == 0 {
            return;
        }
        let mut at = random.between(0, pause);
        while at < options.safety_ms {
            make(&mut random, at, &mut faults);
            at += random.between(pause / 2 + 1, pause * 3 / 2 + 1);
        }
    };
    every(options.crash_every_ms, &mut |random, at, faults| {
        let (node, in_write) = (node(random), random.chance(500));
        faults.push((at, Fault::Crash { node, in_write, away_ms: random.between(100, 8_000) }));
    });
    every(options.restart_every_ms, &mut |random, at, faults| {
        let away_ms = random.between(100, 5_000);
        faults.push((at, Fault::Restart { node: node(random), away_ms }));
    });
    every(options.partition_every_ms, &mut |random, at, faults| {
        let parts = random.between(2, 3);
        let part = |random: &mut Random| u8::try_from(random.below(parts)).expect("two or three");
        faults.push((at, Fault::Partition((0..nodes).map(|_| part(random)).collect())));
        faults.push((at + random.between(500, 15_000), Fault::Heal));
    });
    every(options.cut_every_ms, &mut |random, at, faults| {
        let (from, to) = (node(random), node(random));
        if from != to {
            faults.push((at, Fault::Cut { from, to }));
            faults.push((at + random.between(500, 12_000), Fault::Mend { from, to }));
        }
    });
    every(options.reset_every_ms, &mut |random, at, faults| {
        let fault = if random.chance(800) {
            Fault::Reset { node: node(random), choice: random.next() }
        } else {
            Fault::HintsLagged { node: node(random) }
        };
        faults.push((at, fault));
    });
    every(options.clock_every_ms, &mut |random, at, faults| {
        let span = random.below(2 * CLOCK_OFF_MS_MAX.unsigned_abs());
        let offset_ms = i64::try_from(span).expect("twenty years") - CLOCK_OFF_MS_MAX;
        faults.push((at, Fault::Clock { node: node(random), offset_ms }));
    });
    every(options.restore_every_ms, &mut |random, at, faults| {
        let node = node(random);
        faults.push((at, Fault::BackUp { node }));
        let back = at + random.between(1_000, 20_000);
        faults.push((back, Fault::Restore { node, away_ms: random.between(100, 5_000) }));
    });
    every(options.disk_every_ms, &mut |random, at, faults| {
        faults.push((at, Fault::DiskFails { node: node(random) }));
    });
    every(options.damage_every_ms, &mut |random, at, faults| {
        faults.push((at, Fault::Damage { node: node(random), away_ms: random.between(100, 5_000) }));
    });
    if options.wants_every_ms > 0 {
        // Longer than a lease lasts.
        every(30_000, &mut |random, at, faults| {
            let (choice, away_ms) = (random.next(), random.between(50_000, 70_000));
            faults.push((at, Fault::HolderGone { choice, away_ms }));
        });
    }
    every(options.still_every_ms, &mut |random, at, faults| {
        let (node, suspended) = (node(random), random.chance(500));
        // Some are so short that peers do not notice.
        let for_ms =
            if random.chance(300) { random.between(50, 2_000) } else { random.between(2_000, 20_000) };
        faults.push((at, Fault::Still { node, suspended, for_ms }));
    });
    if options.wants_every_ms > 0 && options.still_every_ms > 0 {
        every(20_000, &mut |random, at, faults| {
            let (choice, suspended) = (random.next(), random.chance(500));
            // Longer than a claim may stand still, or longer than a lease lasts.
            let long = random.chance(400);
            let for_ms = if long { random.between(16_000, 50_000) } else { random.between(1_100, 6_000) };
            faults.push((at, Fault::SpawnerStill { choice, suspended, for_ms }));
        });
    }
    every(options.clone_every_ms, &mut |random, at, faults| {
        faults.push((at, Fault::Clone { node: node(random), for_ms: random.between(3_000, 20_000) }));
    });
    faults.retain(|(at, _)| *at < options.safety_ms);
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_follows_from_its_seed() {
        let options = |seed| Options::drawn(seed, 5);
        assert_eq!(schedule(&options(1), 5), schedule(&options(1), 5));
        assert_ne!(schedule(&options(1), 5), schedule(&options(2), 5));
        assert!(schedule(&Options::healthy(1, 5), 5).is_empty());
    }
}
