//! From an intake to a sink: one thread makes batches of deliveries, several writers commit the batches in order.
//!
//! Nothing here depends on NATS or SQL. Memory is bounded by construction: there are two batches more than writers, and they are
//! used again. A free writer exchanges its empty batch for one with deliveries. Until a writer is free, the intake thread goes on
//! filling its batch. So batches grow while the database is busy and stay small while it is not. A full batch is queued, so
//! the next free writer starts at once, and the intake thread fills another. When that one is full too, the intake thread waits
//! for a writer.

mod batch;
mod batcher;
mod condition;
mod confirmation;
mod counters;
mod delivery;
mod epoch;
mod gaps;
mod histogram;
mod incidents;
mod intake;
mod peer;
mod progress;
mod settings;
mod shared;
mod signal;
mod single_event;
mod sink;
mod thread_group;
mod ticket;
mod writer;

pub use batch::{Batch, Limits};
pub use condition::{Condition, Health, Trouble};
pub use confirmation::Confirmation;
pub use counters::{Counter, Counters};
pub use delivery::{Defect, Delivery, Headers};
pub use epoch::{Epoch, EpochProgress, Mark};
pub use gaps::{Gap, Gaps};
pub use histogram::{Distribution, Histogram};
pub use incidents::Incident;
pub use intake::{Intake, IntakeState};
pub use peer::{Connected, Peer};
pub use progress::{Position, Progress};
pub use settings::Settings;
pub use shared::Shared;
pub use signal::Signal;
pub use single_event::SingleEvent;
pub use sink::{Committed, Problem, Refusal, Sink};
pub(crate) use thread_group::panic_message;
pub use thread_group::{ThreadGroup, room_for_threads};

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::config::BatchConfig;
use crate::deadline;
use crate::error::Error;
use batcher::Batcher;
use ticket::Gate;
use writer::Writer;

/// Batches beside those of the writers: one is being filled, one may be queued.
const BESIDE_WRITERS: usize = 2;

/// How many events a pipeline holds between its intake and its sinks, at most.
#[must_use]
pub(crate) fn holds(batch: &BatchConfig, writers: usize) -> usize {
    batch.max_events * (writers + BESIDE_WRITERS)
}

/// A running pipeline.
#[derive(Debug)]
pub struct Pipeline {
    thread_group: ThreadGroup,
    settings: Arc<Mutex<Settings>>,
    shared: Shared,
}

impl Pipeline {
    /// Starts the intake thread and one writer thread for each sink.
    ///
    /// # Errors
    ///
    /// [`Error::Thread`]; no thread is left running then.
    pub fn start(
        intake: impl Intake,
        sinks: Vec<impl Sink>,
        settings: Settings,
        shared: Shared,
    ) -> Result<Self, Error> {
        // Declared before the channels and so dropped after them: where a thread cannot be started, the closed channels end
        // the others, and then this joins them.
        let (limits, settings) = (settings.limits, Arc::new(Mutex::new(settings)));
        let thread_group = ThreadGroup::new(shared.stop.clone());
        let mut pipeline = Self { thread_group, settings: Arc::clone(&settings), shared: shared.clone() };
        // The channels have room for all batches, so sending never blocks.
        let batches = sinks.len() + BESIDE_WRITERS;
        let (work_in, work_out) = crossbeam_channel::bounded(batches);
        let (spare_in, spare_out) = crossbeam_channel::bounded(batches);
        let (notice_in, notice_out) = crossbeam_channel::unbounded();
        let gate = Arc::new(Gate::default());
        let end = shared.progress.end_on_drop();
        for (number, sink) in sinks.into_iter().enumerate() {
            let writer = Writer {
                sink,
                gate: Arc::clone(&gate),
                work: work_out.clone(),
                spare: spare_in.clone(),
                notices: notice_in.clone(),
                shared: shared.clone(),
            };
            let (batch, end) = (Batch::new(limits), end.clone());
            pipeline.thread_group.spawn(format!("catchment-writer-{number}"), move || {
                let _end = end;
                writer.run(batch)
            })?;
        }
        let batching = Batcher::new(intake, settings, work_in, spare_out, notice_out, shared);
        pipeline.thread_group.spawn("catchment-intake", move || {
            let _end = end;
            batching.run()
        })?;
        Ok(pipeline)
    }

    /// Replaces the settings: each batch that begins after this call has the new ones. Does not block.
    pub fn set(&self, settings: Settings) {
        *self.settings.lock() = settings;
    }

    /// Blocks until the pipeline has ended, at most for `wait`. Returns whether it has ended.
    ///
    /// # Errors
    ///
    /// The first error or panic of a thread.
    pub fn wait(&self, wait: Duration) -> Result<bool, Error> {
        self.thread_group.join_until(deadline::after(wait))
    }

    /// Whether all threads have ended. Does not block.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread_group.running().is_empty()
    }

    /// Receives no more, commits what was received, and joins all threads. Blocks at most for `patience`. After that time nothing
    /// more is committed, and a thread that hangs in a call is left running. Can be called again, also by several threads at a time.
    ///
    /// # Errors
    ///
    /// [`Error::StopDeadline`] with the names of the threads, or the first error of a thread.
    pub fn stop(&self, patience: Duration) -> Result<(), Error> {
        /// The part of `patience` that threads get to end after `quit` is raised.
        const QUIT_TIME: Duration = Duration::from_millis(500);
        let until = deadline::after(patience);
        self.shared.stop.raise();
        let drained = self.thread_group.join_until(deadline::after(patience.saturating_sub(QUIT_TIME)));
        let unfinished = self.thread_group.running();
        self.shared.quit.raise();
        if let Ok(true) = drained {
            return Ok(());
        }
        // All threads are joined, whatever the first error was. Later errors usually follow from the first, which is returned.
        self.thread_group.join_all_until(until);
        drained?;
        Err(Error::StopDeadline { waited: patience, unfinished, kept: true })
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.shared.stop.raise();
        self.shared.quit.raise();
        // Where the caller opens the database next, the last commit must be in it.
        self.thread_group.join_all_until(Instant::now() + Duration::from_secs(1));
    }
}

#[cfg(test)]
mod tests;
