//! The last minutes of a collector: one sample a second.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::snapshot::Rates;
use crate::Status;
use crate::pipeline::Distribution;

/// How far back samples go.
pub(super) const KEPT: Duration = Duration::from_secs(300);

/// Rates are computed over this time.
const RATE_OVER: Duration = Duration::from_secs(10);

/// Percentiles are computed over this time.
const RECENT: Duration = Duration::from_secs(60);

/// The distributions of a collector are kept so often.
const DISTRIBUTIONS_EVERY: Duration = Duration::from_secs(5);

/// The counts of a collector at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) received: u64,
    pub(super) committed: u64,
    pub(super) dead_letters: u64,
    pub(super) batches: u64,
    pub(super) pending: u64,
    pub(super) queue: u64,
    pub(super) wal_bytes: u64,
    /// The median and the 99th percentile since the sample before, in seconds.
    pub(super) delay: Option<(f64, f64)>,
    pub(super) commit: Option<(f64, f64)>,
    /// The mean number of events of the batches since the sample before.
    pub(super) batch: Option<f64>,
}

/// The distributions of a collector at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Distributions {
    pub(super) commit: Distribution,
    pub(super) batch: Distribution,
    pub(super) delay: Distribution,
}

impl Distributions {
    pub(super) fn of(status: &Status) -> Self {
        Self {
            commit: status.commit_duration.clone(),
            batch: status.batch_events.clone(),
            delay: status.publish_to_commit.clone(),
        }
    }
}

/// Samples of the last minutes.
#[derive(Debug, Default)]
pub(super) struct History {
    samples: VecDeque<Sample>,
    distributions: VecDeque<(Instant, Distributions)>,
    /// Those of the last sample.
    last: Distributions,
}

impl History {
    /// Adds the counts of this moment, and the size of the WAL.
    pub(super) fn add(&mut self, at: Instant, status: &Status, wal_bytes: u64) {
        let now = Distributions::of(status);
        let percentiles = |now: &Distribution, then: &Distribution| {
            let since = now.since(then);
            Some((since.quantile(0.5)?, since.quantile(0.99)?))
        };
        self.samples.push_back(Sample {
            at,
            received: status.received,
            committed: status.committed,
            dead_letters: status.dead_letters,
            batches: status.batches,
            pending: status.pending,
            queue: status.queue_events,
            wal_bytes,
            delay: percentiles(&now.delay, &self.last.delay),
            commit: percentiles(&now.commit, &self.last.commit),
            batch: now.batch.since(&self.last.batch).mean(),
        });
        let is_due = self.distributions.back().is_none_or(|(last, _)| at - *last >= DISTRIBUTIONS_EVERY);
        if is_due {
            self.distributions.push_back((at, now.clone()));
        }
        self.last = now;
        drop_before(&mut self.samples, at, KEPT, |sample| sample.at);
        // One that is older than the time over which percentiles are computed stays, to begin there.
        drop_before(&mut self.distributions, at, RECENT + DISTRIBUTIONS_EVERY, |(at, _)| *at);
    }

    /// The samples, the latest last.
    pub(super) fn samples(&self) -> impl ExactSizeIterator<Item = &Sample> + DoubleEndedIterator {
        self.samples.iter()
    }

    /// The rates over the last ten seconds, up to this moment.
    #[allow(clippy::cast_precision_loss, reason = "a rate needs no more digits")]
    pub(super) fn rates(&self, at: Instant, status: &Status) -> Rates {
        let begin = self.samples.iter().rev().take_while(|sample| at - sample.at <= RATE_OVER).last();
        let Some(begin) = begin.filter(|begin| at > begin.at) else { return Rates::default() };
        let seconds = (at - begin.at).as_secs_f64();
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        Rates {
            over_seconds: seconds,
            received: rate(status.received, begin.received),
            committed: rate(status.committed, begin.committed),
            dead_letters: rate(status.dead_letters, begin.dead_letters),
            batches: rate(status.batches, begin.batches),
        }
    }

    /// The distributions a minute before this moment, or those of the first sample.
    pub(super) fn a_minute_before(&self, at: Instant) -> Distributions {
        let recent = self.distributions.iter().find(|(then, _)| at.saturating_duration_since(*then) <= RECENT);
        recent.map(|(_, distributions)| distributions.clone()).unwrap_or_default()
    }
}

fn drop_before<T>(entries: &mut VecDeque<T>, now: Instant, kept: Duration, at: impl Fn(&T) -> Instant) {
    while entries.front().is_some_and(|entry| now.saturating_duration_since(at(entry)) > kept) {
        entries.pop_front();
    }
}
