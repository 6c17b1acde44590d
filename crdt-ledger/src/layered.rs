//! A map whose first entries several replicas share.
//!
//! A simulated fleet has thousands of replicas in one process, and nearly all that each of them knows is how the fleet
//! began. They share that as a base, which is never changed, and each has a layer of its own above it. The ledger of a
//! real node has no base, and is then one `BTreeMap`.

use std::{
    collections::{
        BTreeMap, BTreeSet,
        btree_map::{self, Entry},
    },
    iter::Peekable,
    ops::RangeBounds,
    sync::Arc,
};

/// An ordered map of two layers. Every key is in one of them alone: what an own entry took the place of is hidden.
#[derive(Clone, Debug)]
pub(crate) struct Layered<K, V> {
    own: BTreeMap<K, V>,
    base: Option<Arc<BTreeMap<K, V>>>,
    /// Keys of the base that were taken out, or have an own entry.
    hidden: BTreeSet<K>,
}

impl<K, V> Default for Layered<K, V> {
    fn default() -> Self {
        Self { own: BTreeMap::new(), base: None, hidden: BTreeSet::new() }
    }
}

impl<K: Copy + Ord, V: Clone> Layered<K, V> {
    /// Makes all entries the base, which clones share from then on.
    pub(crate) fn freeze(&mut self) {
        if self.own.is_empty() && self.hidden.is_empty() {
            return;
        }
        let all = match self.base {
            None => std::mem::take(&mut self.own),
            Some(_) => self.iter().map(|(key, value)| (*key, value.clone())).collect(),
        };
        *self = Self { base: Some(Arc::new(all)), ..Self::default() };
    }

    /// The base's entry of a key, where it is to be seen.
    fn beneath(&self, key: &K) -> Option<&V> {
        let base = self.base.as_ref()?;
        base.get(key).filter(|_| !self.hidden.contains(key))
    }

    #[inline]
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.own.get(key).or_else(|| self.beneath(key))
    }

    #[inline]
    pub(crate) fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.own.len() + self.base.as_ref().map_or(0, |base| base.len() - self.hidden.len())
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sets an entry. Returns whether there was none of this key.
    pub(crate) fn insert(&mut self, key: K, value: V) -> bool {
        let fresh = !self.hide(&key);
        self.own.insert(key, value).is_none() && fresh
    }

    /// Takes an entry out.
    pub(crate) fn remove(&mut self, key: &K) {
        self.own.remove(key);
        self.hide(key);
    }

    /// Hides the base's entry of a key. Returns whether there was one to be seen.
    #[inline]
    fn hide(&mut self, key: &K) -> bool {
        let there = self.base.as_ref().is_some_and(|base| base.contains_key(key));
        there && self.hidden.insert(*key)
    }

    /// The entry of a key, to be changed; made where there is none. One of the base is copied first.
    pub(crate) fn entry_or_default(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        let beneath = match self.base {
            None => None,
            Some(_) => self.beneath(&key).cloned(),
        };
        if beneath.is_some() {
            self.hidden.insert(key);
        }
        match self.own.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(free) => free.insert(beneath.unwrap_or_default()),
        }
    }

    /// All entries, ascending.
    pub(crate) fn iter(&self) -> Iter<'_, K, V> {
        self.range(..)
    }

    /// Their values.
    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// The values of the base that are to be seen.
    pub(crate) fn shared_values(&self) -> impl Iterator<Item = &V> {
        let base = self.base.iter().flat_map(|base| base.iter());
        base.filter(|(key, _)| !self.hidden.contains(key)).map(|(_, value)| value)
    }

    /// The values of the layer that is not shared.
    pub(crate) fn own_values(&self) -> impl Iterator<Item = &V> {
        self.own.values()
    }

    /// The entries between two keys, ascending.
    pub(crate) fn range(&self, bounds: impl RangeBounds<K>) -> Iter<'_, K, V> {
        let bounds = (bounds.start_bound().cloned(), bounds.end_bound().cloned());
        let (own, base) = (self.own.range(bounds), self.base.as_ref().map(|base| base.range(bounds)));
        let beneath = base.map(|base| Beneath { base: base.peekable(), own: own.clone().peekable() });
        Iter { own, beneath, hidden: &self.hidden }
    }
}

impl<'a, K: Copy + Ord, V: Clone> IntoIterator for &'a Layered<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Iter<'a, K, V> {
        self.iter()
    }
}

/// The entries of both layers.
#[derive(Debug)]
pub(crate) struct Iter<'a, K, V> {
    /// Of a map without a base all there is.
    own: btree_map::Range<'a, K, V>,
    beneath: Option<Beneath<'a, K, V>>,
    hidden: &'a BTreeSet<K>,
}

#[derive(Debug)]
struct Beneath<'a, K, V> {
    base: Peekable<btree_map::Range<'a, K, V>>,
    own: Peekable<btree_map::Range<'a, K, V>>,
}

impl<'a, K: Ord, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.beneath {
            None => self.own.next(),
            Some(beneath) => beneath.next(self.hidden),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, None)
    }
}

impl<'a, K: Ord, V> Beneath<'a, K, V> {
    fn next(&mut self, hidden: &BTreeSet<K>) -> Option<(&'a K, &'a V)> {
        while self.base.next_if(|(key, _)| !hidden.is_empty() && hidden.contains(key)).is_some() {}
        let Some((above, _)) = self.own.peek() else { return self.base.next() };
        self.base.next_if(|(key, _)| key < above).or_else(|| self.own.next())
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Bound;

    use proptest::prelude::*;

    use super::*;

    /// What is done to both maps: 0 to 3 set, 4 and 5 change in place, 6 to 8 take out, 9 freezes.
    type Deed = (u8, u8, u16);

    fn done(deeds: &[Deed]) -> (Layered<u8, u16>, BTreeMap<u8, u16>) {
        let (mut layered, mut plain) = (Layered::default(), BTreeMap::new());
        for (kind, key, value) in deeds.iter().copied() {
            match kind {
                0..4 => assert_eq!(layered.insert(key, value), plain.insert(key, value).is_none()),
                4..6 => {
                    let known = layered.entry_or_default(key);
                    *known = known.wrapping_add(value);
                    let known = plain.entry(key).or_default();
                    *known = known.wrapping_add(value);
                }
                6..9 => {
                    layered.remove(&key);
                    plain.remove(&key);
                }
                _ => layered.freeze(),
            }
        }
        (layered, plain)
    }

    proptest! {
        #[test]
        fn it_is_a_map_whatever_is_done_and_wherever_it_is_frozen(
            deeds in prop::collection::vec((0..10_u8, 0..24_u8, any::<u16>()), 0..120),
            (low, high) in (0..24_u8, 0..24_u8),
        ) {
            let (layered, plain) = done(&deeds);
            prop_assert!(layered.iter().eq(plain.iter()));
            prop_assert!(layered.values().eq(plain.values()));
            prop_assert_eq!((layered.len(), layered.is_empty()), (plain.len(), plain.is_empty()));
            for key in 0..24 {
                prop_assert_eq!(layered.get(&key), plain.get(&key));
                prop_assert_eq!(layered.contains_key(&key), plain.contains_key(&key));
            }
            let after = (Bound::Excluded(low), Bound::Unbounded);
            prop_assert!(layered.range(after).eq(plain.range(after)));
            if low <= high {
                prop_assert!(layered.range(low..=high).eq(plain.range(low..=high)));
            }
        }

        #[test]
        fn what_is_done_to_a_clone_changes_nothing_in_what_it_shares(
            before in prop::collection::vec((0..9_u8, 0..24_u8, any::<u16>()), 0..60),
            after in prop::collection::vec((0..9_u8, 0..24_u8, any::<u16>()), 0..60),
        ) {
            let (mut first, plain) = done(&before);
            first.freeze();
            let mut clone = first.clone();
            for (kind, key, value) in after {
                match kind {
                    0..6 => drop(clone.insert(key, value)),
                    _ => clone.remove(&key),
                }
            }
            prop_assert!(first.iter().eq(plain.iter()));
        }
    }

    #[test]
    fn a_frozen_map_holds_nothing_of_its_own() {
        let (mut layered, _) = done(&[(0, 1, 1), (9, 0, 0), (0, 2, 2), (6, 1, 0), (9, 0, 0)]);
        assert_eq!((layered.own_values().count(), layered.len()), (0, 1));
        layered.freeze();
        assert_eq!(layered.iter().collect::<Vec<_>>(), [(&2, &2)]);
    }
}
