//! Thirty days of a fleet of 100 nodes, and how a small device loads them.
//!
//! ```sh
//! cargo build --release --workspace --example thirty_days
//! target/release/examples/thirty_days make FOLDER
//! target/release/examples/thirty_days load FOLDER all
//! target/release/examples/thirty_days load FOLDER small
//! target/release/examples/thirty_days simulate FOLDER 1
//! ```
//!
//! `make` writes the same bytes each time: three data folders of the founding device, `all` with every block,
//! `small` with at most 50,000 of them and the sealed pages of the rest, and `least` with all dropped that is sealed;
//! `make FOLDER DAYS BLOCKS` makes other sizes. `simulate` makes the same folders of days that the simulator lived through
//! ([`history`]): one takes a minute, and thirty took 40 minutes of CPU time and 2.5 GB. `load` reads one of them in a
//! process of its own, until the view says who serves what, and prints how long that took and the most memory that the
//! process had. The real node is measured by `cargo bench --workspace --bench small_device`.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a program of its own, which measures a load from files"
)]

use std::{collections::BTreeSet, env, error::Error, fs, path::Path, sync::Arc, time::Instant};

use osiris_fleet::sim::{History, history};
use osiris_ledger::{
    Author, BlobHash, Block, BlockId, Founding, Ledger, Now, Page, Payload, Roles, Session, SigningKey,
    World, Writer, join_proof,
    journal::{self, Header, Kind},
    op,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const NODES: u8 = 100;
const DAYS: u64 = 30;
const DEPLOYS_A_DAY: u64 = 20;
const FUNCTIONS: u64 = 10;
/// Each node opens a new session so often, in days.
const RESTART_DAYS: u64 = 7;
/// Blocks that a small device keeps in full.
const FULL_MAX: u64 = 50_000;
/// The founding device, whose folders are written.
const FOUNDER: u8 = 255;

fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["make", folder] => make(Path::new(folder), DAYS, FULL_MAX),
        ["make", folder, days, full_max] => make(Path::new(folder), days.parse()?, full_max.parse()?),
        ["simulate", folder, days] => simulate(Path::new(folder), days.parse()?),
        ["load", folder, which @ ("all" | "small" | "least")] => load(&Path::new(folder).join(which)),
        _ => Err("usage: thirty_days make FOLDER [DAYS BLOCKS] | simulate FOLDER DAYS | load FOLDER all|small|least".into()),
    }
}

fn key(kind: u8, n: u8) -> SigningKey {
    SigningKey::from_bytes(&[kind, n].repeat(16).try_into().unwrap_or([kind; 32]))
}

fn public(key: &SigningKey) -> Author {
    Author(key.verifying_key().to_bytes())
}

struct Fleet {
    ledger: Ledger,
    founder: Writer,
    nodes: Vec<Writer>,
    pages: Vec<Arc<Page>>,
}

impl Fleet {
    fn found() -> Result<Self> {
        let mut founder = Writer::new(key(1, FOUNDER), Session([0; 16]));
        let founding = Founding {
            name: "thirty-days".to_owned(),
            label: "founder".to_owned(),
            admin: &key(2, 0),
            recovery: public(&key(3, 0)),
            nonce: Session::ZERO,
        };
        let (mut ledger, _) = founder.found(Now::default(), founding)?;
        let ticket = key(4, 0);
        let invited = op::Invited {
            key: public(&ticket),
            uses: NODES.into(),
            roles: Roles::NODE,
            device: None,
            note: String::new(),
        };
        let invitation = founder.append(&mut ledger, Now::default(), Payload::Invited(invited))?.id();
        let mut nodes = Vec::new();
        for n in 0..NODES {
            let device = public(&key(1, n));
            let proof = join_proof(&ticket, &ledger.fleet(), &invitation, &device);
            let label = format!("node-{n}");
            let admitted = Payload::Admitted(op::Admitted { invitation, device, proof, label });
            founder.append(&mut ledger, Now::default(), admitted)?;
            nodes.push(Writer::new(key(1, n), Session([n; 16])));
        }
        Ok(Self { ledger, founder, nodes, pages: Vec::new() })
    }

    /// A new revision, which every node makes ready and then leaves the one before.
    fn deploy(&mut self, number: u64, before: Option<BlockId>) -> Result<BlockId> {
        let [low, high, ..] = number.to_le_bytes();
        let component = BlobHash([low, high].repeat(16).try_into().unwrap_or([low; 32]));
        let deployed = op::Deployed {
            name: format!("function-{}", number % FUNCTIONS),
            component,
            size: 100_000,
            world: World::Native,
            manifest: component,
            manifest_size: 500,
            replaces: before.into_iter().collect(),
        };
        let revision =
            self.founder.append(&mut self.ledger, Now::default(), Payload::Deployed(deployed))?.id();
        for node in &mut self.nodes {
            let serving = Payload::Serving(op::Serving { revision, concurrency: 4 });
            node.append(&mut self.ledger, Now::default(), serving)?;
            if let Some(revision) = before {
                let stopped = Payload::Stopped(op::Stopped { revision });
                node.append(&mut self.ledger, Now::default(), stopped)?;
            }
        }
        Ok(revision)
    }

    fn seal(&mut self) -> Result<()> {
        while let Some(page) = self.ledger.next_page() {
            let said = self.ledger.seal_of(&self.founder.author(), &page).ok_or("a page of own blocks")?;
            self.founder.append(&mut self.ledger, Now::default(), said)?;
            self.ledger.cover(&page);
            self.pages.push(Arc::new(page));
        }
        self.ledger.publish();
        Ok(())
    }
}

fn make(folder: &Path, days: u64, full_max: u64) -> Result<()> {
    let mut fleet = Fleet::found()?;
    fleet.ledger.publish();
    let mut newest = vec![None; usize::try_from(FUNCTIONS)?];
    for day in 0..days {
        for n in (0..NODES).filter(|n| day > 0 && (day + u64::from(*n)).is_multiple_of(RESTART_DAYS)) {
            let mut session = [n; 16];
            session[0] = u8::try_from(day)?;
            session[1] = 0xff;
            fleet.nodes[usize::from(n)] = Writer::new(key(1, n), Session(session));
        }
        for number in day * DEPLOYS_A_DAY..(day + 1) * DEPLOYS_A_DAY {
            let function = usize::try_from(number % FUNCTIONS)?;
            newest[function] = Some(fleet.deploy(number, newest[function])?);
        }
        fleet.seal()?;
    }
    let Fleet { ledger, pages, .. } = fleet;
    write(folder, key(1, FOUNDER).to_bytes(), ledger, &pages, full_max)
}

fn simulate(folder: &Path, days: u64) -> Result<()> {
    let start = Instant::now();
    let History { fleet, founder, blocks, pages, events } = history(1, NODES.into(), days)?;
    eprintln!("simulated in {} s: {events} events, at most {}", start.elapsed().as_secs(), peak());
    let mut ledger = Ledger::new(fleet);
    for block in &blocks {
        ledger.replay(block.entry())?;
    }
    let sealed: BTreeSet<_> =
        ledger.publish().pages().iter().filter(|page| page.sealed).map(|page| page.page).collect();
    let pages = pages.into_iter().filter(|(name, _)| sealed.contains(name));
    let pages: Vec<_> = pages.map(|(_, page)| page).collect();
    write(folder, founder, ledger, &pages, FULL_MAX)
}

/// Writes the three folders.
fn write(
    folder: &Path,
    founder: [u8; 32],
    mut ledger: Ledger,
    pages: &[Arc<Page>],
    full_max: u64,
) -> Result<()> {
    fs::create_dir_all(folder)?;
    write_folder(founder, &ledger, pages, 0, &folder.join("all"))?;
    let all = (ledger.publish().hash(), ledger.digest());
    let mut dropped = 0;
    for (name, most) in [("small", full_max), ("least", 0)] {
        while let Some(page) = pages.get(dropped).filter(|_| ledger.len_full() > most) {
            ledger.prune(page).map_err(|block| format!("a page is not true of {block}"))?;
            dropped += 1;
        }
        assert_eq!((ledger.publish().hash(), ledger.digest()), all, "pruning changes nothing");
        write_folder(founder, &ledger, pages, dropped, &folder.join(name))?;
    }
    Ok(())
}

/// The founding device's data folder: its key, its journal, and the bytes of every page. By the first of those,
/// `dropped`, blocks are here.
fn write_folder(
    founder: [u8; 32],
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
    fs::write(to.join("device.key"), format!("{}\n", BlobHash(founder)))?;
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

fn load(folder: &Path) -> Result<()> {
    let start = Instant::now();
    let bytes = fs::read(folder.join("journal"))?;
    let scan = journal::scan(&bytes, None)?;
    let mut ledger = Ledger::new(scan.header.fleet);
    let mut pages = 0;
    for record in scan.records.iter().filter(|record| record.kind == Kind::Page) {
        let name = BlobHash(record.payload.try_into()?);
        let bytes = fs::read(folder.join("library").join(format!("{name}.blob")))?;
        ledger.offer(&Arc::new(Page::decode(&ledger.fleet(), &bytes)?));
        pages += 1;
    }
    for record in scan.records.iter().filter(|record| record.kind == Kind::Block) {
        ledger.replay(record.payload)?;
    }
    ledger.take_offered();
    let view = ledger.publish();
    let took = start.elapsed();
    ledger.vouched().map_err(|page| format!("the page {page} is not sealed"))?;
    let live = view.functions().values().filter(|function| function.live.is_some()).count();
    println!(
        "blocks {} in full {} pages {pages} live functions {live} view {} ready after {} ms, at most {}",
        ledger.len(),
        ledger.len_full(),
        BlobHash(view.hash()).short(),
        took.as_millis(),
        peak()
    );
    Ok(())
}

/// The most memory that this process had, as Linux says it.
fn peak() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or_else(|| "unknown".to_owned(), |said| said.trim().to_owned())
}
