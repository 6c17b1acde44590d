//! What is called in a day: a curve that people's days have, bursts on it, and chance.
//!
//! Only whole numbers, `+ - * /` and square roots are used, which are the same on every machine.

use crate::sim::random::Random;

/// Steps of the model a second: calls come, begin and end at steps.
pub(in crate::sim) const STEPS_A_SECOND: u64 = 4;
/// Milliseconds of a step.
pub(in crate::sim) const STEP_MS: u64 = 1_000 / STEPS_A_SECOND;

/// Load at each hour of a day, percent of the busiest: a night, a rise in the morning, a plateau, an evening peak.
const HOURS: [u64; 24] =
    [30, 24, 20, 18, 18, 22, 32, 48, 66, 80, 90, 95, 96, 94, 92, 92, 93, 95, 98, 100, 94, 80, 60, 42];
/// Bursts of one function in a day.
const BURSTS: u64 = 10;
/// Bursts of all functions at once in a day.
const SHARED_BURSTS: u64 = 6;

/// A function that is called, and what its calls take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sim) struct Shape {
    /// Calls that one replica runs side by side.
    pub(in crate::sim) side_by_side: u64,
    /// Steps that a call runs.
    pub(in crate::sim) steps: u64,
    /// Replicas that are busy at the top of the curve, in thousandths.
    pub(in crate::sim) peak: u64,
    /// By how many thousandths of a day its curve is later than the others'.
    pub(in crate::sim) late: u64,
    /// Whether nobody calls it at night.
    pub(in crate::sim) sleeps: bool,
}

impl Shape {
    /// Shapes for so many functions, where so many members may serve each: at the top of its curve each needs a
    /// quarter more than these.
    pub(in crate::sim) fn drawn(seed: u64, functions: u64, hosts: u64) -> Vec<Self> {
        let mut random = Random::new(seed, 20);
        let shape = |number: u64| Self {
            side_by_side: 4,
            steps: random.pick(&[4, 8, 12]).unwrap_or(8),
            peak: hosts * random.between(1_150, 1_350),
            late: random.below(120),
            sleeps: number == 1,
        };
        (0..functions).map(shape).collect()
    }

    /// The curve at a moment of the day, thousandths of its top.
    fn curve(&self, at: u64, day: u64) -> u64 {
        let place = (at * 1_000 / day + 1_000 - self.late) % 1_000;
        let (hour, part) = (place * 24 / 1_000, place * 24 % 1_000);
        let of = |hour: u64| HOURS[usize::try_from(hour % 24).expect("an hour")];
        let load = of(hour) * (1_000 - part) + of(hour + 1) * part;
        match self.sleeps {
            // What is below a third of the top is nothing.
            true => (load / 100).saturating_sub(333) * 3 / 2,
            false => load / 100,
        }
    }
}

/// More calls than usual, for a while.
#[derive(Clone, Copy, Debug)]
struct Burst {
    from: u64,
    rise: u64,
    hold: u64,
    fall: u64,
    /// Thousandths of the top of the curve.
    height: u64,
}

impl Burst {
    fn drawn(random: &mut Random, day: u64) -> Self {
        // Where a day is shorter, so are its bursts; but none is shorter than a machine takes to be there.
        let scale = |seconds: u64| (seconds * STEPS_A_SECOND * day / (86_400 * STEPS_A_SECOND)).max(1);
        Self {
            from: random.below(day),
            rise: random.between(5, 120) * STEPS_A_SECOND,
            hold: scale(random.between(300, 1_800)).max(180 * STEPS_A_SECOND),
            fall: scale(random.between(60, 600)),
            height: random.between(150, 500),
        }
    }

    fn at(&self, at: u64) -> u64 {
        let Some(since) = at.checked_sub(self.from) else { return 0 };
        if since < self.rise {
            return self.height * since / self.rise;
        }
        let over = since.saturating_sub(self.rise + self.hold);
        self.height * self.fall.saturating_sub(over) / self.fall
    }
}

/// Calls that come at each step, for each function.
#[derive(Debug)]
pub(in crate::sim) struct Demand {
    pub(in crate::sim) shapes: Vec<Shape>,
    /// By function, then by step.
    pub(in crate::sim) calls: Vec<Vec<u32>>,
    /// When bursts of all functions begin, milliseconds.
    pub(in crate::sim) bursts_ms: Vec<u64>,
}

impl Demand {
    /// A day of so many steps.
    pub(in crate::sim) fn drawn(seed: u64, shapes: Vec<Shape>, day: u64) -> Self {
        let mut random = Random::new(seed, 21);
        let shared: Vec<_> = (0..SHARED_BURSTS).map(|_| Burst::drawn(&mut random, day)).collect();
        let calls = shapes.iter().map(|shape| {
            let own = (0..BURSTS).map(|_| Burst::drawn(&mut random, day)).collect::<Vec<_>>();
            let bursts: Vec<_> = own.into_iter().chain(shared.iter().copied()).collect();
            let mut carry = 0.0;
            (0..day).map(|at| Self::draw(shape, &bursts, at, day, &mut random, &mut carry)).collect()
        });
        let calls = calls.collect();
        Self { calls, bursts_ms: shared.iter().map(|burst| burst.from * STEP_MS).collect(), shapes }
    }

    /// The calls of one step: about as many as the curve says, scattered as those of many callers are.
    fn draw(shape: &Shape, bursts: &[Burst], at: u64, day: u64, random: &mut Random, carry: &mut f64) -> u32 {
        let curve = shape.curve(at, day);
        // Nobody bursts out at night.
        let burst: u64 = bursts.iter().map(|burst| burst.at(at)).max().filter(|_| curve > 0).unwrap_or(0);
        let busy = shape.peak * (curve + burst) / 1_000;
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let mean = (busy * shape.side_by_side) as f64 / (1_000 * shape.steps) as f64;
        // A sum of uniform numbers is near to a normal one; for many callers so is the number of their calls.
        let dice: u64 = (0..4).map(|_| random.below(1_000_000)).sum();
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let normal = (dice as f64 / 1_000_000.0 - 2.0) * 1.732;
        *carry += mean + normal * mean.sqrt();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative, and small"
        )]
        let calls = carry.max(0.0) as u32;
        *carry -= f64::from(calls);
        // What chance takes away now it need not give back later.
        *carry = carry.max(-1.0 - mean.sqrt());
        calls
    }

    /// Calls in all.
    pub(in crate::sim) fn sum(&self, function: usize) -> u64 {
        self.calls[function].iter().map(|calls| u64::from(*calls)).sum()
    }

    /// Replicas that one function keeps busy, averaged over windows of so many steps, rounded up.
    pub(in crate::sim) fn needed(&self, function: usize, window: usize) -> Vec<u64> {
        let Shape { side_by_side, steps, .. } = self.shapes[function];
        let windows = self.calls[function].chunks(window);
        let busy = |calls: &[u32]| calls.iter().map(|calls| u64::from(*calls)).sum::<u64>() * steps;
        windows.map(|calls| busy(calls).div_ceil(side_by_side * calls.len() as u64)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400 * STEPS_A_SECOND;

    #[test]
    fn a_day_has_a_night_and_a_peak_above_what_members_can_serve() {
        let hosts = 12;
        let demand = Demand::drawn(7, Shape::drawn(7, 3, hosts), DAY);
        let minute = usize::try_from(60 * STEPS_A_SECOND).expect("small");
        for function in 0..3 {
            let needed = demand.needed(function, minute);
            let most = needed.iter().max().copied().unwrap_or(0);
            let least = needed.iter().min().copied().unwrap_or(0);
            assert!(most > hosts && most < 3 * hosts, "{most}");
            assert!(least * 3 <= most, "{least} of {most}");
            assert_eq!(function == 1, least == 0, "one function sleeps");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_day_and_another_another() {
        let day = |seed| Demand::drawn(seed, Shape::drawn(1, 2, 4), 40_000).calls;
        assert_eq!(day(1), day(1));
        assert_ne!(day(1), day(2));
    }

    #[test]
    fn as_many_calls_come_as_the_curve_says() {
        let shape = Shape { side_by_side: 4, steps: 8, peak: 10_000, late: 0, sleeps: false };
        let mut random = Random::new(3, 0);
        let mut carry = 0.0;
        let flat = Shape { late: 0, ..shape };
        // At the place of the day where the curve is at its top: 10 busy replicas, 40 calls at once, 5 a step.
        let at = DAY * 19 / 24;
        let calls: u64 =
            (0..10_000).map(|_| u64::from(Demand::draw(&flat, &[], at, DAY, &mut random, &mut carry))).sum();
        assert!((48_000..=52_000).contains(&calls), "{calls}");
    }
}
