//! The disposable consumer: made at a position, read back, and the older ones of the same database deleted.
//!
//! On a stream with limits it acknowledges nothing, lives in the server's memory and goes by itself. On one with interest
//! retention the stream keeps an event only for consumers that have not acknowledged it, so there it acknowledges, is
//! kept on disk, and stays when the collector ends: what is published meanwhile would be lost without it. Where the stream
//! has no room for one more, see [`takeover`](super::takeover).

use std::time::Duration;

use super::api::Api;
use super::api_error::to_error;
use super::api_error::{ApiError, code};
use super::api_types::nanoseconds;
use super::api_types::{ConsumerConfig, ConsumerInfo};
use super::claims::{self, Claims};
use super::consumer_request::{ConsumerRequest, CreatedConsumer, matches_request};
use super::retention::Retention;
use super::stored_subjects;
use super::takeover;
use crate::broker::broker_error;
use crate::config::BrokerConfig;
use crate::error::{BrokerFault, Error};
use crate::pipeline::Mark;

/// How long the server keeps a consumer that nobody asks: it clears away what a dead process leaves.
const INACTIVE: Duration = Duration::from_secs(300);

/// After this long without an acknowledgement the server delivers again. Longer than any commit should take; where one does
/// take longer, the repetition ends the session and changes nothing.
const ACK_WAIT: Duration = Duration::from_secs(3600);

/// Makes the consumer and checks that it is what was asked for; or takes over one of our own, where the stream allows no more.
pub(super) fn create(
    api: &Api<'_>,
    request: &ConsumerRequest<'_>,
    claims: &mut Claims,
) -> Result<CreatedConsumer, Error> {
    let ConsumerRequest { config, owner, stream, resume, retention, .. } = *request;
    let name = claims::new_name(owner);
    let from_start = resume.after == Mark::START;
    let (filter_subject, filter_subjects) = match &config.subjects[..] {
        // On a stream with interest retention it must not hold what it does not collect.
        _ if request.whole && retention == Retention::Limits => (None, None),
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
                // A server before 2.10 refuses a filter of which the stream has nothing.
                let mismatch = stored_subjects::mismatch(config, &stream.config);
                return Err(match mismatch.filter(|_| failure.is_code(code::FILTER_OUTSIDE)) {
                    Some(mismatch) => {
                        broker_error(&api.link.server().address, BrokerFault::Request, mismatch.to_string())
                    }
                    None => to_error(api.link, config, &failure),
                });
            }
        }
    };
    if matches_request(&info.config, &wanted, request.whole) {
        return Ok(CreatedConsumer { name, info, unstored: None });
    }
    // An old server silently drops what it does not know, and would send another selection of events.
    let server = api.link.server();
    let what = if info.config.filter_subjects == wanted.filter_subjects {
        format!("another consumer than was asked for: {:?} instead of {wanted:?}", info.config)
    } else {
        let way_out = "give one subject, or exactly those of the stream, or use server 2.10 or later";
        format!("a consumer without the several subjects; {way_out}")
    };
    if let Err(failure) = api.delete_consumer(&config.stream, &name) {
        log::debug!("broker: consumer {name} is left to expire: {failure}");
    }
    let detail = format!("server {} made {what}", server.version);
    Err(broker_error(&server.address, BrokerFault::Request, detail))
}

/// The limit that a refusal names, where it is on unacknowledged events and lower than what was asked for. Those of server and
/// account are told nowhere else.
fn max_ack_pending_limit(failure: &ApiError, asked: Option<i64>) -> Option<i64> {
    let ApiError::Refused { code: code::TOO_MANY_UNACKNOWLEDGED, description, .. } = failure else { return None };
    let limit = description.rsplit(' ').next()?.parse().ok()?;
    (0 < limit && limit < asked?).then_some(limit)
}

/// Deletes what earlier sessions on this database have left, but not the current one. Where that fails, the server does it
/// after a while; but not those for which a stream keeps events: they are left until the next session.
pub(super) fn delete_older(api: &Api<'_>, stream: &str, claims: &Claims, current: &str, retention: Retention) {
    let (level, until) = match retention {
        Retention::Limits => (log::Level::Debug, "to expire"),
        Retention::Interest { .. } => (log::Level::Warn, "until the next session, and the stream keeps events for it"),
    };
    if let Some(failure) = &claims.list_error {
        log::log!(level, "broker: older consumers are left {until}: {failure}");
    }
    for claim in claims.own().filter(|claim| claim.name != current) {
        let name = &claim.name;
        match api.delete_consumer(stream, name) {
            Ok(()) => log::debug!("broker: deleted the older consumer {name}"),
            Err(failure) => log::log!(level, "broker: the older consumer {name} is left {until}: {failure}"),
        }
    }
}

/// Says what an operator should know of the stream's consumers: when it forgets ours, and which of copies, or of the original,
/// it keeps events for. Those are left alone.
pub(super) fn warn_operator(config: &BrokerConfig, made: &ConsumerInfo, claims: &Claims, retention: Retention) {
    let forgets = Duration::from_nanos(made.config.inactive_threshold);
    if retention != Retention::Limits && !forgets.is_zero() {
        let stream = &config.stream;
        log::warn!(
            "broker: stream {stream} forgets our consumer when no collector has run for {forgets:?}, and drops what it keeps \
             for it; raise inactive_threshold of its consumer_limits"
        );
    }
    for claim in claims.others() {
        let (name, maker, stream) = (&claim.name, claim.maker(), &config.stream);
        if claim.is_in_use() {
            log::warn!(
                "broker: {maker} collects stream {stream} too, into a copy of this database; give that one an identity of \
                 its own: catchment adopt"
            );
        } else if retention != Retention::Limits {
            log::warn!(
                "broker: stream {stream} also keeps events for consumer {name}, made by {maker} on a copy of this database \
                 or on its original; if that one is gone for good: nats consumer rm {stream} {name}"
            );
        }
    }
}
