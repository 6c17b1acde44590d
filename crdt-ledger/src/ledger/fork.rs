//! Many replicas with one beginning, in one process.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::Ledger;
use crate::early::Early;

impl Ledger {
    /// Makes all that is here the beginning that [forks](Ledger::fork) of this replica share. It is for simulations:
    /// what this replica and its forks take in later costs a little more.
    pub fn freeze(&mut self) {
        self.publish();
        self.registers.freeze();
        self.beginning = self.beginning();
        self.blocks.freeze();
        self.grants.freeze();
        self.authority.freeze();
        self.admissions.freeze();
        Arc::make_mut(&mut self.keys).freeze();
        self.chains.values_mut().for_each(crate::chain::Chain::freeze);
    }

    /// Another replica with the same blocks: it and this one know nothing of what the other takes in later. What is
    /// [frozen](Ledger::freeze) they share; the rest is copied. Blocks that wait for others stay here. Its automerge
    /// document follows from the beginning.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self {
            fleet: self.fleet,
            blocks: self.blocks.clone(),
            pages: self.pages.clone(),
            chains: self.chains.clone(),
            by_actor: self.by_actor.clone(),
            written: self.written.clone(),
            keys: Arc::clone(&self.keys),
            early: Early::default(),
            grants: self.grants.clone(),
            authority: self.authority.clone(),
            authority_sum: self.authority_sum,
            revocations: self.revocations.clone(),
            withdrawals: self.withdrawals.clone(),
            admissions: self.admissions.clone(),
            stands: self.stands.clone(),
            last_authority: self.last_authority.clone(),
            leases: self.leases.clone(),
            standings: Arc::clone(&self.standings),
            settled: self.settled,
            registers: self.registers.clone(),
            beginning: self.beginning.clone(),
            document: self.document.afresh(self),
            authority_stale: self.authority_stale,
            forks_stale: self.forks_stale,
            joined: self.joined.clone(),
            reevaluate: self.reevaluate,
            unapplied: self.unapplied.clone(),
            refold: self.refold,
            digest: self.digest.clone(),
            memo: self.memo.clone(),
            said: self.said.clone(),
            view_stale: self.view_stale,
            view: Arc::new(ArcSwap::new(self.view.load_full())),
        }
    }

    /// From here on works out by itself all that follows from its blocks, where a memo has it too; what was checked it
    /// goes on sharing.
    pub fn derive_alone(&mut self) {
        let memo = self.memo.take();
        self.memo = memo.map(|memo| memo.checks_alone());
    }
}
