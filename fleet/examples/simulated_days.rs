//! Days of a fleet of 100 nodes, by the simulator, as data folders of its founding device.
//!
//! ```sh
//! cargo build --release --workspace --example simulated_days
//! target/release/examples/simulated_days FOLDER 1
//! OSIRIS_HISTORY=FOLDER cargo bench --workspace --bench small_device
//! ```
//!
//! It writes the same bytes each time: three folders, `all` with every block, `small` with at most 50,000 of them and
//! the sealed pages of the rest, and `least` with all dropped that is sealed. What the days hold says [`history`]. The first
//! day takes half a minute, and each more than the one before it: thirty were given up after 24 minutes. Thirty days
//! by writers alone, within seconds, are `crdt-ledger/examples/thirty_days.rs`.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a program of its own, which measures a load from files"
)]

use std::{collections::BTreeSet, env, error::Error, fs, path::Path, sync::Arc, time::Instant};

use osiris_fleet::sim::{History, history};
use osiris_ledger::{
    BlobHash, Block, Ledger, Page,
    journal::{self, Header, Kind},
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const SEED: u64 = 1;
const NODES: u32 = 100;
/// Blocks that a small device keeps in full.
const FULL_MAX: u64 = 50_000;

fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        [folder, days] => make(Path::new(folder), days.parse()?),
        _ => Err("usage: simulated_days FOLDER DAYS".into()),
    }
}

fn make(folder: &Path, days: u64) -> Result<()> {
    let start = Instant::now();
    let made = history(SEED, NODES, days)?;
    eprintln!(
        "{days} days of {NODES} nodes simulated in {} s: {} events, at most {}",
        start.elapsed().as_secs(),
        made.events,
        peak()
    );
    let mut ledger = Ledger::new(made.fleet);
    for block in &made.blocks {
        ledger.replay(block.entry())?;
    }
    fs::create_dir_all(folder)?;
    let all = (ledger.publish().hash(), ledger.digest());
    let sealed: BTreeSet<_> =
        ledger.publish().pages().iter().filter(|page| page.sealed).map(|page| page.page).collect();
    let pages = made.pages.iter().filter(|(name, _)| sealed.contains(name));
    let pages: Vec<_> = pages.map(|(_, page)| Arc::clone(page)).collect();
    write_folder(&made, &ledger, &pages, 0, &folder.join("all"))?;
    let mut dropped = 0;
    for (name, most) in [("small", FULL_MAX), ("least", 0)] {
        while let Some(page) = pages.get(dropped).filter(|_| ledger.len_full() > most) {
            ledger.prune(page).map_err(|block| format!("a page is not true of {block}"))?;
            dropped += 1;
        }
        assert_eq!((ledger.publish().hash(), ledger.digest()), all, "pruning changes nothing");
        write_folder(&made, &ledger, &pages, dropped, &folder.join(name))?;
    }
    Ok(())
}

/// The founding device's data folder: its key, its journal, and the bytes of every page. By the first of those,
/// `dropped`, blocks are here.
fn write_folder(
    made: &History,
    ledger: &Ledger,
    pages: &[Arc<Page>],
    dropped: usize,
    to: &Path,
) -> Result<()> {
    let library = to.join("library");
    fs::create_dir_all(&library)?;
    for page in pages {
        fs::write(library.join(format!("{}.blob", page.hash())), page.encode())?;
    }
    fs::write(to.join("device.key"), format!("{}\n", BlobHash(made.founder)))?;
    let header = Header { fleet: ledger.fleet(), generation: 1 };
    let blocks = ledger.in_order();
    let entries = blocks.iter().map(|block| (Kind::Block, AsRef::<Block>::as_ref(block).entry()));
    let names: Vec<_> = pages[..dropped].iter().map(|page| page.hash()).collect();
    let named = names.iter().map(|name| (Kind::Page, name.0.as_slice()));
    let (bytes, _) = journal::write_all(&header, entries.chain(named));
    fs::write(to.join("journal"), bytes)?;
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    println!(
        "{name}: blocks {} in full {} pages {dropped} of {}",
        ledger.len(),
        ledger.len_full(),
        pages.len()
    );
    Ok(())
}

/// The most memory that this process had, as Linux says it.
fn peak() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or_else(|| "unknown".to_owned(), |said| said.trim().to_owned())
}
