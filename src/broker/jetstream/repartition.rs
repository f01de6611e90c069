//! Changes the number of partitions of a stream that is there.

use std::sync::Arc;

use super::api::Api;
use super::api_error::{ApiError, code, to_error};
use super::api_types::{StreamConfig, StreamInfo, SubjectTransform};
use super::obstacle::Obstacle;
use super::partition::{self, Layout};
use super::stream::refusal;
use crate::broker::broker_error;
use crate::broker::connection::{Cluster, Denials, Link};
use crate::config::BrokerConfig;
use crate::error::{BrokerFault, Error};
use crate::pipeline::Signal;

/// What [`repartition`] has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repartitioned {
    /// How many partitions the stream had before; `None` if it had none.
    pub before: Option<u32>,
    /// How many it has now.
    pub now: u32,
    /// The last sequence of the stream when the number was changed: all later events are divided by the new one.
    pub last: u64,
    /// How many consumers the stream has.
    pub consumers: u64,
}

/// Gives the stream as many partitions as `broker.partitions` says. Only events that are published later are divided by the new number.
/// If the stream's `subject_transform` chooses the partition by some tokens of the subject, it goes on to do so. Other settings of the
/// stream are not changed. Blocks for a few times `broker.timeout` at most.
///
/// # Errors
///
/// [`Error::Config`] without `broker.partitions`. [`Error::Broker`]: the stream cannot have partitions, its server refuses, or this user
/// may not change it.
pub fn repartition(config: &BrokerConfig) -> Result<Repartitioned, Error> {
    let Some(wanted) = config.partitions else {
        let remedy = "set it to the number of partitions that the stream is to have, as broker.partitions = 4";
        return Err(Error::config("broker.partitions", "is not set").with_remedy(remedy));
    };
    let denials = Denials::default();
    let link = Link::open_with(&Arc::new(Cluster::new(config)?), &Signal::default(), Arc::new(denials.clone()))?;
    let api = Api { link: &link, prefix: config.api_prefix(), timeout: config.timeout, stop: Some(denials.signal()) };
    let explain = |failure: ApiError| match (&failure, denials.first()) {
        (ApiError::NoAnswer(_), Some(denied)) => {
            broker_error(&link.server().address, BrokerFault::Request, format!("this user {denied}"))
                .with_remedy("allow it at the server; catchment check --permissions=repartition lists what is needed")
        }
        _ => to_error(&link, config, &failure),
    };
    let name = &config.stream;
    let stream = match api.stream(name) {
        Err(failure) if failure.is_code(code::NO_STREAM) => {
            let remedy = "start a collector: it makes the stream with its partitions";
            return Err(Obstacle::new(format!("there is no stream {name}"), remedy).to_error(&link));
        }
        found => found.map_err(explain)?,
    };
    let before = match partition::layout(&stream.config) {
        Layout::Partitions(number) => Some(number),
        Layout::Undivided | Layout::Unusable(_) => None,
    };
    let done = |stream: &StreamInfo| Repartitioned {
        before,
        now: wanted,
        last: stream.state.last_seq,
        consumers: stream.state.consumer_count,
    };
    if before == Some(wanted) {
        return Ok(done(&stream));
    }
    if let Some(obstacle) = refusal(config, &stream).or_else(|| partition::fixed(name, &stream.config)) {
        return Err(obstacle.to_error(&link));
    }
    let transform = changed(name, wanted, &stream.config, &link)?;
    let updated = api.transform_subjects(name, &transform).map_err(explain)?;
    match partition::obstacle(config, &updated.config) {
        None => Ok(done(&updated)),
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
