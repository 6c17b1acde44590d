//! The provisioner: makes machines, and takes them away, by Terraform or OpenTofu.
//!
//! Each machine has a folder of its own, `DATA/provision/ID`, with a generated root module that calls the configured
//! one, and with Terraform's state. The ticket goes by the environment, as an ephemeral variable: it is in no file.
//! What an errand does may be done twice. What is taken away is known by its label, never by an id out of a state.

mod sealed;
mod share;
mod state;
mod taken;
mod terraform;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use osiris_ledger::{SigningKey, state::Record};
use osiris_protocol::{name::check_function_name, ticket::InvitationSecret};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use zeroize::Zeroizing;

use super::{
    desk::Desk,
    disk::FolderDisk,
    error::DriverError,
    folder::random,
    limits::{
        APPLY_TIMEOUT, INIT_TIMEOUT, LABEL_TIMEOUT, LOOK_INTERVAL, PROVISION_GRACE, PROVISION_PARALLEL_MAX,
        STATE_BYTES_MAX, VARIABLE_BYTES_MAX,
    },
};
use crate::{
    api::codes,
    disk::replace,
    node::{
        Input,
        lease::{Errand, Job, Provisioning, Share, Spawn},
    },
};
pub(crate) use share::Kept;
use share::Sharer;
use state::StateServer;
use terraform::Run;

/// Variables that every module takes from the provisioner.
const CONTRACT: [&str; 4] = ["spawn_id", "label", "ticket", "osiris"];
/// The targets that `osiris provision` serves: what they made can be found, and taken away, by its label.
const BY_LABEL: [&str; 3] = ["process", "docker", "ssh"];
/// Folder of the data folder with a folder for each machine.
const FOLDER: &str = "provision";

/// What a node makes machines with: local configuration, of which the ledger holds the target's name alone.
#[derive(Clone)]
pub struct ProvisionOptions {
    /// Name of the target, as the ledger and the other members know it.
    pub target: String,
    /// Which target of `osiris provision` it is; none where it is none of those.
    pub kind: Option<String>,
    /// Folder of the Terraform module.
    pub module: PathBuf,
    /// The module's variables, those of the contract apart.
    pub variables: BTreeMap<String, String>,
    /// Whether this node reaches machines of the target that other members made.
    pub shared: bool,
    /// The environment that Terraform is given.
    pub environment: Vec<(OsString, OsString)>,
    /// Terraform or OpenTofu.
    pub terraform: PathBuf,
    /// This program, which modules and the search by label run.
    pub osiris: PathBuf,
}

impl std::fmt::Debug for ProvisionOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The environment may hold credentials.
        f.debug_struct("ProvisionOptions")
            .field("target", &self.target)
            .field("module", &self.module)
            .finish_non_exhaustive()
    }
}

impl ProvisionOptions {
    /// Checks all of it.
    ///
    /// # Errors
    /// [`DriverError`] that names everything that is wrong.
    pub fn validate(&self) -> Result<(), DriverError> {
        let mut wrong = Vec::new();
        if check_function_name(&self.target).is_err() {
            wrong
                .push(format!("`target` {:?} is not 1 to 63 of a-z, 0-9 and -, a letter first", self.target));
        }
        if let Some(kind) = self.kind.as_deref().filter(|kind| !BY_LABEL.contains(kind)) {
            wrong.push(format!("`kind` {kind:?} is none of {}", BY_LABEL.join(", ")));
        }
        let sound = |path: &Path| {
            path.to_str()
                .is_some_and(|text| !text.contains(['$', '%', '"', '\\']) && !text.contains(char::is_control))
        };
        if !self.module.is_absolute() || !sound(&self.module) {
            wrong.push(format!(
                "`module` {} is no absolute path without $, % and quotes",
                self.module.display()
            ));
        } else if !has_module(&self.module) {
            wrong.push(format!("`module` {} is no folder with *.tf files", self.module.display()));
        }
        for (name, value) in &self.variables {
            if CONTRACT.contains(&name.as_str()) {
                wrong.push(format!("the variable `{name}` is set by Osiris"));
            } else if !is_variable(name) {
                wrong.push(format!("the variable {name:?} is not 1 to 63 of a-z, 0-9 and _, a letter first"));
            }
            if value.len() > VARIABLE_BYTES_MAX || value.contains(char::is_control) {
                wrong.push(format!("the value of `{name}` is too long, or not printable"));
            }
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(DriverError::new(
                codes::BAD_REQUEST,
                format!("[provision] cannot be used: {}.", wrong.join("; ")),
                "Correct it in config.toml; docs/provisioning.md lists the keys.",
            )),
        }
    }

    /// What the core is told of it. `device` is the device's secret key.
    pub(crate) fn for_core(&self, device: &[u8; 32]) -> Provisioning {
        let secret = blake3::derive_key("osiris machine invitations of a device v1", device);
        // What `osiris provision` serves is known by its label, and needs no state.
        let by_state = self.shared && self.kind.is_none();
        Provisioning { target: self.target.clone(), shared: self.shared, by_state, secret }
    }
}

fn has_module(folder: &Path) -> bool {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files.into_iter().any(|file| file.path().extension().is_some_and(|extension| extension == "tf"))
}

fn is_variable(name: &str) -> bool {
    let of = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=63).contains(&name.len())
        && name.bytes().all(of)
        && name.bytes().next().is_some_and(|first| first.is_ascii_lowercase())
}

/// Performs errands, each in a task of its own.
#[derive(Debug)]
pub(crate) struct Provisioner {
    options: ProvisionOptions,
    place: PathBuf,
    desk: Arc<Desk>,
    device: Arc<SigningKey>,
    stop: CancellationToken,
    tasks: TaskTracker,
    turns: Semaphore,
}

impl Provisioner {
    pub(crate) fn new(options: ProvisionOptions, desk: Arc<Desk>, device: SigningKey) -> Arc<Self> {
        let (place, device) = (desk.data.join(FOLDER), Arc::new(device));
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let turns = Semaphore::new(PROVISION_PARALLEL_MAX);
        Arc::new(Self { options, place, desk, device, stop, tasks, turns })
    }

    /// Performs an errand; its end is told to the core.
    pub(crate) fn perform(self: &Arc<Self>, errand: Errand, to_core: mpsc::Sender<Input>) {
        let this = Arc::clone(self);
        self.tasks.spawn(async move {
            let Errand { machine, job, share } = errand;
            let Ok(_turn) = this.turns.acquire().await else { return };
            let (id, intent, word) = (machine.id(), machine.intent, job.word());
            tracing::info!(machine = %id, target = %machine.target, "{word} a machine");
            let input = match job {
                Job::Make(key) => {
                    let sharer = this.sharer(&machine, share.as_ref(), &to_core);
                    Input::Provisioned(intent, this.make(&machine, &key, sharer).await)
                }
                Job::Remove => Input::Removed(intent, this.remove(&machine, share.as_ref(), &to_core).await),
            };
            // What was cut short is no failure: the next process finds what is left.
            if !this.stop.is_cancelled() {
                let _ = to_core.send(input).await;
            }
        });
    }

    /// Seals the state of a machine anew, for other spawners than before.
    pub(crate) fn seal_again(self: &Arc<Self>, machine: Spawn, share: Share, to_core: mpsc::Sender<Input>) {
        let this = Arc::clone(self);
        self.tasks.spawn(async move {
            let file = terraform::folder(&this.place, &machine.id()).join(state::FILE);
            let read = osiris_runtime::read_regular(&file, STATE_BYTES_MAX as u64);
            if let (Ok(state), Some(sharer)) = (read, this.sharer(&machine, Some(&share), &to_core)) {
                sharer.share(&state).await;
            }
        });
    }

    fn sharer(
        &self,
        machine: &Spawn,
        share: Option<&Share>,
        to_core: &mpsc::Sender<Input>,
    ) -> Option<Arc<Sharer>> {
        let (desk, device) = (Arc::clone(&self.desk), Arc::clone(&self.device));
        share.map(|share| Arc::new(Sharer::new(desk, device, to_core.clone(), machine.intent, share)))
    }

    /// Looks now and then which machines are there.
    pub(crate) fn watch(self: &Arc<Self>, to_core: mpsc::Sender<Input>) {
        let this = Arc::clone(self);
        let Some(kind) = this.options.kind.clone() else { return };
        self.tasks.spawn(async move {
            let mut pause = tokio::time::interval(LOOK_INTERVAL);
            pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut reached = true;
            loop {
                tokio::select! {
                    () = this.stop.cancelled() => return,
                    _ = pause.tick() => {}
                }
                let looked = this.by_label(&kind, "status", None).await.and_then(|said| seen(&said));
                if let Err(why) = looked.as_ref()
                    && reached
                {
                    tracing::warn!(%why, "the target for machines is not reached; none is claimed meanwhile");
                }
                reached = looked.is_ok();
                drop(to_core.send(Input::Machines(looked)).await);
            }
        });
    }

    /// Ends what is under way.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        let _ = tokio::time::timeout(2 * PROVISION_GRACE, self.tasks.wait()).await;
    }

    async fn make(
        &self,
        machine: &Spawn,
        key: &SigningKey,
        sharer: Option<Arc<Sharer>>,
    ) -> Result<(), String> {
        let secret = InvitationSecret::new(key.to_bytes());
        let ticket = self.desk.join_ticket(machine.intent, secret, None).await;
        let ticket = Zeroizing::new(ticket.map_err(|error| error.body.message)?);
        let folder = terraform::folder(&self.place, &machine.id());
        self.write_root(&folder)
            .map_err(|error| format!("{} cannot be written: {error}", folder.display()))?;
        let session = self.session(&folder, machine, Some(&ticket), sharer).await?;
        session.run(&["apply", "-json", "-auto-approve", "-lock-timeout=30s"], APPLY_TIMEOUT).await.map(drop)
    }

    async fn remove(
        &self,
        machine: &Spawn,
        share: Option<&Share>,
        to_core: &mpsc::Sender<Input>,
    ) -> Result<(), String> {
        let folder = terraform::folder(&self.place, &machine.id());
        let sharer = || self.sharer(machine, share, to_core);
        let record = share.and_then(|share| share.record.as_ref());
        let by_state = match (folder.join(state::FILE).exists(), folder.exists(), record) {
            (_, _, Some(record)) if share.is_some_and(|share| share.foreign) => {
                self.take(machine, record, sharer()).await
            }
            (true, ..) => match self.session(&folder, machine, None, sharer()).await {
                Ok(session) => {
                    let destroy = ["destroy", "-json", "-auto-approve", "-lock-timeout=30s"];
                    session.run(&destroy, APPLY_TIMEOUT).await.map(drop)
                }
                Err(why) => Err(why),
            },
            (false, _, Some(record)) => self.take(machine, record, sharer()).await,
            // Terraform keeps nothing of a creation that was killed in the middle.
            (false, true, None) => Err("there is no state of it here".to_owned()),
            (false, false, None) if share.is_some_and(|share| share.foreign) => {
                Err("the member that made it shared no state of it".to_owned())
            }
            // It cannot be told here whose it is: the lease by which it was reached may be gone.
            (false, false, None) if share.is_none() && self.options.shared && self.options.kind.is_none() => {
                Err("this node does not look after its slot any more".to_owned())
            }
            (false, false, None) => Ok(()),
        };
        match &self.options.kind {
            Some(kind) => {
                if let Err(why) = by_state {
                    tracing::info!(machine = %machine.id(), %why, "it is taken away by its label alone");
                }
                self.by_label(kind, "down", Some(machine)).await?;
            }
            None => by_state.map_err(|why| {
                format!("{why}. Look for what carries the label osiris.spawn={}", machine.id())
            })?,
        }
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(format!("{} cannot be removed: {error}", folder.display()))
            }
            _ => Ok(()),
        }
    }

    /// The root module: the contract's variables, the configured ones, and the call of the module.
    fn root(&self) -> Value {
        let text = || json!({ "type": "string" });
        let mut variables = serde_json::Map::new();
        let mut module = serde_json::Map::new();
        module.insert("source".to_owned(), json!(self.options.module));
        let configured = self.options.variables.keys().map(String::as_str);
        for name in CONTRACT.into_iter().chain(configured) {
            variables.insert(name.to_owned(), text());
            module.insert(name.to_owned(), json!(format!("${{var.{name}}}")));
        }
        // Neither state, plan nor log has it.
        let ticket = json!({ "type": "string", "sensitive": true, "ephemeral": true, "default": null });
        variables.insert("ticket".to_owned(), ticket);
        json!({
            "terraform": { "required_version": ">= 1.10", "backend": { "http": {} } },
            "variable": variables,
            "module": { "machine": module },
        })
    }

    fn write_root(&self, folder: &Path) -> std::io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        replace(&mut FolderDisk::new(folder), "main.tf.json", self.root().to_string().as_bytes())
    }

    /// Takes a machine away by a state that was shared, if all that this destroys carries the machine's name.
    ///
    /// In a folder of its own, of which nothing is left: a state that came from elsewhere must never be taken for one
    /// of this node, which is destroyed without being looked at.
    async fn take(
        &self,
        machine: &Spawn,
        record: &Record,
        sharer: Option<Arc<Sharer>>,
    ) -> Result<(), String> {
        let folder = self.place.join(format!("{}.taken", machine.id()));
        // A process that was killed may have left it.
        let _ = fs::remove_dir_all(&folder);
        let taken = self.take_in(&folder, machine, record, sharer).await;
        let _ = fs::remove_dir_all(&folder);
        taken
    }

    async fn take_in(
        &self,
        folder: &Path,
        machine: &Spawn,
        record: &Record,
        sharer: Option<Arc<Sharer>>,
    ) -> Result<(), String> {
        let state = sealed::open(&self.desk.fleet, &self.device, record);
        let state = state.ok_or("the state that was shared is not sealed for this device")?;
        let state = Zeroizing::new(taken::cleared(&state)?);
        let unwritten = |error| format!("{} cannot be written: {error}", folder.display());
        self.write_root(folder).map_err(unwritten)?;
        // Without the state: `init` would fetch, and start, whatever provider a state names.
        let session = self.session(folder, machine, None, sharer).await?;
        replace(&mut FolderDisk::new(folder), state::FILE, &state).map_err(unwritten)?;
        let plan = ["plan", "-destroy", "-out=plan", "-input=false", "-no-color", "-lock-timeout=30s"];
        session.run(&plan, APPLY_TIMEOUT).await?;
        let said = Zeroizing::new(session.run(&["show", "-json", "plan"], INIT_TIMEOUT).await?);
        let destroyed = taken::destroys_only(&said, &machine.id())?;
        tracing::info!(machine = %machine.id(), destroyed, "another member's machine is taken away by its state");
        let apply = ["apply", "-json", "-input=false", "-lock-timeout=30s", "plan"];
        session.run(&apply, APPLY_TIMEOUT).await.map(drop)
    }

    /// Terraform in a machine's folder, initialised, with a listener for its state that ends with the session.
    async fn session<'a>(
        &'a self,
        folder: &'a Path,
        machine: &Spawn,
        ticket: Option<&str>,
        sharer: Option<Arc<Sharer>>,
    ) -> Result<Session<'a>, String> {
        let secret = random().map_err(|error| error.message)?;
        let server = StateServer::start(folder, secret, sharer).await;
        let server = server.map_err(|error| format!("no listener for Terraform's state: {error}"))?;
        let mut environment = self.options.environment.clone();
        let mut set = |name: String, value: &str| environment.push((name.into(), value.into()));
        for (name, value) in [("TF_IN_AUTOMATION", "1"), ("CHECKPOINT_DISABLE", "1"), ("TF_INPUT", "0")] {
            set(name.to_owned(), value);
        }
        server.environment().iter().for_each(|(name, value)| set((*name).to_owned(), value));
        self.options.variables.iter().for_each(|(name, value)| set(format!("TF_VAR_{name}"), value));
        let (id, label) = (machine.id(), format!("m{}-{}", machine.slot, machine.round));
        let osiris = self.options.osiris.display().to_string();
        for (name, value) in [("spawn_id", &id), ("label", &label), ("osiris", &osiris)] {
            set(format!("TF_VAR_{name}"), value);
        }
        if let Some(ticket) = ticket {
            set("TF_VAR_ticket".to_owned(), ticket);
        }
        let session = Session { provisioner: self, folder, environment, _server: server };
        session.run(&["init", "-input=false", "-no-color"], INIT_TIMEOUT).await?;
        Ok(session)
    }

    /// Asks `osiris provision`, which goes by labels.
    async fn by_label(&self, kind: &str, what: &str, machine: Option<&Spawn>) -> Result<String, String> {
        by_label(&self.options, &self.desk.data, kind, (what, machine), &self.stop).await
    }
}

/// How many machines are there on the target of a configuration, by their labels; none where it is known by states
/// alone, and so cannot be asked. Nothing is changed.
///
/// # Errors
/// Why it is not reached, in a sentence.
pub async fn look(options: &ProvisionOptions, data: &Path) -> Result<Option<usize>, String> {
    let Some(kind) = &options.kind else { return Ok(None) };
    let said = by_label(options, data, kind, ("status", None), &CancellationToken::new()).await?;
    seen(&said).map(|seen| Some(seen.len()))
}

async fn by_label(
    options: &ProvisionOptions,
    data: &Path,
    kind: &str,
    (what, machine): (&str, Option<&Spawn>),
    stop: &CancellationToken,
) -> Result<String, String> {
    let mut environment = options.environment.clone();
    let named = options.variables.iter();
    environment.extend(
        named.map(|(name, value)| (format!("OSIRIS_{}", name.to_ascii_uppercase()).into(), value.into())),
    );
    environment.push(("OSIRIS_TARGET".into(), kind.into()));
    environment.push(("OSIRIS_OUTPUT".into(), "json".into()));
    environment.extend(machine.map(|machine| ("OSIRIS_SPAWN_ID".into(), machine.id().into())));
    let run = Run {
        program: &options.osiris,
        folder: data,
        arguments: &["provision", what],
        environment: &environment,
        timeout: if machine.is_some() { APPLY_TIMEOUT } else { LABEL_TIMEOUT },
    };
    run.done(stop).await
}

/// Terraform at work on one machine.
struct Session<'a> {
    provisioner: &'a Provisioner,
    folder: &'a Path,
    environment: Vec<(OsString, OsString)>,
    _server: StateServer,
}

impl Session<'_> {
    async fn run(&self, arguments: &[&str], timeout: Duration) -> Result<String, String> {
        let program = &self.provisioner.options.terraform;
        let run = Run { program, folder: self.folder, arguments, environment: &self.environment, timeout };
        run.done(&self.provisioner.stop).await
    }
}

/// The machines that `osiris provision status` lists.
fn seen(said: &str) -> Result<BTreeSet<String>, String> {
    let rows: Vec<Value> = serde_json::from_str(said).map_err(|error| format!("it is no JSON: {error}"))?;
    let name = |row: &Value| row.get("spawn").and_then(Value::as_str).map(str::to_owned);
    Ok(rows.iter().filter_map(name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(module: &Path) -> ProvisionOptions {
        ProvisionOptions {
            target: "process".to_owned(),
            kind: Some("process".to_owned()),
            module: module.to_owned(),
            variables: BTreeMap::from([("place".to_owned(), "/srv/machines".to_owned())]),
            shared: false,
            environment: Vec::new(),
            terraform: "/usr/bin/terraform".into(),
            osiris: "/usr/bin/osiris".into(),
        }
    }

    #[test]
    fn everything_that_is_wrong_is_named_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(options(folder.path()).validate().is_err_and(|error| error.message.contains("*.tf")));
        fs::write(folder.path().join("main.tf"), "").expect("written");
        assert!(options(folder.path()).validate().is_ok());
        let mut blind = options(folder.path());
        (blind.kind, blind.shared) = (None, true);
        // What is known by a label needs no state of others; what is not, does.
        assert!(blind.validate().is_ok() && blind.for_core(&[1; 32]).by_state);
        assert!(!options(folder.path()).for_core(&[1; 32]).by_state);
        let mut bad = options(Path::new("machines"));
        bad.target = "No Target".to_owned();
        bad.kind = Some("cloud".to_owned());
        bad.variables = [("ticket", "x"), ("no-name", "x"), ("http", "a\nb")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let said = bad.validate().expect_err("wrong").message;
        for what in ["`target`", "`kind`", "`module`", "`ticket` is set by Osiris", "\"no-name\"", "`http`"] {
            assert!(said.contains(what), "{what}: {said}");
        }
    }

    #[test]
    fn what_is_seen_is_read_from_the_list() {
        let said = r#"[{"spawn":"m0-1-0123456789abcdef","state":"running"},{"state":"odd"}]"#;
        assert_eq!(seen(said), Ok(BTreeSet::from(["m0-1-0123456789abcdef".to_owned()])));
        assert!(seen("nothing").is_err());
    }
}
