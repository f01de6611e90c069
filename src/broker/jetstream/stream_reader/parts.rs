//! Reads a range of a stream's sequences from beginning to end, in parts.

use std::ops::RangeInclusive;

use super::{Step, StreamMessage, StreamReader};
use crate::broker::jetstream::ordered_consumer::{NoMore, OrderedConsumer};
use crate::error::Error;
use crate::subject::Filter;

/// A consumer is not worth its requests for fewer sequences than this.
const WORTH_A_CONSUMER: u64 = 1_000;

/// Messages of a stream.
#[derive(Debug)]
pub struct StreamPart {
    /// The sequences of which these are all messages.
    pub range: RangeInclusive<u64>,
    /// The messages, in order.
    pub messages: Vec<StreamMessage>,
}

/// A range of a stream that is read in parts of some thousand messages and some megabytes.
///
/// A longer range is read through a consumer in the server's memory that acknowledges nothing, if that changes nothing for others: the
/// stream keeps acknowledged messages, and has no limit on consumers. Otherwise it is read message by message. So are messages that the
/// client cannot read, and everything if this user may make no consumer.
pub struct StreamParts<'r> {
    reader: &'r StreamReader,
    filters: &'r [Filter],
    next: u64,
    last: u64,
    /// How many are read at a time without a consumer.
    step: Step,
    consumer: Option<OrderedConsumer>,
    /// A consumer may be made for what is left.
    may_consume: bool,
}

impl StreamReader {
    /// Reads this range in parts. Blocks for `broker.timeout` at most.
    ///
    /// # Errors
    ///
    /// [`Error::Broker`].
    pub fn parts<'r>(&'r self, filters: &'r [Filter], range: RangeInclusive<u64>) -> Result<StreamParts<'r>, Error> {
        let config = self.info()?.config;
        let may_consume = config.keeps_acknowledged() && !config.limits_consumers();
        let (next, last) = range.into_inner();
        Ok(StreamParts { reader: self, filters, next, last, step: Step::INITIAL, consumer: None, may_consume })
    }
}

impl StreamParts<'_> {
    /// The next part; `None` after the last. Messages that are deleted meanwhile may be left out. Blocks until it is read, at most
    /// `broker.timeout` for each answer, or until `keep_going` returns `false`: then the part may lack messages.
    ///
    /// # Errors
    ///
    /// [`Error::Broker`].
    pub fn next_part(&mut self, keep_going: &dyn Fn() -> bool) -> Result<Option<StreamPart>, Error> {
        if self.next > self.last {
            return Ok(None);
        }
        let is_long = self.last - self.next >= WORTH_A_CONSUMER;
        if self.consumer.is_none() && self.may_consume && is_long {
            let made = OrderedConsumer::create(&self.reader.config, &self.reader.info()?, self.next);
            self.consumer = made.map_err(|reason| self.go_without(&reason)).ok();
        }
        let part = match self.next_of_consumer(keep_going) {
            Some(part) => part,
            None => self.next_by_sequence(keep_going)?,
        };
        self.next = part.range.end() + 1;
        Ok(Some(part))
    }

    fn go_without(&mut self, reason: &str) {
        self.may_consume = false;
        let stream = &self.reader.config.stream;
        log::info!(
            event = "verify.without_consumer", stream = stream, reason = reason;
            "broker: reading stream {stream} message by message, which is slower: {reason}"
        );
    }

    /// What the consumer delivers; `None` if it delivers nothing.
    fn next_of_consumer(&mut self, keep_going: &dyn Fn() -> bool) -> Option<StreamPart> {
        let consumer = self.consumer.as_mut()?;
        let mut messages = Vec::new();
        let received = consumer.receive(self.last, keep_going, &mut messages);
        let end = if let Ok(true) = received { self.last } else { consumer.position() };
        if let Err(no_more) = received {
            self.consumer = None;
            self.step = Step::INITIAL;
            match no_more {
                NoMore::Lost => {
                    log::debug!("broker: message {} may have ended the connection; reading it raw", end + 1);
                }
                NoMore::Other(reason) => self.go_without(&reason),
            }
            if end < self.next {
                return None;
            }
        }
        Some(StreamPart { range: self.next..=end, messages })
    }

    fn next_by_sequence(&mut self, keep_going: &dyn Fn() -> bool) -> Result<StreamPart, Error> {
        let range = self.step.range(self.next, self.last);
        let messages = self.reader.range(self.filters, range.clone(), keep_going)?;
        self.step.adapt(&messages);
        Ok(StreamPart { range, messages })
    }
}
