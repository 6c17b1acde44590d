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
//! machine code. The crate reads no configuration, no environment and no clock but the monotonic one.
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

mod blob_disk;
mod compile;
mod files;
mod function;
mod hash;
mod host;
mod inspect;
mod library;
pub mod limits;
mod load;
mod log;
mod monitor;
mod outcome;
mod page;
mod pool;
mod queue;
mod runtime;
mod survey;
mod ticker;
mod window;

pub use blob_disk::{BlobDisk, BlobFile};
pub use compile::{CompileError, CompileFigures};
pub use files::{NotRegular, open_regular, read_regular};
pub use function::Function;
pub use hash::{ComponentHash, ParseHashError};
pub use inspect::{InspectError, Inspection, World, inspect};
pub use library::{Fetch, Library, LibraryError};
pub use limits::{BadLimit, Limits, LimitsError};
pub use log::{LogLine, Stream};
pub use monitor::{Monitor, Sample, Temperature};
pub use outcome::{CallError, Outcome};
pub use page::{FunctionLoad, Load, PAGE_FUNCTIONS_MAX, PageError, PageReader, PageWriter, Reading};
pub use pool::{Machine, PoolChoice, PoolShape, PoolSize};
pub use queue::Figures;
pub use runtime::{PrepareError, Runtime, RuntimeConfig, RuntimeError};
pub use survey::LibrarySurvey;
pub use window::{WINDOW, Window};
