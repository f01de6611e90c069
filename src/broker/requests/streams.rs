//! Streams that store requests as events. A client may then take the stream's acknowledgement for the answer.

use nats::Message;
use serde::Deserialize;

use super::Subjects;
use crate::broker::connection::Link;
use crate::config::{BrokerConfig, Mode};

/// How the last token of the answers' subjects begins, before a number.
const TOKEN: &str = "streams-";

/// Asks which streams store these subjects. Nothing waits for the answers, and where none comes nothing is reported.
pub(super) fn ask(link: &Link, config: &BrokerConfig, subjects: &Subjects) {
    if config.mode == Mode::Jetstream {
        for (number, subject) in subjects.shared.iter().enumerate() {
            let body = serde_json::json!({ "subject": subject }).to_string();
            link.publish(format!("{}.STREAM.NAMES", config.api_prefix()), &format!("{TOKEN}{number}"), body);
        }
    }
}

/// The names in an answer to `STREAM.NAMES`; none if it is an error.
pub(in crate::broker) fn names(answer: &[u8]) -> Vec<String> {
    #[derive(Deserialize)]
    struct StreamNames {
        #[serde(default)]
        streams: Option<Vec<String>>,
    }
    serde_json::from_slice(answer).ok().and_then(|StreamNames { streams }| streams).unwrap_or_default()
}

/// The warning that follows from an answer, if any.
pub(super) fn warning(message: &Message, subjects: &Subjects) -> Option<String> {
    let number: usize = message.subject.rsplit('.').next()?.strip_prefix(TOKEN)?.parse().ok()?;
    let subject = subjects.shared.get(number)?;
    let streams = names(&message.data);
    if streams.is_empty() {
        return None;
    }
    let streams = streams.join(", ");
    Some(format!(
        "stream {streams} takes requests on {subject} for events and acknowledges them, and clients may take that for the answer; give \
         it other subjects"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stream_that_takes_requests_is_reported() {
        let subjects = Subjects { shared: vec!["a".into(), "chat.recent".into()], ..Subjects::default() };
        let news_of = |subject, body: &str| warning(&Message::new(subject, None, body, None), &subjects);
        let news = news_of("_INBOX.x.streams-1", r#"{"type":"…","total":1,"streams":["CHAT"]}"#).expect("a warning");
        assert!(news.starts_with("stream CHAT takes requests on chat.recent"), "{news}");
        for (subject, body) in [
            ("_INBOX.x.streams-1", r#"{"total":0,"streams":null}"#),
            ("_INBOX.x.streams-1", r#"{"error":{"code":503}}"#),
            ("_INBOX.x.streams-1", ""),
            ("_INBOX.x.streams-7", r#"{"streams":["CHAT"]}"#),
            ("_INBOX.x.other", r#"{"streams":["CHAT"]}"#),
        ] {
            assert_eq!(news_of(subject, body), None, "{subject} {body}");
        }
    }
}
