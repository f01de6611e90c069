//! Sends a request and waits for its reply.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use nats::Message;
use parking_lot::Mutex;

use super::broker_error;
use super::connection::{Cluster, Link, ServerRemark};
use super::requests::{AnsweringPartition, Reply, ServiceError};
use super::subject_use::{self, SubjectUse, subject_use};
use crate::config::BrokerConfig;
use crate::error::{BrokerFault, Error};
use crate::pipeline::Signal;
use crate::subject;

/// Sends a request and waits for the first reply; `None` where nothing subscribes to that subject. Before, asks whether the request
/// would become an event; then it is not sent. Blocks at most twice for the configured time-out, to connect and for the reply, and two
/// seconds longer.
///
/// # Errors
///
/// [`Error::Broker`]: no connection, a request that would become an event or cannot be sent, or no reply in time.
pub fn ask(config: &BrokerConfig, subject: &str, payload: Vec<u8>) -> Result<Option<Reply>, Error> {
    let Some(Asking { link, last_remark }) = Asking::prepare(config, subject, &payload)? else { return Ok(None) };
    let replied = link.request(subject.to_owned(), payload, config.timeout, None);
    match replied {
        Ok(message) if message.is_no_responders() => Ok(None),
        Ok(message) => Ok(Some(reply(message))),
        Err(error) => Err(no_reply(&link, &last_remark, subject, &error.0)),
    }
}

/// The replies of the collectors of a stream's partitions to one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionReplies {
    /// How many partitions there are, as the settings and the replies say; 0 if neither does.
    pub partitions: u32,
    /// The first reply of each partition.
    pub of_partitions: BTreeMap<u32, Reply>,
    /// The reply of a collector without partitions, if one came.
    pub of_whole: Option<Reply>,
}

impl PartitionReplies {
    fn add(&mut self, reply: Reply) {
        match reply.partition {
            Some(AnsweringPartition { number, of }) => {
                self.partitions = self.partitions.max(of).max(number.saturating_add(1));
                self.of_partitions.entry(number).or_insert(reply);
            }
            None => self.of_whole = self.of_whole.take().or(Some(reply)),
        }
    }

    fn is_complete(&self, only: Option<u32>) -> bool {
        if self.of_whole.is_some() {
            return true;
        }
        match only {
            Some(number) => self.of_partitions.contains_key(&number),
            None => self.partitions > 0 && (0..self.partitions).all(|number| self.of_partitions.contains_key(&number)),
        }
    }
}

/// As [`ask`], with the replies of all partitions, or of the only one that is wanted. Each collector of a partition answers every request.
/// Waits until all have answered, at most for the time-out; then returns what came.
///
/// # Errors
///
/// As [`ask`], if nothing came.
pub fn ask_partitions(
    config: &BrokerConfig,
    subject: &str,
    payload: Vec<u8>,
    only: Option<u32>,
) -> Result<Option<PartitionReplies>, Error> {
    const TOKEN: &str = "partitions";
    let Some(Asking { link, last_remark }) = Asking::prepare(config, subject, &payload)? else { return Ok(None) };
    let mut replies = PartitionReplies { partitions: config.partitions.unwrap_or(0), ..PartitionReplies::default() };
    let until = Instant::now() + config.timeout;
    let answers = format!("{}.{TOKEN}", link.inbox());
    link.publish(subject.to_owned(), TOKEN, payload);
    link.write_now();
    while !replies.is_complete(only) {
        let why = crossbeam_channel::select! {
            recv(link.messages()) -> message => match message {
                Ok(message) if message.subject != answers => continue,
                Ok(message) if message.is_no_responders() => return Ok(None),
                Ok(message) => {
                    replies.add(reply(message));
                    continue;
                }
                Err(_) => "the connection was lost".to_owned(),
            },
            recv(link.lost().channel()) -> _ => "the connection was lost".to_owned(),
            default(until.saturating_duration_since(Instant::now())) => format!("no answer within {:?}", config.timeout),
        };
        if replies.of_partitions.is_empty() {
            return Err(no_reply(&link, &last_remark, subject, &why));
        }
        break;
    }
    Ok(Some(replies))
}

/// Why there is no reply, with what the server reports.
fn no_reply(link: &Link, last_remark: &Mutex<Option<String>>, subject: &str, why: &str) -> Error {
    let remark = last_remark.lock().take();
    let remark = remark.map(|remark| format!("; the server reports: {remark}")).unwrap_or_default();
    broker_error(&link.server().address, BrokerFault::Request, format!("{subject}: {why}{remark}"))
}

/// A connection on which a request may be sent.
struct Asking {
    link: Link,
    /// What the server reports after that.
    last_remark: Arc<Mutex<Option<String>>>,
}

impl Asking {
    /// Connects, and asks whether the request would become an event. `None` where nothing subscribes to that subject.
    fn prepare(config: &BrokerConfig, subject: &str, payload: &[u8]) -> Result<Option<Self>, Error> {
        let cluster = Arc::new(Cluster::new(config)?);
        let last_remark = Arc::new(Mutex::new(None));
        let kept = Arc::clone(&last_remark);
        let denied = Signal::default();
        let denied_too = denied.clone();
        let keep = move |remark: &ServerRemark| {
            if let ServerRemark::PublishDenied(_) = remark {
                denied_too.raise();
            }
            *kept.lock() = Some(remark.to_string());
        };
        let link = Link::open_with(&cluster, &Signal::default(), Arc::new(keep))?;
        let server = link.server();
        let failed = |detail: String| broker_error(&server.address, BrokerFault::Request, detail);
        subject::validate(subject).map_err(|error| failed(error.to_string()))?;
        if payload.len() > server.max_payload {
            let detail = format!(
                "the request has {} bytes; the server takes {}, its max_payload",
                payload.len(),
                server.max_payload
            );
            return Err(failed(detail));
        }
        match subject_use(&link, config, subject, &denied) {
            SubjectUse::Request => {}
            SubjectUse::Event(reason) => return Err(failed(reason).with_remedy("ask on the subject of a [[query]]")),
            SubjectUse::Nothing => return Ok(None),
        }
        // A remark on the questions does not explain why a reply is missing.
        *last_remark.lock() = None;
        Ok(Some(Self { link, last_remark }))
    }
}

/// The subjects of the queries that are answered at this broker, as far as their services say so within a second. Blocks for the configured
/// time-out and that second at most.
///
/// # Errors
///
/// [`Error::Broker`]: no connection.
pub fn query_subjects(config: &BrokerConfig) -> Result<Vec<String>, Error> {
    let denied = Signal::default();
    let denied_too = denied.clone();
    let raise = move |remark: &ServerRemark| {
        if let ServerRemark::PublishDenied(_) = remark {
            denied_too.raise();
        }
    };
    let link = Link::open_with(&Arc::new(Cluster::new(config)?), &Signal::default(), Arc::new(raise))?;
    Ok(subject_use::query_subjects(&link, config, &denied))
}

fn reply(message: Message) -> Reply {
    let header = |name: &str| message.headers.as_ref()?.get(name).cloned();
    let failure = match (header(ServiceError::CODE), header(ServiceError::REASON)) {
        (None, None) => None,
        (code, reason) => Some(ServiceError {
            code: code.and_then(|code| code.parse().ok()).unwrap_or(500),
            reason: reason.unwrap_or_else(|| "it gives no reason".into()),
        }),
    };
    let partition = header(AnsweringPartition::HEADER).and_then(|partition| AnsweringPartition::read(&partition));
    Reply { body: message.data, failure, partition }
}
