//! What went through, counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// What one collector has counted, from its start. Relaxed: each is right by itself, two read together may be a batch apart.
#[derive(Debug, Default)]
pub struct Counters {
    /// Deliveries taken in.
    pub received: Counter,
    /// Deliveries committed, dead letters included.
    pub committed: Counter,
    /// Deliveries passed over because an earlier life of the stream had brought them already.
    pub duplicates: Counter,
    /// Deliveries committed as dead letters.
    pub dead_letters: Counter,
    /// Deliveries dropped, for no route takes them. They count as committed.
    pub unmatched_dropped: Counter,
    /// Deliveries committed without the confirmation that was asked for: there was no room for it, or no way.
    pub unconfirmed: Counter,
    /// Events dropped on their way in, for there was no room; a stream would have kept them, core NATS does not.
    pub dropped: Counter,
    /// Batches committed.
    pub batches: Counter,
    /// What the stream no longer had when it was due, at most.
    pub gone: Counter,
    /// Connections or consumers made anew.
    pub rebuilds: Counter,
    /// What the broker last said is still to come.
    pub pending: Counter,
}

/// A number that threads share.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, n: usize) {
        self.0.fetch_add(n as u64, Ordering::Relaxed);
    }

    /// Replaces it.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// Its value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
