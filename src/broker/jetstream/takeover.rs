//! What to do where the stream, or the account, has no room for one more consumer.
//!
//! On a stream with limits an older one of our own is deleted first: it stands for nothing. On one with interest retention
//! the last one must stay, for the stream keeps events for it. It is taken over. It must not simply go on: what it delivered to
//! a process that died before storing it would come again only after an hour, and acknowledging anything later would count
//! for that too. So a server that can (2.14 and later) resets it to the position reached. With an older server, what it has
//! delivered and nobody has stored is read from the stream message by message first.

use super::api::Api;
use super::api_error::to_error;
use super::api_types::{ConsumerConfig, ConsumerInfo};
use super::claims::{Claim, Claims};
use super::consumer_request::{ConsumerRequest, CreatedConsumer, matches_request};
use super::pulls::EXPIRES;
use super::retention::Retention;
use super::unstored_deliveries::UnstoredDeliveries;
use crate::broker::broker_error;
use crate::config::BrokerConfig;
use crate::error::{BrokerFault, Error};

/// The first version that resets consumers.
const RESETS: (u32, u32) = (2, 14);

/// Deletes consumers of our own that stand for nothing; `false` where there is none.
pub(super) fn make_room(api: &Api<'_>, config: &BrokerConfig, retention: Retention, claims: &mut Claims) -> bool {
    if retention != Retention::Limits {
        claims.complete(api, &config.stream);
    }
    // What stands lower keeps all that the others of the same subjects do.
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
                log::debug!("broker: deleted the older consumer {name}: there is no room for two");
                deleted.push(name);
            }
            Err(failure) => log::debug!("broker: the older consumer {name} is left: {failure}"),
        }
    }
    claims.remove(&deleted);
    !deleted.is_empty()
}

/// Goes on with the one consumer of our own, such as `wanted` would be.
pub(super) fn take_over(
    api: &Api<'_>,
    request: &ConsumerRequest<'_>,
    wanted: &ConsumerConfig,
    claims: &Claims,
) -> Result<CreatedConsumer, Error> {
    let (config, server) = (request.config, api.link.server());
    let stream = &config.stream;
    let refused = |detail: String| broker_error(&server.address, BrokerFault::Request, detail);
    let own = choose(claims, wanted, request.whole).filter(|_| request.retention != Retention::Limits);
    let Some((claim, info)) = own else {
        let others: Vec<_> =
            claims.others().map(|claim| format!("; {} was made by {}", claim.name, claim.maker())).collect();
        return Err(refused(format!(
            "stream {stream}: maximum consumers limit reached, of the stream or of the account, and none is ours; raise \
             max_consumers, or delete one (nats consumer ls {stream}){}",
            others.concat()
        )));
    };
    let name = &claim.name;
    if !is_usable(name, info, wanted, request.whole) {
        return Err(refused(format!(
            "stream {stream}: maximum consumers limit reached, and consumer {name} has other settings than are wanted now; \
             raise max_consumers, or delete it (nats consumer rm {stream} {name}: what the stream keeps for it is lost)"
        )));
    }
    // Those of our own lost connections end by themselves within that time; who goes on is somebody else.
    if claim.is_in_use() {
        let detail = format!(
            "stream {stream}: maximum consumers limit reached, and somebody pulls from consumer {name}: a connection that was \
             lost, for {EXPIRES:?} at most, or another collector with a copy of this database; stop that one, or give one of \
             the two an identity of its own: catchment adopt"
        );
        return Err(broker_error(&server.address, BrokerFault::Contested, detail));
    }
    let next = request.resume.after.sequence + 1;
    let mut info = info.clone();
    if numbers(&server.version) >= RESETS {
        let next = next.max(info.config.opt_start_seq.unwrap_or(1));
        match api.reset_consumer(stream, name, next) {
            Ok(info) => {
                log::debug!("broker: reset consumer {name} to {next}: there is no room for two");
                return Ok(CreatedConsumer { name: name.clone(), info, unstored: None });
            }
            // This user may not, or another server of the cluster is older.
            Err(failure) => log::debug!("broker: consumer {name} cannot be reset: {failure}"),
        }
        info = api.consumer(stream, name).map_err(|failure| to_error(api.link, config, &failure))?;
    }
    log::debug!("broker: goes on with consumer {name}: there is no room for two");
    let (last, number) = (info.delivered.stream_seq, info.delivered.consumer_seq);
    let ack_reply = format!("$JS.ACK.{stream}.{name}.1.{last}.{number}.0.0");
    let unstored = UnstoredDeliveries::new(next, last, ack_reply);
    Ok(CreatedConsumer { name: name.clone(), info, unstored: Some(unstored) })
}

/// The consumer of our own to go on with: one that is as wanted, else any.
fn choose<'c>(claims: &'c Claims, wanted: &ConsumerConfig, whole: bool) -> Option<(&'c Claim, &'c ConsumerInfo)> {
    let own = || claims.own().filter_map(|claim| Some((claim, claim.info()?)));
    own().find(|(claim, info)| is_usable(&claim.name, info, wanted, whole)).or_else(|| own().next())
}

/// Whether a consumer is as wanted. Where it began, and what it is called, is its own matter.
fn is_usable(name: &str, info: &ConsumerInfo, wanted: &ConsumerConfig, whole: bool) -> bool {
    let expected = ConsumerConfig {
        name: Some(name.to_owned()),
        durable_name: Some(name.to_owned()),
        deliver_policy: info.config.deliver_policy.clone(),
        opt_start_seq: info.config.opt_start_seq,
        ..wanted.clone()
    };
    matches_request(&info.config, &expected, whole)
}

/// Major and minor number.
fn numbers(version: &str) -> (u32, u32) {
    let mut numbers = version.split(['.', '-']).map_while(|number| number.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_consumer_that_matches_request_is_taken_before_others() {
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
