//! The workload: chat messages made from a seed, the same for every arm and run.

use std::hash::Hasher;

use serde::{Deserialize, Serialize};

use super::CompareError;

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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Message {
    id: u64,
    username: String,
    message: String,
    timestamp: f64,
}

impl Message {
    pub(super) fn number(&self) -> u64 {
        self.id
    }
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

impl Workload {
    /// The message of this number.
    pub(super) fn message(&self, number: u64) -> Message {
        let mut random = Random::new(self.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let words = 3 + random.below(14);
        let message = (0..words).map(|_| WORDS[random.below(WORDS.len() as u64) as usize]).collect::<Vec<_>>();
        Message {
            id: number,
            username: format!("viewer{}", random.below(USERS)),
            message: message.join(" "),
            timestamp: 1_700_000_000.0 + number as f64 / 8.0,
        }
    }

    pub(super) fn subject(&self, message: &Message) -> String {
        format!("{}.{}", self.subject, message.username)
    }

    /// The message as bytes.
    pub(super) fn encode(&self, message: &Message) -> Result<Vec<u8>, CompareError> {
        let refused = |detail: String| CompareError::Mismatch { arm: "workload".into(), detail };
        match self.codec {
            Codec::Json => serde_json::to_vec(message).map_err(|e| refused(e.to_string())),
            Codec::MessagePack => rmp_serde::to_vec_named(message).map_err(|e| refused(e.to_string())),
        }
    }

    /// The number of the message that these bytes encode; `None` if they are no message.
    pub(super) fn identity(&self, payload: &[u8]) -> Option<u64> {
        let message: Message = match self.codec {
            Codec::Json => serde_json::from_slice(payload).ok()?,
            Codec::MessagePack => rmp_serde::from_slice(payload).ok()?,
        };
        Some(message.id)
    }

    /// Bytes of a payload, on average.
    pub(super) fn payload(&self) -> f64 {
        let some = self.events.clamp(1, 1_000);
        let bytes: usize = (0..some).filter_map(|n| self.encode(&self.message(n)).ok()).map(|bytes| bytes.len()).sum();
        bytes as f64 / some as f64
    }
}

/// A hash of one row's content.
pub(super) fn content(subject: &str, payload: &[u8]) -> u64 {
    #[allow(deprecated, reason = "the one hash of the standard library that is the same everywhere and always")]
    let mut hash = std::hash::SipHasher::new();
    hash.write(subject.as_bytes());
    hash.write_u8(0xff);
    hash.write(payload);
    hash.finish()
}

/// Pseudo-random numbers, the same for the same seed: `SplitMix64`, <https://prng.di.unimi.it/splitmix64.c>.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `limit`, which is small, so that the bias of the remainder does not matter.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
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
        assert_eq!(one.message(3), other.message(3));
        assert_ne!(one.message(3), one.message(4));
        let text = String::from_utf8(one.encode(&one.message(3)).expect("JSON")).expect("UTF-8");
        assert!(text.starts_with(r#"{"id":3,"username":"viewer"#), "{text}");
    }

    #[test]
    fn bytes_of_each_codec_identify_their_message() {
        for codec in [Codec::Json, Codec::MessagePack] {
            let workload = workload(codec);
            let bytes = workload.encode(&workload.message(42)).expect("bytes");
            assert_eq!(workload.identity(&bytes), Some(42));
            assert_eq!(workload.identity(&bytes[1..]), None);
        }
        assert!(workload(Codec::MessagePack).payload() < workload(Codec::Json).payload());
    }

    #[test]
    fn content_is_subject_and_payload() {
        assert_ne!(content("a", b"bc"), content("ab", b"c"));
        assert_ne!(content("a", b"b"), content("a", b"c"));
    }
}
