//! A writer thread: offers itself, takes a batch, waits for its turn, commits.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use super::sink::{Refusal, Sink};
use super::ticket::Gate;
use super::{Batch, Notice, Shared};
use crate::error::Error;

/// Pauses between tries while the sink is unwell: the first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

pub(super) struct Writer<S> {
    pub(super) sink: S,
    pub(super) gate: Arc<Gate>,
    pub(super) work: Receiver<Batch>,
    pub(super) spare: Sender<Batch>,
    pub(super) notices: Sender<Notice>,
    pub(super) shared: Shared,
}

impl<S: Sink> Writer<S> {
    /// Works until the intake has ended and nothing is left, or until the pipeline is told to quit.
    pub(super) fn run(mut self, mut batch: Batch) -> Result<(), Error> {
        while self.spare.send(batch).is_ok() {
            let Ok(taken) = self.work.recv() else { break };
            batch = taken;
            self.sink.prepare(&batch);
            let gate = Arc::clone(&self.gate);
            let Some(turn) = gate.enter(batch.ticket()) else { break };
            if !self.commit(&batch)? {
                break;
            }
            turn.done();
            if let Some(epoch) = batch.epoch() {
                let _ = self.notices.send((Arc::clone(epoch), batch.after()));
            }
            batch.clear();
        }
        Ok(())
    }

    /// Tries for as long as it takes; `false` when told to quit before it succeeded.
    fn commit(&mut self, batch: &Batch) -> Result<bool, Error> {
        let mut pause = PAUSE.0;
        loop {
            match self.sink.commit(batch) {
                Ok(done) => {
                    self.shared.sink.recover();
                    let counters = &self.shared.counters;
                    counters.committed.add(batch.len());
                    counters.dead_letters.add(done.dead_letters);
                    counters.unmatched_dropped.add(done.unmatched_dropped);
                    counters.unconfirmed.add(done.unconfirmed);
                    counters.batches.add(1);
                    return Ok(true);
                }
                Err(Refusal::Retry(reason)) => self.shared.sink.degrade(reason),
                Err(Refusal::Fatal(error)) => return Err(error),
            }
            if self.shared.quit.wait(pause) {
                return Ok(false);
            }
            pause = (pause * 2).min(PAUSE.1);
        }
    }
}
