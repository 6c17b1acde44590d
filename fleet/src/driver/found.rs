//! Founding a fleet, and joining one.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use osiris_ledger::{Author, BlockId, FleetId, Founding, Session, SigningKey, View, Writer};
use osiris_mesh::{JoinError, MeshConfig};
use osiris_protocol::{
    PeerAddr,
    limits::PEER_ADDRS_MAX,
    ticket::{JoinTicket, Ticket},
};
use zeroize::Zeroize as _;

use super::{
    error::DriverError,
    folder::{Folder, fresh_session, random},
    limits::{JOIN_BEGUN_BYTES_MAX, MEMBER_LOOK},
    offline::Offline,
    open::{Clock, Opened, offer_pages},
    rows,
    run::{LOOK, Process, mesh_error},
    store::Journal,
};
use crate::{
    api::{codes, is_name},
    node::Retain,
};

/// What a fleet is founded with.
#[derive(Clone, Debug)]
pub struct InitOptions {
    /// The fleet's name.
    pub name: String,
    /// This device's name.
    pub label: String,
}

/// A founded fleet.
#[derive(Debug)]
pub struct Inited {
    /// Its id, hex.
    pub fleet: String,
    /// This device's key, hex.
    pub device: String,
    /// Secret half of the recovery key, hex. The folder does not hold it.
    pub recovery_secret: String,
}

/// Founds a fleet in a folder that belongs to none.
///
/// # Errors
/// [`DriverError`] where the folder belongs to a fleet already, or a name is not allowed.
pub fn init(data: &Path, options: InitOptions) -> Result<Inited, DriverError> {
    check_names(&[&options.name, &options.label])?;
    let folder = Folder::open(data)?;
    refuse_a_second_fleet(&folder)?;
    let key = folder.device_key()?;
    let admin = folder.admin_key()?;
    let recovery_secret: [u8; 32] = random()?;
    let recovery = Author(SigningKey::from_bytes(&recovery_secret).verifying_key().to_bytes());
    let mut writer = Writer::new(key, fresh_session()?);
    let founding = Founding {
        name: options.name,
        label: options.label,
        admin: &admin,
        recovery,
        nonce: Session(random()?),
    };
    let (ledger, genesis) = writer.found(Clock::start().now(), founding).map_err(|reject| {
        DriverError::new(codes::BAD_REQUEST, format!("The fleet cannot be founded: {reject}."), "")
    })?;
    Journal::create(folder.path(), &ledger.fleet(), &[genesis.entry()])?;
    Ok(Inited {
        fleet: ledger.fleet().to_string(),
        device: writer.author().to_string(),
        recovery_secret: BlockId(recovery_secret).to_string(),
    })
}

/// Refused before anything is made in the folder.
fn check_names(names: &[&str]) -> Result<(), DriverError> {
    match names.iter().find(|name| !is_name(name)) {
        None => Ok(()),
        Some(name) => Err(DriverError::new(
            codes::BAD_REQUEST,
            format!(
                "{name:?} is no name: it has 1 to 64 bytes of printable text, without white space at its ends."
            ),
            "Give others: `--name NAME`, `--label LABEL`.",
        )),
    }
}

fn refuse_a_second_fleet(folder: &Folder) -> Result<(), DriverError> {
    if !folder.journal().exists() {
        return match Journal::inspect(folder.path()) {
            // The journal of a fleet is gone; founding another in its place would hide that.
            Err(error) if error.code != codes::NOT_FOUND.0 => Err(error),
            _ => Ok(()),
        };
    }
    Err(DriverError::new(
        codes::CONFLICT,
        format!("The data folder {} already belongs to a fleet.", folder.path().display()),
        "Use another folder with `--data DIR`; `osiris status` shows this one's fleet.",
    ))
}

/// What a device joins with.
#[derive(Clone, Debug)]
pub struct JoinOptions {
    /// The join ticket.
    pub ticket: String,
    /// This device's name.
    pub label: String,
    /// The user's secret key, for a ticket that is for a user.
    pub user: Option<SecretKey>,
    /// Where the mesh will listen.
    pub mesh: Option<SocketAddr>,
    /// How long to try.
    pub timeout: Duration,
}

/// A user's secret key. It is not shown by `Debug`.
#[derive(Clone)]
pub struct SecretKey(pub [u8; 32]);

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretKey(redacted)")
    }
}

impl Drop for SecretKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

fn wrong_key(why: &str) -> DriverError {
    DriverError::new(
        codes::BAD_REQUEST,
        why,
        "`osiris invite` makes tickets for anybody, `osiris user ticket` those for a user's key.",
    )
}

/// Whether a member gains something by the ticket: a user's key gives it the user's roles.
fn is_news(view: &View, ticket: &JoinTicket, device: &Author) -> bool {
    let held = view.members().get(device).map(|member| member.users.as_slice()).unwrap_or_default();
    ticket.secret.is_none() && !held.contains(&BlockId(ticket.invitation))
}

/// A membership.
#[derive(Debug)]
pub struct Joined {
    /// The fleet's id, hex.
    pub fleet: String,
    /// Its name.
    pub fleet_name: String,
    /// This device's key, hex.
    pub device: String,
    /// Its name, as the fleet knows it.
    pub label: String,
    /// What it may write.
    pub roles: Vec<String>,
    /// Blocks received.
    pub blocks: u64,
    /// Where this device was a member already: the members whose addresses were taken from the ticket. Its
    /// invitation was not used.
    pub addresses_of: Option<u64>,
}

/// Joins a fleet: is admitted by one of the ticket's nodes, then receives the ledger until it holds
/// everything that the inviter held, and its own admission. A device that is a member already takes the
/// ticket's addresses and looks for a moment whether the fleet still says so: thus it finds a fleet that has moved.
///
/// # Errors
/// [`DriverError`] where the ticket is not valid, is refused, or no node can be reached.
pub async fn join(data: &Path, options: JoinOptions) -> Result<Joined, DriverError> {
    let until = tokio::time::Instant::now() + options.timeout;
    let ticket = read_ticket(&options.ticket)?;
    check_names(&[&options.label])?;
    let mut folder = Folder::open(data)?;
    let fleet = FleetId(ticket.fleet);
    let key = folder.device_key()?;
    let device = Author(key.verifying_key().to_bytes());
    if folder.journal().exists()
        && let Some(view) = already_member(&folder, &fleet, &device)?
        && !is_news(&view, &ticket, &device)
    {
        adopt(&folder, &ticket.peers)?;
        drop(folder);
        // The fleet may have ended the membership while this device was away; then it is admitted anew.
        let look = (options.timeout / 2).min(MEMBER_LOOK);
        let meeting = Offline::open(data).await?.contact(look, look, options.mesh);
        let _ = meeting.await;
        folder = Folder::open(data)?;
        if let Some(view) = already_member(&folder, &fleet, &device)? {
            return Ok(Joined {
                addresses_of: Some(ticket.peers.len() as u64),
                ..joined(&fleet, &device, &view)
            });
        }
    }
    let invitation = BlockId(ticket.invitation);
    let secret = match (&options.user, ticket.secret.is_none()) {
        (Some(user), true) => SigningKey::from_bytes(&user.0),
        (None, false) => SigningKey::from_bytes(ticket.secret.expose()),
        (Some(_), false) => {
            return Err(wrong_key("This ticket holds an invitation; no user's key is needed."));
        }
        (None, true) => return Err(wrong_key("This ticket is for a user, whose key is needed.")),
    };
    let proof = osiris_ledger::join_proof(&secret, &fleet, &invitation, &device);
    let mut config = MeshConfig::new(key.to_bytes(), ticket.fleet);
    config.bind = options.mesh;
    let ask = || osiris_mesh::join(config.clone(), &ticket, proof.0, &options.label);
    let welcome = tokio::time::timeout_at(until, ask()).await.map_err(|_| unreachable_fleet())?;
    let welcome = welcome.map_err(|error| join_error(&error))?;
    if !folder.journal().exists() {
        Journal::create(folder.path(), &fleet, &[])?;
    }
    let mut peers = welcome.addrs.clone();
    peers.extend(ticket.peers.iter().cloned());
    folder.save_peers(&peers)?;
    drop(folder);
    let mut needed: Vec<_> = ticket.heads.iter().map(|head| BlockId(*head)).collect();
    needed.push(BlockId(welcome.grant));
    let mut process = Process::new(Opened::open(data)?, false, Retain::All)?;
    let mut events = process.connect(options.mesh, Vec::new(), true, peers, None).await?;
    process.engine.start().await;
    // What is left after that is for the question whether the admission stands.
    let received = process.receive(&mut events, &needed, until - options.timeout / 5).await;
    let view = process.desk.view();
    let joined = joined(&fleet, &device, &view);
    process.close().await?;
    if received {
        return Ok(joined);
    }
    // Two devices may have been admitted at once, by two nodes, with an invitation for one. The fleet
    // knows by now whose admission stands; a member is welcomed again.
    if let Ok(Err(error @ JoinError::Refused { .. })) = tokio::time::timeout_at(until, ask()).await {
        let folder = Folder::open(data)?;
        if joined.blocks == 0 {
            Journal::remove(folder.path())?;
        }
        return Err(join_error(&error));
    }
    Err(DriverError::new(
        codes::TIMEOUT,
        "This device was admitted, but did not receive the fleet's whole ledger in time.",
        "Run the same `osiris join` again: the admission stands, and what was received is kept.",
    ))
}

impl Process {
    /// Runs until these blocks are here, durably.
    async fn receive(
        &mut self,
        events: &mut osiris_mesh::MeshEvents,
        needed: &[BlockId],
        until: tokio::time::Instant,
    ) -> bool {
        while !self.engine.node.ledger().contains_all(needed) {
            if tokio::time::Instant::now() >= until {
                return false;
            }
            self.engine.run(events, tokio::time::sleep(LOOK)).await;
        }
        self.engine.settle().await;
        true
    }
}

/// Whether a join was cut off near its beginning: the journal is whole and small, and nothing in it says that the
/// device ever was a member. The same join may be run again. One that has received more than
/// [`JOIN_BEGUN_BYTES_MAX`] goes on by itself once its node runs, so that no start reads a long journal twice. A
/// folder that cannot be read is none: whoever opens it next says what is wrong.
#[must_use]
pub fn join_is_unfinished(data: &Path) -> bool {
    let journal = std::fs::symlink_metadata(data.join("journal"));
    if !journal.is_ok_and(|journal| journal.len() <= JOIN_BEGUN_BYTES_MAX) {
        return false;
    }
    let Ok(mut opened) = Opened::look(data) else { return false };
    let me = opened.writer.author();
    let view = opened.ledger.publish();
    !opened.lacks && !view.is_member(&me) && !view.was_member(&me)
}

fn read_ticket(text: &str) -> Result<JoinTicket, DriverError> {
    let ticket: Ticket = text.trim().parse().map_err(|error: osiris_protocol::ticket::TicketError| {
        DriverError::new(
            codes::BAD_REQUEST,
            format!("The ticket cannot be used: {error}."),
            "Copy the whole ticket again, or ask for a new one: `osiris invite` prints it.",
        )
    })?;
    match ticket {
        Ticket::Join(ticket) => Ok(ticket),
        Ticket::Dial(_) => Err(DriverError::new(
            codes::BAD_REQUEST,
            "This ticket says where the fleet is, but invites nobody.",
            "Ask an admin for a join ticket: `osiris invite` prints it.",
        )),
    }
}

fn joined(fleet: &FleetId, device: &Author, view: &View) -> Joined {
    Joined {
        fleet: fleet.to_string(),
        fleet_name: view.name().to_owned(),
        device: device.to_string(),
        label: rows::label(view, device),
        roles: view.members().get(device).map(|member| rows::role_names(member.roles)).unwrap_or_default(),
        blocks: view.blocks(),
        addresses_of: None,
    }
}

/// Keeps these addresses before those that are known.
fn adopt(folder: &Folder, peers: &[PeerAddr]) -> Result<(), DriverError> {
    let mut known = folder.peers();
    for peer in peers {
        let at = known.iter().position(|known| known.peer == peer.peer);
        let older = at.map(|at| known.remove(at).addrs).unwrap_or_default();
        let mut addrs = peer.addrs.clone();
        addrs.extend(older.into_iter().filter(|addr| !peer.addrs.contains(addr)));
        addrs.truncate(PEER_ADDRS_MAX);
        known.push(PeerAddr { peer: peer.peer, addrs });
    }
    known.sort();
    folder.save_peers(&known)
}

/// The view of a folder that is a member. A join that was cut off after its admission may be run again.
fn already_member(
    folder: &Folder,
    fleet: &FleetId,
    device: &Author,
) -> Result<Option<Arc<View>>, DriverError> {
    let found = Journal::inspect(folder.path())?;
    let held = found.fleet;
    if held != *fleet {
        return Err(DriverError::new(
            codes::CONFLICT,
            format!("The data folder {} belongs to another fleet than the ticket.", folder.path().display()),
            "Use another folder with `--data DIR`.",
        ));
    }
    let mut ledger = osiris_ledger::Ledger::new(held);
    // Pages that are missing are reported likewise.
    let _ = offer_pages(&mut ledger, &folder.library(), &found.pages);
    for entry in &found.entries {
        // What does not fit is reported when the folder is opened.
        let _ = ledger.replay(entry);
    }
    let view = ledger.publish();
    Ok(view.is_member(device).then_some(view))
}

fn unreachable_fleet() -> DriverError {
    DriverError::new(
        codes::TIMEOUT,
        "No node of the ticket answered in time.",
        "Check that one of them runs and that its UDP port can be reached, then run the same `osiris join` again: if \
         this device was admitted and the answer was lost, that uses no second use of the invitation.",
    )
}

fn join_error(error: &JoinError) -> DriverError {
    match error {
        JoinError::Refused { message, .. } => {
            DriverError::new(codes::DENIED, format!("The fleet refused this device. {message}"), "")
        }
        JoinError::OtherDevice { .. } => DriverError::new(
            codes::DENIED,
            format!("The ticket cannot be used here: {error}."),
            "`osiris whoami` prints this device's key.",
        ),
        JoinError::Local(error) => mesh_error(error),
        other => DriverError::new(
            codes::FAILED,
            format!("This device did not join: {other}."),
            "Check that one of the ticket's nodes runs and that its UDP port can be reached, then try again.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_join_that_was_cut_off_is_told_from_a_member_and_from_a_damaged_folder() {
        let dir = tempfile::tempdir().expect("a folder");
        let (cut, member) = (dir.path().join("cut"), dir.path().join("member"));
        assert!(!join_is_unfinished(&cut), "nothing is there");
        let folder = Folder::open(&cut).expect("made");
        folder.device_key().expect("a key");
        Journal::create(folder.path(), &FleetId([7; 32]), &[]).expect("made");
        drop(folder);
        assert!(join_is_unfinished(&cut));
        init(&member, InitOptions { name: "home".to_owned(), label: "a".to_owned() }).expect("founded");
        assert!(!join_is_unfinished(&member));
        // What lost its blocks is no join to be run again: that would hide it.
        let journal = member.join("journal");
        let header = std::fs::read(&journal).expect("read")[..44].to_vec();
        std::fs::write(&journal, header).expect("written");
        assert!(!join_is_unfinished(&member));
    }
}
