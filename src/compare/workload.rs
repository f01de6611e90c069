//! The workload: chat messages made from a seed, the same for every arm and run.

use serde::{Deserialize, Serialize};

use super::CompareError;
use super::random::Random;

/// How a message is encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// Text.
    #[default]
    Json,
    /// Binary, with field names: <https://msgpack.org>.
    MessagePack,
}

impl Codec {
    /// Its name on the command line and in the report.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::MessagePack => "messagepack",
        }
    }
}

/// A chat message; `id` is its number in the workload.
#[allow(clippy::struct_field_names, reason = "the names of the fields in the payload")]
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Message<'a> {
    id: u64,
    username: &'a str,
    message: &'a str,
    timestamp: f64,
}

/// What identifies a message in a row.
#[derive(Deserialize)]
struct Identity {
    id: u64,
}

/// Which messages, and how they are encoded.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Workload {
    pub(super) seed: u64,
    pub(super) events: u64,
    pub(super) codec: Codec,
    /// The prefix of the subjects; the user's name follows.
    pub(super) subject: String,
}

const WORDS: [&str; 24] = [
    "the", "river", "is", "high", "today", "who", "has", "seen", "my", "boat", "lol", "no", "way", "again", "next",
    "song", "please", "what", "a", "night", "grüße", "aus", "dem", "tal",
];

/// Users; the statistics have a row for each.
const USERS: u64 = 50;

/// The texts repeat after this many messages, so that neither memory nor the time to make a message grows with their number.
const TEXTS: u64 = 4_096;

impl Workload {
    /// The number of the message that these bytes encode; `None` if they are no message.
    pub(super) fn identity(&self, payload: &[u8]) -> Option<u64> {
        let message: Identity = match self.codec {
            Codec::Json => serde_json::from_slice(payload).ok()?,
            Codec::MessagePack => rmp_serde::from_slice(payload).ok()?,
        };
        Some(message.id)
    }

    /// Bytes of a payload, on average.
    pub(super) fn payload(&self) -> f64 {
        let some = self.events.clamp(1, 1_000);
        let messages = Messages::new(self, some);
        let bytes: usize =
            (0..some).filter_map(|n| messages.encode(&messages.message(n)).ok()).map(|bytes| bytes.len()).sum();
        bytes as f64 / some as f64
    }
}

/// The messages of a workload.
pub(super) struct Messages {
    codec: Codec,
    texts: Vec<Text>,
}

struct Text {
    subject: String,
    username: String,
    message: String,
}

impl Messages {
    /// For the first `most` messages or more.
    pub(super) fn new(workload: &Workload, most: u64) -> Self {
        let text = |number: u64| {
            let mut random = Random::new(workload.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let words = 3 + random.below(14);
            let message = (0..words).map(|_| WORDS[random.below(WORDS.len() as u64) as usize]).collect::<Vec<_>>();
            let username = format!("viewer{}", random.below(USERS));
            Text { subject: format!("{}.{username}", workload.subject), username, message: message.join(" ") }
        };
        Self { codec: workload.codec, texts: (0..most.clamp(1, TEXTS)).map(text).collect() }
    }

    /// The message of this number.
    pub(super) fn message(&self, number: u64) -> Message<'_> {
        let Text { username, message, .. } = self.text(number);
        Message { id: number, username, message, timestamp: 1_700_000_000.0 + number as f64 / 8.0 }
    }

    /// The subject of the message of this number.
    pub(super) fn subject(&self, number: u64) -> &str {
        &self.text(number).subject
    }

    fn text(&self, number: u64) -> &Text {
        &self.texts[(number % self.texts.len() as u64) as usize]
    }

    /// The message as bytes.
    pub(super) fn encode(&self, message: &Message<'_>) -> Result<Vec<u8>, CompareError> {
        let refused = |detail: String| CompareError::Mismatch { arm: "workload".into(), detail };
        match self.codec {
            Codec::Json => serde_json::to_vec(message).map_err(|e| refused(e.to_string())),
            Codec::MessagePack => rmp_serde::to_vec_named(message).map_err(|e| refused(e.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(codec: Codec) -> Workload {
        Workload { seed: 7, events: 100, codec, subject: "events.chat".into() }
    }

    #[test]
    fn a_seed_gives_the_same_messages_always() {
        let (one, other) = (workload(Codec::Json), workload(Codec::MessagePack));
        let (one, other) = (Messages::new(&one, 100), Messages::new(&other, 100));
        assert_eq!(one.message(3), other.message(3));
        assert_ne!(one.message(3), one.message(4));
        let text = String::from_utf8(one.encode(&one.message(3)).expect("JSON")).expect("UTF-8");
        assert!(text.starts_with(r#"{"id":3,"username":"viewer"#), "{text}");
        assert!(one.subject(3).starts_with("events.chat.viewer"));
    }

    #[test]
    fn texts_repeat_and_messages_do_not() {
        let messages = Messages::new(&workload(Codec::Json), 1_000_000);
        let (first, again) = (messages.message(5), messages.message(5 + TEXTS));
        assert_eq!((first.username, first.message), (again.username, again.message));
        assert_ne!(first, again);
        assert_eq!(messages.subject(5), messages.subject(5 + TEXTS));
    }

    #[test]
    fn bytes_of_each_codec_identify_their_message() {
        for codec in [Codec::Json, Codec::MessagePack] {
            let workload = workload(codec);
            let messages = Messages::new(&workload, 100);
            let bytes = messages.encode(&messages.message(42)).expect("bytes");
            assert_eq!(workload.identity(&bytes), Some(42));
            assert_eq!(workload.identity(&bytes[1..]), None);
        }
        assert!(workload(Codec::MessagePack).payload() < workload(Codec::Json).payload());
    }
}
