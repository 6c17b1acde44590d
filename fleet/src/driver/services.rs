//! What members and strangers ask of this node over the mesh.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use osiris_ledger::{Author, BlobHash, BlockId, Role, Signature, View};
use osiris_mesh::{BoxFuture, Mesh, Offered, PeerId, Roster, Services};
use osiris_protocol::{
    PeerAddr,
    call::{CallReply, CallRequest},
    join::{JoinReply, JoinRequest, RefusalCode, Welcome},
};
use osiris_runtime::{ComponentHash, Library};
use tokio::sync::mpsc;

use super::{dispatch::Dispatcher, engine::NodeHandle, limits::BLOB_BYTES_MAX, sweep::Sweep};
use crate::node::{Input, Reply, Request, is_in_roster, kept, roster};

/// Who belongs to the fleet; see [`is_in_roster`].
#[derive(Debug)]
pub(crate) struct ViewRoster {
    pub(crate) me: Author,
    pub(crate) views: Arc<ArcSwap<View>>,
    pub(crate) told: BTreeSet<PeerId>,
    /// Peers whose connection was lost, as the core said last.
    pub(crate) lost: Arc<ArcSwap<Vec<PeerId>>>,
}

impl Roster for ViewRoster {
    fn is_member(&self, peer: &PeerId) -> bool {
        is_in_roster(&self.views.load(), &self.told, peer)
    }

    fn members(&self) -> Vec<PeerId> {
        roster(&self.views.load(), &self.told)
    }

    fn kept(&self) -> Vec<PeerId> {
        kept(&self.views.load(), &self.me, &self.lost.load()).into_iter().collect()
    }

    fn was_member(&self, peer: &PeerId) -> bool {
        self.views.load().was_member(&Author(peer.to_bytes())) && !self.is_member(peer)
    }
}

/// Whether a device may call functions of others: one that only reads, votes or spawns does not.
fn may_call(view: &View, device: &Author) -> bool {
    let member = view.members().get(device).filter(|member| member.active);
    let callers = [Role::Node, Role::Operator, Role::Admin, Role::Invoker];
    member.is_some_and(|member| callers.iter().any(|role| member.roles.has(*role)))
}

/// A place for the mesh.
pub(crate) type MeshSlot = Arc<ArcSwapOption<Mesh>>;

/// The node's side of the mesh's protocols.
#[derive(Debug)]
pub(crate) struct NodeServices {
    pub(crate) views: Arc<ArcSwap<View>>,
    pub(crate) handle: NodeHandle,
    pub(crate) library: Library,
    pub(crate) sweep: Arc<Sweep>,
    /// Tells the core what came.
    pub(crate) inputs: mpsc::Sender<Input>,
    /// None in a process that only makes contact.
    pub(crate) dispatcher: Option<Arc<Dispatcher>>,
    /// The mesh needs its services to be started, so it comes second; it holds them, so it is taken
    /// out again at the end.
    pub(crate) mesh: MeshSlot,
    pub(crate) fleet: [u8; 32],
}

impl Services for NodeServices {
    fn join(&self, device: PeerId, request: JoinRequest) -> BoxFuture<'static, JoinReply> {
        let (handle, mesh, fleet) = (self.handle.clone(), Arc::clone(&self.mesh), self.fleet);
        Box::pin(async move {
            if request.fleet != fleet {
                let why = "The ticket is for another fleet than this node belongs to. Ask for a new ticket.";
                return JoinReply::refused(RefusalCode::OtherFleet, why);
            }
            let admit = Request::Admit {
                device: Author(device.to_bytes()),
                invitation: BlockId(request.invitation),
                proof: Signature(request.proof),
                label: request.label.clone(),
            };
            match handle.ask(admit).await {
                Ok(Reply::Admitted(grant)) => {
                    let mut addrs = Vec::new();
                    if let Some(mesh) = mesh.load_full() {
                        mesh.learn(&PeerAddr { peer: device.to_bytes(), addrs: request.addrs });
                        addrs.push(PeerAddr { peer: mesh.peer_id().to_bytes(), addrs: mesh.addresses() });
                        addrs.extend(mesh.address_book());
                    }
                    addrs.truncate(osiris_protocol::limits::TICKET_PEERS_MAX);
                    JoinReply::Welcome(Welcome { grant: grant.0, addrs })
                }
                Ok(_) => JoinReply::refused(RefusalCode::Internal, "The node failed to answer. Try again."),
                Err(refusal) => {
                    let code = refusal.join.unwrap_or(RefusalCode::Busy);
                    let next = refusal.next.map(|next| format!(" {next}")).unwrap_or_default();
                    JoinReply::refused(code, format!("{}{next}", refusal.message))
                }
            }
        })
    }

    fn ending(&self, device: PeerId, question: Bytes) -> BoxFuture<'static, Option<Bytes>> {
        let handle = self.handle.clone();
        let device = Author(device.to_bytes());
        Box::pin(async move {
            match handle.ask(Request::Ending { device, question: question.to_vec() }).await {
                Ok(Reply::Ending(frame)) => Some(Bytes::from(frame)),
                _ => None,
            }
        })
    }

    fn call(&self, peer: PeerId, request: CallRequest) -> BoxFuture<'static, CallReply> {
        let dispatcher = self.dispatcher.clone();
        let may = may_call(&self.views.load(), &Author(peer.to_bytes()));
        Box::pin(async move {
            match dispatcher {
                Some(dispatcher) if may => dispatcher.serve_relayed(request).await,
                Some(_) => Dispatcher::may_not_call(),
                None => Dispatcher::not_hosting(),
            }
        })
    }

    fn blob(&self, hash: [u8; 32]) -> Option<PathBuf> {
        let hash = ComponentHash(hash);
        self.library.contains(hash).then(|| self.library.path(hash))
    }

    /// Who may deploy may bring what it is about to deploy. A process that only makes contact is gone in a moment: it
    /// takes nothing, and nobody is to rely on what it has.
    fn offered(&self, peer: PeerId, hash: [u8; 32], size: u64) -> Offered {
        if self.dispatcher.is_none() {
            return Offered::Refused;
        }
        let hash = ComponentHash(hash);
        let view = self.views.load();
        let member = view.members().get(&Author(peer.to_bytes())).filter(|member| member.active);
        let may = member.is_some_and(|member| member.roles.has(Role::Operator));
        if may {
            self.sweep.touch(hash);
        }
        if self.library.contains(hash) {
            return Offered::Held;
        }
        if !may || !(1..=BLOB_BYTES_MAX).contains(&size) {
            return Offered::Refused;
        }
        self.library.fetch_path(hash, size).map_or(Offered::Refused, Offered::Wanted)
    }

    fn keep(&self, hash: [u8; 32], file: PathBuf) -> BoxFuture<'static, bool> {
        let (library, sweep, inputs) = (self.library.clone(), Arc::clone(&self.sweep), self.inputs.clone());
        Box::pin(async move {
            sweep.touch(ComponentHash(hash));
            let adopted =
                tokio::task::spawn_blocking(move || library.adopt(ComponentHash(hash), &file)).await;
            let kept = matches!(adopted, Ok(Ok(())));
            kept && inputs.send(Input::BlobHeld(BlobHash(hash))).await.is_ok()
        })
    }
}
