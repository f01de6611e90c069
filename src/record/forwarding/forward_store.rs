//! What keeps events for the forwarder.

use std::collections::BTreeSet;
use std::path::Path;

use crate::pipeline::Problem;
use crate::store::{GivenUp, StoredEvent};

/// Where events are kept until they are in the stream.
pub(in crate::record) trait ForwardStore: Send + 'static {
    /// The events after this position, in order: at most so many, and no more after so many bytes. None, if there are none yet.
    fn read(&mut self, after: u64, events: usize, bytes: usize) -> Result<Vec<StoredEvent>, Problem>;

    /// Notes that all events up to this position are in the stream, or given up.
    fn done_through(&mut self, position: u64) -> Result<(), Problem>;

    /// Notes that the events of these ranges, the ends included, are in the stream, while an earlier one waits.
    fn done_ahead(&mut self, _ranges: &[(u64, u64)]) -> Result<(), Problem> {
        Ok(())
    }

    /// Keeps these events as dead letters, each for its reason.
    fn give_up(&mut self, events: &[GivenUp]) -> Result<(), Problem>;

    /// Notes that the server refuses these events since now, and whether it has stored others since the last call.
    fn note_refused(&mut self, positions: &[u64], others_stored: bool) -> Result<(), Problem>;

    /// Those of these events that were changed since they were read, as they are now; `None` for one that is gone.
    fn changed(&mut self, _positions: &BTreeSet<u64>) -> Result<Vec<(u64, Option<StoredEvent>)>, Problem> {
        Ok(Vec::new())
    }

    /// Does some work that has time. Returns whether there is more.
    fn tidy(&mut self) -> Result<bool, Problem>;

    /// The last event that was dropped to make room.
    fn dropped_through(&self) -> u64 {
        0
    }

    /// The database that has the events.
    fn path(&self) -> &Path;
}
