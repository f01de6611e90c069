//! What an operator can see of a running collector: a snapshot of its figures, metrics, health and a page, over HTTP.
//!
//! [`Observer`] samples a collector once a second and makes snapshots. [`Server`] serves them, on a port if the settings name one and
//! always on a unix socket beside the database, which only its owner can use. [`ask`] is the client for that socket.

mod client;
mod conversions;
mod dead_letters;
mod figures;
mod history;
mod http;
mod lag;
mod metrics;
mod observer;
mod page;
mod process;
mod readiness;
mod server;
mod site;
mod snapshot;
mod socket;
mod summary;
mod time;

pub use client::{AskError, ask, ask_snapshot, may_ask};
pub use observer::{Observer, Phase};
pub use server::Server;
pub use snapshot::{JobFigures, RetentionFigures, Snapshot, State, Totals, Trouble};
pub use summary::seconds;
