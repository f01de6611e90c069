//! Why a payload cannot be read.

use std::fmt;

use crate::config::Codec;

/// The error of a payload that cannot be read, in one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the payload cannot be read as {codec}: {fault}")]
pub struct PayloadError {
    codec: &'static str,
    fault: PayloadFault,
}

/// What a reader found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PayloadFault {
    /// The payload has no byte.
    Empty,
    /// What is wrong, and how many bytes are before it.
    At(&'static str, usize),
    /// A name that no parameter has, in a payload that may have no such names. The scratch memory has it.
    UnknownName,
    /// A value that is no object, in a payload that needs one there. The scratch memory has its JSON Pointer.
    NoObject {
        /// An array would do as well.
        or_array: bool,
    },
}

impl PayloadError {
    /// What the reader found.
    pub(super) fn fault(&self) -> PayloadFault {
        self.fault
    }
}

impl PayloadFault {
    pub(super) fn in_codec(self, codec: Codec) -> PayloadError {
        let codec = match codec {
            Codec::Json => "JSON",
            Codec::Messagepack => "MessagePack",
        };
        PayloadError { codec, fault: self }
    }
}

impl fmt::Display for PayloadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "it is empty"),
            Self::At(what, offset) => write!(f, "{what} at offset {offset}"),
            Self::UnknownName => write!(f, "it has a name that no parameter has"),
            Self::NoObject { .. } => write!(f, "it has another value where an object is needed"),
        }
    }
}
