//! Creates the stream if it is missing: with which subjects, and why it cannot be created.

use std::time::Duration;

use super::api::Api;
use super::api_error::{ApiError, code, to_error};
use super::api_types::{AccountInfo, StreamInfo, SubjectTransform};
use super::obstacle::Obstacle;
use super::partition;
use crate::broker::broker_error;
use crate::closest::did_you_mean;
use crate::config::BrokerConfig;
use crate::error::{BrokerFault, Error};
use crate::subject::Filter;

/// Creates the missing stream. `previous` is what the previous session collected from it, if there was one: a stream that was
/// deleted is created again only with the same subjects.
pub(super) fn create(api: &Api<'_>, config: &BrokerConfig, previous: Option<&[String]>) -> Result<StreamInfo, Error> {
    let subjects = subjects(config).map_err(|refusal| refusal.or_meant(meant(api, config)).to_error(api.link))?;
    if let Some(had) = previous.filter(|had| config.takes_all_of_stream() && *had != subjects) {
        let what = format!("stream {} was deleted; it had the subjects {}", config.stream, had.join(", "));
        let remedy = "create it again, or set broker.subjects: then the collector creates it";
        return Err(Obstacle::new(what, remedy).to_error(api.link));
    }
    let transform = transform(api, config, &subjects).map_err(|refusal| refusal.to_error(api.link))?;
    let created =
        api.create_stream(&config.stream, &subjects, transform.as_ref()).map_err(|failure| match &failure {
            ApiError::Refused { code: code::SUBJECTS_OVERLAP, .. } => {
                let refusal = taken(api, config, &subjects);
                refusal.unwrap_or_else(|| taken_by(config, &subjects.join(", "), "another stream")).to_error(api.link)
            }
            ApiError::Refused { code: code::MAX_BYTES_REQUIRED, .. } => no_limit(config, &subjects).to_error(api.link),
            ApiError::Refused { description, .. } => {
                let what = format!("cannot create stream {}: {description}", config.stream);
                broker_error(&api.link.server().address, BrokerFault::Stream, what)
            }
            failure => to_error(api.link, config, failure),
        })?;
    let (stream, subjects) = (&config.stream, subjects.join(", "));
    let partitions = config.partitions.map_or_else(String::new, |number| format!(", with {number} partitions"));
    log::info!(
        event = "stream.created", stream = stream, subjects = subjects;
        "broker: created stream {stream} on {subjects}{partitions}"
    );
    Ok(created)
}

/// The subjects with which the missing stream can be created in this account, or why it cannot be.
pub(super) fn examine(api: &Api<'_>, config: &BrokerConfig, account: &AccountInfo) -> Result<Vec<String>, Obstacle> {
    if !config.create_stream {
        return Err(missing(api, config));
    }
    let subjects = subjects(config).map_err(|refusal| refusal.or_meant(meant(api, config)))?;
    if account.limits.requires_max_bytes {
        return Err(no_limit(config, &subjects));
    }
    transform(api, config, &subjects)?;
    taken(api, config, &subjects).map_or(Ok(subjects), Err)
}

/// What makes the stream put the number of the partition before each subject; `None` if it is to have no partitions.
fn transform(api: &Api<'_>, config: &BrokerConfig, subjects: &[String]) -> Result<Option<SubjectTransform>, Obstacle> {
    config
        .partitions
        .map(|number| partition::transform(&config.stream, number, subjects, api.link.server()))
        .transpose()
}

/// Why a stream is missing that must not be created.
pub(super) fn missing(api: &Api<'_>, config: &BrokerConfig) -> Obstacle {
    let what = format!("there is no stream {}", config.stream);
    Obstacle::new(what, "create it, or set broker.create_stream = true").or_meant(meant(api, config))
}

/// The stream that was probably meant: `did you mean CHAT?`. Not asked for long: the server does not answer a user who may not ask.
fn meant(api: &Api<'_>, config: &BrokerConfig) -> Option<String> {
    const TIMEOUT: Duration = Duration::from_secs(1);
    if config.create_stream && config.subjects_of_new_stream().is_some() {
        return None;
    }
    let Api { link, ref prefix, timeout, stop } = *api;
    let names = Api { link, prefix: prefix.clone(), timeout: timeout.min(TIMEOUT), stop }.stream_names().ok()?;
    let meant = did_you_mean(&config.stream, names.iter().map(String::as_str));
    meant.strip_prefix("; ").map(str::to_owned)
}

/// The subjects of the new stream.
fn subjects(config: &BrokerConfig) -> Result<Vec<String>, Obstacle> {
    let name = &config.stream;
    let Some(subjects) = config.subjects_of_new_stream() else {
        let what = format!("there is no stream {name}, and broker.subjects is not set");
        let remedy =
            "create the stream, or set broker.subjects to the subjects that it is to store, or name another stream";
        return Err(Obstacle::new(what, remedy));
    };
    if config.feeds_itself(&subjects).is_some() {
        let subjects = subjects.join(", ");
        let what =
            format!("cannot create stream {name} on {subjects}: it would take JetStream's requests and answers too");
        return Err(Obstacle::new(what, "set broker.subjects to subjects that begin with a word, as events.>"));
    }
    let filters: Vec<Filter> = subjects.iter().filter_map(|subject| subject.parse().ok()).collect();
    for (at, one) in filters.iter().enumerate() {
        if let Some(other) = filters[at + 1..].iter().find(|other| one.overlaps(other)) {
            let (one, other) = (one.as_str(), other.as_str());
            let what = format!(
                "cannot create stream {name}: a stream cannot have subjects that overlap, as {one} and {other}"
            );
            let remedy = "create the stream on subjects that include both (nats stream add); broker.subjects may stay";
            return Err(Obstacle::new(what, remedy));
        }
    }
    Ok(subjects)
}

/// Whether another stream has one of these subjects: then no stream can be created on it. `None` also if that cannot be asked.
fn taken(api: &Api<'_>, config: &BrokerConfig, subjects: &[String]) -> Option<Obstacle> {
    subjects.iter().find_map(|subject| {
        let streams = api.streams_with(subject).ok().filter(|streams| !streams.is_empty())?;
        Some(taken_by(config, subject, &format!("stream {}", streams.join(", "))))
    })
}

fn taken_by(config: &BrokerConfig, subject: &str, stream: &str) -> Obstacle {
    let what = format!("cannot create stream {}: {stream} stores events on {subject} already", config.stream);
    Obstacle::new(what, "collect that stream (broker.stream), or give subjects that no stream has (broker.subjects)")
}

fn no_limit(config: &BrokerConfig, subjects: &[String]) -> Obstacle {
    let name = &config.stream;
    let what = format!("cannot create stream {name}: this account requires a limit on the bytes of each stream");
    let remedy = format!("create it: nats stream add {name} --subjects '{}' --max-bytes 1GB", subjects.join(","));
    Obstacle::new(what, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subjects_of(stream: &str, given: &[&str]) -> Result<Vec<String>, String> {
        let subjects = given.iter().map(|&subject| subject.to_owned()).collect();
        let config = BrokerConfig { stream: stream.into(), subjects, ..BrokerConfig::default() };
        super::subjects(&config).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn a_new_stream_has_subjects_that_do_not_overlap() {
        assert_eq!(subjects_of("N", &["n.>", "n.a", "n.>"]), Ok(vec!["n.>".to_owned()]));
        let said = subjects_of("N", &["n", "a.*", "*.b"]).expect_err("must be refused");
        assert!(said.contains("subjects that overlap, as a.* and *.b; create the stream on"), "{said}");
        let said = subjects_of("N", &[">"]).expect_err("must be refused");
        assert!(said.starts_with("cannot create stream N on >: it would take JetStream's requests"), "{said}");
    }

    #[test]
    fn only_the_default_stream_is_created_without_subjects() {
        assert_eq!(subjects_of("EVENTS", &[]), Ok(vec!["events.>".to_owned()]));
        let said = subjects_of("BOT", &[]).expect_err("must be refused");
        assert!(
            said.starts_with("there is no stream BOT, and broker.subjects is not set; create the stream"),
            "{said}"
        );
    }
}
