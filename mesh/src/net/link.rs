//! One link: a connection of `osiris/sync/1` on which both sides have said hello.
//!
//! The side that dialled opens the only stream and says hello first. The side that accepted decides
//! (see [`Shared::admit`]) and answers; the dialling side counts the link as up only then.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use iroh::{
    TransportAddr,
    endpoint::{Connection, ConnectionError, ReadExactError, RecvStream, SendStream, VarInt},
    protocol::{AcceptError, ProtocolHandler},
};
use osiris_protocol::{
    alpn::{self, code},
    frame::{self, PREFIX_BYTES},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};

use super::{
    api::MeshEvent,
    bind::{close_code, describe_close, endpoint_addr, endpoint_id, peer_id},
    shared::{DialEnd, DueDial, Registered, Shared},
};
use crate::{
    PeerId,
    limits::{ADDRESSES_INTERVAL_MIN, ADDRESSES_PEERS_MAX, DIAL_TIMEOUT, GREETING_TIMEOUT, WANTED_PEERS_MAX},
    proto::message::{AddressEntry, AgedAddr, Hello, MESSAGE_BYTES_MAX, Message, VERSION},
};

/// Why a link cannot go on: the code to close with, and a sentence.
#[derive(Debug)]
struct Broken {
    code: u32,
    why: String,
    /// Whether the peer certainly sent what an honest one never sends. A stream cut short is no proof: that
    /// is also how a connection that is given up looks.
    blame: bool,
}

impl Broken {
    fn malformed(why: impl std::fmt::Display) -> Self {
        Self { code: code::MALFORMED, why: format!("the peer broke the protocol: {why}"), blame: true }
    }

    fn cut_short() -> Self {
        Self { blame: false, ..Self::malformed("the stream ended within a message") }
    }

    fn lost(why: impl std::fmt::Display) -> Self {
        Self { code: code::DONE, why: why.to_string(), blame: false }
    }
}

/// Dials a peer and, when it accepts us, runs the link to its end.
pub(super) async fn dial(shared: Arc<Shared>, due: DueDial) {
    let DueDial { peer, generation, cancel } = due;
    let connected = tokio::select! {
        connected = connect(&shared, peer, generation) => connected,
        () = cancel.cancelled() => Err(DialEnd::Superseded),
    };
    match connected {
        Ok((link, registered)) => run(&shared, peer, link, registered).await,
        Err(end) => {
            tracing::debug!(peer = ?peer, ?end, "no link");
            let turned_away = matches!(end, DialEnd::NotAMember(_));
            shared.dial_ended(peer, generation, end);
            if turned_away {
                shared.tell(MeshEvent::TurnedAway { peer }).await;
            }
        }
    }
}

/// An open stream and the peer's hello.
struct Link {
    conn: Connection,
    send: SendStream,
    recv: RecvStream,
    hello: Hello,
    /// Whether our hello is still to be sent: the accepting side answers.
    answer: bool,
}

/// Closes the connection of a dial that is given up, so that the other side does not wait for it.
struct CloseOnDrop(Option<Connection>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        if let Some(conn) = self.0.take() {
            conn.close(VarInt::from_u32(code::DUPLICATE), b"another connection is preferred");
        }
    }
}

async fn connect(shared: &Shared, peer: PeerId, generation: u64) -> Result<(Link, Registered), DialEnd> {
    let id =
        endpoint_id(&peer).ok_or_else(|| DialEnd::Unreachable("its key is not an Ed25519 key".to_owned()))?;
    let addr = endpoint_addr(id, shared.addrs(&peer));
    let conn = timeout(DIAL_TIMEOUT, shared.endpoint.connect(addr, alpn::SYNC))
        .await
        .map_err(|_| DialEnd::Unreachable("it does not answer at any known address".to_owned()))?
        .map_err(|error| DialEnd::Unreachable(format!("{error:#}")))?;
    let mut guard = CloseOnDrop(Some(conn.clone()));
    if !shared.dial_greets(&peer, generation) {
        return Err(DialEnd::Superseded);
    }
    let greeting = async {
        let (mut send, mut recv) = conn.open_bi().await.map_err(Broken::lost)?;
        write_message(shared, &mut send, &own_hello(shared)).await?;
        let hello = read_hello(shared, &mut recv).await?;
        Ok::<_, Broken>((send, recv, hello))
    };
    let (send, recv, hello) = match timeout(GREETING_TIMEOUT, greeting).await {
        Ok(Ok(greeted)) => greeted,
        Ok(Err(broken)) => {
            return Err(match conn.close_reason() {
                Some(reason) => refusal(&reason),
                None => {
                    guard.0 = None;
                    conn.close(VarInt::from_u32(broken.code), broken.why.as_bytes());
                    DialEnd::Refused(broken.why)
                }
            });
        }
        Err(_) => return Err(DialEnd::Unreachable("it did not say hello".to_owned())),
    };
    let registered =
        shared.dial_answered(peer, generation, *hello.session, &conn).ok_or(DialEnd::Superseded)?;
    guard.0 = None;
    let link = Link { conn, send, recv, hello, answer: false };
    Ok((link, registered))
}

fn refusal(reason: &ConnectionError) -> DialEnd {
    let why = describe_close(reason);
    match close_code(reason) {
        Some(code::NOT_A_MEMBER) => DialEnd::NotAMember(why),
        Some(_) => DialEnd::Refused(why),
        None => DialEnd::Unreachable(why),
    }
}

/// The accepting side of `osiris/sync/1`.
#[derive(Clone)]
pub(super) struct Links(pub(super) Arc<Shared>);

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Links")
    }
}

impl ProtocolHandler for Links {
    async fn accept(&self, conn: Connection) -> Result<(), AcceptError> {
        let shared = Arc::clone(&self.0);
        // In a task of its own: a panic here would stop the router, and every protocol with it.
        let task = tokio::spawn(async move { accept(&shared, conn).await });
        if task.await.is_err_and(|error| error.is_panic()) {
            tracing::error!("a link panicked; this is a defect, please report it");
        }
        Ok(())
    }
}

async fn accept(shared: &Arc<Shared>, conn: Connection) {
    let peer = peer_id(&conn.remote_id());
    let greeting = async {
        let (send, mut recv) = conn.accept_bi().await.map_err(Broken::lost)?;
        let hello = read_hello(shared, &mut recv).await?;
        Ok::<_, Broken>((send, recv, hello))
    };
    let greeted = tokio::select! {
        greeted = timeout(GREETING_TIMEOUT, greeting) => greeted,
        () = shared.stop.cancelled() => return,
    };
    let (send, recv, hello) = match greeted {
        Ok(Ok(greeted)) => greeted,
        Ok(Err(broken)) => {
            conn.close(VarInt::from_u32(broken.code), broken.why.as_bytes());
            if broken.blame {
                shared.tell(MeshEvent::Malformed { peer }).await;
            }
            return;
        }
        Err(_) => {
            conn.close(VarInt::from_u32(code::TIMEOUT), b"no hello came");
            return;
        }
    };
    match shared.admit(peer, *hello.session, &conn) {
        Ok(registered) => {
            let link = Link { conn, send, recv, hello, answer: true };
            run(shared, peer, link, registered).await;
        }
        Err(code::DUPLICATE) => {
            conn.close(VarInt::from_u32(code::DUPLICATE), b"another connection is preferred")
        }
        Err(code) => conn.close(VarInt::from_u32(code), b"not a member of this fleet"),
    }
}

fn own_hello(shared: &Shared) -> Message {
    Message::Hello(Hello {
        topic: shared.topic.into(),
        version: VERSION,
        session: shared.session.into(),
        addrs: shared.own_addrs(),
    })
}

async fn read_hello(shared: &Shared, recv: &mut RecvStream) -> Result<Hello, Broken> {
    let Some(Message::Hello(hello)) = read_message(recv).await? else {
        return Err(Broken::malformed("its first message is not a hello"));
    };
    if *hello.topic != shared.topic {
        return Err(Broken {
            code: code::OTHER_FLEET,
            why: "the two nodes belong to different fleets".to_owned(),
            blame: false,
        });
    }
    if hello.version != VERSION {
        return Err(Broken::malformed("its version is not ours"));
    }
    Ok(hello)
}

/// Runs a link from its first event to its last.
async fn run(shared: &Arc<Shared>, peer: PeerId, link: Link, registered: Registered) {
    let Registered { generation, frames, queued_bytes, cancel, outlived, told, previous } = registered;
    let _told = told.drop_guard();
    if let Some(previous) = previous {
        previous.cancelled().await;
    }
    let conn = link.conn.clone();
    if shared.tell(MeshEvent::PeerUp { peer }).await {
        note_addresses(shared, peer, &conn, &link.hello.addrs);
        if let Some(hints) = &shared.hints {
            hints.join(peer);
        }
    }
    let queue = Queue { frames, queued_bytes };
    let broken = tokio::select! {
        broken = talk(shared, peer, link, queue) => broken,
        () = cancel.cancelled() => Broken {
            code: if outlived.load(Ordering::Acquire) { code::OTHER_SESSION } else { code::REPLACED },
            why: "a newer connection replaced it, or it was dropped on purpose".to_owned(),
            blame: false,
        },
        () = shared.stop.cancelled() => Broken {
            code: code::SHUTDOWN,
            why: "this node is shutting down".to_owned(),
            blame: false,
        },
    };
    let closed = conn.close_reason();
    let twin = closed.as_ref().and_then(close_code) == Some(code::OTHER_SESSION);
    let why = closed.map_or(broken.why, |reason| describe_close(&reason));
    shared.link_ended(&peer, generation, &why);
    conn.close(VarInt::from_u32(broken.code), why.as_bytes());
    tracing::debug!(peer = ?peer, why, "link down");
    if broken.blame {
        shared.tell(MeshEvent::Malformed { peer }).await;
    }
    shared.tell(MeshEvent::PeerDown { peer, why }).await;
    if twin {
        shared.tell(MeshEvent::Twin { peer }).await;
    }
}

/// What the peer says about itself, and the address at which it demonstrably is.
fn note_addresses(shared: &Shared, peer: PeerId, conn: &Connection, addrs: &[SocketAddr]) {
    let paths = conn.paths();
    let seen = paths.iter().filter_map(|path| match path.remote_addr() {
        TransportAddr::Ip(addr) => Some(*addr),
        _ => None,
    });
    shared.learn(peer, addrs.iter().copied().chain(seen), Duration::ZERO);
}

/// Frames waiting to be written.
struct Queue {
    frames: mpsc::Receiver<Bytes>,
    queued_bytes: Arc<std::sync::atomic::AtomicUsize>,
}

/// Reads and writes until one of them cannot go on.
async fn talk(shared: &Shared, peer: PeerId, link: Link, queue: Queue) -> Broken {
    let Link { conn, mut send, mut recv, answer, .. } = link;
    if answer && let Err(broken) = write_message(shared, &mut send, &own_hello(shared)).await {
        return broken;
    }
    let (asked, answers) = mpsc::channel(4);
    let broken = tokio::select! {
        broken = read(shared, peer, &mut recv, &asked) => broken,
        broken = write(shared, peer, &mut send, queue, answers) => broken,
        reason = conn.closed() => Ok(Broken::lost(describe_close(&reason))),
    };
    broken.unwrap_or_else(|broken| broken)
}

async fn read(
    shared: &Shared,
    peer: PeerId,
    recv: &mut RecvStream,
    asked: &mpsc::Sender<Vec<PeerId>>,
) -> Result<Broken, Broken> {
    while let Some(message) = read_message(recv).await? {
        match message {
            Message::Frame(bytes) => {
                if !shared.tell(MeshEvent::Frame { peer, bytes }).await {
                    return Ok(Broken::lost("this node is shutting down"));
                }
            }
            Message::Addresses(entries) => shared.merge(&entries),
            Message::Wanted(peers) => {
                let peers = peers.iter().map(|p| PeerId::from_bytes(**p)).collect();
                // A peer that asks faster than it reads goes without an answer.
                let _ = asked.try_send(peers);
            }
            Message::Hello(_) => return Err(Broken::malformed("it said hello twice")),
        }
    }
    Ok(Broken::lost("the peer ended the link"))
}

async fn write(
    shared: &Shared,
    peer: PeerId,
    send: &mut SendStream,
    mut queue: Queue,
    mut answers: mpsc::Receiver<Vec<PeerId>>,
) -> Result<Broken, Broken> {
    let mut addresses = Gossiper::default();
    let mut news = shared.addresses_changed.subscribe();
    news.mark_changed();
    let mut not_before = Instant::now();
    loop {
        tokio::select! {
            frame = queue.frames.recv() => {
                let Some(frame) = frame else {
                    return Ok(Broken::lost("a newer connection replaced it"));
                };
                let len = frame.len();
                let written = write_message(shared, send, &Message::Frame(frame)).await;
                queue.queued_bytes.fetch_sub(len, Ordering::Relaxed);
                written?;
            }
            changed = async { sleep_until(not_before).await; news.changed().await } => {
                if changed.is_err() {
                    return Ok(Broken::lost("this node is shutting down"));
                }
                addresses.tell_news(shared, peer, send).await?;
                not_before = Instant::now() + ADDRESSES_INTERVAL_MIN;
            }
            Some(wanted) = answers.recv() => {
                let now_ms = shared.now_ms();
                let entries: Vec<AddressEntry> = shared.with_book(|book| {
                    wanted.iter().filter_map(|peer| book.entry(now_ms, peer)).collect()
                });
                if !entries.is_empty() {
                    write_message(shared, send, &Message::Addresses(entries)).await?;
                }
            }
        }
    }
}

/// What one link has been told about addresses, so that it is told only what is new.
#[derive(Default)]
struct Gossiper {
    version: u64,
    own: Vec<SocketAddr>,
    wanted: Vec<PeerId>,
}

impl Gossiper {
    async fn tell_news(
        &mut self,
        shared: &Shared,
        peer: PeerId,
        send: &mut SendStream,
    ) -> Result<(), Broken> {
        let own = shared.own_addrs();
        if own != self.own {
            let aged = own.iter().map(|addr| AgedAddr { addr: *addr, age_s: 0 });
            let entry = AddressEntry { peer: shared.me.to_bytes().into(), addrs: aged.collect() };
            write_message(shared, send, &Message::Addresses(vec![entry])).await?;
            self.own = own;
        }
        loop {
            let now_ms = shared.now_ms();
            let (mut entries, version) =
                shared.with_book(|book| book.changes_since(now_ms, self.version, ADDRESSES_PEERS_MAX));
            let last = entries.len() < ADDRESSES_PEERS_MAX;
            entries.retain(|entry| *entry.peer != *peer.as_bytes());
            if !entries.is_empty() {
                write_message(shared, send, &Message::Addresses(entries)).await?;
            }
            self.version = version;
            if last {
                break;
            }
        }
        let wanted = shared.missing(WANTED_PEERS_MAX);
        if wanted != self.wanted {
            if !wanted.is_empty() {
                let peers = wanted.iter().map(|peer| peer.to_bytes().into()).collect();
                write_message(shared, send, &Message::Wanted(peers)).await?;
            }
            self.wanted = wanted;
        }
        Ok(())
    }
}

async fn write_message(shared: &Shared, send: &mut SendStream, message: &Message) -> Result<(), Broken> {
    let mut parts = message.encode().map_err(Broken::malformed)?;
    match timeout(shared.write_stall, send.write_all_chunks(&mut parts)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Broken::lost(error)),
        Err(_) => Err(Broken {
            code: code::TIMEOUT,
            why: "the peer does not read what it is sent".to_owned(),
            blame: false,
        }),
    }
}

/// The next message; `None` when the stream ends between two.
async fn read_message(recv: &mut RecvStream) -> Result<Option<Message>, Broken> {
    let mut prefix = [0; PREFIX_BYTES];
    match recv.read_exact(&mut prefix).await {
        Ok(()) => {}
        Err(ReadExactError::FinishedEarly(0)) => return Ok(None),
        Err(ReadExactError::FinishedEarly(_)) => {
            return Err(Broken::cut_short());
        }
        Err(ReadExactError::ReadError(error)) => return Err(Broken::lost(error)),
    }
    let len = frame::declared_len(prefix, MESSAGE_BYTES_MAX).map_err(Broken::malformed)?;
    let bytes = read_bytes(recv, len).await?;
    Message::decode(bytes).map(Some).map_err(Broken::malformed)
}

/// Grows with what has arrived, never with what was declared.
async fn read_bytes(recv: &mut RecvStream, len: usize) -> Result<Bytes, Broken> {
    let mut bytes = BytesMut::new();
    while bytes.len() < len {
        let chunk = recv.read_chunk(len - bytes.len()).await;
        match chunk.map_err(Broken::lost)? {
            Some(whole) if bytes.is_empty() && whole.len() == len => return Ok(whole),
            Some(chunk) => bytes.extend_from_slice(&chunk),
            None => return Err(Broken::cut_short()),
        }
    }
    Ok(bytes.freeze())
}
