//! The stream and its surroundings as the server describes them, without a consumer of our own.

use std::time::Duration;

use super::api::{Account, Api, Failure, Stream, code};
use super::claims::{Claim, Claims};
use super::consumer::Keeping;
use super::facts::position_in;
use super::stored;
use super::stream::{explain, is_whole, loses_what_it_acknowledges, refusal, silent};
use crate::broker::connection::Link;
use crate::broker::stream_status::{ConsumerStatus, DatabasePosition, JetStreamStatus, StreamStatus};
use crate::config::BrokerConfig;
use crate::error::Error;

/// Asks for account, stream and consumer.
pub(in crate::broker) fn stream_status(
    link: &Link,
    config: &BrokerConfig,
    standing: DatabasePosition<'_>,
) -> Result<JetStreamStatus, Error> {
    let api = Api { link, prefix: config.api_prefix(), within: config.timeout, stop: None };
    let explain = |failure: Failure| explain(link, config, &failure);
    let account = api.account().map_err(explain)?;
    let stream = match api.stream(&config.stream) {
        Err(failure) if failure.is_code(code::NO_STREAM) => None,
        found => Some(found.map_err(explain)?),
    };
    Ok(JetStreamStatus {
        stored: account.storage,
        most_stored: u64::try_from(account.limits.max_storage).ok().filter(|most| *most > 0),
        stream: stream.map(|stream| describe(&api, config, standing, &account, &stream)).transpose()?,
    })
}

fn describe(
    api: &Api<'_>,
    config: &BrokerConfig,
    standing: DatabasePosition<'_>,
    account: &Account,
    stream: &Stream,
) -> Result<StreamStatus, Error> {
    let settings = &stream.config;
    let resume = position_in(api, config, standing.history, 0, stream)?;
    let keeping = Keeping::of(stream, config, standing.pipeline_holds);
    let claims =
        standing.owner.map(|owner| Claims::ask(api, &config.stream, owner, None, api.within)).unwrap_or_default();
    Ok(StreamStatus {
        subjects: settings.subjects.clone(),
        retention: settings.retention.clone(),
        storage: settings.storage.clone(),
        max_age: Some(Duration::from_nanos(settings.max_age)).filter(|age| !age.is_zero()),
        duplicate_window: Duration::from_nanos(settings.duplicate_window),
        acknowledges: !settings.no_ack,
        is_whole: is_whole(&config.subjects, settings),
        loses_what_it_acknowledges: loses_what_it_acknowledges(settings),
        mismatch: stored::mismatch(config, settings),
        silent: silent(api, config, stream),
        messages: stream.state.messages,
        behind: stream.state.messages.min(stream.state.last_seq.saturating_sub(resume.after.sequence)),
        news: resume.news,
        refusal: refusal(config, stream),
        unacknowledged: too_few(keeping, account, stream),
        forgets: Some(Duration::from_nanos(settings.consumer_limits.inactive_threshold))
            .filter(|limit| keeping != Keeping::Limits && !limit.is_zero()),
        consumer: claims.own().max_by_key(|claim| &claim.name).and_then(tell),
        others: claims.others().filter_map(tell).collect(),
    })
}

/// The lower of the limits on unacknowledged events where it is below what the consumer would ask for.
fn too_few(keeping: Keeping, account: &Account, stream: &Stream) -> Option<(u64, u64)> {
    let needed = keeping.unacknowledged()? as u64;
    let limits = [account.limits.max_ack_pending, stream.config.consumer_limits.max_ack_pending];
    let least = limits.into_iter().filter_map(|limit| u64::try_from(limit).ok()).filter(|limit| *limit > 0).min()?;
    (least < needed).then_some((least, needed))
}

fn tell(claim: &Claim) -> Option<ConsumerStatus> {
    let info = claim.info()?;
    Some(ConsumerStatus {
        name: claim.name.clone(),
        pending: info.num_pending,
        in_use: claim.is_in_use(),
        paused: info.paused_until(),
        maker: claim.maker(),
    })
}
