//! The driver: performs what the core decides, and serves people and functions.

pub mod answer;
mod desk;
mod disk;
pub mod dispatch;
mod engine;
mod error;
#[cfg(test)]
mod failing_disk;
mod folder;
mod found;
mod hosting;
mod inspect;
mod leases;
pub mod limits;
mod load;
mod manage;
pub mod metrics;
mod offline;
mod open;
mod people;
mod provision;
pub mod routes;
mod rows;
mod run;
pub mod serve;
mod services;
mod store;
mod sweep;
mod users;
mod verify;

pub use error::DriverError;
pub use folder::{device, is_in_use, socket_path};
pub use found::{InitOptions, Inited, JoinOptions, Joined, SecretKey, init, join};
pub use inspect::verify;
pub use load::{SAMPLE_INTERVAL, load_page_path};
pub use offline::Offline;
pub use osiris_runtime::{FunctionLoad, Load, PageError, PageReader, Reading};
pub use people::certify_recovery;
pub use provision::ProvisionOptions;
pub use run::{Addresses, RunOptions, run};
pub use store::{Journal, JournalThread};
pub use users::public_key;
