//! Calls of the demo's function: a crowd that makes it wait, and a few that go on while the machine goes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::super::calls::{Caller, Target};
use crate::exit::Failure;

/// How long a call of the crowd is to take, about.
const CALL: Duration = Duration::from_millis(15);
/// Samples of the first call, and the most.
const SAMPLES: (usize, usize) = (2_000, 8_000);
/// Failures whose words are kept.
const SAID_MAX: usize = 3;

/// What calls came to.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Tally {
    pub(super) made: u64,
    pub(super) failed: u64,
    pub(super) relayed: u64,
    pub(super) slowest_ms: u64,
    /// What the first failures said.
    pub(super) said: Vec<String>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.made += other.made;
        self.failed += other.failed;
        self.relayed += other.relayed;
        self.slowest_ms = self.slowest_ms.max(other.slowest_ms);
        self.said.extend(other.said);
        self.said.truncate(SAID_MAX);
    }
}

/// Callers that go on until they are stopped.
pub(super) struct Load {
    stop: watch::Sender<bool>,
    callers: Vec<JoinHandle<Tally>>,
}

fn samples(count: usize) -> String {
    let sample = r#"{"cpu_percent":12.5,"memory_used":1000,"memory_total":4000,"load1":0.25}"#;
    format!(r#"{{"samples":[{}]}}"#, vec![sample; count].join(","))
}

/// A body with which a call takes about [`CALL`] on this machine: bytes, and what the last call took.
pub(super) async fn heavy(address: SocketAddr) -> Result<(String, Duration), Failure> {
    let failed = |why: String| Failure::failed(format!("A call failed without any load: {why}."));
    let mut count = SAMPLES.0;
    let mut took = Duration::ZERO;
    for _ in 0..3 {
        let body = samples(count);
        let began = Instant::now();
        Caller::new(address).call(Target::Summary, body).await.map_err(failed)?;
        took = began.elapsed();
        let factor = CALL.as_secs_f64() / took.as_secs_f64().max(1e-4);
        count = ((count as f64 * factor) as usize).clamp(SAMPLES.0 / 4, SAMPLES.1);
    }
    Ok((samples(count), took))
}

impl Load {
    /// So many callers of each address, each with a pause between its calls.
    pub(super) fn start(addresses: &[SocketAddr], callers: usize, body: &str, pause: Duration) -> Self {
        let (stop, stopped) = watch::channel(false);
        let body: Arc<str> = body.into();
        let each = addresses.iter().flat_map(|address| std::iter::repeat_n(*address, callers));
        let callers = each.map(|address| {
            let (stopped, body) = (stopped.clone(), Arc::clone(&body));
            tokio::spawn(async move {
                let mut tally = Tally::default();
                while !*stopped.borrow() {
                    let began = Instant::now();
                    tally.made += 1;
                    match Caller::new(address).call(Target::Summary, body.to_string()).await {
                        Ok(answer) => tally.relayed += u64::from(answer.relayed),
                        Err(why) => {
                            tally.failed += 1;
                            if tally.said.len() < SAID_MAX {
                                tally.said.push(why);
                            }
                        }
                    }
                    let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                    tally.slowest_ms = tally.slowest_ms.max(took);
                    tokio::time::sleep(pause).await;
                }
                tally
            })
        });
        let callers = callers.collect();
        Self { stop, callers }
    }

    pub(super) fn light() -> String {
        samples(1)
    }

    pub(super) async fn end(self) -> Tally {
        let _ = self.stop.send(true);
        let mut all = Tally::default();
        for caller in self.callers {
            if let Ok(tally) = caller.await {
                all.add(tally);
            }
        }
        all
    }
}
