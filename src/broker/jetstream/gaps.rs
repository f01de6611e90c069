//! What a stream dropped before it was collected: by its limits, or because somebody deleted or purged it.
//!
//! A consumer does not tell; it goes on behind. What shows is a step in the stream's sequences, or a number of pending messages
//! that falls without a delivery. For a consumer of the whole stream a step is proof. A filter also passes over messages
//! that are there, so then the stream is asked which sequences it lacks.

use std::time::{Duration, Instant};

use super::api::StreamState;
use super::facts::MOST_DELETED;
use crate::pipeline::{Gap, Gaps};

/// How often to ask or to tell, at most.
const PAUSE: Duration = Duration::from_secs(1);

/// Ranges kept until the stream is asked or an operator is told.
const MOST_RANGES: usize = 4_096;

/// What a step in the sequences means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Steps {
    /// The consumer has every subject of the stream: each sequence passed over was an event that is gone.
    Lost,
    /// The consumer has some subjects: others are passed over too.
    Filtered,
    /// The stream never kept what is passed over, or it is a copy of a part of another stream: nothing is told.
    Usual,
}

/// Looks for what is gone within a session.
#[derive(Debug)]
pub(super) struct GapWatch {
    steps: Steps,
    /// Passed over, and the stream has not been asked yet whether they are there.
    passed: Gaps,
    /// Gone, and nobody was told yet.
    untold: Gaps,
    /// Missing before the first event was collected, which is nobody's loss, or told before it was passed.
    old: Gaps,
    /// Told, or nobody's loss, up to this sequence.
    told_to: u64,
    /// How many messages were deleted between others, by the last answer.
    deleted: u64,
    /// The number of pending messages fell without a delivery, or may have while nobody looked.
    fell: bool,
    suspicious: bool,
    asked: Option<Instant>,
    told: Option<Instant>,
    /// When the first of what is untold was noticed.
    noticed: Option<Instant>,
    /// The answer has not come yet.
    open: bool,
    /// The next sequence that can come.
    next: u64,
    /// The last one that the stream had when it was last looked at.
    last: u64,
    /// Up to here the stream said what is gone.
    asked_to: u64,
    pending: u64,
}

/// Sequences that the stream no longer has and that were never taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gone {
    gaps: Gaps,
    /// How many there were, at most: some may be none of ours.
    pub(super) events: u64,
}

impl Gone {
    /// Between the sequence that was due and the stream's first.
    pub(super) fn before(due: u64, first: u64) -> Option<Self> {
        Gap::of(due, first.saturating_sub(1)).map(|gap| Self::of(gap.into()))
    }

    /// All of these.
    pub(super) fn of(gaps: Gaps) -> Self {
        Self { events: gaps.missing(), gaps }
    }

    /// For an operator.
    pub(super) fn news(&self, stream: &str, begins: u64) -> String {
        let Self { gaps, events } = self;
        let inside = gaps.iter().any(|gap| gap.last >= begins);
        let start = if inside { "" } else { &format!(" begins at {begins}: it") };
        format!("stream {stream}{start} no longer has {gaps}, up to {events} events that were never stored")
    }
}

/// Adds a range. Where there are too many, the closest are joined, half of them at a time.
fn insert(gaps: &mut Gaps, gap: Gap) {
    gaps.insert(gap);
    if gaps.len() > MOST_RANGES {
        gaps.compact(MOST_RANGES / 2);
    }
}

impl GapWatch {
    /// For a consumer that begins at `next` with so many messages, of a stream that ends at `last`. What lies up to `told_to` is
    /// told already, or nobody's loss.
    pub(super) fn new(steps: Steps, next: u64, last: u64, pending: u64, told_to: u64) -> Self {
        let mut watch = Self {
            steps,
            passed: Gaps::default(),
            untold: Gaps::default(),
            old: Gaps::default(),
            told_to,
            deleted: 0,
            fell: false,
            suspicious: false,
            asked: None,
            told: None,
            noticed: None,
            open: false,
            next,
            last,
            asked_to: 0,
            pending,
        };
        watch.look_for_tail();
        watch
    }

    /// The consumer has nothing more, and the stream's last messages have not come: they may be gone, and were not asked for yet.
    fn has_open_tail(&self) -> bool {
        self.steps == Steps::Lost && self.pending == 0 && self.next <= self.last && self.asked_to < self.last
    }

    fn look_for_tail(&mut self) {
        self.suspicious |= self.has_open_tail();
    }

    /// Events may have vanished while nobody looked, so that the number of pending ones tells nothing.
    pub(super) fn was_away(self) -> Self {
        Self { fell: true, ..self }
    }

    /// These were missing before the first event was collected.
    pub(super) fn besides(self, old: Gaps) -> Self {
        Self { old, ..self }
    }

    /// A delivery came. What was certainly missing directly before it.
    pub(super) fn delivered(&mut self, sequence: u64, pending: u64) -> Option<Gap> {
        self.fell |= pending + 1 < self.pending;
        self.pending = pending;
        let gap = if sequence > self.next { self.step(sequence) } else { None };
        self.next = sequence + 1;
        self.look_for_tail();
        gap
    }

    #[cold]
    fn step(&mut self, sequence: u64) -> Option<Gap> {
        let gap = Gap::of(self.next, sequence - 1)?;
        if self.steps == Steps::Lost {
            return Some(gap);
        }
        self.suspicious = true;
        insert(&mut self.passed, gap);
        None
    }

    /// These were missing, and never stored. They are told, unless they were already, or are nobody's loss.
    pub(super) fn lost(&mut self, gap: Gap) {
        let news = Gaps::from(gap).without(&self.old, self.told_to);
        if !news.is_empty() {
            self.noticed.get_or_insert_with(Instant::now);
        }
        news.iter().for_each(|gap| insert(&mut self.untold, gap));
    }

    /// All that was sent has come, and the consumer has so many messages.
    pub(super) fn counted(&mut self, pending: u64) {
        self.fell |= pending < self.pending;
        self.suspicious |= pending < self.pending;
        self.pending = pending;
    }

    /// Whether to ask the stream now.
    pub(super) fn ask(&mut self) -> bool {
        let due = self.suspicious && self.asked.is_none_or(|asked| asked.elapsed() >= PAUSE);
        if due {
            self.suspicious = false;
            self.open = true;
            self.asked = Some(Instant::now());
        }
        due
    }

    /// Whether the stream has to list what is deleted.
    pub(super) fn wants_details(&self) -> bool {
        self.deleted <= MOST_DELETED && (!self.passed.is_empty() || self.has_open_tail())
    }

    /// Whether all that looked like a gap has been asked about and told.
    pub(super) fn is_settled(&self) -> bool {
        !self.suspicious && !self.open && self.untold.is_empty()
    }

    /// The stream's answer. What was missing among the sequences that were passed over.
    pub(super) fn answered(&mut self, state: &StreamState) -> Gaps {
        self.open = false;
        let first = state.first_seq;
        (self.last, self.asked_to, self.deleted) = (state.last_seq, state.last_seq, state.num_deleted);
        // Gone from the stream's start, and not passed yet.
        if let Some(gap) = Gap::of(self.next, first.saturating_sub(1)).filter(|_| self.steps != Steps::Usual) {
            self.lost(gap);
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
        // Gone from the stream's end: no delivery will tell, unless another event is published.
        if let Some(tail) = Gap::of(self.next, self.last).filter(|_| self.steps == Steps::Lost) {
            absent.common(&tail.into()).iter().for_each(|gap| self.lost(gap));
        }
        if self.steps == Steps::Filtered && self.fell {
            missing.iter().for_each(|gap| self.lost(gap));
            self.fell = false;
        }
        missing
    }

    /// What to tell an operator now: all that is known once nothing more comes, or after a while.
    pub(super) fn tell(&mut self) -> Option<Gone> {
        let noticed = self.noticed?;
        let is_all = self.pending == 0 && !self.suspicious && !self.open;
        let is_soon = self.told.is_some_and(|told| told.elapsed() < PAUSE);
        if is_soon || !is_all && noticed.elapsed() < PAUSE {
            return None;
        }
        self.tell_all()
    }

    /// What to tell an operator before the session ends.
    pub(super) fn tell_all(&mut self) -> Option<Gone> {
        self.noticed.take()?;
        self.told = Some(Instant::now());
        let gaps = std::mem::take(&mut self.untold);
        for gap in gaps.iter() {
            match Gap::of(gap.first.max(self.next), gap.last) {
                // Others before it may vanish yet.
                Some(ahead) => self.old.insert(ahead),
                None => self.told_to = self.told_to.max(gap.last),
            }
        }
        Some(Gone::of(gaps))
    }

    /// What lies up to here is told.
    pub(super) fn told_to(&self) -> u64 {
        // What was told ahead of the next delivery, without a sequence between that may come.
        let ahead = self.old.iter().find(|gap| gap.first <= self.next && self.next <= gap.last);
        ahead.map_or(self.told_to, |gap| gap.last.max(self.told_to))
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
        watch.delivered(sequence, pending).inspect(|gap| watch.lost(*gap))
    }

    fn told(watch: &mut GapWatch) -> Option<(String, u64)> {
        watch.told = None;
        watch.noticed = watch.noticed.and_then(|noticed| noticed.checked_sub(PAUSE));
        watch.tell().map(|gone| (gone.gaps.to_string(), gone.events))
    }

    #[test]
    fn a_step_of_the_whole_stream_is_a_loss_wherever_it_lies() {
        let mut watch = GapWatch::new(Steps::Lost, 1, 0, 10, 0);
        assert_eq!(pass(&mut watch, 1, 9), None);
        assert_eq!(pass(&mut watch, 5, 5), Some(gap(2, 4)));
        assert_eq!(pass(&mut watch, 9, 1), Some(gap(6, 8)));
        assert!(!watch.ask() && !watch.is_settled(), "nobody was told");
        assert_eq!(told(&mut watch), Some(("2 to 4, 6 to 8".into(), 6)));
        assert!(watch.is_settled());
        assert_eq!(told(&mut watch), None, "said once");
    }

    #[test]
    fn a_gap_before_the_first_event_is_kept_but_no_loss() {
        let mut watch = GapWatch::new(Steps::Lost, 1, 0, 10, 3).besides(Gaps::from(gap(6, 7)));
        assert_eq!(pass(&mut watch, 4, 9), Some(gap(1, 3)));
        assert_eq!(pass(&mut watch, 10, 3), Some(gap(5, 9)));
        assert_eq!(told(&mut watch), Some(("5, 8 to 9".into(), 3)));
    }

    #[test]
    fn of_what_a_filter_passes_over_the_stream_tells_what_is_gone() {
        let mut watch = GapWatch::new(Steps::Filtered, 1, 0, 10, 0);
        assert_eq!(pass(&mut watch, 4, 9), None);
        assert!(watch.ask() && watch.wants_details() && !watch.is_settled());
        assert_eq!(watch.answered(&state(2, &[3, 7])), [gap(1, 1), gap(3, 3)].into_iter().collect());
        assert_eq!(told(&mut watch), None, "the count did not fall: none of ours");
        assert_eq!(pass(&mut watch, 9, 5), None);
        watch.asked = None;
        assert!(watch.ask());
        assert_eq!(watch.answered(&state(2, &[3, 5, 7])), [gap(5, 5), gap(7, 7)].into_iter().collect());
        assert_eq!(told(&mut watch), Some(("5, 7".into(), 2)));
    }

    #[test]
    fn any_message_may_be_missing_where_none_can_be_listed() {
        let mut watch = GapWatch::new(Steps::Filtered, 1, 0, 10, 0);
        pass(&mut watch, 4, 9);
        let answer = StreamState { deleted: None, num_deleted: 1_000_000, ..state(1, &[]) };
        assert_eq!(watch.answered(&answer).iter().collect::<Vec<_>>(), [Gap { missing: 0, ..gap(1, 3) }]);
    }

    #[test]
    fn a_gap_at_the_end_is_reported_without_a_delivery() {
        let mut watch = GapWatch::new(Steps::Lost, 5, 100, 1, 4);
        assert!(!watch.ask());
        assert_eq!(pass(&mut watch, 90, 0), Some(gap(5, 89)));
        assert!(watch.ask() && watch.wants_details());
        let deleted: Vec<u64> = (5..90).chain([91, 92, 99, 100]).collect();
        assert!(watch.answered(&state(1, &deleted)).is_empty(), "nothing more was passed");
        assert_eq!(told(&mut watch), Some(("5 to 89, 91 to 92, 99 to 100".into(), 89)));
        assert_eq!((watch.told_to(), watch.is_settled()), (92, true));
        assert_eq!(pass(&mut watch, 101, 0), Some(gap(91, 100)));
        assert_eq!(told(&mut watch), Some(("93 to 98".into(), 6)), "the rest");
    }

    #[test]
    fn a_purge_shows_before_the_next_delivery() {
        let mut watch = GapWatch::new(Steps::Lost, 1, 0, 10, 0);
        watch.counted(10);
        assert!(!watch.ask());
        watch.counted(0);
        assert!(watch.ask());
        assert!(!watch.is_settled());
        assert!(watch.answered(&state(11, &[])).is_empty(), "nothing was passed yet");
        assert_eq!(told(&mut watch), Some(("1 to 10".into(), 10)));
        assert!(watch.is_settled());
        assert_eq!(pass(&mut watch, 11, 0), Some(gap(1, 10)));
        assert_eq!(told(&mut watch), None, "said once");
    }
}
