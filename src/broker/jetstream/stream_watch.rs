//! Watches whether the stream is still the one on which the session was opened.
//!
//! A stream can go back without a sign: its server restarts with an older store, or with none, while the connection to
//! another server of the cluster remains. So the stream's state is requested regularly. After each pause in the
//! deliveries, the last message before the pause is requested too.

use std::time::{Duration, Instant};

use super::api_types::{StoredMessage, StreamInfo};
use crate::pipeline::Mark;

/// A server may have restarted if there was no delivery for this time.
const RESTART: Duration = Duration::from_millis(500);

/// How often messages before a pause are requested.
const PAUSE: Duration = Duration::from_secs(1);

/// After this time an answer is no longer expected.
const NO_ANSWER: Duration = Duration::from_secs(10);

/// The number of messages that are requested at a time.
const MAX_CHECKS: usize = 4;

/// Larger messages are not requested: the answer contains the whole message.
const LARGE: usize = 64 << 10;

/// Compares the stream's state with its deliveries.
#[derive(Debug)]
pub(super) struct StreamWatch {
    created: String,
    first: u64,
    deleted: u64,
    /// The last delivery, or the position at which the session began.
    reached: Mark,
    reached_is_large: bool,
    /// Whether there was a delivery in this session.
    delivered: bool,
    last_delivery: Instant,
    /// When the stream's state and when messages were last requested.
    queried_at: Instant,
    requested_at: Instant,
    /// Messages to request.
    due: Vec<Mark>,
    /// Requested messages without an answer.
    open: Vec<Mark>,
}

impl StreamWatch {
    /// For a stream that was read up to `reached` and has this state.
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

    /// The stream's first sequence in its last known state.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// Notes a delivery. Returns why it cannot follow the one before, if so.
    pub(super) fn delivered(&mut self, mark: Mark, bytes: usize) -> Option<String> {
        let Mark { sequence, published_ns } = self.reached;
        if mark.sequence <= sequence {
            return Some(format!("message {} was delivered after message {sequence}", mark.sequence));
        }
        // A server's clock may be set back. Then the message is the first of the next session, which has compared the
        // stream.
        if mark.published_ns < published_ns && self.delivered {
            return Some(format!("message {} is older than message {sequence} before it", mark.sequence));
        }
        self.delivered = true;
        self.reached = mark;
        self.reached_is_large = bytes > LARGE;
        None
    }

    /// The next delivery was received after a wait.
    pub(super) fn note_wait(&mut self) {
        let now = Instant::now();
        let paused = now.duration_since(self.last_delivery) >= RESTART;
        self.last_delivery = now;
        if paused && self.reached != Mark::START && !self.reached_is_large && self.due.len() < MAX_CHECKS {
            self.due.push(self.reached);
        }
    }

    /// Whether to request the stream's state: the last request is older than `interval`.
    pub(super) fn is_due(&self, interval: Duration) -> bool {
        self.queried_at.elapsed() >= interval
    }

    /// The stream's state is being requested. Returns the last sequence that was delivered before.
    pub(super) fn note_query(&mut self) -> u64 {
        self.queried_at = Instant::now();
        self.reached.sequence
    }

    /// The sequences of the messages to request now.
    pub(super) fn take_messages_to_check(&mut self) -> Vec<u64> {
        let pause = if self.open.is_empty() { PAUSE } else { NO_ANSWER };
        if self.due.is_empty() || self.requested_at.elapsed() < pause {
            return Vec::new();
        }
        self.requested_at = Instant::now();
        self.open = std::mem::take(&mut self.due);
        self.open.iter().map(|mark| mark.sequence).collect()
    }

    /// Checks the stream's state, which was requested when the stream had been read up to `reached`. Returns why the session must end,
    /// if so.
    pub(super) fn check_info(&mut self, name: &str, stream: &StreamInfo, reached: u64) -> Option<String> {
        let state = &stream.state;
        let Self { created, first, deleted, .. } = self;
        if stream.created != *created {
            return Some(format!("stream {name} was created again at {} (before: {created})", stream.created));
        }
        if state.last_seq < reached {
            return Some(format!("stream {name} ends at {}, and it was collected up to {reached}", state.last_seq));
        }
        if state.first_seq < *first {
            return Some(format!("stream {name} begins at {}, and began at {first} before", state.first_seq));
        }
        if state.first_seq == *first && state.num_deleted < *deleted {
            return Some(format!("stream {name} has messages again that were deleted"));
        }
        (*first, *deleted) = (state.first_seq, state.num_deleted);
        None
    }

    /// Checks the answer to the request for this message: `None` if there is no such message, or the answer cannot be
    /// read. Returns how the stream shows that it went back, if so.
    pub(super) fn check_answer(&mut self, name: &str, sequence: u64, stored: Option<&StoredMessage>) -> Option<String> {
        let at = self.open.iter().position(|mark| mark.sequence == sequence)?;
        let mark = self.open.swap_remove(at);
        // A missing message proves nothing.
        let another = stored.is_some_and(|stored| stored.mark != mark);
        another.then(|| format!("stream {name} has another message at {} than the delivered one", mark.sequence))
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
        let asked = watch.note_query();
        assert_eq!(watch.check_info("S", &stream("monday", 3, 10, 2), asked), None);
        assert_eq!(watch.delivered(mark(12, 100), 1), None);
        assert_eq!(watch.check_info("S", &stream("monday", 3, 10, 2), asked), None, "a state from before the delivery");
        let asked = watch.note_query();
        assert_eq!(watch.check_info("S", &stream("monday", 3, 12, 3), asked), None);
        assert_eq!(
            watch.check_info("S", &stream("monday", 9, 12, 1), asked),
            None,
            "fewer lie between: it begins later"
        );
    }

    #[test]
    fn a_stream_that_went_back_shows_in_what_it_looks_like() {
        for (now, what) in [
            (stream("tuesday", 3, 10, 2), "created again"),
            (stream("monday", 3, 9, 2), "ends at 9, and it was collected up to 10"),
            (stream("monday", 2, 10, 2), "begins at 2, and began at 3 before"),
            (stream("monday", 3, 10, 1), "messages again that were deleted"),
        ] {
            let over = watch().check_info("S", &now, 10).expect("over");
            assert!(over.contains(what), "{over}");
        }
    }

    #[test]
    fn a_message_out_of_order_ends_the_session_but_not_twice() {
        let mut watch = watch();
        assert_eq!(watch.delivered(mark(11, 90), 1), None, "the first: the opening has looked");
        assert!(watch.delivered(mark(11, 200), 1).is_some(), "a sequence that was delivered already");
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
        assert_eq!(watch.check_answer("S", 13, Some(&stored(13, 101))), None, "not requested");
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
        assert_eq!(watch.take_messages_to_check(), [14], "the answer is no longer expected");
    }
}
