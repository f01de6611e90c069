//! Finds out whether a request on a subject would become an event. A request is a message like any other: a stream that stores its
//! subject stores it, and so does a collector of core NATS.

use std::time::{Duration, Instant};

use nats::Message;
use serde::Deserialize;

use super::connection::Link;
use super::requests::stream_names;
use crate::closest::did_you_mean;
use crate::config::{BrokerConfig, Mode};
use crate::pipeline::Signal;
use crate::subject::Filter;

/// How long services have for their answers. Most answer within milliseconds; only a subject that no service has takes all of it.
const TIMEOUT: Duration = Duration::from_secs(1);

/// So many subjects of services are kept, to suggest one.
const MOST_SUBJECTS: usize = 10_000;

/// Every service answers on this subject: <https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-32.md>.
const INFO: &str = "$SRV.INFO";

/// What becomes of a request on a subject.
pub(super) enum SubjectUse {
    /// A query answers it, or nothing is known: the server denies the question, or the answer does not come.
    Request,
    /// It would become an event, for this reason.
    Event(String),
    /// In mode `core`, where no stream has the subject either: there is no service.
    Nothing,
}

/// What becomes of a request on this subject. `denied` is raised where the server denies a question.
pub(super) fn subject_use(link: &Link, config: &BrokerConfig, subject: &str, denied: &Signal) -> SubjectUse {
    let streams = streams(link, config, subject, denied);
    if !streams.is_empty() {
        let streams = streams.join(", ");
        return SubjectUse::Event(format!(
            "stream {streams} stores messages on {subject}: the request would become an event"
        ));
    }
    match config.mode {
        Mode::Core => service_use(link, config, subject, denied),
        Mode::Jetstream => SubjectUse::Request,
    }
}

/// The streams that store messages on this subject, as far as the server tells.
fn streams(link: &Link, config: &BrokerConfig, subject: &str, denied: &Signal) -> Vec<String> {
    let question = serde_json::json!({ "subject": subject }).to_string();
    let names = format!("{}.STREAM.NAMES", config.api_prefix());
    let Ok(answer) = link.request(names, question, config.timeout.min(TIMEOUT), Some(denied)) else {
        return Vec::new();
    };
    stream_names(&answer.data)
}

/// Whether a service answers on this subject.
fn service_use(link: &Link, config: &BrokerConfig, subject: &str, denied: &Signal) -> SubjectUse {
    const TOKEN: &str = "services";
    let until = Instant::now() + config.timeout.min(TIMEOUT);
    let answers = format!("{}.{TOKEN}", link.inbox());
    link.publish(INFO.into(), TOKEN, "");
    let mut others: Vec<String> = Vec::new();
    loop {
        crossbeam_channel::select! {
            recv(denied.channel()) -> _ => return SubjectUse::Request,
            recv(link.messages()) -> message => match message {
                Err(_) => return SubjectUse::Request,
                Ok(message) if message.subject != answers => {}
                Ok(message) if message.is_no_responders() => return SubjectUse::Nothing,
                Ok(message) if answers_on(&message, subject) => return SubjectUse::Request,
                Ok(message) if others.len() < MOST_SUBJECTS => others.extend(endpoints(&message)),
                Ok(_) => {}
            },
            default(until.saturating_duration_since(Instant::now())) => {
                let meant = did_you_mean(subject, others.iter().map(String::as_str));
                return SubjectUse::Event(format!(
                    "no query has the subject {subject}: a collector of mode core may take the request for an event{meant}"
                ));
            }
        }
    }
}

/// The subjects on which services answer, as far as they say so in time. Does not wait where there is no service.
pub(super) fn query_subjects(link: &Link, config: &BrokerConfig, denied: &Signal) -> Vec<String> {
    const TOKEN: &str = "subjects";
    /// All answers come within milliseconds, and nothing says which is the last.
    const LULL: Duration = Duration::from_millis(250);
    let answers = format!("{}.{TOKEN}", link.inbox());
    link.publish(INFO.into(), TOKEN, "");
    let mut timeout = config.timeout.min(TIMEOUT);
    let mut found = Vec::new();
    loop {
        crossbeam_channel::select! {
            recv(denied.channel()) -> _ => return found,
            recv(link.messages()) -> message => match message {
                Ok(message) if message.subject != answers => {}
                Ok(message) if !message.is_no_responders() => {
                    found.extend(endpoints(&message));
                    if found.len() >= MOST_SUBJECTS {
                        return found;
                    }
                    timeout = timeout.min(LULL);
                }
                _ => return found,
            },
            default(timeout) => return found,
        }
    }
}

/// Whether the service that sent this information has an endpoint for the subject.
fn answers_on(information: &Message, subject: &str) -> bool {
    endpoints(information).iter().any(|endpoint| endpoint.parse::<Filter>().is_ok_and(|filter| filter.matches(subject)))
}

/// The subjects of the service that sent this information.
fn endpoints(information: &Message) -> Vec<String> {
    #[derive(Deserialize)]
    struct Information {
        #[serde(default)]
        endpoints: Vec<Endpoint>,
    }
    #[derive(Deserialize)]
    struct Endpoint {
        subject: String,
    }
    let Ok(Information { endpoints }) = serde_json::from_slice(&information.data) else { return Vec::new() };
    endpoints.into_iter().map(|endpoint| endpoint.subject).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_recognised_by_its_subject() {
        let answer = |body: &str| Message::new("_INBOX.x.services", None, body, None);
        let chat = answer(
            r#"{"name":"catchment","endpoints":[{"name":"a","subject":"chat.recent"},{"subject":"chat.*.stats"}]}"#,
        );
        for (subject, expected) in [("chat.recent", true), ("chat.ann.stats", true), ("chat.message", false)] {
            assert_eq!(answers_on(&chat, subject), expected, "{subject}");
        }
        for other in ["", "{}", r#"{"endpoints":[]}"#, r#"{"endpoints":[{"subject":"a..b"}]}"#, "[]"] {
            assert!(!answers_on(&answer(other), "chat.recent"), "{other}");
        }
    }
}
