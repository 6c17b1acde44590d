//! A wish for a machine, and the claim that it becomes.

use osiris_ledger::{BlockId, Now, Payload, Role, lease::draw, op};

use super::{
    super::{Node, Refusal},
    Own,
    delay::Measure,
    rule::{self, Mine, Phase},
};

use crate::api::codes;

/// What is wanted of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// One more machine, in the first slot that is free and has none.
    Machine,
    /// This slot, to look after the machines that are there.
    Slot(u32),
    /// The machine of this intent gone.
    Gone(BlockId),
}

impl Node {
    /// Claims a slot, where that may come to something. What became of it is seen in
    /// [`super::super::Query::Leases`].
    pub(in super::super) fn want(&mut self, now: Now, want: Want) {
        if let Err(why) = self.claim(now, want, &[], false) {
            self.leases.says = Some(why);
        }
    }

    /// Claims a slot for a machine that serves one function, and is taken away when that needs it no more. A claim made
    /// `ahead` is given up once it could win, unless the machine is wanted by then.
    pub(in super::super) fn want_machine_for(
        &mut self,
        now: Now,
        function: &str,
        ahead: bool,
    ) -> Result<(), String> {
        let claimed = self.claim(now, Want::Machine, &[function.to_owned()], ahead);
        if let Err(why) = &claimed {
            self.leases.says = Some(why.clone());
        }
        claimed
    }

    /// The same for somebody who waits for an answer.
    pub(in super::super) fn ask_for(&mut self, now: Now, want: Want) -> Result<(), Refusal> {
        let denied = !matches!(want, Want::Gone(_)) && !self.may_spawn();
        self.claim(now, want, &[], false).map_err(|why| match denied {
            true => {
                let next = "Ask an admin to run `osiris role grant MEMBER spawner`.";
                Refusal::new(codes::DENIED, why, next)
            }
            false => Refusal::new(codes::CONFLICT, why, "`osiris lease ls` shows the slots."),
        })
    }

    fn claim(&mut self, now: Now, want: Want, functions: &[String], ahead: bool) -> Result<(), String> {
        if let Want::Gone(intent) = want {
            return self.dismiss(intent);
        }
        self.may_spawn_here()?;
        if want == Want::Machine
            && let Some(own) = self.leases.own.values_mut().find(|own| own.ahead)
        {
            own.ahead = ahead;
            own.functions = functions.to_vec();
            return Ok(());
        }
        self.may_claim()?;
        self.has_voters()?;
        let number = match want {
            Want::Gone(_) => return Ok(()),
            Want::Slot(number) if number < self.slots_max() => number,
            Want::Slot(number) => return Err(format!("Slot {number} is not among those that are allowed.")),
            Want::Machine => {
                self.leases.machines.must_wait(now.mono)?;
                let (there, max) = (self.machines(), self.machines_max());
                if there >= max {
                    return Err(format!(
                        "There are {there} machines already, and at most {max} are allowed."
                    ));
                }
                let has_machines =
                    |slot: &u32| self.view.slots().get(slot).is_some_and(|slot| !slot.machines.is_empty());
                let mut free = (0..self.slots_max()).filter(|slot| !has_machines(slot));
                let free = free.find(|slot| !self.is_claimed(now, *slot));
                free.ok_or("Every slot without a machine is claimed at the moment.")?
            }
        };
        if self.is_claimed(now, number) {
            return Err(format!("Slot {number} is claimed at the moment."));
        }
        let said = self.view.slots().get(&number);
        let (round, after) = said.map_or((1, None), |slot| (slot.next, slot.after));
        let takes_over = said.is_some_and(|slot| slot.holder().is_some());
        let claimed = Payload::Claimed(op::Claimed { slot: number, round, after });
        let block = self.append(now, claimed).map_err(|refusal| refusal.message)?;
        let spawners: Vec<_> = self.sync.peers().filter(|peer| self.is_spawner(peer)).copied().collect();
        let delay = self.leases.delays.least(self.active_members());
        let mine = Mine {
            round,
            lot: (draw(number, round, &self.me), block.id()),
            at: now.mono,
            since: now.mono,
            settle: self.leases.terms.settle(delay),
            looked: now.mono,
            renewed: now.mono,
            phase: Phase::Claiming,
            released: false,
        };
        let measure = Measure::new(now.mono, spawners);
        let own = Own {
            claim: block.id(),
            activation: None,
            mine,
            measure,
            takes_over,
            wants: want,
            functions: functions.to_vec(),
            ahead,
            intent: None,
        };
        self.leases.own.insert(number, own);
        self.leases.counts.claimed += 1;
        self.leases.says = None;
        Ok(())
    }

    /// Whether the ledger lets this device make machines.
    fn may_spawn(&self) -> bool {
        let me = self.view.members().get(&self.me).filter(|member| member.active);
        me.is_some_and(|member| member.roles.has(Role::Spawner))
    }

    /// Whether this node may make machines at all.
    fn may_spawn_here(&self) -> Result<(), String> {
        if !self.may_spawn() {
            return Err("This device holds no grant with the role spawner.".to_owned());
        }
        if self.draining.is_some() {
            return Err("This node is draining.".to_owned());
        }
        if self.machines_max() == 0 {
            return Err(
                "No machines are allowed: by the fleet's policy, or by this node's configuration.".to_owned()
            );
        }
        Ok(())
    }

    /// Whether one more claim could come to anything.
    fn may_claim(&self) -> Result<(), String> {
        if self.leases.own.values().any(|own| own.mine.phase == Phase::Claiming) {
            return Err("This node waits for another claim of its own.".to_owned());
        }
        if self.leases.own.len() >= osiris_ledger::limits::ROW_CLAIMS_MAX {
            return Err("This node holds as many leases as it can renew.".to_owned());
        }
        Ok(())
    }

    /// Whether a majority of the voters is connected, where the policy asks for it.
    fn has_voters(&mut self) -> Result<(), String> {
        let (connected, voters) = self.voters_connected();
        if self.view.spawning().minority || rule::is_majority(connected, voters) {
            return Ok(());
        }
        self.leases.counts.no_majority += 1;
        Err(format!("Only {connected} of {voters} voters are connected."))
    }

    /// Whether a claim of a slot is known that may be live. A claim of this device is: by another process.
    fn is_claimed(&self, now: Now, slot: u32) -> bool {
        let delay = self.leases.delays.least(self.active_members());
        let live = |last| rule::is_live(&self.leases.terms, now.mono, last, delay);
        self.leases.own.contains_key(&slot)
            || self.leases.heard.values().any(|heard| heard.slot == slot && live(heard.last))
    }
}
