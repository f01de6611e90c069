//! Whether the stream is still the one that the session was opened on.
//!
//! A stream can go back without a word: its server restarts with an older store, or with none, while the connection to another
//! server of the cluster stays. So the stream is asked again and again what it looks like, and after each pause
//! whether it still has the last message that came before the pause.

use std::time::{Duration, Instant};

use super::api_types::{StoredMessage, StreamInfo};
use crate::pipeline::Mark;

/// No delivery for this long may be a server that restarted.
const RESTART: Duration = Duration::from_millis(500);

/// How often to ask for messages that came before a pause.
const PAUSE: Duration = Duration::from_secs(1);

/// An answer that has not come by then will not come.
const NO_ANSWER: Duration = Duration::from_secs(10);

/// So many of them are asked for at a time, at most.
const MAX_CHECKS: usize = 4;

/// A message is asked for only where it is no larger: the answer has all of it.
const LARGE: usize = 64 << 10;

/// Compares what the stream says with what came from it.
#[derive(Debug)]
pub(super) struct StreamWatch {
    created: String,
    first: u64,
    deleted: u64,
    /// The last delivery, or where the session began.
    reached: Mark,
    reached_is_large: bool,
    /// Whether anything came in this session.
    delivered: bool,
    last_delivery: Instant,
    /// When it was last asked what it looks like, and for messages.
    queried_at: Instant,
    requested_at: Instant,
    /// Messages to ask for, and those whose answers are due.
    due: Vec<Mark>,
    open: Vec<Mark>,
}

impl StreamWatch {
    /// Over a stream that was read up to `reached` and looked like this then.
    pub(super) fn new(stream: &StreamInfo, reached: Mark) -> Self {
        let now = Instant::now();
        Self {
            created: stream.created.clone(),
            first: stream.state.first_seq,
            deleted: stream.state.num_deleted,
            reached,
            reached_is_large: true,
            delivered: false,
            last_delivery: now,
            queried_at: now,
            requested_at: now,
            due: Vec::new(),
            open: Vec::new(),
        }
    }

    /// The stream's first sequence, as it was last seen.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// A delivery last_delivery. Why it cannot follow the one before, if it cannot.
    pub(super) fn delivered(&mut self, mark: Mark, bytes: usize) -> Option<String> {
        let Mark { sequence, published_ns } = self.reached;
        if mark.sequence <= sequence {
            return Some(format!("message {} came behind message {sequence}", mark.sequence));
        }
        // A server's clock may be set back. The message then begins the next session, whose opening has looked at the stream.
        if mark.published_ns < published_ns && self.delivered {
            return Some(format!("message {} is older than message {sequence} before it", mark.sequence));
        }
        self.delivered = true;
        self.reached = mark;
        self.reached_is_large = bytes > LARGE;
        None
    }

    /// The next delivery had to be waited for.
    pub(super) fn note_wait(&mut self) {
        let now = Instant::now();
        let paused = now.duration_since(self.last_delivery) >= RESTART;
        self.last_delivery = now;
        if paused && self.reached != Mark::START && !self.reached_is_large && self.due.len() < MAX_CHECKS {
            self.due.push(self.reached);
        }
    }

    /// Whether to ask what the stream looks like, if it has not been asked for as long as `interval`.
    pub(super) fn is_due(&self, interval: Duration) -> bool {
        self.queried_at.elapsed() >= interval
    }

    /// It is asked what it looks like.
    pub(super) fn note_query(&mut self) {
        self.queried_at = Instant::now();
    }

    /// The messages to ask for now, by their sequences.
    pub(super) fn take_messages_to_check(&mut self) -> Vec<u64> {
        let pause = if self.open.is_empty() { PAUSE } else { NO_ANSWER };
        if self.due.is_empty() || self.requested_at.elapsed() < pause {
            return Vec::new();
        }
        self.requested_at = Instant::now();
        self.open = std::mem::take(&mut self.due);
        self.open.iter().map(|mark| mark.sequence).collect()
    }

    /// What it looks like now. What has changed so that the session is over, if anything has.
    pub(super) fn check_info(&mut self, name: &str, stream: &StreamInfo) -> Option<String> {
        let (state, reached) = (&stream.state, self.reached.sequence);
        let Self { created, first, deleted, .. } = self;
        if stream.created != *created {
            return Some(format!("stream {name} was made anew ({}, before: {created})", stream.created));
        }
        if state.last_seq < reached {
            return Some(format!("stream {name} ends at {}, and {reached} was reached", state.last_seq));
        }
        if state.first_seq < *first {
            return Some(format!("stream {name} begins at {}, and began at {first}", state.first_seq));
        }
        if state.first_seq == *first && state.num_deleted < *deleted {
            return Some(format!("stream {name} has messages again that were deleted"));
        }
        (*first, *deleted) = (state.first_seq, state.num_deleted);
        None
    }

    /// The answer to the question for the message of this sequence: `None` where there is none, or it says nothing. What shows that
    /// the stream went back, if so.
    pub(super) fn check_answer(&mut self, name: &str, sequence: u64, stored: Option<&StoredMessage>) -> Option<String> {
        let at = self.open.iter().position(|mark| mark.sequence == sequence)?;
        let mark = self.open.swap_remove(at);
        // That it is gone proves nothing.
        let another = stored.is_some_and(|stored| stored.mark != mark);
        another.then(|| format!("stream {name} has another message at {} than the one that came", mark.sequence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(created: &str, first: u64, last: u64, deleted: u64) -> StreamInfo {
        let state = serde_json::json!({ "messages": 0, "first_seq": first, "last_seq": last, "num_deleted": deleted });
        let stream = serde_json::json!({ "config": { "retention": "limits" }, "created": created, "state": state });
        serde_json::from_value(stream).expect("a stream")
    }

    fn mark(sequence: u64, published_ns: i64) -> Mark {
        Mark { sequence, published_ns }
    }

    fn watch() -> StreamWatch {
        StreamWatch::new(&stream("monday", 3, 10, 2), mark(10, 100))
    }

    #[test]
    fn a_stream_that_goes_on_is_the_same() {
        let mut watch = watch();
        assert_eq!(watch.check_info("S", &stream("monday", 3, 10, 2)), None);
        assert_eq!(watch.delivered(mark(12, 100), 1), None);
        assert_eq!(watch.check_info("S", &stream("monday", 3, 12, 3)), None);
        assert_eq!(watch.check_info("S", &stream("monday", 9, 12, 1)), None, "fewer lie between, for it begins later");
    }

    #[test]
    fn a_stream_that_went_back_shows_in_what_it_looks_like() {
        for (now, what) in [
            (stream("tuesday", 3, 10, 2), "made anew"),
            (stream("monday", 3, 9, 2), "ends at 9, and 10 was reached"),
            (stream("monday", 2, 10, 2), "begins at 2, and began at 3"),
            (stream("monday", 3, 10, 1), "messages again that were deleted"),
        ] {
            let over = watch().check_info("S", &now).expect("over");
            assert!(over.contains(what), "{over}");
        }
    }

    #[test]
    fn a_message_out_of_order_ends_the_session_but_not_twice() {
        let mut watch = watch();
        assert_eq!(watch.delivered(mark(11, 90), 1), None, "the first: the opening has looked");
        assert!(watch.delivered(mark(11, 200), 1).is_some(), "a sequence that came already");
        assert!(watch.delivered(mark(12, 80), 1).is_some_and(|over| over.contains("older")));
    }

    #[test]
    fn the_message_before_a_pause_is_asked_for() {
        let mut watch = watch();
        let pass = |watch: &mut StreamWatch, sequence| {
            watch.last_delivery -= RESTART;
            watch.note_wait();
            assert_eq!(watch.delivered(mark(sequence, 100), 1), None);
        };
        pass(&mut watch, 11);
        assert!(watch.due.is_empty(), "the opening has looked at the one before");
        pass(&mut watch, 12);
        pass(&mut watch, 13);
        assert!(watch.take_messages_to_check().is_empty(), "asked a moment ago");
        watch.requested_at -= PAUSE;
        assert_eq!(watch.take_messages_to_check(), [11, 12]);
        let stored = |sequence, published_ns| StoredMessage {
            mark: mark(sequence, published_ns),
            subject: String::new(),
            headers: Vec::new(),
            payload: Vec::new(),
        };
        assert!(!watch.is_due(PAUSE * 60), "that is another question");
        assert_eq!(watch.check_answer("S", 13, Some(&stored(13, 101))), None, "nobody asked");
        let over = watch.check_answer("S", 12, Some(&stored(12, 101)));
        assert!(over.is_some_and(|over| over.contains("another message at 12")));
        assert_eq!(watch.check_answer("S", 11, None), None, "gone proves nothing");
        pass(&mut watch, 14);
        watch.requested_at -= PAUSE;
        assert_eq!(watch.take_messages_to_check(), [13], "all were answered");
        pass(&mut watch, 15);
        watch.requested_at -= PAUSE;
        assert!(watch.take_messages_to_check().is_empty(), "an answer is due");
        watch.requested_at -= NO_ANSWER;
        assert_eq!(watch.take_messages_to_check(), [14], "it will not come");
    }
}
