//! The HTTP interfaces and the dispatcher, over real sockets and with real functions.

mod calls;
mod client;
mod crowding;
mod guarding;
mod management;
mod node;
mod relays;
mod scraping;
mod stopping;
