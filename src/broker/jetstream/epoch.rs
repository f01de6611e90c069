//! Which life of the stream this is, and where to go on in it.
//!
//! A sequence is trusted only within its epoch. A stream that was deleted and made anew has another time of creation; a
//! server that forgot its last messages (a crash, an older store directory) has the same, but ends before the ledger, or
//! has another message where the ledger's last one was. In doubt a new epoch begins and everything is stored: a rollback
//! may double an event, it never drops one.

use super::gaps::Gone;
use crate::pipeline::{Epoch, Mark, Position};

/// What is asked of the stream to decide.
pub(super) struct Facts<'a> {
    /// The stream's time of creation.
    pub(super) created: &'a str,
    /// Its first sequence.
    pub(super) first: u64,
    /// Its last sequence.
    pub(super) last: u64,
    /// The publish time of the message at the known position, where the stream still has it.
    pub(super) time_there: Option<i64>,
    /// What it no longer has was said up to this sequence.
    pub(super) said_to: u64,
}

/// Where to go on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Resume {
    /// The epoch of what comes.
    pub(super) epoch: Epoch,
    /// Behind this.
    pub(super) after: Mark,
    /// Deliveries not above this sequence and published no later are in the database already, from the epoch before.
    pub(super) known: Option<Mark>,
    /// What an operator wants to know: why a new epoch begins, or what the stream no longer has.
    pub(super) news: Option<String>,
    /// How many events the stream no longer has, at most.
    pub(super) gone: u64,
}

/// Decides. `position` is how far the stream has been taken in so far.
pub(super) fn resume(stream: &str, position: Option<&Position>, facts: &Facts<'_>) -> Resume {
    let fresh = |number: u32, known, news| Resume {
        epoch: Epoch { stream: stream.to_owned(), number, created: facts.created.to_owned() },
        after: Mark::START,
        known,
        news,
        gone: 0,
    };
    let Some(Position { epoch, mark }) = position else { return fresh(1, None, None) };
    if epoch.created != facts.created {
        let news =
            format!("stream {stream} was made anew ({}, before: {}): reading it whole", facts.created, epoch.created);
        return fresh(epoch.number + 1, None, Some(news));
    }
    let rolled_back = if facts.last < mark.sequence {
        Some(format!("ends at {}", facts.last))
    } else {
        let another = facts.time_there.is_some_and(|time| time != mark.published_ns);
        another.then(|| format!("has another message at {}", mark.sequence))
    };
    if let Some(how) = rolled_back {
        let news = format!(
            "stream {stream} went back: it {how}, and {} was reached; reading it again, but for what is known",
            mark.sequence
        );
        return fresh(epoch.number + 1, Some(*mark), Some(news));
    }
    let gone = if mark.sequence > 0 { Gone::before(mark.sequence.max(facts.said_to) + 1, facts.first) } else { None };
    Resume {
        epoch: epoch.clone(),
        after: *mark,
        known: None,
        gone: gone.as_ref().map_or(0, |gone| gone.events),
        news: gone.map(|gone| gone.news(stream, facts.first)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(sequence: u64, published_ns: i64) -> Position {
        Position {
            epoch: Epoch { stream: "S".into(), number: 3, created: "monday".into() },
            mark: Mark { sequence, published_ns },
        }
    }

    fn decide(position: Option<&Position>, created: &str, last: u64, time_there: Option<i64>) -> Resume {
        resume("S", position, &Facts { created, first: 1, last, time_there, said_to: 0 })
    }

    #[test]
    fn an_unknown_stream_is_read_from_its_start() {
        let resume = decide(None, "monday", 100, None);
        assert_eq!((resume.epoch.number, resume.after, resume.news), (1, Mark::START, None));
    }

    #[test]
    fn the_same_stream_goes_on_behind_the_ledger() {
        for time_there in [Some(7), None] {
            let resume = decide(Some(&at(5, 7)), "monday", 5, time_there);
            assert_eq!((resume.epoch.number, resume.after.sequence, resume.news), (3, 5, None));
        }
    }

    #[test]
    fn what_the_stream_no_longer_has_is_said() {
        let facts = |first| Facts { created: "monday", first, last: 20, time_there: None, said_to: 0 };
        assert_eq!(resume("S", Some(&at(5, 7)), &facts(6)).news, None);
        let news = resume("S", Some(&at(5, 7)), &facts(10)).news.expect("said");
        assert!(news.contains("no longer has 6 to 9, up to 4 events"), "{news}");
    }

    #[test]
    fn a_stream_made_anew_is_read_whole_even_where_it_has_outgrown_the_ledger() {
        let resume = decide(Some(&at(5, 7)), "tuesday", 500, Some(9));
        assert_eq!((resume.epoch.number, resume.after, resume.known), (4, Mark::START, None));
        assert!(resume.news.expect("said").contains("made anew"));
    }

    #[test]
    fn a_rollback_is_read_again_but_for_what_is_known() {
        for (last, time_there) in [(4, None), (9, Some(8))] {
            let resume = decide(Some(&at(5, 7)), "monday", last, time_there);
            let known = Some(Mark { sequence: 5, published_ns: 7 });
            assert_eq!((resume.epoch.number, resume.after, resume.known), (4, Mark::START, known));
            assert!(resume.news.expect("said").contains("went back"));
        }
    }
}
