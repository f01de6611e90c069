//! Whether the threads of a collector work, for a watchdog.

use super::Collector;

/// What the threads of a collector have done, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pulse {
    /// Turns of the intake's loop. An idle intake turns at least once a second; while all writers are busy, it waits for them.
    turns: u64,
    /// Steps of the writers.
    steps: u64,
    /// Events were received that are not committed.
    has_work: bool,
}

impl Pulse {
    /// Whether no thread hangs, judged by what was done since an earlier moment: the intake turns or waits for a writer that works, and
    /// writers that have work do it.
    pub(crate) fn beats_since(self, earlier: Self) -> bool {
        let (turned, stepped) = (self.turns != earlier.turns, self.steps != earlier.steps);
        let has_waited = earlier.has_work && self.has_work;
        stepped || (turned && !has_waited)
    }
}

impl Collector {
    /// What shows whether its threads work. Does not block.
    pub(crate) fn pulse(&self) -> Pulse {
        let counters = &self.parts.shared.counters;
        // In this order: an event that is committed meanwhile is no work.
        let committed = counters.committed.get();
        let has_work = counters.received.get() > committed;
        Pulse { turns: counters.turns.get(), steps: self.switch.steps(), has_work }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_hangs_stops_the_pulse() {
        let pulse = |turns, steps, has_work| Pulse { turns, steps, has_work };
        assert!(pulse(2, 1, false).beats_since(pulse(1, 1, false)), "an idle intake turns");
        assert!(!pulse(1, 1, false).beats_since(pulse(1, 1, false)), "the intake hangs");
        assert!(pulse(1, 2, true).beats_since(pulse(1, 1, true)), "it waits for a writer that works");
        assert!(!pulse(9, 1, true).beats_since(pulse(1, 1, true)), "a writer hangs, and the intake fills its batch");
        assert!(pulse(9, 1, true).beats_since(pulse(1, 1, false)), "the work has just come");
    }
}
