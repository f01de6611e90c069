//! The rates between looks.

use std::collections::VecDeque;
use std::time::Instant;

use super::watch::Look;
use crate::observe::Totals;

/// How many looks are kept.
const KEPT: usize = 240;

/// Events a second between two looks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    pub received: f64,
    pub committed: f64,
    pub dead_letters: f64,
    /// How many events each batch had; `None` without a batch.
    pub batch_events: Option<f64>,
    /// The part of one processor that the process used.
    pub cpu: f64,
}

/// Rates of the last looks. A look without an answer, and the first look at a collector, have none.
#[derive(Default)]
pub struct Series {
    before: Option<Counts>,
    rates: VecDeque<Option<Rates>>,
}

struct Counts {
    at: Instant,
    started: String,
    totals: Totals,
    cpu_seconds: f64,
}

impl Series {
    /// Adds a look.
    #[allow(clippy::cast_precision_loss, reason = "rates need few digits")]
    pub fn add(&mut self, look: &Look) {
        let counts = look.found.as_ref().ok().map(|snapshot| Counts {
            at: look.at,
            started: snapshot.program.started.clone(),
            totals: snapshot.totals,
            cpu_seconds: snapshot.process.cpu_seconds,
        });
        let rates = match (&self.before, &counts) {
            (Some(before), Some(now)) if before.started == now.started && now.at > before.at => {
                let seconds = (now.at - before.at).as_secs_f64();
                let more = |now: u64, before: u64| now.saturating_sub(before) as f64;
                let batches = more(now.totals.batches, before.totals.batches);
                let committed = more(now.totals.committed, before.totals.committed);
                Some(Rates {
                    received: more(now.totals.received, before.totals.received) / seconds,
                    committed: committed / seconds,
                    dead_letters: more(now.totals.dead_letters, before.totals.dead_letters) / seconds,
                    batch_events: (batches > 0.0).then_some(committed / batches),
                    cpu: (now.cpu_seconds - before.cpu_seconds).max(0.0) / seconds,
                })
            }
            _ => None,
        };
        self.before = counts;
        self.rates.push_back(rates);
        if self.rates.len() > KEPT {
            self.rates.pop_front();
        }
    }

    /// The rates of the last look.
    pub fn last(&self) -> Option<Rates> {
        self.rates.back().copied().flatten()
    }

    /// One figure of each look, the latest last.
    pub fn of(&self, figure: impl Fn(&Rates) -> f64) -> Vec<f64> {
        self.rates.iter().map(|rates| rates.as_ref().map_or(0.0, &figure)).collect()
    }
}
