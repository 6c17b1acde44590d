//! Which members serve a revision.

use std::collections::BTreeMap;

use osiris_ledger::{Author, BlockId};

/// Rendezvous hashing (Thaler and Ravishankar, 1998): each member has a score for each revision;
/// the highest serve it. A member that comes or goes moves only what it wins or held.
#[must_use]
pub fn ranked(revision: &BlockId, members: impl IntoIterator<Item = Author>) -> Vec<Author> {
    let mut scored: Vec<_> = members.into_iter().map(|member| (score(revision, &member), member)).collect();
    scored.sort_unstable_by(|a, b| b.cmp(a));
    scored.into_iter().map(|(_, member)| member).collect()
}

/// The members that serve a revision of which so many replicas are wanted: of those that `alive` accepts, the first
/// in rank.
#[must_use]
pub fn placed(ranked: &[Author], count: usize, alive: impl Fn(&Author) -> bool) -> Vec<Author> {
    ranked.iter().filter(|member| alive(member)).take(count).copied().collect()
}

/// The same members, so ordered that the first of every zone come first, then the second of every zone, and so on:
/// replicas are spread over zones as evenly as their members allow. Who is in no zone is in one of its own kind.
#[must_use]
pub fn spread<'a>(ranked: &[Author], zone: impl Fn(&Author) -> Option<&'a str>) -> Vec<Author> {
    let mut seen: BTreeMap<Option<&str>, u32> = BTreeMap::new();
    let mut placed: Vec<_> = Vec::with_capacity(ranked.len());
    for member in ranked {
        let place = seen.entry(zone(member)).or_default();
        placed.push((*place, *member));
        *place += 1;
    }
    placed.sort_by_key(|(place, _)| *place);
    placed.into_iter().map(|(_, member)| member).collect()
}

fn score(revision: &BlockId, member: &Author) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"osiris-placement-v1");
    hasher.update(&revision.0);
    hasher.update(&member.0);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(count: u8) -> Vec<Author> {
        (1..=count).map(|i| Author([i; 32])).collect()
    }

    #[test]
    fn a_lost_member_moves_only_what_it_held() {
        let all = members(9);
        for r in 0..50 {
            let revision = BlockId([r; 32]);
            let order = ranked(&revision, all.clone());
            let before = placed(&order, 3, |_| true);
            let lost = all[usize::from(r) % 9];
            let after = placed(&order, 3, |member| *member != lost);
            assert_eq!(after.len(), 3);
            assert!(!after.contains(&lost));
            let kept = before.iter().filter(|member| after.contains(member)).count();
            assert_eq!(kept, if before.contains(&lost) { 2 } else { 3 });
        }
    }

    #[test]
    fn replicas_are_spread_over_zones_and_a_zone_that_is_lost_costs_only_its_own() {
        let all = members(9);
        // Six in one zone, two in another, one in none.
        let zone = |member: &Author| match member.0[0] {
            1..=6 => Some("a"),
            7..=8 => Some("b"),
            _ => None,
        };
        for r in 0..50 {
            let order = ranked(&BlockId([r; 32]), all.clone());
            let first: std::collections::BTreeSet<_> = spread(&order, zone)[..3].iter().map(zone).collect();
            assert_eq!(first.len(), 3, "one of each");
            let five = &spread(&order, zone)[..5];
            let most = five.iter().filter(|member| zone(member) == Some("a")).count();
            assert_eq!(most, 2);
            let left: Vec<_> = order.iter().filter(|member| zone(member) != Some("b")).copied().collect();
            let kept = |members: &[Author]| members.iter().filter(|member| five.contains(member)).count();
            assert!(kept(&spread(&left, zone)[..5]) >= 3);
        }
    }

    #[test]
    fn load_is_spread() {
        let all = members(4);
        let mut firsts = std::collections::BTreeMap::new();
        for r in 0..200_u8 {
            *firsts.entry(ranked(&BlockId([r; 32]), all.clone())[0]).or_insert(0) += 1;
        }
        assert!(firsts.values().all(|count| (25..=80).contains(count)), "{firsts:?}");
    }
}
