//! Failed events whose receipts were dropped: the next flush returns them.

use std::mem::{Discriminant, discriminant};
use std::time::{Duration, Instant};

use super::{FailureReason, RecordError};

/// Of failures of one kind, one is logged in this time. Thousands of events may fail for the same reason.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Failed events for the next flush, within limits.
#[derive(Debug, Default)]
pub(super) struct Failures {
    kept: Vec<RecordError>,
    /// The number of failures that may be kept.
    max_events: usize,
    /// Bytes that may still be kept.
    bytes_left: usize,
    dropped: usize,
    /// Lines for the log. They are written after the lock is released, because logging may block.
    unlogged: Vec<String>,
    /// What was logged, one entry for each kind of failure.
    logged: Vec<Logged>,
}

/// The last line that was logged about failures of one kind.
#[derive(Debug)]
struct Logged {
    kind: Discriminant<FailureReason>,
    at: Instant,
    /// How many failures of this kind followed, which were not logged.
    since: u64,
}

impl Failures {
    /// Keeps at most this many events and bytes.
    pub(super) fn within(events: usize, bytes: usize) -> Self {
        Self { max_events: events, bytes_left: bytes, ..Self::default() }
    }

    /// Keeps a failure, or only counts it where it exceeds the limits. Log [`Failures::unlogged`] afterwards.
    pub(super) fn keep(&mut self, failure: RecordError) {
        self.log(&failure, Instant::now());
        let size = failure.event.size();
        if self.kept.len() < self.max_events && size <= self.bytes_left {
            self.bytes_left -= size;
            self.kept.push(failure);
        } else {
            self.dropped += 1;
        }
    }

    /// Keeps a failure whatever the limits, and does not log it: the recorder ends, and its caller gets the failure at once.
    pub(super) fn keep_last(&mut self, failure: RecordError) {
        self.bytes_left = self.bytes_left.saturating_sub(failure.event.size());
        self.kept.push(failure);
    }

    /// Adds a line for the log, if none was added lately for a failure of this kind. Counts the failure otherwise.
    fn log(&mut self, failure: &RecordError, now: Instant) {
        let kind = discriminant(&failure.reason);
        match self.logged.iter_mut().find(|logged| logged.kind == kind) {
            Some(logged) if now.saturating_duration_since(logged.at) < LOG_INTERVAL => logged.since += 1,
            Some(logged) => {
                let more = match std::mem::take(&mut logged.since) {
                    0 => String::new(),
                    more => format!("; {more} more failed in this way since the last such line"),
                };
                logged.at = now;
                self.unlogged.push(format!("{failure}{more}"));
            }
            None => {
                self.unlogged.push(failure.to_string());
                self.logged.push(Logged { kind, at: now, since: 0 });
            }
        }
    }

    /// Logs the next failure, whatever was logged before.
    #[cfg(test)]
    pub(super) fn forget_lines(&mut self) {
        self.logged.clear();
    }

    /// Whether there are lines for the log.
    pub(super) fn has_unlogged(&self) -> bool {
        !self.unlogged.is_empty()
    }

    /// The lines for the log since the last call.
    pub(super) fn unlogged(&mut self) -> Vec<String> {
        std::mem::take(&mut self.unlogged)
    }

    /// The failures since the last call. Log [`Failures::unlogged`] afterwards.
    pub(super) fn take(&mut self) -> Vec<RecordError> {
        if self.dropped > 0 {
            self.unlogged.push(format!("{} more events failed; there is no room to give them back", self.dropped));
            self.dropped = 0;
        }
        let kept = std::mem::take(&mut self.kept);
        self.bytes_left += kept.iter().map(|failure| failure.event.size()).sum::<usize>();
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Event;

    #[test]
    fn failures_of_one_kind_are_one_line_in_ten_seconds() {
        let mut failures = Failures::default();
        let failed = |subject: &str, reason| RecordError::new(Event::new(subject, ""), reason);
        let start = Instant::now();
        for number in 0..1_000 {
            failures.log(&failed(&format!("a.{number}"), FailureReason::NoStream), start);
            failures.log(&failed("b", FailureReason::TooLarge { size: number, limit: 0 }), start);
        }
        let lines = failures.unlogged();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with("event on a.0 not recorded: no stream"), "{lines:?}");
        assert!(lines[1].starts_with("event on b not recorded: it has 0 bytes"), "{lines:?}");
        let late = failed("a.z", FailureReason::NoStream);
        failures.log(&late, start + LOG_INTERVAL);
        assert_eq!(failures.unlogged(), [format!("{late}; 999 more failed in this way since the last such line")]);
        failures.log(&late, start + LOG_INTERVAL * 2);
        assert_eq!(failures.unlogged(), [late.to_string()]);
    }
}
