//! Every decoder with its corpus, and with changes of it: no panic, and no more memory than its bound.
//!
//! `UPDATE_CORPUS=1 cargo test --workspace --test decoders` adds what real encoders write today;
//! `OSIRIS_DECODER_CASES=100000` tries more changes.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    fs,
    path::PathBuf,
    sync::Arc,
};

use bytes::Bytes;
use osiris_fleet::{
    archive, kept,
    key_file::{self, KeyBytes},
    manifest::Manifest,
};
use osiris_ledger::{
    Author, BlobHash, Ledger, Page, Payload,
    counter::{Figures, RowWriter},
    journal::{self, Header},
    state::{About, Record, Sealed, WRAPPED_BYTES, Wrap},
};
use osiris_mesh::proto::{
    message::{AddressEntry, AgedAddr, Hello, Message},
    sync::{Frame, StatesFrame},
};
use osiris_property_tests::decoders::{ALL, Decoder, device, small_fleet, small_page};
use osiris_protocol::{
    PeerAddr,
    call::{CallMessage as _, CallReply, CallRequest},
    join::{JoinReply, JoinRequest, RefusalCode, Welcome},
    ticket::{DialTicket, InvitationSecret, JoinTicket, Ticket},
};
use osiris_runtime::{World, inspect};

/// Counts what the current thread holds.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread that ends may have lost its counters already.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

#[allow(unsafe_code, reason = "an allocator is unsafe to be; this one passes everything on")]
// SAFETY: each call goes to the system's allocator with the arguments it came with.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that `work` held at once, at most.
fn peak(work: impl FnOnce()) -> usize {
    let before = HELD.get();
    PEAK.set(before);
    work();
    usize::try_from(PEAK.get() - before).unwrap_or(0)
}

fn folder(decoder: &Decoder) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "corpus/fuzz", decoder.name].iter().collect()
}

fn corpus(decoder: &Decoder) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(folder(decoder)).expect("a corpus");
    let mut inputs: Vec<_> = files
        .map(|file| {
            let path = file.expect("an entry").path();
            (path.display().to_string(), fs::read(&path).expect("a file of the corpus"))
        })
        .collect();
    inputs.sort();
    inputs
}

/// Tries one input, and says which where it fails.
fn try_one(decoder: &Decoder, what: &str, bytes: &[u8]) {
    let held = std::panic::catch_unwind(|| peak(|| (decoder.try_bytes)(bytes)));
    let Ok(held) = held else { panic!("{} fails with {what}: {bytes:02x?}", decoder.name) };
    let max = (decoder.memory_max)(bytes.len());
    assert!(held <= max, "{} holds {held} bytes of at most {max} with {what}: {bytes:02x?}", decoder.name);
}

/// SplitMix64 (Steele, Lea and Flood, 2014): the same changes on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).expect("below a usize")
    }

    /// Bytes that mean something to a decoder: lengths, heads of CBOR, signs.
    fn telling(&mut self) -> u8 {
        const TELLING: [u8; 16] =
            [0, 1, 0x7f, 0x80, 0xff, 0x1b, 0x3b, 0x5b, 0x5f, 0x7b, 0x9b, 0x9f, 0xbb, 0xbf, 0xf6, b'"'];
        TELLING[self.below(TELLING.len())]
    }

    fn change(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        let at = self.below(bytes.len());
        match self.below(8) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
            1 if !bytes.is_empty() => bytes[at] = self.telling(),
            2 => bytes.truncate(at),
            3 => bytes.insert(at, self.telling()),
            4 if !bytes.is_empty() => drop(bytes.remove(at)),
            5 => {
                let from = self.below(other.len());
                let to = (from + self.below(64)).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
            6 => {
                let end = (at + self.below(32)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                bytes.extend(copy);
            }
            _ => {
                let end = (at + 8).min(bytes.len());
                let value = self.next() >> self.below(64);
                let bytes_of_it = value.to_be_bytes();
                bytes.splice(at..end, bytes_of_it);
            }
        }
    }
}

#[test]
fn the_corpus_and_changes_of_it_are_taken_calmly() {
    let cases =
        std::env::var("OSIRIS_DECODER_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(2_000);
    for (seed, decoder) in ALL.iter().enumerate() {
        // What a thread holds once, such as its small fleet, is not the input's.
        (decoder.try_bytes)(&[]);
        let inputs = corpus(decoder);
        assert!(!inputs.is_empty(), "{} has no corpus", decoder.name);
        for (name, bytes) in &inputs {
            try_one(decoder, name, bytes);
        }
        let mut random = Random(seed as u64);
        for case in 0..cases {
            let (name, bytes) = &inputs[random.below(inputs.len())];
            let (mut bytes, other) = (bytes.clone(), &inputs[random.below(inputs.len())].1);
            for _ in 0..=random.below(4) {
                random.change(&mut bytes, other);
            }
            try_one(decoder, &format!("change {case} of {name}"), &bytes);
        }
    }
}

/// What is declared and does not come takes no memory.
#[test]
fn a_declared_length_takes_no_memory() {
    for decoder in &ALL {
        (decoder.try_bytes)(&[]);
        for head in [0x5b, 0x7b, 0x9b, 0xbb] {
            let mut bytes = vec![head];
            bytes.extend((1_u64 << 40).to_be_bytes());
            try_one(decoder, "a length bomb", &bytes);
            try_one(decoder, "a length bomb in an array", &[&[0x8a, 0x02], bytes.as_slice()].concat());
            try_one(decoder, "a length bomb behind a kind", &[&[1], bytes.as_slice()].concat());
        }
        try_one(decoder, "deep nesting", &[0x81; 4_000]);
        try_one(decoder, "deep JSON", &[b'['; 4_000]);
    }
}

fn addr(n: u16) -> std::net::SocketAddr {
    ([192, 0, 2, 1], n).into()
}

fn archived(ledger: &Ledger, pages: &[Arc<Page>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    archive::write(&mut bytes, &ledger.fleet(), pages, &ledger.in_order()).expect("a Vec takes every write");
    bytes
}

/// A function of each world, one of another type, and a core module.
fn components() -> Vec<(&'static str, Vec<u8>)> {
    let native = r#"(component
        (core module $m
            (memory (export "memory") 1)
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 16)
            (func (export "call") (param i32 i32) (result i32) i32.const 0))
        (core instance $i (instantiate $m))
        (type $result (result string (error string)))
        (func $call (param "input" string) (result $result)
            (canon lift (core func $i "call") (memory (core memory $i "memory")) (realloc (core func $i "realloc"))))
        (export "call" (func $call)))"#;
    let http = r#"(component
        (import "wasi:io/error@0.2.3" (instance $io))
        (instance $handler)
        (export "wasi:http/incoming-handler@0.2.3" (instance $handler)))"#;
    let other = r#"(component
        (core module $m (func (export "call") (param i32) (result i32) local.get 0))
        (core instance $i (instantiate $m))
        (func (export "call") (param "x" u32) (result u32) (canon lift (core func $i "call"))))"#;
    let texts = [("native", native), ("http", http), ("other", other), ("core", "(module (func))")];
    let components = texts.map(|(name, text)| (name, wat::parse_str(text).expect("valid text")));
    let worlds = components.each_ref().map(|(_, bytes)| inspect(bytes).ok().map(|found| found.world));
    assert_eq!(worlds, [Some(World::Native), Some(World::Http), None, None]);
    components.to_vec()
}

/// What today's encoders write, for each decoder.
fn real_encodings(name: &str) -> Vec<(&'static str, Vec<u8>)> {
    let mut ledger = small_fleet();
    let blocks = ledger.in_order();
    let peers = || vec![PeerAddr { peer: [9; 32], addrs: vec![addr(1), addr(2)] }];
    match name {
        "entry" => blocks.iter().map(|block| (block.payload().name(), block.entry().to_vec())).collect(),
        "signed-body" => {
            let body = |entry: &[u8]| entry[..entry.len() - 64].to_vec();
            blocks.iter().map(|block| (block.payload().name(), body(block.entry()))).collect()
        }
        "sync-frame" | "sync-answer" => {
            let entries = blocks.iter().map(|block| block.entry().to_vec().into()).collect();
            let (_, gaps) = Ledger::new(ledger.fleet()).compare(&ledger.vector(true), 0);
            let frames = [
                ("digest", Frame::Digest(ledger.digest().to_vec().into())),
                ("vector", Frame::Vector(false, ledger.vector(false))),
                ("full-vector", Frame::Vector(true, ledger.vector(true))),
                ("buckets", Frame::Buckets(vec![7; 4_096].into())),
                ("part", Frame::Part(false, [255; 32].to_vec().into(), ledger.vector(false))),
                ("gaps", Frame::Gaps(gaps)),
                ("blocks", Frame::Blocks(entries, false)),
                ("pages", Frame::Pages(vec![(BlobHash([7; 32]), 1_000)])),
                ("receipt", Frame::Receipt(vec![blocks[0].id()])),
                ("states", Frame::States(StatesFrame::Notes(vec![(blocks[0].id(), blocks[1].id(), 3)]))),
                ("records", Frame::States(StatesFrame::Records(vec![vec![8; 90].into()]))),
            ];
            frames.into_iter().map(|(name, frame)| (name, frame.encode())).collect()
        }
        "row" => {
            let key = device();
            let owner = Author(key.verifying_key().to_bytes());
            let mut rows = RowWriter::new(ledger.fleet(), owner);
            rows.observe([("hello", Figures { backlog: 3, in_flight: 1, done: 70_000, failed: 2 })]);
            rows.renew(blocks.iter().take(2).map(|block| block.id()));
            let row = rows.write(&key).bytes().to_vec();
            vec![("body", row[..row.len() - 64].to_vec()), ("signed", row)]
        }
        "state-record" => {
            let about = About { intent: blocks[1].id(), claim: blocks[2].id(), serial: 3 };
            let wraps = vec![Wrap { device: Author([4; 32]), key: vec![5; WRAPPED_BYTES].into() }];
            let sealed = Sealed { ephemeral: [6; 32], wraps, bytes: vec![7; 100] };
            let record = Record::write(&ledger.fleet(), &device(), about, sealed).expect("it fits");
            let record = record.bytes().to_vec();
            vec![("body", record[..record.len() - 64].to_vec()), ("signed", record)]
        }
        "message" => {
            let hello =
                Hello { topic: [1; 32].into(), version: 1, session: [2; 16].into(), addrs: vec![addr(1)] };
            let entry =
                AddressEntry { peer: [3; 32].into(), addrs: vec![AgedAddr { addr: addr(4), age_s: 5 }] };
            let messages = [
                ("hello", Message::Hello(hello)),
                ("frame", Message::Frame(Bytes::from_static(b"frame"))),
                ("addresses", Message::Addresses(vec![entry])),
                ("wanted", Message::Wanted(vec![[6; 32].into()])),
            ];
            let bytes = |message: Message| {
                let [head, payload] = message.encode().expect("small");
                [&head[4..], &payload].concat()
            };
            messages.into_iter().map(|(name, message)| (name, bytes(message))).collect()
        }
        "frames" => vec![("two", [[0, 0, 0, 2, 7, 7].as_slice(), &[0, 0, 0, 1, 8]].concat())],
        "call-request" | "call-reply" => {
            let mut request = CallRequest::new("hello", &b"{}"[..]);
            request.headers = vec![("accept".to_owned(), Bytes::from_static(b"text/plain"))];
            let reply = CallReply { status: 200, headers: Vec::new(), body: Bytes::from_static(b"[1]") };
            let parts = if name == "call-request" { request.encode() } else { reply.encode() };
            vec![("small", parts.expect("small").concat())]
        }
        "join-request" => {
            let request = JoinRequest {
                fleet: [1; 32],
                invitation: [2; 32],
                proof: [3; 64],
                label: "roof".to_owned(),
                addrs: vec![addr(1)],
            };
            vec![("small", request.encode().expect("small").to_vec())]
        }
        "join-reply" => {
            let welcome = JoinReply::Welcome(Welcome { grant: [1; 32], addrs: peers() });
            let refused = JoinReply::refused(RefusalCode::Busy, "later");
            let bytes = |reply: JoinReply| reply.encode().expect("small").to_vec();
            vec![("welcome", bytes(welcome)), ("refused", bytes(refused))]
        }
        "ticket" => {
            let dial = DialTicket { fleet: [1; 32], fleet_name: "fleet".to_owned(), peers: peers() };
            let join = JoinTicket {
                fleet: [1; 32],
                fleet_name: "fleet".to_owned(),
                peers: peers(),
                invitation: [2; 32],
                secret: InvitationSecret::new([3; 32]),
                heads: vec![[4; 32]],
                device: Some([5; 32]),
            };
            let text = |ticket: Ticket| ticket.encode().expect("small");
            let (dial, join) = (text(Ticket::Dial(dial)), text(Ticket::Join(join)));
            let bytes = |text: &str| {
                let said = data_encoding::BASE32_NOPAD.decode(text[6..].to_ascii_uppercase().as_bytes());
                let said = said.expect("a ticket's text");
                said[..said.len() - 4].to_vec()
            };
            vec![
                ("dial-bytes", bytes(&dial)),
                ("join-bytes", bytes(&join)),
                ("dial-text", dial.into_bytes()),
                ("join-text", join.into_bytes()),
            ]
        }
        "journal" => {
            let header = Header { fleet: ledger.fleet(), generation: 2 };
            let (bytes, head) = journal::write(&header, blocks.iter().map(|block| block.entry()));
            let heads = journal::write_head_file(&header, &head);
            let both = |journal: &[u8]| {
                let len = u16::try_from(heads.len()).expect("small").to_le_bytes();
                [len.as_slice(), &heads, journal].concat()
            };
            vec![("whole", both(&bytes)), ("torn", both(&bytes[..bytes.len() - 5]))]
        }
        "manifest" => vec![("named", Manifest::named("hello").to_bytes().expect("valid"))],
        "page" => vec![("small", small_page(&ledger).encode())],
        "archive" => {
            let page = Arc::new(small_page(&ledger));
            let (whole, pruned) = (archived(&ledger, &[]), {
                ledger.prune(&page).expect("its own blocks");
                archived(&ledger, &[page])
            });
            // With the hash at its end as a changed one has it: made for it.
            let body = whole[..whole.len() - 32].to_vec();
            vec![("whole", whole), ("pages", pruned), ("body", body)]
        }
        "component" => components(),
        "key-file" => {
            let owner = Author(device().verifying_key().to_bytes());
            let header = key_file::header([65_536, 3, 1], &owner.0, &[4; 40]);
            let file = KeyBytes::close(header, &[5; 48]).bytes().to_vec();
            vec![("body", file[..file.len() - 8].to_vec()), ("whole", file)]
        }
        "kept-files" => {
            let ids: Vec<_> = blocks.iter().take(3).map(|block| block.id()).collect();
            vec![
                ("peers", kept::write_peers(&peers())),
                ("confirmed", kept::write_confirmed(&ids)),
                ("port", b"4433".to_vec()),
            ]
        }
        other => panic!("no encoder for {other}"),
    }
}

#[test]
fn the_corpus_holds_what_encoders_write() {
    let update = std::env::var_os("UPDATE_CORPUS").is_some();
    for decoder in &ALL {
        let folder = folder(decoder);
        for (name, bytes) in real_encodings(decoder.name) {
            let path = folder.join(name);
            if update {
                fs::create_dir_all(&folder).expect("made");
                fs::write(&path, &bytes).expect("written");
            }
            let held = fs::read(&path).unwrap_or_default();
            assert!(
                held == bytes,
                "{} is old: UPDATE_CORPUS=1 cargo test --workspace --test decoders",
                path.display()
            );
        }
    }
}

/// The names of all operations, from their own decoder: it says what it expects in the place of another.
fn operations() -> Vec<String> {
    let error = serde_json::from_str::<Payload>(r#"{"nothing":[]}"#).expect_err("no operation").to_string();
    error.split('`').skip(3).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_corpus_holds_every_operation() {
    let operations = operations();
    assert!(operations.len() >= 24 && operations.iter().any(|name| name == "draining"), "{operations:?}");
    for decoder in ALL.iter().filter(|decoder| ["entry", "signed-body"].contains(&decoder.name)) {
        for operation in &operations {
            let path = folder(decoder).join(operation);
            assert!(path.exists(), "{} lacks {operation}: write it in `small_fleet`", decoder.name);
        }
    }
}

#[test]
fn every_decoder_is_a_target_of_the_fuzzer() {
    let manifest = [env!("CARGO_MANIFEST_DIR"), "fuzz/Cargo.toml"].iter().collect::<PathBuf>();
    let manifest = fs::read_to_string(manifest).expect("the fuzzer's manifest");
    let targets = manifest.split("[[bin]]").skip(1);
    let name = |target: &str| {
        let line = target.lines().find_map(|line| line.strip_prefix("name = ")).expect("a name");
        line.trim_matches('"').to_owned()
    };
    let targets: Vec<_> = targets.map(name).collect();
    let decoders: Vec<_> = ALL.iter().map(|decoder| decoder.name).collect();
    assert_eq!(targets, decoders);
}
