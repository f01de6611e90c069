//! Streams: collected by [`JetStreamIntake`], given events by [`StreamPublisher`].

mod ack_verifier;
mod api;
mod backlog;
mod claims;
mod consumer;
mod consumer_watch;
mod delivery_metadata;
mod epoch_history;
mod gaps;
mod intake;
mod known_streams;
mod local_filter;
mod message_search;
mod poison;
mod publisher;
mod pulls;
mod resume_point;
mod session;
mod status;
mod stored_subjects;
mod stream;
mod stream_comparison;
mod stream_watch;
mod takeover;
mod unreadable_message;

pub use claims::{OriginalDatabase, Owner};
pub use intake::{IntakeOptions, JetStreamIntake};
pub use known_streams::KnownStreams;
pub(super) use publisher::StreamPublisher;
pub(super) use status::stream_status;
pub use stored_subjects::SubjectMismatch;
pub use stream::remove_stream;
