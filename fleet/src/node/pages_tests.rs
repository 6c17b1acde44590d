//! Voters seal, members drop, and newcomers are given pages: two or three cores, their effects performed by hand.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use osiris_ledger::{
    BlobHash, Block, BlockId, Ledger, Mono, Now, Page, Payload, Role, Roles, Session, World, Writer,
    join_proof, op,
};
use osiris_mesh::{PeerId, proto::sync::Frame};

use super::{
    APART_PATIENCE, Config, Effect, Input, Node, PageRules, Reply, Request, Retain,
    sample::{author, founded, key},
};

const ROWS: usize = 4;
const MARGIN: u64 = 6;

fn at(ms: u64) -> Now {
    Now { mono: Mono(ms), ..Now::default() }
}

fn peer(device: u8) -> PeerId {
    PeerId::from_bytes(author(device).0)
}

/// A core, and what its disk and library hold.
struct Member {
    node: Node,
    device: u8,
    library: BTreeMap<BlobHash, Arc<Page>>,
    journal: BTreeSet<BlockId>,
    pages: Vec<BlobHash>,
    warnings: Vec<String>,
}

impl Member {
    fn new(ledger: Ledger, device: u8, retain: Retain) -> Self {
        let pages = PageRules {
            works: true,
            retain,
            rows: ROWS,
            margin: MARGIN,
            look_every: Duration::from_millis(1_000),
        };
        let config =
            Config { serves: false, seed: device.into(), confirmed: Vec::new(), idle_work: false, pages };
        let journal = ledger.in_order().iter().map(|block| block.id()).collect();
        let node = Node::new(at(0), &config, ledger, Writer::new(key(device), Session([100 + device; 16])));
        Self { node, device, library: BTreeMap::new(), journal, pages: Vec::new(), warnings: Vec::new() }
    }

    /// What it sends for an input, and pages that it wants fetched.
    fn handle(&mut self, now: Now, input: Input) -> (Vec<Frame>, Vec<BlobHash>) {
        let (mut inputs, mut frames, mut wanted) = (vec![input], Vec::new(), Vec::new());
        while let Some(input) = inputs.pop() {
            self.node.handle(now, input);
            while let Some(effect) = self.node.poll_effect() {
                match effect {
                    Effect::Send(_, bytes) => frames.push(Frame::decode(&bytes).expect("a frame")),
                    Effect::Persist(blocks) => self.journal.extend(blocks.iter().map(|block| block.id())),
                    Effect::PersistPages(pages, blocks) => {
                        assert!(pages.iter().all(|page| self.library.contains_key(page)), "durable first");
                        self.pages.extend(pages);
                        self.journal.extend(blocks.iter().map(|block| block.id()));
                    }
                    Effect::Compact(pages, blocks) => {
                        assert!(pages.iter().all(|page| self.library.contains_key(page)), "durable first");
                        self.pages = pages;
                        self.journal = blocks.iter().map(|block| block.id()).collect();
                    }
                    Effect::WritePage(page) => {
                        let hash = page.hash();
                        self.library.insert(hash, Arc::clone(&page));
                        inputs.push(Input::Page(hash, Ok(page)));
                    }
                    Effect::ReadPage(hash) => {
                        let page = self.library.get(&hash).cloned().ok_or_else(|| "missing".to_owned());
                        inputs.push(Input::Page(hash, page));
                    }
                    Effect::Fetch { hash, .. } => wanted.push(hash),
                    Effect::Warn(warning) => self.warnings.push(warning),
                    _ => {}
                }
            }
        }
        (frames, wanted)
    }

    /// What the next start would find.
    fn restarted(&self, blocks: &[Arc<Block>], retain: Retain) -> Self {
        let mut ledger = Ledger::new(self.node.ledger().fleet());
        self.pages.iter().for_each(|page| ledger.offer(&self.library[page]));
        for block in blocks.iter().filter(|block| self.journal.contains(&block.id())) {
            ledger.replay(block.entry()).expect("valid");
        }
        ledger.take_offered();
        Self { library: self.library.clone(), ..Self::new(ledger, self.device, retain) }
    }
}

/// Lets two members talk until they have nothing to say, and gives each the pages of the other.
fn talk(now: Now, a: &mut Member, b: &mut Member) {
    let mut open: Vec<(bool, Input)> =
        vec![(true, Input::PeerUp(peer(b.device))), (false, Input::PeerUp(peer(a.device)))];
    let mut turns = 0;
    while !open.is_empty() {
        let (to_a, input) = open.remove(0);
        turns += 1;
        assert!(turns < 400, "they talk without end");
        let (from, other) = if to_a { (&mut *a, &mut *b) } else { (&mut *b, &mut *a) };
        let (frames, wanted) = from.handle(now, input);
        let sender = peer(from.device);
        open.extend(frames.into_iter().map(|frame| (!to_a, Input::Frame(sender, frame.encode()))));
        for hash in wanted {
            let input = match other.library.get(&hash) {
                Some(page) => {
                    from.library.insert(hash, Arc::clone(page));
                    Input::BlobHeld(hash)
                }
                None => Input::FetchFailed(hash, "nobody has it".to_owned()),
            };
            open.push((to_a, input));
        }
    }
}

/// A fleet whose founder is device 1, with members 2 and 3, and a function that 2 served and stopped many times.
fn history(times: usize) -> (Writer, Writer, Ledger, BlockId) {
    let (mut founder, mut ledger) = founded(at(0));
    let offer = op::Invited {
        key: author(50),
        uses: 2,
        roles: Roles::of(&[Role::Node]),
        device: None,
        note: String::new(),
    };
    let offer = founder.append(&mut ledger, at(0), Payload::Invited(offer)).expect("allowed").id();
    for device in [2, 3].map(author) {
        let proof = join_proof(&key(50), &ledger.fleet(), &offer, &device);
        let admitted = op::Admitted { invitation: offer, device, proof, label: "node".to_owned() };
        founder.append(&mut ledger, at(0), Payload::Admitted(admitted)).expect("allowed");
    }
    let deployed = op::Deployed {
        name: "hello".to_owned(),
        component: BlobHash([1; 32]),
        size: 1,
        world: World::Http,
        manifest: BlobHash([2; 32]),
        manifest_size: 1,
        replaces: Vec::new(),
    };
    let revision = founder.append(&mut ledger, at(0), Payload::Deployed(deployed)).expect("allowed").id();
    let mut node = Writer::new(key(2), Session([22; 16]));
    serve(&mut node, &mut ledger, revision, times);
    ledger.publish();
    (founder, node, ledger, revision)
}

fn serve(node: &mut Writer, ledger: &mut Ledger, revision: BlockId, times: usize) {
    for n in 0..times {
        let said = match n % 2 {
            0 => Payload::Serving(op::Serving { revision, concurrency: 1 }),
            _ => Payload::Stopped(op::Stopped { revision }),
        };
        node.append(ledger, at(0), said).expect("allowed");
    }
}

fn copy(ledger: &Ledger) -> Ledger {
    let mut copy = ledger.apart();
    copy.publish();
    copy
}

/// Looks until nothing changes any more.
fn look(member: &mut Member, from_ms: u64) {
    for n in 0..12 {
        member.handle(at(from_ms + n * 1_100), Input::Tick);
    }
}

#[test]
fn a_voter_seals_what_is_durable_and_a_member_that_retains_current_drops_it() {
    let (_, _, ledger, _) = history(20);
    let mut voter = Member::new(copy(&ledger), 1, Retain::Current);
    let before = (voter.node.digest(), voter.node.ledger().len());
    look(&mut voter, 0);
    assert_eq!(voter.warnings, Vec::<String>::new());
    let sealed = voter.node.view().pages().iter().filter(|page| page.sealed).count();
    assert!(sealed >= 3, "{sealed}");
    let held = voter.node.ledger();
    assert_eq!((held.len() - held.len_full(), held.len()), (sealed as u64 * 4, before.1 + sealed as u64));
    assert_eq!(voter.journal.len() as u64, held.len_full(), "the journal has let go of them");
    assert_eq!(voter.pages.len(), sealed);
    // A start from that says the same.
    let blocks = held.in_order();
    let (digest, view) = (voter.node.digest(), voter.node.view().hash());
    let mut again = voter.restarted(&blocks, Retain::Current);
    assert_eq!((again.node.digest(), again.node.view().hash()), (digest, view));

    // Who is no voter and retains all has nothing to do.
    let mut other = Member::new(copy(&ledger), 2, Retain::All);
    look(&mut other, 0);
    assert_eq!((other.library.len(), other.node.ledger().len_full()), (0, ledger.len()));
}

#[test]
fn own_blocks_behind_a_damaged_record_stay_in_a_journal_that_is_written_anew() {
    let (_, mut node, ledger, revision) = history(20);
    let mut voter = Member::new(copy(&ledger), 1, Retain::All);
    look(&mut voter, 0);
    let mut all = copy(voter.node.ledger());
    serve(&mut node, &mut all, revision, 2);
    let own: Vec<_> = all.in_order().iter().filter(|b| b.author() == author(2)).map(|b| b.id()).collect();
    let [.., lost, last] = own[..] else { unreachable!("it wrote many") };
    // The record of the last but one cannot be read any more.
    let mut ledger = Ledger::new(all.fleet());
    for block in all.in_order().iter().filter(|block| block.id() != lost) {
        ledger.replay(block.entry()).expect("valid");
    }
    assert_eq!(ledger.early_by(author(2)).iter().map(|block| block.id()).collect::<Vec<_>>(), [last]);
    ledger.publish();
    let mut member = Member::new(ledger, 2, Retain::Current);
    member.library = voter.library.clone();
    for hash in voter.library.keys() {
        member.handle(at(1_000), Input::BlobHeld(*hash));
    }
    look(&mut member, 2_000);
    let held = member.node.ledger();
    assert!(held.len() > held.len_full(), "nothing was dropped");
    assert!(member.journal.contains(&last));
}

#[test]
fn a_member_drops_by_the_page_of_a_voter_and_not_before_it_has_it() {
    let (_, _, ledger, _) = history(20);
    let mut voter = Member::new(copy(&ledger), 1, Retain::All);
    look(&mut voter, 0);
    assert_eq!(voter.node.ledger().len_full(), voter.node.ledger().len(), "it keeps everything");
    let mut member = Member::new(copy(voter.node.ledger()), 2, Retain::Current);
    let (_, wanted) = member.handle(at(1_000), Input::Tick);
    assert_eq!(wanted.len(), 1);
    member.handle(at(1_001), Input::FetchFailed(wanted[0], "gone".to_owned()));
    assert_eq!(member.node.ledger().len_full(), ledger.len() + voter.node.view().pages().len() as u64);
    member.library.insert(wanted[0], Arc::clone(&voter.library[&wanted[0]]));
    // Another page is tried first.
    let (_, other) = member.handle(at(2_000), Input::Tick);
    assert!(other.len() == 1 && other != wanted, "{other:?}");
    member.library.insert(other[0], Arc::clone(&voter.library[&other[0]]));
    member.handle(at(2_001), Input::BlobHeld(other[0]));
    assert_eq!(member.node.ledger().len() - member.node.ledger().len_full(), ROWS as u64);
}

#[test]
fn a_newcomer_is_given_pages_and_believes_them_once_they_are_sealed() {
    let (_, mut writer, ledger, revision) = history(20);
    let mut voter = Member::new(copy(&ledger), 1, Retain::Current);
    look(&mut voter, 0);
    let mut newcomer = Member::new(Ledger::new(ledger.fleet()), 3, Retain::All);
    talk(at(20_000), &mut voter, &mut newcomer);
    assert_eq!(newcomer.node.digest(), voter.node.digest());
    assert_eq!(newcomer.node.view().hash(), voter.node.view().hash());
    assert_eq!(newcomer.pages.len(), voter.pages.len());
    assert_eq!(newcomer.journal, voter.journal);
    let blocks = voter.node.ledger().in_order();
    let mut again = newcomer.restarted(&blocks, Retain::All);
    assert_eq!(again.node.digest(), voter.node.digest());

    // It gives them on, and what is written later comes in full.
    let mut more = copy(voter.node.ledger());
    serve(&mut writer, &mut more, revision, 1);
    let mut third = Member::new(Ledger::new(ledger.fleet()), 2, Retain::Current);
    talk(at(20_000), &mut again, &mut third);
    assert_eq!(third.node.digest(), again.node.digest());
    let mut late = Member::new(more, 4, Retain::All);
    talk(at(21_000), &mut late, &mut third);
    assert_eq!(third.node.digest(), late.node.digest());
}

#[test]
fn a_member_that_was_away_and_lacks_what_was_dropped_catches_up() {
    let (_, mut writer, mut ledger, revision) = history(7);
    let behind = copy(&ledger);
    serve(&mut writer, &mut ledger, revision, 14);
    let mut voter = Member::new(copy(&ledger), 1, Retain::Current);
    look(&mut voter, 0);
    let mut member = Member::new(behind, 2, Retain::All);
    member.handle(
        at(10),
        Input::Request(
            1,
            Request::Invite {
                key: author(60),
                uses: 1,
                roles: Roles::NODE,
                device: None,
                note: String::new(),
                timeout_ms: 0,
            },
        ),
    );
    talk(at(20_000), &mut voter, &mut member);
    talk(at(40_000), &mut voter, &mut member);
    assert_eq!(member.node.digest(), voter.node.digest());
    assert!(member.node.ledger().len() > member.node.ledger().len_full());
}

#[test]
fn pages_that_nobody_sealed_are_given_up_and_their_sender_is_not_heard_again() {
    let (_, _, ledger, _) = history(20);
    let blocks = ledger.in_order();
    let page = Arc::new(Page::of(ledger.fleet(), blocks.iter().map(AsRef::as_ref)).expect("a page"));
    // A liar that pruned by a page which nobody sealed.
    let mut lies = copy(&ledger);
    lies.prune(&page).expect("it fits");
    let mut liar = Member::new(lies, 2, Retain::All);
    liar.library.insert(page.hash(), page);
    let mut victim = Member::new(Ledger::new(ledger.fleet()), 3, Retain::All);
    talk(at(0), &mut liar, &mut victim);
    assert_eq!(victim.node.ledger().len() - victim.node.ledger().len_full(), 0, "nothing rests on it");
    assert!(victim.pages.is_empty() && victim.node.apart.is_some());
    let patience = u64::try_from(APART_PATIENCE.as_millis()).expect("short");
    victim.handle(at(patience + 1), Input::Tick);
    assert!(victim.node.apart.is_none());
    assert!(victim.warnings.iter().any(|warning| warning.contains("nothing here vouches")));
    talk(at(patience + 2), &mut liar, &mut victim);
    assert!(victim.node.apart.is_none(), "not again so soon");
    // An honest member that keeps all is heard all the while.
    let mut honest = Member::new(copy(&ledger), 1, Retain::All);
    talk(at(patience + 3), &mut honest, &mut victim);
    assert_eq!(victim.node.digest(), honest.node.digest());
}

#[test]
fn voters_have_to_be_members() {
    let (_, _, ledger, _) = history(1);
    let mut node = Member::new(copy(&ledger), 1, Retain::All);
    let mut ask = |devices: &[u8]| {
        let devices = devices.iter().map(|device| author(*device)).collect();
        node.node.handle(at(1), Input::Request(1, Request::NameVoters { devices, timeout_ms: 0 }));
        let mut answer = None;
        while let Some(effect) = node.node.poll_effect() {
            if let Effect::Reply(1, reply) = effect {
                answer = Some(reply);
            }
        }
        answer.expect("an answer")
    };
    assert!(ask(&[]).is_err() && ask(&[1, 90]).is_err());
    assert!(matches!(ask(&[1, 2]), Ok(Reply::Written { .. })));
    assert_eq!(node.node.view().voters().map(|voters| voters.devices.len()), Some(2));
}
