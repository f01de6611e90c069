//! The running pipeline: its threads, from start to stop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::batch::Batch;
use super::batcher::Batcher;
use super::intake::Intake;
use super::settings::Settings;
use super::shared::Shared;
use super::sink::Sink;
use super::thread_group::ThreadGroup;
use super::ticket::Gate;
use super::writer::Writer;
use crate::config::BatchConfig;
use crate::deadline;
use crate::error::Error;

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

    /// Blocks until the pipeline has ended, at most for `timeout`. Returns whether it has ended.
    ///
    /// # Errors
    ///
    /// The first error or panic of a thread.
    pub fn wait(&self, timeout: Duration) -> Result<bool, Error> {
        self.thread_group.join_until(deadline::after(timeout))
    }

    /// Whether all threads have ended. Does not block.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread_group.running().is_empty()
    }

    /// Receives no more, commits what was received, and joins all threads. Blocks at most for `timeout`. After that time nothing
    /// more is committed, and a thread that hangs in a call is left running. Can be called again, also by several threads at a time.
    ///
    /// # Errors
    ///
    /// [`Error::StopDeadline`] with the names of the threads, or the first error of a thread.
    pub fn stop(&self, timeout: Duration) -> Result<(), Error> {
        /// The part of `timeout` that threads get to end after `quit` is raised.
        const QUIT_TIME: Duration = Duration::from_millis(500);
        let until = deadline::after(timeout);
        self.shared.stop.raise();
        let drained = self.thread_group.join_until(deadline::after(timeout.saturating_sub(QUIT_TIME)));
        let unfinished = self.thread_group.running();
        self.shared.quit.raise();
        if let Ok(true) = drained {
            return Ok(());
        }
        // All threads are joined, whatever the first error was. Later errors usually follow from the first, which is returned.
        self.thread_group.join_all_until(until);
        drained?;
        Err(Error::StopDeadline { waited: timeout, unfinished, kept: true })
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
