//! What is measured, in which order, and what it is compared with.

use serde::Serialize;

use super::load::Loaded;

/// Connections of a measure that is about throughput.
pub(super) const MANY: usize = 32;

/// One measure. A round takes all of them in this order, so that a floor and its subject see the same
/// machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Measure {
    FloorOne,
    LocalOne,
    FloorMany,
    LocalMany,
    NativeFloorOne,
    NativeOne,
    NativeFloorMany,
    NativeMany,
    Echo,
    Relayed,
}

/// What a measure is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ratio {
    /// Requests a second, of those of another: the more the better.
    Rate(Measure),
    /// Median latency, of the sum of others': the less the better.
    Latency(&'static [Measure]),
}

impl Measure {
    pub(super) const ALL: [Self; 10] = [
        Self::FloorOne,
        Self::LocalOne,
        Self::FloorMany,
        Self::LocalMany,
        Self::NativeFloorOne,
        Self::NativeOne,
        Self::NativeFloorMany,
        Self::NativeMany,
        Self::Echo,
        Self::Relayed,
    ];

    /// What it is, for people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::FloorOne | Self::FloorMany => "hyper, no function",
            Self::LocalOne | Self::LocalMany => "wasi:http call",
            Self::NativeFloorOne | Self::NativeFloorMany => "hyper, no function, POST",
            Self::NativeOne | Self::NativeMany => "native call, POST",
            Self::Echo => "iroh echo, no HTTP",
            Self::Relayed => "relayed wasi:http call",
        }
    }

    pub(super) fn connections(self) -> usize {
        match self {
            Self::FloorMany | Self::LocalMany | Self::NativeFloorMany | Self::NativeMany => MANY,
            _ => 1,
        }
    }

    pub(super) fn ratio(self) -> Option<Ratio> {
        match self {
            Self::LocalOne => Some(Ratio::Latency(&[Self::FloorOne])),
            Self::LocalMany => Some(Ratio::Rate(Self::FloorMany)),
            Self::NativeOne => Some(Ratio::Latency(&[Self::NativeFloorOne])),
            Self::NativeMany => Some(Ratio::Rate(Self::NativeFloorMany)),
            Self::Relayed => Some(Ratio::Latency(&[Self::Echo, Self::LocalOne])),
            _ => None,
        }
    }

    /// The aim for the ratio. A native call has none.
    pub(super) fn aim(self) -> Option<f64> {
        match self {
            Self::LocalOne => Some(1.25),
            Self::LocalMany => Some(0.30),
            Self::Relayed => Some(1.5),
            _ => None,
        }
    }

    /// Whether a ratio meets the aim.
    pub(super) fn met(self, ratio: f64) -> Option<bool> {
        let aim = self.aim()?;
        Some(match self.ratio()? {
            Ratio::Rate(_) => ratio >= aim,
            Ratio::Latency(_) => ratio <= aim,
        })
    }
}

/// One measure of one round.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Sample {
    pub(super) requests_per_s: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    /// CPU time of the processes that answer, for each request. `None` where `/proc` does not say.
    pub(super) server_cpu_us: Option<f64>,
    /// CPU time of the load generator, of all that the machine has.
    pub(super) load_cpu_percent: f64,
    /// CPU time of everything else on the machine, likewise.
    pub(super) others_cpu_percent: Option<f64>,
}

/// One round: a sample for each of [`Measure::ALL`].
#[derive(Clone, Debug, Default)]
pub(super) struct Round(Vec<Sample>);

impl Round {
    /// Takes the next measure's sample.
    pub(super) fn push(&mut self, sample: Sample) {
        self.0.push(sample);
    }

    fn of(&self, measure: Measure) -> Option<&Sample> {
        self.0.get(measure as usize)
    }

    fn ratio(&self, measure: Measure) -> Option<f64> {
        let own = self.of(measure)?;
        match measure.ratio()? {
            Ratio::Rate(base) => Some(own.requests_per_s / self.of(base)?.requests_per_s),
            Ratio::Latency(bases) => {
                let sum: Option<f64> = bases.iter().map(|base| Some(self.of(*base)?.p50_us)).sum();
                Some(own.p50_us / sum?)
            }
        }
    }
}

/// A ratio over the rounds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Compared {
    /// The median of the rounds' ratios.
    pub(super) ratio: f64,
    pub(super) least: f64,
    pub(super) most: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) aim: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) met: Option<bool>,
    /// In how many rounds it was met.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) met_rounds: Option<usize>,
}

/// A measure over the rounds, each figure the median of its own.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) measure: Measure,
    pub(super) connections: usize,
    #[serde(flatten)]
    pub(super) median: Sample,
    #[serde(flatten)]
    pub(super) compared: Option<Compared>,
    pub(super) rounds: Vec<Sample>,
}

/// The middle one, or the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = if values.len().is_multiple_of(2) { *values.get(values.len() / 2 - 1)? } else { upper };
    Some(f64::midpoint(lower, upper))
}

/// All measures over the rounds.
pub(super) fn rows(rounds: &[Round]) -> Vec<Row> {
    Measure::ALL.into_iter().filter_map(|measure| row(measure, rounds)).collect()
}

fn row(measure: Measure, rounds: &[Round]) -> Option<Row> {
    let samples: Vec<Sample> = rounds.iter().filter_map(|round| round.of(measure).copied()).collect();
    let of = |figure: fn(&Sample) -> f64| median(samples.iter().map(figure).collect());
    let some = |figure: fn(&Sample) -> Option<f64>| median(samples.iter().filter_map(figure).collect());
    let ratios: Vec<f64> = rounds.iter().filter_map(|round| round.ratio(measure)).collect();
    let compared = median(ratios.clone()).map(|ratio| Compared {
        ratio,
        least: ratios.iter().copied().fold(f64::INFINITY, f64::min),
        most: ratios.iter().copied().fold(0.0, f64::max),
        aim: measure.aim(),
        met: measure.met(ratio),
        met_rounds: measure.aim().map(|_| ratios.iter().filter(|r| measure.met(**r) == Some(true)).count()),
    });
    Some(Row {
        measure,
        connections: measure.connections(),
        median: Sample {
            requests_per_s: of(|sample| sample.requests_per_s)?,
            p50_us: of(|sample| sample.p50_us)?,
            p99_us: of(|sample| sample.p99_us)?,
            server_cpu_us: some(|sample| sample.server_cpu_us),
            load_cpu_percent: of(|sample| sample.load_cpu_percent)?,
            others_cpu_percent: some(|sample| sample.others_cpu_percent),
        },
        compared,
        rounds: samples,
    })
}

/// CPU seconds while a measure ran, and how long it was.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spent {
    /// By the processes that answer.
    pub(super) servers: Option<f64>,
    /// By everything but them; the load generator is in it.
    pub(super) rest: Option<f64>,
    pub(super) seconds: f64,
    pub(super) cores: usize,
}

impl Sample {
    /// From what the load generator measured and what the processes took.
    pub(super) fn new(loaded: &Loaded, spent: Spent) -> Self {
        let cores = spent.cores as f64;
        let load = loaded.cpu_ms / 1e3;
        // The load generator's own time is of the window that counts; outside it works alike.
        let load_all = load * loaded.requests_all as f64 / loaded.requests.max(1) as f64;
        let others = spent.rest.map(|rest| (rest - load_all).max(0.0));
        Self {
            requests_per_s: loaded.requests as f64 / loaded.seconds,
            p50_us: loaded.p50_us,
            p99_us: loaded.p99_us,
            server_cpu_us: spent.servers.map(|s| s * 1e6 / loaded.requests_all.max(1) as f64),
            load_cpu_percent: 100.0 * load / (loaded.seconds * cores),
            others_cpu_percent: others.map(|s| 100.0 * s / (spent.seconds * cores)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(scale: f64) -> Round {
        let mut round = Round::default();
        for (at, _) in Measure::ALL.iter().enumerate() {
            round.push(Sample {
                requests_per_s: scale * (at + 1) as f64,
                p50_us: scale * (at + 1) as f64,
                p99_us: 1.0,
                server_cpu_us: None,
                load_cpu_percent: 1.0,
                others_cpu_percent: Some(0.0),
            });
        }
        round
    }

    #[test]
    fn measures_are_found_by_their_place() {
        for (at, measure) in Measure::ALL.into_iter().enumerate() {
            assert_eq!(measure as usize, at);
        }
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // A machine that is ten times as slow in one round changes no ratio.
        let rows = rows(&[round(1.0), round(0.1), round(1.0)]);
        let of = |measure: Measure| rows[measure as usize].compared.expect("a ratio");
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        let many = of(Measure::LocalMany);
        assert!(near(many.ratio, 4.0 / 3.0) && near(many.least, many.most) && many.met == Some(true));
        let relayed = of(Measure::Relayed);
        assert!(near(relayed.ratio, 10.0 / 11.0) && relayed.met == Some(true));
        let local = of(Measure::LocalOne);
        assert!(near(local.ratio, 2.0) && local.met == Some(false));
        assert_eq!((many.met_rounds, local.met_rounds), (Some(3), Some(0)));
        assert_eq!((of(Measure::NativeMany).met, of(Measure::NativeMany).met_rounds), (None, None));
        assert!(rows[Measure::Echo as usize].compared.is_none());
        assert!(near(rows[Measure::LocalOne as usize].median.p50_us, 2.0));
    }

    #[test]
    fn the_median_of_an_even_number_is_between() {
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(vec![9.0, 1.0, 3.0]), Some(3.0));
        assert_eq!(median(Vec::new()), None);
    }
}
