//! The confirmation that an event is committed, for a publisher that asked for it.

/// Tells the publisher of an event that it is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmation {
    /// The subject for the reply, from the event's header [`Confirmation::HEADER`]. The publisher of the event chose it: before
    /// you publish to it, check that it is allowed.
    pub reply_to: String,
    /// The stream of the event; `None` where it came from no stream.
    pub stream: Option<String>,
    /// Its sequence in the stream.
    pub sequence: Option<u64>,
    /// Why the event is a dead letter; `None` where it is stored. Both are committed.
    pub dead_letter: Option<String>,
}

impl Confirmation {
    /// The header that asks for a confirmation. A header is needed because a stream does not keep the reply subject of a
    /// message.
    pub const HEADER: &str = "Catchment-Reply-To";
}
