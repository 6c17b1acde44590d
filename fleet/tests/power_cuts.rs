//! The journal under every failure of its disk: a power cut, a killed process, a failed sync and a full
//! disk at each operation of a workload; the same again inside recovery; each torn, flipped or cut byte.
//!
//! What rarely happens is counted, and the tests fail where it never did.

use osiris_fleet::{
    disk::Disk as _,
    sim::disk::{Faults, Happened, SimDisk},
    store::{self, HEAD, JOURNAL, KEPT, Recovered, Store, StoreError},
};
use osiris_ledger::{FleetId, journal};

const FLEET: FleetId = FleetId([5; 32]);

/// splitmix64 of one number.
fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The n-th entry: its number, and then bytes of its own, some tens or some thousand.
fn entry(n: usize) -> Vec<u8> {
    let random = mix(n as u64);
    let len = if random.is_multiple_of(5) { 600 + random % 2_000 } else { 8 + random % 90 };
    let mut bytes = (n as u64).to_le_bytes().to_vec();
    bytes.extend((8..len).map(|at| mix(random ^ at).to_le_bytes()[0]));
    bytes
}

fn entries(from: usize, count: usize) -> Vec<Vec<u8>> {
    (from..from + count).map(entry).collect()
}

fn slices(entries: &[Vec<u8>]) -> impl Iterator<Item = &[u8]> {
    entries.iter().map(Vec::as_slice)
}

/// Groups of one to seven entries.
const GROUPS: usize = 90;

fn group(n: usize) -> usize {
    1 + usize::try_from(mix(n as u64 ^ 0xabcd) % 7).expect("small")
}

/// What a workload was told, and what it tried.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    /// Whether the journal was made.
    made: bool,
    /// Entries that are acknowledged.
    acknowledged: usize,
    /// Entries that were handed over.
    appended: usize,
}

/// Founds, appends, ends cleanly and starts again now and then, until the disk fails.
fn work(disk: &SimDisk) -> Told {
    let mut told = Told { appended: 1, ..Told::default() };
    let Ok(mut store) = Store::create(disk.clone(), &FLEET, &[entry(0).as_slice()]) else { return told };
    (told.made, told.acknowledged) = (true, 1);
    for n in 0..GROUPS {
        let entries = entries(told.appended, group(n));
        told.appended += entries.len();
        if store.append(slices(&entries)).is_err() {
            return told;
        }
        told.acknowledged = told.appended;
        if n % 30 == 29 {
            if store.close().is_err() {
                return told;
            }
            match Store::open(disk.clone()) {
                Ok((again, _)) => store = again,
                Err(_) => return told,
            }
        }
    }
    told
}

/// What happened in all runs of a test.
#[derive(Debug, Default)]
struct Seen {
    runs: u64,
    torn_tails: u64,
    holes_in_groups: u64,
    unacknowledged_kept: u64,
    lost_renames: u64,
    lost_creations: u64,
    zeroed_sectors: u64,
    clean_but_lost: u64,
    inside_recovery: u64,
    unmade: u64,
}

impl Seen {
    fn note(&mut self, happened: Happened) {
        self.lost_renames += happened.lost_renames;
        self.lost_creations += happened.lost_creations;
        self.zeroed_sectors += happened.zeroed_sectors;
        self.clean_but_lost += happened.clean_but_lost;
    }

    fn require(&self, gates: &[(&str, u64)]) {
        eprintln!("{self:?}");
        for (what, count) in gates {
            assert!(*count > 0, "in the whole run there were no {what}: {self:?}");
        }
    }
}

/// Opens after an honest disk failed: what is there is a prefix of what was appended, with all that was
/// acknowledged, and nothing is called damaged.
fn recovered(disk: &SimDisk, told: Told, seen: &mut Seen, what: &str) -> Option<Recovered> {
    let (_, found) = match Store::open(disk.clone()) {
        Ok(opened) => opened,
        Err(StoreError::Missing { .. }) if !told.made => {
            seen.unmade += 1;
            return None;
        }
        Err(error) => panic!("{what}: {error:?}"),
    };
    assert!(found.entries.len() >= told.acknowledged, "{what}: {} of {told:?}", found.entries.len());
    assert!(found.entries.len() <= told.appended, "{what}: more than was appended");
    for (n, held) in found.entries.iter().enumerate() {
        assert!(*held == entry(n), "{what}: entry {n} is another");
    }
    assert!(found.damage.is_empty() && found.lost_end.is_none() && !found.head_damaged, "{what}: {found:?}");
    seen.runs += 1;
    seen.unacknowledged_kept += u64::from(found.entries.len() > told.acknowledged);
    if let Some(tail) = found.torn_tail {
        seen.torn_tails += 1;
        let kept = found.kept_tail.as_ref().expect("a tail is kept");
        let kept = disk.read(kept).expect("read").expect("the tail");
        assert_eq!(kept.len(), tail.bytes, "{what}");
        // A whole record behind the hole.
        let behind = kept.windows(4).skip(1).any(|bytes| bytes == b"\xB1oJR");
        seen.holes_in_groups += u64::from(behind);
    }
    Some(found)
}

/// What was returned once is there after a power cut, says nothing more, and can be appended to.
fn stays(disk: &SimDisk, first: &Recovered, what: &str) {
    disk.restart();
    let (mut store, again) = Store::open(disk.clone()).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(again.entries == first.entries, "{what}: recovering twice gives the same");
    assert!(
        again.torn_tail.is_none() && again.damage.is_empty() && again.lost_end.is_none(),
        "{what}: {again:?}"
    );
    let more = entries(again.entries.len(), 3);
    store.append(slices(&more)).unwrap_or_else(|error| panic!("{what}: {error}"));
    disk.restart();
    let (_, last) = Store::open(disk.clone()).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(last.entries.len(), first.entries.len() + 3, "{what}: acknowledged after recovery, and lost");
}

fn operations() -> u64 {
    let disk = SimDisk::new(0);
    assert_eq!(work(&disk).acknowledged, 1 + (0..GROUPS).map(group).sum::<usize>());
    // Reopening does not reset the count: only restarts do.
    disk.operations()
}

#[test]
fn a_power_cut_at_each_operation_loses_nothing_that_was_acknowledged() {
    let mut seen = Seen::default();
    for k in 0..operations() {
        for chance in 0..6 {
            let what = format!("power cut at operation {k}, chance {chance}");
            let disk = SimDisk::new(mix(k) ^ chance);
            disk.set_faults(Faults { power_cut_at: Some(k), ..Faults::default() });
            let told = work(&disk);
            disk.restart();
            let found = recovered(&disk, told, &mut seen, &what);
            if let Some(found) = found {
                stays(&disk, &found, &what);
            }
            seen.note(disk.happened());
        }
    }
    seen.require(&[
        ("torn tails", seen.torn_tails),
        ("holes within the last group", seen.holes_in_groups),
        ("whole records that nobody was told of", seen.unacknowledged_kept),
        ("lost renames", seen.lost_renames),
        ("lost creations", seen.lost_creations),
        ("zeroed sectors", seen.zeroed_sectors),
        ("cuts while the journal was being made", seen.unmade),
    ]);
}

#[test]
fn a_power_cut_at_each_operation_of_recovery_and_again_inside_that() {
    let mut seen = Seen::default();
    for k in 0..operations() {
        let first = SimDisk::new(mix(k) ^ 77);
        first.set_faults(Faults { power_cut_at: Some(k), ..Faults::default() });
        let told = work(&first);
        first.restart();
        for j in 0.. {
            let disk = first.fork(mix(k * 1_000 + j));
            let what = format!("power cut at operation {k}, and at {j} of the recovery");
            disk.set_faults(Faults { power_cut_at: Some(j), ..Faults::default() });
            let through = Store::open(disk.clone()).is_ok() || !told.made;
            if !through {
                seen.inside_recovery += 1;
                for depth in 0..3 {
                    disk.restart();
                    let cut = mix(k ^ (j << 20) ^ depth) % 9;
                    disk.set_faults(Faults { power_cut_at: Some(cut), ..Faults::default() });
                    let _ = Store::open(disk.clone());
                }
            }
            disk.restart();
            if let Some(found) = recovered(&disk, told, &mut seen, &what) {
                stays(&disk, &found, &what);
            }
            seen.note(disk.happened());
            if through {
                break;
            }
        }
    }
    seen.require(&[
        ("power cuts inside recovery", seen.inside_recovery),
        ("torn tails", seen.torn_tails),
        ("lost renames", seen.lost_renames),
    ]);
}

/// The page cache outlives the process: what is whole in it need not be on the disk.
#[test]
fn a_killed_process_and_then_a_power_cut_lose_nothing_that_recovery_returned() {
    let mut seen = Seen::default();
    for k in 0..operations() {
        for chance in 0..4 {
            let what = format!("killed at operation {k}, chance {chance}");
            let disk = SimDisk::new(mix(k) ^ chance);
            disk.set_faults(Faults { power_cut_at: Some(k), ..Faults::default() });
            let told = work(&disk);
            disk.reopen();
            if let Some(found) = recovered(&disk, told, &mut seen, &what) {
                assert_eq!(found.torn_tail, None, "{what}: a killed process tears nothing");
                stays(&disk, &found, &what);
            }
        }
    }
    seen.require(&[("whole records that nobody was told of", seen.unacknowledged_kept)]);
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_and_a_restart_finds_what_was() {
    let mut seen = Seen::default();
    let syncs = {
        let disk = SimDisk::new(0);
        work(&disk);
        disk.syncs()
    };
    for k in 0..syncs {
        for (chance, (killed, power)) in
            [(false, false), (false, true), (true, false), (true, true)].into_iter().enumerate()
        {
            let what = format!("sync {k} fails, killed {killed}, power cut {power}");
            let disk = SimDisk::new(mix(k) ^ chance as u64);
            disk.set_faults(Faults { sync_fails_at: Some(k), dies_then: killed, ..Faults::default() });
            let told = work(&disk);
            assert_eq!(disk.happened().failed_syncs, 1, "{what}");
            if power {
                disk.restart()
            } else {
                disk.reopen()
            }
            if let Some(found) = recovered(&disk, told, &mut seen, &what) {
                stays(&disk, &found, &what);
            }
            seen.note(disk.happened());
        }
    }
    seen.require(&[
        ("writes that a failed sync lost and called clean", seen.clean_but_lost),
        ("whole records that nobody was told of", seen.unacknowledged_kept),
    ]);
}

#[test]
fn a_poisoned_store_says_its_first_reason_and_reads_go_on() {
    let mut poisoned = [0, 0];
    for k in 0..40 {
        for full in [false, true] {
            let disk = SimDisk::new(mix(k));
            let mut store = Store::create(disk.clone(), &FLEET, &[entry(0).as_slice()]).expect("made");
            disk.reopen();
            let used: usize = disk.snapshot().0.values().map(Vec::len).sum();
            disk.set_faults(match full {
                false => Faults { sync_fails_at: Some(k), ..Faults::default() },
                true => Faults { capacity: Some(used as u64 + k * 61), ..Faults::default() },
            });
            let (mut held, mut first) = (1, None);
            for _ in 0..60 {
                let more = entries(held, 1);
                match store.append(slices(&more)) {
                    Ok(()) => {
                        assert_eq!(first, None, "acknowledged after a failure");
                        held += 1;
                    }
                    Err(poison) => {
                        assert_eq!(*first.get_or_insert_with(|| poison.clone()), poison, "the first reason");
                        disk.set_faults(Faults::default());
                    }
                }
            }
            let first = first.expect("it fails at some time");
            assert_eq!(store.poisoned(), Some(&first));
            assert!(
                first.reason.contains(if full { "no space left" } else { "input/output error" }),
                "{first}"
            );
            assert_eq!(store::inspect(&disk).expect("reads go on").entries, entries(0, held));
            poisoned[usize::from(full)] += 1;
        }
    }
    assert_eq!(poisoned, [40, 40]);
}

#[test]
fn a_full_disk_loses_nothing_and_nearly_always_starts_again_while_it_is_full() {
    let mut seen = Seen::default();
    let bytes: usize = {
        let disk = SimDisk::new(0);
        work(&disk);
        disk.snapshot().0.values().map(Vec::len).sum()
    };
    let (mut while_full, mut head_behind, mut not_while_full) = (0, 0, 0);
    for capacity in (0..bytes as u64 + 200).step_by(173) {
        let what = format!("room for {capacity} bytes");
        let disk = SimDisk::new(capacity);
        let full = Faults { capacity: Some(capacity), ..Faults::default() };
        disk.set_faults(full.clone());
        let told = work(&disk);
        // The process ends, and the disk is still full.
        disk.reopen();
        let after = disk.fork(capacity);
        after.set_faults(full.clone());
        if told.made {
            match Store::open(after.clone()) {
                Ok((_, found)) => {
                    assert!(found.entries.len() >= told.acknowledged, "{what}");
                    while_full += 1;
                }
                // The head file was what had no room, so the journal is to be written again.
                Err(StoreError::Write(error)) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{what}");
                    head_behind += 1;
                }
                Err(error) => panic!("{what}: {error}"),
            }
        }
        // The power goes, and the disk is full until somebody makes room.
        disk.restart();
        disk.set_faults(full);
        match Store::open(disk.clone()) {
            Ok(_) | Err(StoreError::Missing { .. }) => {}
            Err(StoreError::Write(_)) => not_while_full += 1,
            Err(error) => panic!("{what}: {error}"),
        }
        disk.reopen();
        if let Some(found) = recovered(&disk, told, &mut seen, &what) {
            stays(&disk, &found, &what);
        }
    }
    eprintln!(
        "starts: {while_full} on the full disk, not {head_behind}; {not_while_full} not after a power cut"
    );
    assert!(head_behind > 0 && not_while_full > 0, "{head_behind} {not_while_full}");
    assert!(while_full > 20 * (head_behind + not_while_full), "{while_full} {head_behind} {not_while_full}");
    seen.require(&[("disks too full for any journal", seen.unmade)]);
}

/// A journal of some groups, cleanly closed or not.
fn small(closed: bool) -> (SimDisk, usize) {
    let disk = SimDisk::new(3);
    let mut store = Store::create(disk.clone(), &FLEET, &[b"genesis".as_slice()]).expect("made");
    store.append([b"one".as_slice()]).expect("room");
    store.append([b"two".as_slice(), b"three", b"four"]).expect("room");
    if closed {
        store.close().expect("room");
    }
    (disk, 5)
}

fn kept(disk: &SimDisk) -> usize {
    let names = disk.list().expect("names");
    names.iter().filter(|name| KEPT.iter().any(|kept| name.starts_with(kept))).count()
}

/// Forgets how far the journal went, as an old head file that came back would.
fn forget_head(disk: &SimDisk) {
    disk.clone().remove(HEAD).expect("removed");
}

#[test]
fn no_flipped_bit_makes_a_journal_shorter_in_silence() {
    let (disk, count) = small(true);
    let len = disk.read(JOURNAL).expect("read").expect("the journal").len();
    let (mut damaged, mut torn, mut refused, mut mended) = (0, 0, 0, 0);
    for with_head in [true, false] {
        for byte in 0..len {
            for bit in 0..8 {
                let disk = disk.fork(0);
                assert!(disk.flip(JOURNAL, byte, bit));
                if !with_head {
                    forget_head(&disk);
                }
                let what = format!("bit {bit} of byte {byte}, head {with_head}");
                let (_, found) = match Store::open(disk.clone()) {
                    Ok(opened) => opened,
                    // What a later build may write, and a fleet that nothing else names.
                    Err(StoreError::Header(error)) => {
                        let newer = matches!(error, journal::HeaderError::Newer(_));
                        let unnamed = !with_head && (8..40).contains(&byte);
                        assert!((byte == 7 && newer) || unnamed, "{what}: {error}");
                        refused += 1;
                        continue;
                    }
                    Err(error) => panic!("{what}: {error}"),
                };
                let in_header = byte < journal::HEADER_BYTES;
                assert!(in_header || found.entries.len() < count, "{what}: nothing flipped is taken");
                assert!(!found.warnings("d".as_ref()).is_empty(), "{what}: silent");
                assert_eq!(kept(&disk), found_files(&found), "{what}");
                if in_header {
                    assert_eq!((found.entries.len(), found.damage[0].offset), (count, 0), "{what}");
                    stays(&disk, &found, &what);
                    mended += 1;
                } else if with_head {
                    assert_eq!(found.entries.len(), count - 1, "{what}: what is whole is kept");
                }
                damaged += u32::from(!found.damage.is_empty());
                torn += u32::from(found.torn_tail.is_some());
            }
        }
    }
    assert!(damaged > 0 && torn > 0 && refused > 0 && mended > 0, "{damaged} {torn} {refused} {mended}");
}

fn found_files(found: &Recovered) -> usize {
    [&found.kept, &found.kept_tail, &found.kept_cut].into_iter().flatten().count()
}

#[test]
fn a_journal_cut_at_any_byte_is_noticed_and_exactly_at_a_record_too() {
    let (disk, count) = small(false);
    let whole = disk.read(JOURNAL).expect("read").expect("the journal");
    let boundaries: Vec<_> = journal::scan(&whole, None)
        .expect("a journal")
        .records
        .iter()
        .map(|record| usize::try_from(record.head.bytes).expect("small"))
        .collect();
    let mut at_boundaries = 0;
    for len in 0..whole.len() {
        let disk = disk.fork(0);
        disk.tamper(JOURNAL, |bytes| bytes.truncate(len));
        let (_, found) = match Store::open(disk.clone()) {
            Err(StoreError::Header(_)) if len < journal::HEADER_BYTES => continue,
            opened => opened.expect("opened"),
        };
        let held = boundaries.iter().filter(|end| **end <= len).count();
        assert_eq!(found.entries.len(), held, "cut at {len}");
        let lost = found.lost_end.expect("the cut is noticed");
        assert_eq!((lost.known.number, lost.found.number, lost.same), (count as u64, held as u64, true));
        assert_eq!(found.torn_tail.is_some(), !boundaries.contains(&len) && len > journal::HEADER_BYTES);
        assert_eq!(kept(&disk), found_files(&found), "cut at {len}");
        at_boundaries += u32::from(found.torn_tail.is_none());
        // Without the head file, a cut within a record shows and one at a boundary does not.
        let disk = SimDisk::new(0);
        disk.restore(&osiris_fleet::sim::disk::Snapshot(
            [(JOURNAL.to_owned(), whole[..len].to_vec())].into(),
        ));
        let (_, found) = Store::open(disk).expect("opened");
        assert_eq!((found.entries.len(), found.lost_end), (held, None));
    }
    assert_eq!(at_boundaries as usize, boundaries.len(), "each boundary but the last, and the header's end");
}

#[test]
fn whole_records_that_vanish_in_the_middle_are_counted() {
    let (disk, count) = small(true);
    let whole = disk.read(JOURNAL).expect("read").expect("the journal");
    let scan = journal::scan(&whole, None).expect("a journal");
    for from in 0..count - 1 {
        for to in from + 1..count {
            let disk = disk.fork(0);
            let (start, end) = (scan.records[from].offset, scan.records[to].offset);
            disk.tamper(JOURNAL, |bytes| drop(bytes.drain(start..end)));
            let (_, found) = Store::open(disk.clone()).expect("opened");
            assert_eq!(found.entries.len(), count - (to - from));
            assert_eq!(found.damage.len(), 1);
            assert_eq!(found.damage[0].records, (to - from) as u64);
            assert!(found.warnings("d".as_ref())[0].contains("record(s) missing"));
            stays(&disk, &found, "after records vanished");
        }
    }
}

#[test]
fn a_power_cut_at_each_operation_of_mending_damage_changes_nothing() {
    let (disk, _) = small(true);
    let whole = disk.read(JOURNAL).expect("read").expect("the journal");
    let at: Vec<_> =
        journal::scan(&whole, None).expect("a journal").records.iter().map(|r| r.offset).collect();
    type Harm = fn(&mut Vec<u8>, &[usize]);
    let harms: [Harm; 5] = [
        |bytes, at| bytes[at[1] + 20] ^= 1,
        |bytes, at| bytes[at[3] + 20] ^= 1,
        |bytes, at| drop(bytes.drain(at[1]..at[2])),
        |bytes, at| bytes.truncate(at[4]),
        |bytes, at| {
            bytes[at[1] + 20] ^= 1;
            bytes.truncate(at[4] + 9);
        },
    ];
    let (mut cut, mut mended) = (0, 0);
    for (n, harm) in harms.into_iter().enumerate() {
        let harmed = disk.fork(n as u64);
        harmed.tamper(JOURNAL, |bytes| harm(bytes, &at));
        let through = harmed.fork(0);
        let (_, expected) = Store::open(through.clone()).expect("opened");
        let files = kept(&through);
        assert!(files > 0);
        for (j, chance) in (0..through.operations()).flat_map(|j| (0..12).map(move |chance| (j, chance))) {
            let what = format!("harm {n}, power cut at operation {j} of mending it, chance {chance}");
            let disk = harmed.fork(mix(j * 100 + chance));
            disk.reopen();
            disk.set_faults(Faults { power_cut_at: Some(j), ..Faults::default() });
            cut += u32::from(Store::open(disk.clone()).is_err());
            disk.restart();
            let (_, found) = Store::open(disk.clone()).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(found.entries == expected.entries, "{what}: {} entries", found.entries.len());
            assert_eq!(kept(&disk), files, "{what}: kept once");
            let said = !found.warnings("d".as_ref()).is_empty();
            assert!(!said || found.lost_end == expected.lost_end, "{what}: {found:?}");
            mended += u32::from(!said);
            stays(&disk, &found, &what);
        }
    }
    assert!(cut > 0 && mended > 0, "{cut} {mended}");
}

#[test]
fn a_folder_restored_from_a_backup_is_fine() {
    let disk = SimDisk::new(4);
    let mut store = Store::create(disk.clone(), &FLEET, &[entry(0).as_slice()]).expect("made");
    store.append(slices(&entries(1, 4))).expect("room");
    let backup = disk.snapshot();
    store.append(slices(&entries(5, 4))).expect("room");
    store.close().expect("closed");
    let newer = disk.snapshot();
    disk.restore(&backup);
    let (_, found) = Store::open(disk.clone()).expect("opened");
    assert_eq!(found.entries, entries(0, 5));
    assert_eq!(found.warnings("d".as_ref()), Vec::<String>::new(), "an old state, and a whole one");
    // The files of two moments: a copy that was made while the node ran.
    let mut mixed = backup;
    mixed.0.insert(HEAD.to_owned(), newer.0[HEAD].clone());
    disk.restore(&mixed);
    let (_, found) = Store::open(disk.clone()).expect("opened");
    assert_eq!(found.entries, entries(0, 5));
    assert_eq!(found.lost_end.map(|lost| (lost.known.number, lost.found.number)), Some((9, 5)));
    stays(&disk, &found, "restored");
}

#[test]
fn a_disk_that_lies_about_syncs_is_found_out_where_the_head_outlived_the_journal() {
    let (mut noticed, mut unnoticed, mut complete) = (0, 0, 0);
    for seed in 0..400 {
        let disk = SimDisk::new(seed);
        let mut store = Store::create(disk.clone(), &FLEET, &[entry(0).as_slice()]).expect("made");
        disk.set_faults(Faults { syncs_lie: true, ..Faults::default() });
        for n in 0..12 {
            store.append(slices(&entries(1 + n, 1))).expect("acknowledged, and not durable");
        }
        disk.restart();
        let head = disk.read(HEAD).expect("read").expect("the head file");
        let known = journal::read_head_file(&head).expect("its first head is durable").1.number;
        let (_, found) = Store::open(disk.clone()).expect("opened");
        let said = !found.damage.is_empty() || found.lost_end.is_some();
        assert!(said || found.entries.len() as u64 >= known, "seed {seed}: shorter than the head says");
        match (found.entries.len() < 13, said) {
            (true, true) => noticed += 1,
            (true, false) => unnoticed += 1,
            (false, _) => complete += 1,
        }
    }
    eprintln!("noticed {noticed}, unnoticed {unnoticed}, complete {complete}");
    assert!(noticed > 0 && unnoticed > 0 && complete > 0, "{noticed} {unnoticed} {complete}");
}
