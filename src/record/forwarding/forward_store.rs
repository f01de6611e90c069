//! What keeps events for the forwarder.

use crate::error::Error;
use crate::pipeline::Problem;
use crate::store::StoredEvent;

/// Where events are kept until they are in the stream.
pub(in crate::record) trait ForwardStore: Send + 'static {
    /// The events after this position, in order: at most so many, and no more after so many bytes. None, if there are none yet.
    fn read(&mut self, after: u64, events: usize, bytes: usize) -> Result<Vec<StoredEvent>, Problem>;

    /// Notes that all events up to this position are in the stream, or given up.
    fn done_through(&mut self, position: u64) -> Result<(), Problem>;

    /// Keeps these events as dead letters, each for its reason.
    fn give_up(&mut self, events: &[(u64, String)]) -> Result<(), Problem>;

    /// Does some work that has time. Returns whether there is more.
    fn tidy(&mut self) -> Result<bool, Problem>;

    /// The last event that was dropped to make room.
    fn dropped_through(&self) -> u64 {
        0
    }

    /// The error for a problem that ends the work.
    fn error(&self, problem: Problem) -> Error;
}
