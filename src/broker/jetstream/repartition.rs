//! Changes the number of partitions of a stream that is there.

use std::sync::Arc;

use super::api::Api;
use super::api_error::{ApiError, code, to_error};
use super::api_types::{StreamConfig, SubjectTransform};
use super::obstacle::Obstacle;
use super::partition::{self, Layout};
use crate::broker::connection::{Cluster, Link};
use crate::config::BrokerConfig;
use crate::error::Error;
use crate::pipeline::Signal;

/// What [`repartition`] has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repartitioned {
    /// How many partitions the stream had before; `None` if it had none.
    pub before: Option<u32>,
    /// How many it has now.
    pub now: u32,
    /// The last sequence of the stream before the change: events up to it stay in the partitions that they have.
    pub last: u64,
}

/// Gives the stream as many partitions as `broker.partitions` says. Only events that are published later are divided by the new number.
/// If the stream's `subject_transform` chooses the partition by some tokens of the subject, it goes on to do so. Other settings of the
/// stream are not changed. Blocks for a few times `broker.timeout` at most.
///
/// # Errors
///
/// [`Error::Config`] without `broker.partitions`. [`Error::Broker`]: the stream cannot have partitions, or its server refuses.
pub fn repartition(config: &BrokerConfig) -> Result<Repartitioned, Error> {
    let Some(wanted) = config.partitions else {
        let remedy = "give the number of partitions that the stream is to have";
        return Err(Error::config("broker.partitions", "is not set").with_remedy(remedy));
    };
    let link = Link::open(&Arc::new(Cluster::new(config)?), &Signal::default())?;
    let api = Api { link: &link, prefix: config.api_prefix(), timeout: config.timeout, stop: None };
    let explain = |failure: ApiError| to_error(&link, config, &failure);
    let refused = |what: String, remedy: &str| Obstacle::new(what, remedy).to_error(&link);
    let name = &config.stream;
    let stream = match api.stream(name) {
        Err(failure) if failure.is_code(code::NO_STREAM) => {
            return Err(refused(
                format!("there is no stream {name}"),
                "start a collector: it makes the stream with its partitions",
            ));
        }
        found => found.map_err(explain)?,
    };
    if stream.config.mirror.is_some() {
        return Err(refused(
            format!("stream {name} is a mirror: a mirror has no partitions"),
            "give partitions to the stream that it mirrors",
        ));
    }
    if stream.config.retention != "limits" {
        return Err(refused(
            format!(
                "stream {name} has {} retention: it would drop events of a partition without a collector",
                stream.config.retention
            ),
            "make another stream with broker.partitions, or give this one limits retention",
        ));
    }
    let before = match partition::layout(&stream.config) {
        Layout::Partitions(number) => Some(number),
        Layout::Undivided if stream.config.subject_transform.is_none() => None,
        Layout::Undivided | Layout::Unusable(_) => {
            return Err(refused(
                format!("stream {name} has a subject_transform of its own, and a stream can have only one"),
                "remove it (nats stream edit), or make another stream",
            ));
        }
    };
    let done = Repartitioned { before, now: wanted, last: stream.state.last_seq };
    if before == Some(wanted) {
        return Ok(done);
    }
    let transform = changed(name, wanted, &stream.config, &link)?;
    let updated = api.transform_subjects(name, &transform).map_err(explain)?;
    match partition::obstacle(config, &updated.config) {
        None => Ok(done),
        Some(obstacle) => Err(obstacle.to_error(&link)),
    }
}

/// The stream's transform with another number of partitions.
fn changed(name: &str, wanted: u32, stream: &StreamConfig, link: &Link) -> Result<SubjectTransform, Error> {
    let present = stream.subject_transform.as_ref().and_then(|transform| partition::with_number(transform, wanted));
    present.map_or_else(
        || {
            partition::transform(name, wanted, &stream.subjects, link.server())
                .map_err(|obstacle| obstacle.to_error(link))
        },
        Ok,
    )
}
