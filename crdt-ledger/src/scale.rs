//! How many replicas functions have, which labels devices bear, and which of these drain: registers, each of which the last block in
//! ledger order that counts decides.
//!
//! Who serves a function follows from its count (`docs/scaling.md`). The count is absolute, never a step, so two
//! members that both saw one replica too few write the same.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Serialize, Serializer};

use crate::{
    block::{Block, Order},
    id::Author,
    op::{Payload, Range},
};

/// What blocks say of replicas and labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scaling {
    bounds: Registers<Option<String>, Option<Range>>,
    replicas: Registers<String, Count>,
    labels: Registers<Author, Arc<[String]>>,
    draining: Registers<Author, bool>,
}

/// How many replicas a function was scaled to, and who is passed over for it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Count {
    replicas: u32,
    past: Arc<[Author]>,
}

/// Each key with the last word on it.
type Registers<K, V> = BTreeMap<K, (Order, V)>;

fn set<K: Ord, V>(registers: &mut Registers<K, V>, key: K, order: Order, value: V) {
    match registers.get(&key) {
        Some((known, _)) if *known >= order => {}
        _ => drop(registers.insert(key, (order, value))),
    }
}

impl Scaling {
    pub(crate) fn apply(&mut self, block: &Block) {
        let order = block.order();
        match block.payload() {
            Payload::Bounded(op) => set(&mut self.bounds, op.name.clone(), order, op.range.clone()),
            Payload::Scaled(op) => {
                let count = Count { replicas: op.replicas, past: op.past.iter().copied().collect() };
                set(&mut self.replicas, op.name.clone(), order, count);
            }
            Payload::Labelled(op) => {
                set(&mut self.labels, op.device, order, op.labels.iter().cloned().collect());
            }
            Payload::Draining(op) => set(&mut self.draining, block.author(), order, op.draining),
            _ => {}
        }
    }

    /// The bounds that an operator gave a function; none: its manifest's hold.
    #[must_use]
    pub fn bounds(&self, name: &str) -> Option<&Range> {
        self.bounds.get(&Some(name.to_owned()))?.1.as_ref()
    }

    /// The most replicas that an operator gave all scaled functions together.
    #[must_use]
    pub fn fleet_max(&self) -> Option<u32> {
        Some(self.bounds.get(&None)?.1.as_ref()?.max)
    }

    /// The replicas that a function was scaled to last, and the place of that block; none: nobody scaled it yet.
    #[must_use]
    pub fn replicas(&self, name: &str) -> Option<(Order, u32)> {
        self.replicas.get(name).map(|(order, count)| (*order, count.replicas))
    }

    /// Members that come behind all others for a function, ascending: whoever scaled it last saw that their machines
    /// were busy.
    #[must_use]
    pub fn passed_over(&self, name: &str) -> &[Author] {
        self.replicas.get(name).map_or(&[], |(_, count)| &count.past)
    }

    /// The labels that a device bears, ascending.
    #[must_use]
    pub fn labels(&self, device: &Author) -> &[String] {
        self.labels.get(device).map_or(&[], |(_, labels)| labels)
    }

    /// Whether a device said that others are to take over what it serves, and has not taken that back.
    #[must_use]
    pub fn is_draining(&self, device: &Author) -> bool {
        self.draining.get(device).is_some_and(|(_, draining)| *draining)
    }
}

impl Serialize for Scaling {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        fn said<K, V>(registers: &Registers<K, V>) -> Vec<(&K, &V)> {
            registers.iter().map(|(key, (_, value))| (key, value)).collect()
        }
        let labels: Vec<_> = self.labels.iter().map(|(device, (_, labels))| (device, &**labels)).collect();
        let draining = self.draining.iter().filter(|(_, (_, draining))| *draining);
        let draining: Vec<_> = draining.map(|(device, _)| device).collect();
        let replicas = self.replicas.iter();
        let replicas: Vec<_> =
            replicas.map(|(name, (_, count))| (name, count.replicas, &*count.past)).collect();
        (said(&self.bounds), replicas, labels, draining).serialize(serializer)
    }
}
