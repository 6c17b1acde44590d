//! The node's engine, and the way from a component's bytes to a function.

use std::io;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;

use wasmtime::component::Linker;
use wasmtime::{Config, Engine};

use crate::compile::{CompileError, CompileFigures, Compiler, SetupError};
use crate::function::{Function, Shared};
use crate::hash::ComponentHash;
use crate::host::{self, CallState, MemoryBudget};
use crate::limits::{Limits, LimitsError};
use crate::pool::{self, Machine, PoolChoice, PoolSize};
use crate::ticker::Ticker;

/// How a [`Runtime`] is set up.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// Folder of the compiled code, of this node alone. It is made if it is missing.
    pub cache_dir: PathBuf,
    /// How many instances to keep room for.
    pub pool: PoolSize,
    /// Threads that compile, at low priority. Default: half of the cores.
    pub compile_threads: usize,
    /// Linear memory of all calls together, in bytes; a call that needs more is answered with 503.
    /// Default: half of the machine's memory.
    pub memory_bytes: u64,
}

impl RuntimeConfig {
    /// The defaults of this machine.
    #[must_use]
    pub fn new(cache_dir: impl Into<PathBuf>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self {
            cache_dir: cache_dir.into(),
            pool: PoolSize::Auto,
            compile_threads: (cores / 2).max(1),
            memory_bytes: Machine::here().memory_bytes / 2,
        }
    }
}

/// Why the runtime cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// No engine could be made, not even without a pool.
    #[error(
        "No WebAssembly engine can be made on this machine: {message}. Raise the address-space limit (ulimit -v)."
    )]
    Engine {
        /// What each attempt said.
        message: String,
    },
    /// The cache folder cannot be used.
    #[error(
        "The folder for compiled code {dir} cannot be used: {source}. Check its permissions and its disk."
    )]
    Cache {
        /// The folder.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A thread could not be started.
    #[error("A thread cannot be started: {message}. Raise the limit of processes (ulimit -u).")]
    Thread {
        /// What the system said.
        message: String,
    },
}

/// Why a function could not be prepared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// The limits are out of range.
    #[error(transparent)]
    Limits(#[from] LimitsError),
    /// The component cannot be read, checked or compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// What it imports is not what this node offers under that name, or it needs more than a call may have.
    #[error(
        "The component does not fit this node: {message}. Build it against an older version of WASI 0.2."
    )]
    Link {
        /// What wasmtime said.
        message: String,
    },
}

struct Inner {
    shared: Arc<Shared>,
    linker: Linker<CallState>,
    compiler: Arc<Compiler>,
    pool: PoolChoice,
}

/// Runs functions. A clone is the same runtime.
#[derive(Clone)]
pub struct Runtime(Arc<Inner>);

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").field("pool", &self.0.pool).finish_non_exhaustive()
    }
}

impl Runtime {
    /// Makes the engine with the largest pool the machine allows, and starts its threads. It blocks for
    /// some milliseconds.
    ///
    /// # Errors
    ///
    /// The machine has no room for an engine, a folder or a thread.
    pub fn new(config: RuntimeConfig) -> Result<Self, RuntimeError> {
        let (engine, pool) = make_engine(config.pool, Machine::here())?;
        let thread = |message: String| RuntimeError::Thread { message };
        let ticker = Ticker::start(&engine).map_err(|e| thread(e.to_string()))?;
        let linker = host::linker(&engine).map_err(|e| RuntimeError::Engine { message: format!("{e:#}") })?;
        let compiler = Compiler::open(engine.clone(), config.cache_dir.clone(), config.compile_threads)
            .map_err(|e| match e {
                SetupError::Cache(source) => RuntimeError::Cache { dir: config.cache_dir, source },
                SetupError::Threads(e) => thread(e.to_string()),
            })?;
        let shared = Shared { engine, ticker, budget: MemoryBudget::new(config.memory_bytes) };
        tracing::info!(%pool, "functions can run");
        Ok(Self(Arc::new(Inner { shared: Arc::new(shared), linker, compiler: Arc::new(compiler), pool })))
    }

    /// The pool that was made, and why.
    #[must_use]
    pub fn describe_pool(&self) -> PoolChoice {
        self.0.pool.clone()
    }

    /// What the compiler and its cache have done.
    #[must_use]
    pub fn compile_figures(&self) -> CompileFigures {
        self.0.compiler.figures()
    }

    /// Linear memory that running calls use together, in bytes.
    #[must_use]
    pub fn memory_used_bytes(&self) -> u64 {
        self.0.shared.budget.used()
    }

    /// Makes a component ready to be called: loads its machine code, or compiles it first.
    ///
    /// `component` is the hash of the file `wasm`, which is read only when it must be compiled.
    /// Compilations wait for one another; calls do not wait for them.
    ///
    /// # Errors
    ///
    /// The limits are out of range, or the component cannot run here.
    pub async fn prepare(
        &self,
        name: &str,
        component: ComponentHash,
        wasm: PathBuf,
        limits: Limits,
    ) -> Result<Arc<Function>, PrepareError> {
        limits.validate()?;
        let Inner { shared, linker, compiler, pool } = &*self.0;
        let code = compiler.component(component, wasm).await?;
        let limits = Limits { memory_bytes: limits.memory_bytes.min(pool.shape.memory_bytes), ..limits };
        Function::new(name.to_owned(), component, &code, linker, limits, pool.shape.calls, shared.clone())
            .map(Arc::new)
            .map_err(|e| PrepareError::Link { message: format!("{e:#}") })
    }

    /// Removes the compiled code of a component that no function uses any more. It blocks.
    ///
    /// # Errors
    ///
    /// The file cannot be removed.
    pub fn forget(&self, component: ComponentHash) -> io::Result<()> {
        self.0.compiler.forget(component)
    }
}

/// The first engine of the ladder that the system lets us have.
fn make_engine(size: PoolSize, machine: Machine) -> Result<(Engine, PoolChoice), RuntimeError> {
    let (shapes, reason) = pool::ladder(size, machine);
    let mut refused = Vec::new();
    for shape in shapes {
        let mut config = Config::new();
        config.wasm_component_model(true).epoch_interruption(true).memory_init_cow(true);
        shape.configure(&mut config);
        match Engine::new(&config) {
            Ok(engine) => return Ok((engine, PoolChoice { shape, machine, reason, refused })),
            Err(e) => refused.push(format!("{} calls of {} bytes: {e:#}", shape.calls, shape.memory_bytes)),
        }
    }
    Err(RuntimeError::Engine { message: refused.join("; ") })
}
