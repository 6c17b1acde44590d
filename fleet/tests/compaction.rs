//! A journal that is written anew, without the blocks that its pages list, under a power cut and a failed sync at each
//! operation of its disk, and the same again inside recovery: the whole old journal is there, or the whole new one.

use osiris_fleet::{
    sim::disk::{Faults, SimDisk},
    store::{Recovered, Store, StoreError},
};
use osiris_ledger::{BlobHash, FleetId};

const FLEET: FleetId = FleetId([5; 32]);

/// What a journal holds.
type State = (Vec<Vec<u8>>, Vec<BlobHash>);

fn entry(n: u8) -> Vec<u8> {
    vec![n; 20 + 40 * usize::from(n % 7)]
}

fn slices(entries: &[Vec<u8>]) -> impl Iterator<Item = &[u8]> {
    entries.iter().map(Vec::as_slice)
}

/// What was acknowledged last, and what was asked for after it.
#[derive(Debug, Default)]
struct Told {
    made: bool,
    acknowledged: State,
    asked: Option<State>,
    /// Whether what was asked for is a journal written anew: then no part of it may be there.
    whole: bool,
    done: bool,
}

/// Appends, takes in a page as a replica does that joins, drops twice, starts again, and appends.
fn work(disk: &SimDisk) -> Told {
    let mut told = Told { asked: Some((vec![entry(0)], Vec::new())), ..Told::default() };
    let Ok(mut store) = Store::create(disk.clone(), &FLEET, &[entry(0).as_slice()]) else { return told };
    (told.made, told.acknowledged) = (true, told.asked.take().expect("the first"));
    for step in 0..12_u8 {
        let (mut entries, mut pages) = told.acknowledged.clone();
        let more: Vec<_> = (1..=4).map(|n| entry(step * 4 + n)).collect();
        let anew = step % 5 == 3;
        let page = [BlobHash([step; 32])];
        if anew {
            // All but the first block and the last of the others go.
            entries.drain(1..entries.len() - 3);
            pages.extend(page);
        } else {
            entries.extend(more.clone());
            pages.extend(page.iter().filter(|_| step == 1));
        }
        (told.asked, told.whole) = (Some((entries.clone(), pages.clone())), anew);
        let written = match anew {
            true => store.rewrite(&pages, slices(&entries)),
            false => store.append_with(if step == 1 { &page } else { &[] }, slices(&more)),
        };
        if written.is_err() {
            return told;
        }
        (told.acknowledged, told.asked) = ((entries, pages), None);
        if step % 4 == 0 {
            match Store::open(disk.clone()) {
                Ok((again, _)) => store = again,
                Err(_) => return told,
            }
        }
    }
    told.done = true;
    told
}

/// What is there is what was acknowledged, or what was asked for after it, or of an append a part.
fn check(found: &Recovered, told: &Told, what: &str) -> bool {
    let clean = found.damage.is_empty() && found.lost_end.is_none() && !found.head_damaged;
    assert!(clean, "{what}: {found:?}");
    let held = (found.entries.clone(), found.pages.clone());
    if held == told.acknowledged {
        return false;
    }
    let asked = told.asked.as_ref().unwrap_or_else(|| panic!("{what}: what was acknowledged is not there"));
    if told.whole {
        assert!(held == *asked, "{what}: neither the old journal nor the new one");
    } else {
        assert!(held.0.starts_with(&told.acknowledged.0) && asked.0.starts_with(&held.0), "{what}");
        assert!(held.1 == told.acknowledged.1 || held.1 == asked.1, "{what}");
    }
    true
}

fn open(disk: &SimDisk, told: &Told, what: &str) -> Option<(Store<SimDisk>, Recovered)> {
    match Store::open(disk.clone()) {
        Ok(opened) => Some(opened),
        Err(StoreError::Missing { .. }) if !told.made => None,
        Err(error) => panic!("{what}: {error:?}"),
    }
}

/// Recovery, twice, gives the same; and what is appended then stays.
fn stays(disk: &SimDisk, told: &Told, what: &str) -> bool {
    let Some((_, first)) = open(disk, told, what) else { return false };
    let newer = check(&first, told, what);
    disk.restart();
    let (mut store, again) = open(disk, told, what).expect("it was opened before");
    assert!(again.entries == first.entries && again.pages == first.pages, "{what}: recovering twice");
    let more = [entry(200), entry(201)];
    store.append(slices(&more)).unwrap_or_else(|error| panic!("{what}: {error}"));
    disk.restart();
    let (_, last) = open(disk, told, what).expect("it was opened before");
    assert!(last.entries == [first.entries, more.to_vec()].concat(), "{what}: acknowledged, and lost");
    assert_eq!(last.pages, first.pages, "{what}");
    newer
}

fn operations() -> (u64, u64) {
    let disk = SimDisk::new(0);
    assert!(work(&disk).done);
    (disk.operations(), disk.syncs())
}

#[test]
fn a_power_cut_at_each_operation_leaves_the_old_journal_or_the_new_one() {
    let (mut old, mut new, mut inside) = (0, 0, 0);
    for k in 0..operations().0 {
        for chance in 0..8 {
            let disk = SimDisk::new(k * 8 + chance);
            disk.set_faults(Faults { power_cut_at: Some(k), ..Faults::default() });
            let told = work(&disk);
            disk.restart();
            // The power goes again inside recovery.
            let again = disk.fork(k * 8 + chance + 1_000_000);
            again.set_faults(Faults { power_cut_at: Some(chance), ..Faults::default() });
            inside += u64::from(Store::open(again.clone()).is_err());
            again.restart();
            for (disk, what) in [(disk, "once"), (again, "and inside recovery")] {
                let what = format!("power cut at operation {k}, chance {chance}, {what}");
                let newer = stays(&disk, &told, &what);
                if told.whole && told.asked.is_some() {
                    (old, new) = (old + u64::from(!newer), new + u64::from(newer));
                }
            }
        }
    }
    assert!(old > 0 && new > 0 && inside > 0, "{old} {new} {inside}");
}

#[test]
fn a_failed_sync_poisons_the_store_and_loses_nothing_that_was_acknowledged() {
    let mut in_rewrites = 0;
    for at in 0..operations().1 {
        for chance in 0..4 {
            let disk = SimDisk::new(at * 4 + chance);
            disk.set_faults(Faults { sync_fails_at: Some(at), ..Faults::default() });
            let told = work(&disk);
            in_rewrites += u64::from(told.whole && told.asked.is_some());
            disk.set_faults(Faults::default());
            disk.restart();
            stays(&disk, &told, &format!("sync {at} fails, chance {chance}"));
        }
    }
    assert!(in_rewrites > 0);
}
