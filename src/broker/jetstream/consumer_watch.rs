//! What becomes of the consumer while a session lives: whether it delivers at all, whether somebody pauses or edits it, whether
//! the stream still has what it filters.

use std::time::{Duration, Instant};

use nats::{HeaderMap, Message};

use super::api_types::{ConsumerConfig, ConsumerInfo, StreamInfo};
use super::pulls::EXPIRES;
use super::stored_subjects;
use crate::config::BrokerConfig;

/// How often to ask until it is proved that the consumer delivers.
const UNTIL_PROVED: Duration = Duration::from_millis(200);

/// Watches a consumer.
#[derive(Debug)]
pub(super) struct ConsumerWatch {
    name: String,
    stream: String,
    /// As it was when the session began.
    made: ConsumerConfig,
    /// How many it had delivered when the session began.
    delivered_before: u64,
    /// It has delivered, or the server has taken our requests: a session that has this behind it is a recovery.
    proved: bool,
    /// Until when somebody has it deliver nothing.
    paused: Option<String>,
    /// Why nothing can come.
    subject_mismatch: Option<String>,
    asked: Instant,
    /// The last delivery or request for some, and that there was one since it was looked at: the clock is asked once for many.
    last_flow: Instant,
    has_flow: bool,
    /// How often in a row it had messages and sent none.
    stalled_in_a_row: u32,
    /// How often in a row it had delivered more than came.
    missing_in_a_row: u32,
}

/// What a look at a consumer comes to that has not sent anything for a while.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ConsumerState {
    Healthy,
    /// It has no request of ours.
    NoRequests,
    /// It will not do; why.
    Unusable(String),
}

/// How often in a row it may have messages and send none.
const MAX_STALLED_CHECKS: u32 = 3;

/// How often in a row it may have delivered more than came: what is on its way comes between two looks.
const MAX_MISSING_CHECKS: u32 = 2;

impl ConsumerWatch {
    /// Of a consumer and its stream as they are when the session begins.
    pub(super) fn new(name: &str, consumer: &ConsumerInfo, config: &BrokerConfig, stream: &StreamInfo) -> Self {
        let mut watch = Self {
            name: name.to_owned(),
            stream: config.stream.clone(),
            made: consumer.config.clone(),
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

    /// It delivered.
    pub(super) fn note_delivery(&mut self) {
        self.proved = true;
        self.has_flow = true;
        self.stalled_in_a_row = 0;
    }

    /// Whether this message had a payload in the stream that the consumer keeps back. The first of a session is believed: then the
    /// consumer was as it should be, and a publisher set that header.
    pub(super) fn is_payload_missing(&self, message: &Message, consumer_sequence: u64) -> bool {
        let kept_back = |headers: &HeaderMap| headers.get("Nats-Msg-Size").is_some_and(|size| size != "0");
        message.data.is_empty()
            && consumer_sequence > self.delivered_before + 1
            && message.headers.as_ref().is_some_and(kept_back)
    }

    /// It ended a request that it had taken.
    pub(super) fn note_request_end(&mut self) {
        self.proved = true;
    }

    /// A request for events was sent.
    pub(super) fn note_pull(&mut self) {
        self.has_flow = true;
    }

    /// Notes when what came or was sent since the last call did so.
    pub(super) fn note_flow(&mut self) {
        if std::mem::take(&mut self.has_flow) {
            self.last_flow = Instant::now();
        }
    }

    /// Nobody listened for a while.
    pub(super) fn was_away(&mut self) {
        self.last_flow = Instant::now();
    }

    pub(super) fn is_proved(&self) -> bool {
        self.proved
    }

    pub(super) fn paused(&self) -> Option<&str> {
        self.paused.as_deref()
    }

    /// What keeps events from coming, if anything is known to.
    pub(super) fn trouble(&self) -> Option<String> {
        let Self { name, stream, .. } = self;
        let paused = self.paused.as_ref().map(|until| {
            format!(
                "somebody has paused consumer {name} of stream {stream} until {until}; nats consumer resume ends that"
            )
        });
        paused.or_else(|| self.subject_mismatch.clone())
    }

    /// Whether it is time to ask for it, with an answer every `pause`.
    pub(super) fn is_due(&mut self, pause: Duration) -> bool {
        let pause = if self.proved { pause } else { pause.min(UNTIL_PROVED) };
        let due = self.asked.elapsed() >= pause;
        if due {
            self.asked = Instant::now();
        }
        due
    }

    /// The stream as it is now.
    pub(super) fn update_stream(&mut self, config: &BrokerConfig, stream: &StreamInfo) {
        self.subject_mismatch = subject_mismatch(config, stream);
    }

    /// The consumer as it is now. What is wrong with it, where it cannot be used any longer.
    pub(super) fn update_consumer(&mut self, consumer: &ConsumerInfo) -> Option<String> {
        self.proved |= consumer.num_waiting > 0;
        self.note_pause(consumer);
        let Self { name, made, .. } = self;
        let now = &consumer.config;
        let subjects = |config: &ConsumerConfig| -> String {
            let several = config.filter_subjects.iter().flatten();
            let all: Vec<_> = config.filter_subject.iter().chain(several).map(String::as_str).collect();
            if all.is_empty() { "all subjects".into() } else { all.join(", ") }
        };
        let (before, after) = (subjects(made), subjects(now));
        if before != after {
            return Some(format!(
                "somebody has edited consumer {name}: it filters {after} instead of {before}; making another. Of the last \
                 seconds, events that it passed over are not stored"
            ));
        }
        if now.headers_only != made.headers_only {
            return Some(format!("somebody has edited consumer {name}: it sends no payloads; making another"));
        }
        None
    }

    /// What to think of a consumer of whose deliveries `came` have come. While messages come, or requests are on their way, it
    /// says nothing of those under way.
    pub(super) fn check_deliveries(&mut self, consumer: &ConsumerInfo, came: u64, silence: Duration) -> ConsumerState {
        if self.has_flow || self.last_flow.elapsed() < (silence / 2).min(EXPIRES / 2) {
            return ConsumerState::Healthy;
        }
        self.last_flow = Instant::now();
        let (name, delivered, pending) = (&self.name, consumer.delivered.consumer_seq, consumer.num_pending);
        self.missing_in_a_row = if delivered > came { self.missing_in_a_row + 1 } else { 0 };
        if self.missing_in_a_row >= MAX_MISSING_CHECKS {
            return ConsumerState::Unusable(format!(
                "consumer {name} has delivered {delivered} messages, and {came} came"
            ));
        }
        // Without acknowledgement there is no such limit.
        let waits_for_us = |most: i64| u64::try_from(most).is_ok_and(|most| consumer.num_ack_pending >= most);
        let is_full = consumer.config.ack_policy == "all" && consumer.config.max_ack_pending.is_some_and(waits_for_us);
        if pending > 0 && !consumer.paused && !is_full {
            self.stalled_in_a_row += 1;
        }
        if self.stalled_in_a_row >= MAX_STALLED_CHECKS {
            let why = if consumer.num_waiting > 0 { "sends none" } else { "gets no request of ours" };
            return ConsumerState::Unusable(format!("consumer {name} has {pending} messages and {why}"));
        }
        if consumer.num_waiting == 0 { ConsumerState::NoRequests } else { ConsumerState::Healthy }
    }

    fn note_pause(&mut self, consumer: &ConsumerInfo) {
        self.paused = consumer.paused_until();
    }
}

/// Why nothing can come of some subject to collect, where that is known.
fn subject_mismatch(config: &BrokerConfig, stream: &StreamInfo) -> Option<String> {
    stored_subjects::mismatch(config, &stream.config).map(|mismatch| mismatch.to_string())
}
