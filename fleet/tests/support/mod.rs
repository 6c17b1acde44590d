//! Real nodes inside the test's process: folders, sockets, a mesh on loopback.

#![allow(dead_code, reason = "each test file uses a part")]

use std::{path::Path, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use osiris_fleet::{
    api,
    driver::{Addresses, DriverError, InitOptions, JoinOptions, RunOptions, init, join, run, socket_path},
    node::Retain,
};
use osiris_protocol::PeerAddr;
use serde::{Serialize, de::DeserializeOwned};
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle};

/// How long anything may take before a test gives up on it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A folder that belongs to a fleet.
#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) dir: TempDir,
}

impl Folder {
    /// A folder with a new fleet.
    pub(crate) fn founded() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        init(dir.path(), InitOptions { name: "test".to_owned(), label: "founder".to_owned() })
            .expect("founded");
        Self { dir }
    }

    /// A folder that joins with a ticket.
    pub(crate) async fn joined(ticket: &str, label: &str) -> Result<Self, DriverError> {
        let dir = tempfile::tempdir().expect("a folder");
        join(dir.path(), join_options(ticket, label)).await?;
        Ok(Self { dir })
    }

    /// A copy of everything that is in it now.
    pub(crate) fn copied(&self) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        copy(self.path(), dir.path()).expect("copied");
        Self { dir }
    }

    /// Where members were last known to listen.
    pub(crate) fn peers(&self) -> Vec<PeerAddr> {
        let bytes = std::fs::read(self.path().join("peers.json")).expect("there are some");
        serde_json::from_slice(&bytes).expect("addresses")
    }

    pub(crate) fn save_peers(&self, peers: &[PeerAddr]) {
        let bytes = serde_json::to_vec(peers).expect("JSON");
        std::fs::write(self.path().join("peers.json"), bytes).expect("written");
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Starts a node on it.
    pub(crate) async fn up(&self) -> Node {
        self.up_with(true).await.expect("a node starts")
    }

    /// Starts a node, with or without gossip.
    pub(crate) async fn up_with(&self, gossip: bool) -> Result<Node, DriverError> {
        self.up_as(gossip, Retain::All).await
    }

    /// Starts a node that keeps all blocks, or current ones alone.
    pub(crate) async fn up_as(&self, gossip: bool, retain: Retain) -> Result<Node, DriverError> {
        let options = RunOptions {
            data: self.path().to_owned(),
            socket: socket_path(self.path(), None),
            http: "127.0.0.1:0".parse().expect("an address"),
            mesh: Some("127.0.0.1:0".parse().expect("an address")),
            advertise: Vec::new(),
            token_file: None,
            gossip,
            terms: osiris_fleet::policy::Terms::default(),
            machines: 0,
            retain,
            provision: None,
        };
        let (ready, is_ready) = oneshot::channel();
        let running = tokio::spawn(run(options, move |addresses| {
            let _ = ready.send(addresses.clone());
        }));
        match is_ready.await {
            Ok(addresses) => Ok(Node { addresses, running }),
            Err(_) => Err(running.await.expect("no panic").expect_err("a node that is not ready has failed")),
        }
    }
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            std::fs::create_dir_all(&to)?;
            copy(&entry.path(), &to)?;
        } else if kind.is_file() {
            std::fs::copy(entry.path(), &to)?;
        }
    }
    Ok(())
}

pub(crate) fn join_options(ticket: &str, label: &str) -> JoinOptions {
    JoinOptions {
        user: None,
        ticket: ticket.to_owned(),
        label: label.to_owned(),
        mesh: Some("127.0.0.1:0".parse().expect("an address")),
        timeout: Duration::from_secs(15),
    }
}

/// A running node.
pub(crate) struct Node {
    pub(crate) addresses: Addresses,
    running: JoinHandle<Result<(), DriverError>>,
}

/// A response, its body whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: hyper::HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Node {
    /// One request to the management socket.
    pub(crate) async fn manage(&self, method: &str, path: &str, body: impl Into<Bytes>) -> Answer {
        let stream =
            tokio::net::UnixStream::connect(&self.addresses.socket).await.expect("the socket answers");
        exchange(TokioIo::new(stream), method, path, body.into()).await
    }

    /// One request to the functions' interface.
    pub(crate) async fn http(&self, method: &str, path: &str, body: impl Into<Bytes>) -> Answer {
        let stream = tokio::net::TcpStream::connect(self.addresses.http).await.expect("the port answers");
        exchange(TokioIo::new(stream), method, path, body.into()).await
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        let answer = self.manage("GET", path, "").await;
        assert_eq!(answer.status, 200, "GET {path}: {}", answer.text());
        serde_json::from_slice(&answer.body).expect("the answer has the documented shape")
    }

    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> T {
        let answer = self.manage("POST", path, serde_json::to_vec(body).expect("JSON")).await;
        assert_eq!(answer.status, 200, "POST {path}: {}", answer.text());
        serde_json::from_slice(&answer.body).expect("the answer has the documented shape")
    }

    /// A request without a body.
    pub(crate) async fn tell<T: DeserializeOwned>(&self, path: &str) -> T {
        let answer = self.manage("POST", path, "").await;
        assert_eq!(answer.status, 200, "POST {path}: {}", answer.text());
        serde_json::from_slice(&answer.body).expect("the answer has the documented shape")
    }

    /// A ticket for so many devices.
    pub(crate) async fn invite(&self, uses: u32) -> String {
        let invite = api::Invite { uses, timeout_ms: 100, ..api::Invite::default() };
        self.post::<api::Invited>("/v1/invitations", &invite).await.ticket
    }

    /// Deploys and waits until another member confirmed, or there is none.
    pub(crate) async fn deploy(
        &self,
        component: &'static [u8],
        manifest: osiris_fleet::manifest::Manifest,
    ) -> api::Deployed {
        let stored = self.manage("POST", "/v1/blobs?kind=component", component).await;
        assert_eq!(stored.status, 200, "{}", stored.text());
        let stored: api::BlobStored = serde_json::from_slice(&stored.body).expect("a stored blob");
        // It ends with the first confirmation; on a busy machine, behind a flood, that takes its time.
        let deploy = api::Deploy { component: stored.hash, manifest, timeout_ms: 90_000, wait: true };
        self.post("/v1/functions", &deploy).await
    }

    pub(crate) async fn status(&self) -> api::Status {
        self.get("/v1/status").await
    }

    /// Ends the node cleanly.
    pub(crate) async fn down(self) {
        let answer = self.manage("POST", "/v1/shutdown", "").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let ended = tokio::time::timeout(PATIENCE, self.running).await.expect("the node ends in time");
        ended.expect("no panic").expect("a clean end");
    }
}

/// Waits until a condition holds, looking often.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < end, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until all nodes publish one view.
pub(crate) async fn agree(nodes: &[&Node]) {
    until("all nodes agree", || async {
        let mut views = std::collections::BTreeSet::new();
        for node in nodes {
            let status = node.status().await;
            views.insert((status.view, status.document_heads));
        }
        views.len() == 1
    })
    .await;
}

async fn exchange<I>(io: TokioIo<I>, method: &str, path: &str, body: Bytes) -> Answer
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("HTTP");
    tokio::spawn(connection);
    let request = hyper::Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(Full::new(body))
        .expect("a request");
    let response = sender.send_request(request).await.expect("a response");
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes();
    Answer { status: head.status.as_u16(), headers: head.headers, body }
}
