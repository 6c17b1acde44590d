//! Which revision answers a name, and where it runs: a look-up that every call makes.
//!
//! A published [`Routes`] never changes; a new view or a function that became ready makes a new one.
//! Publish before a function is drained, so that no call finds it closed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use http::HeaderValue;
use osiris_ledger::{Author, BlockId, Revision, View, World};
use osiris_mesh::PeerId;
use osiris_runtime::Function;

use super::metrics::{CallFigures, Metrics};

/// A revision that can be called.
#[derive(Debug)]
pub struct Route {
    /// The function's name.
    pub name: String,
    /// The revision.
    pub revision: BlockId,
    /// Its number, for people.
    pub number: u64,
    /// How it is called.
    pub world: World,
    /// The revision ready on this node.
    pub local: Option<Arc<Function>>,
    /// Other members that have it ready, in the order of their keys.
    pub remotes: Vec<PeerId>,
    /// Whether its replicas are counted by the fleet's load: then those that wait here may be passed on.
    pub scaled: bool,
    /// What calls of this function came to on this node.
    pub figures: Arc<CallFigures>,
    /// `x-osiris-revision`: the number, for people, and the start of the id, which never shifts.
    pub(super) label: HeaderValue,
}

impl Route {
    fn new(
        name: &str,
        revision: &Revision,
        local: Option<Arc<Function>>,
        me: &Author,
        figures: &Arc<CallFigures>,
        scaled: bool,
    ) -> Self {
        let others = revision.serving.iter().filter(|serving| serving.device != *me);
        let label = format!("{}-{}", revision.number, revision.id.short());
        Self {
            name: name.to_owned(),
            revision: revision.id,
            number: revision.number,
            world: revision.world,
            local,
            remotes: others.map(|serving| PeerId::from_bytes(serving.device.0)).collect(),
            scaled,
            figures: Arc::clone(figures),
            // Digits and hexadecimal digits are always a header value.
            label: HeaderValue::try_from(label).unwrap_or(HeaderValue::from_static("0")),
        }
    }
}

/// What a name stands for.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A live revision.
    Live(Arc<Route>),
    /// The function is deployed and no member has a revision ready.
    Pending,
    /// The same of a function that is scaled: one is on its way, or comes when the function is called.
    Asleep(Arc<CallFigures>),
}

#[allow(clippy::disallowed_types, reason = "looked up by name on every call, never iterated")]
type ByName = std::collections::HashMap<String, Entry>;

/// Every function that can be called, at one moment.
#[derive(Debug, Default)]
pub struct Routes {
    /// Whether this device's membership has ended: then it takes no calls.
    ended: bool,
    by_name: ByName,
    /// Live routes in the order of their names.
    live: Vec<Arc<Route>>,
    /// Every revision that is ready here, the live ones and those that other members still name.
    ready: BTreeMap<BlockId, Arc<Route>>,
}

impl Routes {
    /// The routes that follow from the ledger and from what is ready here.
    ///
    /// `local` holds the functions that take calls, by revision; leave out what is being drained. `scaled` are those
    /// of them whose manifest has them scaled.
    #[must_use]
    pub fn build(
        view: &View,
        local: &BTreeMap<BlockId, Arc<Function>>,
        scaled: &BTreeSet<BlockId>,
        me: &Author,
        metrics: &Metrics,
    ) -> Self {
        let mut routes = Self { ended: view.was_member(me), ..Self::default() };
        let standing = view.functions().iter().filter(|(_, function)| !function.removed);
        for (name, function) in standing.clone() {
            let figures = metrics.function(name);
            let counted = view.scaling().replicas(name).is_some();
            let bounded = counted || view.scaling().bounds(name).is_some();
            let route = |revision: &Revision, local| {
                let scaled = bounded || scaled.contains(&revision.id);
                Arc::new(Route::new(name, revision, local, me, &figures, scaled))
            };
            let live = function.live.as_ref();
            let entry = match live {
                Some(live) => Entry::Live(route(live, local.get(&live.id).cloned())),
                None if counted => Entry::Asleep(Arc::clone(&figures)),
                None => Entry::Pending,
            };
            for revision in &function.revisions {
                if let Some(ready) = local.get(&revision.id) {
                    routes.ready.insert(revision.id, route(revision, Some(Arc::clone(ready))));
                }
            }
            if let Entry::Live(live) = &entry {
                routes.live.push(Arc::clone(live));
            }
            routes.by_name.insert(name.clone(), entry);
        }
        metrics.retain(standing.map(|(name, _)| name.as_str()));
        routes
    }

    /// Whether this device's membership has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// What a name stands for; `None` for a function that is unknown or removed.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Entry> {
        self.by_name.get(name)
    }

    /// A revision that is ready here, live or not.
    #[must_use]
    pub fn ready(&self, revision: &BlockId) -> Option<&Arc<Route>> {
        self.ready.get(revision)
    }

    /// The live routes in the order of their names.
    #[must_use]
    pub fn live(&self) -> &[Arc<Route>] {
        &self.live
    }

    /// Calls accepted here and not started, and those running, all functions together.
    #[must_use]
    pub fn load(&self) -> (u64, u64) {
        self.loads().into_values().fold((0, 0), |sum, load| (sum.0 + load.0, sum.1 + load.1))
    }

    /// Calls accepted here and not started, and those running, of each function that is ready here.
    #[must_use]
    pub fn loads(&self) -> BTreeMap<&str, (u64, u64)> {
        let mut loads = BTreeMap::new();
        for route in self.ready.values() {
            let figures = route.local.as_ref().map(|local| local.figures()).unwrap_or_default();
            let load: &mut (u64, u64) = loads.entry(route.name.as_str()).or_default();
            *load = (load.0 + figures.backlog, load.1 + figures.in_flight);
        }
        loads
    }
}
