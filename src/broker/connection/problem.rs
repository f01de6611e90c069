//! Why a server cannot be used, before its address is added.

use crate::broker::broker_error;
use crate::error::{BrokerFault, Error};

/// A fault of one server and its remedy. No secret is in it.
#[derive(Debug)]
pub(in crate::broker) struct Problem {
    fault: BrokerFault,
    detail: String,
    remedy: Option<String>,
}

impl Problem {
    pub(super) fn new(fault: BrokerFault, detail: impl Into<String>) -> Self {
        Self { fault, detail: detail.into(), remedy: None }
    }

    pub(super) fn with_remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }

    /// The error of the server at this address.
    pub(super) fn at(self, server: &str) -> Error {
        let error = broker_error(server, self.fault, self.detail);
        match self.remedy {
            Some(remedy) => error.with_remedy(remedy),
            None => error,
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.detail)?;
        self.remedy.iter().try_for_each(|remedy| write!(f, "; {remedy}"))
    }
}
