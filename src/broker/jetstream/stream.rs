//! The stream itself: found or made, and whether it can be collected at all.

use std::sync::Arc;

use super::api::{Api, Failure, Stream, code};
use crate::broker::broker_error;
use crate::broker::connection::{Cluster, Link};
use crate::config::BrokerConfig;
use crate::error::{BrokerFault, Error};
use crate::pipeline::Signal;
use crate::subject::Filter;

/// The retention of streams that keep an event until it is acknowledged.
pub(super) const INTEREST: &str = "interest";

/// The stream, made where it is missing and may be.
pub(super) fn find(api: &Api<'_>, config: &BrokerConfig, may_create: bool) -> Result<Stream, Error> {
    let stream = match api.stream(&config.stream) {
        Err(failure) if failure.is_code(code::NO_STREAM) => make(api, config, may_create)?,
        found => found.map_err(|failure| explain(api.link, config, &failure))?,
    };
    match refusal(config, &stream) {
        None => Ok(stream),
        Some(detail) => Err(broker_error(&api.link.server().address, BrokerFault::Stream, detail)),
    }
}

/// Deletes the stream that the configuration names, with all that is in it. Blocks for a few times `timeout` at most.
///
/// # Errors
///
/// [`Error::Broker`] when the server cannot be asked or refuses, for there is no such stream for instance.
pub fn remove_stream(config: &BrokerConfig) -> Result<(), Error> {
    let cluster = Arc::new(Cluster::new(config)?);
    let stop = Signal::default();
    let link = Link::open(&cluster, &stop)?;
    let api = Api { link: &link, prefix: config.api_prefix(), within: config.timeout, stop: Some(&stop) };
    api.delete_stream(&config.stream).map_err(|failure| explain(&link, config, &failure))
}

fn make(api: &Api<'_>, config: &BrokerConfig, may_create: bool) -> Result<Stream, Error> {
    let missing = |detail: String| broker_error(&api.link.server().address, BrokerFault::Stream, detail);
    if !config.create_stream {
        let detail = format!("there is no stream {}; make it, or set broker.create_stream = true", config.stream);
        return Err(missing(detail));
    }
    if !may_create {
        return Err(missing(format!("stream {} is gone; waiting a moment for whoever makes it anew", config.stream)));
    }
    let made = api.create_stream(&config.stream, &config.subjects).map_err(|failure| match failure {
        Failure::Refused { description, .. } => missing(format!("cannot make stream {}: {description}", config.stream)),
        failure => explain(api.link, config, &failure),
    })?;
    log::info!("broker: made stream {} on {}", config.stream, config.subjects.join(", "));
    Ok(made)
}

/// Why the stream cannot be collected, if it cannot.
pub(super) fn refusal(config: &BrokerConfig, stream: &Stream) -> Option<String> {
    let why = match stream.config.retention.as_str() {
        "limits" | INTEREST => return None,
        "workqueue" => "a work queue can neither be read from a position nor acknowledged cumulatively",
        _ => "this program does not know what that keeps",
    };
    Some(format!(
        "stream {} has {} retention: {why}; collect a stream with limits retention, a mirror of this one for instance",
        config.stream, stream.config.retention
    ))
}

/// Which of the subjects to collect the stream does not have, if any: no event of those can come. A mirror has no subjects of
/// its own.
pub(super) fn deaf(config: &BrokerConfig, stream: &Stream) -> Option<String> {
    let subjects = &stream.config.subjects;
    let overlap = |one: &String, other: &String| match (one.parse::<Filter>(), other.parse::<Filter>()) {
        (Ok(one), Ok(other)) => one.overlaps(&other),
        _ => true,
    };
    let lacks = |subject: &&String| !subjects.iter().any(|of_stream| overlap(subject, of_stream));
    let missing: Vec<_> = config.subjects.iter().filter(lacks).map(String::as_str).collect();
    if subjects.is_empty() || missing.is_empty() || stream.config.renames() {
        return None;
    }
    Some(format!(
        "stream {} takes no events on {}: its subjects are {}; add it there (nats stream edit), or take it out of \
         broker.subjects",
        config.stream,
        missing.join(", "),
        subjects.join(", ")
    ))
}

/// Whether filters take everything of a stream with these subjects.
pub(super) fn is_whole(filters: &[String], subjects: &[String]) -> bool {
    let has = |subject: &String| filters.contains(subject);
    has(&">".to_owned()) || (!subjects.is_empty() && subjects.iter().all(has))
}

/// The library's error for a failed request.
pub(super) fn explain(link: &Link, config: &BrokerConfig, failure: &Failure) -> Error {
    let server = &link.server().address;
    match failure {
        Failure::NoResponders => no_jetstream(server, config),
        Failure::Refused { code, .. } if [code::NO_JETSTREAM, code::NO_JETSTREAM_FOR_ACCOUNT].contains(code) => {
            no_jetstream(server, config)
        }
        Failure::Gone(what) => {
            let api = config.api_prefix();
            let detail = format!("{what} while asking for stream {}; may this user use {api}.>?", config.stream);
            broker_error(server, BrokerFault::Silent, detail)
        }
        other => broker_error(server, BrokerFault::Request, format!("stream {}: {other}", config.stream)),
    }
}

fn no_jetstream(server: &str, config: &BrokerConfig) -> Error {
    let detail = if config.domain.is_some() || config.api_prefix.is_some() {
        let api = config.api_prefix();
        format!("nobody answers JetStream requests on {api} for this account; check --js-domain or --js-api-prefix")
    } else {
        "it has no JetStream for this account; start nats-server with --jetstream, or name another server".into()
    };
    broker_error(server, BrokerFault::NoJetStream, detail)
}
