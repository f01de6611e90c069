//! A writer thread: takes a batch, prepares it, waits for its turn, commits it.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use super::shared::CommitNotice;
use super::sink::{Refusal, Sink};
use super::ticket::Gate;
use super::{Batch, Shared};
use crate::error::Error;

/// Pauses between attempts while the sink fails: the first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

pub(super) struct Writer<S> {
    pub(super) sink: S,
    pub(super) gate: Arc<Gate>,
    pub(super) work: Receiver<Batch>,
    pub(super) spare: Sender<Batch>,
    pub(super) notices: Sender<CommitNotice>,
    pub(super) shared: Shared,
}

impl<S: Sink> Writer<S> {
    /// Runs until the intake has ended and all batches are committed, or until `quit` is raised.
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
                self.shared.progress.committed(epoch.number, batch.after().sequence);
                let _ = self.notices.send((Arc::clone(epoch), batch.after()));
            }
            batch.clear();
        }
        Ok(())
    }

    /// Tries until the commit succeeds; `false` where `quit` was raised or the sink was closed before.
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
                    counters.markers_skipped.add(done.markers_skipped);
                    counters.duplicates.add(done.repeated);
                    counters.confirmations_dropped.add(done.confirmations_dropped);
                    counters.batches.add(1);
                    return Ok(true);
                }
                Err(Refusal::Retry(problem)) => self.shared.sink.degrade(problem.to_string()),
                Err(Refusal::Fatal(error)) => return Err(error),
                Err(Refusal::Closed) => return Ok(false),
            }
            if self.shared.quit.wait(pause) {
                return Ok(false);
            }
            pause = (pause * 2).min(PAUSE.1);
        }
    }
}
