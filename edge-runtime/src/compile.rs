//! Compiling components away from requests, once; the machine code is kept on disk.
//!
//! The cache is private to the node and keyed by the component's hash and by what the code depends on
//! (wasmtime's version, its settings, the processor). Compilations run one after the other on threads
//! of low priority, so that calls do not feel them.

use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::hash::ComponentHash;
use crate::inspect::{InspectError, inspect};
use crate::{files, limits, load};

/// Last bytes of each cached file; the 32 before them are the blake3 hash of all that comes earlier. At
/// the end, because the machine code must begin on a page.
const TRAILER_MAGIC: &[u8; 16] = b"osiris-cwasm-v1\n";
const TRAILER_BYTES: u64 = 32 + TRAILER_MAGIC.len() as u64;
const ENDING: &str = "cwasm";
/// Niceness of compiling threads, once calls run here that they would take the processors from.
const COMPILE_NICE: i32 = 10;

/// Why a component could not be compiled or loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// The component's file cannot be read.
    #[error("The component file {path} cannot be read: {source}. Fetch the component again.")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The component's file holds other bytes than its name says.
    #[error(
        "The component file {path} is damaged: it should hash to {wanted} and hashes to {got}. Fetch it again."
    )]
    WrongHash {
        /// The file.
        path: PathBuf,
        /// What it should be.
        wanted: ComponentHash,
        /// What it is.
        got: ComponentHash,
    },
    /// The component cannot run here.
    #[error(transparent)]
    Refused(#[from] InspectError),
    /// The compiler refused it.
    #[error("The component cannot be compiled: {message}. Build it again with a toolchain for WASI 0.2.")]
    Compiler {
        /// What the compiler said.
        message: String,
    },
    /// It takes too long.
    #[error("Compiling the component takes more than {} s; make it smaller.", limits::COMPILE_TIME_MAX.as_secs())]
    TooSlow,
    /// The compiling thread ended without an answer.
    #[error(
        "The compiler failed: {message}. This is a bug of the compiler; deploy another build of the component."
    )]
    Crashed {
        /// What is known.
        message: String,
    },
}

/// What the compiler and its cache have done since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompileFigures {
    /// Components compiled.
    pub compiled: u64,
    /// Components loaded from the cache.
    pub loaded: u64,
    /// Cache files that were damaged or foreign, and replaced.
    pub damaged: u64,
}

/// The folder of compiled components, for one engine.
#[derive(Debug)]
struct Cache {
    dir: PathBuf,
    /// What the code depends on besides the component.
    engine_key: String,
}

/// wasmtime describes an engine only to a [`Hasher`]; the key must be the same in the next process.
#[derive(Default)]
struct EngineKey(blake3::Hasher);

impl Hasher for EngineKey {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let mut first = [0; 8];
        self.0.finalize_xof().fill(&mut first);
        u64::from_le_bytes(first)
    }
}

impl Cache {
    fn open(dir: PathBuf, engine: &Engine) -> io::Result<Self> {
        files::create_private_dir(&dir)?;
        let mut key = EngineKey::default();
        engine.precompile_compatibility_hash().hash(&mut key);
        let cache = Self { dir, engine_key: format!("{:016x}", key.finish()) };
        cache.sweep()?;
        Ok(cache)
    }

    /// Removes what a crash left half written and what another version of the engine compiled.
    fn sweep(&self) -> io::Result<()> {
        let current = format!(".{}.{ENDING}", self.engine_key);
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            let ours = name.ends_with(ENDING) || name.ends_with(files::TEMP_ENDING);
            if ours && !name.ends_with(&current) {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    fn name(&self, component: ComponentHash) -> String {
        format!("{component}.{}.{ENDING}", self.engine_key)
    }

    /// The file, if it is there and whole.
    fn verify(&self, component: ComponentHash) -> io::Result<PathBuf> {
        let path = self.dir.join(self.name(component));
        let mut file = files::open_regular(File::options().read(true), &path)?;
        let damaged = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        let code = file.metadata()?.len().checked_sub(TRAILER_BYTES).ok_or_else(|| damaged("too short"))?;
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader((&mut file).take(code))?;
        file.seek(SeekFrom::Start(code))?;
        let mut trailer = Vec::new();
        file.read_to_end(&mut trailer)?;
        let (hash, magic) = trailer.split_at(32);
        if magic != TRAILER_MAGIC {
            return Err(damaged("not written by this program"));
        }
        if hash != hasher.finalize().as_bytes() {
            return Err(damaged("its hash is wrong"));
        }
        Ok(path)
    }

    fn store(&self, component: ComponentHash, code: &[u8]) -> io::Result<()> {
        let hash = blake3::hash(code);
        let parts = [code, hash.as_bytes(), TRAILER_MAGIC];
        files::write_atomically(&self.dir, &self.name(component), &parts).map(drop)
    }
}

#[derive(Debug, Default)]
struct Counts {
    compiled: AtomicU64,
    loaded: AtomicU64,
    damaged: AtomicU64,
}

/// Threads to compile on.
fn compiling(width: usize) -> rayon::ThreadPoolBuilder {
    rayon::ThreadPoolBuilder::new().num_threads(width).thread_name(|i| format!("osiris-compile-{i}"))
}

/// The node's compiler.
#[derive(Debug)]
pub(crate) struct Compiler {
    engine: Engine,
    cache: Cache,
    counts: Counts,
    /// Those that give way to calls.
    threads: rayon::ThreadPool,
    /// One compilation at a time: a Python component takes 390 MB.
    turn: Arc<Semaphore>,
}

/// Why the compiler could not be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    #[error(transparent)]
    Cache(#[from] io::Error),
    #[error(transparent)]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

impl Compiler {
    pub(crate) fn open(engine: Engine, cache_dir: PathBuf, threads: usize) -> Result<Self, SetupError> {
        let cache = Cache::open(cache_dir, &engine)?;
        let threads = compiling(threads.max(1))
            .start_handler(|_| {
                // On Linux this is the thread's own niceness. Without it compiling is merely impolite.
                let _ = rustix::process::setpriority_process(None, COMPILE_NICE);
            })
            .build()?;
        let turn = Arc::new(Semaphore::new(1));
        Ok(Self { engine, cache, counts: Counts::default(), threads, turn })
    }

    /// Runs what compiles. The first component of a process is what its calls wait for, and there are no others that it
    /// could hold up: on a machine that was made because all others are busy, that is seconds.
    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let ready = self.counts.compiled.load(Ordering::Relaxed) + self.counts.loaded.load(Ordering::Relaxed);
        let first =
            (ready == 0).then(|| compiling(self.threads.current_num_threads()).build().ok()).flatten();
        first.as_ref().unwrap_or(&self.threads).install(work)
    }

    pub(crate) fn figures(&self) -> CompileFigures {
        CompileFigures {
            compiled: self.counts.compiled.load(Ordering::Relaxed),
            loaded: self.counts.loaded.load(Ordering::Relaxed),
            damaged: self.counts.damaged.load(Ordering::Relaxed),
        }
    }

    /// The component's machine code, from the cache or from the compiler.
    pub(crate) async fn component(
        self: &Arc<Self>,
        hash: ComponentHash,
        wasm: PathBuf,
    ) -> Result<Component, CompileError> {
        if let Some(component) = self.blocking(move |this| Ok(this.load(hash))).await? {
            return Ok(component);
        }
        let turn = self.turn.clone();
        let work = async {
            let Ok(permit) = turn.acquire_owned().await else {
                return Err(CompileError::Crashed { message: "it was shut down".to_owned() });
            };
            self.blocking(move |this| {
                // Held by the thread, not by the caller: a caller that gives up frees no place.
                let _permit = permit;
                // Another caller may have compiled the same component while this one waited.
                match this.load(hash) {
                    Some(component) => Ok(component),
                    None => this.compile(hash, &wasm),
                }
            })
            .await
        };
        tokio::time::timeout(limits::COMPILE_TIME_MAX, work).await.unwrap_or(Err(CompileError::TooSlow))
    }

    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, CompileError> + Send + 'static,
    ) -> Result<T, CompileError> {
        let this = self.clone();
        tokio::task::spawn_blocking(move || work(&this))
            .await
            .unwrap_or_else(|e| Err(CompileError::Crashed { message: e.to_string() }))
    }

    /// From the cache. What cannot be used is as good as absent: it is compiled again.
    fn load(&self, hash: ComponentHash) -> Option<Component> {
        let loaded = match self.cache.verify(hash) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
            Err(e) => Err(e.to_string()),
            Ok(path) => load::load_own_code(&self.engine, &path).map_err(|e| format!("{e:#}")),
        };
        match loaded {
            Ok(component) => {
                self.counts.loaded.fetch_add(1, Ordering::Relaxed);
                Some(component)
            }
            Err(reason) => {
                tracing::warn!(component = %hash, reason, "compiled code is damaged and will be made again");
                self.counts.damaged.fetch_add(1, Ordering::Relaxed);
                // Whoever asks next finds nothing instead of the same damage.
                let _ = self.forget(hash);
                None
            }
        }
    }

    fn compile(&self, hash: ComponentHash, wasm: &Path) -> Result<Component, CompileError> {
        let path = || wasm.to_owned();
        let read = |source| CompileError::Read { path: path(), source };
        let size = fs::symlink_metadata(wasm).map_err(read)?.len();
        if size > limits::COMPONENT_BYTES_MAX {
            return Err(InspectError::TooLarge { size, max: limits::COMPONENT_BYTES_MAX }.into());
        }
        let bytes = files::read_regular(wasm, limits::COMPONENT_BYTES_MAX).map_err(read)?;
        let got = ComponentHash::of(&bytes);
        if got != hash {
            return Err(CompileError::WrongHash { path: path(), wanted: hash, got });
        }
        inspect(&bytes)?;
        let component = self
            .run(|| Component::from_binary(&self.engine, &bytes))
            .map_err(|e| CompileError::Compiler { message: format!("{e:#}") })?;
        self.counts.compiled.fetch_add(1, Ordering::Relaxed);
        let stored = component.serialize().map_err(|e| format!("{e:#}"));
        if let Err(reason) = stored.and_then(|code| self.cache.store(hash, &code).map_err(|e| e.to_string()))
        {
            // A full disk must not stop a function that is already compiled.
            tracing::warn!(component = %hash, reason, "compiled code could not be kept and will be made again");
        }
        Ok(component)
    }

    /// Drops the compiled code of a component that is no longer used.
    pub(crate) fn forget(&self, hash: ComponentHash) -> io::Result<()> {
        match fs::remove_file(self.cache.dir.join(self.cache.name(hash))) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn niceness() -> i32 {
        rustix::process::getpriority_process(None).expect("one's own")
    }

    #[test]
    fn the_first_component_is_compiled_at_once_and_others_give_way_to_calls() {
        let folder = tempfile::tempdir().expect("a folder");
        let compiler = Compiler::open(Engine::default(), folder.path().join("cache"), 1).expect("it opens");
        let usual = niceness();
        assert_eq!(compiler.run(niceness), usual);
        compiler.counts.compiled.fetch_add(1, Ordering::Relaxed);
        assert_eq!(compiler.run(niceness), usual.max(COMPILE_NICE));
        assert_eq!(niceness(), usual, "the caller's own stays");
    }
}
