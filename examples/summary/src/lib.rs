//! Statistics over samples of a node: how often, least, mean, 95th percentile, most.
//!
//! ```json
//! {"samples": [{"cpu_percent": 12.5, "memory_used": 1073741824, "memory_total": 4294967296, "load1": 0.4}]}
//! ```
//!
//! A field that a sample lacks is left out of that field's statistics.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Which build this is; the demo deploys a second one in place of the first.
#[cfg(not(feature = "v2"))]
pub const REVISION: u32 = 1;
/// Which build this is; the demo deploys a second one in place of the first.
#[cfg(feature = "v2")]
pub const REVISION: u32 = 2;

/// What a call is given.
#[derive(Deserialize)]
pub struct Input {
    samples: Vec<Sample>,
}

#[derive(Deserialize)]
struct Sample {
    cpu_percent: Option<f64>,
    memory_used: Option<f64>,
    memory_total: Option<f64>,
    load1: Option<f64>,
}

/// What a call answers.
#[derive(Serialize)]
pub struct Summary {
    revision: u32,
    fields: BTreeMap<&'static str, Statistics>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Statistics {
    count: usize,
    min: f64,
    mean: f64,
    p95: f64,
    max: f64,
    #[cfg(feature = "v2")]
    deviation: f64,
}

impl Statistics {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.retain(|v| v.is_finite());
        values.sort_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        let count = values.len();
        let mean = values.iter().sum::<f64>() / count as f64;
        // The smallest value that at least 95 of 100 do not exceed (the nearest-rank method).
        let p95 = values[(count * 95).div_ceil(100) - 1];
        Some(Self {
            count,
            min,
            mean,
            p95,
            max,
            #[cfg(feature = "v2")]
            deviation: (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count as f64).sqrt(),
        })
    }
}

/// Answers one call.
///
/// # Errors
///
/// There are no samples.
pub fn summarize(input: Input) -> Result<Summary, String> {
    if input.samples.is_empty() {
        return Err("give at least one sample".to_owned());
    }
    let column = |field: fn(&Sample) -> Option<f64>| input.samples.iter().filter_map(field).collect();
    let columns: [(_, Vec<f64>); 4] = [
        ("cpu_percent", column(|s| s.cpu_percent)),
        ("memory_used", column(|s| s.memory_used)),
        ("memory_total", column(|s| s.memory_total)),
        ("load1", column(|s| s.load1)),
    ];
    let fields =
        columns.into_iter().filter_map(|(name, values)| Some((name, Statistics::of(values)?))).collect();
    println!("summarized {} samples", input.samples.len());
    Ok(Summary { revision: REVISION, fields })
}

osiris_function::function!(summarize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_right() {
        let values = (1..=100).rev().map(f64::from).collect();
        let found = Statistics::of(values).expect("there are values");
        assert_eq!((found.count, found.min, found.mean, found.p95, found.max), (100, 1.0, 50.5, 95.0, 100.0));
        assert_eq!(Statistics::of(vec![]), None);
        assert_eq!(Statistics::of(vec![7.0]).map(|s| s.p95), Some(7.0));
    }

    #[test]
    fn absent_fields_are_left_out() {
        let text = r#"{"samples":[{"cpu_percent":10,"load1":1},{"cpu_percent":30}]}"#;
        let summary = summarize(serde_json::from_str(text).expect("valid")).expect("two samples");
        let json = serde_json::to_value(summary).expect("serializes");
        assert_eq!(json["revision"], REVISION);
        assert_eq!(json["fields"]["cpu_percent"]["mean"], 20.0);
        assert_eq!(json["fields"]["load1"]["count"], 1);
        assert!(json["fields"].get("memory_used").is_none());
        assert_eq!(json["fields"]["cpu_percent"].get("deviation").is_some(), cfg!(feature = "v2"));
    }

    #[test]
    fn no_samples_is_an_error() {
        assert!(summarize(Input { samples: vec![] }).is_err());
    }
}
