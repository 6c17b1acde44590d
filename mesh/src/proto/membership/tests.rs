use super::*;

fn peer(n: u16) -> PeerId {
    let mut key = [0; 32];
    key[..2].copy_from_slice(&n.to_be_bytes());
    PeerId::from_bytes(key)
}

fn addr(n: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 1_000 + n))
}

fn entry(n: u16, addrs: &[(u16, u32)]) -> AddressEntry {
    AddressEntry {
        peer: peer(n).to_bytes().into(),
        addrs: addrs.iter().map(|(port, age_s)| AgedAddr { addr: addr(*port), age_s: *age_s }).collect(),
    }
}

#[test]
fn the_addresses_known_last_stay() {
    let mut book = AddressBook::new(peer(0));
    for n in 0..20 {
        assert!(book.learn(i64::from(n), peer(1), [addr(n)], 0));
    }
    let kept: Vec<SocketAddr> = (12..20).rev().map(addr).collect();
    assert_eq!(book.addrs(&peer(1)), kept);
    assert!(!book.learn(20, peer(1), [addr(0)], 60_000), "older than all");
    assert_eq!(book.addrs(&peer(1)), kept);
    assert!(!book.learn(20, peer(0), [addr(0)], 0), "myself");
}

#[test]
fn addresses_that_nobody_can_dial_are_ignored() {
    let mut book = AddressBook::new(peer(0));
    for bad in ["0.0.0.0:1", "127.0.0.1:0", "224.0.0.1:9", "[::]:9", "[fe80::1]:9"] {
        let bad = bad.parse().expect("an address");
        assert!(!book.learn(0, peer(1), [bad], 0), "{bad}");
    }
    assert!(!book.knows(&peer(1)));
}

#[test]
fn hearsay_about_strangers_is_not_kept() {
    let mut book = AddressBook::new(peer(0));
    let heard = [entry(1, &[(1, 0)]), entry(2, &[(2, 0)])];
    assert!(book.merge(0, &heard, |p| *p == peer(1)));
    assert!(book.knows(&peer(1)) && !book.knows(&peer(2)));
    assert!(!book.merge(0, &heard, |p| *p == peer(1)), "nothing new");
    book.retain(|p| *p == peer(2));
    assert!(!book.knows(&peer(1)));
}

#[test]
fn a_dead_address_does_not_stay_young_by_being_repeated() {
    let (mut a, mut b) = (AddressBook::new(peer(0)), AddressBook::new(peer(1)));
    a.learn(0, peer(2), [addr(1)], 0);
    for hour in 0..24 * 31 {
        let now_ms = hour * 3_600_000;
        let from_a: Vec<_> = a.entry(now_ms, &peer(2)).into_iter().collect();
        b.merge(now_ms, &from_a, |_| true);
        let from_b: Vec<_> = b.entry(now_ms, &peer(2)).into_iter().collect();
        a.merge(now_ms, &from_b, |_| true);
    }
    let month_ms = 31 * 24 * 3_600_000;
    let mut newcomer = AddressBook::new(peer(3));
    let hearsay: Vec<_> = b.entry(month_ms, &peer(2)).into_iter().collect();
    assert!(!newcomer.merge(month_ms, &hearsay, |_| true));
}

#[test]
fn changes_are_handed_out_once_and_in_parts() {
    let mut book = AddressBook::new(peer(0));
    for n in 1..=10 {
        book.learn(0, peer(n), [addr(n)], 0);
    }
    let (mut version, mut seen) = (0, Vec::new());
    for _ in 0..4 {
        let (part, upto) = book.changes_since(0, version, 3);
        assert!(part.len() <= 3);
        seen.extend(part);
        version = upto;
    }
    assert_eq!(seen.len(), 10);
    assert!(book.changes_since(0, version, 3).0.is_empty());
    book.learn(5, peer(4), [addr(4)], 0);
    assert!(book.changes_since(0, version, 3).0.is_empty(), "not new");
    book.learn(5, peer(4), [addr(99)], 0);
    assert_eq!(book.changes_since(0, version, 3).0.len(), 1);
}

#[test]
fn the_book_is_bounded() {
    let mut book = AddressBook::new(peer(0));
    for n in 1..=(BOOK_PEERS_MAX as u16 + 10) {
        book.learn(0, peer(n), [addr(1)], 0);
    }
    assert_eq!(book.export().len(), BOOK_PEERS_MAX);
    assert!(book.learn(0, peer(1), [addr(2)], 0), "known peers still learn");
}

#[test]
fn small_fleets_are_connected_in_full_and_large_ones_evenly() {
    let small: BTreeSet<PeerId> = (0..12).map(peer).collect();
    assert_eq!(neighbours(&peer(3), small.iter(), |_| false).len(), 11);

    let large: BTreeSet<PeerId> = (0..200).map(peer).collect();
    let mut chosen_by: BTreeMap<PeerId, usize> = BTreeMap::new();
    for me in &large {
        let chosen = neighbours(me, large.iter(), |_| false);
        assert_eq!(chosen.len(), NEIGHBOURS_CHOSEN);
        assert!(!chosen.contains(me));
        for other in chosen {
            *chosen_by.entry(other).or_default() += 1;
        }
    }
    let most = chosen_by.values().max().copied().unwrap_or_default();
    assert!(most <= 24, "one node was chosen by {most}");
    assert!(chosen_by.len() > 195, "{} nodes were chosen", chosen_by.len());
}

#[test]
fn choices_are_stable_and_reach_past_the_dead() {
    let large: BTreeSet<PeerId> = (0..200).map(peer).collect();
    let before = neighbours(&peer(7), large.iter(), |_| false);
    let mut fewer = large.clone();
    fewer.remove(before.first().expect("eight"));
    let after = neighbours(&peer(7), fewer.iter(), |_| false);
    assert_eq!(before.intersection(&after).count(), NEIGHBOURS_CHOSEN - 1);

    let around = neighbours(&peer(7), large.iter(), |p| before.contains(p));
    assert!(around.is_superset(&before), "the dead are still tried");
    assert_eq!(around.difference(&before).count(), NEIGHBOURS_CHOSEN);
}
