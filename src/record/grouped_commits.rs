//! Commits of many events at a time: a commit queue with the pipeline that commits its events into a file, whose lock it holds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::commit_queue::CommitQueue;
use super::{FailureReason, FlushError, Overflow};
use crate::error::Error;
use crate::event::Event;
use crate::pipeline::{Batch, Committed, Condition, Epoch, Pipeline, Refusal, Settings, Shared, Sink};
use crate::store::Lock;

#[derive(Debug)]
pub(super) struct GroupedCommits {
    queue: Arc<CommitQueue>,
    overflow: Overflow,
    pipeline: Pipeline,
    condition: Condition,
}

/// A sink that keeps the file's lock until its thread has ended, also where the recorder was closed or dropped before: while a
/// commit hangs, nobody else may write.
struct LockedSink<S> {
    sink: S,
    _lock: Arc<Lock>,
}

impl<S: Sink> Sink for LockedSink<S> {
    fn prepare(&mut self, batch: &Batch) {
        self.sink.prepare(batch);
    }

    fn commit(&mut self, batch: &Batch) -> Result<Committed, Refusal> {
        self.sink.commit(batch)
    }
}

impl GroupedCommits {
    /// Starts the threads that commit into the file of this lock.
    ///
    /// # Errors
    ///
    /// [`Error::Thread`].
    pub(super) fn start<S: Sink>(
        epoch: Epoch,
        sinks: Vec<S>,
        lock: &Arc<Lock>,
        settings: Settings,
        overflow: Overflow,
    ) -> Result<Self, Error> {
        let queue = Arc::new(CommitQueue::new(epoch, settings.limits));
        let shared = Shared::new("database");
        let condition = shared.sink.clone();
        let sinks = sinks.into_iter().map(|sink| {
            let sink = LockedSink { sink, _lock: Arc::clone(lock) };
            queue.notified_by(sink, &condition)
        });
        let pipeline = Pipeline::start(queue.intake(), sinks.collect(), settings, shared)?;
        Ok(Self { queue, overflow, pipeline, condition })
    }

    pub(super) fn queue(&self) -> &Arc<CommitQueue> {
        &self.queue
    }

    /// What prevents commits.
    pub(super) fn condition(&self) -> &Condition {
        &self.condition
    }

    /// Adds an event and returns its number. Where there is no room in memory, waits as the settings say.
    pub(super) fn enqueue(&self, event: &Event) -> Result<u64, FailureReason> {
        self.queue.enqueue(event, self.overflow, |_| {})
    }

    /// As [`GroupedCommits::enqueue`]. Waits until then at the latest, and calls `taken` with the number before the event can be committed.
    pub(super) fn enqueue_until(
        &self,
        event: &Event,
        until: Instant,
        taken: impl FnOnce(u64),
    ) -> Result<u64, FailureReason> {
        let timeout = until.saturating_duration_since(Instant::now());
        self.queue.enqueue(event, Overflow::Block(timeout), taken)
    }

    /// Commits what is in the queue, and ends. Blocks at most for `timeout`. Fails with the events that are not committed.
    pub(super) fn end(&self, timeout: Duration) -> Result<(), FlushError> {
        self.queue.close();
        match self.pipeline.stop(timeout) {
            // The queue already has the reason why a commit does not end.
            Ok(()) | Err(Error::StopDeadline { .. }) => {}
            Err(error) => self.queue.set_failure(&error),
        }
        self.queue.abandon()
    }
}
