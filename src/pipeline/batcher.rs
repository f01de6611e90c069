//! The intake thread: makes batches of what the intake yields, numbers them, and passes them to the writers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use parking_lot::Mutex;

use super::shared::CommitNotice;
use super::{Batch, Intake, IntakeState, Settings, Shared};
use crate::deadline;
use crate::error::Error;

/// How long to wait for a free writer before filling the batch further.
const FREE_WRITER_WAIT: Duration = Duration::from_millis(1);

/// How long an idle intake blocks at a time. A stop wakes it at once.
const IDLE: Duration = Duration::from_secs(1);

/// The intake thread's side of the channels.
pub(super) struct Batcher<I> {
    intake: I,
    /// They may be replaced: read for each batch.
    settings: Arc<Mutex<Settings>>,
    work: Sender<Batch>,
    spare: Receiver<Batch>,
    /// The batch to fill while a full one is queued for the next free writer.
    reserve: Option<Batch>,
    notices: Receiver<CommitNotice>,
    shared: Shared,
    next_ticket: u64,
}

/// The result of waiting for a free writer.
enum Writers {
    /// The current batch may be sent; here is an empty one to fill next.
    Free(Batch),
    Busy,
    /// All writers have ended.
    Gone,
}

/// What of the current batch is counted as received.
#[derive(Default)]
struct Counted {
    events: usize,
    bytes: usize,
}

impl Counted {
    /// Counts what the batch has in addition.
    fn add_new(&mut self, batch: &Batch, shared: &Shared) {
        let now = Self { events: batch.len(), bytes: batch.bytes() };
        shared.counters.received.add(now.events - self.events);
        shared.counters.received_bytes.add(now.bytes - self.bytes);
        *self = now;
    }
}

impl<I: Intake> Batcher<I> {
    pub(super) fn new(
        intake: I,
        settings: Arc<Mutex<Settings>>,
        work: Sender<Batch>,
        spare: Receiver<Batch>,
        notices: Receiver<CommitNotice>,
        shared: Shared,
    ) -> Self {
        let reserve = Some(Batch::new(settings.lock().limits));
        Self { intake, settings, work, spare, reserve, notices, shared, next_ticket: 0 }
    }

    /// Runs until the intake is drained or no writer is left.
    pub(super) fn run(mut self) -> Result<(), Error> {
        let mut batch = Batch::new(self.settings.lock().limits);
        let mut counted = Counted::default();
        loop {
            self.shared.counters.turns.add(1);
            let wait = if batch.is_empty() { IDLE } else { Duration::ZERO };
            let stopping = self.shared.stop.is_raised();
            let state = if batch.is_full() {
                IntakeState::Open
            } else if stopping {
                self.intake.drain(&mut batch)?
            } else {
                self.intake.fill(&mut batch, wait)?
            };
            counted.add_new(&batch, &self.shared);
            for (epoch, last) in self.notices.try_iter() {
                self.intake.committed(&epoch, last);
            }
            let is_last = state == IntakeState::Drained;
            if batch.is_empty() {
                if is_last {
                    break;
                }
                continue;
            }
            match self.free_writer(stopping || is_last || batch.is_full()) {
                Writers::Busy => {}
                Writers::Gone => return Ok(()),
                Writers::Free(spare) => {
                    if !stopping && !is_last {
                        self.top_up(&mut batch)?;
                        counted.add_new(&batch, &self.shared);
                    }
                    batch.set_ticket(self.next_ticket);
                    self.next_ticket += 1;
                    if self.work.send(batch).is_err() || is_last {
                        break;
                    }
                    batch = spare;
                    batch.set_limits(self.settings.lock().limits);
                    counted = Counted::default();
                }
            }
        }
        self.pass_on_last_notices();
        Ok(())
    }

    /// Closes the writers' channel, so that they end after the batches in it. Reports their commits to the intake until then.
    fn pass_on_last_notices(self) {
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

    /// Waits for a free writer, briefly where the batch can still grow. A batch that cannot grow is queued instead, as long as
    /// there is a reserve to fill next.
    fn free_writer(&mut self, cannot_grow: bool) -> Writers {
        let wait = if cannot_grow { IDLE } else { FREE_WRITER_WAIT };
        loop {
            if let Some(reserve) = self.reserve.take_if(|_| cannot_grow) {
                return Writers::Free(reserve);
            }
            match self.spare.recv_timeout(wait) {
                Ok(spare) if self.reserve.is_some() => return Writers::Free(spare),
                // This writer takes the queued batch.
                Ok(spare) => self.reserve = Some(spare),
                Err(RecvTimeoutError::Disconnected) => return Writers::Gone,
                Err(RecvTimeoutError::Timeout) if self.shared.quit.is_raised() => return Writers::Gone,
                Err(RecvTimeoutError::Timeout) if cannot_grow => {}
                Err(RecvTimeoutError::Timeout) => return Writers::Busy,
            }
        }
    }

    /// Adds what arrived while no writer was free, and waits up to `linger` for more.
    fn top_up(&mut self, batch: &mut Batch) -> Result<(), Error> {
        let linger = self.settings.lock().linger;
        let until = deadline::after(linger);
        while !batch.is_full() {
            let before = batch.len();
            let left = until.saturating_duration_since(Instant::now());
            let state = self.intake.fill(batch, left)?;
            let is_unchanged = batch.len() == before;
            if state == IntakeState::Drained || is_unchanged || self.shared.stop.is_raised() {
                break;
            }
            if linger.is_zero() {
                break;
            }
        }
        Ok(())
    }
}
