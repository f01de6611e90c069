//! What an application holds to record events.

mod commit_queue;
mod counters;
mod direct_recorder;
mod failures;
mod nats_recorder;
mod receipt;
mod send_queue;
mod unclaimed;

pub use counters::{RecorderCounters, RecorderCounts};
pub use direct_recorder::{CommitMode, DirectRecorder, DirectRecorderConfig};
pub use nats_recorder::{NatsRecorder, NatsRecorderConfig, Overflow};
pub use receipt::{Receipt, ReceiptKind, WaitError};

use std::time::Duration;

use crate::event::Event;
use crate::pipeline::Health;
use crate::printable;

/// Records events. Recorders are shared between threads; which one an application uses is one line of its set-up.
pub trait Recorder: Send + Sync {
    /// Hands over an event and returns; the receipt tells when and where it is kept.
    ///
    /// # Errors
    ///
    /// [`RecordError`], with the event in it: not valid, or no room for it.
    fn record(&self, event: Event) -> Result<Receipt, RecordError>;

    /// Blocks until every event handed over before the call is kept, or known not to be; at most for `patience`.
    ///
    /// # Errors
    ///
    /// [`FlushError`], with the events that are not kept and whose receipts nobody holds any more.
    fn flush(&self, patience: Duration) -> Result<(), FlushError>;

    /// What keeps events from being kept at the moment, if anything, and since when. Does not block.
    fn health(&self) -> Health;
}

/// What is known of an event that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordMetadata {
    /// Where it is.
    pub destination: Destination,
}

impl RecordMetadata {
    /// Its sequence in its stream, where it is in one.
    #[must_use]
    pub fn sequence(&self) -> Option<u64> {
        match &self.destination {
            Destination::Stream { sequence, .. } => Some(*sequence),
            Destination::Broker | Destination::Database => None,
        }
    }

    /// Whether its stream had an event of the same identity already and kept that one.
    #[must_use]
    pub fn is_duplicate(&self) -> bool {
        matches!(self.destination, Destination::Stream { duplicate: true, .. })
    }
}

/// Where an event is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Destination {
    /// In a stream; a collector brings it into the database.
    Stream {
        /// The stream.
        stream: String,
        /// Its sequence there.
        sequence: u64,
        /// The stream had an event of the same identity already and kept that one.
        duplicate: bool,
    },
    /// With whoever listened: the server has read it and passed it on (core NATS). Nobody says that anybody stored it.
    Broker,
    /// In the database: a row, or a dead letter where the tables refuse it.
    Database,
}

/// An event that was not recorded, and why.
#[derive(Debug, thiserror::Error)]
#[error("event on {} not recorded: {reason}", printable(event.subject()))]
pub struct RecordError {
    /// The event, given back.
    pub event: Box<Event>,
    /// Why.
    pub reason: FailureReason,
}

/// Why an event was not recorded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FailureReason {
    /// It cannot be sent as it is; the text says what is wrong.
    #[error("{}", printable(.0))]
    Invalid(String),
    /// It is larger than the server takes.
    #[error("it has {size} bytes and the server takes {limit}; raise max_payload there or send less")]
    TooLarge {
        /// Its bytes, headers included.
        size: usize,
        /// The server's `max_payload`.
        limit: usize,
    },
    /// The buffer is full: the broker is away, or slower than the application.
    #[error("the buffer is full with {events} events, {bytes} bytes")]
    BufferFull {
        /// Events in it.
        events: usize,
        /// Bytes in it.
        bytes: usize,
    },
    /// No stream takes its subject.
    #[error("no stream takes its subject; make one, or start the collector that does")]
    NoStream,
    /// The server refused it; the text is the server's.
    #[error("the server refused it: {}", printable(.0))]
    Refused(String),
    /// It was sent, no answer came, and if it were sent again it could be there twice: the stream would no longer recognise
    /// it, or there is no stream. It may be stored or not.
    #[error("sent but not confirmed within {0:?}: it may be stored or not")]
    Unconfirmed(Duration),
    /// The database did not keep it; the text says why. After an I/O error of the disk it may be kept all the same.
    #[error("the database did not keep it: {}", printable(.0))]
    Database(String),
    /// The recorder was closed before it could be sent.
    #[error("the recorder was closed before it was sent")]
    Closed,
}

impl FailureReason {
    /// Whether the event may be stored all the same: it was sent, and no answer came.
    #[must_use]
    pub fn may_be_stored(&self) -> bool {
        matches!(self, Self::Unconfirmed(_))
    }
}

/// Not all events are kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FlushError {
    /// Time ran out; these many are still on their way and may yet arrive. Of a recorder that has ended: they are not kept,
    /// and whoever holds their receipts gets them back from there.
    #[error("{waiting} events not confirmed yet{}", because(trouble.as_deref()))]
    Deadline {
        /// Events on their way.
        waiting: usize,
        /// What is wrong with the broker, if anything.
        trouble: Option<String>,
    },
    /// These were not kept, and their receipts had been dropped.
    #[error(
        "{} events not recorded{}, the first because: {}{}",
        failed.len(),
        doubtful(failed),
        failed.first().map_or(String::new(), |e| e.reason.to_string()),
        because(trouble.as_deref())
    )]
    Failed {
        /// The events, each with its reason. Between two calls a recorder through a broker keeps no more than the buffer may hold,
        /// in events and in bytes; the rest is counted in the log. What waits when a [`NatsRecorder`] is closed comes beside them, all
        /// of it.
        failed: Vec<RecordError>,
        /// What is wrong with the broker, if anything.
        trouble: Option<String>,
    },
}

/// How many of them may be stored all the same.
fn doubtful(failed: &[RecordError]) -> String {
    match failed.iter().filter(|error| error.reason.may_be_stored()).count() {
        0 => String::new(),
        count => format!(" ({count} of them may be stored)"),
    }
}

fn because(trouble: Option<&str>) -> String {
    trouble.map_or(String::new(), |trouble| format!(": {}", printable(trouble)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_forges_no_line_of_a_log() {
        let event = Box::new(Event::new("a\nERROR all is lost\u{1b}[2J", ""));
        for reason in ["no\r\nERROR at all", "no\u{2028}at all"] {
            for reason in [
                FailureReason::Invalid(reason.into()),
                FailureReason::Refused(reason.into()),
                FailureReason::Database(reason.into()),
            ] {
                let failed = vec![RecordError { event: event.clone(), reason }];
                let text = failed[0].to_string();
                let trouble = Some("b\nERROR".into());
                let all = format!("{text} {}", FlushError::Failed { failed, trouble });
                assert!(all.lines().count() == 1 && !all.contains(['\r', '\u{1b}', '\u{2028}']), "{all}");
            }
        }
    }
}
