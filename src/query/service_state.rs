//! What stays the same when a service is replaced by one with other queries: its identity, and the counters of each query.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::endpoint_counters::EndpointCounters;
use crate::unix_time::now_ns;

/// The requests of queries since the collector's start. Those that wait for an answer are in neither number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestCounts {
    /// Requests that were answered with rows.
    pub answered: u64,
    /// Requests that were answered with an error.
    pub failed: u64,
}

/// The state of a collector's service.
#[derive(Debug)]
pub struct ServiceState {
    pub(super) id: String,
    pub(super) started: String,
    /// By the names of queries, also of those that were removed.
    counters: Mutex<BTreeMap<String, Arc<EndpointCounters>>>,
}

impl Default for ServiceState {
    fn default() -> Self {
        Self {
            id: format!("{:x}-{:x}", now_ns(), std::process::id()),
            // Fails only for years of five digits.
            started: OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default(),
            counters: Mutex::default(),
        }
    }
}

impl ServiceState {
    /// The counters of the query with this name.
    pub(super) fn counters_of(&self, query: &str) -> Arc<EndpointCounters> {
        Arc::clone(self.counters.lock().entry(query.to_owned()).or_default())
    }

    /// The counts of all queries now.
    #[must_use]
    pub fn counts(&self) -> RequestCounts {
        let add = |sum: RequestCounts, counters: &Arc<EndpointCounters>| {
            let counts = counters.now();
            RequestCounts {
                answered: sum.answered + counts.requests.saturating_sub(counts.errors),
                failed: sum.failed + counts.errors,
            }
        };
        self.counters.lock().values().fold(RequestCounts::default(), add)
    }
}
