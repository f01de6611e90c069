//! Why a payload cannot be read.

use std::fmt;

use crate::config::Codec;

/// Why a payload cannot be read: one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the payload cannot be read as {codec}: {fault}")]
pub struct Unreadable {
    codec: &'static str,
    fault: Fault,
}

/// What a reader came upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The payload has no byte.
    Empty,
    /// And how many bytes are before it.
    At(&'static str, usize),
}

impl Fault {
    pub(super) fn of(self, codec: Codec) -> Unreadable {
        let codec = match codec {
            Codec::Json => "JSON",
            Codec::Messagepack => "MessagePack",
        };
        Unreadable { codec, fault: self }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "it is empty"),
            Self::At(what, offset) => write!(f, "{what} at offset {offset}"),
        }
    }
}
