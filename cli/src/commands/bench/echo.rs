//! A raw iroh echo: what two processes pay for one stream a request, without anything of Osiris.

use std::net::{Ipv4Addr, SocketAddr};

use iroh::endpoint::{Connection, presets};
use iroh::{Endpoint, EndpointAddr, EndpointId, RelayMode, TransportAddr};
use osiris_protocol::call::{CallMessage, CallReply, CallRequest};
use osiris_protocol::limits::CALL_DEADLINE_MS_MAX;
use serde::{Deserialize, Serialize};

use super::load::{Loaded, Times, Window, cpu_within};
use super::wire::{Ask, Seen};

/// The protocol's name.
const ALPN: &[u8] = b"osiris-bench/echo";
/// Largest message, bytes.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// How large the messages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sizes {
    pub(super) request_bytes: usize,
    pub(super) reply_bytes: usize,
}

impl Sizes {
    /// Those of a call between nodes with this request and this answer.
    pub(super) fn of(function: &str, ask: &Ask, seen: &Seen) -> Result<Self, String> {
        let pairs = |headers: &[(String, String)]| {
            headers.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect()
        };
        let request = CallRequest {
            function: function.to_owned(),
            revision: Some([u8::MAX; 32]),
            method: ask.method().to_owned(),
            path: "/".to_owned(),
            headers: pairs(&ask.headers()),
            body: ask.body.clone().unwrap_or_default().into(),
            deadline_ms: CALL_DEADLINE_MS_MAX,
        };
        let reply = CallReply { status: 200, headers: pairs(&seen.headers), body: seen.body.clone().into() };
        let bytes = |parts: [bytes::Bytes; 2]| parts.iter().map(bytes::Bytes::len).sum();
        Ok(Self {
            request_bytes: bytes(request.encode().map_err(|e| e.to_string())?),
            reply_bytes: bytes(reply.encode().map_err(|e| e.to_string())?),
        })
    }
}

/// What an echo server is told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct EchoJob {
    pub(super) sizes: Sizes,
}

/// Where it listens.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Echo {
    id: String,
    address: SocketAddr,
}

/// What the client of an echo server is told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ProbeJob {
    pub(super) echo: Echo,
    pub(super) sizes: Sizes,
    pub(super) seconds: u64,
}

async fn bind() -> Result<Endpoint, String> {
    Endpoint::builder(presets::Minimal)
        .relay_mode(RelayMode::Disabled)
        .alpns(vec![ALPN.to_vec()])
        .clear_ip_transports()
        .bind_addr(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .map_err(|e| e.to_string())?
        .bind()
        .await
        .map_err(|e| format!("{e:#}"))
}

/// Opens the server and serves it in the background, for as long as the program runs.
pub(super) async fn start(job: EchoJob) -> Result<Echo, String> {
    let endpoint = bind().await?;
    let address = endpoint.bound_sockets().into_iter().next().ok_or("the endpoint has no address")?;
    let id = endpoint.id().to_string();
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            tokio::spawn(async move {
                if let Ok(connection) = incoming.await {
                    // It ends when the client goes away.
                    let _ = serve(&connection, job.sizes).await;
                }
            });
        }
    });
    Ok(Echo { id, address })
}

async fn serve(connection: &Connection, sizes: Sizes) -> Result<(), String> {
    let reply = vec![b'r'; sizes.reply_bytes];
    loop {
        let (mut send, mut recv) = connection.accept_bi().await.map_err(|e| e.to_string())?;
        let request = recv.read_to_end(MESSAGE_BYTES_MAX).await.map_err(|e| e.to_string())?;
        if request.len() != sizes.request_bytes {
            return Err(format!("a request of {} bytes came", request.len()));
        }
        send.write_all(&reply).await.map_err(|e| e.to_string())?;
        send.finish().map_err(|e| e.to_string())?;
    }
}

/// Asks the server over one connection, one request at a time.
pub(super) async fn probe(job: ProbeJob) -> Result<Loaded, String> {
    let endpoint = bind().await?;
    let id: EndpointId = job.echo.id.parse().map_err(|_| "the echo server has no usable id".to_owned())?;
    let server = EndpointAddr::from_parts(id, [TransportAddr::Ip(job.echo.address)]);
    let connection = endpoint.connect(server, ALPN).await.map_err(|e| format!("{e:#}"))?;
    let request = vec![b'q'; job.sizes.request_bytes];
    let window = Window::new(job.seconds);
    let spent = tokio::task::spawn_blocking(move || cpu_within(window));
    let asking = async {
        let mut times = Times::start();
        while times.go_on(window) {
            ask(&connection, &request, job.sizes.reply_bytes).await?;
            times.note(window);
        }
        Ok::<_, String>(times)
    };
    let asked = tokio::time::timeout_at(window.last().into(), asking).await;
    let times = asked.map_err(|_| "an echo did not come in time".to_owned())??;
    let spent = spent.await.map_err(|e| e.to_string())?;
    let loaded = times.figures(window, spent);
    endpoint.close().await;
    loaded
}

async fn ask(connection: &Connection, request: &[u8], reply_bytes: usize) -> Result<(), String> {
    let (mut send, mut recv) = connection.open_bi().await.map_err(|e| e.to_string())?;
    send.write_all(request).await.map_err(|e| e.to_string())?;
    send.finish().map_err(|e| e.to_string())?;
    let reply = recv.read_to_end(MESSAGE_BYTES_MAX).await.map_err(|e| e.to_string())?;
    if reply.len() == reply_bytes { Ok(()) } else { Err(format!("an echo of {} bytes came", reply.len())) }
}
