//! The disposable consumer: created at a position and compared with the request. Older ones of the same database are
//! deleted.
//!
//! On a stream with limits retention the consumer acknowledges nothing and is held in the server's memory; the server
//! deletes it when it is inactive. A stream with interest retention keeps an event only for consumers that have not
//! acknowledged it. There the consumer acknowledges, is stored on disk, and remains when the collector ends: without
//! it, events that are published meanwhile would be lost. If the consumer limit is reached, see
//! [`takeover`](super::takeover).

use std::time::Duration;

use super::api::Api;
use super::api_error::{ApiError, code, to_error};
use super::api_types::{ConsumerConfig, ConsumerInfo, nanoseconds};
use super::claims::{self, Claims};
use super::consumer_request::{ConsumerRequest, CreatedConsumer, matches_request};
use super::local_filter::consumer_filters;
use super::retention::Retention;
use super::stored_subjects;
use super::takeover;
use crate::broker::broker_error;
use crate::config::BrokerConfig;
use crate::error::{BrokerFault, Error};
use crate::pipeline::Mark;

/// The server deletes a consumer without requests after this time. This removes the consumers of dead processes.
const INACTIVE: Duration = Duration::from_secs(300);

/// The server delivers an event again after this time without an acknowledgement. No commit should take that long. If
/// one does, the repeated delivery ends the session and is not stored twice.
const ACK_WAIT: Duration = Duration::from_secs(3600);

/// Creates the consumer and compares it with the request. If the consumer limit is reached, takes over one of our own.
pub(super) fn create(
    api: &Api<'_>,
    request: &ConsumerRequest<'_>,
    claims: &mut Claims,
) -> Result<CreatedConsumer, Error> {
    let ConsumerRequest { config, owner, stream, resume, retention, .. } = *request;
    let name = claims::new_name(owner);
    let from_start = resume.after == Mark::START;
    let (filter_subject, filter_subjects) = match &consumer_filters(config)[..] {
        // With interest retention the stream must not keep events for it that it does not collect.
        _ if config.takes_all_of_stream() && config.partitions.is_none()
            || request.whole_stream && retention == Retention::Limits =>
        {
            (None, None)
        }
        [one] => (Some(one.clone()), None),
        several => (None, Some(several.to_vec())),
    };
    let acks = retention.unacknowledged();
    let limit = stream.config.consumer_limits.inactive_threshold;
    let inactive = if acks.is_some() { limit } else { nanoseconds(INACTIVE) };
    let mut wanted = ConsumerConfig {
        name: Some(name.clone()),
        durable_name: acks.map(|_| name.clone()),
        description: Some(format!("catchment, process {} at {}", std::process::id(), owner.location)),
        deliver_policy: if from_start { "all" } else { "by_start_sequence" }.into(),
        opt_start_seq: (!from_start).then_some(resume.after.sequence + 1),
        ack_policy: if acks.is_some() { "all" } else { "none" }.into(),
        ack_wait: acks.map(|_| nanoseconds(ACK_WAIT)),
        max_ack_pending: acks.map(|most| i64::try_from(most).unwrap_or(i64::MAX)),
        filter_subject,
        filter_subjects,
        replay_policy: "instant".into(),
        inactive_threshold: if limit > 0 { inactive.min(limit) } else { inactive },
        mem_storage: acks.is_none(),
        pause_until: request.paused.or_else(|| claims.pause()).map(str::to_owned),
        ..ConsumerConfig::default()
    };
    let info = loop {
        match api.create_consumer(&config.stream, &name, &wanted) {
            Ok(info) => break info,
            Err(failure) if failure.is_code(code::NO_ROOM_FOR_CONSUMERS) => {
                if !takeover::make_room(api, config, retention, claims) {
                    return takeover::take_over(api, request, &wanted, claims);
                }
            }
            Err(failure) => {
                if let Some(most) = max_ack_pending_limit(&failure, wanted.max_ack_pending) {
                    wanted.max_ack_pending = Some(most);
                    continue;
                }
                // A server before 2.10 refuses a filter that matches none of the stream's subjects.
                let mismatch = stored_subjects::mismatch(config, &stream.config);
                return Err(match mismatch.filter(|_| failure.is_code(code::FILTER_OUTSIDE)) {
                    Some(mismatch) => broker_error(&api.link.server().address, BrokerFault::Request, mismatch.what)
                        .with_remedy(mismatch.remedy),
                    None => to_error(api.link, config, &failure),
                });
            }
        }
    };
    if matches_request(&info.config, &wanted, request.whole_stream) {
        return Ok(CreatedConsumer { name, info, unstored: None });
    }
    // An old server silently ignores settings that it does not support, and would deliver other events.
    if let Err(failure) = api.delete_consumer(&config.stream, &name) {
        log::debug!("broker: consumer {name} cannot be deleted, and expires later: {failure}");
    }
    let server = api.link.server();
    let version = &server.version;
    if info.config.filter_subjects == wanted.filter_subjects {
        let created = &info.config;
        let detail =
            format!("server {version} created another consumer than requested: {created:?} instead of {wanted:?}");
        return Err(broker_error(&server.address, BrokerFault::Request, detail));
    }
    let detail = format!("server {version} created a consumer without its several subjects");
    let remedy = "set one subject in broker.subjects, or all subjects of the stream, or use server 2.10 or later";
    Err(broker_error(&server.address, BrokerFault::Request, detail).with_remedy(remedy))
}

/// The limit on unacknowledged events that an error contains, if it is lower than the requested one. The server reports
/// its own limit and the account's only in this error.
fn max_ack_pending_limit(failure: &ApiError, asked: Option<i64>) -> Option<i64> {
    let ApiError::Refused { code: code::TOO_MANY_UNACKNOWLEDGED, description, .. } = failure else { return None };
    let limit = description.rsplit(' ').next()?.parse().ok()?;
    (0 < limit && limit < asked?).then_some(limit)
}

/// Deletes the consumers of earlier sessions on this database, but not the current one. If that fails, the server
/// deletes them later. With interest retention it does not: they remain until the next session.
pub(super) fn delete_older(api: &Api<'_>, stream: &str, claims: &Claims, current: &str, retention: Retention) {
    let (level, consequence) = match retention {
        Retention::Limits => (log::Level::Debug, "it expires later"),
        Retention::Interest { .. } => {
            (log::Level::Warn, "the stream keeps events for it until the next session deletes it")
        }
    };
    if let Some(failure) = &claims.list_error {
        log::log!(
            level, event = "consumers.unlisted", stream = stream, error:% = failure;
            "broker: older consumers cannot be found and deleted ({consequence}): {failure}"
        );
    }
    for claim in claims.own().filter(|claim| claim.name != current) {
        let name = &claim.name;
        match api.delete_consumer(stream, name) {
            Ok(()) => log::debug!("broker: deleted the older consumer {name}"),
            Err(failure) => {
                log::log!(
                    level, event = "consumer.undeletable", stream = stream, consumer = name, error:% = failure;
                    "broker: the older consumer {name} cannot be deleted ({consequence}): {failure}"
                );
            }
        }
    }
}

/// Logs what an operator should know about the stream's consumers: when the server deletes ours, and for which consumers of
/// copies or of the original the stream keeps events. Those are not changed.
pub(super) fn warn_operator(config: &BrokerConfig, created: &ConsumerInfo, claims: &Claims, retention: Retention) {
    let inactive = Duration::from_nanos(created.config.inactive_threshold);
    if retention != Retention::Limits && !inactive.is_zero() {
        let stream = &config.stream;
        log::warn!(
            event = "consumer.expires", stream = stream, seconds = inactive.as_secs_f64();
            "broker: stream {stream} deletes our consumer and the events kept for it when no collector has run for \
             {inactive:?}; raise inactive_threshold of its consumer_limits"
        );
    }
    for claim in claims.others() {
        let (name, maker, stream) = (&claim.name, claim.maker(), &config.stream);
        if claim.is_in_use() {
            log::warn!(
                event = "database.copied", stream = stream, other = maker;
                "broker: {maker} collects stream {stream} too, into a copy of this database; give the copy an identity of \
                 its own: catchment adopt --database FILE"
            );
        } else if retention != Retention::Limits {
            log::warn!(
                event = "consumer.foreign", stream = stream, consumer = name, other = maker;
                "broker: stream {stream} also keeps events for consumer {name}, created by {maker} for a copy of this \
                 database or for its original; if that database no longer exists: nats consumer rm {stream} {name}"
            );
        }
    }
}
