//! Durable appends: what the journal acknowledges a second at 1 and at 64 writers, beside what the disk
//! itself does.
//!
//! The floor is a bare `fdatasync` behind each write of a record's size, in the same folder and the same run,
//! by turns. A writer here waits for its block to be acknowledged before it has another; the blocks are signed
//! before, since that is measured elsewhere. `cargo bench --workspace --bench appends`.
#![allow(missing_docs, reason = "a bench")]

use std::{
    fs::OpenOptions,
    io::Write as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use osiris_fleet::{
    driver::{Journal, JournalThread},
    node::Group,
};
use osiris_ledger::{Author, Block, Founding, Ledger, Now, Payload, Roles, Session, SigningKey, Writer, op};

const WRITERS: [usize; 2] = [1, 64];
/// Rounds of each; the median counts.
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_millis(800);
/// Blocks that are written in turn.
const BLOCKS: usize = 64;

fn author(seed: u8) -> Author {
    Author(SigningKey::from_bytes(&[seed; 32]).verifying_key().to_bytes())
}

fn blocks() -> (Ledger, Vec<Arc<Block>>) {
    let mut writer = Writer::new(SigningKey::from_bytes(&[1; 32]), Session([1; 16]));
    let founding = Founding {
        name: "bench".to_owned(),
        label: "one".to_owned(),
        admin: &SigningKey::from_bytes(&[2; 32]),
        recovery: author(3),
        nonce: Session([9; 16]),
    };
    let (mut ledger, _) = writer.found(Now::default(), founding).expect("founded");
    let note = "a note as long as others are".to_owned();
    let op = op::Invited { key: author(4), uses: 1, roles: Roles::NODE, device: Some(author(5)), note };
    let mut append = || {
        let block = writer.append(&mut ledger, Now::default(), Payload::Invited(op.clone()));
        block.expect("allowed")
    };
    let blocks = (0..BLOCKS).map(|_| append()).collect();
    (ledger, blocks)
}

/// Acknowledged appends a second, with so many writers that each wait for their own.
fn appends(journal: &mut JournalThread, next: &mut u64, blocks: &[Arc<Block>], writers: usize) -> f64 {
    let send = |journal: &JournalThread, next: &mut u64| {
        *next += 1;
        let block = &blocks[usize::try_from(*next).expect("few") % blocks.len()];
        let group = Group { number: *next, blocks: vec![Arc::clone(block)], pages: Vec::new(), anew: false };
        journal.groups.blocking_send(group).expect("the journal's thread runs");
    };
    let (start, first) = (Instant::now(), *next);
    let mut durable = *next;
    for _ in 0..writers {
        send(journal, next);
    }
    loop {
        let acknowledged = journal.acknowledged.blocking_recv();
        let number = acknowledged.expect("the journal's thread runs").expect("the disk writes");
        let free = number - std::mem::replace(&mut durable, number);
        if start.elapsed() < ROUND {
            (0..free).for_each(|_| send(journal, next));
        } else if durable == *next {
            return (durable - first) as f64 / start.elapsed().as_secs_f64();
        }
    }
}

/// Writes of so many bytes a second, each made durable by itself.
fn syncs(folder: &Path, bytes: usize) -> f64 {
    let file = OpenOptions::new().create(true).append(true).open(folder.join("floor"));
    let mut file = file.expect("a file");
    let record = vec![7; bytes];
    let (start, mut count) = (Instant::now(), 0_u32);
    while start.elapsed() < ROUND {
        file.write_all(&record).expect("written");
        rustix::fs::fdatasync(&file).expect("durable");
        count += 1;
    }
    f64::from(count) / start.elapsed().as_secs_f64()
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_unstable_by(f64::total_cmp);
    of[of.len() / 2]
}

fn main() {
    // In the build's folder: the system's temporary one may be memory.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let (ledger, blocks) = blocks();
    Journal::create(folder.path(), &ledger.fleet(), &[]).expect("a journal");
    let (journal, _) = Journal::open(folder.path()).expect("opened");
    let mut journal = journal.spawn();
    let mut next = 0;
    let record = blocks[0].entry().len() + 37;
    let mut floor = Vec::new();
    let mut rates = WRITERS.map(|_| Vec::new());
    for _ in 0..ROUNDS {
        floor.push(syncs(folder.path(), record));
        for (writers, rates) in WRITERS.iter().zip(&mut rates) {
            rates.push(appends(&mut journal, &mut next, &blocks, *writers));
        }
    }
    let floor = median(floor);
    println!("fdatasync behind each write of {record} bytes: {floor:.0} a second");
    for (writers, rates) in WRITERS.iter().zip(rates) {
        let rate = median(rates);
        println!("durable appends, {writers} writer(s): {rate:.0} a second = {:.2} of it", rate / floor);
    }
    println!("(aim at 64 writers: 6,000 a second)");
}
