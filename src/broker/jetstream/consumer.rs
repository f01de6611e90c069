//! The disposable consumer: made at a position, read back, and the older ones of the same database deleted.
//!
//! On a stream with limits it acknowledges nothing, lives in the server's memory and goes by itself. On one with interest
//! retention the stream keeps an event only for consumers that have not acknowledged it, so there it acknowledges, is
//! kept on disk, and stays when the collector ends: what is published meanwhile would be lost without it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::api::{Api, Consumer, ConsumerConfig, Stream};
use super::epoch::Resume;
use super::stream::{INTEREST, explain};
use crate::broker::broker_error;
use crate::config::BrokerConfig;
use crate::error::{BrokerFault, Error};
use crate::pipeline::Mark;

/// The stem of the names, followed by a database's identity.
const PREFIX: &str = "catchment-";

/// What the names of this database's consumers begin with. The rest grows with time.
pub(super) fn stem(identity: &str) -> String {
    format!("{PREFIX}{identity}-")
}

/// Whether the stream keeps events until they are acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeping {
    /// It keeps them as its limits say.
    Limits,
    /// Until every consumer has acknowledged them; so many can be under way to the database.
    Interest { unacknowledged: usize },
}

impl Keeping {
    /// How this stream keeps what a collector with these settings, whose pipeline holds so many events, takes in.
    pub(super) fn of(stream: &Stream, config: &BrokerConfig, pipeline_holds: usize) -> Self {
        if stream.config.retention != INTEREST {
            return Self::Limits;
        }
        Self::Interest { unacknowledged: pipeline_holds + config.ahead.events * config.ahead.requests }
    }

    pub(super) fn unacknowledged(self) -> Option<usize> {
        match self {
            Self::Limits => None,
            Self::Interest { unacknowledged } => Some(unacknowledged),
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// How long the server keeps a consumer that nobody asks: it clears away what a dead process leaves.
const INACTIVE: Duration = Duration::from_secs(300);

/// After this long without an acknowledgement the server delivers again. Longer than any commit should take; where one does
/// take longer, the repetition ends the session and changes nothing.
const ACK_WAIT: Duration = Duration::from_secs(3600);

/// Makes the consumer and checks that it is what was asked for. Where that is the `whole` stream, an old server's consumer
/// without our several subjects is too; see [`is_unfiltered`].
pub(super) fn make(
    api: &Api<'_>,
    config: &BrokerConfig,
    identity: &str,
    resume: &Resume,
    keeping: Keeping,
    whole: bool,
) -> Result<(String, Consumer), Error> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("{}{:x}-{number}", stem(identity), now / 1_000);
    let from_start = resume.after == Mark::START;
    let (filter_subject, filter_subjects) = match &config.subjects[..] {
        [one] => (Some(one.clone()), None),
        several => (None, Some(several.to_vec())),
    };
    let acks = keeping.unacknowledged();
    let wanted = ConsumerConfig {
        name: Some(name.clone()),
        durable_name: acks.map(|_| name.clone()),
        deliver_policy: if from_start { "all" } else { "by_start_sequence" }.into(),
        opt_start_seq: (!from_start).then_some(resume.after.sequence + 1),
        ack_policy: if acks.is_some() { "all" } else { "none" }.into(),
        ack_wait: acks.map(|_| nanoseconds(ACK_WAIT)),
        max_ack_pending: acks.map(|most| i64::try_from(most).unwrap_or(i64::MAX)),
        filter_subject,
        filter_subjects,
        replay_policy: "instant".into(),
        inactive_threshold: if acks.is_some() { 0 } else { nanoseconds(INACTIVE) },
        mem_storage: acks.is_none(),
    };
    let mut made =
        api.create_consumer(&config.stream, &name, &wanted).map_err(|failure| explain(api.link, config, &failure))?;
    if acks.is_none() {
        (made.config.ack_wait, made.config.max_ack_pending) = (None, None);
    }
    if made.config == wanted || whole && made.config == (ConsumerConfig { filter_subjects: None, ..wanted.clone() }) {
        return Ok((name, made));
    }
    // An old server silently drops what it does not know, and would send another selection of events.
    let server = api.link.server();
    let what = if made.config.filter_subjects == wanted.filter_subjects {
        format!("another consumer than was asked for: {:?} instead of {wanted:?}", made.config)
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

/// Whether it sends what else is in the stream too: what was published there before the stream had the subjects it has now.
pub(super) fn is_unfiltered(made: &Consumer, config: &BrokerConfig) -> bool {
    config.subjects.len() > 1 && made.config.filter_subjects.is_none()
}

/// Deletes what earlier sessions on this database have left. Where that fails, the server does it after a while; but not
/// those for which a stream keeps events: they are left until the next session.
pub(super) fn delete_older(api: &Api<'_>, stream: &str, identity: &str, current: &str, keeping: Keeping) {
    let (level, until) = match keeping {
        Keeping::Limits => (log::Level::Debug, "to expire"),
        Keeping::Interest { .. } => (log::Level::Warn, "until the next session, and the stream keeps events for it"),
    };
    let ours = stem(identity);
    let names = api.consumer_names(stream).unwrap_or_else(|failure| {
        log::log!(level, "broker: older consumers are left {until}: {failure}");
        Vec::new()
    });
    for name in names.iter().filter(|name| name.starts_with(&ours) && *name != current) {
        match api.delete_consumer(stream, name) {
            Ok(()) => log::debug!("broker: deleted the older consumer {name}"),
            Err(failure) => log::log!(level, "broker: the older consumer {name} is left {until}: {failure}"),
        }
    }
}
