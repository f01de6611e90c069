//! The pull requests that are outstanding. They bound what the client holds in memory.

use std::time::{Duration, Instant};

use bytesize::ByteSize;

use super::api_types::PullLimits;
use super::pace::Pace;
use crate::config::PrefetchConfig;

/// The server ends a pull request with a status after this time. For this time a dead process looks alive, if the
/// server did not notice its end.
pub(super) const EXPIRES: Duration = Duration::from_secs(10);

/// The number of requests that may be refused in a row for a limit. There are four limits and at most 16 outstanding
/// requests.
const MAX_REFUSALS: usize = 64;

/// The outstanding requests, counted in events. The server answers a request with messages, or ends it with a status
/// that contains the number of messages that it did not send.
#[derive(Debug)]
pub(super) struct Pulls {
    prefetch: PrefetchConfig,
    expires: Duration,
    /// The number of events per request before the last limit was learnt.
    events_before: usize,
    /// The number of requests refused since one was accepted.
    refusals: usize,
    outstanding: usize,
    /// The number of first requests that were sent, up to as many as may be outstanding.
    started: usize,
    /// Whether the next message is larger than a request's limit in bytes.
    oversize: Oversize,
    pace: Pace,
    /// The outstanding request is a poll: it does not wait.
    is_poll: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Oversize {
    No,
    /// To be requested alone, once nothing else is outstanding.
    Next,
    /// Requested.
    Requested,
}

/// A pull request to send.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PullRequest {
    pub(super) events: usize,
    /// `None`: no limit.
    pub(super) bytes: Option<u64>,
    /// How long the request may wait. `None`: it takes what is stored, and ends.
    pub(super) expires: Option<Duration>,
}

impl Pulls {
    /// With these settings, within the consumer's limits.
    pub(super) fn new(prefetch: PrefetchConfig, limits: PullLimits) -> Self {
        let (events_before, pace) = (prefetch.events, Pace::new(prefetch.poll_interval, Instant::now()));
        let mut pulls = Self {
            prefetch,
            expires: EXPIRES,
            events_before,
            refusals: 0,
            outstanding: 0,
            started: 0,
            oversize: Oversize::No,
            pace,
            is_poll: false,
        };
        pulls.limit(limits);
        pulls
    }

    /// Applies these limits to the next requests.
    pub(super) fn limit(&mut self, limits: PullLimits) {
        let positive = |limit: i64| usize::try_from(limit).ok().filter(|limit| *limit > 0);
        if let Some(most) = positive(limits.batch).filter(|most| *most < self.prefetch.events) {
            self.events_before = self.prefetch.events;
            self.prefetch.events = most;
        }
        if let Some(most) = positive(limits.waiting) {
            self.prefetch.requests = self.prefetch.requests.min(most);
        }
        if let Some(most) = positive(limits.bytes) {
            self.prefetch.bytes = self.prefetch.bytes.min(ByteSize::b(most as u64));
        }
        if let Ok(most @ 1..) = u64::try_from(limits.expires) {
            self.expires = self.expires.min(Duration::from_nanos(most));
        }
    }

    /// The server refused a request with this description. `true` if it contains a limit that the next requests can
    /// respect; `false` if it contains none, or the same one too often.
    pub(super) fn refused(&mut self, description: &str) -> bool {
        let limit = description.rsplit(' ').next().unwrap_or_default();
        let number = limit.parse().unwrap_or(0);
        let mut limits = PullLimits::default();
        let mut asked = self.prefetch.events;
        if description.contains("Exceeded MaxRequestBatch") {
            limits.batch = number;
            // Requests of the size before may have been outstanding too.
            if usize::try_from(number).is_ok_and(|most| most >= asked) {
                asked = self.events_before;
            }
        } else if description.contains("Exceeded MaxRequestExpires") {
            limits.expires = i64::try_from(duration(limit).as_nanos()).unwrap_or(0);
        } else if description.contains("Exceeded MaxRequestMaxBytes") {
            limits.bytes = number;
        } else if description.contains("Exceeded MaxWaiting") {
            limits.waiting = i64::try_from(self.prefetch.requests).unwrap_or(1) - 1;
        } else {
            return false;
        }
        let refusals = self.refusals + 1;
        self.limit(limits);
        self.ended(Some(asked));
        self.refusals = refusals;
        refusals <= MAX_REFUSALS
    }

    /// A message was received, after which the consumer has so many left.
    pub(super) fn arrived(&mut self, pending: u64) {
        self.refusals = 0;
        self.outstanding = self.outstanding.saturating_sub(1);
        let is_behind = usize::try_from(pending).is_ok_and(|pending| pending >= self.prefetch.events);
        self.pace.delivered(is_behind, Instant::now);
        // The server serves a poll while it stores further events, so one that got all its events need not be behind.
        if self.outstanding == 0 && std::mem::take(&mut self.is_poll) && is_behind {
            self.pace.fell_behind(Instant::now());
        }
        if self.outstanding == 0 || self.oversize == Oversize::Requested {
            self.oversize = Oversize::No;
        }
    }

    /// A request ended without this many of its messages. `None` if the server did not send the number.
    pub(super) fn ended(&mut self, missing: Option<usize>) {
        self.refusals = 0;
        let ended = missing.unwrap_or(self.prefetch.events);
        // Nothing else is outstanding beside a poll, whose end has no number.
        let is_last = std::mem::take(&mut self.is_poll);
        self.outstanding = if is_last { 0 } else { self.outstanding.saturating_sub(ended) };
        if self.oversize == Oversize::Requested {
            self.oversize = Oversize::No;
        }
    }

    /// A request ended because its next message is larger than the request's limit.
    pub(super) fn too_large(&mut self, missing: Option<usize>) {
        self.ended(missing);
        // If the request had delivered messages, the next one has all its bytes for the large message.
        if missing.is_none_or(|missing| missing >= self.prefetch.events) {
            self.oversize = Oversize::Next;
        }
    }

    /// Whether requested messages were not received yet.
    pub(super) fn are_outstanding(&self) -> bool {
        self.outstanding > 0
    }

    /// The next request to send, if there is room for one.
    pub(super) fn next(&mut self) -> Option<PullRequest> {
        if self.oversize != Oversize::No {
            if self.oversize == Oversize::Requested || self.outstanding > 0 {
                return None;
            }
            self.oversize = Oversize::Requested;
            self.outstanding = 1;
            return Some(PullRequest { events: 1, bytes: None, expires: Some(self.expires) });
        }
        if !self.has_room() {
            return None;
        }
        self.outstanding += self.prefetch.events;
        let PrefetchConfig { events, bytes, .. } = self.prefetch;
        if self.pace.polls() {
            self.pace.poll_due(Instant::now());
        }
        self.is_poll = self.pace.polls();
        let expires = if self.is_poll { None } else { Some(self.next_expiry()) };
        Some(PullRequest { events, bytes: Some(bytes.as_u64()), expires })
    }

    /// How long to wait with the next poll; `None` where no poll is to be sent.
    pub(super) fn next_poll_in(&self) -> Option<Duration> {
        (self.pace.polls() && self.outstanding == 0).then(|| self.pace.due_in(Instant::now()))
    }

    /// The first requests get different times. If all expired at once, no request would wait at the consumer until the next
    /// ones arrive, and at that moment the consumer would look unused to a copy of the database.
    fn next_expiry(&mut self) -> Duration {
        let requests = u32::try_from(self.prefetch.requests).unwrap_or(1);
        let before = u32::try_from(self.started).unwrap_or(requests);
        if before >= requests {
            return self.expires;
        }
        self.started += 1;
        self.expires * (requests - before) / requests
    }

    /// Whether another normal request would stay within the bound. A poll is sent alone, and when it is due.
    pub(super) fn has_room(&self) -> bool {
        if self.pace.polls() {
            return self.next_poll_in().is_some_and(|wait| wait.is_zero());
        }
        self.outstanding + self.prefetch.events <= self.prefetch.events * self.prefetch.requests
    }
}

/// Parses a duration in the server's format: `1m30s`, `1.5s`, `250ms`. Zero if it cannot be parsed.
fn duration(text: &str) -> Duration {
    let mut seconds = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, unit) = rest.split_at(unit_at);
        let end = unit.find(|c: char| c.is_ascii_digit()).unwrap_or(unit.len());
        let scale = match &unit[..end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return Duration::ZERO,
        };
        let Ok(number) = number.parse::<f64>() else { return Duration::ZERO };
        seconds += number * scale;
        rest = &unit[end..];
    }
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefetch(requests: usize) -> PrefetchConfig {
        PrefetchConfig { events: 10, bytes: ByteSize::kib(1), requests, poll_interval: Duration::from_secs(3_600) }
    }

    fn pulls() -> Pulls {
        Pulls::new(prefetch(2), PullLimits::default())
    }

    #[test]
    fn what_a_consumer_allows_is_kept_to() {
        let prefetch = prefetch(3);
        let limits = PullLimits { waiting: 2, batch: 4, expires: 2_000_000_000, bytes: 512 };
        let mut pulls = Pulls::new(prefetch, limits);
        let request = |expires| Some(PullRequest { events: 4, bytes: Some(512), expires: Some(expires) });
        let second = Duration::from_secs(1);
        assert_eq!((pulls.next(), pulls.next(), pulls.next()), (request(2 * second), request(second), None));
    }

    #[test]
    fn requests_do_not_expire_together() {
        let prefetch = prefetch(4);
        let mut pulls = Pulls::new(prefetch, PullLimits::default());
        let first: Vec<_> = std::iter::from_fn(|| pulls.next()).map(|request| request.expires).collect();
        assert_eq!(first, [4, 3, 2, 1].map(|quarters| Some(EXPIRES * quarters / 4)));
        pulls.ended(Some(10));
        assert_eq!(pulls.next().expect("room").expires, Some(EXPIRES), "its end lies between those of the others");
    }

    #[test]
    fn a_limit_that_a_refusal_names_is_kept_to() {
        let mut pulls = pulls();
        assert!(pulls.next().is_some() && pulls.next().is_some());
        assert!(pulls.refused("Exceeded MaxRequestBatch of 4"));
        assert_eq!(pulls.next(), None, "the other request is under way");
        assert!(pulls.refused("Exceeded MaxRequestBatch of 4"));
        let next = pulls.next().expect("room");
        assert_eq!((next.events, next.expires), (4, Some(EXPIRES)), "both first requests were sent before");
        assert!(pulls.refused("Exceeded MaxRequestExpires of 1.5s"));
        let next = pulls.next().expect("room");
        assert_eq!((next.events, next.expires), (4, Some(Duration::from_millis(1500))));
        assert!(pulls.refused("Exceeded MaxRequestMaxBytes of 100"));
        assert_eq!(pulls.next().expect("room").bytes, Some(100));
        assert!(pulls.next().is_some());
        assert!(pulls.refused("Exceeded MaxWaiting"));
        assert_eq!(pulls.next(), None, "one at a time");
        assert!(!pulls.refused("Consumer is push based"), "nothing to keep to");
    }

    #[test]
    fn refusals_that_do_not_end_are_no_way_to_go_on() {
        let mut pulls = pulls();
        let mut refusals = 0;
        while pulls.refused("Exceeded MaxRequestBatch of 4") {
            refusals += 1;
            assert!(refusals < 100);
        }
        assert!(pulls.next().is_some(), "there is room again");
    }

    #[test]
    fn times_of_the_server_are_read() {
        for (text, milliseconds) in
            [("10s", 10_000), ("1m30s", 90_000), ("1h0m0s", 3_600_000), ("1.5s", 1_500), ("x", 0)]
        {
            assert_eq!(duration(text), Duration::from_millis(milliseconds), "{text}");
        }
    }

    fn usual() -> PullRequest {
        PullRequest { events: 10, bytes: Some(1024), expires: Some(EXPIRES) }
    }

    #[test]
    fn no_more_is_asked_for_than_there_is_room_for() {
        let mut pulls = pulls();
        let second = PullRequest { expires: Some(EXPIRES / 2), ..usual() };
        assert_eq!((pulls.next(), pulls.next()), (Some(usual()), Some(second)));
        assert_eq!(pulls.next(), None);
        (0..9).for_each(|_| pulls.arrived(0));
        assert_eq!(pulls.next(), None);
        pulls.arrived(0);
        assert!(pulls.next().is_some());
        pulls.ended(Some(10));
        assert!(pulls.next().is_some());
    }

    #[test]
    fn a_message_over_the_limit_is_fetched_alone() {
        let mut pulls = pulls();
        assert!(pulls.next().is_some() && pulls.next().is_some());
        pulls.too_large(Some(10));
        assert_eq!(pulls.next(), None, "the other request must end first");
        pulls.too_large(Some(10));
        assert_eq!(pulls.next(), Some(PullRequest { events: 1, bytes: None, expires: Some(EXPIRES) }));
        assert_eq!(pulls.next(), None);
        pulls.arrived(0);
        assert_eq!(pulls.next(), Some(usual()));
    }

    #[test]
    fn while_many_events_come_one_request_at_a_time_takes_what_is_stored() {
        let prefetch = PrefetchConfig { events: 2_000, poll_interval: Duration::from_nanos(1), ..prefetch(2) };
        let poll = Some(PullRequest { events: 2_000, bytes: Some(1024), expires: None });
        let mut pulls = Pulls::new(prefetch, PullLimits::default());
        assert!(pulls.next().is_some() && pulls.next().is_some());
        for _ in 0..1_000 {
            pulls.arrived(0);
        }
        assert!(pulls.pace.polls());
        assert_eq!(pulls.next(), None, "the first requests still wait at the consumer");
        (0..3_000).for_each(|_| pulls.arrived(0));
        assert_eq!((pulls.next(), pulls.next()), (poll, None));
        pulls.arrived(0);
        pulls.ended(None);
        assert!(!pulls.are_outstanding() && pulls.next_poll_in().is_some());
        assert!(pulls.next().is_some_and(|next| next.expires.is_none()));
        (0..2_000).for_each(|_| pulls.arrived(1_999));
        assert!(pulls.next().is_some_and(|next| next.expires.is_none()), "all that one request takes, and little more");
        (0..2_000).for_each(|_| pulls.arrived(2_000));
        let next = pulls.next().expect("room");
        assert_eq!(next.expires, Some(EXPIRES), "there is more than one request takes");
    }

    #[test]
    fn when_polling_ends_no_poll_is_outstanding() {
        let prefetch = PrefetchConfig { events: 1_000, poll_interval: Duration::from_nanos(1), ..prefetch(2) };
        let mut pulls = Pulls::new(prefetch, PullLimits::default());
        assert!(pulls.next().is_some() && pulls.next().is_some());
        (0..2_000).for_each(|_| pulls.arrived(0));
        assert!(pulls.pace.polls());
        let mut count = 0;
        while pulls.next().expect("room").expires.is_none() {
            assert_eq!(pulls.next(), None, "alone");
            // The end of a poll has no number.
            pulls.arrived(0);
            pulls.ended(None);
            count += 1;
        }
        assert!(count > 0 && !pulls.pace.polls());
        assert!(pulls.next().is_some_and(|next| next.expires.is_some()), "both requests wait at the consumer");
        assert_eq!((pulls.next(), pulls.outstanding), (None, 2_000));
    }
}
