//! What a stream dropped before it was collected: by its limits, or because somebody deleted or purged it.
//!
//! A consumer does not tell; it goes on behind. What shows is a step in the stream's sequences, or a number of pending messages
//! that falls without a delivery. For a consumer of the whole stream a step is proof. A filter also passes over messages
//! that are there, so then the stream is asked which sequences it lacks.

use std::time::{Duration, Instant};

use super::api_types::MAX_LISTED_DELETES;
use super::api_types::StreamState;
use super::lost_events::LostEvents;
use crate::pipeline::{Gap, Gaps};

/// How often to ask or to tell, at most.
const PAUSE: Duration = Duration::from_secs(1);

/// Ranges kept until the stream is asked or an operator is reported_at.
const MOST_RANGES: usize = 4_096;

/// What a step in the sequences means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SkippedSequences {
    /// The consumer has every subject of the stream: each sequence passed over was an event that is gone.
    Lost,
    /// The consumer has some subjects: others are passed over too.
    MaybeFiltered,
    /// The stream never kept what is passed over, or it is a copy of a part of another stream: nothing is reported_at.
    Expected,
}

/// Looks for what is gone within a session.
#[derive(Debug)]
pub(super) struct GapWatch {
    skipped: SkippedSequences,
    /// Passed over, and the stream has not been asked yet whether they are there.
    passed: Gaps,
    /// LostEvents, and nobody was told yet.
    unreported: Gaps,
    /// Missing before the first event was collected, which is nobody's loss, or told before it was passed.
    known: Gaps,
    /// Told, or nobody's loss, up to this sequence.
    reported_to: u64,
    /// How many messages were deleted between others, by the last answer.
    deleted: u64,
    /// The number of pending messages fell without a delivery, or may have while nobody looked.
    pending_fell: bool,
    query_needed: bool,
    queried_at: Option<Instant>,
    reported_at: Option<Instant>,
    /// When the first of what is unreported was first_unreported.
    first_unreported: Option<Instant>,
    /// The answer has not come yet.
    query_open: bool,
    /// The next sequence that can come.
    next: u64,
    /// The last one that the stream had when it was last looked at.
    last: u64,
    /// Up to here the stream said what is gone.
    queried_to: u64,
    pending: u64,
}

/// Adds a range. Where there are too many, the closest are joined, half of them at a time.
fn insert(gaps: &mut Gaps, gap: Gap) {
    gaps.insert(gap);
    if gaps.len() > MOST_RANGES {
        gaps.compact(MOST_RANGES / 2);
    }
}

impl GapWatch {
    /// For a consumer that begins at `next` with so many messages, of a stream that ends at `last`. What lies up to `reported_to` is
    /// told already, or nobody's loss.
    pub(super) fn new(skipped: SkippedSequences, next: u64, last: u64, pending: u64, reported_to: u64) -> Self {
        let mut watch = Self {
            skipped,
            passed: Gaps::default(),
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

    /// The consumer has nothing more, and the stream's last messages have not come: they may be gone, and were not asked for yet.
    fn has_open_tail(&self) -> bool {
        self.skipped == SkippedSequences::Lost
            && self.pending == 0
            && self.next <= self.last
            && self.queried_to < self.last
    }

    fn look_for_tail(&mut self) {
        self.query_needed |= self.has_open_tail();
    }

    /// Events may have vanished while nobody looked, so that the number of pending ones tells nothing.
    pub(super) fn after_absence(self) -> Self {
        Self { pending_fell: true, ..self }
    }

    /// These were missing before the first event was collected.
    pub(super) fn with_known_gaps(self, known: Gaps) -> Self {
        Self { known, ..self }
    }

    /// A delivery came. What was certainly missing directly before it.
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
        insert(&mut self.passed, gap);
        None
    }

    /// These were missing, and never stored. They are reported_at, unless they were already, or are nobody's loss.
    pub(super) fn add_lost(&mut self, gap: Gap) {
        let news = Gaps::from(gap).without(&self.known, self.reported_to);
        if !news.is_empty() {
            self.first_unreported.get_or_insert_with(Instant::now);
        }
        news.iter().for_each(|gap| insert(&mut self.unreported, gap));
    }

    /// All that was sent has come, and the consumer has so many messages.
    pub(super) fn note_pending(&mut self, pending: u64) {
        self.pending_fell |= pending < self.pending;
        self.query_needed |= pending < self.pending;
        self.pending = pending;
    }

    /// Whether to ask the stream now.
    pub(super) fn take_query_due(&mut self) -> bool {
        let due = self.query_needed && self.queried_at.is_none_or(|at| at.elapsed() >= PAUSE);
        if due {
            self.query_needed = false;
            self.query_open = true;
            self.queried_at = Some(Instant::now());
        }
        due
    }

    /// Whether the stream has to list what is deleted.
    pub(super) fn needs_deleted_list(&self) -> bool {
        self.deleted <= MAX_LISTED_DELETES && (!self.passed.is_empty() || self.has_open_tail())
    }

    /// Whether all that looked like a gap has been asked about and reported_at.
    pub(super) fn is_settled(&self) -> bool {
        !self.query_needed && !self.query_open && self.unreported.is_empty()
    }

    /// The stream's answer. What was missing among the sequences that were passed over.
    pub(super) fn handle_stream_state(&mut self, state: &StreamState) -> Gaps {
        self.query_open = false;
        let first = state.first_seq;
        (self.last, self.queried_to, self.deleted) = (state.last_seq, state.last_seq, state.num_deleted);
        // LostEvents from the stream's start, and not passed yet.
        if let Some(gap) =
            Gap::of(self.next, first.saturating_sub(1)).filter(|_| self.skipped != SkippedSequences::Expected)
        {
            self.add_lost(gap);
        }
        let passed = std::mem::take(&mut self.passed);
        let mut absent: Gaps = Gap::of(1, first.saturating_sub(1)).into_iter().collect();
        match &state.deleted {
            Some(deleted) => deleted.iter().filter_map(|at| Gap::of(*at, *at)).for_each(|gap| absent.insert(gap)),
            None if state.num_deleted == 0 => {}
            // Too many to list: any may be missing. In doubt an event is stored again.
            None => return passed.iter().map(|gap| Gap { missing: 0, ..gap }).collect(),
        }
        let missing = passed.common(&absent);
        // LostEvents from the stream's end: no delivery will tell, unless another event is published.
        if let Some(tail) = Gap::of(self.next, self.last).filter(|_| self.skipped == SkippedSequences::Lost) {
            absent.common(&tail.into()).iter().for_each(|gap| self.add_lost(gap));
        }
        if self.skipped == SkippedSequences::MaybeFiltered && self.pending_fell {
            missing.iter().for_each(|gap| self.add_lost(gap));
            self.pending_fell = false;
        }
        missing
    }

    /// What to tell an operator now: all that is known once nothing more comes, or after a while.
    pub(super) fn take_report(&mut self) -> Option<LostEvents> {
        let first_unreported = self.first_unreported?;
        let is_all = self.pending == 0 && !self.query_needed && !self.query_open;
        let is_soon = self.reported_at.is_some_and(|at| at.elapsed() < PAUSE);
        if is_soon || !is_all && first_unreported.elapsed() < PAUSE {
            return None;
        }
        self.take_final_report()
    }

    /// What to tell an operator before the session ends.
    pub(super) fn take_final_report(&mut self) -> Option<LostEvents> {
        self.first_unreported.take()?;
        self.reported_at = Some(Instant::now());
        let gaps = std::mem::take(&mut self.unreported);
        for gap in gaps.iter() {
            match Gap::of(gap.first.max(self.next), gap.last) {
                // Others before it may vanish yet.
                Some(ahead) => self.known.insert(ahead),
                None => self.reported_to = self.reported_to.max(gap.last),
            }
        }
        Some(LostEvents::of(gaps))
    }

    /// What lies up to here is reported_at.
    pub(super) fn reported_to(&self) -> u64 {
        // What was told ahead of the next delivery, without a sequence between that may come.
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
            num_subjects: 0,
            subjects: None,
        }
    }

    /// A delivery that no earlier epoch has.
    fn pass(watch: &mut GapWatch, sequence: u64, pending: u64) -> Option<Gap> {
        watch.delivered(sequence, pending).inspect(|gap| watch.add_lost(*gap))
    }

    fn told(watch: &mut GapWatch) -> Option<(String, u64)> {
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
        assert!(!watch.take_query_due() && !watch.is_settled(), "nobody was told");
        assert_eq!(told(&mut watch), Some(("2 to 4, 6 to 8".into(), 6)));
        assert!(watch.is_settled());
        assert_eq!(told(&mut watch), None, "said once");
    }

    #[test]
    fn what_was_missing_before_the_first_event_is_nobodys_loss_but_remembered() {
        let mut watch = GapWatch::new(SkippedSequences::Lost, 1, 0, 10, 3).with_known_gaps(Gaps::from(gap(6, 7)));
        assert_eq!(pass(&mut watch, 4, 9), Some(gap(1, 3)));
        assert_eq!(pass(&mut watch, 10, 3), Some(gap(5, 9)));
        assert_eq!(told(&mut watch), Some(("5, 8 to 9".into(), 3)));
    }

    #[test]
    fn of_what_a_filter_passes_over_the_stream_tells_what_is_gone() {
        let mut watch = GapWatch::new(SkippedSequences::MaybeFiltered, 1, 0, 10, 0);
        assert_eq!(pass(&mut watch, 4, 9), None);
        assert!(watch.take_query_due() && watch.needs_deleted_list() && !watch.is_settled());
        assert_eq!(watch.handle_stream_state(&state(2, &[3, 7])), [gap(1, 1), gap(3, 3)].into_iter().collect());
        assert_eq!(told(&mut watch), None, "the count did not fall: none of ours");
        assert_eq!(pass(&mut watch, 9, 5), None);
        watch.queried_at = None;
        assert!(watch.take_query_due());
        assert_eq!(watch.handle_stream_state(&state(2, &[3, 5, 7])), [gap(5, 5), gap(7, 7)].into_iter().collect());
        assert_eq!(told(&mut watch), Some(("5, 7".into(), 2)));
    }

    #[test]
    fn where_the_stream_cannot_list_what_it_lacks_any_may_be_missing() {
        let mut watch = GapWatch::new(SkippedSequences::MaybeFiltered, 1, 0, 10, 0);
        pass(&mut watch, 4, 9);
        let answer = StreamState { deleted: None, num_deleted: 1_000_000, ..state(1, &[]) };
        assert_eq!(watch.handle_stream_state(&answer).iter().collect::<Vec<_>>(), [Gap { missing: 0, ..gap(1, 3) }]);
    }

    #[test]
    fn what_is_gone_from_the_streams_end_is_told_without_another_delivery() {
        let mut watch = GapWatch::new(SkippedSequences::Lost, 5, 100, 1, 4);
        assert!(!watch.take_query_due());
        assert_eq!(pass(&mut watch, 90, 0), Some(gap(5, 89)));
        assert!(watch.take_query_due() && watch.needs_deleted_list());
        let deleted: Vec<u64> = (5..90).chain([91, 92, 99, 100]).collect();
        assert!(watch.handle_stream_state(&state(1, &deleted)).is_empty(), "nothing more was passed");
        assert_eq!(told(&mut watch), Some(("5 to 89, 91 to 92, 99 to 100".into(), 89)));
        assert_eq!((watch.reported_to(), watch.is_settled()), (92, true));
        assert_eq!(pass(&mut watch, 101, 0), Some(gap(91, 100)));
        assert_eq!(told(&mut watch), Some(("93 to 98".into(), 6)), "the rest");
    }

    #[test]
    fn a_purge_shows_before_the_next_delivery() {
        let mut watch = GapWatch::new(SkippedSequences::Lost, 1, 0, 10, 0);
        watch.note_pending(10);
        assert!(!watch.take_query_due());
        watch.note_pending(0);
        assert!(watch.take_query_due());
        assert!(!watch.is_settled());
        assert!(watch.handle_stream_state(&state(11, &[])).is_empty(), "nothing was passed yet");
        assert_eq!(told(&mut watch), Some(("1 to 10".into(), 10)));
        assert!(watch.is_settled());
        assert_eq!(pass(&mut watch, 11, 0), Some(gap(1, 10)));
        assert_eq!(told(&mut watch), None, "said once");
    }
}
