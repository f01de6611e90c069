//! A consumer that reads a part of a stream once, in order, and changes nothing for others.
//!
//! It is held in the server's memory and acknowledges nothing. If anything is not as expected, its user reads on without it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;
use nats::Message;
use serde_json::json;

use super::api::Api;
use super::api_types::{ConsumerConfig, StreamInfo, nanoseconds};
use super::claims::{self, Owner};
use super::consumer_request::matches_request;
use super::delivery_metadata::{self, DeliveryMetadata};
use super::local_filter::{LocalFilter, consumer_filters};
use super::partition;
use super::stream::takes_whole_stream;
use super::stream_reader::StreamMessage;
use crate::broker::connection::{Cluster, Denials, Link};
use crate::broker::headers;
use crate::config::BrokerConfig;
use crate::pipeline::Signal;

/// A pull request asks for so many messages, and so many bytes, at most. The client's memory for headers is up to sixty times what they
/// have in the stream.
const EVENTS: u64 = 2_000;
const BYTES: usize = 2 << 20;

/// What the server counts of a message beside its payload: subject, reply subject, and more.
const OVERHEAD: usize = 64 << 10;

/// The server deletes the consumer of a dead process after this time.
const INACTIVE: Duration = Duration::from_secs(60);

/// How often to look whether the caller still waits.
const POLL: Duration = Duration::from_millis(50);

/// How long the deletion of the consumer may take.
const DELETION: Duration = Duration::from_millis(500);

/// A consumer on a connection of its own. Dropping it deletes the consumer.
pub(super) struct OrderedConsumer {
    link: Link,
    denials: Denials,
    config: BrokerConfig,
    name: String,
    /// The number of its last delivery.
    delivered: u64,
    /// The sequence of that message in the stream; before the first, the one before its beginning.
    position: u64,
    /// How many messages it still has to deliver.
    pending: u64,
    /// How many pull requests were sent.
    pulls: u64,
    filter: Option<LocalFilter>,
}

/// Why a consumer delivers no more.
#[derive(Debug)]
pub(super) enum NoMore {
    /// The connection was lost. The client ends it too if it cannot read the next message.
    Lost,
    /// Another reason, in words.
    Other(String),
}

impl OrderedConsumer {
    /// Creates a consumer that begins with this sequence. Blocks for a few times `broker.timeout` at most; a denial ends that.
    ///
    /// # Errors
    ///
    /// Why there is none, in words.
    pub(super) fn create(config: &BrokerConfig, stream: &StreamInfo, first: u64) -> Result<Self, String> {
        let denials = Denials::default();
        let cluster = Arc::new(Cluster::new(config).map_err(|error| error.to_string())?);
        let link = Link::open_with(&cluster, &Signal::default(), Arc::new(denials.clone()));
        let link = link.map_err(|error| error.to_string())?;
        let whole_stream = takes_whole_stream(&partition::stored_filters(config), &stream.config);
        let (filter_subject, filter_subjects) = match &consumer_filters(config)[..] {
            _ if whole_stream => (None, None),
            [one] => (Some(one.clone()), None),
            several => (None, Some(several.to_vec())),
        };
        let limit = stream.config.consumer_limits.inactive_threshold;
        let inactive = nanoseconds(INACTIVE);
        let owner = Owner { identity: "verify".into(), tag: "reader".into(), ..Owner::default() };
        let name = claims::new_name(&owner);
        let wanted = ConsumerConfig {
            name: Some(name.clone()),
            description: Some(format!("catchment verify, process {}", std::process::id())),
            deliver_policy: "by_start_sequence".into(),
            opt_start_seq: Some(first),
            ack_policy: "none".into(),
            filter_subject,
            filter_subjects,
            replay_policy: "instant".into(),
            inactive_threshold: if limit > 0 { inactive.min(limit) } else { inactive },
            mem_storage: true,
            ..ConsumerConfig::default()
        };
        let api =
            Api { link: &link, prefix: config.api_prefix(), timeout: config.timeout, stop: Some(denials.signal()) };
        let created = api.create_consumer(&config.stream, &name, &wanted).map_err(|failure| match denials.first() {
            Some(denied) => format!("this user {denied}"),
            None => failure.to_string(),
        })?;
        let consumer = Self {
            filter: LocalFilter::for_consumer(&created, config),
            denials,
            config: config.clone(),
            name,
            delivered: created.delivered.consumer_seq,
            position: first - 1,
            pending: created.num_pending,
            pulls: 0,
            link,
        };
        if matches_request(&created.config, &wanted, whole_stream) {
            Ok(consumer)
        } else {
            Err(format!("server {} makes another consumer than requested", consumer.link.server().version))
        }
    }

    /// All messages up to this sequence were delivered.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Adds the next messages up to the sequence `last`, as many as one pull request brings. `true`: there are no more. Blocks until they
    /// have come, until nothing has come for `broker.timeout`, or until `keep_going` returns `false`.
    ///
    /// # Errors
    ///
    /// Why it delivers no more. What was added before is in order and complete up to [`OrderedConsumer::position`].
    pub(super) fn receive(
        &mut self,
        last: u64,
        keep_going: &dyn Fn() -> bool,
        to: &mut Vec<StreamMessage>,
    ) -> Result<bool, NoMore> {
        if self.pending == 0 {
            return Ok(true);
        }
        let (asked, before) = (self.pull(), self.delivered);
        let token = format!("pull-{}", self.pulls);
        let mut until = Instant::now() + self.config.timeout;
        for _ in 0..asked {
            let message = loop {
                match self.link.messages().recv_timeout(POLL) {
                    Ok(message) => break message,
                    Err(RecvTimeoutError::Disconnected) => return Err(NoMore::Lost),
                    Err(RecvTimeoutError::Timeout) => {}
                }
                if let Some(denied) = self.denials.first() {
                    return Err(NoMore::Other(format!("this user {denied}")));
                }
                if self.link.lost().is_raised() {
                    return Err(NoMore::Lost);
                }
                if !keep_going() {
                    return Ok(false);
                }
                if Instant::now() >= until {
                    return Err(NoMore::Other(format!("consumer {} delivers nothing", self.name)));
                }
            };
            until = Instant::now() + self.config.timeout;
            let Some(metadata) = message.reply.as_deref().and_then(delivery_metadata::parse) else {
                if message.subject.ends_with(&token) {
                    return if self.delivered == before { Err(NoMore::Other(status(&message))) } else { Ok(false) };
                }
                continue;
            };
            if metadata.consumer_sequence != self.delivered + 1 || metadata.delivered != 1 {
                return Err(NoMore::Other(format!("consumer {} is out of order", self.name)));
            }
            (self.delivered, self.pending) = (metadata.consumer_sequence, metadata.pending);
            if metadata.mark.sequence > last {
                return Ok(true);
            }
            self.position = metadata.mark.sequence;
            if self.filter.as_mut().is_none_or(|filter| filter.matches(&message.subject)) {
                to.push(self.message_of(message, &metadata));
            }
            if self.pending == 0 || metadata.mark.sequence == last {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn message_of(&self, message: Message, metadata: &DeliveryMetadata) -> StreamMessage {
        let pairs = headers::pairs(message.headers.as_ref());
        let headers = Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect());
        let mut subject = message.subject;
        partition::remove_from(&mut subject, &self.config);
        StreamMessage::of(metadata.mark, subject, headers, message.data)
    }

    fn delete(&self, link: &Link) {
        let api = Api { link, prefix: self.config.api_prefix(), timeout: DELETION, stop: None };
        if let Err(failure) = api.delete_consumer(&self.config.stream, &self.name) {
            log::debug!("broker: consumer {} cannot be deleted, and expires later: {failure}", self.name);
        }
    }

    /// Requests messages; how many.
    fn pull(&mut self) -> u64 {
        self.pulls += 1;
        let events = EVENTS.min(self.pending);
        let bytes = BYTES.max(self.link.server().max_payload + OVERHEAD);
        let body = json!({ "batch": events, "max_bytes": bytes, "expires": nanoseconds(self.config.timeout) });
        let (prefix, stream, name) = (self.config.api_prefix(), &self.config.stream, &self.name);
        let subject = format!("{prefix}.CONSUMER.MSG.NEXT.{stream}.{name}");
        self.link.publish(subject, &format!("pull-{}", self.pulls), body.to_string());
        self.link.write_now();
        events
    }
}

impl Drop for OrderedConsumer {
    fn drop(&mut self) {
        if !self.link.lost().is_raised() {
            self.delete(&self.link);
            return;
        }
        // The client ended the connection because of a message that it cannot read. The server answers another one.
        let cluster = Cluster::new(&self.config).map(Arc::new);
        match cluster.and_then(|cluster| Link::open_with(&cluster, &Signal::default(), Arc::new(self.denials.clone())))
        {
            Ok(link) => self.delete(&link),
            Err(error) => log::debug!("broker: consumer {} is not deleted, and expires later: {error}", self.name),
        }
    }
}

/// Why the server ended a pull request.
fn status(message: &Message) -> String {
    let text = |name: &str| message.headers.as_ref().and_then(|headers| headers.get(name)).map_or("", |text| text);
    format!("the server ended a pull request: {} {}", text("Status"), text("Description"))
}
