//! Decides in which epoch of the stream a session is, and from which position it reads.
//!
//! A sequence is trusted only within its epoch. A stream that was deleted and created again has another creation time.
//! A stream whose server lost its last messages (a crash, an older store directory) has the same creation time, but
//! ends before the ledger's position or has other messages there. In doubt a new epoch begins, and every event is
//! stored that no earlier epoch has. A rollback may store an event twice; it never drops one.

use super::lost_events::LostEvents;
use crate::pipeline::{Epoch, EpochProgress, Gaps, Mark};

/// What the decision depends on.
#[derive(Debug)]
pub(super) struct StreamFacts {
    /// The stream's creation time.
    pub(super) created: String,
    /// Its first sequence.
    pub(super) first: u64,
    /// Its last sequence.
    pub(super) last: u64,
    /// The number of the latest epoch that belongs to this stream, if there is one.
    pub(super) epoch_number: Option<u32>,
    /// The stream's messages compared with that epoch.
    pub(super) content: StreamContent,
    /// Lost events were reported up to this sequence.
    pub(super) reported_to: u64,
}

/// A stream compared with an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StreamContent {
    /// The stream has the same messages up to the position reached.
    Same,
    /// A message up to the position is not the one that was collected. The text says which.
    Changed(String),
    /// The stream has messages in these gaps, which were empty when they were collected.
    Restored(Gaps),
}

/// Where a session begins to read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ResumePoint {
    /// The epoch of the next events.
    pub(super) epoch: Epoch,
    /// The last event that was read before.
    pub(super) after: Mark,
    /// For the operator: why a new epoch begins, or which events the stream lost.
    pub(super) notice: Option<String>,
    /// The largest number of events that the stream may have lost.
    pub(super) lost_events: u64,
    /// The gaps of the earlier epoch that this one continues.
    pub(super) inherited: Gaps,
}

/// Decides. `history` has all epochs of the stream and their progress, the latest last.
pub(super) fn resume(stream: &str, history: &[EpochProgress], facts: &StreamFacts) -> ResumePoint {
    let number = history.last().map_or(1, |progress| progress.epoch.number + 1);
    let from_start = |notice: Option<String>| ResumePoint {
        epoch: Epoch::new(stream, number, &facts.created),
        after: Mark::START,
        notice,
        lost_events: 0,
        inherited: Gaps::default(),
    };
    let Some(newest) = history.last() else { return from_start(None) };
    let Some(progress) = history.iter().find(|progress| Some(progress.epoch.number) == facts.epoch_number) else {
        let (now, before) = (&facts.created, &newest.epoch.created);
        return from_start(Some(format!(
            "stream {stream} was created again at {now} (before: {before}): reading all of it"
        )));
    };
    let reached = progress.mark.sequence;
    let went_back = if facts.last < reached {
        Some(format!("it ends at {}", facts.last))
    } else {
        match &facts.content {
            StreamContent::Same => None,
            StreamContent::Changed(how) => Some(how.clone()),
            StreamContent::Restored(gaps) => {
                return from_start(Some(format!(
                    "stream {stream} has events again that were missing when they were collected ({gaps}): reading it again \
                     without the events that are stored"
                )));
            }
        }
    };
    if let Some(how) = went_back {
        return from_start(Some(format!(
            "stream {stream} went back: {how}, and it was collected up to {reached}; reading it again without the events \
             that are stored"
        )));
    }
    let lost_events =
        if reached > 0 { LostEvents::before(reached.max(facts.reported_to) + 1, facts.first) } else { None };
    let lost = lost_events.as_ref().map(|lost_events| lost_events.report(stream, facts.first));
    let is_newest = progress.epoch == newest.epoch;
    let (epoch, inherited) = if is_newest && progress.epoch.created == facts.created {
        (progress.epoch.clone(), Gaps::default())
    } else {
        let epoch = Epoch { begins: progress.mark, ..Epoch::new(stream, number, &facts.created) };
        (epoch, progress.gaps.clone())
    };
    let returned = (!is_newest)
        .then(|| format!("stream {stream} is again the one created at {}: continuing at {reached}", facts.created));
    let notice: Vec<String> = returned.into_iter().chain(lost).collect();
    ResumePoint {
        epoch,
        after: progress.mark,
        notice: (!notice.is_empty()).then(|| notice.join("; ")),
        lost_events: lost_events.map_or(0, |lost_events| lost_events.events),
        inherited,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Gap;

    fn progress(number: u32, created: &str, sequence: u64) -> EpochProgress {
        let mark = Mark { sequence, published_ns: 7 };
        EpochProgress { epoch: Epoch::new("S", number, created), mark, gaps: Gaps::default() }
    }

    fn facts(created: &str, first: u64, last: u64, content: StreamContent) -> StreamFacts {
        let epoch_number = (created == "monday").then_some(3);
        StreamFacts { created: created.into(), first, last, epoch_number, content, reported_to: 0 }
    }

    fn another() -> StreamContent {
        StreamContent::Changed("it has another message at 5".into())
    }

    #[test]
    fn an_unknown_stream_is_read_from_its_start() {
        let resume = resume("S", &[], &facts("monday", 1, 100, StreamContent::Same));
        assert_eq!((resume.epoch.number, resume.after, resume.notice), (1, Mark::START, None));
    }

    #[test]
    fn the_same_stream_goes_on_behind_the_ledger() {
        let resume = resume("S", &[progress(3, "monday", 5)], &facts("monday", 1, 5, StreamContent::Same));
        assert_eq!((resume.epoch.number, resume.after.sequence, resume.notice), (3, 5, None));
    }

    #[test]
    fn what_the_stream_no_longer_has_is_said() {
        let resume = |first| resume("S", &[progress(3, "monday", 5)], &facts("monday", first, 20, StreamContent::Same));
        assert_eq!(resume(6).notice, None);
        let notice = resume(10).notice.expect("a notice");
        assert!(notice.contains("no longer has 6 to 9, up to 4 events"), "{notice}");
        assert_eq!(resume(10).lost_events, 4);
    }

    #[test]
    fn a_new_stream_longer_than_the_ledger_is_read_whole() {
        let resume = resume("S", &[progress(3, "monday", 5)], &facts("tuesday", 1, 500, another()));
        assert_eq!((resume.epoch.number, resume.after), (4, Mark::START));
        assert!(resume.notice.expect("a notice").contains("created again"));
    }

    #[test]
    fn a_stream_is_known_by_its_messages_not_its_creation() {
        let facts = StreamFacts { epoch_number: Some(3), ..facts("later", 1, 9, StreamContent::Same) };
        let resume = resume("S", &[progress(3, "monday", 5)], &facts);
        assert_eq!((resume.epoch.number, resume.after.sequence, resume.notice), (4, 5, None));
        assert_eq!(resume.epoch.begins, resume.after);
    }

    #[test]
    fn a_rollback_is_read_again() {
        for (last, content) in [(4, StreamContent::Same), (9, another())] {
            let resume = resume("S", &[progress(3, "monday", 5)], &facts("monday", 1, last, content));
            assert_eq!((resume.epoch.number, resume.after), (4, Mark::START));
            assert!(resume.notice.expect("a notice").contains("went back"));
        }
    }

    #[test]
    fn a_stream_that_has_again_what_was_missing_is_read_again() {
        let resume =
            resume("S", &[progress(3, "monday", 5)], &facts("monday", 1, 9, StreamContent::Restored(Gaps::default())));
        assert_eq!((resume.epoch.number, resume.after), (4, Mark::START));
        assert!(resume.notice.expect("a notice").contains("missing when they were collected"));
    }

    #[test]
    fn a_stream_that_comes_back_after_another_goes_on_where_it_was() {
        let mut history = [progress(1, "monday", 5), progress(2, "tuesday", 90)];
        history[0].gaps = Gap::of(2, 3).into_iter().collect();
        let facts = |last, content| StreamFacts { epoch_number: Some(1), ..facts("monday", 1, last, content) };
        let resume = |last, content| resume("S", &history, &facts(last, content));
        let same = resume(9, StreamContent::Same);
        assert_eq!((same.epoch.number, same.after, same.epoch.begins), (3, history[0].mark, history[0].mark));
        assert!(same.notice.expect("a notice").contains("again the one created at monday: continuing at 5"));
        assert_eq!(same.inherited, history[0].gaps, "the gaps remain");
        let another = resume(9, another());
        assert_eq!((another.epoch.number, another.after), (3, Mark::START));
    }
}
