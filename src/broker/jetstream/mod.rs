//! Streams: collected by [`JetStreamIntake`], given events by [`StreamPublisher`].

mod api;
mod backlog;
mod claims;
mod consumer;
mod consumer_watch;
mod epoch;
mod facts;
mod gaps;
mod history;
mod inquiry;
mod intake;
mod known_streams;
mod poison;
mod publisher;
mod pulls;
mod reply;
mod search;
mod selection;
mod session;
mod status;
mod stored;
mod stream;
mod stream_watch;
mod takeover;
mod unreadable;

pub use claims::{Origin, Owner};
pub use intake::{Beginning, JetStreamIntake};
pub use known_streams::KnownStreams;
pub(super) use publisher::StreamPublisher;
pub(super) use status::stream_status;
pub use stored::Mismatch;
pub use stream::remove_stream;
