//! Recording events: recorders, their settings, receipts and errors.
//!
//! [`NatsRecorder`], [`DirectRecorder`] and [`SpooledRecorder`] have one trait, [`Recorder`]. Each [`Recorder::record`] returns a [`Receipt`].

mod commit_queue;
mod config;
mod counters;
mod counts;
mod direct_recorder;
mod errors;
mod event_sender;
pub(crate) mod expected_stream;
mod failures;
mod forwarding;
mod grouped_commits;
mod memory_recorder;
mod metadata;
mod nats_recorder;
mod receipt;
mod recorder;
mod send_queue;
mod spool_room;
mod spool_status;
mod spool_store;
mod spooled_recorder;
mod stream_outcomes;
mod table_forwarding;
mod unclaimed;

pub use crate::event_id::Identity;
pub use config::{CommitMode, DirectRecorderConfig, NatsRecorderConfig, Overflow, SpooledRecorderConfig};
pub use counters::RecorderCounters;
pub use counts::RecorderCounts;
pub use direct_recorder::DirectRecorder;
pub use errors::{FailureReason, FlushError, RecordError};
pub use memory_recorder::MemoryRecorder;
pub use metadata::{Destination, RecordMetadata};
pub use nats_recorder::NatsRecorder;
pub use receipt::{Receipt, ReceiptKind, WaitError};
pub use recorder::Recorder;
pub use spool_status::SpoolStatus;
pub use spooled_recorder::SpooledRecorder;
pub(crate) use table_forwarding::{TableForwarding, TableForwardingConfig};
