//! A writer thread: takes a batch, prepares it, waits for its turn, commits it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender};

use super::histogram::Tally;
use super::shared::CommitNotice;
use super::sink::{Refusal, Sink};
use super::ticket::Gate;
use super::{Batch, Shared};
use crate::error::Error;
use crate::unix_time::now_ns;

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
        let mut delays = self.shared.counters.histograms.delays.tally();
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
                self.shared.progress.committed(epoch.number, batch.after());
                let _ = self.notices.send((Arc::clone(epoch), batch.after()));
            }
            self.note_delays(&batch, &mut delays);
            batch.clear();
        }
        Ok(())
    }

    /// Tries until the commit succeeds; `false` where `quit` was raised or the sink was closed before.
    fn commit(&mut self, batch: &Batch) -> Result<bool, Error> {
        let mut pause = PAUSE.0;
        loop {
            let began = Instant::now();
            match self.sink.commit(batch) {
                Ok(done) => {
                    self.shared.sink.recover();
                    let counters = &self.shared.counters;
                    counters.histograms.commits.add_duration(began.elapsed());
                    counters.histograms.batches.add(batch.len() as u64);
                    counters.last_commit.set(SystemTime::now());
                    counters.committed.add(batch.len());
                    counters.committed_bytes.add(batch.bytes());
                    counters.dead_letters.add(done.dead_letters);
                    counters.unmatched_dropped.add(done.unmatched_dropped);
                    counters.markers_skipped.add(done.markers_skipped);
                    counters.duplicates.add(done.repeated);
                    counters.confirmations_dropped.add(done.confirmations_dropped);
                    counters.batches.add(1);
                    return Ok(true);
                }
                Err(Refusal::Retry(problem)) => {
                    self.shared.counters.commit_failures.add(1);
                    self.shared.sink.degrade(problem.to_string());
                }
                Err(Refusal::Fatal(error)) => return Err(error),
                Err(Refusal::Closed) => return Ok(false),
            }
            if self.shared.quit.wait(pause) {
                return Ok(false);
            }
            pause = (pause * 2).min(PAUSE.1);
        }
    }
    /// Counts how long after its publishing each delivery was committed. Other writers may commit meanwhile.
    fn note_delays(&self, batch: &Batch, delays: &mut Tally) {
        let now = now_ns();
        for published in batch.published_ns().filter(|published| *published > 0) {
            // The server's clock may be ahead of this one.
            delays.add(u64::try_from(now - published).unwrap_or(0));
        }
        self.shared.counters.histograms.delays.take(delays);
    }
}
