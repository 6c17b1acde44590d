//! How many instances the node keeps room for, chosen by the machine.
//!
//! The pool reserves address space, not memory: each slot takes its reservation and a guard. With
//! wasmtime's 4 GiB a slot that is terabytes, which small boards and address-space limits refuse, so
//! there is a ladder of shapes and the first that works is taken. The figures were measured; the ones
//! that matter most are the bytes kept resident between calls.

use std::fmt;

use serde::{Deserialize, Serialize};
use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Memory below which a machine counts as a small device.
const SMALL_DEVICE_BYTES: u64 = 2 * GIB;
/// Bytes of a linear memory that stay resident and are cleared by hand instead of by the kernel.
const MEMORY_KEEP_RESIDENT: usize = 8 << 20;
/// The same for tables.
const TABLE_KEEP_RESIDENT: usize = 64 << 10;
/// The same for the stacks of calls.
const STACK_KEEP_RESIDENT: usize = 64 << 10;
/// Stack of one call, in address space.
const STACK_BYTES: u64 = 2 * MIB;
/// Core instances a component is made of at most, on average over the pool: `QuickJS` has 13.
const CORE_INSTANCES_PER_CALL: u32 = 20;
/// Room for one instance's own records.
const INSTANCE_RECORD_BYTES: usize = 1 << 20;

/// Which pool to make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PoolSize {
    /// By the machine's memory and its address-space limit.
    #[default]
    Auto,
    /// The small device's: 64 calls with 64 MiB each.
    Small,
    /// This many calls at the same time, each with at most this much memory.
    Explicit {
        /// Calls at the same time, on the whole node.
        calls: u32,
        /// Most linear memory of one call, in bytes; a multiple of 64 KiB.
        memory_bytes: u64,
    },
}

/// One step of the ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolShape {
    /// Calls at the same time, on the whole node.
    pub calls: u32,
    /// Most linear memory of one call, in bytes.
    pub memory_bytes: u64,
    /// Address space reserved for one linear memory, in bytes. With less than 4 GiB, guests check
    /// bounds in software and run a little slower.
    pub reservation_bytes: u64,
    /// Inaccessible address space behind each linear memory, in bytes.
    pub guard_bytes: u64,
    /// Unused slots that keep their memory image for the next call.
    pub warm_slots: u32,
    /// Whether slots are set aside at start. Without, each call maps its own memory.
    pub pooled: bool,
}

impl PoolShape {
    /// Address space the shape needs at start.
    #[must_use]
    pub fn address_bytes(&self) -> u64 {
        if !self.pooled {
            return 0;
        }
        u64::from(self.calls) * (self.reservation_bytes + self.guard_bytes + STACK_BYTES)
    }

    pub(crate) fn configure(&self, config: &mut Config) {
        config.memory_reservation(self.reservation_bytes).memory_guard_size(self.guard_bytes);
        if !self.pooled {
            config
                .memory_reservation_for_growth(MIB)
                .allocation_strategy(InstanceAllocationStrategy::OnDemand);
            return;
        }
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(self.calls)
            .total_core_instances(self.calls * CORE_INSTANCES_PER_CALL)
            .total_memories(self.calls)
            .total_tables(self.calls * 2)
            .total_stacks(self.calls)
            .max_memory_size(usize::try_from(self.memory_bytes).unwrap_or(usize::MAX))
            .max_memories_per_module(1)
            .max_tables_per_module(4)
            .table_elements(crate::limits::TABLE_ELEMENTS_MAX)
            .max_core_instance_size(INSTANCE_RECORD_BYTES)
            .max_component_instance_size(INSTANCE_RECORD_BYTES)
            .max_unused_warm_slots(self.warm_slots)
            .linear_memory_keep_resident(MEMORY_KEEP_RESIDENT)
            .table_keep_resident(TABLE_KEEP_RESIDENT)
            .async_stack_keep_resident(STACK_KEEP_RESIDENT)
            .pagemap_scan(Enabled::Auto);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
}

/// What the machine offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Memory in bytes: the container's limit where there is one.
    pub memory_bytes: u64,
    /// The address-space limit (`RLIMIT_AS`) in bytes, where there is one.
    pub address_bytes: Option<u64>,
}

impl Machine {
    /// Asks the system.
    #[must_use]
    pub fn here() -> Self {
        let address_bytes = rustix::process::getrlimit(rustix::process::Resource::As).current;
        Self { memory_bytes: crate::monitor::memory_total_bytes(), address_bytes }
    }
}

/// Shapes to try in turn, and why the first comes first.
pub(crate) fn ladder(size: PoolSize, machine: Machine) -> (Vec<PoolShape>, String) {
    let small = PoolShape {
        calls: 64,
        memory_bytes: 64 * MIB,
        reservation_bytes: 64 * MIB,
        guard_bytes: MIB,
        warm_slots: 8,
        pooled: true,
    };
    let tiny =
        PoolShape { calls: 8, memory_bytes: 32 * MIB, reservation_bytes: 32 * MIB, warm_slots: 2, ..small };
    let none = PoolShape { calls: 8, reservation_bytes: 0, guard_bytes: 64 << 10, pooled: false, ..small };
    let calls = (machine.memory_bytes / (16 * MIB)).clamp(64, 1000) as u32;
    // At most a thirty-second of the memory is kept in warm slots.
    let warm_slots = (machine.memory_bytes / 32 / MEMORY_KEEP_RESIDENT as u64).clamp(4, 100) as u32;
    let large = PoolShape {
        calls,
        memory_bytes: 256 * MIB,
        reservation_bytes: 4 * GIB,
        guard_bytes: 32 * MIB,
        warm_slots,
        pooled: true,
    };
    let compact = PoolShape { calls: calls.min(256), reservation_bytes: 256 * MIB, ..large };
    let memory = machine.memory_bytes / MIB;
    let (mut shapes, mut reason) = match size {
        PoolSize::Explicit { calls, memory_bytes } => {
            let asked = PoolShape { calls, memory_bytes, warm_slots: warm_slots.min(calls), ..large };
            let narrow = PoolShape { reservation_bytes: memory_bytes, ..asked };
            (vec![asked, narrow, small, tiny, none], "as configured".to_owned())
        }
        PoolSize::Small => (vec![small, tiny, none], "the small device's pool, as configured".to_owned()),
        PoolSize::Auto if machine.memory_bytes < SMALL_DEVICE_BYTES => {
            (vec![small, tiny, none], format!("a small device: {memory} MiB of memory"))
        }
        PoolSize::Auto => (vec![large, compact, small, tiny, none], format!("{memory} MiB of memory")),
    };
    if let Some(limit) = machine.address_bytes {
        let before = shapes.len();
        // The other half is for everything else: code, heap, thread stacks, mapped files.
        shapes.retain(|shape| shape.address_bytes() <= limit / 2);
        if shapes.len() < before {
            reason = format!("{reason}, of which the address-space limit of {} MiB allows this", limit / MIB);
        }
    }
    (shapes, reason)
}

/// The pool that is in use, for `osiris doctor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolChoice {
    /// Its shape.
    pub shape: PoolShape,
    /// What the machine offered.
    pub machine: Machine,
    /// Why this shape was tried first.
    pub reason: String,
    /// Larger shapes that the system refused, each with what it said. Usually empty.
    pub refused: Vec<String>,
}

impl fmt::Display for PoolChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PoolShape { calls, memory_bytes, warm_slots, pooled, .. } = self.shape;
        let kind = if pooled { "pooled" } else { "made on demand" };
        write!(
            f,
            "{calls} calls at a time of at most {} MiB, {kind}, {warm_slots} kept warm, {} MiB of addresses ({})",
            memory_bytes / MIB,
            self.shape.address_bytes() / MIB,
            self.reason
        )?;
        for refused in &self.refused {
            write!(f, "; refused: {refused}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(memory_bytes: u64, address_bytes: Option<u64>) -> PoolShape {
        ladder(PoolSize::Auto, Machine { memory_bytes, address_bytes }).0[0]
    }

    #[test]
    fn the_machine_decides() {
        let server = first(32 * GIB, None);
        assert_eq!((server.calls, server.warm_slots, server.memory_bytes), (1000, 100, 256 * MIB));
        let board = first(4 * GIB, None);
        assert_eq!((board.calls, board.warm_slots), (256, 16));
        assert_eq!(first(GIB, None).memory_bytes, 64 * MIB);
        assert_eq!(first(512 * MIB, None).warm_slots, 8);
    }

    #[test]
    fn an_address_limit_is_respected_down_to_no_pool() {
        for limit in [1 << 50, 400 * GIB, 20 * GIB, 4 * GIB, GIB, 256 * MIB] {
            assert!(first(32 * GIB, Some(limit)).address_bytes() <= limit / 2);
        }
        assert!(first(32 * GIB, Some(400 * GIB)).pooled);
        assert!(!first(32 * GIB, Some(256 * MIB)).pooled);
    }

    #[test]
    fn the_ladder_goes_down_and_ends_without_a_pool() {
        for size in
            [PoolSize::Auto, PoolSize::Small, PoolSize::Explicit { calls: 300, memory_bytes: 64 * MIB }]
        {
            let (shapes, _) = ladder(size, Machine { memory_bytes: 32 * GIB, address_bytes: None });
            assert!(shapes.is_sorted_by(|a, b| a.address_bytes() > b.address_bytes()), "{shapes:?}");
            assert!(!shapes[shapes.len() - 1].pooled);
        }
    }
}
