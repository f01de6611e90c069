//! The disposable consumer: made at a position, read back, and the older ones of the same database deleted.
//!
//! On a stream with limits it acknowledges nothing, lives in the server's memory and goes by itself. On one with interest
//! retention the stream keeps an event only for consumers that have not acknowledged it, so there it acknowledges, is
//! kept on disk, and stays when the collector ends: what is published meanwhile would be lost without it. Where the stream
//! has no room for one more, see [`takeover`](super::takeover).

use std::time::Duration;

use super::api::{Api, ApiError, ConsumerConfig, ConsumerInfo, StreamInfo, code};
use super::claims::{self, Claims, Owner};
use super::resume_point::ResumePoint;
use super::stored_subjects;
use super::stream::{INTEREST, explain};
use super::takeover::{self, UnstoredDeliveries};
use crate::broker::broker_error;
use crate::config::BrokerConfig;
use crate::error::{BrokerFault, Error};
use crate::pipeline::Mark;

/// Whether the stream keeps events until they are acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retention {
    /// It keeps them as its limits say.
    Limits,
    /// Until every consumer has acknowledged them; so many can be under way to the database.
    Interest { unacknowledged: usize },
}

impl Retention {
    /// How this stream keeps what a collector with these settings, whose pipeline holds so many events, takes in.
    pub(super) fn of(stream: &StreamInfo, config: &BrokerConfig, pipeline_holds: usize) -> Self {
        if stream.config.retention != INTEREST {
            return Self::Limits;
        }
        Self::Interest { unacknowledged: pipeline_holds + config.prefetch.events * config.prefetch.requests }
    }

    pub(super) fn unacknowledged(self) -> Option<usize> {
        match self {
            Self::Limits => None,
            Self::Interest { unacknowledged } => Some(unacknowledged),
        }
    }
}

pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// How long the server keeps a consumer that nobody asks: it clears away what a dead process leaves.
const INACTIVE: Duration = Duration::from_secs(300);

/// After this long without an acknowledgement the server delivers again. Longer than any commit should take; where one does
/// take longer, the repetition ends the session and changes nothing.
const ACK_WAIT: Duration = Duration::from_secs(3600);

/// What a consumer is to be.
pub(super) struct ConsumerRequest<'a> {
    pub(super) config: &'a BrokerConfig,
    pub(super) owner: &'a Owner,
    pub(super) stream: &'a StreamInfo,
    pub(super) resume: &'a ResumePoint,
    pub(super) retention: Retention,
    /// It is to have the whole stream; then it may be without filters, see [`selection`](super::local_filter).
    pub(super) whole: bool,
    /// Until when somebody had the one before deliver nothing.
    pub(super) paused: Option<&'a str>,
}

/// A consumer to read from.
pub(super) struct CreatedConsumer {
    pub(super) name: String,
    pub(super) info: ConsumerInfo,
    /// What it has delivered to nobody who stored it.
    pub(super) unstored: Option<UnstoredDeliveries>,
}

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
                    None => explain(api.link, config, &failure),
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

/// Whether a consumer delivers what was wanted, as it was wanted. Limits of the server, the account and the stream may have
/// changed the rest of its settings: those are heeded as they are.
pub(super) fn matches_request(made: &ConsumerConfig, wanted: &ConsumerConfig, whole: bool) -> bool {
    let unfiltered = whole && made.filter_subject.is_none() && made.filter_subjects.is_none();
    let same_events = unfiltered && wanted.filter_subject.is_none()
        || made.filter_subject == wanted.filter_subject && made.filter_subjects == wanted.filter_subjects;
    same_events
        && !made.headers_only
        && made.name == wanted.name
        && made.durable_name == wanted.durable_name
        && made.deliver_policy == wanted.deliver_policy
        && made.opt_start_seq == wanted.opt_start_seq
        && made.ack_policy == wanted.ack_policy
        && made.replay_policy == wanted.replay_policy
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
