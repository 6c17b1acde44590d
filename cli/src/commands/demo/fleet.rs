//! The demo's three nodes: processes of this binary, each with its own folder, on loopback.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use osiris_fleet::api::{FunctionDetail, FunctionRow, Status, Verified};
use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::client::Client;
use crate::exit::Failure;

/// How many nodes there are.
pub(super) const NODES: usize = 3;
/// Between two looks at a condition that nothing announces.
const LOOK: Duration = Duration::from_millis(25);
/// How long one command may take.
const COMMAND: Duration = Duration::from_secs(20);

/// One node.
#[derive(Debug)]
pub(in crate::commands) struct Node {
    label: String,
    data: PathBuf,
    http: SocketAddr,
    mesh: Vec<String>,
    pub(super) socket: PathBuf,
    child: Option<Child>,
}

impl Node {
    pub(super) fn label(&self) -> &str {
        &self.label
    }

    pub(in crate::commands) fn http(&self) -> SocketAddr {
        self.http
    }

    /// Its process, while it runs.
    pub(in crate::commands) fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }
}

/// A node that stays up.
#[derive(Debug, Serialize)]
pub(super) struct Kept {
    pub(super) label: String,
    pub(super) http: String,
    pub(super) mesh: Vec<String>,
    pub(super) data: String,
    pub(super) pid: Option<u32>,
}

/// The fleet and the folder it lives in, which goes with it unless it is kept.
#[derive(Debug)]
pub(in crate::commands) struct Fleet {
    root: PathBuf,
    made_root: bool,
    keep: bool,
    program: PathBuf,
    nodes: Vec<Node>,
    /// What each node's configuration file says, by number from 1; and how many machines the fleet may have for it
    /// to make one.
    configured: BTreeMap<usize, (String, u32)>,
    /// Where nodes listen for each other.
    mesh: SocketAddr,
}

type Done<T> = Result<(T, String), Failure>;

impl Fleet {
    pub(in crate::commands) fn new(dir: Option<&Path>, keep: bool) -> Result<Self, Failure> {
        let fail = |what: &str, error: std::io::Error| Failure::failed(format!("{what}: {error}."));
        let program = std::env::current_exe().map_err(|e| fail("This program cannot be found again", e))?;
        let name = format!("osiris-demo-{}", std::process::id());
        let root = dir.map_or_else(|| std::env::temp_dir().join(name), Path::to_owned);
        if fs::read_dir(&root).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(Failure::usage(format!("The folder {} is not empty.", root.display()))
                .next("give an empty folder or a new one with --dir, or leave --dir out"));
        }
        let made_root = !root.exists();
        fs::create_dir_all(&root)
            .map_err(|e| fail(&format!("The folder {} cannot be made", root.display()), e))?;
        let (nodes, configured) = (Vec::new(), BTreeMap::new());
        let mesh = SocketAddr::from(([127, 0, 0, 1], 0));
        Ok(Self { root, made_root, keep, program, nodes, configured, mesh })
    }

    /// Has nodes listen for each other at another address of this machine than the loopback one.
    pub(super) fn listen_at(&mut self, mesh: SocketAddr) {
        self.mesh = mesh;
    }

    /// Has a node start with a configuration file, and as a maker of machines where it is allowed some.
    pub(super) fn configure(&mut self, number: usize, config: String, machines: u32) {
        self.configured.insert(number, (config, machines));
    }

    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(in crate::commands) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub(super) fn is_kept(&self) -> bool {
        self.keep
    }

    /// Founds the fleet and starts its first node.
    pub(in crate::commands) async fn found(&mut self) -> Done<()> {
        let data = self.folder(1);
        self.osiris(&data, &["init", "--name", "demo", "--label", "node-1"]).await?;
        let node = self.up(1).await?;
        let result = format!("{} at {}", node.label, node.http);
        self.nodes.push(node);
        Ok(((), result))
    }

    /// Folders join with one ticket until there are so many nodes; their nodes start.
    pub(in crate::commands) async fn join(&mut self, nodes: usize) -> Done<()> {
        let others = nodes.saturating_sub(1);
        let ticket = self.invite(others).await?;
        // A ticket is a secret, and other users see arguments.
        let file = self.root.join("ticket");
        let kept = File::options().write(true).create(true).truncate(true).mode(0o600).open(&file);
        kept.and_then(|mut kept| kept.write_all(ticket.as_bytes())).map_err(|error| {
            Failure::failed(format!("The ticket cannot be kept in {}: {error}.", file.display()))
        })?;
        let at_file = format!("@{}", file.display());
        let mesh = self.mesh.to_string();
        for number in 2..=nodes {
            let (data, label) = (self.folder(number), format!("node-{number}"));
            self.osiris(&data, &["--mesh", &mesh, "join", &at_file, "--label", &label]).await?;
            let node = self.up(number).await?;
            self.nodes.push(node);
        }
        self.until("every node is connected to all others", async |status: &Status| {
            status.connected == others as u64
        })
        .await?;
        Ok(((), format!("a ticket of {} characters, used {others} times; all connected", ticket.len())))
    }

    /// A join ticket from the first node.
    pub(super) async fn invite(&self, uses: usize) -> Result<String, Failure> {
        let invited = self.osiris(&self.folder(1), &["invite", "--uses", &uses.to_string()]).await?;
        let ticket = invited.get("ticket").and_then(Value::as_str);
        ticket.map(str::to_owned).ok_or_else(|| Failure::failed("`osiris invite` printed no ticket."))
    }

    /// A ticket for applications.
    pub(super) async fn dial_ticket(&self) -> Result<String, Failure> {
        let ticket = self.osiris(&self.folder(1), &["ticket"]).await?;
        let ticket = ticket.get("ticket").and_then(Value::as_str);
        ticket.map(str::to_owned).ok_or_else(|| Failure::failed("`osiris ticket` printed no ticket."))
    }

    /// Deploys a revision of summary to all nodes that are up, and waits until they serve it.
    pub(in crate::commands) async fn deploy_summary(&self, component: &[u8], number: u64) -> Done<()> {
        let deployed = self.deploy("summary", component, "all").await?;
        let up = self.nodes.iter().filter(|node| node.child.is_some()).count() as u64;
        self.until_served("summary", number, up).await?;
        Ok(((), format!("revision {number}, {deployed}, ready on {up} nodes")))
    }

    /// Deploys chart with one replica. Returns the node that serves it.
    pub(in crate::commands) async fn deploy_chart(&self) -> Done<usize> {
        let deployed = self.deploy("chart", osiris_examples::CHART, "1").await?;
        self.until_served("chart", 1, 1).await?;
        let detail: FunctionDetail = self.client(0).await?.get("/v1/functions/chart").await?;
        let holders: Vec<_> = detail.revisions.iter().flat_map(|revision| &revision.serving).collect();
        let holder = self.nodes.iter().position(|node| holders.contains(&&node.label));
        let holder = holder.ok_or_else(|| Failure::failed("No node serves chart."))?;
        Ok((holder, format!("revision 1, {deployed}, on {}", self.nodes[holder].label)))
    }

    async fn deploy(&self, name: &str, component: &[u8], replicas: &str) -> Result<String, Failure> {
        let file = self.root.join(format!("{name}.wasm"));
        let written = fs::write(&file, component);
        written.map_err(|e| Failure::failed(format!("{} cannot be written: {e}.", file.display())))?;
        let path = file.display().to_string();
        self.osiris(&self.folder(1), &["deploy", &path, "--name", name, "--replicas", replicas]).await?;
        Ok(format!("{:.0} kB", component.len() as f64 / 1e3))
    }

    pub(super) async fn until_served(&self, name: &str, number: u64, replicas: u64) -> Result<(), Failure> {
        for (at, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.child.is_some()) {
            let client = self.client(at).await?;
            let until = Instant::now() + COMMAND;
            loop {
                let rows: Vec<FunctionRow> = client.get("/v1/functions").await?;
                let row = rows.into_iter().find(|row| row.name == name);
                if row.as_ref().is_some_and(|row| row.revision == number && row.served_by >= replicas) {
                    break;
                }
                if Instant::now() >= until {
                    return Err(Failure::failed(format!(
                        "{} does not see {name}@{number} on {replicas} nodes: {row:?}.",
                        node.label
                    )));
                }
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(())
    }

    /// SIGKILL: no goodbye, no flush.
    pub(super) fn kill(&mut self, which: usize) -> Result<Instant, Failure> {
        let node = &mut self.nodes[which];
        let mut child = node.child.take().ok_or_else(|| Failure::failed("The node does not run."))?;
        child.start_kill().map_err(|e| Failure::failed(format!("{} cannot be killed: {e}.", node.label)))?;
        let at = Instant::now();
        // Its exit is collected in the background.
        tokio::spawn(async move { child.wait().await });
        Ok(at)
    }

    /// Starts the killed node again on its folder.
    pub(super) async fn revive(&mut self, which: usize) -> Done<()> {
        let began = Instant::now();
        let node = self.up(which + 1).await?;
        let up = began.elapsed();
        let blocks: Status = Client::find(&node.socket).await?.ok_or_else(gone)?.get("/v1/status").await?;
        let result = format!(
            "{} at {}, {} blocks from its own journal, up after {:.0} ms",
            node.label,
            node.http,
            blocks.blocks,
            up.as_secs_f64() * 1e3
        );
        self.nodes[which] = node;
        Ok(((), result))
    }

    /// Waits until all nodes hold one view, and one automerge document.
    pub(super) async fn agree(&self) -> Done<()> {
        let until = Instant::now() + COMMAND;
        loop {
            let mut statuses = Vec::new();
            for at in 0..self.nodes.len() {
                statuses.push(self.client(at).await?.get::<Status>("/v1/status").await?);
            }
            let first = &statuses[0];
            let same =
                |status: &Status| status.view == first.view && status.document_heads == first.document_heads;
            // Everything that the revived node will announce is in the view once it serves revision 2.
            let complete = statuses.iter().all(|status| status.connected == 2 && status.functions == 2);
            if complete && statuses.iter().all(same) && self.all_serve_newest().await? {
                let result = format!(
                    "view {}, {} blocks, {} automerge heads, equal on all",
                    &first.view[..12],
                    first.blocks,
                    first.document_heads.len()
                );
                return Ok(((), result));
            }
            if Instant::now() >= until {
                let views: Vec<_> = statuses
                    .iter()
                    .map(|status| format!("{} {}", status.label, &status.view[..12]))
                    .collect();
                return Err(Failure::failed(format!("The nodes do not agree: {}.", views.join(", "))));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn all_serve_newest(&self) -> Result<bool, Failure> {
        let rows: Vec<FunctionRow> = self.client(0).await?.get("/v1/functions").await?;
        let summary = rows.iter().find(|row| row.name == "summary");
        Ok(summary.is_some_and(|row| row.served_by == NODES as u64 && row.revision == row.newest))
    }

    /// Every node checks every block and every component again.
    pub(super) async fn verify(&self) -> Done<()> {
        let mut result = String::new();
        for node in &self.nodes {
            let verified = self.osiris(&node.data, &["ledger", "verify"]).await?;
            let verified: Verified = serde_json::from_value(verified).map_err(|e| {
                Failure::failed(format!("`osiris ledger verify` printed something else: {e}."))
            })?;
            if !verified.problems.is_empty() {
                let problems: Vec<_> =
                    verified.problems.iter().map(|problem| problem.what.as_str()).collect();
                return Err(Failure::failed(format!("{}: {}", node.label, problems.join(" "))));
            }
            result = format!(
                "{} blocks in {} chains, {} blobs, on each of {NODES} nodes",
                verified.blocks, verified.chains, verified.components
            );
        }
        Ok(((), result))
    }

    /// Stops all nodes by SIGTERM and checks that each ended well.
    pub(super) async fn stop(&mut self) -> Done<()> {
        for node in &mut self.nodes {
            let Some(child) = &mut node.child else { continue };
            terminate(child);
            let ended = tokio::time::timeout(COMMAND, child.wait()).await;
            match ended {
                Ok(Ok(status)) if status.success() => node.child = None,
                Ok(Ok(status)) => {
                    return Err(Failure::failed(format!("{} ended with {status}.", node.label)));
                }
                Ok(Err(error)) => return Err(Failure::failed(format!("{} is lost: {error}.", node.label))),
                Err(_) => return Err(Failure::failed(format!("{} did not end on SIGTERM.", node.label))),
            }
        }
        Ok(((), format!("{NODES} nodes, exit code 0 each")))
    }

    /// Lets go of the nodes, which run on.
    pub(super) fn keep(&mut self) -> Vec<Kept> {
        let kept = self.nodes.iter_mut().map(|node| {
            let pid = node.child.take().and_then(|child| child.id());
            Kept {
                label: node.label.clone(),
                http: format!("http://{}", node.http),
                mesh: node.mesh.clone(),
                data: node.data.display().to_string(),
                pid,
            }
        });
        kept.collect()
    }

    /// Adds where the nodes' logs are; they are kept when something failed.
    pub(in crate::commands) fn explain(&mut self, failure: Failure) -> Failure {
        self.made_root = false;
        failure.next(format!("the nodes' logs are in {}/node-*/node.log", self.root.display()))
    }

    pub(super) fn folder(&self, number: usize) -> PathBuf {
        self.root.join(format!("node-{number}"))
    }

    pub(super) async fn client(&self, at: usize) -> Result<Client, Failure> {
        Client::find(&self.nodes[at].socket).await?.ok_or_else(gone)
    }

    async fn until(&self, what: &str, holds: impl AsyncFn(&Status) -> bool) -> Result<(), Failure> {
        let until = Instant::now() + COMMAND;
        for (at, node) in self.nodes.iter().enumerate() {
            loop {
                let status: Status = self.client(at).await?.get("/v1/status").await?;
                if holds(&status).await {
                    break;
                }
                if Instant::now() >= until {
                    return Err(Failure::timed_out(format!("In vain on {}: {what}.", node.label)));
                }
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(())
    }

    /// Runs this program with `-o json` and reads what it prints.
    pub(super) async fn osiris(&self, data: &Path, args: &[&str]) -> Result<Value, Failure> {
        let mut command = self.command(data);
        command.args(args).stdin(Stdio::null()).kill_on_drop(true);
        let shown = format!(
            "osiris {}",
            args.first().filter(|arg| !arg.starts_with("--")).or(args.get(2)).unwrap_or(&"")
        );
        let output = tokio::time::timeout(COMMAND, command.output()).await;
        let output = output.map_err(|_| Failure::timed_out(format!("`{shown}` took too long.")))?;
        let output = output.map_err(|e| Failure::failed(format!("`{shown}` cannot be run: {e}.")))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(Failure::failed(format!("`{shown}` ended with {}: {}", output.status, said.trim())));
        }
        serde_json::from_slice(&output.stdout)
            .map_err(|e| Failure::failed(format!("`{shown}` printed no JSON: {e}.")))
    }

    fn command(&self, data: &Path) -> Command {
        let mut command = Command::new(&self.program);
        // The demo's nodes are their own: nothing of the person's configuration reaches them.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("OSIRIS_"))
        {
            command.env_remove(name);
        }
        command.arg("--data").arg(data).args(["-o", "json"]);
        command
    }

    /// Starts a node and waits for its line of addresses.
    async fn up(&self, number: usize) -> Result<Node, Failure> {
        let (data, label) = (self.folder(number), format!("node-{number}"));
        let fail = |error: std::io::Error| Failure::failed(format!("{label} cannot be started: {error}."));
        let log = File::options().create(true).append(true).open(data.join("node.log")).map_err(fail)?;
        let mut command = self.command(&data);
        command.args(["--mesh", &self.mesh.to_string(), "up", "--http", "127.0.0.1:0"]);
        if let Some((config, machines)) = self.configured.get(&number) {
            fs::write(data.join("config.toml"), config).map_err(fail)?;
            command.args(["--machines", &machines.to_string()]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        // A group of its own: an interrupted demo ends its nodes itself, a kept one leaves them alone.
        command.as_std_mut().process_group(0);
        let mut starting = Starting(Some(command.spawn().map_err(fail)?));
        let stdout = starting.0.as_mut().and_then(|child| child.stdout.take());
        let stdout = stdout.ok_or_else(|| Failure::failed("The node has no output."))?;
        let mut line = String::new();
        let mut reader = BufReader::new(stdout);
        let read = tokio::time::timeout(COMMAND, reader.read_line(&mut line)).await;
        let addresses: Value = match read {
            Ok(Ok(_)) => serde_json::from_str(&line).unwrap_or_default(),
            _ => Value::Null,
        };
        let text = |key: &str| addresses.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let Ok(http) = text("http").trim_start_matches("http://").parse() else {
            return Err(Failure::failed(format!(
                "{label} did not start; its log is {}.",
                data.join("node.log").display()
            )));
        };
        let mesh = addresses.get("mesh").cloned().and_then(|mesh| serde_json::from_value(mesh).ok());
        let mesh = mesh.unwrap_or_default();
        let child = starting.0.take();
        Ok(Node { label, mesh, socket: PathBuf::from(text("socket")), data, http, child })
    }
}

/// A node that has not said yet that it runs. It ends where that is waited for no more.
struct Starting(Option<Child>);

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.start_kill();
        }
    }
}

/// How long a killed node may take to be gone.
const DYING: Duration = Duration::from_secs(2);

fn gone() -> Failure {
    Failure::failed("A node that should run does not answer.")
}

fn terminate(child: &Child) {
    if let Some(pid) =
        child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw)
    {
        // A process that has just ended needs no signal.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(child) = &mut node.child {
                let _ = child.start_kill();
            }
        }
        // What a node writes as it dies would keep its folder from being removed.
        let until = Instant::now() + DYING;
        while Instant::now() < until
            && self
                .nodes
                .iter_mut()
                .filter_map(|node| node.child.as_mut())
                .any(|child| matches!(child.try_wait(), Ok(None)))
        {
            std::thread::sleep(Duration::from_millis(10));
        }
        if self.made_root && !self.keep {
            let _ = fs::remove_dir_all(&self.root);
        }
    }
}
