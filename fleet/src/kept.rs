//! The small files that a data folder keeps beside its journal: where members listen, own blocks that others
//! confirmed, the mesh port. Each is made again where it is missing or damaged, so what cannot be read is nothing.

use osiris_ledger::BlockId;
use osiris_protocol::PeerAddr;

/// `peers.json`: where members were last known to listen, as JSON. None where the bytes are no such list.
#[must_use]
pub fn read_peers(bytes: &[u8]) -> Option<Vec<PeerAddr>> {
    serde_json::from_slice(bytes).ok()
}

/// The bytes that [`read_peers`] reads.
#[must_use]
pub fn write_peers(peers: &[PeerAddr]) -> Vec<u8> {
    serde_json::to_vec(peers).unwrap_or_default()
}

/// `confirmed`: ids of blocks, one a line. Lines that are none are left out.
#[must_use]
pub fn read_confirmed(bytes: &[u8]) -> Vec<BlockId> {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    text.lines().filter_map(|line| line.trim().parse().ok()).collect()
}

/// Whether the bytes are what [`write_confirmed`] writes: nothing but ids.
#[must_use]
pub fn is_confirmed(bytes: &[u8]) -> bool {
    let text = std::str::from_utf8(bytes);
    text.is_ok_and(|text| text.lines().all(|line| line.trim().parse::<BlockId>().is_ok()))
}

/// The bytes that [`read_confirmed`] reads.
#[must_use]
pub fn write_confirmed(blocks: &[BlockId]) -> Vec<u8> {
    blocks.iter().map(|id| format!("{id}\n")).collect::<String>().into_bytes()
}

/// `mesh-port`: the UDP port that the device had last. None where the bytes are no port.
#[must_use]
pub fn read_port(bytes: &[u8]) -> Option<u16> {
    std::str::from_utf8(bytes).ok()?.trim().parse().ok()
}
