//! Reads a stream's messages by their sequences, without a consumer.
//!
//! A consumer would change what the stream keeps: an interest stream keeps messages for each of its consumers, a work queue deletes what
//! a consumer was sent, and a stream may limit the number of consumers. A request for a message changes nothing, with any retention.

mod holes;
mod parts;
mod step;

pub use holes::StreamHoles;
pub use parts::StreamPart;
pub(super) use step::Step;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nats::HeaderMap;

use super::api::{self, Api};
use super::api_error::{ApiError, code, to_error};
use super::api_types::{MessageQuery, StoredMessage, StreamInfo, StreamState};
use super::{partition, poison, stored_subjects};
use crate::broker::connection::{Cluster, Denials, Link};
use crate::broker::{broker_error, headers};
use crate::config::BrokerConfig;
use crate::error::{BrokerFault, Error};
use crate::event_id::{self, in_payload};
use crate::pipeline::{Mark, Signal};
use crate::subject::Filter;

/// How many requests are under way at a time.
const REQUESTS: u64 = 16;

/// How often to look whether the caller still waits.
const POLL: Duration = Duration::from_millis(50);

/// How many sequences a search backwards reads at a time. Longer parts are read only where a message in them matches.
const PART: u64 = 256;

/// A connection that reads one stream. It makes no consumer and changes nothing.
///
/// Its user needs the permission to publish to `$JS.API.STREAM.INFO.<stream>` and `$JS.API.STREAM.MSG.GET.<stream>`.
pub struct StreamReader {
    link: Link,
    denials: Denials,
    config: BrokerConfig,
}

/// What the stream holds at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamBounds {
    /// When the stream was created, as the server writes it. A stream that was created again has another time.
    pub created: String,
    /// The sequence of the first message; one more than `last` if there is none.
    pub first: u64,
    /// The sequence of the last message that was stored; 0 if there was none.
    pub last: u64,
    /// Whether the stream keeps messages until a limit is reached, and does not remove them when they are acknowledged.
    pub keeps_acknowledged: bool,
    /// Whether the number of its consumers is limited.
    pub limits_consumers: bool,
}

impl StreamBounds {
    /// Of a stream in this state.
    fn of(stream: &StreamInfo, state: &StreamState) -> Self {
        Self {
            created: stream.created.clone(),
            first: state.first_seq.max(1),
            last: state.last_seq,
            keeps_acknowledged: stream.config.keeps_acknowledged(),
            limits_consumers: stream.config.limits_consumers(),
        }
    }
}

/// A message of the stream. A recorder's number that is in the payload is removed from it, and is a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamMessage {
    /// Its sequence in the stream.
    pub sequence: u64,
    /// When the stream stored it, in nanoseconds since 1970.
    pub published_ns: i64,
    /// Its subject as it was published, without the number of a partition.
    pub subject: String,
    /// Each header's name and value.
    pub headers: Result<Vec<(String, String)>, RawHeaders>,
    /// Its payload.
    pub payload: Vec<u8>,
}

impl StreamMessage {
    /// From the parts of a message as the stream has it. A number in the payload becomes a header.
    pub(super) fn of(
        mark: Mark,
        subject: String,
        mut headers: Result<Vec<(String, String)>, RawHeaders>,
        mut payload: Vec<u8>,
    ) -> Self {
        match &mut headers {
            Ok(headers) => {
                let pairs = || headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
                if let (Some(number), rest) = in_payload::take(&subject, pairs, &mut payload) {
                    headers.insert(0, (event_id::NUMBER_HEADER.to_owned(), number.to_owned()));
                    payload = rest.to_vec();
                }
            }
            // Its subject is what cannot be read.
            Err(raw) if raw.bytes.is_empty() => in_payload::remove(&subject, &mut payload),
            Err(_) => {}
        }
        Self { sequence: mark.sequence, published_ns: mark.published_ns, subject, headers, payload }
    }
}

/// Headers that the NATS client cannot read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawHeaders {
    /// The header block as it is stored.
    pub bytes: Vec<u8>,
    /// Why it cannot be read.
    pub defect: &'static str,
}

impl StreamReader {
    /// Connects, and checks that the stream is there and may have messages that the filters match, if there are any. Blocks for a few times
    /// `broker.timeout` at most.
    ///
    /// # Errors
    ///
    /// [`Error::Broker`]: the server cannot be reached, there is no such stream, it stores nothing on these subjects, or this user may
    /// not ask for it.
    pub fn open(config: &BrokerConfig, filters: &[Filter]) -> Result<Self, Error> {
        let denials = Denials::default();
        let cluster = Arc::new(Cluster::new(config)?);
        let link = Link::open_with(&cluster, &Signal::default(), Arc::new(denials.clone()))?;
        let reader = Self { link, denials, config: config.clone() };
        let stream = reader.info()?;
        if let Some(obstacle) = partition::obstacle(config, &stream.config) {
            return Err(reader.failed(BrokerFault::Request, obstacle.what).with_remedy(obstacle.remedy));
        }
        if let Some(stored) = stored_subjects::subjects(&stream.config) {
            let published = stored.iter().map(|subject| partition::published(config, subject));
            let stored: Vec<Filter> = published.filter_map(|subject| subject.parse().ok()).collect();
            if !filters.is_empty() && !filters.iter().any(|filter| stored.iter().any(|stored| stored.overlaps(filter)))
            {
                let list = |filters: &[Filter]| filters.iter().map(Filter::as_str).collect::<Vec<_>>().join(", ");
                let detail = format!(
                    "stream {} stores nothing on {}; it stores {}",
                    config.stream,
                    list(filters),
                    list(&stored)
                );
                return Err(reader.failed(BrokerFault::Request, detail).with_remedy("name another subject or stream"));
            }
        }
        Ok(reader)
    }

    /// The server's address, without secrets.
    pub(super) fn server(&self) -> &str {
        &self.link.server().address
    }

    /// The name of the stream.
    #[must_use]
    pub fn stream(&self) -> &str {
        &self.config.stream
    }

    /// What the stream holds now. Blocks for `broker.timeout` at most.
    ///
    /// # Errors
    ///
    /// [`Error::Broker`]: no answer, or there is no such stream any more.
    pub fn bounds(&self) -> Result<StreamBounds, Error> {
        let stream = self.info()?;
        Ok(StreamBounds::of(&stream, &stream.state))
    }

    /// The messages in this range of sequences that one of the filters matches, in order. Messages that are deleted meanwhile may be
    /// left out. Blocks until they are read, at most `broker.timeout` for each answer, or until `keep_going` returns `false`; then it
    /// returns none.
    ///
    /// # Errors
    ///
    /// [`Error::Broker`].
    pub fn range(
        &self,
        filters: &[Filter],
        range: RangeInclusive<u64>,
        keep_going: &dyn Fn() -> bool,
    ) -> Result<Vec<StreamMessage>, Error> {
        let mut walks = walks(&partition::stored(&self.config, filters), &range);
        let mut found = BTreeMap::new();
        // Answers to the requests of an earlier range that was given up have other names.
        let name = format!("range-{}-{}-", range.start(), range.end());
        let subject = format!("{}.STREAM.MSG.GET.{}", self.config.api_prefix(), self.config.stream);
        let ask = |number: usize, walk: &Walk| {
            let body = MessageQuery::NextBySubject(&walk.filter, walk.next).request().to_string();
            self.link.publish(subject.clone(), &format!("{name}{number}"), body);
        };
        walks.iter().enumerate().for_each(|(number, walk)| ask(number, walk));
        self.link.write_now();
        let mut open = walks.len();
        let mut until = Instant::now() + self.config.timeout;
        while open > 0 {
            let message = crossbeam_channel::select! {
                recv(self.link.messages()) -> message => message.ok(),
                recv(self.link.lost().channel()) -> _ => None,
                recv(self.denials.signal().channel()) -> _ => {
                    return Err(self.explain(&ApiError::NoAnswer("a request was denied".into())));
                }
                default(POLL) => {
                    if !keep_going() {
                        return Ok(Vec::new());
                    }
                    if Instant::now() >= until {
                        self.link.mark_silent();
                        let silent = format!("no answer within {:?}", self.config.timeout);
                        return Err(self.explain(&ApiError::NoAnswer(silent)));
                    }
                    continue;
                }
            };
            let Some(message) = message else {
                return Err(self.failed(BrokerFault::Unreachable, "the connection was lost"));
            };
            let token = message.subject.rsplit('.').next().and_then(|token| token.strip_prefix(&name));
            let Some(number) = token.and_then(|number| number.parse::<usize>().ok()) else { continue };
            until = Instant::now() + self.config.timeout;
            if message.is_no_responders() {
                return Err(self.explain(&ApiError::NoResponders));
            }
            let stored = api::parse_stored_message(&message.data).map_err(|failure| self.explain(&failure))?;
            let walk = &mut walks[number];
            match stored.filter(|stored| stored.mark.sequence <= walk.end) {
                Some(stored) if stored.mark.sequence < walk.end => {
                    walk.next = stored.mark.sequence + 1;
                    found.insert(stored.mark.sequence, stored);
                    ask(number, walk);
                    self.link.write_now();
                }
                stored => {
                    found.extend(stored.map(|stored| (stored.mark.sequence, stored)));
                    open -= 1;
                }
            }
        }
        Ok(found.into_values().map(|stored| message_of(stored, &self.config)).collect())
    }

    /// The last messages that the stream holds and one of the filters matches, at most `count`, oldest first. Their payloads have at
    /// most `bytes` in sum, and there is at least one message if the stream has one. The search goes backwards. Blocks as
    /// [`StreamReader::range`] does for each part of it.
    ///
    /// # Errors
    ///
    /// [`Error::Broker`].
    pub fn last(
        &self,
        filters: &[Filter],
        bounds: &StreamBounds,
        (count, bytes): (usize, usize),
        keep_going: &dyn Fn() -> bool,
    ) -> Result<Vec<StreamMessage>, Error> {
        let mut found: Vec<StreamMessage> = Vec::new();
        let (mut end, mut size, mut parts) = (bounds.last, PART, Vec::new());
        while found.len() < count && sum(&found) <= bytes && keep_going() {
            let (start, last) = match parts.pop() {
                Some(part) => part,
                None if end < bounds.first => break,
                None => {
                    let start = bounds.first.max((end + 1).saturating_sub(size));
                    let part = (start, end);
                    (end, size) = (start - 1, size.saturating_mul(4));
                    part
                }
            };
            if last - start < PART {
                let mut part = self.range(filters, start..=last, keep_going)?;
                part.append(&mut found);
                found = part;
            } else if let Some(start) = self.next_match(filters, start)?.filter(|next| *next <= last) {
                let middle = start + (last - start) / 2;
                parts.push((start, middle));
                if middle < last {
                    parts.push((middle + 1, last));
                }
            }
        }
        let (mut kept, mut room) = (0, bytes);
        for message in found.iter().rev().take(count) {
            let Some(left) = room.checked_sub(message.payload.len()).or((kept == 0).then_some(0)) else { break };
            (kept, room) = (kept + 1, left);
        }
        Ok(found.split_off(found.len() - kept))
    }

    /// The sequence of the first message that the stream stored at this time or later, in nanoseconds since 1970; one more than the
    /// last if there is none. Blocks for some tens of answers.
    ///
    /// # Errors
    ///
    /// [`Error::Broker`].
    pub fn first_since(&self, bounds: &StreamBounds, published_ns: i64) -> Result<u64, Error> {
        let api = self.api();
        // Messages are stored in the order of their times.
        let (mut low, mut high) = (bounds.first, bounds.last + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            let next = api.message(&self.config.stream, &MessageQuery::NextBySubject(">", middle));
            match next.map_err(|failure| self.explain(&failure))? {
                Some(stored) if stored.mark.published_ns < published_ns => low = stored.mark.sequence + 1,
                _ => high = middle,
            }
        }
        Ok(low)
    }

    /// The sequence of the first message from this one on that has no partition: it was published before the stream had partitions.
    /// Messages on subjects of the stream that begin with a wildcard are not found. Blocks for an answer for each subject of the stream.
    ///
    /// # Errors
    ///
    /// [`Error::Broker`].
    pub fn first_undivided(&self, from: u64) -> Result<Option<u64>, Error> {
        let mut subjects = self.info()?.config.subjects;
        subjects.retain(|subject| !subject.starts_with(['*', '>']));
        let next = self.api().next_message(&self.config.stream, &subjects, from.max(1));
        Ok(next.map_err(|failure| self.explain(&failure))?.map(|stored| stored.mark.sequence))
    }

    /// The sequence of the first message that matches, from this one on.
    fn next_match(&self, filters: &[Filter], from: u64) -> Result<Option<u64>, Error> {
        let filters = partition::stored(&self.config, filters);
        let next = self.api().next_message(&self.config.stream, &filters, from);
        Ok(next.map_err(|failure| self.explain(&failure))?.map(|stored| stored.mark.sequence))
    }

    fn api(&self) -> Api<'_> {
        let stop = Some(self.denials.signal());
        Api { link: &self.link, prefix: self.config.api_prefix(), timeout: self.config.timeout, stop }
    }

    fn info(&self) -> Result<StreamInfo, Error> {
        let found = self.api().stream(&self.config.stream);
        found.map_err(|failure| {
            if failure.is_code(code::NO_STREAM) {
                let detail = format!("there is no stream {}", self.config.stream);
                return self.failed(BrokerFault::Request, detail).with_remedy("name another one with broker.stream");
            }
            self.explain(&failure)
        })
    }

    fn explain(&self, failure: &ApiError) -> Error {
        match (failure, self.denials.first()) {
            (ApiError::NoAnswer(_), Some(denied)) => self
                .failed(BrokerFault::Request, format!("this user {denied}"))
                .with_remedy("allow it at the server; catchment check --permissions=read lists what is needed"),
            _ => to_error(&self.link, &self.config, failure),
        }
    }

    fn failed(&self, fault: BrokerFault, detail: impl Into<String>) -> Error {
        broker_error(&self.link.server().address, fault, detail)
    }
}

/// A walk through a part of a range, from one message that matches to the next.
struct Walk {
    filter: String,
    next: u64,
    end: u64,
}

/// One walk for each filter in each part of the range. A walk asks for its next message when it has received one.
fn walks(filters: &[String], range: &RangeInclusive<u64>) -> Vec<Walk> {
    let (first, last) = (*range.start(), *range.end());
    let part = ((last + 1).saturating_sub(first)).div_ceil(REQUESTS).max(1);
    let starts = (first..=last).step_by(usize::try_from(part).unwrap_or(usize::MAX));
    let walk =
        |start: u64, filter: &String| Walk { filter: filter.clone(), next: start, end: last.min(start + part - 1) };
    starts.flat_map(|start| filters.iter().map(move |filter| walk(start, filter))).collect()
}

fn sum(messages: &[StreamMessage]) -> usize {
    messages.iter().map(|message| message.payload.len()).sum()
}

fn message_of(stored: StoredMessage, config: &BrokerConfig) -> StreamMessage {
    let StoredMessage { mark, mut subject, headers: block, payload } = stored;
    let headers = match poison::defect(&subject, &block) {
        Some(defect) => Err(RawHeaders { bytes: block, defect }),
        None if block.is_empty() => Ok(Vec::new()),
        None => match HeaderMap::try_from(&block[..]) {
            Ok(map) => {
                Ok(headers::pairs(Some(&map)).map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
            }
            Err(_) => Err(RawHeaders { bytes: block, defect: "its headers cannot be read by the NATS client" }),
        },
    };
    partition::remove_from(&mut subject, config);
    StreamMessage::of(mark, subject, headers, payload)
}
