//! From an intake to a sink: one thread cuts batches, a pool of writers commits them in order.
//!
//! Knows neither NATS nor SQL. Memory is bounded by construction: there are as many batches as writers and one more, and
//! they go round. A writer that is free offers an empty batch for a full one; only then does the intake thread hand over,
//! and until then it goes on filling, so batches grow by themselves while the database is busy and stay small when
//! it is not. When no writer is free and the batch is full, the intake is not asked for more.

mod batch;
mod condition;
mod confirmation;
mod crew;
mod intake;
mod signal;
mod sink;
mod tally;
mod ticket;
mod writer;

pub use batch::{Batch, Defect, Delivery, Epoch, Headers, Limits, Mark, Position};
pub use condition::{Condition, Health, Trouble};
pub use confirmation::Confirmation;
pub use crew::Crew;
pub use intake::{Intake, Supply};
pub use signal::Signal;
pub use sink::{Committed, Refusal, Sink};
pub use tally::{Counter, Tally};

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::config::BatchConfig;
use crate::deadline;
use crate::error::Error;
use ticket::Gate;
use writer::Writer;

/// How often the intake thread looks up from filling a batch that no writer has asked for yet.
const TOP_UP: Duration = Duration::from_millis(1);

/// How long an idle intake blocks at a time; a stop wakes it at once.
const IDLE: Duration = Duration::from_secs(1);

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
    pub tally: Arc<Tally>,
    /// How the sink is doing.
    pub sink: Condition,
}

impl Shared {
    /// A pipeline's shared state, nothing raised, nothing counted. `sink` is what the log calls the sink.
    #[must_use]
    pub fn new(sink: &'static str) -> Self {
        Self { stop: Signal::default(), quit: Signal::default(), tally: Arc::default(), sink: Condition::new(sink) }
    }
}

/// A running pipeline.
#[derive(Debug)]
pub struct Pipeline {
    crew: Crew,
    shared: Shared,
}

/// What a writer tells the intake: this much is committed.
type Notice = (Arc<Epoch>, Mark);

impl Pipeline {
    /// Starts the intake thread and one writer thread a sink.
    pub fn start(intake: impl Intake, sinks: Vec<impl Sink>, settings: Settings, shared: Shared) -> Self {
        let (work_in, work_out) = crossbeam_channel::bounded(sinks.len());
        let (spare_in, spare_out) = crossbeam_channel::bounded(sinks.len());
        let (notice_in, notice_out) = crossbeam_channel::unbounded();
        let gate = Arc::new(Gate::default());
        let mut crew = Crew::new(shared.stop.clone());
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
            crew.spawn(format!("catchment-writer-{number}"), move || writer.run(batch));
        }
        let desk = Desk {
            intake,
            settings,
            work: work_in,
            spare: spare_out,
            notices: notice_out,
            shared: shared.clone(),
            next_ticket: 0,
        };
        crew.spawn("catchment-intake", move || desk.run());
        Self { crew, shared }
    }

    /// Blocks until the pipeline has ended by itself, at most for `wait`. `true` when it has.
    ///
    /// # Errors
    ///
    /// What made a thread fail, or the panic of one.
    pub fn wait(&mut self, wait: Duration) -> Result<bool, Error> {
        self.crew.join_until(deadline::after(wait))
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
        let drained = self.crew.join_until(deadline::after(patience.saturating_sub(LEAVE)));
        let unfinished = self.crew.running();
        self.shared.quit.raise();
        if let Ok(true) = drained {
            return Ok(());
        }
        // The others are joined whatever the first failure was; a second one would say less than the first.
        while self.crew.join_until(until).is_err() {}
        drained?;
        Err(Error::StopDeadline { waited: patience, unfinished, kept: true })
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.shared.stop.raise();
        self.shared.quit.raise();
        // Whoever opens the database next must find the last commit in it.
        while self.crew.join_until(Instant::now() + Duration::from_secs(1)).is_err() {}
    }
}

/// The intake thread's side of the channels.
struct Desk<I> {
    intake: I,
    settings: Settings,
    work: Sender<Batch>,
    spare: Receiver<Batch>,
    notices: Receiver<Notice>,
    shared: Shared,
    next_ticket: u64,
}

/// What came of waiting for a free writer.
enum Writers {
    Free(Batch),
    Busy,
    Gone,
}

impl<I: Intake> Desk<I> {
    fn run(mut self) -> Result<(), Error> {
        let mut batch = Batch::new(self.settings.limits);
        let mut counted = 0;
        loop {
            let wait = if batch.is_empty() { IDLE } else { Duration::ZERO };
            let stopping = self.shared.stop.is_raised();
            let supply = if batch.is_full() {
                Supply::Flowing
            } else if stopping {
                self.intake.rest(&mut batch)?
            } else {
                self.intake.fill(&mut batch, wait)?
            };
            self.shared.tally.received.add(batch.len() - counted);
            counted = batch.len();
            for (epoch, last) in self.notices.try_iter() {
                self.intake.committed(&epoch, last);
            }
            let ending = supply == Supply::Ended;
            if batch.is_empty() {
                if ending {
                    break;
                }
                continue;
            }
            match self.free_writer(stopping || ending || batch.is_full()) {
                Writers::Busy => {}
                Writers::Gone => return Ok(()),
                Writers::Free(spare) => {
                    if !stopping && !ending {
                        self.top_up(&mut batch)?;
                        self.shared.tally.received.add(batch.len() - counted);
                    }
                    batch.set_ticket(self.next_ticket);
                    self.next_ticket += 1;
                    if self.work.send(batch).is_err() || ending {
                        break;
                    }
                    batch = spare;
                    counted = 0;
                }
            }
        }
        self.hear_the_last();
        Ok(())
    }

    /// Lets the writers come to their end and tells the intake what they committed.
    fn hear_the_last(self) {
        let Self { mut intake, work, notices, shared, .. } = self;
        drop(work);
        loop {
            crossbeam_channel::select! {
                recv(notices) -> notice => match notice {
                    Ok((epoch, last)) => intake.committed(&epoch, last),
                    Err(_) => return,
                },
                recv(shared.quit.channel()) -> _ => return,
            }
        }
    }

    /// Waits for a writer: shortly when the batch can still grow, as long as it takes when it cannot.
    fn free_writer(&self, as_long_as_it_takes: bool) -> Writers {
        let wait = if as_long_as_it_takes { IDLE } else { TOP_UP };
        loop {
            match self.spare.recv_timeout(wait) {
                Ok(spare) => return Writers::Free(spare),
                Err(RecvTimeoutError::Disconnected) => return Writers::Gone,
                Err(RecvTimeoutError::Timeout) if self.shared.quit.is_raised() => return Writers::Gone,
                Err(RecvTimeoutError::Timeout) if as_long_as_it_takes => {}
                Err(RecvTimeoutError::Timeout) => return Writers::Busy,
            }
        }
    }

    /// Takes along what came while no writer was free, and waits for more if `linger` says so.
    fn top_up(&mut self, batch: &mut Batch) -> Result<(), Error> {
        let until = deadline::after(self.settings.linger);
        while !batch.is_full() {
            let before = batch.len();
            let left = until.saturating_duration_since(Instant::now());
            let supply = self.intake.fill(batch, left)?;
            let stood_still = batch.len() == before;
            if supply == Supply::Ended || stood_still || self.shared.stop.is_raised() {
                break;
            }
            if self.settings.linger.is_zero() {
                break;
            }
        }
        Ok(())
    }
}
