//! The folder's own replica, for commands where no node runs.

use std::net::SocketAddr;
use std::time::Duration;

use osiris_client::ClientError;
use osiris_fleet::api::{FunctionDetail, JOIN_AGAIN, Status, Synced, Written};
use osiris_protocol::call::CallRequest;

use crate::backend::driver;
use crate::client::{Answer, Patience};
use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::output::{human, progress::Progress};

/// How long a command that writes, or finds unseen blocks, tries to meet another member.
const CONTACT: Duration = Duration::from_secs(2);

/// What a replica is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// To be written to. What other members hold is taken in first, where one can be reached: what is written then
    /// speaks of the fleet as it is, and not as this device last knew it.
    Write,
    /// To meet other members.
    Meet,
    /// To be read as it is: nothing in it is repaired, and it may be one that cannot be written to.
    Read,
    /// The same, by a command that itself shows what is wrong with the journal.
    Show,
    /// The same, by a command that itself shows all that is wrong with the folder.
    Examine,
}

/// The folder's replica.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) offline: driver::Offline,
    pub(crate) mesh: Option<SocketAddr>,
    /// What the command may take, where it has a --timeout.
    pub(crate) bound: Option<Patience>,
    /// Whether no other member could be reached a moment ago.
    alone: bool,
}

/// What was written here without the fleet is seen by it, and does not count.
pub(crate) fn void(blocks: u64) -> Failure {
    let blocks = human::count(blocks, "block");
    Failure::new(
        Exit::Denied,
        format!(
            "What was written here without the fleet does not count ({blocks}): a role or an invitation had ended."
        ),
    )
    .next("`osiris ledger log` says which and why; `osiris whoami` shows the roles that this device has now")
}

impl Replica {
    pub(crate) async fn open(
        settings: &Settings,
        bound: Option<Patience>,
        use_for: Use,
    ) -> Result<Self, driver::DriverError> {
        let offline = match use_for {
            Use::Write | Use::Meet => driver::Offline::open(&settings.data).await?,
            Use::Read | Use::Show | Use::Examine => driver::Offline::open_to_read(&settings.data).await?,
        };
        Ok(Self { offline, mesh: settings.mesh, bound, alone: false })
    }

    /// Takes in what other members hold, where there are others and one can be reached.
    ///
    /// # Errors
    /// That the fleet has ended this device's membership, and that the folder cannot be opened again.
    pub(crate) async fn after_contact(mut self, settings: &Settings) -> Result<Self, Failure> {
        let status = self.offline.status().await?;
        if status.members < 2 {
            return Ok(self);
        }
        let bound = self.bound;
        // Contact ends the use of the folder, so it is opened anew.
        let met = self.try_contact().await?.is_some_and(|synced| synced.agreed > 0);
        let again = Self::open(settings, bound, Use::Write).await?;
        Ok(Self { alone: !met, ..again })
    }

    /// The same to read with, after a look at what other members hold, where one can be reached.
    ///
    /// # Errors
    /// As [`Replica::after_contact`].
    pub(crate) async fn after_meeting(self, settings: &Settings) -> Result<Self, Failure> {
        let bound = self.bound;
        drop(self);
        // What hinders this is said by what comes next.
        if let Ok(replica) = Self::open(settings, bound, Use::Meet).await {
            replica.try_contact().await?;
        }
        Ok(Self::open(settings, bound, Use::Read).await?)
    }

    /// Tries for a moment to hand on what nobody has seen. That nobody answers is no failure: it is why
    /// commands work without. That the fleet has ended this device's membership is one.
    pub(crate) async fn try_contact(self) -> Result<Option<Synced>, Failure> {
        let _progress = Progress::spinner("looking for other members");
        let wait = self.bound.map_or(CONTACT, |bound| bound.left().min(CONTACT));
        // Bytes that are under way may take all the time that the command has.
        let patience = self.bound.map_or(wait, |bound| bound.left());
        match self.offline.contact(wait, patience, self.mesh).await.map_err(Failure::from) {
            Ok(synced) => Ok(Some(synced)),
            Err(failure) if failure.exit == Exit::Denied => Err(failure),
            Err(_) => Ok(None),
        }
    }

    /// After a write, the last thing done with the folder. Returns whether components that members asked for were cut
    /// off.
    pub(crate) async fn hand_on(self, written: &mut Written) -> Result<bool, Failure> {
        if written.others > 0
            && written.seen_by == 0
            && !self.alone
            && let Some(synced) = self.try_contact().await?
        {
            if synced.void.contains(&written.block) {
                return Err(void(1));
            }
            if synced.unseen == 0 {
                written.seen_by = synced.agreed.max(1);
            }
            return Ok(synced.cut > 0);
        }
        Ok(false)
    }

    /// What is known of a function here.
    pub(crate) async fn function(&mut self, name: &str) -> Result<FunctionDetail, Failure> {
        Ok(self.offline.function(name).await?)
    }

    /// Refused where this device knows that it is no member any more: nobody would take its call.
    pub(crate) async fn must_belong(&mut self) -> Result<(), Failure> {
        // Where blocks are lost, its admission may be among them.
        match self.offline.whoami().await?.member || !self.offline.problems().is_empty() {
            true => Ok(()),
            false => Err(no_member(&self.offline.status().await?)),
        }
    }

    /// Calls a function on the nearest member.
    pub(crate) async fn call(&self, request: CallRequest) -> Result<Answer, Failure> {
        let (device, peers) = self.offline.dialing()?;
        let client = osiris_client::Client::connect(device, &peers).await.map_err(|error| match error {
            ClientError::NotTaken { attempts } => unreached(attempts.len()),
            ClientError::NoNodes => unreached(0),
            other => uncalled(other),
        })?;
        let reply = client.request(request).await;
        client.close().await;
        let reply = reply.map_err(uncalled)?;
        let headers = reply.headers.iter().filter_map(|(name, value)| {
            let name = http::HeaderName::try_from(name).ok()?;
            Some((name, http::HeaderValue::from_bytes(value).ok()?))
        });
        Ok(Answer { status: reply.status, headers: headers.collect(), body: reply.body })
    }
}

/// What is said to a device whose membership has ended.
pub(crate) fn no_member(status: &Status) -> Failure {
    let why = status.problems.first().map_or("This device is no member of the fleet.", String::as_str);
    let sentence = why.strip_suffix(JOIN_AGAIN).unwrap_or(why).trim_end();
    Failure::new(Exit::Denied, sentence).next(JOIN_AGAIN)
}

/// Whether a member that can be reached says that this device's membership has ended: then how.
pub(crate) async fn ended(settings: &Settings, patience: Patience) -> Option<Failure> {
    let replica = Replica::open(settings, Some(patience), Use::Meet).await.ok()?;
    replica.try_contact().await.err()
}

/// Nobody could be reached. The network's own words on each try say nothing that helps.
fn unreached(tried: usize) -> Failure {
    let who = match tried {
        0 => "this device knows of no other member that could be asked".to_owned(),
        1 => "the one other member whose address this device knows does not answer".to_owned(),
        _ => format!("none of the {tried} other members whose addresses this device knows answers"),
    };
    let check = if tried == 0 { "" } else { ", or check that another member runs and can be reached" };
    Failure::timed_out(format!("No node runs here, and {who}."))
        .next(format!("start the node of this folder with `osiris up`{check}"))
        .for_lack_of_node()
}

fn uncalled(error: ClientError) -> Failure {
    let exit = match error {
        ClientError::Timeout { .. } => Exit::TimedOut,
        ClientError::Invalid(_) => Exit::Usage,
        _ => Exit::Failed,
    };
    let next = if error.certainly_not_started() {
        "start the node of this folder with `osiris up`, or check that another member can be reached"
    } else {
        "find out whether it was performed before you call again"
    };
    let failure =
        Failure::new(exit, format!("No node runs here, and the call of another member failed: {error}."))
            .next(next);
    match error {
        ClientError::NotTaken { .. } => failure.for_lack_of_node(),
        _ => failure,
    }
}
