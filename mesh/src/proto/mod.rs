//! The pure part: who is where, whom to keep connections to, when to dial again, and the messages
//! that nodes exchange about it. Time and randomness are arguments; only ordered maps are iterated.

pub mod backoff;
pub mod membership;
pub mod message;
pub mod pack;
pub mod quota;
pub mod sync;
