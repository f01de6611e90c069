//! Whether a collector makes progress: commits advance while anything waits. The state of a connection does not count.

use std::time::{Duration, Instant};

use super::lag::is_behind;
use super::snapshot::{Lag, Trouble};
use crate::Status;
use crate::config::ObserveConfig;
use crate::counted;
use crate::upkeep::QUICK_CHECK;

/// So many events in a row that became dead letters are a sign that all do.
const DEAD_IN_A_ROW: u64 = 10;

/// After so many times `unready_after` without a dead letter, the row is over.
const DEAD_FORGOTTEN: u32 = 10;

/// What was seen of a collector's progress.
#[derive(Debug)]
pub(super) struct Readiness {
    limits: ObserveConfig,
    /// When a commit was last seen, or nothing waited.
    progress: Instant,
    committed: u64,
    dead: DeadRow,
    over_pending: Option<Instant>,
    over_lag: Option<Instant>,
    replaced: Option<Instant>,
    ended: Option<Instant>,
}

/// Dead letters since the last event that was stored.
#[derive(Debug, Default)]
struct DeadRow {
    stored: u64,
    dead_before: u64,
    length: u64,
    since: Option<Instant>,
    last: Option<Instant>,
}

/// What is wrong, and whether the collector counts as not ready because of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Finding {
    pub(super) trouble: Trouble,
    pub(super) is_unready: bool,
}

/// What is looked at beside the counters.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Facts {
    /// The database's path leads to another file, or to none.
    pub(super) was_replaced: bool,
    /// The threads that collect have ended.
    pub(super) has_ended: bool,
}

impl Readiness {
    pub(super) fn new(limits: &ObserveConfig, now: Instant) -> Self {
        Self {
            limits: limits.clone(),
            progress: now,
            committed: 0,
            dead: DeadRow::default(),
            over_pending: None,
            over_lag: None,
            replaced: None,
            ended: None,
        }
    }

    /// Notes how the collector is at this moment. Called about once a second.
    pub(super) fn note(&mut self, now: Instant, status: &Status, facts: Facts) {
        if status.committed != self.committed || !is_behind(status) {
            self.progress = now;
            self.committed = status.committed;
        }
        self.dead.note(now, status, self.limits.unready_after * DEAD_FORGOTTEN);
        let lag = Lag::of(status);
        let is_over_pending = self.limits.max_pending.is_some_and(|most| lag.pending > most);
        since_when(&mut self.over_pending, is_over_pending, now);
        let behind = lag.behind_seconds.unwrap_or(0.0);
        let is_over_lag = self.limits.max_lag.is_some_and(|most| behind > most.as_secs_f64());
        since_when(&mut self.over_lag, is_over_lag, now);
        since_when(&mut self.replaced, facts.was_replaced, now);
        since_when(&mut self.ended, facts.has_ended, now);
    }

    /// What is wrong at this moment.
    pub(super) fn findings(&self, now: Instant, status: &Status) -> Vec<Finding> {
        let after = self.limits.unready_after;
        let finding = |part: &str, reason: String, since: Instant, unready_after: Duration| {
            let lasted = now.saturating_duration_since(since);
            let trouble = Trouble { part: part.into(), reason, for_seconds: lasted.as_secs_f64() };
            Finding { trouble, is_unready: lasted >= unready_after }
        };
        let mut found = Vec::new();
        if let Some(since) = self.ended {
            found.push(finding("collector", "its threads have ended".into(), since, Duration::ZERO));
        }
        if let Some(since) = self.replaced {
            let reason = "the file was moved, removed or replaced while it is collected into".into();
            found.push(finding("database", reason, since, Duration::ZERO));
        }
        let parts = [&status.broker, &status.intake, &status.database, &status.service];
        for trouble in parts.into_iter().flatten() {
            found.push(finding(trouble.part, trouble.reason.clone(), trouble.since, after));
        }
        for trouble in status.upkeep.iter().filter_map(|job| job.trouble.as_ref()) {
            // Events are stored although such work fails; but not in a damaged database.
            let is_damage = trouble.part == QUICK_CHECK;
            let unready_after = if is_damage { after } else { Duration::MAX };
            found.push(finding(trouble.part, trouble.reason.clone(), trouble.since, unready_after));
        }
        // A known trouble is why nothing is committed.
        let is_known = found.iter().any(|finding| finding.is_unready);
        if !is_known && is_behind(status) && now.saturating_duration_since(self.progress) >= after {
            let reason = format!(
                "nothing is committed, while {} to be delivered and {} to be committed",
                waiting(status.pending),
                waiting(status.queue_events)
            );
            found.push(finding("stall", reason, self.progress, after));
        }
        if let (Some(since), Some(most)) = (self.over_pending, self.limits.max_pending) {
            let pending = counted(status.pending, "event");
            let reason = format!("{pending} to be delivered, more than {most} (observe.max_pending)");
            found.push(finding("lag", reason, since, after));
        }
        if let (Some(since), Some(most), Some(behind)) =
            (self.over_lag, self.limits.max_lag, Lag::of(status).behind_seconds)
        {
            let reason = format!("the last committed event is {behind:.0} s old, more than {most:?} (observe.max_lag)");
            found.push(finding("lag", reason, since, after));
        }
        if let (true, Some(since)) = (self.dead.length >= DEAD_IN_A_ROW, self.dead.since) {
            let reason = format!("the last {} all became dead letters", counted(self.dead.length, "event"));
            found.push(finding("dead letters", reason, since, after));
        }
        found
    }
}

/// `3 events wait`, `1 event waits`.
fn waiting(events: u64) -> String {
    format!("{} {}", counted(events, "event"), if events == 1 { "waits" } else { "wait" })
}

impl DeadRow {
    fn note(&mut self, now: Instant, status: &Status, forgotten_after: Duration) {
        let stored = status.committed.saturating_sub(status.dead_letters);
        let is_forgotten = self.last.is_some_and(|last| now.saturating_duration_since(last) >= forgotten_after);
        if stored != self.stored || is_forgotten {
            *self = Self { stored, dead_before: status.dead_letters, ..Self::default() };
            return;
        }
        let length = status.dead_letters.saturating_sub(self.dead_before);
        if length > self.length {
            self.length = length;
            self.since.get_or_insert(now);
            self.last = Some(now);
        }
    }
}

fn since_when(since: &mut Option<Instant>, is_so: bool, now: Instant) {
    *since = if is_so { since.or(Some(now)) } else { None };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Condition;

    const SECOND: Duration = Duration::from_secs(1);

    fn readiness(change: impl FnOnce(&mut ObserveConfig)) -> (Readiness, Instant) {
        let mut limits = ObserveConfig { unready_after: 5 * SECOND, ..ObserveConfig::default() };
        change(&mut limits);
        let now = Instant::now();
        (Readiness::new(&limits, now), now)
    }

    /// The parts that are the reason why it is not ready.
    fn unready(readiness: &Readiness, now: Instant, status: &Status) -> Vec<String> {
        let findings = readiness.findings(now, status).into_iter().filter(|finding| finding.is_unready);
        findings.map(|finding| finding.trouble.part).collect()
    }

    #[test]
    fn it_is_ready_while_nothing_waits_or_commits_advance() {
        let (mut readiness, began) = readiness(|_| ());
        let mut status = Status::default();
        for second in 0..100 {
            let now = began + second * SECOND;
            status.pending = if second < 50 { 0 } else { 1_000 };
            status.committed = u64::from(second / 4);
            readiness.note(now, &status, Facts::default());
            assert_eq!(readiness.findings(now, &status), [], "{second}");
        }
    }

    #[test]
    fn it_is_not_ready_while_events_wait_and_nothing_is_committed() {
        let (mut readiness, began) = readiness(|_| ());
        let mut status = Status::default();
        (status.committed, status.pending, status.queue_events) = (7, 1, 3);
        readiness.note(began, &status, Facts::default());
        readiness.note(began + 4 * SECOND, &status, Facts::default());
        assert_eq!(unready(&readiness, began + 4 * SECOND, &status), [""; 0]);
        assert_eq!(unready(&readiness, began + 5 * SECOND, &status), ["stall"]);
        let found = readiness.findings(began + 5 * SECOND, &status);
        let said = &found[0].trouble.reason;
        assert_eq!(said, "nothing is committed, while 1 event waits to be delivered and 3 events wait to be committed");
        status.committed = 8;
        readiness.note(began + 6 * SECOND, &status, Facts::default());
        assert_eq!(unready(&readiness, began + 6 * SECOND, &status), [""; 0]);
    }

    #[test]
    fn trouble_of_a_part_counts_once_it_lasts() {
        let (readiness, _) = readiness(|_| ());
        let broker = Condition::new("broker");
        broker.degrade("no answer");
        let status = Status { broker: broker.trouble(), ..Status::default() };
        let since = status.broker.as_ref().expect("trouble").since;
        assert_eq!(readiness.findings(since + SECOND, &status).len(), 1);
        assert_eq!(unready(&readiness, since + SECOND, &status), [""; 0]);
        assert_eq!(unready(&readiness, since + 5 * SECOND, &status), ["broker"]);
    }

    #[test]
    fn a_replaced_database_and_an_ended_collector_count_at_once() {
        let (mut readiness, now) = readiness(|_| ());
        let status = Status::default();
        readiness.note(now, &status, Facts { was_replaced: true, has_ended: true });
        assert_eq!(unready(&readiness, now, &status), ["collector", "database"]);
        readiness.note(now, &status, Facts::default());
        assert_eq!(unready(&readiness, now, &status), [""; 0]);
    }

    #[test]
    fn lag_counts_once_it_lasts() {
        let (mut readiness, began) = readiness(|limits| limits.max_pending = Some(100));
        let mut status = Status::default();
        for second in 0..10 {
            (status.pending, status.committed) = (101, u64::from(second));
            let now = began + second * SECOND;
            readiness.note(now, &status, Facts::default());
            let expected: &[&str] = if second >= 5 { &["lag"] } else { &[] };
            assert_eq!(unready(&readiness, now, &status), expected, "{second}");
        }
        status.pending = 100;
        readiness.note(began + 10 * SECOND, &status, Facts::default());
        assert_eq!(readiness.findings(began + 10 * SECOND, &status), []);
    }

    #[test]
    fn dead_letters_alone_count_until_an_event_is_stored_or_none_comes() {
        let (mut readiness, began) = readiness(|_| ());
        let mut status = Status::default();
        (status.committed, status.dead_letters) = (100, 20);
        readiness.note(began, &status, Facts::default());
        for second in 1..=30 {
            (status.committed, status.dead_letters) = (100 + u64::from(second), 20 + u64::from(second));
            let now = began + second * SECOND;
            readiness.note(now, &status, Facts::default());
            let expected: &[&str] = if second >= 10 { &["dead letters"] } else { &[] };
            assert_eq!(unready(&readiness, now, &status), expected, "{second}");
        }
        readiness.note(began + 79 * SECOND, &status, Facts::default());
        assert_eq!(unready(&readiness, began + 79 * SECOND, &status), ["dead letters"]);
        readiness.note(began + 80 * SECOND, &status, Facts::default());
        assert_eq!(unready(&readiness, began + 80 * SECOND, &status), [""; 0]);
        status.committed += 1;
        readiness.note(began + 81 * SECOND, &status, Facts::default());
        assert_eq!(unready(&readiness, began + 81 * SECOND, &status), [""; 0]);
    }
}
