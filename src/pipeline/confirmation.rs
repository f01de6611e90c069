//! The word that an event is committed, for whoever asked for it.

/// What became of an event whose publisher asked to hear of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmation {
    /// The subject that the event named for the answer, in its header [`Confirmation::HEADER`]. It comes from the publisher:
    /// who publishes to it must see to it that it may be answered to.
    pub reply_to: String,
    /// The stream that the event came from, if it came from one.
    pub stream: Option<String>,
    /// Its sequence there.
    pub sequence: Option<u64>,
    /// Why it is a dead letter; `None` where it was stored. Either is committed.
    pub dead_letter: Option<String>,
}

impl Confirmation {
    /// The header by which an event asks for its confirmation: a stream does not keep the reply subject of what is published
    /// to it.
    pub const HEADER: &str = "Catchment-Reply-To";
}
