//! Streams: collected by [`JetStreamIntake`], given events by [`StreamPublisher`].

mod api;
mod backlog;
mod consumer;
mod epoch;
mod facts;
mod gaps;
mod history;
mod intake;
mod poison;
mod publisher;
mod pulls;
mod reply;
mod session;
mod stream;
mod stream_watch;
mod survey;

pub use intake::{Beginning, JetStreamIntake};
pub(super) use publisher::StreamPublisher;
pub use stream::remove_stream;
pub(super) use survey::survey_stream;
