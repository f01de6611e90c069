//! Streams that take requests for events: whoever asks may then take the stream's acknowledgement for the answer.

use nats::Message;
use serde::Deserialize;

use super::Subjects;
use crate::broker::connection::Link;
use crate::config::{BrokerConfig, Mode};

/// What the answers' subjects have behind the inbox, before a number.
const TOKEN: &str = "streams-";

/// Asks which streams take these subjects. Nobody waits for the answers, and where there are none nothing is said.
pub(super) fn ask(link: &Link, config: &BrokerConfig, subjects: &Subjects) {
    if config.mode == Mode::Jetstream {
        for (number, subject) in subjects.shared.iter().enumerate() {
            let body = serde_json::json!({ "subject": subject }).to_string();
            link.publish(format!("{}.STREAM.NAMES", config.api_prefix()), &format!("{TOKEN}{number}"), body);
        }
    }
}

/// What an answer says that somebody wants to know.
pub(super) fn news(message: &Message, subjects: &Subjects) -> Option<String> {
    #[derive(Deserialize)]
    struct Names {
        #[serde(default)]
        streams: Option<Vec<String>>,
    }
    let number: usize = message.subject.rsplit('.').next()?.strip_prefix(TOKEN)?.parse().ok()?;
    let subject = subjects.shared.get(number)?;
    let names: Names = serde_json::from_slice(&message.data).ok()?;
    let streams = names.streams.filter(|streams| !streams.is_empty())?.join(", ");
    Some(format!(
        "stream {streams} takes requests on {subject} for events and acknowledges them to whoever asks, who may take that for \
         the answer; give it other subjects"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stream_that_takes_requests_is_news() {
        let subjects = Subjects { shared: vec!["a".into(), "chat.recent".into()], ..Subjects::default() };
        let told = |subject, body: &str| news(&Message::new(subject, None, body, None), &subjects);
        let said = told("_INBOX.x.streams-1", r#"{"type":"…","total":1,"streams":["CHAT"]}"#).expect("news");
        assert!(said.starts_with("stream CHAT takes requests on chat.recent"), "{said}");
        for (subject, body) in [
            ("_INBOX.x.streams-1", r#"{"total":0,"streams":null}"#),
            ("_INBOX.x.streams-1", r#"{"error":{"code":503}}"#),
            ("_INBOX.x.streams-1", ""),
            ("_INBOX.x.streams-7", r#"{"streams":["CHAT"]}"#),
            ("_INBOX.x.other", r#"{"streams":["CHAT"]}"#),
        ] {
            assert_eq!(told(subject, body), None, "{subject} {body}");
        }
    }
}
