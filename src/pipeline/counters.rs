//! The counters of a collector.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::SystemTime;

use super::histogram::Histogram;
use crate::unix_time::{at_us, microseconds};

/// The counters of a collector, from its start. Each is exact, but two that are read together may differ by a batch: they are
/// updated without a common lock.
#[derive(Debug, Default)]
pub struct Counters {
    /// Turns of the intake thread's loop: at least one a second, unless it waits for a writer or makes a connection.
    pub turns: Counter,
    /// Deliveries received.
    pub received: Counter,
    /// Deliveries committed, dead letters included.
    pub committed: Counter,
    /// Deliveries skipped because they are stored already: an earlier epoch of the stream had delivered them, or a recorder had sent
    /// them twice. The latter count as committed too.
    pub duplicates: Counter,
    /// Deliveries committed as dead letters.
    pub dead_letters: Counter,
    /// Deliveries dropped because no route takes them. They count as committed.
    pub unmatched_dropped: Counter,
    /// Delete markers skipped. They count as committed.
    pub markers_skipped: Counter,
    /// Deliveries committed whose requested confirmation was not sent: the queue was full, or it could not be sent.
    pub confirmations_dropped: Counter,
    /// Events of core NATS dropped because the receive buffer was full.
    pub dropped: Counter,
    /// Batches committed.
    pub batches: Counter,
    /// Events that the stream no longer had when they were due. The true number may be smaller.
    pub lost_events: Counter,
    /// Connections or consumers that were made again.
    pub reconnects: Counter,
    /// Events still to be delivered, as the broker last reported.
    pub pending: Counter,
    /// Deliveries that the consumer sent and that are not acknowledged, as the broker last reported.
    pub ack_pending: Counter,
    /// Deliveries that the consumer sent again, as the broker last reported.
    pub redelivered: Counter,
    /// Bytes received, as [`Batch::bytes`](super::Batch::bytes) counts them.
    pub received_bytes: Counter,
    /// Bytes committed, counted in the same way.
    pub committed_bytes: Counter,
    /// Attempts to commit a batch that failed and were made again.
    pub commit_failures: Counter,
    /// When the last batch was committed.
    pub last_commit: LastTime,
    /// Durations and sizes.
    pub histograms: Histograms,
}

/// The histograms of a collector, from its start.
#[derive(Debug)]
pub struct Histograms {
    /// How long the successful commits took.
    pub commits: Histogram,
    /// How many deliveries the committed batches had.
    pub batches: Histogram,
    /// How long after its publishing each delivery was committed.
    pub delays: Histogram,
}

impl Default for Histograms {
    fn default() -> Self {
        Self { commits: Histogram::of_commits(), batches: Histogram::of_batches(), delays: Histogram::of_delays() }
    }
}

/// When something last happened, in microseconds since 1970; 0 if it never has.
#[derive(Debug, Default)]
pub struct LastTime(AtomicI64);

impl LastTime {
    /// It happened at this time.
    pub fn set(&self, at: SystemTime) {
        self.0.store(microseconds(at), Ordering::Relaxed);
    }

    /// When it last happened, if it has.
    #[must_use]
    pub fn get(&self) -> Option<SystemTime> {
        let micros = self.0.load(Ordering::Relaxed);
        (micros > 0).then(|| at_us(micros))
    }
}

/// A number shared by threads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds this much.
    pub fn add(&self, n: usize) {
        self.0.fetch_add(n as u64, Ordering::Relaxed);
    }

    /// Sets the number.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The number.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
