//! The intake thread: cuts what the intake yields into batches, numbers them, hands them to the writers.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::{Batch, Intake, IntakeState, Notice, Settings, Shared};
use crate::deadline;
use crate::error::Error;

/// How often to look up from filling a batch that no writer has asked for yet.
const TOP_UP: Duration = Duration::from_millis(1);

/// How long an idle intake blocks at a time; a stop wakes it at once.
const IDLE: Duration = Duration::from_secs(1);

/// The intake thread's side of the channels.
pub(super) struct Batcher<I> {
    intake: I,
    settings: Settings,
    work: Sender<Batch>,
    spare: Receiver<Batch>,
    /// Taken while a full batch waits for the next free writer.
    reserve: Option<Batch>,
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

impl<I: Intake> Batcher<I> {
    pub(super) fn new(
        intake: I,
        settings: Settings,
        work: Sender<Batch>,
        spare: Receiver<Batch>,
        notices: Receiver<Notice>,
        shared: Shared,
    ) -> Self {
        let reserve = Some(Batch::new(settings.limits));
        Self { intake, settings, work, spare, reserve, notices, shared, next_ticket: 0 }
    }

    /// Works until the intake has ended, or no writer is left.
    pub(super) fn run(mut self) -> Result<(), Error> {
        let mut batch = Batch::new(self.settings.limits);
        let mut counted = 0;
        loop {
            let wait = if batch.is_empty() { IDLE } else { Duration::ZERO };
            let stopping = self.shared.stop.is_raised();
            let supply = if batch.is_full() {
                IntakeState::Open
            } else if stopping {
                self.intake.drain(&mut batch)?
            } else {
                self.intake.fill(&mut batch, wait)?
            };
            self.shared.counters.received.add(batch.len() - counted);
            counted = batch.len();
            for (epoch, last) in self.notices.try_iter() {
                self.intake.committed(&epoch, last);
            }
            let ending = supply == IntakeState::Drained;
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
                        self.shared.counters.received.add(batch.len() - counted);
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

    /// Waits for a writer: shortly when the batch can still grow. One that cannot need not wait for it here.
    fn free_writer(&mut self, cannot_grow: bool) -> Writers {
        let wait = if cannot_grow { IDLE } else { TOP_UP };
        loop {
            if let Some(reserve) = self.reserve.take_if(|_| cannot_grow) {
                return Writers::Free(reserve);
            }
            match self.spare.recv_timeout(wait) {
                Ok(spare) if self.reserve.is_some() => return Writers::Free(spare),
                // This writer takes the batch that waits.
                Ok(spare) => self.reserve = Some(spare),
                Err(RecvTimeoutError::Disconnected) => return Writers::Gone,
                Err(RecvTimeoutError::Timeout) if self.shared.quit.is_raised() => return Writers::Gone,
                Err(RecvTimeoutError::Timeout) if cannot_grow => {}
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
            if supply == IntakeState::Drained || stood_still || self.shared.stop.is_raised() {
                break;
            }
            if self.settings.linger.is_zero() {
                break;
            }
        }
        Ok(())
    }
}
