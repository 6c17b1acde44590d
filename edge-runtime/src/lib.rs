//! Runs functions on a node: WebAssembly components, each call in a fresh instance, held to limits.
//!
//! - [`inspect()`] says without compiling what a file is and why it cannot run.
//! - [`Library`] keeps components by hash.
//! - [`Runtime::prepare`] compiles a component, once, and makes it a [`Function`].
//! - [`Function::call_native`] and [`Function::call_http`] call it; the [`Outcome`] has the answer or
//!   the [`CallError`], with the HTTP status that says the same.
//! - [`Monitor`] watches the machine, [`Window`] smooths what it sees, and [`PageWriter`] publishes it in memory
//!   that other processes map.
//!
//! **Architecture invariants.** Nothing is compiled on the way of a request. No instance serves two
//! calls. A guest reaches no file, no network and no environment. No bytes of a peer reach the loader of
//! machine code. The crate reads no configuration, no environment and no clock but the monotonic one. Without the
//! feature `host` it is [`inspect()`] and [`limits`] alone, and builds without wasmtime.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use osiris_runtime::{Library, Limits, Runtime, RuntimeConfig};
//!
//! let library = Library::open("data/library", 1 << 30)?;
//! let hash = library.put(&std::fs::read("hello.wasm")?)?;
//! let runtime = Runtime::new(RuntimeConfig::new("data/compiled"))?;
//! let hello = runtime.prepare("hello", hash, library.path(hash), Limits::default()).await?;
//! let outcome = hello.call_native(r#"{"name":"Isis"}"#.to_owned()).await;
//! println!("call {} took {:?}: {:?}", outcome.call, outcome.elapsed, outcome.result);
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "host")]
mod blob_disk;
#[cfg(feature = "host")]
mod cgroup;
#[cfg(feature = "host")]
mod compile;
#[cfg(feature = "host")]
mod files;
#[cfg(feature = "host")]
mod function;
#[cfg(feature = "host")]
mod hash;
#[cfg(feature = "host")]
mod host;
mod inspect;
#[cfg(feature = "host")]
mod library;
pub mod limits;
#[cfg(feature = "host")]
mod load;
#[cfg(feature = "host")]
mod log;
#[cfg(feature = "host")]
mod monitor;
#[cfg(feature = "host")]
mod outcome;
#[cfg(feature = "host")]
mod page;
#[cfg(feature = "host")]
mod pool;
#[cfg(feature = "host")]
mod queue;
#[cfg(feature = "host")]
mod runtime;
#[cfg(feature = "host")]
mod survey;
#[cfg(feature = "host")]
mod ticker;
#[cfg(feature = "host")]
mod window;

#[cfg(feature = "host")]
pub use blob_disk::{BlobDisk, BlobFile};
#[cfg(feature = "host")]
pub use compile::{CompileError, CompileFigures};
#[cfg(feature = "host")]
pub use files::{NotRegular, open_regular, read_regular};
#[cfg(feature = "host")]
pub use function::Function;
#[cfg(feature = "host")]
pub use hash::{ComponentHash, ParseHashError};
pub use inspect::{InspectError, Inspection, World, inspect};
#[cfg(feature = "host")]
pub use library::{Fetch, Library, LibraryError};
pub use limits::{BadLimit, Limits, LimitsError};
#[cfg(feature = "host")]
pub use log::{LogLine, Stream};
#[cfg(feature = "host")]
pub use monitor::{Monitor, Sample, Temperature};
#[cfg(feature = "host")]
pub use outcome::{CallError, Outcome};
#[cfg(feature = "host")]
pub use page::{FunctionLoad, Load, PAGE_FUNCTIONS_MAX, PageError, PageReader, PageWriter, Reading};
#[cfg(feature = "host")]
pub use pool::{Machine, PoolChoice, PoolShape, PoolSize};
#[cfg(feature = "host")]
pub use queue::Figures;
#[cfg(feature = "host")]
pub use runtime::{PrepareError, Runtime, RuntimeConfig, RuntimeError};
#[cfg(feature = "host")]
pub use survey::LibrarySurvey;
#[cfg(feature = "host")]
pub use window::{WINDOW, Window};
