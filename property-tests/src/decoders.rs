//! Every decoder of bytes that peers, files or people bring, each with what must hold for any bytes: no
//! panic, what was read is written again as it came where there is one form, and memory within a bound.
//!
//! Ordinary tests try them with a corpus and changes of it (`tests/decoders.rs`); `fuzz/` with what a
//! coverage-guided fuzzer finds.

use std::sync::Arc;

use bytes::Bytes;
use osiris_fleet::{
    archive, kept,
    key_file::{self, KeyBytes},
    manifest::Manifest,
};
use osiris_ledger::{
    Author, Block, BlockId, Buckets, FleetId, Founding, Ledger, Now, Page, Payload, Reject, Roles, Session,
    SigningKey, World, Writer, counter::Row, join_proof, journal, limits, op, recovery_certificate,
    state::Record,
};
use osiris_mesh::proto::{message::Message, sync::Frame};
use osiris_protocol::{
    call::{CallMessage, CallReader, CallReply, CallRequest},
    frame::FrameDecoder,
    join::{JoinReply, JoinRequest},
    ticket::Ticket,
};
use osiris_runtime::{inspect, limits::COMPONENT_BYTES_MAX};

use crate::forge;

/// One decoder.
#[derive(Clone, Copy, Debug)]
pub struct Decoder {
    /// Its name, and its corpus' folder.
    pub name: &'static str,
    /// Gives it bytes, and panics where a property does not hold.
    pub try_bytes: fn(&[u8]),
    /// Bytes of memory it may hold at once for an input of this size.
    pub memory_max: fn(usize) -> usize,
}

/// What serde reserves for a list whose length is declared, before its items come, is at most 1 MiB; the
/// deepest of these types has three lists in each other.
const DECLARED_LISTS: usize = 3 << 20;

/// A fixed part, and so much for each byte of input: a byte of CBOR or JSON may become a whole value.
const fn values(len: usize) -> usize {
    DECLARED_LISTS + (64 << 10) + 256 * len
}

/// The small ledger that entries are offered to, and what it takes to hold it.
const fn with_a_ledger(len: usize) -> usize {
    values(len) + (512 << 10)
}

/// The ledger, and an item whose length is declared before its bytes come: a page at most.
const fn with_an_item(len: usize) -> usize {
    with_a_ledger(len) + limits::PAGE_BYTES_MAX
}

/// What a validator of components holds: its tables, and types and names for each byte.
const fn validated(len: usize) -> usize {
    (2 << 20) + 512 * len
}

/// Nothing is decoded into larger values: the bytes, and what refers to them.
const fn bytes_alone(len: usize) -> usize {
    (64 << 10) + 64 * len
}

/// All of them.
pub const ALL: [Decoder; 20] = [
    Decoder { name: "entry", try_bytes: entry, memory_max: with_a_ledger },
    Decoder { name: "signed-body", try_bytes: signed_body, memory_max: with_a_ledger },
    Decoder { name: "sync-frame", try_bytes: sync_frame, memory_max: values },
    Decoder { name: "sync-answer", try_bytes: sync_answer, memory_max: with_a_ledger },
    Decoder { name: "row", try_bytes: row, memory_max: values },
    Decoder { name: "state-record", try_bytes: state_record, memory_max: values },
    Decoder { name: "message", try_bytes: message, memory_max: values },
    Decoder { name: "frames", try_bytes: frames, memory_max: bytes_alone },
    Decoder { name: "call-request", try_bytes: call::<CallRequest>, memory_max: values },
    Decoder { name: "call-reply", try_bytes: call::<CallReply>, memory_max: values },
    Decoder { name: "join-request", try_bytes: join_request, memory_max: values },
    Decoder { name: "join-reply", try_bytes: join_reply, memory_max: values },
    Decoder { name: "ticket", try_bytes: ticket, memory_max: bytes_alone },
    Decoder { name: "journal", try_bytes: journal_files, memory_max: bytes_alone },
    Decoder { name: "manifest", try_bytes: manifest, memory_max: values },
    Decoder { name: "page", try_bytes: page, memory_max: with_a_ledger },
    Decoder { name: "archive", try_bytes: archived, memory_max: with_an_item },
    Decoder { name: "component", try_bytes: component, memory_max: validated },
    Decoder { name: "key-file", try_bytes: key_bytes, memory_max: bytes_alone },
    Decoder { name: "kept-files", try_bytes: kept_files, memory_max: values },
];

/// The key of the small fleet's only device.
#[must_use]
pub fn device() -> SigningKey {
    key(1)
}

fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

fn public(n: u8) -> Author {
    Author(key(n).verifying_key().to_bytes())
}

/// A fleet of one device that wrote each operation once, from fixed keys.
///
/// # Panics
/// Never: what it writes is allowed.
#[must_use]
pub fn small_fleet() -> Ledger {
    let mut writer = Writer::new(device(), Session([1; 16]));
    let founding = Founding {
        name: "fuzz".to_owned(),
        label: "one".to_owned(),
        admin: &key(2),
        recovery: public(3),
        nonce: Session([4; 16]),
    };
    let (mut ledger, _) = writer.found(Now::default(), founding).expect("a founding");
    people(&mut writer, &mut ledger);
    functions(&mut writer, &mut ledger);
    machines(&mut writer, &mut ledger);
    ledger.publish();
    ledger
}

fn write(writer: &mut Writer, ledger: &mut Ledger, payload: Payload) -> BlockId {
    writer.append(ledger, Now::default(), payload).expect("allowed").id()
}

/// Who belongs to it.
fn people(writer: &mut Writer, ledger: &mut Ledger) {
    let (fleet, device) = (ledger.fleet(), public(9));
    let invited =
        op::Invited { key: public(5), uses: 2, roles: Roles::NODE, device: None, note: String::new() };
    let invitation = write(writer, ledger, Payload::Invited(invited));
    let proof = join_proof(&key(5), &fleet, &invitation, &device);
    let admitted = op::Admitted { invitation, device, proof, label: "two".to_owned() };
    let grant = write(writer, ledger, Payload::Admitted(admitted));
    let user = op::User { name: "isis".to_owned(), key: public(10), roles: Roles::NODE, devices: 2 };
    let user = write(writer, ledger, Payload::User(user));
    write(writer, ledger, Payload::Withdrawn(op::Withdrawn { invitation: user, stands: Vec::new() }));
    write(writer, ledger, Payload::Revoked(op::Revoked { grants: vec![grant], pins: Vec::new() }));
    let (label, certificate) = ("three".to_owned(), recovery_certificate(&key(3), &fleet, 1, &public(11)));
    let recovered = op::Recovered { device: public(11), label, generation: 1, certificate };
    write(writer, ledger, Payload::Recovered(recovered));
    write(writer, ledger, Payload::Labelled(op::Labelled { device, labels: vec!["zone=a".to_owned()] }));
    write(writer, ledger, Payload::Budgeted(op::Budgeted { device, blocks: 100_000 }));
    write(writer, ledger, Payload::Draining(op::Draining { draining: true }));
}

/// What is deployed, who serves it, and who seals that.
fn functions(writer: &mut Writer, ledger: &mut Ledger) {
    let (name, author) = ("hello".to_owned(), writer.author());
    let deployed = op::Deployed {
        name: name.clone(),
        component: osiris_ledger::BlobHash([6; 32]),
        size: 10,
        world: World::Native,
        manifest: osiris_ledger::BlobHash([7; 32]),
        manifest_size: 20,
        replaces: Vec::new(),
    };
    let revision = write(writer, ledger, Payload::Deployed(deployed));
    write(writer, ledger, Payload::Serving(op::Serving { revision, concurrency: 4 }));
    write(writer, ledger, Payload::Stopped(op::Stopped { revision }));
    let range = Some(op::Range { min: 0, max: 3 });
    write(writer, ledger, Payload::Bounded(op::Bounded { name: Some(name.clone()), range }));
    write(
        writer,
        ledger,
        Payload::Scaled(op::Scaled { name: name.clone(), replicas: 2, past: vec![author] }),
    );
    write(writer, ledger, Payload::Removed(op::Removed { name, replaces: vec![revision] }));
    let voters = write(writer, ledger, Payload::Voters(op::Voters { devices: vec![author] }));
    let page = small_page(ledger);
    write(writer, ledger, Payload::Sealed(op::Sealed { voters, page: page.hash(), size: page.size() }));
}

/// A machine that was made and is gone.
fn machines(writer: &mut Writer, ledger: &mut Ledger) {
    write(writer, ledger, Payload::Spawning(op::Spawning { machines: 1, minority: true }));
    let claim = write(writer, ledger, Payload::Claimed(op::Claimed { slot: 0, round: 1, after: None }));
    let activation = write(writer, ledger, Payload::Activated(op::Activated { claim }));
    let (target, functions) = ("process".to_owned(), vec!["hello".to_owned()]);
    let intent = op::Intent { activation, target, functions, key: public(8) };
    let intent = write(writer, ledger, Payload::Intent(intent));
    write(writer, ledger, Payload::Released(op::Released { claim }));
    write(writer, ledger, Payload::Retired(op::Retired { intent }));
}

/// The page of all that can be summarised of a small fleet.
///
/// # Panics
/// If nothing can.
#[must_use]
pub fn small_page(ledger: &Ledger) -> Page {
    let blocks = ledger.in_order();
    Page::of(ledger.fleet(), blocks.iter().map(AsRef::as_ref)).expect("it served")
}

thread_local! {
    static ENTRIES: (FleetId, Vec<Vec<u8>>) = {
        let ledger = small_fleet();
        (ledger.fleet(), ledger.in_order().iter().map(|block| block.entry().to_vec()).collect())
    };
}

/// A fresh replica of the small fleet. Signatures of its own blocks are not checked each time.
fn replica() -> Ledger {
    ENTRIES.with(|(fleet, entries)| {
        let mut ledger = Ledger::new(*fleet);
        for entry in entries {
            ledger.replay(entry).expect("its own block");
        }
        ledger.publish();
        ledger
    })
}

fn offer(entry: &[u8]) -> Result<(), Reject> {
    let mut ledger = replica();
    let (blocks, digest) = (ledger.len(), ledger.digest());
    let answer = ledger.admit(entry).map(|_| ());
    ledger.publish();
    let early = ledger.early().0;
    match &answer {
        Ok(()) if ledger.len() > blocks => {
            let held = ledger.get(&BlockId(*blake3::hash(entry).as_bytes())).expect("admitted");
            assert_eq!(held.entry(), entry, "a block is kept as it came");
            assert_eq!(ledger.verify(), Ok(ledger.len()));
            ledger.document_heads();
        }
        Ok(()) => assert!(early <= 1 && entry.len() <= limits::ENTRY_BYTES_MAX),
        Err(_) => assert_eq!((early, ledger.digest()), (0, digest), "what is refused leaves nothing"),
    }
    answer
}

fn entry(bytes: &[u8]) {
    let author = Block::author_of(bytes);
    if offer(bytes).is_ok() {
        assert!(author.is_some(), "a block's author can be told before it is read");
    }
}

/// The bytes as a body that the small fleet's device signs, so that what is behind the signature is
/// reached.
fn signed_body(bytes: &[u8]) {
    let fleet = ENTRIES.with(|(fleet, _)| *fleet);
    let _ = offer(&forge::seal(bytes, &fleet, &device()));
}

fn sync_frame(bytes: &[u8]) {
    if let Ok(frame) = Frame::decode(bytes) {
        assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
    }
}

/// What a replica answers to a peer's vector, hashes or gaps.
fn sync_answer(bytes: &[u8]) {
    let mut ledger = replica();
    let all = usize::try_from(ledger.len()).expect("few");
    let batch = match Frame::decode(bytes) {
        Ok(Frame::Vector(_, vector)) => ledger.compare(&vector, limits::BATCH_BYTES_MAX).0,
        Ok(Frame::Part(_, buckets, vector)) => {
            let Some(buckets) = Buckets::from_bytes(&buckets) else { return };
            ledger.compare_within(&buckets, &vector, limits::BATCH_BYTES_MAX).0
        }
        Ok(Frame::Buckets(hashes)) => {
            let vector = ledger.differing(&hashes).map(|buckets| ledger.vector_of(&buckets, true));
            return assert!(vector.is_none_or(|vector| vector.0.len() <= ledger.chains_held()));
        }
        Ok(Frame::Gaps(gaps)) => ledger.fill(&gaps, limits::BATCH_BYTES_MAX).0,
        _ => return,
    };
    assert!(batch.blocks.len() <= all && !batch.more, "a batch holds each block once");
}

/// The bytes as a row, and as a row's body that the small fleet's device signs.
fn row(bytes: &[u8]) {
    let fleet = ENTRIES.with(|(fleet, _)| *fleet);
    let signed = sign(b"osiris-row-v1", &fleet, bytes);
    for bytes in [bytes, signed.as_slice()] {
        if let Ok(row) = Row::read(&fleet, bytes) {
            assert_eq!(row.bytes(), bytes, "a row is kept as it came");
            assert!(row.functions().len() <= limits::ROW_FUNCTIONS_MAX);
            assert!(row.claims().len() <= limits::ROW_CLAIMS_MAX);
        }
    }
}

/// The bytes as the record of a machine's state, and as its body that the small fleet's device signs.
fn state_record(bytes: &[u8]) {
    let fleet = ENTRIES.with(|(fleet, _)| *fleet);
    let signed = sign(b"osiris-state-v1", &fleet, bytes);
    for bytes in [bytes, signed.as_slice()] {
        if let Ok(record) = Record::read(&fleet, bytes) {
            assert_eq!(record.bytes(), bytes, "a record is kept as it came");
            assert!(record.wraps().len() <= limits::STATE_READERS_MAX && record.about().serial > 0);
        }
    }
}

/// `body ‖ ed25519(blake3(domain ‖ fleet ‖ body))`.
fn sign(domain: &[u8], fleet: &FleetId, body: &[u8]) -> Vec<u8> {
    use osiris_ledger::Signer as _;
    let mut hasher = blake3::Hasher::new();
    hasher.update(domain).update(&fleet.0).update(body);
    [body, &device().sign(hasher.finalize().as_bytes()).to_bytes()].concat()
}

fn message(bytes: &[u8]) {
    let Ok(message) = Message::decode(Bytes::copy_from_slice(bytes)) else { return };
    let [head, payload] = message.encode().expect("what was read fits");
    let again = [&head[4..], &payload].concat();
    assert_eq!(Message::decode(again.into()).expect("what was written is read"), message);
}

fn frames(bytes: &[u8]) {
    let mut whole = FrameDecoder::new(1_024);
    whole.push(bytes);
    let mut taken = Vec::new();
    while let Ok(Some(frame)) = whole.next_frame() {
        assert!(frame.len() <= 1_024);
        taken.push(frame);
    }
    let mut pieces = FrameDecoder::new(1_024);
    let mut again = Vec::new();
    'bytes: for piece in bytes.chunks(3) {
        pieces.push(piece);
        loop {
            match pieces.next_frame() {
                Ok(Some(frame)) => again.push(frame),
                Ok(None) => break,
                Err(_) => break 'bytes,
            }
        }
    }
    assert_eq!(again, taken, "frames do not depend on how the bytes arrive");
}

fn call<T: CallMessage + std::fmt::Debug + PartialEq>(bytes: &[u8]) {
    let read = |size: usize| {
        let mut reader = CallReader::<T>::new();
        for piece in bytes.chunks(size) {
            reader.push(Bytes::copy_from_slice(piece)).ok()?;
        }
        reader.finish().ok()
    };
    assert_eq!(read(bytes.len().max(1)), read(7), "a call does not depend on how its bytes arrive");
}

fn join_request(bytes: &[u8]) {
    if let Ok(request) = JoinRequest::decode(bytes)
        && let Ok(written) = request.encode()
    {
        assert!(!written.is_empty());
    }
}

fn join_reply(bytes: &[u8]) {
    if let Ok(reply) = JoinReply::decode(bytes)
        && let Ok(written) = reply.encode()
    {
        assert!(!written.is_empty());
    }
}

fn ticket(bytes: &[u8]) {
    // The checksum would refuse nearly everything: the bytes are tried as text, and as what text says.
    for text in [String::from_utf8_lossy(bytes).into_owned(), ticket_text(bytes)] {
        let Ok(ticket) = text.parse::<Ticket>() else { continue };
        let written = ticket.encode().expect("what was read can be written");
        assert_eq!(written.parse::<Ticket>().expect("and read again"), ticket);
    }
}

/// Bytes as the text of a ticket whose checksum fits.
fn ticket_text(bytes: &[u8]) -> String {
    let hash = blake3::hash(bytes);
    let text = data_encoding::BASE32_NOPAD.encode(&[bytes, &hash.as_bytes()[..4]].concat());
    format!("osiris{}", text.to_ascii_lowercase())
}

/// A head file, its length in two bytes before it, and a journal.
fn journal_files(bytes: &[u8]) {
    let (head, journal) = match bytes.split_first_chunk::<2>() {
        Some((len, rest)) => rest.split_at(usize::from(u16::from_le_bytes(*len)).min(rest.len())),
        None => (bytes, bytes),
    };
    let known = journal::read_head_file(head);
    if let Some((header, head)) = &known {
        assert_eq!(journal::read_head_file(&journal::write_head_file(header, head)), known);
    }
    let Ok(scan) = journal::scan(journal, known.as_ref().map(|(_, head)| head)) else { return };
    let mut end = journal::HEADER_BYTES;
    for record in &scan.records {
        assert!(record.offset >= end, "records do not overlap");
        assert!(record.payload.len() < limits::RECORD_BYTES_MAX);
        end = usize::try_from(record.head.bytes).expect("in memory");
    }
    // Each byte is of a record, damage or the tail, and none of two.
    let records: usize = scan.records.iter().map(|record| record.head.bytes as usize - record.offset).sum();
    let damage: usize = scan.damage.iter().map(|damage| damage.bytes).sum();
    let tail = scan.torn_tail.map_or(0, |tail| tail.bytes);
    assert_eq!(journal::HEADER_BYTES + records + damage + tail, journal.len(), "every byte is accounted for");
    // Written again, what is whole is whole.
    let (again, head) = journal::write(&scan.header, scan.records.iter().map(|record| record.payload));
    let again = journal::scan(&again, Some(&head)).expect("a journal");
    assert!(again.damage.is_empty() && again.torn_tail.is_none());
    assert_eq!(again.records.len(), scan.records.len());
}

fn manifest(bytes: &[u8]) {
    let Ok(manifest) = Manifest::from_bytes(bytes) else { return };
    let written = manifest.to_bytes().expect("what was read is valid");
    assert_eq!(Manifest::from_bytes(&written).expect("and is read again"), manifest);
}

/// The bytes as a page that a peer offers.
fn page(bytes: &[u8]) {
    let mut ledger = replica();
    let Ok(page) = Page::decode(&ledger.fleet(), bytes) else { return };
    assert_eq!(page.encode(), bytes, "a page has one form");
    assert!(
        page.rows() as usize <= limits::PAGE_ROWS_MAX && page.summaries().count() == page.rows() as usize
    );
    let before = (ledger.len(), ledger.publish().hash());
    // Those of its own blocks are here in full: a summary says nothing new, or waits, or breaks a rule.
    ledger.offer(&Arc::new(page));
    ledger.take_offered();
    ledger.publish();
    if ledger.len() == before.0 {
        assert_eq!(ledger.publish().hash(), before.1, "what brings no block says nothing");
    }
}

/// The bytes as an archive, and with a hash at their end that fits.
fn archived(bytes: &[u8]) {
    let with_hash = [bytes, blake3::hash(bytes).as_bytes()].concat();
    for bytes in [bytes, with_hash.as_slice()] {
        if let Ok(archived) = archive::verify(&mut &*bytes) {
            assert!(
                archived.blocks > 0 && bytes[8..40] == archived.fleet.0,
                "it holds at least the genesis block"
            );
        }
    }
}

/// The bytes as a component that a peer sent.
fn component(bytes: &[u8]) {
    if let Ok(found) = inspect(bytes) {
        assert_eq!(found.size, bytes.len() as u64);
        assert!(found.size <= COMPONENT_BYTES_MAX);
    }
}

/// The bytes as a user's key file, and as one whose check fits.
fn key_bytes(bytes: &[u8]) {
    let with_check = KeyBytes::close(bytes.to_vec(), &[]).bytes().to_vec();
    for bytes in [bytes.to_vec(), with_check] {
        let Ok(file) = KeyBytes::parse(bytes.clone()) else { continue };
        assert_eq!((file.bytes(), bytes.len()), (bytes.as_slice(), key_file::FILE_BYTES));
        let header = file.header();
        assert!(header.cost().iter().zip(key_file::COST_MAX).all(|(asked, max)| *asked <= max));
        let parts = [header.bytes().len(), file.sealed().len()];
        assert_eq!((parts, header.public().len(), header.salt().len()), ([92, 48], 32, 16));
        assert_eq!(header.nonce().len(), key_file::NONCE_BYTES);
    }
}

/// The bytes as each of the small files of a data folder.
fn kept_files(bytes: &[u8]) {
    if let Some(peers) = kept::read_peers(bytes) {
        assert_eq!(kept::read_peers(&kept::write_peers(&peers)), Some(peers));
    }
    let confirmed = kept::read_confirmed(bytes);
    let written = kept::write_confirmed(&confirmed);
    assert!(kept::is_confirmed(&written) && kept::read_confirmed(&written) == confirmed);
    if let Some(port) = kept::read_port(bytes) {
        assert_eq!(kept::read_port(port.to_string().as_bytes()), Some(port));
    }
}
