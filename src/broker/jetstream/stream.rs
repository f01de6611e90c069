//! The stream itself: found or made, and whether it can be collected at all.

use std::sync::Arc;

use super::api::{Api, Failure, Origin, Stream, StreamConfig, Which, code};
use super::consumer::Keeping;
use super::gaps::Steps;
use super::stored::{self, Mismatch};
use crate::broker::broker_error;
use crate::broker::connection::{Cluster, Link};
use crate::config::BrokerConfig;
use crate::error::{BrokerFault, Error};
use crate::pipeline::Signal;

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
        "stream {} has {} retention: {why}; collect a stream with limits retention that takes the events, and let the queue \
         take them from there (sources); a mirror of the queue would empty it",
        config.stream, stream.config.retention
    ))
}

/// Says at the start of a session behind this sequence what keeps events from being collected or safe.
///
/// # Errors
///
/// [`Error::Broker`] where nothing that the stream stores is to be collected, and nothing of what it has either.
pub(super) fn object(api: &Api<'_>, config: &BrokerConfig, stream: &Stream, after: u64) -> Result<(), Error> {
    let name = &config.stream;
    if loses_what_it_acknowledges(&stream.config) {
        log::warn!(
            "broker: stream {name} has persist_mode async: it acknowledges events before they are written, and a kill of its \
             server loses them; make it anew without it"
        );
    }
    if let Some(mismatch) = stored::mismatch(config, &stream.config) {
        if stored::has_nothing_for(config, &stream.config) && !may_have_any(api, config, after + 1) {
            return Err(broker_error(&api.link.server().address, BrokerFault::Stream, mismatch.to_string()));
        }
        log::warn!("broker: {mismatch}");
    } else if after == 0
        && let Some(silent) = silent(api, config, stream)
    {
        log::warn!("broker: {silent}");
    }
    Ok(())
}

/// That a stream has events and none of them is to be collected, where its settings do not tell what it stores.
pub(super) fn silent(api: &Api<'_>, config: &BrokerConfig, stream: &Stream) -> Option<Mismatch> {
    let messages = stream.state.messages;
    if messages == 0 || stored::subjects(&stream.config).is_some() || may_have_any(api, config, stream.state.first_seq)
    {
        return None;
    }
    let (name, subjects) = (&config.stream, config.subjects.join(", "));
    let what = format!("stream {name} has {messages} events, and none of them is on {subjects}");
    Some(Mismatch { what, way_out: "set broker.subjects to what it stores: nats stream subjects".into() })
}

/// Whether the stream has an event to collect from this sequence on, or cannot be asked.
fn may_have_any(api: &Api<'_>, config: &BrokerConfig, from: u64) -> bool {
    let first_of = |filter: &String| api.message(&config.stream, &Which::NextOf(filter, from.max(1)));
    config.subjects.iter().any(|filter| !matches!(first_of(filter), Ok(None)))
}

/// Whether the stream acknowledges events before they are written, so that a kill of its server loses them.
pub(super) fn loses_what_it_acknowledges(config: &StreamConfig) -> bool {
    config.persist_mode == "async"
}

/// Whether filters take everything of a stream with these settings. Where it renames what it takes, it may have events from
/// before it did.
pub(super) fn is_whole(filters: &[String], stream: &StreamConfig) -> bool {
    let has = |subject: &String| filters.contains(subject);
    let stored = stored::subjects(stream).filter(|_| stream.subject_transform.is_none()).unwrap_or_default();
    has(&">".to_owned()) || (!stored.is_empty() && stored.iter().all(has))
}

/// What it means where a delivery does not carry the sequence behind the one before.
pub(super) fn steps(config: &BrokerConfig, stream: &Stream, keeping: Keeping) -> Steps {
    let is_whole = is_whole(&config.subjects, &stream.config);
    if stream.config.mirror.as_ref().is_some_and(Origin::selects) {
        Steps::Usual
    } else if keeping == Keeping::Limits {
        if is_whole { Steps::Lost } else { Steps::Filtered }
    } else if is_whole {
        Steps::Filtered
    } else {
        // It never kept what nobody wanted.
        Steps::Usual
    }
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
        format!("nobody answers JetStream requests on {api} for this account; check broker.domain or broker.api_prefix")
    } else {
        "it has no JetStream for this account; start nats-server with --jetstream, or name another server".into()
    };
    broker_error(server, BrokerFault::NoJetStream, detail)
}
