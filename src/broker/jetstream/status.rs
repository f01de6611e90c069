//! The status of account, stream and consumers, without a consumer of our own.

use std::time::Duration;

use super::api::Api;
use super::api_error::{ApiError, code, to_error};
use super::api_types::{AccountInfo, StreamInfo};
use super::claims::{Claim, Claims, LOOK_AGAIN};
use super::local_filter::consumer_filters;
use super::partition;
use super::retention::Retention;
use super::stored_subjects;
use super::stream::{acknowledges_before_writing, no_matching_events, refusal, takes_whole_stream};
use super::stream_comparison::find_resume_point;
use super::stream_creation;
use super::stream_status::{ConsumerStatus, DatabasePosition, JetStreamStatus, StreamStatus};
use crate::broker::connection::Link;
use crate::config::BrokerConfig;
use crate::error::Error;

/// Requests the status of account, stream and consumers.
pub(in crate::broker) fn stream_status(
    link: &Link,
    config: &BrokerConfig,
    position: DatabasePosition<'_>,
) -> Result<JetStreamStatus, Error> {
    let api = Api { link, prefix: config.api_prefix(), timeout: config.timeout, stop: None };
    let explain = |failure: ApiError| to_error(link, config, &failure);
    let account = api.account().map_err(explain)?;
    let stream = match api.stream(&config.stream) {
        Err(failure) if failure.is_code(code::NO_STREAM) => None,
        found => Some(found.map_err(explain)?),
    };
    let new_stream = stream.is_none().then(|| stream_creation::examine(&api, config, &account));
    Ok(JetStreamStatus {
        new_stream,
        stored: account.storage,
        most_stored: u64::try_from(account.limits.max_storage).ok().filter(|most| *most > 0),
        stream: stream.map(|stream| describe(&api, config, position, &account, &stream)).transpose()?,
    })
}

fn describe(
    api: &Api<'_>,
    config: &BrokerConfig,
    position: DatabasePosition<'_>,
    account: &AccountInfo,
    stream: &StreamInfo,
) -> Result<StreamStatus, Error> {
    let settings = &stream.config;
    let resume = find_resume_point(api, config, position.history, 0, stream)?;
    let retention = Retention::of(stream, config, position.pipeline_holds);
    let list = |owner| Claims::list(api, &config.stream, owner, None, api.timeout, LOOK_AGAIN);
    let claims = position.owner.map(list).unwrap_or_default();
    Ok(StreamStatus {
        subjects: settings.subjects.clone(),
        collected: stored_subjects::collected(config, settings),
        consumer_filters: consumer_filters(config).len(),
        retention: settings.retention.clone(),
        storage: settings.storage.clone(),
        max_age: Some(Duration::from_nanos(settings.max_age)).filter(|age| !age.is_zero()),
        duplicate_window: Duration::from_nanos(settings.duplicate_window),
        acknowledges: !settings.no_ack,
        is_whole: takes_whole_stream(&partition::stored_filters(config), settings),
        loses_what_it_acknowledges: acknowledges_before_writing(settings),
        mismatch: stored_subjects::mismatch(config, settings),
        silent: no_matching_events(api, config, stream),
        messages: stream.state.messages,
        behind: behind(api, config, stream, resume.after.sequence),
        news: resume.notice,
        refusal: refusal(config, stream).map(|refusal| refusal.to_string()),
        unacknowledged: unacknowledged_limit(retention, account, stream),
        forgets: Some(Duration::from_nanos(settings.consumer_limits.inactive_threshold))
            .filter(|limit| retention != Retention::Limits && !limit.is_zero()),
        consumer: claims.own().max_by_key(|claim| &claim.name).and_then(consumer_status),
        others: claims.others().filter_map(consumer_status).collect(),
    })
}

/// How many events come after this position, at most: those on other subjects count too. 0 if there is none that is collected.
fn behind(api: &Api<'_>, config: &BrokerConfig, stream: &StreamInfo, after: u64) -> u64 {
    let most = stream.state.messages.min(stream.state.last_seq.saturating_sub(after));
    let next = || api.next_message(&config.stream, &partition::stored_filters(config), after + 1);
    if most > 0 && matches!(next(), Ok(None)) { 0 } else { most }
}

/// The lowest limit on unacknowledged events and the number that the consumer needs, if the limit is lower.
fn unacknowledged_limit(retention: Retention, account: &AccountInfo, stream: &StreamInfo) -> Option<(u64, u64)> {
    let needed = retention.unacknowledged()? as u64;
    let limits = [account.limits.max_ack_pending, stream.config.consumer_limits.max_ack_pending];
    let least = limits.into_iter().filter_map(|limit| u64::try_from(limit).ok()).filter(|limit| *limit > 0).min()?;
    (least < needed).then_some((least, needed))
}

fn consumer_status(claim: &Claim) -> Option<ConsumerStatus> {
    let info = claim.info()?;
    Some(ConsumerStatus {
        name: claim.name.clone(),
        pending: info.num_pending,
        in_use: claim.is_in_use(),
        paused: info.paused_until(),
        maker: claim.maker(),
    })
}
