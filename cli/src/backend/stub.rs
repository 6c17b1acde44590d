//! Stands in for `osiris_fleet::driver` until it is there; see backend.rs.
#![allow(missing_docs, clippy::unused_async, unused_variables, dead_code, reason = "removed at integration")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use osiris_fleet::api;
use osiris_fleet::manifest::Manifest;

#[derive(Debug)]
pub(crate) struct DriverError {
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) next: Option<String>,
}

fn todo<T>() -> Result<T, DriverError> {
    Err(DriverError { code: "internal", message: "The driver is not built yet.".into(), next: None })
}

pub(crate) fn socket_path(data: &Path, xdg_runtime_dir: Option<&Path>) -> PathBuf {
    data.join("osiris.sock")
}
pub(crate) fn device(data: &Path) -> Result<String, DriverError> {
    todo()
}
pub(crate) struct InitOptions {
    pub(crate) name: String,
    pub(crate) label: String,
}
pub(crate) struct Inited {
    pub(crate) fleet: String,
    pub(crate) device: String,
    pub(crate) recovery_secret: String,
}
pub(crate) fn init(data: &Path, options: InitOptions) -> Result<Inited, DriverError> {
    todo()
}
pub(crate) struct JoinOptions {
    pub(crate) ticket: String,
    pub(crate) label: String,
    pub(crate) mesh: Option<SocketAddr>,
    pub(crate) timeout: Duration,
}
pub(crate) struct Joined {
    pub(crate) fleet: String,
    pub(crate) fleet_name: String,
    pub(crate) device: String,
    pub(crate) roles: Vec<String>,
    pub(crate) blocks: u64,
}
pub(crate) async fn join(data: &Path, options: JoinOptions) -> Result<Joined, DriverError> {
    todo()
}
pub(crate) struct RunOptions {
    pub(crate) data: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) http: SocketAddr,
    pub(crate) mesh: Option<SocketAddr>,
    pub(crate) advertise: Vec<SocketAddr>,
    pub(crate) token_file: Option<PathBuf>,
}
pub(crate) struct Addresses {
    pub(crate) http: SocketAddr,
    pub(crate) socket: PathBuf,
    pub(crate) mesh: Vec<SocketAddr>,
    pub(crate) device: String,
    pub(crate) fleet: String,
}
pub(crate) async fn run(options: RunOptions, ready: impl FnOnce(&Addresses)) -> Result<(), DriverError> {
    todo()
}
#[derive(Debug)]
pub(crate) struct Offline;
impl Offline {
    pub(crate) fn open(data: &Path) -> Result<Self, DriverError> {
        todo()
    }
    pub(crate) fn status(&mut self) -> api::Status {
        api::Status::default()
    }
    pub(crate) fn nodes(&mut self) -> Vec<api::NodeRow> {
        Vec::new()
    }
    pub(crate) fn functions(&mut self) -> Vec<api::FunctionRow> {
        Vec::new()
    }
    pub(crate) fn function(&mut self, name: &str) -> Result<api::FunctionDetail, DriverError> {
        todo()
    }
    pub(crate) fn invitations(&mut self) -> Vec<api::InvitationRow> {
        Vec::new()
    }
    pub(crate) fn ledger(&mut self, limit: usize) -> Vec<api::BlockRow> {
        Vec::new()
    }
    pub(crate) fn verify(&mut self) -> Result<api::Verified, DriverError> {
        todo()
    }
    pub(crate) fn deploy(
        &mut self,
        component: &[u8],
        manifest: Manifest,
    ) -> Result<api::Deployed, DriverError> {
        todo()
    }
    pub(crate) fn remove(&mut self, name: &str) -> Result<api::Written, DriverError> {
        todo()
    }
    pub(crate) fn invite(&mut self, invite: api::Invite) -> Result<api::Invited, DriverError> {
        todo()
    }
    pub(crate) fn withdraw(&mut self, id: &str) -> Result<api::Written, DriverError> {
        todo()
    }
    pub(crate) fn leave(&mut self) -> Result<api::Written, DriverError> {
        todo()
    }
    pub(crate) async fn contact(
        &mut self,
        timeout: Duration,
        mesh: Option<SocketAddr>,
    ) -> Result<api::Synced, DriverError> {
        todo()
    }
    pub(crate) async fn call(
        &mut self,
        name: &str,
        body: bytes::Bytes,
        timeout: Duration,
    ) -> Result<bytes::Bytes, DriverError> {
        todo()
    }
}
