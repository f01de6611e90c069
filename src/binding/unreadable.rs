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
pub(super) struct Fault {
    what: &'static str,
    /// How many bytes are before it.
    at: usize,
}

impl Fault {
    pub(super) fn new(what: &'static str, at: usize) -> Self {
        Self { what, at }
    }

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
        write!(f, "{} at offset {}", self.what, self.at)
    }
}
