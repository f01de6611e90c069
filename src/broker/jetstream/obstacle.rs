//! Why a stream cannot be collected, or only in part.

use crate::broker::broker_error;
use crate::broker::connection::Link;
use crate::error::{BrokerFault, Error};

/// Why a stream cannot be collected or created, or why a collector does not receive all configured subjects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl Obstacle {
    pub(super) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }

    /// With the name that was probably meant, before the other ways out.
    pub(super) fn or_meant(mut self, meant: Option<String>) -> Self {
        if let Some(meant) = meant {
            self.remedy = format!("{meant} Otherwise {}", self.remedy);
        }
        self
    }

    pub(super) fn to_error(&self, link: &Link) -> Error {
        broker_error(&link.server().address, BrokerFault::Stream, &self.what).with_remedy(self.remedy.clone())
    }
}

impl std::fmt::Display for Obstacle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}
