//! A spool's implementation of the forwarder's store.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::forwarding::ForwardStore;
use crate::pipeline::Problem;
use crate::store::{GivenUp, Lock, Spool, SpoolReader, StoredEvent};

pub(super) struct SpoolStore {
    spool: Spool,
    reader: SpoolReader,
    dropped_through: Arc<AtomicU64>,
    /// While this marks events as done, nobody else may write.
    _lock: Arc<Lock>,
}

impl SpoolStore {
    /// `dropped_through` has the last event that was dropped to make room.
    pub(super) fn new(spool: Spool, dropped_through: Arc<AtomicU64>, lock: Arc<Lock>) -> Self {
        Self { reader: spool.reader(), spool, dropped_through, _lock: lock }
    }
}

impl ForwardStore for SpoolStore {
    fn read(&mut self, after: u64, events: usize, bytes: usize) -> Result<Vec<StoredEvent>, Problem> {
        self.reader.after(after, events, bytes)
    }

    fn done_through(&mut self, position: u64) -> Result<(), Problem> {
        self.spool.remove_through(position)
    }

    fn done_ahead(&mut self, ranges: &[(u64, u64)]) -> Result<(), Problem> {
        self.spool.remove(ranges)
    }

    fn give_up(&mut self, events: &[GivenUp]) -> Result<(), Problem> {
        self.spool.give_up(events)
    }

    fn note_refused(&mut self, positions: &[u64], others_stored: bool) -> Result<(), Problem> {
        self.spool.note_refused(positions, others_stored)
    }

    fn tidy(&mut self) -> Result<bool, Problem> {
        self.spool.shrink()
    }

    fn dropped_through(&self) -> u64 {
        self.dropped_through.load(Ordering::Acquire)
    }

    fn path(&self) -> &Path {
        self.spool.path()
    }
}
