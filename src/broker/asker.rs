//! Sends a request and waits for its reply.

use std::sync::Arc;

use nats::Message;
use parking_lot::Mutex;

use super::broker_error;
use super::connection::{Cluster, Link, ServerRemark};
use super::requests::{Reply, ServiceError};
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
    let replied = link.request(subject.to_owned(), payload, config.timeout, None);
    match replied {
        Ok(message) if message.is_no_responders() => Ok(None),
        Ok(message) => Ok(Some(reply(message))),
        Err(error) => {
            let remark = last_remark.lock().take();
            let remark = remark.map(|remark| format!("; the server reports: {remark}")).unwrap_or_default();
            Err(failed(format!("{subject}: {}{remark}", error.0)))
        }
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
    Reply { body: message.data, failure }
}
