//! Detects events that a stream dropped before they were collected: by its limits, or because they were deleted or purged.
//!
//! A consumer does not report them; it continues with the next event. There are two signs: deliveries that skip
//! sequences, and a number of pending messages that falls without a delivery. For a consumer of the whole stream a
//! skipped sequence is proof. A filter also skips messages that exist. Then the stream is asked which sequences it no
//! longer has.

use std::time::{Duration, Instant};

use super::api_types::{MAX_LISTED_DELETES, StreamState};
use super::lost_events::LostEvents;
use crate::pipeline::{Gap, Gaps};

/// The shortest time between two requests, and between two reports.
const PAUSE: Duration = Duration::from_secs(1);

/// The number of ranges that are kept until the stream is asked or they are reported.
const MAX_RANGES: usize = 4_096;

/// What it means if a delivery skips sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SkippedSequences {
    /// The consumer receives every subject of the stream: each skipped sequence is an event that was lost.
    Lost,
    /// The consumer receives a part of the subjects: events of other subjects are skipped too.
    MaybeFiltered,
    /// The stream never kept the skipped events, or it copies a part of another stream. Nothing is reported.
    Expected,
}

/// Detects lost events during a session.
#[derive(Debug)]
pub(super) struct GapWatch {
    skipped: SkippedSequences,
    /// Skipped sequences that the stream has not been asked about yet.
    unchecked: Gaps,
    /// Lost events that were not reported yet.
    unreported: Gaps,
    /// Sequences that are not reported: they were missing before the first event was collected, or were reported earlier.
    known: Gaps,
    /// Up to this sequence everything was reported, or need not be.
    reported_to: u64,
    /// The number of deleted messages between others, in the last answer.
    deleted: u64,
    /// The number of pending messages fell without a delivery, or may have fallen while it was not checked.
    pending_fell: bool,
    query_needed: bool,
    queried_at: Option<Instant>,
    reported_at: Option<Instant>,
    /// When the oldest unreported loss was detected.
    first_unreported: Option<Instant>,
    /// The answer has not come yet.
    query_open: bool,
    /// The lowest sequence that the next delivery can have.
    next: u64,
    /// The stream's last sequence, in the last answer.
    last: u64,
    /// The last answer lists missing sequences up to this one.
    queried_to: u64,
    pending: u64,
}

/// Adds a range. If there are too many, the closest ranges are joined until half of them remain.
fn insert(gaps: &mut Gaps, gap: Gap) {
    gaps.insert(gap);
    if gaps.len() > MAX_RANGES {
        gaps.compact(MAX_RANGES / 2);
    }
}

impl GapWatch {
    /// For a consumer that begins at `next` with so many pending messages, of a stream that ends at `last`. Up to
    /// `reported_to` everything was reported, or need not be.
    pub(super) fn new(skipped: SkippedSequences, next: u64, last: u64, pending: u64, reported_to: u64) -> Self {
        let mut watch = Self {
            skipped,
            unchecked: Gaps::default(),
            unreported: Gaps::default(),
            known: Gaps::default(),
            reported_to,
            deleted: 0,
            pending_fell: false,
            query_needed: false,
            queried_at: None,
            reported_at: None,
            first_unreported: None,
            query_open: false,
            next,
            last,
            queried_to: 0,
            pending,
        };
        watch.look_for_tail();
        watch
    }

    /// The consumer has no pending messages, and the stream's last messages were not delivered. They may be lost, and
    /// the stream was not asked about them yet.
    fn has_open_tail(&self) -> bool {
        self.skipped == SkippedSequences::Lost
            && self.pending == 0
            && self.next <= self.last
            && self.queried_to < self.last
    }

    fn look_for_tail(&mut self) {
        self.query_needed |= self.has_open_tail();
    }

    /// Events may have been lost while no session was open. The number of pending messages proves nothing then.
    pub(super) fn after_absence(self) -> Self {
        Self { pending_fell: true, ..self }
    }

    /// These sequences were missing before the first event was collected.
    pub(super) fn with_known_gaps(self, known: Gaps) -> Self {
        Self { known, ..self }
    }

    /// Notes a delivery. Returns the sequences directly before it that are certainly missing.
    pub(super) fn delivered(&mut self, sequence: u64, pending: u64) -> Option<Gap> {
        self.pending_fell |= pending + 1 < self.pending;
        self.pending = pending;
        let gap = if sequence > self.next { self.skip(sequence) } else { None };
        self.next = sequence + 1;
        self.look_for_tail();
        gap
    }

    #[cold]
    fn skip(&mut self, sequence: u64) -> Option<Gap> {
        let gap = Gap::of(self.next, sequence - 1)?;
        if self.skipped == SkippedSequences::Lost {
            return Some(gap);
        }
        self.query_needed = true;
        insert(&mut self.unchecked, gap);
        None
    }

    /// Adds missing sequences that were never stored. They are reported, unless they were reported before or need not be.
    pub(super) fn add_lost(&mut self, gap: Gap) {
        let new = Gaps::from(gap).without(&self.known, self.reported_to);
        if !new.is_empty() {
            self.first_unreported.get_or_insert_with(Instant::now);
        }
        new.iter().for_each(|gap| insert(&mut self.unreported, gap));
    }

    /// All sent deliveries were received, and the consumer has so many pending messages.
    pub(super) fn note_pending(&mut self, pending: u64) {
        self.pending_fell |= pending < self.pending;
        self.query_needed |= pending < self.pending;
        self.pending = pending;
    }

    /// Whether to ask the stream now. If so, the request counts as sent.
    pub(super) fn take_query_due(&mut self) -> bool {
        let due = self.query_needed && self.queried_at.is_none_or(|at| at.elapsed() >= PAUSE);
        if due {
            self.query_needed = false;
            self.query_open = true;
            self.queried_at = Some(Instant::now());
        }
        due
    }

    /// Whether the request must ask for the list of deleted sequences.
    pub(super) fn needs_deleted_list(&self) -> bool {
        self.deleted <= MAX_LISTED_DELETES && (!self.unchecked.is_empty() || self.has_open_tail())
    }

    /// Whether the stream was asked about all possible losses and all of them are reported.
    pub(super) fn is_settled(&self) -> bool {
        !self.query_needed && !self.query_open && self.unreported.is_empty()
    }

    /// Handles the stream's answer. Returns the skipped sequences that are missing.
    pub(super) fn handle_stream_state(&mut self, state: &StreamState) -> Gaps {
        self.query_open = false;
        let first = state.first_seq;
        (self.last, self.queried_to, self.deleted) = (state.last_seq, state.last_seq, state.num_deleted);
        // Lost at the stream's start, and not skipped by a delivery yet.
        if let Some(gap) =
            Gap::of(self.next, first.saturating_sub(1)).filter(|_| self.skipped != SkippedSequences::Expected)
        {
            self.add_lost(gap);
        }
        let unchecked = std::mem::take(&mut self.unchecked);
        let mut absent: Gaps = Gap::of(1, first.saturating_sub(1)).into_iter().collect();
        match &state.deleted {
            Some(deleted) => deleted.iter().filter_map(|at| Gap::of(*at, *at)).for_each(|gap| absent.insert(gap)),
            None if state.num_deleted == 0 => {}
            // Too many to list: any of them may be missing. In doubt an event is stored again.
            None => return unchecked.iter().map(|gap| Gap { missing: 0, ..gap }).collect(),
        }
        let missing = unchecked.common(&absent);
        // Lost at the stream's end: no delivery shows it until another event is published.
        if let Some(tail) = Gap::of(self.next, self.last).filter(|_| self.skipped == SkippedSequences::Lost) {
            absent.common(&tail.into()).iter().for_each(|gap| self.add_lost(gap));
        }
        if self.skipped == SkippedSequences::MaybeFiltered && self.pending_fell {
            missing.iter().for_each(|gap| self.add_lost(gap));
            self.pending_fell = false;
        }
        missing
    }

    /// The losses to report now: all that are known, once nothing is pending or after a pause.
    pub(super) fn take_report(&mut self) -> Option<LostEvents> {
        let first_unreported = self.first_unreported?;
        let is_all = self.pending == 0 && !self.query_needed && !self.query_open;
        let is_soon = self.reported_at.is_some_and(|at| at.elapsed() < PAUSE);
        if is_soon || !is_all && first_unreported.elapsed() < PAUSE {
            return None;
        }
        self.take_final_report()
    }

    /// The losses to report before the session ends.
    pub(super) fn take_final_report(&mut self) -> Option<LostEvents> {
        self.first_unreported.take()?;
        self.reported_at = Some(Instant::now());
        let gaps = std::mem::take(&mut self.unreported);
        for gap in gaps.iter() {
            match Gap::of(gap.first.max(self.next), gap.last) {
                // Events before it may still be lost.
                Some(ahead) => self.known.insert(ahead),
                None => self.reported_to = self.reported_to.max(gap.last),
            }
        }
        Some(LostEvents::of(gaps))
    }

    /// Up to this sequence everything is reported.
    pub(super) fn reported_to(&self) -> u64 {
        // Reported ahead of the next delivery, with no sequence in between that can be delivered.
        let ahead = self.known.iter().find(|gap| gap.first <= self.next && self.next <= gap.last);
        ahead.map_or(self.reported_to, |gap| gap.last.max(self.reported_to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(first: u64, last: u64) -> Gap {
        Gap::of(first, last).expect("not empty")
    }

    fn state(first_seq: u64, deleted: &[u64]) -> StreamState {
        let num_deleted = deleted.len() as u64;
        StreamState {
            messages: 0,
            first_seq,
            last_seq: 100,
            num_deleted,
            deleted: Some(deleted.to_vec()),
            consumer_count: 0,
            num_subjects: 0,
            subjects: None,
        }
    }

    /// A delivery that no earlier epoch has.
    fn pass(watch: &mut GapWatch, sequence: u64, pending: u64) -> Option<Gap> {
        watch.delivered(sequence, pending).inspect(|gap| watch.add_lost(*gap))
    }

    fn reported(watch: &mut GapWatch) -> Option<(String, u64)> {
        watch.reported_at = None;
        watch.first_unreported = watch.first_unreported.and_then(|at| at.checked_sub(PAUSE));
        watch.take_report().map(|gone| (gone.gaps.to_string(), gone.events))
    }

    #[test]
    fn a_step_of_the_whole_stream_is_a_loss_wherever_it_lies() {
        let mut watch = GapWatch::new(SkippedSequences::Lost, 1, 0, 10, 0);
        assert_eq!(pass(&mut watch, 1, 9), None);
        assert_eq!(pass(&mut watch, 5, 5), Some(gap(2, 4)));
        assert_eq!(pass(&mut watch, 9, 1), Some(gap(6, 8)));
        assert!(!watch.take_query_due() && !watch.is_settled(), "not reported yet");
        assert_eq!(reported(&mut watch), Some(("2 to 4, 6 to 8".into(), 6)));
        assert!(watch.is_settled());
        assert_eq!(reported(&mut watch), None, "reported once");
    }

    #[test]
    fn a_gap_before_the_first_event_is_kept_but_no_loss() {
        let mut watch = GapWatch::new(SkippedSequences::Lost, 1, 0, 10, 3).with_known_gaps(Gaps::from(gap(6, 7)));
        assert_eq!(pass(&mut watch, 4, 9), Some(gap(1, 3)));
        assert_eq!(pass(&mut watch, 10, 3), Some(gap(5, 9)));
        assert_eq!(reported(&mut watch), Some(("5, 8 to 9".into(), 3)));
    }

    #[test]
    fn of_what_a_filter_passes_over_the_stream_tells_what_is_gone() {
        let mut watch = GapWatch::new(SkippedSequences::MaybeFiltered, 1, 0, 10, 0);
        assert_eq!(pass(&mut watch, 4, 9), None);
        assert!(watch.take_query_due() && watch.needs_deleted_list() && !watch.is_settled());
        assert_eq!(watch.handle_stream_state(&state(2, &[3, 7])), [gap(1, 1), gap(3, 3)].into_iter().collect());
        assert_eq!(reported(&mut watch), None, "the count did not fall: other subjects");
        assert_eq!(pass(&mut watch, 9, 5), None);
        watch.queried_at = None;
        assert!(watch.take_query_due());
        assert_eq!(watch.handle_stream_state(&state(2, &[3, 5, 7])), [gap(5, 5), gap(7, 7)].into_iter().collect());
        assert_eq!(reported(&mut watch), Some(("5, 7".into(), 2)));
    }

    #[test]
    fn any_message_may_be_missing_where_none_can_be_listed() {
        let mut watch = GapWatch::new(SkippedSequences::MaybeFiltered, 1, 0, 10, 0);
        pass(&mut watch, 4, 9);
        let answer = StreamState { deleted: None, num_deleted: 1_000_000, ..state(1, &[]) };
        assert_eq!(watch.handle_stream_state(&answer).iter().collect::<Vec<_>>(), [Gap { missing: 0, ..gap(1, 3) }]);
    }

    #[test]
    fn a_gap_at_the_end_is_reported_without_a_delivery() {
        let mut watch = GapWatch::new(SkippedSequences::Lost, 5, 100, 1, 4);
        assert!(!watch.take_query_due());
        assert_eq!(pass(&mut watch, 90, 0), Some(gap(5, 89)));
        assert!(watch.take_query_due() && watch.needs_deleted_list());
        let deleted: Vec<u64> = (5..90).chain([91, 92, 99, 100]).collect();
        assert!(watch.handle_stream_state(&state(1, &deleted)).is_empty(), "nothing more was skipped");
        assert_eq!(reported(&mut watch), Some(("5 to 89, 91 to 92, 99 to 100".into(), 89)));
        assert_eq!((watch.reported_to(), watch.is_settled()), (92, true));
        assert_eq!(pass(&mut watch, 101, 0), Some(gap(91, 100)));
        assert_eq!(reported(&mut watch), Some(("93 to 98".into(), 6)), "the rest");
    }

    #[test]
    fn a_purge_shows_before_the_next_delivery() {
        let mut watch = GapWatch::new(SkippedSequences::Lost, 1, 0, 10, 0);
        watch.note_pending(10);
        assert!(!watch.take_query_due());
        watch.note_pending(0);
        assert!(watch.take_query_due());
        assert!(!watch.is_settled());
        assert!(watch.handle_stream_state(&state(11, &[])).is_empty(), "nothing was skipped yet");
        assert_eq!(reported(&mut watch), Some(("1 to 10".into(), 10)));
        assert!(watch.is_settled());
        assert_eq!(pass(&mut watch, 11, 0), Some(gap(1, 10)));
        assert_eq!(reported(&mut watch), None, "reported once");
    }
}
