//! The address book, and the choice of whom to keep connections to.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use osiris_protocol::PeerAddr;

use crate::{
    PeerId,
    limits::{ADDRESS_AGE_MAX, BOOK_ADDRS_MAX, BOOK_PEERS_MAX, FULL_MESH_MEMBERS_MAX, NEIGHBOURS_CHOSEN},
    proto::message::{AddressEntry, AgedAddr},
};

/// Where members were last known to listen.
///
/// Addresses are hints: the handshake proves the key of whoever answers, so a wrong address costs a
/// datagram and no more. Each carries the time at which it was last known to be right, which travels
/// as an age; without it two nodes would keep telling each other of an address that died long ago.
#[derive(Debug, Clone)]
pub struct AddressBook {
    me: PeerId,
    peers: BTreeMap<PeerId, Entry>,
    version: u64,
}

#[derive(Debug, Clone, Default)]
struct Entry {
    /// Address to the time it was last known to be right, milliseconds.
    addrs: BTreeMap<SocketAddr, i64>,
    /// The book's version when an address was last added.
    changed: u64,
}

impl AddressBook {
    /// An empty book of the node `me`, which is never listed itself.
    pub fn new(me: PeerId) -> Self {
        Self { me, peers: BTreeMap::new(), version: 0 }
    }

    /// Grows whenever a peer gains an address.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Notes where `peer` was known to listen `age_ms` ago. Returns whether an address is new.
    ///
    /// Over the limit of addresses the one known longest ago goes; over the limit of peers nothing
    /// is added. Addresses that nobody can dial are ignored.
    pub fn learn(
        &mut self,
        now_ms: i64,
        peer: PeerId,
        addrs: impl IntoIterator<Item = SocketAddr>,
        age_ms: u64,
    ) -> bool {
        let age_ms = i64::try_from(age_ms).unwrap_or(i64::MAX);
        let known_ms = now_ms.saturating_sub(age_ms);
        let full = self.peers.len() >= BOOK_PEERS_MAX;
        if peer == self.me || (full && !self.peers.contains_key(&peer)) {
            return false;
        }
        let mut fresh = false;
        for addr in addrs.into_iter().filter(is_dialable) {
            let entry = self.peers.entry(peer).or_default();
            if let Some(last) = entry.addrs.get_mut(&addr) {
                *last = known_ms.max(*last);
                continue;
            }
            entry.addrs.insert(addr, known_ms);
            if entry.addrs.len() > BOOK_ADDRS_MAX {
                let oldest =
                    entry.addrs.iter().min_by_key(|(addr, known)| (**known, **addr)).map(|(addr, _)| *addr);
                if let Some(oldest) = oldest {
                    entry.addrs.remove(&oldest);
                }
            }
            fresh |= entry.addrs.contains_key(&addr);
        }
        if fresh {
            self.version += 1;
            if let Some(entry) = self.peers.get_mut(&peer) {
                entry.changed = self.version;
            }
        }
        fresh
    }

    /// Notes what a peer said about others. Only members are listed. Returns whether an address is
    /// new.
    pub fn merge(
        &mut self,
        now_ms: i64,
        entries: &[AddressEntry],
        is_member: impl Fn(&PeerId) -> bool,
    ) -> bool {
        let age_max = u64::try_from(ADDRESS_AGE_MAX.as_millis()).unwrap_or(u64::MAX);
        let mut fresh = false;
        for entry in entries {
            let peer = PeerId::from_bytes(entry.peer.into_array());
            if !is_member(&peer) {
                continue;
            }
            for aged in entry.addrs.iter().take(BOOK_ADDRS_MAX) {
                let age_ms = u64::from(aged.age_s).saturating_mul(1_000);
                if age_ms <= age_max {
                    fresh |= self.learn(now_ms, peer, [aged.addr], age_ms);
                }
            }
        }
        fresh
    }

    /// Forgets everyone who is not a member.
    pub fn retain(&mut self, is_member: impl Fn(&PeerId) -> bool) {
        self.peers.retain(|peer, _| is_member(peer));
    }

    /// The addresses of `peer`, the one known last first.
    pub fn addrs(&self, peer: &PeerId) -> Vec<SocketAddr> {
        let Some(entry) = self.peers.get(peer) else {
            return Vec::new();
        };
        let mut addrs: Vec<(i64, SocketAddr)> = entry.addrs.iter().map(|(addr, ms)| (*ms, *addr)).collect();
        addrs.sort_unstable_by(|a, b| b.cmp(a));
        addrs.into_iter().map(|(_, addr)| addr).collect()
    }

    /// Whether an address of `peer` is known.
    pub fn knows(&self, peer: &PeerId) -> bool {
        self.peers.contains_key(peer)
    }

    /// What has changed since `version`, oldest change first, at most `max` peers; and the version
    /// to ask from next.
    pub fn changes_since(&self, now_ms: i64, version: u64, max: usize) -> (Vec<AddressEntry>, u64) {
        let mut changed: Vec<(u64, PeerId)> = self
            .peers
            .iter()
            .filter(|(_, entry)| entry.changed > version)
            .map(|(peer, entry)| (entry.changed, *peer))
            .collect();
        changed.sort_unstable();
        let cut = changed.len() > max;
        changed.truncate(max);
        let upto = match changed.last() {
            Some((last, _)) if cut => *last,
            _ => self.version,
        };
        let entries = changed.iter().filter_map(|(_, peer)| self.entry(now_ms, peer)).collect();
        (entries, upto)
    }

    /// What is known about `peer`, for sending.
    pub fn entry(&self, now_ms: i64, peer: &PeerId) -> Option<AddressEntry> {
        let addrs = self
            .peers
            .get(peer)?
            .addrs
            .iter()
            .map(|(addr, known_ms)| AgedAddr {
                addr: *addr,
                age_s: u32::try_from(now_ms.saturating_sub(*known_ms).max(0) / 1_000).unwrap_or(u32::MAX),
            })
            .collect();
        Some(AddressEntry { peer: peer.to_bytes().into(), addrs })
    }

    /// The book for keeping or for a welcome: every peer with its addresses.
    pub fn export(&self) -> Vec<PeerAddr> {
        self.peers.keys().map(|peer| PeerAddr { peer: peer.to_bytes(), addrs: self.addrs(peer) }).collect()
    }
}

fn is_dialable(addr: &SocketAddr) -> bool {
    let link_local = match addr.ip() {
        // Link-local addresses need a scope id, which means something on one machine only.
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
        IpAddr::V4(ip) => ip.is_broadcast(),
    };
    addr.port() != 0 && !addr.ip().is_unspecified() && !addr.ip().is_multicast() && !link_local
}

/// Whom `me` keeps connections to, besides whoever dials it.
///
/// A small fleet is connected in full. In a larger one each node orders the others by a hash of both
/// keys (rendezvous hashing: Thaler and Ravishankar, 1998) and takes the first few: choices are
/// spread evenly, stay when others come and go, and need no agreement. A peer that `is_gone` stays
/// chosen, so that it is found again, and does not count, so that dead members do not use up the
/// choice.
///
/// `members` names each once, in any order.
pub fn neighbours<'a>(
    me: &PeerId,
    members: impl ExactSizeIterator<Item = &'a PeerId>,
    is_gone: impl Fn(&PeerId) -> bool,
) -> BTreeSet<PeerId> {
    let small = members.len() <= FULL_MESH_MEMBERS_MAX;
    let others = members.filter(|peer| *peer != me);
    if small {
        return others.copied().collect();
    }
    let score = scores(me);
    let mut order: Vec<([u8; 32], PeerId)> = others.map(|peer| (score(peer), *peer)).collect();
    let most = NEIGHBOURS_CHOSEN * 4;
    // Of a large fleet the first few are found much faster than all are sorted.
    if order.len() > most {
        order.select_nth_unstable(most);
        order.truncate(most);
    }
    order.sort_unstable();
    let mut live = 0;
    order
        .into_iter()
        .map(|(_, peer)| peer)
        .take_while(|peer| {
            let wanted = live < NEIGHBOURS_CHOSEN;
            live += usize::from(!is_gone(peer));
            wanted
        })
        .collect()
}

/// The scores that a node gives others. In a large fleet all are scored whenever somebody comes or goes, so a score is
/// one compression, and no state is copied for it.
fn scores(me: &PeerId) -> impl Fn(&PeerId) -> [u8; 32] {
    let key = blake3::derive_key("osiris mesh neighbours 2", me.as_bytes());
    move |peer| *blake3::keyed_hash(&key, peer.as_bytes()).as_bytes()
}

#[cfg(test)]
mod tests;
