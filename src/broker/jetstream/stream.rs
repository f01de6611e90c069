//! The stream: finds or creates it, and decides whether it can be collected.

use std::sync::Arc;

use super::api::Api;
use super::api_error::{code, to_error};
use super::api_types::{MessageQuery, StreamConfig, StreamInfo, UpstreamStream};
use super::gaps::SkippedSequences;
use super::obstacle::Obstacle;
use super::partition;
use super::retention::{INTEREST, Retention};
use super::stored_subjects;
use super::stream_creation;
use crate::broker::broker_error;
use crate::broker::connection::{Cluster, Link};
use crate::config::BrokerConfig;
use crate::counted;
use crate::error::{BrokerFault, Error};
use crate::pipeline::Signal;

/// The stream. If it is missing and may be created, creates it. `previous` is what the previous session collected, if there was one.
pub(super) fn find_or_create(
    api: &Api<'_>,
    config: &BrokerConfig,
    may_create: bool,
    previous: Option<&[String]>,
) -> Result<StreamInfo, Error> {
    let stream = match api.stream(&config.stream) {
        Err(failure) if failure.is_code(code::NO_STREAM) => {
            if !config.create_stream {
                return Err(stream_creation::missing(api, config).to_error(api.link));
            }
            if !may_create {
                let name = &config.stream;
                let detail =
                    format!("stream {name} was deleted; waiting a moment in case another program creates it again");
                return Err(broker_error(&api.link.server().address, BrokerFault::Stream, detail));
            }
            stream_creation::create(api, config, previous)?
        }
        found => {
            let found = found.map_err(|failure| to_error(api.link, config, &failure))?;
            if config.takes_all_of_stream() && previous.is_none() {
                let (name, subjects) = (&config.stream, stored_subjects::collected(config, &found.config).join(", "));
                // A mirror or a source may have any subject.
                let subjects = if subjects == ">" { "any subject".to_owned() } else { subjects };
                log::info!(
                    event = "stream.taken_whole", stream = name, subjects = subjects;
                    "broker: collecting all of stream {name} ({subjects}): broker.subjects is not set"
                );
            }
            found
        }
    };
    // A collector that runs keeps its partition, whatever their number is now: what is in the stream has that partition for good.
    let of_partitions = || if previous.is_none() { partition::obstacle(config, &stream.config) } else { None };
    match refusal(config, &stream).or_else(of_partitions) {
        None => Ok(stream),
        Some(refusal) => Err(refusal.to_error(api.link)),
    }
}

/// Deletes the configured stream and all its events. Blocks for a few times `timeout` at most.
///
/// # Errors
///
/// [`Error::Broker`] if the server cannot be reached or refuses, for instance because there is no such stream.
pub fn remove_stream(config: &BrokerConfig) -> Result<(), Error> {
    let cluster = Arc::new(Cluster::new(config)?);
    let stop = Signal::default();
    let link = Link::open(&cluster, &stop)?;
    let api = Api { link: &link, prefix: config.api_prefix(), timeout: config.timeout, stop: Some(&stop) };
    api.delete_stream(&config.stream).map_err(|failure| to_error(&link, config, &failure))
}

/// Why the stream cannot be collected; `None` if it can.
pub(super) fn refusal(config: &BrokerConfig, stream: &StreamInfo) -> Option<Obstacle> {
    if let Some(what) = config.feeds_itself(&stream.config.subjects) {
        return Some(Obstacle::new(
            what,
            "give the stream subjects that begin with a word, as events.> (nats stream edit)",
        ));
    }
    let why = match stream.config.retention.as_str() {
        "limits" | INTEREST => return None,
        "workqueue" => "a work queue can neither be read from a position nor acknowledged cumulatively",
        _ => "this program does not support it",
    };
    Some(Obstacle {
        what: format!("stream {} has {} retention: {why}", config.stream, stream.config.retention),
        remedy:
            "collect a stream with limits retention that receives the events, and let the queue copy them from there \
                 (sources); a mirror of the queue would empty it"
                .into(),
    })
}

/// Logs at the start of a session after this sequence why events are not safe, or why there are none.
///
/// # Errors
///
/// [`Error::Broker`] if the stream stores none of the configured subjects and has no events on them.
pub(super) fn check_contents(
    api: &Api<'_>,
    config: &BrokerConfig,
    stream: &StreamInfo,
    after: u64,
) -> Result<(), Error> {
    let name = &config.stream;
    if acknowledges_before_writing(&stream.config) {
        log::warn!(
            event = "stream.persists_late", stream = name;
            "broker: stream {name} has persist_mode async: it acknowledges events before it writes them, and loses them if its \
             server is killed; create it again without persist_mode async"
        );
    }
    if let Some(mismatch) = stored_subjects::mismatch(config, &stream.config) {
        if stored_subjects::stores_none_of(config, &stream.config) && !may_have_events(api, config, after + 1) {
            return Err(mismatch.to_error(api.link));
        }
        // The consumer's watch reports it.
    } else if after == 0
        && let Some(empty) = no_matching_events(api, config, stream)
    {
        log::warn!(event = "stream.has_none", stream = name, notice:% = empty; "broker: {empty}");
    }
    Ok(())
}

/// Whether a stream has events but none on the configured subjects. Only for streams whose settings do not show what
/// they store.
pub(super) fn no_matching_events(api: &Api<'_>, config: &BrokerConfig, stream: &StreamInfo) -> Option<Obstacle> {
    let messages = stream.state.messages;
    if messages == 0
        || stored_subjects::subjects(&stream.config).is_some()
        || may_have_events(api, config, stream.state.first_seq)
    {
        return None;
    }
    let (name, subjects) = (&config.stream, config.filters().join(", "));
    let what = format!("stream {name} has {}, and none of them is on {subjects}", counted(messages, "event"));
    Some(Obstacle { what, remedy: "set broker.subjects to subjects that it stores: nats stream subjects".into() })
}

/// Whether the stream has an event on the configured subjects from this sequence on, or cannot be asked.
fn may_have_events(api: &Api<'_>, config: &BrokerConfig, from: u64) -> bool {
    let first_of = |filter: &String| api.message(&config.stream, &MessageQuery::NextBySubject(filter, from.max(1)));
    partition::stored_filters(config).iter().any(|filter| !matches!(first_of(filter), Ok(None)))
}

/// Whether the stream acknowledges events before it writes them. It loses them if its server is killed.
pub(super) fn acknowledges_before_writing(config: &StreamConfig) -> bool {
    config.persist_mode == "async"
}

/// Whether these filters, as the stream stores subjects, match everything that a stream with these settings stores. A stream that renames subjects may have
/// events from before it did.
pub(super) fn takes_whole_stream(filters: &[String], stream: &StreamConfig) -> bool {
    let has = |subject: &String| filters.contains(subject);
    let stored = stored_subjects::subjects(stream).filter(|_| stream.subject_transform.is_none()).unwrap_or_default();
    has(&">".to_owned()) || (!stored.is_empty() && stored.iter().all(has))
}

/// What it means if a delivery skips sequences.
pub(super) fn skipped_sequences(config: &BrokerConfig, stream: &StreamInfo, retention: Retention) -> SkippedSequences {
    let takes_whole_stream = takes_whole_stream(&partition::stored_filters(config), &stream.config);
    if stream.config.mirror.as_ref().is_some_and(UpstreamStream::is_filtered) {
        SkippedSequences::Expected
    } else if retention == Retention::Limits {
        if takes_whole_stream { SkippedSequences::Lost } else { SkippedSequences::MaybeFiltered }
    } else if takes_whole_stream {
        SkippedSequences::MaybeFiltered
    } else {
        // It never kept events without a consumer.
        SkippedSequences::Expected
    }
}
