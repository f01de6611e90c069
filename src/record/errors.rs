//! Why events are not recorded.

use std::fmt;
use std::time::Duration;

use crate::counted;
use crate::error::DatabaseFault;
use crate::event::{Event, InvalidEvent};
use crate::pipeline::Problem;
use crate::printable;

/// An event that was not recorded, and why.
#[derive(Debug, thiserror::Error)]
#[error("event on {} not recorded: {reason}", short(event.subject()))]
#[non_exhaustive]
pub struct RecordError {
    /// The event, given back.
    pub event: Box<Event>,
    /// Why it was not recorded.
    pub reason: FailureReason,
}

/// The beginning of a subject that is too long to be shown.
fn short(subject: &str) -> String {
    const SHOWN: usize = 200;
    let end = subject.char_indices().nth(SHOWN).map(|(at, _)| at);
    let more = if end.is_some() { "…" } else { "" };
    format!("{}{more}", printable(&subject[..end.unwrap_or(subject.len())]))
}

impl RecordError {
    pub(super) fn new(event: Event, reason: FailureReason) -> Self {
        Self { event: Box::new(event), reason }
    }

    /// What to do about it, where that is known. The message contains it too.
    #[must_use]
    pub fn remedy(&self) -> Option<&str> {
        self.reason.remedy()
    }
}

/// Why an event was not recorded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FailureReason {
    /// The event is not valid.
    #[error(transparent)]
    Invalid(InvalidEvent),
    /// It is larger than the server accepts. From a [`NatsRecorder`](super::NatsRecorder), or from
    /// [`Receipt::wait_for_stream`](super::Receipt::wait_for_stream).
    #[error("it has {size} bytes and the server accepts {limit}; {SMALLER}")]
    TooLarge {
        /// Its size in bytes, headers included.
        size: usize,
        /// The server's `max_payload` in bytes.
        limit: usize,
    },
    /// The buffer is full: the broker or database is not available, or slower than the application. The event was not sent and is not
    /// stored.
    #[error("the buffer is full with {events} events, {bytes} bytes")]
    BufferFull {
        /// Events in the buffer.
        events: usize,
        /// Bytes in the buffer.
        bytes: usize,
    },
    /// The spool is full: its events are not forwarded, or slower than the application records. The event is not stored.
    #[error("the spool is full with {events} events, {bytes} bytes; {LARGER_SPOOL}")]
    SpoolFull {
        /// Events in the spool.
        events: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// No stream takes its subject. A server that has just started gives this answer too. So a
    /// [`NatsRecorder`](super::NatsRecorder) sends the event again until the answer is final: for half of `broker.timeout`, and for
    /// 30 s if the server says that a stream has its subject, or a stream has stored an event of this recorder before.
    #[error("no stream takes its subject; {MAKE_STREAM}")]
    NoStream,
    /// The server refused it; the text is the server's.
    #[error("the server refused it: {}", printable(.0))]
    Refused(String),
    /// It was sent, or its commit began, and there was no answer within this time. It may be stored. It was not sent again because
    /// that could store it twice: the stream would no longer recognise the repetition, or there is no stream.
    #[error("not confirmed within {0:.1?}: it may be stored or not")]
    Unconfirmed(Duration),
    /// The database did not store it. With [`DatabaseFault::Io`] it may be stored all the same.
    #[error(
        "the database {}: {}{}",
        if *fault == DatabaseFault::Io { "may have stored it or not" } else { "did not store it" },
        printable(detail),
        remedy.as_ref().map_or(String::new(), |remedy| format!("; {}", printable(remedy)))
    )]
    Database {
        /// The kind of trouble.
        fault: DatabaseFault,
        /// What happened: one line.
        detail: String,
        /// What to do about it, where that is known.
        remedy: Option<String>,
    },
    /// It was dropped from the spool to make room for later events, as [`Overflow::DropOldest`](super::Overflow::DropOldest) sets. It is
    /// not stored.
    #[error("it was dropped from the full spool to make room for later events")]
    Dropped,
    /// The recorder was closed: before `record` was called, or before the event could be sent or committed. It is not stored.
    #[error("the recorder was closed before the event was sent or committed")]
    Closed,
}

const SMALLER: &str = "raise max_payload there or send less";
const LARGER_SPOOL: &str = "raise max_events or max_bytes, or wait until it is forwarded";
const MAKE_STREAM: &str = "make one, or start the collector that does";

impl FailureReason {
    /// Whether the event may be stored all the same: it was sent and no answer came, or the disk reported an error while it was
    /// committed. Recorded again, it may be stored twice.
    #[must_use]
    pub fn may_be_stored(&self) -> bool {
        matches!(self, Self::Unconfirmed(_) | Self::Database { fault: DatabaseFault::Io, .. })
    }

    /// What to do about it, where that is known. The message contains it too.
    #[must_use]
    pub fn remedy(&self) -> Option<&str> {
        match self {
            Self::Invalid(invalid) => invalid.remedy(),
            Self::TooLarge { .. } => Some(SMALLER),
            Self::SpoolFull { .. } => Some(LARGER_SPOOL),
            Self::NoStream => Some(MAKE_STREAM),
            Self::Database { remedy, .. } => remedy.as_deref(),
            Self::BufferFull { .. } | Self::Refused(_) | Self::Unconfirmed(_) | Self::Dropped | Self::Closed => None,
        }
    }
}

impl From<Problem> for FailureReason {
    fn from(Problem { fault, detail, remedy }: Problem) -> Self {
        Self::Database { fault, detail, remedy }
    }
}

/// Not all events are recorded.
///
/// `Debug` shows the first event only, and how many there are: `main` prints it where it returns the error.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum FlushError {
    /// The time is over. This many events are neither confirmed nor failed and may still be recorded. Where the recorder has
    /// ended, they are not recorded, and their receipts give them back.
    #[error("{} not confirmed yet{}", counted(*waiting as u64, "event"), because(trouble.as_deref()))]
    Deadline {
        /// Events that are not confirmed.
        waiting: usize,
        /// What is wrong with the broker or the database, if anything.
        trouble: Option<String>,
    },
    /// These events were not recorded, and their receipts had been dropped.
    #[error(
        "{} not recorded{}, the first because: {}{}",
        counted(failed.len() as u64, "event"),
        maybe_stored(failed),
        failed.first().map_or(String::new(), |e| e.reason.to_string()),
        because(trouble.as_deref())
    )]
    Failed {
        /// The events, each with its reason. Between two calls, a [`NatsRecorder`](super::NatsRecorder) keeps failed events up to
        /// the limits of its buffer, in events and in bytes. Further ones are only counted in the log. When it is closed,
        /// all events that were still in the buffer are in this list too.
        failed: Vec<RecordError>,
        /// What is wrong with the broker, if anything. Always `None` from a
        /// [`DirectRecorder`](super::DirectRecorder) and a [`SpooledRecorder`](super::SpooledRecorder), which commit to a file.
        trouble: Option<String>,
    },
}

impl fmt::Debug for FlushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deadline { waiting, trouble } => {
                f.debug_struct("Deadline").field("waiting", waiting).field("trouble", trouble).finish()
            }
            Self::Failed { failed, trouble } => {
                let mut shown = f.debug_struct("Failed");
                shown.field("events", &failed.len()).field("first", &failed.first()).field("trouble", trouble).finish()
            }
        }
    }
}

/// How many of them may be stored all the same.
fn maybe_stored(failed: &[RecordError]) -> String {
    match failed.iter().filter(|error| error.reason.may_be_stored()).count() {
        0 => String::new(),
        count => format!(" ({count} of them may be stored)"),
    }
}

/// What is wrong, as the end of a message.
pub(super) fn because(trouble: Option<&str>) -> String {
    trouble.map_or(String::new(), |trouble| format!(": {}", printable(trouble)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_forges_no_line_of_a_log() {
        let event = Event::new("a\nERROR all is lost\u{1b}[2J", "");
        for reason in ["no\r\nERROR at all", "no\u{2028}at all"] {
            for reason in [
                FailureReason::Invalid(InvalidEvent::new(reason)),
                FailureReason::Refused(reason.into()),
                FailureReason::from(Problem::new(DatabaseFault::Other, reason)),
            ] {
                let failed = vec![RecordError::new(event.clone(), reason)];
                let text = failed[0].to_string();
                let trouble = Some("b\nERROR".into());
                let all = format!("{text} {}", FlushError::Failed { failed, trouble });
                assert!(all.lines().count() == 1 && !all.contains(['\r', '\u{1b}', '\u{2028}']), "{all}");
            }
        }
    }

    fn database(fault: DatabaseFault) -> FailureReason {
        FailureReason::Database { fault, detail: "no".into(), remedy: Some("do it".into()) }
    }

    #[test]
    fn only_after_an_error_of_the_disk_the_database_may_have_the_event() {
        let (full, io) = (database(DatabaseFault::Full), database(DatabaseFault::Io));
        assert!(!full.may_be_stored() && io.may_be_stored());
        assert_eq!(full.to_string(), "the database did not store it: no; do it");
        assert_eq!(io.to_string(), "the database may have stored it or not: no; do it");
    }

    #[test]
    fn debug_shows_the_first_of_many_events() {
        let failed = (0..1_000).map(|number| {
            RecordError::new(Event::new(format!("a.{number}"), vec![b'x'; 100_000]), FailureReason::Closed)
        });
        let shown = format!("{:?}", FlushError::Failed { failed: failed.collect(), trouble: None });
        assert!(shown.starts_with("Failed { events: 1000, first: Some(RecordError {"), "{shown}");
        assert!(shown.contains("a.0") && !shown.contains("a.1") && shown.len() < 400, "{shown}");
    }

    #[test]
    fn a_remedy_is_part_of_the_message() {
        let reasons =
            [FailureReason::NoStream, FailureReason::TooLarge { size: 2, limit: 1 }, database(DatabaseFault::Full)];
        for reason in reasons {
            let remedy = reason.remedy().expect("it has one").to_owned();
            let error = RecordError::new(Event::new("a", ""), reason);
            assert!(error.to_string().ends_with(&format!("; {remedy}")), "{error}");
        }
    }
}
