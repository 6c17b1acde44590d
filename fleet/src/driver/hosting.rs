//! The functions that are ready in this process, and the routes to them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use osiris_ledger::{Author, BlobHash, BlockId, View, counter::Figures};
use osiris_runtime::{ComponentHash, Function, Library, Limits, Runtime};
use tokio_util::task::TaskTracker;

use super::{metrics::Metrics, routes::Routes};
use crate::manifest::Manifest;

/// What this process hosts.
#[derive(Debug)]
pub(crate) struct Hosting {
    me: Author,
    runtime: Runtime,
    library: Library,
    routes: Arc<ArcSwap<Routes>>,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    /// Ends of revisions that take no more calls.
    retiring: TaskTracker,
}

#[derive(Debug)]
struct State {
    ready: BTreeMap<BlockId, Arc<Function>>,
    /// Of those, the ones whose manifest has them scaled.
    scaled: BTreeSet<BlockId>,
    view: Arc<View>,
}

impl Hosting {
    pub(crate) fn new(
        me: Author,
        runtime: Runtime,
        library: Library,
        view: Arc<View>,
        routes: Arc<ArcSwap<Routes>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let state = Mutex::new(State { ready: BTreeMap::new(), scaled: BTreeSet::new(), view });
        let retiring = TaskTracker::new();
        let hosting = Self { me, runtime, library, routes, metrics, state, retiring };
        // Before anything is compiled, functions are known and not ready here.
        hosting.change(|_| {});
        hosting
    }

    /// Compiles a revision and routes calls to it. Returns how many run side by side.
    pub(crate) async fn prepare(
        &self,
        revision: BlockId,
        component: BlobHash,
        manifest: &Manifest,
    ) -> Result<u32, String> {
        let hash = ComponentHash(component.0);
        let limits = limits(manifest);
        let prepared = self.runtime.prepare(&manifest.name, hash, self.library.path(hash), limits).await;
        let function = prepared.map_err(|error| error.to_string())?;
        let concurrency = function.concurrency();
        self.change(|state| {
            state.ready.insert(revision, function);
            if manifest.scale.is_some() {
                state.scaled.insert(revision);
            }
        });
        Ok(concurrency)
    }

    /// Routes no more calls to a revision, and lets the running ones end.
    pub(crate) fn retire(&self, revision: BlockId) {
        let mut retired = None;
        self.change(|state| {
            state.scaled.remove(&revision);
            retired = state.ready.remove(&revision);
        });
        if let Some(function) = retired {
            self.retiring.spawn(async move { function.drain().await });
        }
    }

    /// A new view: routes follow.
    pub(crate) fn publish(&self, view: Arc<View>) {
        self.change(|state| state.view = view);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        // Each change is one step, so a panic elsewhere leaves nothing half done.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        self.routes.store(Arc::new(Routes::build(
            &state.view,
            &state.ready,
            &state.scaled,
            &self.me,
            &self.metrics,
        )));
    }

    /// A revision that is ready here.
    pub(crate) fn function(&self, revision: &BlockId) -> Option<Arc<Function>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).ready.get(revision).cloned()
    }

    /// Lets every call end, for at most so long. Returns whether they did.
    pub(crate) async fn drain(&self, patience: Duration) -> bool {
        let ready: Vec<_> = {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.ready.values().cloned().collect()
        };
        let all = async {
            for function in ready {
                function.drain().await;
            }
            // What was retired just before may still run.
            self.retiring.close();
            self.retiring.wait().await;
        };
        tokio::time::timeout(patience, all).await.is_ok()
    }

    /// Invocations accepted and not started, and those running.
    pub(crate) fn load(&self) -> (u64, u64) {
        let routes = self.routes.load_full();
        routes.loads().values().fold((0, 0), |sum, load| (sum.0 + load.0, sum.1 + load.1))
    }

    /// What each function does that is ready here, or called here and not ready anywhere, by name.
    pub(crate) fn figures(&self) -> Vec<(String, Figures)> {
        let routes = self.routes.load_full();
        let mut loads = routes.loads();
        let waiting: Vec<_> =
            self.metrics.all().into_iter().filter(|(_, calls)| calls.waiting() > 0).collect();
        for (name, calls) in &waiting {
            loads.entry(name.as_str()).or_default().0 += calls.waiting();
        }
        let figures = loads.into_iter().map(|(name, (backlog, in_flight))| {
            let (done, failed) = self.metrics.function(name).done_and_failed();
            (name.to_owned(), Figures { backlog, in_flight, done, failed })
        });
        figures.collect()
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }
}

fn limits(manifest: &Manifest) -> Limits {
    let defaults = Limits::default();
    let keys = &manifest.limits;
    Limits {
        memory_bytes: keys.memory_mib.map_or(defaults.memory_bytes, |mib| mib << 20),
        timeout: keys.timeout_ms.map_or(defaults.timeout, Duration::from_millis),
        concurrency: keys.concurrency.unwrap_or(defaults.concurrency),
        queue_len: keys.queue.unwrap_or(defaults.queue_len),
        ..defaults
    }
}
