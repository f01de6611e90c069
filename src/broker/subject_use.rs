//! Finds out whether a request on a subject would become an event. A request is a message like any other: a stream that stores its
//! subject stores it, and so does a collector of core NATS.

use std::time::{Duration, Instant};

use nats::Message;
use serde::Deserialize;

use super::connection::Link;
use super::requests::stream_names;
use crate::config::{BrokerConfig, Mode};
use crate::pipeline::Signal;
use crate::subject::Filter;

/// How long services have for their answers. Most answer within milliseconds; only a subject that no service has takes all of it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Every service answers on this subject: <https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-32.md>.
const INFO: &str = "$SRV.INFO";

/// Why a request on this subject would become an event, if it would. Where the server denies the question (`denied` is raised), or the
/// answer does not come, nothing is known: then this is `None`.
pub(super) fn stored_as_event(link: &Link, config: &BrokerConfig, subject: &str, denied: &Signal) -> Option<String> {
    let streams = streams(link, config, subject, denied);
    if !streams.is_empty() {
        let streams = streams.join(", ");
        return Some(format!("stream {streams} stores messages on {subject}: the request would become an event"));
    }
    if config.mode == Mode::Core && !has_service(link, config, subject, denied)? {
        return Some(format!(
            "no query has the subject {subject}: in mode core, a collector may take the request for an event"
        ));
    }
    None
}

/// The streams that store messages on this subject, as far as the server tells.
fn streams(link: &Link, config: &BrokerConfig, subject: &str, denied: &Signal) -> Vec<String> {
    let question = serde_json::json!({ "subject": subject }).to_string();
    let names = format!("{}.STREAM.NAMES", config.api_prefix());
    let Ok(answer) = link.request(names, question, config.timeout.min(PATIENCE), Some(denied)) else {
        return Vec::new();
    };
    stream_names(&answer.data)
}

/// Whether a service answers on this subject. `None` where that cannot be asked.
fn has_service(link: &Link, config: &BrokerConfig, subject: &str, denied: &Signal) -> Option<bool> {
    const TOKEN: &str = "services";
    let until = Instant::now() + config.timeout.min(PATIENCE);
    let answers = format!("{}.{TOKEN}", link.inbox());
    link.publish(INFO.into(), TOKEN, "");
    loop {
        crossbeam_channel::select! {
            recv(denied.channel()) -> _ => return None,
            recv(link.lost().channel()) -> _ => return None,
            recv(link.messages()) -> message => match message.ok()? {
                message if message.subject != answers => {}
                message if message.is_no_responders() => return Some(false),
                message if answers_on(&message, subject) => return Some(true),
                _ => {}
            },
            default(until.saturating_duration_since(Instant::now())) => return Some(false),
        }
    }
}

/// Whether the service that sent this information has an endpoint for the subject.
fn answers_on(information: &Message, subject: &str) -> bool {
    #[derive(Deserialize)]
    struct Information {
        #[serde(default)]
        endpoints: Vec<Endpoint>,
    }
    #[derive(Deserialize)]
    struct Endpoint {
        subject: String,
    }
    let Ok(Information { endpoints }) = serde_json::from_slice(&information.data) else { return false };
    endpoints.iter().any(|endpoint| endpoint.subject.parse::<Filter>().is_ok_and(|filter| filter.matches(subject)))
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
