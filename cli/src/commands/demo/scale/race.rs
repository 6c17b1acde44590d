//! Two members that ask for one machine at the same moment: one lease, one winner, one machine.

use std::time::{Duration, Instant};

use osiris_fleet::api::{LeaseWant, Leases};

use super::super::fleet::{Fleet, Node};
use super::PATIENCE;
use super::target::Target;
use crate::client::Patience;
use crate::exit::Failure;

/// The nodes that may make machines, by their place.
const SPAWNERS: [usize; 2] = [1, 2];
const LOOK: Duration = Duration::from_millis(25);
/// How often both are asked, until both claim.
pub(super) const ATTEMPTS: u32 = 4;
/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(5);

/// Both claim the slot, the one that draws lower makes its machine, and that is taken away again. `claimed` is who
/// claimed, the winner first. Where the one heard of the other's claim in time, and so made none, both are asked again.
pub(super) async fn run(
    fleet: &Fleet,
    target: &Target,
    claimed: &mut Vec<String>,
) -> Result<((), String), Failure> {
    for attempt in 1..=ATTEMPTS {
        claimed.clear();
        let after = once(fleet, target, claimed).await?;
        if let [winner, losers @ ..] = claimed.as_slice()
            && !losers.is_empty()
        {
            let again = if attempt == 1 { String::new() } else { format!(" (attempt {attempt})") };
            return Ok((
                (),
                format!(
                    "{winner} won after {:.1} s, {} lost by its draw{again}; one machine, gone again",
                    after.as_secs_f64(),
                    losers.join(", "),
                ),
            ));
        }
    }
    Err(Failure::failed(format!("In {ATTEMPTS} attempts never two members claimed at once: {claimed:?}.")))
}

/// Whether no node knows of a machine.
async fn nobody_sees_one(fleet: &Fleet) -> Result<bool, Failure> {
    for place in 0..fleet.nodes().len() {
        let leases: Leases = fleet.client(place).await?.get("/v1/leases").await?;
        if leases.slots.iter().any(|slot| !slot.machines.is_empty()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// One slot, from two wishes to a machine that went again; when its claim had won.
async fn once(fleet: &Fleet, target: &Target, claimed: &mut Vec<String>) -> Result<Duration, Failure> {
    let [first, second] = SPAWNERS;
    let (first, second) = (fleet.client(first).await?, fleet.client(second).await?);
    let want = LeaseWant::default();
    let (one, other) = tokio::join!(
        first.post::<Leases>("/v1/leases/want", &want, Patience::exactly(ANSWER)),
        second.post::<Leases>("/v1/leases/want", &want, Patience::exactly(ANSWER)),
    );
    // The second may have heard of the first's claim in time, and then claims nothing.
    one.or(other)?;
    let began = Instant::now();
    let mut machines_max = 0;
    let (mut retired, mut won) = (false, None);
    loop {
        let leases: Leases = first.get("/v1/leases").await?;
        for slot in &leases.slots {
            // Those that lost say so, and are no more in it.
            if slot.by.len() > claimed.len() {
                claimed.clone_from(&slot.by);
            }
        }
        let machines: Vec<_> = leases.slots.iter().flat_map(|slot| &slot.machines).collect();
        machines_max = machines_max.max(target.machines().await?.len()).max(machines.len());
        match machines.first() {
            Some(machine) => {
                won.get_or_insert_with(|| (machine.by.clone(), began.elapsed()));
                if !machine.device.is_empty() && !retired {
                    let made_by = |node: &Node| node.label() == machine.by;
                    let maker = fleet.nodes().iter().position(made_by);
                    let maker = maker.ok_or_else(|| Failure::failed("No node of the demo made it."))?;
                    let name = format!("0-{}", machine.round);
                    fleet.osiris(&fleet.folder(maker + 1), &["lease", "retire", &name]).await?;
                    retired = true;
                }
            }
            // Others may hear a moment later that it is gone; what is watched next is not to see it.
            None if retired && target.left().await?.is_empty() && nobody_sees_one(fleet).await? => break,
            None => {}
        }
        if began.elapsed() >= PATIENCE {
            return Err(Failure::timed_out(format!(
                "Of two claims came no machine that went again: {leases:?}."
            )));
        }
        tokio::time::sleep(LOOK).await;
    }
    let (winner, after) = won.ok_or_else(|| Failure::failed("Nobody won."))?;
    if machines_max != 1 || claimed.first() != Some(&winner) {
        return Err(Failure::failed(format!(
            "{claimed:?} claimed, {winner} made a machine, and there were {machines_max} at one time."
        )));
    }
    Ok(after)
}
