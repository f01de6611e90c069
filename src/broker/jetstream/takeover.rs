//! What to do if the consumer limit of the stream or of the account is reached.
//!
//! With limits retention an older consumer of our own is deleted first: the stream keeps no events for it. With
//! interest retention the last one must remain, because the stream keeps events for it. It is taken over. Its earlier
//! deliveries need care: a process may have died before it stored them. The server would repeat them only after an
//! hour, and a later acknowledgement would include them. So the consumer is reset to the position reached (server 2.14
//! and later). With an older server, the deliveries that were not stored are first read from the stream, message by
//! message.

use super::api::Api;
use super::api_error::to_error;
use super::api_types::{ConsumerConfig, ConsumerInfo};
use super::claims::{Claim, Claims, RESOLVE_CONFLICT};
use super::consumer_request::{ConsumerRequest, CreatedConsumer, matches_request};
use super::pulls::EXPIRES;
use super::retention::Retention;
use super::unstored_deliveries::UnstoredDeliveries;
use crate::broker::broker_error;
use crate::config::BrokerConfig;
use crate::error::{BrokerFault, Error};

/// The first version that can reset consumers.
const RESET_VERSION: (u32, u32) = (2, 14);

/// Deletes consumers of our own for which the stream keeps nothing. `false` if nothing was deleted.
pub(super) fn make_room(api: &Api<'_>, config: &BrokerConfig, retention: Retention, claims: &mut Claims) -> bool {
    if retention != Retention::Limits {
        claims.complete(api, &config.stream);
    }
    // The one with the lowest acknowledgement keeps all events that others with the same subjects keep.
    let floor = |claim: &&Claim| claim.info().map_or(0, |info| info.ack_floor.stream_seq);
    let subjects = |claim: &Claim| {
        claim.info().map(|info| (info.config.filter_subject.clone(), info.config.filter_subjects.clone()))
    };
    let lowest = claims.own().min_by_key(floor);
    let is_spare = |claim: &&Claim| {
        retention == Retention::Limits
            || lowest.is_some_and(|lowest| lowest.name != claim.name && subjects(lowest) == subjects(claim))
    };
    let spare: Vec<_> = claims.own().filter(is_spare).map(|claim| claim.name.clone()).collect();
    let mut deleted = Vec::new();
    for name in spare {
        match api.delete_consumer(&config.stream, &name) {
            Ok(()) => {
                log::debug!("broker: deleted the older consumer {name}: the consumer limit is reached");
                deleted.push(name);
            }
            Err(failure) => log::debug!("broker: the older consumer {name} cannot be deleted: {failure}"),
        }
    }
    claims.remove(&deleted);
    !deleted.is_empty()
}

/// Takes over a consumer of our own that matches `wanted`.
pub(super) fn take_over(
    api: &Api<'_>,
    request: &ConsumerRequest<'_>,
    wanted: &ConsumerConfig,
    claims: &Claims,
) -> Result<CreatedConsumer, Error> {
    let (config, server) = (request.config, api.link.server());
    let stream = &config.stream;
    let refused = |detail: String| broker_error(&server.address, BrokerFault::Request, detail);
    let limit = "maximum consumers limit reached";
    let own = choose(claims, wanted, request.whole_stream).filter(|_| request.retention != Retention::Limits);
    let Some((claim, info)) = own else {
        let others: Vec<_> =
            claims.others().map(|claim| format!("; {} created {}", claim.maker(), claim.name)).collect();
        let others = others.concat();
        return Err(refused(format!(
            "stream {stream}: {limit}, of the stream or of the account, and none of the consumers is ours{others}"
        ))
        .with_remedy(format!("raise max_consumers, or delete a consumer (nats consumer ls {stream})")));
    };
    let name = &claim.name;
    if !is_usable(name, info, wanted, request.whole_stream) {
        return Err(refused(format!(
            "stream {stream}: {limit}, and our consumer {name} does not have the settings that are needed now"
        ))
        .with_remedy(format!(
            "raise max_consumers, or delete the consumer (nats consumer rm {stream} {name}: the events that the stream keeps \
             for it are lost)"
        )));
    }
    // Pull requests of our own lost connections expire within that time. Later ones are from another collector.
    if claim.is_in_use() {
        let detail = format!(
            "stream {stream}: {limit}, and consumer {name} has pull requests: from a lost connection, for {EXPIRES:?} at \
             most, or from another collector with a copy of this database"
        );
        return Err(broker_error(&server.address, BrokerFault::Contested, detail).with_remedy(RESOLVE_CONFLICT));
    }
    let next = request.resume.after.sequence + 1;
    let mut info = info.clone();
    if server.is_at_least(RESET_VERSION) {
        let next = next.max(info.config.opt_start_seq.unwrap_or(1));
        match api.reset_consumer(stream, name, next) {
            Ok(info) => {
                log::debug!("broker: reset consumer {name} to {next}: the consumer limit is reached");
                return Ok(CreatedConsumer { name: name.clone(), info, unstored: None });
            }
            // The user lacks the permission, or another server of the cluster is older.
            Err(failure) => log::debug!("broker: consumer {name} cannot be reset: {failure}"),
        }
        info = api.consumer(stream, name).map_err(|failure| to_error(api.link, config, &failure))?;
    }
    log::debug!("broker: taking over consumer {name}: the consumer limit is reached");
    let (last, number) = (info.delivered.stream_seq, info.delivered.consumer_seq);
    let ack_reply = format!("$JS.ACK.{stream}.{name}.1.{last}.{number}.0.0");
    let unstored = UnstoredDeliveries::new(next, last, ack_reply);
    Ok(CreatedConsumer { name: name.clone(), info, unstored: Some(unstored) })
}

/// The consumer of our own to take over: one that matches the request, else any.
fn choose<'c>(
    claims: &'c Claims,
    wanted: &ConsumerConfig,
    whole_stream: bool,
) -> Option<(&'c Claim, &'c ConsumerInfo)> {
    let own = || claims.own().filter_map(|claim| Some((claim, claim.info()?)));
    own().find(|(claim, info)| is_usable(&claim.name, info, wanted, whole_stream)).or_else(|| own().next())
}

/// Whether a consumer matches the request, apart from its name and its start.
fn is_usable(name: &str, info: &ConsumerInfo, wanted: &ConsumerConfig, whole_stream: bool) -> bool {
    let expected = ConsumerConfig {
        name: Some(name.to_owned()),
        durable_name: Some(name.to_owned()),
        deliver_policy: info.config.deliver_policy.clone(),
        opt_start_seq: info.config.opt_start_seq,
        ..wanted.clone()
    };
    matches_request(&info.config, &expected, whole_stream)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_consumer_that_is_as_wanted_is_taken_before_others() {
        let config = |name: &str, subject: &str| {
            json!({
                "name": name, "durable_name": name, "deliver_policy": "all", "ack_policy": "all",
                "filter_subject": subject, "replay_policy": "instant",
            })
        };
        let consumer = |name: &str, subject: &str| {
            let info = json!({
                "config": config(name, subject), "num_pending": 0, "delivered": { "consumer_seq": 0, "stream_seq": 0 }
            });
            (name.to_owned(), serde_json::from_value(info).expect("a consumer"))
        };
        let claims = Claims::of_this_database([consumer("edited", "a"), consumer("fits", "b")]);
        let taken = |subject: &str| {
            let wanted = serde_json::from_value(config("new", subject)).expect("settings");
            choose(&claims, &wanted, false).map(|(claim, _)| claim.name.as_str())
        };
        assert_eq!((taken("a"), taken("b"), taken("c")), (Some("edited"), Some("fits"), Some("edited")));
    }
}
