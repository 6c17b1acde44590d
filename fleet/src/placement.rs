//! Which members serve a revision.

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
pub fn placed(ranked: &[Author], count: u32, alive: impl Fn(&Author) -> bool) -> Vec<Author> {
    ranked.iter().filter(|member| alive(member)).take(count as usize).copied().collect()
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
    fn load_is_spread() {
        let all = members(4);
        let mut firsts = std::collections::BTreeMap::new();
        for r in 0..200_u8 {
            *firsts.entry(ranked(&BlockId([r; 32]), all.clone())[0]).or_insert(0) += 1;
        }
        assert!(firsts.values().all(|count| (25..=80).contains(count)), "{firsts:?}");
    }
}
