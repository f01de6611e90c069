//! Watches the consumer during a session: whether it delivers, whether it was paused or edited, and whether the stream
//! still stores the subjects of its filters.

use std::time::{Duration, Instant};

use nats::{HeaderMap, Message};

use super::api_types::{ConsumerConfig, ConsumerInfo, StreamInfo};
use super::pulls::EXPIRES;
use super::stored_subjects;
use crate::config::BrokerConfig;
use crate::counted;

/// How often to request the consumer's state until it is proved that it works.
const UNTIL_PROVED: Duration = Duration::from_millis(200);

/// Watches one consumer.
#[derive(Debug)]
pub(super) struct ConsumerWatch {
    name: String,
    stream: String,
    /// Its settings when the session began.
    created: ConsumerConfig,
    /// The number of its deliveries when the session began.
    delivered_before: u64,
    /// It has delivered, or the server has accepted our pull requests. Only then has the session recovered.
    proved: bool,
    /// When its pause ends.
    paused: Option<String>,
    /// Why the stream does not store some of the configured subjects.
    subject_mismatch: Option<String>,
    asked: Instant,
    /// When a delivery was received or a pull request sent. `has_flow` notes that there was one since the last update,
    /// so that the clock is read once for many.
    last_flow: Instant,
    has_flow: bool,
    /// In how many checks in a row it had messages and sent none.
    stalled_in_a_row: u32,
    /// In how many checks in a row deliveries were missing.
    missing_in_a_row: u32,
}

/// The result of a check of a consumer that has not sent anything for a while.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ConsumerState {
    Healthy,
    /// It has no pull request of ours.
    NoRequests,
    /// The session needs another consumer. The text says why.
    Unusable(String),
}

/// The number of checks in a row in which it may have messages and send none.
const MAX_STALLED_CHECKS: u32 = 3;

/// The number of checks in a row in which deliveries may be missing. Those in transit are received between two checks.
const MAX_MISSING_CHECKS: u32 = 2;

impl ConsumerWatch {
    /// For this consumer and stream at the beginning of the session.
    pub(super) fn new(name: &str, consumer: &ConsumerInfo, config: &BrokerConfig, stream: &StreamInfo) -> Self {
        let mut watch = Self {
            name: name.to_owned(),
            stream: config.stream.clone(),
            created: consumer.config.clone(),
            delivered_before: consumer.delivered.consumer_seq,
            proved: false,
            paused: None,
            subject_mismatch: subject_mismatch(config, stream),
            asked: Instant::now(),
            last_flow: Instant::now(),
            has_flow: false,
            stalled_in_a_row: 0,
            missing_in_a_row: 0,
        };
        watch.note_pause(consumer);
        watch
    }

    /// A delivery was received.
    pub(super) fn note_delivery(&mut self) {
        self.proved = true;
        self.has_flow = true;
        self.stalled_in_a_row = 0;
    }

    /// Whether the consumer omitted the payload of this message. The first delivery of a session is exempt: the
    /// consumer was just checked, so a publisher must have set that header.
    pub(super) fn is_payload_missing(&self, message: &Message, consumer_sequence: u64) -> bool {
        let has_size = |headers: &HeaderMap| headers.get("Nats-Msg-Size").is_some_and(|size| size != "0");
        message.data.is_empty()
            && consumer_sequence > self.delivered_before + 1
            && message.headers.as_ref().is_some_and(has_size)
    }

    /// The consumer ended a pull request that it had accepted.
    pub(super) fn note_request_end(&mut self) {
        self.proved = true;
    }

    /// A pull request was sent.
    pub(super) fn note_pull(&mut self) {
        self.has_flow = true;
    }

    /// Notes the time if there was a delivery or a pull request since the last call.
    pub(super) fn note_flow(&mut self) {
        if std::mem::take(&mut self.has_flow) {
            self.last_flow = Instant::now();
        }
    }

    /// Deliveries were not read for a while.
    pub(super) fn was_away(&mut self) {
        self.last_flow = Instant::now();
    }

    pub(super) fn is_proved(&self) -> bool {
        self.proved
    }

    pub(super) fn paused(&self) -> Option<&str> {
        self.paused.as_deref()
    }

    /// Why no events are received, if the reason is known.
    pub(super) fn trouble(&self) -> Option<String> {
        let Self { name, stream, .. } = self;
        let paused = self.paused.as_ref().map(|until| {
            format!(
                "consumer {name} of stream {stream} is paused until {until}; to end the pause: nats consumer resume"
            )
        });
        paused.or_else(|| self.subject_mismatch.clone())
    }

    /// Whether to request the consumer's state now, so that there is an answer every `pause`.
    pub(super) fn is_due(&mut self, pause: Duration) -> bool {
        let pause = if self.proved { pause } else { pause.min(UNTIL_PROVED) };
        let due = self.asked.elapsed() >= pause;
        if due {
            self.asked = Instant::now();
        }
        due
    }

    /// Updates the state of the stream.
    pub(super) fn update_stream(&mut self, config: &BrokerConfig, stream: &StreamInfo) {
        self.subject_mismatch = subject_mismatch(config, stream);
    }

    /// Updates the state of the consumer. Returns why it cannot be used any more, if so.
    pub(super) fn update_consumer(&mut self, consumer: &ConsumerInfo) -> Option<String> {
        self.proved |= consumer.num_waiting > 0;
        self.note_pause(consumer);
        let Self { name, created, .. } = self;
        let now = &consumer.config;
        let subjects = |config: &ConsumerConfig| -> String {
            let several = config.filter_subjects.iter().flatten();
            let all: Vec<_> = config.filter_subject.iter().chain(several).map(String::as_str).collect();
            if all.is_empty() { "all subjects".into() } else { all.join(", ") }
        };
        let (before, after) = (subjects(created), subjects(now));
        if before != after {
            return Some(format!(
                "consumer {name} was edited: it filters {after} instead of {before}; creating another one. Events that it \
                 skipped in the last seconds are not stored"
            ));
        }
        if now.headers_only != created.headers_only {
            return Some(format!("consumer {name} was edited: it sends no payloads; creating another one"));
        }
        None
    }

    /// Checks the consumer: `received` is the number of its deliveries that were received. Does nothing while messages
    /// are received or pull requests are in transit.
    pub(super) fn check_deliveries(
        &mut self,
        consumer: &ConsumerInfo,
        received: u64,
        silence: Duration,
    ) -> ConsumerState {
        if self.has_flow || self.last_flow.elapsed() < (silence / 2).min(EXPIRES / 2) {
            return ConsumerState::Healthy;
        }
        self.last_flow = Instant::now();
        let (name, delivered, pending) = (&self.name, consumer.delivered.consumer_seq, consumer.num_pending);
        self.missing_in_a_row = if delivered > received { self.missing_in_a_row + 1 } else { 0 };
        if self.missing_in_a_row >= MAX_MISSING_CHECKS {
            return ConsumerState::Unusable(format!(
                "consumer {name} has delivered {}, and {received} of them arrived",
                counted(delivered, "message")
            ));
        }
        // Without acknowledgements there is no such limit.
        let is_reached = |most: i64| u64::try_from(most).is_ok_and(|most| consumer.num_ack_pending >= most);
        let is_full = consumer.config.ack_policy == "all" && consumer.config.max_ack_pending.is_some_and(is_reached);
        if pending > 0 && !consumer.paused && !is_full {
            self.stalled_in_a_row += 1;
        }
        if self.stalled_in_a_row >= MAX_STALLED_CHECKS {
            let why = if consumer.num_waiting > 0 { "sends none" } else { "receives no pull request of ours" };
            return ConsumerState::Unusable(format!("consumer {name} has {} and {why}", counted(pending, "message")));
        }
        if consumer.num_waiting == 0 { ConsumerState::NoRequests } else { ConsumerState::Healthy }
    }

    fn note_pause(&mut self, consumer: &ConsumerInfo) {
        self.paused = consumer.paused_until();
    }
}

/// Why the stream does not store some of the configured subjects, if that is known.
fn subject_mismatch(config: &BrokerConfig, stream: &StreamInfo) -> Option<String> {
    stored_subjects::mismatch(config, &stream.config).map(|mismatch| mismatch.to_string())
}
