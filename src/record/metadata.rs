//! Where a recorded event is.

/// What is known of a recorded event.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordMetadata {
    /// Where the event is.
    pub destination: Destination,
}

impl RecordMetadata {
    /// The event's sequence in its stream. `None` where it is in no stream, and where the stream has acknowledged it together with later
    /// events, as it may with [`Identity::Database`](super::Identity::Database) and [`Identity::Payload`](super::Identity::Payload).
    /// [`Collector::wait_for`](crate::Collector::wait_for) waits until a collector has committed it.
    #[must_use]
    pub fn sequence(&self) -> Option<u64> {
        match &self.destination {
            Destination::Stream { sequence, .. } => *sequence,
            Destination::Broker | Destination::Spool | Destination::Database | Destination::Dropped => None,
        }
    }

    /// Whether the stream already had an event with the same identity and stored no second one.
    #[must_use]
    pub fn is_duplicate(&self) -> bool {
        matches!(self.destination, Destination::Stream { duplicate: true, .. })
    }
}

/// Where an event is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Destination {
    /// In a stream. A collector brings it into the database.
    Stream {
        /// The stream's name.
        stream: String,
        /// The event's sequence in the stream. `None` where the stream has acknowledged it together with later events.
        sequence: Option<u64>,
        /// The stream already had an event with the same identity and stored no second one.
        duplicate: bool,
    },
    /// At the server (core NATS): the server has read it and passed it on to the subscribers. Nothing confirms that any of them
    /// stored it.
    Broker,
    /// In the spool: on the disk, until the stream has it.
    Spool,
    /// In the database: its statements ran, or it is a dead letter where the tables refuse it.
    Database,
    /// Nowhere: no route takes it, and [`DirectRecorderConfig::unmatched`](super::DirectRecorderConfig::unmatched) is `Drop`.
    Dropped,
}
