//! Whole nodes over a journal whose disk fails, and one whose library has no room.

use std::{
    io::{self, Read, Write},
    path::Path,
    time::Duration,
};

use osiris_runtime::{BlobDisk, BlobFile, Library};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
    task::JoinHandle,
};

use super::{
    Addresses, DriverError, InitOptions, RunOptions, init,
    open::Opened,
    run::{Process, no_events, run_opened},
    serve::manage::BlobKind,
    store::Journal,
};
use crate::{
    api,
    disk::Disk as _,
    manifest::Manifest,
    node::Retain,
    sim::disk::{Faults, SimDisk, Snapshot},
};

const SAMPLES: &str = r#"{"samples":[{"cpu_percent":1.0,"memory_used":10,"memory_total":100,"load1":0.5}]}"#;

fn founded() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let options = InitOptions { name: "fleet".to_owned(), label: "node".to_owned() };
    init(dir.path(), options).expect("founded");
    dir
}

const FILES: [&str; 2] = ["journal", "journal.head"];

/// The folder, its journal moved onto a simulated disk.
fn open_on(disk: &SimDisk, data: &Path) -> Opened {
    let file = |name: &str| (name.to_owned(), std::fs::read(data.join(name)).expect("a file"));
    disk.restore(&Snapshot(FILES.map(file).into()));
    let mut opened = Opened::open_founded(data).expect("opened");
    opened.journal = Some(Journal::open_on(Box::new(disk.clone()), data).expect("opened").0);
    opened
}

/// Puts the simulated disk's journal back into the folder.
fn put_back(disk: &SimDisk, data: &Path) {
    for name in FILES {
        let bytes = disk.read(name).expect("read").expect("a file");
        std::fs::write(data.join(name), bytes).expect("written");
    }
}

/// What fails from now on: the disk is full, or its next sync fails.
fn fail(disk: &SimDisk, full: bool) {
    let used: usize = disk.snapshot().0.values().map(Vec::len).sum();
    disk.set_faults(match full {
        true => Faults { capacity: Some(used as u64), ..Faults::default() },
        false => Faults { sync_fails_at: Some(disk.syncs()), ..Faults::default() },
    });
}

fn deploy(name: &str, component: String) -> api::Deploy {
    api::Deploy { component, manifest: Manifest::named(name), timeout_ms: 10_000, wait: true }
}

#[tokio::test]
async fn a_failed_disk_refuses_writes_and_reads_go_on() {
    for full in [true, false] {
        let dir = founded();
        let disk = SimDisk::new(0);
        let mut opened = open_on(&disk, dir.path());
        let before = opened.ledger.publish().hash();
        fail(&disk, full);
        let mut process = Process::new(opened, false, Retain::All).expect("a process");
        process.engine.start().await;
        let desk = std::sync::Arc::clone(&process.desk);
        let work = async {
            let stored = desk.store(BlobKind::Component, osiris_examples::SUMMARY.into()).await;
            let deploy = deploy("f", stored.expect("the library has room").hash);
            let refused = desk.deploy(deploy.clone()).await.expect_err("nothing is acknowledged");
            let again = desk.deploy(deploy).await.expect_err("nor later");
            (refused, again, desk.status().await.expect("reads go on"))
        };
        let (refused, again, status) = process.engine.run(&mut no_events(), work).await;
        assert_eq!((refused.status, again.status), (507, 507), "{refused} {again}");
        assert!(refused.body.message.contains("failed while this was written"), "{refused}");
        assert!(again.body.message.contains("takes no more writes"), "{again}");
        assert_eq!(status.state, "read-only");
        let says =
            |problem: &String| problem.contains("takes no more writes") && problem.contains("Free space");
        assert!(status.problems.iter().any(says), "{:?}", status.problems);
        drop(process);
        disk.restart();
        put_back(&disk, dir.path());
        let mut reopened = Opened::open(dir.path()).expect("opened again");
        assert_eq!(reopened.ledger.publish().hash(), before, "what was not acknowledged is not there");
    }
}

/// A folder on a disk that takes names and no bytes, and a file in it.
#[derive(Debug)]
struct Full;

impl Read for Full {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Ok(0)
    }
}

impl Write for Full {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::StorageFull.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl BlobFile for Full {
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

impl BlobDisk for Full {
    fn list(&self) -> io::Result<Vec<(String, Option<u64>)>> {
        Ok(Vec::new())
    }
    fn read(&self, _: &str) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }
    fn create(&self, _: &str) -> io::Result<Box<dyn BlobFile>> {
        Ok(Box::new(Self))
    }
    fn open(&self, _: &str) -> io::Result<Box<dyn BlobFile>> {
        Err(io::ErrorKind::NotFound.into())
    }
    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }
    fn remove(&self, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn sync_folder(&self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_library_without_room_says_where_how_much_and_what_to_do() {
    let dir = founded();
    let mut opened = Opened::open_founded(dir.path()).expect("opened");
    let folder = dir.path().join("library");
    opened.library = Library::open_on(Full, &folder, u64::MAX).expect("a library");
    let process = Process::new(opened, false, Retain::All).expect("a process");
    let stored = process.desk.store(BlobKind::Component, osiris_examples::SUMMARY.into()).await;
    let refused = stored.expect_err("there is no room");
    let bytes = osiris_examples::SUMMARY.len();
    assert_eq!(refused.status, 507, "{refused}");
    let message = refused.body.message;
    let place = format!("The library {} has no room for a file of {bytes} bytes", folder.display());
    assert!(message.starts_with(&place) && message.contains("its disk is full"), "{message}");
    let next = refused.body.next.expect("what to do");
    assert!(next.starts_with(&format!("Free at least {bytes} bytes on that disk")), "{next}");
    assert_eq!(process.desk.library.used_bytes(), 0, "what was not kept takes no room of the quota");
}

struct Node {
    addresses: Addresses,
    running: JoinHandle<Result<(), DriverError>>,
}

impl Node {
    async fn up(opened: Opened, data: &Path) -> Self {
        let loopback = "127.0.0.1:0".parse().expect("an address");
        let options = RunOptions {
            data: data.to_owned(),
            socket: super::socket_path(data, None),
            http: loopback,
            mesh: Some(loopback),
            advertise: Vec::new(),
            token_file: None,
            gossip: false,
            terms: crate::policy::Terms::default(),
            machines: 0,
            retain: Retain::All,
            provision: None,
        };
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let running = tokio::spawn(run_opened(options, None, opened, move |addresses| {
            let _ = ready.send(addresses.clone());
        }));
        Self { addresses: is_ready.await.expect("the node is ready"), running }
    }

    async fn manage(&self, method: &str, path: &str, body: &[u8]) -> (u16, String) {
        let stream = UnixStream::connect(&self.addresses.socket).await.expect("connected");
        exchange(stream, method, path, body).await
    }

    async fn http(&self, method: &str, path: &str, body: &[u8]) -> (u16, String) {
        let stream = TcpStream::connect(self.addresses.http).await.expect("connected");
        exchange(stream, method, path, body).await
    }

    async fn deploy(&self, name: &str) -> (u16, String) {
        let (status, stored) =
            self.manage("POST", "/v1/blobs?kind=component", osiris_examples::SUMMARY).await;
        assert_eq!(status, 200, "{stored}");
        let stored: api::BlobStored = serde_json::from_str(&stored).expect("a stored blob");
        let deploy = serde_json::to_vec(&deploy(name, stored.hash)).expect("JSON");
        self.manage("POST", "/v1/functions", &deploy).await
    }

    async fn state(&self) -> String {
        let (_, status) = self.manage("GET", "/v1/status", b"").await;
        serde_json::from_str::<api::Status>(&status).expect("a status").state
    }

    /// Waits until a function answers.
    async fn answers(&self, name: &str) {
        let path = format!("/function/{name}");
        let answered = async {
            while self.http("POST", &path, SAMPLES.as_bytes()).await.0 != 200 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), answered).await.expect("the function answers");
    }

    async fn down(self) {
        assert_eq!(self.manage("POST", "/v1/shutdown", b"").await.0, 200);
        self.running.await.expect("no panic").expect("a clean end");
    }
}

/// One request and its whole answer.
async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    method: &str,
    path: &str,
    body: &[u8],
) -> (u16, String) {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer of text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head[9..12].parse().expect("a status"), body.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_disk_fails_is_read_only_serves_on_and_starts_again() {
    for full in [false, true] {
        let dir = founded();
        let disk = SimDisk::new(1);
        let node = Node::up(open_on(&disk, dir.path()), dir.path()).await;
        let (status, said) = node.deploy("kept").await;
        assert_eq!(status, 200, "{said}");
        assert_eq!(node.http("GET", "/readyz", b"").await, (200, "ready\n".to_owned()));
        node.answers("kept").await;

        fail(&disk, full);
        for (name, why) in [("lost", "failed while this was written"), ("lost-too", "takes no more writes")] {
            let (status, said) = node.deploy(name).await;
            assert_eq!(status, 507, "a write that is not durable was acknowledged: {said}");
            assert!(said.contains(why), "{said}");
        }
        // The disk works again, but nobody knows what it lost meanwhile.
        disk.set_faults(Faults::default());
        assert_eq!(node.deploy("later").await.0, 507);
        assert_eq!(node.http("GET", "/readyz", b"").await, (200, "ready, read-only\n".to_owned()));
        assert_eq!(node.state().await, "read-only");
        node.answers("kept").await;
        let (status, doctor) = node.manage("GET", "/v1/doctor", b"").await;
        assert!(status == 200 && doctor.contains("takes no more writes"), "{doctor}");
        node.down().await;

        // The power goes, too.
        disk.restart();
        put_back(&disk, dir.path());
        let opened = Opened::open_founded(dir.path()).expect("opened");
        assert_eq!(opened.warnings, Vec::<String>::new());
        let node = Node::up(opened, dir.path()).await;
        node.answers("kept").await;
        assert_eq!(node.state().await, "serving");
        assert_eq!(node.http("GET", "/readyz", b"").await, (200, "ready\n".to_owned()));
        assert_eq!(node.deploy("new").await.0, 200);
        node.down().await;
    }
}
