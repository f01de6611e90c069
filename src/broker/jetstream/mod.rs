//! Streams: collected by [`JetStreamIntake`], given events by [`Publisher`].

mod api;
mod consumer;
mod epoch;
mod gaps;
mod intake;
mod poison;
mod publisher;
mod pulls;
mod reply;
mod session;
mod stream;

pub use intake::{Beginning, JetStreamIntake};
pub use publisher::{Outgoing, Publisher, Refused, Source, Stored, Verdict, wire_size};
pub use stream::remove_stream;
