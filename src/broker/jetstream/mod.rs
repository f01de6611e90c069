//! Streams: collected by [`JetStreamIntake`], given events by [`StreamPublisher`].

mod api;
mod claims;
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
mod survey;
mod takeover;
mod watch;

pub use claims::{Origin, Owner};
pub use intake::{Beginning, JetStreamIntake};
pub(super) use publisher::StreamPublisher;
pub use stream::remove_stream;
pub(super) use survey::survey_stream;
