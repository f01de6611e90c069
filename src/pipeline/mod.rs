//! From an intake to a sink: one thread cuts batches, a pool of writers commits them in order.
//!
//! Knows neither NATS nor SQL. Memory is bounded by construction: there are two batches more than writers, and they go
//! round. A writer that is free offers an empty batch for one with deliveries; only then does the intake thread hand over,
//! and until then it goes on filling, so batches grow by themselves while the database is busy and stay small when it is
//! not. A batch that is full cannot grow: one such waits for the next free writer, who so waits for nobody. When there is
//! one and the next is full too, the intake is not asked for more.

mod batch;
mod batcher;
mod condition;
mod confirmation;
mod counters;
mod gaps;
mod intake;
mod signal;
mod sink;
mod thread_group;
mod ticket;
mod writer;

pub use batch::{Batch, Defect, Delivery, Epoch, EpochProgress, Headers, Limits, Mark};
pub use condition::{Condition, Health, Trouble};
pub use confirmation::Confirmation;
pub use counters::{Counter, Counters};
pub use gaps::{Gap, Gaps};
pub use intake::{Intake, IntakeState};
pub use signal::Signal;
pub use sink::{Committed, Refusal, Sink};
pub use thread_group::{ThreadGroup, room_for_threads};

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::BatchConfig;
use crate::deadline;
use crate::error::Error;
use batcher::Batcher;
use ticket::Gate;
use writer::Writer;

/// Batches beside those of the writers: one is being filled, one may wait.
const BESIDE_WRITERS: usize = 2;

/// How many events a pipeline holds between its intake and its sinks, at most.
#[must_use]
pub(crate) fn holds(batch: &BatchConfig, writers: usize) -> usize {
    batch.max_events * (writers + BESIDE_WRITERS)
}

/// What the pipeline is run with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The size of a batch.
    pub limits: Limits,
    /// How long a batch waits for more once a writer is free.
    pub linger: Duration,
}

impl From<&BatchConfig> for Settings {
    fn from(config: &BatchConfig) -> Self {
        let bytes = usize::try_from(config.max_bytes.as_u64()).unwrap_or(usize::MAX);
        Self { limits: Limits { events: config.max_events, bytes }, linger: config.linger }
    }
}

/// What all threads of a pipeline share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Raised: take in no more, commit what is there, end.
    pub stop: Signal,
    /// Raised: end now, without what is not committed.
    pub quit: Signal,
    /// Counts.
    pub counters: Arc<Counters>,
    /// How the sink is doing.
    pub sink: Condition,
}

impl Shared {
    /// A pipeline's shared state, nothing raised, nothing counted. `sink` is what the log calls the sink.
    #[must_use]
    pub fn new(sink: &'static str) -> Self {
        Self { stop: Signal::default(), quit: Signal::default(), counters: Arc::default(), sink: Condition::new(sink) }
    }
}

/// A running pipeline.
#[derive(Debug)]
pub struct Pipeline {
    thread_group: ThreadGroup,
    shared: Shared,
}

/// What a writer tells the intake: this much is committed.
type Notice = (Arc<Epoch>, Mark);

impl Pipeline {
    /// Starts the intake thread and one writer thread a sink.
    ///
    /// # Errors
    ///
    /// [`Error::Thread`]; then none of them runs.
    pub fn start(
        intake: impl Intake,
        sinks: Vec<impl Sink>,
        settings: Settings,
        shared: Shared,
    ) -> Result<Self, Error> {
        // Dropped after the channels where a thread is missing: that ends the others.
        let mut pipeline = Self { thread_group: ThreadGroup::new(shared.stop.clone()), shared: shared.clone() };
        // Room for all batches there are: nobody waits to hand one on.
        let batches = sinks.len() + BESIDE_WRITERS;
        let (work_in, work_out) = crossbeam_channel::bounded(batches);
        let (spare_in, spare_out) = crossbeam_channel::bounded(batches);
        let (notice_in, notice_out) = crossbeam_channel::unbounded();
        let gate = Arc::new(Gate::default());
        for (number, sink) in sinks.into_iter().enumerate() {
            let writer = Writer {
                sink,
                gate: Arc::clone(&gate),
                work: work_out.clone(),
                spare: spare_in.clone(),
                notices: notice_in.clone(),
                shared: shared.clone(),
            };
            let batch = Batch::new(settings.limits);
            pipeline.thread_group.spawn(format!("catchment-writer-{number}"), move || writer.run(batch))?;
        }
        let batching = Batcher::new(intake, settings, work_in, spare_out, notice_out, shared);
        pipeline.thread_group.spawn("catchment-intake", move || batching.run())?;
        Ok(pipeline)
    }

    /// Blocks until the pipeline has ended by itself, at most for `wait`. `true` when it has.
    ///
    /// # Errors
    ///
    /// What made a thread fail, or the panic of one.
    pub fn wait(&mut self, wait: Duration) -> Result<bool, Error> {
        self.thread_group.join_until(deadline::after(wait))
    }

    /// Takes in no more, commits what is there, and joins all threads. At the deadline what is not committed is left,
    /// and a thread that hangs in a call is left behind.
    ///
    /// # Errors
    ///
    /// [`Error::StopDeadline`] naming the threads, or what made one fail.
    pub fn stop(mut self, patience: Duration) -> Result<(), Error> {
        /// Kept back from the patience for threads to notice that they are to leave their work.
        const LEAVE: Duration = Duration::from_millis(500);
        let until = deadline::after(patience);
        self.shared.stop.raise();
        let drained = self.thread_group.join_until(deadline::after(patience.saturating_sub(LEAVE)));
        let unfinished = self.thread_group.running();
        self.shared.quit.raise();
        if let Ok(true) = drained {
            return Ok(());
        }
        // The others are joined whatever the first failure was; a second one would say less than the first.
        while self.thread_group.join_until(until).is_err() {}
        drained?;
        Err(Error::StopDeadline { waited: patience, unfinished, kept: true })
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.shared.stop.raise();
        self.shared.quit.raise();
        // Whoever opens the database next must find the last commit in it.
        while self.thread_group.join_until(Instant::now() + Duration::from_secs(1)).is_err() {}
    }
}

#[cfg(test)]
mod tests;
