//! The one unsafe step: loading machine code that this node compiled earlier.

use std::path::Path;

use wasmtime::Engine;
use wasmtime::component::Component;

/// Maps a `.cwasm` file and makes its code executable.
///
/// Loading runs what the file says: [`Component::deserialize_file`] checks that the file was made for
/// this engine, not that its code is harmless. What makes the call sound:
///
/// - the file comes from the node's own cache folder, which only this user can enter (mode 0700), and
///   was written there by `compile::Cache::store` from the output of this engine's compiler. Peers send
///   `.wasm` only, so no bytes from the network ever reach a `.cwasm` file;
/// - the caller has just checked the file against the blake3 hash in its trailer, so a torn write or a
///   flipped bit is not loaded (`compile::Cache::verify`);
/// - the file is never written again in place: it is replaced by a rename, or removed, and the mapping
///   keeps the old file alive.
#[allow(unsafe_code, reason = "deserialize_file is unsafe by nature; the argument is written above")]
pub(crate) fn load_own_code(engine: &Engine, verified: &Path) -> wasmtime::Result<Component> {
    // SAFETY: as argued above, the file is our own compiler's output, private, verified and immutable.
    unsafe { Component::deserialize_file(engine, verified) }
}
