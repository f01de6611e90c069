//! How often a query was asked, and how long its answers took.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::pipeline::{Distribution, Histogram};

/// Requests, errors and time of an endpoint.
#[derive(Debug)]
pub(super) struct EndpointCounters {
    requests: AtomicU64,
    errors: AtomicU64,
    nanos: AtomicU64,
    last_error: Mutex<String>,
    durations: Histogram,
}

impl Default for EndpointCounters {
    fn default() -> Self {
        Self {
            requests: AtomicU64::default(),
            errors: AtomicU64::default(),
            nanos: AtomicU64::default(),
            last_error: Mutex::default(),
            durations: Histogram::of_queries(),
        }
    }
}

/// The counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct EndpointCounts {
    pub(super) requests: u64,
    pub(super) errors: u64,
    pub(super) last_error: String,
    /// Time spent answering, without the time in the queue.
    pub(super) nanos: u64,
}

impl EndpointCounters {
    pub(super) fn answered(&self, took: Duration) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.durations.add_duration(took);
        self.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn failed(&self, took: Duration, code: u16, reason: &str) {
        self.answered(took);
        self.errors.fetch_add(1, Ordering::Relaxed);
        *self.last_error.lock() = format!("{code}:{reason}");
    }

    /// How long the answers took, in seconds, without the time in the queue.
    pub(super) fn durations(&self) -> Distribution {
        self.durations.distribution()
    }

    pub(super) fn now(&self) -> EndpointCounts {
        EndpointCounts {
            requests: self.requests.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            last_error: self.last_error.lock().clone(),
            nanos: self.nanos.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_keep_the_last_error() {
        let counters = EndpointCounters::default();
        counters.answered(Duration::from_nanos(5));
        counters.failed(Duration::from_nanos(7), 504, "too slow");
        let expected = EndpointCounts { requests: 2, errors: 1, last_error: "504:too slow".into(), nanos: 12 };
        assert_eq!(counters.now(), expected);
    }
}
